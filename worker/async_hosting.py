"""The host of an application with an async handler or hook: one event loop, and one thread beside it.

Async handlers and hooks run on the loop of the thread that calls `run` (the main thread of a process: libraries expect
the loop there). Sync ones run in the one other thread, one after the other, so they never meet themselves and what
they open in `on_start` stays with its thread. A WSGI application may be run in several.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from time import perf_counter_ns
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from ..common.errors import NOT_STARTED, Cancelled, Error, LoadError
from ..common.loops import new_event_loop
from .app import Handler, is_async
from .hosting import (
    FAILURES,
    Outcome,
    SyncHost,
    ailment,
    examined,
    failed,
    hook_failed,
    remote_error,
    verdict,
)

if TYPE_CHECKING:
    from .core.deliveries import Delivery

Running = asyncio.Task[None] | Future[Outcome]

_NOT_STARTED = Outcome(NOT_STARTED, b"", 0)
_FAILURES = (*FAILURES, asyncio.CancelledError)  # nobody cancels a hook: it waited for something that was cancelled


class AsyncHost:
    """Deliveries come by `take`, outcomes go to `done`. All of it is called in the thread of the loop.

    At most `concurrency` are here at once: `room` says how many more may be taken, and taking more is a bug of the
    caller, who holds the queue.
    """

    def __init__(
        self,
        sync: SyncHost,
        starts: Callable[[Delivery], bool],
        done: Callable[[int, Outcome], None],
        *,
        concurrency: int,
        threads: int,
    ) -> None:
        """`sync`: runs sync handlers, and reads and writes for all. `starts` is asked when nothing else is before a
        handler; False: it must not run. `done(number, outcome)` is called exactly once for each delivery that was
        taken; it may never have been asked about. `threads`: for the sync handlers of a WSGI application.
        """
        self.sync = sync
        self.worker = sync.worker
        self.concurrency = concurrency
        self._starts = starts
        self._done = done
        self._running: dict[int, Running] = {}
        self._beyond: set[Running] = set()  # handlers that go on after their answers
        self._loop = new_event_loop()
        self._context = copy_context()  # in a copy of which each handler runs
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()  # set when the last delivery has ended after `stop`
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rota-sync")

    @property
    def room(self) -> int:
        return self.concurrency - len(self._running)

    def run(self, ready: Callable[[], None]) -> None:
        """Start hooks, `ready()`, deliveries until `stop()`, stop hooks. What still runs then is cancelled.

        LoadError, with the traceback, if a start hook raises: `ready` is not called then.
        """
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(ready))

    def take(self, delivery: Delivery) -> None:
        if len(self._running) >= self.concurrency:
            raise RuntimeError(f"{self.concurrency} deliveries are running, no more may be taken")
        handler = self.worker.handlers.get(delivery.handler)
        if handler is None:
            performs = self._without_handler(delivery)
        elif handler.is_async:
            performs = self._perform(handler, delivery)
        else:
            performs = self._hand_over(delivery)
        self._run(delivery.number, performs)

    def cancel(self, number: int) -> None:
        """Ask a delivery to end early. Its outcome is Cancelled, unless it catches the cancellation and returns.

        A sync handler that has begun cannot be cancelled; a number that is not running is ignored.
        """
        running = self._running.get(number)
        if running is not None:
            running.cancel()
            if isinstance(running, asyncio.Task):  # which may end without having begun
                running.add_done_callback(partial(self._cancelled, number, perf_counter_ns()))

    def stop(self) -> None:
        """Make `run` return; may be called again. There is no room any more: what comes while the stop hooks run has
        not begun when the process ends, and runs elsewhere.
        """
        self.concurrency = 0
        self._stopped.set()

    async def _serve(self, ready: Callable[[], None]) -> None:
        try:
            await self._start_up()
            self._context = copy_context()  # with what the start hooks set
            ready()
            await self._stopped.wait()
            await self._finish()
            await self._shut_down()
        finally:
            self._threads.shutdown()

    async def _start_up(self) -> None:
        for hook in self.worker.start_hooks:
            try:
                await self._call(hook)
            except LoadError:
                raise  # it has its own sentence
            except _FAILURES as error:
                raise hook_failed(hook, error) from error

    async def _shut_down(self) -> None:
        for hook in reversed(self.worker.stop_hooks):
            try:
                await self._call(hook)
            except _FAILURES:
                traceback.print_exc()

    async def _finish(self) -> None:
        for number in list(self._running):
            self.cancel(number)
        if self._running:
            await self._idle.wait()
        if self._beyond:
            await asyncio.wait(self._beyond)  # type: ignore[type-var]  # tasks, all of them

    async def _call(self, hook: Callable[[], Any]) -> Any:
        if is_async(hook):
            return await hook()
        return await self._loop.run_in_executor(self._threads, hook)

    async def _check_health(self) -> str:
        hook = self.worker.health_hook
        try:
            return verdict(await self._call(hook)) if hook else ""
        except _FAILURES as error:
            if isinstance(error, asyncio.CancelledError) and was_asked_to_end():
                raise
            return ailment(error)

    async def _without_handler(self, delivery: Delivery) -> None:
        """A handler that is not known, or a health check of the master, which names none."""
        begun = perf_counter_ns()
        if not self._starts(delivery):
            outcome = _NOT_STARTED
        elif delivery.handler:
            outcome = self.sync.unknown(delivery, begun)
        else:
            outcome = examined(await self._check_health(), begun)
        self._ended(delivery.number, outcome)

    async def _hand_over(self, delivery: Delivery) -> None:
        """To the thread of sync handlers. It has its turn as the others have: what they start is in the order in which
        it was taken.
        """
        number, begun = delivery.number, perf_counter_ns()
        if not self._starts(delivery):
            return self._ended(number, _NOT_STARTED)
        try:
            self._running[number] = future = self._threads.submit(self.sync.run, delivery)
        except RuntimeError as error:  # the system has no thread for it
            return self._ended(number, failed(remote_error(error), begun))
        future.add_done_callback(partial(self._over_in_thread, number, begun))

    async def _perform(self, handler: Handler, delivery: Delivery) -> None:
        """Reports its end itself: a callback of the task would cost each delivery one more turn of the loop."""
        number, begun = delivery.number, perf_counter_ns()  # those that were taken before it had the loop until now
        if not self._starts(delivery):
            return self._ended(number, _NOT_STARTED)
        task = self._running[number]
        try:
            args, kwargs = self.sync.bind(handler, delivery, partial(self._answer, handler, number, begun))
        except Error as error:
            return self._ended(number, failed(error, begun))
        value = failure = None
        try:
            value = await handler.function(*args, **kwargs)
        except BaseException as error:
            failure = _failure(error, begun)
        if task in self._beyond:
            self._beyond.remove(task)
        else:
            self._ended(number, failure or self.sync.replied(handler, value, begun))

    async def _answer_with(self, handler: Handler, number: int, result: Awaitable[Any], begun: int) -> None:
        try:
            outcome = self.sync.replied(handler, await result, begun)
        except BaseException as error:
            outcome = _failure(error, begun)
        self._ended(number, outcome)

    def _answer(self, handler: Handler, number: int, begun: int, result: Any) -> None:
        """The answer of a handler that goes on after it: a value, or a coroutine that returns it."""
        self._beyond.add(self._running[number])
        if type(result) is CoroutineType:
            self._run(number, self._answer_with(handler, number, result, begun))
        else:
            self._ended(number, self.sync.replied(handler, result, begun))

    def _run(self, number: int, coroutine: Coroutine[Any, Any, None]) -> None:
        # Its context is not that of the moment: another handler may run now, whose send has taken this delivery. Nor is
        # it made by the application's own task factory, which may begin it here (asyncio.eager_task_factory).
        self._running[number] = asyncio.Task(coroutine, loop=self._loop, context=self._context.copy())

    def _cancelled(self, number: int, begun: int, task: asyncio.Task[None]) -> None:
        if self._running.get(number) is task:
            self._ended(number, failed(Cancelled("cancelled"), begun))

    def _over_in_thread(self, number: int, begun: int, future: Future[Outcome]) -> None:
        outcome = failed(Cancelled("cancelled"), begun) if future.cancelled() else future.result()
        self._loop.call_soon_threadsafe(self._ended, number, outcome)

    def _ended(self, number: int, outcome: Outcome) -> None:
        del self._running[number]
        if not self._running and self._stopped.is_set():
            self._idle.set()
        self._done(number, outcome)


def _failure(error: BaseException, begun: int) -> Outcome:
    """Of a handler. Nothing is raised: a SystemExit that leaves a task would stop the loop."""
    if isinstance(error, asyncio.CancelledError) and was_asked_to_end():
        return failed(Cancelled("cancelled"), begun)
    return failed(remote_error(error), begun)


def was_asked_to_end() -> bool:
    """False if the handler's own doings raised CancelledError: that is a failure like any other."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
