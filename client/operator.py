"""What a person at the command line, or a deploy script, does: asks the active master, waits, follows events, hands
over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from math import inf
from time import monotonic
from typing import Any
from weakref import WeakSet

from ..common import exits
from ..common.errors import Error, Timeout, Unavailable
from ..common.messages import Follow, Happened, Result, Verb
from .active import ActiveMaster
from .control import POLL_MAX_S, Control, Lost
from .search import ACTIVE

ANSWER_S = 30.0  # for a verb that only decides, and the search for a master: a restart meanwhile is no failure
GRACE_S = 2.0  # the master's own "time was over" knows what is pending, so it may come a little late
FIND_S = 1.0  # for the search at least: who waits for no time at all asks whether it is so now
ASK_S = 0.25  # for a look: who has no time at all would hear of a master that is there that it is not
STANDBY_S = 5.0  # nobody is active for so long before a standby is asked: it may be taking over
WHY_S = 1.0  # for a standby that was met a moment ago to tell what it waits for

Data = dict[str, Any]


class Operator:
    """One question at a time; what is asked while events are followed ends the following."""

    def __init__(self, masters: Sequence[str], user: str) -> None:
        self._masters = masters
        self._user = user
        self._master = ActiveMaster(masters, user)
        self._number = 0  # of the last question
        _operators.add(self)

    def ask(self, verb: str, args: Data, until: float, standby_after: float | None = None) -> Data:
        """`standby_after`: if no master is active for so many seconds, a standby may answer. None: it may not, and
        Unavailable is raised with what the standby says of why nobody can be elected.
        """
        return self._ask(verb, lambda _: args, until, standby_after)

    def wait(self, condition: str, names: list[str], until: float) -> Data:
        def args(now: float) -> Data:
            return {"condition": condition, "names": names, "timeout_s": max(0.0, until - now)}

        return self._ask("wait", args, until, grace_s=GRACE_S)

    def switch(self, args: Data, until: float, standby_after: float | None) -> Data:
        """Unlike other verbs it is sent once: sent again, to the master that has taken over, it would lead back."""
        asked_by = max(until, monotonic() + FIND_S)
        status = self._ask("status", lambda _: {"nodes": False}, asked_by, standby_after)
        master, peer = status["master"], status["master"].get("peer") or {}
        before, began = master["epoch"], monotonic()
        result: Data = {}
        try:
            control = self._master.control(asked_by, inf if standby_after is None else standby_after)
            result = _data(self._result(control, "switchover", args, until))
        except Lost:
            pass  # its answer may be what was lost: whoever is active next tells
        self._master.part()
        try:
            address, welcome = self._master.risen(peer.get("address") or "", before, until)
        except Timeout as error:
            if why := self._why_none(monotonic() + WHY_S):
                raise exits.error(exits.UNDER_WAY, f"{error}; {why}") from None
            raise
        was_active = master["state"] == ACTIVE
        if was_active and welcome.master == master["name"]:
            other, its_address = peer.get("name") or "the other master", peer.get("address") or "STANDBY"
            raise exits.error(
                exits.FAILED,
                f"{other} did not take over: {welcome.master} is active again, with epoch {welcome.epoch}; "
                f"`rota role -m {its_address}` says what keeps {other} from it",
            )
        return {
            "schema": 1,
            "from": master["name"] if was_active else peer.get("name", ""),
            "to": welcome.master,
            "address": address,
            "epoch_before": before,
            "epoch": welcome.epoch,
            "given_back": result.get("given_back"),
            "took_ms": round((monotonic() - began) * 1000),
        }

    def follow(self, since: int) -> Iterator[Data]:
        """Without end."""
        while True:
            since = yield from self._follow(since)

    def begin_anew(self) -> None:
        """In a forked child: the connections are the parent's, and not even to be closed here."""
        self._number += 1
        _left_behind.append(self._master)
        self._master = ActiveMaster(self._masters, self._user)

    def close(self) -> None:
        """May be called twice; a later question connects again."""
        self._number += 1  # events that are still followed go on over another connection, too
        self._master.close()

    def _ask(
        self,
        verb: str,
        args: Callable[[float], Data],
        until: float,
        standby_after: float | None = None,
        grace_s: float = 0.0,
    ) -> Data:
        """`args`: a function of the time, since what is left of a time-out shrinks while a lost connection is made
        again. `grace_s`: for the answer of a master that was found; it is looked for until `until`.
        """
        until = max(until, monotonic() + (FIND_S if standby_after is None else ASK_S))
        patience_s = standby_after
        if patience_s is None:
            patience_s = inf if verb == "wait" else STANDBY_S
        while True:
            try:
                control = self._master.control(until, patience_s)
            except Unavailable as error:
                if verb == "wait" and self._master.seen_standby:
                    raise exits.error(exits.UNDER_WAY, self._why_none(monotonic() + WHY_S) or str(error)) from None
                raise
            try:
                if standby_after is None and not self._master.is_active:
                    if why := self._alarms(control, until):
                        raise exits.error(exits.UNREACHABLE, why)
                    if self._master.several:  # one of them becomes active; the only one says where the active one is
                        patience_s = inf
                        continue
                result = self._result(control, verb, args(monotonic()), until + grace_s)
            except Lost:
                self._master.part()
                continue
            if not (self._master.is_active and _is_standby(result)):
                return _data(result)
            self._master.part()  # it stepped down meanwhile

    def _why_none(self, until: float) -> str:
        """What a standby says of why nobody is active; "" if none answers."""
        try:
            return self._alarms(self._master.control(until, 0.0), until)
        except (Error, Lost):
            return ""

    def _alarms(self, standby: Control, until: float) -> str:
        """Why this standby cannot take over unless people help; "" if it still may, or hears the active master."""
        master = _data(self._result(standby, "status", {"nodes": False}, until))["master"]
        alarms, peer = "; ".join(master.get("alarms", ())), master.get("peer") or {}
        waits = master["state"] != ACTIVE and peer.get("liveness") != "live"
        return f"{master['name']} is a {master['state']}, and {alarms}" if alarms and waits else ""

    def _result(self, control: Control, verb: str, args: Data, until: float) -> Result:
        self._number += 1
        control.send(Verb(self._number, verb, args))
        while True:
            message = control.message(until)
            if message is None:
                raise exits.error(exits.UNDER_WAY, f"{control.address} did not answer '{verb}' in time")
            if isinstance(message, Result) and message.id == self._number:
                return message

    def _follow(self, since: int) -> Generator[Data, None, int]:
        """Until the connection is lost, or used for a verb. Returns the number of the last event."""
        control = self._master.control(monotonic() + ANSWER_S, inf if self._master.several else 0.0)
        self._number += 1
        number = self._number
        try:
            control.send(Follow(number, since))
            while number == self._number:
                message = control.message(monotonic() + POLL_MAX_S)
                if isinstance(message, Happened) and message.id == number:
                    for event in message.events:
                        since = max(since, int(event.get("number", since)))
                        yield event
        except Lost:
            self._master.part()
        return since


def _data(result: Result) -> Data:
    """Raises what the master answered, if it did not do it."""
    if result.ok:
        return result.data
    error = exits.error(result.exit, str(result.data.get("error", "the master gives no reason")))
    error.details.update(result.data)
    raise error


def _is_standby(result: Result) -> bool:
    """Does this answer come from a standby? Its status says so; all other verbs it refuses, naming the active one."""
    data = result.data
    if not result.ok:
        return result.exit == exits.REFUSED and "active" in data
    master = data.get("master")
    return isinstance(master, dict) and master.get("state", ACTIVE) != ACTIVE


_operators: WeakSet[Operator] = WeakSet()
_left_behind: list[ActiveMaster] = []  # of the parent: the garbage collector, too, must leave their sockets alone


def _in_child() -> None:
    for operator in list(_operators):
        operator.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
