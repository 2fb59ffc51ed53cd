"""The active master's side where an engine decides who is active: any number of standbys, and one lease.

No promise and no vote counts here: `EngineLease` says until when this master may dispatch (docs/STANDBY.md, "Engines
beyond a pair").
"""

from __future__ import annotations

from typing import Any

from ...common import messages
from . import records
from .engine_lease import EngineLease
from .followers import Active, Followers
from .records import Peer


class Group(Followers):
    alone = False  # other masters may be active, whether or not one has ever dialled this one
    lease_ms = 0  # none of agents is needed

    def __init__(self, active: Active, lease: EngineLease, now: float) -> None:
        known = active.known
        super().__init__(active, [peer for name, peer in known.members.items() if name != active.name], now)
        self.lease = lease
        self._before, known.peer = known.peer, None  # whom we followed until now

    @property
    def decider(self) -> str:
        return self.lease.engine

    def until(self) -> float:
        return self.lease.until

    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        """No lease of theirs is needed."""

    # ---- the standbys ----------------------------------------------------------------------------------------------

    def _unfit(self, hello: messages.PeerHello) -> str:
        if hello.takeover_ms != (ours := self.settings.takeover_ms):
            return f"takeover_after of [standby] is {ours} ms at {self._name}, {hello.takeover_ms} ms at {hello.name}"
        return ""

    def greet(self, route: bytes, token: int, hello: messages.PeerHello, epoch: int, now: float) -> None:
        peer = Peer(hello.name, hello.address, hello.role)
        follower = self._followers.setdefault(peer.name, self._follower(peer))
        follower.gone()  # what is recorded now comes with the snapshot
        follower.peer = peer
        if self._known.members.get(peer.name) != peer:
            self._journal(records.member(peer.name, peer), False)
        follower.greet(route, token, self._known.records(), self._last_record, now)
        self._say_pulse(epoch, now)

    def recorded(self, number: int, epoch: int, now: float) -> None:
        """No standby waits for that."""

    def forget(self, name: str) -> int:
        del self._followers[name]
        return self._journal(records.member(name, None), False)

    def close(self, epoch: int, handover: bool, now: float) -> None:
        super().close(epoch, handover, now)
        self.lease.let_go(now)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        if self._before is not None:
            self._remember(self._before)
            self._before = None
        self.lease.tick(now)
        super().tick(epoch, now)

    def _remember(self, peer: Peer) -> None:
        """The master that was active before is one of us."""
        if peer.name and peer.name not in self._known.members and peer.name != self._name:
            self._journal(records.member(peer.name, peer), False)
            self._followers.setdefault(peer.name, self._follower(peer))

    def next_deadline(self) -> float:
        return min(self.lease.next_deadline(), super().next_deadline())

    # ---- for people ------------------------------------------------------------------------------------------------

    def why_held(self, now: float) -> str:
        lease = self.lease
        if lease.until > now:
            return ""
        why = f"{lease.engine}: {lease.error}" if lease.error else f"{lease.engine} has not answered yet"
        if lease.row is not None and not lease.error and not lease.is_ours:
            why = f"{lease.holder or 'nobody'} has it"
        return f"the lease cannot be renewed: {why}"

    def alarms(self, now: float) -> list[str]:
        lease, found = self.lease, [*self._held(now), *self._missed(now)]
        found += [why for each in self._followers.values() if (why := each.hindered())]
        if lease.error and (left := lease.until - now) > 0:
            found.insert(0, f"the lease cannot be renewed: {lease.engine}: {lease.error}; {left:.1f} s are left")
        return found

    def status(self, now: float) -> dict[str, Any]:
        best = self._best()
        return {
            "peer": best.status(self._last_record, now) if best else None,
            "peers": [each.status(self._last_record, now) for each in self._followers.values()],
            "lease": self.lease.status(now),
            "quorum": {"electorate": [], "leases": 0, "needed": 0, "may_dispatch": self.until() > now},
        }
