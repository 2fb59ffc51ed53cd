"""The synchronous client: any number of threads call, one thread of its own talks to the master."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet, finalize

from ..common.addresses import control_addresses
from ..common.body import encode_call
from ..common.errors import Cancelled, Error
from .stays import Stays
from .view import View, as_arguments
from .wake import Waker

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..common.link import Link
    from .reply import Reply
    from .session import Session


POLL_MAX_S = 60.0  # a wait is never longer, whatever the deadlines say


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
        self._home = _Home(Engine(control_addresses(masters)))

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
        engine = home.cell[0]
        address = self._addresses.get(target) or self._new_address(target)
        deadline = monotonic() + self._options.timeout
        reply = engine.new_reply(address, encode_call(args, kwargs), deadline, engine, home)
        engine.post(reply)
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


class Engine:
    """The I/O thread and its inbox. Everything but `post`, `withdraw` and `stop` happens in that thread."""

    def __init__(self, masters: tuple[str, ...]) -> None:
        # Here, since naming rota.Client must stay cheap for applications that import more than they use.
        from .reply import Reply
        from .session import Session

        self.masters = masters
        self.new_reply = Reply
        self._new_session = Session
        self._inbox: deque[Reply] = deque()
        self._withdrawn: deque[Reply] = deque()
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()  # a signal handler may close what its thread is just starting
        self._asleep = False
        self.closing = False
        self._ended = False
        self._failure: Error = Cancelled("the client was closed")

    def post(self, reply: Reply) -> None:
        if self.closing:
            raise RuntimeError("this client is closed")
        if self._thread is None:
            self._start()
        self._inbox.append(reply)
        if self._asleep:
            self._wake()
        if self._ended:
            self._drop_inbox()  # the thread ended meanwhile, and will not look again

    def withdraw(self, reply: Reply) -> None:
        self._withdrawn.append(reply)
        if self._asleep:
            self._wake()

    def stop(self) -> None:
        """Returns when the thread has ended; from a callback, which runs in that thread, at once."""
        with self._starting:
            self.closing = True
            thread = self._thread
            if thread is None:
                self._ended = True  # a thread may have found the client open, and post now
                return
        self._wake()
        if not self.is_here():
            thread.join()

    def is_here(self) -> bool:
        """Whether this is its thread: a callback."""
        return self._thread is threading.current_thread()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self.closing:
                waker, session = Waker(), self._new_session(self.masters)
                thread = threading.Thread(target=self._run, args=(session, waker), name="rota-client", daemon=True)
                thread.start()
                self._waker, self._thread = waker, thread  # last: if no descriptor was left, the next call tries again

    def _wake(self) -> None:
        # Whoever clears the flag also wakes, so nobody needs to wake twice; see _sleep().
        self._asleep = False
        if self._waker is not None:
            self._waker.wake()

    # ---- in the thread ------------------------------------------------------------------------------------------

    def _run(self, session: Session, waker: Waker) -> None:
        _block_signals()
        failure: Error | None = None
        try:
            self._serve(session, waker)
            self._leave(session)
        except BaseException as error:
            failure = Error(f"the I/O thread of this client failed: {error!r}")
            raise
        finally:
            self.closing = self._ended = True
            self._failure = failure or self._failure
            self._drop_inbox()
            session.close(self._failure)

    def _serve(self, session: Session, waker: Waker) -> None:
        link: Link | None = None
        poll, dealer, monitor = _watching(link, waker)
        came, look = False, False
        while not self.closing:
            now = monotonic()
            if came:
                session.receive(now, look)
            self._take_inbox(session)
            session.send(now)
            if session.link is not link:
                link = session.link
                poll, dealer, monitor = _watching(link, waker)
                came = look = link is not None  # its descriptors tell only of what comes after a look
                continue
            awaited = session.awaited()
            ready = self._sleep(poll, now if awaited else session.next_deadline(), waker)
            look = monitor in ready
            came = awaited or look or dealer in ready

    def _leave(self, session: Session) -> None:
        session.leave(monotonic(), self._failure)
        while pause := session.leaving(now := monotonic()):
            session.receive(now)
            session.send(now)
            sleep(pause)

    def _take_inbox(self, session: Session) -> None:
        inbox, calls = self._inbox, session.calls
        withdrawn = len(self._withdrawn)  # counted first: what is withdrawn later may not be in the call table yet
        while inbox:
            reply = inbox.popleft()
            error = calls.submit(reply)
            if error is not None:
                reply.finish(None, error)
        for _ in range(withdrawn):
            calls.cancel(self._withdrawn.popleft())

    def _sleep(self, poll: select.poll, until: float, waker: Waker) -> list[int]:
        """Until something happens; returns the descriptors that have it."""
        self._asleep = True  # before the inbox is looked at: whoever posts later sees the flag, and wakes this thread
        if self._inbox or self._withdrawn or self.closing:
            left = 0.0
        else:
            left = until - monotonic()
        ready = [fd for fd, _ in poll.poll(_milliseconds(left))]
        self._asleep = False
        if waker.fd in ready:
            waker.drain()
        return ready

    def _drop_inbox(self) -> None:
        with suppress(IndexError):  # it is empty: several threads may do this at once
            while True:
                self._inbox.popleft().finish(None, self._failure)


def _watching(link: Link | None, waker: Waker) -> tuple[select.poll, int, int]:
    """What waits for the waker and the link, and the descriptors of its dealer and its monitor."""
    poll = select.poll()
    fds = link.fds() if link is not None else (-1, -1)
    for fd in (waker.fd, *fds):
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return poll, *fds


def _milliseconds(left_s: float) -> int:
    if left_s <= 0:
        return 0
    return int(min(left_s, POLL_MAX_S) * 1000) + 1  # one more: waking early would be waking twice


def _block_signals() -> None:
    """Python runs signal handlers in the main thread, and a signal that is delivered to this one does not wake it. One
    that the main thread has blocked, to wait for it, would end the process.
    """
    import signal

    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


class _Home(Stays):
    """Holds the engine of a client and its views. After a fork, which threads do not survive, it is another engine."""

    def __init__(self, engine: Engine) -> None:
        self.cell = [engine]
        _homes.add(self)
        finalize(self, _stop, self.cell)  # also at exit: the master need not wait for the session's end


def _stop(cell: list[Engine]) -> None:
    cell[0].stop()


_homes: WeakSet[_Home] = WeakSet()
_left_behind: list[Engine] = []  # of the parent: the garbage collector, too, must leave their sockets alone


def _in_child() -> None:
    for home in list(_homes):
        engine = home.cell[0]
        _left_behind.append(engine)
        home.cell[0] = Engine(engine.masters)
        if engine.closing:
            home.cell[0].stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
