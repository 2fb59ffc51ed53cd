"""Bodies that are streamed, through a real master and real processes: WSGI, WSGI in threads, ASGI."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from stream_rig import ask

import rota
from rota.common.errors import MaybeExecuted, RemoteError
from rota.common.streams import WINDOW
from rota.testing import LocalCluster

HERE = Path(__file__).parent
MIB = 1024 * 1024
BLOCK = bytes(range(256)) * 256


@pytest.fixture(scope="module", params=["wsgi", "threads", "asgi"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("streams")
    settings = {"slave.service": "site", "slave.threads": 3 if request.param == "threads" else 1}
    app = f"{HERE}/streams_{'asgi' if request.param == 'asgi' else 'wsgi'}.py:application"
    with LocalCluster(app, settings=settings, env={"ROTA_TEST_CLOSED": str(folder / "closed")}) as cluster:
        cluster.notes = folder / "closed"  # type: ignore[attr-defined]
        cluster.kind = request.param  # type: ignore[attr-defined]
        yield cluster


def with_client(cluster: LocalCluster, scenario: Callable[[rota.AsyncClient], Any], address: str = "") -> Any:
    async def run() -> Any:
        async with rota.AsyncClient(address or cluster.address) as client:
            return await scenario(client)

    return asyncio.run(run())


def noted(cluster: Any, since: int) -> str:
    """The next line that an application noted."""
    deadline = time.monotonic() + 20
    while True:
        lines = cluster.notes.read_text().splitlines() if cluster.notes.exists() else []
        if len(lines) > since:
            return str(lines[since])
        assert time.monotonic() < deadline, "nothing was noted"
        time.sleep(0.01)


def notes(cluster: Any) -> int:
    return len(cluster.notes.read_text().splitlines()) if cluster.notes.exists() else 0


def test_a_large_upload_arrives_as_it_was_sent_and_a_small_answer_is_one_message(cluster: LocalCluster) -> None:
    content = Random(1).randbytes(8 * MIB + 17)

    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/digest", content)
        assert (await asked.result())[2] == hashlib.sha256(content).hexdigest().encode()
        assert asked.got == b""

    with_client(cluster, scenario)


def test_what_comes_up_goes_down_while_it_comes(cluster: LocalCluster) -> None:
    content = Random(2).randbytes(3 * MIB)

    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/echo", content)
        assert await asked.result() is None
        assert asked.opening == [200, [[b"content-type" if cluster.kind == "asgi" else b"Content-Type", b"text/plain"]]]  # type: ignore[attr-defined]
        assert asked.ended and asked.content == content

    with_client(cluster, scenario)


def test_an_upload_that_nobody_reads_is_not_sent(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/ignore", bytes(8 * MIB))
        assert (await asked.result())[0] == 200
        assert asked.out is not None and asked.out.granted == 0

    with_client(cluster, scenario)


def test_a_large_answer_needs_little_memory_and_waits_for_a_slow_caller(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        before = int((await ask(client, b"/peak").result())[2])
        asked = ask(client, b"/many?512", slow=True)
        await asked.until(lambda: len(asked.got) > WINDOW - len(BLOCK))
        await asyncio.sleep(0.05)
        assert len(asked.got) <= WINDOW
        asked.slow = False
        client.taken(asked, len(asked.got))
        assert await asked.result() is None
        assert asked.content == BLOCK * 512
        after = int((await ask(client, b"/peak").result())[2])
        assert after - before < 8 * 1024, "KiB, of an answer of 32 MiB"

    with_client(cluster, scenario)


def test_a_failure_in_the_middle_is_told_at_once(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/half")
        with pytest.raises(RemoteError, match="in the middle"):
            await asked.result()
        assert asked.content == b"half" and not asked.ended

    with_client(cluster, scenario)


def test_an_answer_whose_process_dies_is_not_made_again(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/die", handler="site.http-safe")
        with pytest.raises(MaybeExecuted):
            await asked.result()
        assert asked.content == b"half"

    with_client(cluster, scenario)


def test_an_application_whose_caller_is_gone_is_told(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        asked = ask(client, b"/events")
        await asked.until(lambda: len(asked.content) > 20)
        client.withdraw(asked)
        assert await asyncio.to_thread(noted, cluster, since) == "closed"
        assert (await ask(client, b"/plain").result())[2] == b"whole"

    with_client(cluster, scenario)


def test_a_head_request_has_no_body_and_does_not_wait_for_its_end(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/events", method="HEAD")
        status, _, body = await asked.result()
        assert (status, body, asked.got) == (200, b"", b"")

    with_client(cluster, scenario)


def test_without_a_caller_that_streams_everything_is_whole(cluster: LocalCluster) -> None:
    from hosting_rig import arguments

    with cluster.client() as client:
        assert client.call("site.http", *arguments("GET", b"/many?2"))[2] == BLOCK * 2


@pytest.mark.parametrize("cluster", ["threads"], indirect=True)
def test_threads_serve_at_once_and_have_streams_of_their_own(cluster: LocalCluster) -> None:
    content = Random(3).randbytes(2 * MIB)

    async def scenario(client: rota.AsyncClient) -> None:
        met = [ask(client, b"/meet") for _ in range(3)]
        assert [await each.result() for each in met] == [None] * 3
        assert [each.content for each in met] == [b"met True"] * 3
        echoed = [ask(client, b"/echo", content) for _ in range(5)]
        assert [await each.result() for each in echoed] == [None] * 5
        assert all(each.content == content for each in echoed)

    with_client(cluster, scenario)


@pytest.mark.parametrize(
    "app, why", [("streams_asgi.py:application", "many requests at once"), ("node_app.py:app", "one request at a time")]
)
def test_threads_are_for_wsgi_applications(app: str, why: str) -> None:
    with pytest.raises(rota.LoadError, match=why), LocalCluster(f"{HERE}/{app}", settings={"slave.threads": 2}):
        pass


@pytest.mark.parametrize("cluster", ["asgi"], indirect=True)
def test_one_large_message_is_streamed_too(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/large?300000")
        assert await asked.result() is None
        assert asked.content == bytes(300_000)
        whole = ask(client, b"/large?200000")
        assert (await whole.result())[2] == bytes(200_000) and whole.got == b""

    with_client(cluster, scenario)


@pytest.mark.parametrize("cluster", ["asgi"], indirect=True)
def test_what_is_more_than_was_announced_is_cut_off_and_raises(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        for size, told in [(4, 12), (5, 15), (10, 20)]:
            since = notes(cluster)
            asked = ask(client, f"/over?10,{size}".encode())
            assert await asked.result() is None
            assert asked.ended and asked.content == bytes(10)
            sentence = f"BadAnswer its Content-Length is 10, its body has {told} bytes"
            assert await asyncio.to_thread(noted, cluster, since) == sentence
        asked = ask(client, b"/over?10,11")
        with pytest.raises(RemoteError, match="before its answer was complete"):  # the application has caught it
            await asked.result()
        assert asked.got == b"", "nothing of it was sent"

    with_client(cluster, scenario)


@pytest.mark.parametrize("cluster", ["asgi"], indirect=True)
def test_who_has_not_answered_yet_hears_that_its_caller_is_gone(cluster: LocalCluster) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        asked = ask(client, b"/listen", bytes(300_000))
        await asked.until(lambda: asked.out.received > 300_000)  # type: ignore[union-attr]
        client.withdraw(asked)
        assert await asyncio.to_thread(noted, cluster, since) == "http.disconnect"

    with_client(cluster, scenario)
