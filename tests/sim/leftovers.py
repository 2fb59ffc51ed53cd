"""What is still there when a history is over: a part that runs for months keeps nothing of what has passed.

Whatever the cores reach that can grow is looked at, also what was made after this was written. It is to be empty, but
for what `MAY_STAY` names: what there is at the moment, and what has a bound however much has passed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rota.client.ages import KEPT_MAX as MARKS_MAX
from rota.client.calls import ACK_AFTER_BYTES, BEGUN_LOOK, WINDOW
from rota.common.limits import CREDIT_MAX, NODES_MAX, PAGE_ROWS
from rota.common.settings import MasterSettings
from rota.master.core.events import EVENTS_KEPT
from rota.master.core.frontend import SESSIONS_MAX
from rota.master.core.leases import REMEMBERED
from rota.master.core.mirror import ANSWERS_BYTES_MAX, ANSWERS_MAX
from rota.master.core.records import GONE_MAX

from .network import Violation
from .process_part import REMEMBER

if TYPE_CHECKING:
    from .cluster import Cluster

FORGET_S = 60.0  # silent clients, and answers to calls with a key
QUIET_S = 250.0  # what an older master had given is let go when 120 s have passed twice
EVERY = 50  # one of so many histories is looked at when it is over: that takes as long as ten others

NODES, PROCESSES = "nodes", "processes"  # as many as there are
FORGOTTEN_TOO = "nodes, and those that were forgotten"
WRITTEN = 32  # as many as the code or an operator has named: services, masters, handlers, kinds of counters

NUMBERS = ("bytes", "queued")  # attributes that count what is held are to come down to nothing with it

MAY_STAY: dict[str, int | str] = {
    # What there is.
    "Fleet.nodes": NODES,
    "Master._agents": FORGOTTEN_TOO,  # these go with the next HELLO of any node
    "Falls._at": FORGOTTEN_TOO,  # with the next fall
    "Checks._recorded": NODES,  # that fell: a mark counts for longer than is waited for here
    "Restored.marked": NODES,  # the same
    "Restored.nodes": NODES,
    "Restored.present": NODES,
    "Restored.electorate": NODES,
    "Leases.electorate": NODES,
    "Leases._beats": NODES,
    "Leases._until": NODES,
    "Voters._known": NODES,
    "Timers._at": NODES,  # when each is looked at next
    "Timers._ticks": NODES,
    "Node.tick": NODES,
    "Node.slots": PROCESSES,
    "Pool.slots": PROCESSES,
    "Processes.slots": PROCESSES,
    "Processes.alive": PROCESSES,
    "Dispatch.slot_routes": PROCESSES,
    "Dispatch.pools": WRITTEN,
    "Checks.falls": WRITTEN,
    "Node.offers": WRITTEN,
    "Node.plan": WRITTEN,
    "Node.watches": WRITTEN,
    "Pool.digests": WRITTEN,  # of versions that run
    "Processes._offers": WRITTEN,
    "Processes._plan": WRITTEN,
    "Processes.limits_ms": WRITTEN,
    "Pool.handlers": WRITTEN,
    "Dispatch._targets": WRITTEN,
    "Deliveries._handlers": WRITTEN,
    "Deliveries._limits_ns": WRITTEN,
    "Pair._followers": WRITTEN,
    "Search.masters": WRITTEN,
    "Beside._inquiries": WRITTEN,
    "Operators._known": WRITTEN,
    # What an operator wants, or has wanted last, of each service.
    "Fleet.scaled": WRITTEN,
    "Restored.targets": WRITTEN,
    "Restored.paused": WRITTEN,
    # Numbers of what happened, by its kind.
    "Dispatch.counters": WRITTEN,
    "PairStandby.counters": WRITTEN,
    "Connected._counters": WRITTEN,  # the same
    "Verbs._conditions": WRITTEN,
    "Pins.sessions": WRITTEN,
    "Pool.times": 33,
    # The last ones.
    "EventLog._kept": EVENTS_KEPT,
    "Mirror.events": EVENTS_KEPT,
    "Mirror._answers": ANSWERS_MAX,
    "Mirror._answers_bytes": ANSWERS_BYTES_MAX,
    "Frontend._settled": SESSIONS_MAX,
    "Pins._pins": MasterSettings().pins_limit,
    "Quarantine._gone": GONE_MAX,
    "Restored.gone": GONE_MAX,
    "Fleet.forgotten": NODES_MAX,
    "RetryBudget._marks": 12,
    "Node.older_boots": 16,
    "Asked._sent": REMEMBERED,
    "Candidacy.granted": WRITTEN,  # by nodes, as the next two in the last round
    "Candidacy._asked": WRITTEN,
    "Candidacy._ask_at": WRITTEN,
    "Shelf._rows": CREDIT_MAX + 1,
    "Deliveries._free": PAGE_ROWS,
    "Deliveries._kept": PAGE_ROWS,  # let go with the next delivery; their bytes have a limit, too
    "Deliveries._done": REMEMBER,
    "Deliveries._marks": 18,
    "Streams._early": CREDIT_MAX,  # of what was refused: let go with the next one
    "Ages._marks": MARKS_MAX,
    "Calls._unacked_bytes": ACK_AFTER_BYTES,  # it is said with the next request
    "Calls._begun": BEGUN_LOOK,
    "Calls._given_up": WINDOW,
}


def check(cluster: Cluster) -> None:
    """When its history has settled. Its clients vanish, operators look into the quarantine, and time passes."""
    callers = [client.core() for client in cluster.clients]
    _look(cluster, callers)
    for client in cluster.clients:
        client.vanish()
    for case in cluster.master.core.dispatch.quarantine.ids():
        cluster.master.verb("quarantine", action="drop", id=case)
    cluster.run(QUIET_S)
    _look(cluster, cluster.cores())


def _look(cluster: Cluster, cores: Iterable[object]) -> None:
    there = {NODES: len(cluster.agents) + len(cluster.removed), PROCESSES: len(cluster.processes())}
    there[FORGOTTEN_TOO] = there[NODES] + len(cluster.master.core.fleet.forgotten)
    too_many = []
    for name, items in sorted(left(cores).items()):
        may = MAY_STAY.get(name, 0)
        if items > (may if isinstance(may, int) else there[may]):
            too_many.append(f"{name} ({items})")
    if too_many:
        raise Violation(f"what has passed is still there: {', '.join(too_many)}")


def left(cores: Iterable[object]) -> dict[str, int]:
    """What can grow, as `Class.attribute`, and how much is in it; in the fullest, where there are several."""
    found: dict[str, int] = {}
    stack: list[tuple[str, Any]] = [("", core) for core in cores]
    seen: dict[int, object] = {}  # kept, so that no number comes again
    while stack:
        name, each = stack.pop()
        if isinstance(each, int) and name.endswith(NUMBERS):
            found[name] = max(each, found.get(name, 0))
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, dict | list | set | frozenset | deque):
            found[name] = max(len(each), found.get(name, 0))
            stack += ((name, item) for item in each)
            stack += ((name, item) for item in (each.values() if isinstance(each, dict) else ()))
        elif isinstance(each, tuple):
            stack += ((name, item) for item in each)
        elif _remembers(each):
            stack += ((f"{type(each).__name__}.{attribute}", value) for attribute, value in _attributes(each))
    return found


def _remembers(each: object) -> bool:
    """An object of ours; settings are as long as the file that they are from."""
    module = type(each).__module__
    return module.startswith("rota.") and not module.startswith("rota.common.settings")


def _attributes(each: object) -> Iterator[tuple[str, Any]]:
    slots = [name for kind in type(each).__mro__ for name in kind.__dict__.get("__slots__", ())]
    yield from getattr(each, "__dict__", {}).items()
    yield from ((name, getattr(each, name)) for name in slots if hasattr(each, name))
