"""The agent's connection to the master that its core has chosen."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import zmq

from ..common import messages, sockets, wire
from ..common.fields import BadMessage
from ..common.link import Link
from ..common.messages import Refusal, Welcome
from .core.supervision import Supervision
from .effects import Effects
from .masters import Masters

BYE_LINGER_MS = 500


class MasterLink:
    """Made when the core says so; what comes over it goes to the core, and its end too."""

    def __init__(
        self,
        ctx: zmq.Context[zmq.Socket[bytes]],
        poller: zmq.Poller,
        masters: Masters,
        core: Supervision,
        effects: Effects,
        note: Callable[[str], None],
    ) -> None:
        self._ctx = ctx
        self._poller = poller
        self._masters = masters
        self._core = core
        self._effects = effects
        self._note = note
        self._link: Link | None = None
        self._introduced = False  # on this link
        self._token = 0

    def connect(self, master: int) -> None:
        self._disconnect()
        try:
            self._link = Link(self._ctx, self._masters.controls[master], sockets.CONTROL)
        except zmq.ZMQError as error:  # no descriptor left, mostly
            self._note(f"no connection to the master can be made: {error}")
            self._effects.perform(self._core.connection.lost(monotonic()))
            return
        self._poller.register(self._link.dealer, zmq.POLLIN)
        self._poller.register(self._link.monitor, zmq.POLLIN)

    def hello(self, message: messages.AgentHello) -> None:
        self._send(messages.framed(wire.HELLO, 0, message))

    def say(self, message: messages.Message) -> None:
        self._send(messages.framed(wire.CONTROL, self._token, message))

    def say_bye(self) -> None:
        self._send(wire.head(wire.BYE, self._token))

    def attend(self) -> None:
        """Takes what has come. Never waits."""
        link = self._link
        if link is None:
            return
        if link.lost():
            self._lose()
            return
        if link.connected and not self._introduced:
            self._introduced = True
            self._effects.perform(self._core.connected(monotonic()))
        while self._link is link and (frame := link.receive()) is not None:
            try:
                self._receive(frame)
            except BadMessage:  # of a newer master, perhaps
                pass
            except wire.BadFrame:  # it may have been an order: the next HELLO tells what we have, and we are told anew
                self._lose()

    def close(self) -> None:
        """What was said last may leave."""
        if self._link is not None:
            self._link.close(BYE_LINGER_MS)

    def _receive(self, frame: bytes) -> None:
        fields = wire.parse(frame)
        kind, token, body = fields[3], fields[5], frame[fields[11] :]
        now = monotonic()
        if kind == wire.CONTROL and token == self._token and self._core.connection.greeted:
            self._effects.perform(self._core.received(messages.decode(body), now))
        elif kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token = token
            self._masters.told(self._core.connection.master, welcome)
            self._effects.perform(self._core.welcomed(welcome, now))
        elif kind == wire.REFUSED and isinstance(refusal := messages.decode(body), Refusal):
            self._effects.perform(self._core.refused(refusal, now))
        elif kind == wire.WHO:
            self._effects.perform(self._core.who(now))

    def _send(self, frame: bytes) -> None:
        if self._link is not None and not self._link.send(frame):
            self._lose()

    def _lose(self) -> None:
        self._disconnect()
        self._effects.perform(self._core.connection.lost(monotonic()))

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        self._introduced = False
        if link is not None:
            self._poller.unregister(link.dealer)
            self._poller.unregister(link.monitor)
            link.close()
