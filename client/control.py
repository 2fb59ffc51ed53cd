"""A connection to one master's control socket, for a thread that waits for what comes over it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import zmq

from ..common import exits, sockets, wire
from ..common.fields import BadMessage
from ..common.limits import MAP_MAX
from ..common.link import BYE_LINGER_MS, NO_ANSWER, Link
from ..common.messages import Message, OperatorHello, Refusal, Welcome, decode, framed
from .search import final

POLL_MAX_S = 0.5  # pyzmq counts a poll that a signal interrupts in whole seconds


class Lost(Exception):
    """The connection is gone. Verbs are idempotent: the verb is sent again over the next one."""


class Control:
    """It has one life: once Lost was raised, it is to be closed. `heard_at`: when something came last."""

    def __init__(
        self, ctx: zmq.Context[zmq.Socket[bytes]], address: str, watch: Callable[[Control, float], float]
    ) -> None:
        """`watch` is told before each wait; it answers when it is to be told again, and may raise Lost."""
        try:
            self._link = Link(ctx, address, sockets.CONTROL, MAP_MAX)
        except (ValueError, zmq.ZMQError) as error:
            raise Lost(str(error)) from None
        self.address = address
        self.heard_at = monotonic()
        self.greeted = False
        self._token = 0
        self._watch = watch

    def greet(self, user: str, until: float) -> Welcome:
        """Raises Lost, Denied, Incompatible."""
        hello = framed(wire.HELLO, 0, OperatorHello(list(wire.VERSIONS), user))
        while not self._link.send(hello):
            if self._link.lost() or not self._pending(until, zmq.POLLOUT):
                raise Lost(self._link.ended())
        frame = self._frame(until)
        if frame is None:
            raise Lost(NO_ANSWER)
        message = _decoded(frame)
        if isinstance(message, Welcome):
            self._token, self.greeted = wire.parse_head(frame).token, True
            return message
        if isinstance(message, Refusal):
            if error := final(self.address, message):
                raise exits.coded(error, exits.of(error))
            raise Lost(f"refused: {message.message or message.code}")
        raise Lost("no greeting")

    def lost(self) -> bool:
        return self._link.lost()

    def send(self, message: Message) -> None:
        if not self._link.send(framed(wire.CONTROL, self._token, message)):
            raise Lost

    def message(self, until: float) -> Message | None:
        """The next message; None when the time is over. Damaged frames are dropped. Raises Lost."""
        while True:
            frame = self._frame(until)
            if frame is None:
                return None
            if len(frame) >= wire.HEADER_SIZE and frame[wire.KIND_AT] == wire.WHO:
                raise Lost("the master does not know this connection")
            message = _decoded(frame)
            if message is not None:
                return message

    def close(self, bye: bool = False) -> None:
        if bye:
            self._link.send(wire.head(wire.BYE, self._token))
        self._link.close(BYE_LINGER_MS if bye else 0)

    def _frame(self, until: float) -> bytes | None:
        while True:
            frame = self._link.receive()
            if frame is not None:
                self.heard_at = monotonic()
                return frame
            if self._link.lost():
                raise Lost(self._link.ended())
            if not self._pending(until, zmq.POLLIN):
                return None

    def _pending(self, until: float, events: int) -> bool:
        """Waits for the link; False when the time is over."""
        now = monotonic()
        if now >= until:
            return False
        due = min(until, max(now, self._watch(self, now)))
        poller = zmq.Poller()
        poller.register(self._link.dealer, events)
        poller.register(self._link.monitor, zmq.POLLIN)
        poller.poll(int(min(due - now, POLL_MAX_S) * 1000) + 1)
        return True


def _decoded(frame: bytes) -> Message | None:
    try:
        return decode(frame[wire.parse(frame)[11] :])
    except (wire.BadFrame, BadMessage):
        return None
