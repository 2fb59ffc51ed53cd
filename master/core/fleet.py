"""The nodes and their processes: who is here, what each is to run, and when a node has drained.

Agents tell (hello, started, exited, …), time passes (`tick`), operators ask (through `verbs`); what follows goes to the
outbox as plans, retirements and records, and to the dispatch as opened and closed slots.
"""

from __future__ import annotations

from collections.abc import Callable

from ...common import lifecycle, messages, wire
from ...common.lifecycle import Health, IllegalTransition, Intent, Liveness
from ...common.limits import (
    BEAT_S,
    CONCURRENCY_MAX,
    NAME_MAX,
    NODES_MAX,
    OFFERS_MAX,
    SERVICES_MAX,
    STARTED_MAX,
    TAGS_BYTES_MAX,
)
from ...common.names import valid_name
from ...common.settings import MasterSettings, ServiceSettings
from ...common.units import plural
from . import records
from .checks import Checks
from .dispatch import Dispatch
from .events import EventLog
from .outbox import Outbox
from .pauses import Pauses
from .pool import Pool, Slot, Stage
from .recollection import AGE_MAX_S
from .registry import Node, active_nodes, refresh, shut
from .staffing import STOP_GRACE_MS, Staffing

REPLY_LOST_AFTER_S = 0.2  # an exited process's last replies are read within this, or they are lost
FAILING_TEXT_MAX = 4096  # of a traceback: status shows those of all nodes in one message
LEFT_FOR_S = 1.1 * AGE_MAX_S  # so long it matters that nobody remembers what a node did that has left
AGENT = "agent"  # who stands behind an intent that no operator gave


