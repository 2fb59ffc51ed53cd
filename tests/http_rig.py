"""One HTTP connection without a socket: bytes in, what was dispatched and answered out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from rota.gateway.core.connection import Connection
from rota.gateway.core.effects import Close, Dispatch, Effect, Write
from rota.gateway.core.head import Heads
from rota.gateway.core.rules import RULES, Limits
from rota.gateway.core.shared import Shared, Timeouts
from rota.gateway.core.upload import NoRoom, Spool

DATE = b"Sun, 22 Nov 2026 08:49:37 GMT"


def shape(reason: str) -> str:
    """Of a reason, whatever the limit that it names."""
    return re.sub(r"\{\w+\}|\d+", "#", reason)


RULE_OF = {(rule.status, shape(rule.reason)): name for name, rule in RULES.items()}
OK = b"HTTP/1.1 200 OK\r\nDate: " + DATE + b"\r\nContent-Length: 0\r\n\r\n"
_PLAIN = re.compile(rb"HTTP/1.1 ([0-9]{3}) .*\r\n\r\n(.*)\n", re.DOTALL)


class Held:
    """A spool that is a list of bytes, and takes what `room` says."""

    room = 1_000_000

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        if self.size + len(data) > self.room:
            raise NoRoom
        self.data += data

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def close(self) -> None:
        self.closed = True


def whole(dispatch: Dispatch) -> bytes:
    body = dispatch.body
    return body if isinstance(body, bytes) else body.read(0, body.size)


class Verdict(NamedTuple):
    """What became of a sequence of bytes when each request was answered at once."""

    dispatched: list[Dispatch]
    rule: str | None  # that was broken
    closed: bool


LIMITS = Limits(line=8192, head=32768, headers=100, body=1 << 20)
TIMEOUTS = Timeouts(idle=5.0, head=10.0, body=10.0, body_rate=500, write=10.0, write_rate=8192)


def shared(
    limits: Limits = LIMITS,
    timeouts: Timeouts = TIMEOUTS,
    open_spool: Callable[[], Spool] = Held,
    heads: Heads | None = None,
    streams: int = 100,
) -> Shared:
    """What connections have in common. Each request is known as "-"."""
    heads = Heads(limits) if heads is None else heads
    return Shared(limits, timeouts, lambda: DATE, open_spool, lambda: "-", heads, streams)


def connection(limits: Limits = LIMITS, timeouts: Timeouts = TIMEOUTS) -> Connection:
    return Connection(shared(limits, timeouts), 0.0)


def broken_rule(data: bytes) -> str | None:
    """The rule that this answer names; None: it is no refusal."""
    plain = _PLAIN.fullmatch(data)
    return RULE_OF.get((int(plain[1]), shape(plain[2].decode()))) if plain is not None else None


def verdict(pieces: Iterable[bytes], limits: Limits = LIMITS, eof: bool = True) -> Verdict:
    """Feeds the pieces, answers what is dispatched, and checks what holds for any bytes at all."""
    subject = connection(limits)
    seen: list[Effect] = []

    def carry_out(effects: list[Effect]) -> None:
        while effects:
            seen.extend(effects)
            requests = [each for each in effects if isinstance(each, Dispatch)]
            assert len(requests) <= 1, "two requests at a time"
            effects = subject.answered(200, [], b"", 0.0) if requests else []

    for piece in pieces:
        at_once = subject.whole(piece)
        carry_out(subject.received(piece, 0.0) if at_once is None else [at_once])
    if eof:
        carry_out(subject.eof(0.0))
    closes = [at for at, each in enumerate(seen) if isinstance(each, Close)]
    assert closes in ([], [len(seen) - 1]), "it closes once, and nothing comes after"
    for each in seen:
        assert not isinstance(each, Dispatch) or each.head.chunked or len(whole(each)) == (each.head.length or 0)
    rules = [rule for each in seen if isinstance(each, Write) if (rule := broken_rule(each.data)) is not None]
    assert len(rules) <= 1, "one refusal"
    assert not rules or closes, "a refusal closes"
    return Verdict([each for each in seen if isinstance(each, Dispatch)], rules[0] if rules else None, bool(closes))


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(ends)]
