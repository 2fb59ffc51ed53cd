"""Frames as clients send them, proper or not, and what comes back."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from websockets.extensions import Extension
from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # to this key, RFC 6455 1.3


def frame(
    opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None, wide: int = 0,
) -> bytes:  # fmt: skip
    """`length`: what it says of its length. `wide`: bytes of that, if more than it needs."""
    size = len(data) if length is None else length
    bits = 0x80 if mask is not None else 0
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if wide == 8 or size > 0xFFFF:
        head = first + bytes([bits | 127]) + struct.pack("!Q", size)
    elif wide == 2 or size > 125:
        head = first + bytes([bits | 126]) + struct.pack("!H", size)
    else:
        head = first + bytes([bits | size])
    if mask is None:
        return head + data
    return head + mask + masked(data, mask)


def masked(data: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def read(data: bytes, extensions: Sequence[Extension] = ()) -> list[Frame]:
    """Frames of a server, read by another implementation than ours, which finds them proper."""
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    client.extensions = list(extensions)
    client.receive_data(data)
    assert client.parser_exc is None, client.parser_exc
    return [each for each in client.events_received() if isinstance(each, Frame)]


def handshake(path: str = "/echo", *more: str, key: str = KEY, version: str = "13") -> bytes:
    lines = [
        f"GET {path} HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}", *more,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()
