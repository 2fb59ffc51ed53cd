"""What WSGI and ASGI hosting have in common: the handlers of docs/HTTP.md, and what is checked of an answer."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from msgpack import packb

from ..common.body import PARTS_FROM, Packed, Parts, bytes_head, pack
from .app import Worker
from .context import Context
from .recurring import RecurringBinding
from .tracebacks import traceback_text

Pair = list[bytes]  # [name, value]: a list, as a tuple costs more on the wire

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 section 5.6.2
_control_in = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search  # all but the tab, RFC 9110 section 5.5
_RESULT = b"\x93"  # [status, headers, body]
_BESIDE = ("x-request-id", "traceparent")
_BODILESS = (204, 304)  # their Content-Length, if any, is that of another answer


class BadAnswer(Exception):
    """The application broke the rules of its interface; the sentence says which."""


def tell(known_as: str, when: str, error: BaseException) -> None:
    """Print what the application raised when its caller hears nothing more, with the id of the request."""
    print(f"request {known_as}: {when}:\n{traceback_text(error)}", end="", file=sys.stderr)


def service(name: str, http: Callable[..., Any], websocket: Callable[..., Any]) -> Worker:
    """The Worker of an application: both take (ctx, method, target, headers, body, about).

    A gateway calls `http-safe` for what may run twice, so a lost attempt is made again there and nowhere else.
    """
    worker = Worker(name)
    worker.handler(name="websocket")(websocket)
    worker.handler(name="http")(http)
    worker.handler(name="http-safe", idempotent=True)(http)
    for handler in (worker.handlers["http"], worker.handlers["http-safe"]):
        handler.binding = RecurringBinding(handler.binding.name, http)
    return worker


def split_target(target: bytes, root: str) -> tuple[bytes, bytes, bytes]:
    """Path as sent, path with its percent signs decoded, query. ValueError if the path is not below `root`."""
    raw, _, query = target.partition(b"?")
    path = unquote_to_bytes(raw) if 0x25 in raw else raw  # "%": to ask for bytes of length 1 takes five times as long
    if raw != b"*":
        if not path.startswith(b"/"):
            raise ValueError(f"the target {target[:200]!r} does not begin with a slash")
        if root and not (path + b"/").startswith(root.encode() + b"/"):
            raise ValueError(f"the target {target[:200]!r} is not below the root {root!r}")
    return raw, path, query


def request_id(ctx: Context, headers: list[Pair]) -> str:
    """The id of a request that has none in `about`. A call with an idempotency key has it beside its arguments, which
    must be the same at each try, as it has these headers; they are put back.
    """
    headers += [[name.encode(), ctx.headers[name].encode()] for name in _BESIDE if name in ctx.headers]
    return ctx.headers.get("x-request-id", ctx.request_id)


def incomplete(about: object, error: Exception) -> ValueError:
    """What to raise when argument 5 lacks something, which is the caller's mistake and not the application's."""
    return ValueError(
        f"`about` must have scheme, version, client, server and root, as docs/HTTP.md says: {error!r} in {about!r:.200}"
    )


@lru_cache(512)  # an application says the same with most answers
def header(name: bytes, value: bytes) -> Pair:
    """A header of an answer, checked. Nobody changes it."""
    if not _is_name(name):
        raise BadAnswer(f"{name[:200]!r} is not the name of a header")
    if _control_in(value):
        raise BadAnswer(f"the header {name.decode()} has a control character in its value: {value[:200]!r}")
    return [name, value.strip(b" \t")]  # no part of it (RFC 9110 section 5.5): Django begins its cookies with a blank


@lru_cache(256)  # an application uses few
def _is_name(name: bytes) -> bool:
    return _NAME.fullmatch(name) is not None


class Said(NamedTuple):
    """How an answer begins, checked. Nobody changes it. `lengths`: what Content-Length says in its headers. `packed`:
    all of it but the body, as it travels.
    """

    status: int
    headers: list[Pair]
    lengths: list[bytes]
    packed: bytes


def said_of(status: int, headers: list[Pair]) -> Said:
    lengths = [value for name, value in headers if len(name) == 14 and name.lower() == b"content-length"]
    return Said(status, headers, lengths, _RESULT + pack(status) + pack(headers))


def remembered(said: Any, status: object, fields: Iterable[Any]) -> Said:
    """Calls `said`, which has an lru_cache, with status and headers: most come again."""
    fields = tuple(fields)
    try:
        return said(status, fields)  # type: ignore[no-any-return]
    except TypeError:  # not all are tuples
        return said.__wrapped__(status, fields)  # type: ignore[no-any-return]


class Streamed:
    """The bytes of an answer that goes out as it comes into being: the opening of docs/HTTP.md, then the body.
    `exceeds`: there was more of that than was announced.
    """

    __slots__ = ("exceeds", "has_body", "_announced", "_opening", "_size")

    def __init__(self, method: str, said: Said) -> None:
        self.exceeds = False
        self.has_body = method != "HEAD" and said.status not in _BODILESS
        self._announced = content_length(said) if self.has_body else None
        self._opening = opening([said.status, said.headers])
        self._size = 0

    def piece(self, block: bytes) -> bytes:
        """What to send for it: no more than was announced, where a client stops to read."""
        before = self._size
        self._size += len(block)
        if self._announced is not None and self._size > self._announced:
            self.exceeds = True
            block = block[: max(0, self._announced - before)]
        first, self._opening = self._opening, b""
        return first + block if first else block

    def end(self) -> None:
        """BadAnswer if it is not what was announced."""
        if self._announced is not None and self._size != self._announced:
            raise self.other_length()

    def other_length(self) -> BadAnswer:
        return BadAnswer(f"its Content-Length is {self._announced}, its body has {self._size} bytes")


def opening(values: list[Any]) -> bytes:
    packed: bytes = packb(values)
    return len(packed).to_bytes(4, "little") + packed


def content_length(said: Said) -> int | None:
    """What the application announces; None: nothing. BadAnswer if it is no number."""
    if not said.lengths:
        return None
    value = said.lengths[0]
    if not value.isdigit():
        raise BadAnswer(f"its Content-Length is {value.decode('latin-1')[:40]!r}")
    return int(value)


def _status_of(status: object) -> int:
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise BadAnswer(f"the status must be a number from 200 to 999, not {status!r:.200}")
    return int(status)  # an HTTPStatus is an int that does not travel


def begun(message: dict[str, Any]) -> Said:
    """Of an ASGI message that begins an answer."""
    try:
        return remembered(_said, message.get("status"), message.get("headers", ()))
    except (TypeError, ValueError) as error:
        raise _unfit(error) from None


@lru_cache(512, typed=True)  # an application says the same with most answers; and 200.0 is no status
def _said(status: object, fields: tuple[tuple[bytes, bytes], ...]) -> Said:
    return said_of(_status_of(status), _checked(fields))


def headers_of(message: dict[str, Any]) -> list[Pair]:
    try:
        return _checked(tuple(message.get("headers", ())))
    except (TypeError, ValueError) as error:
        raise _unfit(error) from None


def _checked(fields: tuple[tuple[bytes, bytes], ...]) -> list[Pair]:
    try:
        return [header(name, value) for name, value in fields]
    except (AttributeError, TypeError):  # bytes of another type, or none at all
        return [header(bytes(name), bytes(value)) for name, value in fields]


def as_bytes(block: object) -> bytes:
    """Of a body that comes in ASGI messages: a copy of what the application may change."""
    if not isinstance(block, bytes | bytearray | memoryview):
        raise BadAnswer(f"the body must be bytes, not {type(block).__name__}")
    return bytes(block)


def _unfit(error: Exception) -> BadAnswer:
    return BadAnswer(f"the headers must be pairs of bytes: {error}")


def answer(method: str, said: Said, body: bytes) -> Packed:
    """The result of a handler, packed. BadAnswer if the application announced another length than its body has."""
    status, _, lengths, packed = said
    for length in lengths:
        if length != b"%d" % len(body) and method != "HEAD" and status not in _BODILESS:
            announced = length.decode("latin-1")[:40]
            raise BadAnswer(f"its Content-Length is {announced!r}, its body has {len(body)} bytes")
    parts = (packed, bytes_head(len(body)), body)
    return b"".join(parts) if len(body) <= PARTS_FROM else Parts(*parts)
