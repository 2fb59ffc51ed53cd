"""What happened, numbered, with its cause: the one place where a state change or a member's failure is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

EVENTS_KEPT = 10_000  # the newest; about 4 MiB of texts as they usually are
TEXTS_MAX = 4 * 2**20  # characters of all texts kept: peers may see to it that each is as long as it may be
EVENTS_BYTES = 512 * 1024  # of texts in one message, which may have twice that
TEXT_MAX = 1000
TEXTS = ("subject", "text", "reason")


class EventLog:
    """`wall` gives the time of day, for reading only: nothing is decided by it."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._kept: deque[dict[str, Any]] = deque()
        self._characters = 0
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
        self._characters += _characters(self._kept[-1])
        while len(self._kept) > EVENTS_KEPT or self._characters > TEXTS_MAX:
            self._characters -= _characters(self._kept.popleft())

    def since(self, number: int, limit: int = EVENTS_KEPT) -> list[dict[str, Any]]:
        """Those with a higher number, oldest first; at most the newest `limit` of them, and what a message holds."""
        found: deque[dict[str, Any]] = deque()
        room = EVENTS_BYTES
        for event in reversed(self._kept):
            room -= 200 + sum(len(event[field].encode()) for field in TEXTS)
            if event["number"] <= number or len(found) >= limit or room < 0:
                break
            found.appendleft(event)
        return list(found)


def _characters(event: dict[str, Any]) -> int:
    return sum(len(event[field]) for field in TEXTS)
