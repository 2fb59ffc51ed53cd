"""The page: shared words in which a process notes what it starts, and in which its agent reads and fences it.

A memfd that the process inherits and the agent maps. Every word is aligned and written with one store, so a reader
never sees half of one. A row is complete before `started_upto` names its delivery: a reader believes a row only
up to there. The layout is the one of `docs/PROTOCOL.md`, "The page".
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from ..common import messages
from ..common.limits import PAGE_ROWS

MAGIC = int.from_bytes(b"rotapage", "little")
STARTED_UPTO, FLOOR, FENCE_EPOCH, OBEY, PHASE, STOP, ROWS, HANDLED, GRACE = range(1, 10)
FIRST_ROW = 16
ROW_WORDS = 8
CAUSE_WORDS = 128  # 1 KiB behind the rows
REPLY_WORDS = 512  # for each row, behind that: the length of its reply, and the reply; memory once it is used
REPLY_MAX = (REPLY_WORDS - 1) * 8  # bytes; larger ones are lost with their process

RUNNING, DONE, REFUSED = range(1, 4)  # states of a row; 0: it is free
BOOTING, READY, STOPPING = 1, 2, 3  # phases

# Number, state, started at, kill at, origin (session and request number, as they stand on the wire), epoch. Native
# order: struct then writes each word with one store; in another order it would write bytes.
ROW = Struct("@4Q24sQ")
assert ROW.size == ROW_WORDS * 8
_pack_row = ROW.pack_into
_ROW_READ = Struct("@4Q16s2Q")

_REPLY = Struct(f"@Q{REPLY_MAX}s")
_REPLY_SIZE = _REPLY.size
assert _REPLY_SIZE == REPLY_WORDS * 8
_STEP = 256  # bytes
# struct fills up with zeros what it is given: few replies need write, and push out of the caches, 4 KiB.
_pack_reply = [Struct(f"@Q{size - 8}s").pack_into for size in range(_STEP, _REPLY_SIZE + 1, _STEP)]


_PORT_SHIFT = 16  # in OBEY, above the index of the master


def obey(master: int, backend: str) -> int:
    """The word OBEY: the master's index, and the port of its backend, which may be another one than when the process
    began.
    """
    return master | int(backend.rpartition(":")[2]) << _PORT_SHIFT


def obeyed(backends: Sequence[str], word: int) -> str:
    """The backend's address that this word names. `backends`: the addresses of all when the process began."""
    backend = backends[(word & ((1 << _PORT_SHIFT) - 1)) % len(backends)]
    port = word >> _PORT_SHIFT
    return f"{backend.rpartition(':')[0]}:{port}" if port else backend


class PageRow(NamedTuple):
    number: int
    state: int
    started_ns: int
    kill_ns: int  # monotonic; 0 = no limit
    session: bytes
    request: int
    epoch: int


