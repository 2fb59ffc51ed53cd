"""What a gateway remembers of requests and answers that come again: it makes no difference but in time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from http_rig import LIMITS, TIMEOUTS, connection, shared
from hypothesis import given
from hypothesis import strategies as st

from rota.common.body import decode_call, encode_result
from rota.common.settings import ServiceHttpSettings
from rota.gateway.core.connection import Connection, State
from rota.gateway.core.effects import Dispatch, Effect, Write
from rota.gateway.core.head import REMEMBERED, REMEMBERED_MAX, Heads
from rota.gateway.core.plain import Plain, packed_peer
from rota.gateway.core.requests import Peer
from rota.gateway.core.response import response
from rota.gateway.core.routes import route_to
from rota.gateway.core.rules import Rejected

CLIENT, SERVER = ["127.0.0.1", 5555], ["::1", 8080]
PEER = Peer(CLIENT, SERVER, False, "http", packed_peer(CLIENT, SERVER, "http"))
DATE = b"Sun, 22 Nov 2026 08:49:37 GMT"
HEAD = b"%b /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: text/html\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


def plain(method: str = "GET") -> Plain:
    head = Heads(LIMITS)[HEAD % method.encode()]
    route = route_to("site", "/a", ServiceHttpSettings())
    return Plain(head, route, (b"", 0, 0), encode_result([list(field) for field in head.headers]))


def answer(headers: list[tuple[bytes, bytes]], body: bytes, status: int = 200) -> bytes:
    return encode_result([status, [list(field) for field in headers], body])


@given(st.binary(max_size=70_000), st.text("0123456789abcdef-", min_size=1, max_size=31))
def test_a_call_from_memory_is_the_call_that_its_arguments_make(body: bytes, request_id: str) -> None:
    about = {"scheme": "http", "version": "1.1", "client": CLIENT, "server": SERVER, "root": "/a", "id": request_id}
    headers = [[b"host", b"a.example"], [b"accept", b"text/html"]]
    expected: tuple[list[Any], dict[str, Any]] = ["GET", b"/a?b=c", headers, body, about], {}
    assert decode_call(plain().call(body, PEER, request_id.encode())) == expected


@pytest.mark.parametrize("size", [0, 1, 255, 256, 5000, 70_000])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_an_answer_from_memory_is_made_of_the_same_bytes(size: int, kind: Any) -> None:
    headers, subject = [(b"Content-Type", b"text/plain"), (b"Content-Length", b"%d" % size)], plain()
    for _ in range(2):
        assert subject.likeness is None
        subject.answered(kind(answer(headers, b"x" * size)))
    assert subject.likeness is not None
    body = b"y" * size
    made = subject.likeness.response(kind(answer(headers, body)), b"7-1", DATE)
    assert made == response("GET", 200, [*headers, (b"x-request-id", b"7-1")], body, date=DATE)
    assert subject.likeness.status == 200 and subject.likeness.size == size


@pytest.mark.parametrize(
    "other",
    [
        answer([(b"Content-Type", b"text/html!")], b"body"),
        answer([(b"Content-Type", b"text/plain")], b"body", 404),
        answer([(b"Content-Type", b"text/plain")], b"longer"),
        answer([(b"Content-Type", b"text/plain"), (b"a", b"b")], b"body"),
        answer([], b"body"),
        answer([(b"Content-Type", b"text/plain")], b"body") + b" and more",
        encode_result(None),
        encode_result([200, [[b"Content-Type", b"text/plain"]], "text"]),
        b"",
    ],
)
def test_another_answer_is_made_anew(other: bytes) -> None:
    subject = plain()
    for _ in range(2):
        subject.answered(answer([(b"Content-Type", b"text/plain")], b"body"))
    assert subject.likeness is not None and subject.likeness.response(other, b"7-1", DATE) is None


@pytest.mark.parametrize("value", [None, 5, "text", b"abc", [], [200, [], "text"], {0: 200, 1: [], 2: b""}])
def test_what_is_no_answer_is_for_others_to_judge(value: object) -> None:
    subject = plain()
    for _ in range(3):
        assert subject.answered(encode_result(value)) == value
    assert subject.likeness is None


@pytest.mark.parametrize(
    ("method", "status", "headers"),
    [
        ("HEAD", 200, []),
        ("GET", 204, []),
        ("GET", 304, []),
        ("GET", 426, [(b"Upgrade", b"x")]),
        ("GET", 99, []),
        ("GET", [200], []),
        ("GET", 200, [(b"date", DATE)]),
        ("GET", 200, [(b"Content-Length", b"5")]),
        ("GET", 200, [(b"a", b"b\r\nc: d")]),
        ("GET", 200, [(b"a b", b"c")]),
        ("GET", 200, [(b"a",)]),
    ],
)
def test_an_answer_that_needs_a_closer_look_is_not_remembered(method: str, status: Any, headers: Any) -> None:
    subject = plain(method)
    for _ in range(3):
        subject.answered(answer(headers, b"body", status))
    assert subject.likeness is None


def test_what_changes_with_each_answer_is_not_remembered() -> None:
    subject = plain()
    for number in range(5):
        subject.answered(answer([(b"Set-Cookie", b"%d" % number)], b"body"))
    assert subject.likeness is None


def test_bytes_are_no_answer_where_it_is_to_say_more() -> None:
    asked, old, kept, last = (
        HEAD % b"GET",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    for data, sent in ((asked, True), (old, False), (kept, False), (last, False)):
        subject = connection()
        assert not subject.answered_with(9, 0.0)  # of nothing
        subject.received(data, 0.0)
        assert subject.answered_with(9, 0.0) is sent
    for end in ("eof", "drain"):
        subject = connection()
        subject.received(asked, 0.0)
        subject.eof(0.0) if end == "eof" else subject.drain()
        assert not subject.answered_with(9, 0.0) and len(subject.answered(200, [], b"", 0.0)) == 2


def test_bytes_are_no_answer_while_there_is_more_to_do() -> None:
    subject = connection()
    subject.received(2 * (HEAD % b"GET"), 0.0)
    assert not subject.answered_with(9, 1.0)
    write, dispatch = subject.answered(200, [], b"", 1.0)
    assert type(write) is Write and type(dispatch) is Dispatch
    subject.blocked(1.0)
    assert not subject.answered_with(9, 2.0)
    subject.written(2.0)
    assert subject.answered_with(9, 2.0) and subject.next_deadline() == 2.0 + TIMEOUTS.idle
    subject.received(HEAD % b"GET", 3.0)
    assert subject.answered_with(9, 3.0)


def test_heads_are_remembered_while_they_are_small_and_few() -> None:
    subject = Heads(LIMITS)
    assert subject[HEAD % b"GET"] is subject[HEAD % b"GET"]
    long = b"GET / HTTP/1.1\r\nHost: a\r\nA: %b\r\n\r\n" % (b"a" * REMEMBERED_MAX)
    assert subject[long] is not subject[long]
    for number in range(2 * REMEMBERED):
        subject[b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number]
    assert len(subject) <= REMEMBERED
    for _ in range(2):
        with pytest.raises(Rejected):
            subject[b"GET / HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize(
    "data",
    [
        HEAD % b"GET",
        2 * (HEAD % b"GET"),
        b"\r\n" + HEAD % b"GET",
        POST + b"hello",
        POST + b"hel",
        POST + b"hello" + HEAD % b"GET",
        POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n") + b"hello",
        POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        POST.replace(b"Content-Length: 5", b"Content-Length: 2000000") + b"hello",
        HEAD % b"GET" + b"hello",
        (HEAD % b"GET")[:-2],
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_remembered_head_is_read_as_when_it_came_first(data: bytes) -> None:
    def seen(heads: Heads | None) -> list[Any]:
        subject = Connection(shared(heads=heads), 0.0)
        whole = subject.whole(data) if heads is not None else None
        effects: list[Effect] = subject.received(data, 1.0) if whole is None else [whole]
        while subject.state is State.ANSWER:
            effects += subject.answered(200, [], b"", 2.0)
        return [effects, subject.state, subject.next_deadline()]

    heads = Heads(LIMITS)
    for known in (HEAD % b"GET", POST, data[: data.find(b"\r\n\r\n") + 4]):
        with suppress(Rejected):
            assert known.startswith(b"\r") or heads[known]
    assert seen(heads) == seen(heads) == seen(None)
