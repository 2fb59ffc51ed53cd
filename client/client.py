"""The synchronous client: any number of threads call, one thread of its own talks to the master (io_thread.py)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet, finalize

from ..common.addresses import control_addresses
from ..common.body import encode_call
from .io_thread import IoThread
from .stays import Stays
from .view import View, as_arguments

if TYPE_CHECKING:
    from concurrent.futures import Future


class Client(View):
    """Calls handlers of services, from any thread: plain calls, and futures.

        with rota.Client("tcp://master:7700") as client:
            client.call("orders.quote", symbol="X", quantity=1)

    masters: control addresses, each tcp://HOST or tcp://HOST:PORT; the client finds the active one among them. Without
    any, those of the variable ROTA_MASTER (separated by commas), else tcp://127.0.0.1:7700. Raises ValueError for what
    is no address.

    Nothing is connected before the first call. While no master can be reached calls wait, each until its own time-out.
    A forked child gets a connection and a session of its own; a spawned one makes a client of its own.
    """

    def __init__(self, *masters: str) -> None:
        super().__init__()
        self._home = _Home(IoThread(control_addresses(masters)))

    def call(self, target: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a handler ("service.handler") and return its result. Ctrl-C cancels the call.

        Raises RemoteError if the handler raised; another rota.Error if there is no result for another reason: Timeout,
        Unavailable, Overloaded, NoService, NotExecuted, Quarantined, MaybeExecuted, Conflict, PayloadTooLarge, Denied,
        Incompatible, ProtocolError, or Cancelled if the client is closed meanwhile. TypeError for arguments that cannot
        be sent, or do not fit the handler (BindError); ValueError for what is no target; RuntimeError if the client is
        closed already.
        """
        reply = self.submit(target, *args, **kwargs)
        try:
            return reply.result()
        finally:
            if not reply.done():  # KeyboardInterrupt, or what else a signal handler raised
                reply.cancel()
            del reply  # an error's traceback holds this frame, and the reply holds the error

    def submit(self, target: str, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The same as a concurrent.futures.Future, at once. `cancel()` works until the answer is here: what waits
        in the queue is not run, a handler that has started goes on.

        Done callbacks run in the client's I/O thread: they may submit, they must not block. That thread has all signals
        blocked, and a process that was started there would inherit it: start processes elsewhere. Raises TypeError for
        arguments that cannot be sent, ValueError for what is no target, RuntimeError if the client is closed; all other
        errors of `call` are raised by `result()`.
        """
        home = self._home
        thread = home.cell[0]
        address = self._addresses.get(target) or self._new_address(target)
        deadline = monotonic() + self._options.timeout
        reply = thread.new_reply(address, encode_call(args, kwargs), deadline, thread, home)
        thread.post(reply)
        return reply

    def map(self, target: str, items: Iterable[Any], /, *, window: int = 64) -> Generator[Any, None, None]:
        """One call for each item; yields the results in the order of the items. At most `window` calls are under way.

            prices = list(client.map("orders.quote", [{"symbol": "X", "quantity": 1}, ("Y", 2)]))

        An item is a mapping of named arguments, a tuple of positional ones, or the only argument. Nothing is called
        before the first result is asked for. An error is raised when its result is due; that, Ctrl-C and closing the
        iterator cancel what is under way. Raises ValueError if `window` is below 1.
        """
        if window < 1:
            raise ValueError(f"window is {window}: at least 1 expected")
        return self._results(target, items, window)

    def _results(self, target: str, items: Iterable[Any], window: int) -> Generator[Any, None, None]:
        under_way: deque[Future[Any]] = deque()
        try:
            for item in items:
                if len(under_way) >= window:
                    yield _first_of(under_way)
                args, kwargs = as_arguments(item)
                under_way.append(self.submit(target, *args, **kwargs))
            while under_way:
                yield _first_of(under_way)
        finally:
            while under_way:
                under_way.popleft().cancel()

    def close(self) -> None:
        """Say goodbye; calls that are still waited for end as Cancelled. Closes all views. May be called twice.

        While calls are waited for it returns when the master has heard of it, or after a second.
        """
        _stop(self._home.cell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_of(under_way: deque[Future[Any]]) -> Any:
    """The result of the oldest future, which is taken out only then: if the wait is interrupted, it is cancelled with
    the others.
    """
    result = under_way[0].result()
    under_way.popleft()
    return result


class _Home(Stays):
    """Holds the I/O thread of a client and its views. After a fork, which threads do not survive, it is another one."""

    def __init__(self, thread: IoThread) -> None:
        self.cell = [thread]
        _homes.add(self)
        finalize(self, _stop, self.cell)  # also at exit: the master need not wait for the session's end


def _stop(cell: list[IoThread]) -> None:
    cell[0].stop()


_homes: WeakSet[_Home] = WeakSet()
_left_behind: list[IoThread] = []  # of the parent: the garbage collector, too, must leave their sockets alone


def _in_child() -> None:
    for home in list(_homes):
        thread = home.cell[0]
        _left_behind.append(thread)
        home.cell[0] = IoThread(thread.masters)
        if thread.closing:
            home.cell[0].stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
