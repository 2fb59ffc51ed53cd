"""One HTTP/2 connection on the event loop: carries out what core/http2.py decides."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from .carried import Carried
from .core.effects import Asked, Close, Failed, Gone, Rebuffed, Reset, StreamEffect, Write
from .core.http2 import Http2

if TYPE_CHECKING:
    from .core.requests import Peer
    from .request import Request
    from .server import Gateway
    from .tls import Tls


class Http2Stream:
    """What one request knows as its connection (HttpProtocol)."""

    __slots__ = ("peer", "request", "_connection", "_id")

    def __init__(self, connection: Http2Protocol, number: int) -> None:
        self.peer: Peer = connection.peer
        self.request: Request | None = None
        self._connection = connection
        self._id = number

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, now: float) -> None:
        connection = self._connection
        connection.core.answers.answered(self._id, status, headers, body)
        request, self.request = self.request, None
        if request is not None:
            request.answered(status, len(body))
        connection.pump(now)

    @property
    def takes(self) -> bool:
        return self._connection.core.answers.takes(self._id)

    def begin(self, status: int, headers: list[tuple[bytes, bytes]], now: float) -> None:
        connection = self._connection
        connection.core.answers.begin(self._id, status, headers)
        connection.pump(now)

    def piece(self, data: bytes, now: float) -> None:
        connection = self._connection
        connection.do(connection.core.answers.piece(self._id, data), now)

    def end(self, now: float) -> bool:
        connection = self._connection
        effects = connection.core.answers.end(self._id)
        if not effects:
            self.request = None
        connection.do(effects, now)
        return not effects

    def abort(self, now: float) -> None:
        self.request = None
        connection = self._connection
        connection.core.answers.abort(self._id)
        connection.pump(now)

    def cut(self) -> None:
        """As the connection of HTTP/1, which says when it is lost that nobody waits any more."""
        request = self.request
        self.abort(monotonic())
        if request is not None:
            request.abandon()


class Http2Protocol(Carried):
    """Above TLS."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._streams: dict[int, Http2Stream] = {}
        self._pumping = False

    @property
    def requests(self) -> Iterator[Request]:
        """Those that are being served."""
        return (stream.request for stream in list(self._streams.values()) if stream.request is not None)

    # ---- what the connection below says -----------------------------------------------------------------------------

    def secured(self, transport: Tls) -> None:
        """It is there: its handshake is over."""
        self._carried_by(transport)
        gateway = self._gateway
        self.core = Http2(gateway.shared, monotonic())
        gateway.admit(self)  # in the place of its handshake
        self._expect_long()
        self.pump(monotonic())

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gateway.forget(self)  # whatever comes of the rest
        self.core.lost()
        streams, self._streams = self._streams, {}
        self._transport.abort()
        for stream in streams.values():
            self._abandon(stream)

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        self.do(self.core.received(data, now), now)

    def eof_received(self) -> bool:
        """False: it closes."""
        self._eof = True
        now = monotonic()
        self.do(self.core.eof(now), now)
        return False

    def pause_writing(self) -> None:
        self.core.answers.blocked(monotonic())

    def resume_writing(self) -> None:
        now = monotonic()
        self.core.answers.written(now)
        self.pump(now)

    # ---- what the gateway says --------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        due = self.core.next_deadline()
        if due is not None and due <= now:
            self.do(self.core.tick(now), now)

    def drain(self) -> None:
        """No further request."""
        self.core.drain()
        self.pump(monotonic())

    # ---- effects ----------------------------------------------------------------------------------------------------

    def do(self, effects: list[StreamEffect], now: float) -> None:
        self._carry_out(effects, now)
        self.pump(now)

    def _carry_out(self, effects: list[StreamEffect], now: float) -> None:
        for effect in effects:
            if type(effect) is Asked:
                self._asked(effect, now)
            elif type(effect) is Rebuffed:
                self._gateway.refused(self, effect.refused)
            elif type(effect) is Gone:
                self._abandon(self._streams.pop(effect.stream, None))
            elif type(effect) is Failed:
                stream = self._streams.pop(effect.stream, None)
                if stream is not None and stream.request is not None:
                    stream.request.wrong(effect.wrong)
            elif type(effect) is Write:
                self._transport.write(effect.data)
            elif type(effect) is Close:
                self._close(effect.within)
            elif type(effect) is Reset:
                self.cut()

    def _asked(self, asked: Asked, now: float) -> None:
        stream = Http2Stream(self, asked.stream)
        answer = self._gateway.take(stream, asked.head, asked.body, now)
        if answer is None:
            self._streams[asked.stream] = stream
            return
        if not isinstance(asked.body, bytes):
            asked.body.close()
        self.core.answers.answered(asked.stream, *answer)

    def _abandon(self, stream: Http2Stream | None) -> None:
        if stream is not None and stream.request is not None:
            request, stream.request = stream.request, None
            request.abandon()

    def pump(self, now: float) -> None:
        """All that there is room for."""
        if self._pumping:
            return
        self._pumping = True
        try:
            more = True
            while more:
                data = self.core.answers.output(now)
                if data:
                    self._transport.write(data)
                rooms = self.core.answers.rooms()
                for number in rooms:
                    self._has_room(number)
                more = bool(data or rooms)
        finally:
            self._pumping = False
        self._streams = {number: stream for number, stream in self._streams.items() if stream.request is not None}
        self._carry_out(self.core.settled(now), now)

    def _has_room(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None and stream.request is not None:
            stream.request.written()
