"""What signals ask of a master."""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import NamedTuple

_AT_ONCE = frozenset({signal.SIGINT, signal.SIGQUIT})
_ENDING = _AT_ONCE | {signal.SIGTERM}
WANTED = _ENDING | {signal.SIGHUP, signal.SIGUSR1}


class Asked(NamedTuple):
    """What all signals ask for that have come since the last look, however many there were."""

    end: bool
    at_once: bool  # the last word is said now
    reload: bool
    reopen: bool  # its log


def asked(numbers: Collection[int], stopping: bool) -> Asked:
    """TERM: to end orderly; INT, QUIT, or TERM when it is `stopping` already: at once."""
    at_once = _ENDING if stopping else _AT_ONCE
    return Asked(
        end=not _ENDING.isdisjoint(numbers),
        at_once=not at_once.isdisjoint(numbers),
        reload=signal.SIGHUP in numbers,
        reopen=signal.SIGUSR1 in numbers,
    )
