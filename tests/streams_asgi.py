"""An ASGI application that reads and answers piece by piece."""

import asyncio
import hashlib
import os
import resource

CLOSED = "ROTA_TEST_CLOSED"


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await globals()["socket_" + scope["path"][1:]](scope, receive, send)
        return
    assert scope["type"] == "http"
    path, query = scope["path"], scope["query_string"].decode()
    await globals()[path[1:]](Exchange(receive, send), query)


class Exchange:
    def __init__(self, receive, send):
        self.receive = receive
        self.raw_send = send
        self.begun = False

    async def pieces(self):
        more = True
        while more:
            message = await self.receive()
            assert message["type"] == "http.request", message
            more = message["more_body"]
            yield message["body"]

    async def send(self, body, more=True, status=200):
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", b"text/plain")]
            await self.raw_send({"type": "http.response.start", "status": status, "headers": headers})
        await self.raw_send({"type": "http.response.body", "body": body, "more_body": more})


def note(text):
    with open(os.environ[CLOSED], "a") as file:
        file.write(text + "\n")


async def status(exchange, query):
    await exchange.send(b"in", status=int(query))
    await exchange.send(b"pieces", more=False)


async def digest(exchange, query):
    seen = hashlib.sha256()
    async for piece in exchange.pieces():
        seen.update(piece)
    await exchange.send(seen.hexdigest().encode(), more=False)


async def echo(exchange, query):
    async for piece in exchange.pieces():
        await exchange.send(piece)
    await exchange.send(b"", more=False)


async def slowly(exchange, query):
    await asyncio.sleep(float(query))
    await digest(exchange, query)


async def late(exchange, query):
    """Reads nothing before there is such a file."""
    while not os.path.exists(query):
        await asyncio.sleep(0.01)
    await digest(exchange, query)


async def ignore(exchange, query):
    await exchange.send(b"read nothing", more=False)


async def many(exchange, query):
    block = bytes(range(256)) * 256
    for _ in range(int(query)):
        await exchange.send(block)
    await exchange.send(b"", more=False)


async def peak(exchange, query):
    await exchange.send(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode(), more=False)


async def half(exchange, query):
    await exchange.send(b"half")
    raise ValueError("in the middle")


async def die(exchange, query):
    await exchange.send(b"half")
    await asyncio.sleep(0.2)  # its first half is on the wire
    os._exit(3)


async def over(exchange, query):
    """More than it announces, in pieces of so many bytes."""
    length, piece = map(int, query.split(","))
    headers = [(b"content-length", b"%d" % length)]
    await exchange.raw_send({"type": "http.response.start", "status": 200, "headers": headers})
    exchange.begun = True
    try:
        for _ in range(length):
            await exchange.send(bytes(piece))
    except Exception as error:
        note(f"{type(error).__name__} {error}")


async def events(exchange, query):
    try:
        while True:
            await exchange.send(b"event\n")
            await asyncio.sleep(0.01)
    except OSError:
        note("closed")


async def begin(exchange, query):
    """The head of an answer, and nothing more until its caller is gone."""
    await exchange.send(b"")
    await wait_for_the_end(exchange)


async def listen(exchange, query):
    """Answers nothing until its caller is gone."""
    await wait_for_the_end(exchange)
    note("http.disconnect")


async def forever(exchange, query):
    """Sends until it is told to go."""
    gone = asyncio.ensure_future(wait_for_the_end(exchange))
    while not gone.done():
        await exchange.send(b"event\n")
        await asyncio.wait({gone}, timeout=0.01)
    await exchange.send(b"bye\n", more=False)


async def wait_for_the_end(exchange):
    while (await exchange.receive())["type"] != "http.disconnect":
        pass


async def plain(exchange, query):
    await exchange.send(b"whole", more=False)


async def large(exchange, query):
    await exchange.send(bytes(int(query)), more=False)


async def pid(exchange, query):
    await exchange.send(str(os.getpid()).encode(), more=False)


