"""HTTP/2 without a socket: what becomes of requests, answers and frames, proper and hostile."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import h2.errors
import h2.events
import pytest
from hpack import NeverIndexedHeaderTuple
from http2_rig import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SETTINGS,
    START,
    WINDOW_UPDATE,
    Subject,
    block,
    frame,
    request,
)
from http_rig import LIMITS, TIMEOUTS, Held, shared, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.common.limits import INLINE_MAX
from rota.gateway.core.effects import Close, Rebuffed, Reset
from rota.gateway.core.http2 import Http2
from rota.gateway.core.http2_books import CONNECTION_WINDOW, STREAM_WINDOW
from rota.gateway.core.http2_frames import ACK, EARNS, FRAME_MAX, OF_FRAME, OF_RESET, POINTS, POINTS_PER_S, SMALL
from rota.gateway.core.http2_stream import BODIES_MAX
from rota.gateway.core.response import Unsendable
from rota.gateway.core.rules import OF_HTTP_2
from rota.gateway.core.shared import LINGER_S
from rota.gateway.core.upload import NoRoom

CODE = h2.errors.ErrorCodes
HTTP_MD = Path(__file__).parents[1] / "docs" / "HTTP.md"


def raw(data: bytes = START) -> Subject:
    """A client by hand: its h2 only reads."""
    subject = Subject(start=False)
    subject.client.data_to_send()
    return subject.feed(data) if data else subject


def asks(subject: Subject, *fields: tuple[str, str], method: str = "GET", body: bytes | None = None) -> int:
    number = subject.client.get_next_available_stream_id()
    subject.client.send_headers(number, [(":method", method), *GET[1:], *fields], end_stream=body is None)
    if body is not None:
        sends(subject, number, body)
    subject.exchange()
    return number


def sends(subject: Subject, number: int, body: bytes, end: bool = True) -> None:
    while len(body) > FRAME_MAX:
        subject.client.send_data(number, body[:FRAME_MAX])
        body = body[FRAME_MAX:]
        subject.exchange()
    subject.client.send_data(number, body, end_stream=end)
    subject.exchange()


# ---- requests and answers -------------------------------------------------------------------------------------------


def test_a_request_is_that_of_http_1() -> None:
    subject = Subject()
    asks(subject, ("x-a", "1"), ("cookie", "a=b"), ("x-b", ""), ("cookie", "c=d"))
    head, body = subject.asked[0].head, subject.asked[0].body
    assert (head.method, head.target, head.version, head.host, body) == ("GET", b"/", "2", b"a", b"")
    assert head.headers == [(b"host", b"a"), (b"x-a", b"1"), (b"cookie", b"a=b; c=d"), (b"x-b", b"")]
    assert all(type(field) is tuple for field in head.headers)
    asks(subject, ("cookie", "a=b"), ("host", "a"), ("cookie", "c=d"))
    assert subject.asked[1].head.headers == [(b"host", b"a"), (b"cookie", b"a=b; c=d")]


def test_an_answer_has_the_fields_of_http_1_but_those_of_its_connection() -> None:
    subject = Subject()
    number = asks(subject)
    subject.answer(number, b"hello", 201, (b"X-A", b" b "), (b"Connection", b"close"), (b"Set-Cookie", b"s=t"))
    event = next(each for each in subject.said if isinstance(each, h2.events.ResponseReceived))
    said = dict(event.headers or [])
    date = said.pop("date")  # type: ignore[call-overload]
    assert said == {":status": "201", "x-a": "b", "set-cookie": "s=t", "content-length": "5"} and date
    assert subject.body(number) == b"hello" and not subject.resets() and not subject.closed


def test_an_answer_goes_on_when_the_kernel_takes_more() -> None:
    subject = raw(START + request(1))
    subject.answers.begin(1, 200, [])
    subject.pump()
    subject.answers.blocked(0.0)
    subject.do(subject.answers.piece(1, b"late"))
    assert not subject.body(1) and not subject.answers.takes(1)
    subject.answers.written(1.0)
    subject.pump()
    assert subject.body(1) == b"late" and subject.answers.takes(1)


def test_secrets_of_an_answer_and_what_is_never_the_same_stand_in_no_table() -> None:
    subject = Subject()
    subject.answer(asks(subject), b"", 200, (b"Set-Cookie", b"s=t"), (b"X-Request-Id", b"i"), (b"X-A", b"b"))
    event = next(each for each in subject.said if isinstance(each, h2.events.ResponseReceived))
    never = [field[0] for field in event.headers or [] if isinstance(field, NeverIndexedHeaderTuple)]
    assert never == ["set-cookie", "x-request-id"]


def test_an_answer_goes_on_when_settings_make_room_for_it() -> None:
    subject = raw(PREFACE + frame(SETTINGS, b"\0\4\0\0\0\0") + request(1)).answer(1, b"hello")
    assert subject.statuses() == {1: "200"} and not subject.body(1)
    subject.feed(frame(SETTINGS, b"\0\4\0\0\0\5"))
    assert subject.body(1) == b"hello" and subject.heard.ended == {1}


@pytest.mark.parametrize("size", [0, 1, 16384, INLINE_MAX, INLINE_MAX + 1, 3_000_000])
def test_a_body_comes_whole_before_its_request_is_asked(size: int) -> None:
    subject = Subject(LIMITS._replace(body=4_000_000))
    Held.room = 10_000_000
    body = bytes(range(256)) * (size // 256 + 1)
    number = subject.client.get_next_available_stream_id()
    subject.client.send_headers(number, POST)
    sends(subject, number, body[:size], end=False)
    assert not subject.asked
    subject.client.end_stream(number)
    subject.exchange()
    assert whole(subject.asked[0]) == body[:size]  # type: ignore[arg-type]
    assert isinstance(subject.asked[0].body, bytes) == (size <= INLINE_MAX)


@pytest.mark.parametrize("size", [1, 16384, 65535, 65536, 1_000_000, 5_000_000])
def test_an_answer_waits_for_the_window_of_its_client(size: int) -> None:
    subject = Subject()
    Held.room = 10_000_000
    number = asks(subject)
    body = bytes(range(256)) * (size // 256 + 1)
    subject.answer(number, body[:size])
    assert len(subject.body(number)) == min(size, 65535)
    while len(subject.body(number)) < size:
        before = len(subject.body(number))
        subject.client.increment_flow_control_window(50_000)
        subject.client.increment_flow_control_window(50_000, number)
        subject.exchange()
        assert len(subject.body(number)) > before
    assert subject.body(number) == body[:size]
    assert any(isinstance(each, h2.events.StreamEnded) for each in subject.said)


def test_pieces_are_taken_one_at_a_time_and_room_is_told() -> None:
    subject = Subject()
    number = asks(subject)
    subject.answers.begin(number, 200, [])
    assert subject.answers.takes(number)
    subject.do(subject.answers.piece(number, b"x" * 65535))
    assert subject.answers.rooms() == [number] and subject.answers.takes(number)
    subject.do(subject.answers.piece(number, b"y" * 10))  # the window is full
    assert subject.answers.rooms() == [] and not subject.answers.takes(number)
    subject.client.increment_flow_control_window(100)
    subject.client.increment_flow_control_window(100, number)
    subject.exchange()
    assert subject.answers.rooms() == [number] and subject.answers.takes(number)
    subject.do(subject.answers.end(number))
    assert subject.body(number) == b"x" * 65535 + b"y" * 10
    assert any(isinstance(each, h2.events.StreamEnded) for each in subject.said)


def test_one_stream_that_is_not_read_does_not_stop_the_others() -> None:
    subject = Subject()
    subject.client.increment_flow_control_window(1_000_000)
    first, second = asks(subject), asks(subject)
    subject.answer(first, b"x" * 200_000)
    subject.answer(second, b"y" * 60_000)
    assert len(subject.body(first)) == 65535 and subject.body(second) == b"y" * 60_000


def test_streams_take_turns() -> None:
    subject = Subject()
    subject.client.increment_flow_control_window(1_000_000)
    first, second = asks(subject), asks(subject)
    subject.answers.answered(first, 200, [], b"x" * 60_000)
    subject.answers.answered(second, 200, [], b"y" * 60_000)
    subject.hear(subject.answers.output(0.0))
    assert len(subject.body(first)) == len(subject.body(second)) == 2 * FRAME_MAX


def test_of_an_answer_that_cannot_be_sent_nothing_leaves_and_another_one_may_be_given() -> None:
    subject = Subject()
    number = asks(subject)
    for status, fields, body in [
        (200, [(b"x", b"a\r\nb")], b""),
        (200, [(b"content-length", b"4")], b"abc"),
        (200, [], "text"),
        (200, [(b"x" * 257, b"1")], b""),
        (200.0, [], b""),
        (999, [], b""),
    ]:
        with pytest.raises(Unsendable):
            subject.answers.answered(number, status, fields, body)  # type: ignore[arg-type]
    with pytest.raises(Unsendable):
        subject.answers.begin(number, 99, [])
    assert subject.answer(number, b"so", 500).statuses() == {number: "500"}


def test_an_answer_that_breaks_off_is_reset() -> None:
    subject = Subject()
    numbers = [asks(subject) for _ in range(2)]
    for number in numbers:
        subject.answers.begin(number, 200, [(b"content-length", b"4")])
        subject.do(subject.answers.piece(number, b"abc"))
    subject.do(subject.answers.end(numbers[0]))
    subject.abort(numbers[1])
    assert subject.resets() == {number: CODE.INTERNAL_ERROR for number in numbers} and len(subject.failed()) == 1
    assert not subject.closed


@pytest.mark.parametrize("pieces", [[b"abc", b"de"], [b"abcd", b"e"], [b"abcde"]])
def test_more_than_the_length_is_cut_off_and_told(pieces: list[bytes]) -> None:
    subject = Subject()
    number = asks(subject)
    subject.answers.begin(number, 200, [(b"content-length", b"4")])
    for piece in pieces:
        subject.do(subject.answers.piece(number, piece))
    assert subject.body(number) == b"abcd" and subject.resets() == {} and len(subject.failed()) == 1
    assert any(isinstance(each, h2.events.StreamEnded) for each in subject.said)


def test_head_204_and_304_have_no_body() -> None:
    subject = Subject()
    for status, method, length in [(200, "HEAD", "5"), (204, "GET", None), (304, "GET", None)]:
        number = asks(subject, method=method)
        subject.answer(number, b"hello", status)
        event = [each for each in subject.said if isinstance(each, h2.events.ResponseReceived)][-1]
        assert dict(event.headers or []).get("content-length") == length  # type: ignore[call-overload]
        assert subject.body(number) == b"" and event.stream_ended


@pytest.mark.parametrize("headers", [[], [(b"Content-Length", b"5")]])
def test_nor_has_a_head_whose_answer_comes_in_pieces(headers: list[tuple[bytes, bytes]]) -> None:
    subject = raw(START + request(1, [(":method", "HEAD"), *GET[1:]]))
    subject.answers.begin(1, 200, headers)
    subject.do(subject.answers.piece(1, b"hello"))
    subject.do(subject.answers.end(1))
    assert subject.heard.ended == {1} and not subject.body(1) and not subject.resets()


def test_an_answer_in_pieces_is_over_with_its_end_and_its_stream_makes_room() -> None:
    subject = Subject(streams=1)
    for _ in range(3):
        number = asks(subject)
        subject.answers.begin(number, 200, [])
        for data in (b"hello", b""):
            subject.do(subject.answers.piece(number, data))
        subject.do(subject.answers.end(number))
        assert subject.body(number) == b"hello" and number in subject.heard.ended


def test_to_a_stream_that_is_no_more_nothing_is_said() -> None:
    subject = raw(START + request(1) + frame(RST_STREAM, bytes(4), 0, 1))
    subject.answers.begin(1, 200, [])
    assert subject.answers.piece(1, b"hello") == subject.answers.end(1) == []
    subject.answer(1, b"hello").abort(1)
    assert not subject.statuses() and not subject.body(1) and subject.answers.takes(1)


def test_an_answer_for_which_no_spool_has_room_waits_in_memory() -> None:
    def full() -> Held:
        raise NoRoom

    subject = Subject(open_spool=full)
    number = asks(subject)
    subject.answer(number, bytes(2_000_000))
    while number not in subject.heard.ended:
        subject.client.increment_flow_control_window(60_000)
        subject.client.increment_flow_control_window(60_000, number)
        subject.exchange()
    assert len(subject.body(number)) == 2_000_000


def test_100_continue_is_said_before_the_body_and_an_early_answer_ends_the_upload() -> None:
    subject = Subject()
    number = subject.client.get_next_available_stream_id()
    subject.client.send_headers(number, [*POST, ("expect", "100-continue")])
    subject.exchange()
    assert any(isinstance(each, h2.events.InformationalResponseReceived) for each in subject.said)
    other = subject.client.get_next_available_stream_id()
    subject.client.send_headers(other, [*POST, ("content-length", str(2**40))])
    subject.exchange()
    assert subject.statuses() == {number: "100", other: "413"} and other in subject.heard.ended
    subject.tick(LINGER_S)
    assert subject.resets() == {other: CODE.NO_ERROR}
    subject.client.reset_stream(number)
    subject.exchange()
    assert subject.gone() == [number] and not subject.asked


# ---- what is refused ------------------------------------------------------------------------------------------------

M, S, A, P = GET
REFUSED = {
    "pseudo": [
        [M, A, P], [M, (":scheme", "ftp"), A, P], [M, S, A], [*GET, M], [M, S, A, ("x", "y"), P], [*GET, (":x", "y")],
        [*GET, (":status", "200")], [*GET, (":protocol", "websocket")],
    ],
    "upper-case": [[*GET, ("X-a", "b")]],
    "of-http-1": [
        [*GET, ("connection", "close")], [*GET, ("transfer-encoding", "chunked")], [*GET, ("te", "gzip")],
        [*GET, ("upgrade", "websocket")], [*GET, ("keep-alive", "1")], [*GET, ("proxy-connection", "close")],
    ],
    "field-space": [[*GET, ("x", " a")], [*GET, ("x", "a\t")], [*GET, ("x", " ")]],
    "other-length": [[*GET, ("content-length", "1")]],
    "control": [[*GET, ("x", "a\r\nb: c")], [*GET, ("x", "a\0")], [M, S, ("x", "\x7f"), P]],
    "non-ascii": [[*GET, ("x", b"\xff")], [M, S, A, (":path", b"/\xc3\xa4")]],
    "no-name": [[*GET, ("", "a")]],
    "name": [[*GET, ("a b", "c")], [*GET, ("a:b", "c")], [*GET, ("x\n", "c")]],
    "method": [[S, A, P], [(":method", ""), S, A, P], [(":method", "G T"), S, A, P]],
    "unknown-method": [[(":method", "CONNECT"), A], [(":method", "get"), S, A, P], [(":method", "G" * 21), S, A, P]],
    "target": [
        [M, S, A, (":path", "")], [M, S, A, (":path", "a")], [M, S, A, (":path", "https://a/")],
        [M, S, A, (":path", "/a b")], [M, S, A, (":path", "/a#b")], [M, S, A, (":path", "*")],
    ],
    "no-host": [[M, S, P]],
    "host": [[M, S, (":authority", "a/b"), P], [M, S, (":authority", ""), P], [M, S, (":authority", "u@a"), P]],
    "two-hosts": [[M, S, P, ("host", "a"), ("host", "a")]],
    "other-host": [[*GET, ("host", "b")]],
    "two-lengths": [[*GET, ("content-length", "0"), ("content-length", "0")]],
    "length": [[*GET, ("content-length", "+1")], [*GET, ("content-length", "1" * 20)]],
    "body-size": [[*GET, ("content-length", "1048577")]],
    "request-line-size": [[M, S, A, (":path", "/" + "a" * 8192)]],
    "field-size": [[*GET, ("x", "a" * 8192)]],
    "head-size": [[*GET, *(("x", "a" * 8000) for _ in range(5))]],
    "field-count": [[*GET, *(("x", "") for _ in range(101))]],
    "expect": [[*GET, ("expect", "miracles")]],
}  # fmt: skip


def blocks(data: bytes, number: int, flags: int) -> bytes:
    """In as many frames as it takes."""
    pieces = [data[at : at + FRAME_MAX] for at in range(0, len(data), FRAME_MAX)]
    kinds = [HEADERS, *[CONTINUATION] * (len(pieces) - 1)]
    ends = [*[0] * (len(pieces) - 1), END_HEADERS]
    firsts = [flags, *[0] * (len(pieces) - 1)]
    return b"".join(frame(k, p, e | f, number) for k, p, e, f in zip(kinds, pieces, ends, firsts, strict=True))


@pytest.mark.parametrize("rule", REFUSED)
def test_what_breaks_a_rule_is_refused_alone(rule: str) -> None:
    from http_rig import RULE_OF, shape

    of = RULE_OF | {(each.status, shape(each.reason)): name for name, each in OF_HTTP_2.items()}
    for fields in REFUSED[rule]:
        subject = raw()
        subject.feed(blocks(block(fields), 1, END_STREAM))
        status, reason = int(subject.statuses()[1]), subject.body(1).decode().strip()
        assert of[status, shape(reason)] == rule, fields
        assert subject.refused() == [status] and not subject.asked and not subject.closed
        subject.feed(request(3))
        assert subject.asked[0].stream == 3, "the connection serves on"


@pytest.mark.parametrize(
    "fields",
    [
        [M, S, A, (":path", "/" + "a" * 8188)], [*GET, ("x", "a" * 8191)], [*GET, *[("x", "")] * 100],
        [*GET, *(("x", "a" * 8000) for _ in range(4)), ("x", "a" * 688)],
        [(":method", "OPTIONS"), S, A, (":path", "*")], [*GET, ("te", "trailers")], [*GET, ("te", "Trailers")],
        [*GET, ("host", "A")], [M, S, P, ("host", "a")], [*GET, ("content-length", "0")],
    ],
)  # fmt: skip
def test_what_breaks_no_rule_is_asked(fields: list[tuple[str, str]]) -> None:
    subject = raw()
    subject.feed(blocks(block(fields), 1, END_STREAM))
    assert [each.stream for each in subject.asked] == [1] and not subject.refused()


def test_every_rule_of_http_2_is_tried_and_stands_in_the_docs() -> None:
    assert set(OF_HTTP_2) <= set(REFUSED)
    for name, rule in OF_HTTP_2.items():
        assert f"| `{name}` | {rule.status} | {rule.section} | {rule.reason} |" in HTTP_MD.read_text()


def test_what_comes_of_a_refused_body_is_dropped_for_a_while_so_that_its_client_reads_why() -> None:
    subject = Subject(LIMITS._replace(body=100_000))
    ends, goes_on, stops = (subject.client.get_next_available_stream_id() + 2 * place for place in range(3))
    for number in (ends, goes_on, stops):
        subject.client.send_headers(number, [*POST, ("content-length", "5000000")])
        subject.exchange()
        sends(subject, number, bytes(200_000), end=False)
    assert set(subject.statuses().values()) == {"413"} and not subject.resets() and subject.core._streams.held == 0
    sends(subject, ends, bytes(1_000_000))  # there is room for it
    subject.client.reset_stream(stops)
    subject.exchange()
    assert not subject.resets() and set(subject.core._streams) == {goes_on}
    subject.tick(LINGER_S)
    assert subject.resets() == {goes_on: CODE.NO_ERROR} and not subject.core._streams
    assert not subject.asked and not subject.closed


def test_a_refusal_that_is_not_read_meanwhile_is_still_sent() -> None:
    subject = raw(PREFACE + frame(SETTINGS, b"\0\4\0\0\0\0") + request(1, [*POST, ("content-length", "5000000")], 0))
    subject.tick(LINGER_S)
    assert subject.statuses() == {1: "413"} and not subject.resets() and not subject.heard.bodies
    subject.feed(frame(WINDOW_UPDATE, b"\0\0\1\0", 0, 1))
    assert b"has more than" in subject.body(1) and subject.resets() == {1: CODE.NO_ERROR}


def test_the_refusal_of_a_head_request_has_no_body_whatever_is_wrong_with_it() -> None:
    _, *rest = GET
    fields = [(":method", "HEAD"), *rest]
    subject = raw(START + request(1, [*fields, ("x", " a")]) + request(3, [*fields, ("content-length", "1")]))
    assert subject.statuses() == {1: "400", 3: "400"} and subject.heard.ended == {1, 3} and not subject.heard.bodies
    told = [each.refused for each in subject.effects if isinstance(each, Rebuffed)]
    assert [(each.size, each.head and each.head.target) for each in told] == [(0, None), (0, b"/")]


@pytest.mark.parametrize(
    ("sent", "ended", "status"), [(b"abc", True, "400"), (b"abcde", False, "400"), (b"abcd", True, None)]
)
def test_a_body_of_another_length_than_was_said_is_refused(sent: bytes, ended: bool, status: str | None) -> None:
    subject = raw(START + request(1, [*POST, ("content-length", "4")], 0))
    subject.feed(frame(DATA, sent, END_STREAM * ended, 1))
    assert subject.statuses().get(1) == status and len(subject.asked) == (status is None) and not subject.closed


def test_a_body_that_is_too_large_is_refused_when_it_is_and_no_room_is_503() -> None:
    subject = Subject(LIMITS._replace(body=100_000))
    number = subject.client.get_next_available_stream_id()
    subject.client.send_headers(number, POST)
    for _ in range(7):
        subject.client.send_data(number, b"x" * FRAME_MAX)
    subject.exchange()
    assert subject.statuses() == {number: "413"} and number in subject.heard.ended
    Held.room = 300_000
    try:
        full = Subject()
        number = full.client.get_next_available_stream_id()
        full.client.send_headers(number, POST)
        for _ in range(20):
            if not full.statuses():
                full.client.send_data(number, b"x" * FRAME_MAX)
                full.exchange()
        assert full.statuses() == {number: "503"} and not full.closed
        Held.room = INLINE_MAX + 1  # the piece that comes next finds no room, when what came before it is in there
        for _ in range(5):
            number = full.client.get_next_available_stream_id()
            full.client.send_headers(number, POST)
            for _ in range(17):
                full.client.send_data(number, b"x" * FRAME_MAX)
                full.exchange()
                if full.statuses().get(number):
                    break
            assert full.statuses()[number] == "503" and full.core._streams.held == 0
    finally:
        Held.room = 1_000_000


@pytest.mark.parametrize(
    "fields",
    [
        [(":path", "/")], [("X", "y")], [("x", "a\nb")], [("x", "a" * 8200)],
        [("content-length", "3")], [("x", "y"), ("host", "a")], [("expect", "100-continue")], [("connection", "close")],
    ],
)  # fmt: skip
def test_bad_trailers_are_refused_and_good_ones_dropped(fields: list[tuple[str, str]]) -> None:
    subject = raw(START + request(1, POST, 0) + frame(DATA, b"abc", 0, 1) + request(1, fields))
    assert subject.statuses() == {1: "400"} and not subject.asked and not subject.closed
    good = raw(START + request(1, POST, 0) + frame(DATA, b"abc", 0, 1) + request(1, [("x", "y")]))
    assert good.asked[0].body == b"abc" and (b"x", b"y") not in good.asked[0].head.headers


# ---- what ends a connection -----------------------------------------------------------------------------------------

BIG = block([*GET, *((f"x-{n}", "a" * 4000) for n in range(40))])
BOMB = b"".join(  # 4,000 bytes in the table, then 60 times the same
    [bytes(__import__("hpack").Encoder().encode([*GET, ("x", "a" * 3900)])), b"\xbe" * 60]
)
HOSTILE = {
    "another preface": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", CODE.PROTOCOL_ERROR),
    "no settings": (PREFACE + request(1), CODE.PROTOCOL_ERROR),
    "settings that only acknowledge": (PREFACE + frame(SETTINGS, b"", ACK), CODE.PROTOCOL_ERROR),
    "settings with an odd length": (PREFACE + frame(SETTINGS, b"abc"), CODE.FRAME_SIZE_ERROR),
    "settings on a stream": (START + frame(SETTINGS, b"", 0, 1), CODE.PROTOCOL_ERROR),
    "a window that is too large": (PREFACE + frame(SETTINGS, b"\0\4\xff\xff\xff\xff"), CODE.FLOW_CONTROL_ERROR),
    "a frame that is too large": (START + frame(DATA, b"x" * 16385, 0, 1)[:9], CODE.FRAME_SIZE_ERROR),
    "an unknown frame that is too large": (START + b"\1\0\0\x77\0\0\0\0\0", CODE.FRAME_SIZE_ERROR),
    "data on no stream": (START + frame(DATA, b"x"), CODE.PROTOCOL_ERROR),
    "data on a stream that was not opened": (START + frame(DATA, b"x", 0, 1), CODE.PROTOCOL_ERROR),
    "data behind its end": (START + request(1) + frame(DATA, b"x", 0, 1), None),
    "a reset of a stream above the last one": (START + request(3) + frame(RST_STREAM, bytes(4), 0, 5),
                                               CODE.PROTOCOL_ERROR),
    "a reset of an even stream": (START + request(3) + frame(RST_STREAM, bytes(4), 0, 2), CODE.PROTOCOL_ERROR),
    "an even stream": (START + request(2), CODE.PROTOCOL_ERROR),
    "a stream below the last one": (START + request(3) + request(1), CODE.PROTOCOL_ERROR),
    "no head at all": (START + frame(HEADERS, b"", END_HEADERS | END_STREAM, 1), None),
    "trailers that end nothing": (START + request(1, POST, 0) + request(1, [("x", "y")], 0), CODE.PROTOCOL_ERROR),
    "a push": (START + frame(PUSH, b"\0\0\0\2" + block(GET), END_HEADERS, 1), CODE.PROTOCOL_ERROR),
    "a continuation of nothing": (START + frame(CONTINUATION, block(GET), END_HEADERS, 1), CODE.PROTOCOL_ERROR),
    "a frame within a head": (START + frame(HEADERS, block(GET), 0, 1) + frame(PING, bytes(8)), CODE.PROTOCOL_ERROR),
    "an extension within a head": (START + frame(HEADERS, b"", 0, 1) + frame(0x77), CODE.PROTOCOL_ERROR),
    "padding longer than its frame": (START + request(1, POST, 0) + frame(DATA, b"\xffab", PADDED, 1),
                                      CODE.PROTOCOL_ERROR),
    "a goodbye on a stream": (START + frame(GOAWAY, bytes(8), 0, 1), CODE.PROTOCOL_ERROR),
    "a goodbye of seven bytes": (START + frame(GOAWAY, bytes(7)), CODE.FRAME_SIZE_ERROR),
    "a ping of seven bytes": (START + frame(PING, bytes(7)), CODE.FRAME_SIZE_ERROR),
    "a window update of nothing": (START + frame(WINDOW_UPDATE, bytes(4)), CODE.PROTOCOL_ERROR),
    "a window beyond all bounds": (START + frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 2, CODE.FLOW_CONTROL_ERROR),
    "garbage for a head": (START + frame(HEADERS, b"\xff" * 20, END_HEADERS, 1), CODE.COMPRESSION_ERROR),
    "an index that is not there": (START + frame(HEADERS, b"\xbf", END_HEADERS, 1), CODE.COMPRESSION_ERROR),
    "a table that is too large": (START + frame(HEADERS, b"\x3f\xff\xff\x03" + block(GET), END_HEADERS, 1),
                                  CODE.COMPRESSION_ERROR),
    "a head of 160 KB": (START + blocks(BIG, 1, END_STREAM), CODE.ENHANCE_YOUR_CALM),
    "a head that grows": (START + frame(HEADERS, BOMB, END_HEADERS | END_STREAM, 1), CODE.ENHANCE_YOUR_CALM),
    "a flood of continuations": (START + frame(HEADERS, b"", 0, 1) + frame(CONTINUATION, b"", 0, 1) * 2000, None),
    "a flood of long continuations": (
        START + frame(HEADERS, b"", 0, 1) + frame(CONTINUATION, b"\0\1a" + b"\x7f\x80\x7d" + b"x" * 16000, 0, 1) * 9,
        CODE.ENHANCE_YOUR_CALM),
    "a flood of pings": (START + frame(PING, bytes(8)) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of settings": (START + frame(SETTINGS) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of priorities": (START + frame(PRIORITY, b"\0\0\0\1\0", 0, 3) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of window updates": (START + frame(WINDOW_UPDATE, b"\0\0\0\1") * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of nothing": (START + request(1, POST, 0) + frame(DATA, b"", 0, 1) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of padding": (START + request(1, POST, 0) + frame(DATA, b"\1\0", PADDED, 1) * 2000,
                           CODE.ENHANCE_YOUR_CALM),
    "a flood of extensions": (START + frame(0x77, b"x") * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of goodbyes": (START + request(1, POST, 0) + frame(GOAWAY, bytes(8)) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a flood of heads of a stream that is over": (
        START + request(1) + frame(RST_STREAM, bytes(4), 0, 1) + request(1) * 2000, CODE.ENHANCE_YOUR_CALM),
    "a rapid reset": (START + b"".join(request(n) + frame(RST_STREAM, b"\0\0\0\x08", 0, n) for n in range(1, 3000, 2)),
                      CODE.ENHANCE_YOUR_CALM),
    "resets that we are made to send": (
        START + b"".join(request(n, POST, 0) + frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", 0, n)
                         for n in range(1, 4000, 2)), CODE.ENHANCE_YOUR_CALM),
    "bad heads without an end": (START + b"".join(request(n, [M]) for n in range(1, 3000, 2)), CODE.ENHANCE_YOUR_CALM),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("pieces", ["whole", "in pieces"])
def test_what_is_hostile_ends_with_its_code_and_nothing_of_it_goes_on(what: str, pieces: str) -> None:
    data, code = HOSTILE[what]
    subject = raw(b"")
    if pieces == "whole":
        subject.feed(data)
    else:
        step = 1 + len(data) // 5000
        for at in range(0, len(data), step):
            if not subject.closed:
                subject.feed(data[at : at + step])
    assert code is None or subject.goaway == code
    if code is not None:
        assert subject.closed and subject.core.next_deadline() is None
        assert {each.stream for each in subject.asked} <= set(subject.gone()), "nobody waits for their answers"
    assert subject.answers.output(0.0) == b"" or not subject.closed


def test_a_flood_is_what_is_more_than_a_client_may_cost_and_time_forgives() -> None:
    subject = raw()
    few = POINTS // OF_FRAME - 10
    for round_ in range(3):
        subject.now = 20.0 * round_
        subject.feed(request(1 + 2 * round_) + frame(PING, bytes(8)) * few)
        subject.answer(1 + 2 * round_)
    assert not subject.closed


def test_a_browser_that_leaves_pages_may_reset_hundreds_of_streams_and_a_flood_resets_more() -> None:
    subject = raw(START + b"".join(request(n) + frame(RST_STREAM, bytes(4), 0, n) for n in range(1, 999, 2)))
    assert not subject.closed and len(subject.gone()) == POINTS // OF_RESET - 1
    subject.feed(b"".join(request(n) + frame(RST_STREAM, bytes(4), 0, n) for n in range(999, 1003, 2)))
    assert subject.goaway == CODE.ENHANCE_YOUR_CALM


def test_bad_requests_are_a_flood_even_if_each_waits_for_its_answer() -> None:
    subject = raw()
    for number in range(1, 4 * POINTS // OF_RESET, 2):
        subject.feed(request(number, [M]))
    assert subject.goaway == CODE.ENHANCE_YOUR_CALM


def test_requests_and_their_bodies_are_no_flood_however_quickly_they_come() -> None:
    subject = raw()
    many = POINTS // OF_FRAME + 1
    for number in range(1, 2 * many, 2):
        subject.feed(request(number, POST, 0) + frame(DATA, b"a", END_STREAM, number))
        subject.answer(number)
    subject.feed(request(2 * many + 1, POST, 0) + frame(DATA, bytes(SMALL), 0, 2 * many + 1) * (many // 2))
    subject.feed(request(2 * many + 3, POST, 0) + frame(DATA, bytes(SMALL), 0, 2 * many + 3) * (many // 2 + 1))
    assert len(subject.asked) == many and not subject.closed


def test_what_time_forgives_it_forgives_once() -> None:
    subject = raw(START + request(1))
    while not subject.closed:
        subject.now += 1.0
        subject.feed(frame(PING, bytes(8)) * (2 * POINTS_PER_S // OF_FRAME))
    assert (subject.goaway, subject.now) == (CODE.ENHANCE_YOUR_CALM, POINTS / POINTS_PER_S)


def test_who_takes_an_answer_may_say_so_however_long_it_is() -> None:
    subject = raw(START + request(1))
    subject.answers.begin(1, 200, [])
    size = 2 * EARNS
    taken = frame(WINDOW_UPDATE, size.to_bytes(4, "big")) + frame(WINDOW_UPDATE, size.to_bytes(4, "big"), 0, 1)
    for _ in range(POINTS // OF_FRAME):  # and two frames each
        subject.do(subject.answers.piece(1, bytes(size)))
        subject.feed(taken)
    assert not subject.closed and len(subject.body(1)) == size * (POINTS // OF_FRAME)


def test_more_streams_than_allowed_are_refused_to_be_sent_again() -> None:
    subject = raw()
    subject.feed(b"".join(request(number) for number in range(1, 241, 2)))
    assert len(subject.asked) == 100 and not subject.closed
    assert subject.resets() == {number: CODE.REFUSED_STREAM for number in range(201, 241, 2)}
    subject.answer(1)
    subject.feed(request(241))
    assert subject.asked[-1].stream == 241


def test_a_table_that_a_client_wishes_larger_stays_small() -> None:
    subject = raw(PREFACE + frame(SETTINGS, b"\0\1\x7f\xff\xff\xff"))
    assert subject.core._books.encoder.header_table_size == 4096


@pytest.mark.parametrize(
    "sizes", [[0], [50], [50, 50], [50, 4096], [50, 4096, 4096], [100_000, 50], [100_000, 100_000], [9999, 0, 9999, 60]]
)
@pytest.mark.parametrize("at_once", [False, True], ids=["frames", "one frame"])
def test_whatever_tables_a_client_wishes_in_a_row_it_can_read_what_is_said_to_it(
    sizes: list[int], at_once: bool
) -> None:
    """RFC 7541 4.2: a client whose table has become smaller is told so with the next head, or it gives up."""
    subject = raw(START + request(1) + request(3) + request(5))
    field = (b"x-a", b"a" * 20)
    subject.answer(1, b"", 200, field)
    wishes = [b"\0\1" + size.to_bytes(4, "big") for size in sizes]
    subject.feed(b"".join(frame(SETTINGS, wish) for wish in ([b"".join(wishes)] if at_once else wishes)))
    subject.heard.decoder.header_table_size = min(4096, *sizes)  # what was in it is gone
    subject.heard.decoder.max_allowed_table_size = sizes[-1]
    subject.answer(3, b"", 200, field, (b"x-b", b"b"))
    subject.feed(frame(SETTINGS))
    subject.answer(5, b"", 404, field, (b"x-b", b"b"))
    assert subject.statuses() == {1: "200", 3: "200", 5: "404"}
    assert subject.heard.decoder.header_table_size <= min(sizes[-1], 4096)


class Opened(list[Held]):
    """Spools, as they were."""

    def __call__(self) -> Held:
        self.append(Held())
        return self[-1]


def test_bodies_of_many_streams_do_not_fill_the_memory_and_leave_nothing_in_spools() -> None:
    opened = Opened()
    subject = Subject(LIMITS._replace(body=4_000_000), open_spool=opened)
    Held.room = 10_000_000
    numbers = []
    for _ in range(20):
        number = subject.client.get_next_available_stream_id()
        subject.client.send_headers(number, POST)
        numbers.append(number)
        sends(subject, number, b"x" * 200_000, end=False)
        assert subject.core._streams.held <= BODIES_MAX + 200_000
    for number in numbers:
        subject.client.end_stream(number)
    subject.exchange()
    assert [each.body for each in subject.asked] == [b"x" * 200_000] * 20
    assert subject.core._streams.held == 0
    for number in numbers:
        subject.answer(number, b"y" * 500_000)
    assert subject.core._streams.held <= BODIES_MAX
    for number in numbers[:-1]:
        subject.client.reset_stream(number)
    subject.exchange()
    assert subject.core._streams.held == 0 or len(subject.body(numbers[-1])) < 500_000
    while len(subject.body(numbers[-1])) < 500_000:
        subject.client.increment_flow_control_window(60_000)
        subject.client.increment_flow_control_window(60_000, numbers[-1])
        subject.exchange()
    assert subject.body(numbers[-1]) == b"y" * 500_000 and subject.core._streams.held == 0
    assert opened and all(spool.closed for spool in opened)
    Held.room = 1_000_000


# ---- time -----------------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_told_goodbye_and_pings_do_not_keep_it() -> None:
    subject = raw()
    for second in range(1, 5):
        subject.now = float(second)
        subject.feed(frame(PING, bytes(8)))
    subject.tick(5.1)
    assert subject.goaway == CODE.NO_ERROR and subject.closed
    later = raw(START + request(1))
    later.tick(100.0)
    later.answer(1)
    assert later.core.next_deadline() == 105.0


@pytest.mark.parametrize(
    "data",
    [
        b"PRI",
        START + b"\0",
        START + frame(HEADERS, block(GET), END_STREAM, 1),
        START + request(1) + frame(WINDOW_UPDATE, bytes(4), 0, 1)[:-1],
        START + request(1) + frame(HEADERS, block(GET), END_STREAM, 3) + frame(DATA, b"a", 0, 1)[:-1],
    ],
)
def test_a_head_that_does_not_come_ends_the_connection(data: bytes) -> None:
    subject = Subject(timeouts=TIMEOUTS._replace(idle=20.0), start=False)
    subject.client.data_to_send()
    subject.feed(data)
    subject.tick(9.9)
    assert not subject.closed
    subject.tick(10.1)
    assert subject.closed


@pytest.mark.parametrize("cut", [5, 9, 500])
def test_an_upload_goes_on_however_its_frames_are_cut(cut: int) -> None:
    subject = raw(START + request(1, POST, 0))
    data = frame(DATA, bytes(1000), 0, 1)
    subject.feed(data[:cut])
    for second in range(1, 60):
        subject.now = float(second)
        subject.feed(data[cut:] + data[:cut])
        subject.tick(second + 0.5)
    assert not subject.closed and not subject.statuses()


def test_a_head_in_many_frames_has_its_time_in_all() -> None:
    subject = raw(START + request(1, POST, 0) + frame(HEADERS, block(GET)[:2], END_STREAM, 3))
    for second in range(1, 11):
        assert not subject.closed
        subject.now = float(second)
        subject.feed(frame(CONTINUATION, block(GET)[1 + second : 2 + second], 0, 3))
        subject.tick(second + 0.5)
    assert subject.closed


def test_a_body_that_comes_too_slowly_is_408_and_the_others_go_on() -> None:
    subject = raw(START + request(1, POST, 0) + request(3, POST, 0))
    subject.now = 9.0
    subject.feed(frame(DATA, b"x" * 10_000, 0, 3))
    subject.tick(10.1)
    assert subject.statuses() == {1: "408"} and not subject.closed
    subject.feed(frame(DATA, b"x" * 6_000, 0, 3)[:5000])  # what has come of a frame counts
    subject.tick(30.5)
    assert subject.statuses() == {1: "408"}
    subject.tick(60.0)
    assert subject.statuses() == {1: "408", 3: "408"}


def test_a_request_that_is_whole_may_take_its_service_any_time() -> None:
    subject = raw(START + request(1, POST, 0) + frame(DATA, b"abc", END_STREAM, 1))
    assert subject.core.next_deadline() is None
    subject.tick(1000.0)
    assert not subject.statuses() and not subject.closed


def test_who_does_not_take_an_answer_in_time_loses_it_and_the_others_go_on() -> None:
    subject = raw(START + frame(WINDOW_UPDATE, b"\0\x0f\0\0") + request(1) + request(3))
    subject.answer(1, b"x" * 200_000)
    subject.tick(9.9)
    assert not subject.resets()
    subject.tick(10.1)
    assert subject.resets() == {1: CODE.CANCEL} and subject.gone() == [1]
    subject.answer(3, b"y")
    assert subject.body(3) == b"y" and not subject.closed


@pytest.mark.parametrize("narrow", [0, 1])
def test_who_takes_an_answer_at_its_rate_may_stall_as_often_as_it_likes(narrow: int) -> None:
    """Narrow is the window of the connection, or that of the stream."""
    wide = frame(WINDOW_UPDATE, (1 << 24).to_bytes(4, "big"), 0, 1 - narrow)
    subject = raw(START + request(1) + wide).answer(1, bytes(1_000_000))
    while not subject.heard.ended and not subject.closed:
        subject.tick(subject.now + 9.0)
        subject.feed(frame(WINDOW_UPDATE, (90_000).to_bytes(4, "big"), 0, narrow))
    assert len(subject.body(1)) == 1_000_000 and not subject.resets() and subject.now > 90.0


def test_a_window_of_one_byte_at_a_time_does_not_prolong_it() -> None:
    subject = raw(START + frame(WINDOW_UPDATE, b"\0\x0f\0\0") + request(1))
    subject.answer(1, b"x" * 200_000)
    for tenth in range(1, 200):
        if not subject.resets():
            subject.tick(tenth / 10)
            subject.feed(frame(WINDOW_UPDATE, b"\0\0\0\1", 0, 1))
    assert subject.resets() == {1: CODE.CANCEL} and subject.now < 10.5


def test_who_reads_nothing_at_all_is_cut() -> None:
    subject = raw(START + request(1))
    subject.answers.begin(1, 200, [])
    subject.do(subject.answers.piece(1, b"x" * 60_000), reads=False)
    subject.answers.output(0.0)
    subject.answers.blocked(0.0)
    assert not subject.answers.takes(1)
    subject.tick(17.0)
    assert not subject.closed
    subject.tick(17.5)
    assert subject.closed and isinstance(subject.effects[-1], Reset)


def test_a_connection_whose_window_stays_empty_is_cut() -> None:
    subject = raw(START + request(1))
    subject.answer(1, b"x" * 200_000)
    subject.tick(10.1)
    assert subject.closed and isinstance(subject.effects[-1], Reset)


def test_a_window_that_nobody_waits_for_may_stay_empty() -> None:
    """RFC 9113 6.9: a client owes no window for what it has cancelled; its other requests are served."""
    subject = raw(START + request(1) + request(3))
    subject.answer(1, b"x" * 200_000)
    subject.feed(frame(RST_STREAM, b"\0\0\0\x08", 0, 1))
    subject.tick(60.0)
    subject.answer(3, b"", 204)
    assert subject.statuses()[3] == "204" and subject.gone() == [1] and not subject.closed


# ---- the end --------------------------------------------------------------------------------------------------------


def test_a_drain_serves_the_last_stream_refuses_others_and_closes() -> None:
    subject = raw(START + request(1))
    subject.drain()
    assert subject.goaway == CODE.NO_ERROR and not subject.closed
    subject.feed(request(3))
    assert len(subject.asked) == 1
    subject.answers.answered(1, 200, [], b"x")
    out = subject.answers.output(0.0)
    assert subject.resets() == {3: CODE.REFUSED_STREAM} and out.endswith(frame(DATA, b"x", END_STREAM, 1))
    [_, close] = subject.core.settled(0.0)
    assert isinstance(close, Close) and close.within > 10.0, "the last answer is read in peace"


def test_a_stream_that_was_given_up_is_not_taken_back_by_a_second_goodbye() -> None:
    """RFC 9113 6.8: the last stream of a GOAWAY is never above that of the one before."""
    subject = raw(START + request(1))
    subject.drain().feed(request(3) + frame(PING, bytes(7)))
    assert (subject.goaway, subject.heard.last) == (CODE.FRAME_SIZE_ERROR, 1)


def test_a_client_that_says_goodbye_gets_what_it_asked_for() -> None:
    subject = raw(START + request(1) + frame(GOAWAY, bytes(8)))
    assert not subject.closed
    subject.answer(1, b"hello")
    assert subject.body(1) == b"hello" and subject.closed


def test_behind_the_end_of_the_connection_nobody_waits_for_an_answer() -> None:
    subject = raw(START + request(1) + request(3, POST, 0))
    subject.do(subject.core.eof(0.0))
    assert subject.gone() == [1, 3] and subject.closed
    subject.answer(1, b"x")
    assert subject.core.eof(0.0) == [] and not subject.statuses()


@given(st.binary(max_size=300), st.lists(st.integers(0, 299), max_size=5))
@settings(max_examples=150)
def test_no_bytes_raise_anything(data: bytes, places: list[int]) -> None:
    subject = Http2(shared(), 0.0)
    cuts = [0, *sorted(len(START) + place for place in places), len(START) + 300]
    for begin, end in pairwise(cuts):
        subject.received((START + data)[begin:end], 0.0)
        subject.answers.output(0.0)
    subject.tick(100.0)


@given(
    st.lists(st.tuples(st.integers(0, 11), st.binary(max_size=20), st.integers(0, 255), st.integers(0, 7)), max_size=30)
)
@settings(max_examples=200)
def test_no_frames_raise_anything_and_each_stream_is_asked_once(
    frames: list[tuple[int, bytes, int, int]],
) -> None:
    subject = Http2(shared(), 0.0)
    subject.received(START, 0.0)
    asked = []
    for kind, payload, flags, number in frames:
        payload = block(GET) if kind == HEADERS and len(payload) % 2 else payload
        for effect in subject.received(frame(kind, payload, flags, number), 0.0):
            if type(effect).__name__ == "Asked":
                asked.append(effect.stream)  # type: ignore[union-attr]
                subject.answers.answered(effect.stream, 200, [], b"x" * 100)  # type: ignore[union-attr]
        subject.answers.output(0.0)
        subject.settled(0.0)
    assert len(asked) == len(set(asked))


def test_windows_are_as_said() -> None:
    assert STREAM_WINDOW <= CONNECTION_WINDOW and re.search(r"256 KiB", HTTP_MD.read_text())


def test_a_connection_that_is_lost_leaves_nothing_in_spools() -> None:
    opened = Opened()
    subject = Http2(shared(open_spool=opened), 0.0)
    subject.received(START + request(1, POST, 0), 0.0)
    for _ in range(20):
        subject.received(frame(DATA, bytes(16_000), 0, 1), 0.0)
        subject.answers.output(0.0)
    subject.lost()
    assert opened and all(spool.closed for spool in opened)
    assert subject.next_deadline() is None


class FailingSpool(Held):
    def read(self, offset: int, size: int) -> bytes:
        raise OSError("the disk is gone")


def test_a_disk_that_fails_under_an_answer_resets_that_stream_only() -> None:
    subject = Subject()
    one, other = asks(subject), asks(subject)
    subject.answers.begin(one, 200, [])
    subject.core._streams[one].spool = spool = FailingSpool()
    spool.write(b"x" * 10)
    subject.core._turns.add(subject.core._streams[one])
    subject.answer(other, b"whole")
    subject.pump()
    assert subject.resets() == {one: CODE.INTERNAL_ERROR} and subject.body(other) == b"whole"


def test_a_disk_that_fails_under_a_small_body_is_503_of_that_request_only() -> None:
    subject = Subject(open_spool=FailingSpool)
    other = asks(subject)
    subject.core._streams.held += BODIES_MAX  # as if others were there
    number = asks(subject, method="POST", body=b"abc")
    assert subject.statuses() == {number: "503"} and not subject.closed
    subject.answer(other, b"whole")
    assert subject.body(other) == b"whole"
