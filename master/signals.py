"""The signals that a master catches. Their handler only notes the number: the loop does the work."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NamedTuple

WAKE_BYTES = 65536  # a pipe holds no more
_AT_ONCE = frozenset({signal.SIGINT, signal.SIGQUIT})
_ENDING = _AT_ONCE | {signal.SIGTERM}


class Asked(NamedTuple):
    """By all signals that came since the last look, however many."""

    end: bool
    at_once: bool  # the last word is said now
    reload: bool
    reopen: bool  # its log


class Signals:
    """`fd` is readable when there are `numbers`."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def note(number: int, frame: FrameType | None) -> None:
            self.numbers.append(number)

        for number in (*_ENDING, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, note)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def awake(self) -> None:
        """`fd` was readable; whether or not a number was noted, what stays there would keep the loop awake."""
        os.read(self.fd, WAKE_BYTES)

    def take(self, stopping: bool) -> Asked:
        """TERM: to end orderly; INT, QUIT, or TERM when it is `stopping` already: at once."""
        numbers, self.numbers = set(self.numbers), []
        at_once = _ENDING if stopping else _AT_ONCE
        return Asked(
            end=not numbers.isdisjoint(_ENDING),
            at_once=not numbers.isdisjoint(at_once),
            reload=signal.SIGHUP in numbers,
            reopen=signal.SIGUSR1 in numbers,
        )

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)
