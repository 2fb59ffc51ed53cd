"""The streams of one process, by the number of their delivery: what came, what goes out, what is said again. Pure.

A stream is opened when its handler wants it, or when something comes for it. How a handler waits is the matter of
`worker/streams.py`; each method here gives the frames that are to be sent now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ...common import wire
from ...common.limits import CONCURRENCY_MAX
from ...common.streams import WINDOW, BadStream, Inflow, Outflow, chunk_of, credit_of
from .deliveries import Deliveries, Delivery

EARLY_MAX = 2 * CONCURRENCY_MAX  # as many as run and wait in one process; other numbers were given to nobody
_ANSWERED = "its answer was given"
_FORSAKEN = "nobody waits for this any more"


class Abandoned(ConnectionAbortedError):
    """Nobody waits for this stream any more, or its caller broke the rules: what is written to it goes nowhere."""


class Stream:
    """Both directions. What its caller sends is `came`, piece by piece, until the handler takes it."""

    __slots__ = (
        "began_us",
        "came",
        "delivery",
        "fault",
        "leaving",
        "limit_ns",
        "moved",
        "out",
        "wake",
        "_into",
        "_reads",
    )

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.limit_ns = delivery.limit_ns
        self.out = Outflow(granted=WINDOW)
        self.came: deque[wire.Body] = deque()
        self.began_us = 0  # from the start to the first bytes of the answer; 0: it has not begun
        self.moved = 0  # frames that came for it: it does not stand still
        self.fault: Abandoned | None = None
        self.leaving = False  # the process is to stop
        self.wake: Callable[[], None] = lambda: None  # who waits looks again
        self._into = Inflow()
        self._reads = False

    @property
    def ended(self) -> bool:
        """The caller has sent all that it will, whether it was taken or not."""
        return self._into.ended

    def read(self) -> None:
        """The handler wants the upload: nothing of it comes before that is said."""
        self._reads = True

    def take(self) -> bytes:
        """The next piece, which is there."""
        piece = bytes(self.came.popleft())
        self._into.taken(len(piece))
        return piece

    def write(self, data: bytes, now_ns: int) -> None:
        self.out.write(data)
        if not self.began_us:
            self.began_us = max(1, (now_ns - self.delivery.started_ns) // 1000)

    def again(self) -> None:
        """Over a new connection each direction begins where it was."""
        self._into.again()
        self.out.again()

    def handle(self, fields: tuple[int, ...], frame: bytes) -> None:
        """A CHUNK, a CREDIT or a CANCEL. BadStream if it breaks the rules."""
        self.moved += 1
        if fields[3] == wire.CREDIT:
            credit = credit_of(fields, frame)
            self.out.credited(credit)
            if credit.again:  # a caller that is back: what we granted may have been lost on its way, too
                self._into.again()
        elif fields[3] == wire.CANCEL:
            self.give_up(_FORSAKEN)
        elif data := self._into.came(chunk_of(fields, frame)):
            self.came.append(data)

    def give_up(self, reason: str) -> None:
        if self.fault is None:
            self.fault = Abandoned(reason)
            self.came.clear()

    def frames(self, token: int) -> Iterator[bytes]:
        """What may be sent now."""
        delivery = self.delivery
        if self.fault is not None:
            return
        if self._reads and (credit := self._into.credit()) is not None:
            yield credit.frame(token, delivery.number)
        while (chunk := self.out.next()) is not None:
            yield chunk.frame(token, delivery.number, delivery.epoch, delivery.attempt)


class Streams:
    def __init__(self, deliveries: Deliveries) -> None:
        self.opened: dict[int, Stream] = {}
        self._deliveries = deliveries
        self._early: set[int] = set()  # cancelled before they were taken: they wait for room, behind what runs
        self._leaving = False

    def of(self, delivery: Delivery) -> Stream:
        stream = self.opened.get(delivery.number)
        if stream is None:
            stream = Stream(delivery)
            stream.leaving = self._leaving
            if self._deliveries.running.get(delivery.number) is delivery:
                self.opened[delivery.number] = stream
            else:  # what goes on after an answer may still hold its handle
                stream.give_up(_ANSWERED)
            if delivery.number in self._early:
                stream.give_up(_FORSAKEN)
        return stream

    def handle(self, fields: tuple[int, ...], frame: bytes) -> list[bytes]:
        """A CHUNK, a CREDIT or a CANCEL; one for what does not run, or streams nothing, is ignored."""
        delivery = self._deliveries.running.get(fields[8])
        if fields[5] != self._deliveries.token:
            return []
        if delivery is None or not delivery.streams:
            if fields[3] == wire.CANCEL and fields[8] > self._deliveries.received_upto:
                self._cancelled_early(fields[8])
            return []
        stream = self.of(delivery)
        try:
            stream.handle(fields, frame)
        except BadStream as error:
            stream.give_up(f"its caller broke the rules of streams: {error}")
        answers = self.frames(stream)
        stream.wake()
        return answers

    def _cancelled_early(self, number: int) -> None:
        """Remember it: the handler may wait for nothing but its stream, and the master says CANCEL once."""
        ledger = self._deliveries
        self._early = {each for each in self._early if each > ledger.received_upto or each in ledger.running}
        if len(self._early) < EARLY_MAX:
            self._early.add(number)

    def frames(self, stream: Stream) -> list[bytes]:
        return list(stream.frames(self._deliveries.token))

    def welcomed(self) -> list[bytes]:
        """Over a new connection. What waited for room went with the old one: its numbers may be given again."""
        self._early.intersection_update(self._deliveries.running)
        for stream in self.opened.values():
            stream.again()
        return [frame for stream in self.opened.values() for frame in self.frames(stream)]

    def leave(self) -> None:
        """The process is to stop."""
        self._leaving = True
        for stream in self.opened.values():
            stream.leaving = True
            stream.wake()

    def limit(self, stream: Stream, now_ns: int) -> None:
        """It has moved: the limit of its handler begins anew."""
        self._limit(stream, now_ns, stream.limit_ns)

    def unlimited(self, stream: Stream, now_ns: int) -> None:
        """Its handler waits for others, or may take as long as it likes."""
        self._limit(stream, now_ns, 0)

    def _limit(self, stream: Stream, now_ns: int, limit_ns: int) -> None:
        if stream.delivery.number in self.opened:  # else its row in the page may be another's by now
            self._deliveries.limit(stream.delivery, now_ns, limit_ns)

    def settled(self, number: int, elapsed_us: int) -> int:
        """Its reply goes out, and nobody waits for anything of it any longer. Returns the µs that count: those until
        its answer began, since how long a caller takes to read says nothing of the process.
        """
        stream = self.opened.pop(number, None)
        if stream is None:
            return elapsed_us
        stream.give_up(_ANSWERED)
        stream.wake()
        return stream.began_us or elapsed_us
