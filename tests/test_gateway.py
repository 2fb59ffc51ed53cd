"""Gateways in front of real processes, over real sockets."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import (
    APP,
    PATIENCE_S,
    URL,
    Gateway,
    Load,
    Start,
    children_of,
    front,
    in_flight,
    joined,
    listens,
    read_all,
    read_until,
    starting,
    until,
)

from rota.common.errors import Incompatible, Unavailable
from rota.common.inuse import PortInUse
from rota.common.settings import HttpSettings
from rota.gateway import listening, server
from rota.gateway import readiness as readiness_module
from rota.gateway.readiness import Readiness
from rota.testing import LocalCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {"service.site.ramp": 0, "service.site.min_active": 0}
    with LocalCluster(APP, nodes=["web-1", "web-2"], settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with starting(tmp_path_factory.mktemp("gateway")) as starter:
        yield front(starter, cluster).ready()


# ---- requests -------------------------------------------------------------------------------------------------------


def test_a_request_comes_to_the_service_and_its_answer_back(gateway: Gateway) -> None:
    answer, body = gateway.ask("/a%20b?c=d", X_Request_Id="id-17")
    assert (answer.status, body, answer.headers["content-type"]) == (200, b"GET /a%20b?c=d", "text/plain")
    assert answer.headers["x-request-id"] == "id-17" and answer.headers["date"]
    data = os.urandom(200_000)
    assert gateway.get("/echo", "POST", data) == (201, data)


def test_what_a_client_may_not_say_of_itself_is_dropped(gateway: Gateway) -> None:
    _, body = gateway.ask("/about", X_Forwarded_For="1.2.3.4", Forwarded="for=1.2.3.4", Proxy="evil", X_Kept="yes")
    about = ast.literal_eval(body.decode())
    assert about["client"][0] == "127.0.0.1" and about["server"] == ["127.0.0.1", gateway.port]
    assert about["scheme"] == "http" and about["root"] == "" and about["id"]
    assert set(about["headers"]) == {b"host", b"accept-encoding", b"x-kept"}


def test_a_connection_serves_one_request_after_the_other_and_pipelined_ones_in_order(gateway: Gateway) -> None:
    def get(target: str, more: str = "") -> bytes:
        return f"GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()

    with gateway.connect() as sock:
        sock.sendall(get("/1"))
        assert b"200 OK" in read_until(sock, b"GET /1")
        sock.sendall(get("/slow?0.05") + get("/-/ready") * 500 + get("/nothing") + get("/3", "Connection: close\r\n"))
        answers = read_all(sock)
    bodies = re.findall(rb"\r\n\r\n(GET [^\n]*?|ready\n)(?=HTTP|$)", answers)
    assert bodies == [b"GET /slow?0.05", *[b"ready\n"] * 500, b"GET /nothing", b"GET /3"]
    assert answers.count(b"HTTP/1.1 200 OK") == 503 and answers.count(b"Connection: close") == 1


def test_head_has_the_headers_of_get_and_no_body(gateway: Gateway) -> None:
    answer = gateway.raw(b"HEAD /abc HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, body = answer.split(b"\r\n\r\n")
    assert b"200 OK" in head and b"Content-Length: 9" in head and body == b""


def test_who_has_nothing_more_to_send_is_still_answered(gateway: Gateway) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"GET /slow?0.05 HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        assert read_all(sock).endswith(b"GET /slow?0.05")
        assert time.monotonic() - began < 10.0


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\nHost: x\n\n", b"\x16\x03\x01\x02\x00\x01"]
)
def test_a_bad_head_is_400_and_the_connection_closes(gateway: Gateway, data: bytes) -> None:
    assert gateway.raw(data + b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").count(b"HTTP/1.1 400") == 1


def test_faults_have_a_status_an_id_and_the_form_that_is_asked_for(start: Start, cluster: LocalCluster) -> None:
    gateway = front(start, cluster, routes=("/site=site", "/gone=nobody")).ready()
    assert gateway.get("/")[0] == 404
    answer, body = gateway.ask("/gone", Accept="application/json")
    problem = json.loads(body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert problem["status"] == 503 and problem["request_id"] == answer.headers["x-request-id"]
    assert gateway.get("/site/x") == (200, b"GET /site/x")


def test_what_an_application_does_wrong_is_told_without_a_traceback(gateway: Gateway) -> None:
    status, body = gateway.get("/fail", Accept="text/html")
    assert status == 500 and b"<h1>" in body and b"secret" not in body
    assert gateway.get("/no-answer")[0] == 502
    answer, _ = gateway.ask("/odd")
    assert answer.status == 500 and "set-cookie" not in answer.headers


def test_of_many_faults_at_once_some_are_told_and_the_others_counted(start: Start, cluster: LocalCluster) -> None:
    gateway = front(start, cluster).ready()
    for _ in range(2):
        before = faults_told(gateway)
        for _ in range(25):
            gateway.get("/fail")
        until(lambda before=before: faults_told(gateway) == before + 25, "they are not all accounted for")  # type: ignore[misc]
    assert "more faults in this second" in gateway.child.output()


def faults_told(gateway: Gateway) -> int:
    more = re.findall(r"^rota gateway: (\d+) more faults", gateway.child.output(), re.MULTILINE)
    return gateway.child.output().count(": 500 GET /fail ") + sum(map(int, more))


def test_an_answer_that_cannot_be_sent_is_logged_as_the_client_saw_it_and_told_with_its_id(
    start: Start, cluster: LocalCluster
) -> None:
    gateway = front(start, cluster, "--access-log", "common").ready()
    with gateway.connect() as sock:
        sock.sendall(b"GET /status?999 HTTP/1.1\r\nHost: x\r\nX-Request-Id: odd-1\r\nAccept: text/html\r\n\r\n")
        sock.sendall(b"GET /status?299 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = read_all(sock)
    assert said.startswith(b"HTTP/1.1 500 ") and b"x-request-id: odd-1\r\n" in said and b"<h1>" in said
    assert said.count(b"HTTP/1.1 ") == 2 and said.endswith(b"as I say")
    gateway.get("/status?304")
    gateway.get("/status?298", "HEAD")
    until(lambda: "?298" in gateway.child.output(), "no line in the access log")
    assert '"GET /status?299 HTTP/1.1" 299 8 ' in gateway.child.output()
    assert '"GET /status?304 HTTP/1.1" 304 0 ' in gateway.child.output(), "no body of it was sent"
    assert '"HEAD /status?298 HTTP/1.1" 298 0 ' in gateway.child.output()
    for _ in range(5):  # what is alike is answered in a shorter way
        gateway.get("/alike")
    until(lambda: gateway.child.output().count('"GET /alike HTTP/1.1" 200 10 ') == 5, "not all have a line")
    assert '"GET /status?999 HTTP/1.1" 500 ' in gateway.child.output() and " 999 " not in gateway.child.output()
    assert "500 GET /status?999 request odd-1: Unsendable: no response: status 999" in gateway.child.output()


def test_a_deadline_is_504_and_too_large_a_body_413(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('[http]\ntimeout = "200ms"\nhead_timeout = "200ms"\nmax_body = 1000\nconnections_per_address = 3\n')
    gateway = front(start, cluster, "-c", str(file)).ready()
    assert gateway.get("/slow?0.5")[0] == 504
    assert gateway.get("/echo", "POST", bytes(1001)) == (413, b"the body has more than 1000 bytes (http.max_body)\n")
    assert gateway.get("/echo", "POST", bytes(1000))[0] == 201
    assert b" 408 " in gateway.raw(b"GET / HT")
    with gateway.connect(), gateway.connect(), gateway.connect(), gateway.connect() as one_too_many:
        assert one_too_many.recv(1) == b""


def test_a_request_with_a_key_is_answered_once_where_the_service_has_keys(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('[service.site.http]\nkeys = true\nroutes = ["/"]\n')
    gateway = front(start, cluster, "-c", str(file), routes=()).ready()
    first = gateway.get("/now", "POST", b"1", Idempotency_Key="k", X_Request_Id="a")
    assert gateway.get("/now", "POST", b"1", Idempotency_Key="k", X_Request_Id="b") == first
    assert gateway.get("/now", "POST", b"1", Idempotency_Key="other") != first
    assert gateway.get("/now", "POST", b"2", Idempotency_Key="k")[0] == 422
    large = os.urandom(700_000)  # it goes with its call all the same: a call with a key has no streams
    assert gateway.get("/echo", "POST", large, Idempotency_Key="large") == (201, large)
    assert gateway.get("/echo", "POST", bytes(1_100_000), Idempotency_Key="too-large")[0] == 413
    status, sentence = gateway.get("/echo", "POST", bytes(65 << 20), Idempotency_Key="larger-than-any-message")
    assert status == 413 and b"master.max_message" in sentence


def test_whoever_goes_away_is_not_waited_for(start: Start, cluster: LocalCluster) -> None:
    gateway = front(start, cluster, "--access-log", "json").ready()
    with gateway.connect() as sock:
        sock.sendall(b'GET /slow?0.3 HTTP/1.1\r\nHost: x\r\nUser-Agent: a"b\r\n\r\n')
        until(lambda: in_flight(cluster), "not begun")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    until(lambda: '"status": 499' in gateway.child.output(), "no line of the access log")
    assert gateway.get("/x")[0] == 200
    until(lambda: '"status": 200' in gateway.child.output(), "no line of the access log")
    line = next(line for line in gateway.child.output().splitlines() if "499" in line)
    assert json.loads(line)["target"] == "/slow?0.3" and json.loads(line)["agent"] == 'a"b'


# ---- processes come and go ------------------------------------------------------------------------------------------


def test_a_process_that_is_killed_costs_no_get(gateway: Gateway, cluster: LocalCluster) -> None:
    with Load(gateway.port) as load:
        load.more()
        cluster.kill_process()
        load.more(200)
        cluster.wait_ready()
        load.more()
    assert set(load.outcomes) == {200}, load.outcomes


def test_nodes_that_drain_and_rejoin_in_turn_cost_no_request(gateway: Gateway, cluster: LocalCluster) -> None:
    admin = cluster.admin()
    with Load(gateway.port) as load:
        for node in ("web-1", "web-2"):
            load.more()
            admin.drain(node)
            load.more()
            admin.rejoin(node)
        load.more()
    assert set(load.outcomes) == {200}, load.outcomes


def test_a_gateway_without_processes_says_that_it_is_not_ready(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('[http]\nready_after = "300ms"\n')
    gateway = front(start, cluster, "-c", str(file)).ready()
    admin = cluster.admin()
    admin.drain(all=True, force=True)
    until(lambda: gateway.get("/-/ready")[0] == 503, "still ready")
    assert gateway.get("/-/ready?from=balancer")[0] == 503
    assert b"may be given work" in gateway.get("/-/ready")[1]
    admin.rejoin(all=True)
    gateway.ready()


# ---- its own life ---------------------------------------------------------------------------------------------------


def test_term_answers_what_it_has_refuses_what_comes_and_ends(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text('[http]\nlead = "300ms"\n')
    gateway = front(start, cluster, "-c", str(file), "--access-log", "common").ready()
    with gateway.connect() as busy, gateway.connect() as idle:
        busy.sendall(b"GET /slow?1 HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.sendall(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        read_until(idle, b"GET /1")
        gateway.child.signal(signal.SIGTERM)
        until(lambda: gateway.get("/-/ready") == (503, b"draining\n"), "TERM was not heard")
        for _ in range(3):  # a balancer needs a moment to notice
            answer, _ = gateway.ask("/x")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert idle.recv(1) == b""  # nothing can be asked any more
        with pytest.raises(OSError):
            gateway.connect()
        answer = read_all(busy)
        assert b"200 OK" in answer and b"Connection: close" in answer and answer.endswith(b"GET /slow?1")
    assert gateway.child.wait(PATIENCE_S) and gateway.child.status() == 0
    assert '"GET /slow?1 HTTP/1.1" 200 ' in gateway.child.output(), "the last line of its log is lost"


def test_a_second_signal_ends_at_once(start: Start, cluster: LocalCluster) -> None:
    gateway = front(start, cluster).ready()
    with gateway.connect() as busy:
        busy.sendall(b"GET /slow?30 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: in_flight(cluster), "not begun")
        gateway.child.signal(signal.SIGTERM)
        gateway.child.signal(signal.SIGINT)
        assert gateway.child.wait(PATIENCE_S)
    for pid in cluster.processes():  # the one that sleeps
        cluster.kill_process(pid)
    cluster.wait_ready()


def test_a_gateway_takes_more_connections_than_a_shell_gives_descriptors(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[http]\nconnections_per_address = 1000\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))  # for what is started now
    try:
        gateway = front(start, cluster, "-c", str(file))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(gateway.connect())
        assert gateway.ready().get("/x")[0] == 200


def test_a_gateway_that_is_busy_for_a_moment_refuses_nobody(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    file = tmp_path / "rota.toml"
    file.write_text("[http]\nconnections_per_address = 1000\n")
    gateway = front(start, cluster, "-c", str(file)).ready()
    [serving] = children_of(gateway.child.pid)
    os.kill(serving, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(gateway.connect())
    finally:
        os.kill(serving, signal.SIGCONT)
    assert gateway.get("/x")[0] == 200


def test_processes_of_a_gateway_share_its_address_and_one_that_dies_is_replaced(
    start: Start, cluster: LocalCluster
) -> None:
    gateway = front(start, cluster, "--workers", "2").ready()
    killed = children_of(gateway.child.pid)
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    gateway.ready()  # whoever connects meanwhile waits
    assert gateway.get("/x")[0] == 200 and not set(killed) & set(children_of(gateway.child.pid))
    gateway.child.kill()
    until(lambda: not listens(gateway.port), "its processes outlived it")


def test_a_process_that_has_just_died_is_not_started_again_by_a_gateway_that_ends(
    start: Start, cluster: LocalCluster
) -> None:
    gateway = front(start, cluster).ready()
    [killed] = children_of(gateway.child.pid)
    os.kill(killed, signal.SIGKILL)
    until(lambda: "another one takes its place" in gateway.child.output(), "it is not missed")
    gateway.child.signal(signal.SIGTERM)
    assert gateway.child.wait(PATIENCE_S) and gateway.child.status() == 0


def test_an_address_is_free_for_the_next_gateway_at_once(start: Start, cluster: LocalCluster) -> None:
    """Though the system remembers connections that the one before has closed."""
    before = front(start, cluster)
    assert b" 400 " in before.raw(b"GET / HTTP/1.1\r\n\r\n")
    before.child.signal(signal.SIGINT)
    assert before.child.wait(PATIENCE_S)
    words = ["gateway", "--bind", f"127.0.0.1:{before.port}", "-m", cluster.address, "--route", "/=site"]
    assert start(*words).listening().port == before.port


def test_a_port_that_is_in_use_is_told_with_its_holder(start: Start, gateway: Gateway) -> None:
    for words in (
        ["gateway", "--bind", f"127.0.0.1:{gateway.port}", "--route", "/=site"],
        ["master", "--bind", "tcp://127.0.0.1:*", "--http", f"127.0.0.1:{gateway.port}", "--route", "/=site"],
        ["run", APP, "--bind", "tcp://127.0.0.1:*", "--http", f"127.0.0.1:{gateway.port}"],
    ):
        refused = start(*words).child
        assert refused.wait(PATIENCE_S) and refused.status() == 1
        assert f"127.0.0.1:{gateway.port} is in use by python" in refused.output()


def test_rota_run_serves_http_and_takes_all_of_it_down(start: Start) -> None:
    app = start("run", APP, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*", "-p", "1").listening().ready()
    with app.connect() as sock:
        sock.sendall(b"GET /slow?0.4 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: app.get("/-/ready")[0] == 200, "not ready")
        app.child.signal(signal.SIGTERM)
        assert b"200 OK" in read_all(sock)
    assert app.child.wait(PATIENCE_S) and app.child.status() == 0
    assert not listens(app.port)


def test_rota_run_says_how_its_gateway_ended(start: Start) -> None:
    app = start("run", APP, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*", "-p", "1").listening()
    (pid,) = [pid for pid in children_of(app.child.pid) if b"\0gateway\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(pid, signal.SIGKILL)
    assert app.child.wait(PATIENCE_S) and app.child.status() == 1
    assert "the gateway ended: killed by SIGKILL" in app.child.output()


def test_a_gateway_without_a_master_says_so_once_and_when_it_answers(start: Start) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{held.getsockname()[1]}"
        words = ["gateway", "--bind", "127.0.0.1:*", "-m", nobody, "--route", "/=site", "--workers", "2"]
        gateway = start(*words).listening()
        until(lambda: "no master answers" in gateway.child.output(), "nothing is said")
    said = f"no master answers at {nobody}; trying on; is one running? -m or ROTA_HTTP_MASTER"
    assert gateway.child.output().count(said) == 1


def test_a_port_that_only_root_may_have_is_told_as_that() -> None:
    refused = PermissionError(errno.EACCES, "Permission denied")
    assert "127.0.0.1:443 is for root only" in listening.why_not("127.0.0.1:443", 443, refused)
    assert listening.why_not("127.0.0.1:8080", 8080, refused).endswith("cannot be bound: Permission denied")


def test_an_address_that_is_no_host_name_is_told_as_that() -> None:
    with pytest.raises(PortInUse, match=r"a\.\.b:80 cannot be bound: no host has such a name"):
        listening.check_free("a..b:80")


def test_whether_a_master_answers_is_told_when_it_changes() -> None:
    told: list[str] = []
    readiness = Readiness(["site"], 1.0, tell=told.append)
    unheard, heard = lambda: readiness.unheard(["tcp://m:7700"]), lambda: readiness.heard([], ["site"])
    for event in (unheard, unheard, heard, heard):
        event()
        assert readiness.reason() == ("no master answers" if event is unheard else "")
    assert [text.partition(";")[0] for text in told] == [
        "rota gateway: no master answers at tcp://m:7700",
        "rota gateway: a master answers",
    ]


def test_a_master_that_refuses_this_gateway_is_not_called_silent() -> None:
    """Mostly it was silent just before: it was restarted, with another version."""
    told: list[str] = []
    readiness = Readiness(["site"], 1.0, tell=told.append)
    refused = Incompatible("tcp://m:7700: this master speaks protocol versions 2 to 2, the peer 1 to 1")
    for error in (Unavailable("no answer"), Unavailable("no connection"), refused, refused):
        readiness.unheard(["tcp://m:7700"], error)
    assert told[1:] == [f"rota gateway: {refused}; trying on"] and "no master answers" in told[0]
    assert readiness.reason() == "the master refuses this gateway"


def test_a_master_that_says_what_nobody_understands_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Master:
        def __init__(self, *_: object, **__: object) -> None:
            self.said: list[Any] = [None, {}, {"services": [], "master": None}, OverflowError("unforeseen")]

        def __enter__(self) -> Master:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def verb(self, *_: object) -> Any:
            said = self.said.pop(0) if self.said else {"services": [{"name": "site", "open": 1}], "master": {}}
            if isinstance(said, Exception):
                raise said
            return said

    monkeypatch.setattr(readiness_module, "Admin", Master)
    told: list[str] = []
    readiness, stop = Readiness(["site"], 4 * 0.2, tell=told.append), threading.Event()
    began = time.monotonic()
    asking = threading.Thread(target=readiness.watch, args=(["tcp://m:7700"], stop), daemon=True)
    asking.start()
    until(lambda: readiness.reason() == "", "nobody asks any more")
    assert time.monotonic() - began >= 4 * 0.2, "it asks without a pause"
    stop.set()
    joined(asking, what="the watch")
    assert len(told) == 5 and all("no master answers at tcp://m:7700 with its status" in each for each in told[:4])
    assert "(OverflowError: unforeseen); trying on" in told[3] and told[4].endswith("a master answers")


def test_a_service_that_is_not_there_is_told_once_and_when_it_is_there() -> None:
    told: list[str] = []
    readiness = Readiness(["shp", "closed"], 1.0, tell=told.append)
    for there in (["shop"], ["shop"], ["shop", "shp"], ["shop", "shp"], ["shop"]):
        readiness.heard([{"name": name, "open": 1} for name in there], ["closed"])
    assert told == [
        "rota gateway: nobody serves 'shp' yet: 503 until somebody does; did you mean shop?",
        "rota gateway: the service 'shp' is there now",
    ]


def test_a_service_whose_nodes_are_not_back_yet_is_not_taken_for_another_one() -> None:
    told: list[str] = []
    Readiness(["orders", "shop"], 1.0, tell=told.append).heard([{"name": "shop", "open": 1}])
    assert told == ["rota gateway: nobody serves 'orders' yet: 503 until somebody does"]


def test_a_service_that_has_a_route_and_answers_no_http_is_told_once() -> None:
    told: list[str] = []
    readiness = Readiness(["orders", "mail", "site"], 1.0, told.append, ["orders", "site"])
    for handlers in ([], ["book", "quote"], ["book", "quote"]):  # none: no process has come yet
        services = {"orders": handlers, "mail": ["send"], "site": ["http", "http-safe", "websocket"]}
        readiness.heard([{"name": name, "open": 1, "handlers": found} for name, found in services.items()])
    assert told == [
        "rota gateway: 'orders' is no WSGI or ASGI application: requests of its routes are answered 502; "
        "its handlers are book, quote"
    ]


def test_a_gateway_whose_route_names_no_service_says_so_at_its_start(start: Start, cluster: LocalCluster) -> None:
    gateway = front(start, cluster, routes=("/=site", "/b=sit")).ready()
    until(
        lambda: "nobody serves 'sit' yet: 503 until somebody does; did you mean site?" in gateway.child.output(),
        "nothing is said",
    )


@pytest.mark.parametrize(
    ("certificate", "missing", "hint"),
    [
        (None, ["uvloop", "h2"], "without uvloop it serves fewer requests a second: pip install 'rota[http]'"),
        ("cert.pem", ["h2"], "without h2 it speaks no HTTP/2: pip install 'rota[http]'"),
        ("cert.pem", [], ""),
    ],
)
def test_a_gateway_without_its_extra_says_what_that_costs(
    monkeypatch: pytest.MonkeyPatch, certificate: str | None, missing: list[str], hint: str
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name in missing else object())
    assert server._hint(HttpSettings(tls_certificate=certificate)) == hint


def test_a_master_has_a_gateway_beside_it_starts_it_again_and_takes_it_down(start: Start) -> None:
    words = ["master", "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*", "--route", "/=site"]
    master = start(*words).listening()
    (pid,) = children_of(master.child.pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(URL.findall(master.child.output()))) == 2, "the port of another one")
    assert "its gateway ended: killed by SIGKILL; it is started again in 1 s" in master.child.output()
    master.port = int(URL.findall(master.child.output())[-1])
    assert master.get("/")[0] == 503
    master.child.signal(signal.SIGTERM)
    assert master.child.wait(PATIENCE_S) and master.child.status() == 0
    assert not listens(master.port)
