"""The codec of `docs/PROTOCOL.md`: one frame a message, a fixed header, a tail that is still head, a body.

Nothing here knows who is talking. `head()` makes the 52 bytes, `parse()` reads and checks them; on the hot path the
master calls both about twice a request, so both are flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, unpack_from
from struct import error as StructError
from struct import pack as pack_numbers
from typing import Any, NamedTuple, TypeVar, overload
from zlib import crc32

from .limits import HEAD_MAX

MAGIC = 0x52
VERSION = 1
VERSIONS = (1, 1)  # lowest and highest that this build speaks

# Kinds. HELLO, WELCOME, REFUSED keep their layout for ever: versions are negotiated with them.
HELLO, WELCOME, REFUSED, BYE, WHO, PROBE = 1, 2, 3, 4, 5, 6
BUNDLE = 7  # several messages in one frame: what was waiting for the same peer anyway
REQUEST, ANSWER, CANCEL, ACK = 16, 17, 18, 19
DELIVER, REPLY = 32, 33
CHUNK, CREDIT = 48, 49  # of a stream, which has a credit of its own
CONTROL = 64

# Flags.
RESENT, META, ORIGIN, MORE, KEYED, OLDER, PINNED = 1, 2, 4, 8, 16, 32, 64

HEADER = Struct("<IBBBBQIIQQQHH")  # the checksum first: it covers one contiguous piece, all the head after it
HEADER_SIZE = HEADER.size  # 52
CRC_SIZE = 4
KIND_AT, FLAGS_AT, EPOCH_AT = 6, 7, 16  # for who wants one field of a frame that was parsed before

BUNDLE_BYTES_MAX = 32 * 1024  # beyond it copying costs more than a frame
COPY_TWICE_MAX = 4096  # bytes of a frame; up to here cutting out the body and adding it to a head beats a join of views

ORIGIN_STRUCT = Struct("<16sQ")
ORIGIN_SIZE = ORIGIN_STRUCT.size
WITH_ORIGIN = HEADER_SIZE + ORIGIN_SIZE  # where the rest of the tail begins behind one

_unpack = HEADER.unpack_from
_pack = Struct("<BBBBQIIQQQHH").pack
_pack_delivery = Struct("<BBBBQIIQQQHH16sQ").pack
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


def delivery_head(
    token: int,
    epoch: int,
    time: int,
    number: int,
    upto: int,
    attempt: int,
    target_len: int,
    flags: int,
    session: bytes,
    request: int,
    tail: bytes,
) -> bytes:
    """`head()` of a DELIVER with the origin `session`, `request`, packed along with it. `tail` is the request's own."""
    checked = (
        _pack_delivery(
            MAGIC,
            VERSION,
            DELIVER,
            flags | ORIGIN,
            token,
            epoch,
            time,
            number,
            upto,
            attempt,
            HEADER_SIZE + ORIGIN_SIZE + len(tail),
            target_len,
            session,
            request,
        )
        + tail
    )
    return _pack_crc(crc32(checked)) + checked


def parse(frame: bytes | memoryview) -> tuple[int, ...]:
    """The fields of `Head`, in its order, as a plain tuple (a NamedTuple would cost 0.3 µs more).

    Raises BadFrame when the frame is short, foreign, damaged or of another version.
    """
    try:
        fields = _unpack(frame)
    except StructError:
        raise BadFrame("short frame") from None
    head_len = fields[11]
    if not HEADER_SIZE <= head_len <= HEAD_MAX or head_len > len(frame):
        raise BadFrame("impossible head length")
    if crc32(frame[CRC_SIZE:head_len]) != fields[0] or fields[1] != MAGIC or fields[2] != VERSION:
        raise BadFrame("damaged or foreign head")
    return fields


def parse_head(frame: Frame) -> Head:
    """`parse()` with names, for where a microsecond does not matter."""
    return Head(*parse(bytes(frame)))


