"""The verbs of operators: each a small function from arguments to an outcome (docs/PROTOCOL.md, "Verbs").

Every verb is idempotent: what is already so is exit 0. A verb that changes something answers when that is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple

from ...common import exits
from ...common.lifecycle import Intent, Liveness
from ...common.limits import PAUSE_MAX_S
from ...common.messages import Result
from ...common.names import check_version, nearest, unknown
from ...common.units import plural
from . import budget, quarantine, records, status
from .fleet import Fleet
from .followers import Followers
from .maintenance import RETRY_AFTER_S, Closed
from .pool import Pool, Stage
from .registry import Node, why

SCHEMA = 1  # of the data of an answer
TEXT_MAX = 1000  # characters of one argument: status shows the reasons of all nodes in one message
BLACKLIST = ("list", "clear", "disable", "enable")
QUARANTINE = ("list", "show", "retry", "drop")
_NODES = ("nodes", "all", "tags")
ARGUMENTS: dict[str, tuple[str, ...]] = {  # of each verb
    "drain": (*_NODES, "deadline_s", "force", "reason", "dry_run"),
    "rejoin": (*_NODES, "version", "reason", "dry_run"),
    "recheck": _NODES,
    "forget": (*_NODES, "reason"),
    "blacklist": ("action", "names", "reason"),
    "scale": ("service", "processes", "reason"),
    "reload": ("service", "reason"),
    "maintenance": ("service", "on", "stop", "retry_after_s", "reason"),
    "pause": ("service", "for_s", "reason"),
    "resume": ("service", "reason"),
    "quarantine": ("action", "id", "reason"),
    "wait": ("condition", "names", "timeout_s"),
    "status": ("nodes",),
    "events": ("since", "limit"),
    "switchover": ("force", "reason"),
}
# Without a name: an empty pool would be as active, and as ready, as one that serves.
_AT_LEAST_ONE = {"active": ("nodes", "none has come yet"), "ready": ("services", "no node offers one yet")}
FAILURES_GIVE_UP = 3  # starts that failed in a row: then waiting for that node or service is over


class Outcome(NamedTuple):
    """`record`: the answer waits until this record is durable (0: it need not)."""

    data: dict[str, Any]
    record: int = 0
    exit: int = exits.DONE

    def result(self, verb_id: int) -> Result:
        return Result(verb_id, self.exit == exits.DONE, self.exit, {"schema": SCHEMA, **self.data})


class Refuse(Exception):
    """The verb cannot be done; ends it with this exit code and sentence."""

    def __init__(self, exit_code: int, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.outcome = Outcome({"error": sentence, **more}, exit=exit_code)


class NotHere(Refuse):
    """A node, a service or an entry of the quarantine that is not known, or not yet."""


Missing = Callable[[Any, float], str]  # what one of its subjects still lacks; "" = nothing
WhyNever = Callable[[Iterable[Any]], str]  # why it cannot come true any more; "" = it can


class Wait(NamedTuple):
    """A condition that somebody waits for."""

    condition: str
    find: Callable[[], dict[str, Any]]  # its subjects by name: nodes, or just the names of services
    timeout_s: float
    missing: Missing
    why_never: WhyNever

    def pending(self, now: float) -> dict[str, str]:
        """What is still missing: name → why."""
        subjects = self.find()
        if not subjects and self.condition in _AT_LEAST_ONE:
            return dict([_AT_LEAST_ONE[self.condition]])
        return {name: why for name, subject in subjects.items() if (why := self.missing(subject, now))}

    def failed(self) -> str:
        return self.why_never(self.find().values())


class Verbs:
    """Called with the arguments of a verb, who asks, and now."""

    def __init__(self, fleet: Fleet, pair: Followers) -> None:
        self.fleet = fleet
        self.pair = pair
        self._conditions: dict[str, tuple[Missing, WhyNever]] = {
            "active": (self._inactive, self._node_failed),
            "detached": (self._attached, lambda nodes: ""),
            "ready": (self._unready, self._service_failed),
            "leader": (lambda name, now: "", lambda names: ""),
            "reloaded": (self._reloading, self._service_failed),
            "paused": self._at_rest("paused", lambda: fleet.pauses.held),
            "maintenance": self._at_rest("closed for maintenance", lambda: fleet.dispatch.maintenance.closed),
        }

    # ---- nodes -----------------------------------------------------------------------------------

    def drain(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        nodes = self._nodes(args)
        force, reason = argument(args, "force", bool, False), reason_of(args)
        deadline = argument(args, "deadline_s", float, None)
        leaving = [node for node in nodes if node.intent is Intent.ACTIVE]
        refused = budget.refusal(self.fleet.dispatch.pools.values(), self.fleet.nodes, set(leaving), now)
        if refused and not force:
            raise Refuse(exits.REFUSED, f"refused: {refused}. {self._instead(leaving)}, or use --force")
        if argument(args, "dry_run", bool, False):
            return self._outcome(nodes, leaving, dry_run=True)
        if refused:
            self.fleet.events.tell(
                "forced", ", ".join(n.name for n in nodes), f"drain in spite of: {refused}", by, reason
            )
        record = 0
        for node in leaving:
            record = self.fleet.intents.drain(node, by, reason, now)
        for node in nodes:
            if node.leaving and node not in leaving:  # it was on its way out by itself: now it is an operator's word
                record = self.fleet.intents.drain(node, by, reason, now)
            if deadline is not None and node.intent is Intent.DRAINING:  # also where it is under way
                self.fleet.intents.drain_within(node, deadline, now)
        return self._outcome(nodes, leaving, record=record)

    def _instead(self, leaving: list[Node]) -> str:
        """Of a drain that is refused: what would let it be done."""
        nodes = (node for node in self.fleet.nodes.values() if node not in leaving)
        others = {node.intent is Intent.ACTIVE for node in nodes if node.liveness is not Liveness.CLOSED}
        ways = ["drain fewer at once"] if len(leaving) > 1 else []
        ways += ["wait for the others (`rota wait active`)"] if True in others else []
        ways += ["take another node back (`rota rejoin NODE`)"] if False in others else []
        text = ", ".join(ways) or "start another node"
        return text[0].upper() + text[1:]

    def rejoin(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        nodes = self._nodes(args)
        joining = [node for node in nodes if node.intent is not Intent.ACTIVE]
        going = next((node for node in joining if node.leaving and node.liveness is not Liveness.CLOSED), None)
        if going is not None:
            raise Refuse(exits.REFUSED, f"{going.name} is leaving: its agent was told to stop; start it again first")
        version, reason = _version_of(args), reason_of(args)
        # One that said goodbye runs nothing that would go on: it matters only where it is named.
        staying = [node for node in nodes if "nodes" in args or node.liveness is not Liveness.CLOSED]
        other = next((node for node in staying if version and _stays_another(node, version)), None)
        if other is not None:
            found = f"version {' and '.join(other.versions())}" if other.versions() else "no process ready"
            text = f"{other.name} is {other.intent} with {found}: only a node that is detached takes another version"
            raise Refuse(exits.REFUSED, f"{text}; drain it first (`rota drain {other.name}`)")
        if argument(args, "dry_run", bool, False):
            return self._outcome(nodes, joining, dry_run=True)
        record = 0
        for node in nodes:
            if node in joining:
                record = self.fleet.intents.rejoin(node, by, reason, version, now)
            elif node.failing:  # active already, and mended since: whoever says this wants to see it start
                self.fleet.recheck(node)
        return self._outcome(nodes, joining, record=record)

    def recheck(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        nodes = self._nodes(args)
        for node in nodes:
            self.fleet.recheck(node)
        return self._outcome(nodes, nodes)

    def forget(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        reason = reason_of(args)
        names = _names(args, "nodes") or [node.name for node in self._nodes(args)]
        masters = self.pair.others()
        names = [name for name in names if name not in self.fleet.forgotten or name in masters]  # gone already: done
        for other in masters:
            if other in names and other not in self.fleet.nodes:
                if len(names) > 1:
                    raise Refuse(exits.USAGE, f"{other} is a master: forget it by itself")
                return self._forget_master(other, by, reason)
        nodes = [self._node(name) for name in names]
        for node in nodes:
            if node.is_here() and node.intent is not Intent.DETACHED:
                text = f"{node.name} is {node.liveness} and {node.intent}: drain it first, or stop its agent (TERM)"
                raise Refuse(exits.REFUSED, text)
        record = 0
        for node in nodes:
            record = self.fleet.forget(node, now)
            self.fleet.events.tell("forgotten", node.name, f"{node.name} left for good", by, reason)
        return Outcome({"nodes": [node.name for node in nodes]}, record)

    def _forget_master(self, name: str, by: str, reason: str) -> Outcome:
        """The other one of a pair: this one is alone from now on, and needs nobody's promise."""
        if self.pair.others()[name] is Liveness.LIVE:
            raise Refuse(exits.REFUSED, f"{name} follows as standby: stop it first (TERM)")
        alone = ": this master is alone" if len(self.pair.others()) == 1 else ""
        self.fleet.events.tell("forgotten", name, f"{name} is no standby any more{alone}", by, reason)
        self.fleet.was_forgotten(name)
        return Outcome({"nodes": [name]}, self.pair.forget(name))

    def blacklist(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        """list, clear (nodes), disable or enable (nodes and services). All names or none."""
        action = argument(args, "action", str, "list")
        if action not in BLACKLIST:
            raise not_found("action", action, BLACKLIST)
        checks, names = self.fleet.checks, _names(args, "names")
        if action == "list":
            return Outcome(status.blacklist(self.fleet, now))
        if not names:
            raise Refuse(exits.USAGE, "name at least one node" + (" or service" if action != "clear" else ""))
        reason = reason_of(args)
        if action == "clear":
            changed = [checks.clear(node, by, reason, now) for node in [self._node(name) for name in names]]
            return self._names_outcome(names, changed, 0)
        known = {*self.fleet.nodes, *self.fleet.dispatch.pools, *checks.exempt}
        unknown_name = next((name for name in names if name not in known), None)
        if unknown_name is not None:
            raise not_found("node or service", unknown_name, known, NotHere)
        numbers = [checks.exclude(name, action == "disable", by, reason, now) for name in names]
        return self._names_outcome(names, [bool(number) for number in numbers], max(numbers))

    def _names_outcome(self, names: list[str], changed: list[bool], record: int) -> Outcome:
        told = [{"name": name, "changed": each} for name, each in zip(names, changed, strict=True)]
        return Outcome({"names": told}, record)

    def _outcome(self, nodes: list[Node], changed: list[Node], record: int = 0, dry_run: bool = False) -> Outcome:
        told = [
            {
                "node": node.name,
                "intent": str(node.intent),
                "liveness": str(node.liveness),
                "in_flight": node.in_flight(),
                "generation": node.generation,
                "changed": node in changed,
            }
            for node in nodes
        ]
        return Outcome({"dry_run": dry_run, "nodes": told}, record)

    def _nodes(self, args: dict[str, Any]) -> list[Node]:
        """The nodes that the arguments name, in the order of their names."""
        known = self.fleet.nodes
        if argument(args, "all", bool, False):
            return [node for _, node in sorted(known.items())]
        tags = argument(args, "tags", dict, {})
        if tags:
            found = [n for _, n in sorted(known.items()) if all(n.tags.get(k) == v for k, v in tags.items())]
            if not found:
                raise NotHere(exits.NOT_FOUND, f"no node has the tag {', '.join(f'{k}={v}' for k, v in tags.items())}")
            return found
        names = _names(args, "nodes")
        if not names:
            raise Refuse(exits.USAGE, "name at least one node, or use --all or --tag k=v")
        return [self._node(name) for name in names]

    def _node(self, name: str) -> Node:
        node = self.fleet.nodes.get(name)
        if node is None:
            raise not_found("node", name, self.fleet.nodes, NotHere)
        return node

    # ---- services --------------------------------------------------------------------------------

    def scale(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        pool = self._pool(args)
        processes, reason = argument(args, "processes", int, -1), reason_of(args)
        self._not_embedded(pool, "scale")
        settings = pool.settings
        least, most = max(settings.min_processes or 1, settings.min_active), settings.max_processes
        if processes < least or (most is not None and processes > most):
            limits = f"from {least} to {most}" if most is not None else f"{least} or more"
            why_not = "min_processes, min_active, max_processes"
            raise Refuse(exits.REFUSED, f"{pool.name} may have {limits} processes ({why_not} say so)")
        record = self.fleet.staff.scale(pool, processes)
        self.fleet.events.tell("scaled", pool.name, f"{pool.name}: {plural(processes, 'process')}", by, reason)
        data = {"service": pool.name, "processes": processes, "room": self.fleet.staff.bounds(pool)[1]}
        return Outcome(data, record)

    def reload(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        pool, reason = self._pool(args), reason_of(args)
        self._not_embedded(pool, "reload")
        count = self.fleet.staff.reload(pool)
        text = f"{pool.name}: {plural(count, 'process')}, one at a time"
        self.fleet.events.tell("reload", pool.name, text, by, reason)
        return Outcome({"service": pool.name, "processes": count})

    def maintenance(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        """Closes a service for all its callers, or opens it again."""
        maintenance = self.fleet.dispatch.maintenance
        service, wanted = self._closable(argument(args, "service", str, "")), argument(args, "on", bool, True)
        reason, stop = reason_of(args), argument(args, "stop", bool, False)
        retry_after_s = argument(args, "retry_after_s", float, RETRY_AFTER_S)
        if not wanted and (stop or "retry_after_s" in args):
            raise Refuse(exits.USAGE, "stop and retry_after are for a service that is to be closed")
        if wanted and stop and service in self.fleet.dispatch.pools:
            self._not_embedded(self._pool_named(service), "stop")
        closed = Closed(retry_after_s, by, reason, stop) if wanted else None
        changed, record = closed != maintenance.closed.get(service), 0
        if changed:
            record = self.fleet.journal(records.closed(service, closed))
            if closed is None:
                maintenance.open(service)
                how = "off"
            else:
                maintenance.close(service, closed)
                how = "on, and its processes end" if stop else "on"
            self.fleet.events.tell("maintenance", service, f"{service}: maintenance {how}", by, reason)
        flight = self._in_flight(service)
        data = {"service": service, "on": wanted, "changed": changed, "in_flight": flight}
        return Outcome(data, record)

    def _may_be_closed(self) -> dict[str, Any]:
        """A service that is closed may be one that nobody offers."""
        return {**self.fleet.dispatch.pools, **self.fleet.dispatch.maintenance.closed}

    def _closable(self, name: str) -> str:
        known = self._may_be_closed()
        if name not in known:
            raise not_found("service", name, known, NotHere)
        return name

    def _in_flight(self, service: str) -> int:
        pool = self.fleet.dispatch.pools.get(service)
        return self.fleet.pauses.in_flight(pool) if pool is not None else 0

    def pause(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        """Hold its requests. Said again: with another end."""
        pool, pauses = self._pool(args), self.fleet.pauses
        for_s = argument(args, "for_s", float, pool.settings.pause_for)
        if not 0 < for_s <= PAUSE_MAX_S:
            text = f"a pause lasts more than 0 and at most {PAUSE_MAX_S:g} s, not {for_s:g} s"
            raise Refuse(exits.USAGE, f"{text}; `rota maintenance` closes a service for longer")
        changed = pool.name not in pauses.held
        record = pauses.pause(pool, for_s, by, reason_of(args), now)
        data = {"service": pool.name, "left_s": for_s, "in_flight": pauses.in_flight(pool), "held": pool.queued}
        return Outcome(data | {"changed": changed}, record)

    def resume(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        service, pauses = argument(args, "service", str, ""), self.fleet.pauses
        if service not in pauses.held:
            self._pool(args)
        pool = self.fleet.dispatch.pools.get(service)
        held = pool.queued if pool is not None else 0
        record = pauses.resume(service, "resumed", by, reason_of(args), now)
        return Outcome({"service": service, "held": held if record else 0, "changed": bool(record)}, record)

    def _pool(self, args: dict[str, Any]) -> Pool:
        return self._pool_named(argument(args, "service", str, ""))

    def _pool_named(self, name: str) -> Pool:
        pool = self.fleet.dispatch.pools.get(name)
        if pool is None:
            raise not_found("service", name, self.fleet.dispatch.pools, NotHere)
        return pool

    def _not_embedded(self, pool: Pool, verb: str) -> None:
        node = next((slot.node for slot in pool.slots.values() if slot.node.embedded), None)
        if node is not None:
            text = f"{pool.name} runs inside an application on {node.name}: {verb} it by restarting that application"
            raise Refuse(exits.REFUSED, text)

    # ---- requests --------------------------------------------------------------------------------

    def quarantine(self, args: dict[str, Any], by: str, now: float) -> Outcome:
        """list, show, retry or drop. To drop what is forgotten already is done already."""
        action = argument(args, "action", str, "list")
        if action not in QUARANTINE:
            raise not_found("action", action, QUARANTINE)
        cases = self.fleet.dispatch.quarantine
        if action == "list":
            return Outcome({"entries": [quarantine.listed(each, now) for each in cases.all()]})
        name, reason = argument(args, "id", str, ""), reason_of(args)
        case = cases.find(name)
        if case is None and action == "drop" and cases.was_forgotten(name):
            return Outcome({"id": name, "changed": False})
        if case is None:
            raise not_found("entry in quarantine", name, cases.ids(), NotHere)
        if action == "show":
            return Outcome(quarantine.shown(case, cases.waiting_for(case), now))
        changed = (cases.retry if action == "retry" else cases.drop)(case, by, reason, now)
        return Outcome({"id": case.id, "changed": changed})

    # ---- waiting ---------------------------------------------------------------------------------

    def wait(self, args: dict[str, Any], early: bool = False) -> Wait:
        """`early`: of what is named somebody has not come yet."""
        condition, names = argument(args, "condition", str, ""), _names(args, "names")
        timeout_s = argument(args, "timeout_s", float, 60.0)
        if condition not in self._conditions:
            raise not_found("condition", condition, self._conditions)
        if early:
            asked, absent = {name: name for name in names}, partial(self._absent, condition)
            return Wait(condition, lambda: asked, timeout_s, absent, lambda names: "")
        found = self._subjects(condition, names)  # of those without a name, all that there are by then
        find = (lambda: found) if names else lambda: self._subjects(condition, [])
        return Wait(condition, find, timeout_s, *self._conditions[condition])

    def _subjects(self, condition: str, names: list[str]) -> dict[str, Any]:
        pools = self.fleet.dispatch.pools
        match condition:
            case "active" | "detached":
                return {name: self._node(name) for name in names or self._not_gone()}
            case "reloaded" | "paused":
                return {name: self._pool_named(name).name for name in names or pools}
            case "ready":  # no node may offer it yet
                return {name: name for name in names or pools}
            case "maintenance":
                return {name: self._closable(name) for name in names or self._may_be_closed()}
        return {name: name for name in names}

    def _absent(self, condition: str, name: str, now: float) -> str:
        try:
            self._subjects(condition, [name])
        except NotHere:
            return "not here yet"
        return ""

    def _not_gone(self) -> list[str]:
        """Who said goodbye is waited for by name only."""
        return [node.name for node in self.fleet.nodes.values() if node.liveness is not Liveness.CLOSED]

    def _inactive(self, node: Node, now: float) -> str:
        if self.fleet.nodes.get(node.name) is not node:
            return "it was forgotten"
        told = node.planned and not self.fleet.staff.replan
        if told and not node.plan and node.intent is Intent.ACTIVE and node.liveness is Liveness.LIVE:
            return ""  # it is here, and the others have all that is wanted: nothing more will come of waiting
        text = why(node, now)
        if text:
            return text
        ready = sum(slot.stage is Stage.READY for slot in node.slots.values())
        wanted = sum(node.plan.values())
        return "" if ready >= wanted else f"{ready} of {plural(wanted, 'process')} ready"

    def _attached(self, node: Node, now: float) -> str:
        if node.intent is not Intent.DETACHED:
            return why(node, now) or "active"
        return f"{plural(len(node.slots), 'process')} still stopping" if node.is_here() and node.slots else ""

    def _unready(self, name: str, now: float) -> str:
        pool = self.fleet.dispatch.pools.get(name)
        if pool is None:
            return "no node offers it yet"
        if self.fleet.staff.stopped(pool):
            return ""  # an operator wants none of it
        wanted = sum(node.plan.get(name, 0) for node in self.fleet.nodes.values())
        ready = sum(slot.open for slot in pool.slots.values())
        return "" if ready and ready >= wanted else f"{ready} of {plural(wanted, 'process')} may be given requests"

    def _reloading(self, name: str, now: float) -> str:
        pool = self.fleet.dispatch.pools.get(name)  # None: the last node that offered it was forgotten meanwhile
        left = self.fleet.staff.reloading(pool) if pool is not None else 0
        return f"{plural(left, 'process')} still to be replaced" if left else ""

    def _at_rest(self, why: str, services: Callable[[], Collection[str]]) -> tuple[Missing, WhyNever]:
        """One of these services is at rest with nothing in flight; one that is not among them never will be."""

        def missing(name: str, now: float) -> str:
            left = self._in_flight(name)
            return "" if name in services() and not left else f"{plural(left, 'request')} in flight"

        return missing, lambda names: next((f"{name} is not {why}" for name in names if name not in services()), "")

    def _node_failed(self, nodes: Iterable[Node]) -> str:
        for node in nodes:
            for failing in node.failing.values():
                if failing.failures >= FAILURES_GIVE_UP:
                    again = f"mend it or put the old version back, then `rota recheck {node.name}`"
                    what = f"{failing.service} does not start on {node.name}: {failing.cause}"
                    text = f":\n{failing.text}" if failing.text != failing.cause else ""  # it wrote nothing
                    return f"{what}; {again}{text}"
        return ""

    def _service_failed(self, names: Iterable[str]) -> str:
        nodes, wanted = self.fleet.nodes.values(), set(names)
        return self._node_failed(n for n in nodes if n.intent is Intent.ACTIVE and set(n.failing) & wanted)


def _stays_another(node: Node, version: str) -> bool:
    """Its processes go on, or are tried again, under the version with which they began, and that is not this one."""
    return node.intent is not Intent.DETACHED and node.version != version and node.versions() != [version]


def check(verb: str, args: dict[str, Any]) -> None:
    """Raises Refuse for a verb, or an argument, that is not known here. To pass over one of a newer command line would
    be to do something else than was asked for: to drain, where that only wanted to know what a drain would do.
    """
    if verb not in ARGUMENTS:
        raise not_found("verb", verb, ARGUMENTS)
    for name in args:
        if name not in ARGUMENTS[verb]:
            text = f"this master knows no argument {name!r} of {verb}: is it older than what asks? Then update it first"
            raise Refuse(exits.USAGE, text)


def not_found(what: str, name: str, known: Any, kind: type[Refuse] = Refuse) -> Refuse:
    return kind(exits.NOT_FOUND, unknown(what, name, known), nearest=nearest(name, known))


def _version_of(args: dict[str, Any]) -> str:
    """One that no process could have would keep the node from starting any, for as long as it is on record."""
    version: str = argument(args, "version", str, "")
    try:
        return check_version(version) if version else ""
    except ValueError as error:
        raise Refuse(exits.USAGE, str(error)) from None


def _names(args: dict[str, Any], name: str) -> list[str]:
    """A list of names, each once, in the order in which they were given."""
    names: list[str] = argument(args, name, list, [])
    if not all(isinstance(each, str) for each in names):
        raise Refuse(exits.USAGE, f"{name}: a list of names expected")
    return list(dict.fromkeys(names))


def argument(args: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    """An argument of the right type, or a Refuse that names it."""
    value: Any = args.get(name)
    if value is None:
        return default
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise Refuse(exits.USAGE, f"{name}: {kind.__name__} expected, not {type(value).__name__}")
    if isinstance(value, float) and not 0 <= value < 1e9:
        raise Refuse(exits.USAGE, f"{name}: {value} is out of range")
    if isinstance(value, str) and len(value) > TEXT_MAX:
        raise Refuse(exits.USAGE, f"{name}: {len(value)} characters, at most {TEXT_MAX} are remembered")
    return value


def reason_of(args: dict[str, Any]) -> str:
    reason: str = argument(args, "reason", str, "")
    return reason
