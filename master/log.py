"""Every event as one line on stderr, so that nothing that happened is only in a memory that may be gone."""

from __future__ import annotations

import time
from typing import Any

from ..common import log
from .core.events import EventLog

LINES_MAX = 200  # a tick: a flood of events must not hold up requests; `rota events` has them all


class EventWriter:
    """Told after each tick to write what is new."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._written = events.adopted  # by the master that told them

    def write(self) -> None:
        if self._written == self._events.last:
            return
        new = self._events.since(self._written, LINES_MAX)
        left_out = self._events.last - self._written - len(new)
        if left_out:
            log.note(f"({left_out} events are left out here; `rota events` shows them)")
        for event in new:
            log.note(line(event))
        self._written = self._events.last


def line(event: dict[str, Any]) -> str:
    """Time of day, kind, who or what, the sentence, and who asked for it and why."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
    subject = "" if event["subject"] in event["text"] else f"{event['subject']}: "
    asked = f" (by {event['by']}{': ' + event['reason'] if event['reason'] else ''})" if event["by"] else ""
    return log.printable(f"{clock} {event['kind']}: {subject}{event['text']}{asked}")
