"""One direction of a stream: pieces with offsets, credit for them, and what is sent again after a connection was lost.

Pure, and the same at a client and at a process; the master only passes the frames on (docs/PROTOCOL.md, "Streams").

    Outflow ── CHUNK(offset, bytes, more) ──► Inflow
    Outflow ◄── CREDIT(upto, received, again) ── Inflow

The end counts as one more byte: a stream of 10 bytes is received up to 11, and over when its sender knows that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from .wire import CHUNK, CREDIT, MORE, RESENT, Body, body_of, head

CHUNK_MAX = 64 * 1024  # bytes of one piece: what shares the connection waits for it, about 0.1 ms
WINDOW = 256 * 1024  # sent and not yet taken: four pieces keep a connection busy while credit comes back
WINDOW_MAX = 1024 * 1024  # the largest that may be granted: what is not taken is in somebody's memory


_CREDIT = Struct("<QQ")  # upto, received


class BadStream(ValueError):
    """The peer broke a rule of streams; the stream is to be given up."""


class Chunk(NamedTuple):
    offset: int
    data: Body
    more: bool

    def frame(self, token: int, number: int, epoch: int = 0, attempt: int = 0) -> bytes:
        """`epoch`, `attempt`: of the delivery that this is the answer of."""
        flags = MORE if self.more else 0
        return head(CHUNK, token, epoch, number=number, below=self.offset, code=attempt, flags=flags) + self.data


class Credit(NamedTuple):
    """`upto`: offset up to which may be sent. `received`: all up to here has come. `again`: send from there again."""

    upto: int
    received: int
    again: bool

    def frame(self, token: int, number: int) -> bytes:
        flags = RESENT if self.again else 0
        return head(CREDIT, token, number=number, flags=flags) + _CREDIT.pack(self.upto, self.received)


def chunk_of(fields: tuple[int, ...], frame: Body) -> Chunk:
    return Chunk(fields[10], body_of(frame, fields[11]), fields[4] & MORE != 0)


def credit_of(fields: tuple[int, ...], frame: Body) -> Credit:
    """BadStream if it is none, or grants more than anybody may hold."""
    body = frame[fields[11] :]
    if len(body) != _CREDIT.size:
        raise BadStream("a credit of another length")
    upto, received = _CREDIT.unpack(body)
    if not 0 <= upto - received + 1 <= WINDOW_MAX:
        raise BadStream(f"a credit up to {upto} where {received} bytes were received")
    return Credit(upto, received, fields[4] & RESENT != 0)


class Outflow:
    """A stream that is sent while it is made. Each piece is kept until it was received."""

    __slots__ = ("granted", "received", "written", "_end_sent", "_ended", "_sent", "_unsent")

    def __init__(self, granted: int = 0) -> None:
        """`granted`: bytes that may be sent before any credit has come."""
        self.granted = granted
        self.received = 0  # the other side has everything up to here
        self.written = 0
        self._ended = False
        self._end_sent = False
        self._unsent: deque[tuple[int, Body]] = deque()  # offset and piece
        self._sent: deque[tuple[int, Body]] = deque()  # and not known to be received

    def write(self, data: bytes) -> None:
        if self._ended:
            raise ValueError("the stream was ended")
        view: Body = memoryview(data) if len(data) > CHUNK_MAX else data
        for start in range(0, len(data), CHUNK_MAX):
            piece = view[start : start + CHUNK_MAX]
            self._unsent.append((self.written, piece))
            self.written += len(piece)

    def end(self) -> None:
        self._ended = True

    @property
    def blocked(self) -> bool:
        """Something that was written may not be sent yet: the writer should wait."""
        return self.written > self.granted

    @property
    def over(self) -> bool:
        """It was ended, and all of it was received."""
        return self.received > self.written

    def next(self) -> Chunk | None:
        """What to send now; None when there is nothing, or nothing that was granted."""
        unsent = self._unsent
        if unsent:
            offset, piece = unsent[0]
            if offset + len(piece) > self.granted:
                return None
            self._sent.append(unsent.popleft())
            last = self._ended and not unsent
        elif self._ended and not self._end_sent:
            offset, piece, last = self.written, b"", True
        else:
            return None
        self._end_sent = last
        return Chunk(offset, piece, not last)

    def credited(self, credit: Credit) -> None:
        """BadStream if it says that more was received than there is."""
        if credit.received > self.written + self._ended:
            raise BadStream("credit for what was never sent")
        self.granted = max(self.granted, credit.upto)
        self.received = max(self.received, credit.received)
        for pieces in (self._sent, self._unsent):  # what is to be sent again may have come meanwhile
            while pieces and pieces[0][0] + len(pieces[0][1]) <= self.received:
                pieces.popleft()
        if credit.again:
            self.again()

    def again(self) -> None:
        """Over a new connection: what is not known to be received is sent again."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._end_sent = False


