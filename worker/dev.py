"""Dev mode: WSGI and ASGI applications that answer their own exceptions with a page that shows them.

`rota run --reload` starts its processes with a variable that names a file; without it none of this is loaded. While
the file is there, the code on disk does not load: it holds the reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from . import error_page
from .error_page import Asked, Page
from .interface import DEV

Environ = dict[str, Any]
Message = dict[str, Any]
Headers = list[tuple[str, str]]


def wsgi(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterator[bytes]]:
    def serve(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
        result: Any = None
        try:
            if page := _broken(_asked_of_environ(environ)):
                start_response("500 Internal Server Error", _headers(page, broken=True))
                yield page.body
                return
            result = application(environ, start_response)
            for block in result:  # noqa: UP028 (`yield from` closes what it iterates over: it is closed below, once)
                yield block
        except Exception as error:
            page = _page(error, _asked_of_environ(environ))
            start_response("500 Internal Server Error", _headers(page), sys.exc_info())  # raises when it is too late
            yield page.body
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    return serve


def asgi(application: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
    async def serve(scope: Message, receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        asked = _asked_of_scope(scope)
        if page := _broken(asked):
            await _answer(send, page, _headers(page, broken=True))
            return
        held: list[Message] = []
        begun = False

        async def hold(message: Message) -> None:
            """Frameworks answer an exception with a 500 of their own, and then raise it: that answer waits for it."""
            nonlocal begun
            if held or (message["type"] == "http.response.start" and message.get("status") == 500):
                held.append(message)
                return
            begun = True
            await send(message)

        try:
            await application(scope, receive, hold)
        except Exception as error:
            if begun:
                raise
            page = _page(error, asked)
            await _answer(send, page, _headers(page))
            return
        for message in held:
            await send(message)

    return serve


async def _answer(send: Callable[..., Awaitable[None]], page: Page, headers: Headers) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 500, "headers": raw})
    await send({"type": "http.response.body", "body": page.body})


def _page(error: Exception, asked: Asked) -> Page:
    print(error_page.told(error, asked), end="", file=sys.stderr)
    return error_page.of_exception(error, asked)


def _broken(asked: Asked) -> Page | None:
    """What people look at says that the code is broken; all else is served by the code that was loaded before."""
    if asked.line.startswith("GET ") and asked.wants_html():
        try:
            with open(os.environ[DEV], encoding="utf-8") as file:
                return error_page.of_broken_code(file.read(), asked)
        except FileNotFoundError:
            pass
    return None


def _headers(page: Page, broken: bool = False) -> Headers:
    mark = [(error_page.BROKEN, "1")] if broken else []
    return [
        ("content-type", page.kind),
        ("content-length", str(len(page.body))),
        ("cache-control", "no-store"),
        *mark,
    ]


def _asked_of_environ(environ: Environ) -> Asked:
    """Header names are spelled as the gateway sends them: environ knows no others."""
    headers = [
        (key.removeprefix("HTTP_").replace("_", "-").lower(), str(value))
        for key, value in environ.items()
        if key.startswith("HTTP_") or (key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    ]
    return Asked(environ["rota.request_id"], f"{environ['REQUEST_METHOD']} {environ['REQUEST_URI']}", headers)


def _asked_of_scope(scope: Message) -> Asked:
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    return Asked(scope["extensions"]["rota"]["request_id"], f"{scope['method']} {target.decode('latin-1')}", headers)
