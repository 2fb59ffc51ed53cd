"""What is the same each time a head comes again: the call that it asks for, and mostly its answer. Pure.

Clients ask for the same page with the same bytes. So both ways are remembered as the bytes that go out, with gaps for
what differs: of the call (docs/HTTP.md) its body, the connection, and the id; of the answer date, id, and body.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ...client.calls import Address
from ...common.body import PARTS_FROM, Packed, Parts, bytes_head, decode_result, pack
from ...common.wire import Body
from .head import Head
from .requests import Peer
from .response import template
from .routes import Route

_CALL = b"\x92\x95"  # [[five arguments], {}]
_ABOUT = b"\x86"  # a map of six
_NO_NAMES = b"\x80"


class Plain:
    """A request that says nothing but arguments for a service. `likeness`: of its answers."""

    __slots__ = ("address", "likeness", "route", "_about", "_arguments", "_method", "_seen")

    def __init__(self, head: Head, route: Route, address: Address, passed: bytes) -> None:
        """`passed`: the headers that the service sees, packed."""
        self.route = route
        self.address = address
        self.likeness: Likeness | None = None
        self._method = head.method
        self._seen = b""  # of the last answer: all but the bytes of its body
        self._arguments = b"".join((_packed(head.method), bytes_head(len(head.target)), head.target, passed))
        self._about = _about(head.version, route.root)

    def call(self, body: bytes, peer: Peer, request_id: bytes) -> Packed:
        """What `encode_call` makes of it. `request_id`: of 31 bytes at most."""
        known_as = b"\xa2id%c%b" % (0xA0 + len(request_id), request_id)
        parts = (self._arguments, bytes_head(len(body)), body, self._about, peer.packed, known_as, _NO_NAMES)
        return b"".join(parts) if len(body) <= PARTS_FROM else Parts(*parts)

    def answered(self, data: Body) -> Any:
        """What `decode_result` makes of an answer. The second in a row that is like the one before is remembered: an
        application that sets a new cookie each time would make it be remembered in vain.
        """
        result = decode_result(data)
        if type(result) is list and len(result) == 3 and type(result[2]) is bytes:
            status, headers, body = result
            seen = bytes(data[: len(data) - len(body)])
            if seen != self._seen:
                self._seen = seen
            elif (parts := template(self._method, status, headers, len(body))) is not None:
                self.likeness = Likeness(seen, len(data), status, *parts)
        return result


class Likeness:
    """What answers have in common that differ in date, id, and body, and whose bodies are of one length."""

    __slots__ = ("status", "size", "_after", "_before", "_packed", "_whole")

    def __init__(self, packed: bytes, whole: int, status: int, before: bytes, after: bytes) -> None:
        self.status = status
        self.size = whole - len(packed)
        self._packed = packed
        self._whole = whole
        self._before = before
        self._after = after

    def response(self, data: Body, request_id: bytes, date: bytes) -> bytes | None:
        """What `response` makes of this answer; None: it is another one."""
        if len(data) != self._whole or data[: len(self._packed)] != self._packed:
            return None
        body = data[len(self._packed) :]
        return b"".join((self._before, request_id, b"\r\nDate: ", date, self._after, body))


@lru_cache(64)  # clients choose the methods, and choose from few
def _packed(method: str) -> bytes:
    return _CALL + pack(method)


@lru_cache(64)
def _about(version: str, root: str) -> bytes:
    return _ABOUT + _entries({"version": version, "root": root})


def _entries(named: dict[str, Any]) -> bytes:
    """Those of a map, without its head."""
    return pack(named)[1:]


def packed_peer(client: list[Any], server: list[Any], scheme: str) -> bytes:
    """What `about` says of a connection; what clients do not have in common at the end (worker/recurring.py)."""
    return _entries({"scheme": scheme, "server": server, "client": client})
