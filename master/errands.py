"""Shell of `core.errands`: the commands run in a process of their own, which nothing that they do can make slow.

There is one for the whole life of the master's process, whatever the master becomes.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable
from math import inf

from ..common import log
from ..common.config import Config
from .core import errands as core
from .core.errands import Programs, Run

LOOK_S = 0.05  # whether a master that leaves is told to do so at once
RESTART_S = 1.0  # after the process that runs the commands ended by itself
END_S = 1.0  # for it to kill what it started, when its stdin is closed
_READ_BYTES = 65536


def _python(module: str) -> tuple[str, ...]:
    # -P: a folder `rota` where we are started must not be taken for us.
    return (sys.executable, "-P", "-m", module)


_PACKAGE = __package__.rpartition(".")[0]
PROGRAMS = Programs(rota=_python(_PACKAGE), send=_python(f"{__package__}.send"))


class Errands:
    """Starts its process only where lists or receivers are set, and again when it ends. `attend` when `fd` is readable
    and when `due_at` has come. `tell` is that of the event log; `control` the address of this master, `peer` that of
    the other one.
    """

    def __init__(self, config: Config, control: str, tell: Callable[[str, str, str], None]) -> None:
        self._core = core.Errands(
            config.master.name,
            secrets.token_hex(6),
            control,
            config.standby,
            config.notify,
            PROGRAMS,
            tell,
            time.time,
        )
        self._epoll = select.epoll()  # one descriptor for good, whichever process is behind it
        self.fd = self._epoll.fileno()
        self._runner: subprocess.Popen[bytes] | None = None
        self._start_at = 0.0
        self._unsent = b""
        self._unread = b""
        self._waits = False  # for room in the pipe
        self.due_at = inf
        self._carry_out(0.0)

    @property
    def peer(self) -> str:
        return self._core.peer

    @peer.setter
    def peer(self, address: str) -> None:
        self._core.peer = address

    # ---- what the server says ----------------------------------------------------------------------------------------

    def became(self, state: str, why: str, now: float) -> None:
        self._core.became(state, why, now)
        self._carry_out(now)

    def happened(self, kind: str, subject: str, text: str, now: float) -> None:
        self._core.happened(kind, subject, text, now)
        self._carry_out(now)

    def reconfigure(self, config: Config) -> None:
        self._core.reconfigure(config.standby, config.notify)
        self.due_at = 0.0

    def attend(self, now: float) -> None:
        for fd, events in self._epoll.poll(0):
            if self._runner is not None and fd == _fd(self._runner.stdout):
                self._receive(now)
            elif self._runner is not None and events:
                self._send()
        self._core.tick(now)
        self._carry_out(now)

    def alarms(self) -> list[str]:
        return self._core.alarms()

    def leave(self, why: str, clock: Callable[[], float], hurry: Callable[[], bool]) -> None:
        """The last word of a master that is told to stop. Returns when all that was to be done is done, when its time
        is over, or when somebody is in a hurry.
        """
        self.became(core.CLOSED, why, clock())
        while self._core.busy(clock()) and not hurry():
            self._epoll.poll(LOOK_S)
            self.attend(clock())

    def close(self) -> None:
        """What still runs is killed."""
        if self._runner is not None:
            self._let_go(self._runner)
        self._epoll.close()

    # ---- the process -------------------------------------------------------------------------------------------------

    def _start(self, now: float) -> None:
        if self._runner is not None or not self._core.configured or now < self._start_at:
            return
        argv = _python(f"{__package__}.errand_runner")
        try:
            runner = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            log.note(f"rota master: lists and notifications wait: {argv[0]} cannot be started: {error}")
            self._start_at = now + RESTART_S
            return
        self._runner, self._unsent, self._unread = runner, b"", b""
        os.set_blocking(_fd(runner.stdin), False)
        os.set_blocking(_fd(runner.stdout), False)
        self._epoll.register(_fd(runner.stdout), select.EPOLLIN)

    def _ended(self, now: float) -> None:
        runner, self._runner = self._runner, None
        assert runner is not None
        self._epoll.unregister(_fd(runner.stdout))
        if self._waits:
            self._epoll.unregister(_fd(runner.stdin))
        self._waits = False
        self._let_go(runner)
        log.note(f"rota master: the process that runs lists and notifications ended ({runner.returncode})")
        self._start_at = now + RESTART_S
        self._core.lost(now)

    def _let_go(self, runner: subprocess.Popen[bytes]) -> None:
        assert runner.stdin is not None and runner.stdout is not None
        runner.stdin.close()
        try:
            runner.wait(END_S)
        except subprocess.TimeoutExpired:
            runner.kill()
            runner.wait()
        runner.stdout.close()

    def _carry_out(self, now: float) -> None:
        self._start(now)
        if self._runner is None:  # effects wait in the core
            self.due_at = self._start_at if self._core.configured else inf
            return
        for effect in self._core.take():
            text = {"run": effect._asdict()} if isinstance(effect, Run) else {"end": effect.number}
            self._unsent += json.dumps(text).encode() + b"\n"
        if self._unsent:
            self._send()
        self.due_at = self._core.next_deadline()

    def _send(self) -> None:
        """Writes what the pipe takes; the rest goes when there is room."""
        assert self._runner is not None
        fd, waited = _fd(self._runner.stdin), self._waits
        try:
            self._unsent = self._unsent[os.write(fd, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it ended: its stdout says so, too
            self._unsent = b""
        self._waits = bool(self._unsent)
        if self._waits and not waited:
            self._epoll.register(fd, select.EPOLLOUT)
        elif waited and not self._waits:
            self._epoll.unregister(fd)

    def _receive(self, now: float) -> None:
        assert self._runner is not None
        try:
            data = os.read(_fd(self._runner.stdout), _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            return self._ended(now)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if (done := _done(line)) is None:
                log.note(log.printable(line.decode(errors="replace")))
            else:
                self._core.finished(*done, now)


def _done(line: bytes) -> tuple[int, int | None, str] | None:
    """What the runner says; None for what something else in its interpreter has written, such as a sitecustomize."""
    try:
        done = json.loads(line)
        return done["number"], done["exit"], done["output"]
    except (ValueError, TypeError, KeyError):
        return None


def _fd(pipe: object) -> int:
    return pipe.fileno()  # type: ignore[attr-defined, no-any-return]
