"""What operators and deploy scripts ask of a master: the verbs of `docs/PROTOCOL.md`, each a method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from random import random
from time import monotonic, sleep
from typing import Any, Self

import zmq

from ..common import exits, sockets, wire
from ..common.errors import Denied, Error, Incompatible, Timeout, Unavailable
from ..common.limits import MAP_MAX
from ..common.link import Link, reconnect_delay
from ..common.messages import (
    BadMessage,
    Follow,
    Happened,
    Message,
    OperatorHello,
    Refusal,
    Result,
    Verb,
    Welcome,
    decode,
    encode,
)
from .beside import Beside, anew
from .masters import control_addresses, other_address
from .search import ACTIVE, QUIET_S, UNGREETED_S, Search

ANSWER_S = 30.0  # a verb that only decides, and the search for a master: a restart in between is no reason to fail
WAIT_S = 300.0  # a verb that waits
GREETED_S = 3.0  # to connect (2 s at most) and be greeted, one master
GRACE_S = 2.0  # the master's own "time was over" knows what is pending, so it may come a little late
POLL_MAX_S = 0.5  # pyzmq counts a poll that a signal interrupts in whole seconds
BYE_LINGER_MS = 100
STANDBY_S = 5.0  # so long the only master may be a standby before it is asked nevertheless: it may be taking over
SWITCHOVER_S = 60.0
POLL_S = 0.01  # of a switchover, whose milliseconds are told

Data = dict[str, Any]


class _Lost(Exception):
    """The connection is gone; verbs are idempotent, so the next one gets the verb again."""


class _Moved(_Lost):
    """Nothing comes over it, and another master is active. Its turn has come."""


class Admin:
    """Drain, rejoin, status … over the control socket; for one thread at a time.

        with rota.Admin("tcp://master:7700") as admin:
            admin.drain("web-1", reason="release 4.2")

    masters: control addresses, the active one is used (default: ROTA_MASTER, else this machine). user: who
    asks, for the events (default: the login name). Every method returns the map of docs/PROTOCOL.md, "Verbs", and is
    idempotent: after a lost connection the verb is sent again. They raise NotFound (its text has the nearest names),
    Refused (a safety rule: use `force`), BindError (bad arguments), Denied, Timeout (still under way when the time was
    over), Unavailable (no master answers). `error.exit_code` is what the command line would exit with.
    """

    def __init__(self, masters: str | Iterable[str] | None = None, user: str | None = None) -> None:
        given = masters if isinstance(masters, str) or masters is None else tuple(masters)
        self._masters = control_addresses(given)
        self._user = _login_name() if user is None else user
        self._ctx: zmq.Context[zmq.Socket[bytes]] | None = None
        self._link: Link | None = None
        self._token = 0
        self._number = 0
        self._search = Search(self._masters, random, reconnect_delay)
        self._beside = Beside(self._masters) if len(self._masters) > 1 else None
        self._active = False  # the link's master is
        self._heard_at = 0.0

    # ---- verbs --------------------------------------------------------------------------------------------------

    def status(self, *, timeout: float = ANSWER_S) -> Data:
        """Master, services and nodes as they are now. Where no master is active, what a standby says of itself:
        `master.state` is not "active" then.
        """
        return self._ask("status", lambda _: {}, monotonic() + timeout, standby_after=0.0)

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
        """Take these nodes back, with fresh processes; returns when they get traffic.

        version: what to call the code that they run now, where it does not say so itself.
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
        until = monotonic() + timeout
        data = self.verb("reload", {"service": service} | _given(reason=reason), min(timeout, ANSWER_S))
        if wait:
            self._wait("reloaded", [service], until)
        return data

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
        until = monotonic() + timeout
        args = {"service": service} | _given(for_s=duration, reason=reason)
        data = self.verb("pause", args, min(timeout, ANSWER_S))
        if wait:
            self._wait("paused", [service], until)
        return data

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
        until = monotonic() + timeout
        args = {"service": service, "on": on} | _given(stop=stop, retry_after_s=retry_after, reason=reason)
        data = self.verb("maintenance", args, min(timeout, ANSWER_S))
        if on and wait:
            self._wait("maintenance", [service], until)
        return data

    def blacklist(self, action: str = "list", *names: str, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """Nodes that were ill: `list` them; `clear` nodes (back at once, their falls forgotten); `disable` or `enable`
        it for nodes and services (those that are disabled never go on it; that outlasts restarts).
        """
        args = {"action": action, "names": list(names)} | _given(reason=reason)
        return self.verb("blacklist", args, timeout)

    def quarantine(self, action: str = "list", id: str = "", *, reason: str = "", timeout: float = ANSWER_S) -> Data:
        """Payloads that processes died of: `list` them; `show` one with the last stderr and its payload; `retry` (let
        it run again once, alone) or `drop` (forget it) one. id: of an entry, or the beginning of one.
        """
        return self.verb("quarantine", {"action": action} | _given(id=id, reason=reason), timeout)

    def switchover(self, *, force: bool = False, reason: str = "", timeout: float = SWITCHOVER_S) -> Data:
        """Hand over to the standby; returns when that is active, with what it cost: `from`, `to` (names), `address` (of
        the new one), `epoch_before`, `epoch`, `given_back` (requests that their clients send again), `took_ms` from
        asking to the first welcome of the new active master.

        force: at a standby that does not stand by itself; the active one is dead. Raises Refused where no standby
        follows, Timeout when it is still under way after `timeout` seconds.
        """
        return self._switch(_given(force=force, reason=reason), 0.0 if force else inf, monotonic() + timeout)

    def wait(self, condition: str, *names: str, timeout: float = WAIT_S) -> Data:
        """Returns when the condition holds for all the names: active, detached (nodes), ready, reloaded, paused,
        maintenance (services; the last two with nothing in flight), leader (a master is active). Raises Timeout, with
        `details["pending"]`, when `timeout` seconds are over.
        """
        return self._wait(condition, list(names), monotonic() + timeout)

    def events(self, since: int = 0, follow: bool = False) -> Iterator[Data]:
        """The events after number `since`, oldest first; with `follow` also those to come, until it is closed."""
        if not follow:
            args = {"since": since}
            yield from self._ask("events", lambda _: args, monotonic() + ANSWER_S, standby_after=0.0)["events"]
            return
        while True:
            try:
                yield from self._follow(since)
            except _Followed as lost:
                since = lost.since

    def verb(self, verb: str, args: Data, timeout: float = ANSWER_S) -> Data:
        """Any verb by its name, with the arguments of docs/PROTOCOL.md, at the active master."""
        return self._ask(verb, lambda _: args, monotonic() + timeout)

    def close(self) -> None:
        """May be called twice; a later verb connects again."""
        self._part(BYE_LINGER_MS)
        if self._ctx is not None:
            self._ctx.term()
            self._ctx = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- asking -------------------------------------------------------------------------------------------------

    def _change(self, verb: str, args: Data, condition: str, timeout: float) -> Data:
        """The verb, then the condition: two steps, so that a lost connection in between repeats only the waiting."""
        until = monotonic() + timeout
        data = self.verb(verb, args, min(timeout, ANSWER_S))
        if condition:
            self._wait(condition, [node["node"] for node in data["nodes"]], until)
        return data

    def _wait(self, condition: str, names: list[str], until: float) -> Data:
        def args(now: float) -> Data:
            return {"condition": condition, "names": names, "timeout_s": max(0.0, until - now)}

        return self._ask("wait", args, until + GRACE_S)

    def _ask(self, verb: str, args: Callable[[float], Data], until: float, standby_after: float | None = None) -> Data:
        """`standby_after`: so many seconds later a standby will do, if no master is active."""
        if standby_after is None:  # of several one becomes active; the only one says where the active one is
            standby_after = inf if verb == "wait" or len(self._masters) > 1 else STANDBY_S
        while True:
            try:
                link = self._connected(until, standby_after)
            except Unavailable as error:
                if verb == "wait" and self._search.seen_standby:
                    raise _with_exit(Timeout(str(error)), exits.UNDER_WAY) from None
                raise
            self._number += 1
            try:
                self._send(link, Verb(self._number, verb, args(monotonic())))
                result = self._result(link, verb, until)
            except _Lost:
                self._part()
                continue
            if not (self._active and _is_standby(result)):
                return result.data if result.ok else _raise(result)
            self._part()  # it stepped down meanwhile

    def _switch(self, args: Data, standby_after: float, until: float) -> Data:
        """Not as other verbs: said again to the next master it would lead back."""
        status = self._ask("status", lambda _: {"nodes": False}, until, standby_after)
        master, peer = status["master"], status["master"].get("peer") or {}
        before, began = master["epoch"], monotonic()
        result: Data = {}
        try:
            link = self._connected(until, standby_after)
            self._number += 1
            self._send(link, Verb(self._number, "switchover", args))
            answer = self._result(link, "switchover", until)
            result = answer.data if answer.ok else _raise(answer)
        except _Lost:
            pass  # its answer may be what was lost: whoever is active next tells
        self._part()
        others = [address for address in (peer.get("address"), *self._search.masters) if address]
        address, welcome = self._risen(list(dict.fromkeys(others)), before, until)
        return {
            "schema": 1,
            "from": master["name"] if master["state"] == ACTIVE else peer.get("name", ""),
            "to": welcome.master,
            "address": address,
            "epoch_before": before,
            "epoch": welcome.epoch,
            "given_back": result.get("given_back"),
            "took_ms": round((monotonic() - began) * 1000),
        }

    def _risen(self, masters: list[str], before: int, until: float) -> tuple[str, Welcome]:
        """The active master, when it has a higher epoch than that."""
        while monotonic() < until:
            for address in masters:
                try:
                    link, welcome = self._dial(address, min(until, monotonic() + UNGREETED_S))
                except (_Lost, Denied, Incompatible):
                    continue
                link.close()
                if welcome.state == ACTIVE and welcome.epoch > before:
                    self._search.epoch = welcome.epoch
                    return address, welcome
            sleep(POLL_S)
        text = f"no master is active with a higher epoch than {before} yet; `rota status` shows what it waits for"
        raise _with_exit(Timeout(text), exits.UNDER_WAY)

    def _result(self, link: Link, verb: str, until: float) -> Result:
        while True:
            message = self._message(link, until)
            if message is None:
                raise _with_exit(Timeout(f"{link.address} did not answer '{verb}' in time"), exits.UNDER_WAY)
            if isinstance(message, Result) and message.id == self._number:
                return message

    def _follow(self, since: int) -> Iterator[Data]:
        link = self._connected(monotonic() + ANSWER_S, inf if len(self._masters) > 1 else 0.0)
        self._number += 1
        number = self._number
        try:
            self._send(link, Follow(number, since))
            while number == self._number:  # another verb on this Admin ends the following
                message = self._message(link, monotonic() + POLL_MAX_S)
                if isinstance(message, Happened) and message.id == number:
                    for event in message.events:
                        since = max(since, int(event.get("number", since)))
                        yield event
        except _Lost:
            self._part()
        raise _Followed(since)

    # ---- the connection -----------------------------------------------------------------------------------------

    def _connected(self, until: float, standby_after: float) -> Link:
        """The link to the active master, made if need be; after so many seconds without one, to a standby.

        Raises Unavailable at `until`; Denied, Incompatible when every master says so.
        """
        if self._link is not None and self._active and not self._link.lost():
            return self._link
        self._part()
        attempt = _Attempt(monotonic() + standby_after, follows=standby_after > 0)
        try:
            while self._link is None:
                self._try(attempt, until)
        finally:
            attempt.close()
        return self._link

    def _try(self, attempt: _Attempt, until: float) -> None:
        """One master, then the pause before the next one; sets the link."""
        search, now = self._search, monotonic()
        address = search.address
        standby = False
        try:
            link, welcome = self._dial(address, min(until, now + GREETED_S))
            why = search.unfit(welcome, monotonic())
            if not why:
                search.found(welcome.epoch)
                self._link, self._active = link, True
                return
            attempt.reasons[address], standby = why, True
            if attempt.follows and search.learn(other_address(welcome)):
                self._beside = anew(self._beside, search.masters)
            attempt.keep(link, self._token)
        except _Moved:
            return
        except _Lost as lost:
            attempt.reasons[address] = str(lost) or "no connection"
        except (Denied, Incompatible) as error:
            attempt.final[address] = error
            attempt.reasons[address] = str(error)
        if len(attempt.final) == len(search.masters):
            raise _with_exit(attempt.final[address], exits.of(attempt.final[address]))
        due = search.next(monotonic(), standby)
        if search.over() and attempt.link is not None and monotonic() >= attempt.standby_at:
            self._link, self._token, self._active = attempt.link, attempt.token, False
            attempt.link = None
        elif due >= until:
            tried = "; ".join(f"{master}: {why}" for master, why in attempt.reasons.items())
            what = "no master is active" if search.seen_standby else "no master answers"
            raise _with_exit(Unavailable(f"{what} ({tried})"), exits.UNREACHABLE)
        else:
            sleep(max(0.0, due - monotonic()))

    def _dial(self, address: str, until: float) -> tuple[Link, Welcome]:
        if self._ctx is None:
            self._ctx = sockets.context()
        try:
            link = Link(self._ctx, address, sockets.CONTROL, MAP_MAX)
        except ValueError as error:
            raise _Lost(str(error)) from None
        self._heard_at = monotonic()
        try:
            return link, self._greet(link, until)
        except BaseException:
            link.close()
            raise

    def _greet(self, link: Link, until: float) -> Welcome:
        hello = wire.head(wire.HELLO, 0) + encode(OperatorHello(list(wire.VERSIONS), self._user))
        while not link.send(hello):
            if link.lost() or not self._pending(link, until, zmq.POLLOUT):
                raise _Lost("no connection")
        frame = self._frame(link, until)
        if frame is None:
            raise _Lost("no answer")
        message = _decoded(frame)
        if isinstance(message, Welcome):
            self._token = wire.parse_head(frame).token
            return message
        if isinstance(message, Refusal):
            _raise_refusal(link.address, message)
        raise _Lost("no greeting")

    def _part(self, linger_ms: int = 0) -> None:
        link, self._link = self._link, None
        if self._beside is not None:
            self._beside.close()
        if link is not None:
            if linger_ms:
                link.send(wire.head(wire.BYE, self._token))
            link.close(linger_ms)

    def _send(self, link: Link, message: Message) -> None:
        if not link.send(wire.head(wire.CONTROL, self._token) + encode(message)):
            raise _Lost

    def _message(self, link: Link, until: float) -> Message | None:
        """The next message; None when the time is over. Damaged frames are dropped. Raises _Lost."""
        while True:
            frame = self._frame(link, until)
            if frame is None:
                return None
            if len(frame) >= wire.HEADER_SIZE and frame[6] == wire.WHO:
                raise _Lost("the master does not know this connection")
            message = _decoded(frame)
            if message is not None:
                return message

    def _frame(self, link: Link, until: float) -> bytes | None:
        while True:
            frame = link.receive()
            if frame is not None:
                self._heard_at = monotonic()
                return frame
            if link.lost():
                raise _Lost("connection lost" if link.connected else "no connection")
            if not self._pending(link, until, zmq.POLLIN):
                return None

    def _pending(self, link: Link, until: float, events: int) -> bool:
        """Waits for the link; False when the time is over. Raises _Moved."""
        now = monotonic()
        left = until - now
        if left <= 0:
            return False
        if self._beside is not None:
            self._look_beside(self._beside, link, now)
            left = min(left, max(0.0, self._beside.due - now))
        poller = zmq.Poller()
        poller.register(link.dealer, events)
        poller.register(link.monitor, zmq.POLLIN)
        poller.poll(int(min(left, POLL_MAX_S) * 1000) + 1)
        return True

    def _look_beside(self, beside: Beside, link: Link, now: float) -> None:
        assert self._ctx is not None
        search, own = self._search, link is self._link
        patience, epoch = (QUIET_S, search.epoch + 1) if own else (UNGREETED_S, search.epoch)
        found = beside.step(self._ctx, link.address, self._heard_at, patience, epoch, now)
        if found is not None:
            beside.close()
            search.go(found[0], now)
            raise _Moved(f"silent, and {found[0]} is active")


class _Attempt:
    """To find the active master. `link`: to a standby that was met."""

    def __init__(self, standby_at: float, follows: bool) -> None:
        """`follows`: it has to be an active one, whoever was named."""
        self.standby_at = standby_at
        self.follows = follows
        self.reasons: dict[str, str] = {}
        self.final: dict[str, Error] = {}
        self.link: Link | None = None
        self.token = 0

    def keep(self, link: Link, token: int) -> None:
        self.close()
        self.link, self.token = link, token

    def close(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()


class _Followed(Exception):
    """The connection was lost, or lent to a verb; go on after this event."""

    def __init__(self, since: int) -> None:
        super().__init__(since)
        self.since = since


def _decoded(frame: bytes) -> Message | None:
    try:
        return decode(frame[wire.parse(frame)[11] :])
    except (wire.BadFrame, BadMessage):
        return None


def _raise(result: Result) -> Data:
    cause = str(result.data.get("error", "the master gives no reason"))
    error = exits.error(result.exit, cause)
    error.details.update(result.data)
    raise _with_exit(error, result.exit)


def _is_standby(result: Result) -> bool:
    """It says so: of itself in its status, or in place of doing what was asked."""
    data = result.data
    if not result.ok:
        return result.exit == exits.REFUSED and "active" in data
    master = data.get("master")
    return isinstance(master, dict) and master.get("state", ACTIVE) != ACTIVE


def _raise_refusal(address: str, refusal: Refusal) -> None:
    text = f"{address}: {refusal.message}"
    if refusal.code == "incompatible":
        lowest, highest = wire.VERSIONS
        raise Incompatible(f"{text}; this side speaks versions {lowest} to {highest}")
    if refusal.code == "denied":
        raise Denied(text)
    raise _Lost(f"refused: {refusal.message or refusal.code}")


def _with_exit(error: Error, number: int) -> Error:
    error.exit_code = number  # type: ignore[attr-defined]
    return error


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
