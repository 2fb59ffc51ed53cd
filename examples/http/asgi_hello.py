"""An ASGI application without a framework: `rota run asgi_hello.py:application` in this folder serves it.

GET / says hello, POST / sends back what it gets. What is opened at the start (`lifespan`) is there in each request.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["path"] != "/":
        await answer(send, 404, b"there is nothing here\n")
    elif scope["method"] == "POST":
        await answer(send, 200, await body_of(receive))
    else:
        await answer(send, 200, b"hello from ASGI, serving since %s\n" % scope["state"]["since"])


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    scope["state"]["since"] = time.strftime("%H:%M:%S").encode()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def body_of(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
