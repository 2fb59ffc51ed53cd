"""The streams of a process, without one: what is said for which frame, and what a handler finds."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import cast

import pytest
from fake_master import delivery as frame_of

from rota.common import wire
from rota.common.streams import CHUNK_MAX, WINDOW, Chunk, Credit, chunk_of, credit_of
from rota.worker import streams as streams_of_handlers
from rota.worker.async_streams import AsyncStream, OfThread
from rota.worker.backend import Backend, Rejected
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.core.streams import EARLY_MAX, Abandoned, Streams
from rota.worker.page import Page
from rota.worker.process import Process
from rota.worker.streams import Patience, Pump, SyncStream

TOKEN = 99
LIMIT_NS = 5_000_000_000
BEGUN_NS = 1_000_000_000


@pytest.fixture
def ledger(page: Page) -> Deliveries:
    made = Deliveries(page, {"http": LIMIT_NS}, 0)
    made.welcomed(TOKEN, epoch=1, upto=0)
    return made


def take(ledger: Deliveries, number: int = 1, flags: int = wire.MORE) -> Delivery:
    frame = bytearray(frame_of(TOKEN, 1, number, "site.http", 0, b"body"))
    frame[7] |= flags
    taken = ledger.take(wire.HEADER.unpack_from(frame), bytes(frame), BEGUN_NS)
    assert taken is not None and ledger.start(taken, BEGUN_NS)
    return taken


class Rig:
    def __init__(self, ledger: Deliveries) -> None:
        self.streams = Streams(ledger)
        self.delivery = take(ledger)
        self.stream = self.streams.of(self.delivery)

    def comes(self, said: Chunk | Credit, number: int = 1, token: int = TOKEN) -> list[bytes]:
        return self.handle(said.frame(token, number))

    def handle(self, frame: bytes) -> list[bytes]:
        return self.streams.handle(wire.parse(frame), frame)

    def write(self, data: bytes, now_ns: int = BEGUN_NS) -> list[bytes]:
        self.stream.write(data, now_ns)
        return self.streams.frames(self.stream)

    def read(self) -> list[bytes]:
        self.stream.read()
        return self.streams.frames(self.stream)


@pytest.fixture
def rig(ledger: Deliveries) -> Rig:
    return Rig(ledger)


def credits(frames: list[bytes]) -> list[Credit]:
    return [credit_of(wire.parse(frame), frame) for frame in frames if wire.parse(frame)[3] == wire.CREDIT]


def chunks(frames: list[bytes]) -> list[Chunk]:
    return [chunk_of(wire.parse(frame), frame) for frame in frames if wire.parse(frame)[3] == wire.CHUNK]


def test_a_delivery_knows_whether_its_caller_streams(ledger: Deliveries) -> None:
    assert take(ledger, 1).streams and not take(ledger, 2, flags=0).streams


def test_nothing_of_an_upload_is_asked_for_before_it_is_wanted(rig: Rig) -> None:
    assert rig.streams.frames(rig.stream) == []
    assert credits(rig.read()) == [Credit(WINDOW, 0, True)]
    assert rig.read() == []


def test_what_comes_is_granted_anew_when_the_handler_has_taken_it(rig: Rig) -> None:
    rig.read()
    for place in range(4):
        assert rig.comes(Chunk(place * CHUNK_MAX, bytes(CHUNK_MAX), True)) == []
    assert [len(rig.stream.take()) for _ in range(4)] == [CHUNK_MAX] * 4
    assert credits(rig.streams.frames(rig.stream)) == [Credit(2 * WINDOW, WINDOW, False)]
    rig.comes(Chunk(WINDOW, b"end", False))
    assert rig.stream.ended and rig.stream.take() == b"end"


def test_chunks_of_the_answer_say_which_attempt_they_are_of(rig: Rig) -> None:
    (frame,) = rig.write(b"answer")
    head = wire.parse_head(frame)
    assert (head.number, head.token, head.epoch, head.code) == (1, TOKEN, 1, rig.delivery.attempt)


def test_over_a_new_connection_both_directions_begin_where_they_were(rig: Rig, ledger: Deliveries) -> None:
    rig.read()
    rig.comes(Chunk(0, b"half", True))
    rig.write(b"one")
    rig.write(b"two")
    rig.comes(Credit(WINDOW, 3, False))
    ledger.welcomed(TOKEN + 1, epoch=1, upto=0)
    frames = rig.streams.welcomed()
    assert credits(frames) == [Credit(WINDOW, 4, True)]
    assert chunks(frames) == [Chunk(3, b"two", True)]
    assert {wire.parse(frame)[5] for frame in frames} == {TOKEN + 1}


def test_a_caller_that_is_back_hears_what_it_was_granted(rig: Rig) -> None:
    rig.read()
    assert credits(rig.comes(Credit(WINDOW, 0, True))) == [Credit(WINDOW, 0, True)]


def test_a_stream_that_nobody_waits_for_is_given_up(rig: Rig) -> None:
    woken = []
    rig.stream.wake = lambda: woken.append(True)
    rig.comes(Chunk(0, b"", True))
    rig.handle(wire.head(wire.CANCEL, TOKEN, number=1))
    assert isinstance(rig.stream.fault, Abandoned) and isinstance(rig.stream.fault, OSError)
    assert woken and rig.write(b"for nobody") == []


def test_a_stream_that_was_cancelled_while_its_delivery_waited_for_room_is_given_up(
    rig: Rig, ledger: Deliveries
) -> None:
    rig.handle(wire.head(wire.CANCEL, TOKEN, number=2))
    rig.comes(Credit(WINDOW, 0, True), number=3)  # which is no CANCEL
    second, third = take(ledger, 2), take(ledger, 3)
    rig.handle(wire.head(wire.CANCEL, TOKEN, number=5))  # what is remembered is looked through: 2 has not been opened
    assert isinstance(rig.streams.of(second).fault, Abandoned)
    assert rig.streams.of(third).fault is None and rig.stream.fault is None


def test_a_master_that_cancels_what_it_never_gave_fills_nothing(rig: Rig, ledger: Deliveries) -> None:
    for number in range(2, EARLY_MAX + 3):
        rig.handle(wire.head(wire.CANCEL, TOKEN, number=number))
    last, beyond = (take(ledger, number) for number in (EARLY_MAX + 1, EARLY_MAX + 2))
    assert rig.streams.of(last).fault is not None
    assert rig.streams.of(beyond).fault is None


def test_a_cancel_ends_with_the_connection_of_a_delivery_that_waited(rig: Rig, ledger: Deliveries) -> None:
    """The next master gives the same number to another request."""
    rig.handle(wire.head(wire.CANCEL, TOKEN, number=2))
    rig.handle(wire.head(wire.CANCEL, TOKEN, number=3))
    second = take(ledger, 2)
    ledger.welcomed(TOKEN, epoch=2, upto=0)
    rig.streams.welcomed()
    assert rig.streams.of(take(ledger, 3)).fault is None
    assert rig.streams.of(second).fault is not None


@pytest.mark.parametrize("said", [Chunk(0, bytes(10), True), Credit(0, 5, False)])
def test_a_caller_that_breaks_the_rules_loses_its_stream_and_no_other(
    said: Chunk | Credit, rig: Rig, ledger: Deliveries
) -> None:
    other = rig.streams.of(take(ledger, 2))
    rig.comes(said)
    assert rig.stream.fault is not None and "broke the rules" in str(rig.stream.fault)
    assert other.fault is None


@pytest.mark.parametrize("number, token, flags", [(7, TOKEN, wire.MORE), (2, TOKEN, 0), (1, 5, wire.MORE)])
def test_frames_for_what_does_not_stream_here_are_ignored(
    number: int, token: int, flags: int, rig: Rig, ledger: Deliveries
) -> None:
    take(ledger, 2, flags=flags)
    assert rig.comes(Chunk(0, b"x", True), number, token) == []
    assert list(rig.streams.opened) == [1] and rig.stream.moved == 0


def test_the_limit_runs_anew_from_each_piece_and_rests_while_others_are_waited_for(rig: Rig, page: Page) -> None:
    now = 9_000_000_000
    rig.streams.limit(rig.stream, now)
    (row,) = page.running()
    assert (row.started_ns, row.kill_ns, rig.delivery.kill_ns) == (now, now + LIMIT_NS, now + LIMIT_NS)
    rig.streams.unlimited(rig.stream, now)
    assert page.running()[0].kill_ns == 0


def test_a_caller_is_given_up_when_nothing_has_come_from_it_for_the_limit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(streams_of_handlers, "monotonic", lambda: now)
    patience = Patience(rig.stream)
    now = 104.0
    rig.comes(Credit(WINDOW, 0, True))
    assert patience.left() == 5.0
    now = 108.9
    assert patience.left() > 0 and rig.stream.fault is None
    now = 109.0
    patience.left()
    assert rig.stream.fault is not None


def test_handlers_with_streams_learn_that_their_process_is_to_stop_and_so_do_those_that_begin_later(
    rig: Rig, ledger: Deliveries
) -> None:
    woken = []
    rig.stream.wake = lambda: woken.append(True)
    rig.streams.leave()
    assert rig.stream.leaving and woken and rig.streams.of(take(ledger, 2)).leaving


def test_the_time_of_a_streamed_answer_is_that_until_it_began(rig: Rig) -> None:
    rig.write(b"first", BEGUN_NS + 3_000_000)
    rig.write(b"second", BEGUN_NS + 900_000_000)
    assert rig.streams.settled(1, 999_000) == 3000
    assert rig.streams.settled(1, 999_000) == 999_000 and not rig.streams.opened


def test_an_answer_that_did_not_begin_takes_as_long_as_its_handler(rig: Rig) -> None:
    rig.read()
    assert rig.streams.settled(1, 700) == 700


def test_what_goes_on_after_an_answer_is_told_so_and_leaves_nothing_behind(
    rig: Rig, ledger: Deliveries, page: Page
) -> None:
    woken = []
    rig.stream.wake = lambda: woken.append(True)
    rig.read()
    rig.streams.settled(1, 700)
    ledger.reply(rig.delivery, 0, b"", 700)
    assert woken and isinstance(rig.stream.fault, Abandoned)
    late = rig.streams.of(rig.delivery)
    assert isinstance(late.fault, Abandoned) and not rig.streams.opened
    assert rig.streams.frames(late) == []
    ledger.acknowledged(1)
    other = take(ledger, 2)
    assert other.row == rig.delivery.row
    shown = page.running()
    rig.streams.limit(rig.stream, 9_000_000_000)
    rig.streams.unlimited(late, 9_000_000_000)
    assert page.running() == shown


def test_what_happens_before_a_task_that_waits_has_begun_is_not_missed() -> None:
    """`wait_for` makes a task, which begins a turn of the loop later."""

    async def scenario() -> None:
        stream = AsyncStream.__new__(AsyncStream)
        stream._waiting = []
        stream._stream = lambda: SimpleNamespace(wake=None)  # type: ignore[assignment,method-assign,return-value]
        waits = asyncio.wait_for(stream.changed(), 5.0)
        stream.wake()
        await waits

    asyncio.run(scenario())


def test_who_looks_again_and_again_whether_something_came_leaves_nothing_behind() -> None:
    """Applications ask every moment whether their caller is there still, for as long as they answer."""

    async def scenario() -> None:
        stream = AsyncStream.__new__(AsyncStream)
        stream._waiting = []
        stream._stream = lambda: SimpleNamespace(wake=None)  # type: ignore[assignment,method-assign,return-value]
        waits = stream.changed()
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.changed(), 0)
        assert len(stream._waiting) <= 2
        stream.wake()
        await waits

    asyncio.run(scenario())


def test_a_handler_that_always_finds_a_piece_lets_others_have_their_turn() -> None:
    """An upload comes as fast as it is read: who works on each piece would hold the loop until the last one."""

    async def scenario() -> None:
        stream = AsyncStream.__new__(AsyncStream)
        there = SimpleNamespace(came=[b"x"], fault=None, began_us=0, read=lambda: None, take=lambda: b"x")
        stream._stream = lambda: there  # type: ignore[assignment,method-assign,return-value]
        stream._send = lambda stream: None  # type: ignore[method-assign]
        stream._streams = SimpleNamespace(limit=lambda stream, now_ns: None)  # type: ignore[assignment]
        turns: list[str] = []
        asyncio.get_running_loop().call_soon(turns.append, "another's")
        assert await stream.read() == b"x" and turns

    asyncio.run(scenario())


def test_a_damaged_bundle_ends_the_connection_and_not_the_handler_that_waits() -> None:
    damaged: list[bool] = []
    head = wire.head(wire.ACK, TOKEN)
    lengths = len(head).to_bytes(4, "little") + bytes(4)
    bundle = wire.head(wire.BUNDLE, TOKEN, number=2) + lengths + head
    backend = SimpleNamespace(inbox=deque([bundle]), handle=lambda frame: None, damage=lambda: damaged.append(True))
    Pump(cast(Process, SimpleNamespace(backend=backend))).sift()
    assert damaged == [True]


def test_replies_that_wait_for_the_next_do_not_wait_for_one_in_pieces() -> None:
    sent: list[bytes] = []
    backend = SimpleNamespace(replies=[b"quick"], link=None, greeted=True)
    backend.send_replies = lambda: sent.extend(backend.replies)
    Pump(cast(Process, SimpleNamespace(backend=backend, attend=lambda: None))).look()
    assert sent == [b"quick"]


def test_deliveries_that_come_while_a_handler_streams_wait_and_all_else_is_handled() -> None:
    handled: list[bytes] = []
    delivery, credit = frame_of(TOKEN, 1, 2, "site.http"), Credit(WINDOW, 0, False).frame(TOKEN, 1)
    backend = SimpleNamespace(inbox=deque([delivery, credit]), handle=handled.append)
    Pump(cast(Process, SimpleNamespace(backend=backend))).sift()
    assert (list(backend.inbox), handled) == ([delivery], [credit])


def test_who_waits_for_a_stream_looks_after_the_connection() -> None:
    attended: list[bool] = []
    handled: list[bytes] = []
    welcome = wire.head(wire.WELCOME, TOKEN)
    backend = SimpleNamespace(greeted=False, link=None, replies=[], wait=lambda: welcome, handle=handled.append)
    pump = Pump(cast(Process, SimpleNamespace(backend=backend, attend=lambda: attended.append(True))))
    pump.look()
    assert len(attended) == 1
    pump.wait()
    assert len(attended) == 2 and handled == [welcome]


def test_what_came_in_one_frame_with_a_delivery_is_looked_at_once_and_a_refused_process_gives_its_stream_up(
    rig: Rig,
) -> None:
    looks: list[str] = []

    def look() -> None:
        looks.append("look")
        if len(looks) > 2:
            raise Rejected("of another version")

    pump = cast(Pump, SimpleNamespace(sift=lambda: looks.append("sift"), look=look))
    stream = SyncStream(pump, cast(Backend, None), rig.streams, rig.delivery)
    stream._look(rig.stream)
    stream._look(rig.stream)
    assert looks == ["sift", "look", "look"]
    assert rig.stream.fault is not None and "of another version" in str(rig.stream.fault)


CANCELLED = wire.head(wire.CANCEL, TOKEN, number=1)
PIECE = Chunk(0, b"piece", True).frame(TOKEN, 1)


class Waits:
    """A handler of each kind, the frame that comes while it waits, and its limit meanwhile."""

    def __init__(self, rig: Rig, frame: bytes) -> None:
        self.rig, self.frame = rig, frame
        self.limits: list[int] = []
        self.backend = cast(Backend, SimpleNamespace(send_all=lambda frames: None))

    def comes(self) -> None:
        self.limits.append(self.rig.delivery.kill_ns)
        self.rig.handle(self.frame)

    def sync(self, operation: str, *args: bytes) -> bytes | None:
        pump = cast(Pump, SimpleNamespace(sift=lambda: None, look=lambda: None, wait=self.comes))
        made = SyncStream(pump, self.backend, self.rig.streams, self.rig.delivery)
        return cast(bytes | None, getattr(made, operation)(*args))

    def on_loop(self, kind: type[AsyncStream], operation: str, *args: bytes) -> bytes | None:
        async def scenario() -> bytes | None:
            made = kind(self.backend, self.rig.streams, lambda: None, self.rig.delivery)
            asyncio.get_running_loop().call_later(0.01, self.comes)
            return cast(bytes | None, await getattr(made, operation)(*args))

        return asyncio.run(asyncio.wait_for(scenario(), 20))

    def do(self, kind: type[SyncStream | AsyncStream], operation: str, *args: bytes) -> bytes | None:
        if issubclass(kind, AsyncStream):
            return self.on_loop(kind, operation, *args)
        return self.sync(operation, *args)


@pytest.mark.parametrize("operation", ["read", "finish", "write"])
@pytest.mark.parametrize("kind", [SyncStream, AsyncStream, OfThread])
def test_whoever_waits_for_a_stream_that_nobody_waits_for_any_more_is_told(
    kind: type[SyncStream | AsyncStream], operation: str, rig: Rig
) -> None:
    """An upload that broke off must not look as if it had ended."""
    args = (bytes(2 * WINDOW),) if operation == "write" else ()
    with pytest.raises(Abandoned):
        Waits(rig, CANCELLED).do(kind, operation, *args)


@pytest.mark.parametrize("kind", [SyncStream, AsyncStream, OfThread])
def test_the_limit_of_a_handler_rests_while_a_thread_waits_and_begins_anew_behind_it(
    kind: type[SyncStream | AsyncStream], rig: Rig
) -> None:
    """On a loop the handler is cancelled at its limit, also when it waits."""
    waits = Waits(rig, PIECE)
    before = rig.delivery.kill_ns
    assert waits.do(kind, "read") == b"piece"
    assert waits.limits == [before if kind is AsyncStream else 0]
    assert rig.delivery.kill_ns > before
