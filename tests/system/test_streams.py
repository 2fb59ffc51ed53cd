"""Streams while connections are cut: the same bytes come out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from stream_rig import ask, connect

import rota
from rota.testing import LocalCluster
from system.proxy import PROXIED, Proxy

HERE = Path(__file__).parent.parent
MIB = 1024 * 1024
FREED_S = 4.0  # a master that heard nothing would wait for 5 s, or for 90 s


class Behind(LocalCluster):
    """Its node reaches the master through a proxy, and who asks may do so too."""

    proxy: Proxy
    proxied = ""

    def _start_node(self, name: str, arguments: list[str]) -> None:
        where = self._running_where()
        control = int(where.control.rpartition(":")[2])
        self.proxied = f"tcp://{PROXIED}:{control}"
        self.proxy = Proxy({"control": control, "frontend": where.frontend, "backend": where.backend})
        self.proxy.__enter__()
        arguments[arguments.index("--master") + 1] = self.proxied
        super()._start_node(name, arguments)

    def close(self, grace: float = 10.0) -> None:
        super().close(grace)
        if self.proxied:
            self.proxied = ""
            self.proxy.__exit__(None)


@pytest.fixture(scope="module", params=["wsgi", "threads", "asgi"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Behind]:
    settings = {"slave.service": "site", "slave.threads": 2 if request.param == "threads" else 1}
    app = f"{HERE}/streams_{'asgi' if request.param == 'asgi' else 'wsgi'}.py:application"
    with Behind(app, settings=settings, env={"ROTA_TEST_CLOSED": "/dev/null"}) as cluster:
        yield cluster


@pytest.mark.parametrize("roles", [["backend"], ["frontend"], ["backend", "frontend"]])
def test_what_connections_lose_is_sent_again(roles: list[str], cluster: Behind) -> None:
    content = Random(5).randbytes(6 * MIB)

    async def scenario() -> None:
        async with rota.AsyncClient(cluster.proxied) as client:
            asked = ask(client, b"/echo", content)
            for part in (1, 2, 3, 4):
                await asked.until(lambda part=part: len(asked.got) > part * MIB)  # type: ignore[misc]
                for role in roles:
                    assert cluster.proxy.reset(role)
            assert await asked.result() is None
            assert asked.ended and asked.content == content

    asyncio.run(scenario())


def test_both_ends_wait_for_a_connection_that_takes_its_time(cluster: Behind) -> None:
    async def scenario() -> None:
        async with rota.AsyncClient(cluster.proxied) as client:
            asked = ask(client, b"/many?32")
            await asked.until(lambda: len(asked.got) > 100_000)
            cluster.proxy.hole = ["backend"]
            await asyncio.sleep(0.3)
            cluster.proxy.heal()
            assert await asked.result() is None
            assert len(asked.content) == 32 * 65_536

    asyncio.run(scenario())


def test_events_go_on_over_a_new_connection(cluster: Behind) -> None:
    async def scenario() -> None:
        async with rota.AsyncClient(cluster.proxied) as client:
            asked = ask(client, b"/events")
            for role in ("backend", "frontend", "backend"):
                before = len(asked.got)
                await asked.until(lambda: len(asked.got) > before + 100)  # noqa: B023
                assert cluster.proxy.reset(role)
            before = len(asked.got)
            await asked.until(lambda: len(asked.got) > before + 100)
            assert set(asked.content.split(b"\n")[:-1]) == {b"event"}
            client.withdraw(asked)

    asyncio.run(scenario())


@pytest.mark.parametrize("leaves", ["withdraws", "closes"])
@pytest.mark.parametrize("target", [b"/events", b"/many?64"])
def test_who_goes_just_when_connections_are_cut_holds_no_process(target: bytes, leaves: str, cluster: Behind) -> None:
    async def scenario() -> None:
        client = rota.AsyncClient(cluster.proxied)
        asked = ask(client, target)
        await asked.until(lambda: len(asked.got) > 10)
        cluster.proxy.reset("backend")
        cluster.proxy.reset("frontend")
        if leaves == "withdraws":
            client.withdraw(asked)
        else:
            await client.close()
            with pytest.raises(rota.Cancelled):
                await asked.result()
        async with asyncio.timeout(FREED_S):
            while cluster.status()["services"][0]["in_flight"]:
                await asyncio.sleep(0.02)
        await client.close()

    asyncio.run(scenario())


def test_a_websocket_goes_on(cluster: Behind) -> None:
    async def scenario() -> None:
        async with rota.AsyncClient(cluster.proxied) as client:
            socket = connect(client, b"/echo")
            if (await socket.accepted())[0] != 101:  # of WSGI
                return
            for role in ("backend", "frontend", "backend"):
                for item in ("before", bytes(300_000)):
                    socket.say(item)
                cluster.proxy.reset(role)
                assert await socket.next() == "before"
                assert await socket.next() == bytes(300_000)
            socket.say([1000, ""])
            assert await socket.result() is None

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_stream_outlives_its_master(kind: str) -> None:
    content = Random(6).randbytes(5 * MIB)
    app = f"{HERE}/streams_{kind}.py:application"
    with LocalCluster(app, settings={"slave.service": "site"}, state=True) as cluster:

        async def scenario() -> None:
            async with rota.AsyncClient(cluster.address) as client:
                asked = ask(client, b"/echo", content)
                await asked.until(lambda: len(asked.got) > MIB)
                restarting = asyncio.ensure_future(asyncio.to_thread(cluster.restart_master, True))
                assert await asked.result() is None
                assert asked.content == content
                await restarting

        asyncio.run(scenario())
