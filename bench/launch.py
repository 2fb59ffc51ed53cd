"""Processes of the bench: started with a log, ended by process id, never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

from . import proc

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
Found = TypeVar("Found")


class NotMeasured(Exception):
    """A system cannot take part in this run; the text says why."""


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def to_the_end(measure: Callable[[], Found]) -> Found:
    """What it measures. INT, even where a shell had it ignored, and TERM end what was started and this program."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return measure()
    except NotMeasured as reason:
        sys.exit(f"not measured: {reason}")
    except KeyboardInterrupt:
        say("\ninterrupted")  # progress may stand in a line that has no end yet
        sys.exit(130)


def die_with_parent() -> None:
    """In a child: be killed when the parent goes, even if it could not say so."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", name, *map(str, arguments)]


def free_ports(count: int) -> int:
    """The first of `count` neighbouring free TCP ports on 127.0.0.1."""
    for _ in range(100):
        taken = []
        try:
            taken.append(_bound(0))
            first = int(taken[0].getsockname()[1])
            taken += [_bound(first + offset) for offset in range(1, count)]
            return first
        except (OSError, OverflowError):
            continue
        finally:
            for sock in taken:
                sock.close()
    raise NotMeasured(f"found no {count} neighbouring free ports")


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


class Family:
    """The processes of one system; leaving the block ends them, last started first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix=f"bench-{name}-")
        self.folder = Path(self._folder.name)
        self._members: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; a second call has nothing left to do."""
        try:
            while self._members:
                self._end(self._members[-1])
                self._members.pop()
        finally:
            self._folder.cleanup()

    def start(self, command: Sequence[str], piped: bool = False) -> subprocess.Popen[str]:
        """Start a process in its own session, so that Ctrl-C reaches the bench alone."""
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with open(self.folder / "log", "ab") as log:
            member = subprocess.Popen(
                command,
                stdin=pipe,
                stdout=pipe if piped else log,
                stderr=log,
                text=True,
                bufsize=1,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self._members.append(member)
        return member

    def check(self) -> None:
        """Raise if a process has ended on its own."""
        for member in self._members:
            if member.poll() is not None:
                command = subprocess.list2cmdline(map(str, member.args))  # type: ignore[arg-type]
                raise NotMeasured(f"`{command}` ended with {member.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        log = self.folder / "log"
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")

    def _end(self, member: subprocess.Popen[str]) -> None:
        below = proc.descendants(member.pid) if member.poll() is None else []
        if member.stdin:
            member.stdin.close()  # a client leaves by itself when its orders end
        else:
            member.terminate()
        try:
            member.wait(5)
        except subprocess.TimeoutExpired:
            member.kill()
            member.wait()
        for pid in below:
            _kill_if_in(pid, member.pid)
        if member.stdout:
            member.stdout.close()


def line_of(member: subprocess.Popen[str]) -> str:
    """The next one that it writes."""
    assert member.stdout
    line = member.stdout.readline()
    if not line:
        raise NotMeasured("a client ended without a word")
    return line


def _kill_if_in(pid: int, session: int) -> None:
    """Kill what outlived its parent; the session tells it from a stranger with a reused id."""
    try:
        if os.getsid(pid) == session:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
