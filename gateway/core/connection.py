"""One HTTP/1.x connection: bytes in, requests and bytes out. Pure.

    idle ──► head ──► body ──► answer ──► idle      one request at a time; what a client sends meanwhile waits
      └───────┴─────────┴─────────┴─────► closed    a broken rule, a time-out, the end of the connection

A request is answered by `answered`, with all there is, or by `begin`, `piece`, …, `end`. Three rules:

1. A request is dispatched when its last byte has come and all of it was proper: never one that may still turn out bad.
2. What breaks a rule is answered once, and nothing behind it is read.
3. An answer that was not given in whole never looks as if it were.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from ...common.limits import INLINE_MAX
from .chunks import Chunks
from .effects import Close, Dispatch, Effect, Refused, Reset, Write, Wrong
from .head import REMEMBERED_MAX, Head, end_of_head, new
from .requests import request_id as request_id_of
from .response import CONTINUE, Framing, Headers, begin, plain, response
from .rules import Rejected
from .shared import BANKED_S, LINGER_S, UNREAD_MAX, Shared
from .upload import Spool, Upload


class State(Enum):
    IDLE = "idle"  # no byte of the next request has come
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"  # dispatched, not yet answered in whole
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
        "_framing",
        "_head",
        "_heads",
        "_last",
        "_limits",
        "_new_id",
        "_open_spool",
        "_patience",
        "_timeouts",
        "_unread",
        "_upload",
        "_skipped",
    )

    def __init__(self, shared: Shared, now: float) -> None:
        self.state = _IDLE
        self._limits = shared.limits
        self._timeouts = shared.timeouts
        self._date = shared.date
        self._open_spool = shared.open_spool
        self._new_id = shared.new_id
        self._heads = shared.heads
        self._deadline = now + shared.timeouts.idle
        self._buffer = bytearray()
        self._head: Head | None = None
        self._chunks: Chunks | None = None
        self._upload: Upload | None = None  # of a body that is chunked, or large
        self._body_since = now
        self._framing: Framing | None = None  # of an answer that has begun
        self._blocked = False  # what was written has not left yet
        self._unread = 0  # bytes of the last answer; of one in pieces those since it was blocked the last time
        self._patience = shared.timeouts.write  # seconds of grace that the reader of this answer has left
        self._eof = False
        self._last = False  # after this answer it closes
        self._skipped = False  # the one empty line that may stand before a request

    # ---- what the client does ---------------------------------------------------------------------------------------

    def whole(self, data: bytes) -> Dispatch | None:
        """As `received`, for one whole request and nothing else, as most come. None: it is for `received`."""
        if self.state is not _IDLE or self._buffer or self._blocked:
            return None
        end = data.find(b"\r\n\r\n", 0, REMEMBERED_MAX) + 4
        head = self._heads.get(data[:end])
        if head is None and 4 < end == len(data) < self._limits.line:
            try:
                head = self._heads[data]
            except Rejected:
                return None
        if head is None or (head.length or 0) != len(data) - end or len(data) > INLINE_MAX or head.chunked:
            return None
        self.state = _ANSWER
        self._deadline = inf
        self._head = head
        return new(Dispatch, (head, data[end:]))

    def received(self, data: bytes, now: float) -> list[Effect]:
        state, buffer = self.state, self._buffer
        if state is _CLOSED:
            return []
        buffer += data
        if state is _ANSWER or self._blocked:
            return self._close() if len(buffer) > FLOOD_MAX else []
        return self._read_on(now)

    def eof(self, now: float) -> list[Effect]:
        """The client sends no more. What it sent in whole is still answered."""
        self._eof = True
        if self._framing is not None and self._framing.endless:
            return self._close()  # nothing else may ever tell that its client is gone
        return [] if self.state in (_ANSWER, _CLOSED) or self._blocked else self._read_on(now)

    def lost(self) -> None:
        """There is no connection any more, perhaps without an `eof`: what came of a body is dropped."""
        self._close()

    @property
    def reads(self) -> bool:
        """Whether more bytes are wanted. It becomes true again with `answered` or `written`."""
        return len(self._buffer) < WAITING_MAX or not (self.state is _ANSWER or self._blocked)

    # ---- what the gateway does --------------------------------------------------------------------------------------

    def answered(self, status: int, headers: Headers, body: bytes, now: float) -> list[Effect]:
        """The answer to the request that was dispatched. Raises Unsendable: that still waits for another one."""
        if self.state is _CLOSED:
            return []  # the client is gone
        head = self._head
        if self.state is not _ANSWER or head is None:
            raise RuntimeError("no request waits for an answer")
        keep = head.keep_alive and not self._last and bool(self._buffer or not self._eof)
        connection = b"close" if not keep else b"keep-alive" if head.version == "1.0" else b""
        data = response(head.method, status, headers, body, date=self._date(), connection=connection)
        self._head = None
        if not keep:
            return [Write(data), *self._close(self._time_to_write(len(data)))]
        self.state = _IDLE
        if self._blocked:  # by the answer before
            self._deadline += len(data) / self._timeouts.write_rate
            return [Write(data)]
        self._unread = len(data)
        if self._buffer:
            return [Write(data), *self._read_on(now)]
        self._deadline = now + self._timeouts.idle
        return [new(Write, (data,))]

    def answered_with(self, size: int, now: float) -> bool:
        """As `answered`, for a response of so many bytes, without a Connection field, that the caller writes itself.
        False: nothing was done, and it is for `answered`, as the response must say more, or something else waits.
        """
        head = self._head
        if head is None or not head.keep_alive or head.version != "1.1":
            return False
        if self._last or self._eof or self._blocked or self._buffer:
            return False
        self._head = None
        self.state = _IDLE
        self._unread = size
        self._deadline = now + self._timeouts.idle
        return True

    def begin(self, status: int, headers: Headers, now: float) -> list[Effect]:
        """The head of an answer whose body comes in pieces. Raises as `answered`."""
        head = self._head
        if self.state is _CLOSED:
            return []
        if self.state is not _ANSWER or head is None or self._framing is not None:
            raise RuntimeError("no request waits for an answer")
        keep = head.keep_alive and not self._last
        connection = b"close" if not keep else b"keep-alive" if head.version == "1.0" else b""
        data, self._framing = begin(
            head.method, head.version, status, headers, date=self._date(), connection=connection
        )
        return [self._write(data)]

    def piece(self, data: bytes, now: float) -> list[Effect]:
        """The next bytes of its body."""
        framing = self._framing
        if framing is None or not framing.has_body or not data:
            return []
        if framing.chunked:
            return [self._write(b"%x\r\n%b\r\n" % (len(data), data))]
        if framing.left is None:
            return [self._write(data)]
        if len(data) > framing.left:
            last = self._write(data[: framing.left])
            return [Wrong("the answer is longer than its Content-Length"), last, *self.abort(now)]
        framing.left -= len(data)
        return [self._write(data)]

    def end(self, now: float) -> list[Effect]:
        """Its body was whole."""
        framing, head = self._framing, self._head
        if framing is None or head is None:
            return []
        if framing.has_body and framing.left:
            return [Wrong("the answer is shorter than its Content-Length"), *self.abort(now)]
        effects: list[Effect] = [self._write(b"0\r\n\r\n")] if framing.has_body and framing.chunked else []
        self._framing = self._head = None
        if not head.keep_alive or self._last or framing.by_close or (self._eof and not self._buffer):
            return [*effects, *self._close(self._time_left(now))]
        self.state = _IDLE
        return effects if self._blocked else [*effects, *self._read_on(now)]

    def leave(self) -> bytes:
        """In place of an answer: another protocol is spoken from here on, whose first bytes may have come."""
        rest = bytes(self._buffer)
        self._close()
        return rest

    def abort(self, now: float) -> list[Effect]:
        """There will be no more of its body: whoever reads it sees that it is not whole."""
        return self._close(0.0 if self._framing is None else self._time_left(now))

    def _write(self, data: bytes) -> Write:
        self._unread = min(self._unread + len(data), UNREAD_MAX)
        if self._blocked:
            self._deadline += len(data) / self._timeouts.write_rate
        return Write(data)

    @property
    def takes(self) -> bool:
        """Whether a piece would leave at once. It becomes true again with `written`."""
        return not self._blocked

    def blocked(self, now: float) -> list[Effect]:
        """The kernel took only a part of what was written. Until `written`, nothing more is read."""
        self._blocked = True
        self._deadline = now + self._patience + self._unread / self._timeouts.write_rate
        return []

    def _time_to_write(self, size: int) -> float:
        return self._timeouts.write + size / self._timeouts.write_rate

    def _time_left(self, now: float) -> float:
        """For what was written of an answer in pieces."""
        return max(self._deadline - now, 0.1) if self._blocked else self._time_to_write(self._unread)

    def written(self, now: float) -> list[Effect]:
        """All that was written has left."""
        self._blocked = False
        if self.state is _CLOSED:
            return []
        # Who takes pieces slower than the rate uses up its grace, in however many stalls; who is faster regains it.
        grace = self._timeouts.write
        self._patience = grace if self._framing is None else min(grace, self._deadline - now)
        self._unread = 0
        if self.state is _ANSWER:
            self._deadline = inf
            return []
        if self.state is _HEAD:
            self._deadline = now + self._timeouts.head
        return self._read_on(now)

    def drain(self) -> list[Effect]:
        """No further request: an idle connection closes, any other after its answer."""
        self._last = True
        return self._close(LINGER_S) if self._is_idle() and not self._blocked else []

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
        if buffer[0] == 0x0D and not self._skipped and buffer.startswith(b"\r\n"):  # old clients send it (RFC 9112 2.2)
            self._skipped = True
            del buffer[:2]
        end = end_of_head(buffer, self._limits)
        if end < 0:
            return self._more("head-end")
        head = self._heads[bytes(buffer[:end])]
        del buffer[:end]
        return self._begun(head, now)

    def _begun(self, head: Head, now: float) -> list[Effect]:
        self._head = head
        if not head.length and not head.chunked:
            return self._dispatch(head, b"")
        if (head.length or 0) > self._limits.body:  # behind the head, so that the access log has who sent it, and where
            raise Rejected("body-size")
        buffer = self._buffer
        self.state = _BODY
        self._body_since = now
        if head.chunked or (head.length or 0) > INLINE_MAX:
            self._upload = Upload(self._open_spool)
            self._chunks = Chunks(self._limits.body, self._upload) if head.chunked else None
        effects = self._read_body(now, head)
        return [Write(CONTINUE), *effects] if head.expects_continue and not buffer and not effects else effects

    def _read_body(self, now: float, head: Head) -> list[Effect]:
        upload = self._upload
        if upload is None:
            buffer, length = self._buffer, head.length or 0
            if len(buffer) >= length:
                with memoryview(buffer) as view:
                    body = bytes(view[:length])
                del buffer[:length]
                return self._dispatch(head, body)
            come = len(buffer)
        elif self._upload_more(upload, head.length or 0):
            self._upload = None
            return self._dispatch(head, upload.whole())
        else:
            come = upload.size
        earned = self._body_since + self._timeouts.body + come / self._timeouts.body_rate
        self._deadline = min(earned, now + self._timeouts.body + BANKED_S)
        return self._more("body-end")

    def _upload_more(self, upload: Upload, length: int) -> bool:
        """True: it is whole."""
        buffer = self._buffer
        if self._chunks is not None:
            return self._chunks.feed(buffer)
        data = buffer[: length - upload.size]
        del buffer[: len(data)]
        upload.add(data)
        return upload.size == length

    def _dispatch(self, head: Head, body: bytes | Spool) -> list[Effect]:
        self.state = _ANSWER
        self._deadline = inf
        self._chunks = None
        self._skipped = False
        return [new(Dispatch, (head, body))]

    def _wait(self, now: float) -> list[Effect]:
        if self._eof or self._last:
            return self._close(LINGER_S)
        self._deadline = now + self._timeouts.idle
        return []

    def _more(self, missing: str) -> list[Effect]:
        """More bytes are needed; behind the end of the connection there are none."""
        if not self._eof:
            return []
        if self._is_idle():
            return self._close(LINGER_S)
        raise Rejected(missing)

    # ---- the end ----------------------------------------------------------------------------------------------------

    def _reject(self, rejected: Rejected) -> list[Effect]:
        head, new_id, reason = self._head, self._new_id, rejected.sentence(self._limits)
        request_id = new_id() if head is None else request_id_of(head.headers, new_id)
        is_head = self._buffer.startswith(b"HEAD ") if head is None else head.method == "HEAD"
        method, size = ("HEAD", 0) if is_head else ("GET", len(reason) + 1)
        data = plain(rejected.status, reason, date=self._date(), request_id=request_id, method=method)
        refused = Refused(rejected.status, size, request_id, head)
        return [refused, Write(data), *self._close(LINGER_S)]

    def _close(self, within: float = 0.0) -> list[Effect]:
        framing, upload = self._framing, self._upload
        self.state = _CLOSED
        self._head = self._chunks = self._upload = self._framing = None
        self._buffer.clear()
        if upload is not None:
            upload.close()
        return [Close(within) if framing is None or not framing.by_close else Reset()]
