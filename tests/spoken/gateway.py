"""A gateway whose services answer anything: what its HTTP clients get is whole answers, or a cut connection."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from decimal import Decimal
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import msgpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import InvalidBodyLengthError, ProtocolError
from websocket_rig import KEY, close, frame, handshake, read

from rota.client import streams
from rota.client.calls import Calls
from rota.common import wire
from rota.common.body import decode_error, encode_result
from rota.common.settings import HttpSettings, ServiceHttpSettings
from rota.common.streams import Chunk, Credit
from rota.gateway import request as request_module
from rota.gateway import server
from rota.gateway import websocket as websocket_module
from rota.gateway.core.routes import routes
from rota.gateway.http2 import Http2Protocol
from rota.gateway.pages import ServicePages
from rota.gateway.protocol import HttpProtocol

from .chance import ODD
from .history import Violation

TOKEN = 7
SERVICES = {
    "site": ServiceHttpSettings(routes=("/",), calls=True),
    "shop": ServiceHttpSettings(routes=("/shop",), affinity="cookie"),
}
NAMES = (
    b"x-a",
    b"X-A",
    b"content-length",
    b"Content-Length",
    b"date",
    b"set-cookie",
    b"transfer-encoding",
    b"connection",
)
ODD_NAMES = (
    b"",
    b" ",
    b"x:y",
    b"x\r\nx-injected",
    b":status",
    b"x\0",
    b"x" * 5000,
    b"\xff",
    b"upgrade",
    b"te",
    b"trailer",
)
VALUES = (b"", b"1", b"5", b"05", b"+5", b"5, 5", b"chunked", b"close", b"a\xff", b"x" * 5000, b" a\t")
ODD_VALUES = (
    b"\r\nx-injected: 1",
    b"a\nx-injected: 1",
    b"a\r\n\r\nHTTP/1.1 200 OK\r\nx-injected: 1\r\n\r\n",
    b"\0",
    b"\x7f",
)
INJECTED = b"HTTP/1.1 200 OK\r\nx-injected: 1\r\ncontent-length: 0\r\n\r\n"
STATUSES = (200, 200, 200, 204, 205, 304, 404, 426, 500, 599)
ODD_STATUSES = (
    0,
    1,
    100,
    101,
    103,
    199,
    600,
    999,
    -200,
    1 << 63,
    True,
    None,
    "200",
    b"200",
    200.0,
    200.5,
    [200],
    {},
    Decimal(200),
    float("nan"),
)
NESTED = b"\x91" * 600 + b"\xc0"
_HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\x00-\x08\x0a-\x1f\x7f]*")
_STATUS = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [ -~]*")


class Transport(asyncio.Transport):
    def __init__(self, world: GatewayWorld, protocol: HttpProtocol | Http2Protocol) -> None:
        self.data = bytearray()
        self.closed = self.half = False
        self._world, self._protocol = world, protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return SimpleNamespace(setsockopt=lambda *_: None) if name == "socket" else ("192.0.2.1", 5)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        if self.half:
            raise Violation("written behind its end")
        if not self.closed:
            self.data += data

    def write_eof(self) -> None:
        self.half = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._world.loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Connected:
    """A client of it. `asked`: the methods of its requests."""

    def __init__(self, world: GatewayWorld) -> None:
        self.protocol = HttpProtocol(world.gateway)
        self.transport = Transport(world, self.protocol)
        self.asked: list[str] = []
        self.socket = False
        self.protocol.connection_made(self.transport)

    def says(self, data: bytes) -> None:
        if not self.transport.closed:
            self.protocol.data_received(data)

    def check(self) -> int:
        """How many answers there are in whole. Raises Violation if there is more than answers in what came."""
        data, at = bytes(self.transport.data), 0
        for place, method in enumerate(self.asked):
            end = data.find(b"\r\n\r\n", at)
            if end < 0:
                return place
            first, *lines = data[at:end].split(b"\r\n")
            if not _STATUS.fullmatch(first) or not all(map(_HEADER.fullmatch, lines)):
                raise Violation("the head of an answer is none")
            fields = [tuple(line.lower().split(b": ", 1)) for line in lines]
            names = [name for name, _ in fields]
            if b"x-injected" in names or names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
                raise Violation("a header that nobody gave, or two that say where it ends")
            at = end + 4
            status, said = int(first[9:12]), dict(fields)
            if status == 101:
                read(data[at:])
                return place + 1
            if method == "HEAD" or status in (204, 304):
                continue
            if b"content-length" in said:
                at += int(said[b"content-length"])
                if at > len(data):
                    return place
            elif b"transfer-encoding" in said:
                while (size_end := data.find(b"\r\n", at)) >= 0:
                    size = int(data[at:size_end], 16)
                    at = size_end + 2 + size + 2
                    if at > len(data) or data[at - 2 : at] != b"\r\n":
                        if at <= len(data):
                            raise Violation("a chunk of another length")
                        return place
                    if not size:
                        break
                else:
                    return place
            else:
                return place + self.transport.closed
        if at != len(data):
            raise Violation("something came behind the last answer")
        return len(self.asked)


class Multiplexed:
    """A client over HTTP/2, of which h2 judges what comes. `open`: streams without the end of an answer."""

    def __init__(self, world: GatewayWorld) -> None:
        self.protocol = Http2Protocol(world.gateway)
        self.transport = Transport(world, self.protocol)
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.open: dict[int, bool] = {}  # and whether its answer has begun
        self._read = 0
        self.client.initiate_connection()
        self.protocol.secured(self.transport)  # type: ignore[arg-type]
        self.exchange()

    def asks(self, method: str, target: str) -> None:
        if self.transport.closed or self.transport.half or len(self.open) > 50:
            return
        number = self.client.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", "a"), (":path", target)]
        self.client.send_headers(number, fields, end_stream=True)
        self.open[number] = False
        self.exchange()

    def exchange(self) -> None:
        for _ in range(20):
            data, self._read = bytes(self.transport.data[self._read :]), len(self.transport.data)
            try:
                events = self.client.receive_data(data) if data else []
            except InvalidBodyLengthError as error:
                if error.actual_length:  # else a 304, which may say how long the body would be (RFC 9110 8.6)
                    raise Violation("a body of another length over HTTP/2") from None
                return self.transport.close()
            except ProtocolError as error:
                raise Violation(f"over HTTP/2: {error!r}") from None
            for event in events:
                self._happened(event)
            said = self.client.data_to_send()
            if said and not self.transport.closed:
                self.protocol.data_received(said)
            elif not data:
                return

    def _happened(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0)
        if isinstance(event, ResponseReceived):
            if self.open[number] or b"x-injected" in dict(event.headers):
                raise Violation("a second answer over HTTP/2, or a header that nobody gave")
            self.open[number] = True
        elif isinstance(event, DataReceived):
            self.client.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, StreamEnded | StreamReset):
            self.open.pop(number, None)


class Driver:
    """In the place of a client's: a call table, and what is said goes to the world."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.calls = Calls()
        self.calls.opened(TOKEN, 1, False, 1 << 20, 0.0)

    def post(self, call: Any) -> None:
        if (error := self.calls.submit(call)) is not None:
            call.finish(None, error)

    def say(self, call: Any) -> None:
        self.calls.say(call)

    def withdraw(self, call: Any) -> None:
        self.calls.cancel(call)

    def forget(self) -> None:
        """Its gateway is no more."""


