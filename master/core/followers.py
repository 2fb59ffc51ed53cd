"""The active master's side, whoever decides that it is active: what its standbys are told, and how far they have come.

`Pair` has one standby at most, and counts promises and votes; `Group` has any number, and a lease from an engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, NamedTuple

from ...common import messages, wire
from ...common.kinds import split_address
from ...common.lifecycle import Liveness
from ...common.limits import PULSE_S
from ...common.settings import PRIMARY, StandbySettings
from .events import EventLog
from .follower import ANSWERS, Follower, packed
from .outbox import Outbox
from .records import Peer, Restored


class Active(NamedTuple):
    """What the standbys have to know of the active master."""

    name: str
    settings: StandbySettings
    known: Restored  # the sum of all records, kept up to date by the master
    last_record: int
    journal: Callable[[bytes, bool], int]  # answers a record's number; `ours`: of no concern to standbys
    out: Outbox
    events: EventLog


class Followers(ABC):
    """The standbys of an active master."""

    def __init__(self, active: Active, peers: Iterable[Peer], now: float) -> None:
        self.settings = active.settings
        self._name = active.name
        self._out = active.out
        self._events = active.events
        self._known = active.known
        self._journal = active.journal
        self._last_record = active.last_record
        self._followers = {peer.name: self._follower(peer) for peer in peers}
        self._pulse = 0
        self._pulse_at = now
        self._patient_until = now + self.settings.takeover_grace  # after a takeover the others need a moment

    def _follower(self, peer: Peer) -> Follower:
        return Follower(peer, self._out, self._events)

    @property
    def role(self) -> str:
        return self.settings.role

    @property
    def hands_over(self) -> bool:
        """Whether it hands over when it is told to stop."""
        return self.settings.handover

    @property
    def peer(self) -> Peer | None:
        """The master that would be asked first to take over."""
        best = self._best()
        return best.peer if best else None

    @property
    def routes(self) -> list[bytes]:
        """The routes of those that follow. Asked for each batch of answers: a master that is alone pays
        nothing for it.
        """
        return [each.route for each in self._followers.values() if each.route] if self._followers else []

    def others(self) -> dict[str, Liveness]:
        return {name: each.liveness for name, each in self._followers.items()}

    # ---- who decides -----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def decider(self) -> str:
        """Who decides which master is active: `agents`, or the name of an engine."""

    @property
    @abstractmethod
    def alone(self) -> bool:
        """Nobody else can be active."""

    @property
    @abstractmethod
    def lease_ms(self) -> int:
        """For how long an agent that has heard this master elects no other one."""

    @abstractmethod
    def until(self) -> float:
        """This master may dispatch until then."""

    @abstractmethod
    def beat(self, node: str, beat: messages.Beat, now: float) -> None:
        """An agent's beat. The caller answers it now, with the same number."""

    # ---- the standbys ----------------------------------------------------------------------------------------------

    def refuse(self, hello: messages.PeerHello) -> str:
        """Why this cannot be a standby of ours; empty when it can."""
        if hello.name == self._name:
            return f"both masters are called {hello.name}: give one of them another --name"
        if why := self._unfit(hello):
            return why
        if split_address(hello.address) is None:
            return f"{hello.address!r} is no address: set address in [standby] of {hello.name}"
        if hello.lease != self.decider:
            return (
                f"[standby] lease is {self.decider} at {self._name} and {hello.lease} at {hello.name}: "
                "say the same at all"
            )
        return ""

    @abstractmethod
    def _unfit(self, hello: messages.PeerHello) -> str:
        """Why not, for reasons of who decides; empty when there is none."""

    @abstractmethod
    def greet(self, route: bytes, token: int, hello: messages.PeerHello, epoch: int, now: float) -> None:
        """Tells a standby everything from the beginning, behind its WELCOME."""

    @abstractmethod
    def forget(self, name: str) -> int:
        """An operator says that this master is gone for good. Answers the number of the record."""

    def is_from(self, route: bytes, token: int) -> bool:
        found = self._at(route)
        return found is not None and found.token == token

    def from_standby(self, route: bytes, message: messages.Message, now: float) -> None:
        found = self._at(route)
        if found is not None and isinstance(message, messages.Promise):
            self._promised(found, message, now)

    def _promised(self, standby: Follower, promise: messages.Promise, now: float) -> None:
        standby.promised(promise.sequence, self._last_record, now)
        standby.unable = promise.unable

    def gone(self, route: bytes, said_bye: bool = False) -> None:
        """Its connection is gone; its promise goes on."""
        found = self._at(route)
        if found is not None:
            found.gone()
            if said_bye:
                found.move("bye")

    def record(self, number: int, data: bytes, ours: bool) -> None:
        """One more record. `ours`: of no concern to standbys."""
        self._last_record = number
        if not ours:
            self._say(messages.Replica(number, [data]))

    @abstractmethod
    def recorded(self, number: int, epoch: int, now: float) -> None:
        """Everything up to this record is durable here."""

    def durable(self, number: int) -> int:
        """The highest record up to `number` that may be relied upon. Each standby that is not given up must have it
        too, also behind a lost connection: it may be about to take over, and to rely on what it has.
        """
        live = (each.acked for each in self._followers.values() if each.liveness is Liveness.LIVE)
        return min(number, *live, number)

    def unready(self) -> str:
        """Why nobody could take over now, in good order; empty when somebody could."""
        best = self._best()
        if best is None:
            return "this master has no standby: start one with `rota master --backup-of` this one"
        return best.behind(self._last_record)

    def close(self, epoch: int, handover: bool, now: float) -> None:
        """CLOSE: we dispatch nothing any more. Of several standbys one goes first, the others if that one does not."""
        self._say(messages.Closing(epoch, handover, self.peer.name if handover and self.peer else ""))

    def copies(self, answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[tuple[bytes, bytes]]:
        """Route and frame: answers (session, what that has acknowledged, frame) that each standby is to keep."""
        parts = packed(answers)
        following = [each for each in self._followers.values() if each.route]
        return [(each.route, wire.head(ANSWERS, each.token) + part) for each in following for part in parts]

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, epoch: int, now: float) -> None:
        if self.routes and now >= self._pulse_at:
            self._say_pulse(epoch, now)
        for each in self._followers.values():
            each.tell_events()
            each.watch(self.settings.takeover_after, now)

    def next_deadline(self) -> float:
        return self._pulse_at if self.routes else inf

    def _say_pulse(self, epoch: int, now: float) -> None:
        self._pulse += 1
        self._pulse_at = now + PULSE_S
        self._say(messages.Pulse(self._pulse, epoch, self._last_record))

    # ---- for people ------------------------------------------------------------------------------------------------

    @abstractmethod
    def why_held(self, now: float) -> str:
        """Why this master may not dispatch; empty when it may."""

    @abstractmethod
    def alarms(self, now: float) -> list[str]: ...

    @abstractmethod
    def status(self, now: float) -> dict[str, Any]: ...

    def _held(self, now: float) -> list[str]:
        """The alarm of a master that may not dispatch."""
        why = self.why_held(now)
        return [f"no quorum: {why}; requests are held until that changes"] if why else []

    def _missed(self, now: float) -> list[str]:
        """Alarms of standbys that are not there."""
        silent = [each for each in self._followers.values() if each.liveness is not Liveness.LIVE]
        return [each.missed() for each in silent] if now >= self._patient_until else []

    # ---- within ----------------------------------------------------------------------------------------------------

    def _at(self, route: bytes) -> Follower | None:
        for each in self._followers.values():
            if route and each.route == route:
                return each
        return None

    def _best(self) -> Follower | None:
        """The primary goes first among those that have everything."""
        return max(
            self._followers.values(),
            key=lambda each: (each.followed, not each.unable, each.acked, each.peer.role == PRIMARY),
            default=None,
        )

    def _say(self, message: messages.Message) -> None:
        for each in self._followers.values():
            each.say(message)
