"""A process whose event loop has the socket: the same masters and the same agent, while several handlers run at once,
wait for others, are cancelled at their limit, go on after their answers, and stream.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

from rota import Context, Worker
from rota.common import wire
from rota.common.body import encode_call
from rota.common.errors import Cancelled
from rota.common.limits import IDLE_TICK_S
from rota.common.streams import CHUNK_MAX
from rota.worker import async_hosting, async_serving, async_streams, hosting
from rota.worker import backend as backend_module
from rota.worker import streams as streams_module
from rota.worker.async_streams import OfThread
from rota.worker.backend import Rejected
from rota.worker.core.deliveries import Delivery
from rota.worker.core.streams import Abandoned
from rota.worker.page import PHASE, STOP, STOPPING

from .history import Violation
from .links import FakeLink
from .process import ProcessWorld

CONCURRENCY = 3  # of ROWS: deliveries beyond it wait for room
FIRST_FD = 5000  # beyond those that there are
END_S = 30.0  # after STOP, of handlers that do not resist


class WatchedLink(FakeLink):
    """With a descriptor as a DEALER's: readable only for what came since the socket was asked, and found empty."""

    fds = FIRST_FD

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        WatchedLink.fds += 1
        self.fd = WatchedLink.fds
        self.news = False
        self.asleep = True

    def get(self, option: int) -> int:
        return self.fd

    def came(self, frames: list[bytes]) -> None:
        self.inbox.extend(frames)
        self.news, self.asleep = self.news or self.asleep, False

    def readable(self) -> int:
        self._check()
        self.news, self.asleep = False, not self.inbox
        return len(self.inbox)

    def receive(self) -> bytes | None:
        self.readable()
        return self.inbox.popleft() if self.inbox else None

    def send(self, frame: bytes) -> bool:
        FakeLink.idle(self)
        self.news = False
        return super().send(frame)


class Clock(selectors.SelectSelector):
    """Time passes only while a loop waits, and not beyond what the world allows."""

    def __init__(self, world: LoopWorld) -> None:
        super().__init__()
        self._world = world

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        world = self._world
        news = {link.fd for link in FakeLink.made if isinstance(link, WatchedLink) and link.news}
        closed = {link.fd for link in FakeLink.made if isinstance(link, WatchedLink) and link.closed}
        keys = self.get_map().values()
        if any(key.fd in closed for key in keys):
            raise Violation("the descriptor of a connection is watched that is closed")
        ready = [(key, selectors.EVENT_READ) for key in keys if key.fd in news]
        if not ready and timeout != 0:
            due = world.until + 1 if timeout is None else world.now + timeout
            if due > world.until:
                world.now = max(world.now, world.until)
                world.loop.stop()
            else:
                world.now = due
        return ready


class Loop(asyncio.SelectorEventLoop):
    def __init__(self, world: LoopWorld) -> None:
        self._world = world
        super().__init__(Clock(world))

    def time(self) -> float:
        return self._world.now


