"""How connections and gateways end, in whatever state: nothing is left of them, and nothing is answered twice."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from gateway_rig import PATIENCE_S, Gateway, Start, filled, front, in_flight, read_all, until

from rota.common.settings import HttpSettings
from rota.gateway import listening
from rota.gateway import server as serving
from rota.gateway.core.routes import routes
from rota.gateway.pages import ServicePages
from rota.gateway.protocol import HttpProtocol
from rota.testing import LocalCluster

APP = """
import os, time

def application(environ, start_response):
    while environ["PATH_INFO"] == "/late" and not os.path.exists(environ["QUERY_STRING"]):
        time.sleep(0.01)
    size = int(environ["QUERY_STRING"] or 0) if environ["PATH_INFO"] != "/late" else 0
    if environ["PATH_INFO"] == "/short":
        start_response("200 OK", [("Content-Length", "1000000")])
        return (bytes(10_000) for _ in range(10))
    start_response("200 OK", [("Content-Length", str(size))])
    return [bytes(size)]
"""
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    app = tmp_path_factory.mktemp("app") / "site.py"
    app.write_text(APP)
    with LocalCluster(f"{app}:application", settings={"slave.service": "site"}) as cluster:
        yield cluster


def fronted(start: Start, cluster: LocalCluster, folder: Path, **settings: str) -> Gateway:
    lines = [f'{name} = "{value}"' for name, value in {"access_log": "common", **settings}.items()]
    (folder / "rota.toml").write_text("\n".join(["[http]", *lines]) + "\n")
    return front(start, cluster, "-c", str(folder / "rota.toml")).ready()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_an_upload_whose_connection_is_reset_leaves_its_room_to_others(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    gateway = fronted(start, cluster, tmp_path, spool_max="1MiB", spool_dir=str(tmp_path))
    reset(filled(gateway, "/"))
    until(lambda: gateway.get("/", "POST", bytes(300_000))[0] == 200, "its room is lost")


def test_an_answer_that_is_too_short_has_one_line_in_the_access_log(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    gateway = fronted(start, cluster, tmp_path)
    with gateway.connect() as sock:
        sock.sendall(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
        read_all(sock)
    gateway.get("/")
    until(lambda: '"GET / ' in gateway.child.output(), "no line")
    lines = [line for line in gateway.child.output().splitlines() if '"GET /short' in line]
    assert len(lines) == 1 and lines[0].endswith(" broken")


def test_requests_before_a_half_close_are_answered_however_slowly_they_are_read(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    gateway = fronted(start, cluster, tmp_path)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(b"GET /?16000000 HTTP/1.1\r\nHost: a\r\n\r\nGET /?5 HTTP/1.1\r\nHost: a\r\n\r\n")
        begin = sock.recv(1000)
        sock.shutdown(socket.SHUT_WR)
        gateway.get("/")
        whole = begin + read_all(sock)
    assert whole.count(b"HTTP/1.1 200") == 2 and whole.endswith(bytes(5))


def test_requests_that_waited_for_an_answer_to_be_read_are_answered_behind_a_half_close(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    gateway = fronted(start, cluster, tmp_path)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(b"GET /?200000 HTTP/1.1\r\nHost: a\r\n\r\n" * 60)
        counts = [0]
        until(lambda: counts.append(answers(gateway, len(counts))) or counts[-2] == counts[-1] > 0, "it does not wait")
        assert counts[-1] < 60
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).count(b"HTTP/1.1 200") == 60


def test_a_reset_behind_a_half_close_is_noticed(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    """Event loops look no more at a connection whose client sends no more."""
    gateway = fronted(start, cluster, tmp_path)
    with gateway.connect() as sock:
        sock.sendall(f"GET /late?{tmp_path}/go HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        until(lambda: in_flight(cluster), "it is not on its way")
        sock.shutdown(socket.SHUT_WR)
        gateway.get("/-/ready")  # it has seen that
        assert '"GET /late' not in gateway.child.output()
        reset(sock)
    try:
        until(lambda: '/go HTTP/1.1" 499 ' in gateway.child.output(), "it is not noticed")
    finally:
        (tmp_path / "go").touch()


def answers(gateway: Gateway, mark: int) -> int:
    """How many of these were given before one that is asked for now."""
    gateway.get(f"/?{mark}")
    until(lambda: f"GET /?{mark} " in gateway.child.output(), "no line")
    return gateway.child.output().count("GET /?200000 ")


@pytest.mark.parametrize("what", [POST % 1_000_000 + bytes(500_000), POST % 10 + b"x", b"GET / HT"])
def test_a_drain_does_not_wait_for_requests_that_do_not_come(
    start: Start, cluster: LocalCluster, tmp_path: Path, what: bytes
) -> None:
    gateway = fronted(start, cluster, tmp_path, drain="0.5s", body_timeout="10m", head_timeout="10m")
    with gateway.connect() as sock:
        sock.sendall(what)
        gateway.get("/")
        gateway.child.signal(signal.SIGTERM)
        until(lambda: gateway.child.status() is not None, "it waits for ever")


def test_a_drain_does_not_wait_for_who_does_not_read(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    gateway = fronted(start, cluster, tmp_path, drain="0.5s", write_timeout="1h")
    with gateway.connect() as sock:
        sock.sendall(b"GET /?16000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.recv(1000)
        gateway.child.signal(signal.SIGTERM)
        until(lambda: gateway.child.status() is not None, "it waits for ever")


@pytest.mark.parametrize("fails", ["tick", "drain", "leave"])
def test_one_connection_that_fails_costs_neither_the_others_their_time_outs_nor_a_gateway_its_end(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What is planted: none is known that does."""
    first: list[HttpProtocol] = []
    made, does = HttpProtocol.connection_made, getattr(HttpProtocol, fails)

    def connection_made(self: HttpProtocol, transport: asyncio.BaseTransport) -> None:
        first.append(self)
        made(self, transport)

    def failing(self: HttpProtocol, *args: float) -> None:
        if self is first[0]:
            raise RuntimeError("nobody has thought of it")
        does(self, *args)

    async def scenario() -> None:
        [listener] = listening.bound("127.0.0.1:*", 1)
        tie, tie_held = os.pipe()
        settings = HttpSettings(drain=0.2, body_timeout=60.0, idle_timeout=60.0 if fails == "drain" else 0.3)
        gateway = serving.Gateway(serving.Start(settings, routes({})), ServicePages({}), None, first=True)
        ending = asyncio.create_task(gateway.serve(listener, tie))
        where = listener.getsockname()[:2]
        async with asyncio.timeout(PATIENCE_S):
            failed, writer = await asyncio.open_connection(*where)
            if fails == "leave":
                writer.write(POST % 10 + b"x")
            await asyncio.open_connection(*where)
            other, _ = await asyncio.open_connection(*where)
            if fails == "tick":
                assert await other.read() == b"", "it has no time-out any more"
            while len(first) < 3:
                await asyncio.sleep(0)
            os.close(tie_held)
            assert await ending == 0
            with suppress(ConnectionResetError):
                assert await failed.read() == b""
        os.close(tie)

    monkeypatch.setattr(HttpProtocol, "connection_made", connection_made)
    monkeypatch.setattr(HttpProtocol, fails, failing)
    asyncio.run(scenario())


