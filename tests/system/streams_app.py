"""Answers that take seconds: an ASGI and a WSGI application, and a `rota.Worker`. Executions are written down as in
`app.py`.
"""

import asyncio
import itertools
import os
import time

import rota

SIZE = 16 * 1024  # of a piece
PAUSE_S = 0.05  # between two pieces

proof = rota.Worker("proof")


def piece(key: str, number: int) -> bytes:
    """The same is sent by who asks and by who answers: neither may be without any of it."""
    return f"{key} {number}\n".encode().rjust(SIZE, b".")


def pieces(key: str) -> int:
    """Its last part: so many are all of it."""
    return int(key.rpartition("-")[2])


def note(word: str, key: str) -> None:
    """One write a line: appended whole."""
    with open(os.environ["PROOF_FILE"], "ab", buffering=0) as file:
        file.write(f"{word} {key} {os.getpid()} {time.time()}\n".encode())


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            await send({"type": (await receive())["type"] + ".complete"})
    if scope["path"] == "/whole":
        await _start(send)
        return await _say(send, b"whole", False)
    key = scope["query_string"].decode()
    note("began", key)
    await globals()["asgi_" + scope["path"].rpartition("/")[2]](receive, send, key)
    note("ended", key)


async def _start(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})


async def _say(send, data, more=True):
    await send({"type": "http.response.body", "body": data, "more_body": more})


async def asgi_download(receive, send, key):
    await _start(send)
    for number in range(pieces(key)):
        await _say(send, piece(key, number))
        await asyncio.sleep(PAUSE_S)
    await _say(send, b"", False)


async def asgi_events(receive, send, key):
    """Until its caller is gone."""
    await _start(send)
    try:
        for number in itertools.count():
            await _say(send, piece(key, number))
            await asyncio.sleep(PAUSE_S)
    except OSError:
        pass


async def asgi_upload(receive, send, key):
    """Answers with what it reads, as it reads it."""
    await _start(send)
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        for at in range(0, len(message["body"]), SIZE):
            await _say(send, message["body"][at : at + SIZE])
            await asyncio.sleep(PAUSE_S)
    await _say(send, b"", False)


async def asgi_socket(receive, send, key):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def wsgi(environ, start_response):
    key = environ["QUERY_STRING"]
    note("began", key)
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    for each in globals()["wsgi_" + environ["PATH_INFO"][1:]](environ, key):
        yield each
        time.sleep(PAUSE_S)
    note("ended", key)


def wsgi_download(environ, key):
    return (piece(key, number) for number in range(pieces(key)))


def wsgi_upload(environ, key):
    return iter(lambda: environ["wsgi.input"].read(SIZE), b"")


@proof.handler
async def echo(ctx: rota.Context, key: str) -> str:
    note("began", key)
    while data := await ctx.stream.read():
        await ctx.stream.write(data)
    await ctx.stream.finish()
    note("ended", key)
    return key


@proof.handler
async def pour(ctx: rota.Context, key: str) -> str:
    """As fast as its caller takes it."""
    note("began", key)
    for number in range(pieces(key)):
        await ctx.stream.write(piece(key, number))
    await ctx.stream.finish()
    note("ended", key)
    return key
