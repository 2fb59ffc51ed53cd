"""What happened, numbered, with its cause: the one place where a state change or a member's failure is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

EVENTS_KEPT = 10_000  # the newest; about 4 MiB
EVENTS_BYTES = 512 * 1024  # of texts in one message, which may have twice that
TEXT_MAX = 1000


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
                "subject": subject[:TEXT_MAX],
                "text": text[:TEXT_MAX],
                "by": by,
                "reason": reason[:TEXT_MAX],
            }
        )

    def since(self, number: int, limit: int = EVENTS_KEPT) -> list[dict[str, Any]]:
        """Those with a higher number, oldest first; at most the newest `limit` of them, and what a message holds."""
        found: deque[dict[str, Any]] = deque()
        room = EVENTS_BYTES
        for event in reversed(self._kept):
            room -= 200 + sum(len(event[field].encode()) for field in ("subject", "text", "reason"))
            if event["number"] <= number or len(found) >= limit or room < 0:
                break
            found.appendleft(event)
        return list(found)
