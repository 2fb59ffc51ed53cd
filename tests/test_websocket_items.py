"""What a process says over a WebSocket, cut into its values."""

from __future__ import annotations

from typing import Any

import pytest
from http_rig import cut, one_by_one
from hypothesis import given
from hypothesis import strategies as st
from msgpack import packb

from rota.common.limits import WEBSOCKET_MESSAGE_MAX
from rota.gateway.core.items import BadItem, Items

messages = st.one_of(st.text(max_size=300), st.binary(max_size=300))
SIZES = [0, 1, 31, 32, 255, 256, 65_535, 65_536]


def all_of(pieces: list[bytes]) -> list[Any]:
    items, found = Items(), []
    for piece in pieces:
        items.feed(piece)
        while (item := items.next()) is not None:
            found.append(item)
    assert items.fed == sum(map(len, pieces)) and items.given == sum(
        len(packb(list(item) if isinstance(item, tuple) else item)) for item in found
    )
    return found


@given(st.lists(messages, max_size=8), st.one_of(st.none(), st.text(max_size=200)), st.lists(st.integers(0, 3000)))
def test_however_they_are_cut_they_are_what_was_packed(said: list[Any], reason: str | None, places: list[int]) -> None:
    end = [] if reason is None else [(4000, reason)]
    data = b"".join(map(packb, said)) + b"".join(packb(list(pair)) for pair in end)
    assert all_of(cut(data, places)) == said + end


@pytest.mark.parametrize("size", SIZES)
def test_every_way_to_write_a_length_is_read(size: int) -> None:
    for item in ("x" * size, bytes(size)):
        data = packb(item)
        assert all_of([data]) == [item] and all_of([data[:1], data[1:3], data[3:]]) == [item]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00", b"\xc0", b"\x93\x01\x02\x03", b"\x80", b"\xcb" + bytes(8), b"\xa1\xff", packb(["a", "b"]),
        packb([1000, 5]), packb([1000, "x"]) + b"x", b"\xc6" + (WEBSOCKET_MESSAGE_MAX + 1).to_bytes(4, "big"),
        b"\xc6\xff\xff\xff\xff", b"\x92\xcd\x03\xe8\xdb\xff\xff\xff\xff" + bytes(70_000),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadItem):
        all_of([data])
    with pytest.raises(BadItem):
        all_of(one_by_one(data[:100]) + [data[100:]])


def test_what_is_cleared_counts_as_given() -> None:
    items = Items()
    items.feed(packb("a") + b"\xc6\x00")
    items.clear()
    assert items.next() is None and items.given == items.fed == 4
