"""A caller that streams, as a gateway is one."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
from hosting_rig import arguments

import rota
from rota.client.streams import StreamCall
from rota.common.errors import Error
from rota.common.streams import Outflow, Replay
from rota.common.wire import Body

PATIENCE_S = 30


class Asked(StreamCall):
    """One request. `slow`: what comes is taken only when the test says so."""

    def __init__(self, out: Outflow | Replay | None = None, slow: bool = False) -> None:
        super().__init__()
        self.out = out
        self.got = bytearray()
        self.ended = False
        self.slow = slow
        self.over: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.client: rota.AsyncClient | None = None
        self._changed = asyncio.Event()

    def came(self, data: Body, more: bool) -> None:
        self.got += data
        self.ended = not more
        self._changed.set()
        if not self.slow and self.client is not None:
            self.client.taken(self, len(data))

    def room(self) -> None:
        self._changed.set()

    def finish(self, value: object, error: Error | None) -> None:
        self._changed.set()
        if self.over.done():
            return
        if error is None:
            self.over.set_result(value)
        else:
            self.over.set_exception(error)
            self.over.exception()  # a test that has what it wants need not ask how it ended

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def result(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return await self.over

    @property
    def opening(self) -> list[Any]:
        size = int.from_bytes(self.got[:4], "little")
        found: list[Any] = msgpack.unpackb(bytes(self.got[4 : 4 + size]))
        return found

    @property
    def content(self) -> bytes:
        return bytes(self.got[4 + int.from_bytes(self.got[:4], "little") :]) if len(self.got) > 4 else b""


def upload(content: bytes) -> Replay:
    return Replay(len(content), lambda offset, size: content[offset : offset + size])


def ask(
    client: rota.AsyncClient,
    target: bytes,
    content: bytes | None = None,
    *,
    method: str = "GET",
    handler: str = "site.http",
    slow: bool = False,
) -> Asked:
    """`content`: an upload stream of it."""
    asked = Asked(upload(content) if content is not None else None, slow)
    asked.client = client
    given = list(arguments(method if content is None else "POST", target))
    if content is not None:
        given[3] = len(content)
    client.start(asked, handler, *given)
    return asked


class Socket(Asked):
    """A WebSocket, as the gateway holds it."""

    def __init__(self) -> None:
        super().__init__(Outflow())
        self._items = msgpack.Unpacker()
        self._fed = 0

    def say(self, item: Any) -> None:
        assert isinstance(self.out, Outflow) and self.client is not None
        self.out.write(msgpack.packb(item))
        if isinstance(item, list):
            self.out.end()
        self.client.pour(self)

    async def accepted(self) -> list[Any]:
        await self.until(lambda: len(self.got) > 4 or self.over.done())
        return self.opening

    async def next(self) -> Any:
        """The next item; None: there is none any more."""
        while True:
            content = self.content
            self._items.feed(content[self._fed :])
            self._fed = len(content)
            for item in self._items:
                return item
            if self.ended or self.over.done():
                return None
            await self.until(lambda: len(self.content) > self._fed or self.ended or self.over.done())


def connect(client: rota.AsyncClient, target: bytes, subprotocols: list[str] | None = None) -> Socket:
    socket = Socket()
    socket.client = client
    given = list(arguments("GET", target, scheme="wss", subprotocols=subprotocols or ["chat"]))
    given[3] = None
    client.start(socket, "site.websocket", *given)
    return socket
