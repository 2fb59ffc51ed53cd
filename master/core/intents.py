"""What is wanted of a node, by operators or by its agent: drained, taken back; and when a drain has come to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...common import lifecycle, messages
from ...common.lifecycle import Health, Intent, Liveness
from ...common.units import plural
from . import records
from .pool import Stage
from .registry import AGENT, Node
from .staffing import STOP_GRACE_MS

if TYPE_CHECKING:
    from .fleet import Fleet


class Intents:
    """The intents of all nodes. An operator's is journaled and said to the agent; an agent's own ends with
    that agent.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    # ---- operators -------------------------------------------------------------------------------

    def drain(self, node: Node, by: str, reason: str, now: float) -> int:
        """Stops dispatching to the node in this step. Answers the record that makes it durable."""
        if node.intent is Intent.ACTIVE:
            node.drain_until = now + self._drain_deadline(node)
        return self._step(node, "drain", by, reason, now)

    def drain_within(self, node: Node, deadline: float, now: float) -> None:
        node.drain_until = now + deadline
        self._fleet.refresh(node, now)

    def rejoin(self, node: Node, by: str, reason: str, version: str, now: float) -> int:
        """Answers the record that makes it durable; the node gets work only then."""
        node.version = version
        node.drain_until = None
        node.recorded = False
        node.failing.clear()
        record = self._step(node, "rejoin", by, reason, now)
        if node.is_here():
            self._fleet.await_record(node, record)
        # Else its HELLO brings the record that it waits for: its presence may not be on record any more.
        return record

    def _drain_deadline(self, node: Node) -> float:
        """The longest of its services."""
        staff = self._fleet.staff
        return max(map(staff.drain_deadline, node.pools()), default=self._fleet.dispatch.settings.drain_deadline)

    # ---- agents ----------------------------------------------------------------------------------

    def adopt(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        """A master without a journal learns from the agent what operators wanted of it."""
        if hello.generation <= node.generation:
            return
        try:
            node.intent = Intent(hello.intent)
        except ValueError:
            return
        node.generation, node.by, node.since = hello.generation, "", now  # whose word it was it does not say
        if node.intent is Intent.DRAINING:
            node.drain_until = now + self._fleet.dispatch.settings.drain_deadline
        self._fleet.journal(records.intent(node))

    def leaving(self, node: Node, leaving: messages.Leaving, now: float) -> None:
        """TERM at the agent: a fact, never refused. Not an operator's intent: it is not journaled."""
        again, node.leaving = node.leaving, True
        if node.intent is Intent.ACTIVE:
            self._step(node, "drain", AGENT, "its agent was told to stop", now)
        if node.intent is not Intent.DRAINING:
            self.let_leave(node)
        elif not again:
            node.drain_until = now + (leaving.deadline_ms / 1000 or self._fleet.dispatch.settings.drain_deadline)

    def reload(self, node: Node, reload: messages.Reload) -> None:
        """HUP at the agent: its own processes are replaced, one at a time."""
        for service in reload.services:
            pool = self._fleet.dispatch.pools.get(service)
            if pool is not None and not node.embedded:
                count = self._fleet.staff.reload(pool, node)
                text = f"{service}: {plural(count, 'process')} on {node.name}, one at a time"
                self._fleet.events.tell("reload", service, text, AGENT, "HUP")

    def started_again(self, node: Node, now: float) -> None:
        """Its agent was started anew: what the one before had wanted is over."""
        by_itself, node.leaving = node.leaves_by_itself(), False
        if by_itself and node.intent is not Intent.ACTIVE:
            self._step(node, "rejoin", AGENT, "started again", now)

    def say(self, node: Node) -> None:
        word = messages.Intent(str(node.intent), node.generation, node.by, node.reason, node.version)
        self._fleet.out.say(node.route, node.token, word)

    def let_leave(self, node: Node) -> None:
        self._fleet.out.say(node.route, node.token, messages.Leave())

    # ---- what becomes of a drain -----------------------------------------------------------------

    def look(self, node: Node, now: float) -> None:
        """Detaches it when it has drained, or when its time is over."""
        if node.intent is not Intent.DRAINING:
            return
        late = node.drain_until is not None and now >= node.drain_until
        left = node.in_flight()
        untold = self._fleet.census.waits_for(node) and node.liveness is not Liveness.DEAD
        if (left or untold) and not late:
            return  # what an older master gave it counts too, and is not known before it has told
        if left:
            text = f"{node.name}: {plural(left, 'request')} still running at the deadline; what runs them is stopped"
            self._fleet.events.tell("drain forced", node.name, text)
        self._step(node, "deadline" if left else "empty", "", "", now)
        self._fleet.staff.say_plan(node, {})  # before they end: it would start others in their place
        for slot in list(node.slots.values()):
            self._fleet.staff.retire(slot, 0 if left else STOP_GRACE_MS, now)
        if node.leaving:
            self.let_leave(node)

    def died(self, node: Node, now: float) -> None:
        if node.intent is Intent.DRAINING:
            self._step(node, "dead", "", "", now)

    def _step(self, node: Node, event: str, by: str, reason: str, now: float) -> int:
        """Answers the record that makes it durable, 0 if it is none."""
        fleet, before = self._fleet, node.intent
        node.intent = lifecycle.step(lifecycle.INTENT, before, event)
        node.since = now
        if event in ("drain", "rejoin"):
            node.generation, node.by, node.reason = node.generation + 1, by, reason
        if event == "rejoin" and before is Intent.DETACHED:
            node.fresh_from = node.generation
        if event == "rejoin" and node.health is not Health.UNCHECKED:
            fleet.checks.restart(node, now)
            self._recheck_ready(node, before)
        fleet.refresh(node, now)
        fleet.events.tell(str(node.intent), node.name, f"{node.name}: {before} → {node.intent} ({event})", by, reason)
        fleet.staff.replan = True
        if node.leaves_by_itself():
            return 0  # no operator's word: it ends with that agent
        if node.is_here():
            self.say(node)
        return fleet.journal(records.intent(node))

    def _recheck_ready(self, node: Node, before: Intent) -> None:
        """A drain that was taken back in time: its processes are still the ones that were up."""
        if before is Intent.DRAINING and any(slot.stage is Stage.READY for slot in node.slots.values()):
            node.health = lifecycle.step(lifecycle.HEALTH, node.health, "ready")
