"""One HTTP connection whose bodies are large: answers in pieces, uploads in spools."""

from __future__ import annotations

import re

import pytest
from http_rig import LIMITS, Held, connection, shared, whole
from http_rig import TIMEOUTS as T
from hypothesis import given
from hypothesis import strategies as st

from rota.common.limits import INLINE_MAX
from rota.gateway.core.connection import Connection, State
from rota.gateway.core.effects import Close, Dispatch, Effect, Reset, Write, Wrong
from rota.gateway.core.shared import BANKED_S, LINGER_S, UNREAD_MAX
from rota.gateway.core.upload import Upload

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
KEPT = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = [(b"Content-Length", b"5")]


LAST = GET[:-2] + b"Connection: close\r\n\r\n"


def begun(data: bytes = GET, headers: object = (), status: int = 200) -> tuple[Connection, bytes]:
    """A connection that has begun to answer, and what it has sent."""
    subject = connection()
    [asked] = subject.received(data, 0.0)
    assert isinstance(asked, Dispatch)
    [head] = subject.begin(status, headers, 0.0)  # type: ignore[arg-type]
    assert isinstance(head, Write)
    return subject, head.data


def sent(effects: list[Effect]) -> bytes:
    return b"".join(each.data for each in effects if isinstance(each, Write))


# ---- framing --------------------------------------------------------------------------------------------------------


def test_an_answer_without_a_length_is_chunked_and_each_piece_leaves_at_once() -> None:
    subject, head = begun()
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head and b"Content-Length" not in head
    assert subject.piece(b"hello", 1.0) == [Write(b"5\r\nhello\r\n")]
    assert subject.piece(b"", 1.0) == [], "an empty chunk would be the end"
    assert subject.end(2.0) == [Write(b"0\r\n\r\n")]
    assert subject.state is State.IDLE and subject.next_deadline() == 2.0 + T.idle


def test_a_length_is_kept_and_the_connection_goes_on() -> None:
    subject, head = begun(headers=LENGTH_5)
    assert b"\r\nContent-Length: 5\r\n" in head and b"chunked" not in head
    assert b"Connection" not in head
    assert sent(subject.piece(b"hel", 0.0) + subject.piece(b"lo", 0.0) + subject.end(0.0)) == b"hello"
    assert isinstance(subject.received(GET, 0.0)[0], Dispatch)


def test_there_is_one_answer() -> None:
    subject, _ = begun(headers=[(b"X", b"y"), *LENGTH_5])
    with pytest.raises(RuntimeError):
        subject.begin(200, [], 0.0)
    subject.piece(b"hello", 0.0)
    subject.end(0.0)
    with pytest.raises(RuntimeError):
        subject.begin(200, [], 0.0)


def test_the_last_answer_says_so_and_has_time_to_be_read() -> None:
    asked, drained = begun(LAST), connection()
    drained.received(GET, 0.0)
    drained.drain()
    [head] = drained.begin(200, [], 0.0)
    assert isinstance(head, Write)
    for subject, said in (asked, (drained, head.data)):
        assert b"\r\nConnection: close\r\n" in said
        size = len(said + sent(subject.piece(b"x" * 65536, 0.0))) + 5
        last, close = subject.end(3.0)
        assert last == Write(b"0\r\n\r\n") and close == Close(pytest.approx(T.write + size / T.write_rate))


@pytest.mark.parametrize("late, left", [(5.0, 5.0), (0.0, 0.1)])
def test_the_last_answer_has_the_time_that_is_left_where_its_reader_stalls(late: float, left: float) -> None:
    subject, _ = begun(LAST)
    subject.blocked(0.0)
    due = subject.next_deadline()
    assert due is not None
    _, close = subject.end(due - late)
    assert close == Close(pytest.approx(left, abs=0.01))


