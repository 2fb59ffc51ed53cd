"""What happened, numbered, with its cause: the one place where a state change or a member's failure is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

EVENTS_KEPT = 10_000  # the newest; about 4 MiB


class EventLog:
    """`wall` gives the time of day, for reading only: nothing is decided by it."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._kept: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self.last = 0

    def tell(self, kind: str, subject: str, text: str, by: str = "", reason: str = "") -> None:
        self.last += 1
        self._kept.append(
            {
                "number": self.last,
                "at": self._wall(),
                "kind": kind,
                "subject": subject,
                "text": text,
                "by": by,
                "reason": reason,
            }
        )

    def since(self, number: int, limit: int = EVENTS_KEPT) -> list[dict[str, Any]]:
        """Those with a higher number, oldest first; at most the newest `limit` of them."""
        newer = min(len(self._kept), self.last - number, limit)
        return [self._kept[place] for place in range(len(self._kept) - newer, len(self._kept))] if newer > 0 else []
