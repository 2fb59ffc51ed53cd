"""What an HTTP/2 connection sends on its streams: each waits until its client has room for it. Pure.

An answer is `answered`, with all there is, or comes by `begin`, `piece`, …, `end`; `output` gives out what may leave, a
little of each stream in turn.
"""

from __future__ import annotations

from math import inf

from h2.errors import ErrorCodes

from .effects import Failed, StreamEffect, Wrong
from .http2_books import Books
from .http2_flow import Turns
from .http2_frames import FRAME_MAX, Purse
from .http2_stream import Stream, Streams
from .response import Headers, Unsendable, fields
from .shared import Shared
from .upload import NoRoom

BATCH = 64 * 1024  # bytes that `output` gives at a time


class Answers:
    """To a stream that is no more, nothing is said."""

    def __init__(self, shared: Shared, books: Books, streams: Streams, turns: Turns, purse: Purse) -> None:
        self._date = shared.date
        self._open_spool = shared.open_spool
        self._books = books
        self._streams = streams
        self._turns = turns
        self._purse = purse
        self._rooms: list[int] = []  # streams whose last piece has left

    # ---- what the gateway says --------------------------------------------------------------------------------------

    def answered(self, number: int, status: int, headers: Headers, body: bytes) -> None:
        """All of it. Raises Unsendable: the stream still waits for another one."""
        if stream := self._streams.get(number):
            self.send(stream, status, headers, body)

    def begin(self, number: int, status: int, headers: Headers) -> None:
        """The head of an answer whose body comes in pieces. Raises as `answered`."""
        if stream := self._streams.get(number):
            found, stream.framing = fields(stream.head.method, status, headers, None, date=self._date())
            self._books.send_fields(number, found)

    def piece(self, number: int, data: bytes) -> list[StreamEffect]:
        """The next bytes of its body."""
        stream = self._streams.get(number)
        framing = stream.framing if stream is not None else None
        if stream is None or framing is None or not framing.has_body or not data:
            return []
        if framing.left is not None:
            if len(data) > framing.left:
                if framing.left:
                    self._queue(stream, data[: framing.left])
                framing.left = 0
                self.end(number)
                return [Failed(number, Wrong("the answer is longer than its Content-Length"))]
            framing.left -= len(data)
        self._queue(stream, data)
        return []

    def end(self, number: int) -> list[StreamEffect]:
        """Its body was whole."""
        stream = self._streams.get(number)
        framing = stream.framing if stream is not None else None
        if stream is None or framing is None:
            return []
        if framing.has_body and framing.left:
            self.abort(number)
            return [Failed(number, Wrong("the answer is shorter than its Content-Length"))]
        stream.over = True
        if stream.is_empty:
            self._books.end_stream(number)
            self._finish(stream)
        return []

    def abort(self, number: int) -> None:
        """There will be no more of its body: whoever reads it sees that it is not whole."""
        if stream := self._streams.get(number):
            self._books.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
            self._streams.close(stream)

    def takes(self, number: int) -> bool:
        """Whether a piece would leave at once, or be in nobody's way. It becomes true again with `rooms`."""
        stream = self._streams.get(number)
        return stream is None or (stream.is_empty and not self._turns.is_blocked)

    def rooms(self) -> list[int]:
        """Streams that take more, since this was asked the last time."""
        rooms, self._rooms = self._rooms, []
        return rooms

    # ---- what leaves ------------------------------------------------------------------------------------------------

    def output(self, now: float) -> bytes:
        """The next bytes to send; b"": there are none, or no room for any."""
        if self._turns.is_blocked:
            return b""
        left = BATCH
        while left > 0 and (turn := self._turns.next(now)) is not None:
            left -= self._send_some(*turn)
        data = self._books.said()
        self._turns.wrote(len(data))
        return data

    def blocked(self, now: float) -> None:
        """The kernel took only a part of the output. Until `written`, there is none."""
        self._turns.blocked(now)

    def written(self, now: float) -> None:
        """All of it has left."""
        self._turns.written(now)
        self._rooms += [each.id for each in self._streams.values() if each.framing and not each.over and each.is_empty]

    def send(self, stream: Stream, status: int, headers: Headers, body: bytes) -> None:
        """Raises Unsendable."""
        if not isinstance(body, bytes):
            raise Unsendable(f"no response: body of type {type(body).__name__}")
        found, framing = fields(stream.head.method, status, headers, len(body), date=self._date())
        body = body if framing.has_body else b""
        self._books.send_fields(stream.id, found, end=not body)
        stream.over = True
        if not body:
            self._finish(stream)
        elif not self._streams.have_room(len(body)) and len(body) > FRAME_MAX:
            self._spool(stream, body)
        else:
            self._queue(stream, body)

    def _spool(self, stream: Stream, body: bytes) -> None:
        try:
            spool = self._open_spool()
            spool.write(body)
        except NoRoom:
            self._queue(stream, body)
        else:
            stream.spool = spool
            self._turns.add(stream)

    def _queue(self, stream: Stream, data: bytes) -> None:
        if stream.is_empty:
            self._turns.add(stream)
        stream.waiting.append(data)
        self._streams.count(stream)

    def _send_some(self, stream: Stream, most: int) -> int:
        """Bytes that left."""
        try:
            data = stream.next(most)
        except OSError:  # the disk that it waited on: whoever reads it sees that it is not whole
            self.abort(stream.id)
            return 0
        size = len(data)
        self._turns.took(stream, size)
        self._purse.earn(size)
        last = stream.over and stream.is_empty
        self._books.send_data(stream.id, data, end_stream=last)
        if last:
            self._finish(stream)
            return size
        self._streams.count(stream)
        if stream.is_empty:
            self._rooms.append(stream.id)
        return size

    def _finish(self, stream: Stream) -> None:
        """Its answer is sent. What still comes of its request may have to be dropped (`Http2._reject`)."""
        if stream.ended or stream.deadline == inf:
            self.close(stream)
        else:
            self._streams.count(stream)

    def close(self, stream: Stream) -> None:
        """What is left of its request is not wanted (RFC 9113 8.1)."""
        if not stream.ended:
            self._books.reset_stream(stream.id, ErrorCodes.NO_ERROR)
        self._streams.close(stream)
