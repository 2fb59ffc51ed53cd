"""Serving an application with async handlers, or with threads: the event loop that runs them owns the socket too."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING

import zmq

from ..common import wire
from ..common.body import encode_error
from ..common.errors import Cancelled, RemoteError
from ..common.limits import IDLE_TICK_S
from ..common.link import Link
from ..common.sockets import fast_recv
from .async_hosting import AsyncHost
from .async_streams import AsyncStream, OfThread, ThreadStream
from .core.deliveries import Delivery
from .core.holding import QUICK_US
from .hosting import Outcome, SyncHost
from .page import STOP

if TYPE_CHECKING:
    from .process import Process

_NOBLOCK = int(zmq.NOBLOCK)
_GREETING_TICK_S = 0.005  # while the connection comes about; the descriptor of a DEALER does not tell of that


def serve(process: Process) -> None:
    """Until the page says stop. Raises LoadError when a start hook fails, Rejected as the backend does."""
    _Serving(process).run()


class _Serving:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._backend = process.backend
        self._deliveries = process.deliveries
        self._streams = process.streams
        sync = SyncHost(process.worker, version=process.version, stream_of=self._stream_of)
        threads = process.worker.threads or 1
        self._host = AsyncHost(sync, self._starts, self._done, concurrency=process.concurrency, threads=threads)
        self._waiting: deque[bytes] = deque()  # deliveries beyond the room; dropped with their connection, as the inbox
        self._backend.before_close = self._unwatch
        self._watched: Link | None = None
        self._descriptor = -1
        self._over_limit: set[int] = set()
        self._stopping = False
        self._looks_soon = False
        self._taken_ns = 0  # when a delivery was taken last
        self._failure: BaseException | None = None

    def _stream_of(self, delivery: Delivery) -> AsyncStream | ThreadStream | None:
        """In the thread of the handler."""
        if not delivery.streams:
            return None
        if self._process.worker.handlers[delivery.handler].is_async:
            return AsyncStream(self._backend, self._streams, self._readable, delivery)
        return ThreadStream(self._loop, OfThread(self._backend, self._streams, self._readable, delivery))

    def run(self) -> None:
        self._host.run(self._ready)
        self._backend.send_replies()
        if self._failure is not None:
            raise self._failure

    def _ready(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._process.ready()
        self._tick()

    # ---- the tick ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        try:
            self._attend()
        except BaseException as error:  # in a callback it would only be logged
            self._failure = error
            self._host.stop()
            return
        self._loop.call_later(IDLE_TICK_S if self._backend.greeted else _GREETING_TICK_S, self._tick)

    def _attend(self) -> None:
        self._process.attend()
        self._host.sync.body_max = self._backend.body_max
        self._watch()
        self._receive()
        self._cancel_overdue()
        if self._process.page.words[STOP]:
            self._stop()

    def _watch(self) -> None:
        """The loop reads the descriptor of the connection that there is now."""
        link = self._backend.link
        if link is self._watched:
            return
        self._watched = link
        if link is not None:
            self._descriptor = int(link.dealer.get(zmq.FD))
            self._loop.add_reader(self._descriptor, self._readable)

    def _unwatch(self) -> None:
        """Before it is closed: its number may be another socket's a moment later."""
        if self._watched is not None:
            self._loop.remove_reader(self._descriptor)
            self._watched = None
        self._waiting.clear()

    def _cancel_overdue(self) -> None:
        now_ns = monotonic_ns()
        for number, delivery in self._deliveries.running.items():
            if delivery.kill_ns and now_ns >= delivery.kill_ns and number not in self._over_limit:
                self._over_limit.add(number)
                self._host.cancel(number)

    def _stop(self) -> None:
        """BYE first; then what was received before the master read it; then the host."""
        if not self._stopping:
            self._stopping = True
            self._taken_ns = monotonic_ns()
            self._process.stopping()
            self._streams.leave()
        elif not self._deliveries.running and monotonic_ns() - self._taken_ns > 1e9 * IDLE_TICK_S:
            self._host.stop()

    # ---- frames -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            self._receive()
        except BaseException as error:
            self._failure = error
            self._host.stop()

    def _receive(self) -> None:
        """Until there is nothing: the descriptor is edge-triggered. Also without room, for what is of streams."""
        while self._waiting and self._host.room > 0:
            frame = self._waiting.popleft()
            self._take(wire.parse(frame), frame)
        backend, inbox = self._backend, self._backend.inbox
        while (link := backend.link) is not None:
            if inbox:
                frame = inbox.popleft()
            elif not link.readable():
                return
            else:
                try:
                    frame = fast_recv(link.dealer, _NOBLOCK)
                except zmq.Again:
                    return
            try:
                fields = wire.parse(frame)
                if fields[3] == wire.BUNDLE:
                    inbox.extend(wire.split(frame, fields))
                    continue
            except wire.BadFrame:
                backend.damage()
                continue
            if fields[3] != wire.DELIVER or fields[5] != self._deliveries.token or not backend.greeted:
                backend.handle(frame)
            elif self._waiting or self._host.room <= 0:
                self._waiting.append(frame)
            else:
                self._take(fields, frame)

    def _take(self, fields: tuple[int, ...], frame: bytes) -> None:
        self._taken_ns = now_ns = monotonic_ns()
        delivery = self._deliveries.take(fields, frame, now_ns)
        if delivery is not None:
            self._host.take(delivery)

    def _starts(self, delivery: Delivery) -> bool:
        return self._deliveries.start(delivery, monotonic_ns())

    def _done(self, number: int, outcome: Outcome) -> None:
        delivery = self._deliveries.running[number]
        code, body, elapsed_us = outcome
        if not delivery.may_run:
            self._streams.settled(number, 0)  # something may have come for it
            return self._reply(self._deliveries.not_started(delivery), soon=True)
        if number in self._over_limit:
            self._over_limit.remove(number)
            if code == Cancelled.code:
                code, body, elapsed_us = _exceeded(outcome)
        elapsed_us = self._streams.settled(number, elapsed_us)
        self._reply(self._deliveries.reply(delivery, code, body, elapsed_us), soon=elapsed_us < QUICK_US)

    def _reply(self, frame: bytes, soon: bool) -> None:
        """In the order of their sequence. `soon`: together with others of this turn of the loop. A reply that took long
        goes at once: the next handler of this turn may take as long.
        """
        if not self._backend.greeted:
            return  # it is kept, and goes again after the next HELLO
        self._backend.replies.append(frame)
        if not soon:
            self._backend.send_replies()
        if not self._looks_soon:  # there is room again, and after a send the descriptor may have missed something
            self._looks_soon = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Once for all that ended in one turn of the loop: each look is a system call."""
        self._looks_soon = False
        self._backend.send_replies()
        self._readable()


def _exceeded(outcome: Outcome) -> Outcome:
    error = RemoteError(
        "TimeoutError", f"the handler was cancelled: over its limit after {outcome.elapsed_us / 1e6:.3g} s"
    )
    return Outcome(error.code, encode_error(error), outcome.elapsed_us)
