"""What a process remembers of the calls of gateways: it makes no difference but in time."""

from __future__ import annotations

from typing import Any

import pytest
from hosting_rig import ABOUT, Delivery, answer_of, arguments, request, starts
from http_rig import LIMITS

from rota.common.body import decode_call, encode_call, encode_result
from rota.common.settings import ServiceHttpSettings
from rota.gateway.asking import about_of
from rota.gateway.core.head import Heads
from rota.gateway.core.plain import Plain, packed_peer
from rota.gateway.core.requests import Origin, Peer
from rota.gateway.core.routes import route_to
from rota.worker import asgi, wsgi
from rota.worker.async_hosting import AsyncHost
from rota.worker.context import Context
from rota.worker.hosting import Outcome, SyncHost
from rota.worker.recurring import REMEMBERED, SEEN, Headers, RecurringBinding

CONTEXT = object()


def binding() -> RecurringBinding:
    return RecurringBinding("site.http", http)


def http(
    ctx: Context, method: str, target: bytes, headers: list[Any], body: bytes | int, about: dict[str, Any]
) -> None: ...


def call(
    target: bytes = b"/a?b", port: int = 5, request_id: str = "7-1", method: str = "GET", body: bytes = b""
) -> bytes:
    """As a gateway makes it."""
    head = Heads(LIMITS)[b"%b %b HTTP/1.1\r\nHost: a.example\r\nCookie: a=b\r\n\r\n" % (method.encode(), target)]
    passed = encode_result([list(each) for each in head.headers])
    plain = Plain(head, route_to("site", "/a", ServiceHttpSettings()), (b"", 0, 0), passed)
    client, server = ["10.0.0.1", port], ["10.0.0.2", 80]
    peer = Peer(client, server, False, "http", packed_peer(client, server, "http"))
    return plain.call(body, peer, request_id.encode())


def read(subject: RecurringBinding, data: bytes) -> list[Any]:
    """Its arguments, which are those that any handler would get."""
    args, kwargs = subject.read(data, CONTEXT)
    assert kwargs == {} and [args[1:], {}] == list(decode_call(data)) and args[0] is CONTEXT
    return args


def test_a_call_that_comes_again_has_its_own_client_and_id_and_what_it_shares() -> None:
    subject = binding()
    headers = [read(subject, call(port=number, request_id=f"7-{number}"))[3] for number in range(1, 6)]
    assert [type(each) is Headers for each in headers] == [False, False, True, True, True]
    assert headers[2] is headers[3]
    assert read(subject, call(b"/other"))[3] is not headers[2]


def test_what_comes_through_a_trusted_proxy_comes_again_as_any_other() -> None:
    head = Heads(LIMITS)[b"GET /a HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"]
    route, origin = route_to("site", "/a", ServiceHttpSettings()), Origin(["10.0.0.9", 0], "https", b"a.example")
    passed = [list(each) for each in head.headers]
    abouts = [about_of(f"7-{number}", head, origin, route, ["10.0.0.2", 80]) for number in range(1, 5)]
    subject = binding()
    found = [read(subject, encode_call(("GET", b"/a", passed, b"", about), {}))[3] for about in abouts]
    assert [type(each) is Headers for each in found] == [False, False, True, True]


@pytest.mark.parametrize(
    "data",
    [
        call(body=b"x", method="POST"),
        call(body=call(), method="POST"),
        call(body=b"x" * 5000, method="POST"),
        call(request_id=""),
        encode_call(arguments(), {}),
        encode_call(arguments(body=5), {}),
        encode_call(("GET", b"/", [], b"", {**ABOUT, "more": 1}), {}),
    ],
)
def test_any_other_call_is_read_as_it_is(data: bytes) -> None:
    subject = binding()
    for _ in range(4):
        read(subject, call())
        assert type(read(subject, data)[3]) is list or data == call()


@pytest.mark.parametrize("end", [b"", b"\x81\xa1a\x01", b"\xc0", b"\x80\x80"])
def test_what_only_begins_like_a_call_is_refused_as_ever(end: bytes) -> None:
    subject = binding()
    for _ in range(3):
        read(subject, call())
    with pytest.raises(Exception, match="http|body"):
        subject.read(call()[:-1] + end, CONTEXT)


def test_what_is_remembered_has_a_bound() -> None:
    subject = binding()
    for number in range(SEEN + 10):
        data = call(b"/%d" % number)
        for _ in range(2 if number < 2 * REMEMBERED else 1):
            subject.read(data, CONTEXT)
    assert len(subject._known) <= REMEMBERED and len(subject._seen) <= SEEN


def test_an_environment_that_an_application_changes_is_its_own() -> None:
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        seen.append({name: value for name, value in environ.items() if not name.startswith("wsgi.")})
        assert environ["wsgi.input"].read() == b""
        environ.clear()
        start("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    host = SyncHost(wsgi.worker(application, "site"))
    for number in range(1, 5):
        data = call(b"/a/b?c=d", number, f"7-{number}")
        assert answer_of(host.run(Delivery(number, "http", data))).body == b"ok"
    expected = seen[0]
    assert expected["PATH_INFO"] == "/b" and expected["HTTP_COOKIE"] == "a=b" and expected["rota.request_id"] == "7-1"
    for number, environ in enumerate(seen, 1):
        assert environ == {**expected, "REMOTE_PORT": str(number), "rota.request_id": f"7-{number}"}


def test_a_scope_that_an_application_changes_is_its_own() -> None:
    seen: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        seen.append({**scope, "headers": [*scope["headers"]], "state": {**scope["state"]}})
        scope["headers"].clear()
        scope["state"]["mine"] = 1
        scope.clear()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})

    def ask(number: int) -> None:
        host.take(Delivery(number, "http", call(b"/a/b?c=d", number, f"7-{number}")))

    def done(number: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        if number < 4:
            ask(number + 1)
        else:
            host.stop()

    host = AsyncHost(SyncHost(asgi.worker(application, "site")), starts, done, concurrency=1, threads=1)
    host.run(lambda: ask(1))
    assert [answer_of(outcome).body for outcome in outcomes] == [b"ok"] * 4
    expected = seen[0]
    assert expected["path"] == "/a/b" and (b"cookie", b"a=b") in expected["headers"] and expected["state"] == {}
    for number, scope in enumerate(seen, 1):
        own = {"client": ("10.0.0.1", number), "extensions": {"rota": {"request_id": f"7-{number}"}}}
        assert scope == {**expected, **own}


def test_an_answer_that_says_the_same_again_is_checked_again() -> None:
    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [("Content-Length", "2"), ("X", environ["QUERY_STRING"])])
        return [b"o" * int(environ["QUERY_STRING"])]

    host = SyncHost(wsgi.worker(application, "site"))
    for size, code in ((2, 0), (3, 4), (2, 0), (3, 4)):
        outcome = host.run(request("GET", b"/?%d" % size))
        assert (outcome.code == 0) is (code == 0)
