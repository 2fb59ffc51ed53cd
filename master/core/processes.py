"""Each process from the word of its agent to its settled end: started, ready, lost from sight, back, ended.

Its agent says what runs and what ended, it says HELLO itself. An exit is settled when all that it had sent is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...common import lifecycle, messages, wire
from ...common.lifecycle import Health, Intent
from ...common.limits import CONCURRENCY_MAX, NAME_MAX, STARTED_MAX
from ...common.units import in_a_row
from .greeting import refusal
from .pool import Slot, Stage
from .registry import Node
from .staffing import STOP_GRACE_MS

if TYPE_CHECKING:
    from .fleet import Fleet

REPLY_LOST_AFTER_S = 0.2  # an exited process's last replies are read within this, or they are lost
FAILING_CAUSE_MAX = 1024
FAILING_TEXT_MAX = 4096  # of a traceback: status shows those of all nodes in one message


class Processes:
    """Owns the slots; a node and a pool have those that are theirs."""

    def __init__(self, fleet: Fleet) -> None:
        self.slots: dict[str, Slot] = {}  # by incarnation
        self._fleet = fleet
        self._dispatch = fleet.dispatch
        self._exiting: dict[Slot, tuple[messages.Exited, float]] = {}

    def tick(self, now: float) -> None:
        for slot, (_, until) in list(self._exiting.items()):
            if now >= until:
                self.settle(slot, now)

    def busy(self) -> bool:
        return bool(self._exiting)

    # ---- what agents say -------------------------------------------------------------------------

    def inventory(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """What runs there now, and what ended unnoticed."""
        told = {each.incarnation for each in hello.processes}
        for each in hello.exits:
            self.exited(node, each, now)
        for slot in list(node.slots.values()):
            if slot.recall:  # what was said over the old connection may be lost, as what was answered
                self._fleet.recalls.ask(slot, slot.recalled)
            if slot.stage is Stage.RETIRED and slot.incarnation in told:
                self._fleet.staff.say_retire(slot, STOP_GRACE_MS)
            elif slot.incarnation not in told and slot.stage is not Stage.EXITED:
                self._drop(slot, f"{node.name} no longer knows its process", now)
        for started in hello.processes:
            # Who was not told of the rejoin told nobody to stop: it was away while the node was detached.
            self.started(node, started, now, stale=hello.generation < node.fresh_from)

    def started(self, node: Node, started: messages.Started, now: float, stale: bool = False) -> None:
        if started.incarnation in self.slots or not started.incarnation.startswith(f"{node.name}.{node.boot[:6]}"):
            return
        full = len(node.slots) >= STARTED_MAX or len(started.incarnation) > 2 * NAME_MAX
        if full or started.service not in node.offers:
            self._dispatch.counters["bad messages"] += 1
            return
        pool = self._fleet.pool(started.service, now)
        slot = Slot(node, pool, started.incarnation, started.ticket, started.pid, now)
        self.slots[slot.incarnation] = node.slots[slot.incarnation] = pool.slots[slot.incarnation] = slot
        if stale or node.intent is Intent.DETACHED:  # it came up when its plan was taken back: what rejoins is fresh
            self._fleet.staff.retire(slot, STOP_GRACE_MS, now)
        self._fleet.staff.replan = True  # it may be one too many by now

    def failing(self, node: Node, failing: messages.Failing) -> None:
        """Processes of a service that end before their HELLO."""
        before = node.failing.pop(failing.service, None)
        if failing.failures and failing.service in node.offers:
            cause = failing.cause or failing.text.rstrip().rpartition("\n")[2]  # an older agent does not say it
            kept = failing._replace(text=failing.text[-FAILING_TEXT_MAX:], cause=cause[:FAILING_CAUSE_MAX])
            node.failing[failing.service] = kept
            if before is None or before.failures != failing.failures:
                text = f"{failing.service} failed on {node.name} ({in_a_row(failing.failures)}): {kept.cause}"
                self._fleet.events.tell("failing", node.name, text)

    def usage(self, node: Node, usage: messages.Usage) -> None:
        for incarnation, rss in usage.rss.items():
            if slot := node.slots.get(incarnation):
                slot.rss = rss

    def ending(self, node: Node, ending: messages.Ending, now: float) -> None:
        """Its agent ends it for a handler over its limit: one that hangs cannot say BYE itself."""
        if slot := node.slots.get(ending.incarnation):
            self.bye(slot, now)

    def exited(self, node: Node, report: messages.Exited, now: float) -> None:
        """A process ended. Its last replies may still be on their way: they are read before it is settled."""
        self._fleet.out.say(node.route, node.token, messages.Noted(report.incarnation))
        slot = self.slots.get(report.incarnation)
        if slot is None or slot.node is not node:
            self._dispatch.inherited.lost_before(report)
            return
        if slot.stage is Stage.EXITED:
            return
        expected = slot.stage is Stage.RETIRED and report.kind != messages.End.HUNG
        was_ready = slot.stage is not Stage.BOOTING
        self._tell_exit(slot, report, expected)
        slot.stage = Stage.EXITED
        self._fleet.refresh(node, now)
        if was_ready and not expected:
            self._fleet.checks.crashed(slot, report, now)
        self._exiting[slot] = report, now + REPLY_LOST_AFTER_S
        if slot.connected:
            self._fleet.out.probes.append(slot)
        else:
            self.settle(slot, now)

    def _tell_exit(self, slot: Slot, report: messages.Exited, expected: bool) -> None:
        kind = "process stopped" if expected else "process lost"
        version = f", version {slot.version}" if slot.version else ""  # which it says when it is ready
        text = f"{slot.pool.name} on {slot.node.name} (pid {slot.pid}{version}) {report.cause}"
        if slot.inflight:
            targets = sorted({bytes(request.target()).decode("utf-8", "replace") for request in slot.inflight.values()})
            text += f"; {len(slot.inflight)} in flight: {', '.join(targets)}"
        self._fleet.events.tell(kind, slot.incarnation, text)

    # ---- what it says itself ---------------------------------------------------------------------

    def hello(self, route: bytes, hello: messages.ProcessHello, token: int, now: float) -> Slot | messages.Refusal:
        """A process is ready, or comes back after a lost connection."""
        slot = self.slots.get(hello.incarnation)
        if slot is None or slot.stage is Stage.EXITED:
            return refusal("unknown", f"no agent has told of {hello.incarnation} yet", 100)
        if slot.ticket != hello.ticket or slot.pool.name != hello.service:
            return refusal("denied", f"{hello.incarnation} has another ticket or service", 30_000)
        clash = _clash(slot, hello)
        if clash:
            self._fleet.events.tell("refused", slot.node.name, clash)
            return refusal("interface", clash, 30_000)
        if 0 < hello.hellos <= slot.hellos:
            return refusal("unknown", f"a later HELLO of {hello.incarnation} was here before", 100)
        slot.hellos = hello.hellos
        if slot.connected and slot.route == route:
            return slot  # asked twice over one connection: nothing was lost, and what is on its way must not be settled
        self._dispatch.slot_routes.pop(slot.route, None)
        self._fleet.census.process_told(slot, hello, now)
        slot.route, slot.token, slot.connected, slot.fenced = route, token, True, False
        slot.outgoing.clear()  # under the old token: settled by this HELLO, as what was lost on the way
        slot.version, slot.concurrency = hello.version, min(CONCURRENCY_MAX, max(1, hello.concurrency))
        self._dispatch.slot_routes[route] = slot
        if slot.stage is Stage.BOOTING:
            self._became_ready(slot, hello, now)
        self._dispatch.losses.rejoined(slot, hello.received_upto, hello.held, now)
        slot.acked = max(slot.acked, hello.reply_sequence - sum(each.done for each in hello.held))
        self._fleet.census.look(slot.node, now)
        slot.pool.adopt(slot)
        self._fleet.refresh(slot.node, now)
        return slot

    def _became_ready(self, slot: Slot, hello: messages.ProcessHello, now: float) -> None:
        fleet, node, pool = self._fleet, slot.node, slot.pool
        slot.stage = Stage.READY
        slot.ready_at = now
        versions = {each.version for each in pool.ready()}  # of releases that are gone nothing is compared any more
        pool.digests = {version: digest for version, digest in pool.digests.items() if version in versions}
        pool.digests[hello.version] = hello.digest
        pool.handlers = {**pool.handlers, **hello.handlers}
        self._dispatch.interface_known(pool)
        node.failing.pop(pool.name, None)
        if node.health is not Health.UNCHECKED:
            node.health = lifecycle.step(lifecycle.HEALTH, node.health, "ready")
        elif not fleet.checks.wants_proof(pool):
            fleet.enter(node, pool, "ready", now)
        if pool.first_ready is None:
            pool.first_ready = now
        fleet.checks.ready(slot, now)
        text = f"{pool.name} {slot.version} on {node.name} (pid {slot.pid})"
        fleet.events.tell("process ready", slot.incarnation, text)

    def bye(self, slot: Slot, now: float) -> None:
        """Somebody else told it to stop: it gets nothing more, and its exit settles the rest."""
        if slot.stage is Stage.READY:
            slot.stage = Stage.RETIRED
        self._fleet.refresh(slot.node, now)

    # ---- the end ---------------------------------------------------------------------------------

    def settle(self, slot: Slot, now: float) -> None:
        """The route is gone and all that came over it was read (or time is up)."""
        found = self._exiting.pop(slot, None)
        if found is not None:
            self._fleet.census.process_ended(slot, found[0], now)
            self._dispatch.losses.exited(slot, found[0], now)
            self._dispatch.inherited.lost_before(found[0])
            self._remove(slot)
            self._fleet.census.look(slot.node, now)

    def drop_all(self, node: Node, cause: str, now: float) -> None:
        node.plan = {}  # of a node that is gone nothing is awaited; one that comes back is told anew, and tells anew
        node.failing.clear()
        for slot in list(node.slots.values()):
            self._drop(slot, cause, now)

    def _drop(self, slot: Slot, cause: str, now: float) -> None:
        """Nobody will tell more of this process: what it had ends as unknown. (Of one that is exiting everything is
        told.)
        """
        if slot in self._exiting:
            return
        self._fleet.census.process_lost(slot, now)
        slot.stage = Stage.EXITED
        if slot.connected:  # it may live, cut off from its agent or us: one that has nothing to say must hear of it too
            self._fleet.out.backend.append((slot.route, wire.head(wire.WHO, 0)))
        self._dispatch.losses.disconnected(slot)
        self._dispatch.losses.abandoned(slot, cause, now)
        self._remove(slot)

    def _remove(self, slot: Slot) -> None:
        self._dispatch.losses.disconnected(slot)
        slot.outgoing.clear()
        self.slots.pop(slot.incarnation, None)
        slot.node.slots.pop(slot.incarnation, None)
        slot.pool.slots.pop(slot.incarnation, None)
        slot.pool.parked.pop(slot, None)
        slot.pool.stalled.pop(slot, None)
        if self._dispatch.slot_routes.get(slot.route) is slot:
            del self._dispatch.slot_routes[slot.route]


def _clash(slot: Slot, hello: messages.ProcessHello) -> str | None:
    """Two interfaces under one version of one service: the second is refused, both are shown."""
    for other in slot.pool.ready():
        known = slot.pool.digests.get(hello.version, hello.digest)
        if other is not slot and other.version == hello.version and known != hello.digest:
            return (
                f"{slot.pool.name} {hello.version} on {slot.node.name} has other handlers "
                f"({', '.join(sorted(hello.handlers))}) than on {other.node.name} "
                f"({', '.join(sorted(slot.pool.handlers))}): give the new one another version"
            )
    return None