def test_what_comes_behind_is_not_read_before_its_reader_has_all() -> None:
    subject, _ = begun(GET + GET)
    subject.blocked(0.0)
    assert subject.end(0.0) == [Write(b"0\r\n\r\n")]
    assert isinstance(subject.written(1.0)[0], Dispatch)


def test_an_answer_that_has_not_begun_is_broken_off_at_once() -> None:
    subject = connection()
    subject.received(GET, 0.0)
    assert subject.abort(0.0) == [Close()]


def test_more_than_the_length_is_cut_off_and_told() -> None:
    subject, _ = begun(headers=LENGTH_5)
    wrong, last, close = subject.piece(b"hello and more", 0.0)
    assert isinstance(wrong, Wrong) and last == Write(b"hello") and isinstance(close, Close)
    assert subject.piece(b"x", 0.0) == subject.end(0.0) == []


def test_less_than_the_length_is_no_end() -> None:
    subject, _ = begun(headers=LENGTH_5)
    subject.piece(b"hell", 0.0)
    wrong, close = subject.end(0.0)
    assert isinstance(wrong, Wrong) and isinstance(close, Close)


@pytest.mark.parametrize(
    "data, status, headers, length",
    [(HEAD, 200, [], None), (HEAD, 200, LENGTH_5, b"5"), (GET, 204, [], None), (GET, 304, LENGTH_5, b"5"),
     (GET, 205, [], b"0"), (KEPT.replace(b"GET", b"HEAD"), 200, [], None)],
)  # fmt: skip
def test_where_there_is_no_body_none_is_sent(
    data: bytes, status: int, headers: list[tuple[bytes, bytes]], length: bytes | None
) -> None:
    subject, head = begun(data, headers, status)
    assert b"chunked" not in head
    assert re.findall(rb"\r\nContent-Length: (.*)\r\n", head) == ([] if length is None else [length])
    assert subject.piece(b"hello", 0.0) == subject.end(0.0) == []
    assert subject.state is State.IDLE


@pytest.mark.parametrize("data", [OLD, KEPT])
def test_for_http_1_0_the_end_of_the_connection_is_that_of_the_body(data: bytes) -> None:
    subject, head = begun(data)
    assert b"chunked" not in head and b"\r\nConnection: close\r\n" in head
    assert subject.piece(b"hello", 0.0) == [Write(b"hello")]
    [close] = subject.end(0.0)
    assert isinstance(close, Close) and close.within >= LINGER_S


def test_http_1_0_with_a_length_may_go_on() -> None:
    subject, head = begun(KEPT, LENGTH_5)
    assert b"\r\nConnection: keep-alive\r\n" in head
    assert sent(subject.piece(b"hello", 0.0) + subject.end(0.0)) == b"hello"
    assert subject.state is State.IDLE


# ---- the end --------------------------------------------------------------------------------------------------------


def test_what_breaks_off_has_no_last_chunk_and_is_a_reset_where_the_end_is_the_end() -> None:
    chunked, _ = begun()
    chunked.piece(b"half", 0.0)
    [close] = chunked.abort(0.0)
    assert isinstance(close, Close) and close.within > 0
    by_close, _ = begun(OLD)
    by_close.piece(b"half", 0.0)
    assert by_close.abort(0.0) == [Reset()]


def test_a_request_behind_it_waits_for_its_end_and_a_drain_too() -> None:
    subject, _ = begun(GET + GET)
    assert subject.drain() == subject.piece(b"", 0.0) == []
    last, close = subject.end(0.0)
    assert last == Write(b"0\r\n\r\n") and isinstance(close, Close)
    other, _ = begun(GET + GET)
    assert [type(each) for each in other.end(0.0)] == [Write, Dispatch]


def test_a_client_that_ends_is_gone_where_nobody_knows_how_long_it_takes() -> None:
    endless, _ = begun()
    assert endless.eof(0.0) == [Close()]
    known, head = begun(headers=LENGTH_5)
    assert known.eof(0.0) == []
    assert sent(known.piece(b"hello", 0.0)) == b"hello"
    assert known.end(0.0) == [Close(T.write + len(head + b"hello") / T.write_rate)]
    behind, _ = begun(GET + GET, headers=LENGTH_5)
    behind.eof(0.0)
    behind.piece(b"hello", 0.0)
    assert isinstance(behind.end(0.0)[0], Dispatch)


