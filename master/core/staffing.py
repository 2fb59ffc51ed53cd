"""How many processes there are, and which: sizes, plans, and replacing those that are due, one at a time.

`plan` and `recycle` decide; this carries it out on the fleet: a Plan starts processes, a Retire stops one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ...common import messages
from ...common.lifecycle import Intent
from ...common.units import plural
from . import budget, plan, records, recycle
from .pool import Pool, Slot, Stage
from .registry import Node

if TYPE_CHECKING:
    from .fleet import Fleet

STOP_GRACE_MS = 10_000  # for on_stop hooks of a process that has nothing left to do
RECYCLE_EVERY_S = 1.0  # between two looks for processes that are due: a look goes over all of them
GROW_EVERY_S = 1.0  # at most one more process a second: the last one must have had a chance to help


class Staffing:
    """Set `replan` after anything that a plan depends on: the next tick makes and sends a new one."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.replan = False
        self._look_again_at = inf  # a plan that could not be carried out at once
        self._replacements: dict[Pool, recycle.Replacement] = {}
        self._closing: dict[Slot, None] = {}

    def tick(self, now: float) -> None:
        for pool in self.fleet.dispatch.pools.values():
            self._resize(pool, now)
            self._recycle(pool, now)
        self._retire_idle(now)
        if self.replan or now >= self._look_again_at:
            self.replan, self._look_again_at = False, inf
            self._apply_plan(now)

    def busy(self) -> bool:
        return bool(self.replan or self._replacements or self._closing)

    # ---- size ------------------------------------------------------------------------------------

    def bounds(self, pool: Pool) -> tuple[int, int]:
        """Fewest and most processes of the service. Asked in each tick for each pool that has a size."""
        nodes = self.fleet.nodes.values()
        return pool.settings.bounds(sum(node.capacity for node in nodes if pool.name in node.offers and _hosts(node)))

    def _rooms(self) -> list[plan.Room]:
        """The nodes that may run processes, by name."""
        hosts = filter(_hosts, self.fleet.nodes.values())
        rooms = [plan.Room(node.name, node.capacity, tuple(node.offers), _running(node)) for node in hosts]
        return sorted(rooms, key=lambda room: room.name)

    def scale(self, pool: Pool, processes: int) -> int:
        self.fleet.scaled[pool.name] = pool.target = processes
        self.replan = True
        return self.fleet.journal(records.scaled(pool.name, processes))

    def fixed(self, pool: Pool) -> bool:
        """Nobody set a size: it runs all that is offered."""
        settings = pool.settings
        if self.stopped(pool):
            return False
        return settings.min_processes is None and settings.max_processes is None and pool.name not in self.fleet.scaled

    def stopped(self, pool: Pool) -> bool:
        """An operator has stopped it: no process of it runs, whatever its sizes are."""
        return self.fleet.dispatch.maintenance.stopped(pool.name)

    def _resize(self, pool: Pool, now: float) -> None:
        size = self._size(pool, now)
        if size != pool.target:
            pool.target, self.replan = size, True

    def _size(self, pool: Pool, now: float) -> int | None:
        """How many processes it is to have from now on; None: all that is offered. One more where requests wait, one
        fewer where one has been spare for long.
        """
        if self.stopped(pool):
            return 0
        if self.fixed(pool):
            return None
        settings, (least, most) = pool.settings, self.bounds(pool)
        base = min(max(self.fleet.scaled.get(pool.name, least), settings.min_processes or 0), most)
        size = max(base, min(base if pool.target is None else pool.target, most))
        if pool.queued or all(slot.inflight for slot in pool.ready()):
            pool.busy_at = now
        may_grow_at = max(pool.grow_at, pool.held_until + settings.grow_after)
        if size < most and now >= may_grow_at and pool.oldest_wait(now) > settings.grow_after:
            size += 1
            pool.grow_at = now + max(GROW_EVERY_S, settings.grow_after)
            self.fleet.events.tell("grow", pool.name, f"{pool.name}: requests wait; {plural(size, 'process')}")
        elif size > base and now - pool.busy_at > settings.shrink_after:
            size -= 1
            pool.busy_at = now
            self.fleet.events.tell("shrink", pool.name, f"{pool.name}: spare; {plural(size, 'process')}")
        return size

    def _apply_plan(self, now: float) -> None:
        """Says to each agent what it is to run, and retires what is too many."""
        targets = {
            name: None if self.fixed(pool) else pool.target or 0 for name, pool in self.fleet.dispatch.pools.items()
        }
        allocation = plan.allocate(targets, self._rooms())
        for node in self.fleet.nodes.values():
            if not node.is_here() or node.intent is Intent.DRAINING:
                continue
            wanted = dict(allocation.get(node.name, {}))
            for service, more in node.extra.items():
                if service in wanted:  # else it is to run none here: the replacement is over, and takes this back
                    wanted[service] += more
            for service in self._last_of(node, wanted, now):
                wanted[service] = 1
                self._look_again_at = now + GROW_EVERY_S
            self.say_plan(node, wanted)
            self._retire_surplus(node, now)

    def say_plan(self, node: Node, wanted: dict[str, int]) -> None:
        if wanted != node.plan or not node.planned:
            node.plan, node.planned = wanted, True
            pools = self.fleet.dispatch.pools
            limits_ms = {name: int(pools[name].settings.handler_timeout * 1000) for name in wanted}
            message = messages.Plan(wanted, limits_ms, self.fleet.checks.port_checks(wanted))
            self.fleet.out.say(node.route, node.token, message)

    def _last_of(self, node: Node, wanted: dict[str, int], now: float) -> list[str]:
        """What would be left without `min_active` nodes: it moves away when it is served elsewhere, not before."""
        pools = dict.fromkeys(slot.pool for slot in node.slots.values() if slot.open and not wanted.get(slot.pool.name))
        needed = [pool for pool in pools if not self.stopped(pool)]
        return [pool.name for pool in needed if budget.refusal([pool], self.fleet.nodes, {node}, now)]

    def _retire_surplus(self, node: Node, now: float) -> None:
        for service, running in _running(node).items():
            pool = self.fleet.dispatch.pools[service]
            surplus = running - node.plan.get(service, 0)
            mine = [slot for slot in node.of(pool) if slot.stage in (Stage.BOOTING, Stage.READY)]
            # One that still boots, or is not connected, never serves in place of one that does.
            mine.sort(key=lambda slot: (slot.open, slot.stage is Stage.READY, len(slot.inflight), -slot.born_at))
            for slot in mine[: max(0, surplus)]:
                self._close(slot, "not needed here", now)

    # ---- replacing -------------------------------------------------------------------------------

    def reload(self, pool: Pool, node: Node | None = None) -> int:
        """Marks every process of the service for replacement, one at a time; of this node only, if one is named."""
        pool.look_at = 0.0
        marked = [slot.incarnation for slot in pool.ready() if node in (None, slot.node)]
        before = [name for name in pool.reload if name in pool.slots]
        pool.reload = list(dict.fromkeys((*before, *marked)))
        return len(marked)

    def reloading(self, pool: Pool) -> int:
        """How many are still to be replaced."""
        left = [name for name in pool.reload if name in pool.slots]
        return len(left) or int(bool(pool.reload) and pool in self._replacements)

    def strike(self, pool: Pool) -> None:
        """Nobody offers the service any more: what was to be replaced is gone."""
        replacement = self._replacements.pop(pool, None)
        if replacement is not None:
            replacement.old.node.extra.pop(pool.name, None)

    def _recycle(self, pool: Pool, now: float) -> None:
        if recycle.reload_is_due(pool.settings, now - pool.reloaded_at, self.fleet.wall()):
            pool.reloaded_at = now
            self.reload(pool)
        replacement = self._replacements.get(pool)
        if replacement is None:
            if now < pool.look_at:
                return
            pool.look_at = now + RECYCLE_EVERY_S
            replacement = recycle.next_replacement(pool, now)
            if replacement is None:
                pool.reload = [name for name in pool.reload if name in pool.slots]
                return
            self._replacements[pool] = replacement
        wanted = sum(node.plan.get(pool.name, 0) for node in self.fleet.nodes.values())
        step = recycle.step(replacement, pool, wanted)
        if step is None:
            del self._replacements[pool]
            pool.look_at = now
            if replacement.old.node.extra.pop(pool.name, None):
                self.replan = True
        elif step is recycle.Step.START and not replacement.old.node.extra.get(pool.name):
            replacement.old.node.extra[pool.name] = 1
            self.replan = True
        elif step is recycle.Step.CLOSE:
            self._close_replaced(replacement, pool, now)

    def _close_replaced(self, replacement: recycle.Replacement, pool: Pool, now: float) -> None:
        node = replacement.old.node
        if sum(slot.open for slot in node.of(pool)) == 1 and budget.refusal([pool], self.fleet.nodes, {node}, now):
            return  # another node left since it began: it waits until the budget allows it
        node.extra.pop(pool.name, None)
        self.replan = True
        self._close(replacement.old, recycle.due(pool, replacement.old, now), now)

    def _close(self, slot: Slot, reason: str, now: float) -> None:
        """Nothing new for it; retired when its last reply is there, or at its handler's limit."""
        slot.stage = Stage.CLOSING
        self._closing[slot] = None
        slot.retire_reason = reason
        slot.asked_at = now
        self.fleet.refresh(slot.node, now)

    def _retire_idle(self, now: float) -> None:
        for slot in list(self._closing):
            late = now - slot.asked_at > self.drain_deadline(slot.pool)
            if late or not slot.inflight:
                self.retire(slot, 0 if slot.inflight else STOP_GRACE_MS, now)
            if slot.stage is not Stage.CLOSING:
                del self._closing[slot]

    def retire(self, slot: Slot, grace_ms: int, now: float) -> None:
        if slot.stage in (Stage.RETIRED, Stage.EXITED):
            return
        slot.stage = Stage.RETIRED
        self.fleet.refresh(slot.node, now)
        self.say_retire(slot, grace_ms)

    def say_retire(self, slot: Slot, grace_ms: int) -> None:
        self.fleet.out.say(slot.node.route, slot.node.token, messages.Retire(slot.incarnation, grace_ms))

    def drain_deadline(self, pool: Pool) -> float:
        own = pool.settings.drain_deadline
        return self.fleet.dispatch.settings.drain_deadline if own is None else own


def _hosts(node: Node) -> bool:
    """It may run processes."""
    return node.is_here() and node.intent is Intent.ACTIVE and node.capacity > 0


def _running(node: Node) -> dict[str, int]:
    """Processes by service that are up or coming up, without those on their way out."""
    counts: dict[str, int] = {}
    for slot in node.slots.values():
        if slot.stage in (Stage.BOOTING, Stage.READY):
            counts[slot.pool.name] = counts.get(slot.pool.name, 0) + 1
    return counts
