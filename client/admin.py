"""What operators and deploy scripts ask of a master: the verbs of `docs/PROTOCOL.md`, each a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Self

from ..common.addresses import control_addresses
from .operator import ANSWER_S, Data, Operator
from .stays import Stays

WAIT_S = 300.0  # a verb that waits
SWITCHOVER_S = 60.0


class Admin(Stays):
    """Drain, rejoin, status … over the control socket; for one thread at a time.

        with rota.Admin("tcp://master:7700") as admin:
            admin.drain("web-1", reason="release 4.2")

    masters   control addresses, of which the active one is used; default: ROTA_MASTER, else this machine. Raises
              ValueError for what is no address
    user      who asks, for the events; default: the login name

    A forked child gets a connection of its own; a spawned one makes an Admin of its own.

    Every method returns the map of docs/PROTOCOL.md, "Verbs", and is idempotent: after a lost connection the verb is
    sent again. `timeout` is in seconds. They raise NotFound (its text has the nearest names), Refused (by a safety
    rule, which `force` overrides where there is one), BindError (bad arguments), Denied, Timeout (still under way when
    the time was over), Unavailable (no active master answers), another Error if it failed. `error.exit_code` is what
    the command line would exit with.
    """

    def __init__(self, masters: str | Iterable[str] | None = None, user: str | None = None) -> None:
        self._operator = Operator(control_addresses(masters), _login_name() if user is None else user)

    def status(self, *, timeout: float = ANSWER_S) -> Data:
        """Master, services and nodes as they are now. Where no master is active, what a standby says of itself:
        `master.state` is not "active" then.
        """
        return self._operator.ask("status", {}, monotonic() + timeout, standby_after=0.0)

    def drain(
        self,
        *nodes: str,
        all: bool = False,
        tags: Mapping[str, str] | None = None,
        deadline: float | None = None,
        force: bool = False,
        reason: str = "",
        dry_run: bool = False,
        wait: bool = True,
        timeout: float = WAIT_S,
    ) -> Data:
        """Give these nodes nothing new; returns when they have finished (or, wait=False, when that is decided).

        deadline: seconds after which what is still running no longer holds the drain up (default: the master's). force:
        override the rule that keeps a service alive. All nodes or none.
        """
        args = _nodes(nodes, all, tags) | _given(deadline_s=deadline, force=force, reason=reason, dry_run=dry_run)
        return self._change("drain", args, "detached" if wait and not dry_run else "", timeout)

    def rejoin(
        self,
        *nodes: str,
        all: bool = False,
        tags: Mapping[str, str] | None = None,
        version: str = "",
        reason: str = "",
        dry_run: bool = False,
        wait: bool = True,
        timeout: float = WAIT_S,
    ) -> Data:
        """Take these nodes back, with fresh processes; returns when they get traffic. (Those whose agents said goodbye
        do so once these are started again; they are waited for by name only.)

        version: what to call the code that they run now, whatever it says itself; Refused for a node that has another
                 version and is not detached.
        """
        args = _nodes(nodes, all, tags) | _given(version=version, reason=reason, dry_run=dry_run)
        return self._change("rejoin", args, "active" if wait and not dry_run else "", timeout)

    def recheck(
        self, *nodes: str, all: bool = False, tags: Mapping[str, str] | None = None, timeout: float = ANSWER_S
    ) -> Data:
        """Ask these nodes again what they can contribute; failing services are tried at once."""
        return self.verb("recheck", _nodes(nodes, all, tags), timeout)

    def forget(
        self,
        *nodes: str,
        all: bool = False,
        tags: Mapping[str, str] | None = None,
        reason: str = "",
        timeout: float = ANSWER_S,
    ) -> Data:
        """Decommissioned nodes (detached, dead or closed) leave for good."""
        return self.verb("forget", _nodes(nodes, all, tags) | _given(reason=reason), timeout)

    def scale(self, service: str, processes: int, *, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """Set how many processes a service has, between its minimum and maximum."""
        return self.verb("scale", {"service": service, "processes": processes} | _given(reason=reason), timeout)

    def reload(self, service: str, *, reason: str = "", wait: bool = True, timeout: float = WAIT_S) -> Data:
        """Replace the processes of a service, one at a time; returns when all are replaced."""
        args = {"service": service} | _given(reason=reason)
        return self._change("reload", args, "reloaded" if wait else "", timeout)

    def pause(
        self,
        service: str,
        *,
        duration: float | None = None,
        reason: str = "",
        wait: bool = True,
        timeout: float = WAIT_S,
    ) -> Data:
        """Hold the requests of a service for `duration` seconds at most (default: its `pause_for`); returns when none
        is in flight any more. Raises Timeout when that takes longer than `timeout`, and Error when the pause was over
        before; it is not ended by either.
        """
        args = {"service": service} | _given(for_s=duration, reason=reason)
        return self._change("pause", args, "paused" if wait else "", timeout)

    def resume(self, service: str, *, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """What is held of a paused service is dispatched, the oldest first."""
        return self.verb("resume", {"service": service} | _given(reason=reason), timeout)

    def maintenance(
        self,
        service: str,
        on: bool,
        *,
        stop: bool = False,
        retry_after: float | None = None,
        reason: str = "",
        wait: bool = True,
        timeout: float = WAIT_S,
    ) -> Data:
        """Close a service for all its callers (`NoService`, over HTTP 503 and its page), or open it again; returns when
        nothing of it is in flight any more. stop: its processes end, too, and start again when it is opened.
        retry_after: seconds that callers are told to wait (default: 60).
        """
        args = {"service": service, "on": on} | _given(stop=stop, retry_after_s=retry_after, reason=reason)
        return self._change("maintenance", args, "maintenance" if on and wait else "", timeout)

    def blacklist(self, action: str = "list", *names: str, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """Nodes that are out because they are ill. action: "list"; "clear" takes the named nodes back at once, their
        failures forgotten; "disable" and "enable" say for nodes and services whether they may be blacklisted at all (it
        outlasts restarts).
        """
        args = {"action": action, "names": list(names)} | _given(reason=reason)
        return self.verb("blacklist", args, timeout)

    def quarantine(self, action: str = "list", id: str = "", *, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """Payloads that processes died of. action: "list"; "show" one entry, with its payload and the last stderr;
        "retry" lets it run once more, alone; "drop" forgets it. id: of the entry, or the beginning of it.
        """
        return self.verb("quarantine", {"action": action} | _given(id=id, reason=reason), timeout)

    def switchover(self, *, force: bool = False, reason: str = "", timeout: float = SWITCHOVER_S) -> Data:
        """Hand over to the standby; returns when that is active, with what it cost: `from`, `to` (names), `address` (of
        the new one), `epoch_before`, `epoch`, `given_back` (requests that their clients send again), `took_ms` from
        asking to the first welcome of the new active master.

        force: when the active master is dead, and the standby does not take over by itself. Raises Refused where no
        standby follows, Timeout when it is still under way after `timeout` seconds.
        """
        return self._operator.switch(_given(force=force, reason=reason), monotonic() + timeout, 0.0 if force else None)

    def wait(self, condition: str, *names: str, timeout: float = WAIT_S) -> Data:
        """Returns when the condition holds for all the names: active, detached (nodes), ready, reloaded, paused,
        maintenance (services; the last two with nothing in flight), leader (a master is active). Without names for all
        that there are; for active and ready at least one. Raises Timeout, with `details["pending"]`, when `timeout`
        seconds are over.
        """
        return self._operator.wait(condition, list(names), monotonic() + timeout)

    def events(
        self, since: int = 0, follow: bool = False, *, limit: int = 1000, timeout: float = ANSWER_S
    ) -> Iterator[Data]:
        """The newest `limit` events after number `since`, oldest first; with `follow` all after it, and those to come,
        until it is closed. Where no master is active, those that a standby has.
        """
        if follow:
            yield from self._operator.follow(since)
            return
        args = {"since": since, "limit": limit}
        found = self._operator.ask("events", args, monotonic() + timeout, standby_after=0.0)["events"]
        yield from [event for event in found if event["number"] > since][-limit:]  # an older standby tells all

    def verb(self, verb: str, args: Data, timeout: float = ANSWER_S) -> Data:
        """Any verb by its name, with the arguments of docs/PROTOCOL.md, at the active master."""
        return self._operator.ask(verb, args, monotonic() + timeout)

    def close(self) -> None:
        """May be called twice; a later verb connects again."""
        self._operator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _change(self, verb: str, args: Data, condition: str, timeout: float) -> Data:
        """The verb, then the condition: two steps, so that a lost connection in between repeats only the waiting."""
        until = monotonic() + timeout
        data = self.verb(verb, args, min(timeout, ANSWER_S))
        if condition:
            names = [args["service"]] if "service" in args else awaited(data, condition, "nodes" in args)
            if names:  # --all of none
                self._operator.wait(condition, names, until)
        return data


def awaited(data: Data, condition: str, by_name: bool) -> list[str]:
    """The nodes of this result that are worth waiting for. Who said goodbye does not become active by itself: that is
    waited for by name only.
    """
    nodes = data["nodes"]
    if condition == "active":
        nodes = [each for each in nodes if each["intent"] == "active" and (by_name or each.get("liveness") != "closed")]
    return [each["node"] for each in nodes]


def _nodes(names: tuple[str, ...], all: bool, tags: Mapping[str, str] | None) -> Data:
    chosen = [bool(names), all, bool(tags)]
    if chosen.count(True) != 1:
        raise TypeError("name the nodes, or say all=True, or give tags={…}: one of the three")
    if names:
        return {"nodes": list(names)}
    return {"all": True} if all else {"tags": dict(tags or {})}


def _given(**args: Any) -> Data:
    """Only what was said: a master of an older version need not know the others."""
    return {name: value for name, value in args.items() if value is not None and value is not False and value != ""}


def _login_name() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
