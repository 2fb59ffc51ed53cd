"""WebSockets through a gateway, before a real process, asked by another implementation of the protocol."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import socket
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import (
    APP,
    Gateway,
    Start,
    asks_whether_it_is_there,
    children_of,
    front,
    in_flight,
    read_until,
    starting,
    until,
)
from system.proxy import PROXIED, Proxy
from test_http_streams import noted, notes
from test_websocket_frames import HOSTILE
from tls_rig import WITHOUT_UVLOOP, Authority, secured
from tls_rig import connect as tls_connect
from websocket_rig import ACCEPT, BINARY, CLOSE, TEXT, close, frame, handshake, read
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rota.testing import LocalCluster

HERE = Path(__file__).parent
MIB = 1024 * 1024
PATIENCE_S = 30.0
QUICK = "[http]\nwebsocket_ping = '200ms'\nwebsocket_pong = '300ms'\n"


def hosting(notes: Path, **settings: str) -> LocalCluster:
    cluster = LocalCluster(
        f"{HERE}/streams_asgi.py:application",
        settings={"slave.service": "site", **settings},
        env={"ROTA_TEST_CLOSED": str(notes)},
    )
    cluster.notes = notes  # type: ignore[attr-defined]
    return cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with hosting(tmp_path_factory.mktemp("sockets") / "closed") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gateway(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with starting(tmp_path_factory.mktemp("gateway")) as starter:
        yield front(starter, cluster, "--access-log", "common").ready()


def run(scenario: Callable[[], Awaitable[Any]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    asyncio.run(limited())


def to(gateway: Gateway, path: str = "/echo", **options: Any) -> connect:
    given = {"subprotocols": ["chat"], "max_size": None, "proxy": None, "compression": None} | options
    return connect(f"ws://127.0.0.1:{gateway.port}{path}", **given)


async def end_of(connection: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            await connection.recv()
    return connection.close_code, connection.close_reason


def opened(gateway: Gateway, path: str = "/echo", *more: str) -> socket.socket:
    sock = gateway.connect()
    sock.sendall(handshake(path, "Sec-WebSocket-Protocol: chat", *more))
    assert read_until_head(sock).startswith(b"HTTP/1.1 101 ")
    return sock


def read_until_head(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        got = sock.recv(1)
        assert got, data
        data += got
    return data


def vanish(sock: socket.socket) -> None:
    """As a machine that loses its power, but faster noticed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# ---- what is said ---------------------------------------------------------------------------------------------------


