"""WebSockets of an ASGI application, through a real master and a real process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stream_rig import connect
from test_http_streams import noted, notes, with_client

import rota
from rota.common.errors import RemoteError
from rota.common.streams import WINDOW
from rota.testing import LocalCluster

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    file = tmp_path_factory.mktemp("sockets") / "closed"
    settings = {"slave.service": "site"}
    with LocalCluster(
        f"{HERE}/streams_asgi.py:application", settings=settings, env={"ROTA_TEST_CLOSED": str(file)}
    ) as cluster:
        cluster.notes = file  # type: ignore[attr-defined]
        yield cluster


Scenario = Callable[[rota.AsyncClient], Awaitable[Any]]


@pytest.fixture
def run(cluster: LocalCluster) -> Callable[[Scenario], Any]:
    return lambda scenario: with_client(cluster, scenario)


def test_texts_and_bytes_go_both_ways_and_the_client_closes(
    cluster: LocalCluster, run: Callable[[Scenario], Any]
) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        socket = connect(client, b"/echo")
        assert await socket.accepted() == [101, [[b"x-a", b"b"]], "chat"]
        for item in ("a text", b"bytes", "", b"", "é" * 100_000, os.urandom(3 * WINDOW)):
            socket.say(item)
            assert await socket.next() == item
        socket.say([4000, "enough"])
        assert await socket.next() is None
        assert await socket.result() is None
        assert noted(cluster, since) == "websocket.disconnect 4000 enough"

    run(scenario)


def test_the_application_closes(run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        socket = connect(client, b"/echo")
        socket.say("close")
        assert await socket.next() == [4001, "as asked"]
        assert await socket.result() is None and socket.ended

    run(scenario)


def test_a_task_that_hears_learns_that_another_has_closed(
    cluster: LocalCluster, run: Callable[[Scenario], Any]
) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        socket = connect(client, b"/both")
        assert await socket.accepted()
        assert await socket.next() == [4003, "said by another"]
        assert await socket.result() is None
        assert noted(cluster, since) == "websocket.disconnect 4003 said by another"

    run(scenario)


def test_who_just_returns_has_closed(run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        socket = connect(client, b"/echo")
        socket.say("return")
        assert await socket.next() == [1000, ""]
        assert await socket.result() is None

    run(scenario)


def test_an_exception_ends_it_with_an_error(run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        socket = connect(client, b"/echo")
        socket.say("raise")
        with pytest.raises(RemoteError, match="in a WebSocket"):
            await socket.result()

    run(scenario)


@pytest.mark.parametrize(
    "target, opening, body",
    [(b"/refuse", [403, [], None], b""), (b"/deny", [401, [[b"x-why", b"no name"]], None], b"who are you?")],
)
def test_a_refusal_is_an_answer(target: bytes, opening: list[Any], body: bytes, run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        socket = connect(client, target)
        assert await socket.result() is None
        assert socket.opening == opening and socket.content == body

    run(scenario)


def test_who_has_begun_to_refuse_can_do_nothing_else(cluster: LocalCluster, run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        socket = connect(client, b"/waver")
        assert await socket.result() is None
        assert socket.opening == [401, [], None] and socket.content == b"no"
        for at, kind in enumerate(("accept", "close", "send", "http.response.start")):
            sentence = f"BadAnswer 'websocket.{kind}' may not be sent after websocket.http.response.start"
            assert noted(cluster, since + at) == sentence
        assert noted(cluster, since + 4) == "websocket.connect" and noted(cluster, since + 5) == "websocket.disconnect"

    run(scenario)


def test_a_message_is_a_text_or_bytes(run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        socket = connect(client, b"/both_kinds")
        await socket.accepted()
        assert [await socket.next() for _ in range(4)] == [
            "websocket.send needs bytes or text, and not both",
            "websocket.send needs bytes or text, and not both",
            "the text of a message must be a text, not bytes",
            "the bytes of a message must be bytes, not str",
        ]

    run(scenario)


def test_an_application_that_neither_accepts_nor_refuses_is_at_fault(run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        with pytest.raises(RemoteError, match="before it had accepted or refused"):
            await connect(client, b"/return").result()

    run(scenario)


@pytest.mark.parametrize("farewell", ["close", "vanish"])
def test_one_that_only_sends_hears_that_nobody_listens(
    farewell: str, cluster: LocalCluster, run: Callable[[Scenario], Any]
) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        since = notes(cluster)
        socket = connect(client, b"/talk")
        assert await socket.next() == "word"
        if farewell == "close":
            socket.say([1001, "going away"])
            assert await socket.result() is None
        else:
            client.withdraw(socket)
        assert (await asyncio.to_thread(noted, cluster, since)).startswith("OSError")

    run(scenario)


@pytest.mark.parametrize("item", [{}, 7, [1, 2, 3], [1000]])
def test_what_is_no_message_ends_its_socket_only(item: Any, run: Callable[[Scenario], Any]) -> None:
    async def scenario(client: rota.AsyncClient) -> None:
        bad, good = connect(client, b"/echo"), connect(client, b"/echo")
        bad.say(item)
        with pytest.raises(RemoteError, match="no WebSocket message"):
            await bad.result()
        good.say("well")
        assert await good.next() == "well"

    run(scenario)


def test_a_wsgi_application_refuses() -> None:
    settings = {"slave.service": "site"}
    with LocalCluster(f"{HERE}/streams_wsgi.py:application", settings=settings) as cluster:

        async def scenario(client: rota.AsyncClient) -> None:
            socket = connect(client, b"/echo")
            assert await socket.result() is None
            assert socket.opening[0] == 400

        with_client(cluster, scenario)


def test_a_process_that_stops_closes_its_sockets(tmp_path: Path) -> None:
    file = tmp_path / "closed"
    with LocalCluster(
        f"{HERE}/streams_asgi.py:application",
        settings={"slave.service": "site", "slave.drain_deadline": "100ms"},
        env={"ROTA_TEST_CLOSED": str(file)},
    ) as cluster:
        cluster.notes = file  # type: ignore[attr-defined]

        async def scenario(client: rota.AsyncClient) -> None:
            socket = connect(client, b"/echo")
            await socket.accepted()
            stopping = asyncio.to_thread(cluster.stop_node, "node-1")
            asyncio.ensure_future(stopping)
            assert await asyncio.to_thread(noted, cluster, 0) == "websocket.disconnect 1012 the service restarts"
            assert await socket.next() == [1012, ""]

        with_client(cluster, scenario)
