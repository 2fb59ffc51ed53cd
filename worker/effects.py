"""What the agent's core wants done, in its order, however much comes of it meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .core.effects import Effect


class Effects:
    """Each is carried out whole before the next: what comes of it waits for its turn."""

    def __init__(self, carry_out: Callable[[Effect], None]) -> None:
        self._carry_out = carry_out
        self._waiting: deque[Effect] = deque()
        self._at_work = False

    def perform(self, effects: Iterable[Effect]) -> None:
        """After those that wait."""
        self._waiting.extend(effects)
        self._work()

    def perform_first(self, effects: Sequence[Effect]) -> None:
        """Before them."""
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
