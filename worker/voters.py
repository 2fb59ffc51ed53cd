"""The voter links of an agent: one to each master, all the time, over which it is asked for its vote and told who won.

A shell without decisions. Beside them the agent has its main link, to the one master that it obeys; that one may ask
for a vote, too. An agent that knows one master only has a voter link once that master turns out to be one of a pair
(`reach`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import random
from time import monotonic

import zmq

from ..common import messages, sockets, wire
from ..common.fields import BadMessage
from ..common.link import ANSWER_S, Link, reconnect_delay
from ..common.messages import Deny, Grant, Refusal, Vote, VoterHello, Welcome, Won

REFUSED_S = 1.0  # at least, before the next HELLO to a master that will not have this one
AGAIN_S = 0.5  # between two HELLOs: an active one hears of a higher epoch; either knows who votes, whatever it lost


class Voters:
    """`attend` at each turn of the agent's loop. `in_touch`: a master answers over one of these links."""

    def __init__(
        self,
        ctx: zmq.Context[zmq.Socket[bytes]],
        poller: zmq.Poller,
        masters: Sequence[str],
        hello: Callable[[], VoterHello],
        welcomed: Callable[[int, Welcome], None],
        asked: Callable[[Vote], Grant | Deny],
        won: Callable[[int, int], None],
    ) -> None:
        """`welcomed(master, welcome)`, `won(master, epoch)`: by index of the address."""
        self._to_come = [_Voter(ctx, poller, address, hello) for address in masters]
        self._voters: list[_Voter] = []
        if len(masters) > 1:
            self.reach()
        self._welcomed = welcomed
        self._asked = asked
        self._won = won

    @property
    def in_touch(self) -> bool:
        return any(voter.greeted for voter in self._voters)

    def reach(self) -> None:
        """From now on there is a link to each master."""
        self._voters += self._to_come
        self._to_come.clear()

    def attend(self) -> None:
        """Everything that is due or has come. Never blocks, but for what `asked` does."""
        for master, voter in enumerate(self._voters):
            voter.attend()
            while (message := voter.receive()) is not None:
                match message:
                    case Welcome():
                        self._welcomed(master, message)
                    case Vote():
                        voter.send(self._asked(message))
                    case Won():
                        voter.won()
                        self._won(master, message.epoch)

    def next_deadline(self) -> float:
        return min((voter.next_deadline() for voter in self._voters), default=inf)

    def close(self) -> None:
        for voter in self._voters:
            voter.close()


class _Voter:
    """One of the links, and the next one in its place when it is lost."""

    def __init__(
        self, ctx: zmq.Context[zmq.Socket[bytes]], poller: zmq.Poller, address: str, hello: Callable[[], VoterHello]
    ) -> None:
        self.greeted = False
        self._ctx = ctx
        self._poller = poller
        self._address = address
        self._hello = hello
        self._link: Link | None = None
        self._token = 0
        self._failures = 0
        self._open_at = 0.0
        self._hello_at = 0.0  # not before this
        self._said = False  # HELLO was said, and is not wanted again
        self._refused_once = False  # as of another version
        self._answer_by = inf

    def attend(self) -> None:
        now = monotonic()
        link = self._link
        if link is None:
            if now >= self._open_at:
                self._open(now)
        elif link.lost() or now >= self._answer_by:
            self._drop(now)
        elif link.connected and now >= self._hello_at:
            self._introduce(link, now)

    def receive(self) -> messages.Message | None:
        """The next message that is not about the link itself."""
        while self._link is not None and (frame := self._link.receive()) is not None:
            try:
                message = self._read(frame)
            except BadMessage:  # of a newer master, perhaps
                continue
            except wire.BadFrame:  # it may have asked for our vote, and asks again over the next connection
                self._drop(monotonic())
                return None
            if message is not None:
                return message
        return None

    def send(self, message: Grant | Deny) -> None:
        if self._link is not None and not self._link.send(messages.framed(wire.CONTROL, self._token, message)):
            self._drop(monotonic())

    def won(self) -> None:
        """This master won. It does not know yet who votes here, and will need to when it steps down: HELLO again."""
        self._hello_at = 0.0

    def next_deadline(self) -> float:
        if self._link is None:
            return self._open_at
        return min(self._answer_by, self._hello_at if self._link.connected else inf)

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._poller.unregister(link.dealer)
            self._poller.unregister(link.monitor)
            link.close()

    def _read(self, frame: bytes) -> messages.Message | None:
        fields = wire.parse(frame)
        kind, token, body = fields[3], fields[5], frame[fields[11] :]
        if kind == wire.CONTROL and self.greeted and token == self._token:
            return messages.decode(body)
        if kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self.greeted, self._token, self._failures, self._answer_by = True, token, 0, inf
            self._refused_once = False
            self._hello_at = monotonic() + AGAIN_S
            return welcome
        if kind == wire.REFUSED and isinstance(refusal := messages.decode(body), Refusal):
            wait_s = max(refusal.wait_s, REFUSED_S)
            if refusal.code == "incompatible" and not self._refused_once:  # a HELLO damaged on its way looks alike
                self._refused_once, wait_s = True, REFUSED_S
            self._say_again(monotonic() + wait_s)
        elif kind == wire.WHO and (self.greeted or not self._said):
            self._say_again(0.0)
        return None

    def _open(self, now: float) -> None:
        try:
            self._link = Link(self._ctx, self._address, sockets.CONTROL)
        except zmq.ZMQError:  # no descriptor left, mostly
            self._drop(now)
            return
        self._poller.register(self._link.dealer, zmq.POLLIN)
        self._poller.register(self._link.monitor, zmq.POLLIN)
        self._say_again(0.0)

    def _introduce(self, link: Link, now: float) -> None:
        if link.send(messages.framed(wire.HELLO, 0, self._hello())):
            self._said, self._hello_at, self._answer_by = True, inf, now + ANSWER_S

    def _say_again(self, at: float) -> None:
        self.greeted = False
        self._said = False
        self._hello_at = at
        self._answer_by = inf

    def _drop(self, now: float) -> None:
        self.close()
        self._say_again(0.0)
        self._failures += 1
        self._open_at = now + reconnect_delay(self._failures, random())
