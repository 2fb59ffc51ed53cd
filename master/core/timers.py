"""Deadlines in ticks of 10 ms: adding and removing one costs two dict operations, whatever their number.

A heap costs 0.7 µs a request, and keeps what is long answered until its time comes; here an answered request leaves at
once. 10 ms is half of what a caller may wait beyond its deadline (20 ms).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

TICKS_PER_S = 100

Item = TypeVar("Item")


class Timers(Generic[Item]):
    """Items by the tick at which they are due; `add` answers the tick, which `remove` needs."""

    def __init__(self) -> None:
        self._at: dict[int, dict[Item, None]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _at, each once

    def add(self, when: float, item: Item) -> int:
        """Never early: the tick is the next one after `when`."""
        tick = int(when * TICKS_PER_S) + 1
        items = self._at.get(tick)
        if items is None:
            self._at[tick] = {item: None}
            heappush(self._ticks, tick)
        else:
            items[item] = None
        return tick

    def remove(self, tick: int, item: Item) -> None:
        """Removing what is no longer there is no error: it was due."""
        items = self._at.get(tick)
        if items is not None:
            items.pop(item, None)

    def due(self, now: float) -> list[Item]:
        """Takes out and answers everything whose tick has come."""
        found: list[Item] = []
        while self._ticks and self._ticks[0] / TICKS_PER_S <= now:  # as `next_deadline` says it, to the last bit
            found += self._at.pop(heappop(self._ticks))
        return found

    def next_deadline(self) -> float | None:
        """The earliest tick with something in it, in seconds."""
        while self._ticks and not self._at[self._ticks[0]]:
            del self._at[heappop(self._ticks)]
        return self._ticks[0] / TICKS_PER_S if self._ticks else None
