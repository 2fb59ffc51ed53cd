"""What a process says over a WebSocket, cut into its values (docs/HTTP.md). Pure.

An Unpacker of msgpack would do it, but has 45 KiB even while nothing comes.
"""

from __future__ import annotations

from typing import Any

from msgpack import unpackb

from ...common.limits import WEBSOCKET_MESSAGE_MAX

# First byte of a text, or of bytes: length of its length.
_SIZES = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}
_FIX_TEXT = range(0xA0, 0xC0)  # of a text of up to 31 bytes
_PAIR = 0x92  # [code, reason]
_PAIR_MAX = 64 * 1024


class BadItem(Exception):
    """What came is no message, and no end."""


class Items:
    """`fed`, `given`: bytes so far."""

    __slots__ = ("fed", "given", "_at", "_buffer")

    def __init__(self) -> None:
        self.fed = 0
        self.given = 0
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        if self._at == len(self._buffer):
            self._buffer = bytearray()  # and not what a large one had needed
        else:
            del self._buffer[: self._at]
        self._at = 0
        self._buffer += data
        self.fed += len(data)

    def next(self) -> str | bytes | tuple[int, str] | None:
        """A message, or code and reason of the end; None: the next is not whole. Raises BadItem."""
        size = self._size()
        if not size or len(self._buffer) - self._at < size:
            return None
        try:
            item: Any = unpackb(memoryview(self._buffer)[self._at : self._at + size])
        except Exception as error:  # msgpack raises many unrelated types
            raise BadItem(f"what came is no message: {error!r:.200}") from None
        self._at += size
        self.given += size
        return (item[0], item[1]) if type(item) is list else item

    def clear(self) -> None:
        """What is there is for nobody."""
        self._buffer = bytearray()
        self._at = 0
        self.given = self.fed

    def _size(self) -> int:
        """Of the next item with its head; 0: that is not known yet."""
        buffer, at = self._buffer, self._at
        if at == len(buffer):
            return 0
        first = buffer[at]
        if first in _FIX_TEXT:
            return 1 + first - _FIX_TEXT.start
        if first == _PAIR:
            return self._pair_size()
        wide = _SIZES.get(first)
        if wide is None:
            raise BadItem(f"what came is no message: its first byte is 0x{first:02x}")
        if len(buffer) - at <= wide:
            return 0
        size = 1 + wide + int.from_bytes(buffer[at + 1 : at + 1 + wide], "big")
        if size > WEBSOCKET_MESSAGE_MAX:
            raise BadItem(f"a message of {size} bytes")
        return size

    def _pair_size(self) -> int:
        """It is the last, so it has all that there is, as soon as that can be read."""
        rest = bytes(self._buffer[self._at : self._at + _PAIR_MAX])
        try:
            pair = unpackb(rest, max_array_len=2, max_str_len=_PAIR_MAX, max_bin_len=0, max_map_len=0, max_ext_len=0)
        except ValueError as error:
            if len(rest) == _PAIR_MAX or "incomplete" not in str(error):
                raise BadItem(f"the end of a WebSocket cannot be read: {error!r:.200}") from None
            return 0
        if type(pair[0]) is not int or type(pair[1]) is not str:
            raise BadItem(f"the end of a WebSocket is [code, reason], not {pair!r:.100}")
        return len(rest)
