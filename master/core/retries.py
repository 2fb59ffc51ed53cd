"""How much may be run again: a budget that follows what succeeds, so that trouble is not multiplied by retries.

Counted from what succeeded in the last seconds and not from what is under way: that grows with the trouble when a
service hangs, and vanishes when it fails at once.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 10.0  # of successes that count, and of runs that were charged
STEP_S = 1.0  # between two marks: what leaves the window leaves it in pieces of a tenth
TELL_EVERY_S = 10.0  # an exhausted budget is refused many times a second; people are told once


class Mark(NamedTuple):
    """Counts at one moment; what lies between two of them is what happened between."""

    at: float
    successes: int
    charged: int


class RetryBudget:
    """The budget of one service. Counting successes costs nothing here: the pool does it anyway."""

    def __init__(self) -> None:
        self.charged = 0
        self._marks: deque[Mark] = deque()
        self._untold = 0  # refusals since somebody was told
        self._tell_at = 0.0

    def mark(self, successes: int, now: float) -> None:
        """Called at least each STEP_S while there is traffic; `successes`: of all time."""
        marks = self._marks
        if marks and now - marks[-1].at < STEP_S:
            return
        marks.append(Mark(now, successes, self.charged))
        while len(marks) > 1 and marks[1].at <= now - WINDOW_S:
            marks.popleft()

    def left(self, successes: int, percent: int, per_s: int, now: float) -> int:
        """How many more attempts may be made again now."""
        self.mark(successes, now)
        since = self._marks[0]
        allowed = (successes - since.successes) * percent // 100 + int(per_s * WINDOW_S)
        return max(0, allowed - (self.charged - since.charged))

    def take(self, successes: int, percent: int, per_s: int, now: float) -> bool:
        """Charge one, if there is one left."""
        if self.left(successes, percent, per_s, now):
            self.charged += 1
            return True
        self._untold += 1
        return False

    def to_tell(self, now: float) -> int:
        """Refusals that are to be told now; 0 while the last word is fresh."""
        if not self._untold or now < self._tell_at:
            return 0
        self._tell_at = now + TELL_EVERY_S
        untold, self._untold = self._untold, 0
        return untold
