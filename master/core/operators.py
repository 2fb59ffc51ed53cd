"""Those who type `rota` commands: verbs are answered once what they changed is durable, waits and follows go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from traceback import extract_tb
from typing import Any, NamedTuple

from ...common import exits, messages, wire
from ...common.limits import ASKED_MAX
from . import verbs
from .events import EventLog
from .fleet import Fleet
from .followers import Followers
from .outbox import Outbox
from .recollection import Told

OPERATORS_MAX = 1000
PROBE_EVERY_S = 1.0
_IN_MEMORY = ("list", "clear")  # actions of blacklist that no journal has to know
_LOOKING = ("status", "events", "wait")  # verbs that change nothing
_LISTING = (None, "list", "show")  # and actions of those that mostly do


class _Operator(NamedTuple):
    token: int
    user: str
    following: dict[int, int]  # id of the Follow → last event that was sent


class _Waiter(NamedTuple):
    route: bytes
    id: int
    wait: verbs.Wait
    began: float


class _Asked(NamedTuple):
    route: bytes
    verb: messages.Verb
    at: float


class Connected:
    """The operators that are here, and the events that each of them follows. `alarms` and `counters` are the master's,
    for mistakes of our own.
    """

    def __init__(self, out: Outbox, events: EventLog, alarms: dict[str, str], counters: Counter[str]) -> None:
        self._out = out
        self._events = events
        self._alarms = alarms
        self._counters = counters
        self._known: dict[bytes, _Operator] = {}  # by route
        self._probe_at = 0.0

    def came(self, route: bytes, token: int, user: str) -> None:
        if len(self._known) >= OPERATORS_MAX:  # those that vanished without BYE; the oldest goes
            self.gone(next(iter(self._known)))
        self._known[route] = _Operator(token, user[:64], {})

    def gone(self, route: bytes) -> None:
        """BYE, or the route of a control message was not there any more."""
        self._known.pop(route, None)

    def token(self, route: bytes) -> int:
        """0: it is no operator's."""
        return self._known[route].token if route in self._known else 0

    def follow(self, route: bytes, follow: messages.Follow) -> None:
        following = self._known[route].following
        if follow.id not in following and len(following) >= ASKED_MAX:
            return self.say(route, _too_many_asked().outcome.result(follow.id))
        # A number that was never given here was given by an earlier master, or to the events of the active one: what
        # there is to hear then is all of this one's.
        following[follow.id] = follow.since if follow.since <= self._events.last else 0
        self.tell_followers()

    def tell_followers(self) -> None:
        for route, operator in self._known.items():
            for follow_id, since in operator.following.items():
                if since < self._events.last:
                    operator.following[follow_id] = self._events.last
                    self.say(route, messages.Happened(follow_id, self._events.since(since)))

    def tick(self, now: float) -> None:
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY_S
            self._probe()
        self.tell_followers()

    def _probe(self) -> None:
        """One that vanished without BYE is noticed only when something is sent, and its wait may be a long one."""
        self._out.control += [(route, wire.head(wire.PROBE, each.token)) for route, each in self._known.items()]

    def say(self, route: bytes, message: messages.Message) -> None:
        operator = self._known.get(route)
        if operator is not None:
            self._out.say(route, operator.token, message)

    def mistaken(self, doing: str, error: Exception) -> verbs.Outcome:
        """A mistake of our own. Whoever only looks changes nothing, so everybody else is served on."""
        frames = [
            f"{each.name} ({each.filename.rpartition('/')[2]}:{each.lineno})"
            for each in extract_tb(error.__traceback__)
        ]
        what = f"{type(error).__name__}: {error}"[: verbs.TEXT_MAX // 2]
        text = f"internal error in {doing}: {what}, in {' < '.join(reversed(frames))}"[: verbs.TEXT_MAX]
        self._events.tell("internal error", doing, text)
        self._counters["internal errors"] += 1
        self._alarms["internal error"] = f"{text}: please report it"
        return verbs.Outcome({"error": text}, exit=exits.FAILED)


class Operators(Connected):
    """With the alarm of the journal nothing is changed any more."""

    def __init__(
        self,
        fleet: Fleet,
        alarms: dict[str, str],
        status: Callable[[float, bool], dict[str, Any]],
        pair: Followers,
        hand_over: Callable[[float], str],
    ) -> None:
        super().__init__(fleet.out, fleet.events, alarms, fleet.dispatch.counters)
        self.waiting: list[_Waiter] = []
        self.early: list[_Asked] = []  # what names somebody who may still come
        self._fleet = fleet
        self._verbs = verbs.Verbs(fleet, pair)
        self._pair = pair
        self._status = status
        self._hand_over = hand_over
        self._switching: list[tuple[bytes, int]] = []  # whoever asked for a switchover: route and id
        self._last = 0  # record that a verb led to
        self._confirmed = 0  # record that may be relied upon
        self._answers: dict[int, list[tuple[bytes, messages.Result]]] = {}  # record → answers that wait for it

    def gone(self, route: bytes) -> None:
        super().gone(route)
        self.waiting = [waiter for waiter in self.waiting if waiter.route != route]
        self.early = [each for each in self.early if each.route != route]

    # ---- what they say -------------------------------------------------------------------------------------------

    def verb(self, route: bytes, verb: messages.Verb, now: float) -> None:
        self._perform(_Asked(route, verb, now), now)

    def _perform(self, asked: _Asked, now: float) -> None:
        route, verb, at = asked
        try:
            self._do(self._known[route], asked, now)
        except verbs.NotHere as missing:
            if not self._may_come(route, now):
                self._answer(route, verb.id, missing.outcome)
            elif verb.verb == "wait" and (over := _came_of(self._verbs.wait(verb.args, early=True), now - at, now)):
                self._answer(route, verb.id, over)
            else:
                self.early.append(asked)
        except verbs.Refuse as refused:
            self._answer(route, verb.id, refused.outcome)
        except Exception as error:
            if not only_looks(verb):
                raise  # half of it may be done: what was recorded is what the next master begins with
            self._answer(route, verb.id, self.mistaken(verb.verb, error))

    def _do(self, operator: _Operator, asked: _Asked, now: float) -> None:
        route, verb, at = asked
        verbs.check(verb.verb, verb.args)
        if verb.verb == "wait":
            if sum(waiter.route == route for waiter in self.waiting) >= ASKED_MAX:
                raise _too_many_asked()
            self.waiting.append(_Waiter(route, verb.id, self._verbs.wait(verb.args), at))
        elif verb.verb == "status":
            nodes = verbs.argument(verb.args, "nodes", bool, True)
            self._answer(route, verb.id, verbs.Outcome(self._status(now, nodes)))
        elif verb.verb == "events":
            since, limit = verbs.argument(verb.args, "since", int, 0), verbs.argument(verb.args, "limit", int, 1000)
            self._answer(route, verb.id, verbs.Outcome({"events": self._events.since(since, limit)}))
        elif verb.verb == "quarantine":  # in memory only: a journal that fails is no reason to refuse it
            self._answer(route, verb.id, self._verbs.quarantine(verb.args, operator.user, now))
        elif verb.verb == "blacklist" and verb.args.get("action", "list") in _IN_MEMORY:  # the same
            self._answer(route, verb.id, self._verbs.blacklist(verb.args, operator.user, now))
        elif verb.verb == "switchover":
            reason = verbs.reason_of(verb.args)
            if why := self._hand_over(now):
                raise verbs.Refuse(exits.REFUSED, why)
            self._switching.append((route, verb.id))
            self._events.tell("switchover", self._pair_name(), f"to {self._pair_name()}", operator.user, reason)
        else:
            if "journal" in self._alarms and verb.verb != "resume":  # callers wait, and its end comes anyway
                raise verbs.Refuse(exits.FAILED, f"nothing can be changed: {self._alarms['journal']}")
            outcome = getattr(self._verbs, verb.verb)(verb.args, operator.user, now)
            # What it found as it is wanted may have been asked for a moment ago, and not be on record yet.
            self._last = outcome.record or self._last
            self._answer(route, verb.id, outcome._replace(record=self._last))

    def _may_come(self, route: bytes, now: float) -> bool:
        """This master began a moment ago, and nodes that are awaited have not told what they are and offer."""
        asked = sum(each.route == route for each in self.early)
        return asked < ASKED_MAX and self._fleet.census.told(True, now) is Told.NOT_YET

    # ---- answers -------------------------------------------------------------------------------------------------

    def _answer(self, route: bytes, verb_id: int, outcome: verbs.Outcome) -> None:
        result = outcome.result(verb_id)
        if outcome.record > self._confirmed and "journal" not in self._alarms:  # then nothing more becomes durable
            self._answers.setdefault(outcome.record, []).append((route, result))
        else:
            self.say(route, result)

    def _wake(self, now: float) -> None:
        """Whoever waits is answered when its condition holds, when it cannot come true, or when its time is over."""
        left = []
        for waiter in self.waiting:
            try:
                outcome = _came_of(waiter.wait, now - waiter.began, now)
            except Exception as error:
                outcome = self.mistaken("wait", error)
            if outcome is None:
                left.append(waiter)
            else:
                self._answer(waiter.route, waiter.id, outcome)
        self.waiting = left

    # ---- what the master tells -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self.early:
            early, self.early = self.early, []
            for each in early:
                self._perform(each, now)
        if self.waiting:
            self._wake(now)
        super().tick(now)

    def handed_over(self, epoch: int, given_back: int) -> None:
        """Whoever asked for it goes on at the other master."""
        for route, verb_id in self._switching:
            data = {"epoch": epoch, "to": self._pair_name(), "given_back": given_back}
            self._answer(route, verb_id, verbs.Outcome(data))
        self._switching.clear()

    def _pair_name(self) -> str:
        return self._pair.peer.name if self._pair.peer else ""

    def recorded(self, number: int) -> None:
        """Everything up to this record is durable."""
        self._confirmed = number
        for record in [record for record in self._answers if record <= number]:
            for route, result in self._answers.pop(record):
                self.say(route, result)

    def unrecorded(self, text: str) -> None:
        """The journal failed. Whoever waits for a record is told not to."""
        answers, self._answers = self._answers, {}
        for route, result in (each for waiting in answers.values() for each in waiting):
            data = {**result.data, "error": f"a restart of this master would forget what was asked for: {text}"}
            self.say(route, result._replace(ok=False, exit=exits.FAILED, data=data))


def only_looks(verb: messages.Verb) -> bool:
    """It changes nothing, not even half."""
    return verb.verb in _LOOKING or (verb.verb in ("blacklist", "quarantine") and verb.args.get("action") in _LISTING)


def _came_of(wait: verbs.Wait, waited_s: float, now: float) -> verbs.Outcome | None:
    """Of a wait; None: it goes on."""
    data: dict[str, Any] = {"condition": wait.condition, "names": list(wait.find()), "waited_s": waited_s}
    pending = wait.pending(now)
    if not pending:
        return verbs.Outcome(data)
    if failed := wait.failed():
        return verbs.Outcome({**data, "error": failed}, exit=exits.FAILED)
    if waited_s < wait.timeout_s:
        return None
    data["pending"] = [{"name": name, "why": text} for name, text in pending.items()]
    names = "; ".join(f"{name}: {text}" for name, text in pending.items())
    data["error"] = f"not {wait.condition} yet, still under way: {names}"
    return verbs.Outcome(data, exit=exits.UNDER_WAY)


def _too_many_asked() -> verbs.Refuse:
    text = f"{ASKED_MAX} waits or follows are under way over this connection: end one first"
    return verbs.Refuse(exits.REFUSED, text)
