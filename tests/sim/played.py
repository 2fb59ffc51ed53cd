"""How a history is played, what it was, and how a violation is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from .network import Violation

if TYPE_CHECKING:
    from .cluster import Cluster
    from .faults import Fault

CALLS_MAX = 100  # of one history


class Played(NamedTuple):
    answers: Counter[int]  # by code
    faults: int
    seconds: float  # on its own clock
    counts: Counter[str] = Counter()  # of what happened
    answered_after: float = 0.0  # seconds from the last fault until clients were answered


class Pace(NamedTuple):
    """Of each, one is chosen for a history."""

    pauses_s: list[float]  # between two calls
    fault_every_s: list[float]
    lasts_s: list[float]
    timeouts_s: list[float]


def under_load(cluster: Cluster, choice: Random, known: Mapping[Fault, int], kinds: Sequence[Fault], pace: Pace) -> int:
    """Calls at random moments, faults of these kinds at others. How many faults there were."""
    weights = [known[kind] for kind in kinds]
    clock, faults, calls = cluster.clock, 0, 0
    pause_s, fault_every_s = choice.choice(pace.pauses_s), choice.choice(pace.fault_every_s)
    until = clock.now + choice.choice(pace.lasts_s)
    next_call = next_fault = clock.now
    while clock.now < until:
        if next_call <= next_fault:
            clock.run(next_call)
            next_call += choice.expovariate(1 / pause_s) if calls < CALLS_MAX else until
            cluster.call(timeout=choice.choice(pace.timeouts_s))
            calls += 1
        else:
            clock.run(next_fault)
            next_fault += choice.expovariate(1 / fault_every_s)
            choice.choices(kinds, weights)[0](cluster)
            faults += 1
    return faults


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
