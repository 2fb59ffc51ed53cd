"""Calls of a gateway (docs/HTTP.md) as a process reads them: what comes again is read once.

Clients ask for the same page with the same bytes. A gateway puts what differs behind all else: who asks, and the id
(gateway/core/plain.py). Any other order is read as any call is.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgpack import unpackb

from ..common.body import Packed, decode_call, pack
from ..common.http_calls import CLIENT
from ..common.wire import Body
from .binding import Binding

REMEMBERED = 512  # calls of 4 KiB at most; with what is made of them some MiB
SEEN = 8 * REMEMBERED

_CALL, _ABOUT, _NO_NAMES = b"\x92\x95", b"\x86", b"\x80"
_REST = b"\x82"  # a map of two


class Headers(list[list[bytes]]):
    """The headers of calls that differ in client and id only; nobody changes them. `made`: what hosting has made of
    such a call, to be copied.
    """

    __slots__ = ("made",)

    made: Any


class _Known(NamedTuple):
    method: str
    target: bytes
    headers: Headers
    about: dict[str, Any]


class RecurringBinding(Binding):
    """The binding of a handler that gateways call."""

    __slots__ = ("_known", "_seen")

    def __init__(self, name: str, function: Any) -> None:
        super().__init__(name, function)
        self._known: dict[bytes, _Known] = {}
        self._seen: set[int] = set()  # hashes of what came once: only what comes again is worth the trouble

    def read(self, body: Body, context: object) -> tuple[list[Any], dict[str, Any]]:
        if not isinstance(body, bytes) or (end := body.find(CLIENT)) < 0:
            return super().read(body, context)
        beginning = body[:end]
        known = self._known.get(beginning)
        if known is None:
            args, kwargs = decode_call(body)
            read = self.arguments(args, kwargs, context)
            if len(args) == 5 and args[3] == b"" and not kwargs:
                self._saw(beginning, *args)
            return read
        rest = _rest(body[end:])
        if rest is None:
            return super().read(body, context)
        method, target, headers, about = known
        return [context, method, target, headers, b"", about | rest], {}

    @staticmethod
    def write(result: Packed | None) -> Packed:
        """An answer is packed already; it is None when it went as a stream."""
        return pack(None) if result is None else result

    def _saw(
        self, beginning: bytes, method: str, target: bytes, headers: Any, body: bytes, about: dict[str, Any]
    ) -> None:
        mark = hash(beginning)
        if mark not in self._seen:
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen.add(mark)
            return
        always: dict[str, Any] = {
            name: about[name] for name in ("version", "root", "scheme", "server") if name in about
        }
        said = b"".join(map(pack, (method, target, headers, body)))
        if beginning == _CALL + said + _ABOUT + pack(always)[1:]:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = Headers(headers)
            known.made = None
            self._known[beginning] = _Known(method, target, known, always)


def _rest(data: Body) -> dict[str, Any] | None:
    """Client and id of such a call. None: it is to be read as any other is, such as a call with an idempotency key,
    whose id is not in its body.
    """
    try:
        rest: dict[str, Any] = unpackb(_REST + data[:-1])
    except Exception:  # msgpack raises many unrelated types
        return None
    return rest if data[-1:] == _NO_NAMES and rest.get("id") else None
