"""What a gateway answers itself in front of real processes: pages, maintenance, proxies, refusals, calls in JSON."""

from __future__ import annotations

import ast
import json
import re
import signal
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import PATIENCE_S, Gateway, Start, children_of, front, starting, until

from rota.cli.children import Child
from rota.testing import LocalCluster

APP = str(Path(__file__).parent / "calls_app.py")
HTML = "text/html"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {
        "service.orders.ramp": 0,
        "service.orders.min_active": 0,
        "service.moved.fault.no_service": "we have moved",
    }
    with LocalCluster(APP, nodes=["web-1"], settings=settings) as running:
        yield running


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "503.html").write_text("<p>first $status $request_id</p>")
    (folder / "maintenance.html").write_text("<p>closed for $retry_after s</p>")
    return folder


def config(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "rota.toml"
    file.write_text(text)
    return ["-c", str(file)]


def gateway_with(start: Start, cluster: LocalCluster, tmp_path: Path, text: str, *words: str) -> Gateway:
    return front(start, cluster, *config(tmp_path, text), *words, routes=())


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_a_service_has_pages_of_its_own_and_hup_reads_them_again(
    start: Start, cluster: LocalCluster, tmp_path: Path, pages: Path
) -> None:
    text = f'[service.shop.http]\nroutes = ["/shop"]\npages = "{pages}"\n[service.gone.http]\nroutes = ["/gone"]\n'
    gateway = gateway_with(start, cluster, tmp_path, text, "--workers", "2")
    until(lambda: len(children_of(gateway.child.pid)) == 2, "no processes")

    def page(target: str = "/shop", method: str = "GET", accept: str = HTML) -> tuple[HTTPResponse, bytes]:
        return gateway.ask(target, method, Accept=accept, X_Request_Id="id-7")

    answer, body = page()
    assert (answer.status, answer.headers["retry-after"], body) == (503, "1", b"<p>first 503 id-7</p>")
    head, empty = page(method="HEAD")
    assert (head.status, empty, head.headers["content-length"]) == (503, b"", str(len(body)))
    assert b"first" not in page("/gone")[1] and json.loads(page(accept="application/json")[1])["status"] == 503

    (pages / "503.html").write_text("<p>second</p>")
    gateway.child.signal(signal.SIGHUP)
    until(lambda: all(page()[1] == b"<p>second</p>" for _ in range(20)), "HUP was not heard by all processes")
    (pages / "503.html").write_bytes(b"\xff")
    gateway.child.signal(signal.SIGHUP)
    until(lambda: "503.html: not UTF-8" in gateway.child.output(), "nothing is said of a page that is none")
    assert page()[1] == b"<p>second</p>" and gateway.child.status() is None


def test_a_services_own_words_are_for_callers_and_the_cause_stays_in_the_log(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    gateway = gateway_with(start, cluster, tmp_path, '[service.moved.http]\nroutes = ["/moved"]\n')
    answer, body = gateway.ask("/moved", X_Request_Id="id-8")
    assert answer.status == 503 and b"we have moved" in body
    until(lambda: "request id-8: NoService: there is no service 'moved'" in gateway.child.output(), "no cause")


def test_a_service_without_an_http_application_is_no_matter_of_trying_again(start: Start, tmp_path: Path) -> None:
    app = tmp_path / "plain.py"
    app.write_text('import rota\norders = rota.Worker("orders")\n@orders.handler\ndef quote() -> None: ...\n')
    with LocalCluster(str(app)) as cluster:
        gateway = front(start, cluster, routes=("/=orders",))
        answer, body = gateway.ask("/", Accept="text/plain")
        until(lambda: "'orders' is no WSGI or ASGI application" in gateway.child.output(), "the log does not say why")
    assert (answer.status, answer.headers["retry-after"]) == (502, None)
    assert b"does not answer HTTP requests" in body


def test_a_page_that_is_none_is_an_error_of_the_start_whatever_starts_the_gateway(
    start: Start, tmp_path: Path, pages: Path
) -> None:
    (pages / "500.json").write_text("{")
    file = config(tmp_path, f'[service.orders.http]\nroutes = ["/"]\npages = "{pages}"\n')
    for words in (
        ["gateway", *file, "--bind", "127.0.0.1:*"],
        ["master", *file, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*"],
        ["run", APP, *file, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*"],
    ):
        child = start(*words).child
        assert child.wait(PATIENCE_S) and child.status() == 78
        assert f"the pages of orders: {pages}/500.json: no JSON object" in child.output()


def test_hup_of_a_master_is_heard_by_the_gateway_beside_it(start: Start, tmp_path: Path, pages: Path) -> None:
    file = config(tmp_path, f'[service.shop.http]\nroutes = ["/shop"]\npages = "{pages}"\n')
    master = start("master", *file, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*")
    until(lambda: "control" in master.child.output(), "no master")
    master.child.signal(signal.SIGHUP)  # its gateway has just begun to start, and outlives that
    master.listening()
    assert master.get("/shop", Accept=HTML)[1].startswith(b"<p>first")
    (pages / "503.html").write_text("<p>second</p>")
    master.child.signal(signal.SIGHUP)
    until(lambda: master.get("/shop", Accept=HTML)[1] == b"<p>second</p>", "HUP did not come through")


def test_soap_is_answered_in_soap(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    gateway = gateway_with(start, cluster, tmp_path, '[service.shop.http]\nroutes = ["/shop"]\n')
    answer, body = gateway.ask("/shop", "POST", b"<a/>", SOAPAction='"x"', Content_Type="text/xml", Accept=HTML)
    assert (answer.status, answer.headers["content-type"]) == (500, "text/xml; charset=utf-8")
    assert answer.headers["retry-after"] == "1" and b"<faultcode>soap:Server</faultcode>" in body
    answer, body = gateway.ask("/nothing", "POST", b"<a/>", Content_Type="application/soap+xml")
    assert answer.status == 400 and b"<status>404</status>" in body


# ---- maintenance ----------------------------------------------------------------------------------------------------


def operate(cluster: LocalCluster, log: Path, *words: str) -> str:
    child = Child(["maintenance", *words, "-m", cluster.address], log)
    assert child.wait(PATIENCE_S)
    output = child.output()
    child.end(0)
    assert child.status() == 0, output
    return output


def test_a_service_in_maintenance_has_its_page_and_no_process_is_asked(
    start: Start, cluster: LocalCluster, tmp_path: Path, pages: Path
) -> None:
    text = f'[http]\nready_after = "300ms"\n[service.orders.http]\nroutes = ["/"]\ncalls = true\npages = "{pages}"\n'
    gateway = gateway_with(start, cluster, tmp_path, text).ready()
    admin = cluster.admin()
    try:
        said = operate(cluster, tmp_path / "on", "orders", "on", "--retry-after", "10m", "--reason", "new disk")
        assert "orders: maintenance on\n" in said
        answer, body = gateway.ask("/x", Accept=HTML)
        assert (answer.status, answer.headers["retry-after"]) == (503, "600")
        assert body == b"<p>closed for 600 s</p>"
        answer, body = gateway.ask("/x")
        assert answer.status == 503 and b"maintenance" in body and b"disk" not in body
        problem = called(gateway, "quote", {"symbol": "X"})
        assert problem[0] == 503 and problem[1]["error"] == "NoService" and problem[1]["retry_after"] == 600
        assert admin.status()["master"]["maintenance"]["orders"]["reason"] == "new disk"

        admin.drain(all=True, force=True)  # what the page is for: nobody serves, and the balancer still comes here
        until(lambda: not any(each["open"] for each in admin.status()["services"]), "still open")
        stays = [gateway.get("/-/ready")[0] for _ in range(50)]
        assert set(stays) == {200}
    finally:
        admin.rejoin(all=True)
        assert "orders: maintenance off\n" in operate(cluster, tmp_path / "off", "orders", "off")
    assert "off already" in operate(cluster, tmp_path / "again", "orders", "off")
    assert gateway.get("/x")[0] == 200


# ---- who the client is ----------------------------------------------------------------------------------------------


def test_a_trusted_proxy_says_who_the_client_is_in_the_spelling_that_is_set(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    text = '[http]\ntrusted_proxies = ["127.0.0.0/8"]\nforwarded = "forwarded"\naccess_log = "json"\n'
    text += '[service.orders.http]\nroutes = ["shop.example/"]\ncalls = true\n'
    gateway = gateway_with(start, cluster, tmp_path, text).ready()
    said = {"Forwarded": 'for="[2001:db8::1]:99";proto=https;host=shop.example', "X_Forwarded_For": "6.6.6.6"}
    answer, body = gateway.ask("/x", **said)
    assert answer.status == 200, "routed by the host that the client asked for"
    told = ast.literal_eval(body.decode())
    assert (told["client"], told["scheme"]) == (["2001:db8::1", 0], "https")
    assert b"forwarded" in told["headers"] and b"x-forwarded-for" not in told["headers"]
    assert gateway.get("/x")[0] == 404
    until(lambda: '"client": "2001:db8::1"' in gateway.child.output(), "the log names the proxy")
    assert called(gateway, "quote", {"symbol": "X"}, Forwarded="for=192.0.2.7")[0] == 200
    until(lambda: '"client": "192.0.2.7"' in gateway.child.output(), "the log names the proxy")


# ---- the access log -------------------------------------------------------------------------------------------------


def test_what_is_refused_before_it_is_a_request_has_an_id_and_a_line(
    start: Start, cluster: LocalCluster, tmp_path: Path
) -> None:
    text = '[http]\naccess_log = "json"\nmax_line = 256\nmax_head = "1KiB"\nmax_body = 1000\nhead_timeout = "200ms"\n'
    text += 'trusted_proxies = ["127.0.0.1"]\n'
    gateway = gateway_with(start, cluster, tmp_path, text + '[service.orders.http]\nroutes = ["/"]\n').ready()
    up = b"POST /up HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.1.2.3\r\nUser-Agent: me\r\nX-Request-Id: "
    broken = {
        400: b"GET / HTTP/1.1\r\n\r\n",
        408: b"GET / HT",
        413: up + b"large\r\nContent-Length: 1001\r\n\r\n",
        414: b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        431: b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 1100 + b"\r\n\r\n",
        505: b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    }
    ids = {}
    for status, data in [*broken.items(), (0, up + b"mine\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")]:
        answer = gateway.raw(data)
        assert answer.startswith(b"HTTP/1.1 %d" % (status or 400))
        [its_id] = re.findall(rb"X-Request-Id: (\S+)\r\n", answer)
        ids[its_id.decode()] = status or 400
    assert len(ids) == 7 and ids["mine"] == 400 and ids["large"] == 413

    def lines() -> dict[str, Any]:
        found = (json.loads(line) for line in gateway.child.output().splitlines() if line.startswith("{"))
        return {line["request_id"]: line for line in found}

    until(lambda: set(ids) <= set(lines()), "a refusal has no line")
    for its_id, status in ids.items():
        line = lines()[its_id]
        assert line["status"] == status and line["size"] > 0
        read = its_id in ("mine", "large")
        what = ("10.1.2.3", "POST", "/up", "1.1", "me") if read else ("127.0.0.1", "-", "-", "-", "")
        assert (line["client"], line["method"], line["target"], line["version"], line["agent"]) == what


# ---- calls in JSON --------------------------------------------------------------------------------------------------


def called(gateway: Gateway, handler: str, arguments: object, **more: str) -> tuple[int, Any]:
    body = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
    answer, data = gateway.ask(f"/-/call/orders/{handler}", "POST", body, Content_Type="application/json", **more)
    assert answer.headers["content-type"].startswith("application/") and answer.headers["x-request-id"]
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    return answer.status, json.loads(data)


@pytest.fixture(scope="module")
def caller(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Of a gateway that has calls and nothing else."""
    folder = tmp_path_factory.mktemp("caller")
    with starting(folder) as starter:
        yield gateway_with(starter, cluster, folder, "[service.orders.http]\ncalls = true\n").ready()


def test_a_handler_is_called_and_its_result_is_the_answer(caller: Gateway) -> None:
    assert called(caller, "quote", {"symbol": "X", "quantity": 2}) == (200, {"symbol": "X", "price": 19.0})
    assert called(caller, "quote", ["Y"]) == (200, {"symbol": "Y", "price": 9.5})
    value = {"b": {"$bytes": "AP8="}, "big": 2**64 - 1, "text": "é€😀", "list": [None, True, -1.5]}
    assert called(caller, "echo", [value]) == (200, value)


def test_large_calls_leave_nothing_behind(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    text = '[http]\nmax_call = "512KiB"\nspool_max = "1MiB"\n[service.orders.http]\ncalls = true\n'
    gateway = gateway_with(start, cluster, tmp_path, text).ready()
    for _ in range(4):  # together more than fits into spools
        assert called(gateway, "echo", ["x" * 400_000])[0] == 200


def test_what_is_off_is_not_there(caller: Gateway, start: Start, cluster: LocalCluster) -> None:
    assert caller.get("/-/call/other/quote", "POST", b"{}", Content_Type="application/json")[0] == 404
    assert called(caller, "http", {})[0] == 404, "it would believe what it is told of the client"
    assert called(caller, "eu.http", {})[0] == 404, "of another service, orders.eu"
    assert called(caller, "x" * 255, {})[0] == 404, "no target is so long"
    assert caller.get("/")[0] == 404
    closed = front(start, cluster, routes=("/=orders",)).ready()
    assert called(closed, "quote", {})[0] == 404


def test_a_handler_is_not_called_by_another_sites_page(caller: Gateway) -> None:
    answer, _ = caller.ask("/-/call/orders/now", "OPTIONS", Origin="https://evil", Access_Control_Request_Method="POST")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    assert caller.get("/-/call/orders/now", "POST", b"{}", Content_Type="text/plain")[0] == 415


def test_errors_are_problems_with_their_class(caller: Gateway) -> None:
    status, problem = called(caller, "fail", {}, X_Request_Id="id-7")
    assert (status, problem["error"], problem["request_id"]) == (500, "RemoteError", "id-7")
    assert problem["exception"] == {"type": "ValueError", "message": "no such symbol"}
    assert "calls_app" not in json.dumps(problem)
    status, problem = called(caller, "quote", {"sym": 1})
    assert (status, problem["error"]) == (422, "BindError") and "sym" in problem["detail"]
    status, problem = called(caller, "nothing", {})
    assert (status, problem["error"]) == (404, "NoService") and "retry_after" not in problem
    status, problem = called(caller, "today", {})
    assert (status, problem["error"]) == (502, "Unrepresentable") and "result.day is a date" in problem["detail"]
    assert called(caller, "echo", b"[NaN]")[0] == called(caller, "echo", b"[18446744073709551616]")[0] == 400
    assert called(caller, "echo", b'["' + b"x" * 64 * 1024 + b'"]')[0] == 413
    assert called(caller, "echo", b'["\\ud800"]')[0] == called(caller, "echo", b"[" * 50_000)[0] == 400


def test_key_deadline_and_trace_are_headers(caller: Gateway) -> None:
    first = called(caller, "now", {}, Idempotency_Key="k-1")
    assert called(caller, "now", {}, Idempotency_Key="k-1") == first != called(caller, "now", {}, Idempotency_Key="k-2")
    assert called(caller, "slow", [0.5], X_Rota_Timeout="0.1")[0] == 504
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    told = called(caller, "headers", {}, traceparent=trace, X_Request_Id="id-9")
    assert told == (200, {"traceparent": trace, "x-request-id": "id-9"})


# ---- poison ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, last", [("GET", 1), ("POST", 2)])
def test_a_request_that_ends_two_processes_ends_no_third_one(start: Start, method: str, last: int) -> None:
    """Each time from another port and with another id. GET may run again, so one of them is enough for two deaths."""
    with LocalCluster(str(Path(__file__).parent / "gateway_app.py"), nodes=["web-1"], processes=2) as cluster:
        gateway = front(start, cluster).ready()
        fatal = {gateway.get("/die", method)[0] for _ in range(last)}
        assert fatal == {502}
        refused = gateway.get("/die", method)
        assert refused[0] == 500 and b"Requests like this one end the service" in refused[1]
        (entry,) = cluster.admin().quarantine("list")["entries"]
        assert (entry["state"], entry["deaths"], entry["refused"]) == ("quarantined", 2, 1)
