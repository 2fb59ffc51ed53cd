"""One HTTP connection: its order, its time, its answers, its end."""

from __future__ import annotations

from typing import Any

import pytest
from http_rig import DATE, OK, broken_rule, connection, one_by_one, shared, whole
from http_rig import TIMEOUTS as T
from hypothesis import given, settings
from hypothesis import strategies as st

from rota.common.limits import INLINE_MAX
from rota.gateway.core.connection import FLOOD_MAX, WAITING_MAX, Connection, State
from rota.gateway.core.effects import Close, Dispatch, Effect, Refused, Write
from rota.gateway.core.response import CONTINUE, RETRY_AFTER_S, Unsendable, fields, plain, response
from rota.gateway.core.shared import LINGER_S

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def dispatched(subject: Connection, data: bytes = GET, now: float = 0.0) -> Dispatch:
    [effect] = subject.received(data, now)
    assert isinstance(effect, Dispatch)
    return effect


def answer_to(data: bytes, status: int = 200, headers: object = (), body: object = b"") -> tuple[bytes, bool]:
    """The bytes of the answer, and whether the connection closes with it."""
    subject = connection()
    dispatched(subject, data)
    effects = subject.answered(status, headers, body, 0.0)  # type: ignore[arg-type]
    assert isinstance(effects[0], Write)
    assert all(isinstance(each, Close) for each in effects[1:])
    return effects[0].data, len(effects) == 2


def refused(effects: list[Effect]) -> str | None:
    told, write, close = effects
    assert isinstance(told, Refused) and isinstance(write, Write) and close == Close(LINGER_S)
    assert b"X-Request-Id: %b\r\n" % told.request_id.encode() in write.data
    assert len(write.data.partition(b"\r\n\r\n")[2]) == told.size
    return broken_rule(write.data)


# ---- one after the other ---------------------------------------------------------------------------------------------


def test_a_connection_serves_one_request_after_the_other() -> None:
    subject = connection()
    for _ in range(3):
        dispatched(subject)
        assert subject.answered(200, [], b"", 0.0) == [Write(OK)]
        assert subject.state is State.IDLE


def test_a_request_behind_another_waits_for_its_answer() -> None:
    subject = connection()
    assert dispatched(subject, GET + POST + b"hello" + GET).head.method == "GET"
    assert subject.received(GET, 0.0) == []
    write, second = subject.answered(200, [], b"", 0.0)
    assert isinstance(second, Dispatch) and second.body == b"hello"
    assert isinstance(subject.answered(200, [], b"", 0.0)[1], Dispatch)
    assert isinstance(subject.answered(200, [], b"", 0.0)[1], Dispatch)
    assert subject.answered(200, [], b"", 0.0) == [Write(OK)]


def test_an_answer_that_nobody_waits_for_is_never_sent() -> None:
    subject = connection()
    with pytest.raises(RuntimeError):
        subject.answered(200, [], b"", 0.0)
    dispatched(subject)
    subject.answered(200, [], b"", 0.0)
    with pytest.raises(RuntimeError):
        subject.answered(200, [], b"", 0.0)


def test_no_more_is_wanted_than_some_waiting_bytes_and_a_flood_closes() -> None:
    subject = connection()
    dispatched(subject)
    subject.received(b"x" * (WAITING_MAX - 1), 0.0)
    assert subject.reads
    subject.received(b"x", 0.0)
    assert not subject.reads
    assert subject.received(b"x" * (FLOOD_MAX - WAITING_MAX), 0.0) == []
    assert subject.received(b"x", 0.0) == [Close()]
    assert subject.answered(200, [], b"", 0.0) == []


