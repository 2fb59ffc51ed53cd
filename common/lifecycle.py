"""The life of a node as four axes. Two rules:

1. Everything that may change on an axis stands in this file: a pair of state and event that is not in a table raises
   `IllegalTransition` and changes nothing.
2. This file does not know who asks, nor why: guards (the budget, majorities) are asked before, effects happen after.

    intent    what operators and rollouts want; persisted
    liveness  what the master observes of the agent's beats
    health    what checks and results say; moves with hysteresis
    ramp      derived: how much of the node's slots is open, 0..1

The pictures in `docs/LIFECYCLE.md` are drawn from these tables.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

State = TypeVar("State", bound=StrEnum)


class Intent(StrEnum):
    ACTIVE = "active"  # wanted in the pool
    DRAINING = "draining"  # gets nothing new, finishes what it has; has a deadline
    DETACHED = "detached"  # out of the pool, processes stopped, agent stays


class Liveness(StrEnum):
    UNKNOWN = "unknown"  # known by name (journal), not heard of since this master started
    LIVE = "live"  # its beats arrive
    SUSPECT = "suspect"  # missed beats: no new work; reversible without noise
    DEAD = "dead"  # silent for the threshold: its started work is settled as lost
    CLOSED = "closed"  # said goodbye: missed beats mean nothing


class Health(StrEnum):
    UNCHECKED = "unchecked"  # none of its processes was ready since it came, or its first checks are not passed
    UP = "up"  # one of its processes is ready, and nothing speaks against it
    DEGRADED = "degraded"  # would be blacklisted, but the budget needs it
    BLACKLISTED = "blacklisted"  # until a point in time
    TRIAL = "trial"  # one credit, as a trial


INTENT: dict[Intent, dict[str, Intent]] = {
    Intent.ACTIVE: {"drain": Intent.DRAINING},
    Intent.DRAINING: {
        "drain": Intent.DRAINING,  # asked again: who wants it changes, and nothing else
        "empty": Intent.DETACHED,
        "deadline": Intent.DETACHED,
        "dead": Intent.DETACHED,
        "rejoin": Intent.ACTIVE,
    },
    Intent.DETACHED: {"drain": Intent.DETACHED, "rejoin": Intent.ACTIVE},
}

LIVENESS: dict[Liveness, dict[str, Liveness]] = {
    Liveness.UNKNOWN: {"hello": Liveness.LIVE, "silent": Liveness.DEAD},
    Liveness.LIVE: {
        "hello": Liveness.LIVE,
        "beat": Liveness.LIVE,
        "late": Liveness.SUSPECT,
        "silent": Liveness.DEAD,
        "bye": Liveness.CLOSED,
    },
    Liveness.SUSPECT: {
        "hello": Liveness.LIVE,
        "beat": Liveness.LIVE,
        "silent": Liveness.DEAD,
        "bye": Liveness.CLOSED,
    },
    Liveness.DEAD: {"hello": Liveness.LIVE},
    Liveness.CLOSED: {"hello": Liveness.LIVE},
}

HEALTH: dict[Health, dict[str, Health]] = {
    Health.UNCHECKED: {
        "ready": Health.UP,  # and nothing is to be checked before it is let in
        "rise": Health.UP,
        "fall": Health.BLACKLISTED,
        "spare": Health.DEGRADED,
        "restart": Health.UNCHECKED,
    },
    Health.UP: {
        "ready": Health.UP,
        "fall": Health.BLACKLISTED,
        "spare": Health.DEGRADED,  # it fell, and the budget cannot do without it
        "restart": Health.UNCHECKED,
    },
    Health.DEGRADED: {
        "ready": Health.DEGRADED,
        "rise": Health.UP,
        "fall": Health.BLACKLISTED,
        "spare": Health.DEGRADED,
        "restart": Health.UNCHECKED,
        "reinstate": Health.UP,
    },
    Health.BLACKLISTED: {
        "ready": Health.BLACKLISTED,
        "expired": Health.TRIAL,
        "restart": Health.UNCHECKED,
        "reinstate": Health.UP,
    },
    Health.TRIAL: {
        "ready": Health.TRIAL,
        "rise": Health.UP,
        "fall": Health.BLACKLISTED,
        "spare": Health.DEGRADED,
        "restart": Health.UNCHECKED,
        "reinstate": Health.UP,
    },
}

# LIVE, DEAD and CLOSE are edges, not states: what is published when the axis moves into a state from another one.
EDGES = {Liveness.LIVE: "LIVE", Liveness.DEAD: "DEAD", Liveness.CLOSED: "CLOSE"}
HEARD = {Liveness.LIVE, Liveness.SUSPECT}  # suspect ⇄ live makes no noise


class IllegalTransition(ValueError):
    """This event does not exist in this state; nothing was changed."""


def step(table: dict[State, dict[str, State]], state: State, event: str) -> State:
    """The next state, or IllegalTransition."""
    try:
        return table[state][event]
    except KeyError:
        raise IllegalTransition(f"{type(state).__name__} {state.value!r} does not know {event!r}") from None


def edge(before: Liveness, after: Liveness) -> str | None:
    """The name of the edge that is published for this move, None for one that is not."""
    if before == after or (before in HEARD and after in HEARD):
        return None
    if after is Liveness.DEAD and before not in HEARD:
        return None  # it was never live here: only absent
    return EDGES.get(after)


def eligible(intent: Intent, liveness: Liveness, health: Health) -> bool:
    """May a node in these states be given new work at all? (Ramp and cell narrow it further.)"""
    return (
        intent is Intent.ACTIVE and liveness is Liveness.LIVE and health in (Health.UP, Health.DEGRADED, Health.TRIAL)
    )
