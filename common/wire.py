"""The codec of `docs/PROTOCOL.md`: one frame a message, a fixed header, a tail that is still head, a body.

Nothing here knows who is talking. `head()` makes the 52 bytes, `parse()` reads and checks them; on the hot path the
master calls both about twice a request, so both are flat.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple
from zlib import crc32

from .limits import HEAD_MAX

MAGIC = 0x52
VERSION = 1
VERSIONS = (1, 1)  # lowest and highest that this build speaks

# Kinds. HELLO, WELCOME, REFUSED keep their layout for ever: versions are negotiated with them.
HELLO, WELCOME, REFUSED, BYE, WHO, PROBE = 1, 2, 3, 4, 5, 6
REQUEST, ANSWER, CANCEL, ACK = 16, 17, 18, 19
DELIVER, REPLY = 32, 33
CHUNK, CREDIT = 48, 49  # reserved: streams with a credit of their own
CONTROL = 64

# Flags.
RESENT, META, ORIGIN, MORE = 1, 2, 4, 8

HEADER = Struct("<IBBBBQIIQQQHH")  # the checksum first: it covers one contiguous piece, all the head after it
HEADER_SIZE = HEADER.size  # 52
CRC_SIZE = 4

ORIGIN_STRUCT = Struct("<16sQ")
ORIGIN_SIZE = ORIGIN_STRUCT.size

_unpack = HEADER.unpack_from
_pack = Struct("<BBBBQIIQQQHH").pack
_pack_crc = Struct("<I").pack


class BadFrame(ValueError):
    """The peer's frame breaks the format; it is to be counted and dropped."""


class Head(NamedTuple):
    """A checked header. `time` is ms left (requests) or µs spent (replies); `head_len` is where the body starts."""

    crc: int
    magic: int
    version: int
    kind: int
    flags: int
    token: int
    epoch: int
    time: int
    number: int
    upto: int
    below: int
    head_len: int
    code: int


def head(
    kind: int,
    token: int,
    epoch: int = 0,
    time: int = 0,
    number: int = 0,
    upto: int = 0,
    below: int = 0,
    code: int = 0,
    flags: int = 0,
    tail: bytes = b"",
) -> bytes:
    """Header and tail; the message is this, followed by the body."""
    checked = _pack(
        MAGIC,
        VERSION,
        kind,
        flags,
        token,
        epoch,
        time,
        number,
        upto,
        below,
        HEADER_SIZE + len(tail),
        code,
    )
    if tail:
        checked += tail
    return _pack_crc(crc32(checked)) + checked


def parse(frame: bytes) -> tuple[int, ...]:
    """The fields of `Head`, in its order, as a plain tuple (a NamedTuple would cost 0.3 µs more).

    Raises BadFrame when the frame is short, foreign, damaged or of another version.
    """
    if len(frame) < HEADER_SIZE:
        raise BadFrame("short frame")
    fields = _unpack(frame)
    head_len = fields[11]
    if crc32(frame[CRC_SIZE:head_len]) != fields[0]:
        raise BadFrame("damaged head")
    if fields[1] != MAGIC or fields[2] != VERSION:
        raise BadFrame("foreign frame")
    if not HEADER_SIZE <= head_len <= HEAD_MAX or head_len > len(frame):
        raise BadFrame("impossible head length")
    return fields


def parse_head(frame: bytes) -> Head:
    """`parse()` with names, for where a microsecond does not matter."""
    return Head(*parse(frame))
