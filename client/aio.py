"""The asyncio client: the same session, driven by the event loop itself, with neither a thread nor zmq.asyncio.

zmq.asyncio costs 2 to 3.6 times the CPU of a plain loop. Here the loop watches the two descriptors of the link; they
are edge-triggered, so each step takes everything and looks again after it has sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from ..common.addresses import control_addresses
from ..common.body import Packed, encode_call
from ..common.errors import Error, Unavailable
from ..common.wire import MORE
from .calls import Address, Call
from .session import Session
from .stays import Stays
from .streams import StreamCall
from .view import View, as_arguments

if TYPE_CHECKING:
    from ..common.link import Link


AGAIN_S = 0.05  # after a step that failed
_ELSEWHERE = "this client belongs to another event loop; make one for each"


class AsyncClient(View):
    """`rota.Client` with await.

        async with rota.AsyncClient("tcp://master:7700") as client:
            await client.call("orders.quote", symbol="X", quantity=1)

    masters: as of `Client`; raises ValueError for what is no address. A client belongs to the event loop of its first
    call, and raises RuntimeError in another one; the loop must have `add_reader`. Cancelling the task that awaits a
    call cancels the call.
    """

    def __init__(self, *masters: str) -> None:
        super().__init__()
        self._home = _Home(control_addresses(masters))

    async def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """As `Client.call`, with the same errors."""
        return await self.submit(target, *args, **kwargs)

    def submit(self, target: str, /, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        """As `Client.submit`, with an asyncio.Future. To be called in the event loop; the call begins without await."""
        home = self._home
        driver = home.driver()
        address = self._addresses.get(target) or self._new_address(target)
        deadline = monotonic() + self._options.timeout
        reply = _Reply(address, encode_call(args, kwargs), deadline, driver, home)
        driver.post(reply)
        return reply

    def start(self, call: Call, target: str, /, *args: Any, **kwargs: Any) -> None:
        """As `submit`, for a call that is the caller's own: `call.finish` is called by the event loop, and by `start`
        itself if it cannot be sent at all, as by a client that is closed. For a gateway, whose requests need neither a
        future nor a task.
        """
        streams = isinstance(call, StreamCall) and not self.keyed
        self.begin(call, self.address(target, streams), encode_call(args, kwargs), monotonic())

    def address(self, target: str, streams: bool = True) -> Address:
        """What `begin` is told. `streams`: for a StreamCall; with a key it goes in whole, and so does its answer."""
        tail, length, flags = self._addresses.get(target) or self._new_address(target)
        return tail, length, flags | MORE if streams else flags

    def begin(self, call: Call, address: Address, body: Packed, now: float) -> None:
        """`start`, for a caller that has encoded the call itself: many are the same but for a few bytes."""
        driver = self._home.known
        if driver is None:
            if self._home.closed:
                return call.finish(None, Unavailable("not sent: the client is closed"))
            driver = self._home.driver()
        call.timeout = self._options.timeout
        call.deadline = now + call.timeout
        call.address = address
        call.body = body
        driver.post(call)

    def pour(self, call: StreamCall) -> None:
        """Something was written to `call.out`."""
        if (driver := self._home.known) is not None:  # else it is closed, and the call is over
            driver.say(call)

    def taken(self, call: StreamCall, size: int) -> None:
        """So many bytes of its answer have left memory: as many more may come."""
        call.into.taken(size)
        self.pour(call)

    def withdraw(self, call: Call) -> None:
        """Nobody waits any more for this call, which was started. If it is still queued it is not run; `finish` is not
        called.
        """
        if (driver := self._home.known) is not None:
            driver.withdraw(call)

    async def map(
        self, target: str, items: Iterable[Any] | AsyncIterable[Any], /, *, window: int = 64
    ) -> AsyncGenerator[Any, None]:
        """As `Client.map`, for `async for`. Items may come from an asynchronous iterator."""
        if window < 1:
            raise ValueError(f"window is {window}: at least 1 expected")
        under_way: deque[asyncio.Future[Any]] = deque()
        try:
            async for item in items if isinstance(items, AsyncIterable) else _each(items):
                if len(under_way) == window:
                    yield await under_way.popleft()
                args, kwargs = as_arguments(item)
                under_way.append(self.submit(target, *args, **kwargs))
            while under_way:
                yield await under_way.popleft()
        finally:
            for future in under_way:
                future.cancel()

    async def close(self) -> None:
        """As `Client.close`."""
        await self._home.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _each(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class _Reply(Call, asyncio.Future):  # type: ignore[type-arg]
    """The future is its own entry in the call table."""

    def __init__(self, address: Address, body: Packed, deadline: float, driver: _Driver, home: _Home) -> None:
        asyncio.Future.__init__(self, loop=driver.loop)
        self.deadline = deadline
        self.address = address
        self.body = body
        self._driver = driver
        self._home: _Home | None = home  # only held: a client that is forgotten is closed when its last call is over

    def finish(self, value: object, error: Error | None) -> None:
        if self.done():
            return
        self._home = None
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)

    def cancel(self, msg: Any = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self._driver.withdraw(self)
            self._home = None
        return cancelled


class _Home(Stays):
    """What the views of one client share: nothing before the first call, since before it there may be no loop."""

    def __init__(self, masters: tuple[str, ...]) -> None:
        self._masters = masters
        self.known: _Driver | None = None
        self.closed = False

    def __del__(self) -> None:
        # Not a finalizer: that would hold the driver, whose calls hold this, for ever where the loop ended before them.
        if self.known is not None:
            self.known.forget()

    def driver(self) -> _Driver:
        if self.closed:
            raise RuntimeError("this client is closed")
        loop = asyncio.get_running_loop()
        if self.known is None:
            self.known = _Driver(self._masters, loop)
        elif self.known.loop is not loop:
            raise RuntimeError(_ELSEWHERE)
        return self.known

    async def close(self) -> None:
        driver = self.known
        if driver is not None and driver.loop is not asyncio.get_running_loop() and not driver.loop.is_closed():
            raise RuntimeError(_ELSEWHERE)
        self.closed, self.known = True, None
        if driver is None:
            return
        if driver.loop.is_closed():  # and with it whoever waited
            driver.drop()
        else:
            await driver.leave()


class _Driver:
    """Steps the session when the loop says so."""

    def __init__(self, masters: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._session = Session(masters, self._unwatch)
        self._watched: tuple[int, ...] = ()
        self._soon = False
        self._takes = False  # in the next step, since no descriptor tells any more of what is there already
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = inf

    def post(self, call: Call) -> None:
        error = self._session.calls.submit(call)
        if error is not None:
            call.finish(None, error)
        if not self._soon:
            self._step_soon()

    def say(self, call: Call) -> None:
        self._session.calls.say(call)
        self._step_soon()

    def withdraw(self, call: Call) -> None:
        self._session.calls.cancel(call)
        self._step_soon()

    async def leave(self) -> None:
        try:
            self._session.leave(monotonic())
            self._step_soon()
            while pause := self._session.leaving(monotonic()):
                await asyncio.sleep(pause)
        finally:
            self.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._closed = True  # no further step
        self._session.close()

    def forget(self) -> None:
        """Nobody has the client any more. Called in whatever thread the garbage collector runs."""
        try:
            self.loop.call_soon_threadsafe(self.close)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            self.drop()

    def drop(self) -> None:
        """Without the loop, which is closed."""
        self._session.drop()

    def _step_soon(self) -> None:
        """One step for everything that is submitted in this turn of the loop."""
        if not self._soon:
            self._soon = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._soon = False
        takes, self._takes = self._takes, False
        self._step(False, takes)

    def _step(self, look: bool, takes: bool = True) -> None:
        """`takes`: something may have come. To ask costs three system calls."""
        if self._closed:
            return
        session, now = self._session, monotonic()
        phase = session.phase
        due = now + AGAIN_S  # a step that fails is the loop's to tell; the next one does what this one has left
        try:
            more = takes and session.link is not None and session.receive(now, look)
            session.send(now)
            link = session.link
            if link is not None and not self._watched:
                self._watch(link)
            if more or session.phase is not phase or session.awaited():
                self._takes = True
                self._step_soon()
            due = session.next_deadline()
        finally:
            self._arm(due, now)

    def _watch(self, link: Link) -> None:
        self._watched = dealer, monitor = link.fds()
        self.loop.add_reader(dealer, self._step, False)
        self.loop.add_reader(monitor, self._step, True)
        self.loop.call_soon(self._step, True)  # the descriptors tell only of what comes after a look

    def _unwatch(self) -> None:
        watched, self._watched = self._watched, ()
        for fd in watched:
            self.loop.remove_reader(fd)

    def _arm(self, due: float, now: float) -> None:
        """A timer that is too early stays: one step in vain is cheaper than a new timer at each step."""
        if self._timer is not None:
            if due >= self._timer_due:
                return
            self._timer.cancel()
            self._timer = None
        if due < inf:
            self._timer_due = due
            self._timer = self.loop.call_later(max(0.0, due - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._step(True)
