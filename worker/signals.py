"""The signals that an agent catches."""

from __future__ import annotations

import os
import signal

_WANTED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Signals:
    """Signals as bytes of a pipe: their handlers do nothing, the loop does the work."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, lambda *_: None) for number in _WANTED}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def numbers(self) -> bytes:
        try:
            return os.read(self.fd, 65536)  # all that the pipe holds
        except BlockingIOError:
            return b""

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._writer)
