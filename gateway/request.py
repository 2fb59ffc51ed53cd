"""One request that a service is asked for, from its last byte to the last of its answer."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..client.streams import StreamCall
from ..common.errors import Error, ProtocolError
from ..common.log import note
from ..common.streams import Replay
from ..common.wire import Body
from .core import answers, calls, forms
from .core.affinity import add_cookie
from .core.answers import Answer
from .core.effects import Effect, Wrong
from .core.forms import Fault
from .core.head import Head, new
from .core.plain import Likeness, Plain
from .core.response import Unsendable
from .core.routes import Route
from .core.upload import Spool
from .protocol import HttpProtocol
from .streamed import BadAnswer, Streamed

if TYPE_CHECKING:
    from .server import Asker, Gateway


class Request(StreamCall):
    """Its own entry in the call table.

    `client`: its address for the access log, if that is not its connection's. `answer`: set when it could not even be
    asked for. `cookie`: goes with the answer of the service.
    `upload`: its body, if that goes as a stream. `streamed`: its answer, if that comes as one. `plain`: what is
    remembered of requests and answers like it.
    """

    id = client = ""
    cookie = b""
    answer: Answer | None = None
    upload: Spool | None = None
    streamed: Streamed | None = None
    plain: Plain | None = None

    def __init__(self, gateway: Gateway, connection: Asker, head: Head, began: float, route: Route | None) -> None:
        self.gateway = gateway
        self.connection = connection
        self.head = head
        self.began = began
        self.route = route

    def brings(self, body: Spool) -> int:
        """A body that goes beside the call; what goes in its place."""
        self.upload = body
        self.out = Replay(body.size, self._read)
        return body.size

    def _read(self, offset: int, size: int) -> bytes:
        """Of the upload; nothing, and that is its end, if the disk fails."""
        assert self.upload is not None
        try:
            return self.upload.read(offset, size)
        except OSError:  # it is read among the calls of others
            self._cut()
            return b""

    # ---- what the call says -----------------------------------------------------------------------------------------

    def returned(self, body: Body) -> None:
        plain = self.plain
        if plain is None or self.streamed is not None:
            return super().returned(body)
        try:
            if plain.likeness is None or not self._answered_alike(plain.likeness, body):
                self.finish(plain.answered(body), None)
        except ProtocolError as error:
            self.finish(None, error)
        except Exception:  # it is called among the answers of others
            self._cut()

    def _answered_alike(self, likeness: Likeness, body: Body) -> bool:
        """False: it is unlike those before, or its head must say more."""
        connection = self.connection
        assert type(connection) is HttpProtocol  # in HTTP/2 no two heads are the same bytes
        data = likeness.response(body, self.id.encode(), self.gateway.date())
        if data is None or not connection.answer_with(data, monotonic()):
            return False
        self.gateway.finished(self, likeness.status, likeness.size)
        return True

    def finish(self, value: object, error: Error | None) -> None:
        try:
            if self.upload is not None:
                self.upload.close()
            if self.streamed is not None and self.streamed.status:
                self.streamed.finished(error)
                return
            if error is None:
                self._answer_with(value)
            elif self.connection.request is self:
                self._answer(self.failed(error))
            else:
                self.answer = self._logged(self.failed(error))
        except Exception:  # it is called among the answers of others
            self._cut()

    def came(self, data: Body, more: bool) -> None:
        try:
            if self.streamed is None:
                self.streamed = Streamed(self, self.gateway.store)
            self.streamed.came(data, more)
        except (BadAnswer, Unsendable) as error:
            self._let_go()
            self._answer(self.failed(error))
        except Exception:
            self._cut()

    def taken(self, size: int) -> None:
        """So many bytes of the answer are off our hands."""
        self.gateway.client.taken(self, size)

    # ---- the answer in whole ----------------------------------------------------------------------------------------

    def failed(self, error: BaseException) -> Answer:
        pages = self.gateway.pages.of(self.route.service if self.route else "")
        answer = answers.of_error(error, self.id, forms.form_for(self.head.headers), pages)
        self.gateway.fault(self, answer.status, error)
        return answer

    def refuse(self, status: int, sentence: str, fields: Iterable[tuple[bytes, bytes]] = ()) -> Answer:
        answer = answers.made(Fault(status, sentence), self.id, forms.form_for(self.head.headers))
        answer.headers.extend(fields)
        return self._logged(answer)

    def _answer_with(self, value: object) -> None:
        try:
            self._answer(self._made_of(value))
        except (BadAnswer, Unsendable) as error:
            self._answer(self.failed(error))

    def _made_of(self, result: Any) -> Answer:
        """Raises BadAnswer."""
        try:
            status, headers, body = result
            self._add_own(headers)
        except (AttributeError, TypeError, ValueError):
            raise BadAnswer("the handler's result is not [status, headers, body]") from None
        return new(Answer, (status, headers, body))

    def _answer(self, answer: Answer) -> None:
        """Raises Unsendable."""
        self.connection.answer(*answer, monotonic())

    def answered(self, status: int, size: int) -> None:
        """It leaves now."""
        self.gateway.finished(self, status, size)

    def _logged(self, answer: Answer) -> Answer:
        """One that is given before the connection knows of this request, which it would tell when it has answered."""
        self.gateway.finished(self, answer.status, len(answer.body))
        return answer

    def _add_own(self, headers: list[Any]) -> None:
        headers.append((b"x-request-id", self.id.encode()))
        if self.cookie:
            add_cookie(headers, self.cookie)

    # ---- the answer in pieces ---------------------------------------------------------------------------------------

    def begin(self, status: int, headers: list[Any]) -> None:
        try:
            self._add_own(headers)
        except (AttributeError, TypeError, ValueError):
            raise BadAnswer("the headers of the answer are not a list of [name, value]") from None
        self.connection.begin(status, headers, monotonic())

    def written(self) -> None:
        """All that was given to the connection has left: there is room for more."""
        try:
            if self.streamed is not None:
                self.streamed.written()
        except Exception:
            self._cut()

    def ended(self) -> None:
        if self.connection.end(monotonic()):
            self._finished(broken=False)

    def broke_off(self, error: BaseException) -> None:
        """The service did not come to the end of its answer."""
        self._broken(error)
        self.connection.abort(monotonic())

    def wrong(self, wrong: Wrong) -> None:
        """The service's answer is not what it said it would be; the connection has already ended it."""
        self._broken(BadAnswer(wrong.sentence))

    def end_by_now(self) -> None:
        """The gateway ends, and this answer does not."""
        if self.streamed is not None and self.streamed.status:
            self.broke_off(Error("the gateway ends"))

    def heard(self, effect: Effect, now: float) -> None:
        """What the connection says to a WebSocket."""

    # ---- its end ----------------------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Nobody waits for the answer any more; what is queued is not run."""
        self._let_go()
        if self.streamed is not None and self.streamed.status:
            self._finished(broken=True)
        else:
            self.gateway.finished(self, answers.CLIENT_GONE, 0)

    def _broken(self, error: BaseException) -> None:
        self._let_go()
        self._finished(broken=True)
        self.gateway.fault(self, self.streamed.status if self.streamed else 0, error)

    def _finished(self, broken: bool) -> None:
        if self.streamed is not None:
            self.gateway.finished(self, self.streamed.status, self.streamed.size, broken)

    def _let_go(self) -> None:
        self.gateway.client.withdraw(self)
        if self.upload is not None:
            self.upload.close()
        if self.streamed is not None:
            self.streamed.close()

    def _cut(self) -> None:
        note(traceback.format_exc())
        self._let_go()
        self.connection.cut()


class CallRequest(Request):
    """A call in JSON (core/calls.py)."""

    def turned_away(self, refused: calls.Refused) -> Answer:
        return self._logged(calls.of_refusal(refused, self.id))

    def failed(self, error: BaseException) -> Answer:
        answer = calls.of_error(error, self.id)
        self.gateway.fault(self, answer.status, error)
        return answer

    def _made_of(self, result: Any) -> Answer:
        try:
            return calls.answer(result, self.id)
        except calls.Unrepresentable as error:
            return self.failed(error)
