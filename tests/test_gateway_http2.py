"""HTTP/2 through gateways, before real processes: real clients, and hostile ones by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from gateway_rig import (
    APP,
    PATIENCE_S,
    Gateway,
    Start,
    asks_whether_it_is_there,
    front,
    in_flight,
    read_all,
    spools,
    until,
)
from http2_rig import DATA, GET, POST, START, WINDOW_UPDATE, Heard, frame, request
from test_http2 import HOSTILE
from tls_rig import LOOPS, Authority, connect, secured, secured_on_loop

from rota.testing import LocalCluster

HERE = Path(__file__).parent
KIB, MIB = 1024, 1024 * 1024
BLOCK = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    notes = tmp_path_factory.mktemp("streams") / "closed"
    app = f"{HERE}/streams_asgi.py:application"
    with LocalCluster(app, settings={"slave.service": "site"}, env={"ROTA_TEST_CLOSED": str(notes)}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


gateway = pytest.fixture(scope="module", params=LOOPS)(secured_on_loop)


@pytest.fixture
def client(gateway: Gateway, authority: Authority) -> Iterator[httpx.Client]:
    with httpx.Client(**options(gateway, authority)) as client:
        yield client


def options(gateway: Gateway, authority: Authority) -> dict[str, Any]:
    url = f"https://127.0.0.1:{gateway.port}"
    return {"http2": True, "http1": False, "verify": authority.context(), "base_url": url, "timeout": PATIENCE_S}


class Raw:
    """A client by hand."""

    def __init__(self, gateway: Gateway, authority: Authority) -> None:
        self.sock = connect(gateway.port, authority.context("h2"))
        assert self.sock.selected_alpn_protocol() == "h2"
        self.heard = Heard()
        self.ended = False

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def until(self, condition: Callable[[Heard], object]) -> Heard:
        deadline = time.monotonic() + PATIENCE_S
        while not condition(self.heard):
            self.sock.settimeout(max(deadline - time.monotonic(), 0.01))
            data = self.sock.recv(65536)
            assert data, "the connection ended"
            self.heard.read(data)
        return self.heard

    def until_end(self) -> Heard:
        self.heard.read(read_all(self.sock))
        return self.heard


# ---- requests -------------------------------------------------------------------------------------------------------


def test_who_offers_both_gets_http_2_and_who_does_not_http_1(gateway: Gateway, authority: Authority) -> None:
    with connect(gateway.port, authority.context("http/1.1", "h2")) as sock:
        assert sock.selected_alpn_protocol() == "h2"
    with connect(gateway.port, authority.context("http/1.1")) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 256 * KIB, 256 * KIB + 1, 8 * MIB])
def test_uploads_go_through_byte_by_byte(client: httpx.Client, size: int) -> None:
    data = Random(size).randbytes(size)
    answer = client.post("/digest", content=data)
    assert (answer.http_version, answer.text) == ("HTTP/2", hashlib.sha256(data).hexdigest())
    pieces = (data[at : at + 50_000] for at in range(0, size, 50_000))
    assert client.post("/digest", content=pieces).text == hashlib.sha256(data).hexdigest()  # without a length


@pytest.mark.parametrize("count", [0, 1, 128])
def test_downloads_go_through_byte_by_byte(client: httpx.Client, count: int) -> None:
    answer = client.get(f"/many?{count}")
    assert answer.status_code == 200 and answer.content == BLOCK * count and answer.headers["x-request-id"]


def test_an_echo_goes_both_ways_and_the_log_says_2(client: httpx.Client, gateway: Gateway) -> None:
    data = os.urandom(3 * MIB)
    assert client.post("/echo", content=data, headers={"x-request-id": "echo-17"}).content == data
    until(lambda: 'HTTP/2" 200 3145728' in gateway.child.output(), "no line in the access log")


def test_a_hundred_streams_at_once(gateway: Gateway, authority: Authority) -> None:
    async def load() -> list[httpx.Response]:
        async with httpx.AsyncClient(**options(gateway, authority), limits=httpx.Limits(max_connections=1)) as client:
            bodies = [Random(number).randbytes(64 * KIB) for number in range(100)]
            answers = await asyncio.gather(*(client.post("/digest", content=body) for body in bodies))
            assert [each.text for each in answers] == [hashlib.sha256(body).hexdigest() for body in bodies]
            return list(answers)

    assert {each.http_version for each in asyncio.run(load())} == {"HTTP/2"}


def test_a_service_knows_what_came(start: Start, authority: Authority) -> None:
    with LocalCluster(APP) as cluster:
        gateway = secured(start, cluster, authority.issue(file="about"), authority)
        with httpx.Client(**options(gateway, authority)) as client:
            about = client.get("/about").text
            assert "'version': '2'" in about and "'scheme': 'https'" in about and "b'host': b'127.0.0.1:" in about
            assert client.get("/nothing", headers={"host": "a b"}).status_code == 400
            assert client.post("/echo", content=b"x" * 1000).content == b"x" * 1000
            assert client.get("/fail").status_code == 500
            odd = client.get("/odd", headers={"x-request-id": "odd-2"})
            assert odd.status_code == 500 and odd.headers["x-request-id"] == "odd-2"
            assert client.head("/x").headers["content-length"] == "7"
        assert "500 GET /odd request odd-2: Unsendable: control character" in gateway.child.output()


def test_curl_speaks_it(gateway: Gateway, authority: Authority) -> None:
    url = f"https://127.0.0.1:{gateway.port}/many?16"
    asked = ["curl", "-sS", "--http2", "--cacert", authority.file, "-w", "%{http_version}", url]
    answered = subprocess.run(asked, capture_output=True, timeout=PATIENCE_S)
    assert answered.stdout == BLOCK * 16 + b"2", answered.stderr


def test_a_body_that_is_too_large_is_413_to_who_sends_it_all_before_reading(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text("[http]\nmax_body = '1MiB'\n")
    gateway = secured(start, cluster, authority.issue(file="small"), authority, "-c", str(tmp_path / "rota.toml"))
    with httpx.Client(**options(gateway, authority)) as client:
        for _ in range(2):
            answer = client.post("/digest", content=bytes(4 * MIB))
            assert answer.status_code == 413 and "http.max_body" in answer.text
        assert client.get("/-/ready").text == "ready\n"


# ---- streams beside one another --------------------------------------------------------------------------------------


def test_a_stream_that_is_cancelled_ends_its_call_and_no_other(
    gateway: Gateway, authority: Authority, cluster: LocalCluster
) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/forever")) + request(3, get("/forever")))
        raw.until(lambda heard: heard.bodies.get(1) and heard.bodies.get(3))
        until(lambda: in_flight(cluster) == 2, "they are not on their way")
        raw.send(frame(3, b"\0\0\0\x08", 0, 1))
        until(lambda: in_flight(cluster) == 1, "the call goes on")
        size = len(raw.heard.bodies[3])
        raw.until(lambda heard: len(heard.bodies[3]) > size)
        assert not raw.heard.resets and 3 not in raw.heard.ended
    until(lambda: in_flight(cluster) == 0, "the call goes on")


def get(target: str) -> list[tuple[str, str]]:
    return [*GET[:3], (":path", target)]


def test_a_stream_that_is_not_read_stops_no_other(gateway: Gateway, authority: Authority) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + frame(WINDOW_UPDATE, (64 * MIB).to_bytes(4, "big")))
        raw.send(request(1, get("/many?128")) + request(3, get("/many?128")))
        raw.until(lambda heard: len(heard.bodies.get(1, b"")) == 65535)
        raw.send(frame(WINDOW_UPDATE, (8 * MIB).to_bytes(4, "big"), 0, 3))
        heard = raw.until(lambda heard: 3 in heard.ended)
        assert heard.bodies[3] == BLOCK * 128 and len(heard.bodies[1]) == 65535
        raw.send(frame(WINDOW_UPDATE, (8 * MIB).to_bytes(4, "big"), 0, 1))
        assert raw.until(lambda heard: 1 in heard.ended).bodies[1] == BLOCK * 128


@pytest.mark.parametrize("how", ["in order", "without a word"])
def test_a_client_that_is_gone_ends_its_calls(
    gateway: Gateway, authority: Authority, cluster: LocalCluster, how: str
) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/listen")) + request(3, get("/forever")))
        until(lambda: in_flight(cluster) == 2, "they are not on their way")
        if how == "in order":
            raw.sock.settimeout(1.0)
            with contextlib.suppress(OSError):
                raw.sock.unwrap()
    until(lambda: in_flight(cluster) == 0, "a call goes on")


def test_an_answer_that_breaks_off_resets_its_stream_only(gateway: Gateway, authority: Authority) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/half")))
        heard = raw.until(lambda heard: heard.resets)
        assert (heard.resets, heard.bodies[1]) == ({1: 2}, b"half")
        raw.send(request(3, get("/many?0")))
        raw.until(lambda heard: 3 in heard.ended)


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_request_whose_upload_the_disk_lost_ends_and_has_its_line_in_the_access_log(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path, version: str
) -> None:
    (tmp_path / "rota.toml").write_text(f"[http]\nspool_memory = '64KiB'\nspool_dir = '{tmp_path}'\n")
    words = ["-c", str(tmp_path / "rota.toml"), "--access-log", "common"]
    gateway = secured(start, cluster, authority.issue(file="disk"), authority, *words)
    one = {"http2": version == "HTTP/2", "http1": version != "HTTP/2"}
    with httpx.Client(**options(gateway, authority) | one) as client, ThreadPoolExecutor() as pool:
        asked = pool.submit(client.post, f"/late?{tmp_path}/go", content=bytes(MIB))
        until(lambda: in_flight(cluster) == 1, "it is not on its way")
        for spooled in spools(gateway, tmp_path):
            os.truncate(spooled, 1000)
        (tmp_path / "go").touch()
        with pytest.raises(httpx.TransportError):
            asked.result(PATIENCE_S)
        until(lambda: in_flight(cluster) == 0, "the call goes on")
        until(lambda: f'/go {version}" 499 ' in gateway.child.output(), "no line in the access log")
        assert spools(gateway, tmp_path) == []
        assert client.get("/many?1").content == BLOCK


@pytest.mark.parametrize("version", ["http/1.1", "h2"])
@pytest.mark.parametrize("target", ["/late", "/large?5000000", "/many?128"])
def test_a_client_that_goes_away_leaves_the_room_of_what_it_sent_and_did_not_read_to_others(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path, version: str, target: str
) -> None:
    (tmp_path / "rota.toml").write_text(f"[http]\nspool_memory = '64KiB'\nspool_dir = '{tmp_path}'\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="away"), authority, *words)
    size = 300_000 if target == "/late" else 0
    target = f"/late?{tmp_path}/go" if size else target
    with connect(gateway.port, authority.context(version)) as sock:
        if version == "h2":
            said = [*(POST if size else GET)[:3], (":path", target)]
            sock.sendall(START + request(1, said, 0 if size else 1))
            for at in range(0, size, 15_000):
                sock.sendall(frame(DATA, bytes(15_000), at + 15_000 == size, 1))
        else:
            method = "POST" if size else "GET"
            sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
            sock.sendall(bytes(size))
        if size:
            until(lambda: in_flight(cluster) == 1, "it is not on its way")
        until(lambda: spools(gateway, tmp_path), "it is in no spool")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not spools(gateway, tmp_path), "its room is lost")
    (tmp_path / "go").touch()
    until(lambda: in_flight(cluster) == 0, "the call goes on")


def test_a_connection_asks_whether_its_client_is_there(gateway: Gateway, authority: Authority) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/forever")))
        until(lambda: asks_whether_it_is_there(gateway, raw.sock), "it does not ask")


def test_an_answer_that_has_only_begun_is_seen_to_have(gateway: Gateway, authority: Authority) -> None:
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/begin")))
        assert raw.until(lambda heard: heard.statuses).statuses == {1: "200"}


def test_a_large_body_that_nobody_is_asked_for_leaves_its_room_to_others(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text("[http]\nspool_max = '1MiB'\n[service.site.http]\nroutes = ['/digest']\n")
    files = authority.issue(file="nobody")
    words = ["-c", str(tmp_path / "rota.toml"), "--tls-cert", files[0], "--tls-key", files[1]]
    gateway = front(start, cluster, *words, routes=())
    with httpx.Client(**options(gateway, authority)) as client:
        for _ in range(5):  # together more than there is room for
            assert client.post("/nothing", content=bytes(300_000)).status_code == 404
        assert client.post("/digest", content=bytes(300_000)).status_code == 200


def test_an_upload_whose_connection_is_lost_leaves_its_room_to_others(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text(f"[http]\nspool_memory = '64KiB'\nspool_dir = '{tmp_path}'\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="lost"), authority, *words)
    with Raw(gateway, authority) as raw:
        raw.send(START)
        for number in range(1, 12, 2):
            raw.send(request(number, POST, 0))
            raw.send(b"".join(frame(DATA, bytes(16 * KIB), 0, number) for _ in range(15)))
        until(lambda: spools(gateway, tmp_path), "it is in no spool")
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: not spools(gateway, tmp_path), "its room is lost")


# ---- the end --------------------------------------------------------------------------------------------------------


def test_a_drain_says_which_stream_is_the_last_and_serves_it(
    start: Start, cluster: LocalCluster, authority: Authority
) -> None:
    gateway = secured(start, cluster, authority.issue(file="drain2"), authority)
    with Raw(gateway, authority) as idle, Raw(gateway, authority) as busy:
        idle.send(START + request(1, get("/many?0")))
        idle.until(lambda heard: 1 in heard.ended)
        busy.send(START + frame(WINDOW_UPDATE, (16 * MIB).to_bytes(4, "big")) + request(1, get("/many?64")))
        busy.until(lambda heard: len(heard.bodies.get(1, b"")) == 65535)
        gateway.child.signal(signal.SIGTERM)
        assert idle.until_end().goaway == 0
        busy.until(lambda heard: heard.goaway == 0)
        busy.send(request(3) + frame(WINDOW_UPDATE, (8 * MIB).to_bytes(4, "big"), 0, 1))
        heard = busy.until_end()
        assert heard.bodies[1] == BLOCK * 64 and 1 in heard.ended and heard.resets == {3: 7}
    until(lambda: gateway.child.status() is not None, "it does not end")
    assert gateway.child.status() == 0


def test_an_endless_answer_is_ended_when_its_time_is_over(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text("[http]\ndrain = '300ms'\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="endless"), authority, *words)
    with Raw(gateway, authority) as raw:
        raw.send(START + request(1, get("/forever")))
        raw.until(lambda heard: heard.bodies.get(1))
        gateway.child.signal(signal.SIGTERM)
        heard = raw.until_end()
        assert heard.resets == {1: 2} and heard.goaway == 0
    until(lambda: gateway.child.status() == 0, "it does not end")


# ---- hostile --------------------------------------------------------------------------------------------------------


def test_what_is_hostile_gets_its_code_and_the_gateway_serves_on(
    gateway: Gateway, authority: Authority, client: httpx.Client
) -> None:
    with Raw(gateway, authority) as other:
        other.send(START + request(1, get("/forever")))
        for what, (data, code) in HOSTILE.items():
            if code is not None:
                assert end_of(gateway, authority, data) in (code, None), what  # None: it had no time to read it
            assert client.get("/-/ready").text == "ready\n", what
        size = len(other.until(lambda heard: heard.bodies.get(1)).bodies[1])
        other.until(lambda heard: len(heard.bodies[1]) > size)
        assert not other.heard.resets


def end_of(gateway: Gateway, authority: Authority, data: bytes) -> int | None:
    with Raw(gateway, authority) as raw, contextlib.suppress(OSError):
        raw.send(data)
        raw.until_end()
    return raw.heard.goaway


def test_slow_clients_are_cut(start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path) -> None:
    times = "idle_timeout = '800ms'\nhead_timeout = '800ms'\nbody_timeout = '800ms'\nwrite_timeout = '800ms'\n"
    (tmp_path / "rota.toml").write_text(f"[http]\n{times}write_rate = '64MiB'\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="slow2"), authority, *words)
    with ExitStack() as stack:

        def opened(data: bytes) -> Raw:
            """It speaks at once: what it is cut for must not be that it was silent while others were opened."""
            raw = stack.enter_context(Raw(gateway, authority))
            raw.send(data)
            return raw

        silent = stack.enter_context(Raw(gateway, authority))
        idle, head = opened(START), opened(START + frame(1, b"", 0, 1))
        body = opened(START + request(1, POST, 0) + frame(DATA, b"x", 0, 1))
        window = frame(WINDOW_UPDATE, (16 * MIB).to_bytes(4, "big"))
        reader = opened(START + window + request(1, get("/many?64")))
        assert [each.until_end().goaway for each in (silent, idle, head)] == [0, 0, 11]
        assert body.until(lambda heard: heard.resets).statuses == {1: "408"}
        assert reader.until(lambda heard: heard.resets).resets == {1: 8}
    until(lambda: in_flight(cluster) == 0, "a call goes on")


def test_who_reads_nothing_of_the_connection_holds_nothing_for_long(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text("[http]\nwrite_timeout = '500ms'\nwrite_rate = '64MiB'\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="mute"), authority, *words)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.connect(("127.0.0.1", gateway.port))
    with authority.context("h2").wrap_socket(sock, server_hostname="127.0.0.1") as mute:
        big = (1 << 30).to_bytes(4, "big")
        mute.sendall(START + frame(4, b"\0\4" + big) + frame(WINDOW_UPDATE, big) + request(1, get("/many?100000")))
        mute.sendall(request(3, get("/many?1000")))
        until(lambda: in_flight(cluster) > 0, "it is not on its way")
        until(lambda: in_flight(cluster) == 0, "a call goes on")
        with pytest.raises((OSError, ssl.SSLError)):
            while mute.recv(65536):
                pass
            raise ConnectionResetError


def test_without_the_library_or_the_wish_http_1_is_spoken(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text("[http]\nhttp2 = false\n")
    words = ["-c", str(tmp_path / "rota.toml")]
    gateway = secured(start, cluster, authority.issue(file="plain"), authority, *words)
    with connect(gateway.port, authority.context("h2", "http/1.1")) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
