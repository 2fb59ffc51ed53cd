"""How long a stream may take: a hang is ended, a long answer and a slow caller are not a hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stream_rig import ask
from test_http_streams import with_client

import rota
from rota.common.errors import MaybeExecuted, RemoteError
from rota.testing import LocalCluster

HERE = Path(__file__).parent
LIMIT_S = 0.4


@pytest.fixture(scope="module", params=["wsgi", "threads", "asgi"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    settings = {
        "slave.service": "site",
        "slave.threads": 2 if request.param == "threads" else 1,
        "service.site.handler_timeout": f"{LIMIT_S * 1000:.0f}ms",
    }
    app = f"{HERE}/streams_{'asgi' if request.param == 'asgi' else 'wsgi'}.py:application"
    notes = str(tmp_path_factory.mktemp("limits") / "closed")
    with LocalCluster(app, settings=settings, env={"ROTA_TEST_CLOSED": notes}) as cluster:
        cluster.kind = request.param  # type: ignore[attr-defined]
        yield cluster


def test_an_answer_that_goes_on_may_take_longer_than_its_limit(cluster: Any) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/events")
        await asked.until(lambda: asked.got)
        begun = time.monotonic()
        await asked.until(lambda: time.monotonic() - begun > 2.5 * LIMIT_S)
        assert not asked.over.done()
        client.withdraw(asked)

    with_client(cluster, scenario)


def test_a_caller_that_takes_nothing_does_not_end_the_process(cluster: Any) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        (pid,) = cluster.processes()
        asked = ask(client, b"/many?64", slow=True)
        if cluster.kind == "asgi":  # it costs no thread: it may wait for ever
            await asked.until(lambda: len(asked.got) > 100_000)
            await asyncio.sleep(2.5 * LIMIT_S)
            asked.slow = False
            client.taken(asked, len(asked.got))
            assert await asked.result() is None
        else:
            with pytest.raises(RemoteError, match="nothing moved for 0.4 s"):
                await asked.result()
        assert (await ask(client, b"/pid").result())[2] == str(pid).encode()

    with_client(cluster, scenario)


def test_a_hang_in_the_middle_is_ended(cluster: Any) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        asked = ask(client, b"/hang")
        with pytest.raises(MaybeExecuted, match="exceeded its limit of 0.4 s"):
            await asked.result()

    if cluster.kind != "asgi":  # there an answer that has begun has no limit
        with_client(cluster, scenario)


def test_an_application_that_streams_is_told_when_its_process_is_to_stop() -> None:
    settings = {"slave.service": "site", "slave.drain_deadline": "100ms"}
    with LocalCluster(f"{HERE}/streams_asgi.py:application", settings=settings) as cluster:

        async def scenario(client: rota.AsyncClient) -> None:
            asked = ask(client, b"/forever")
            await asked.until(lambda: len(asked.content) > 20)
            stopping = asyncio.ensure_future(asyncio.to_thread(cluster.stop_node, "node-1"))
            assert await asked.result() is None
            assert asked.content.endswith(b"event\nbye\n")
            await stopping

        with_client(cluster, scenario)
