"""The active master's side of a pair: what its standby is told, whether that follows, and whether we may dispatch.

docs/STANDBY.md. `Leases` counts; here is what is said and when, and what becomes a record or an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from struct import Struct
from typing import Any

from ...common import lifecycle, messages, wire
from ...common.kinds import split_address
from ...common.lifecycle import IllegalTransition, Liveness
from ...common.limits import PULSE_S
from ...common.settings import ANY, StandbySettings
from . import records
from .events import EventLog
from .leases import Leases, blocking, majority
from .outbox import Notify, Outbox
from .records import Peer, Restored

REPLICA_BYTES = 256 * 1024  # of records or answers in one message; a control message may have four times that
DEAD_AFTER = 3  # times takeover_after: so long nothing counts that the standby has not recorded too
EVENTS = 0  # id of the Happened in which a standby gets the events
PRIMARY, BACKUP = "primary", "backup"

ANSWERS = 65  # kind: what follows the head is, again and again, a head as below and an ANSWER frame
COPY = Struct("<16sQI")  # session, acknowledged answer sequence, length of the frame


class Pair:
    """One standby at most. `journal(record, ours)` answers a record's number; `ours`: of no concern to the standby."""

    def __init__(
        self,
        name: str,
        settings: StandbySettings,
        out: Outbox,
        events: EventLog,
        known: Restored,
        granted: Mapping[str, float],
        journal: Callable[[bytes, bool], int],
        voters: Callable[[frozenset[str]], frozenset[str]],
        last_record: int,
        complete: bool,
        now: float,
    ) -> None:
        """`known`: the sum of all records, kept up to date by the master. `voters`: who is to vote, given who does."""
        self.peer = known.peer
        self.liveness = Liveness.UNKNOWN
        before = known.electorate if known.electorate_before is None else known.electorate_before
        self.leases = Leases(settings.takeover_after, before, granted)
        if known.electorate_before is not None:
            self.leases.propose(known.electorate, last_record)  # which the standby has with its snapshot
        self.acked = 0  # records that the standby has
        self.route = b""
        self.token = 0
        self._name = name
        self._settings = settings
        self._out = out
        self._events = events
        self._known = known
        self._journal = journal
        self._voters = voters
        self._heard_at = -inf
        self._voters_there = -1  # nodes that the standby could ask for their votes, as it says
        self._pulse = 0
        self._pulse_at = 0.0
        self._last_record = last_record
        self.leases.sure = complete
        self._coming: tuple[int, bytes, int, Peer] | None = None  # record, route, token: not on record yet
        self._last_event = 0
        self._patient_until = now + settings.takeover_grace  # after a takeover the other master needs a moment

    @property
    def role(self) -> str:
        return BACKUP if self._settings.backup_of else PRIMARY

    @property
    def hands_over(self) -> bool:
        """When it is told to stop."""
        return self._settings.handover

    @property
    def followed(self) -> bool:
        """The standby is connected and heard: what is recorded is recorded there too."""
        return bool(self.route) and self.liveness is Liveness.LIVE

    @property
    def alone(self) -> bool:
        """Nobody else can be active."""
        return self.peer is None

    @property
    def routes(self) -> list[bytes]:
        """Of the standby, if it follows."""
        return [self.route] if self.route else []

    def others(self) -> dict[str, Liveness]:
        return {self.peer.name: self.liveness} if self.peer else {}

    def until(self) -> float:
        """This master may dispatch until then."""
        return inf if self.peer is None or self._settings.quorum == ANY else self.leases.until()

    # ---- the standby -----------------------------------------------------------------------------------------------

    def refuse(self, hello: messages.PeerHello) -> str:
        """Why this cannot be our standby; empty when it can."""
        if hello.name == self._name:
            return f"both masters are called {hello.name}: give one of them another --name"
        if hello.role == self.role:
            return f"both masters are {hello.role}: one of them wants --backup-of the other one, and only one"
        ours, theirs = (self.lease_ms, self._settings.quorum), (hello.takeover_ms, hello.quorum)
        if theirs != ours:
            return f"takeover_after and quorum of [standby] are {ours} (ms) at {self._name}, {theirs} at {hello.name}"
        if split_address(hello.address) is None:
            return f"{hello.address!r} is no address: set address in [standby] of {hello.name}"
        if self.peer is not None and self.peer.name != hello.name:
            return (
                f"{self.peer.name} is the other master of {self._name}: if it is gone for good, "
                f"`rota forget {self.peer.name}` first; more than one standby needs an engine as [standby] lease"
            )
        return ""

    def greet(self, route: bytes, token: int, hello: messages.PeerHello, epoch: int, now: float) -> None:
        """It gets everything, from the beginning. Comes behind its WELCOME."""
        self.route = b""  # what is recorded now comes with the snapshot
        peer = Peer(hello.name, hello.address, hello.role)
        if peer == self.peer:
            return self._begin(route, token, epoch, now)
        if self.peer is None:  # alone we told nobody who votes: started again we have to know it
            self._journal(records.electorate(self.leases.electorate), False)
        self._coming = self._journal(records.peer(peer), True), route, token, peer

    def recorded(self, number: int, epoch: int, now: float) -> None:
        """Everything up to this record is durable here. A new standby gets nothing before it is on record: without that
        we would be active, alone, when started again, while that one is about to take over.
        """
        if self._coming is None or number < self._coming[0]:
            return
        _, route, token, peer = self._coming
        if self.peer is None:  # it has nothing of ours: before it may stand its first promise, to come, has to run out
            self.leases.promised_until = now + self._settings.takeover_after
        self.peer = self._known.peer = peer
        self._begin(route, token, epoch, now)

    def _begin(self, route: bytes, token: int, epoch: int, now: float) -> None:
        self._coming = None
        self.route, self.token = route, token
        self.acked = 0
        self._last_event = 0
        self._heard_at = now
        self._snapshot()
        self._say_pulse(epoch, now)

    def is_from(self, route: bytes, token: int) -> bool:
        return route == self.route and token == self.token

    def from_standby(self, route: bytes, message: messages.Message, now: float) -> None:
        if isinstance(message, messages.Promise):
            self._heard_at = now
            self.leases.promised(message.number, min(message.lasts_ms, self.lease_ms) / 1000)
            self._voters_there = message.voters
            self.acked = min(max(self.acked, message.sequence), self._last_record)
            self.leases.sure = self.leases.sure or self.acked == self._last_record
            if self.leases.agreed(self.acked):
                agreed = self.leases.electorate
                self._journal(records.electorate(agreed), False)
                self._events.tell("electorate", self._name, f"votes count of {', '.join(sorted(agreed)) or 'nobody'}")
            self._move("hello")

    def gone(self, route: bytes, said_bye: bool = False) -> None:
        """Its connection is; its promise runs on."""
        if route == self.route and route:
            self.route, self.token = b"", 0
            if said_bye:
                self._move("bye")

    def forget(self, name: str) -> int:
        """An operator says that the other master is gone for good: this one is alone."""
        self.peer = self._known.peer = None
        self.route, self.token = b"", 0
        self.liveness = Liveness.UNKNOWN
        return self._journal(records.peer(None), True)

    def record(self, number: int, data: bytes, ours: bool) -> None:
        """One more."""
        self._last_record = number
        if self.route and not ours:
            self._say(messages.Replica(number, [data]))

    def durable(self, number: int) -> int:
        """The highest record up to `number` that may be relied upon. As long as the standby is not given up, also
        behind a lost connection, it must have it too: it may be about to take over, and to rely on what it has.
        """
        return min(number, self.acked) if self.liveness is Liveness.LIVE else number

    def unready(self) -> str:
        """Why it could not take over now, in good order; empty when it could."""
        if self.peer is None:
            return "this master has no standby: start one with `rota master --backup-of` this one"
        if not self.followed:
            return f"{self.peer.name} does not follow ({self.liveness}): see `rota status`"
        behind = self._last_record - self.acked
        return f"{self.peer.name} is {behind} records behind: try again" if behind else ""

    def close(self, epoch: int, handover: bool) -> None:
        """CLOSE: we dispatch nothing any more."""
        if self.route:
            self._say(messages.Closing(epoch, handover))

    # ---- the agents ------------------------------------------------------------------------------------------------

    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        """The caller answers it now, with the same number."""
        if beat.heard:
            self.leases.heard(node, beat.heard)
        self.leases.echoed(node, beat.beat, now)

    @property
    def lease_ms(self) -> int:
        return int(self._settings.takeover_after * 1000)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        self._elect()
        if self.route:
            if now >= self._pulse_at:
                self._say_pulse(epoch, now)
            self._tell_events()
        silent = now - self._heard_at
        if self.liveness is Liveness.LIVE and silent > DEAD_AFTER * self._settings.takeover_after:
            self._move("silent")

    def next_deadline(self) -> float:
        return self._pulse_at if self.route else inf

    def copies(self, answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[tuple[bytes, bytes]]:
        """Route and frame: answers (session, what that has acknowledged, frame) that the standby is to keep."""
        head = wire.head(ANSWERS, self.token)
        return [(self.route, head + part) for part in packed(answers)]

    # ---- for people ------------------------------------------------------------------------------------------------

    def alarms(self, now: float) -> list[str]:
        if self.peer is None:
            return []
        found = []
        if self.until() <= now:
            held, needed = self.leases.held(now), blocking(len(self.leases.electorate))
            found.append(
                f"no quorum: {self.peer.name} promises nothing, and {held} of {needed} nodes needed have granted a "
                "lease; requests are held until that changes"
            )
        if self.liveness is not Liveness.LIVE and now >= self._patient_until:
            said = "has said goodbye" if self.liveness is Liveness.CLOSED else "is not heard"
            found.append(
                f"no standby: {self.peer.name} ({self.peer.address}) {said}: no master would take over; "
                f"if it is gone for good, `rota forget {self.peer.name}`"
            )
        wanted = majority(len(self.leases.electorate))
        if self.followed and 0 <= self._voters_there < wanted and self.leases.electorate:
            found.append(
                f"no takeover is possible: of {len(self.leases.electorate)} nodes that vote {self._voters_there} are "
                f"connected to {self.peer.name}, and {wanted} are needed; nodes want both masters' addresses (-m), "
                "and `rota forget` those that are gone for good"
            )
        return found

    def status(self, now: float) -> dict[str, Any]:
        needed = blocking(len(self.leases.electorate))
        quorum = {
            "electorate": sorted(self.leases.electorate),
            "leases": self.leases.held(now),
            "needed": needed,
            "may_dispatch": self.until() > now,
        }
        if self.peer is None:
            return {"peer": None, "quorum": quorum}
        peer = {
            **self.peer._asdict(),
            "liveness": str(self.liveness),
            "lag": self._last_record - self.acked if self.route else None,
            "heard_ms": None if self._heard_at == -inf else round((now - self._heard_at) * 1000),
            "promise_ms": max(0, round((self.leases.promised_until - now) * 1000))
            if self.leases.promised_until > 0
            else 0,
        }
        return {"peer": peer, "quorum": quorum}

    # ---- within ----------------------------------------------------------------------------------------------------

    def _elect(self) -> None:
        """Alone we decide; with a standby it has to agree, and while that is not heard nothing changes."""
        wanted = self._voters(self.leases.electorate)
        if wanted == self.leases.electorate or self.leases.proposed is not None or self._coming is not None:
            return
        if self.peer is None:
            self.leases.settle(wanted)
        elif self.followed:
            record = records.electorate(wanted, before=self.leases.electorate)
            self.leases.propose(wanted, self._journal(record, False))

    def _snapshot(self) -> None:
        leases, known = self.leases, self._known
        if leases.proposed is None:
            known.electorate, known.electorate_before = leases.electorate, None
        else:
            known.electorate, known.electorate_before = leases.proposed, leases.electorate
        rest = [data for data in known.records() if data != records.peer(self.peer)]
        first = True
        while first or rest:
            size = count = 0
            while count < len(rest) and size < REPLICA_BYTES:
                size += len(rest[count])
                count += 1
            part, rest = rest[:count], rest[count:]
            self._say(messages.Replica(self._last_record, part, first, bool(rest)))
            first = False

    def _say_pulse(self, epoch: int, now: float) -> None:
        self._pulse += 1
        self._pulse_at = now + PULSE_S
        self.leases.pulsed(self._pulse, now)
        self._say(messages.Pulse(self._pulse, epoch, self._last_record))

    def _tell_events(self) -> None:
        if self._last_event < self._events.last:
            found = self._events.since(self._last_event)
            self._last_event = self._events.last
            self._say(messages.Happened(EVENTS, found))

    def _say(self, message: messages.Message) -> None:
        self._out.say(self.route, self.token, message)

    def _move(self, event: str) -> None:
        assert self.peer is not None
        before = self.liveness
        try:
            self.liveness = lifecycle.step(lifecycle.LIVENESS, before, event)
        except IllegalTransition:
            return
        edge = lifecycle.edge(before, self.liveness)
        if edge:
            text = f"standby {self.peer.name}: {before} → {self.liveness}"
            self._events.tell(edge, self.peer.name, text)
            self._out.role.append(Notify(edge.lower(), self.peer.name, text))


def packed(answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[bytes]:
    """Session, what that has acknowledged, and frame of each, in as few messages as may be."""
    made: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for session, acked, frame in answers:
        if len(frame) > REPLICA_BYTES:
            continue  # a caller whose master dies over so large an answer learns MaybeExecuted
        if size + len(frame) > REPLICA_BYTES:
            made.append(b"".join(parts))
            parts, size = [], 0
        parts += (COPY.pack(session, acked, len(frame)), bytes(frame))
        size += len(frame)
    if parts:
        made.append(b"".join(parts))
    return made
