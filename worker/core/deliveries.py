"""What one process was given, what it has started, and the replies that its master has not acknowledged. Pure.

Two rules:

1. Each delivery is answered exactly once, and each reply is kept until its sequence is acknowledged. So a connection
   may go at any moment: after the next HELLO everything is either held here, or it never arrived.
2. The page is written before a handler may run: what is above `started_upto` there was certainly not started. What was
   taken and has not started is held like what runs; it may still turn out that it must not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from ...common import wire
from ...common.body import Packed, encode_error
from ...common.errors import BY_FENCE, BY_FLOOR, NOT_STARTED, MaybeExecuted
from ...common.limits import DONE_MAX, EPOCH_MAX, NUMBER_MAX
from ...common.messages import Held

if TYPE_CHECKING:
    from ..page import Page

KEPT_BYTES_MAX = 32 * 1024 * 1024  # of replies; twice the usual credit of the largest messages
LARGE = 4096  # bytes of a reply's body; of smaller ones a page has too few rows to hold much
SETTLE_EVERY = 16  # acknowledged replies are let go so many at once; large ones with the next large one
_US_MAX = (1 << 32) - 1
_TARGET = wire.WITH_ORIGIN
_ORIGIN_AT = slice(wire.HEADER_SIZE, _TARGET)

_META, _ORIGIN, _REPLY = wire.META, wire.ORIGIN, wire.REPLY
_COPY_TWICE_MAX = wire.COPY_TWICE_MAX
_head = wire.head
_body_of = wire.body_of


class Delivery:
    """One attempt, as hosting reads it. What few handlers ask for is computed when they do."""

    __slots__ = (
        "body",
        "epoch",
        "fields",
        "frame",
        "handler",
        "kill_ns",
        "limit_ns",
        "may_run",
        "number",
        "origin",
        "row",
        "started_ns",
        "taken_ns",
    )

    number: int
    epoch: int
    row: int  # in the page; -1: none
    frame: bytes
    fields: tuple[int, ...]  # of its head
    body: wire.Body
    handler: str  # the name after the dot
    limit_ns: int  # of the handler; 0 = none
    kill_ns: int  # when that is over, monotonic; 0: it has none, or has not started
    may_run: bool  # it has started. False: not yet, or fenced off; to be answered as not started
    origin: bytes  # session and request number, as they stand on the wire
    taken_ns: int  # monotonic
    started_ns: int  # the same; only of what has started

    @property
    def attempt(self) -> int:
        return wire.Head(*self.fields).below

    @property
    def deadline(self) -> float:
        """Of the caller; monotonic seconds."""
        return self.taken_ns / 1e9 + wire.Head(*self.fields).time / 1e3

    @property
    def streams(self) -> bool:
        """Its caller understands chunks."""
        return self.frame[wire.FLAGS_AT] & wire.MORE != 0

    @property
    def request_id(self) -> str:
        session, number = wire.ORIGIN_STRUCT.unpack(self.origin)
        return f"{session.hex()}-{number}"

    @property
    def idempotency_key(self) -> str | None:
        return self._text("k")

    @property
    def session(self) -> str | None:
        return self._text("s")

    @property
    def headers(self) -> Mapping[str, str]:
        found = self.meta.get("h")
        headers = {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}
        traceparent = self._text("t")
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return headers

    @property
    def meta(self) -> dict[str, Any]:
        """What a client wrote there; {} if it is no map. The master never looked at it."""
        head = wire.Head(*self.fields)
        return _read_meta(self.frame[_TARGET + head.code : head.head_len]) if head.flags & _META else {}

    def _text(self, key: str) -> str | None:
        value = self.meta.get(key)
        return value if isinstance(value, str) else None


class _Kept(NamedTuple):
    """A reply. What its head says is read from there, should it be needed again."""

    frame: bytes
    origin: bytes
    row: int  # -1: none

    @property
    def head(self) -> wire.Head:
        return wire.parse_head(self.frame)


class Deliveries:
    """The ledger of one incarnation. `received_upto` and `sequence` never go back, whatever connections do."""

    def __init__(
        self,
        page: Page,
        limits_ns: Mapping[str, int],
        default_limit_ns: int,
        grace_ns: int = 0,
        remember: int = DONE_MAX,
    ) -> None:
        """`limits_ns`: handlers that declare a limit. `grace_ns`: what the page adds to it, for a limit that is first
        enforced here (a task is cancelled) and only then by the agent. `remember`: how many that were
        answered, a power of two.
        """
        self.received_upto = 0
        self.started_upto = 0
        self.sequence = 0
        self.token = 0
        self.epoch = 0
        self.running: dict[int, Delivery] = {}
        self._hellos = 0
        self._page = page
        self._limits_ns = limits_ns
        self._default_limit_ns = default_limit_ns
        self._grace_ns = grace_ns
        self._handlers: dict[bytes, tuple[str, int]] = {}  # target → name, limit
        self._free = list(range(page.rows - 1, -1, -1))  # the last freed is used next: its cache lines are warm
        self._kept: list[tuple[bytes, bytes, int]] = []  # as _Kept; what follows the sequence `_settled`, without a gap
        self._upto = 0  # the master has every reply up to this sequence
        self._settled = 0  # and those up to this one are let go
        self._settle_at = SETTLE_EVERY  # the acknowledgement that is worth the trouble
        self._done: deque[bytes] = deque(maxlen=remember)  # origins, as they were answered
        # Now and then: the reply sequence, and when. Cheaper than a time for each.
        self._marks: deque[tuple[int, int]] = deque(maxlen=18)
        self._between_marks = max(1, remember // 16) - 1
        self._remember = remember

    # ---- one delivery -----------------------------------------------------------------------------------------------

    def take(self, fields: tuple[int, ...], frame: bytes, now_ns: int) -> Delivery | None:
        """The next delivery. None when it came before, or breaks the format."""
        _, _, _, _, flags, _, epoch, _, number, upto, _, head_len, target_len = fields
        meta_at = _TARGET + target_len
        if number <= self.received_upto or meta_at > head_len or not flags & _ORIGIN:
            return None
        if number >= NUMBER_MAX or epoch >= EPOCH_MAX:  # no HELLO could tell of it
            return None
        if upto > self.sequence:
            upto = self.sequence  # what is not said yet cannot have been heard
        self._upto = upto
        if upto >= self._settle_at:
            self.acknowledged(upto)
        target = frame[_TARGET:meta_at]
        handler, limit_ns = self._handlers.get(target) or self._learn(target)
        self.received_upto = number
        if not number & self._between_marks:
            self._marks.append((self.sequence, now_ns))
        delivery = Delivery()
        delivery.number = number
        delivery.epoch = epoch
        delivery.fields = fields
        delivery.frame = frame
        delivery.body = frame[head_len:] if len(frame) <= _COPY_TWICE_MAX else _body_of(frame, head_len)
        delivery.handler = handler
        delivery.limit_ns = limit_ns
        delivery.origin = frame[_ORIGIN_AT]
        delivery.taken_ns = now_ns
        delivery.row = -1
        delivery.kill_ns = 0
        delivery.may_run = False
        self.running[number] = delivery
        return delivery

    def start(self, delivery: Delivery, now_ns: int) -> bool:
        """Notes that it starts, each in its turn: those that were taken before it have started, or never will. False:
        it must not run, and is to be answered as not started.
        """
        if not self._free:
            self.acknowledged(self._upto)
            if not self._free:  # a master that gives more than a page holds; without a row nothing may start
                return False
        delivery.row = row = self._free.pop()
        delivery.started_ns = now_ns
        shown_ns = 0
        if limit_ns := delivery.limit_ns:
            delivery.kill_ns = kill_ns = now_ns + limit_ns
            shown_ns = kill_ns + self._grace_ns
        self.started_upto = number = delivery.number
        delivery.may_run = may_run = self._page.start(row, number, now_ns, shown_ns, delivery.origin, delivery.epoch)
        return may_run

    def limit(self, delivery: Delivery, now_ns: int, limit_ns: int) -> None:
        """The limit of its handler runs from now; 0: there is none."""
        delivery.kill_ns = kill_ns = now_ns + limit_ns if limit_ns else 0
        self._page.limit(delivery.row, now_ns, kill_ns + self._grace_ns if kill_ns else 0)

    def reply(self, delivery: Delivery, code: int, body: Packed, elapsed_us: int) -> bytes:
        """The frame that answers it; the reply is kept."""
        number, epoch, origin, row = delivery.number, delivery.epoch, delivery.origin, delivery.row
        del self.running[number]
        self.sequence = sequence = self.sequence + 1
        if elapsed_us > _US_MAX:
            elapsed_us = _US_MAX
        head = _head(_REPLY, self.token, epoch, elapsed_us, number, sequence, self.started_upto, code)
        frame = head + body
        if code != NOT_STARTED:
            self._page.done(row, frame)
            self._done.append(origin)
        self._kept.append((frame, origin, row))  # a plain tuple in the order of _Kept: half a microsecond less
        if len(body) > LARGE:
            self._kept_large()
        return frame if epoch == self.epoch else self._with_origin(_Kept(frame, origin, row))

    def not_started(self, delivery: Delivery) -> bytes:
        """The answer for a delivery that may not run, and who forbids it. Below the floor its master took it back, and
        may have given it elsewhere; one that only the fence keeps out has run nowhere. (Of one without a row the page
        does not say that its turn came: its master may take it back later.)
        """
        by = BY_FLOOR if delivery.row < 0 or self._page.taken_back(delivery.number) else BY_FENCE
        return self.reply(delivery, NOT_STARTED, by, 0)

    def acknowledged(self, upto: int) -> None:
        """The master has every reply up to this sequence: they are let go."""
        count = min(upto, self.sequence) - self._settled
        if count > 0:
            self._free += [row for _, _, row in self._kept[:count] if row >= 0]
            del self._kept[:count]
            self._settled += count
        self._settle_at = self._settled + SETTLE_EVERY

    # ---- a new connection -------------------------------------------------------------------------------------------

    def next_hello(self) -> int:
        """Numbers the HELLOs of this incarnation."""
        self._hellos += 1
        return self._hellos

    def held(self) -> list[Held]:
        """The inventory of a HELLO: what runs, and what is answered but not acknowledged; by number."""
        self.acknowledged(self._upto)
        running = [_held(each.epoch, each.number, each.origin, done=False) for each in self.running.values()]
        kept = [(reply.head, reply.origin) for reply in map(_Kept._make, self._kept)]
        answered = [_held(head.epoch, head.number, origin, done=True) for head, origin in kept]
        return sorted(running + answered, key=lambda held: held.number)

    def done(self, now_ns: int) -> tuple[bytes, int]:
        """The origins of what was answered, and for how many ms back these are all; -1: since it began."""
        origins = b"".join(self._done)
        forgotten_upto = self.sequence - self._remember  # what was refused has a sequence too, and is none of these
        if forgotten_upto <= 0 or len(self._done) < self._remember:
            return origins, -1
        for sequence, marked_ns in self._marks:
            if sequence >= forgotten_upto:
                return origins, (now_ns - marked_ns) // 1_000_000
        return origins, 0

    def welcomed(self, token: int, epoch: int, upto: int) -> list[bytes]:
        """The replies to send again, the oldest first."""
        if epoch != self.epoch:
            self._prove_nothing_twice()
        self.token = token
        self.epoch = epoch
        self.acknowledged(max(upto, self._upto))
        return [self._with_origin(_Kept._make(reply), wire.RESENT) for reply in self._kept]

    def _prove_nothing_twice(self) -> None:
        """What the fence kept from starting, the last master may have had run elsewhere, if it was told so."""
        for place, reply in enumerate(map(_Kept._make, self._kept)):
            head = reply.head
            if head.code == NOT_STARTED and head.epoch < self.epoch:
                self._kept[place] = reply._replace(frame=reply.frame[: head.head_len] + BY_FLOOR)

    def _with_origin(self, reply: _Kept, flags: int = 0) -> bytes:
        """For a connection that may not know what it answers."""
        head = reply.head
        known = (head.epoch, head.time, head.number, head.upto, self.started_upto, head.code)
        told = _head(_REPLY, self.token, *known, flags | _ORIGIN, reply.origin)
        return told + reply.frame[head.head_len :]

    # ---- rare -------------------------------------------------------------------------------------------------------

    def _learn(self, target: bytes) -> tuple[str, int]:
        """Handler and limit of a target. Only those of known handlers are remembered: callers may invent any others."""
        handler = target.decode("utf-8", "replace").rpartition(".")[2]
        found = handler, self._limits_ns.get(handler) or self._default_limit_ns
        if handler in self._limits_ns:
            self._handlers[target] = found
        return found

    def _kept_large(self) -> None:
        """The last reply is large: what need not be kept goes, and if the rest is too much, the oldest bodies."""
        self.acknowledged(self._upto)
        excess = sum([len(frame) for frame, _, _ in self._kept]) - KEPT_BYTES_MAX
        if excess > 0:
            self._give_up_bodies(excess)

    def _give_up_bodies(self, excess: int) -> None:
        """The oldest replies lose their bodies. They were sent; only a resend would miss them, and says so."""
        fault = encode_error(MaybeExecuted("it ran, and its reply was dropped: too many were not acknowledged"))
        for index, reply in enumerate(map(_Kept._make, self._kept[:-1])):
            if excess <= 0:
                return
            head = reply.head
            known = (head.epoch, head.time, head.number, head.upto, head.below, MaybeExecuted.code)
            without = _head(_REPLY, self.token, *known) + fault
            if len(without) < len(reply.frame):
                excess -= len(reply.frame) - len(without)
                self._kept[index] = reply._replace(frame=without)


def _held(epoch: int, number: int, origin: bytes, done: bool) -> Held:
    session, request = wire.ORIGIN_STRUCT.unpack(origin)
    return Held(epoch, number, session, request, done)


def _read_meta(packed: bytes) -> dict[str, Any]:
    try:
        meta = msgpack.unpackb(packed, strict_map_key=False)
    except Exception:  # msgpack raises eight unrelated types on hostile bytes
        return {}
    return meta if isinstance(meta, dict) else {}
