"""An ASGI 3 application as a `Worker`: http and lifespan. Many requests at once."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from ..common.errors import LoadError
from .app import Worker
from .async_hosting import was_asked_to_end
from .async_streams import AsyncStream
from .context import Context
from .core.streams import Abandoned
from .hosting import traceback_text
from .http_service import (
    WHOLE_MAX,
    BadAnswer,
    Pair,
    Streamed,
    answer,
    headers_of,
    incomplete,
    request_id,
    service,
    split_target,
    status_of,
)
from .websocket import WebSocket

Message = dict[str, Any]
Application = Callable[..., Awaitable[Any]]

_BYTES = (bytes, bytearray, memoryview)

STARTED, NOT_STARTED = "lifespan.startup.complete", "lifespan.startup.failed"
STOPPED, NOT_STOPPED = "lifespan.shutdown.complete", "lifespan.shutdown.failed"


def worker(application: Application, name: str) -> Worker:
    """A Worker that answers HTTP requests with `application`, and runs its lifespan from start to stop."""
    state: dict[str, Any] = {}
    lifespan, requests = _Lifespan(application, state), _Requests(application, state)

    made = service(name, requests.serve, requests.converse)
    made.on_start(lifespan.start_up)
    made.on_stop(lifespan.shut_down)
    return made


class _Requests:
    """The application runs in the task of its request, and goes on there after its answer (background tasks)."""

    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self._application = application
        self._state = state

    async def serve(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int,
        about: dict[str, Any],
    ) -> None:
        """The exchange gives the answer as soon as that is complete."""
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["method"] = "http", method
        exchange = _Exchange(method, body, ctx, scope["extensions"]["rota"]["request_id"])
        await self._perform(scope, exchange)

    async def converse(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int | None,
        about: dict[str, Any],
    ) -> None:
        """A WebSocket. What it has for an answer comes when both sides know of its end."""
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["subprotocols"] = "websocket", about.get("subprotocols", [])
        scope["extensions"]["websocket.http.response"] = {}
        socket = WebSocket(ctx, scope["extensions"]["rota"]["request_id"])
        await self._perform(scope, socket)

    async def _perform(self, scope: dict[str, Any], exchange: _Exchange | WebSocket) -> None:
        """Raises what the application raised before it had said all; what comes later is told on stderr."""
        try:
            await self._application(scope, exchange.receive, exchange.send)
        except BaseException as error:
            if exchange.over:
                return exchange.failed_late(error)
            exchange.over = True
            if was_asked_to_end():  # whatever it makes of that
                raise asyncio.CancelledError from error
            raise
        if not exchange.over:
            exchange.over = True
            if was_asked_to_end():
                raise asyncio.CancelledError
            await exchange.returned()


def _scope(
    ctx: Context, target: bytes, headers: list[Pair], about: dict[str, Any], state: dict[str, Any]
) -> dict[str, Any]:
    try:
        root = about["root"]
        raw, path, query = split_target(target, root)
        known_as = about.get("id") or request_id(ctx, headers)  # before the headers are read
        return {
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": about["version"],
            "scheme": about["scheme"],
            "path": path.decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "root_path": root,
            "headers": list(map(tuple, headers)),
            "client": tuple(about["client"]),
            "server": tuple(about["server"]),
            "state": state.copy(),
            "extensions": {"rota": {"request_id": known_as}},
        }
    except (KeyError, TypeError) as error:
        raise incomplete(about, error) from None


class _Exchange:
    """One request and what the application sends for it. `over`: that is all."""

    __slots__ = (
        "over",
        "_answer",
        "_blocks",
        "_body",
        "_cut",
        "_headers",
        "_left",
        "_method",
        "_request_id",
        "_status",
        "_stream",
        "_streamed",
        "_task",
        "_waiting",
    )

    def __init__(self, method: str, body: bytes | int, ctx: Context, known_as: str) -> None:
        task = asyncio.current_task()
        assert ctx.answer is not None and task is not None
        self.over = False
        self._task = task
        self._answer = ctx.answer
        self._status = 0
        self._headers: list[Pair] = []
        self._blocks: list[bytes] = []
        self._streamed: Streamed | None = None  # None: the answer is one message
        self._method = method
        self._body = body if isinstance(body, bytes) else None
        self._left = body if isinstance(body, int) else 0  # of an upload
        self._stream: AsyncStream | None = ctx.stream
        self._request_id = known_as
        self._cut = False  # the rest of the body is not sent anyway
        self._waiting: asyncio.Event | None = None  # somebody does, for the end

    async def receive(self) -> Message:
        """The body, in pieces if it is large; then, only when all is over or nobody waits any more, that the client is
        gone: whoever hears of that earlier gives up.
        """
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._left and self._stream is not None and not self.over:
            return await self._piece(self._stream)
        if self._stream is not None:
            await self._gone(self._stream)
        elif not self.over:
            self._waiting = self._waiting or asyncio.Event()
            await self._waiting.wait()
        return {"type": "http.disconnect"}

    async def _piece(self, stream: AsyncStream) -> Message:
        try:
            piece = await stream.read()
        except Abandoned:
            piece = b""
        self._left -= len(piece)
        if not piece:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self._left > 0}

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
            self._start(message)
        elif kind == "http.response.body":
            await self._extend(message)
        else:
            raise BadAnswer(f"{kind!r:.200} is no message of an answer: http.response.start or http.response.body")

    def _start(self, message: Message) -> None:
        if self._status:
            raise BadAnswer("http.response.start was sent twice")
        status = status_of(message)
        self._headers = headers_of(message)
        self._status = status

    async def _extend(self, message: Message) -> None:
        if not self._status:
            raise BadAnswer("http.response.body was sent before http.response.start")
        block = message.get("body", b"")
        if not isinstance(block, _BYTES):
            raise BadAnswer(f"the body must be bytes, not {type(block).__name__}")
        more = message.get("more_body", False)
        if self._stream is not None and (more or self._streamed is not None or len(block) > WHOLE_MAX):
            return await self._pour(self._stream, bytes(block), more)
        if block:
            self._blocks.append(bytes(block))  # a copy of what the application may change; bytes stay as they are
        if not more:
            self._end(answer(self._method, self._status, self._headers, b"".join(self._blocks)))

    async def _pour(self, stream: AsyncStream, block: bytes, more: bool) -> None:
        """It goes out now; returns when there is room for more."""
        if self._streamed is None:
            streamed = Streamed(self._method, self._status, self._headers)
            if not streamed.has_body:
                self._cut = True
                return self._end(answer(self._method, self._status, self._headers, b""))
            self._streamed = streamed
        data = self._streamed.piece(block)
        if not more:
            self._streamed.end()
        if data:
            await stream.write(data)
        if not more and not self.over:
            self._end(stream.finish())

    def _end(self, result: Any) -> None:
        """All is said."""
        self.over = True
        if self._stream is not None:
            self._stream.wake()
        elif self._waiting is not None:
            self._waiting.set()
        self._answer(result)

    async def returned(self) -> None:
        raise BadAnswer("the application returned before its answer was complete")

    def failed_late(self, error: BaseException) -> None:
        if not self._cut and not isinstance(error, asyncio.CancelledError):
            # Frameworks do so for every exception: they answer with a 500, then raise it again for the server's log.
            print(f"request {self._request_id}: after its answer:\n{traceback_text(error)}", end="", file=sys.stderr)


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
        if self._error is not None and not isinstance(self._error, Exception):
            raise self._ended_the_process()
        if self._error is not None:  # the specification's way to say it; a bug in a start looks the same
            kind = type(self._error).__name__
            print(f"the application takes no lifespan events: {kind}: {self._error}", file=sys.stderr)

    async def shut_down(self) -> None:
        assert self._task is not None
        if not self._task.done():
            await self._tell("lifespan.shutdown", STOPPED, NOT_STOPPED)
        if NOT_STOPPED in self._said:
            print(f"the application says that its stop failed: {self._said[NOT_STOPPED]}", file=sys.stderr)
        elif self._error is not None and STARTED in self._said:
            traceback.print_exception(self._error)

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
        finally:
            self._news.set()

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        if kind not in (STARTED, NOT_STARTED, STOPPED, NOT_STOPPED):
            raise BadAnswer(f"{kind!r:.200} is no message of a lifespan")
        self._said[kind] = str(message.get("message", ""))
        self._news.set()

    def _ended_the_process(self) -> LoadError:
        error = self._error
        return LoadError(f"the application ended the process in its start: {type(error).__name__}: {error}")