class GatewayWorld:
    actions: ClassVar[Mapping[str, int]] = {
        "client_asks": 10,
        "client_asks_over_http2": 6,
        "client_says": 4,
        "client_takes_nothing": 2,
        "client_leaves": 2,
        "service_answers": 8,
        "service_streams": 12,
        "service_fails": 4,
        "the_same_again": 3,
    }

    ended = False

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.noted: list[str] = []
        self._patches = [patch.object(module, "note", self.noted.append) for module in (server, request_module)]
        for each in self._patches:
            each.start()
        self.clients: list[Connected] = []
        self.multiplexed: list[Multiplexed] = []
        self.chance = Random(7)
        self.sequence = 0
        self.raised: list[Any] = []
        self.loop.set_exception_handler(lambda loop, context: self.raised.append(context))
        self._within(self._begin())

    async def _begin(self) -> None:
        settings = HttpSettings(access_log="json")
        start = server.Start(settings, routes(SERVICES), SERVICES)
        self.gateway = server.Gateway(start, ServicePages({}), None, True)
        self.gateway._access._fd = -1
        self.gateway._access.flush = lambda: None  # type: ignore[method-assign]
        self.driver = Driver(self.loop)
        self.gateway.client._home.known = self.driver  # type: ignore[assignment]
        self.calls = self.driver.calls

    def restore(self) -> None:
        for each in self._patches:
            each.stop()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.close()

    def _within(self, action: Coroutine[Any, Any, None]) -> None:
        async def settled() -> None:
            await action
            for _ in range(4):
                await asyncio.sleep(0)
                for each in self.multiplexed:
                    each.exchange()

        self.loop.run_until_complete(settled())

    # ---- clients -----------------------------------------------------------------------------------------------------

    def client_asks(self, chance: Random) -> None:
        self._within(self._asks(chance))

    async def _asks(self, chance: Random) -> None:
        if not self.clients or chance.random() < 0.5:
            self.clients.append(Connected(self))
        client = chance.choice(self.clients[-4:])
        if client.transport.closed or client.socket:
            return
        data = b""
        for _ in range(chance.choice([1, 1, 1, 3])):
            kind = chance.choice(["GET", "GET", "GET", "HEAD", "POST", "call", "socket"])
            client.asked.append("GET" if kind == "socket" else "POST" if kind == "call" else kind)
            if kind == "socket":
                data += handshake("/", "Sec-WebSocket-Protocol: chat", key=KEY)
                client.socket = True
                break
            target = "/-/call/site/book" if kind == "call" else chance.choice(["/a", "/a", "/shop/b"])
            more = chance.choice(
                ["", "", "Connection: close\r\n", "Accept: text/html\r\n", "Accept: application/json\r\n"]
            )
            body = "{}" if kind == "call" else "body"
            if kind in ("POST", "call"):
                more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            version = chance.choice(["1.1", "1.1", "1.1", "1.0"])
            data += f"{client.asked[-1]} {target} HTTP/{version}\r\nHost: a\r\n{more}\r\n".encode()
            data += body.encode() if kind in ("POST", "call") else b""
        client.says(data)

    def client_asks_over_http2(self, chance: Random) -> None:
        self._within(self._asks_over_http2(chance))

    async def _asks_over_http2(self, chance: Random) -> None:
        if not self.multiplexed or chance.random() < 0.2:
            self.multiplexed.append(Multiplexed(self))
        for _ in range(chance.choice([1, 3])):
            chance.choice(self.multiplexed).asks(
                chance.choice(["GET", "GET", "HEAD"]), chance.choice(["/a", "/shop/b"])
            )

    def client_says(self, chance: Random) -> None:
        self._within(self._says(chance))

    async def _says(self, chance: Random) -> None:
        sockets = [client for client in self.clients if client.protocol.core is not client.protocol._http]
        if sockets:
            said = [
                frame(1, b"text"),
                frame(2, b"x" * 70_000),
                frame(9),
                close(1000),
                frame(8),
                frame(1, b"\xff"),
                b"odd",
            ]
            chance.choice(sockets).says(b"".join(chance.choices(said, k=chance.choice([1, 3]))))

    def client_takes_nothing(self, chance: Random) -> None:
        self._within(self._takes_nothing(chance))

    async def _takes_nothing(self, chance: Random) -> None:
        for client in (*self.clients, *self.multiplexed):
            if not client.transport.closed and not client.transport.half:
                client.protocol.pause_writing() if chance.random() < 0.3 else client.protocol.resume_writing()

    def client_leaves(self, chance: Random) -> None:
        self._within(self._leaves(chance))

    async def _leaves(self, chance: Random) -> None:
        if self.multiplexed and chance.random() < 0.2:
            chance.choice(self.multiplexed).transport.close()
        if self.clients:
            client = chance.choice(self.clients)
            if client.transport.closed:
                return
            if chance.random() < 0.5:
                client.transport.close()
            elif not client.protocol.eof_received():
                client.transport.close()

    # ---- services ----------------------------------------------------------------------------------------------------

    def fields(self, chance: Random) -> Any:
        if chance.random() < 0.1:
            return chance.choice(
                [*ODD, [1, 2], [[b"a"]], [[b"a", b"b", b"c"]], [["x-a", b"1"]], [[b"x-a", "1"]], [["ab", "cd"]]]
            )
        count = chance.choice([0, 1, 3, 3])
        found: list[Any] = [[chance.choice(NAMES), chance.choice(VALUES)] for _ in range(count)]
        if chance.random() < 0.25:
            odd: list[Any] = [[chance.choice(ODD_NAMES), b"1"], [b"x-a", chance.choice(ODD_VALUES)]]
            odd += [[chance.choice(ODD), b"1"], [b"content-length", chance.choice(ODD)], [b"x-a", chance.choice(ODD)]]
            found.append(chance.choice(odd))
        return found

    def status(self, chance: Random) -> Any:
        return chance.choice(STATUSES if chance.random() < 0.85 else ODD_STATUSES)

    def body(self, chance: Random) -> Any:
        usual = [b"", b"body!", INJECTED, b"x" * 70_000]
        return chance.choice(usual if chance.random() < 0.9 else [*ODD, [b"body"]])

    def result(self, chance: Random) -> bytes:
        if chance.random() < 0.1:
            return chance.choice([b"", b"\xc1", b"\xc0", NESTED, b"\x93\xcc\xc8" + NESTED + b"\xc0", INJECTED])
        given: Any = [self.status(chance), self.fields(chance), self.body(chance)]
        if chance.random() < 0.1:
            given = chance.choice([*ODD, given[:2], [*given, 1], dict(enumerate(map(str, given)))])
        try:
            return encode_result(given) + b""
        except TypeError:
            return b"\xc0"

    def head(self, chance: Random) -> bytes:
        given: Any = [self.status(chance), self.fields(chance)]
        if chance.random() < 0.4:
            given = [chance.choice([101, 101, 200]), [], None]
        elif chance.random() < 0.4:
            given = [101, self.fields(chance), chance.choice([None, None, "chat", "odd", 5, "x\r\nx-injected: 1"])]
        if chance.random() < 0.1:
            given = chance.choice([*ODD, given[:1], given[1], [*given, 1]])
        try:
            packed: bytes = msgpack.packb(given)
        except (TypeError, ValueError, OverflowError):
            packed = b"\xc1"
        packed = packed if chance.random() < 0.95 else chance.choice([b"", NESTED, packed + b"x", packed[:-1]])
        length = chance.choice([*[len(packed)] * 20, 0, len(packed) + 1, (1 << 32) - 1])
        return length.to_bytes(4, "little") + packed

    def piece(self, chance: Random) -> bytes:
        items = [
            "text",
            b"bytes",
            "x" * 70_000,
            [1000, "bye"],
            [1005, ""],
            [9, ""],
            [1000, "x" * 200],
            [1 << 63, "\x00"],
        ]
        items += [["1000", ""], [1000, b""], [1000], [], {}, None, 5, 1.5, [[[]], ""], [1000, "bye", 1]]
        packed: bytes = msgpack.packb(chance.choice(items[: chance.choice([3, 7, len(items)])]))
        return chance.choice([b"", b"body!", INJECTED, packed, packed, packed[:-1], b"x" * 60_000, b"\x92" * 3000])

    def which(self, chance: Random) -> Any:
        self.calls.frames(0.0, 10_000)
        live = list(self.calls._sent.values())
        sockets = [call for call in live if isinstance(call, websocket_module.Socket)]
        return chance.choice(sockets if sockets and chance.random() < 0.5 else live) if live else None

    def answered(self, call: Any, code: int, body: bytes) -> None:
        """As a session does it."""
        self.sequence += 1
        if self.calls.answered(call.number, self.sequence, len(body)) is call:
            call.returned(memoryview(body)) if not code else call.finish(None, decode_error(code, body))

    def service_answers(self, chance: Random) -> None:
        self._within(self._answers(chance))

    async def _answers(self, chance: Random) -> None:
        if (call := self.which(chance)) is not None:
            self.answered(call, 0, self.result(chance) if chance.random() < 0.8 else b"\xc0")

    def the_same_again(self, chance: Random) -> None:
        """What is answered in the same way is remembered."""
        self._within(self._same(chance))

    async def _same(self, chance: Random) -> None:
        client, body = Connected(self), self.result(chance)
        self.clients.append(client)
        for _ in range(4):
            if client.transport.closed:
                return
            client.asked.append("GET")
            client.says(b"GET /same HTTP/1.1\r\nHost: a\r\n\r\n")
            self.calls.frames(0.0, 10_000)
            self.answered(list(self.calls._sent.values())[-1], 0, body)

    def service_fails(self, chance: Random) -> None:
        self._within(self._fails(chance))

    async def _fails(self, chance: Random) -> None:
        if (call := self.which(chance)) is not None:
            told = chance.choice(["why", "<b>\r\nx-injected: 1", "\x00", 5])
            fields = {"cause": told, "retry_after_ms": chance.choice([0, 5, (1 << 63), -5]), "told": told, "code": told}
            fields |= {"type": told, "message": told, "maintenance": chance.choice([True, False, 5])}
            fields |= {"size": chance.choice([5, "5"]), "limit": 4, "unknown": "handler", "what": "result"}
            body = chance.choice([encode_result(fields) + b"", b"", b"\xc1"])
            self.answered(call, chance.choice([*range(1, 12), *range(13, 22), 65_535]), body)

    def service_streams(self, chance: Random) -> None:
        self._within(self._streams(chance))

    async def _streams(self, chance: Random) -> None:
        if (call := self.which(chance)) is None:
            return
        for _ in range(chance.choice([1, 1, 4])):
            at = call.into.received
            data = self.piece(chance) if at and chance.random() < 0.95 else self.head(chance)
            if chance.random() < 0.3:
                data += self.piece(chance)
            said: Chunk | Credit = Chunk(at, data, chance.random() < 0.85)
            if chance.random() < 0.2 and call.out is not None:
                said = Credit(call.out.received + (256 << 10), call.out.received, chance.random() < 0.3)
            frame = said.frame(TOKEN, call.number, 1, 1) if isinstance(said, Chunk) else said.frame(TOKEN, call.number)
            for failed, error in streams.received(self.calls, wire.parse(frame), frame, 0.0):
                failed.finish(None, error)

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        if self.raised:
            raise self.raised[0].get("exception") or Violation(str(self.raised[0]))
        for text in self.noted:
            if text.startswith("Traceback"):
                raise Violation("noted: " + " / ".join(text.strip().splitlines()[-3:]))
        for client in self.clients:
            client.check()

    def end(self) -> None:
        """Services fail, and all have their answer, or no connection any more."""
        self._within(self._ends())
        self.check()
        for client in self.clients:
            gone = client.transport.closed or client.transport.half
            if not gone and not client.socket and client.check() < len(client.asked):
                raise Violation("somebody waits for ever")
        for each in self.multiplexed:
            if each.open and not each.transport.closed and not each.transport.half:
                raise Violation("somebody waits for ever over HTTP/2")

    async def _ends(self) -> None:
        for _ in range(50):
            for each in (*self.clients, *self.multiplexed):
                if not each.transport.closed and not each.transport.half:
                    each.protocol.resume_writing()
            if (call := self.which(self.chance)) is None:
                break
            self.answered(call, 9, b"")
            await asyncio.sleep(0)