class Page:
    """Both sides' view. `words` may be read and stored to directly; each store is one word."""

    def __init__(self, fd: int) -> None:
        """Maps an existing page. Raises ValueError when the descriptor is not one."""
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.words = memoryview(self._map).cast("Q")
        if len(self.words) < FIRST_ROW or self.words[0] != MAGIC:
            self.close()
            raise ValueError("this descriptor is no page")
        self.rows = self.words[ROWS]
        self._rows_end = (FIRST_ROW + self.rows * ROW_WORDS) * 8
        self._cause_end = min(len(self._map), self._rows_end + CAUSE_WORDS * 8)
        # An older agent's page ends before.
        has_replies = len(self.words) >= self._cause_end // 8 + self.rows * REPLY_WORDS
        self._replies_at = self._cause_end if has_replies else 0
        self.reply_max = REPLY_MAX if has_replies else 0

    @classmethod
    def create(cls, rows: int = PAGE_ROWS) -> Page:
        low = os.memfd_create("rota-page", os.MFD_CLOEXEC)
        fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 3)  # where an application has closed its stdin, a child has one
        os.close(low)
        os.ftruncate(fd, (FIRST_ROW + rows * (ROW_WORDS + REPLY_WORDS) + CAUSE_WORDS) * 8)
        with mmap.mmap(fd, 0) as mapped, memoryview(mapped) as raw, raw.cast("Q") as words:
            words[ROWS] = rows
            words[PHASE] = BOOTING
            words[0] = MAGIC
        return cls(fd)

    def close(self) -> None:
        self.words.release()
        self._map.close()
        os.close(self.fd)

    # ---- the process ------------------------------------------------------------------------------------------------

    def start(self, row: int, number: int, started_ns: int, kill_ns: int, origin: bytes, epoch: int) -> bool:
        """Notes that delivery `number` starts, then looks at the fence. False: it is fenced off and must not run.

        The order is the proof. The agent writes fence or floor first and reads `started_upto` afterwards; we store
        `started_upto` first and read them afterwards: at least one of the two sees the other.
        """
        words = self.words
        first = FIRST_ROW + row * ROW_WORDS
        _pack_row(self._map, first * 8, number, RUNNING, started_ns, kill_ns, origin, epoch)
        words[STARTED_UPTO] = number
        if number >= words[FLOOR] and epoch >= words[FENCE_EPOCH]:
            return True
        words[first + 1] = REFUSED
        return False

    def taken_back(self, number: int) -> bool:
        """Was this delivery recalled before it began?"""
        return number < self.words[FLOOR]

    def limit(self, row: int, started_ns: int, kill_ns: int) -> None:
        """The limit of a handler that streams runs from its last piece. In this order of stores an agent that reads
        between them sees a limit that is too long, never one that is too short.
        """
        first = FIRST_ROW + row * ROW_WORDS
        self.words[first + 3] = kill_ns
        self.words[first + 2] = started_ns

    def done(self, row: int, reply: bytes) -> None:
        """It has run. Its reply, unless that is too large, is complete here before the row says so: what the transport
        has not sent when the process is killed is sent by the agent.
        """
        words = self.words
        if at := self._replies_at:
            size = len(reply)
            if size > REPLY_MAX:
                size, reply = 0, b""
            _pack_reply[(size + 7) // _STEP](self._map, at + row * _REPLY_SIZE, size, reply)
        words[FIRST_ROW + row * ROW_WORDS + 1] = DONE
        words[HANDLED] += 1

    def fail(self, cause: str) -> None:
        """It does not start: the reason in one line. (A page that an older agent made has no room for it.)"""
        line = next((line for line in cause.splitlines() if line.strip()), "")
        room = self._cause_end - self._rows_end
        self._map[self._rows_end : self._cause_end] = line.encode("utf-8", "replace")[:room].ljust(room, b"\0")

    def clear(self) -> None:
        """For another incarnation in the same process. (A reply is nothing without its row.)"""
        self._map[STARTED_UPTO * 8 : ROWS * 8] = bytes((ROWS - STARTED_UPTO) * 8)
        self._map[HANDLED * 8 : self._cause_end] = bytes(self._cause_end - HANDLED * 8)
        self.words[PHASE] = BOOTING

    # ---- the agent --------------------------------------------------------------------------------------------------

    def used_rows(self) -> list[PageRow]:
        """The rows that were ever used and that `started_upto` vouches for."""
        return [row for _, row in self._used()]

    def _used(self) -> Iterator[tuple[int, PageRow]]:
        """With their places."""
        started_upto = self.words[STARTED_UPTO]
        rows = enumerate(_ROW_READ.iter_unpack(self._map[FIRST_ROW * 8 : self._rows_end]))
        return ((place, PageRow._make(row)) for place, row in rows if 0 < row[0] <= started_upto)

    def failure(self) -> str:
        """What it said to `fail`; "" if nothing."""
        return self._map[self._rows_end : self._cause_end].rstrip(b"\0").decode("utf-8", "ignore")

    def running(self) -> list[PageRow]:
        return [row for row in self.used_rows() if row.state == RUNNING]

    def report(self) -> list[messages.Row]:
        """The rows as an exit report has them."""
        return [
            messages.Row(row.number, row.state, row.session, row.request, row.epoch, self._reply(place, row))
            for place, row in self._used()
        ]

    def replies(self, since: int) -> list[messages.Row]:
        """The rows of deliveries from this number on that are done and have their replies here."""
        return [row for row in self.report() if row.number >= since and row.reply]

    def _reply(self, place: int, row: PageRow) -> bytes:
        if row.state != DONE or not self._replies_at:
            return b""
        size, reply = _REPLY.unpack_from(self._map, self._replies_at + place * _REPLY_SIZE)
        # A process that lives may have begun another delivery in this row since it was read. Its row says so before
        # anything of its reply is written.
        first = FIRST_ROW + place * ROW_WORDS
        still = self.words[first] == row.number and self.words[first + 1] == DONE
        return bytes(reply[:size]) if still else b""
