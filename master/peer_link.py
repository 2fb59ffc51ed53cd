"""The link of a standby to the other master: one connection at a time, to its control socket."""

from __future__ import annotations

import zmq

from ..common import sockets
from ..common.link import Link
from .core.standby import Standby

DIAL_S = 1.0  # to connect; a black hole is tried anew


class PeerLink:
    """`fds` are to be polled; they change with each `dial` and `hang_up`."""

    def __init__(self) -> None:
        self.fds: tuple[int, ...] = ()
        self._ctx = sockets.context()
        self._link: Link | None = None
        self._opened = False
        self._give_up_at = 0.0

    def dial(self, address: str, now: float) -> bool:
        """False: no connection can even be tried (no descriptor is left, or this is no address)."""
        self.hang_up()
        try:
            self._link = Link(self._ctx, address, sockets.PEER)
        except (ValueError, zmq.ZMQError):
            return False
        self.fds = self._link.fds()
        self._give_up_at = now + DIAL_S
        return True

    def hang_up(self, linger_ms: int = 0) -> None:
        link, self._link = self._link, None
        self.fds = ()
        self._opened = False
        if link is not None:
            link.close(linger_ms)

    def send(self, frame: bytes) -> None:
        """What does not go out is lost with the link, and everything comes anew over the next one."""
        if self._link is not None:
            self._link.send(frame)

    def attend(self, standby: Standby, now: float) -> bool:
        """Tells what has happened to it and what has come. False: nothing, and its sockets were just asked."""
        link = self._link
        if link is None:
            return False
        is_lost = link.lost() or (not self._opened and now >= self._give_up_at)
        came = is_lost
        if link.connected and not self._opened:
            self._opened = came = True
            standby.link_opened()
        while self._link is link and (frame := link.receive()) is not None:
            came = True
            standby.from_link(frame, now)
        if is_lost:
            self.hang_up()
            standby.link_lost(now)
        return came

    def close(self) -> None:
        self.hang_up(linger_ms=200)
        self._ctx.term()
