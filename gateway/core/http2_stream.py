"""One request of an HTTP/2 connection, and the answer that waits for its client. Pure."""

from __future__ import annotations

from collections import deque
from math import inf

from ...common.limits import INLINE_MAX
from .head import Fields, Head
from .response import Framing
from .rules import Rejected
from .shared import BANKED_S, Patience, Timeouts
from .upload import Spool, Upload, contents

BODIES_MAX = 1024 * 1024  # bytes of bodies of one connection in memory, either way; then they go into spools


class Stream:
    """`held`: bytes in memory when they were counted."""

    __slots__ = ("id", "head", "deadline", "asked", "ended", "framing", "held", "patience", "waiting", "spool", "over",
                 "_read", "_since", "_timeouts", "_upload")  # fmt: skip

    def __init__(self, number: int, method: str, upload: Upload, timeouts: Timeouts, now: float) -> None:
        self.id = number
        self.head = _NO_HEAD[method]
        self.deadline = inf  # of the body, or of what is dropped of it
        self.asked = False  # it was dispatched, or refused
        self.ended = False  # the client sends no more of it
        self.framing: Framing | None = None  # of an answer that has begun
        self.held = 0
        self.patience = Patience(timeouts.write, timeouts.write_rate)
        self.waiting: deque[bytes] = deque()  # of the answer; behind the spool, if there is one
        self.spool: Spool | None = None
        self.over = False  # nothing comes behind what waits
        self._upload: Upload | None = upload
        self._since = now
        self._timeouts = timeouts
        self._read = 0  # of the spool

    @property
    def has_head(self) -> bool:
        """It was proper."""
        return self.head.target != b""

    @property
    def in_memory(self) -> int:
        """Bytes of bodies; those of an answer in pieces are counted by whom they come from."""
        upload = self._upload.in_memory if self._upload is not None else 0
        return upload if self.framing is not None else upload + sum(map(len, self.waiting))

    # ---- the request ------------------------------------------------------------------------------------------------

    def add(self, data: bytes, most: int) -> None:
        """More of its body, of so many bytes at most. Rejected: it cannot be a proper one any more."""
        upload, length = self._upload, self.head.length
        assert upload is not None  # nothing is added to what is asked
        size = upload.size + len(data)
        if size > most:
            raise Rejected("body-size")
        if length is not None and size > length:
            raise Rejected("other-length")
        upload.add(data)

    def grant(self, now: float, more: int = 0) -> None:
        """Time for the rest of its body. `more`: bytes of it that have come, and were not added."""
        size = more + (self._upload.size if self._upload is not None else 0)
        earned = self._since + self._timeouts.body + size / self._timeouts.body_rate
        self.deadline = min(earned, now + self._timeouts.body + BANKED_S)

    def whole(self) -> bytes | Spool:
        """Its body, which has come, and goes on. A small one is bytes, wherever it waited. Raises Rejected."""
        upload, length = self._upload, self.head.length
        assert upload is not None
        if length is not None and length != upload.size:
            raise Rejected("other-length")
        body = upload.whole()
        if not isinstance(body, bytes) and body.size <= INLINE_MAX:
            try:
                body = contents(body)
            except OSError:  # the disk fails
                raise Rejected("no-room") from None
        self.wants_no_more()
        return body

    def wants_no_more(self, until: float = inf) -> None:
        """What comes of its body is dropped, until then."""
        self.asked = True
        self.deadline = until
        if self._upload is not None:
            self._upload.close()
            self._upload = None

    # ---- the answer -------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return self.spool is None and not self.waiting

    def next(self, most: int) -> bytes:
        """Up to so many bytes of what waits. OSError: the disk fails."""
        if self.spool is not None:
            data = self.spool.read(self._read, min(most, self.spool.size - self._read))
            self._read += len(data)
            if self._read == self.spool.size:
                self.spool.close()
                self.spool = None
            return data
        data = self.waiting.popleft()
        if len(data) > most:
            self.waiting.appendleft(data[most:])
            data = data[:most]
        return data

    def close(self) -> None:
        for spool in (self._upload, self.spool):
            if spool is not None:
                spool.close()
        self._upload = self.spool = None
        self.waiting.clear()


class Streams(dict[int, Stream]):
    """Those that are open. `held`: bytes of bodies that they have in memory, either way."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    def have_room(self, size: int = 1) -> bool:
        """For so many more bytes."""
        return self.held + size <= BODIES_MAX

    def count(self, stream: Stream) -> None:
        """What it has in memory may have changed."""
        before, stream.held = stream.held, stream.in_memory
        self.held += stream.held - before

    def release(self, stream: Stream) -> None:
        """It has nothing in memory any more."""
        self.held -= stream.held
        stream.held = 0

    def close(self, stream: Stream) -> None:
        self.pop(stream.id, None)
        stream.close()
        self.release(stream)

    def close_all(self) -> None:
        for stream in self.values():
            stream.close()
        self.clear()


_NO_HEAD = {method: Head(method, b"", "2", Fields(), b"", None, False, True, False) for method in ("GET", "HEAD")}
