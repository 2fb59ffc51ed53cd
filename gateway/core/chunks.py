"""A chunked body, RFC 9112 7.1, read so strictly that nobody can read it in another way. Pure."""

from __future__ import annotations

import re

from .head import FIELDS, TOKEN
from .rules import Rejected
from .upload import Upload

LINE_MAX = 256  # bytes of a chunk's size with its extensions, without CR LF
EXTENSIONS_MAX = 1024  # bytes of all extensions of one body: nothing that is in use sends any
TRAILERS_MAX = 8192  # bytes of all trailer fields
CHUNKS_MAX = 16384  # of one body: each costs time, whatever is in it; 64 bytes each make 1 MiB
CHUNK_BYTES = 1024  # a long body may have one chunk for each so many bytes: such come in pieces of 4 KiB and up

_WORD = TOKEN + rb"++"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;" + _WORD + rb"(?:=(?:" + _WORD + rb'|"[\t !#-\[\]-~]*+"))?)*+)')
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}(?![0-9A-Fa-f])")
_TRAILERS = re.compile(FIELDS)
_OF_THE_HEAD = re.compile(
    rb"^(?:content-length|transfer-encoding|host|connection|expect):", re.IGNORECASE | re.MULTILINE
)


class Chunks:
    """One body. Bytes are fed as they come; what has been decoded goes to `body`."""

    def __init__(self, most: int, body: Upload) -> None:
        self.body = body
        self._most = most
        self._left = 0  # of the chunk that is being read, with its CR LF
        self._ended = False  # the last chunk has come
        self._count = 0
        self._extensions = 0

    def feed(self, buffer: bytearray) -> bool:
        """Take what can be taken from the front of `buffer`. True: the body is whole, what is left is not part of it.
        Rejected: it breaks a rule.
        """
        at = 0
        try:
            while not self._ended:
                after = self._data(buffer, at) if self._left else self._size(buffer, at)
                if after == at:
                    return False
                at = after
        finally:
            del buffer[:at]
        return self._trailers(buffer)

    def _size(self, buffer: bytearray, at: int) -> int:
        end = buffer.find(b"\r\n", at, at + LINE_MAX + 2)
        if end < 0:
            if len(buffer) - at > LINE_MAX + 1:
                raise Rejected("chunk-size" if _SIZE.match(buffer, at) is None else "chunk-extension")
            return at
        found = _SIZE_LINE.fullmatch(buffer, at, end)
        if found is None:
            raise Rejected("chunk-size" if _SIZE.match(buffer, at, end) is None else "chunk-extension")
        self._extensions += len(found[2])
        if self._extensions > EXTENSIONS_MAX:
            raise Rejected("chunk-extension")
        self._begin(int(found[1], 16))
        return end + 2

    def _begin(self, size: int) -> None:
        if size == 0:
            self._ended = True
            return
        self._count += 1
        if self._count > max(CHUNKS_MAX, (self.body.size + size) // CHUNK_BYTES):
            raise Rejected("chunk-count")
        if self.body.size + size > self._most:
            raise Rejected("body-size")
        self._left = size + 2

    def _data(self, buffer: bytearray, at: int) -> int:
        """Data is taken as it comes, so that its rate can be seen; its CR LF in one."""
        size = min(self._left - 2, len(buffer) - at)
        if size > 0:
            self.body.add(buffer[at : at + size])
            self._left -= size
            return at + size
        end = bytes(buffer[at : at + 2])
        if not b"\r\n".startswith(end):
            raise Rejected("chunk-end")
        if len(end) < 2:
            return at
        self._left = 0
        return at + 2

    def _trailers(self, buffer: bytearray) -> bool:
        """They are checked and dropped: what comes behind a body can no longer be taken for a header."""
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
            return True
        end = buffer.find(b"\r\n\r\n", 0, TRAILERS_MAX + 2)
        if end < 0:
            if len(buffer) > TRAILERS_MAX + 1:
                raise Rejected("trailer")
            return False
        block = bytes(buffer[: end + 2])
        if _TRAILERS.fullmatch(block) is None or _OF_THE_HEAD.search(block) is not None:
            raise Rejected("trailer")
        del buffer[: end + 4]
        return True
