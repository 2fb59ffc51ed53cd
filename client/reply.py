"""The future of a submitted call. Apart from `client.py` since concurrent.futures loads logging: 10 ms at import."""

from __future__ import annotations

from _thread import LockType, RLock, allocate_lock
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING
from threading import Condition
from typing import TYPE_CHECKING, Any

from ..common.body import Packed
from ..common.errors import Error
from .calls import Address, Call

if TYPE_CHECKING:
    from .io_thread import IoThread


class Reply(Call, Future):  # type: ignore[type-arg]
    """A concurrent.futures.Future that is its own entry in the call table, and has no Condition unless it is asked for.

    The Condition is most of what a Future costs. Callbacks never need it, and who waits for the result waits for a
    gate, a bare lock. `concurrent.futures.wait` and all inherited methods take `self._condition`, a property here,
    which makes it over the one lock that guards every change.
    """

    _made: Condition | None = None
    _state = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiters: list[Any] = []  # shared, always empty: whoever waits takes `_condition` first, which makes a list
    _gates: tuple[LockType, ...] = ()  # one for each thread in result()

    def __init__(self, address: Address, body: Packed, deadline: float, thread: IoThread, home: object) -> None:
        """`home` is only held: a client that is forgotten is closed when its last call is over, not before."""
        # Not Future.__init__: it would make the Condition.
        self._guard = RLock()
        self._done_callbacks: list[Any] = []
        self.address = address
        self.body = body
        self.deadline = deadline
        self._thread = thread
        self._home: object = home

    @property
    def _condition(self) -> Condition:  # type: ignore[override]
        with self._guard:
            if self._made is None:
                self._waiters = []
                self._made = Condition(self._guard)
            return self._made

    def finish(self, value: object, error: Error | None) -> None:
        guard = self._guard
        guard.acquire()  # half the price of `with`
        if self._state != PENDING:
            guard.release()
            return  # cancelled: everybody was told then
        self._result = value
        self._exception = error
        self._home = None
        self._state = FINISHED
        if self._made is not None:
            for waiter in self._waiters:
                waiter.add_result(self) if error is None else waiter.add_exception(self)
            self._made.notify_all()
        guard.release()
        for gate in self._gates:
            gate.release()
        if self._done_callbacks:
            self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        # Each is taken out before it is called, so that finish() and add_done_callback() need no lock between them.
        callbacks = self._done_callbacks
        while callbacks:
            try:
                callback = callbacks.pop(0)
            except IndexError:  # the other one was faster
                return
            try:
                callback(self)
            except BaseException as error:
                if not isinstance(error, Exception) and not self._thread.is_here():
                    raise  # for the thread that added it; in the I/O thread it would end all calls
                LOGGER.exception("exception calling callback for %r", self)

    def cancel(self) -> bool:
        """True unless the answer is already here. The master is told: what was queued there is not run; what had
        started goes on, its result is dropped.
        """
        if not super().cancel():
            return False
        with self._guard:
            if self._state != CANCELLED:
                return True  # not the first one to cancel
            self.set_running_or_notify_cancel()
        for gate in self._gates:
            gate.release()
        self._thread.withdraw(self)
        self._home = None
        return True

    def done(self) -> bool:
        return self._state != PENDING

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        """The result, or its error raised. `timeout` (seconds) only ends this waiting, with TimeoutError."""
        if self._state == PENDING:
            self._wait(timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        try:
            return super().result(0)
        finally:
            del self  # the error's traceback holds this frame, too

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state == PENDING:
            self._wait(timeout)
        return self._exception if self._state == FINISHED else super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        if self._thread.is_here():
            raise RuntimeError("a done callback, in the client's I/O thread, may submit a call, not wait for one")
        gate = allocate_lock()
        gate.acquire()
        with self._guard:
            if self._state != PENDING:
                return
            self._gates += (gate,)
        if not gate.acquire(True, -1 if timeout is None else max(0.0, timeout)):
            with self._guard:
                self._gates = tuple(each for each in self._gates if each is not gate)
            raise TimeoutError

    def add_done_callback(self, fn: Any) -> None:
        """`fn(future)` runs in the client's I/O thread: it may submit; it must not block, nor start a process, which
        would inherit that all signals are blocked there.
        """
        self._done_callbacks.append(fn)
        if self._state != PENDING:
            self._invoke_callbacks()
