"""Requests that kill processes: a suspect after one death, in quarantine after two (docs/FAULTS.md, "Poison requests").

What is counted is a *fingerprint* (service, handler, payload), not a request: callers send the same poison again under
new numbers, gateways under new ids. A payload is looked at only where a process died of it, and where one of its
handler is watched: targets with a suspect or with something in quarantine are not cached by the dispatch, so that their
requests come by here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ...common import errors
from ...common.http_calls import lasting
from ...common.messages import CRASHES, ROW_RUNNING, Exited
from ...common.units import format_duration, plural
from . import records
from .maintenance import service_of
from .pool import UNCAPPED, Pool, Request, Slot

if TYPE_CHECKING:
    from .dispatch import Dispatch

COUNTED_FOR_S = 600.0  # two deaths within this are one cause; seldomer ones may be chance
CASES_MAX = 500  # the list of all is one message
CASES_BYTES_MAX = 16 * 2**20
PAYLOAD_KEPT = 64 * 1024  # for whoever looks for the bug: most payloads are smaller
TEXT_KEPT = 4096  # of a stderr
CAUSE_KEPT = 200
ID_LENGTH = 12  # of 32 hex digits: 500 cases share one once in 10⁹ times
LOOK_EVERY_S = 1.0  # for what is over
PATIENCE_S = 1.0  # with a slot that does not answer while another does


class State(StrEnum):
    SUSPECT = "suspect"  # a process died of it: it runs alone, one request at a time
    CLEARED = "cleared"  # answered when it ran alone, and runs as all do; the death still counts
    QUARANTINED = "quarantined"  # refused until an operator says otherwise or its time is over


Death = records.Died  # of a process that was alone with the request; here `at` is of our clock


@dataclass(slots=True, eq=False, repr=False)
class Case:
    """What is known of one fingerprint."""

    fingerprint: bytes
    target: bytes
    pool: Pool
    size: int  # of the payload
    payload: bytes  # its beginning
    state: State = State.SUSPECT
    since: float = 0.0  # of the state
    strikes: int = 0  # deaths that count; two are enough
    struck_at: float = 0.0
    until: float = 0.0  # in quarantine: when it may run again, alone
    died: int = 0  # processes in all
    deaths: list[Death] = field(default_factory=list)  # the last two
    refused: int = 0

    @property
    def id(self) -> str:
        return self.fingerprint.hex()[:ID_LENGTH]

    @property
    def name(self) -> str:
        return self.target.decode("utf-8", "replace")

    def bytes(self) -> int:
        return len(self.payload) + sum(len(death.text) for death in self.deaths)


@dataclass(slots=True, eq=False, repr=False)
class _Turn:
    """A suspect runs alone here. No request yet: the slot finishes what it has, and gets nothing new."""

    case: Case
    slot: Slot
    request: Request | None = None


class Quarantine:
    """Asked where a process died, where a request is admitted or to be run again, and at each tick."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.cases: dict[bytes, Case] = {}  # by fingerprint, the oldest first
        self.watched: dict[bytes, dict[bytes, Case]] = {}  # target → its suspects and what is in quarantine
        self.waiting: dict[Request, Case] = {}  # suspects, first come first served
        self.tell: Callable[[str, str, str, str, str], None] = lambda *event: None  # of the event log
        self.wall: Callable[[], float] = lambda: 0.0
        self.journal: Callable[[bytes], int] = lambda record: 0
        self._restored: dict[bytes, records.Suspect] = {}  # whose service nobody has offered yet
        self._dispatch = dispatch
        self._turns: dict[Pool, _Turn] = {}  # one at a time a service: suspects must not take all of its slots
        self._gone: dict[bytes, None] = {}  # fingerprints of the last that were forgotten
        self._looked_at = 0.0

    # ---- deaths ----------------------------------------------------------------------------------

    def exited(self, slot: Slot, report: Exited, inflight: dict[int, Request], now: float) -> None:
        """A crash of a process in which exactly one request had started and was not done is that one's fault."""
        running = [row.number for row in report.rows if row.state == ROW_RUNNING and row.number <= report.started_upto]
        request = inflight.get(running[0]) if len(running) == 1 else None
        if request is None or not request.frame or report.kind not in CRASHES:
            return
        session = request.session.id.hex()
        cause, text = report.cause[:CAUSE_KEPT], report.text[-TEXT_KEPT:]
        death = Death(now, cause, report.kind, slot.node.name, slot.incarnation, session, request.number, text)
        self._blame(self._case(request), death, now)

    def _case(self, request: Request) -> Case:
        fingerprint = _fingerprint(request)
        case = self.cases.get(fingerprint)
        if case is None:
            body = request.frame[request.head_len : request.head_len + PAYLOAD_KEPT]
            size = len(request.frame) - request.head_len
            case = self.cases[fingerprint] = Case(fingerprint, request.target(), request.pool, size, body)
            self._gone.pop(fingerprint, None)
        return case

    def _blame(self, case: Case, death: Death, now: float) -> None:
        case.strikes = case.strikes + 1 if now - case.struck_at <= COUNTED_FOR_S else 1
        case.struck_at = now
        case.died += 1
        case.deaths = [*case.deaths[-1:], death]
        if case.state is State.QUARANTINED:  # one that ran already when it was decided
            return self._record(case, now)
        if case.strikes > 1:
            self._quarantine(case, now)
        else:
            self._enter(case, State.SUSPECT, now)
            text = f"{case.name}: a process that was alone with it {death.cause}; it runs alone until it is answered"
            self.tell("suspect", case.id, text, "", "")
        self._make_room(now)

    def _quarantine(self, case: Case, now: float) -> None:
        lasts = case.pool.settings.quarantine_for
        case.until = now + lasts
        self._enter(case, State.QUARANTINED, now)
        for request in self.waiting_for(case):
            self._unhold(request)
            self._refuse(request, case)
        text = f"{case.name}: {_deaths(case)}; refused for {format_duration(lasts)}"
        self.tell("quarantined", case.id, f"{text}, see `rota quarantine show {case.id}`", "", "")

    def _enter(self, case: Case, state: State, now: float) -> None:
        """Into a state in which its requests are looked at; those that are queued wait here from now on."""
        case.state, case.since = state, now
        self._record(case, now)
        self.watched.setdefault(case.target, {})[case.fingerprint] = case
        self._dispatch.forget_targets()
        queued = [request for request in case.pool.waiting() if self.case_of(request) is case]
        case.pool.take(queued)
        self.waiting.update(dict.fromkeys(queued, case))

    # ---- requests --------------------------------------------------------------------------------

    def case_of(self, request: Request) -> Case | None:
        """The suspect, or what is in quarantine, that this request is one of."""
        known = self.watched.get(request.target())
        return known.get(_fingerprint(request)) if known else None

    def takes(self, request: Request, came: float | None = None) -> bool:
        """True: it waits here for its turn, or was answered. `came`: now, if it was not accepted before: then it may be
        refused for want of room.
        """
        case = self.case_of(request) if self.watched else None
        if case is None:
            return False
        if case.state is State.QUARANTINED:
            self._refuse(request, case)
            return True
        if came is None:
            self._dispatch.queued_bytes += len(request.frame)
        elif not self._dispatch.may_wait(request, came, full=len(self.waiting) >= case.pool.settings.queue_limit):
            return True
        request.slot = None
        self.waiting[request] = case
        return True

    def verdict(self, request: Request) -> str:
        """Why it must not run again; empty if it may, as far as this goes."""
        case = self.case_of(request) if self.watched else None
        return _sentence(case) if case is not None and case.state is State.QUARANTINED else ""

    def lost(self, request: Request) -> None:
        """Its attempt ended without a reply: that says nothing of the request, and its turn is over."""
        for pool, turn in self._turns.items():
            if turn.request is request:
                return self._end(pool)

    def leave(self, request: Request) -> bool:
        """True if it waited here; it does no longer."""
        return self.waiting.pop(request, None) is not None

    def held(self, pool: Pool) -> int:
        """How many wait for their turn."""
        return sum(case.pool is pool for case in self.waiting.values()) if self.waiting else 0

    def waiting_for(self, case: Case) -> list[Request]:
        """Its requests that wait for their turn, in their order."""
        return [request for request, its in self.waiting.items() if its is case]

    def _unhold(self, request: Request) -> None:
        del self.waiting[request]
        self._dispatch.queued_bytes -= len(request.frame)

    def _refuse(self, request: Request, case: Case) -> None:
        """Nothing of it ran, unless an attempt of it was lost before."""
        case.refused += 1
        code = errors.MaybeExecuted.code if request.attempt else errors.Quarantined.code
        self._dispatch.fail(request, code, _sentence(case))

    # ---- running alone ---------------------------------------------------------------------------

    def busy(self) -> bool:
        """A turn is under way: whose slot is free, or answered, is to be seen soon."""
        return bool(self._turns)

    def tick(self, now: float) -> None:
        if self._turns or self.waiting:
            self.step(now)
        if self.cases and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            for case in list(self.cases.values()):
                self._expire(case, now)

    def step(self, now: float) -> None:
        for pool, turn in list(self._turns.items()):
            self._follow(pool, turn, now)
        served = set(self._turns)
        for request, case in list(self.waiting.items()):
            if request.pool not in served:
                served.add(request.pool)
                self._begin(request.pool, case, now)
        for pool in served:  # who was kept free for one may have room for others again
            self._dispatch.pump(pool, now)

    def _begin(self, pool: Pool, case: Case, now: float) -> None:
        slot = _freest(pool)
        if slot is not None:
            turn = self._turns[pool] = _Turn(case, slot)
            pool.cap(slot, 0)
            self._follow(pool, turn, now)

    def _follow(self, pool: Pool, turn: _Turn, now: float) -> None:
        slot, request = turn.slot, turn.request
        if request is not None:
            if slot.inflight.get(request.delivery) is not request:  # any other end than a reply is told by `lost`
                self._end(pool)
                self._clear(turn.case, now)
            return
        first = next(iter(self.waiting_for(turn.case)), None)
        if first is None or not _usable(pool, slot):
            self._end(pool)
        elif not slot.inflight:
            turn.request = first
            self._unhold(first)
            pool.cap(slot, 1)
            self._dispatch.give(slot, first, now)
        elif (other := _freest(pool)) is not slot and other is not None:
            if not other.inflight or now - slot.progress_at > PATIENCE_S:
                self._end(pool)  # the next one begins in this step, with the other slot

    def _end(self, pool: Pool) -> None:
        pool.cap(self._turns.pop(pool).slot, UNCAPPED)

    def _clear(self, case: Case, now: float) -> None:
        if case.state is State.SUSPECT:
            case.state, case.since = State.CLEARED, now
            self._record(case, now)
            self.tell("released", case.id, f"{case.name}: it was answered when it ran alone", "", "")
            self._unwatch(case, now)

    def _unwatch(self, case: Case, now: float) -> None:
        """Its requests are like all others again; those that waited go first."""
        known = self.watched.get(case.target, {})
        known.pop(case.fingerprint, None)
        if not known:
            self.watched.pop(case.target, None)
        requests = self.waiting_for(case)
        for request in requests:
            del self.waiting[request]
        if requests:
            self._dispatch.pins.requeue(case.pool, requests)
        self._dispatch.pump(case.pool, now)

    # ---- the end of a case -----------------------------------------------------------------------

    def _expire(self, case: Case, now: float) -> None:
        if case.state is State.QUARANTINED:
            if now >= case.until:
                self._release(case, "its time is over", "", "", now)
        elif now - case.struck_at > COUNTED_FOR_S and not self._in_use(case):
            self._forget(case, now)

    def _release(self, case: Case, why: str, by: str, reason: str, now: float) -> None:
        """It may run again, alone; one more death is enough."""
        case.strikes, case.struck_at = 1, now
        self._enter(case, State.SUSPECT, now)
        self.tell("released", case.id, f"{case.name}: {why}; it may run again, alone", by, reason)

    def _forget(self, case: Case, now: float) -> None:
        self.cases.pop(case.fingerprint, None)
        records.is_gone(self._gone, case.fingerprint)
        self.journal(records.suspect(case.fingerprint, None))
        self._unwatch(case, now)

    def _in_use(self, case: Case) -> bool:
        return any(turn.case is case for turn in self._turns.values()) or case in self.waiting.values()

    def _make_room(self, now: float) -> None:
        """The oldest go, but for the one that was added just now."""
        size = sum(case.bytes() for case in self.cases.values())
        *older, _ = list(self.cases.values())
        for case in older:
            if len(self.cases) <= CASES_MAX and size <= CASES_BYTES_MAX:
                return
            if not self._in_use(case):
                size -= case.bytes()
                self._forget(case, now)
                self.tell("released", case.id, f"{case.name}: forgotten, since there are too many newer ones", "", "")

    # ---- what outlives this master ---------------------------------------------------------------

    def _record(self, case: Case, now: float) -> None:
        day = self.wall() - now  # from our clock to the time of day
        deaths = [death._replace(at=death.at + day) for death in case.deaths]
        times = case.since + day, case.strikes, case.struck_at + day, case.until + day
        found = records.Suspect(case.target, case.size, case.payload, str(case.state), *times, case.died, deaths)
        self.journal(records.suspect(case.fingerprint, found))

    def restore(self, suspects: Mapping[bytes, records.Suspect], gone: Iterable[bytes]) -> None:
        """What an older master knew; each case waits for its service."""
        self._restored = dict(suspects)
        self._gone = dict.fromkeys(gone)

    def adopt(self, pool: Pool, now: float) -> None:
        """A service is new here; an older master may have known suspects of it."""
        day = self.wall() - now
        mine = [each for each, case in self._restored.items() if service_of(case.target) == pool.name]
        for fingerprint in mine:
            old = self._restored.pop(fingerprint)
            deaths = [death._replace(at=death.at - day) for death in old.deaths]
            until = min(old.until - day, now + pool.settings.quarantine_for)  # that machine's time of day may be wrong
            state, times = State(old.state), (old.since - day, old.strikes, min(now, old.struck_at - day), until)
            case = Case(fingerprint, old.target, pool, old.size, old.payload, state, *times, old.died, deaths)
            self.cases[fingerprint] = case
            if state is not State.CLEARED:
                self.watched.setdefault(case.target, {})[fingerprint] = case

    # ---- operators -------------------------------------------------------------------------------

    def find(self, name: str) -> Case | None:
        """The case with this id, or the only one whose id begins so."""
        found = [case for case in self.cases.values() if name and case.fingerprint.hex().startswith(name)]
        return found[0] if len(found) == 1 else None

    def all(self) -> list[Case]:
        """What died last is first."""
        return sorted(self.cases.values(), key=lambda case: -case.deaths[-1].at)

    def ids(self) -> list[str]:
        return [case.id for case in self.cases.values()]

    def knows(self, pool: Pool) -> bool:
        return any(case.pool is pool for case in self.cases.values())

    def quarantined(self, pool: Pool) -> int:
        """How many payloads of this service are refused."""
        return sum(case.pool is pool and case.state is State.QUARANTINED for case in self.cases.values())

    def retry(self, case: Case, by: str, reason: str, now: float) -> bool:
        """False: it may run already."""
        if case.state is not State.QUARANTINED:
            return False
        self._release(case, "let go by an operator", by, reason, now)
        return True

    def drop(self, case: Case, by: str, reason: str, now: float) -> bool:
        """Forgets it: it starts afresh, with no death counted."""
        self._forget(case, now)
        self.tell("released", case.id, f"{case.name}: forgotten by an operator", by, reason)
        return True

    def was_forgotten(self, name: str) -> bool:
        """As `find` has it: its beginning will do, if that is of none that is known still."""

        def begin_so(fingerprints: Iterable[bytes]) -> bool:
            return any(fingerprint.hex().startswith(name) for fingerprint in fingerprints)

        return name != "" and begin_so(self._gone) and not begin_so(self.cases) and not begin_so(self._restored)


