"""Connections that are none: whoever plays the other end reads `sent`, and puts what it says into `inbox`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import zmq

from rota.common import sockets
from rota.common.limits import BODY_MAX


class Message(bytes):
    """A received one, as pyzmq gives it when it is not to be copied."""

    @property
    def bytes(self) -> bytes:
        return bytes(self)

    @property
    def buffer(self) -> memoryview:
        return memoryview(bytes(self))


class FakeLink:
    """Its own dealer and monitor. `full`: it takes nothing. `gone`: to be noticed. `idle`: when it has none."""

    made: list[FakeLink]
    idle: Callable[[FakeLink], None]

    def __init__(self, ctx: Any, address: str, role: str, body_max: int = 0) -> None:
        if body_max not in (0, BODY_MAX):  # as libzmq takes it, whatever a master said
            sockets.dealer(_CONTEXT, role, body_max).close(0)
        self.address = address
        self.role = role
        self.dealer = self.monitor = self
        self.inbox: deque[bytes] = deque()
        self.sent: list[bytes] = []
        self.connected = True
        self.full = self.gone = self.closed = False
        self.rcvtimeo = 0
        FakeLink.made.append(self)

    def readable(self) -> int:
        return len(self.inbox)

    def lost(self) -> bool:
        return self.gone

    def ended(self) -> str:
        return "connection lost"

    def awaited(self, blocked: bool) -> bool:
        return bool(self.inbox) or (blocked and not self.full)

    def send(self, frame: bytes) -> bool:
        self._check()
        if self.full or self.gone:
            return False
        self.sent.append(frame)
        return True

    def receive(self) -> bytes | None:
        self._check()
        if not self.inbox:
            FakeLink.idle(self)
        return self.inbox.popleft() if self.inbox else None

    def _check(self) -> None:
        if self.closed:
            raise zmq.ZMQError(zmq.ENOTSOCK)

    def poll(self, timeout_ms: int) -> int:
        return len(self.inbox)

    def close(self, linger_ms: int = 0) -> None:
        self.closed = True


_CONTEXT: Any = sockets.context()


def _recv(link: FakeLink, flags: int = 0, copy: bool = True) -> Any:
    frame = link.receive()
    if frame is None:
        raise zmq.Again
    return frame if copy else Message(frame)


def _send(link: FakeLink, frame: bytes, flags: int = 0) -> None:
    if not link.send(frame):
        raise zmq.Again


def pretended(*modules: Any) -> ExitStack:
    """These have such connections until it is closed."""
    stack = ExitStack()
    FakeLink.made = []
    FakeLink.idle = lambda link: None
    stack.enter_context(patch.object(sockets, "context", lambda *_: SimpleNamespace(term=lambda: None)))
    for module in modules:
        for name, fake in (("Link", FakeLink), ("fast_recv", _recv), ("fast_send", _send)):
            if hasattr(module, name):
                stack.enter_context(patch.object(module, name, fake))
    return stack