class Threads:
    """One that has its turn when the world says so."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: function(*arguments)))
        return future

    def run_one(self) -> None:
        future, function = self.waiting.pop(0)
        if future.set_running_or_notify_cancel():
            future.set_result(function())

    def shutdown(self) -> None:
        while self.waiting:
            self.run_one()


class LoopWorld(ProcessWorld):
    actions: ClassVar[Mapping[str, int]] = {
        **ProcessWorld.actions,
        "handlers_go_on": 14,
        "threads_go_on": 5,
        "agent_stops_it": 1,
        "time_passes": 6,
    }

    def __init__(self) -> None:
        super().__init__()
        self.until = self.now
        self.loop = Loop(self)
        self._stack.enter_context(patch.object(backend_module, "Link", WatchedLink))
        for module in (async_serving, async_streams, streams_module):
            self._stack.enter_context(patch.object(module, "monotonic_ns", self.clock_ns))
        for module in (async_hosting, hosting):
            self._stack.enter_context(patch.object(module, "perf_counter_ns", self.clock_ns))
        self._stack.enter_context(patch.object(async_hosting, "new_event_loop", lambda: self.loop))
        self._stack.enter_context(patch.object(async_hosting, "ThreadPoolExecutor", Threads))
        self._stack.enter_context(patch.object(async_hosting, "traceback", SimpleNamespace(print_exc=lambda: None)))
        self.gates: list[asyncio.Future[None]] = []
        self.resist = True  # handlers may
        self.wrong = ""
        self.stopped_at = -1  # the last delivery when it ceased to serve; -1: it serves
        self.process = SimpleNamespace(
            backend=self.backend,
            deliveries=self.ledger,
            streams=self.streams,
            page=self.page,
            worker=self.application(),
            concurrency=CONCURRENCY,
            version="1",
            attend=self.backend.attend,
            ready=lambda: None,
            stopping=self.stopping,
        )
        self.serving: Any = async_serving._Serving(self.process)
        self.host = self.serving._host
        self.task = self.loop.create_task(self.host._serve(self.serving._ready))
        self.step()

    def restore(self) -> None:
        self.resist = False
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_forever()
        self.loop.close()
        super().restore()

    def clock(self) -> float:
        return self.now

    def clock_ns(self) -> int:
        return int(self.now * 1e9)

    def stopping(self) -> None:
        self.page.words[PHASE] = STOPPING
        self.backend.say_bye()

    # ---- serving -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Until nothing is left to do at this moment."""
        self.pass_by(0.0)

    def pass_by(self, seconds: float) -> None:
        if self.ended:
            return
        self.until = max(self.until, self.now) + seconds
        self.loop.run_forever()
        if self.stopped_at < 0 and self.host._stopped.is_set():
            self.stopped_at = self.ledger.received_upto
        failure = self.serving._failure
        if failure is not None:
            self.ended = True
            if not isinstance(failure, Rejected):
                raise failure
        elif self.task.done():  # as `_Serving.run` does behind its loop
            self.ended = True
            self.task.result()
            self.backend.send_replies()

    def say(self, frames: list[bytes]) -> None:
        link: Any = self.backend.link
        if link is not None:
            link.came(frames)
            self.step()

    def comes_up(self, chance: Random) -> None:
        try:
            super().comes_up(chance)
        except Violation:
            if self.stopped_at < 0:
                raise

    def said_meanwhile(self, link: Any) -> None:
        """While it sends."""
        stopping = self.page.words[STOP] and not self.serving._stopping  # what comes with its BYE waits for a tick
        if self.backend.greeted and link is self.backend.link and not stopping and self.chance.random() < 0.1:
            link.came([self.chance.choice([self.of_stream, self.delivery])(self.chance)])

    def delivery(self, chance: Random, ahead: int = 0) -> bytes:
        frame = super().delivery(chance, ahead)
        return frame[: wire.parse(frame)[11]] + (encode_call((), {}) if chance.random() < 0.95 else b"odd")

    # ---- the application ---------------------------------------------------------------------------------------------

    def application(self) -> Worker:
        worker = Worker("orders")

        @worker.handler
        async def quote(ctx: Context) -> bytes:
            return await self.handled(ctx)

        @worker.handler
        def other(ctx: Context) -> int:
            self.begun(ctx)
            if self.chance.random() < 0.2:
                raise ValueError("no")
            return 1

        @worker.health
        async def well() -> bool:
            await self.gate()
            return self.chance.random() < 0.5

        @worker.on_stop
        async def stops() -> None:
            await asyncio.sleep(1.0)

        return worker

    def begun(self, ctx: Any) -> Delivery:
        delivery: Delivery = ctx._delivery
        if delivery.number in self.ran:
            self.wrong = "a delivery runs twice"
        if not delivery.may_run:
            self.wrong = "something runs that has not started"
        self.ran.append(delivery.number)
        return delivery

    async def gate(self) -> None:
        future = self.loop.create_future()
        self.gates.append(future)
        await future

    async def handled(self, ctx: Context) -> bytes:
        delivery, chance = self.begun(ctx), self.chance
        match chance.choice(["quick", "long", "waits", "waits", "resists", "fails", "goes on", "streams", "streams"]):
            case "long":
                self.now += 0.5
                self.agent_fences(chance)  # what waits for the loop has not started
            case "waits":
                await self.gate()
            case "resists":
                try:
                    await self.gate()
                except asyncio.CancelledError:
                    if not self.resist:
                        raise
                    await self.gate()
            case "fails":
                raise chance.choice([ValueError("no"), asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()])
            case "goes on":
                assert ctx.answer is not None
                ctx.answer(chance.choice([lambda: b"x", self.later])())
                await self.gate()
            case "streams":
                if ctx.stream is not None:
                    await self.streamed(ctx.stream if chance.random() < 0.5 else self.of_thread(delivery))
        return bytes(chance.choice([0, 10, 5000]))

    async def later(self) -> bytes:
        await self.gate()
        return b"y"

    def of_thread(self, delivery: Delivery) -> OfThread:
        return OfThread(self.backend, self.streams, self.serving._readable, delivery)

    async def streamed(self, stream: Any) -> None:
        try:
            for _ in range(self.chance.choice([1, 3])):
                if self.chance.random() < 0.5:
                    await stream.read()
                else:
                    await stream.write(bytes(self.chance.choice([0, 1, CHUNK_MAX, 6 * CHUNK_MAX])))
            if self.chance.random() < 0.6:
                await stream.finish()
        except Abandoned:
            pass

    # ---- what happens ------------------------------------------------------------------------------------------------

    def handlers_go_on(self, chance: Random) -> None:
        self.now += chance.choice([0.0, 0.0, 0.0, 0.2])  # the machine was busy
        for _ in range(chance.choice([1, 1, 3])):
            self.gates = [gate for gate in self.gates if not gate.done()]
            if self.gates:
                chance.choice(self.gates).set_result(None)
        self.step()

    def threads_go_on(self, chance: Random) -> None:
        for _ in range(chance.choice([1, 3])):
            if self.host._threads.waiting:
                self.host._threads.run_one()
        self.step()

    def agent_stops_it(self, chance: Random) -> None:
        self.page.words[STOP] = 1
        self.pass_by(0.2)

    def time_passes(self, chance: Random) -> None:
        self.pass_by(chance.choice([0.01, 0.1, 0.3, 1.0, 2.5]))

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check_running(self) -> None:
        if self.wrong:
            raise Violation(self.wrong)
        if self.ended or self.stopped_at >= 0:
            if self.stopped_at not in (-1, self.ledger.received_upto):
                raise Violation("something is taken that nobody serves any more")
            return
        ledger, serving, link = self.ledger, self.serving, self.backend.link
        if sorted(ledger.running) != sorted(self.host._running):
            raise Violation(f"{sorted(ledger.running)} are said to run, {sorted(self.host._running)} do")
        if self.host.room < 0 or (serving._waiting and self.host.room > 0):
            raise Violation(f"{len(serving._waiting)} deliveries wait, there is room for {self.host.room}")
        if not set(self.streams.opened) | serving._over_limit <= set(ledger.running):
            raise Violation("something is left of what does not run")
        if self.backend.replies:
            raise Violation("replies wait for nothing")
        late = self.clock_ns() - int(2e9 * IDLE_TICK_S)
        if any(0 < each.kill_ns < late and each.number not in serving._over_limit for each in ledger.running.values()):
            raise Violation("a handler is over its limit and was not cancelled")
        if self.backend.greeted and isinstance(link, WatchedLink) and not (link.gone or link.full):
            self.check_connection(link)

    def check_connection(self, link: WatchedLink) -> None:
        if link.inbox or self.backend.inbox:
            raise Violation("what came is not looked at before the next tick")
        said = self.check_replies(link)
        if self.serving._stopping and not any(head.kind == wire.BYE for head in said):
            raise Violation("it is to stop, and its master does not know")

    def check_replies(self, link: FakeLink) -> list[wire.Head]:
        heads = super().check_replies(link)
        if any(head.code == Cancelled.code for head in heads):
            raise Violation("a handler was cancelled that its caller waits for")
        return heads

    def end(self) -> None:
        """It ends when it is told to, and has answered all that it was given."""
        for link in FakeLink.made:
            link.full = False
        self.page.words[STOP] = 1
        self.resist = False
        for _ in range(int(END_S / 0.1)):
            if self.ended:
                break
            for number in [*self.streams.opened]:  # whose callers may wait for ever
                self.backend.handle(wire.head(wire.CANCEL, self.ledger.token, number=number))
            self.handlers_go_on(self.chance)
            self.threads_go_on(self.chance)
            self.pass_by(0.1)
        if not self.ended:
            raise Violation("it does not end")
        if self.serving._failure is None:
            if self.ledger.running:
                raise Violation(f"{list(self.ledger.running)} are never answered")
            link: Any = self.backend.link
            if self.backend.greeted and not link.gone:
                self.check_replies(link)