class Replay:
    """An upload: all of its bytes exist before it begins, and can be read as often as needed. When the process that got
    it is lost, another one gets it from its beginning.
    """

    __slots__ = ("granted", "received", "written", "_read", "_sent")

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        """`read(offset, size)` gives exactly `size` bytes. Fewer mean that they are lost; then it is for `read` to end
        the call, and nothing more is sent.
        """
        self.granted = 0
        self.received = 0
        self.written = size
        self._read = read
        self._sent = 0

    @property
    def over(self) -> bool:
        return self.received > self.written

    def next(self) -> Chunk | None:
        offset = self._sent
        size = min(CHUNK_MAX, self.written - offset, self.granted - offset)
        if size < 0 or (size == 0 and offset < self.written):
            return None
        data = self._read(offset, size) if size else b""
        if len(data) < size:
            return None
        last = offset + size == self.written
        self._sent = offset + size + last
        return Chunk(offset, data, not last)

    def credited(self, credit: Credit) -> None:
        """BadStream if it says that more was received than there is."""
        if credit.received > self.written + 1:
            raise BadStream("credit for what was never sent")
        if credit.again:  # perhaps of another process, which begins at 0
            self.granted, self.received = credit.upto, credit.received
            self.again()
        else:
            self.granted = max(self.granted, credit.upto)
            self.received = max(self.received, credit.received)

    def again(self) -> None:
        self._sent = self.received


class Inflow:
    """A stream that is received. Its user holds the bytes, and says `taken` for those that left its memory: at most
    WINDOW bytes are under way or held at once.
    """

    __slots__ = ("ended", "received", "_again", "_granted", "_taken", "_told", "_told_end")

    def __init__(self, granted: int = 0) -> None:
        """`granted`: bytes that the sender may send before it hears of any credit."""
        self.ended = False
        self.received = 0
        self._granted = granted
        self._taken = 0
        self._told = True  # False: the sender seems not to know what it was told
        self._told_end = False
        self._again = granted == 0  # nothing comes before the first word

    def came(self, chunk: Chunk) -> Body:
        """The bytes of it that are new; none where all of it came before. Raises BadStream if it is more than was
        granted.
        """
        offset, data, more = chunk
        if self.ended:
            self._told_end = False  # it does not know
            return b""
        if offset > self.received:
            self._again = True  # something between was lost
            return b""
        if len(data) and more and offset + len(data) <= self.received:
            self._told = False
            return b""
        if not more and offset + len(data) < self.received:
            raise BadStream("its end is before what has come")
        data = data[self.received - offset :]
        if self.received + len(data) > self._granted:
            raise BadStream("more was sent than was granted")
        self.received += len(data)
        if not more:
            self.ended = True
            self.received += 1
        return data

    def taken(self, size: int) -> None:
        """`size` bytes have left the memory of its user."""
        self._taken += size

    def again(self) -> None:
        """Over a new connection: the sender is told where we are."""
        self._again = True

    def credit(self) -> Credit | None:
        """What to tell the sender now; None: nothing that it needs to know."""
        upto = self._taken + WINDOW
        if self.ended:
            if self._told_end and not self._again:
                return None
            self._told_end = True
        elif not self._again and self._told and upto - self._granted < WINDOW // 2:
            return None
        again, self._again = self._again, False
        self._told = True
        self._granted = max(self._granted, upto)
        return Credit(self._granted, self.received, again)
