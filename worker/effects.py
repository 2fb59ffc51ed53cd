"""What the agent's core wants done, in its order, however much comes of it meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .core.supervision import Effect


class Effects:
    def __init__(self, carry_out: Callable[[Effect], None]) -> None:
        """`carry_out` may add what comes of the one that it is given."""
        self._carry_out = carry_out
        self._waiting: deque[Effect] = deque()

    def add(self, effects: Iterable[Effect]) -> None:
        """After those that wait."""
        self._waiting.extend(effects)

    def add_first(self, effects: Sequence[Effect]) -> None:
        """Before them."""
        self._waiting.extendleft(reversed(effects))

    def perform(self, effects: Iterable[Effect] = ()) -> None:
        """Carries out what waits, then these, then what comes of them."""
        self.add(effects)
        while self._waiting:
            self._carry_out(self._waiting.popleft())