# ---- readers --------------------------------------------------------------------------------------------------------


def read_at(rate: float, seconds: float) -> float | None:
    """When a reader of so many bytes a second is cut, who is given 64 KiB whenever there is room."""
    subject, _ = begun()
    now = 0.0
    while now < seconds:
        subject.piece(b"x" * 65536, now)
        subject.blocked(now)
        later = now + 65536 / rate
        due = subject.next_deadline()
        assert due is not None
        if due < later:
            assert isinstance(subject.tick(due)[0], Close)
            return due
        now = later
        subject.written(now)
        assert subject.next_deadline() is None, "who waits for the application is not slow"
    return None


def test_a_reader_is_measured_for_as_long_as_it_reads_however_often_it_stalls() -> None:
    assert read_at(T.write_rate * 1.1, 3600.0) is None
    cut = read_at(T.write_rate * 0.8, 3600.0)
    assert cut is not None and cut < 120.0


def test_who_stops_reading_is_cut_whatever_was_read_before() -> None:
    subject, _ = begun()
    for _ in range(10_000):
        subject.piece(b"x" * 65536, 0.0)
    subject.blocked(0.0)
    assert subject.next_deadline() == pytest.approx(T.write + UNREAD_MAX / T.write_rate)


def test_reading_quickly_buys_no_grace_and_a_piece_more_has_its_time() -> None:
    subject, _ = begun()
    for _ in range(20):
        subject.piece(b"x" * 65536, 0.0)
        assert subject.takes
        subject.blocked(0.0)
        assert not subject.takes
        subject.written(0.0)
    subject.piece(b"x", 0.0)
    subject.blocked(0.0)
    subject.piece(b"x" * 65536, 0.0)
    assert subject.next_deadline() == pytest.approx(T.write + 65536 / T.write_rate, abs=0.1)


def test_silence_of_the_application_costs_its_reader_nothing() -> None:
    subject, _ = begun()
    assert subject.next_deadline() is None
    subject.piece(b"x", 5000.0)
    subject.blocked(5000.0)
    due = subject.next_deadline()
    assert due is not None and due >= 5000.0 + T.write


# ---- uploads --------------------------------------------------------------------------------------------------------


