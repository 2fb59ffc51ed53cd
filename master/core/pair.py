"""The active master's side of a pair: what its standby is told, whether that follows, and whether we may dispatch.

docs/STANDBY.md. `Leases` counts; here is what is said and when, and what becomes a record or an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from ...common import messages, wire
from ...common.kinds import split_address
from ...common.lifecycle import Liveness
from ...common.limits import PULSE_S
from ...common.settings import ANY, StandbySettings
from . import records
from .events import EventLog
from .follower import ANSWERS, Follower, packed
from .leases import Leases, blocking, majority
from .outbox import Outbox
from .records import Peer, Restored


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
        self.standby = Follower(known.peer, out, events) if known.peer else None
        before = known.electorate if known.electorate_before is None else known.electorate_before
        self.leases = Leases(settings.takeover_after, before, granted)
        if known.electorate_before is not None:
            self.leases.propose(known.electorate, last_record)  # which the standby has with its snapshot
        self._name = name
        self.settings = settings
        self._out = out
        self._events = events
        self._known = known
        self._journal = journal
        self._voters = voters
        self._voters_there = -1  # nodes that the standby could ask for their votes, as it says
        self._pulse = 0
        self._pulse_at = 0.0
        self._last_record = last_record
        self.leases.sure = complete
        self._coming: tuple[int, bytes, int, Peer] | None = None  # record, route, token: not on record yet
        self._patient_until = now + settings.takeover_grace  # after a takeover the other master needs a moment

    @property
    def role(self) -> str:
        return self.settings.role

    @property
    def hands_over(self) -> bool:
        """When it is told to stop."""
        return self.settings.handover

    @property
    def followed(self) -> bool:
        """The standby is connected and heard: what is recorded is recorded there too."""
        return self.standby is not None and self.standby.followed

    @property
    def alone(self) -> bool:
        """Nobody else can be active."""
        return self.standby is None

    @property
    def peer(self) -> Peer | None:
        return self.standby.peer if self.standby else None

    @property
    def routes(self) -> list[bytes]:
        """Of the standby, if it follows."""
        return [self.standby.route] if self.standby and self.standby.route else []

    def others(self) -> dict[str, Liveness]:
        return {self.standby.peer.name: self.standby.liveness} if self.standby else {}

    def until(self) -> float:
        """This master may dispatch until then."""
        return inf if self.standby is None or self.settings.quorum == ANY else self.leases.until()

    # ---- the standby -----------------------------------------------------------------------------------------------

    def refuse(self, hello: messages.PeerHello) -> str:
        """Why this cannot be our standby; empty when it can."""
        if hello.name == self._name:
            return f"both masters are called {hello.name}: give one of them another --name"
        if hello.role == self.role:
            return f"both masters are {hello.role}: one of them wants --backup-of the other one, and only one"
        ours, theirs = (self.lease_ms, self.settings.quorum), (hello.takeover_ms, hello.quorum)
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
        if self.standby is not None:
            self.standby.gone()  # what is recorded now comes with the snapshot
        peer = Peer(hello.name, hello.address, hello.role)
        if peer == self.peer:
            return self._begin(route, token, epoch, now)
        if self.standby is None:  # alone we told nobody who votes: started again we have to know it
            self._journal(records.electorate(self.leases.electorate), False)
        self._coming = self._journal(records.peer(peer), True), route, token, peer

    def recorded(self, number: int, epoch: int, now: float) -> None:
        """Everything up to this record is durable here. A new standby gets nothing before it is on record: without that
        we would be active, alone, when started again, while that one is about to take over.
        """
        if self._coming is None or number < self._coming[0]:
            return
        _, route, token, peer = self._coming
        if self.standby is None:  # before it may stand, its first promise has to run out, which is to come
            self.leases.promised_until = now + self.settings.takeover_after
            self.standby = Follower(peer, self._out, self._events)
        self.standby.peer = self._known.peer = peer
        self._begin(route, token, epoch, now)

    def _begin(self, route: bytes, token: int, epoch: int, now: float) -> None:
        self._coming = None
        leases, known = self.leases, self._known
        if leases.proposed is None:
            known.electorate, known.electorate_before = leases.electorate, None
        else:
            known.electorate, known.electorate_before = leases.proposed, leases.electorate
        assert self.standby is not None
        everything = [data for data in known.records() if data != records.peer(self.peer)]
        self.standby.greet(route, token, everything, self._last_record, now)
        self._say_pulse(epoch, now)

    def is_from(self, route: bytes, token: int) -> bool:
        return self.standby is not None and (self.standby.route, self.standby.token) == (route, token)

    def from_standby(self, route: bytes, message: messages.Message, now: float) -> None:
        standby = self.standby
        if standby is None or not isinstance(message, messages.Promise):
            return
        self.leases.promised(message.number, min(message.lasts_ms, self.lease_ms) / 1000)
        self._voters_there = message.voters
        standby.promised(message.sequence, self._last_record, now)
        self.leases.sure = self.leases.sure or standby.acked == self._last_record
        if self.leases.agreed(standby.acked):
            agreed = self.leases.electorate
            self._journal(records.electorate(agreed), False)
            self._events.tell("electorate", self._name, f"votes count of {', '.join(sorted(agreed)) or 'nobody'}")

    def gone(self, route: bytes, said_bye: bool = False) -> None:
        """Its connection is; its promise runs on."""
        if self.standby is not None and route and route == self.standby.route:
            self.standby.gone()
            if said_bye:
                self.standby.move("bye")

    def forget(self, name: str) -> int:
        """An operator says that the other master is gone for good: this one is alone."""
        self.standby = self._known.peer = None
        return self._journal(records.peer(None), True)

    def record(self, number: int, data: bytes, ours: bool) -> None:
        """One more."""
        self._last_record = number
        if self.standby is not None and not ours:
            self.standby.say(messages.Replica(number, [data]))

    def durable(self, number: int) -> int:
        """The highest record up to `number` that may be relied upon. As long as the standby is not given up, also
        behind a lost connection, it must have it too: it may be about to take over, and to rely on what it has.
        """
        standby = self.standby
        return min(number, standby.acked) if standby and standby.liveness is Liveness.LIVE else number

    def unready(self) -> str:
        """Why it could not take over now, in good order; empty when it could."""
        if self.standby is None:
            return "this master has no standby: start one with `rota master --backup-of` this one"
        return self.standby.behind(self._last_record)

    def close(self, epoch: int, handover: bool) -> None:
        """CLOSE: we dispatch nothing any more."""
        if self.standby is not None:
            self.standby.say(messages.Closing(epoch, handover))

    # ---- the agents ------------------------------------------------------------------------------------------------

    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        """The caller answers it now, with the same number."""
        if beat.heard:
            self.leases.heard(node, beat.heard)
        self.leases.echoed(node, beat.beat, now)

    @property
    def lease_ms(self) -> int:
        return int(self.settings.takeover_after * 1000)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        self._elect()
        if self.standby is None:
            return
        if self.standby.route and now >= self._pulse_at:
            self._say_pulse(epoch, now)
        self.standby.tell_events()
        self.standby.watch(self.settings.takeover_after, now)

    def next_deadline(self) -> float:
        return self._pulse_at if self.routes else inf

    def copies(self, answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[tuple[bytes, bytes]]:
        """Route and frame: answers (session, what that has acknowledged, frame) that the standby is to keep."""
        if self.standby is None:
            return []
        head = wire.head(ANSWERS, self.standby.token)
        return [(self.standby.route, head + part) for part in packed(answers)]

    # ---- for people ------------------------------------------------------------------------------------------------

    def alarms(self, now: float) -> list[str]:
        standby = self.standby
        if standby is None:
            return []
        found = []
        if self.until() <= now:
            held, needed = self.leases.held(now), blocking(len(self.leases.electorate))
            found.append(
                f"no quorum: {standby.peer.name} promises nothing, and {held} of {needed} nodes needed have granted a "
                "lease; requests are held until that changes"
            )
        if standby.liveness is not Liveness.LIVE and now >= self._patient_until:
            found.append(standby.missed())
        wanted = majority(len(self.leases.electorate))
        if standby.followed and 0 <= self._voters_there < wanted and self.leases.electorate:
            found.append(
                f"no takeover is possible: of {len(self.leases.electorate)} nodes that vote {self._voters_there} are "
                f"connected to {standby.peer.name}, and {wanted} are needed; nodes want both masters' addresses (-m), "
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
        if self.standby is None:
            return {"peer": None, "quorum": quorum}
        left = self.leases.promised_until - now
        promise_ms = max(0, round(left * 1000)) if self.leases.promised_until > 0 else 0
        return {"peer": {**self.standby.status(self._last_record, now), "promise_ms": promise_ms}, "quorum": quorum}

    # ---- within ----------------------------------------------------------------------------------------------------

    def _elect(self) -> None:
        """Alone we decide; with a standby it has to agree, and while that is not heard nothing changes."""
        wanted = self._voters(self.leases.electorate)
        if wanted == self.leases.electorate or self.leases.proposed is not None or self._coming is not None:
            return
        if self.standby is None:
            self.leases.settle(wanted)
        elif self.followed:
            record = records.electorate(wanted, before=self.leases.electorate)
            self.leases.propose(wanted, self._journal(record, False))

    def _say_pulse(self, epoch: int, now: float) -> None:
        self._pulse += 1
        self._pulse_at = now + PULSE_S
        self.leases.pulsed(self._pulse, now)
        assert self.standby is not None
        self.standby.say(messages.Pulse(self._pulse, epoch, self._last_record))
