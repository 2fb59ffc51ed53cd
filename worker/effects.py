"""Carries out the effects of the agent's core in their order, whatever further effects that has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .core.effects import Effect


class Effects:
    """Each effect is carried out completely before the next one. Effects that it causes wait for their turn."""

    def __init__(self, carry_out: Callable[[Effect], None]) -> None:
        self._carry_out = carry_out
        self._waiting: deque[Effect] = deque()
        self._at_work = False

    def perform(self, effects: Iterable[Effect]) -> None:
        """These come after the effects that wait."""
        self._waiting.extend(effects)
        self._work()

    def perform_first(self, effects: Sequence[Effect]) -> None:
        """These come before the effects that wait."""
        self._waiting.extendleft(reversed(effects))
        self._work()

    def _work(self) -> None:
        if self._at_work:
            return
        self._at_work = True
        try:
            while self._waiting:
                self._carry_out(self._waiting.popleft())
        finally:
            self._at_work = False