def test_texts_bytes_and_fragments_come_back_whole(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with to(gateway) as connection:
            assert connection.subprotocol == "chat" and connection.response.headers["x-a"] == "b"
            assert connection.response.headers["x-request-id"]
            for item in ("a text", b"bytes", "", b"", "é" * 100_000, os.urandom(MIB), os.urandom(70_000)):
                await connection.send(item)
                assert await connection.recv() == item
            await connection.send(["in ", "", "frag", "ments"])
            await connection.send([b"as ", b"bytes"])
            assert [await connection.recv(), await connection.recv()] == ["in fragments", b"as bytes"]
            await (await connection.ping())

    run(scenario)


def test_compressed_ones_too_if_the_gateway_is_set_to(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[http]\nwebsocket_deflate = true\n")
    gateway = front(start, cluster, "-c", str(file)).ready()

    async def scenario() -> None:
        async with to(gateway, compression="deflate") as connection:
            assert "permessage-deflate" in connection.response.headers["sec-websocket-extensions"]
            for item in ("again and " * 50_000, os.urandom(MIB), "short", b""):
                await connection.send(item)
                assert await connection.recv() == item
            await connection.send(["again ", "and ", "again"])
            assert await connection.recv() == "again and again"

    run(scenario)


def test_without_that_an_offer_to_compress_is_passed_over(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with to(gateway, compression="deflate") as connection:
            assert "sec-websocket-extensions" not in connection.response.headers
            await connection.send("plain")
            assert await connection.recv() == "plain"

    run(scenario)


def test_many_messages_keep_their_order_both_ways(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with to(gateway) as connection:
            sending = asyncio.gather(*(connection.send(f"{number} {'x' * (number % 3000)}") for number in range(2000)))
            for number in range(2000):
                assert str(await connection.recv()).split()[0] == str(number)
            await sending

    run(scenario)


def test_the_application_sees_who_asks_for_what(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with to(gateway, "/scope?a=b", subprotocols=["x", "y"], origin="http://o") as connection:  # type: ignore[arg-type]
            scope = ast.literal_eval(str(await connection.recv()))
        headers = dict(scope.pop("headers"))
        assert scope == {
            "scheme": "ws", "path": "/scope", "query_string": b"a=b", "root_path": "", "subprotocols": ["x", "y"],
        }  # fmt: skip
        assert headers[b"origin"] == b"http://o" and b"connection" not in headers and b"upgrade" not in headers

    run(scenario)


def test_what_comes_with_the_handshake_and_byte_by_byte_is_the_same(gateway: Gateway) -> None:
    data = (
        handshake("/echo", "Sec-WebSocket-Protocol: chat")
        + frame(TEXT, b"early")
        + frame(BINARY, b"\x00")
        + close(4000)
    )
    answers = [data, *(data[at : at + 1] for at in range(len(data)))]
    for pieces in (answers[:1], answers[1:]):
        with gateway.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                sock.sendall(piece)
            head = read_until_head(sock)
            assert b"\r\nSec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n" in head
            frames = read(b"".join(iter(lambda sock=sock: sock.recv(65536), b"")))  # type: ignore[misc]
            said = [(int(each.opcode), bytes(each.data)) for each in frames]
            assert said[-1] == (CLOSE, struct.pack("!H", 4000))
            assert said[:-1] in ([], [(TEXT, b"early")], [(TEXT, b"early"), (BINARY, b"\x00")])  # the echo may be late


# ---- the end --------------------------------------------------------------------------------------------------------


def test_codes_and_reasons_go_both_ways(gateway: Gateway, cluster: LocalCluster) -> None:
    async def scenario() -> None:
        since = notes(cluster)
        async with to(gateway) as connection:
            await connection.close(4000, "enough")
        assert await asyncio.to_thread(noted, cluster, since) == "websocket.disconnect 4000 enough"
        for word, code, reason in [("close", 4001, "as asked"), ("return", 1000, ""), ("raise", 1011, "")]:
            async with to(gateway) as connection:
                await connection.send(word)
                assert await end_of(connection) == (code, reason)

    run(scenario)


def test_a_silent_one_asks_whether_its_client_is_there(gateway: Gateway, cluster: LocalCluster) -> None:
    since = notes(cluster)
    with opened(gateway, "/listen") as sock:
        until(lambda: asks_whether_it_is_there(gateway, sock), "it does not ask")
    assert noted(cluster, since) == "websocket.disconnect 1006 "


def test_a_close_without_a_code_is_1005_to_the_application(gateway: Gateway, cluster: LocalCluster) -> None:
    since = notes(cluster)
    with opened(gateway) as sock:
        sock.sendall(frame(CLOSE))
        assert sock.recv(100) == b"\x88\x00" and sock.recv(100) == b""
    assert noted(cluster, since) == "websocket.disconnect 1005 "


def test_an_application_that_accepts_late_hears_that_its_client_has_said_its_last(
    gateway: Gateway, cluster: LocalCluster, tmp_path: Path
) -> None:
    since = notes(cluster)
    with gateway.connect() as sock:
        sock.sendall(handshake(f"/late?{tmp_path}/go"))
        sock.shutdown(socket.SHUT_WR)
        until(lambda: in_flight(cluster) == 1, "it is not on its way")
        gateway.get("/plain")
        (tmp_path / "go").touch()
        assert read_until_head(sock).startswith(b"HTTP/1.1 101 ") and sock.recv(100) == b""
    assert noted(cluster, since) == "websocket.disconnect 1006 "


@pytest.mark.parametrize("path", ["/echo", "/talk"])
def test_an_application_hears_that_its_client_has_vanished(gateway: Gateway, cluster: LocalCluster, path: str) -> None:
    since = notes(cluster)
    vanish(opened(gateway, path))
    assert noted(cluster, since).startswith("websocket.disconnect 1006" if path == "/echo" else "OSError")
    until(lambda: in_flight(cluster) == 0, "it is in flight for ever")


def test_the_access_log_has_a_line_at_the_end(gateway: Gateway) -> None:
    with opened(gateway, "/echo?logged") as sock:
        sock.sendall(frame(TEXT, b"12345"))
        assert read_until(sock, b"12345")
        assert "logged" not in gateway.child.output()
        sock.sendall(close(1000))
        assert sock.recv(100)
    until(lambda: "logged" in gateway.child.output(), "no line")
    (line,) = (each for each in gateway.child.output().splitlines() if "logged" in each)
    assert re.search(r'"GET /echo\?logged HTTP/1\.1" 101 11 ', line), line


@pytest.mark.parametrize("name", HOSTILE)
def test_what_breaks_the_rules_is_closed_and_reaches_no_application(
    gateway: Gateway, cluster: LocalCluster, name: str
) -> None:
    data, code = HOSTILE[name]
    since = notes(cluster)
    with opened(gateway) as sock:
        if code == 1009:
            data = frame(BINARY, bytes(MIB), fin=False) + frame(0, b"x")
        sock.sendall(data)
        (said,) = read(b"".join(iter(lambda: sock.recv(65536), b"")))
    assert int(said.opcode) == CLOSE and struct.unpack("!H", bytes(said.data)[:2]) == (code,)
    assert noted(cluster, since).startswith(f"websocket.disconnect {code} ")  # and no echo of anything came


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path, status, body", [("/refuse", 403, b""), ("/deny", 401, b"who are you?")])
def test_a_refusal_is_an_ordinary_answer(gateway: Gateway, path: str, status: int, body: bytes) -> None:
    async def scenario() -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with to(gateway, path):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (status, body)

    run(scenario)


@pytest.mark.parametrize("path", ["/return", "/stranger"])
def test_no_proper_answer_to_a_handshake_is_500_and_the_connection_goes_on(gateway: Gateway, path: str) -> None:
    with gateway.connect() as sock:
        sock.sendall(handshake(path))
        head = read_until_head(sock)
        assert head.startswith(b"HTTP/1.1 500 ")
        found = re.search(rb"Content-Length: (\d+)", head)
        assert found and len(sock.recv(int(found[1]), socket.MSG_WAITALL)) == int(found[1])
        sock.sendall(b"GET /plain HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"whole" in b"".join(iter(lambda: sock.recv(65536), b""))


def test_an_improper_handshake_is_refused_before_any_process_hears_of_it(gateway: Gateway) -> None:
    answer, _ = gateway.ask("/echo", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="8")
    assert (answer.status, answer.headers["sec-websocket-version"], answer.headers["upgrade"]) == (
        426,
        "13",
        "websocket",
    )
    assert answer.headers["connection"] == "upgrade"
    answer, _ = gateway.ask("/echo", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13")
    assert answer.status == 400 and answer.headers["x-request-id"]
    assert gateway.get("/nowhere-else", Upgrade="h2c", Connection="Upgrade")[0] == 500  # an ordinary GET


def test_a_service_without_websockets_refuses_them(start: Start) -> None:
    for app in (f"{HERE}/streams_wsgi.py:application", APP):
        with LocalCluster(app, settings={"slave.service": "site"} if "streams" in app else {}) as cluster:
            gateway = front(start, cluster).ready()
            with gateway.connect() as sock:
                sock.sendall(handshake("/x"))
                assert read_until_head(sock).startswith(b"HTTP/1.1 400 ")


# ---- who does not read ----------------------------------------------------------------------------------------------


def memory_of(gateway: Gateway) -> int:
    """Bytes, of all its processes."""
    pids = [gateway.child.pid, *children_of(gateway.child.pid)]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGE_SIZE")


def test_who_does_not_read_stops_the_application_and_fills_no_memory(gateway: Gateway, cluster: LocalCluster) -> None:
    since, before = notes(cluster), memory_of(gateway)
    socks = [opened(gateway, f"/flood?{number}") for number in range(10)]

    def said() -> list[int]:
        return [int(gateway.get(f"/count?{number}")[1]) for number in range(10)]

    def stands_still() -> bool:
        first = said()
        time.sleep(0.3)
        return min(first) > 3 and first == said()

    until(stands_still, "the application sends for ever")
    assert max(said()) < 100  # 10 MB: what two kernels take, and little more
    assert memory_of(gateway) - before < 10 * MIB
    for sock in socks:
        vanish(sock)
    assert noted(cluster, since).startswith("OSError")


def test_who_is_not_read_waits_and_loses_nothing(gateway: Gateway, cluster: LocalCluster) -> None:
    since, before = notes(cluster), memory_of(gateway)
    with opened(gateway, "/deaf") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        sock.settimeout(1.0)
        one, sent = frame(BINARY, bytes(100_000)), 0
        left = b""
        with pytest.raises(TimeoutError):
            while True:
                left = left or one
                sent += (took := sock.send(left))
                left = left[took:]
        assert sent < 16 * MIB and memory_of(gateway) - before < 6 * MIB
        gateway.get("/wake")
        sock.settimeout(PATIENCE_S)
        sock.sendall(left)
        whole = (sent + len(left)) // len(one)
        assert whole > 2 and read_until(sock, b"%d" % (whole * 100_000))
        sock.sendall(close(1000))
        ends = {"websocket.disconnect 1000 ", "OSError the WebSocket is closed"}  # the latter, if it was just sending
        assert noted(cluster, since) in ends


def test_what_was_said_before_the_end_comes_before_it_though_the_client_reads_late(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.sendall(handshake("/burst"))
        assert read_until_head(sock).startswith(b"HTTP/1.1 101 ")
        time.sleep(0.5)  # all that fits under way is
        data = b""
        while not data.endswith(b"that was all"):
            data += (got := sock.recv(65536))
            assert got
        sock.sendall(close(4002))
        *messages, last = read(data)
        assert [bytes(each.data) for each in messages] == [bytes([number]) * 100_000 for number in range(40)]
        assert bytes(last.data) == struct.pack("!H", 4002) + b"that was all"
        assert sock.recv(10) == b""


def test_a_dead_client_is_cut_and_one_that_answers_pings_is_not(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text(QUICK)
    gateway, since = front(start, cluster, "-c", str(file)).ready(), notes(cluster)

    async def scenario() -> None:
        async with to(gateway) as living:
            dead = await asyncio.to_thread(opened, gateway)
            assert await asyncio.to_thread(noted, cluster, since) == "websocket.disconnect 1006 "
            dead.close()
            await asyncio.sleep(1.0)  # several pings
            await living.send("still here")
            assert await living.recv() == "still here"

    run(scenario)


# ---- who goes away --------------------------------------------------------------------------------------------------


def test_a_gateway_that_drains_says_so_when_its_time_is_over(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[http]\ndrain = '1s'\n")
    gateway, since = front(start, cluster, "-c", str(file)).ready(), notes(cluster)

    async def scenario() -> None:
        async with to(gateway) as connection:
            gateway.child.signal(signal.SIGTERM)
            began = time.monotonic()
            await connection.send("while it drains")
            assert await connection.recv() == "while it drains"
            assert await end_of(connection) == (1001, "")
            assert time.monotonic() - began > 0.9
        # 1006: the gateway had ended before its process took the 1001.
        told = await asyncio.to_thread(noted, cluster, since)
        assert told in ("websocket.disconnect 1001 ", "websocket.disconnect 1006 ")

    run(scenario)
    assert gateway.child.wait(PATIENCE_S) and gateway.child.status() == 0


def test_a_gateway_that_ends_at_once_says_that_it_goes_away(start: Start, cluster: LocalCluster) -> None:
    gateway, since = front(start, cluster).ready(), notes(cluster)

    async def scenario() -> None:
        async with to(gateway) as connection:
            gateway.child.signal(signal.SIGINT)
            assert await end_of(connection) == (1001, "")
        assert await asyncio.to_thread(noted, cluster, since) == "websocket.disconnect 1006 "

    run(scenario)
    assert gateway.child.wait(PATIENCE_S) and gateway.child.status() == 0


def test_a_node_that_leaves_says_1012_at_its_deadline_and_not_before(start: Start, tmp_path: Path) -> None:
    with hosting(tmp_path / "closed", **{"slave.drain_deadline": "1s"}) as cluster:
        gateway = front(start, cluster).ready()

        async def scenario() -> None:
            async with to(gateway) as connection:
                await connection.send("before")
                assert await connection.recv() == "before"
                began = time.monotonic()
                stopping = asyncio.create_task(asyncio.to_thread(cluster.stop_node, "node-1"))
                await asyncio.sleep(0.3)
                await connection.send("while it drains")
                assert await connection.recv() == "while it drains"
                assert await end_of(connection) == (1012, "")
                assert time.monotonic() - began > 0.9
                await stopping

        run(scenario)


def test_the_death_of_its_process_ends_it_at_once(start: Start, tmp_path: Path) -> None:
    with hosting(tmp_path / "closed") as cluster:
        gateway = front(start, cluster).ready()

        async def scenario() -> None:
            async with to(gateway) as connection:
                _, pid = await asyncio.to_thread(gateway.get, "/pid")
                os.kill(int(pid), signal.SIGKILL)
                began = time.monotonic()
                assert await end_of(connection) == (1011, "")
                assert time.monotonic() - began < 15.0, "no ping was waited for"

        run(scenario)
        until(lambda: "MaybeExecuted" in gateway.child.output(), "nobody is told")


def test_a_process_holds_as_many_as_its_concurrency_and_the_next_waits(start: Start, tmp_path: Path) -> None:
    with hosting(tmp_path / "closed") as cluster:
        gateway = front(start, cluster).ready()

        async def scenario() -> None:
            held = [await to(gateway) for _ in range(64)]
            waiting = asyncio.ensure_future(to(gateway).__aenter__())
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            assert not done
            await held.pop().close()
            last = await waiting
            await last.send("at last")
            assert await last.recv() == "at last"
            for each in [*held, last]:
                await each.close()

        run(scenario)


def test_a_session_comes_with_its_first_websocket(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[service.site.http]\naffinity = 'cookie'\nkeys = true\n")
    gateway = front(start, cluster, "-c", str(file)).ready()

    async def scenario() -> None:
        async with to(gateway, additional_headers={"Idempotency-Key": "of no use here"}) as connection:
            assert connection.response.headers["set-cookie"].startswith("rota_session=")
            await connection.send("hello")
            assert await connection.recv() == "hello"

    run(scenario)


def test_a_connection_to_the_master_that_is_cut_costs_no_message(start: Start, cluster: LocalCluster) -> None:
    where = cluster._running_where()
    control = int(where.control.rpartition(":")[2])
    with Proxy({"control": control, "frontend": where.frontend}) as proxy:
        address = f"tcp://{PROXIED}:{control}"
        gateway = start("gateway", "--bind", "127.0.0.1:*", "-m", address, "--route", "/=site").listening().ready()

        async def scenario() -> None:
            async with to(gateway) as connection:
                items = [os.urandom(50_000) for _ in range(100)]
                sending = asyncio.ensure_future(asyncio.gather(*map(connection.send, items)))
                for number, item in enumerate(items):
                    if number in (10, 50):
                        proxy.reset("frontend")
                    assert await connection.recv() == item
                await sending

        run(scenario)
        assert proxy.resets > 0
        gateway.child.end(0)


def test_over_tls_it_is_wss(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    gateway = secured(start, cluster, authority.issue(), authority)

    async def scenario() -> None:
        url = f"wss://127.0.0.1:{gateway.port}"
        context = authority.context()
        async with connect(f"{url}/scope", ssl=context, proxy=None) as connection:
            assert "'scheme': 'wss'" in str(await connection.recv())
        async with connect(f"{url}/echo", ssl=context, proxy=None, subprotocols=["chat"], max_size=None) as connection:  # type: ignore[list-item]
            for item in ("é" * 1000, os.urandom(MIB)):
                await connection.send(item)
                assert await connection.recv() == item
            await connection.close(4000, "enough")

    run(scenario)


def test_who_vanishes_in_the_middle_of_a_message_leaves_nothing_in_memory(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    gateway = secured(start, cluster, authority.issue(), authority)
    context, before = authority.context(), memory_of(gateway)
    for _ in range(150):
        sock = tls_connect(gateway.port, context)
        sock.sendall(handshake("/echo", "Sec-WebSocket-Protocol: chat"))
        assert read_until_head(sock).startswith(b"HTTP/1.1 101 ")
        sock.sendall(frame(BINARY, bytes(900_000), fin=False))
        vanish(sock)
    until(lambda: in_flight(cluster) == 0, "a WebSocket is still there")
    assert memory_of(gateway) - before < 60 * MIB


def test_messages_go_on_while_another_client_is_not_read(gateway: Gateway) -> None:
    async def scenario() -> None:
        stuck = await asyncio.to_thread(opened, gateway, "/flood?stuck")
        async with to(gateway) as connection:
            for number in range(50):
                await connection.send(str(number))
                assert await connection.recv() == str(number)
        vanish(stuck)

    run(scenario)


def test_who_is_gone_when_its_last_word_is_read_ends_its_own_connection_only(
    start: Start, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its close stands behind more than a process takes at once. The answer to it comes back as a reset, of which
    asyncio raises an error at once.
    """
    (tmp_path / "uvloop.py").write_text(WITHOUT_UVLOOP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "rota.toml").write_text("[http]\nwebsocket_deflate = true\n")
    gateway = front(start, cluster, "-c", str(tmp_path / "rota.toml")).ready()
    deflate = zlib.compressobj(wbits=-15)
    large = (deflate.compress(bytes(MIB)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for _ in range(5):
        before = notes(cluster)
        sock = opened(gateway, "/listen", "Sec-WebSocket-Extensions: permessage-deflate")
        sock.sendall(frame(BINARY, large, rsv=4) + close(4000))
        sock.close()
        assert noted(cluster, before) == "websocket.disconnect 4000 "
    assert "Traceback" not in gateway.child.output()
