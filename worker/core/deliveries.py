"""What one process was given, what it has started, and the replies that its master has not acknowledged. Pure.

Two rules:

1. Each delivery is answered exactly once, and each reply is kept until its sequence is acknowledged. So a connection
   may go at any moment: after the next HELLO everything is either held here, or it never arrived.
2. The page is written before a handler may run: what is above `started_upto` there was certainly not started.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from ...common import wire
from ...common.body import encode_error
from ...common.errors import BY_FENCE, BY_FLOOR, NOT_STARTED, MaybeExecuted
from ...common.limits import DONE_MAX
from ...common.messages import Held

if TYPE_CHECKING:
    from ..page import Page

KEPT_BYTES_MAX = 32 * 1024 * 1024  # of replies; twice the usual credit of the largest messages
_US_MAX = (1 << 32) - 1
_TAIL = wire.HEADER_SIZE
_TARGET = _TAIL + wire.ORIGIN_SIZE
_FLAGS_AT = 7  # in the header

_META, _ORIGIN, _REPLY = wire.META, wire.ORIGIN, wire.REPLY
_head = wire.head
_body_of = wire.body_of


class Delivery:
    """One attempt, as hosting reads it. What few handlers ask for is computed when they do."""

    __slots__ = (
        "attempt",
        "body",
        "epoch",
        "frame",
        "handler",
        "kill_ns",
        "may_run",
        "number",
        "origin",
        "row",
        "taken_ns",
        "_has_meta",
        "_time_ms",
    )

    number: int
    epoch: int
    row: int  # in the page
    frame: bytes
    body: wire.Body
    handler: str  # the name after the dot
    kill_ns: int  # of the handler: its limit, monotonic; 0 = none
    attempt: int
    may_run: bool  # False: fenced off, to be answered as not started
    origin: bytes  # session and request number, as they stand on the wire
    taken_ns: int  # monotonic
    _has_meta: bool
    _time_ms: int

    @property
    def deadline(self) -> float:
        """Of the caller; monotonic seconds."""
        return self.taken_ns / 1e9 + self._time_ms / 1e3

    @property
    def streams(self) -> bool:
        """Its caller understands chunks."""
        return self.frame[_FLAGS_AT] & wire.MORE != 0

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
        return _read_meta(self.frame) if self._has_meta else {}

    def _text(self, key: str) -> str | None:
        value = self.meta.get(key)
        return value if isinstance(value, str) else None


class _Kept(NamedTuple):
    sequence: int
    number: int
    epoch: int
    origin: bytes
    code: int
    elapsed_us: int
    body: bytes
    row: int


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
        self.dropped = 0  # deliveries that came twice, or out of order
        self._hellos = 0
        self._page = page
        self._limits_ns = limits_ns
        self._default_limit_ns = default_limit_ns
        self._grace_ns = grace_ns
        self._handlers: dict[bytes, tuple[str, int]] = {}  # target → name, limit
        self._free = list(range(page.rows - 1, -1, -1))  # the last freed is used next: its cache lines are warm
        self._kept: deque[tuple[int, int, int, bytes, int, int, bytes, int]] = deque()  # as _Kept
        self._kept_bytes = 0
        self._done: deque[bytes] = deque(maxlen=remember)  # origins, as they were answered
        # Now and then: the reply sequence, and when. Cheaper than a time for each.
        self._marks: deque[tuple[int, int]] = deque(maxlen=18)
        self._between_marks = max(1, remember // 16) - 1
        self._remember = remember

    # ---- one delivery -----------------------------------------------------------------------------------------------

    def take(self, fields: tuple[int, ...], frame: bytes, now_ns: int) -> Delivery | None:
        """The next delivery, noted as started. None when it came before, or breaks the format."""
        _, _, _, _, flags, _, epoch, time_ms, number, upto, attempt, head_len, target_len = fields
        if self._kept:
            self.acknowledged(upto)
        meta_at = _TARGET + target_len
        if number <= self.received_upto or meta_at > head_len or not flags & _ORIGIN:
            self.dropped += 1
            return None
        target = frame[_TARGET:meta_at]
        known = self._handlers.get(target)
        handler, limit_ns = known or self._learn(target)
        self.received_upto = number
        if not number & self._between_marks:
            self._marks.append((self.sequence, now_ns))
        delivery = Delivery()
        delivery.number = number
        delivery.epoch = epoch
        delivery.frame = frame
        delivery.body = _body_of(frame, head_len)
        delivery.handler = handler
        delivery.origin = origin = frame[_TAIL:_TARGET]
        delivery.taken_ns = now_ns
        delivery._time_ms = time_ms
        delivery.kill_ns = kill_ns = now_ns + limit_ns if limit_ns else 0
        delivery.attempt = attempt
        delivery._has_meta = flags & _META != 0
        if self._free:
            delivery.row = row = self._free.pop()
            shown_ns = kill_ns + self._grace_ns if kill_ns else 0
            delivery.may_run = self._page.start(row, number, now_ns, shown_ns, origin, epoch)
            self.started_upto = number
        else:  # a master that gives more than a page holds; without a row nothing may start
            delivery.row = -1
            delivery.may_run = False
        self.running[number] = delivery
        return delivery

    def limit(self, delivery: Delivery, now_ns: int, limit_ns: int) -> None:
        """The limit of its handler runs from now; 0: there is none."""
        delivery.kill_ns = kill_ns = now_ns + limit_ns if limit_ns else 0
        self._page.limit(delivery.row, now_ns, kill_ns + self._grace_ns if kill_ns else 0)

    def reply(self, delivery: Delivery, code: int, body: bytes, elapsed_us: int) -> bytes:
        """The frame that answers it; the reply is kept."""
        number = delivery.number
        epoch = delivery.epoch
        row = delivery.row
        if code != NOT_STARTED:
            self._page.done(row)
            self._done.append(delivery.origin)
        del self.running[number]
        sequence = self.sequence = self.sequence + 1
        if elapsed_us > _US_MAX:
            elapsed_us = _US_MAX
        # A plain tuple in the order of _Kept: half a microsecond less.
        self._kept.append((sequence, number, epoch, delivery.origin, code, elapsed_us, body, row))
        self._kept_bytes += len(body)
        if self._kept_bytes > KEPT_BYTES_MAX:
            self._give_up_bodies()
        if epoch == self.epoch:
            return _head(_REPLY, self.token, epoch, elapsed_us, number, sequence, self.started_upto, code) + body
        return (
            _head(
                wire.REPLY,
                self.token,
                epoch,
                elapsed_us,
                number,
                sequence,
                self.started_upto,
                code,
                wire.ORIGIN,
                delivery.origin,
            )
            + body
        )

    def not_started(self, delivery: Delivery) -> bytes:
        """The answer for a delivery that may not run, and who forbids it. Below the floor its master took it back, and
        may have given it elsewhere; one that only the fence keeps out has run nowhere.
        """
        by = BY_FLOOR if self._page.taken_back(delivery.number) else BY_FENCE
        return self.reply(delivery, NOT_STARTED, by, 0)

    def acknowledged(self, upto: int) -> None:
        """The master has every reply up to this sequence."""
        kept, free = self._kept, self._free
        while kept and kept[0][0] <= upto:
            _, _, _, _, _, _, body, row = kept.popleft()
            self._kept_bytes -= len(body)
            if row >= 0:
                free.append(row)

    # ---- a new connection -------------------------------------------------------------------------------------------

    def next_hello(self) -> int:
        """Numbers the HELLOs of this incarnation."""
        self._hellos += 1
        return self._hellos

    def held(self) -> list[Held]:
        """The inventory of a HELLO: what runs, and what is answered but not acknowledged; by number."""
        running = [_held(each.epoch, each.number, each.origin, done=False) for each in self.running.values()]
        answered = [_held(each.epoch, each.number, each.origin, done=True) for each in map(_Kept._make, self._kept)]
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
        self.token = token
        self.epoch = epoch
        self.acknowledged(upto)
        return [self._again(_Kept._make(reply)) for reply in self._kept]

    def _again(self, reply: _Kept) -> bytes:
        head = _head(
            wire.REPLY,
            self.token,
            reply.epoch,
            reply.elapsed_us,
            reply.number,
            reply.sequence,
            self.started_upto,
            reply.code,
            wire.RESENT | wire.ORIGIN,
            reply.origin,
        )
        return head + reply.body

    # ---- rare -------------------------------------------------------------------------------------------------------

    def _learn(self, target: bytes) -> tuple[str, int]:
        """Handler and limit of a target. Only known handlers are remembered: the others are as many as callers like."""
        handler = target.decode("utf-8", "replace").rpartition(".")[2]
        found = handler, self._limits_ns.get(handler) or self._default_limit_ns
        if handler in self._limits_ns:
            self._handlers[target] = found
        return found

    def _give_up_bodies(self) -> None:
        """The oldest replies lose their bodies. They were sent; only a resend would miss them, and says so."""
        fault = encode_error(MaybeExecuted("it ran, and its reply was dropped: too many were not acknowledged"))
        for index, reply in enumerate(map(_Kept._make, list(self._kept))):
            if self._kept_bytes <= KEPT_BYTES_MAX or index == len(self._kept) - 1:
                return
            if len(reply.body) > len(fault):
                self._kept_bytes -= len(reply.body) - len(fault)
                self._kept[index] = reply._replace(code=MaybeExecuted.code, body=fault)


def _held(epoch: int, number: int, origin: bytes, done: bool) -> Held:
    session, request = wire.ORIGIN_STRUCT.unpack(origin)
    return Held(epoch, number, session, request, done)


def _read_meta(frame: bytes) -> dict[str, Any]:
    fields = wire.parse(frame)
    try:
        meta = msgpack.unpackb(frame[_TARGET + fields[12] : fields[11]], strict_map_key=False)
    except Exception:  # msgpack raises eight unrelated types on hostile bytes
        return {}
    return meta if isinstance(meta, dict) else {}
