"""Streams that are open all the time, of each kind, each written down in a ledger: `Streams`."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Self

import httpx
from stream_rig import Asked
from waiting import until
from websockets.asyncio.client import connect

import rota
from rota.common.streams import Outflow

from .ledger import Ledger
from .streams_app import PAUSE_S, SIZE, piece, pieces

SHORTEST, LONGEST = 20, 60  # pieces of a stream; the body of an upload of the shortest one is too large for one message
PATIENCE_S = 30.0  # for the next piece: longer than any takeover

_numbers = itertools.count(1)


class Wrong(Exception):
    """With a sentence: what came is not what was sent."""


class Stream:
    """What one of them has received."""

    def __init__(self, key: str, moved: Callable[[], None]) -> None:
        """`moved` is called whenever something comes."""
        self.key = key
        self.pieces = pieces(key)
        self.moved = moved
        self.number = 0  # of pieces that have come, the last perhaps in part
        self._ahead = b""

    def came(self, data: bytes) -> None:
        self.moved()
        while len(self._ahead) < len(data):
            self._ahead += piece(self.key, self.number)
            self.number += 1
        if not self._ahead.startswith(data):
            raise Wrong(f"{self.key}: not what was sent, at piece {self.number}")
        self._ahead = self._ahead[len(data) :]

    def whole(self) -> None:
        if self.number != self.pieces or self._ahead:
            raise Wrong(f"{self.key}: it ended after {self.number} of {self.pieces} pieces")


class Streams:
    """One of each kind at each door, and of the Python client, under way until it is stopped: each that ends brings
    the next one.

    with Streams(ledger, masters, ["127.0.0.1:8080"]) as streams:
        streams.more(20)   # returns when each has received so many more pieces

    `doors`: host:port of gateways. `stall`: the longest time in which one of them received nothing, in seconds.
    """

    def __init__(self, ledger: Ledger, masters: Sequence[str], doors: Sequence[str]) -> None:
        self.name = f"streams{next(_numbers)}"
        self.stall = 0.0
        self.stalled = ""  # which one
        self.begun = 0
        self._ledger, self._masters = ledger, masters
        self._lanes: list[tuple[Callable[[Stream, str], Awaitable[None]], str]] = [
            (kind, door)
            for door in doors
            for kind in (self._download, self._old_download, self._events, self._upload, self._old_upload, self._socket)
        ]
        self._lanes += [(self._echo, ""), (self._pour, "")]
        self._moves = [0] * len(self._lanes)
        self._stopped = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self.stop(0.0 if kind else PATIENCE_S)

    def more(self, count: int, within: float = PATIENCE_S) -> None:
        """Raises AssertionError, with those that stand still, when that takes longer."""
        wanted = [moves + count for moves in self._moves]

        def waiting() -> list[str]:
            lanes = zip(self._lanes, self._moves, wanted, strict=True)
            return [f"{kind.__name__} at {door or 'the master'}" for (kind, door), now, to in lanes if now < to]

        until(lambda: not waiting(), lambda: f"no {count} more pieces in {within:g} s: {waiting()}", within)

    def stop(self, within: float = PATIENCE_S) -> None:
        """No more of them; returns when those under way have ended, or the time is over (then they are lost)."""
        self._stopped = True
        self._thread.join(within)

    async def _all(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S, limits=limits, trust_env=False) as self._http,
            rota.AsyncClient(*self._masters) as self._client,
        ):
            await asyncio.gather(*(self._lane(number) for number in range(len(self._lanes))))

    async def _lane(self, lane: int) -> None:
        kind, door = self._lanes[lane]
        while not self._stopped:
            self.begun += 1
            key = f"{self.name}-{self.begun}-{kind.__name__[1:]}-{random.randint(SHORTEST, LONGEST)}"
            last = monotonic()

            def moved(key: str = key) -> None:
                nonlocal last
                now = monotonic()
                if now - last > self.stall:
                    self.stall, self.stalled = now - last, key
                last = now
                self._moves[lane] += 1

            self._ledger.submitted(key)
            try:
                await kind(Stream(key, moved), door)
                moved()
                self._ledger.answered(key, [key])
            except Exception as error:
                self._ledger.failed(key, error)
                await asyncio.sleep(PAUSE_S)  # one that only fails would spin

    # ---- the kinds -------------------------------------------------------------------------------------------------

    async def _download(self, stream: Stream, door: str) -> None:
        await self._read(stream, "GET", f"http://{door}/download")

    async def _old_download(self, stream: Stream, door: str) -> None:
        await self._read(stream, "GET", f"http://{door}/old/download")

    async def _upload(self, stream: Stream, door: str) -> None:
        await self._read(stream, "POST", f"http://{door}/upload")

    async def _old_upload(self, stream: Stream, door: str) -> None:
        await self._read(stream, "POST", f"http://{door}/old/upload")

    async def _read(self, stream: Stream, method: str, url: str) -> None:
        content = b"".join(piece(stream.key, number) for number in range(stream.pieces)) if method == "POST" else None
        async with self._http.stream(method, f"{url}?{stream.key}", content=content) as answer:
            if answer.status_code != 200:
                raise Wrong(f"{answer.status_code} {(await answer.aread()).decode()}")
            async for data in answer.aiter_raw():
                stream.came(data)
            stream.whole()

    async def _events(self, stream: Stream, door: str) -> None:
        async with self._http.stream("GET", f"http://{door}/events?{stream.key}") as answer:
            async for data in answer.aiter_raw():
                stream.came(data)
                if stream.number >= 2 * stream.pieces or self._stopped:
                    return
        raise Wrong(f"{answer.status_code}: events ended")

    async def _socket(self, stream: Stream, door: str) -> None:
        url = f"ws://{door}/socket?{stream.key}"
        async with connect(url, compression=None, ping_interval=None, proxy=None, open_timeout=PATIENCE_S) as socket:
            for number in range(stream.pieces):
                await socket.send(piece(stream.key, number))
                stream.came(await asyncio.wait_for(socket.recv(decode=False), PATIENCE_S))
                await asyncio.sleep(PAUSE_S)

    async def _echo(self, stream: Stream, door: str) -> None:
        asked = self._ask(stream, Outflow())
        for number in range(stream.pieces):
            asked.out.write(piece(stream.key, number))
            self._client.pour(asked)
            await self._take(stream, asked)
        asked.out.end()
        self._client.pour(asked)
        await self._result(stream, asked)

    async def _pour(self, stream: Stream, door: str) -> None:
        """Its process is always ahead, by as much as it may."""
        asked = self._ask(stream)
        for _ in range(stream.pieces):
            await self._take(stream, asked)
            self._client.taken(asked, SIZE)
        await self._result(stream, asked)

    def _ask(self, stream: Stream, out: Outflow | None = None) -> Asked:
        asked = Asked(out, slow=out is None)
        asked.client = self._client
        self._client.options(timeout=PATIENCE_S).start(asked, f"proof.{'pour' if out is None else 'echo'}", stream.key)
        return asked

    async def _take(self, stream: Stream, asked: Asked) -> None:
        """The next piece."""
        await asked.until(lambda: len(asked.got) >= SIZE or asked.over.done())
        stream.came(bytes(asked.got[:SIZE]))
        del asked.got[:SIZE]
        await asyncio.sleep(PAUSE_S)

    async def _result(self, stream: Stream, asked: Asked) -> None:
        if await asked.result() != stream.key:
            raise Wrong(f"{stream.key}: the result of another one")
        stream.whole()
