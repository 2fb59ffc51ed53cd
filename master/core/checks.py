"""Health checks carried out: which node is asked when, what its answers and crashes lead to, who is on the blacklist.

`health` counts and decides; this looks at the fleet, asks through the dispatch, and moves nodes on the axis of health.
A check is a delivery like any other, to a process that has nothing else to do. It belongs to no session: its attempt is
marked as answered from the start, so that whatever becomes of its process it is nobody's loss (docs/FAULTS.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from ...common import body, errors, lifecycle, wire
from ...common.lifecycle import Health, Intent, Liveness
from ...common.messages import CRASHES, Exited, PortCheck
from ...common.settings import DUMMY, HEARTBEAT, PORT, REQUEST, HealthSettings
from ...common.units import plural
from . import budget, records
from .health import JITTER, Falls, Watch, ordinal
from .pool import NO_HANDLER, Pool, Request, Slot, Stage
from .registry import ILL, Node, trial_slot

if TYPE_CHECKING:
    from .fleet import Fleet

UNCHECKED_EVERY_S = 0.5  # who waits to be let in is not made to wait for the usual time between two checks
CAUSE_MAX = 300  # of a sentence that came from elsewhere: it stands in status and events
TRIAL_S = 60.0  # without a process that could be tried, or a request to try it with, a trial counts as failed


class _Probe(NamedTuple):
    """A check that has no answer yet. At `until` it fails; it goes on, and nothing else is asked meanwhile."""

    request: Request
    slot: Slot
    until: float
    failed: bool = False  # once at least


class Checks:
    """The health checks of all nodes. `random` answers 0..1: checks and returns are spread."""

    def __init__(self, fleet: Fleet, random: Callable[[], float]) -> None:
        self.fleet = fleet
        self.random = random
        self.exempt: set[str] = set()  # services and nodes that operators keep off the blacklist
        self.falls: dict[str, Falls] = {}  # by service
        self._probes: dict[Watch, _Probe] = {}
        self._recorded: set[str] = set()  # nodes of which the journal knows that they fell
        self._asked = 0
        fleet.dispatch.probed = self._answered

    # ---- what happens to nodes ---------------------------------------------------------------------------------------

    def wants_proof(self, pool: Pool) -> bool:
        """A node is let in only after good checks. (Where it could not be put out it is not kept out either.)"""
        settings = pool.settings.health
        return settings.check != HEARTBEAT and settings.eject and pool.name not in self.exempt

    def ready(self, slot: Slot, now: float) -> None:
        """A process of it is ready: from now on the service is watched on this node."""
        node, pool = slot.node, slot.pool
        if pool not in node.watches:
            spread = 0.0 if node.health is Health.UNCHECKED else self.random() * pool.settings.health.every
            first = pool.settings.health.timeout if pool.settings.health.check == PORT else spread
            node.watches[pool] = Watch(_replies(node, pool), now + first)

    def restart(self, node: Node, now: float) -> None:
        """Its health begins anew: what was seen of its older processes says nothing of those to come. (Its
        mark stays.)
        """
        node.health = lifecycle.step(lifecycle.HEALTH, node.health, "restart")
        node.mark.until = None
        node.watches.clear()
        for slot in node.slots.values():
            if slot.stage is Stage.READY:
                self.ready(slot, now)

    def crashed(self, slot: Slot, report: Exited, now: float) -> None:
        """A process that had been ready ended, and nobody had asked it to. (One that never was ready got no requests;
        it shows as failing.)
        """
        if report.kind in CRASHES or not report.kind:
            self._failed(slot.node, slot.pool, f"its process was lost ({report.cause[:CAUSE_MAX]})", now)

    def misbehaved(self, slot: Slot, what: str, now: float) -> None:
        """A frame from its process that breaks the protocol."""
        self._failed(slot.node, slot.pool, what, now)

    def port(self, node: Node, service: str, text: str) -> None:
        """What its agent found; it counts when the next check is due."""
        if service in node.offers:
            node.ports[service] = text[:CAUSE_MAX]

    def port_checks(self, services: Iterable[str]) -> dict[str, PortCheck]:
        """What the agent of a node that runs these is to look at."""
        found = {}
        for name in services:
            settings = self.fleet.dispatch.pools[name].settings.health
            if settings.check == PORT and settings.port:
                found[name] = PortCheck(settings.port, int(settings.every * 1000), int(settings.timeout * 1000))
        return found

    # ---- time --------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        for watch, probe in list(self._probes.items()):
            self._follow(watch, probe, now)
        for service, falls in self.falls.items():
            if falls.text and not falls.panic(now):
                falls.text = ""
                self.fleet.events.tell("panic", service, f"{service}: the panic is over")

    def extend(self, gap: float) -> None:
        """The master stood still: no answer could be read meanwhile, and no time was served."""
        self._probes = {watch: probe._replace(until=probe.until + gap) for watch, probe in self._probes.items()}
        for node in self.fleet.nodes.values():
            if node.mark.until is not None:
                node.mark.until += gap
            for watch in node.watches.values():
                watch.due += gap
        for falls in self.falls.values():
            falls.until += gap

    def due(self, node: Node, now: float) -> float:
        """When this node is to be looked at again if nothing else happens to it."""
        if node.intent is not Intent.ACTIVE or node.liveness is not Liveness.LIVE:
            return inf
        if node.health is Health.BLACKLISTED:
            return inf if node.mark.until is None else node.mark.until
        if node.health is Health.UP or (node.health is Health.UNCHECKED and not node.watches):
            return min((watch.due for watch in node.watches.values()), default=inf)
        return now  # that may also hang on other things, as an operator's word for its service

    def look(self, node: Node, now: float) -> None:
        if node.intent is not Intent.ACTIVE or node.liveness is not Liveness.LIVE:
            return
        mark = node.mark
        if node.health is Health.BLACKLISTED and mark.until is not None and now >= mark.until:
            self._try(node, now)
        elif node.health is Health.TRIAL:
            self._trial(node, now)
        elif node.health is Health.DEGRADED and not any(pool.name == mark.service for pool in node.watches):
            self._move(node, "rise", f"{mark.service} does not run here any more", now)
        elif node.health is Health.UNCHECKED and node.watches and not any(map(self.wants_proof, node.watches)):
            self._let_in(node, "no checks are wanted any more", now)
        if node.health is not Health.BLACKLISTED:
            for pool, watch in list(node.watches.items()):
                if now >= watch.due:
                    self._check(node, pool, watch, now)

    # ---- checks ------------------------------------------------------------------------------------------------------

    def _check(self, node: Node, pool: Pool, watch: Watch, now: float) -> None:
        """One look, as deep as the service wants it; answered traffic is as good as any answer."""
        settings = pool.settings.health
        health = node.health
        if not node.of(pool) and not node.plan.get(pool.name):
            del node.watches[pool]  # it does not run here any more
            node.ports.pop(pool.name, None)
            return
        watch.due = now + (min(settings.every, UNCHECKED_EVERY_S) if health is Health.UNCHECKED else settings.every)
        answered = self._replied(node, pool, watch, now)
        if node.health is not health or (health is Health.TRIAL and node.mark.service != pool.name):
            return
        if settings.check == PORT and (problem := node.ports.get(pool.name, "its agent has not told of it yet")):
            self._failed(node, pool, f"port check: {problem}", now, severe=True)
        elif settings.check == REQUEST or (settings.check == DUMMY and not answered):
            self._ask(node, pool, watch, now)
        elif health is Health.TRIAL:
            if not answered:
                self._ask(node, pool, watch, now)
        elif settings.check == PORT or (health is Health.DEGRADED and now - watch.failed_at >= settings.every):
            self._succeeded(node, pool, watch, 1, now)

    def _ask(self, node: Node, pool: Pool, watch: Watch, now: float) -> None:
        """Asks an idle process. Where none is idle all are busy within their limits, and that counts as well."""
        prober = self.fleet.dispatch.prober
        if any(request.session is prober for slot in node.of(pool) for request in slot.inflight.values()):
            return  # one at a time, also when nobody waits for it any more
        slots = [slot for slot in node.of(pool) if _idle(slot)]
        if node.health is Health.TRIAL:
            slots = [slot for slot in slots if slot is trial_slot(node)]
        if not slots:
            return
        watch.turn += 1
        slot = slots[watch.turn % len(slots)]
        request = self._request(pool, now)
        self._probes[watch] = _Probe(request, slot, request.deadline)
        self.fleet.dispatch.probe(slot, request, now)

    def _request(self, pool: Pool, now: float) -> Request:
        settings = pool.settings.health
        handler = settings.handler if settings.check in (DUMMY, REQUEST) else None
        target = f"{pool.name}.{handler or ''}".encode()
        head = wire.head(wire.REQUEST, 0, code=len(target), tail=target)
        self._asked += 1
        request = Request()
        request.session = self.fleet.dispatch.prober
        request.number = self._asked
        request.pool = pool
        request.handler = NO_HANDLER
        request.frame = head + body.encode_call((), dict(settings.args) if handler else {})
        request.head_len, request.target_len, request.tail_at = len(head), len(target), wire.HEADER_SIZE
        request.deadline = now + settings.timeout
        request.queued_at = now
        request.attempt = 0
        request.slot = None
        request.answered = True
        return request

    def _answered(self, slot: Slot, request: Request, code: int, data: bytes, now: float) -> None:
        """A reply to one of ours."""
        watch = slot.node.watches.get(slot.pool)
        probe = self._probes.get(watch) if watch is not None else None
        if watch is None or probe is None or probe.request is not request:
            return
        del self._probes[watch]
        if code == errors.NOT_STARTED or probe.failed:  # fenced off; or too late for anything
            return
        settings = slot.pool.settings.health
        problem = "" if now <= probe.until else f"its check was answered after {now - request.queued_at:.1f} s"
        if settings.check == REQUEST and not problem:
            problem = _wrong(code, data, settings)
        if problem:
            self._failed(slot.node, slot.pool, problem, now, settings.check == REQUEST)
        else:
            self._succeeded(slot.node, slot.pool, watch, 1, now)

    def _follow(self, watch: Watch, probe: _Probe, now: float) -> None:
        """A check that has no answer yet: it fails when its time is over, and is dropped when its process is gone,
        which counts by itself.
        """
        slot, request = probe.slot, probe.request
        if slot.inflight.get(request.delivery) is not request or slot.node.watches.get(slot.pool) is not watch:
            del self._probes[watch]
        elif now >= probe.until:
            settings = slot.pool.settings.health
            self._probes[watch] = probe._replace(until=now + settings.every, failed=True)
            waited = now - request.queued_at
            severe = settings.check == REQUEST
            self._failed(slot.node, slot.pool, f"no answer to its check for {waited:.1f} s", now, severe)

    # ---- good and bad news -------------------------------------------------------------------------------------------

    def _replied(self, node: Node, pool: Pool, watch: Watch, now: float) -> bool:
        """Were requests answered since the last look? Each counts as a success, application errors too."""
        before, watch.answered = watch.answered, _replies(node, pool)
        times = watch.answered - before
        if times > 0 and not watch.severe:
            self._succeeded(node, pool, watch, times, now)
        return times > 0

    def _succeeded(self, node: Node, pool: Pool, watch: Watch, times: int, now: float) -> None:
        watch.succeeded(times)
        settings = pool.settings.health
        if not watch.has_risen(settings):
            if node.health in (Health.UNCHECKED, Health.TRIAL) and settings.check in (DUMMY, REQUEST):
                watch.due = now  # it waits for nothing else
            return
        if node.health is Health.UNCHECKED:
            self._let_in(node, f"{watch.successes} good checks of {pool.name}", now)
        elif node.mark.service != pool.name:
            return
        elif node.health is Health.TRIAL:
            self._enter(node, pool, f"{plural(watch.successes, 'time')} well in a row", now)
        elif node.health is Health.DEGRADED:
            self._move(node, "rise", f"{plural(watch.successes, 'time')} well in a row", now)

    def _let_in(self, node: Node, why: str, now: float) -> None:
        """Lets it in once each of its services that wants proof has it."""
        wanting = [pool for pool in node.watches if self.wants_proof(pool)]
        if all(node.watches[pool].has_risen(pool.settings.health) for pool in wanting):
            self._enter(node, next(iter(node.watches)), why, now)

    def _enter(self, node: Node, pool: Pool, why: str, now: float) -> None:
        """Up again after it was out: with a ramp."""
        before, node.mark.until = node.health, None
        self.fleet.enter(node, pool, "rise", now)
        for each, watch in node.watches.items():  # nodes that came together are not asked together from now on
            watch.due = now + each.settings.health.every * (1 - self.random() / 2)
        self._told(node, before, why, now)
        self._settle(node, now)

    def _failed(self, node: Node, pool: Pool, cause: str, now: float, severe: bool = False) -> None:
        watch = node.watches.get(pool)
        if watch is None or not watch.is_news(now):
            return
        self._replied(node, pool, watch, now)
        watch.failed(cause, severe, now)
        if node.health is Health.TRIAL:
            if node.mark.service == pool.name:
                self._fall(node, pool, f"its trial failed: {cause}", now)
        elif node.health is not Health.BLACKLISTED and watch.has_fallen(pool.settings.health):
            self._fall(node, pool, f"{watch.failures} failures of {pool.name} in a row, the last: {cause}", now)

    # ---- the axis ----------------------------------------------------------------------------------------------------

    def _fall(self, node: Node, pool: Pool, cause: str, now: float) -> None:
        settings = pool.settings.health
        reason = self._why_not_eject(node, pool, now)
        if reason:
            node.mark.service, node.mark.cause = pool.name, f"{cause}; not on the blacklist, since {reason}"
            self._move(node, "spare", node.mark.cause, now)
            return
        seconds = node.mark.fell(pool.name, cause, settings, self.random(), now)
        self._move(node, "fall", f"{cause}; for {seconds:.1f} s, {ordinal(node.mark.count)} time", now)

    def _why_not_eject(self, node: Node, pool: Pool, now: float) -> str:
        """Empty if it may go on the blacklist."""
        settings = pool.settings.health
        if not settings.eject:
            return f"{pool.name} has eject = false"
        off = next((name for name in (pool.name, node.name) if name in self.exempt), "")
        if off:
            return f"an operator has disabled it for {off}"
        panic = self._panic(node, pool, now) if node.health is not Health.TRIAL else self._in_panic(pool, now)
        pools = [each for each in {pool: None} | node.pools() if not self.fleet.staff.stopped(each)]
        return panic or budget.indispensable(pools, self.fleet.nodes, node, now)

    def _in_panic(self, pool: Pool, now: float) -> str:
        falls = self.falls.get(pool.name)
        return falls.text if falls is not None and falls.panic(now) else ""

    def _panic(self, node: Node, pool: Pool, now: float) -> str:
        """Did so many fall that it cannot be their own fault? Then those come back that fell with it."""
        falls = self.falls.setdefault(pool.name, Falls())
        new = not falls.panic(now)
        if not falls.fell(node.name, self._members(pool), pool.settings.health, now):
            return ""
        if new:
            self.fleet.events.tell("panic", pool.name, f"panic: {pool.name}: {falls.text}")
        for name in falls.lately():
            other = self.fleet.nodes.get(name)
            if other and other.health in (Health.BLACKLISTED, Health.TRIAL) and other.mark.service == pool.name:
                other.mark.take_back()
                self._move(other, "reinstate", falls.text, now)
        return falls.text

    def _members(self, pool: Pool) -> set[str]:
        """The nodes that serve it, or would if they had not fallen just now."""
        return {
            node.name
            for node in self.fleet.nodes.values()
            if node.intent is Intent.ACTIVE
            and node.liveness is Liveness.LIVE
            and pool in node.watches
            and node.health in (Health.UNCHECKED, Health.UP, Health.DEGRADED)
        }

    def _try(self, node: Node, now: float) -> None:
        """Its time on the blacklist is over: one slot, one request at a time. A check of its own goes first."""
        node.mark.until = now + TRIAL_S
        before, node.health = node.health, lifecycle.step(lifecycle.HEALTH, node.health, "expired")
        self._told(node, before, f"one request at a time, {ordinal(node.mark.count)} time", now)
        for pool, watch in list(node.watches.items()):  # one whose service does not run here any more goes
            watch.began_anew()
            settings = pool.settings.health
            at_once = settings.check in (DUMMY, REQUEST) or bool(node.ports.get(pool.name))
            watch.due = now if at_once else now + settings.every
            if pool.name == node.mark.service and now >= watch.due:
                self._check(node, pool, watch, now)
        self._settle(node, now)

    def _trial(self, node: Node, now: float) -> None:
        pool = next((pool for pool in node.watches if pool.name == node.mark.service), None)
        if pool is None:  # nothing is left that could be tried, and nothing that could fail
            self._move(node, "reinstate", f"{node.mark.service} does not run here any more", now)
            return
        self._replied(node, pool, node.watches[pool], now)
        if node.health is Health.TRIAL and node.mark.until is not None and now >= node.mark.until:
            slot = trial_slot(node)
            if slot is not None and slot.inflight:
                node.mark.until = now + TRIAL_S  # busy within its limit
            else:
                self._fall(node, pool, f"no process of {pool.name} could be tried for {TRIAL_S:.0f} s", now)

    def _move(self, node: Node, event: str, why: str, now: float) -> None:
        """A step on the axis of health, and what follows for its slots."""
        before, node.health = node.health, lifecycle.step(lifecycle.HEALTH, node.health, event)
        if node.health is Health.UP or node.health is Health.DEGRADED:
            node.mark.until = None
        for watch in node.watches.values():
            watch.began_anew()
        if before is not node.health:
            node.since = now
            self._told(node, before, why, now)
        self._settle(node, now)

    def _settle(self, node: Node, now: float) -> None:
        for slot in node.slots.values():
            slot.pool.adopt(slot)
        self.fleet.refresh(node, now)

    def _told(self, node: Node, before: Health, why: str, now: float) -> None:
        kind = "reinstated" if node.health is Health.UP else str(node.health)
        self.fleet.events.tell(kind, node.name, f"{node.name}: {before} → {node.health}: {why}")
        self._record(node, now)

    def _record(self, node: Node, now: float) -> None:
        """Journals what is held against it, which outlives this master. Of a node that never fell there is nothing to
        say.
        """
        mark, name = node.mark, node.name
        if mark.count or node.health in ILL:
            day = self.fleet.wall() - now  # from our clock to the time of day
            until = None if mark.until is None else mark.until + day
            fell_at, health = mark.fell_at + day, str(node.health)
            found = records.Marked(node.boot, health, mark.count, fell_at, mark.service, mark.cause, until)
            self._recorded.add(name)
            self.fleet.journal(records.marked(name, found))
        elif name in self._recorded:
            self._recorded.discard(name)
            self.fleet.journal(records.marked(name, None))

    def forgotten(self, node: Node) -> None:
        """What was recorded of it went with it."""
        self._recorded.discard(node.name)

    def restore(self, marked: Mapping[str, records.Marked], now: float) -> None:
        """What an older master held against nodes: who was out stays out, if its agent is still the same."""
        day = self.fleet.wall() - now
        for name, each in marked.items():
            node = self.fleet.nodes.setdefault(name, Node(name))
            node.boot, node.health = each.boot, Health(each.health)
            mark = node.mark
            mark.count, mark.service, mark.cause = each.falls, each.service, each.cause
            mark.fell_at = min(now, each.fell_at - day)
            longest = self.fleet.dispatch.services(each.service).health.blacklist_max * (1 + JITTER)
            # By the time of day of the machine where it fell, which may be wrong: no longer than a fall may last.
            mark.until = None if each.until is None else min(each.until - day, now + longest)
            if node.health is Health.TRIAL:  # it is tried anew, once it is here
                node.health, mark.until = Health.BLACKLISTED, now
            self._recorded.add(name)

    # ---- operators ---------------------------------------------------------------------------------------------------

    def clear(self, node: Node, by: str, reason: str, now: float) -> bool:
        """Takes it back at once and forgets its falls. False: there was nothing to clear."""
        had = node.is_marked(now)
        node.mark.clear()
        if node.health in ILL:
            self.fleet.events.tell("cleared", node.name, f"{node.name}: {node.health} was cleared", by, reason)
            self._move(node, "reinstate", "cleared by an operator", now)
        self._record(node, now)
        return had

    def exclude(self, name: str, exempt: bool, by: str, reason: str, now: float) -> int:
        """Keeps a node, or all nodes of a service, off the blacklist (or no longer). Answers the number of the record;
        0 if it was so already.
        """
        if exempt == (name in self.exempt):
            return 0
        (self.exempt.add if exempt else self.exempt.discard)(name)
        word = "disabled" if exempt else "enabled"
        self.fleet.events.tell("blacklist", name, f"the blacklist is {word} for {name}", by, reason)
        for node in self.fleet.nodes.values():
            if exempt and name in (node.name, node.mark.service) and node.health in (Health.BLACKLISTED, Health.TRIAL):
                self._move(node, "reinstate", f"the blacklist is disabled for {name}", now)
        return self.fleet.journal(records.exempt(name, exempt))

    def alarms(self, now: float) -> list[str]:
        """Sentences for status: panics, and nodes that stay in only because they are needed. (What said goodbye is not
        looked at any more, and would stay so.)
        """
        panics = [f"panic: {name}: {falls.text}" for name, falls in self.falls.items() if falls.panic(now)]
        here = [node for node in self.fleet.nodes.values() if node.liveness is not Liveness.CLOSED]
        degraded = [node for node in here if node.health is Health.DEGRADED]
        return panics + [f"{node.name} is degraded: {node.mark.cause}" for node in degraded]


def _replies(node: Node, pool: Pool) -> int:
    return sum(slot.handled for slot in node.of(pool))


def _idle(slot: Slot) -> bool:
    return slot.serves() and not slot.inflight


def _wrong(code: int, data: bytes, settings: HealthSettings) -> str:
    """Why this is not the expected answer; empty if it is."""
    if code != errors.OK:
        try:
            said = str(body.decode_error(code, data))
        except errors.ProtocolError:
            said = f"code {code}"
        return f"its check was answered with an error: {said[:200]}"
    try:
        result = body.decode_result(data)
    except errors.ProtocolError as error:
        return f"its check was answered with what cannot be read: {error}"
    expected = settings.expect if settings.handler or settings.expect is not None else ""
    if expected is None or result == expected:
        return ""
    return f"its check was answered with {ascii(result)[:80]}, expected {ascii(expected)[:80]}"
