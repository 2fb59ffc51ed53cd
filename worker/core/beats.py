"""The beats of a node: when, which of them is a lease to its master, and what goes with them. Pure."""

from __future__ import annotations

from ...common.limits import BEAT_S
from ...common.messages import Beat
from .connection import Connection
from .effects import Effect, Lease, Send, Weigh
from .votes import Votes

USAGE_S = 1.0


class Beats:
    """To a master that knows us."""

    def __init__(self, connection: Connection, votes: Votes) -> None:
        self._connection = connection
        self._votes = votes
        self._number = 0
        self._beat_at = 0.0
        self._usage_at = 0.0
        self._echo = self._answered = 0  # the master's beats: the newest, and the newest that a lease answered
        self._leased_to, self._leased_until = "", 0.0
        self._began_at = 0.0

    def began(self, now: float) -> None:
        """This life of the agent began now; whatever an earlier one leased, it leased before."""
        self._began_at = now

    def welcomed(self, now: float) -> None:
        """By a master: beats begin anew."""
        self._echo = self._answered = 0
        self._beat_at = self._usage_at = now

    def heard(self, beat: int) -> None:
        self._echo = max(self._echo, beat)

    def released(self) -> None:
        """Its holder dispatches nothing any more."""
        self._leased_until = 0.0

    def hurry(self) -> None:
        """The master is to hear of an epoch at once."""
        self._beat_at = 0.0

    def tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._beat_at:
            self._number += 1
            self._beat_at = max(self._beat_at + BEAT_S, now)
            effects += self._lease(now)
            unheard_ms = int(1000 * (now - self._connection.heard_at))
            effects.append(Send(Beat(self._number, unheard_ms, self._answered, self._votes.seen)))
        if now >= self._usage_at:
            self._usage_at = now + USAGE_S
            effects.append(Weigh())
        return effects

    def next_deadline(self) -> float:
        return self._beat_at

    def _lease(self, now: float) -> list[Effect]:
        """The beat that is about to go answers a new one of a master that needs leases, and may have one. To others it
        answers nothing: what is said to be heard is a lease.
        """
        welcome = self._connection.welcome
        if welcome is None or not welcome.lease_ms or self._echo == self._answered:
            return []
        lease_s = welcome.lease_ms / 1000
        if not self._votes.may_lease(welcome.epoch) or self._is_bound(welcome.master, lease_s, now):
            self._echo = self._answered  # what was heard meanwhile is no lease later
            return []
        self._leased_to, self._leased_until = welcome.master, now + lease_s
        self._answered = self._echo
        return [Lease(welcome.master, welcome.epoch, lease_s)]

    def _is_bound(self, master: str, lease_s: float, now: float) -> bool:
        """A lease to another one has to run out first, or to be released: an agent that forgot for whom it had voted
        may find the last master before the present one, to which its earlier life may have leased until it ended.
        """
        if not self._votes.remembers and now < self._began_at + lease_s:
            return True
        return master != self._leased_to and now < self._leased_until