class Large:
    """A received message of more than BUNDLE_BYTES_MAX where the transport has it: looked at and patched in place.

    Slices are copies, as those of bytes are. `message` is the transport's own object, with the memory as its `buffer`.
    """

    __slots__ = ("_patched", "buffer", "message")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.buffer: memoryview = message.buffer
        self._patched = False

    def __len__(self) -> int:
        return len(self.buffer)

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> bytes: ...
    def __getitem__(self, place: int | slice) -> int | bytes:
        found: int | memoryview = self.buffer[place]
        return found if isinstance(found, int) else bytes(found)

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)

    def with_head(self, head: bytes) -> bool:
        """Takes this head in place of its own. Once only: afterwards it may be under way to a peer."""
        if self._patched:
            return False
        self._patched = True
        self.buffer[: len(head)] = head
        return True


def parse_large(frame: Large) -> tuple[int, ...] | None:
    """`parse()`, None where that raises BadFrame: whoever then reads it as any other frame finds out why."""
    try:
        return parse(frame.buffer)
    except BadFrame:
        return None


Frame = bytes | Large
AnyFrame = TypeVar("AnyFrame", bytes, Frame)
Body = bytes | memoryview


def body_of(frame: Body, head_len: int) -> Body:
    """What follows the head, for whoever decodes it: a large body is looked at where it is."""
    return memoryview(frame)[head_len:] if len(frame) > COPY_TWICE_MAX else frame[head_len:]


def with_body(head: bytes, frame: Frame, head_len: int) -> Frame:
    """This head before the body of that frame; a small body is copied the quicker way, a large one once, or never."""
    if isinstance(frame, Large):
        if len(head) == head_len and frame.with_head(head):
            return frame
        return b"".join((head, frame.buffer[head_len:]))
    if len(frame) > COPY_TWICE_MAX:
        return b"".join((head, memoryview(frame)[head_len:]))
    return head + frame[head_len:]


def bundles(frames: Sequence[AnyFrame]) -> list[tuple[int, AnyFrame]]:
    """The same messages in the same order in fewer frames, each with its count; large ones stay alone.

    A message costs 3 to 6 µs of socket each way whatever its size, one in a bundle 0.5 µs. Nobody waits for a bundle
    to fill: it holds what was there when the sender came round.
    """
    if sum(map(len, frames)) <= BUNDLE_BYTES_MAX or len(frames) == 1:
        return [_bundle(frames)] if frames else []
    made: list[tuple[int, AnyFrame]] = []
    group: list[AnyFrame] = []
    size = 0
    for frame in frames:
        if group and size + len(frame) > BUNDLE_BYTES_MAX:
            made.append(_bundle(group))
            group, size = [], 0
        group.append(frame)
        size += len(frame)
    made.append(_bundle(group))
    return made


def _bundle(frames: Sequence[AnyFrame]) -> tuple[int, AnyFrame]:
    count = len(frames)
    if count == 1:
        return 1, frames[0]
    lengths = pack_numbers(f"<{count}I", *map(len, frames))
    # What is Large is alone in its group, so these are bytes.
    return count, b"".join((head(BUNDLE, 0, number=count), lengths, *frames))  # type: ignore[arg-type]


def split(frame: bytes, fields: tuple[int, ...]) -> list[bytes]:
    """The messages of a bundle whose head is `fields`. Raises BadFrame when the lengths do not add up to the frame."""
    count, place = fields[8], fields[11]
    if not 0 < count <= BUNDLE_BYTES_MAX // HEADER_SIZE:
        raise BadFrame("impossible bundle")
    try:
        lengths = unpack_from(f"<{count}I", frame, place)
    except StructError:
        raise BadFrame("short bundle") from None
    place += 4 * count
    if place + sum(lengths) != len(frame):
        raise BadFrame("bundle of another length")
    found = []
    for length in lengths:
        found.append(frame[place : place + length])
        place += length
    return found
