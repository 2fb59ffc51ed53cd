"""The I/O thread of a synchronous client: it alone has the sockets, and callers put their calls into its inbox."""

from __future__ import annotations

import select
import threading
from collections import deque
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING

from ..common.errors import Cancelled, Error
from .wake import Waker

if TYPE_CHECKING:
    from ..common.link import Link
    from .reply import Reply
    from .session import Session

POLL_MAX_S = 60.0  # a wait is never longer, whatever the deadlines say


class IoThread:
    """The thread and its inbox. Everything but `post`, `withdraw` and `stop` happens in that thread."""

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
