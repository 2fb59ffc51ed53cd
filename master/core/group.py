"""The active master's side where an engine decides who is active: any number of standbys, and one lease.

In the place of `Pair`, with the same face for the master. No promise and no vote counts here: `EngineLease` says until
when this master may dispatch (docs/STANDBY.md, "Engines beyond a pair").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ...common import messages, wire
from ...common.kinds import split_address
from ...common.lifecycle import Liveness
from ...common.limits import PULSE_S
from ...common.settings import PRIMARY, StandbySettings
from . import records
from .engine_lease import EngineLease
from .events import EventLog
from .follower import ANSWERS, Follower, packed
from .outbox import Outbox
from .records import Peer, Restored


class Group:
    """`journal(record, ours)` answers a record's number; `ours`: of no concern to standbys."""

    alone = False  # other masters may be active, whether or not one has ever dialled this one

    def __init__(
        self,
        name: str,
        settings: StandbySettings,
        out: Outbox,
        events: EventLog,
        known: Restored,
        journal: Callable[[bytes, bool], int],
        lease: EngineLease,
        last_record: int,
        now: float,
    ) -> None:
        """`known`: the sum of all records, kept up to date by the master."""
        self.lease = lease
        self.lease_ms = 0  # of agents: none is needed
        self._name = name
        self.settings = settings
        self._out = out
        self._events = events
        self._known = known
        self._journal = journal
        self._last_record = last_record
        self._before, known.peer = known.peer, None  # whom we followed until now
        self._now = now
        self._pulse = 0
        self._pulse_at = now
        self._patient_until = now + settings.takeover_grace
        self._followers = {
            name: Follower(peer, out, events) for name, peer in known.members.items() if name != self._name
        }

    @property
    def role(self) -> str:
        return self.settings.role

    @property
    def hands_over(self) -> bool:
        """When it is told to stop."""
        return self.settings.handover

    @property
    def peer(self) -> Peer | None:
        """Who would be asked first to take over."""
        best = self._best()
        return best.peer if best else None

    @property
    def routes(self) -> list[bytes]:
        """Of those that follow."""
        return [each.route for each in self._followers.values() if each.route]

    def others(self) -> dict[str, Liveness]:
        return {name: each.liveness for name, each in self._followers.items()}

    def until(self) -> float:
        """This master may dispatch until then."""
        return self.lease.until

    # ---- the standbys ----------------------------------------------------------------------------------------------

    def refuse(self, hello: messages.PeerHello) -> str:
        """Why this cannot be a standby of ours; empty when it can."""
        if hello.name == self._name:
            return f"two masters are called {hello.name}: give one of them another --name"
        if hello.takeover_ms != (ours := int(self.settings.takeover_after * 1000)):
            return f"takeover_after of [standby] is {ours} ms at {self._name}, {hello.takeover_ms} ms at {hello.name}"
        if split_address(hello.address) is None:
            return f"{hello.address!r} is no address: set address in [standby] of {hello.name}"
        return ""

    def greet(self, route: bytes, token: int, hello: messages.PeerHello, epoch: int, now: float) -> None:
        """Comes behind its WELCOME."""
        peer = Peer(hello.name, hello.address, hello.role)
        follower = self._followers.get(hello.name) or Follower(peer, self._out, self._events)
        follower.gone()  # what is recorded now comes with the snapshot
        follower.peer = peer
        self._followers[peer.name] = follower
        if self._known.members.get(peer.name) != peer:
            self._journal(records.member(peer.name, peer), False)
        follower.greet(route, token, self._known.records(), self._last_record, now)
        follower.say(messages.Pulse(self._pulse, epoch, self._last_record))

    def is_from(self, route: bytes, token: int) -> bool:
        found = self._at(route)
        return found is not None and found.token == token

    def from_standby(self, route: bytes, message: messages.Message, now: float) -> None:
        found = self._at(route)
        if found is not None and isinstance(message, messages.Promise):
            found.promised(message.sequence, self._last_record, now)

    def gone(self, route: bytes, said_bye: bool = False) -> None:
        found = self._at(route)
        if found is not None:
            found.gone()
            if said_bye:
                found.move("bye")

    def forget(self, name: str) -> int:
        """An operator says that this master is gone for good."""
        del self._followers[name]
        return self._journal(records.member(name, None), False)

    def recorded(self, number: int, epoch: int, now: float) -> None:
        """Everything up to this record is durable here."""

    def record(self, number: int, data: bytes, ours: bool) -> None:
        """One more."""
        self._last_record = number
        for follower in self._followers.values():
            if not ours:
                follower.say(messages.Replica(number, [data]))

    def durable(self, number: int) -> int:
        """The highest record up to `number` that may be relied upon: each that is not given up has it too, as it may be
        the one that takes over.
        """
        live = (each.acked for each in self._followers.values() if each.liveness is Liveness.LIVE)
        return min(number, *live, number)

    def unready(self) -> str:
        """Why nobody could take over now, in good order; empty when somebody could."""
        best = self._best()
        if best is None:
            return "this master has no standby: start one with `rota master --backup-of` this one"
        return best.behind(self._last_record)

    def close(self, epoch: int, handover: bool) -> None:
        """CLOSE: we dispatch nothing any more. One of those that follow goes first, the others if that one does not."""
        best = self._best()
        first = best.peer.name if handover and best else ""
        for follower in self._followers.values():
            follower.say(messages.Closing(epoch, handover, first))
        self.lease.let_go(self._now)

    # ---- the agents ------------------------------------------------------------------------------------------------

    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        """No lease of theirs is needed."""

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        self._now = now
        if self._before is not None:
            self._remember(self._before)
            self._before = None
        self.lease.tick(now)
        if now >= self._pulse_at:
            self._pulse += 1
            self._pulse_at = now + PULSE_S
            for follower in self._followers.values():
                follower.say(messages.Pulse(self._pulse, epoch, self._last_record))
        for follower in self._followers.values():
            follower.tell_events()
            follower.watch(self.settings.takeover_after, now)

    def next_deadline(self) -> float:
        return min(self.lease.next_deadline(), self._pulse_at)

    def copies(self, answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[tuple[bytes, bytes]]:
        """Route and frame: answers (session, what that has acknowledged, frame) that each standby is to keep."""
        parts = packed(answers)
        following = [each for each in self._followers.values() if each.route]
        return [(each.route, wire.head(ANSWERS, each.token) + part) for each in following for part in parts]

    # ---- for people ------------------------------------------------------------------------------------------------

    def alarms(self, now: float) -> list[str]:
        found = []
        lease = self.lease
        if lease.until <= now:
            why = f"{lease.engine}: {lease.error}" if lease.error else f"{lease.engine} has not answered yet"
            if lease.row is not None and not lease.error and not lease.is_ours:
                why = f"{lease.holder or 'nobody'} has it"
            found.append(f"no quorum: the lease cannot be renewed: {why}; requests are held until that changes")
        elif lease.error:
            left = lease.until - now
            found.append(f"the lease cannot be renewed: {lease.engine}: {lease.error}; {left:.1f} s are left")
        if now >= self._patient_until:
            found += [each.missed() for each in self._silent()]
        return found

    def _silent(self) -> list[Follower]:
        return [each for each in self._followers.values() if each.liveness is not Liveness.LIVE]

    def status(self, now: float) -> dict[str, Any]:
        best = self._best()
        each = [follower.status(self._last_record, now) for follower in self._followers.values()]
        return {
            "peer": best.status(self._last_record, now) if best else None,
            "peers": each,
            "lease": self.lease.status(now),
            "quorum": {"electorate": [], "leases": 0, "needed": 0, "may_dispatch": self.until() > now},
        }

    # ---- within ----------------------------------------------------------------------------------------------------

    def _at(self, route: bytes) -> Follower | None:
        return next((each for each in self._followers.values() if route and each.route == route), None)

    def _best(self) -> Follower | None:
        """The primary goes first among those that have everything."""
        return max(
            self._followers.values(),
            key=lambda each: (each.followed, each.acked, each.peer.role == PRIMARY),
            default=None,
        )

    def _remember(self, peer: Peer) -> None:
        """The master that was active before is one of us."""
        if peer.name and peer.name not in self._known.members and peer.name != self._name:
            self._journal(records.member(peer.name, peer), False)
            self._followers.setdefault(peer.name, Follower(peer, self._out, self._events))
