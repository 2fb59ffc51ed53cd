"""Calls with streams at the client: what comes, what goes, and what is said again over a new connection."""

from __future__ import annotations

from typing import Any

import pytest
from spoken.client import OneMasterWorld

from rota.client.calls import BEGUN_LOOK, WINDOW_BYTES, Calls
from rota.client.streams import StreamCall, received
from rota.common import wire
from rota.common.errors import NOT_STARTED, Error, MaybeExecuted, ProtocolError
from rota.common.streams import CHUNK_MAX, WINDOW, Chunk, Credit, Outflow, Replay, chunk_of, credit_of

TOKEN = 7


class Upload(StreamCall):
    def __init__(self, out: Outflow | Replay | None = None) -> None:
        super().__init__()
        self.address = b"site.http", 9, wire.MORE
        self.body = b"args"
        self.deadline = 30.0
        self.out = out
        self.got = bytearray()
        self.ended = False
        self.rooms = 0

    def came(self, data: Any, more: bool) -> None:
        self.got += data
        self.ended = not more

    def room(self) -> None:
        self.rooms += 1


class Client:
    def __init__(self, call: StreamCall) -> None:
        self.calls = Calls()
        self.call = call
        self.calls.opened(TOKEN, 1, False, 0, 0.0)
        self.calls.submit(call)
        assert [wire.parse(frame)[3] for frame in self.sent()] == [wire.REQUEST]

    def sent(self, now: float = 0.0) -> list[bytes]:
        return self.calls.frames(now, 10_000)

    def comes(self, said: Chunk | Credit, attempt: int = 1, number: int = 1, epoch: int = 1) -> list[Error]:
        frame = said.frame(TOKEN, number, epoch, attempt) if isinstance(said, Chunk) else said.frame(TOKEN, number)
        return [error for _, error in received(self.calls, wire.parse(frame), frame, 0.0)]


def kinds(frames: list[bytes]) -> list[int]:
    return [wire.parse(frame)[3] for frame in frames]


def test_the_bytes_of_an_answer_come_once_and_in_order() -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"one", True))
    client.comes(Chunk(0, b"one", True))
    client.comes(Chunk(3, b"two", False))
    assert (bytes(call.got), call.ended) == (b"onetwo", True)
    *_, credit = client.sent()
    assert credit_of(wire.parse(credit), credit).received == 7


def test_the_end_of_an_answer_may_come_by_itself() -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"one", True))
    client.comes(Chunk(3, b"", False))
    assert (bytes(call.got), call.ended) == (b"one", True)


def test_an_upload_goes_out_as_it_is_granted() -> None:
    content = bytes(range(256)) * 1024
    call = Upload(Replay(len(content), lambda offset, size: content[offset : offset + size]))
    client = Client(call)
    assert client.sent() == []
    client.comes(Credit(CHUNK_MAX, 0, True))
    client.comes(Credit(3 * CHUNK_MAX, CHUNK_MAX, False))
    chunks = [chunk_of(wire.parse(frame), frame) for frame in client.sent()]
    assert [(chunk.offset, len(chunk.data)) for chunk in chunks] == [(n * CHUNK_MAX, CHUNK_MAX) for n in range(3)]
    assert call.rooms == 2


def test_pouring_sends_what_was_written_and_no_more_than_was_granted() -> None:
    call = Upload(Outflow(granted=0))
    client = Client(call)
    assert isinstance(call.out, Outflow)
    call.out.write(b"message")
    client.calls.say(call)
    assert client.sent() == [] and call.out.blocked
    client.comes(Credit(WINDOW, 0, True))
    (chunk,) = client.sent()
    assert chunk_of(wire.parse(chunk), chunk).data == b"message"


def test_taking_grants_more() -> None:
    call = Upload()
    client = Client(call)
    for place in range(4):
        client.comes(Chunk(place * CHUNK_MAX, bytes(CHUNK_MAX), True))
    assert client.sent() == []
    call.into.taken(4 * CHUNK_MAX)
    client.calls.say(call)
    (credit,) = client.sent()
    assert credit_of(wire.parse(credit), credit) == (2 * WINDOW, WINDOW, False)


def test_over_a_new_connection_both_directions_begin_where_they_were() -> None:
    content = bytes(2 * CHUNK_MAX)
    call = Upload(Replay(len(content), lambda offset, size: content[offset : offset + size]))
    client = Client(call)
    client.comes(Credit(2 * CHUNK_MAX, 0, True))
    client.comes(Credit(2 * CHUNK_MAX, CHUNK_MAX, False))
    client.comes(Chunk(0, b"answer", True))
    client.sent()
    client.calls.closed()
    client.calls.opened(TOKEN, 1, True, 0, 1.0)
    frames = client.sent(1.0)
    assert kinds(frames) == [wire.REQUEST, wire.CREDIT, wire.CHUNK]
    request, credit, chunk = frames
    assert wire.parse_head(request).flags & wire.RESENT
    assert credit_of(wire.parse(credit), credit) == (WINDOW, 6, True)
    assert chunk_of(wire.parse(chunk), chunk).offset == CHUNK_MAX


