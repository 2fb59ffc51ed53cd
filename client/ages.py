"""How long ago requests were first sent, as a few bounds from above instead of a time for each. Pure.

A master that takes over needs them to know which requests nobody can have run (docs/PROTOCOL.md, "What never ran").
"""

from __future__ import annotations

import struct
from itertools import pairwise

from ..common.limits import AGES_MAX

MARK_S = 0.05  # between two marks
GROWTH = 2.0  # from one mark that is kept to the next older one: a dozen go back for a minute
KEPT_MAX = 4 * AGES_MAX  # until they are thinned out
_PAIR = struct.Struct("<QQ")


class Ages:
    """Marks: all requests from this number on were first sent after this moment."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, float]] = []

    def mark(self, number: int, at: float) -> None:
        marks = self._marks
        if marks and marks[-1][0] == number:
            marks.pop()  # nothing was sent meanwhile
        marks.append((number, at))
        if len(marks) > KEPT_MAX:
            self._marks = _thinned(marks, at)

    def pairs(self, lowest: int, at: float) -> bytes:
        """Number and ms, of as many marks as it takes to reach back to `lowest`."""
        first = max((place for place, (number, _) in enumerate(self._marks) if number <= lowest), default=0)
        kept = _thinned(self._marks[first:], at)
        del kept[1 : 1 + max(0, len(kept) - AGES_MAX)]
        return b"".join(_PAIR.pack(number, int(1000 * (at - marked)) + 1) for number, marked in kept)


def _thinned(marks: list[tuple[int, float]], now: float) -> list[tuple[int, float]]:
    """The first, the last, and of those between them so many that each next one is not less than half as old. For the
    requests of a mark that goes the older one before it stands: what is told of them is rather too old.
    """
    kept = marks[:1]
    for mark, newer in pairwise(marks[1:]):
        if now - kept[-1][1] > GROWTH * (now - newer[1]) + MARK_S:
            kept.append(mark)
    return kept + marks[-1:] if len(marks) > 1 else kept
