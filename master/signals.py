"""The signals that a master catches. Their handler only notes the number: the loop does the work."""

from __future__ import annotations

import os
import signal
from types import FrameType

WAKE_BYTES = 65536  # a pipe holds no more
AT_ONCE = frozenset({signal.SIGINT, signal.SIGQUIT})
HARMLESS = (signal.SIGHUP, signal.SIGUSR1)  # the other signals that are caught end it


class Signals:
    """`fd` is readable when there are `numbers`."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def note(number: int, frame: FrameType | None) -> None:
            self.numbers.append(number)

        for number in (signal.SIGTERM, *AT_ONCE, *HARMLESS):
            signal.signal(number, note)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def awake(self) -> None:
        """`fd` was readable; whether or not a number was noted, what stays there would keep the loop awake."""
        os.read(self.fd, WAKE_BYTES)

    def take(self) -> list[int]:
        numbers, self.numbers = self.numbers, []
        return numbers

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)
