"""Trying a port without holding up the loop: in a thread, since a name server cannot be asked otherwise."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque

from .core.ports import Try


class PortTries:
    """`fd` is readable when `answers` has something."""

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._answers: deque[tuple[str, int, str]] = deque()

    def start(self, wanted: Try) -> None:
        try:
            threading.Thread(target=self._try, args=(wanted,), name=f"port-{wanted.service}", daemon=True).start()
        except RuntimeError as error:  # no room for a thread
            self._answer(wanted, str(error))

    def answers(self) -> list[tuple[str, int, str]]:
        """Service, number of the try, and why it failed ("" = it did not)."""
        try:
            os.read(self.fd, 512)
        except BlockingIOError:
            pass
        return [self._answers.popleft() for _ in range(len(self._answers))]

    def _try(self, wanted: Try) -> None:
        self._answer(wanted, attempt(wanted.address, wanted.timeout_s))

    def _answer(self, wanted: Try, text: str) -> None:
        self._answers.append((wanted.service, wanted.number, text))
        try:
            os.write(self._writer, b"x")
        except OSError:
            pass  # the pipe is full: it is readable


def attempt(address: str, timeout_s: float) -> str:
    """Connects to host:port and lets go. The reason if that fails."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except (OSError, ValueError, OverflowError) as error:
        return f"{address}: {getattr(error, 'strerror', None) or error}"
    return ""
