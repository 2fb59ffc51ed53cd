"""An answer that comes in pieces, on its way from its call to its connection.

    process ──► came() ──► what the client has not taken yet: a spool ──► connection.piece()

It is taken off its process as fast as that gives it, so that a slow reader does not hold it. Only when the spools are
full does the process wait: then no more is granted than the client reads.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgpack

from ..common.errors import Error
from ..common.wire import Body
from .core.upload import NoRoom
from .spool import FileSpool, Store

if TYPE_CHECKING:
    from .request import Request

PIECE = 64 * 1024  # bytes read from a file at a time
HEAD_MAX = 256 * 1024  # of status and headers, packed: what a process may send before anything is granted
LENGTH = 4  # bytes of the head's own length


class BadAnswer(Exception):
    """A service that knows nothing of docs/HTTP.md."""


class Streamed:
    """`status`: 0 until the head of it has come. `size`: bytes that went to the connection. `over`: nothing of it is
    left to do.
    """

    def __init__(self, request: Request, store: Store) -> None:
        self.status = 0
        self.size = 0
        self.over = False
        self._request = request
        self._taken = request.taken
        self._head = bytearray()
        self._store = store
        self._spool: FileSpool | None = None
        self._read = 0  # of the spool
        self._held: deque[bytes] = deque()  # behind the spool, which took no more; not said to be taken
        self._ended = False  # nothing more comes
        self._error: Error | None = None  # what it ended with

    # ---- what the call says ----------------------------------------------------------------------------------------

    def came(self, data: Body, more: bool) -> None:
        """Raises BadAnswer: it has no proper head, and nothing was sent of it."""
        size = len(data)
        if not self.status:
            data = self._begin(bytes(data))
            self._taken(size - len(data))
            if self.over:
                return
        self._ended = not more
        if not len(data):
            pass
        elif self._spool is None and not self._held and self._request.connection.takes:
            self._give(bytes(data))
            self._taken(len(data))
        else:
            self._keep(bytes(data))
        self._go_on()

    def finished(self, error: Error | None) -> None:
        """The call is over. What has come still goes to the client."""
        if not self._ended:
            self._ended = True
            self._error = error or Error("the answer came to no end")
        self._go_on()

    # ---- what the connection says ------------------------------------------------------------------------------------

    def written(self) -> None:
        """It takes more."""
        self._go_on()

    # ---- on its way ------------------------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> bytes:
        """The bytes behind the head."""
        head = self._head
        head += data
        end = head_end(head)
        if not end:
            return b""
        status, headers = _read_head(bytes(head[LENGTH:end]))
        self.status = status
        self._request.begin(status, headers)
        return bytes(head[end:])

    def _give(self, data: bytes) -> None:
        self.size += len(data)
        self._request.connection.piece(data, monotonic())

    def _keep(self, data: bytes) -> None:
        if not self._held:
            try:
                if self._spool is None:
                    self._spool = self._store.open()
                if self._spool.size > self._store.share:
                    raise NoRoom("this answer has its share")
                self._spool.write(data)
            except NoRoom:
                pass
            else:
                self._taken(len(data))
                return
        self._held.append(data)

    def _go_on(self) -> None:
        connection, spool = self._request.connection, self._spool
        while connection.takes and not self.over:
            if spool is not None and self._read < spool.size:
                try:
                    data = spool.read(self._read, min(PIECE, spool.size - self._read))
                except OSError as error:  # the disk fails
                    self.close()
                    return self._request.broke_off(error)
                self._read += len(data)
                self._give(data)
            elif spool is not None:
                spool.close()
                self._spool = spool = None
                self._read = 0
            elif self._held:
                data = self._held.popleft()
                self._give(data)
                self._taken(len(data))
            else:
                if self._ended and self.status:
                    self._end()
                return

    def _end(self) -> None:
        self.close()
        if self._error is None:
            self._request.ended()
        else:
            self._request.broke_off(self._error)

    def close(self) -> None:
        self.over = True
        self._held.clear()
        if self._spool is not None:
            self._spool.close()


def head_end(data: bytearray) -> int:
    """Where the head of an answer ends, from LENGTH on; 0: it is not all there. BadAnswer: it is none."""
    length = int.from_bytes(data[:LENGTH], "little") if len(data) >= LENGTH else 0
    if length > HEAD_MAX - LENGTH:
        raise BadAnswer(f"the head of the answer has {length} bytes")
    return LENGTH + length if len(data) >= LENGTH + length else 0


def _read_head(data: bytes) -> tuple[int, list[Any]]:
    try:
        status, headers, *_ = msgpack.unpackb(data)  # of a WebSocket that is refused there is one more
        if type(status) is int and status > 0 and type(headers) is list:
            return status, headers
    except Exception as error:  # msgpack raises many unrelated types
        raise BadAnswer(f"the head of the answer cannot be read: {error}") from None
    raise BadAnswer("the head of the answer is not [status, headers]")
