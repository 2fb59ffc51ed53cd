"""What happened, numbered, with its cause: the one place where a state change or a member's failure is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

EVENTS_KEPT = 10_000  # the newest; 3 MiB
TEXTS_MAX = 4 * 2**20  # characters of all that are kept: peers may see to it that each is as long as it may be
EVENTS_BYTES = 512 * 1024  # of texts in one message, which may have twice that
TEXT_MAX = 1000


class Event(NamedTuple):
    number: int
    at: float
    kind: str
    subject: str
    text: str
    by: str
    reason: str

    def characters(self) -> int:
        return len(self.subject) + len(self.text) + len(self.reason)


class EventLog:
    """`wall` gives the time of day, for reading only: nothing is decided by it."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._kept: deque[Event] = deque()
        self._characters = 0
        self.last = 0
        self.adopted = 0  # up to here they are of a master before this one

    def tell(self, kind: str, subject: str, text: str, by: str = "", reason: str = "") -> None:
        self.last += 1
        cut = (subject[:TEXT_MAX], text[:TEXT_MAX], by, reason[:TEXT_MAX])
        event = Event(self.last, self._wall(), kind, *cut)
        self._kept.append(event)
        self._characters += event.characters()
        while len(self._kept) > EVENTS_KEPT or self._characters > TEXTS_MAX:
            self._characters -= self._kept.popleft().characters()

    def adopt(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Takes over the events of another master, before there are any of our own. They keep their numbers."""
        for each in events:
            event = Event(**{name: each[name] for name in Event._fields})
            if event.number > self.last:
                self.last = event.number
                self._kept.append(event)
                self._characters += event.characters()
        self.adopted = self.last

    def since(self, number: int, limit: int = EVENTS_KEPT) -> list[dict[str, Any]]:
        return newest((event._asdict() for event in reversed(self._kept)), number, limit)


def newest(backwards: Iterable[dict[str, Any]], since: int, limit: int) -> list[dict[str, Any]]:
    """Those with a higher number than `since`, oldest first: the newest `limit` at most, and what one message holds.
    `backwards`: all events, the newest first.
    """
    found: deque[dict[str, Any]] = deque()
    room = EVENTS_BYTES
    for event in backwards:
        room -= 200 + len((event["subject"] + event["text"] + event["reason"]).encode())
        if event["number"] <= since or len(found) >= limit or room < 0:
            break
        found.appendleft(event)
    return list(found)
