from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common import wire
from rota.common.limits import HEAD_MAX
from rota.common.wire import HEADER_SIZE, BadFrame, bundles, head, parse, parse_head, split, with_body

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))


@given(u8, u64, u32, u32, u64, u64, u64, u16, u8, st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_written_is_read(
    kind: int, token: int, epoch: int, time: int, number: int, upto: int, below: int, code: int, flags: int,
    tail: bytes, body: bytes,
) -> None:  # fmt: skip
    frame = head(kind, token, epoch, time, number, upto, below, code, flags, tail) + body
    found = parse_head(frame)
    assert found[3:11] == (kind, flags, token, epoch, time, number, upto, below)
    assert (found.head_len, found.code) == (HEADER_SIZE + len(tail), code)
    assert frame[found.head_len :] == body


def test_the_layout_is_the_one_of_the_protocol() -> None:
    frame = head(16, 0x1122, 3, 4, 5, 6, 7, 8, 9, b"tail")
    assert HEADER_SIZE == 52
    assert frame[4:8] == bytes([0x52, 1, 16, 9])
    numbers = [(8, 8, 0x1122), (16, 4, 3), (20, 4, 4), (24, 8, 5), (32, 8, 6), (40, 8, 7), (48, 2, 56), (50, 2, 8)]
    for place, size, value in numbers:
        assert int.from_bytes(frame[place : place + size], "little") == value


@given(st.binary(max_size=120))
def test_no_bytes_raise_anything_but_bad_frame(data: bytes) -> None:
    with pytest.raises(BadFrame):
        parse(data)


@given(st.integers(0, HEADER_SIZE + 3), st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_the_head_is_noticed(place: int, bit: int) -> None:
    frame = bytearray(head(wire.REQUEST, 7, number=1, tail=b"tail") + b"body")
    frame[place] ^= 1 << bit
    with pytest.raises(BadFrame):
        parse(bytes(frame))


def test_a_body_is_not_looked_at() -> None:
    frame = bytearray(head(wire.REQUEST, 7) + b"body")
    frame[-1] ^= 1
    parse(bytes(frame))


@pytest.mark.parametrize("size", [0, 1, HEADER_SIZE - 1])
def test_a_truncated_head_is_a_bad_frame(size: int) -> None:
    with pytest.raises(BadFrame):
        parse(head(wire.HELLO, 0)[:size])


def test_a_head_that_is_longer_than_its_frame_or_than_allowed_is_a_bad_frame() -> None:
    frame = head(wire.HELLO, 0, tail=b"x" * 100)
    with pytest.raises(BadFrame):
        parse(frame[:-1])
    with pytest.raises(BadFrame):
        parse(head(wire.HELLO, 0, tail=b"x" * (HEAD_MAX - HEADER_SIZE + 1)))
    beyond = frame[4:48] + struct.pack("<H", HEADER_SIZE + 1) + frame[50:HEADER_SIZE]
    with pytest.raises(BadFrame):
        parse(struct.pack("<I", zlib.crc32(beyond)) + beyond)
    parse(head(wire.HELLO, 0, tail=b"x" * (HEAD_MAX - HEADER_SIZE)))


def test_another_magic_or_version_is_a_bad_frame_even_with_a_true_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAGIC", "VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(wire, name, getattr(wire, name) + 1)
            frame = head(wire.HELLO, 0)
        with pytest.raises(BadFrame):
            parse(frame)


@given(u64, u32, u32, u64, u64, st.integers(1, 5), st.binary(min_size=16, max_size=16), u64, st.booleans())
def test_a_delivery_has_the_head_that_head_would_make(
    token: int, epoch: int, time: int, number: int, upto: int, attempt: int, session: bytes, request: int, meta: bool
) -> None:
    flags = wire.META if meta else 0
    origin = wire.ORIGIN_STRUCT.pack(session, request)
    assert wire.delivery_head(token, epoch, time, number, upto, attempt, 5, flags, session, request, b"o.abc") == head(
        wire.DELIVER, token, epoch, time, number, upto, attempt, 5, flags | wire.ORIGIN, origin + b"o.abc"
    )


@given(st.binary(min_size=1, max_size=100), st.integers(0, 50))
def test_a_body_goes_on_unchanged_under_another_head(body: bytes, more: int) -> None:
    for padding in (b"", b"x" * wire.COPY_TWICE_MAX):
        frame = head(wire.REQUEST, 1, tail=b"t" * more) + body + padding
        assert with_body(b"HEAD", frame, HEADER_SIZE + more) == b"HEAD" + body + padding


# ---- bundles ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40_000) | st.integers(0, 200), max_size=40))
def test_bundles_hold_the_same_messages_in_the_same_order(sizes: list[int]) -> None:
    frames = [head(wire.REPLY, 1, number=place) + b"x" * size for place, size in enumerate(sizes)]
    found: list[bytes] = []
    for count, frame in bundles(frames):
        fields = parse(frame)
        inside = split(frame, fields) if fields[3] == wire.BUNDLE else [frame]
        assert len(inside) == count
        assert count == 1 or len(frame) <= wire.BUNDLE_BYTES_MAX + HEAD_MAX
        found += inside
    assert found == frames


def test_a_large_message_stays_alone_and_as_it_is_wherever_it_stands() -> None:
    large, small = head(wire.REPLY, 1) + b"x" * wire.BUNDLE_BYTES_MAX, head(wire.ACK, 1)
    counts, frames = zip(*bundles([large, small, small, large, large, small]), strict=True)
    assert counts == (1, 2, 1, 1, 1)
    assert (frames[0], *frames[2:]) == (large, large, large, small)


@given(st.integers(0, 1 << 40), st.binary(max_size=200))
def test_a_bundle_that_does_not_add_up_is_a_bad_frame(count: int, rest: bytes) -> None:
    frame = head(wire.BUNDLE, 0, number=count) + rest
    try:
        found = split(frame, parse(frame))
    except BadFrame:
        return
    assert sum(map(len, found)) + 4 * count == len(rest), "these bytes happened to be one"


@pytest.mark.parametrize(
    ("count", "lengths", "rest"),
    [
        (0, [], b""),
        (2, [1, 1], b"abc"),
        (2, [1, 1], b"a"),
        (2, [1], b""),
        (10_000, [0] * 10_000, b""),  # more than there is room for: each costs whoever reads them
    ],
)
def test_the_lengths_in_a_bundle_add_up_and_are_not_too_many(count: int, lengths: list[int], rest: bytes) -> None:
    frame = head(wire.BUNDLE, 0, number=count) + struct.pack(f"<{len(lengths)}I", *lengths) + rest
    with pytest.raises(BadFrame):
        split(frame, parse(frame))


def test_as_many_of_the_smallest_messages_as_fit_are_one_bundle() -> None:
    frames = [head(wire.ACK, 1)] * (wire.BUNDLE_BYTES_MAX // HEADER_SIZE)
    ((count, frame),) = bundles(frames)
    assert count == len(frames) and split(frame, parse(frame)) == frames
    assert [count for count, _ in bundles(frames * 2)] == [count, count]


def large(body: bytes) -> tuple[wire.Large, bytes]:
    whole = wire.head(wire.REPLY, 5, number=1, upto=9) + body
    return wire.Large(SimpleNamespace(buffer=memoryview(bytearray(whole)))), whole


def test_a_large_message_takes_another_head_of_the_same_size_in_place_once() -> None:
    frame, whole = large(b"x" * 70_000)
    head = wire.head(wire.ANSWER, 6, number=1, upto=2)
    assert wire.with_body(head, frame, len(head)) is frame
    assert bytes(frame) == head + whole[len(head) :]
    assert wire.parse_head(frame).kind == wire.ANSWER
    again = wire.with_body(wire.head(wire.ANSWER, 7), frame, len(head))
    assert isinstance(again, bytes) and again[len(head) :] == whole[len(head) :]
    assert wire.parse_head(frame).token == 6  # what may be under way is never changed


def test_a_large_message_is_copied_for_a_head_of_another_size() -> None:
    frame, whole = large(b"x" * 70_000)
    head = wire.head(wire.DELIVER, 6, tail=b"a.b")
    made = wire.with_body(head, frame, wire.HEADER_SIZE)
    assert made == head + whole[wire.HEADER_SIZE :]
    assert bytes(frame) == whole


def test_a_large_message_reads_like_bytes() -> None:
    frame, whole = large(b"x" * 70_000)
    assert (len(frame), frame[3], frame[:60], frame[69_000:]) == (len(whole), whole[3], whole[:60], whole[69_000:])
