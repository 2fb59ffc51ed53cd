"""One HTTP/1.x connection: bytes in, requests and bytes out. Pure.

    idle ──► head ──► body ──► answer ──► idle      one request at a time; what a client sends meanwhile waits
      └───────┴─────────┴─────────┴─────► closed    a broken rule, a time-out, the end of the connection

Two rules:

1. A request is dispatched when its last byte has come and all of it was proper: never one that may still turn out bad.
2. What breaks a rule is answered once, and nothing behind it is read.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import NamedTuple

from .chunks import Chunks
from .head import Head, Limits, end_of_head, read
from .requests import request_id as request_id_of
from .response import CONTINUE, Headers, plain, response
from .rules import Rejected


class Timeouts(NamedTuple):
    """Seconds; rates in bytes a second."""

    idle: float = 5.0  # until a request begins: browsers open connections that they may never use
    head: float = 10.0  # from its first byte to its last: dripping bytes does not prolong it
    body: float = 10.0  # of grace, then `body_rate` on average
    body_rate: int = 500  # below any modem; 1 MiB may take 35 minutes
    write: float = 10.0  # of grace once the kernel takes no more, then `write_rate` on average
    write_rate: int = 8192  # an answer is held in memory until it has been read: 1 MiB for 138 s at most
    linger: float = 2.0  # for a client to read why: a reset, which is what closing at once may be, takes it away


class Dispatch(NamedTuple):
    """A proper and whole request. `answered` is to be called for it, once."""

    head: Head
    body: bytes


class Refused(NamedTuple):
    """What came broke a rule; the answer, of so many bytes without its head, follows. `head`: if that was read."""

    status: int
    size: int
    request_id: str
    head: Head | None


class Write(NamedTuple):
    data: bytes


class Close(NamedTuple):
    """The last effect: send what was written, then that this was all, drop what comes, be gone `within` seconds.
    0: be gone at once, with what has not left: who did not take it in time would keep it in memory for ever.
    """

    within: float = 0.0


Effect = Dispatch | Refused | Write | Close


class State(Enum):
    IDLE = "idle"  # no byte of the next request has come
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"  # dispatched, not yet answered
    CLOSED = "closed"


_IDLE, _HEAD, _BODY, _ANSWER, _CLOSED = State  # a name of an Enum is looked up in 0.1 µs, each time

WAITING_MAX = 64 * 1024  # bytes behind the request that is being answered, from which on no more should be read
FLOOD_MAX = 512 * 1024  # with so many it closes: what loops read at once, 256 KiB, twice


class Connection:
    """Every method takes the monotonic time and gives the effects to carry out, in order."""

    __slots__ = (
        "state",
        "_blocked",
        "_body_since",
        "_buffer",
        "_chunks",
        "_date",
        "_deadline",
        "_eof",
        "_head",
        "_last",
        "_limits",
        "_new_id",
        "_timeouts",
        "_unread",
        "_skipped",
    )

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        now: float,
        date: Callable[[], bytes],
        new_id: Callable[[], str] = lambda: "-",
    ) -> None:
        """`date`: what a Date field says now (RFC 9110 6.6.1). `new_id`: of a request that is refused here."""
        self.state = _IDLE
        self._limits = limits
        self._timeouts = timeouts
        self._date = date
        self._new_id = new_id
        self._deadline = now + timeouts.idle
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._body_since = now
        self._blocked = False  # an answer has not left yet
        self._unread = 0  # bytes of the last answer
        self._eof = False
        self._last = False  # after this answer it closes
        self._skipped = False  # the one empty line that may stand before a request

    # ---- what the client does ---------------------------------------------------------------------------------------

    def received(self, data: bytes, now: float) -> list[Effect]:
        if self.state is _CLOSED:
            return []
        self._buffer += data
        if self.state is _ANSWER or self._blocked:
            return self._close() if len(self._buffer) > FLOOD_MAX else []
        return self._read_on(now)

    def eof(self, now: float) -> list[Effect]:
        """The client sends no more. What it sent in whole is still answered."""
        self._eof = True
        return [] if self.state in (_ANSWER, _CLOSED) or self._blocked else self._read_on(now)

    @property
    def reads(self) -> bool:
        """Whether more bytes are wanted. It becomes true again with `answered` or `written`."""
        return not (self.state is _ANSWER or self._blocked) or len(self._buffer) < WAITING_MAX

    # ---- what the gateway does --------------------------------------------------------------------------------------

    def answered(self, status: int, headers: Headers, body: bytes, now: float) -> list[Effect]:
        """The answer to the request that was dispatched. One that cannot be sent as it is becomes a 500."""
        if self.state is _CLOSED:
            return []  # the client is gone
        head = self._head
        if self.state is not _ANSWER or head is None:
            raise RuntimeError("no request waits for an answer")
        self._head = None
        keep = head.keep_alive and not self._last and bool(self._buffer or not self._eof)
        connection = b"close" if not keep else b"keep-alive" if head.version == "1.0" else b""
        try:
            data = response(head.method, status, headers, body, date=self._date(), connection=connection)
        except (TypeError, ValueError):
            keep = False
            data = plain(500, "the application gave an answer that cannot be sent", date=self._date())
        if not keep:
            return [Write(data), *self._close(self._time_to_write(len(data)))]
        self.state = _IDLE
        if self._blocked:  # by the answer before
            self._deadline += len(data) / self._timeouts.write_rate
            return [Write(data)]
        self._unread = len(data)
        return [Write(data), *self._read_on(now)]

    def blocked(self, now: float) -> list[Effect]:
        """The kernel took only a part of what was written. Until `written`, nothing more is read."""
        self._blocked = True
        self._deadline = now + self._time_to_write(self._unread)
        return []

    def _time_to_write(self, size: int) -> float:
        return self._timeouts.write + size / self._timeouts.write_rate

    def written(self, now: float) -> list[Effect]:
        """All that was written has left."""
        self._blocked = False
        if self.state is _CLOSED:
            return []
        if self.state is _ANSWER:
            self._deadline = inf
            return []
        if self.state is _HEAD:
            self._deadline = now + self._timeouts.head
        return self._read_on(now)

    def drain(self) -> list[Effect]:
        """No further request: an idle connection closes, any other after its answer."""
        self._last = True
        return self._close(self._timeouts.linger) if self._is_idle() and not self._blocked else []

    def _is_idle(self) -> bool:
        """Nothing of a request has come, or no more than an empty line."""
        return not self._buffer and self.state in (_IDLE, _HEAD)

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        return None if self.state is _CLOSED or self._deadline == inf else self._deadline

    def tick(self, now: float) -> list[Effect]:
        if self.state is _CLOSED or now < self._deadline:
            return []
        if self._blocked or self._is_idle():
            return self._close()
        return self._reject(Rejected("head-time" if self.state is _HEAD else "body-rate"))

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _read_on(self, now: float) -> list[Effect]:
        try:
            return self._read_body(now, self._head) if self._head is not None else self._read_head(now)
        except Rejected as rejected:
            return self._reject(rejected)

    def _read_head(self, now: float) -> list[Effect]:
        buffer = self._buffer
        if not buffer:
            return self._wait(now)
        if self.state is _IDLE:
            self.state = _HEAD
            self._deadline = now + self._timeouts.head
        if buffer[0] == 0x0D and not self._skip_empty_line():
            return self._more("head-end")
        end = end_of_head(buffer, 0, self._limits)
        if end < 0:
            return self._more("head-end")
        head = read(bytes(buffer[:end]), self._limits)
        del buffer[:end]
        self._head = head
        if not head.length and not head.chunked:
            return self._dispatch(head, b"")
        self.state = _BODY
        self._body_since = now
        self._chunks = Chunks(self._limits.body) if head.chunked else None
        effects = self._read_body(now, head)
        return [Write(CONTINUE), *effects] if head.expects_continue and not buffer and not effects else effects

    def _skip_empty_line(self) -> bool:
        """Old clients send one after a body (RFC 9112 2.2). False: its second byte has not come."""
        if len(self._buffer) == 1:
            return False
        if not self._skipped and self._buffer.startswith(b"\r\n"):
            self._skipped = True
            del self._buffer[:2]
        return bool(self._buffer)

    def _read_body(self, now: float, head: Head) -> list[Effect]:
        buffer, chunks = self._buffer, self._chunks
        if chunks is not None:
            if chunks.feed(buffer):
                return self._dispatch(head, bytes(chunks.body))
            come = len(chunks.body)
        else:
            length = head.length or 0
            if len(buffer) >= length:
                body = bytes(buffer[:length])
                del buffer[:length]
                return self._dispatch(head, body)
            come = len(buffer)
        self._deadline = self._body_since + self._timeouts.body + come / self._timeouts.body_rate
        return self._more("body-end")

    def _dispatch(self, head: Head, body: bytes) -> list[Effect]:
        self.state = _ANSWER
        self._deadline = inf
        self._chunks = None
        self._skipped = False
        return [Dispatch(head, body)]

    def _wait(self, now: float) -> list[Effect]:
        if self._eof or self._last:
            return self._close(self._timeouts.linger)
        self._deadline = now + self._timeouts.idle
        return []

    def _more(self, missing: str) -> list[Effect]:
        """More bytes are needed; behind the end of the connection there are none."""
        if not self._eof:
            return []
        if self._is_idle():
            return self._close(self._timeouts.linger)
        raise Rejected(missing)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _reject(self, rejected: Rejected) -> list[Effect]:
        head, new_id, reason = self._head, self._new_id, rejected.reason
        request_id = new_id() if head is None else request_id_of(head.headers, new_id)
        data = plain(rejected.status, reason, date=self._date(), request_id=request_id)
        refused = Refused(rejected.status, len(reason) + 1, request_id, head)
        return [refused, Write(data), *self._close(self._timeouts.linger)]

    def _close(self, within: float = 0.0) -> list[Effect]:
        self.state = _CLOSED
        self._head = self._chunks = None
        self._buffer.clear()
        return [Close(within)]
