"""One WebSocket, between its client and its process (docs/HTTP.md, "WebSockets")."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from msgpack import packb, unpackb

from ..common.errors import Cancelled, Error, NoService
from ..common.settings import HttpSettings
from ..common.streams import Outflow
from ..common.wire import Body
from .core import answers, forms, websocket
from .core.answers import Answer
from .core.effects import Came, Effect, Ended
from .core.forms import Fault
from .core.handshake import Handshake
from .core.head import Head
from .core.items import BadItem, Items
from .core.response import Unsendable
from .core.routes import Route
from .core.websocket import FAILED, GOING_AWAY, LOST, Terms, WebSocket
from .request import Request
from .streamed import LENGTH, BadAnswer, Streamed, head_end

if TYPE_CHECKING:
    from .protocol import HttpProtocol
    from .server import Gateway

SWITCHING = 101
FAREWELL_S = 10.0  # for a process to take what its client said last; then it hears of the end without that


class Socket(Request):
    """Until the process accepts it, a request as any other: a refusal, or a fault, is its answer.

    client ── Came ──► out ──► process      reading pauses while the process takes no more
    client ◄── core ◄── came ── process     nothing is `taken` while the client does not read
    """

    connection: HttpProtocol  # HTTP/2 has no Upgrade
    core: WebSocket | None = None  # once it is accepted
    out: Outflow

    def __init__(
        self,
        gateway: Gateway,
        connection: HttpProtocol,
        head: Head,
        began: float,
        route: Route | None,
        handshake: Handshake,
    ) -> None:
        super().__init__(gateway, connection, head, began, route)
        self.handshake = handshake
        self.out = Outflow()
        self._opening = bytearray()
        self._items = Items()
        self._told = 0  # bytes of them that were `taken`
        self._over = False  # one of them has closed it
        self._last = 0  # code with which the call is over; what it brought may wait for the client
        self._farewell: asyncio.TimerHandle | None = None

    def failed(self, error: BaseException) -> Answer:
        if isinstance(error, NoService) and error.details.get("unknown") == "handler":
            return answers.made(Fault(400, "There are no WebSockets here."), self.id, forms.form_for(self.head.headers))
        return super().failed(error)

    # ---- what the process says --------------------------------------------------------------------------------------

    def came(self, data: Body, more: bool) -> None:
        if self.streamed is not None:
            super().came(data, more)
            return
        try:
            if self.core is not None:
                self._feed(bytes(data))
            elif self._opened(data):
                self._accept()
            elif self.streamed is not None:
                super().came(bytes(self._opening), more)
        except (BadAnswer, BadItem, Unsendable) as error:
            self._blame(error)
        except Exception:  # it is called among the answers of others
            self._cut()

    def finish(self, value: object, error: Error | None) -> None:
        if self.core is None:
            super().finish(value, error)
            return
        if self._farewell is not None:
            self._farewell.cancel()
        try:
            if error is not None and not self._over:
                self.gateway.fault(self, SWITCHING, error)
            self._last = GOING_AWAY if isinstance(error, Cancelled) else FAILED  # by our own end
            self._say()
        except BadItem as bad:
            self._blame(bad)
        except Exception:
            self._cut()

    def room(self) -> None:
        core = self.core
        if core is None or not core.held or self.out.blocked:
            return
        try:
            self._carry_out(core.hold(False, monotonic()))
        except Exception:  # it is called among the answers of others
            self._cut()

    def _opened(self, data: Body) -> bool:
        """Whether the process has accepted it; `streamed` is set when it has refused."""
        opening = self._opening
        opening += data
        end = head_end(opening)
        if not end:
            return False
        if _status(bytes(opening[LENGTH:end])) == SWITCHING:
            return True
        self.streamed = Streamed(self, self.gateway.store)
        return False

    def _accept(self) -> None:
        end, opening = head_end(self._opening), bytes(self._opening)
        self._opening.clear()
        settings, now = self.gateway.settings, monotonic()
        try:
            _, headers, subprotocol = unpackb(opening[LENGTH:end])
            if subprotocol is not None and subprotocol not in self.handshake.subprotocols:
                raise ValueError(f"the subprotocol {subprotocol!r:.100} is none that the client offered")
            self._add_own(headers)
            offers = self.handshake.extensions if settings.websocket_deflate else b""
            extensions, said = websocket.agreed(offers, settings.websocket_message)
            answer = websocket.accepted(self.handshake.key, headers, subprotocol, said, self.gateway.date())
        except (AttributeError, TypeError, ValueError) as error:
            raise Unsendable(f"the application's acceptance cannot be sent: {error}") from None
        self.core = WebSocket(_terms(settings), now, extensions)
        self.taken(end)
        self.connection.upgrade(self.core, answer, now)
        self._feed(opening[end:])

    def _feed(self, data: bytes) -> None:
        """Raises BadItem."""
        self._items.feed(data)
        if self._over:
            self._forget()
        else:
            self._say()

    def _say(self) -> None:
        """Passes on the messages that are whole, while the client takes them. What is not passed on does not count as
        `taken`, so that the process waits; except for a message that is not whole yet, which may be larger than what
        may be under way. Raises BadItem.
        """
        core, items = self.core, self._items
        assert core is not None
        while core.takes and (item := items.next()) is not None:
            if isinstance(item, tuple):
                self._close(*item)
            else:
                self._carry_out(core.say(item))
            self._take(items.given)
        if core.takes:
            self._take(items.fed)
            if self._last:
                self._close(self._last, "")  # nothing, where it was closed before, as it should be

    def _take(self, upto: int) -> None:
        if upto > self._told:
            self.taken(upto - self._told)
            self._told = upto

    def _forget(self) -> None:
        self._items.clear()
        self._take(self._items.fed)

    def _blame(self, error: Exception) -> None:
        """The process said what it may not."""
        self._let_go()
        if self.core is None:
            self._answer(self.failed(error))
        else:
            self.gateway.fault(self, SWITCHING, error)
            self._close(FAILED, "")

    # ---- what the client says ---------------------------------------------------------------------------------------

    def heard(self, effect: Effect, now: float) -> None:
        if type(effect) is Came:
            self._pass_on(b"".join(map(packb, effect.items)))
            if self.out.blocked and self.core is not None:
                self.core.hold(True, now)
        elif type(effect) is Ended:
            self._part(effect.code, effect.reason)

    def written(self) -> None:
        if self.core is None:
            super().written()
            return
        try:
            self._say()
        except (BadAnswer, BadItem) as error:
            self._blame(error)
        except Exception:
            self._cut()

    def abandon(self) -> None:
        """The connection is no more."""
        core = self.core
        if core is None:
            super().abandon()
            return
        lost = not self._over
        self._part(LOST, "")
        self.gateway.finished(self, SWITCHING, core.size, broken=lost)

    def end_by_now(self) -> None:
        if self.core is None:
            super().end_by_now()
        else:
            self._part(GOING_AWAY, "")
            self._carry_out(self.core.close(GOING_AWAY, "", monotonic()))

    def _pass_on(self, data: bytes) -> None:
        if not self._over:
            self.out.write(data)
            self.gateway.client.pour(self)

    def _part(self, code: int, reason: str) -> None:
        """The last that the process hears of its client."""
        if self._over:
            return
        self._pass_on(packb([code, reason]))
        self._over = True
        self.out.end()
        self.gateway.client.pour(self)
        self._forget()  # it may wait for room before it looks at what came
        self._farewell = asyncio.get_running_loop().call_later(FAREWELL_S, self._give_up)

    def _give_up(self) -> None:
        if not self.out.over:
            self.gateway.client.withdraw(self)

    # ---- its end ----------------------------------------------------------------------------------------------------

    def _close(self, code: int, reason: str) -> None:
        """The process has said its last."""
        assert self.core is not None
        if not self._over:
            self._over = True
            self.out.end()
            self.gateway.client.pour(self)
            self._carry_out(self.core.close(code, reason, monotonic()))

    def _carry_out(self, effects: list[Effect]) -> None:
        self.connection.do(effects, monotonic())


def _terms(settings: HttpSettings) -> Terms:
    return Terms(
        message=settings.websocket_message,
        ping=settings.websocket_ping,
        pong=settings.websocket_pong,
        write=settings.write_timeout,
        write_rate=settings.write_rate,
    )


def _status(head: bytes) -> Any:
    try:
        return unpackb(head)[0]
    except Exception as error:  # msgpack raises many unrelated types
        raise BadAnswer(f"the head of the answer cannot be read: {error}") from None
