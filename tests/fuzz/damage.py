"""What is done to a genuine frame: seeded, aware of the format, and with a correct checksum nearly always.

The checksum would hide all that comes after it, so only a few frames keep a wrong one. The bodies of control messages
are no part of the checked head: they are taken apart, changed in one place, and packed again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from struct import Struct
from typing import Any
from zlib import crc32

import msgpack

from rota.common import wire

Message = list[bytes]  # the frames of one message
Damage = Callable[[list[bytes], random.Random], Message]

HUGE = 600_000  # bytes of one value: two of them do not fit into one control message
NESTED = 2_000  # deeper than any parser goes

# Offset and layout of each field of the header behind magic and version (docs/PROTOCOL.md, "The header").
_FIELDS = (
    *((6, Struct("<B")), (7, Struct("<B")), (8, Struct("<Q")), (16, Struct("<I")), (20, Struct("<I"))),
    *((24, Struct("<Q")), (32, Struct("<Q")), (40, Struct("<Q")), (48, Struct("<H")), (50, Struct("<H"))),
)
_KINDS = (1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 32, 33, 48, 49, 64)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 1 << 31, (1 << 63) - 1, 1 << 63, -(1 << 63), 1.5, float("nan"), float("inf"), 1e308),
    *("", "\0", "ü" * 70, "x" * 3000, b"", b"\xff" * 16, [], {}, [[]], [None], [1, "a"], {"a": {}}, {1: 2}),
    *(["x"] * 500, {f"n{n}": n for n in range(300)}, msgpack.ExtType(5, b"x"), msgpack.Timestamp(0)),
)


def with_checksum(frame: bytes) -> bytes:
    """The same with the checksum that a receiver computes, as far as there is a head at all."""
    if len(frame) < wire.HEADER_SIZE:
        return frame
    head_len = int.from_bytes(frame[48:50], "little")
    return (
        crc32(frame[wire.CRC_SIZE : max(wire.HEADER_SIZE, min(head_len, len(frame)))]).to_bytes(4, "little") + frame[4:]
    )


def damaged(genuine: list[bytes], chance: random.Random) -> Message:
    """One message made of these frames, of which it needs one or two."""
    return chance.choice(_WAYS)(genuine, chance)


def _field(genuine: list[bytes], chance: random.Random) -> Message:
    """One number of the header is another one: any, or one at an edge."""
    frame = bytearray(chance.choice(genuine))
    place, layout = chance.choice(_FIELDS)
    bits = 8 * layout.size
    edges = (0, 1, 2, (1 << bits) - 1, 1 << (bits - 1), chance.getrandbits(bits), chance.getrandbits(6))
    layout.pack_into(frame, place, chance.choice(edges))
    return [with_checksum(bytes(frame))]


def _kind(genuine: list[bytes], chance: random.Random) -> Message:
    """A valid frame under another kind, or with other flags."""
    frame = bytearray(chance.choice(genuine))
    frame[6] = chance.choice(_KINDS)
    frame[7] = chance.choice((0, 0, 1, 2, 3, 4, 5, 8, 255))
    return [with_checksum(bytes(frame))]


def _flipped(genuine: list[bytes], chance: random.Random) -> Message:
    """Some bits, anywhere; one in eight keeps the checksum that it had."""
    frame = bytearray(chance.choice(genuine))
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
    return [bytes(frame) if chance.random() < 0.125 else with_checksum(bytes(frame))]


def _cut(genuine: list[bytes], chance: random.Random) -> Message:
    frame = chance.choice(genuine)
    return [with_checksum(frame[: chance.randrange(len(frame))])]


def _longer(genuine: list[bytes], chance: random.Random) -> Message:
    return [chance.choice(genuine) + chance.randbytes(chance.randrange(1, 300))]


def _spliced(genuine: list[bytes], chance: random.Random) -> Message:
    """The beginning of one and the end of another."""
    first, second = chance.choice(genuine), chance.choice(genuine)
    place = chance.randrange(min(len(first), len(second)))
    return [with_checksum(first[:place] + second[place:])]


def _body(genuine: list[bytes], chance: random.Random) -> Message:
    """A control message with one odd value, one value too many or one too few, or with the fields of another."""
    frame = chance.choice(genuine)
    head_len = int.from_bytes(frame[48:50], "little")
    try:
        value = msgpack.unpackb(frame[head_len:], strict_map_key=False)
    except Exception:  # no control message: its body is opaque
        return [frame[:head_len] + _bomb(chance)]
    _change(value, chance)
    return [frame[:head_len] + msgpack.packb(value)]


def _change(value: Any, chance: random.Random) -> None:
    """One item, somewhere below."""
    while isinstance(value, dict | list) and value:
        place = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        item = value[place]
        if not (isinstance(item, dict | list) and item) or chance.random() < 0.2:
            way = chance.randrange(8)
            if way == 0 and isinstance(value, dict):
                del value[place]
            elif way == 1:
                value[place] = _similar(item, chance)
            elif way == 2 and isinstance(value, dict):
                value[chance.choice(("", "all", 7, b"x"))] = item
            else:
                value[place] = chance.choice(_ODD_VALUES)
            return
        value = item


def _similar(item: Any, chance: random.Random) -> Any:
    """Another value of the same type, which the types let pass."""
    if isinstance(item, str):
        return f"{item[:20]}{chance.getrandbits(20)}"
    if isinstance(item, bytes):
        return chance.randbytes(len(item))
    return chance.getrandbits(chance.choice((3, 16, 31, 63))) if type(item) is int else item


def _bomb(chance: random.Random) -> bytes:
    """Few bytes that promise much: nesting, and lengths that lie."""
    return chance.choice(
        (
            b"\x91" * NESTED,
            b"\x81\xa1a" * NESTED,
            b"\xdd\xff\xff\xff\xff" * 20,
            b"\xdf\xff\xff\xff\xff" * 20,
            b"\xdb\xff\xff\xff\xff",
            b"\x92\xa8Operator\xdc\xff\xff" + b"\x80" * 2000,
            b"\xc7\xff\x05" + bytes(255),
        )
    )


def _huge(genuine: list[bytes], chance: random.Random) -> Message:
    """As large as it may be. Rare: each costs as much as thousands of others."""
    frame = chance.choice(genuine)
    head_len = int.from_bytes(frame[48:50], "little")
    if chance.random() < 0.98:
        return [frame + bytes(chance.randrange(1 << chance.randrange(8, 14)))]
    return [frame[:head_len] + chance.choice((b"\x80" * HUGE, bytes(HUGE), b"\xdd\x00\x09\x27\xbc" + b"\x90" * HUGE))]


def _bundled(genuine: list[bytes], chance: random.Random) -> Message:
    """Several in one frame: with lengths or a count that lie, a bundle in a bundle, or well formed."""
    inner = [chance.choice(genuine) for _ in range(chance.randrange(1, 9))]
    way = chance.randrange(5)
    if way == 0:
        inner = [damaged_alone(genuine, chance) for _ in inner]
    lengths = [len(each) for each in inner]
    count = len(inner)
    if way == 1:
        lengths[chance.randrange(count)] = chance.getrandbits(chance.choice((3, 8, 32)))
    if way == 2:
        count = chance.choice((0, 1, count + 1, 631, 632, 1 << 31, 1 << 63))
    table = b"".join(each.to_bytes(4, "little") for each in lengths)
    made = wire.head(wire.BUNDLE, 0, number=count) + table + b"".join(inner)
    if way == 3:
        made = wire.head(wire.BUNDLE, 0, number=1) + len(made).to_bytes(4, "little") + made
    return [made]


def damaged_alone(genuine: list[bytes], chance: random.Random) -> bytes:
    return chance.choice((_field, _kind, _flipped, _spliced))(genuine, chance)[0]


def _several(genuine: list[bytes], chance: random.Random) -> Message:
    """A message of several frames, or of nothing."""
    way = chance.randrange(3)
    if way == 0:
        return [b""]
    if way == 1:
        return [b"", chance.choice(genuine)]
    return [chance.choice(genuine) for _ in range(chance.randrange(2, 6))]


def _garbage(genuine: list[bytes], chance: random.Random) -> Message:
    return [chance.randbytes(chance.randrange(300))]


def _again(genuine: list[bytes], chance: random.Random) -> Message:
    """A replay, or simply a valid message of a peer that means harm."""
    return [chance.choice(genuine)]


def _foreign(genuine: list[bytes], chance: random.Random) -> Message:
    """Whole, with a token that was guessed."""
    frame = chance.choice(genuine)
    return [with_checksum(frame[:8] + chance.randbytes(8) + frame[16:])]


_SHARES: tuple[tuple[Damage, int], ...] = (
    *((_field, 24), (_kind, 8), (_flipped, 16), (_cut, 6), (_longer, 4), (_spliced, 8), (_body, 12)),
    *((_bundled, 6), (_several, 3), (_garbage, 2), (_again, 7), (_foreign, 3), (_huge, 1)),
)
_WAYS: tuple[Damage, ...] = tuple(way for way, share in _SHARES for _ in range(share))
assert len(_WAYS) == 100
