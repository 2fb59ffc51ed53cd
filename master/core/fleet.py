"""The nodes: who is here, who is silent, who leaves for good; each may be given work while its slots are open.

Agents come, beat and go, time passes (`tick`), a journal makes their presence durable. What is wanted of nodes is with
`intents`, what runs on them with `processes`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ...common import lifecycle, messages
from ...common.lifecycle import Intent, Liveness
from ...common.limits import BEAT_S, NODES_MAX, STARTED_MAX
from . import admission, records
from .beginning import Sources
from .census import Census
from .checks import Checks
from .dispatch import Dispatch
from .events import EventLog
from .intents import Intents
from .liveness import moved
from .pauses import Pauses
from .pool import Pool
from .processes import Processes
from .recalls import Recalls
from .registry import Node, active_nodes, refresh, shut
from .staffing import Staffing
from .timers import Timers

AT_ONCE = 0.0  # in the next tick, however soon that comes


class Fleet:
    """Owns the nodes. `journal(record)` answers the number under which the record becomes durable."""

    def __init__(
        self, dispatch: Dispatch, events: EventLog, sources: Sources, journal: Callable[[bytes], int], now: float
    ) -> None:
        self.dispatch = dispatch
        self.out = dispatch.out
        self.events = events
        self.wall = sources.wall
        self.journal = journal
        self.nodes: dict[str, Node] = {}
        self.forgotten: dict[str, None] = {}  # names, the last ones: to forget one again is no mistake
        self.scaled: dict[str, int] = {}  # service → the operator's target
        self.stopping = False  # this master was told to stop: nothing is dispatched any more
        self.held = False  # it has no quorum: nothing is dispatched until it has
        self.patient_until = now  # no node that has not said hello is given up before
        self._began = now
        self._awaited: dict[Node, int] = {}  # nodes, and the record that makes their presence durable
        self._looks: Timers[Node] = Timers()  # when time may do something to each
        self.processes = Processes(self)
        self.recalls = Recalls(dispatch)
        self.intents = Intents(self)
        self.census = Census(self, now)
        self.staff = Staffing(self)
        self.checks = Checks(self, sources.random)
        self.pauses = Pauses(self)

    # ---- who comes and goes ----------------------------------------------------------------------

    def restore(self, restored: records.Restored) -> None:
        """From the journal: intents hold, liveness is unknown until the agents speak. Of those that had said goodbye
        nothing is awaited: they are not to be called dead, and have no vote.
        """
        self.nodes = restored.nodes
        self.forgotten = dict.fromkeys(sorted(restored.left - self.nodes.keys()))
        self.scaled = restored.targets
        self.checks.exempt = restored.exempt
        self.dispatch.maintenance.closed = restored.closed
        self.pauses.restore(restored.paused, self._began)
        self.census.restore(restored)
        for node in self.nodes.values():
            node.heard_at = node.since = self._began
            if node.name not in restored.present:
                node.liveness = Liveness.CLOSED
            if node.intent is Intent.DRAINING:
                node.drain_until = self._began + self.dispatch.settings.drain_deadline
        self.checks.restore(restored.marked, self._began)
        self.dispatch.quarantine.restore(restored.suspects, restored.gone)
        for node in self.nodes.values():
            self._look_at(node, AT_ONCE)

    def hello(self, route: bytes, hello: messages.AgentHello, token: int, now: float) -> Node | messages.Refusal:
        """An agent begins, or comes back after a lost connection."""
        refusal = admission.refuse(hello, self.nodes, self.dispatch.pools)
        if refusal is not None:
            return refusal
        node = self.nodes.get(hello.node)
        if node is None:
            if len(self.nodes) >= NODES_MAX and (gone := admission.longest_gone(self.nodes)):
                self.forget(gone, now)
                self.events.tell("forgotten", gone.name, f"{gone.name} gives its place to {hello.node}")
            node = self.nodes[hello.node] = Node(hello.node, since=now)
            self.forgotten.pop(hello.node, None)
        if node.boot != hello.boot:
            self._new_boot(node, hello, now)
        node.hellos = hello.hellos
        node.route, node.token, node.heard_at = route, token, now
        node.capacity = min(STARTED_MAX, max(0, hello.capacity))  # a plan counts to it
        node.embedded = hello.embedded
        node.offers, node.tags = hello.offers, hello.tags
        for service in hello.offers:
            self.pool(service, now)
        self.intents.adopt(node, hello, now)
        self._move(node, "hello", now)
        self.census.agent_told(node, hello, now)
        if not node.recorded:
            self.await_record(node, self.journal(records.present(node.name, True)))
        self.processes.inventory(node, hello, now)
        self.census.look(node, now)
        self.staff.replan = True
        node.planned = False  # what was said last may be lost
        if hello.leaving:
            self.intents.leaving(node, messages.Leaving(0), now)
        return node

    def _new_boot(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """Its agent was started anew: processes of the old one died with it."""
        if node.boot:
            node.older_boots = [*node.older_boots[-15:], node.boot]
        self.processes.drop_all(node, f"{node.name} was started anew", now)
        node.boot = hello.boot
        node.ports.clear()
        self.intents.started_again(node, now)
        self.checks.restart(node, now)

    def beat(self, node: Node, now: float, unheard: float = 0.0) -> None:
        """A node that does not hear us is as good as silent. Our answer to its last beat is half a beat old, mostly."""
        node.heard_at = max(node.heard_at, now - max(0.0, unheard - BEAT_S / 2))
        if node.liveness is Liveness.SUSPECT and now - node.heard_at <= self.dispatch.settings.suspect_after:
            self._move(node, "beat", now)

    def bye(self, node: Node, now: float) -> None:
        if self.nodes.get(node.name) is not node:
            return  # it was forgotten, and leaves as it was told: a record of that would bring it back
        self.processes.drop_all(node, f"{node.name} said goodbye", now)
        self._move(node, "bye", now)
        self.journal(records.present(node.name, False))
        self.census.left(node, now)
        node.recorded = False
        self._awaited.pop(node, None)
        self.staff.replan = True

    def forget(self, node: Node, now: float) -> int:
        """A detached one that is still here is told to leave: its agent would only come back."""
        self.processes.drop_all(node, f"{node.name} was forgotten", now)
        if node.is_here():
            self.intents.let_leave(node)
        del self.nodes[node.name]
        self.was_forgotten(node.name)
        self.census.forgotten(node, now)
        self.checks.forgotten(node)
        offered = {service for each in self.nodes.values() for service in each.offers}
        for service in node.offers:
            if service not in offered:
                self._strike(service)
        return self.journal(records.forgotten(node.name))

    def was_forgotten(self, name: str) -> None:
        """A node, or a master."""
        self.forgotten[name] = None
        if len(self.forgotten) > NODES_MAX:
            del self.forgotten[next(iter(self.forgotten))]

    def _strike(self, service: str) -> None:
        """No node offers it any more: nobody is to wait for it, or be alarmed. Unless something still hangs on it."""
        pool = self.dispatch.pools.get(service)
        if pool is not None and not pool.slots and self.dispatch.is_done_with(pool):
            del self.dispatch.pools[service]
            self.staff.strike(pool)
            self.dispatch.forget_targets()

    def recheck(self, node: Node) -> None:
        """Asks the node again what it can contribute: the plan is sent anew, which clears the agent's back-off.

        What failed before is forgotten: whoever waits now waits for what happens now.
        """
        node.failing.clear()
        node.planned = False
        self.staff.replan = True

    def await_record(self, node: Node, record: int) -> None:
        """This record makes the node's presence durable."""
        self._awaited[node] = record

    def recorded(self, number: int, now: float) -> None:
        """Everything up to this record is durable."""
        for node in [node for node, record in self._awaited.items() if record <= number]:
            del self._awaited[node]
            node.recorded = True
            self.refresh(node, now)

    # ---- time ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        for node in self._looks.due(now):
            if self.nodes.get(node.name) is node:  # else it was forgotten
                self._look(node, now)
        self.processes.tick(now)
        self.recalls.tick(now)
        self.census.tick(now)
        self.checks.tick(now)
        self.pauses.tick(now)
        self.staff.tick(now)

    def stop(self, now: float) -> None:
        """Nothing more is dispatched; what no process has begun is taken back."""
        self.stopping = True
        for node in self.nodes.values():
            self.refresh(node, now)
        self.recalls.ask_all()

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

    def extend(self, gap: float, now: float) -> None:
        """The master itself was paused: nobody was silent for that, and nothing could be finished."""
        for node in self.nodes.values():
            node.heard_at = min(now, node.heard_at + gap)
            if node.drain_until is not None:
                node.drain_until += gap
        self.checks.extend(gap)

    def busy(self) -> bool:
        """Something is under way that wants a short tick."""
        return self.recalls.busy() or self.processes.busy() or self.staff.busy()

    def is_draining(self) -> bool:
        return any(node.intent is Intent.DRAINING for node in self.nodes.values())

    def _look(self, node: Node, now: float) -> None:
        """All that time does to a node. It is looked at again when something of it may be due, or was changed."""
        self._watch(node, now)
        self._ramp(node, now)
        self.intents.look(node, now)
        self.checks.look(node, now)
        self._look_at(node, self._due(node, now))

    def _due(self, node: Node, now: float) -> float:
        if node.ramp_from is not None or node.intent is Intent.DRAINING:
            return now
        return min(self._silent_at(node), self.checks.due(node, now))

    def _look_at(self, node: Node, when: float) -> None:
        node.tick.pop(node, None)
        if when < inf:
            node.tick = self._looks.add(when, node)

    def _silent_at(self, node: Node) -> float:
        """When it will have been silent for too long. A beat only puts that off, so it is no reason to look at the
        node.
        """
        if node.liveness is Liveness.LIVE:
            return node.heard_at + self.dispatch.settings.suspect_after
        if node.liveness is Liveness.SUSPECT:
            return node.heard_at + self.dispatch.settings.dead_after
        if node.liveness is Liveness.UNKNOWN:
            return max(node.heard_at + self.dispatch.settings.dead_after + 1.0, self.patient_until)
        return inf

    def _watch(self, node: Node, now: float) -> None:
        if node.liveness is Liveness.LIVE and now > self._silent_at(node):
            self._move(node, "late", now)
        if node.liveness is not Liveness.LIVE and now > self._silent_at(node):
            self._died(node, now)

    def _died(self, node: Node, now: float) -> None:
        self._move(node, "silent", now)
        self.processes.drop_all(node, f"node {node.name} is dead or cut off", now)
        self.intents.died(node, now)
        self.staff.replan = True

    def _move(self, node: Node, event: str, now: float) -> None:
        before = node.liveness
        node.liveness, _ = moved(before, event, node.name, node.name, self.events)
        if before != node.liveness:
            node.since = now
        self.refresh(node, now)

    def _ramp(self, node: Node, now: float) -> None:
        if node.ramp_from is None:
            return
        if all(node.ramp(pool, now) >= 1.0 for pool in node.pools()):
            node.ramp_from = None
        self.refresh(node, now)

    def enter(self, node: Node, pool: Pool, event: str, now: float) -> None:
        """Into the pool, by this event of its health. Its share rises slowly where others can carry the load meanwhile:
        only there do cold caches matter.
        """
        others = [each for each in active_nodes(self.nodes, pool, now) if each is not node]
        young = pool.first_ready is None or now - pool.first_ready < pool.settings.ramp
        node.ramp_from = now if others and not young else None
        node.since = now
        node.health = lifecycle.step(lifecycle.HEALTH, node.health, event)

    def refresh(self, node: Node, now: float) -> None:
        """Called after any change of a node: opens and closes its slots, and lets the queues meet what was opened."""
        self._look_at(node, AT_ONCE)
        if self.stopping or self.held:
            shut(node)
            return
        refresh(node, now)
        for pool in node.pools():
            self.dispatch.pump(pool, now)

    # ---- services --------------------------------------------------------------------------------

    def pool(self, service: str, now: float) -> Pool:
        pool = self.dispatch.pools.get(service)
        if pool is None:
            pool = self.dispatch.pools[service] = Pool(service, self.dispatch.services(service), now)
            self.dispatch.quarantine.adopt(pool, now)
            if pause := self.pauses.held.get(service):
                pool.hold(pause)
        return pool

    def reconfigure(self) -> None:
        for pool in self.dispatch.pools.values():
            pool.reconfigure(self.dispatch.services(pool.name))
        for node in self.nodes.values():
            node.planned = False  # limits and checks go with the plan
            self._look_at(node, AT_ONCE)
        self.staff.replan = True
