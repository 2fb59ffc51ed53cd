"""The head of an HTTP/2 request (RFC 9113 8): whether its fields are proper, and what they say. Pure.

What it says is a Head as that of HTTP/1.1, and the rules are the same where they apply: a service is not to see a
difference, and nothing is let in through one of the doors that the other keeps out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .chunks import TRAILERS_MAX
from .head import OF_THE_HOP, Fields, Head, expects_continue, is_host, is_method, is_target, length_of
from .rules import Limits, Rejected

Field = tuple[bytes, bytes]

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]++")
_VALUE = re.compile(rb"(?:[!-~](?:[\t -~]*+(?<=[!-~]))?)?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_PSEUDO = frozenset([b":method", b":scheme", b":authority", b":path"])
_OF_HTTP_1 = OF_THE_HOP - {b"te", b"trailer"}
_OF_THE_HEAD = _OF_HTTP_1 | {b"content-length", b"expect", b"host"}  # as behind a chunked body (chunks.py)


def read(fields: Iterable[Field], limits: Limits) -> Head:
    """Rejected: they break a rule."""
    pseudo, headers = _parted(fields, limits)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if not is_method(method):
        raise Rejected("unknown-method" if _NAME.fullmatch(method.lower()) else "method")
    if pseudo.get(b":scheme") not in (b"https", b"http") or b":path" not in pseudo:
        raise Rejected("pseudo")
    if len(method) + len(path) > limits.line:
        raise Rejected("request-line-size")
    if not is_target(path) and not (path == b"*" and method == b"OPTIONS"):
        raise Rejected("target")
    host = _host(pseudo, headers)
    length, expects = None, False
    for name, value in headers:
        if name == b"content-length":
            if length is not None:
                raise Rejected("two-lengths")
            length = length_of(value)
        elif name == b"expect":
            expects = expects_continue(value, True)
    return Head(method.decode(), path, "2", Fields(headers), host, length, False, True, expects)


def check_trailers(fields: Iterable[Field]) -> None:
    """They are checked and dropped. Rejected: they break a rule."""
    size = 0
    for name, value in fields:
        size += len(name) + len(value)
        proper = _NAME.fullmatch(name) and _VALUE.fullmatch(value) and name not in _OF_THE_HEAD
        if not proper or size > TRAILERS_MAX:
            raise Rejected("trailer")


def _parted(fields: Iterable[Field], limits: Limits) -> tuple[dict[bytes, bytes], list[Field]]:
    """Pseudo-headers, and the others: with the crumbs of a cookie joined, which a browser may send apart."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[Field] = []
    cookie = -1
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + 4  # as many as in HTTP/1
        if len(name) + len(value) > limits.line and name != b":path":
            raise Rejected("field-size")
        if _VALUE.fullmatch(value) is None:
            raise Rejected(_bad_value(value))
        if name[:1] == b":":
            if headers or name not in _PSEUDO or name in pseudo:
                raise Rejected("pseudo")
            pseudo[name] = value
        elif _NAME.fullmatch(name) is None:
            raise Rejected("upper-case" if _NAME.fullmatch(name.lower()) else "name" if name else "no-name")
        elif name in _OF_HTTP_1 or (name == b"te" and value.lower() != b"trailers"):
            raise Rejected("of-http-1")
        elif name == b"cookie" and cookie >= 0:
            headers[cookie] = (name, headers[cookie][1] + b"; " + value)
        else:
            if name == b"cookie":
                cookie = len(headers)
            headers.append((name, value))
    if size > limits.head:
        raise Rejected("head-size")
    if len(headers) > limits.headers:
        raise Rejected("field-count")
    return pseudo, headers


def _bad_value(value: bytes) -> str:
    if _CONTROL.search(value):
        return "control"
    return "field-space" if value.isascii() else "non-ascii"


def _host(pseudo: dict[bytes, bytes], headers: list[Field]) -> bytes:
    """It stands in front of the headers, once."""
    said = [value for name, value in headers if name == b"host"]
    if len(said) > 1:
        raise Rejected("two-hosts")
    host = pseudo.get(b":authority", said[0] if said else None)
    if host is None:
        raise Rejected("no-host")
    if not is_host(host):
        raise Rejected("host")
    if said and said[0].lower() != host.lower():
        raise Rejected("other-host")
    headers[:] = [(b"host", host), *(field for field in headers if field[0] != b"host")]
    return host
