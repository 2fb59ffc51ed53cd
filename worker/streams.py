"""How a handler waits for its stream: here in a process of one thread; `async_streams.py`: on an event loop, and in a
thread beside one (apart, since a process of one thread has no asyncio: a fifth of its start and of its memory).

All three have `read` (the next piece of the upload, b"" at its end), `write` (returns when more may be written) and
`finish` (returns when the caller has received all). They raise `Abandoned` once nobody waits for the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING

import zmq

from ..common import wire
from ..common.limits import IDLE_TICK_S
from ..common.sockets import fast_recv
from .backend import Backend, Rejected
from .core.deliveries import Delivery
from .core.streams import Stream, Streams

if TYPE_CHECKING:
    from .process import Process


class Handle:
    """What a handler holds. Nothing is opened before it is used: most requests could stream and do not."""

    def __init__(self, backend: Backend, streams: Streams, delivery: Delivery) -> None:
        self._backend = backend
        self._streams = streams
        self._delivery = delivery

    def _stream(self) -> Stream:
        return self._streams.of(self._delivery)

    def _send(self, stream: Stream) -> None:
        self._backend.send_all(self._streams.frames(stream))

    def _read(self, stream: Stream) -> None:
        stream.read()
        self._send(stream)

    def _taken(self, stream: Stream) -> bytes:
        if not stream.came:
            return b""
        piece = stream.take()
        self._send(stream)
        return piece

    def _write(self, stream: Stream, data: bytes) -> None:
        stream.write(data, monotonic_ns())
        self._send(stream)

    def _finish(self, stream: Stream) -> None:
        stream.out.end()
        self._send(stream)


def readable(stream: Stream) -> bool:
    return bool(stream.came) or stream.ended


def readable_or_leaving(stream: Stream) -> bool:
    return stream.leaving or readable(stream)


def writable(stream: Stream) -> bool:
    return not stream.out.blocked


def over(stream: Stream) -> bool:
    return stream.out.over


def check(stream: Stream) -> None:
    if stream.fault is not None:
        raise stream.fault.with_traceback(None)


class Patience:
    """A caller that neither takes nor sends anything for as long as a handler may run is given up: its process is not
    to blame and is not to be killed, nor may it be held for ever.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._moved = stream.moved
        self._until = monotonic() + stream.limit_ns / 1e9

    def left(self) -> float:
        """Seconds; gives the stream up when they are over."""
        stream, now = self._stream, monotonic()
        if not stream.limit_ns:
            return IDLE_TICK_S
        if stream.moved != self._moved:
            self._moved = stream.moved
            self._until = now + stream.limit_ns / 1e9
        if now >= self._until:
            stream.give_up(f"nothing moved for {stream.limit_ns / 1e9:g} s")
        return self._until - now


class Pump:
    """The socket of a sync process while its handler waits: what is for streams goes there, deliveries wait."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._backend = process.backend
        self._attend_at = 0.0

    def sift(self) -> None:
        """Look at the inbox: what came in one frame with the delivery may be for its stream."""
        waiting = list(self._backend.inbox)
        self._backend.inbox.clear()
        for frame in waiting:
            self._received(frame)

    def look(self) -> None:
        """Takes what is there; never waits. While a handler streams for hours, this is the only idle tick, and no reply
        waits for its end.
        """
        if self._backend.replies:
            self._backend.send_replies()
        now = monotonic()
        if now >= self._attend_at or not self._backend.greeted:
            self._attend_at = now + IDLE_TICK_S
            self._process.attend()
        while (link := self._backend.link) is not None and link.readable():
            frame = link.receive()
            if frame is None:
                return
            self._received(frame)

    def wait(self) -> None:
        """Takes a frame, or passes a tick."""
        backend = self._backend
        self._process.attend()
        if not backend.greeted or backend.link is None:
            frame = backend.wait()
            if frame is not None:
                self._received(frame)
            return
        try:
            frame = fast_recv(backend.link.dealer)
        except zmq.Again:
            return
        self._received(frame)

    def _received(self, frame: bytes) -> None:
        try:
            fields = wire.parse(frame)
            for each in wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]:
                if wire.parse(each)[3] == wire.DELIVER:
                    self._backend.inbox.append(each)
                else:
                    self._backend.handle(each)
        except wire.BadFrame:
            self._backend.damage()


class SyncStream(Handle):
    def __init__(self, pump: Pump, backend: Backend, streams: Streams, delivery: Delivery) -> None:
        super().__init__(backend, streams, delivery)
        self._pump = pump
        self._sifted = False

    def read(self) -> bytes:
        stream = self._stream()
        self._read(stream)
        self._until(stream, readable)
        return self._taken(stream)

    def write(self, data: bytes) -> None:
        stream = self._stream()
        self._look(stream)
        check(stream)
        self._write(stream, data)
        self._until(stream, writable)

    def finish(self) -> None:
        stream = self._stream()
        self._finish(stream)
        self._until(stream, over)

    def _look(self, stream: Stream) -> None:
        if not self._sifted:
            self._sifted = True
            self._step(stream, self._pump.sift)
        self._step(stream, self._pump.look)

    def _step(self, stream: Stream, step: Callable[[], None]) -> None:
        try:
            step()
        except Rejected as error:  # not raised here: a handler could swallow it, and the serving loop hears it again
            stream.give_up(str(error))

    def _until(self, stream: Stream, reached: Callable[[Stream], bool]) -> None:
        """While it waits the handler has no limit: it is not the handler that takes so long."""
        self._look(stream)
        if not reached(stream) or stream.fault is not None:
            self._streams.unlimited(stream, monotonic_ns())
            patience = Patience(stream)
            while stream.fault is None and not reached(stream):
                self._step(stream, self._pump.wait)
                patience.left()
        self._streams.limit(stream, monotonic_ns())
        check(stream)