# ---- shown ---------------------------------------------------------------------------------------


def listed(case: Case, now: float) -> dict[str, Any]:
    """A row of `rota quarantine list`."""
    service, _, handler = case.name.rpartition(".")
    last = case.deaths[-1]
    return {
        "id": case.id,
        "service": service,
        "handler": handler,
        "state": str(case.state),
        "since_s": now - case.since,
        "left_s": max(0.0, case.until - now) if case.state is State.QUARANTINED else None,
        "deaths": case.died,
        "died_s": now - last.at,
        "cause": last.cause,
        "refused": case.refused,
        "size": case.size,
    }


def shown(case: Case, waiting: list[Request], now: float) -> dict[str, Any]:
    """The same with what helps to find the bug."""
    deaths = [{**death._asdict(), "died_s": now - death.at} for death in case.deaths]
    for death in deaths:
        del death["at"]
    return {**listed(case, now), "waiting": len(waiting), "last_deaths": deaths, "payload": case.payload}


def _freest(pool: Pool) -> Slot | None:
    """The slot that will have nothing in flight soonest, as far as one can tell: it answered lately, so it goes on."""
    usable = (slot for slot in pool.slots.values() if _usable(pool, slot))
    return min(usable, key=lambda slot: (len(slot.inflight), -slot.progress_at), default=None)


def _usable(pool: Pool, slot: Slot) -> bool:
    """False for a slot that does not even start what it is given, and for all while the service is paused."""
    return slot.open and pool.pause is None and (bool(slot.inflight) or not pool.starts_nothing(slot))


def _fingerprint(request: Request) -> bytes:
    target = request.target()
    digest = blake2b(target + b"\0", digest_size=16)
    digest.update(lasting(target, request.frame[request.head_len :]))
    return digest.digest()


def _deaths(case: Case) -> str:
    return f"{plural(case.died, 'process')} died of it, the last {case.deaths[-1].cause}"


def _sentence(case: Case) -> str:
    return f"in quarantine: {_deaths(case)}; `rota quarantine show {case.id}` has more"