@pytest.mark.parametrize("size", [2 * WAITING_MAX, 1_000_000])
def test_a_whole_body_is_wanted_however_long(size: int) -> None:
    subject = connection()
    subject.received(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size, 0.0)
    for _ in range(9):
        assert subject.received(b"x" * (size // 10), 0.0) == [] and subject.reads
    assert whole(dispatched(subject, b"x" * (size - size // 10 * 9))) == b"x" * size


def test_a_request_that_comes_in_one_is_taken_only_where_nothing_else_is() -> None:
    begun, behind, blocked = connection(), connection(), connection()
    begun.received(GET[:9], 0.0)
    dispatched(behind)
    dispatched(blocked)
    blocked.answered(200, [], b"", 0.0)
    blocked.blocked(0.0)
    for subject in (begun, behind, blocked):
        assert subject.whole(GET) is None
    large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (INLINE_MAX + 1)
    common = shared()
    Connection(common, 0.0).received(large, 0.0)
    assert Connection(common, 0.0).whole(large + bytes(INLINE_MAX + 1)) is None, "it is one for a spool"
    subject = connection()
    assert subject.whole(GET) is not None
    assert subject.next_deadline() is None, "how long an answer takes is the call's to limit"


@pytest.mark.parametrize("head", [POST, CHUNKED])
def test_who_expects_it_is_told_to_continue_before_the_body_is_read(head: bytes) -> None:
    subject, head = connection(), head[:-2] + b"Expect: 100-Continue\r\n\r\n"
    assert subject.received(head, 0.0) == [Write(CONTINUE)]
    assert subject.received(b"5", 0.0) == []
    assert connection().received(head + b"5", 0.0) == [], "it does not wait for that"


@pytest.mark.parametrize("end", [b"Content-Length: 0\r\n\r\n", b"\r\n", b"Content-Length: 5\r\n\r\nhello"])
def test_where_no_more_is_to_come_nobody_is_told_to_continue(end: bytes) -> None:
    dispatched(connection(), b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + end)


def test_a_body_that_is_too_large_is_refused_instead_of_continued() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
    assert refused(connection().received(head, 0.0)) == "body-size"


def test_a_refused_request_keeps_its_id() -> None:
    told, write, _ = connection().received(CHUNKED[:-2] + b"X-Request-Id: abc-1\r\n\r\nx\r\n", 0.0)
    assert isinstance(told, Refused) and isinstance(write, Write)
    assert told.request_id == "abc-1" and b"\r\nX-Request-Id: abc-1\r\n" in write.data


HEAD = GET.replace(b"GET", b"HEAD")


@pytest.mark.parametrize(
    "end", [b"Content-Length: 2000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nx\r\n", b"A B: c\r\n\r\n"]
)
def test_the_refusal_of_a_head_request_has_no_body(end: bytes) -> None:
    told, write, close = connection().received(HEAD[:-2] + end, 0.0)
    assert isinstance(told, Refused) and isinstance(write, Write) and close == Close(LINGER_S)
    assert write.data.endswith(b"\r\n\r\n") and told.size == 0
    assert b"\r\nContent-Length: " in write.data, "it is that of a GET"


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_a_client_that_sends_no_more_gets_its_answers() -> None:
    subject = connection()
    dispatched(subject, GET + GET)
    assert subject.eof(0.0) == []
    assert isinstance(subject.answered(200, [], b"", 0.0)[1], Dispatch)
    write, close = subject.answered(200, [], b"", 0.0)
    assert isinstance(write, Write) and b"\r\nConnection: close\r\n" in write.data
    assert isinstance(close, Close)


@pytest.mark.parametrize("begin", [b"", b"\r\n"])
def test_a_client_that_leaves_between_requests_is_not_answered(begin: bytes) -> None:
    subject = connection()
    assert subject.received(begin, 0.0) == []
    assert subject.eof(0.0) == [Close(LINGER_S)]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r", b"GET", b"BAD\r\n\r\n"])
def test_the_last_answer_has_time_to_be_read_whatever_comes_behind(end: bytes) -> None:
    subject = connection()
    dispatched(subject, GET + end)
    subject.eof(0.0)
    answer, *refusal, close = subject.answered(200, [], b"", 0.0)
    assert isinstance(close, Close) and close.within >= LINGER_S
    assert bool(refusal) is (end not in (b"", b"\r\n")), "an empty line is no request"


def test_a_client_that_is_gone_is_answered_by_nothing() -> None:
    subject = connection()
    dispatched(subject)
    subject.lost()
    assert subject.answered(200, [], b"", 0.0) == subject.begin(200, [], 0.0) == []
    assert subject.piece(b"x", 0.0) == subject.end(0.0) == []


def test_where_another_protocol_begins_its_first_bytes_are_handed_over() -> None:
    subject = connection()
    dispatched(subject, GET + b"frame")
    assert subject.leave() == b"frame" and subject.state is State.CLOSED
    assert subject.received(GET, 0.0) == subject.eof(0.0) == [] and subject.next_deadline() is None


def test_nothing_is_read_behind_a_broken_rule() -> None:
    subject = connection()
    assert refused(subject.received(b"BAD\r\n\r\n" + GET, 0.0)) == "request-line"
    assert subject.received(GET, 0.0) == subject.eof(0.0) == subject.tick(1e9) == subject.written(0.0) == []
    assert subject.next_deadline() is None


def test_what_drains_closes_when_it_is_idle_or_with_its_answer() -> None:
    idle, busy, begun = connection(), connection(), connection()
    assert idle.drain() == [Close(LINGER_S)]
    dispatched(busy, GET + GET)
    begun.received(GET[:9], 0.0)
    assert busy.drain() == begun.drain() == []
    dispatched(begun, GET[9:])
    for subject in (busy, begun):
        write, close = subject.answered(200, [], b"", 0.0)
        assert isinstance(write, Write) and b"\r\nConnection: close\r\n" in write.data
        assert isinstance(close, Close)


def test_what_drains_while_its_answer_is_read_closes_when_it_has_been() -> None:
    subject = connection()
    dispatched(subject)
    subject.answered(200, [], b"", 0.0)
    subject.blocked(0.0)
    assert subject.drain() == []
    assert subject.written(1.0) == [Close(LINGER_S)]


# ---- time ------------------------------------------------------------------------------------------------------------


def test_an_idle_connection_closes_without_a_word() -> None:
    subject = connection()
    assert subject.next_deadline() == T.idle
    assert subject.tick(T.idle - 0.1) == []
    assert subject.tick(T.idle) == [Close()]


def test_after_an_answer_it_may_be_idle_again() -> None:
    subject = connection()
    dispatched(subject, now=3.0)
    assert subject.next_deadline() is None  # how long an answer takes is the call's to limit
    subject.answered(200, [], b"", 100.0)
    assert subject.next_deadline() == 100.0 + T.idle


def test_a_head_has_its_time_in_all_however_it_drips() -> None:
    subject = connection()
    for at, byte in enumerate(one_by_one(GET[:-1])):
        assert subject.received(byte, 1.0 + at / 10) == []
        assert subject.next_deadline() == 1.0 + T.head
    assert subject.tick(0.9 + T.head) == []
    assert refused(subject.tick(1.0 + T.head)) == "head-time"


def test_a_head_behind_another_request_has_its_time_from_that_ones_answer() -> None:
    subject = connection()
    dispatched(subject, GET + GET[:5])
    subject.answered(200, [], b"", 100.0)
    assert subject.next_deadline() == 100.0 + T.head


def test_nothing_but_an_empty_line_is_idleness() -> None:
    subject = connection()
    subject.received(b"\r\n", 0.0)
    assert subject.tick(T.head) == [Close()]


@pytest.mark.parametrize("head, begin", [(POST.replace(b"5", b"90000"), b""), (CHUNKED, b"ffff\r\n")])
def test_a_body_has_its_least_rate_after_some_grace(head: bytes, begin: bytes) -> None:
    subject = connection()
    subject.received(head, 0.0)
    subject.received(begin, 0.0)
    assert subject.next_deadline() == T.body
    for second in range(1, 60):  # at twice the least rate
        assert subject.received(b"x" * (2 * T.body_rate), second) == subject.tick(second) == []
    stopped = subject.next_deadline()
    assert stopped == T.body + 2 * 59
    assert refused(subject.tick(stopped)) == "body-rate"


def test_a_later_body_has_its_time_from_its_head() -> None:
    subject = connection()
    dispatched(subject)
    subject.answered(200, [], b"", 10.0)
    subject.received(POST, 1000.0)
    assert subject.next_deadline() == 1000.0 + T.body


def test_what_frames_the_chunks_is_not_counted_as_body() -> None:
    subject = connection()
    subject.received(CHUNKED, 0.0)
    for _ in range(500):
        assert subject.received(b"1\r\nx\r\n", 0.0) == []
    assert subject.next_deadline() == T.body + 1.0
    assert subject.received(b"0\r\n" + b"X: y\r\n" * 1000, 0.0) == []
    assert subject.next_deadline() == T.body + 1.0


def test_a_slow_reader_is_cut_and_nothing_is_read_from_it_meanwhile() -> None:
    subject = connection()
    dispatched(subject, GET)
    [write] = subject.answered(200, [], b"x" * 8192, 10.0)
    assert isinstance(write, Write)
    subject.blocked(10.0)
    cut = 10.0 + T.write + len(write.data) / T.write_rate
    assert subject.next_deadline() == pytest.approx(cut)
    assert subject.received(GET, 11.0) == subject.tick(12.0) == []
    assert subject.reads
    assert subject.received(GET * (WAITING_MAX // len(GET)), 12.0) == [] and not subject.reads
    assert subject.tick(cut + 0.1) == [Close()]


def test_each_answer_has_its_grace_however_slowly_the_one_before_was_read() -> None:
    subject = connection()
    for now in (0.0, 100.0):
        dispatched(subject, now=now)
        [write] = subject.answered(200, [], b"x" * 8192, now)
        assert isinstance(write, Write)
        subject.blocked(now)
        assert subject.next_deadline() == pytest.approx(now + T.write + len(write.data) / T.write_rate)
        subject.written(now + 0.9 * T.write)


def test_an_answer_from_memory_has_the_time_of_any_answer() -> None:
    subject = connection()
    dispatched(subject)
    assert subject.answered_with(8192, 0.0)
    subject.blocked(0.0)
    assert subject.next_deadline() == T.write + 8192 / T.write_rate


def test_when_all_has_left_what_waits_is_read() -> None:
    subject = connection()
    dispatched(subject, GET)
    subject.answered(200, [], b"", 10.0)
    subject.blocked(10.0)
    assert subject.received(GET, 11.0) == []
    assert isinstance(subject.written(12.0)[0], Dispatch)
    assert subject.next_deadline() is None


def test_no_more_than_two_answers_are_held_for_a_slow_reader() -> None:
    subject = connection()
    dispatched(subject, GET * 10)
    assert isinstance(subject.answered(200, [], b"", 0.0)[1], Dispatch)
    subject.blocked(0.0)
    assert subject.answered(200, [], b"", 0.0) == [Write(OK)]
    assert subject.next_deadline() == pytest.approx(T.write + 2 * len(OK) / T.write_rate)
    assert isinstance(subject.written(1.0)[0], Dispatch)


@pytest.mark.parametrize("begun, deadline", [(GET, None), (GET[:5], 1.0 + T.head), (b"", 1.0 + T.idle)])
def test_when_all_has_left_what_comes_next_has_its_own_time(begun: bytes, deadline: float | None) -> None:
    subject = connection()
    dispatched(subject, GET + begun)
    subject.answered(200, [], b"", 0.0)
    subject.blocked(0.0)
    subject.written(1.0)
    assert subject.next_deadline() == deadline


def test_who_leaves_while_an_answer_is_read_is_let_go_when_it_has_been() -> None:
    subject = connection()
    dispatched(subject, GET)
    subject.answered(200, [], b"", 0.0)
    subject.blocked(0.0)
    assert subject.eof(0.0) == []
    assert subject.written(1.0) == [Close(LINGER_S)]


def test_a_closing_answer_has_the_time_of_any_answer() -> None:
    subject = connection()
    dispatched(subject, b"GET / HTTP/1.0\r\n\r\n")
    write, close = subject.answered(200, [], b"x" * 81920, 0.0)
    assert isinstance(write, Write)
    assert close == Close(T.write + len(write.data) / T.write_rate)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_written_anew() -> None:
    fields = [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=\xc3\xa9")]
    data, closes = answer_to(GET, 404, fields, b"hi")
    assert data == (
        b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nSet-Cookie: a=b\r\nSet-Cookie: c=\xc3\xa9\r\nDate: "
        + DATE
        + b"\r\nContent-Length: 2\r\n\r\nhi"
    )
    assert not closes


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Transfer-Encoding", b"upgrade"],
)
def test_what_concerns_the_hop_is_the_gateways_to_say(name: bytes) -> None:
    assert answer_to(GET, 200, [(name, b"chunked")])[0] == OK


def test_the_applications_date_stands() -> None:
    data, _ = answer_to(GET, 200, [(b"date", b"then")])
    assert data.lower().count(b"date:") == 1 and b"date: then\r\n" in data


@pytest.mark.parametrize(
    "request_line, connection_field, closes",
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"close", True),
        (b"GET / HTTP/1.0\r\n\r\n", b"close", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"keep-alive", False),
    ],
)
def test_an_answer_says_whether_the_connection_goes_on(
    request_line: bytes, connection_field: bytes | None, closes: bool
) -> None:
    data, closed = answer_to(request_line)
    assert closed is closes
    assert (connection_field is not None) is (b"\r\nConnection: %b\r\n" % (connection_field or b"") in data)
    assert data.count(b"Connection: ") == (connection_field is not None)


LENGTH_7 = [(b"Content-Length", b"7")]


@pytest.mark.parametrize(
    "data, status, headers, body, length",
    [
        (GET, 200, [], b"", 0),
        (GET, 200, [(b"content-length", b"2")], b"hi", 2),
        (GET, 500, [], b"hi", 2),
        (GET, 299, [], b"hi", 2),
        (GET, 204, LENGTH_7, b"no", None),
        (GET, 205, LENGTH_7, b"no", 0),
        (GET, 304, [], b"no", None),
        (GET, 304, LENGTH_7, b"", 7),
        (HEAD, 200, LENGTH_7, b"", 7),
        (HEAD, 200, [], b"hello", 5),
        (HEAD, 200, LENGTH_7, b"hello!!", 7),
        (HEAD, 200, LENGTH_7, b"hello", 7),
        (GET, 200, 2 * LENGTH_7, b"hello!!", 7),
        (HEAD, 200, [], b"", None),
        (HEAD, 204, LENGTH_7, b"", None),
        (HEAD, 404, [], b"no", 2),
    ],
)
def test_an_answer_ends_where_its_head_says(
    data: bytes, status: int, headers: list[tuple[bytes, bytes]], body: bytes, length: int | None
) -> None:
    sent, closes = answer_to(data, status, headers, body)
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert sent.startswith(b"HTTP/1.1 %d " % status)
    assert [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")] == (
        [] if length is None else [b"Content-Length: %d" % length]
    )
    assert rest == (b"" if data is HEAD or status in (204, 205, 304) else body)
    assert not closes


@pytest.mark.parametrize(
    "status, headers, body",
    [
        (200, [(b"X", b"a\r\nSet-Cookie: b")], b""),
        (200, [(b"X", b"a\nb")], b""),
        (200, [(b"X", b"a\rb")], b""),
        (200, [(b"X", b"a\0")], b""),
        (200, [(b"X", b"\x7f")], b""),
        (200, [(b"X\r\nY", b"a")], b""),
        (200, [(b"X: a", b"b")], b""),
        (200, [(b"", b"a")], b""),
        (200, [(b"X ", b"a")], b""),
        (200, [(b"\xc3\xa9", b"a")], b""),
        (200, [("X", b"a")], b""),
        (200, [(b"X", "a")], b""),
        (200, [(b"X",)], b""),
        (200, [([], b"a")], b""),
        (200, [5], b""),
        (200, None, b""),
        (200, [], "text"),
        (200, [], None),
        (200, [(b"Content-Length", b"3")], b"hi"),
        (200, [(b"Content-Length", b"1")], b"hi"),
        (200, [(b"Content-Length", b"+2")], b"hi"),
        (200, [(b"Content-Length", b"3"), (b"Content-Length", b"2")], b"hi"),
        (100, [], b""),
        (101, [], b""),
        (199, [], b""),
        (600, [], b""),
        (0, [], b""),
        (-200, [], b""),
        (200, [(b"x" * 257, b"1")], b""),
        ("200", [], b""),
        (200.0, [], b""),
        (None, [], b""),
        ([], [], b""),
    ],
)
def test_of_an_answer_that_cannot_be_sent_nothing_leaves_and_another_one_may_be_given(
    status: Any, headers: Any, body: Any
) -> None:
    subject = connection()
    dispatched(subject, GET)
    with pytest.raises(Unsendable):
        subject.answered(status, headers, body, 0.0)
    assert [type(each) for each in subject.answered(500, [], b"so", 0.0)] == [Write]


def test_nor_does_anything_leave_of_one_in_pieces_that_cannot_begin() -> None:
    subject = connection()
    dispatched(subject, GET)
    for name, value in ((b"X", b"a\nb"), (b"Content-Length", b"+2"), (b"Content-Length", b"1" * 20)):
        with pytest.raises(Unsendable):
            subject.begin(200, [(name, value)], 0.0)
    assert [type(each) for each in subject.answered(500, [], b"so", 0.0)] == [Write]


@pytest.mark.parametrize(
    "method, headers, size, found",
    [
        ("GET", LENGTH_7, None, b"7"),
        ("GET", LENGTH_7, 7, b"7"),
        ("GET", [], 7, b"7"),
        ("GET", [], None, None),
        ("HEAD", [], None, None),
        ("HEAD", [], 7, b"7"),
        ("HEAD", LENGTH_7, None, b"7"),
    ],
)
def test_in_http_2_an_answer_has_the_same_length(
    method: str, headers: list[tuple[bytes, bytes]], size: int | None, found: bytes | None
) -> None:
    sent, _ = fields(method, 200, [*headers, (b"Date", b"then")], size, date=DATE)
    assert [value for name, value in sent if name == b"content-length"] == ([] if found is None else [found])
    assert [value for name, value in sent if name == b"date"] == [b"then"]


def test_no_byte_that_could_end_a_header_leaves() -> None:
    """Those from 0x80 on are the application's business."""

    def leaves(name: bytes, value: bytes) -> bool:
        try:
            found = fields("GET", 200, [(name, value)], 0, date=DATE)[0]
            return (name.lower(), value) in found and name + b": " + value in answer_to(GET, 200, [(name, value)])[0]
        except Unsendable:
            with pytest.raises(Unsendable):
                answer_to(GET, 200, [(name, value)])
            return False

    values = {byte for byte in range(256) if leaves(b"X", b"a%cb" % byte)}
    assert values == set(range(0x20, 0x7F)) | set(range(0x80, 0x100)) | {0x09}
    names = {byte for byte in range(256) if leaves(b"X%c" % byte, b"a")}
    assert names == set(range(0x21, 0x7F)) - set(b'"(),/:;<=>?@[\\]{}')


def test_a_refusal_for_want_of_room_says_when_to_come_again() -> None:
    assert b"\r\nRetry-After: %d\r\n" % RETRY_AFTER_S in plain(503, "no room", date=DATE, request_id="id")
    assert b"Retry-After" not in plain(400, "bad", date=DATE, request_id="id")


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=3), st.binary(max_size=20))
def test_no_answer_holds_more_lines_than_it_has_fields(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    try:
        data = response("GET", 200, headers, body, date=DATE)
    except Unsendable:
        return
    head, _, rest = data.partition(b"\r\n\r\n")
    assert rest == body
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") <= len(headers) + 2


# ---- anything in any order -------------------------------------------------------------------------------------------

BYTES = st.sampled_from(
    [GET, POST, b"hello", CHUNKED, b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r\n", b"GET / HTTP/1.0\r\n\r\n", GET[:20],
     GET[20:], b"!", HEAD, GET[:-2] + b"Connection: close\r\n\r\n", POST[:-2] + b"Expect: 100-continue\r\n\r\n",
     b"x" * 300_000, b"\n"]
)  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("received"), BYTES),
    st.tuples(st.just("received"), st.binary(min_size=1, max_size=30)),
    st.tuples(st.sampled_from(["answered", "bad answer", "blocked", "written", "tick", "eof", "drain"]), st.just(b"")),
    st.tuples(st.just("wait"), st.sampled_from([b"", b"."])),
)


def step(subject: Connection, what: str, data: bytes, now: float) -> list[Effect]:
    match what:
        case "received":
            return subject.received(data, now)
        case "answered" | "bad answer":
            waits = subject.state in (State.ANSWER, State.CLOSED)
            if not waits:
                return []
            if what == "answered" or subject.state is State.CLOSED:
                return subject.answered(200, [], b"ok", now)
            with pytest.raises(Unsendable):
                subject.answered(1, [], b"ok", now)
            return []
        case "drain":
            return subject.drain()
        case "wait":
            return []
        case _:
            effects = getattr(subject, what)(now)
            assert isinstance(effects, list)
            return effects


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=200)
def test_whatever_happens_each_request_is_answered_once_and_nothing_follows_the_end(
    steps: list[tuple[str, bytes]],
) -> None:
    subject, now = connection(), 0.0
    outstanding, blocked, closed = 0, False, False
    for what, data in steps:
        now += 4.0 if what == "wait" else 0.01
        blocked = {"blocked": True, "written": False}.get(what, blocked)
        for effect in step(subject, what, data, now):
            assert not closed
            match effect:
                case Dispatch(head, _):
                    outstanding += 1
                    assert len(whole(effect)) == (head.length or 0) or head.chunked
                case Write(written):
                    outstanding -= written.startswith((b"HTTP/1.1 200", b"HTTP/1.1 500"))
                case Close():
                    closed = True
            assert 0 <= outstanding <= 1
        assert closed is (subject.state is State.CLOSED)
        assert (outstanding == 1) is (subject.state is State.ANSWER) or closed
        assert closed or blocked or subject.state is State.ANSWER or subject.reads
        if closed or (subject.state is State.ANSWER and not blocked):
            assert subject.next_deadline() is None
        else:
            assert subject.next_deadline() is not None, "what waits for a client does not wait for ever"
    deadline = subject.next_deadline()
    if deadline is not None:
        assert isinstance(subject.tick(deadline)[-1], Close)
