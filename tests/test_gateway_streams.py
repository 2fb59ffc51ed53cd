"""Large and endless bodies through gateways, before real processes of both interfaces."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from gateway_rig import (
    PATIENCE_S,
    Gateway,
    Start,
    asks_whether_it_is_there,
    children_of,
    filled,
    front,
    in_flight,
    joined,
    listens,
    starting,
    until,
)
from system.proxy import PROXIED, Proxy

from rota.testing import LocalCluster

HERE = Path(__file__).parent
KIB, MIB = 1024, 1024 * 1024
SIZES = [0, 1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 8 * MIB]
BLOCK = bytes(range(256)) * 256
FREED_S = 4.0  # a master that was told nothing would find out after 5 s, and wait for 30 s


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    notes = tmp_path_factory.mktemp("streams") / "closed"
    app = f"{HERE}/streams_{request.param}.py:application"
    with LocalCluster(app, settings={"slave.service": "site"}, env={"ROTA_TEST_CLOSED": str(notes)}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def gateway(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with starting(tmp_path_factory.mktemp("gateway")) as starter:
        yield front(starter, cluster, "--access-log", "common").ready()


def chunked(data: bytes, size: int = 50_000) -> Iterator[bytes]:
    """As http.client sends it without a length."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def ask(sock: socket.socket, target: str, version: str = "1.1") -> bytes:
    """The head of the answer, and what came with it."""
    sock.sendall(f"GET {target} HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    return read_until_found(sock, b"\r\n\r\n")


def read_until_found(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        got = sock.recv(65536)
        assert got, data
        data += got
    return data


def rest(sock: socket.socket) -> tuple[bytes, bool]:
    """What comes until the connection ends, and whether it was reset."""
    data = bytearray()
    while True:
        try:
            got = sock.recv(65536)
        except ConnectionResetError:
            return bytes(data), True
        if not got:
            return bytes(data), False
        data += got


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_an_upload_arrives_as_it_was_sent(gateway: Gateway, size: int, in_chunks: bool) -> None:
    data = Random(size).randbytes(size)
    body = chunked(data) if in_chunks else data
    assert gateway.get("/digest", "POST", body) == (200, hashlib.sha256(data).hexdigest().encode())  # type: ignore[arg-type]


def test_the_deadline_of_a_large_upload_grows_with_its_size(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    """A second for every 4 MiB: it is the application that has to take it."""
    (tmp_path / "rota.toml").write_text('[http]\ntimeout = "1s"\n')
    hasty = front(start, cluster, "-c", str(tmp_path / "rota.toml"))
    data = bytes(8 * MIB)
    assert hasty.get("/slowly?1.2", "POST", data) == (200, hashlib.sha256(data).hexdigest().encode())
    assert hasty.get("/slowly?1.2", "POST", b"small")[0] == 504


def test_a_large_upload_is_taken_with_the_longest_deadline_that_can_be_set(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text('[http]\ntimeout = "1d"\n')
    patient = front(start, cluster, "-c", str(tmp_path / "rota.toml"))
    data = bytes(MIB)
    assert patient.get("/digest", "POST", data) == (200, hashlib.sha256(data).hexdigest().encode())


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_up_comes_down(gateway: Gateway, size: int) -> None:
    data = Random(size).randbytes(size)
    assert gateway.get("/echo", "POST", data) == (200, data)


def test_a_download_is_whole_and_the_connection_goes_on(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=PATIENCE_S)
    for _ in range(2):
        connection.request("GET", "/many?128")
        answer = connection.getresponse()
        assert answer.headers["transfer-encoding"] == "chunked" and answer.headers["x-request-id"]
        assert answer.read() == BLOCK * 128
    connection.request("HEAD", "/many?128")
    assert connection.getresponse().read() == b""
    connection.request("GET", "/plain")
    assert connection.getresponse().read() == b"whole"
    connection.close()


def test_http_1_0_gets_a_body_that_ends_with_the_connection(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        head, _, begin = ask(sock, "/many?16", "1.0").partition(b"\r\n\r\n")
        assert b"chunked" not in head and b"\r\nConnection: close" in head
        assert (begin + rest(sock)[0]) == BLOCK * 16


def test_where_the_spools_are_full_new_bodies_are_503_and_small_ones_are_served(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text(f'[http]\nspool_max = "1MiB"\nspool_dir = "{tmp_path}"\n')
    small = front(start, cluster, "-c", str(tmp_path / "rota.toml"))
    with filled(small, "/digest") as waits:
        answer, _ = small.ask("/digest", "POST", bytes(300_000))
        assert answer.headers["retry-after"] == "5"
        assert small.get("/digest", "POST", bytes(200_000))[0] == 200
        waits.sendall(b"x")
        assert b" 200 OK" in waits.recv(65536)
    until(lambda: small.get("/digest", "POST", bytes(300_000))[0] == 200, "the room is not given back")


def test_a_folder_of_spools_that_takes_nothing_is_told(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "rota.toml").write_text(f'[http]\nspool_memory = "64KiB"\nspool_dir = "{tmp_path}/missing"\n')
    gateway = front(start, cluster, "-c", str(tmp_path / "rota.toml"))
    assert gateway.get("/digest", "POST", bytes(300_000))[0] == 503
    until(lambda: f"large bodies in {tmp_path}/missing (http.spool_dir): No such" in gateway.child.output(), "no word")


def test_a_large_body_that_nobody_is_asked_for_leaves_its_room_to_others(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text('[http]\nspool_max = "1MiB"\n')
    small = front(start, cluster, "-c", str(tmp_path / "rota.toml"), routes=("a.example/=site",))
    for _ in range(5):  # together more than there is room for
        assert small.get("/nothing", "POST", bytes(300_000))[0] == 404
    assert small.get("/digest", "POST", bytes(300_000), Host="a.example")[0] == 200


# ---- as it comes ----------------------------------------------------------------------------------------------------


def test_events_come_one_by_one_while_the_application_still_runs(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        assert b"chunked" in ask(sock, "/events")
        for _ in range(3):
            assert b"6\r\nevent\n\r\n" in read_until_found(sock, b"event\n\r\n")
    until(lambda: gateway.get("/pid")[0] == 200, "whoever went away is still served")
    until(lambda: "GET /events" in gateway.child.output(), "no line in the access log")
    [line] = [line for line in gateway.child.output().splitlines() if "GET /events" in line][-1:]
    assert '" 200 ' in line and line.endswith(" broken")


def test_a_connection_with_an_answer_in_pieces_asks_whether_its_client_is_there(gateway: Gateway) -> None:
    """Which nobody else would find out, of one that is silent for hours."""
    with gateway.connect() as sock:
        ask(sock, "/events")
        until(lambda: asks_whether_it_is_there(gateway, sock), "it does not ask")


def test_an_answer_in_pieces_that_cannot_begin_is_a_500_of_its_request_alone(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        head = ask(sock, "/status?999")
        assert head.startswith(b"HTTP/1.1 500 ") and b"close" not in head
    until(lambda: "GET /status?999 HTTP" in gateway.child.output(), "no line in the access log")
    [line] = [line for line in gateway.child.output().splitlines() if "GET /status?999 HTTP" in line][-1:]
    assert '" 500 ' in line and not line.endswith(" broken")


def test_a_slow_reader_does_not_hold_the_process(gateway: Gateway) -> None:
    with gateway.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        slow.sendall(b"GET /many?128 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert slow.recv(10).startswith(b"HTTP/1.1")
        until(lambda: gateway.get("/plain") == (200, b"whole"), "the process is held")
        got, reset = rest(slow)
        assert not reset and got.endswith(b"\r\n0\r\n\r\n") and len(got) > 128 * len(BLOCK)


def test_a_slow_uploader_does_not_hold_the_process(gateway: Gateway) -> None:
    data = os.urandom(MIB)
    with gateway.connect() as slow:
        slow.sendall(b"POST /digest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MIB + data[:-1])
        for _ in range(3):
            assert gateway.get("/plain") == (200, b"whole")
        slow.sendall(data[-1:])
        assert hashlib.sha256(data).hexdigest().encode() in slow.recv(65536)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/half", "/die"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_breaks_off_never_looks_whole(
    gateway: Gateway, cluster: LocalCluster, target: str, version: str
) -> None:
    with gateway.connect() as sock:
        head, _, begin = ask(sock, target, version).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        got, reset = rest(sock)
        assert reset if version == "1.0" else (begin + got) == b"4\r\nhalf\r\n"
    cluster.wait_ready()
    until(lambda: gateway.get("/plain")[0] == 200, "it serves on")


def test_a_process_that_is_killed_in_a_download_breaks_it(gateway: Gateway, cluster: LocalCluster) -> None:
    [pid] = cluster.processes()
    with gateway.connect() as sock:
        ask(sock, "/events")
        os.kill(pid, signal.SIGKILL)
        got, _ = rest(sock)
        assert not got.endswith(b"0\r\n\r\n")
    cluster.wait_ready()


def test_a_client_that_goes_away_frees_the_process(gateway: Gateway) -> None:
    sock = gateway.connect()
    ask(sock, "/events")
    sock.close()
    assert gateway.get("/plain") == (200, b"whole")


def test_a_drain_lets_downloads_end_and_ends_what_is_endless(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text('[http]\ndrain = "1s"\n')
    going = front(start, cluster, "-c", str(tmp_path / "rota.toml")).ready()
    with going.connect() as endless:
        ask(endless, "/events")
        began = time.monotonic()
        going.child.signal(signal.SIGTERM)
        got, _ = rest(endless)
        assert time.monotonic() - began > 0.9
        assert got.count(b"event\n") > 10 and not got.endswith(b"0\r\n\r\n")
    until(lambda: going.child.status() == 0, "it does not end")


def test_an_answer_that_begins_while_a_gateway_drains_is_the_last_one_of_its_connection(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    (tmp_path / "rota.toml").write_text('[http]\nlead = "10s"\n')
    going = front(start, cluster, "-c", str(tmp_path / "rota.toml")).ready()
    going.child.signal(signal.SIGTERM)
    until(lambda: going.get("/-/ready") == (503, b"draining\n"), "TERM was not heard")
    with going.connect() as sock:
        head, _, begin = ask(sock, "/many?3").partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head and b"chunked" in head
        assert (begin + rest(sock)[0]).endswith(b"\r\n0\r\n\r\n")


def test_a_gateway_that_ends_at_once_breaks_answers_off_and_frees_their_processes(
    start: Start, cluster: LocalCluster
) -> None:
    ending = front(start, cluster).ready()
    with ending.connect() as endless:
        ask(endless, "/events")
        ending.child.signal(signal.SIGINT)
        got, _ = rest(endless)
    assert not got.endswith(b"0\r\n\r\n")
    assert ending.child.wait(PATIENCE_S) and ending.child.status() == 0, ending.child.output()
    assert "Traceback" not in ending.child.output()
    until(lambda: not in_flight(cluster), "its process is held", FREED_S)


def test_a_gateway_that_ends_with_its_master_leaves_its_address_at_once(start: Start, cluster: LocalCluster) -> None:
    """That master may be started again in the same moment, with another gateway."""
    ending = front(start, cluster).ready()
    master = cluster._master
    assert master is not None
    with ending.connect() as endless:
        ask(endless, "/events")
        master.signal(signal.SIGSTOP)
        try:
            ending.child.signal(signal.SIGINT)
            until(lambda: not listens(ending.port))
            assert children_of(ending.child.pid), "it still looks for a master to say goodbye to"
        finally:
            master.signal(signal.SIGCONT)
    assert ending.child.wait(PATIENCE_S)


def test_a_connection_to_the_master_that_is_cut_costs_no_byte(start: Start, cluster: LocalCluster) -> None:
    where = cluster._running_where()
    control = int(where.control.rpartition(":")[2])
    with Proxy({"control": control, "frontend": where.frontend}) as proxy:
        address = f"tcp://{PROXIED}:{control}"
        gateway = start("gateway", "--bind", "127.0.0.1:*", "-m", address, "--route", "/=site").listening().ready()
        data = Random(3).randbytes(24 * MIB)
        answers: list[tuple[int, bytes]] = []
        asking = threading.Thread(target=lambda: answers.append(gateway.get("/echo", "POST", data)))
        asking.start()
        while asking.is_alive() and proxy.resets < 4:
            asking.join(0.5)
            proxy.reset("frontend")
        joined(asking, what=f"the upload, after {proxy.resets} resets,")
        assert proxy.resets > 0
        assert answers == [(200, data)]
        gateway.child.end(0)
