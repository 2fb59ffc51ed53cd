"""The nodes: what is known of each, where it stands on the four axes, and which of its slots are open because of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from ...common import lifecycle
from ...common.lifecycle import Health, Intent, Liveness
from ...common.messages import Failing
from ...common.units import in_a_row, plural
from .health import Mark, Watch, ordinal
from .pool import Pool, Slot, Stage
from .timers import Tick

AGENT = "agent"  # who stands behind an intent that no operator gave
ILL = (Health.DEGRADED, Health.BLACKLISTED, Health.TRIAL)


@dataclass(slots=True, eq=False, repr=False)
class Node:
    """The master's record of a slave node. Its agent is reached by `route` while `liveness` is heard of."""

    name: str
    intent: Intent = Intent.ACTIVE
    liveness: Liveness = Liveness.UNKNOWN
    health: Health = Health.UNCHECKED
    generation: int = 0  # of the intent: rises with each change
    fresh_from: int = 0  # the generation in which it came back from detached: what was started before is not wanted
    by: str = ""
    reason: str = ""
    since: float = 0.0  # of the last change on any axis
    version: str = ""  # that `rejoin --version` announced for its next processes

    boot: str = ""
    older_boots: list[str] = field(default_factory=list)
    route: bytes = b""
    token: int = 0
    hellos: int = 0  # the number of its boot's last HELLO
    capacity: int = 0
    offers: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    embedded: bool = False

    slots: dict[str, Slot] = field(default_factory=dict)
    plan: dict[str, int] = field(default_factory=dict)
    planned: bool = False  # its agent was told of this plan
    extra: dict[str, int] = field(default_factory=dict)  # start-first: one more for a while
    failing: dict[str, Failing] = field(default_factory=dict)
    watches: dict[Pool, Watch] = field(default_factory=dict)  # of the services that had a ready process since it came
    mark: Mark = field(default_factory=Mark)
    ports: dict[str, str] = field(default_factory=dict)  # service → what its port check found; "" = it is well

    heard_at: float = 0.0
    ramp_from: float | None = None  # None: fully ramped
    drain_until: float | None = None
    leaving: bool = False  # its agent was told to go: detached means leave
    recorded: bool = False  # its presence is durable: only then it may be given work
    tick: Tick[Node] = field(default_factory=dict)  # of the timers: where it is

    def is_here(self) -> bool:
        """Its agent is heard, or was until a moment ago."""
        return self.liveness in lifecycle.HEARD

    def eligible(self) -> bool:
        return self.recorded and lifecycle.eligible(self.intent, self.liveness, self.health)

    def leaves_by_itself(self) -> bool:
        """Its agent was told to stop; that it is drained for it, or detached, is no operator's word."""
        return self.leaving and self.by == AGENT

    def in_flight(self) -> int:
        return sum(len(slot.inflight) for slot in self.slots.values())

    def versions(self) -> list[str]:
        """That its processes have said to be."""
        return sorted({slot.version for slot in self.slots.values() if slot.version})

    def pools(self) -> dict[Pool, None]:
        return dict.fromkeys(slot.pool for slot in self.slots.values())

    def of(self, pool: Pool) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.pool is pool]

    def is_marked(self, now: float) -> bool:
        """Something is held against it: it is ill, or it fell not long ago."""
        return self.health in ILL or self.mark.times(now) > 0

    def ramp(self, pool: Pool, now: float) -> float:
        """The share of its slots that is open, 0..1."""
        if self.ramp_from is None or pool.settings.ramp <= 0:
            return 1.0
        return min(1.0, max(0.0, (now - self.ramp_from) / pool.settings.ramp))

    def serves(self, pool: Pool, now: float) -> bool:
        """Counts for `min_active`: fully ramped, and a process of the service may be given work (so it is eligible)."""
        ready = self.health is not Health.TRIAL and self.ramp(pool, now) >= 1.0
        return ready and any(slot.open for slot in self.of(pool))


def trial_slot(node: Node) -> Slot | None:
    """The one slot that is open while the node is on trial, of the service that it fell for; None if there is none."""
    ready = (slot for slot in node.slots.values() if slot.serves())
    return next((slot for slot in ready if slot.pool.name == node.mark.service), None)


