"""How a handler waits for its stream where there is an event loop: on it, and in a thread beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic_ns
from typing import Any, TypeVar

from .backend import Backend
from .core.deliveries import Delivery
from .core.streams import Stream, Streams
from .streams import Handle, Patience, check, over, readable, readable_or_leaving, writable

Found = TypeVar("Found")


class AsyncStream(Handle):
    """Of an async handler. Before its answer has begun the handler is cancelled at its limit, also when it waits; then
    it may take as long as it likes.
    """

    def __init__(self, backend: Backend, streams: Streams, look: Callable[[], None], delivery: Delivery) -> None:
        """`look`: takes what has come; after a send the loop may have missed it."""
        super().__init__(backend, streams, delivery)
        self._look = look
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def abandoned(self) -> bool:
        return self._stream().fault is not None

    @property
    def leaving(self) -> bool:
        """The process is to stop, and this is to end soon."""
        return self._stream().leaving

    @property
    def ended(self) -> bool:
        """The caller has sent all that it will, whether it was read or not."""
        return self._stream().ended

    def begin_reading(self) -> None:
        """What comes is held until it is read."""
        self._read(self._stream())

    def give_up(self, reason: str) -> None:
        self._stream().give_up(reason)

    async def read(self, or_leave: bool = False) -> bytes:
        """`or_leave`: it returns also when the process is to stop."""
        stream = self._stream()
        self._read(stream)
        await self._until(stream, readable_or_leaving if or_leave else readable)
        return self._taken(stream)

    async def write(self, data: bytes) -> None:
        stream = self._stream()
        check(stream)
        self._write(stream, data)
        await self._until(stream, writable)

    async def finish(self) -> None:
        stream = self._stream()
        self._finish(stream)
        await self._until(stream, over)

    def changed(self) -> asyncio.Future[None]:
        """Done when something came, or it was given up, or the process is to stop, or by `wake`. It counts from this
        call on: a coroutine would miss what happens before its task begins.
        """
        self._stream().wake = self.wake
        future = asyncio.get_running_loop().create_future()
        # Without those that were waited for no longer: an application may look every moment whether somebody is there.
        self._waiting = [*(each for each in self._waiting if not each.done()), future]
        return future

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _send(self, stream: Stream) -> None:
        super()._send(stream)
        self._look()

    async def _until(self, stream: Stream, reached: Callable[[Stream], bool]) -> None:
        if reached(stream):
            await asyncio.sleep(0)  # a handler that always finds something would leave no turn to the others
        while stream.fault is None and not reached(stream):
            await self.changed()
        if stream.began_us:
            self._streams.unlimited(stream, monotonic_ns())
        else:
            self._streams.limit(stream, monotonic_ns())
        check(stream)


# ---- a thread beside an event loop -----------------------------------------------------------------------------------


class ThreadStream:
    """For a sync handler in a thread: the loop does the work, the thread waits. Limits are those of `SyncStream`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, operations: OfThread) -> None:
        self._loop = loop
        self._ops = operations

    def read(self) -> bytes:
        return self._do(self._ops.read())

    def write(self, data: bytes) -> None:
        self._do(self._ops.write(data))

    def finish(self) -> None:
        self._do(self._ops.finish())

    def _do(self, operation: Coroutine[Any, Any, Found]) -> Found:
        return asyncio.run_coroutine_threadsafe(operation, self._loop).result()


class OfThread(AsyncStream):
    """The half on the loop."""

    async def _until(self, stream: Stream, reached: Callable[[Stream], bool]) -> None:
        if not reached(stream):
            self._streams.unlimited(stream, monotonic_ns())
            patience = Patience(stream)
            while stream.fault is None and not reached(stream):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed(), max(0.0, patience.left()))
                patience.left()
        self._streams.limit(stream, monotonic_ns())
        check(stream)
