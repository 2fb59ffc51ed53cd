"""Conditions with a deadline, which tests wait for instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0  # of a machine that does other things too; when it is idle, hardly anything takes a second
LOOK_S = 0.02


def eventually(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    """For who does not give up when it does not come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def until(
    condition: Callable[[], object],
    what: str | Callable[[], object] = "it did not come about",
    seconds: float = PATIENCE_S,
) -> None:
    """`what`: is told when it does not come about; it may be asked for then."""
    assert eventually(condition, seconds), what if isinstance(what, str) else what()


def is_gone(pid: int) -> bool:
    """True also for a zombie: who reaps an orphan is the container's affair."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
