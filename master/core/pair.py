"""The active master's side of a pair: one standby at most, what that promises, and who of the agents votes.

docs/STANDBY.md. `Leases` counts; here is what is said and when, and what becomes a record or an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

from ...common import messages
from ...common.settings import AGENTS, ANY
from . import records
from .follower import Follower
from .followers import Active, Followers
from .leases import Leases, blocking, majority
from .records import Peer


class _Coming(NamedTuple):
    """A new standby, or one with a new address, until this record is durable."""

    record: int
    route: bytes
    token: int
    peer: Peer


class Pair(Followers):
    decider = AGENTS

    def __init__(
        self,
        active: Active,
        granted: Mapping[str, float],
        voters: Callable[[frozenset[str]], frozenset[str]],
        complete: bool,
        now: float,
    ) -> None:
        """`granted`: votes that are leases. `voters`: who is to vote, given who does."""
        known = active.known
        super().__init__(active, [known.peer] if known.peer else [], now)
        before = known.electorate if known.electorate_before is None else known.electorate_before
        self.leases = Leases(self.settings.takeover_after, before, granted, complete)
        if known.peer and known.electorate_before is not None:  # to one that was forgotten since nothing is proposed
            self.leases.propose(known.electorate, active.last_record)  # which the standby has with its snapshot
        self._voters = voters
        self._voters_there = -1  # nodes that the standby could ask for their votes, as it says
        self._coming: _Coming | None = None

    @property
    def standby(self) -> Follower | None:
        return next(iter(self._followers.values()), None)

    @property
    def followed(self) -> bool:
        """The standby is connected and heard: what is recorded is recorded there too."""
        return self.standby is not None and self.standby.followed

    @property
    def alone(self) -> bool:
        return not self._followers

    @property
    def lease_ms(self) -> int:
        return self.settings.takeover_ms

    def until(self) -> float:
        return inf if self.alone or self.settings.quorum == ANY else self.leases.until()

    # ---- the standby -----------------------------------------------------------------------------------------------

    def _unfit(self, hello: messages.PeerHello) -> str:
        if hello.role == self.role:
            return f"both masters are {hello.role}: one of them wants --backup-of the other one, and only one"
        ours, theirs = (self.settings.takeover_ms, self.settings.quorum), (hello.takeover_ms, hello.quorum)
        if theirs != ours:
            return f"takeover_after and quorum of [standby] are {ours} (ms) at {self._name}, {theirs} at {hello.name}"
        if self.peer is not None and self.peer.name != hello.name:
            return (
                f"{self.peer.name} is the other master of {self._name}: if it is gone for good, "
                f"`rota forget {self.peer.name}` first; more than one standby needs an engine as [standby] lease"
            )
        return ""

    def greet(self, route: bytes, token: int, hello: messages.PeerHello, epoch: int, now: float) -> None:
        peer = Peer(hello.name, hello.address, hello.role)
        if self.standby is not None:
            self.standby.gone()  # what is recorded now comes with the snapshot
            if peer == self.peer and self._coming is None:  # else the record of another address is on its way
                return self._begin(self.standby, route, token, epoch, now)
        else:  # alone we told nobody who votes: started again we have to know it
            self._journal(records.electorate(self.leases.electorate), False)
        self._coming = _Coming(self._journal(records.peer(peer), True), route, token, peer)

    def recorded(self, number: int, epoch: int, now: float) -> None:
        """A new standby gets nothing before it is on record: without that we would be active, alone, when started
        again, while that one is about to take over.
        """
        if self._coming is None or number < self._coming.record:
            return
        _, route, token, peer = self._coming
        if self.alone:  # before it may stand, its first promise has to run out, which is to come
            self.leases.promised_until = now + self.settings.takeover_after
        standby = self._followers.setdefault(peer.name, self._follower(peer))
        standby.peer = self._known.peer = peer
        self._begin(standby, route, token, epoch, now)

    def _begin(self, standby: Follower, route: bytes, token: int, epoch: int, now: float) -> None:
        self._coming = None
        leases, known = self.leases, self._known
        if leases.proposed is None:
            known.electorate, known.electorate_before = leases.electorate, None
        else:
            known.electorate, known.electorate_before = leases.proposed, leases.electorate
        everything = [data for data in known.records() if data != records.peer(standby.peer)]
        standby.greet(route, token, everything, self._last_record, now)
        self._say_pulse(epoch, now)

    def _promised(self, standby: Follower, promise: messages.Promise, now: float) -> None:
        super()._promised(standby, promise, now)
        self.leases.promised(promise.number, min(promise.lasts_ms, self.lease_ms) / 1000)
        self._voters_there = promise.voters
        self.leases.sure = self.leases.sure or standby.acked == self._last_record
        if self.leases.agreed(standby.acked):
            agreed = self.leases.electorate
            self._journal(records.electorate(agreed), False)
            self._events.tell("electorate", self._name, f"votes count of {', '.join(sorted(agreed)) or 'nobody'}")

    def forget(self, name: str) -> int:
        """The standby is gone for good: this master is alone."""
        self._followers.clear()
        self._known.peer = None
        self.leases.settle(self.leases.electorate)  # what was proposed to it nobody will agree to
        return self._journal(records.peer(None), True)

    def unready(self) -> str:
        """Handing over to one that cannot be elected would leave nobody: who stepped down needs the same votes."""
        return super().unready() or (self._unelectable(self.standby) if self.standby else "")

    # ---- the agents ------------------------------------------------------------------------------------------------

    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        if beat.heard:
            self.leases.heard(node, beat.heard)
        self.leases.echoed(node, beat.beat, now)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        self._elect()
        super().tick(epoch, now)

    def _elect(self) -> None:
        """Alone we decide; with a standby it has to agree, and while that is not heard nothing changes."""
        wanted = self._voters(self.leases.electorate)
        if wanted == self.leases.electorate or self.leases.proposed is not None or self._coming is not None:
            return
        if self.alone:
            self.leases.settle(wanted)
        elif self.followed:
            record = records.electorate(wanted, before=self.leases.electorate)
            self.leases.propose(wanted, self._journal(record, False))

    def _say_pulse(self, epoch: int, now: float) -> None:
        super()._say_pulse(epoch, now)
        self.leases.pulsed(self._pulse, now)

    # ---- for people ------------------------------------------------------------------------------------------------

    def why_held(self, now: float) -> str:
        if self.standby is None or self.until() > now:
            return ""
        held, needed = self.leases.held(now), blocking(len(self.leases.electorate))
        return f"{self.standby.peer.name} promises nothing, and {held} of {needed} nodes needed have granted a lease"

    def alarms(self, now: float) -> list[str]:
        standby = self.standby
        if standby is None:
            return []
        found = [*self._held(now), *self._missed(now)]
        if why := self._unelectable(standby):
            found.append(why)
        return found

    def _unelectable(self, standby: Follower) -> str:
        """Why it would stand in vain; empty when it would not, or does not say."""
        voters, wanted = len(self.leases.electorate), majority(len(self.leases.electorate))
        if self.settings.quorum == ANY or not standby.followed or not voters or not 0 <= self._voters_there < wanted:
            return ""
        return (
            f"no takeover is possible: of {voters} nodes that vote {self._voters_there} are connected to "
            f"{standby.peer.name}, and {wanted} are needed; nodes want both masters' addresses (-m), and `rota forget` "
            "those that are gone for good"
        )

    def status(self, now: float) -> dict[str, Any]:
        quorum = {
            "electorate": sorted(self.leases.electorate),
            "leases": self.leases.held(now),
            "needed": blocking(len(self.leases.electorate)),
            "may_dispatch": self.until() > now,
        }
        if self.standby is None:
            return {"peer": None, "quorum": quorum}
        left = self.leases.promised_until - now
        promise_ms = max(0, round(left * 1000)) if self.leases.promised_until > 0 else 0
        return {"peer": {**self.standby.status(self._last_record, now), "promise_ms": promise_ms}, "quorum": quorum}
