"""What an engine is asked through, whichever it is."""

from __future__ import annotations

from typing import Protocol

from ..common.units import format_duration
from .core.engine_lease import Question, Row


class EngineError(Exception):
    """The sentence says what is wrong with the engine, or with its address."""


class Store(Protocol):
    """The one row of an engine. Both methods may raise EngineError; then nobody knows whether a change was made. Used
    by one thread.
    """

    def read(self, patience_s: float) -> Row: ...

    def change(self, question: Question) -> tuple[bool, Row]:
        """Changes the row if its stamp is still that of the question. Answers whether it was changed, and what it is
        now.
        """
        ...

    def close(self) -> None: ...


def late(what: str, patience_s: float) -> str:
    """What is wrong with an engine of which this has not come in time."""
    share = f"{format_duration(patience_s)}, a third of standby.takeover_after"
    return f"no {what} within {share}: raise that, at all masters, if the engine is so far away"