class Fleet:
    """Owns nodes and slots. `journal(record)` answers the number under which the record becomes durable."""

    def __init__(
        self,
        dispatch: Dispatch,
        out: Outbox,
        events: EventLog,
        settings: MasterSettings,
        services: Callable[[str], ServiceSettings],
        journal: Callable[[bytes], int],
        now: float,
    ) -> None:
        self.dispatch = dispatch
        self.out = out
        self.events = events
        self.settings = settings
        self.services = services
        self.journal = journal
        self.nodes: dict[str, Node] = {}
        self.slots: dict[str, Slot] = {}  # by incarnation
        self.forgotten: set[str] = set()  # names: to forget one again is no mistake
        self.scaled: dict[str, int] = {}  # service → the operator's target
        self.wall: Callable[[], float] = lambda: now  # the time of day, for reload_at
        self.stopping = False  # this master was told to stop: nothing is dispatched any more
        self.held = False  # it has no quorum: nothing is dispatched until it has
        self.patient_until = now  # no node that has not said hello is given up before
        self.changed = True  # since somebody who waits was last asked to look
        self._started_at = now
        self._present: dict[int, Node] = {}  # record number → node whose presence it makes durable
        self._exiting: dict[Slot, tuple[messages.Exited, float]] = {}
        self._must_tell: set[str] = set()  # nodes that an older master dispatched to and that have not told yet
        self._left: dict[str, float] = {}  # nodes that are on record as gone not long ago, until when
        self._recollection = dispatch.inherited.recollection
        self.staff = Staffing(self)
        self.checks = Checks(self)
        self.pauses = Pauses(self)

    # ---- agents ----------------------------------------------------------------------------------

    def restore(self, restored: records.Restored) -> None:
        """From the journal: intents hold, liveness is unknown until the agents speak."""
        self.nodes = restored.nodes
        self.scaled = restored.targets
        self.checks.exempt = restored.exempt
        self.dispatch.maintenance.closed = restored.closed
        self.pauses.restore(restored.paused, self._started_at)
        self._must_tell = set(restored.present)
        if restored.left:  # whatever they did
            self._recollection.lost(self._started_at)
            self._left = dict.fromkeys(restored.left, self._started_at + LEFT_FOR_S)
        for node in self.nodes.values():
            node.heard_at = node.since = self._started_at
            if node.intent is Intent.DRAINING:
                node.drain_until = self._started_at + self.settings.drain_deadline
        self.checks.restore(restored.marked, self._started_at)
        self.dispatch.quarantine.restore(restored.suspects)

    def hello(self, route: bytes, hello: messages.AgentHello, token: int, now: float) -> Node | messages.Refusal:
        """An agent begins, or comes back after a lost connection."""
        refusal = self._refuse(hello, now)
        if refusal:
            return refusal
        node = self.nodes.get(hello.node)
        if node is None:
            node = self.nodes[hello.node] = Node(hello.node, since=now)
            self.forgotten.discard(hello.node)
        if node.boot != hello.boot:
            self._new_boot(node, hello, now)
        elif 0 < hello.hellos <= node.hellos:
            return _refusal("busy", f"a later HELLO of {hello.node} was here before", 1000)
        node.hellos = hello.hellos
        node.route, node.token, node.heard_at = route, token, now
        node.capacity, node.embedded = max(0, hello.capacity), hello.embedded
        node.offers, node.tags = hello.offers, hello.tags
        for service in hello.offers:
            self.pool(service, now)
        self._adopt_intent(node, hello, now)
        self._move(node, "hello", now)
        if node.name in self._must_tell:
            self._recollection.agent_told(hello.ended_ms, hello.up_ms, now)
        self._left.pop(node.name, None)
        if not node.recorded:
            self._present[self.journal(records.present(node.name, True))] = node
        self._inventory(node, hello, now)
        self._told(node, now)
        self.staff.replan = True
        node.planned = False  # what was said last may be lost
        if hello.leaving:
            self.leaving(node, messages.Leaving(0), now)
        return node

    def _refuse(self, hello: messages.AgentHello, now: float) -> messages.Refusal | None:
        names = [hello.node, *hello.offers]
        bad = next((name for name in names if not valid_name(name)), None)
        if bad is not None:
            return _refusal("denied", f"{bad!r} is no name for a node or service", 30_000)
        too_much = self._too_much(hello)
        if too_much:
            return _refusal("denied", too_much, 30_000)
        node = self.nodes.get(hello.node)
        if node is None or node.boot == hello.boot:
            return None
        if hello.boot in node.older_boots:
            return _refusal("stale", f"a newer agent of {hello.node} has taken over", 30_000)
        if node.liveness is Liveness.LIVE:
            text = f"another agent is live under the name {hello.node}: give one of them another --name"
            return _refusal("name in use", text, 1000)
        return None

    def _too_much(self, hello: messages.AgentHello) -> str:
        """Why this is more than a master remembers of one node, or of all; empty when it is not."""
        if hello.node not in self.nodes and len(self.nodes) >= NODES_MAX:
            return f"{len(self.nodes)} nodes are known here already: `rota forget` those that are gone"
        services = self.dispatch.pools.keys() | set(hello.offers)
        if len(hello.offers) > OFFERS_MAX or len(services) > max(SERVICES_MAX, len(self.dispatch.pools)):
            return f"a node may offer {OFFERS_MAX} services, all nodes together {SERVICES_MAX}"
        if sum(len(key) + len(tag) for key, tag in hello.tags.items()) > TAGS_BYTES_MAX or len(hello.boot) > NAME_MAX:
            return f"its tags are longer than {TAGS_BYTES_MAX} characters, or its boot id than {NAME_MAX}"
        return ""

    def _new_boot(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """Its agent was started anew: processes of the old one died with it."""
        if node.boot:
            node.older_boots = [*node.older_boots[-15:], node.boot]
        for slot in list(node.slots.values()):
            self._drop(slot, f"{node.name} was started anew", now)
        node.boot = hello.boot
        node.ports.clear()
        node.failing.clear()
        if node.leaving:
            node.leaving = False
            if node.by == AGENT and node.intent is not Intent.ACTIVE:
                self._intend(node, "rejoin", AGENT, "started again", now)
        self._restart(node, now)

    def _restart(self, node: Node, now: float) -> None:
        """Of its health: what was seen of older processes says nothing of those to come. (Its mark stays.)"""
        if node.health is not Health.UNCHECKED:
            node.health = lifecycle.step(lifecycle.HEALTH, node.health, "restart")
        node.mark.until = None
        node.watches.clear()
        for slot in node.slots.values():
            if slot.stage is Stage.READY:
                self.checks.ready(slot, now)

    def _adopt_intent(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """A master without a journal learns from the agent what operators wanted of it."""
        if hello.generation <= node.generation:
            return
        try:
            node.intent = Intent(hello.intent)
        except ValueError:
            return
        node.generation, node.by, node.since = hello.generation, AGENT, now
        if node.intent is Intent.DRAINING:
            node.drain_until = now + self.settings.drain_deadline
        self.journal(records.intent(node))

    def _inventory(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """What runs there now, and what ended unnoticed."""
        told = {each.incarnation for each in hello.processes}
        for each in hello.exits:
            self.exited(node, each, now)
        for slot in list(node.slots.values()):
            slot.recall = 0  # what was said over the old connection may be lost, as what was answered
            if slot.stage is Stage.RETIRED and slot.incarnation in told:
                self.staff.say_retire(slot, STOP_GRACE_MS)
            elif slot.incarnation not in told and slot.stage is not Stage.EXITED:
                self._drop(slot, f"{node.name} no longer knows its process", now)
        for started in hello.processes:
            self.started(node, started, now)

    def beat(self, node: Node, now: float, unheard: float = 0.0) -> None:
        """A node that does not hear us is as good as silent. Our answer to its last beat is half a beat old, mostly."""
        node.heard_at = max(node.heard_at, now - max(0.0, unheard - BEAT_S / 2))
        if node.liveness is Liveness.SUSPECT and now - node.heard_at <= self.settings.suspect_after:
            self._move(node, "beat", now)

    def started(self, node: Node, started: messages.Started, now: float) -> None:
        if started.incarnation in self.slots or not started.incarnation.startswith(f"{node.name}.{node.boot[:6]}"):
            return
        full = len(node.slots) >= STARTED_MAX or len(started.incarnation) > 2 * NAME_MAX
        if full or started.service not in node.offers:
            self.dispatch.counters["bad messages"] += 1
            return
        pool = self.pool(started.service, now)
        slot = Slot(node, pool, started.incarnation, started.ticket, started.pid, now)
        self.slots[slot.incarnation] = node.slots[slot.incarnation] = pool.slots[slot.incarnation] = slot
        if node.intent is Intent.DETACHED:  # it came up when its plan was taken back: what rejoins is fresh
            self.staff.retire(slot, STOP_GRACE_MS, now)
        self.changed = True
        self.staff.replan = True  # it may be one too many by now

    def exited(self, node: Node, report: messages.Exited, now: float) -> None:
        """A process ended. Its last replies may still be on their way: they are read before it is settled."""
        self.out.say(node.route, node.token, messages.Noted(report.incarnation))
        slot = self.slots.get(report.incarnation)
        if slot is None or slot.node is not node:
            self.dispatch.inherited.lost_before(report)
            return
        if slot.stage is Stage.EXITED:
            return
        expected = slot.stage is Stage.RETIRED and report.kind != messages.End.HUNG
        was_ready = slot.stage is not Stage.BOOTING
        self._tell_exit(slot, report, expected)
        slot.stage = Stage.EXITED
        self.refresh(node, now)
        if was_ready and not expected:
            self.checks.crashed(slot, report, now)
        self._exiting[slot] = report, now + REPLY_LOST_AFTER_S
        if slot.connected:
            self.out.probes.append(slot)
        else:
            self.settle(slot, now)
        self.changed = True

    def settle(self, slot: Slot, now: float) -> None:
        """The route is gone and all that came over it was read (or time is up)."""
        found = self._exiting.pop(slot, None)
        if found is not None:
            if not slot.token and found[0].started_upto:
                self._recollection.lost(now)
            self.dispatch.losses.exited(slot, found[0], now)
            self.dispatch.inherited.lost_before(found[0])
            self._remove(slot)
            self._told(slot.node, now)

    def _tell_exit(self, slot: Slot, report: messages.Exited, expected: bool) -> None:
        kind = "process stopped" if expected else "process lost"
        text = f"{slot.pool.name} on {slot.node.name} (pid {slot.pid}, version {slot.version or '?'}) {report.cause}"
        if slot.inflight:
            targets = sorted({bytes(request.target()).decode("utf-8", "replace") for request in slot.inflight.values()})
            text += f"; {len(slot.inflight)} in flight: {', '.join(targets)}"
        self.events.tell(kind, slot.incarnation, text)

    def ending(self, node: Node, ending: messages.Ending, now: float) -> None:
        """Its agent ends it for a handler over its limit: one that hangs cannot say BYE itself."""
        if slot := node.slots.get(ending.incarnation):
            self.process_bye(slot, now)

    def reload(self, node: Node, reload: messages.Reload) -> None:
        """HUP at the agent: its own processes are replaced, one at a time."""
        for service in reload.services:
            pool = self.dispatch.pools.get(service)
            if pool is not None and not node.embedded:
                count = self.staff.reload(pool, node)
                text = f"{service}: {plural(count, 'process')} on {node.name}, one at a time"
                self.events.tell("reload", service, text, AGENT, "HUP")

    def failing(self, node: Node, failing: messages.Failing) -> None:
        before = node.failing.pop(failing.service, None)
        if failing.failures and failing.service in node.offers:
            node.failing[failing.service] = failing._replace(text=failing.text[-FAILING_TEXT_MAX:])
            if before is None or before.failures != failing.failures:
                last = failing.text.strip().rpartition("\n")[2]
                text = f"{failing.service} failed on {node.name} ({plural(failing.failures, 'time')} in a row): {last}"
                self.events.tell("failing", node.name, text)
        self.changed = True

    def recalled(self, node: Node, recalled: messages.Recalled, now: float) -> None:
        slot = node.slots.get(recalled.incarnation)
        if slot is not None:
            self.dispatch.losses.recalled(slot, recalled.floor, recalled.started_upto, now)

    def usage(self, node: Node, usage: messages.Usage) -> None:
        for incarnation, rss in usage.rss.items():
            if slot := node.slots.get(incarnation):
                slot.rss = rss

    def leaving(self, node: Node, leaving: messages.Leaving, now: float) -> None:
        """TERM at the agent: a fact, never refused. Not an operator's intent: it is not journaled."""
        again, node.leaving = node.leaving, True
        if node.intent is Intent.ACTIVE:
            self._intend(node, "drain", AGENT, "its agent was told to stop", now)
        if node.intent is not Intent.DRAINING:
            self._let_leave(node)
        elif not again:
            node.drain_until = now + (leaving.deadline_ms / 1000 or self.settings.drain_deadline)

    def bye(self, node: Node, now: float) -> None:
        for slot in list(node.slots.values()):
            self._drop(slot, f"{node.name} said goodbye", now)
        self._move(node, "bye", now)
        self.journal(records.present(node.name, False))
        self._left[node.name] = now + LEFT_FOR_S
        node.recorded = False
        self._must_tell.discard(node.name)
        self.staff.replan = True

    # ---- processes -------------------------------------------------------------------------------

    def process_hello(
        self, route: bytes, hello: messages.ProcessHello, token: int, now: float
    ) -> Slot | messages.Refusal:
        """A process is ready, or comes back after a lost connection."""
        slot = self.slots.get(hello.incarnation)
        if slot is None or slot.stage is Stage.EXITED:
            return _refusal("unknown", f"no agent has told of {hello.incarnation} yet", 100)
        if slot.ticket != hello.ticket or slot.pool.name != hello.service:
            return _refusal("denied", f"{hello.incarnation} has another ticket or service", 30_000)
        clash = self._clash(slot, hello)
        if clash:
            self.events.tell("refused", slot.node.name, clash)
            return _refusal("interface", clash, 30_000)
        if 0 < hello.hellos <= slot.hellos:
            return _refusal("unknown", f"a later HELLO of {hello.incarnation} was here before", 100)
        slot.hellos = hello.hellos
        if slot.connected and slot.route == route:
            return slot  # asked twice over one connection: nothing was lost, and what is on its way must not be settled
        self.dispatch.slot_routes.pop(slot.route, None)
        if not slot.token and slot.node.name in self._must_tell:
            self._recollection.process_told(hello.done, hello.done_ms, now)
        slot.route, slot.token, slot.connected = route, token, True
        slot.outgoing.clear()  # under the old token: settled by this HELLO, as what was lost on the way
        slot.version, slot.concurrency = hello.version, min(CONCURRENCY_MAX, max(1, hello.concurrency))
        self.dispatch.slot_routes[route] = slot
        if slot.stage is Stage.BOOTING:
            self._became_ready(slot, hello, now)
        self.dispatch.losses.rejoined(slot, hello.received_upto, hello.held, now)
        slot.acked = max(slot.acked, hello.reply_sequence - sum(each.done for each in hello.held))
        self._told(slot.node, now)
        slot.pool.adopt(slot)
        self.refresh(slot.node, now)
        return slot

    def _clash(self, slot: Slot, hello: messages.ProcessHello) -> str | None:
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

    def _became_ready(self, slot: Slot, hello: messages.ProcessHello, now: float) -> None:
        node, pool = slot.node, slot.pool
        slot.stage = Stage.READY
        slot.ready_at = now
        pool.digests[hello.version] = hello.digest
        pool.handlers = {**pool.handlers, **hello.handlers}
        self.dispatch.interface_known(pool)
        node.failing.pop(pool.name, None)
        if node.health is not Health.UNCHECKED:
            node.health = lifecycle.step(lifecycle.HEALTH, node.health, "ready")
        elif not self.checks.wants_proof(pool):
            self.enter(node, pool, "ready", now)
        if pool.first_ready is None:
            pool.first_ready = now
        self.checks.ready(slot, now)
        self.events.tell(
            "process ready", slot.incarnation, f"{pool.name} {slot.version} on {node.name} (pid {slot.pid})"
        )
        self.changed = True

    def enter(self, node: Node, pool: Pool, event: str, now: float) -> None:
        """Into the pool, by this event of its health. Its share rises slowly where others can carry the load meanwhile:
        only there do cold caches matter.
        """
        others = [each for each in active_nodes(self.nodes, pool, now) if each is not node]
        young = pool.first_ready is None or now - pool.first_ready < pool.settings.ramp
        node.ramp_from = now if others and not young else None
        node.since = now
        node.health = lifecycle.step(lifecycle.HEALTH, node.health, event)

    def process_bye(self, slot: Slot, now: float) -> None:
        """It was told to stop by somebody else: nothing more for it; its exit settles the rest."""
        if slot.stage is Stage.READY:
            slot.stage = Stage.RETIRED
        self.refresh(slot.node, now)

    def _drop(self, slot: Slot, cause: str, now: float) -> None:
        """Nobody will tell more of this process: what it had ends as unknown. (Of one that is exiting all is told.)"""
        if slot in self._exiting:
            return
        if not slot.token and slot.node.name in self._must_tell:
            self._recollection.lost(now)
        slot.stage = Stage.EXITED
        if slot.connected:  # it may live, cut off from its agent or us: one that has nothing to say must hear of it too
            self.out.backend.append((slot.route, wire.head(wire.WHO, 0)))
        slot.connected = slot.open = False
        slot.pool.shelf.placed(slot)
        self.dispatch.losses.abandoned(slot, cause, now)
        self._remove(slot)

    def _remove(self, slot: Slot) -> None:
        slot.connected = slot.open = False
        slot.outgoing.clear()
        slot.pool.shelf.placed(slot)
        self.slots.pop(slot.incarnation, None)
        slot.node.slots.pop(slot.incarnation, None)
        slot.pool.slots.pop(slot.incarnation, None)
        slot.pool.parked.pop(slot, None)
        slot.pool.stalled.pop(slot, None)
        if self.dispatch.slot_routes.get(slot.route) is slot:
            del self.dispatch.slot_routes[slot.route]
        self.changed = True

    # ---- intents ---------------------------------------------------------------------------------

    def drain(self, node: Node, by: str, reason: str, deadline: float, now: float) -> int:
        """Stops dispatching to the node in this step. Answers the record that makes it durable."""
        if node.intent is Intent.ACTIVE:
            node.drain_until = now + deadline
        return self._intend(node, "drain", by, reason, now)

    def rejoin(self, node: Node, by: str, reason: str, version: str, now: float) -> int:
        """Answers the record that makes it durable; the node gets work only then."""
        node.version = version
        node.drain_until = None
        node.recorded = False
        node.failing.clear()
        record = self._intend(node, "rejoin", by, reason, now)
        self._present[record] = node
        return record

    def _intend(self, node: Node, event: str, by: str, reason: str, now: float) -> int:
        before = node.intent
        node.intent = lifecycle.step(lifecycle.INTENT, before, event)
        node.since = now
        if event in ("drain", "rejoin"):
            node.generation, node.by, node.reason = node.generation + 1, by, reason
        if event == "rejoin" and node.health is not Health.UNCHECKED:
            self._restart(node, now)
            self._recheck_ready(node, before, now)
        self.refresh(node, now)
        self.events.tell(str(node.intent), node.name, f"{node.name}: {before} → {node.intent} ({event})", by, reason)
        self.staff.replan = self.changed = True
        if node.leaving and node.by == AGENT:
            return 0  # no operator's word: it ends with that agent
        if node.liveness in (Liveness.LIVE, Liveness.SUSPECT):
            word = messages.Intent(str(node.intent), node.generation, node.by, node.reason, node.version)
            self.out.say(node.route, node.token, word)
        return self.journal(records.intent(node))

    def _recheck_ready(self, node: Node, before: Intent, now: float) -> None:
        """A drain that was taken back in time: its processes are still the ones that were up."""
        if before is Intent.DRAINING and any(slot.stage is Stage.READY for slot in node.slots.values()):
            node.health = lifecycle.step(lifecycle.HEALTH, node.health, "ready")

    def forget(self, node: Node, now: float) -> int:
        """A detached one that is still here is told to leave: its agent would only come back."""
        for slot in list(node.slots.values()):
            self._drop(slot, f"{node.name} was forgotten", now)
        if node.liveness in (Liveness.LIVE, Liveness.SUSPECT):
            self._let_leave(node)
        del self.nodes[node.name]
        self.forgotten.add(node.name)
        if node.name in self._must_tell:
            self._must_tell.discard(node.name)
            self._recollection.lost(now)
        self._left[node.name] = now + LEFT_FOR_S
        self.changed = True
        return self.journal(records.forgotten(node.name))

    def recheck(self, node: Node) -> None:
        """Asks the node again what it can contribute: the plan is sent anew, which clears the agent's back-off.

        What failed before is forgotten: whoever waits now waits for what happens now.
        """
        node.failing.clear()
        node.planned = False
        self.staff.replan = True

    def recorded(self, number: int, now: float) -> None:
        """Everything up to this record is durable."""
        for record in [record for record in self._present if record <= number]:
            node = self._present.pop(record)
            node.recorded = True
            self.refresh(node, now)
            self.changed = True

    # ---- time ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        for node in list(self.nodes.values()):
            self._watch(node, now)
            self._ramp(node, now)
            self._drained(node, now)
        for slot, (_, until) in list(self._exiting.items()):
            if now >= until:
                self.settle(slot, now)
        for pool in self.dispatch.pools.values():
            self._recall(pool, now)
        for name in [name for name, until in self._left.items() if now >= until]:
            del self._left[name]
            self.journal(records.past(name))
        if now > self._started_at + 2 * AGE_MAX_S:  # whoever asks now for what an older master had asks too late
            self._recollection.done.clear()
        self.checks.tick(now)
        self.pauses.tick(now)
        self.staff.tick(now)

    def stop(self, now: float) -> None:
        """Nothing more is dispatched; what no process has begun is taken back."""
        self.stopping = True
        for node in self.nodes.values():
            self.refresh(node, now)
        for slot in self.slots.values():
            if slot.inflight:
                self._say_recall(slot)

    def hold(self, held: bool, now: float) -> None:
        """Without a quorum nothing is dispatched."""
        self.held = held
        for node in self.nodes.values():
            self.refresh(node, now)

    def voters(self, before: frozenset[str]) -> frozenset[str]:
        """The nodes that elect masters: all that are here, or may be again. `before`: those that did until now."""
        return frozenset(
            node.name
            for node in self.nodes.values()
            if node.liveness is not Liveness.CLOSED and (node.liveness is not Liveness.UNKNOWN or node.name in before)
        )

    def at_rest(self) -> bool:
        """What processes hold now they have begun."""
        return not any(slot.recall for slot in self.slots.values())

    def extend(self, gap: float, now: float) -> None:
        """The master itself was paused: nobody was silent for that, and nothing could be finished."""
        for node in self.nodes.values():
            node.heard_at = min(now, node.heard_at + gap)
            if node.drain_until is not None:
                node.drain_until += gap
        self.checks.extend(gap)

    def busy(self) -> bool:
        """Something is under way that wants a short tick."""
        return bool(
            self._exiting
            or self.staff.busy()
            or any(node.intent is Intent.DRAINING for node in self.nodes.values())
            or any(pool.parked or pool.stalled for pool in self.dispatch.pools.values())
        )

    def _watch(self, node: Node, now: float) -> None:
        silent = now - node.heard_at
        if node.liveness is Liveness.LIVE and silent > self.settings.suspect_after:
            self._move(node, "late", now)
        if node.liveness is Liveness.SUSPECT and silent > self.settings.dead_after:
            self._died(node, now)
        if node.liveness is Liveness.UNKNOWN and silent > self.settings.dead_after + 1.0 and now >= self.patient_until:
            self._died(node, now)

    def _died(self, node: Node, now: float) -> None:
        self._move(node, "silent", now)
        for slot in list(node.slots.values()):
            self._drop(slot, f"node {node.name} is dead or cut off", now)
        if node.intent is Intent.DRAINING:
            self._intend(node, "dead", "", "", now)
        self.staff.replan = True

    def _move(self, node: Node, event: str, now: float) -> None:
        before = node.liveness
        try:
            node.liveness = lifecycle.step(lifecycle.LIVENESS, before, event)
        except IllegalTransition:
            return
        edge = lifecycle.edge(before, node.liveness)
        if edge:
            self.events.tell(edge, node.name, f"{node.name}: {before} → {node.liveness}")
        if before != node.liveness:
            node.since = now
            self.changed = True
        self.refresh(node, now)

    def _ramp(self, node: Node, now: float) -> None:
        if node.ramp_from is None:
            return
        pools = dict.fromkeys(slot.pool for slot in node.slots.values())
        if all(node.ramp(pool, now) >= 1.0 for pool in pools):
            node.ramp_from = None
            self.changed = True
        self.refresh(node, now)

    def refresh(self, node: Node, now: float) -> None:
        """Opens and closes its slots, and lets the queues meet what was opened."""
        if self.stopping or self.held:
            shut(node)
            return
        refresh(node, now)
        for pool in dict.fromkeys(slot.pool for slot in node.slots.values()):
            self.dispatch.pump(pool, now)

    def _drained(self, node: Node, now: float) -> None:
        if node.intent is not Intent.DRAINING:
            return
        late = node.drain_until is not None and now >= node.drain_until
        left = node.in_flight()
        if (left or node.name in self._must_tell) and not late:
            return  # what an older master gave it counts too, and is not known before it has told
        if left:
            text = f"{node.name}: {plural(left, 'request')} still running at the deadline; what runs them is stopped"
            self.events.tell("drain forced", node.name, text)
        self._intend(node, "deadline" if left else "empty", "", "", now)
        for slot in list(node.slots.values()):
            self.staff.retire(slot, 0 if left else STOP_GRACE_MS, now)
        if node.leaving:
            self._let_leave(node)

    def _let_leave(self, node: Node) -> None:
        self.out.say(node.route, node.token, messages.Leave())

    def _recall(self, pool: Pool, now: float) -> None:
        for slot in self.dispatch.to_recall(pool, now):
            self._say_recall(slot)

    def _say_recall(self, slot: Slot) -> None:
        slot.recall = slot.last_number + 1
        self.out.say(slot.node.route, slot.node.token, messages.Recall(slot.incarnation, slot.last_number))

    # ---- size ------------------------------------------------------------------------------------

    def pool(self, service: str, now: float) -> Pool:
        pool = self.dispatch.pools.get(service)
        if pool is None:
            pool = self.dispatch.pools[service] = Pool(service, self.services(service), now)
            self.dispatch.quarantine.adopt(pool, now)
            if pause := self.pauses.held.get(service):
                pool.hold(pause)
            self.dispatch.forget_targets()
        return pool

    def reconfigure(self) -> None:
        for pool in self.dispatch.pools.values():
            pool.reconfigure(self.services(pool.name))
        for node in self.nodes.values():
            node.planned = False  # limits and checks go with the plan
        self.staff.replan = True

    def drain_deadline(self, node: Node) -> float:
        """The longest of its services."""
        pools = {slot.pool for slot in node.slots.values()}
        return max((self.staff.drain_deadline(pool) for pool in pools), default=self.settings.drain_deadline)

    # ---- what an older master had dispatched -----------------------------------------------------

    def accounted(self, older: bool, now: float) -> bool | None:
        """Has every node that an older master may have dispatched to told what it holds? None: not yet.

        `older`: asked for a caller who had known such a master. Without a journal nobody else knows that there was one.
        """
        if not self._must_tell and (self.settings.state or not older):
            return True
        return None if now < max(self._started_at + self.settings.dead_after + 1.0, self.patient_until) else False

    def _told(self, node: Node, now: float) -> None:
        """A node has told when all the processes that it named have said HELLO or ended."""
        if node.name in self._must_tell and all(slot.token for slot in node.slots.values()):
            self._must_tell.discard(node.name)
            self.dispatch.inherited.reconsider(now)


def _refusal(code: str, message: str, retry_after_ms: int) -> messages.Refusal:
    return messages.Refusal(code, message, retry_after_ms, list(wire.VERSIONS))
