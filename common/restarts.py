"""How soon what ended by itself is started again. Pure."""

from __future__ import annotations

from math import inf

FIRST_S, MAX_S = 1.0, 30.0  # what ends at each start must not keep a core busy
WELL_S = 60.0  # of life, after which an end is a first one again


class Restarts:
    """Of one process. `now` may be of any clock that only goes forward."""

    def __init__(self) -> None:
        self._started_at = -inf
        self._pause_s = 0.0

    def started(self, now: float) -> None:
        self._started_at = now

    def pause(self, now: float) -> float:
        """It has ended, or did not start: seconds until the next attempt."""
        before = 0.0 if now - self._started_at > WELL_S else self._pause_s
        self._pause_s = min(MAX_S, 2 * before) or FIRST_S
        return self._pause_s