async def socket_echo(scope, receive, send):
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0], "headers": [(b"x-a", b"b")]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
        elif message.get("text") == "raise":
            raise ValueError("in a WebSocket")
        elif message.get("text") == "return":
            return
        else:
            await send({**message, "type": "websocket.send"})
    note(f"{message['type']} {message['code']} {message['reason']}")


async def socket_talk(scope, receive, send):
    """Only sends."""
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "text": "word"})
            await asyncio.sleep(0.005)
    except OSError as error:
        note(f"OSError {error}")


async def socket_listen(scope, receive, send):
    """Only hears."""
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    note(f"{message['type']} {message['code']} {message['reason']}")


async def socket_both(scope, receive, send):
    """One task hears, another closes."""
    await receive()
    await send({"type": "websocket.accept"})
    hears = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await send({"type": "websocket.close", "code": 4003, "reason": "said by another"})
    message = await hears
    note(f"{message['type']} {message['code']} {message['reason']}")


async def socket_refuse(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def socket_deny(scope, receive, send):
    assert "websocket.http.response" in scope["extensions"]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no name")]})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you?"})


async def socket_stranger(scope, receive, send):
    await send({"type": "websocket.accept", "subprotocol": "none that was offered"})


async def socket_waver(scope, receive, send):
    """It has begun to refuse, and then tries all else."""
    await send({"type": "websocket.http.response.start", "status": 401})
    for kind in ("accept", "close", "send", "http.response.start"):
        try:
            await send({"type": f"websocket.{kind}", "status": 200, "text": ""})
        except Exception as error:
            note(f"{type(error).__name__} {error}")
    await send({"type": "websocket.http.response.body", "body": b"no"})
    note((await receive())["type"])
    note((await receive())["type"])


async def socket_both_kinds(scope, receive, send):
    await send({"type": "websocket.accept"})
    for message in ({}, {"text": "a", "bytes": b"b"}, {"text": b"c"}, {"bytes": "d"}):
        try:
            await send({"type": "websocket.send", **message})
        except Exception as error:
            await send({"type": "websocket.send", "text": str(error), "bytes": None})


async def socket_late(scope, receive, send):
    """Accepts when there is such a file."""
    while not os.path.exists(scope["query_string"]):
        await asyncio.sleep(0.01)
    await socket_listen(scope, receive, send)


async def socket_return(scope, receive, send):
    await receive()


async def socket_flood(scope, receive, send):
    """Says more than anybody reads, and how much that was."""
    await send({"type": "websocket.accept"})
    said[scope["query_string"]] = 0
    try:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
            said[scope["query_string"]] += 1
    except OSError as error:
        note(f"OSError {error}")


async def socket_burst(scope, receive, send):
    """More than is under way at once, and then its end."""
    await send({"type": "websocket.accept"})
    for number in range(40):
        await send({"type": "websocket.send", "bytes": bytes([number]) * 100_000})
    await send({"type": "websocket.close", "code": 4002, "reason": "that was all"})


async def socket_deaf(scope, receive, send):
    """Hears nothing until it is woken; then it says how many bytes it heard."""
    await send({"type": "websocket.accept"})
    await receive()
    await awake.wait()
    heard = 0
    while (message := await receive())["type"] == "websocket.receive":
        heard += len(message["bytes"])
        await send({"type": "websocket.send", "text": str(heard)})
    note(f"{message['type']} {message['code']} {message['reason']}")


async def socket_scope(scope, receive, send):
    await send({"type": "websocket.accept"})
    fields = {key: scope[key] for key in ("scheme", "path", "query_string", "root_path", "subprotocols", "headers")}
    await send({"type": "websocket.send", "text": repr(fields)})


said = {}  # by query
awake = asyncio.Event()


async def count(exchange, query):
    await exchange.send(str(said[query.encode()]).encode(), more=False)


async def wake(exchange, query):
    awake.set()
    await exchange.send(b"", more=False)