def refresh(node: Node, now: float) -> None:
    """Opens and closes the node's slots after anything that eligibility or ramp depends on."""
    eligible = node.eligible()
    if node.health is Health.TRIAL:
        only = trial_slot(node) if eligible else None
        for slot in node.slots.values():
            _set_open(slot, slot is only)
        return
    ready: dict[Pool, list[Slot]] = {}
    for slot in node.slots.values():
        if slot.serves():
            ready.setdefault(slot.pool, []).append(slot)
        else:
            _set_open(slot, False)
    for pool, slots in ready.items():
        share = max(1, ceil(node.ramp(pool, now) * len(slots)))
        for place, slot in enumerate(slots):
            _set_open(slot, eligible and place < share)


def shut(node: Node) -> None:
    """Closes all its slots."""
    for slot in node.slots.values():
        _set_open(slot, False)


def _set_open(slot: Slot, is_open: bool) -> None:
    if slot.open != is_open:
        slot.open = is_open
        slot.pool.shelf.placed(slot)


def active_nodes(nodes: dict[str, Node], pool: Pool, now: float) -> list[Node]:
    """The nodes that count for `min_active` of this service."""
    return [node for node in nodes.values() if node.serves(pool, now)]


def why(node: Node, now: float) -> str:
    """Why this node gets no traffic, or not its full share; empty when it gets it."""
    asked = f" by {node.by}" if node.by else ""
    because = f": {node.reason}" if node.reason else ""
    if node.liveness is Liveness.UNKNOWN:
        return "not heard of since this master started"
    if node.liveness is Liveness.DEAD:
        return f"dead: silent for {now - node.heard_at:.1f} s; when its agent speaks again it comes back"
    if node.liveness is Liveness.CLOSED:
        return "its agent said goodbye; start it again, or `rota forget` it"
    if node.intent is Intent.DRAINING:
        return f"draining{asked}{because}; {plural(node.in_flight(), 'request')} in flight"
    if node.intent is Intent.DETACHED:
        return f"detached{asked}{because}; `rota rejoin {node.name}` brings it back"
    if node.liveness is Liveness.SUSPECT:
        return f"suspect: no beat for {now - node.heard_at:.1f} s"
    if node.health is Health.BLACKLISTED and node.mark.until is not None:
        seconds = max(0.0, node.mark.until - now)
        return f"blacklisted for {seconds:.0f} s: {node.mark.cause}; {ordinal(node.mark.count)} time"
    if node.health is Health.TRIAL:
        return f"on trial, one request of {node.mark.service} at a time, after: {node.mark.cause}"
    for failing in node.failing.values():
        if not any(slot.open for slot in node.slots.values() if slot.pool.name == failing.service):
            retry = f"next try in {failing.retry_in_ms / 1000:g} s"
            return f"{failing.service} failed {in_a_row(failing.failures)}, {retry}: {failing.cause}"
    if not node.recorded:
        return "waiting for the journal"
    if not node.capacity:
        return ""  # a witness is as it should be
    if not node.plan:
        return "no process is planned here: " + (
            "other nodes have all that is wanted, or it is closed for maintenance"
            if node.offers
            else "it offers nothing"
        )
    if not any(slot.stage is Stage.READY for slot in node.slots.values()):
        return f"its processes are starting ({len(node.slots)} of {sum(node.plan.values())})"
    if not any(slot.serves() for slot in node.slots.values()):
        fenced = any(slot.fenced for slot in node.slots.values())
        return "its processes obey another master" if fenced else "no process of it is connected"
    if not node.eligible():
        problems = [f"{pool.name}: {watch.cause}" for pool, watch in node.watches.items() if watch.failures]
        return "it is let in after its first good checks" + (f"; {'; '.join(problems)}" if problems else "")
    lowest = min((node.ramp(pool, now) for pool in node.pools()), default=1.0)
    return f"ramping up: {lowest:.0%} of its slots are open" if lowest < 1 else ""
