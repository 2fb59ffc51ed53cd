"""Whether what an older master had been asked never ran: by what everybody who could have run it remembers.

Durations only cross the wire (docs/PROTOCOL.md, "What never ran"). Each becomes a bound on our own clock, on the safe
side of how long it was under way: whoever remembers is taken to have begun when it told, minus what it told; whoever
waits is taken to have asked when it was greeted, minus what it told after that.
"""

from __future__ import annotations

import struct
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from ...common import wire
from ...common.limits import AGES_MAX, DONE_MAX

if TYPE_CHECKING:
    from .pool import Request
    from .sessions import Session

AGE_MAX_S = 60.0  # what was asked earlier is not looked into: records of who has left need not go back further
DRIFT = 0.01  # between two clocks
MARGIN_S = 0.1  # our own clock is read once for all that is received together
_PAIR = struct.Struct("<QQ")


class Told(Enum):
    """Have those who could have run it told what they hold?"""

    ALL = 1
    NOT_YET = 2
    NEVER = 3  # one has not, and is not waited for any longer


class Recollection:
    """`since`: whatever was done after this is known. `done`: origins of what was done, as they stand on the wire."""

    def __init__(self) -> None:
        self.since = -inf
        self.done: set[bytes] = set()
        # Records name all nodes that were given anything in this epoch or a later one; None: there are no records.
        self.whole_since: int | None = None
        self.age_max = AGE_MAX_S

    def agent_told(self, ended_ms: int, up_ms: int, now: float) -> None:
        """What its processes did that ended, and those of an agent before it, nobody remembers."""
        self._from(up_ms, now)
        if ended_ms >= 0:
            self._from(ended_ms, now)

    def process_told(self, done: bytes, done_ms: int, now: float) -> None:
        size = wire.ORIGIN_SIZE
        self.done.update(done[at : at + size] for at in range(0, min(len(done), DONE_MAX * size), size))
        if done_ms >= 0:
            self._from(done_ms, now)

    def lost(self, now: float) -> None:
        """Somebody is gone without having told what it remembers."""
        self.since = max(self.since, now)

    def _from(self, ms: int, now: float) -> None:
        self.since = max(self.since, now - max(0, ms) / 1000 * (1 - DRIFT))

    def was_done(self, request: Request) -> bool:
        return wire.ORIGIN_STRUCT.pack(*request.origin()) in self.done

    def never_ran(self, request: Request, now: float) -> bool:
        """To be asked when everybody has told. A key stands for other requests, too, which may have run for it."""
        if request.frame[wire.FLAGS_AT] & wire.KEYED or self.whole_since is None:
            return False
        asked = request.session.asked_after(request.number)
        epoch = int.from_bytes(request.frame[wire.EPOCH_AT : wire.EPOCH_AT + 4], "little")
        if epoch < self.whole_since or asked <= max(self.since, now - self.age_max):
            return False
        return not self.was_done(request)


def ages_told(session: Session, body: bytes) -> None:
    """What its client told after our WELCOME: no request from this number on was sent longer ago than so many ms."""
    size = min(len(body) // _PAIR.size, AGES_MAX) * _PAIR.size
    pairs = _PAIR.iter_unpack(body[:size])
    session.asked = [(number, session.greeted_at - ms / 1000 * (1 + DRIFT) - MARGIN_S) for number, ms in pairs]
