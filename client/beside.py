"""The other masters, asked beside a connection over which nothing comes whether one of them is active by now.

A shell whose sockets nobody polls: its owner calls `step` by the clock, and so has only its own connection to poll. The
connections stay while the doubt lasts; asking again then costs only a frame each way.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import zmq

from ..common import sockets, wire
from ..common.fields import BadMessage
from ..common.limits import MAP_MAX
from ..common.link import Link
from ..common.messages import OperatorHello, Welcome, decode, framed
from .search import ACTIVE, Doubt

LOOK_FIRST_S = 0.005  # after asking: connected and greeted takes a millisecond or two
LOOK_MAX_S = 0.1
GIVEN_S = 1.0  # to answer; then over another connection

_Context = zmq.Context[zmq.Socket[bytes]]


class Beside:
    """`due`: when to call `step` again; nothing is missed before. `open`: there are connections."""

    def __init__(self, masters: Sequence[str]) -> None:
        self.due = 0.0
        self.open = False
        self._doubt = Doubt()
        self._inquiries = {master: _Inquiry(master) for master in masters}
        self._look_at = inf
        self._pause = 0.0

    def step(self, ctx: _Context, own: str, heard_at: float, patience: float, epoch: int, now: float) -> str | None:
        """Ask and look, as is due. `own`: the master that was not heard since `heard_at`. Returns another one that is
        active, with at least this epoch, when it is found.
        """
        if self.open and now - heard_at < patience:
            self.close()  # its own master was heard again
        if now >= self._doubt.due and self._doubt.look(heard_at, patience, now):
            for master, inquiry in self._inquiries.items():
                if master != own:
                    inquiry.ask(ctx, now)
            self.open = True
            self._pause = LOOK_FIRST_S
            self._look_at = now + self._pause
        elif now >= self._look_at:
            self._pause = min(LOOK_MAX_S, 2 * self._pause)
            self._look_at = now + self._pause if self._under_way() else inf
        self.due = min(self._look_at, self._doubt.due)
        for master, inquiry in self._inquiries.items():
            welcome = inquiry.answer()
            if welcome is not None and welcome.state == ACTIVE and welcome.epoch >= epoch:
                return master
        return None

    def close(self) -> None:
        self.open = False
        self._look_at = inf
        self.due = self._doubt.due
        for inquiry in self._inquiries.values():
            inquiry.close()

    def _under_way(self) -> bool:
        return any(each.asking for each in self._inquiries.values())


def anew(beside: Beside | None, masters: Sequence[str]) -> Beside:
    """In its place, when more masters are known."""
    if beside is not None:
        beside.close()
    return Beside(masters)


class _Inquiry:
    """Asks one master. HELLO, WELCOME, BYE: the master need not remember who asked."""

    def __init__(self, master: str) -> None:
        self.link: Link | None = None
        self.asking = False
        self._master = master
        self._hello = b""  # still to be sent
        self._asked_at = 0.0

    def ask(self, ctx: _Context, now: float) -> None:
        if self.asking and now - self._asked_at < GIVEN_S:
            return
        if self.asking or (self.link is not None and self.link.lost()):
            self.close()
        if self.link is None:
            try:
                self.link = Link(ctx, self._master, sockets.CONTROL, MAP_MAX)
            except (ValueError, zmq.ZMQError):  # no address, or no descriptor is left: reported when it is dialled
                return
        self._hello = framed(wire.HELLO, 0, OperatorHello(list(wire.VERSIONS), ""))
        self.asking, self._asked_at = True, now

    def answer(self) -> Welcome | None:
        """What it says, if it has answered. Never blocks."""
        link = self.link
        if link is None or not self.asking:
            return None
        if self._hello and link.send(self._hello):
            self._hello = b""
        frame = link.receive()
        if frame is None:
            if link.lost():
                self.close()
            return None
        self.asking = False
        try:
            head = wire.parse_head(frame)
            message = decode(frame[head.head_len :]) if head.kind == wire.WELCOME else None
        except (wire.BadFrame, BadMessage):
            return None
        if not isinstance(message, Welcome):
            return None
        link.send(wire.head(wire.BYE, head.token))
        return message

    def close(self) -> None:
        link, self.link = self.link, None
        self.asking = False
        if link is not None:
            link.close()
