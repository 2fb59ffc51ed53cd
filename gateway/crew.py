"""The processes of a gateway: forked before any of them has a loop or a socket of ZeroMQ, watched, started anew.

TERM  each stops as it should, see server.py      INT, QUIT, a second TERM  at once      HUP  on to each
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from socket import socket

from ..common.log import note

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_WATCHED = frozenset((*_STOP, signal.SIGCHLD, signal.SIGHUP))
PAUSE_S = 1.0  # until one that ended is started anew: what crashes at its start must not keep a core busy

Serve = Callable[[socket, int], int]  # a listener, and a descriptor that can be read when we are gone; the exit code


class Crew:
    """One process a listener. The listeners stay open here: what connects while one is started anew only waits."""

    def __init__(self, listeners: Sequence[socket], serve: Serve, reread: Callable[[], bool] = lambda: True) -> None:
        """`reread`: at HUP, for those that are started later; False: those that run are not told of it."""
        self._listeners = list(listeners)
        self._serve = serve
        self._reread = reread
        self._pids: dict[int, socket] = {}
        self._due: list[tuple[float, socket]] = []  # to be started anew
        self._stops = 0
        self._failed = False
        self._tie, self._tie_held = os.pipe()

    def run(self) -> int:
        """Until all have ended; the exit code."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, if whoever started us had it so: none could be reaped
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        for listener in self._listeners:
            self._start(listener)
        while self._pids or self._due:
            found = signal.sigtimedwait(_WATCHED, self._pause())
            if found is not None and found.si_signo in _STOP:
                self._stop(found.si_signo)
            elif found is not None and found.si_signo == signal.SIGHUP and self._reread():
                self._tell(signal.SIGHUP)
            self._reap()
            self._start_due()
        return 1 if self._failed else 0

    def _pause(self) -> float:
        return max(0.0, min((due for due, _ in self._due), default=time.monotonic() + 60.0) - time.monotonic())

    def _start(self, listener: socket) -> None:
        pid = os.fork()
        if pid:
            self._pids[pid] = listener
            return
        code = 1
        try:
            os.close(self._tie_held)
            for other in self._listeners:
                if other is not listener:
                    other.close()
            code = self._serve(listener, self._tie)
        except BaseException:
            import traceback

            note(traceback.format_exc())
        finally:
            os._exit(code)

    def _stop(self, number: int) -> None:
        self._stops += 1
        self._due.clear()
        self._tell(signal.SIGINT if self._stops > 1 else number)

    def _tell(self, number: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        for pid in list(self._pids):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done:
                continue
            listener, code = self._pids.pop(pid), os.waitstatus_to_exitcode(status)
            if self._stops:
                self._failed = self._failed or code != 0
            else:
                note(f"rota gateway: process {pid} ended with {code}; another one takes its place")
                self._due.append((time.monotonic() + PAUSE_S, listener))

    def _start_due(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove(entry)
            try:
                self._start(entry[1])
            except OSError as error:  # too many processes, or too little memory: no reason to end those that serve
                note(f"rota gateway: no process can be started: {error.strerror}; trying again")
                self._due.append((now + PAUSE_S, entry[1]))


def unblock() -> None:
    """What a process of the crew does once it has handlers of its own: what came before is delivered then."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
