"""A response, as bytes of HTTP/1.1 or as fields of HTTP/2. Nothing that an application gives can break out of it: its
length, and whether the connection goes on, are said here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

from .head import LENGTH_DIGITS, OF_THE_HOP, TOKEN

RETRY_AFTER_S = 5  # for room in a spool: bodies come and go within seconds
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

PHRASES = {  # RFC 9110 15, and those that gateways and frameworks use besides
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
    205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
    409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
    414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
    418: "I'm a Teapot", 421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked",
    424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
    429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
    507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
}  # fmt: skip
_STATUS_LINES = {status: f"HTTP/1.1 {status} {PHRASES.get(status, '')}".encode() for status in range(200, 600)}

_NAME = re.compile(TOKEN + rb"{1,256}")  # those that were seen are remembered
_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])  # bytes from 0x80 are the application's business
_is_bad = re.compile(b"[%b]" % re.escape(_CONTROLS)).search
_BODILESS = frozenset([204, 205, 304])
_LENGTH = b"\r\nContent-Length: %d"
_END = b"\r\n\r\n"

Headers = Iterable[tuple[bytes, bytes]]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def is_bodiless(method: str, status: int) -> bool:
    """Whatever the application gives, a response to this method with this status ends with its headers."""
    return method == "HEAD" or status in _BODILESS


class Unsendable(Exception):
    """An answer that no response can be made of: its status is not one of 200 to 599, a header has a character that
    could end it, or its Content-Length is not the length of its body.
    """


def _judged(make: Callable[_P, _R]) -> Callable[_P, _R]:
    """Whatever an application's answer has in it that is not what it should be."""

    @wraps(make)
    def judged(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return make(*args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            raise Unsendable(str(error)) from None

    return judged


@lru_cache(1024)  # applications use few names, and write each in one way
def _lower(name: bytes) -> bytes:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"no name of a header: {name!r:.100}")
    return name.lower()


_LENGTH_OF, _DATE_OF, _NONE = b"content-length", b"date", b""


@lru_cache(1024)
def _start(name: bytes) -> bytes:
    """Of the line that this header has in a response: all before its value. Or one of those above: there is more to it,
    or it has none.
    """
    lower = _lower(name)
    for special in (_LENGTH_OF, _DATE_OF):
        if lower == special:
            return special
    return _NONE if lower in OF_THE_HOP else b"\r\n%b: " % name


class Framing:
    """Where the body of an answer that comes in pieces ends."""

    __slots__ = ("chunked", "has_body", "left")

    def __init__(self, has_body: bool, left: int | None, chunked: bool) -> None:
        """`left`: bytes of its Content-Length that have not come. Neither that nor `chunked`: the end of the connection
        is the end of it.
        """
        self.has_body = has_body
        self.left = left
        self.chunked = chunked

    @property
    def endless(self) -> bool:
        """Nobody has said where it ends."""
        return self.has_body and self.left is None

    @property
    def by_close(self) -> bool:
        return self.endless and not self.chunked


@_judged
def response(
    method: str, status: int, headers: Headers, body: bytes, *, date: bytes, connection: bytes = b""
) -> bytes:  # fmt: skip
    """The bytes of one response. `connection`: what its Connection field says, b"": it has none. Raises Unsendable."""
    if not isinstance(body, bytes):
        raise ValueError(f"no response: body of type {type(body).__name__}")
    parts, length = _parts(status, headers, date, connection)
    if is_bodiless(method, status):
        parts += _length_without_body(status, length, len(body)), _END
    elif length is not None and length != len(body):
        raise ValueError(f"Content-Length {length}, but the body has {len(body)} bytes")
    else:
        parts += _LENGTH % len(body), _END, body
    return b"".join(parts)


def template(method: str, status: int, headers: Headers, size: int) -> tuple[bytes, bytes] | None:
    """Of responses that differ in id, date, and body only, whose length is `size`: all before the id, which is the last
    header, and all between date and body. None: each is to be made by itself.
    """
    try:
        if is_bodiless(method, status) or status == 426:
            return None
        fields = [*headers, (b"x-request-id", b"")]
        parts, length = _parts(status, fields, b"", b"")
        if length not in (None, size) or any(_start(name) is _DATE_OF for name, _ in fields):
            return None
    except (AttributeError, TypeError, ValueError):
        return None
    return b"".join(parts), _LENGTH % size + _END


@_judged
def begin(
    method: str, version: str, status: int, headers: Headers, *, date: bytes, connection: bytes = b""
) -> tuple[bytes, Framing]:
    """The head of a response whose body comes in pieces. Raises Unsendable. Framing by the end of the connection
    needs `connection` to be b"close", which is put there if need be.
    """
    headers = list(headers)
    length = next((_agreed(None, value) for name, value in headers if _lower(name) == b"content-length"), None)
    framing = Framing(not is_bodiless(method, status), length, length is None and version != "1.0")
    parts, length = _parts(status, headers, date, b"close" if framing.by_close else connection)
    if not framing.has_body:
        parts.append(_length_without_body(status, length, 0))
    elif length is not None:
        parts.append(_LENGTH % length)
    elif framing.chunked:
        parts.append(b"\r\nTransfer-Encoding: chunked")
    parts.append(_END)
    return b"".join(parts), framing


def switching(headers: Headers, protocol: bytes, *, date: bytes) -> bytes:
    """The head of a 101, behind which another protocol is spoken. ValueError, TypeError: it cannot be."""
    parts, _ = _parts(426, [*headers, (b"Upgrade", protocol)], date, b"")
    return b"".join([b"HTTP/1.1 101 Switching Protocols", *parts[1:], _END])


@_judged
def fields(
    method: str, status: int, headers: Headers, size: int | None, *, date: bytes
) -> tuple[list[tuple[bytes, bytes]], Framing]:
    """The head of a response of HTTP/2. `size`: of its body; None: that comes in pieces. Raises Unsendable."""
    if type(status) is not int or status not in _STATUS_LINES:
        raise ValueError(f"no response: status {status!r}")
    found = [(b":status", b"%d" % status)]
    length = None
    for name, value in headers:
        lower = _lower(name)
        if _is_bad(value) is not None:
            raise ValueError(f"control character in the header {name!r}")
        if lower == b"content-length":
            length = _agreed(length, value)
        elif lower not in OF_THE_HOP:
            found.append((lower, value.strip(b"\t ")))
            date = b"" if lower == b"date" else date  # the application's stands
    if date:
        found.append((b"date", date))
    framing = Framing(not is_bodiless(method, status), length, False)
    if not framing.has_body:
        if line := _length_without_body(status, length, size or 0):
            found.append((b"content-length", line.rpartition(b" ")[2]))
    elif size is not None and length not in (None, size):
        raise ValueError(f"Content-Length {length}, but the body has {size} bytes")
    else:
        size = length if size is None else size
        if size is not None:
            found.append((b"content-length", b"%d" % size))
    return found, framing


def _parts(status: int, headers: Headers, date: bytes, connection: bytes) -> tuple[list[bytes], int | None]:
    """All but where the body ends, each line from its CR LF on; and what the application says of that."""
    if type(status) is not int or status not in _STATUS_LINES:
        raise ValueError(f"no response: status {status!r}")
    parts = [_STATUS_LINES[status]]
    values = []
    length = None
    for name, value in headers:
        start = _start(name)
        if start is _LENGTH_OF:
            length = _agreed(length, value)
            continue
        if start is _DATE_OF:
            start, date = b"\r\n%b: " % name, b""  # the application's stands
        elif start is _NONE and status == 426 and _lower(name) == b"upgrade":  # RFC 9110 15.5.22: it says to what
            start = b"\r\n%b: " % name
        if start is not _NONE:
            parts.append(start)
            parts.append(value)
            values.append(value)
    text = b"".join(values)
    if text.translate(None, _CONTROLS) != text:  # a twentieth of a search
        raise ValueError(f"control character in the header {next(n for n, v in headers if _is_bad(v))!r}")
    if date:
        parts += b"\r\nDate: ", date
    if status == 426:
        connection = connection + b", upgrade" if connection else b"upgrade"
    if connection:
        parts += b"\r\nConnection: ", connection
    return parts, length


def _agreed(before: int | None, value: bytes) -> int:
    number = int(value) if value.isdigit() and len(value) <= LENGTH_DIGITS else -1
    if number < 0 or (before is not None and before != number):
        raise ValueError(f"Content-Length {value!r}")
    return number


def _length_without_body(status: int, length: int | None, produced: int) -> bytes:
    """HEAD and 304 may say how long the body of a GET is (RFC 9110 8.6); 204 must not, 205 has none."""
    if status == 204:
        return b""
    if status == 205:
        return _LENGTH % 0
    if length is None and produced and status != 304:
        length = produced
    return b"" if length is None else _LENGTH % length


def plain(status: int, reason: str, *, date: bytes, request_id: str, method: str = "GET") -> bytes:
    """An answer of the gateway itself, after which the connection closes."""
    headers, body = refusal(status, reason, request_id)
    return response(method, status, headers, body, date=date, connection=b"close")


def refusal(status: int, reason: str, request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of what tells a client why nobody was asked."""
    headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"X-Request-Id", request_id.encode())]
    if status == 503:
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER_S))
    return headers, f"{reason}\n".encode()