def test_what_is_written_without_a_connection_goes_behind_its_request() -> None:
    call = Upload(Outflow(granted=WINDOW))
    client = Client(call)
    client.calls.closed()
    assert isinstance(call.out, Outflow)
    call.out.write(b"message")
    client.calls.say(call)
    client.calls.opened(TOKEN + 1, 1, True, 0, 1.0)
    frames = client.sent(1.0)
    assert kinds(frames) == [wire.REQUEST, wire.CREDIT, wire.CHUNK]
    assert {wire.parse_head(frame).token for frame in frames} == {TOKEN + 1}


@pytest.mark.parametrize(("epoch", "attempt"), [(1, 2), (2, 1)])
def test_an_answer_is_never_made_of_two_attempts(epoch: int, attempt: int) -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"half", True))
    (error,) = client.comes(Chunk(4, b"other", True), epoch=epoch, attempt=attempt)
    assert isinstance(error, MaybeExecuted)
    assert bytes(call.got) == b"half"
    assert kinds(client.sent()) == [wire.CANCEL]


@pytest.mark.parametrize("said", [Chunk(0, bytes(WINDOW + 1), True), Credit(9, 9, False)])
def test_a_peer_that_breaks_the_rules_ends_its_stream_only(said: Chunk | Credit) -> None:
    client = Client(Upload(Outflow()))
    (error,) = client.comes(said)
    assert isinstance(error, ProtocolError)
    assert kinds(client.sent()) == [wire.CANCEL]


def test_a_chunk_that_nobody_waits_for_is_dropped_and_no_more_are_asked_for() -> None:
    client = Client(Upload())
    assert client.comes(Chunk(0, b"x", True), number=9) == []
    (cancel,) = client.sent()
    assert (wire.parse_head(cancel).kind, wire.parse_head(cancel).number) == (wire.CANCEL, 9)


def test_an_answer_that_has_begun_outlives_its_deadline_but_not_a_lost_master() -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"event", True))
    assert client.calls.expire(1000.0) == client.calls.expire(2000.0) == []
    client.calls.closed()
    assert client.calls.expire(2000.0) == []
    assert [each for each, _ in client.calls.expire(2031.0)] == [call]


def test_an_answer_that_has_not_begun_keeps_its_deadline_over_a_new_connection() -> None:
    call = Upload()
    client = Client(call)
    client.calls.closed()
    client.calls.opened(TOKEN, 1, True, 0, 1.0)
    assert wire.REQUEST in kinds(client.sent(1.0))
    assert [each for each, _ in client.calls.expire(31.0)] == [call]


def test_back_in_time_it_goes_on_without_a_deadline() -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"event", True))
    client.calls.closed()
    client.calls.expire(1000.0)
    client.calls.opened(TOKEN, 1, True, 0, 1010.0)
    client.sent(1010.0)
    assert client.calls.expire(5000.0) == []


def test_others_do_not_wait_for_answers_that_go_on() -> None:
    """Be they as many, or their requests as large, as may be under way at once."""
    large = bytes(WINDOW_BYTES // 8)
    client = Client(Upload())
    calls, window = client.calls, client.calls.window
    calls.body_max = len(large)
    for number in range(1, 200):
        if number > 1:
            call = Upload()
            call.body = large if number < 20 else b"args"
            assert calls.submit(call) is None and len(client.sent()) == 1, number
        client.comes(Chunk(0, b"one", True), number=number)
        client.comes(Chunk(3, b"two", True), number=number)
    for number in range(1, 200):
        calls.answered(number, number, 0)
    for number in range(200, 400):  # what is over makes no more room, or hardly
        call = Upload()
        calls.submit(call)
        client.sent()
        client.comes(Chunk(0, b"one", True), number=number)
        calls.answered(number, number, 0)
    assert window < calls.window < window + 2 * BEGUN_LOOK
    held = []
    while not held or held[-1].number:
        held.append(Upload())
        held[-1].body = large
        calls.submit(held[-1])
        client.sent()
    assert 8 < len(held) < 12


def test_an_answer_that_has_begun_is_not_sent_anew_whatever_a_master_that_stops_says() -> None:
    call = Upload()
    client = Client(call)
    client.comes(Chunk(0, b"one", True))
    client.calls.heard_upto(0)
    assert client.calls.sent(1) is call


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_master_gives_back_is_asked_for_anew_unless_its_answer_has_begun(begun: bool) -> None:
    world, call = OneMasterWorld(), Upload()
    errors: list[Error | None] = []
    call.finish = lambda value, error: errors.append(error)  # type: ignore[method-assign]
    call.deadline = world.now + 30.0
    try:
        world.comes_up(world.chance)
        world.session.calls.submit(call)
        world.step()
        token = world.session._token
        frames = [Chunk(0, b"one", True).frame(token, 1, 1, 1)] if begun else []
        world.say(world.chance, [*frames, wire.head(wire.ANSWER, token, number=1, upto=1, code=NOT_STARTED)])
    finally:
        world.restore()
    assert (len(errors), call.number) == ((1, 1) if begun else (0, 2))
