"""What a history was, and how a violation is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from .network import Violation

if TYPE_CHECKING:
    from .cluster import Cluster


class Played(NamedTuple):
    answers: Counter[int]  # by code
    faults: int
    seconds: float  # on its own clock
    counts: Counter[str] = Counter()  # of what happened
    answered_after: float = 0.0  # seconds from the last fault until clients were answered


@contextmanager
def told(cluster: Cluster, seed: int, options: str = "") -> Iterator[None]:
    """What goes wrong becomes a Violation with a transcript and how to see it again. The cluster ends here."""
    try:
        yield
    except Exception as problem:
        cluster.clock.tell("VIOLATION: %s: %s", type(problem).__name__, problem)
        again = f"python tests/sim/run.py {options}--seed {seed}"
        text = f"{cluster.clock.transcript()}\n\nseed {seed}: {problem}\nagain: {again}"
        raise Violation(text) from problem
    finally:
        cluster.close()
