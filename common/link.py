"""One connection to a master: a DEALER that lives as long as its TCP connection, and its monitor.

A shell without decisions, shared by process, agent, client and operator. It never reconnects: `lost()` says that the
connection is gone, the owner drops the link, waits as `reconnect_delay` says, and opens another one.
"""

from __future__ import annotations

import struct

import zmq

from . import sockets
from .limits import BODY_MAX, RECONNECT_FIRST_S, RECONNECT_MAX_S
from .sockets import fast_recv, fast_send

ANSWER_S = 3.0  # a HELLO without an answer for so long: the connection is worth nothing
BYE_LINGER_MS = 100  # for a BYE to leave, of who has no more to say
NO_CONNECTION = "no connection"  # why a master is not reached: nobody listens there
NO_ANSWER = "no answer"  # or somebody does, who says nothing: a master that hangs, or no master

_EVENT = struct.Struct("=HI")
_NOBLOCK = int(zmq.NOBLOCK)  # the enumeration's member would be converted at each call


def reconnect_delay(failures: int, chance: float) -> float:
    """Seconds to wait before attempt `failures` + 1; `chance` is random in 0..1 (full jitter against herds)."""
    ceiling: float = min(RECONNECT_MAX_S, RECONNECT_FIRST_S * 2 ** min(failures, 16))
    return max(RECONNECT_FIRST_S / 2, ceiling * chance)


class Link:
    """Owned by one thread. `dealer` may be polled, sent on and received from directly on hot paths."""

    def __init__(
        self,
        ctx: zmq.Context[zmq.Socket[bytes]],
        address: str,
        role: str,
        body_max: int = BODY_MAX,
    ) -> None:
        """Begins to connect. Raises ValueError when the address cannot be one, ZMQError when no descriptor is left."""
        self.address = address
        self.connected = self._reached = False
        self.dealer = sockets.dealer(ctx, role, body_max)
        try:
            self.monitor = sockets.monitor(self.dealer)
        except zmq.ZMQError:
            self.dealer.close(0)  # or the end of the context would wait for it
            raise
        self.readable = sockets.readable(self.dealer)
        try:
            sockets.connect(self.dealer, address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(f"{address!r} is no address to connect to: {error}") from None

    def fds(self) -> tuple[int, int]:
        """The descriptors of dealer and monitor, for a poll. They are edge-triggered: readable only for what is new
        since the socket itself was asked (`awaited`, `lost`). So ask both after the last use of the link, and then
        sleep.
        """
        return int(self.dealer.get(zmq.FD)), int(self.monitor.get(zmq.FD))

    def awaited(self, blocked: bool) -> bool:
        """True when there is a frame to receive. `blocked`: the last send was refused, so room to send counts, too."""
        if not blocked:
            return self.readable() != 0
        return int(self.dealer.get(zmq.EVENTS)) & (zmq.POLLIN | zmq.POLLOUT) != 0

    def lost(self) -> bool:
        """Reads what the monitor has; True once the connection is gone or could not be made. Never blocks."""
        while int(self.monitor.get(zmq.EVENTS)) & zmq.POLLIN:
            event, _ = _EVENT.unpack(bytes(self.monitor.recv_multipart()[0]))
            if event == zmq.EVENT_CONNECTED:
                self._reached = True  # by TCP, for which a kernel is enough
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connected = True
            else:
                return True
        return False

    def ended(self) -> str:
        """Why this link was lost, or did not come about."""
        return "connection lost" if self.connected else NO_ANSWER if self._reached else NO_CONNECTION

    def send(self, frame: bytes) -> bool:
        """False when the frame could not be queued: no connection (yet), or the peer does not read."""
        try:
            fast_send(self.dealer, frame, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame, None when there is none now. A message of several frames is foreign: dropped."""
        while True:
            try:
                frame: bytes = fast_recv(self.dealer, _NOBLOCK)
            except zmq.Again:
                return None
            if not self.dealer.get(zmq.RCVMORE):
                return frame
            while self.dealer.get(zmq.RCVMORE):
                self.dealer.recv(zmq.NOBLOCK)

    def close(self, linger_ms: int = 0) -> None:
        """`linger_ms`: how long a last message (BYE) may take to leave."""
        self.dealer.disable_monitor()
        self.dealer.close(linger_ms)
        self.monitor.close(0)
