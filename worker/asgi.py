"""An ASGI 3 application as a `Worker`: http and lifespan. Many requests at once."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from ..common.errors import LoadError
from .app import Worker
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
from .streams import AsyncStream
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
    made.on_start(lifespan.start_up)
    made.on_stop(lifespan.shut_down)
    made.on_stop(requests.finish)  # first: the last stops first
    return made


class _Requests:
    def __init__(self, application: Application, state: dict[str, Any]) -> None:
        self._application = application
        self._state = state
        self._tasks: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

    async def serve(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int,
        about: dict[str, Any],
    ) -> list[Any] | None:
        """The answer as soon as it is complete: what the application does after it (background tasks) goes on. None
        when the caller has it already.
        """
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["method"] = "http", method
        exchange = _Exchange(method, body, ctx.stream, scope["extensions"]["rota"]["request_id"])
        await self._perform(scope, exchange)
        if exchange.streamed is None:
            return answer(method, exchange.status, exchange.headers, b"".join(exchange.blocks))
        await ctx.stream.finish()
        return None

    async def converse(
        self,
        ctx: Context,
        method: str,
        target: bytes,
        headers: list[list[bytes]],
        body: bytes | int | None,
        about: dict[str, Any],
    ) -> None:
        """A WebSocket, until both sides know of its end."""
        scope = _scope(ctx, target, headers, about, self._state)
        scope["type"], scope["subprotocols"] = "websocket", about.get("subprotocols", [])
        scope["extensions"]["websocket.http.response"] = {}
        socket = WebSocket(ctx.stream, scope["extensions"]["rota"]["request_id"])
        await self._perform(scope, socket)
        await socket.finish()

    async def _perform(self, scope: dict[str, Any], exchange: _Exchange | WebSocket) -> None:
        """Returns when the application has said all; raises what it raised before that."""
        task = asyncio.create_task(self._run(scope, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await exchange.over
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})  # it may clean up
            raise
        if exchange.error is not None:
            raise exchange.error

    async def finish(self) -> None:
        """What goes on after the last answer; the agent's stop_grace is its limit."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, scope: dict[str, Any], exchange: _Exchange | WebSocket) -> None:
        try:
            await self._application(scope, exchange.receive, exchange.send)
        except BaseException as error:  # a SystemExit that leaves a task would stop the loop
            exchange.ended(error)
        else:
            exchange.ended(None)


def _scope(
    ctx: Context, target: bytes, headers: list[Pair], about: dict[str, Any], state: dict[str, Any]
) -> dict[str, Any]:
    try:
        root = about["root"]
        raw, path, query = split_target(target, root)
        known_as = request_id(ctx, headers, about)  # before the headers are read
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
    """One request and what the application sends for it. `over` is set with the end of the answer, or of the
    application."""

    __slots__ = (
        "status",
        "headers",
        "blocks",
        "streamed",
        "over",
        "error",
        "_body",
        "_cut",
        "_left",
        "_method",
        "_request_id",
        "_stream",
    )

    def __init__(self, method: str, body: bytes | int, stream: AsyncStream | None, known_as: str) -> None:
        self.status = 0
        self.headers: list[Pair] = []
        self.blocks: list[bytes] = []
        self.streamed: Streamed | None = None  # None: the answer is one message
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: BaseException | None = None
        self._method = method
        self._body = body if isinstance(body, bytes) else None
        self._left = body if isinstance(body, int) else 0  # of an upload
        self._stream = stream
        self._request_id = known_as
        self._cut = False  # the rest of the body is not sent anyway

    async def receive(self) -> Message:
        """The body, in pieces if it is large; then, only when all is over or nobody waits any more, that the client is
        gone: whoever hears of that earlier gives up.
        """
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._left and self._stream is not None and not self.over.done():
            return await self._piece(self._stream)
        if self._stream is None:
            await asyncio.wait({self.over})
        else:
            await self._gone(self._stream)
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
        self.over.add_done_callback(lambda _: stream.wake())
        while not self.over.done() and not stream.abandoned and not (stream.leaving and self.streamed is not None):
            await stream.changed()

    async def send(self, message: Message) -> None:
        kind = message.get("type")
        if self.over.done():
            if self.over.cancelled() or self._cut:
                raise Abandoned("nobody waits for this answer any more")
            raise BadAnswer(f"{kind!r:.200} was sent after the end of the answer")
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            await self._extend(message)
        else:
            raise BadAnswer(f"{kind!r:.200} is no message of an answer: http.response.start or http.response.body")

    def _start(self, message: Message) -> None:
        if self.status:
            raise BadAnswer("http.response.start was sent twice")
        status = status_of(message)
        self.headers = headers_of(message)
        self.status = status

    async def _extend(self, message: Message) -> None:
        if not self.status:
            raise BadAnswer("http.response.body was sent before http.response.start")
        block = message.get("body", b"")
        if not isinstance(block, bytes | bytearray | memoryview):
            raise BadAnswer(f"the body must be bytes, not {type(block).__name__}")
        more = message.get("more_body", False)
        if self._stream is not None and (more or self.streamed is not None or len(block) > WHOLE_MAX):
            return await self._pour(self._stream, bytes(block), more)
        if block:
            self.blocks.append(bytes(block))  # a copy of what the application may change; bytes stay as they are
        if not more:
            self.over.set_result(None)

    async def _pour(self, stream: AsyncStream, block: bytes, more: bool) -> None:
        """It goes out now; returns when there is room for more."""
        if self.streamed is None:
            streamed = Streamed(self._method, self.status, self.headers)
            if not streamed.has_body:
                self._cut = True
                self.over.set_result(None)
                return
            self.streamed = streamed
        data = self.streamed.piece(block)
        if not more:
            self.streamed.end()
        if data:
            await stream.write(data)
        if not more and not self.over.done():
            self.over.set_result(None)

    def ended(self, error: BaseException | None) -> None:
        """The application has returned, or raised; when the answer is out already that is told on stderr."""
        if not self.over.done():
            self.error = error or BadAnswer("the application returned before its answer was complete")
            self.over.set_result(None)
        elif (
            error is not None
            and not self.over.cancelled()
            and not self._cut
            and not isinstance(error, asyncio.CancelledError)
        ):
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
