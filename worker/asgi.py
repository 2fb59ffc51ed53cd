"""An ASGI 3 application as a `Worker`: http, websocket and lifespan. Many requests at once."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from ..common.errors import LoadError
from ..common.limits import INLINE_MAX
from .app import Worker
from .async_hosting import was_asked_to_end
from .async_streams import AsyncStream
from .context import Context
from .core.streams import Abandoned
from .http_service import (
    BadAnswer,
    Pair,
    Said,
    Streamed,
    answer,
    as_bytes,
    begun,
    incomplete,
    request_id,
    service,
    split_target,
    tell,
)
from .recurring import Headers
from .websocket import WebSocket

Message = dict[str, Any]
Application = Callable[..., Awaitable[Any]]

STARTED, NOT_STARTED = "lifespan.startup.complete", "lifespan.startup.failed"
STOPPED, NOT_STOPPED = "lifespan.shutdown.complete", "lifespan.shutdown.failed"


def worker(application: Application, name: str) -> Worker:
    """A Worker that answers HTTP requests with `application`, and runs its lifespan from start to stop."""
    state: dict[str, Any] = {}
    lifespan, requests = _Lifespan(application, state), _Requests(application, state)

    made = service(name, requests.serve, requests.converse)
    for handler in made.handlers.values():
        handler.is_async = True  # plain functions that return coroutines: one coroutine less each request
    made.on_start(lifespan.start_up)
    made.on_stop(lifespan.shut_down)
    return made


class _Requests:
    """The application runs in the task of its request, and goes on there after its answer (background tasks)."""

    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self._application = application
        self._state = state

    def serve(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int,
        about: dict[str, Any],
    ) -> Awaitable[None]:
        """The exchange gives the answer as soon as that is complete."""
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["method"] = "http", method
        exchange = _Exchange(method, body, ctx, scope["extensions"]["rota"]["request_id"])
        return self._perform(scope, exchange)

    def converse(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int | None,
        about: dict[str, Any],
    ) -> Awaitable[None]:
        """A WebSocket. Its answer comes when both sides know that it has ended."""
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["subprotocols"] = "websocket", about.get("subprotocols", [])
        scope["extensions"]["websocket.http.response"] = {}
        socket = WebSocket(ctx, scope["extensions"]["rota"]["request_id"])
        return self._perform(scope, socket)

    async def _perform(self, scope: dict[str, Any], exchange: _Exchange | WebSocket) -> None:
        """Raises what the application raised before it had said all; what comes later is told on stderr."""
        try:
            await self._application(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if exchange.over:
                return exchange.failed_late(error)
            exchange.ended()
            if was_asked_to_end():  # whatever it makes of that
                raise asyncio.CancelledError from error
            raise
        if not exchange.over:
            exchange.ended()
            if was_asked_to_end():
                raise asyncio.CancelledError
            await exchange.returned()


def _scope(
    ctx: Context, target: bytes, headers: list[Pair], about: dict[str, Any], state: dict[str, Any]
) -> dict[str, Any]:
    try:
        known_as = about.get("id") or request_id(ctx, headers)  # before the headers are read
        if type(headers) is not Headers:
            scope = _alike(target, headers, about)
        else:
            if headers.made is None:
                headers.made = _alike(target, headers, about)
            scope = headers.made.copy()
        scope["asgi"] = {"version": "3.0", "spec_version": "2.5"}
        scope["headers"] = list(scope["headers"])
        scope["client"] = tuple(about["client"])
        scope["state"] = state.copy()
        scope["extensions"] = {"rota": {"request_id": known_as}}
    except (KeyError, TypeError) as error:
        raise incomplete(about, error) from None
    return scope


def _alike(target: bytes, headers: list[Pair], about: dict[str, Any]) -> dict[str, Any]:
    """The part of the scope that calls which come again share: nothing that an application may change in place."""
    root = about["root"]
    raw, path, query = split_target(target, root)
    return {
        "http_version": about["version"],
        "scheme": about["scheme"],
        "path": path.decode("utf-8", "replace"),
        "raw_path": raw,
        "query_string": query,
        "root_path": root,
        "headers": list(map(tuple, headers)),
        "server": tuple(about["server"]),
    }


class _Exchange:
    """One request and what the application sends for it. `over`: nothing more is to be sent."""

    over = False
    _said: Said | None = None
    _blocks: list[bytes] | None = None  # before the last
    _streamed: Streamed | None = None  # None: the answer is one message
    _cut = False  # the rest of the body is not sent anyway
    _waiting: asyncio.Event | None = None  # set at the end, if somebody waits for that
    _listening = False  # somebody waits for what the stream has to tell

    def __init__(self, method: str, body: bytes | int, ctx: Context, known_as: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._ctx = ctx
        self._method = method
        self._body: bytes | int | None = body  # None: it was given; a number: so much of an upload is to come
        self._request_id = known_as

    async def receive(self) -> Message:
        """The body, in pieces if it is large. Then a disconnect, but only when all is over or nobody waits any more: an
        application that hears of one earlier gives up.
        """
        body = self._body
        if isinstance(body, bytes):
            self._body = None
            return {"type": "http.request", "body": body, "more_body": False}
        stream: AsyncStream | None = self._ctx.stream
        if body and not self.over:
            if stream is None:
                raise ValueError("a body that comes as a stream needs a caller that streams")
            return await self._piece(stream, body)
        if stream is not None:
            self._listening = True
            await self._gone(stream)
        elif not self.over:
            self._waiting = self._waiting or asyncio.Event()
            await self._waiting.wait()
        return {"type": "http.disconnect"}

    async def _piece(self, stream: AsyncStream, left: int) -> Message:
        try:
            piece = await stream.read()
        except Abandoned:
            piece = b""
        self._body = left - len(piece)
        if not piece:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self._body > 0}

    async def _gone(self, stream: AsyncStream) -> None:
        while not self.over and not stream.abandoned and not (stream.leaving and self._streamed is not None):
            await stream.changed()

    async def send(self, message: Message) -> None:
        kind = message.get("type")
        if self.over or self._task.cancelling():
            if self._cut or self._task.cancelling():
                raise Abandoned("nobody waits for this answer any more")
            raise BadAnswer(f"{kind!r:.200} was sent after the end of the answer")
        if kind == "http.response.start":
            if self._said is not None:
                raise BadAnswer("http.response.start was sent twice")
            self._said = begun(message)
        elif kind == "http.response.body":
            said = self._said
            if said is None:
                raise BadAnswer("http.response.body was sent before http.response.start")
            block, more = message.get("body", b""), message.get("more_body", False)
            if type(block) is not bytes:
                block = as_bytes(block)
            if more or self._streamed is not None or self._blocks is not None or len(block) > INLINE_MAX:
                await self._extend(said, block, more)
            else:  # as most are
                self._end(answer(self._method, said, block))
        else:
            raise BadAnswer(f"{kind!r:.200} is no message of an answer: http.response.start or http.response.body")

    async def _extend(self, said: Said, block: bytes, more: bool) -> None:
        stream: AsyncStream | None = self._ctx.stream
        if stream is not None:
            return await self._pour(stream, said, block, more)
        self._blocks = self._blocks or []
        self._blocks.append(block)
        if not more:
            self._end(answer(self._method, said, b"".join(self._blocks)))

    async def _pour(self, stream: AsyncStream, said: Said, block: bytes, more: bool) -> None:
        """Send this block now; returns when there is room for more."""
        streamed = self._streamed or Streamed(self._method, said)
        if not streamed.has_body:
            self._cut = True
            return self._end(answer(self._method, said, b""))
        data = streamed.piece(block)
        if streamed.exceeds and self._streamed is None:  # nothing of it was sent
            raise streamed.other_length()
        self._streamed = streamed
        if not more and not streamed.exceeds:
            streamed.end()
        if data:
            await stream.write(data)
        if (not more or streamed.exceeds) and not self.over:
            self._end(stream.finish())
        if streamed.exceeds:  # its caller has all that was announced
            raise streamed.other_length()

    def ended(self) -> None:
        """A task that the application left behind may listen still."""
        self.over = True
        if self._listening:
            self._ctx.stream.wake()
        elif self._waiting is not None:
            self._waiting.set()

    def _end(self, result: Any) -> None:
        """All is said."""
        self.ended()
        assert self._ctx.answer is not None
        self._ctx.answer(result)

    async def returned(self) -> None:
        raise BadAnswer("the application returned before its answer was complete")

    def failed_late(self, error: BaseException) -> None:
        if not self._cut and not isinstance(error, asyncio.CancelledError):
            # Frameworks do so for every exception: they answer with a 500, then raise it again for the server's log.
            tell(self._request_id, "after its answer", error)


class _Lifespan:
    """The application's own start and stop, in a task of its own that lasts as long as the process serves."""

    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self._application = application
        self._state = state
        self._task: asyncio.Task[None] | None = None
        self._said: dict[str, str] = {}  # kind → message
        self._error: BaseException | None = None

    async def start_up(self) -> None:
        """LoadError if the application says that it failed. One that takes no lifespan events is served without."""
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        await self._tell("lifespan.startup", STARTED, NOT_STARTED)
        if NOT_STARTED in self._said:
            raise LoadError(f"the application says that its start failed: {self._said[NOT_STARTED]}".rstrip(": "))
        if STARTED in self._said:
            return
        error = self._error
        if error is not None and not isinstance(error, Exception):
            raise LoadError(f"the application ended the process in its start: {type(error).__name__}: {error}")
        if error is not None:  # the specification's way to say it; a bug in a start looks the same
            print(f"the application takes no lifespan events: {type(error).__name__}: {error}", file=sys.stderr)

    async def shut_down(self) -> None:
        assert self._task is not None
        if not self._task.done():
            await self._tell("lifespan.shutdown", STOPPED, NOT_STOPPED)
        if NOT_STOPPED in self._said:
            print(f"the application says that its stop failed: {self._said[NOT_STOPPED]}", file=sys.stderr)

    async def _tell(self, event: str, *answers: str) -> None:
        """Returns when the application has answered, or has ended."""
        self._events.put_nowait({"type": event})
        assert self._task is not None
        while not self._task.done() and not any(each in self._said for each in answers):
            self._news.clear()
            await self._news.wait()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._application(scope, self._events.get, self._send)
        except BaseException as error:
            self._error = error
            told = NOT_STOPPED in self._said or isinstance(error, asyncio.CancelledError)
            if STARTED in self._said and not told:  # perhaps hours before its stop
                traceback.print_exception(error)
        finally:
            self._news.set()

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind not in (STARTED, NOT_STARTED, STOPPED, NOT_STOPPED):
            raise BadAnswer(f"{kind!r:.200} is no message of a lifespan")
        self._said[kind] = str(message.get("message", ""))
        self._news.set()
