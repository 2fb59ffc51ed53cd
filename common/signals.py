"""Signals for a loop: their handlers do nothing, a pipe wakes the loop, and that does the work. And what is not to be
inherited of who started us.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

PIPE_BYTES = 65536  # a pipe holds no more


def inherit_none() -> None:
    """Nothing is blocked any more for us and for what we start, though whoever started us had it so; and CHLD is not
    ignored, or nobody here could learn how a process has ended. In the main thread.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Signals:
    """`fd` is readable when a signal of those wanted has come. Made in the main thread."""

    def __init__(self, wanted: Iterable[int]) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in wanted:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        inherit_none()

    def numbers(self) -> bytes:
        """The signals that have come since the last call, one byte each."""
        try:
            return os.read(self.fd, PIPE_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Those that come from now on do nothing."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)
