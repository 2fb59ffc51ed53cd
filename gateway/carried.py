"""What connections of either HTTP have in common: the transport that carries them, and how they leave it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .core.requests import Peer
    from .server import Gateway
    from .tls import Tls

UNSENT_MAX = 128 * 1024  # of an answer in pieces, in the kernel: what waits for a slow reader waits in our spool
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: drop what has not left, and say so
_ALL_OR_BLOCKED = 0  # of the transport's buffer: what the kernel does not take at once blocks the connection


class Carried(asyncio.Protocol):
    """`peer`: who is at its other end."""

    __slots__ = ("peer", "_closing", "_eof", "_gateway", "_transport")

    peer: Peer

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._eof = False  # the client sends no more
        self._closing: asyncio.TimerHandle | None = None

    def _carried_by(self, transport: asyncio.BaseTransport | Tls) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance, nor is ours
        self._transport.set_write_buffer_limits(_ALL_OR_BLOCKED, _ALL_OR_BLOCKED)
        self.peer = self._gateway.peer(self._transport)

    def _expect_long(self) -> None:
        """It may be silent for hours; and what waits for a slow reader is not to wait in the kernel."""
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):  # it is gone
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX)

    def _is_lost(self) -> bool:
        """To be asked where the client sends no more: loops do not read then, and so do not notice."""
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        return True

    # ---- the end ----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Now, and not as if what was sent were all there is."""
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def leave(self) -> None:
        """What a slow reader has not taken goes, too, and it is to know that."""
        if self._transport.get_write_buffer_size():
            self.cut()
        else:
            self._transport.close()  # under TLS it says that this is the end
            if self._transport.get_write_buffer_size():
                self._transport.abort()

    def _close(self, within: float) -> None:
        """Half first: closed at once with bytes unread, the kernel would take the answer back with a reset."""
        transport = self._transport
        if not within:
            self.leave()
            return
        self._closing = asyncio.get_running_loop().call_later(within, self.leave)
        if self._eof or transport.is_closing():
            transport.close()  # after what was written
        else:
            with contextlib.suppress(OSError):  # asyncio's: the client is gone, and what was just written came back
                transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
