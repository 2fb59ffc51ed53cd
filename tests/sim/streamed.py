"""Calls with streams both ways, as client and process of a simulated cluster: the bytes say whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rota.client.streams import StreamCall
from rota.common.errors import RemoteError
from rota.common.streams import Replay
from rota.common.wire import MORE, Body
from rota.worker.core.deliveries import Delivery

from .client_part import SimCall
from .network import Violation

if TYPE_CHECKING:
    from .process_part import ProcessPart

MARK = 8  # bytes that are repeated: what is of another stream, or from another place, does not fit
SIZES = (0, 5, 64 * 1024, 200_000, 400_000)  # below a chunk, above a window
PIECE = 50_000
PAUSE_S = (0.0, 0.01)  # between two pieces, least and most
TAKES_S = 0.02  # until a caller has taken what came, at most


def sizes(payload: int) -> tuple[int, int]:
    """Of upload and answer."""
    return SIZES[payload % 5], SIZES[payload // 5 % 5]


def pattern(mark: bytes, offset: int, size: int) -> bytes:
    first = offset % MARK
    return (mark * ((first + size) // MARK + 1))[first : first + size]


def mark_of(payload: int) -> bytes:
    return payload.to_bytes(MARK, "little")


class SimStreamCall(SimCall, StreamCall):
    """Its answer must be whole, and made by one run."""

    def __init__(self, *arguments: Any) -> None:
        StreamCall.__init__(self)
        SimCall.__init__(self, *arguments)
        tail, length, flags = self.address
        self.address = tail, length, flags | MORE
        mark = mark_of(self.payload)
        self.out = Replay(sizes(self.payload)[0], lambda offset, size: pattern(mark, offset, size))
        self._got = bytearray()
        self._ended = False

    def came(self, data: Body, more: bool) -> None:
        if self.code is not None or self._ended:
            raise Violation(f"call {self.id} gets bytes after its end")
        self._got += data
        self._ended = not more
        if self._got != pattern(bytes(self._got[:MARK]), 0, len(self._got)):
            raise Violation(f"the answer of call {self.id} is made of two")
        self.cluster.clock.after(TAKES_S * self.cluster.chance(), lambda: self._taken(len(data)))

    def _taken(self, size: int) -> None:
        self.into.taken(size)
        self.client.calls.say(self)
        self.client.wake()

    def answered(self, code: int, text: str) -> None:
        size = sizes(self.payload)[1]
        if code == 0 and (not self._ended or len(self._got) != size):
            raise Violation(f"call {self.id} is answered, and has {len(self._got)} of {size} bytes")
        super().answered(code, text)


class Streaming:
    """A handler that reads its upload to the end, and then answers piece by piece. `ended(code)` is called once."""

    def __init__(self, process: ProcessPart, delivery: Delivery, payload: int, ended: Callable[[int], None]) -> None:
        self._process = process
        self._clock = process.clock
        self._payload = payload
        self._ended = ended
        self._got = 0
        self._left = sizes(payload)[1]
        self._mark = process.clock.rng.randbytes(MARK)
        self._waits = False
        self._stream = process.streams.of(delivery)
        self._stream.wake = self._soon
        self._stream.read()
        self._soon()

    def _soon(self, after_s: float = 0.0) -> None:
        if not self._waits:
            self._waits = True
            self._clock.at(max(self._clock.now + after_s, self._process.paused_until), self._step)

    def _step(self) -> None:
        self._waits = False
        if not self._process.alive:
            return
        if self._clock.now < self._process.paused_until:
            return self._soon()
        stream = self._stream
        if stream.fault is not None:
            return self._end(RemoteError.code)
        self._take()
        if stream.ended:
            self._write()
        self._process.say(stream)
        if stream.out.over:
            self._end(0)

    def _end(self, code: int) -> None:
        self._stream.wake = lambda: None  # its reply wakes whoever still waits
        self._ended(code)

    def _take(self) -> None:
        stream, mark = self._stream, mark_of(self._payload)
        while stream.came:
            piece = stream.take()
            if piece != pattern(mark, self._got, len(piece)):
                raise Violation(f"the upload of call {self._payload} has other bytes at {self._got}")
            self._got += len(piece)
        if stream.ended and self._got != sizes(self._payload)[0]:
            raise Violation(f"the upload of call {self._payload} ends after {self._got} bytes")

    def _write(self) -> None:
        out = self._stream.out
        if self._left and not out.blocked:
            size = min(PIECE, self._left)
            self._stream.write(pattern(self._mark, out.written, size), int(self._clock.now * 1e9))
            self._left -= size
            self._soon(self._process.cluster.between(*PAUSE_S))
        elif not self._left:
            out.end()
