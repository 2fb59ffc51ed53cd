"""TLS between a connection of the network and the protocol that speaks HTTP on it.

    network ──► Tls ──► HttpProtocol, Http2Protocol     below it is a protocol, above a transport

The event loops bring TLS with them. This is not that one: they count no connection that has not finished its handshake,
they differ in what they call blocked, and none can end its own direction first, so that an answer is not lost to what
the client still sends.
"""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from .core.effects import Refused
from .core.response import plain
from .core.shared import LINGER_S

if TYPE_CHECKING:
    from .http2 import Http2Protocol
    from .protocol import HttpProtocol
    from .server import Gateway

_HANDSHAKE = 0x16  # the first byte of any TLS connection
_READ = 256 * 1024
_PLAIN = "HTTP came where HTTPS is spoken: say https://"


class Tls(asyncio.Protocol):
    """`requests`: there are none until the handshake is over."""

    requests = ()

    def __init__(self, gateway: Gateway, context: ssl.SSLContext) -> None:
        self._gateway = gateway
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._above: HttpProtocol | Http2Protocol | None = None
        self._deadline = monotonic() + gateway.settings.head_timeout
        self._untouched = True  # no byte has come
        self._ended = False  # the client sends no more
        self._said_end = False  # close_notify has been sent
        self._over = False  # what comes is dropped

    # ---- what the loop says -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._network = cast(asyncio.Transport, transport)
        self.peer = self._gateway.peer(self._network)
        if not self._gateway.admit(self):
            self._network.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        above, self._above = self._above, None  # which has this: as a cycle they would wait for the collector
        if above is None:
            self._gateway.forget(self)
        else:
            above.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._untouched and data[0] != _HANDSHAKE:
            self._refuse(data)
            return
        self._untouched = False
        self._incoming.write(data)
        try:
            if self._above is None:
                self._ssl.do_handshake()
                self._begin()
            self._read()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # it says why
            self._over = True
            self._network.close() if self._above is None else self._network.abort()

    def eof_received(self) -> bool:
        if self._ended:  # it had said so before
            return not self._said_end
        self._ended = True
        return self._above is not None and self._above.eof_received()

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    # ---- the handshake ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if now >= self._deadline:
            self._network.abort()

    def drain(self) -> None:
        """A request may be on its way: the protocol above is told when it is there."""

    def leave(self) -> None:
        self._network.abort()

    cut = leave

    def _begin(self) -> None:
        self._flush()
        self._above = self._gateway.secured(self, self._ssl.selected_alpn_protocol())
        self._above.secured(self)

    def _refuse(self, data: bytes) -> None:
        """A browser that was told http:// shows it; what is neither HTTP nor TLS gets no word."""
        self._over = True
        if not data[:1].isupper():
            self._network.abort()
            return
        request_id = self._gateway.new_id()
        self._network.write(plain(400, _PLAIN, date=self._gateway.date(), request_id=request_id))
        self._gateway.refused(self, Refused(400, len(_PLAIN) + 1, request_id, None))
        self._deadline = monotonic() + LINGER_S
        self._network.write_eof()

    # ---- bytes ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """All that has come, in one piece; then the end, if that has come."""
        assert self._above is not None
        pieces = []
        ended = False
        try:
            while data := self._ssl.read(_READ):
                pieces.append(data)
            ended = True
        except ssl.SSLWantReadError:
            pass
        self._flush()  # an answer to new keys
        if pieces and not self._over:
            self._above.data_received(b"".join(pieces))
        if ended and not self._over and not self.eof_received():
            self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self._network.is_closing():
            self._network.write(self._outgoing.read())

    # ---- what the protocol above says -------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if data and not self._said_end and not self._network.is_closing():
            self._ssl.write(data)
            self._flush()

    def write_eof(self) -> None:
        self._say_end()
        self._network.write_eof()

    def close(self) -> None:
        self._say_end()
        self._network.close()

    def abort(self) -> None:
        """Without a word: nobody takes it for an end."""
        self._over = True
        self._network.abort()

    def _say_end(self) -> None:
        if self._said_end:
            return
        self._said_end = self._over = True
        try:
            self._ssl.unwrap()
        except ssl.SSLError:  # the other side has not said it, too; nobody waits for that
            pass
        self._flush()

    def is_closing(self) -> bool:
        return self._network.is_closing()

    def pause_reading(self) -> None:
        self._network.pause_reading()

    def resume_reading(self) -> None:
        self._network.resume_reading()

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._network.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._network.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        return self._network.get_extra_info(name)
