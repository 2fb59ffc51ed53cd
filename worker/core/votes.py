"""What one agent has granted, and when it may grant: a vote in each epoch, a lease to the master that it obeys. Pure.

`now` here is seconds of a clock that goes on while the machine is suspended (CLOCK_BOOTTIME): a lease that its holder
counts there must not look younger here. Four rules:

1. One vote an epoch, durable before it is said; and none at or below an epoch that was seen.
2. None while a lease to another master runs.
3. None for one lease after the start: what was leased before is not known any more. A durable vote is. Who remembers
   nothing leases to nobody for as long: the vote that it does not know of may have made another master.
4. None for one lease after a master may have said that another agent has this name: what that one leased is not known
   here, and two votes of one node would make a majority of fewer. Not for longer: mostly that one is our own life
   before this one, and the master that believes it to be alive may be gone for good.
"""

from __future__ import annotations

from typing import NamedTuple

from ...common.messages import Deny, Vote


class Ballot(NamedTuple):
    epoch: int
    master: str  # its name


class Lease(NamedTuple):
    master: str
    epoch: int
    until: float


class Votes:
    """`seen`: the highest epoch that is known; nothing below it is obeyed."""

    def __init__(self, now: float, seen: int = 0, ballot: Ballot | None = None) -> None:
        """`ballot`: the last one, if it was kept. `seen` is never below it."""
        self.ballot = ballot
        self.seen = max(seen, ballot.epoch if ballot else 0)
        self.remembers = self.seen > 0  # an earlier life, and with it each vote of that
        self.before = -1  # the highest that was seen before the last vote, if that was given in this life
        self.lease: Lease | None = None
        self._unsure_at = now  # what was leased under this name before then is not known
        self._released_upto = 0

    def saw(self, epoch: int) -> None:
        self.seen = max(self.seen, epoch)

    # ---- leases -----------------------------------------------------------------------------------------------------

    def may_lease(self, epoch: int) -> bool:
        """To a master that was welcomed with this epoch."""
        return epoch >= self.seen and epoch > self._released_upto

    def leased(self, master: str, epoch: int, lease_s: float, now: float) -> None:
        """A beat that answers a new one of this master goes out: said before it does, as the lease begins here."""
        if self.may_lease(epoch):
            self._lease(master, epoch, now + lease_s)

    def released(self, epoch: int) -> None:
        """Its holder dispatches nothing any more in this epoch, whatever beats are still on their way."""
        self._released_upto = max(self._released_upto, epoch)
        if self.lease is not None and self.lease.epoch <= epoch:
            self.lease = None

    def _lease(self, master: str, epoch: int, until: float) -> None:
        """A shorter one does not shorten what its holder counts on."""
        if self.lease is not None and self.lease[:2] == (master, epoch):
            until = max(until, self.lease.until)
        self.lease = Lease(master, epoch, until)

    def unsure(self, until: float) -> None:
        """Until then another agent may lease under this name."""
        self._unsure_at = max(self._unsure_at, until)

    # ---- votes ------------------------------------------------------------------------------------------------------

    def refusal(self, vote: Vote, now: float) -> Deny | None:
        """Why it is not granted now; None: it is. Then the ballot is to be made durable, and `granted` called."""
        # A master that did not hear our answer asks again. Meanwhile another one may have won that epoch without us,
        # and have our lease.
        again = self.ballot == (vote.epoch, vote.master) and vote.epoch == self.seen
        if vote.epoch <= self.seen and not again:
            return self._deny(vote, 0.0, f"epoch {self.seen} was seen")
        lease = self.lease
        if lease is not None and now < lease.until and lease.master != vote.master:
            return self._deny(vote, lease.until - now, f"{lease.master} has its lease")
        abstains = self._unsure_at + vote.lease_ms / 1000 - now
        if abstains > 0:
            return self._deny(vote, abstains, "it has just started, or another agent has its name: who has a lease?")
        return None

    def granted(self, vote: Vote, now: float) -> None:
        """It is durable. A grant is the first lease: no other candidate, and no lower epoch, from now on."""
        if vote.epoch > self.seen:
            self.before = self.seen
        self.ballot = Ballot(vote.epoch, vote.master)
        self.seen = vote.epoch
        self._lease(vote.master, vote.epoch, now + vote.lease_ms / 1000)

    def _deny(self, vote: Vote, wait_s: float, why: str) -> Deny:
        """The wait is rounded up: a master that asks again after it must not be told to wait for a rest of it."""
        return Deny(vote.epoch, self.seen, int(wait_s * 1000) + 1 if wait_s else 0, why)