def post(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


@pytest.mark.parametrize("size", [INLINE_MAX - 1, INLINE_MAX, INLINE_MAX + 1, 3 * INLINE_MAX])
def test_a_body_beyond_a_bound_is_a_spool_and_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    subject = connection()
    assert subject.received(post(size) + body[:1000], 0.0) == []
    assert subject.received(body[1000:-1], 0.0) == []
    asked, *rest = subject.received(body[-1:] + GET, 0.0)
    assert isinstance(asked, Dispatch) and not rest
    assert whole(asked) == body
    assert isinstance(asked.body, bytes) is (size <= INLINE_MAX)


def test_what_is_in_a_spool_is_not_in_memory_as_well() -> None:
    subject = Upload(Held, inline=4)
    subject.add(b"hell")
    assert subject.in_memory == 4
    subject.add(b"o")
    spool = subject.whole()
    assert subject.in_memory == 0 and not isinstance(spool, bytes) and spool.read(0, 9) == b"hello"


@pytest.mark.parametrize("large", [post(INLINE_MAX + 1) + bytes(INLINE_MAX + 1), CHUNKED + b"1\r\nx\r\n0\r\n\r\n"])
def test_the_body_behind_another_is_its_own(large: bytes) -> None:
    subject = connection()
    assert isinstance(subject.received(large, 0.0)[-1], Dispatch)
    subject.answered(200, [], b"", 0.0)
    assert subject.received(post(5) + b"hel", 0.0) == []
    [asked] = subject.received(b"lo", 0.0)
    assert isinstance(asked, Dispatch) and asked.body == b"hello"


def test_the_spool_of_a_body_that_does_not_come_is_closed() -> None:
    made: list[Held] = []

    def opened() -> Held:
        made.append(Held())
        return made[-1]

    for end in (lambda subject: subject.eof(1.0), lambda subject: subject.tick(1e6), Connection.lost):
        subject = Connection(shared(open_spool=opened), 0.0)
        subject.received(post(1_000_000) + bytes(500_000), 0.0)
        assert not made[-1].closed
        end(subject)
        assert subject.state is State.CLOSED and made[-1].closed


def test_a_quick_beginning_buys_no_more_than_some_minutes() -> None:
    subject = connection(LIMITS._replace(body=1 << 30))
    subject.received(post(1 << 29), 0.0)
    subject.received(bytes(900_000), 1.0)
    assert subject.next_deadline() == 1.0 + T.body + BANKED_S


@given(st.lists(st.integers(1, 200_000), max_size=12), st.booleans())
def test_whatever_pieces_a_body_comes_in_it_is_the_same(sizes: list[int], chunked: bool) -> None:
    sizes = sizes[:4]
    pieces = [bytes([at + 1]) * size for at, size in enumerate(sizes)]
    body = b"".join(pieces)
    subject = connection()
    if chunked:
        effects = subject.received(CHUNKED, 0.0)
        for piece in pieces:
            effects += subject.received(b"%x\r\n%b\r\n" % (len(piece), piece), 0.0)
        effects += subject.received(b"0\r\n\r\n", 0.0)
    else:
        effects = subject.received(post(len(body)), 0.0)
        for piece in pieces:
            effects += subject.received(piece, 0.0)
    [asked] = effects
    assert isinstance(asked, Dispatch) and whole(asked) == body


# ---- anything in any order ------------------------------------------------------------------------------------------

STEPS = st.sampled_from(["hello", "", "x" * 70_000, "blocked", "written", "wait", "tick", "eof", "drain", "flood"])


def looks_whole(head: bytes, body: bytes, last: Effect) -> bool:
    """As a client sees it."""
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    if b"Content-Length" in head:
        return len(body) == 10
    return not isinstance(last, Reset)


@given(
    st.sampled_from([GET, OLD, KEPT]),
    st.sampled_from([[], [(b"Content-Length", b"10")]]),
    st.lists(STEPS, max_size=12),
    st.booleans(),
)
def test_what_looks_whole_is_whole(data: bytes, headers: object, steps: list[str], ends: bool) -> None:
    subject, head = begun(data, headers)
    effects: list[Effect] = []
    now, given_, blocked = 0.0, b"", False
    for step in steps:
        now += 8.0 if step == "wait" else 0.01
        if step == "blocked":
            blocked = True
            subject.blocked(now)
        elif step == "written":
            if blocked:
                effects += subject.written(now)
            blocked = False
        elif step in ("tick", "eof"):
            effects += getattr(subject, step)(now)
        elif step == "drain":
            effects += subject.drain()
        elif step == "flood":
            effects += subject.received(b"x" * 300_000, now)
        elif step != "wait":
            given_ += step.encode()
            effects += subject.piece(step.encode(), now)
    closed_before = subject.state is State.CLOSED
    effects += subject.end(now) if ends else subject.abort(now)
    closes = [each for each in effects if isinstance(each, Close | Reset)]
    body = sent(effects).partition(b"HTTP/1.1 4")[0]
    if closes and looks_whole(head, body, closes[0]):
        framed = b"chunked" in head
        said = b"".join(part for part in body.split(b"\r\n")[1::2]) if framed else body
        if b"Content-Length" in head:
            assert said == given_[:10]
        else:
            assert ends and not closed_before and said == given_
    elif not closes:
        assert ends
