"""Deadlines in ticks of 10 ms: adding one costs two dict operations and removing it one, whatever their number.

A heap costs 0.7 µs a request, and keeps what is long answered until its time comes; here an answered request leaves at
once. 10 ms is half of what a caller may wait beyond its deadline (20 ms).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

TICKS_PER_S = 100
EMPTY_KEPT = 1024  # ticks whose items have all left, before it is looked for them: as many as 10 s have

Item = TypeVar("Item")


Tick = dict[Item, None]  # what is due at one; taking something out of a tick that has come is no error


class Timers(Generic[Item]):
    """Items by the tick at which they are due."""

    def __init__(self) -> None:
        self._at: dict[int, Tick[Item]] = {}
        self._ticks: list[int] = []  # a heap of the keys of _at, each once
        self._most = EMPTY_KEPT

    def add(self, when: float, item: Item) -> Tick[Item]:
        """Never early: the tick is the next one after `when`. Take it out by `tick.pop(item, None)`."""
        number = int(when * TICKS_PER_S) + 1
        tick = self._at.get(number)
        if tick is None:
            if len(self._ticks) >= self._most:
                self._drop_empty()
            tick = self._at[number] = {}
            heappush(self._ticks, number)
        tick[item] = None
        return tick

    def _drop_empty(self) -> None:
        """Of requests that may take a day and took a moment there would be millions."""
        self._at = {number: tick for number, tick in self._at.items() if tick}
        self._ticks = sorted(self._at)
        self._most = 2 * len(self._ticks) + EMPTY_KEPT

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
