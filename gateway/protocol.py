"""One HTTP/1 connection on the event loop: carries out what core/connection.py decides."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from .carried import Carried
from .core.connection import Connection, State
from .core.effects import Close, Dispatch, Effect, Refused, Reset, Write, Wrong

if TYPE_CHECKING:
    from .core.websocket import WebSocket
    from .request import Request
    from .server import Gateway
    from .tls import Tls


class HttpProtocol(Carried):
    """`request`: the one that is being served. It answers with `answer`, or with `begin`, `piece`, …, and `end` or
    `abort`; either first one may raise Unsendable, and it is then to give another answer. While `takes` is false it
    should keep its pieces, and is told `written` when there is room for the next.
    After `upgrade` the connection is a WebSocket, and `request` is told what `core` says of it.
    """

    __slots__ = ("core", "request", "_held", "_http")

    core: Connection | WebSocket

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._held = False  # reading is paused
        self.request: Request | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        """Those that are being served."""
        return () if self.request is None else (self.request,)

    def secured(self, transport: Tls) -> None:
        """It is there: its handshake is over."""
        self.connection_made(transport)  # type: ignore[arg-type]  # none by inheritance, either

    # ---- what the loop says -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._carried_by(transport)
        gateway = self._gateway
        self.core = self._http = Connection(gateway.shared, monotonic())
        if not gateway.admit(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gateway.forget(self)  # whatever comes of the rest
        self.core.lost()
        request, self.request = self.request, None
        if request is not None:
            request.abandon()

    def data_received(self, data: bytes) -> None:
        now = monotonic()
        whole = self._http.whole(data)
        if whole is None:
            return self.do(self.core.received(data, now), now)
        answer = self._gateway.take(self, *whole, now)
        if answer is not None:
            self.do(self._answered(*answer, now), now)

    def eof_received(self) -> bool:
        """True: what came in whole is still answered, however slowly the answers before it are read."""
        self._eof = True
        now = monotonic()
        self.do(self.core.eof(now), now)
        return self._http.state is not State.CLOSED

    def pause_writing(self) -> None:
        self.core.blocked(monotonic())

    def resume_writing(self) -> None:
        now = monotonic()
        request = self.request
        self.do(self.core.written(now), now)
        if request is not None and request is self.request:
            request.written()

    # ---- what the gateway says --------------------------------------------------------------------------------------

    def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, now: float) -> None:
        effects = self._answered(status, headers, body, now)
        request, self.request = self.request, None
        if request is not None:
            request.answered(status, len(body))
        self.do(effects, now)

    def answer_with(self, data: bytes, now: float) -> bool:
        """All bytes of an answer that says nothing of the connection. False: it was not sent, and `answer` is to say
        more, or to do more.
        """
        if self._gateway.draining or not self._http.answered_with(len(data), now):
            return False
        self.request = None
        self._transport.write(data)
        return True

    @property
    def takes(self) -> bool:
        """Whether a piece would leave at once, or be in nobody's way."""
        return self.core.takes

    def begin(self, status: int, headers: list[tuple[bytes, bytes]], now: float) -> None:
        self._expect_long()
        if self._gateway.draining:
            self.core.drain()
        self.do(self._http.begin(status, headers, now), now)

    def piece(self, data: bytes, now: float) -> None:
        self.do(self._http.piece(data, now), now)

    def end(self, now: float) -> bool:
        """False: it was not whole, which its request was told as `wrong`."""
        effects = self._http.end(now)
        whole = not effects or type(effects[0]) is not Wrong
        if whole:
            self.request = None
        self.do(effects, now)
        return whole

    def abort(self, now: float) -> None:
        """There is no more of the answer, and it is not whole."""
        self.request = None
        self.do(self._http.abort(now), now)

    def upgrade(self, core: WebSocket, answer: bytes, now: float) -> None:
        """In place of an answer. It is a WebSocket from here on, until its end."""
        self._expect_long()
        takes, rest = self.core.takes, self._http.leave()
        self.core = core
        effects: list[Effect] = [Write(answer), *core.received(rest, now)]
        if not takes:
            core.blocked(now)
        self.do(effects + core.eof(now) if self._eof else effects, now)

    def tick(self, now: float) -> None:
        if self._eof and self._is_lost():
            self._transport.abort()
            return
        due = self.core.next_deadline()
        if due is not None and due <= now:
            self.do(self.core.tick(now), now)

    def drain(self) -> None:
        """No further request."""
        self.do(self.core.drain(), monotonic())

    # ---- effects ----------------------------------------------------------------------------------------------------

    def do(self, effects: list[Effect], now: float) -> None:
        for effect in effects:  # what is answered at once adds to it, rather than coming back here ever deeper
            if type(effect) is Dispatch:
                answer = self._gateway.take(self, effect.head, effect.body, now)
                if answer is not None:
                    if not isinstance(effect.body, bytes):
                        effect.body.close()
                    effects += self._answered(*answer, now)
            elif type(effect) is Write:
                self._transport.write(effect.data)
            elif type(effect) is Close:
                self._close(effect.within)
            elif type(effect) is Refused:
                self._gateway.refused(self, effect)
            elif type(effect) is Wrong:
                request, self.request = self.request, None
                if request is not None:
                    request.wrong(effect)
            elif type(effect) is Reset:
                self.cut()
            elif self.request is not None:
                self.request.heard(effect, now)
        if self.core.reads is self._held:
            self._hold(not self._held)

    def _answered(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, now: float) -> list[Effect]:
        if self._gateway.draining:
            self.core.drain()  # the answer says that it is the last one
        return self._http.answered(status, headers, body, now)

    def _hold(self, held: bool) -> None:
        if not self._transport.is_closing():
            self._held = held
            self._transport.pause_reading() if held else self._transport.resume_reading()
