"""Which replies of a process of one thread wait for the next ones, to go in one frame (docs/decisions/011). Pure."""

from __future__ import annotations

QUICK_US = 1000  # a reply that took so long goes at once, and so do those that wait when their work comes to as much
QUICK_STREAK = 64  # replies in a row that were quick, before one waits: a slow one among them holds up those before it


class Holding:
    """Told of each reply in its order."""

    def __init__(self, streak: int = QUICK_STREAK) -> None:
        self._streak = streak
        self._quick = 0  # replies in a row
        self._held_us = 0  # what those that wait took

    def waits(self, elapsed_us: int, may_wait: bool) -> bool:
        """Is this one to wait for the next? False: it goes now, with all that wait. `may_wait`: there is a next one to
        begin at once, and the page has this one's reply.
        """
        self._quick = self._quick + 1 if elapsed_us < QUICK_US else 0
        self._held_us += elapsed_us
        if may_wait and self._quick >= self._streak and self._held_us < QUICK_US:
            return True
        self._held_us = 0
        return False
