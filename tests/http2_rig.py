"""One HTTP/2 connection without a socket, and a client for it: h2's own, or bytes made by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

import h2.config
import h2.connection
import h2.events
from hpack import Decoder, Encoder
from http_rig import LIMITS, TIMEOUTS, shared

from rota.gateway.core.effects import Asked, Close, Failed, Gone, Rebuffed, Reset, StreamEffect, Write
from rota.gateway.core.http2 import Http2
from rota.gateway.core.rules import Limits
from rota.gateway.core.shared import Timeouts

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
POST = [(":method", "POST"), *GET[1:]]
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(fields: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
    """A head that leaves the table of its connection alone."""
    return _block(tuple(fields))


@cache  # floods say the same thousands of times
def _block(fields: tuple[tuple[str | bytes, str | bytes], ...]) -> bytes:
    return bytes(Encoder().encode([(name, value, True) for name, value in fields]))


def request(stream: int, fields: Iterable[tuple[str | bytes, str | bytes]] = GET, flags: int = END_STREAM) -> bytes:
    return frame(HEADERS, block(fields), END_HEADERS | flags, stream)


START = PREFACE + frame(SETTINGS)


class Heard:
    """What was said to a client, by stream."""

    def __init__(self) -> None:
        self.statuses: dict[int, str] = {}
        self.bodies: dict[int, bytearray] = {}
        self.resets: dict[int, int] = {}
        self.ended: set[int] = set()
        self.goaway: int | None = None
        self.last = 2**31 - 1  # stream that is served, as GOAWAY says
        self.decoder = Decoder()
        self._buffer = b""

    def read(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 9 and len(self._buffer) >= (size := 9 + int.from_bytes(self._buffer[:3], "big")):
            kind, flags = self._buffer[3], self._buffer[4]
            number, payload = int.from_bytes(self._buffer[5:9], "big"), self._buffer[9:size]
            self._buffer = self._buffer[size:]
            if kind == HEADERS:
                assert flags & END_HEADERS
                self.statuses[number] = str(dict(self.decoder.decode(payload))[":status"])
            elif kind == DATA:
                self.bodies.setdefault(number, bytearray()).extend(payload)
            elif kind == RST_STREAM:
                self.resets[number] = int.from_bytes(payload, "big")
            elif kind == GOAWAY:
                assert self.goaway in (None, 0), "two ends"
                assert (flags, number, len(payload)) == (0, 0, 8)
                last, self.goaway = (int.from_bytes(each, "big") for each in (payload[:4], payload[4:8]))
                assert last <= self.last, "what was given up is not taken back (RFC 9113 6.8)"
                self.last = last
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                self.ended.add(number)


class Subject:
    """Answers nothing by itself. `said`: the events that its bytes are for a client."""

    def __init__(self, limits: Limits = LIMITS, timeouts: Timeouts = TIMEOUTS, start: bool = True, **more: Any) -> None:
        self.core = Http2(shared(limits, timeouts, **more), 0.0)
        self.answers = self.core.answers
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.initiate_connection()
        self.now = 0.0
        self.said: list[h2.events.Event] = []
        self.effects: list[StreamEffect] = []
        self.asked: list[Asked] = []
        self.closed = False
        self.heard = Heard()
        self.by_hand = not start
        if start:
            self.exchange()

    def exchange(self) -> Subject:
        """What the client has to say, and what is said to it, until neither says more."""
        while data := self.client.data_to_send():
            self.feed(data)
        return self

    def feed(self, data: bytes, reads: bool = True) -> Subject:
        return self.do(self.core.received(data, self.now), reads)

    def do(self, effects: list[StreamEffect], reads: bool = True) -> Subject:
        self.effects += effects
        assert not self.closed or not effects, effects
        for effect in effects:
            if isinstance(effect, Asked):
                self.asked.append(effect)
            elif isinstance(effect, Write):
                self.hear(effect.data)
            elif isinstance(effect, (Close, Reset)):
                self.closed = True
        if reads:
            self.pump()
        return self

    def drain(self) -> Subject:
        self.core.drain()
        return self.do([])

    def pump(self) -> None:
        while data := self.answers.output(self.now):
            self.hear(data)
        if settled := self.core.settled(self.now):
            self.do(settled)

    def hear(self, data: bytes) -> None:
        self.heard.read(data)
        if data and self.by_hand is False:
            self.said += self.client.receive_data(data)

    def tick(self, now: float) -> Subject:
        self.now = now
        due = self.core.next_deadline()
        assert due is None or due > now or not self.closed
        return self.do(self.core.tick(now))

    def answer(self, number: int, body: bytes = b"", status: int = 200, *headers: tuple[bytes, bytes]) -> Subject:
        self.answers.answered(number, status, headers, body)
        return self.do([])

    def abort(self, number: int) -> Subject:
        self.answers.abort(number)
        return self.do([])

    def statuses(self) -> dict[int, str]:
        """Of the answers so far, by stream."""
        return self.heard.statuses

    def body(self, number: int) -> bytes:
        return bytes(self.heard.bodies.get(number, b""))

    def resets(self) -> dict[int, int]:
        """Of streams, with their codes."""
        return self.heard.resets

    @property
    def goaway(self) -> int | None:
        """Its code."""
        return self.heard.goaway

    def gone(self) -> list[int]:
        return [each.stream for each in self.effects if isinstance(each, Gone)]

    def refused(self) -> list[int]:
        return [each.refused.status for each in self.effects if isinstance(each, Rebuffed)]

    def failed(self) -> list[Failed]:
        return [each for each in self.effects if isinstance(each, Failed)]

    def kinds(self) -> Counter[str]:
        return Counter(type(each).__name__ for each in self.effects)