def test_who_had_connected_before_nobody_could_has_a_moment_for_his_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        [listener] = listening.bound("127.0.0.1:*", 1)
        tie, tie_held = os.pipe()
        settings = HttpSettings(drain=60.0, idle_timeout=60.0)
        gateway = serving.Gateway(serving.Start(settings, routes({})), ServicePages({}), None, first=True)
        ending = asyncio.create_task(gateway.serve(listener, tie))
        silent, asks = socket.socketpair(), socket.socketpair()
        monkeypatch.setattr(listening, "shut", lambda sock: [*shut(sock), *(pair.pop() for pair in waiting)])
        waiting = [list(silent), list(asks)]
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(sock=asks[0])
            silence, _ = await asyncio.open_connection(sock=silent[0])
            os.close(tie_held)
            while not gateway._joining:
                await asyncio.sleep(0)
            waiting.clear()
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 404 ") and b"\r\nConnection: close\r\n" in answer
            assert await silence.read() == b""
            writer.close()
            assert await ending == 0
        os.close(tie)

    shut = listening.shut
    asyncio.run(scenario())


CREW = """
import os, signal, socket
from rota.gateway import crew

def fork():
    tried.append(0)
    if len(tried) == 2:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    if len(tried) == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return real()

tried, real, os.fork, crew.PAUSE_S = [], os.fork, fork, 0.01
print(crew.Crew([socket.socket()], lambda listener, tie: len(tried)).run(), len(tried))
"""


def test_a_process_that_cannot_be_forked_anew_is_tried_again_and_the_others_serve() -> None:
    done = subprocess.run([sys.executable, "-c", CREW], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "no process can be started: Resource temporarily unavailable; trying again" in done.stderr
    assert done.stdout == "1 3\n", "the code of the third one"


def test_the_end_of_a_process_is_seen_where_such_ends_were_ignored_by_who_started_the_gateway() -> None:
    ignoring = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)" + CREW
    done = subprocess.run([sys.executable, "-c", ignoring], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "ended with 1; another one takes its place" in done.stderr
    assert done.stdout == "1 3\n"


def test_a_gateway_does_not_end_before_who_had_connected_is_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only one that idles leaves at once; then nobody is there but who waits to be accepted."""
    seen = []

    class Joined(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(ended.is_set())
            transport.close()

    async def scenario() -> None:
        here, there = socket.socketpair()
        here.setblocking(False)
        monkeypatch.setattr(listening, "shut", lambda _: [here])
        server = serving.Gateway.__new__(serving.Gateway)
        idle = Mock()
        idle.drain = lambda: asyncio.get_running_loop().call_soon(server.forget, idle)
        server.__dict__ |= {
            "_shut": False,
            "_server": SimpleNamespace(close=lambda: None),
            "_connections": {idle: None},
            "_joining": set(),
            "_release": lambda each: server._connections.pop(each, None),
            "_protocol": Joined,
            "_ended": ended,
            "settings": SimpleNamespace(drain=60.0),
        }
        server._shut_down(here)
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
            while not seen:
                await asyncio.sleep(0)
        there.close()

    ended = asyncio.Event()
    asyncio.run(scenario())
    assert seen == [False]
