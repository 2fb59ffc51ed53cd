"""Whether a request asks for a WebSocket, and in the way that RFC 6455 4.2.1 demands. Pure."""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from typing import NamedTuple

from .head import TOKEN, Fields, Head, options_of

VERSION = b"13"
KEY_BYTES = 16

_TOKEN = re.compile(TOKEN + rb"+")


class Handshake(NamedTuple):
    """`extensions`: what the client offers, b"" for nothing."""

    key: bytes
    subprotocols: list[str]
    extensions: bytes


class Improper(NamedTuple):
    """It asks, but not so that it could be given. `fields`: of the answer."""

    status: int
    sentence: str
    fields: tuple[tuple[bytes, bytes], ...] = ()


_OTHER_VERSION = Improper(
    426,
    "A WebSocket of version 13 is needed.",
    ((b"sec-websocket-version", VERSION), (b"upgrade", b"websocket")),
)


def asked(head: Head) -> Handshake | Improper | None:
    """None: an ordinary request, whatever else it would like to be upgraded to (RFC 9110 7.8)."""
    fields = head.headers
    upgrade, connection = (options_of(b",".join(_all(fields, name))) for name in (b"upgrade", b"connection"))
    if b"websocket" not in upgrade or b"upgrade" not in connection or head.version != "1.1":
        return None
    if head.method != "GET" or head.length or head.chunked:
        return Improper(400, "A WebSocket begins with a GET that has no body.")
    if _all(fields, b"sec-websocket-version") != [VERSION]:
        return _OTHER_VERSION
    keys = _all(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Improper(400, "A WebSocket needs one Sec-WebSocket-Key, of 16 bytes in base64.")
    offered = _members(_all(fields, b"sec-websocket-protocol"))
    if len(set(offered)) != len(offered) or not all(map(_TOKEN.fullmatch, offered)):
        return Improper(400, "Sec-WebSocket-Protocol is a list of different tokens.")
    extensions = b", ".join(_all(fields, b"sec-websocket-extensions"))
    return Handshake(keys[0], [each.decode() for each in offered], extensions)


def _all(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value for name, value in fields if name == wanted]


def _members(values: list[bytes]) -> list[bytes]:
    """Of a list; unlike those of Connection they keep their case."""
    return [each.strip(b"\t ") for value in values for each in value.split(b",")]


def _is_key(value: bytes) -> bool:
    try:
        return len(a2b_base64(value, strict_mode=True)) == KEY_BYTES
    except NotBase64:
        return False
