"""Rules of the standby (docs/STANDBY.md), each broken on purpose: the simulation of pairs must find every one.

The docstring is the rule; the function breaks it in the real cores.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from rota.common import messages
from rota.common.errors import BY_FENCE
from rota.common.settings import ANY
from rota.master.core import candidacy as candidacies
from rota.master.core import leases as leasing
from rota.master.core import records
from rota.master.core.candidacy import Candidacy, Stage
from rota.master.core.leases import Asked, Leases
from rota.master.core.losses import Losses
from rota.master.core.master import Master
from rota.master.core.pair import Pair
from rota.master.core.pair_standby import PairStandby
from rota.master.core.pool import Request, Slot
from rota.worker.core.beats import Beats
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Votes

from ..faults import Fault, kill_agent, pause_agent, pause_node, stop_process
from ..mutants import Mutant, Put
from . import faults

MUTANTS: dict[str, Mutant] = {}
_CUTS = (faults.isolate, faults.partition, faults.slow_network)
# The faults under which a broken rule shows soonest; all of them where it shows at once.
SHOWN_BY: dict[str, tuple[Fault, ...]] = {
    "vote_though_leased": _CUTS,
    "vote_right_after_a_start": (faults.isolate, faults.partition, kill_agent, pause_agent),
    "lease_right_after_a_start": (faults.isolate, faults.move_agent),
    "fence_proves_twice": (faults.vote_in_vain, stop_process, pause_node),
    "fenced_process_has_credit": (faults.vote_in_vain,),
    "lease_to_two": (faults.isolate, faults.cut_masters, faults.move_agent),
    "unsure_for_ever": (faults.kill_both, faults.kill_master, kill_agent),
    "minority_elects": _CUTS,
    "one_lease_suffices": _CUTS,
    "counted_from_the_answer": _CUTS,
    "promise_while_standing": _CUTS,
    "outvoted_goes_on": _CUTS,
    "electorate_changes_alone": (faults.add_node, faults.isolate, faults.partition, faults.remove_node),
    "new_electorate_counts_at_once": (faults.add_node, faults.isolate, faults.partition, faults.remove_node),
    "stands_without_a_poll": _CUTS,
    "poll_counts_as_vote": _CUTS,
    "nobody_is_asked": _CUTS,
}


def rule(mutant: Mutant) -> Mutant:
    MUTANTS[mutant.__name__] = mutant
    return mutant


# ---- votes ----------------------------------------------------------------------------------------------------------


@rule
def vote_without_fence(put: Put) -> None:
    """Whoever grants a vote fences its pages first: its processes start nothing of a lower epoch from then on."""

    def voted(self: Supervision, vote: messages.Vote, now: float) -> list[Any]:
        self.votes.granted(vote, now)
        return []

    put(Supervision, "voted", voted)


@rule
def vote_though_leased(put: Put) -> None:
    """No vote while a lease to another master runs."""
    refusal = Votes.refusal

    def generous(self: Votes, vote: messages.Vote, now: float) -> messages.Deny | None:
        kept, self.lease = self.lease, None
        denied = refusal(self, vote, now)
        self.lease = kept
        return denied

    put(Votes, "refusal", generous)


@rule
def vote_right_after_a_start(put: Put) -> None:
    """No vote for one lease after the start: what was leased before is not known any more."""
    refusal = Votes.refusal

    def hasty(self: Votes, vote: messages.Vote, now: float) -> messages.Deny | None:
        self._unsure_at = -inf
        return refusal(self, vote, now)

    put(Votes, "refusal", hasty)


@rule
def lease_right_after_a_start(put: Put) -> None:
    """Who remembers no vote leases to nobody for one lease after the start: its earlier life may have leased."""
    put(Beats, "began", lambda self, now: None)


@rule
def lease_to_two(put: Put) -> None:
    """To another master an agent leases only when its last lease has run out, or was released."""
    is_bound = Beats._is_bound

    def free(self: Beats, master: str, lease_s: float, now: float) -> bool:
        self._leased_until = now
        return is_bound(self, master, lease_s, now)

    put(Beats, "_is_bound", free)


@rule
def unsure_for_ever(put: Put) -> None:
    """A master's word that another agent has this name keeps it from voting for a while only: that master may die."""

    def unsure(self: Votes, until: float) -> None:
        self._unsure_at = until + 1e6

    put(Votes, "unsure", unsure)


@rule
def minority_elects(put: Put) -> None:
    """A master is elected by more than half of the electorate."""
    put(candidacies, "majority", lambda size: max(1, size // 2))


@rule
def epoch_won_twice(put: Put) -> None:
    """An epoch has one master at most, whatever agents forget of their votes."""

    def stand(self: Candidacy) -> int:
        self.epoch = self.seen = self.epoch + 1 if self.epoch else 2
        self.stage = Stage.RAISING
        self.granted.clear()
        self._asked.clear()
        self._ask_at.clear()
        self._again_at = inf
        return self.epoch

    put(Candidacy, "stand", stand)


@rule
def fence_proves_twice(put: Put) -> None:
    """What another master's fence kept from starting goes back to its client: to that master it is proof, too."""
    refused = Losses.refused

    def eager(self: Losses, slot: Slot, request: Request, by: bytes, now: float) -> None:
        if by == BY_FENCE and request.epoch == self._dispatch.epoch:
            self.disconnected(slot)
            return self.not_started([request], now)
        refused(self, slot, request, by, now)

    put(Losses, "refused", eager)


@rule
def fenced_process_has_credit(put: Put) -> None:
    """Who refuses what its fence forbids is given nothing more before its HELLO: it would refuse that, too."""
    refused = Losses.refused

    def generous(self: Losses, slot: Slot, *why: Any) -> None:
        kept = slot.connected, slot.open
        refused(self, slot, *why)
        slot.connected, slot.open = kept
        slot.pool.shelf.placed(slot)

    put(Losses, "refused", generous)


# ---- leases and promises --------------------------------------------------------------------------------------------


@rule
def right_to_dispatch_ignored(put: Put) -> None:
    """Without a promise and without leases nothing is dispatched."""
    put(Master, "hold", lambda self, held, now: None)


@rule
def right_without_end(put: Put) -> None:
    """Promises and leases run out."""
    until = Leases.until

    def endless(self: Leases) -> float:
        return inf if until(self) > 0 else -inf

    put(Leases, "until", endless)


@rule
def one_lease_suffices(put: Put) -> None:
    """Leases count when the others are no majority: one of two, two of three."""
    put(leasing, "blocking", lambda size: min(size, 1))


@rule
def counted_from_the_answer(put: Put) -> None:
    """Promises and leases count from when that was sent which they answer, not from when the answer came."""
    answered = Asked.answered

    def late(self: Asked, number: int) -> float | None:
        newest = max((at for _, at in self._sent), default=None)
        return None if answered(self, number) is None else newest

    put(Asked, "answered", late)


@rule
def promise_while_standing(put: Put) -> None:
    """A candidate promises nothing: if it hears the active one, it gives the candidacy up first."""
    pulse = PairStandby._pulse

    def both(self: PairStandby, said: messages.Pulse, now: float) -> None:
        candidacy = self.candidacy
        kept = candidacy.stage, candidacy.epoch, dict(candidacy.granted)
        pulse(self, said, now)
        if kept[0] in (Stage.POLLING, Stage.CANDIDATE):
            candidacy.stage, candidacy.epoch, candidacy.granted = kept

    put(PairStandby, "_pulse", both)


@rule
def outvoted_goes_on(put: Put) -> None:
    """An active master that hears of a higher epoch than its own steps down."""
    put(Master, "_heard_of", lambda self, epoch: None)


# ---- the electorate -------------------------------------------------------------------------------------------------


@rule
def electorate_changes_alone(put: Put) -> None:
    """While the standby is not heard the electorate does not change."""

    def elect(self: Pair) -> None:
        wanted = self._voters(self.leases.electorate)
        if wanted != self.leases.electorate:
            self.leases.settle(wanted)
            self._journal(records.electorate(wanted), False)

    put(Pair, "_elect", elect)


@rule
def new_electorate_counts_at_once(put: Put) -> None:
    """The old electorate counts too until the standby has agreed to the new one."""

    def propose(self: Leases, electorate: frozenset[str], record: int) -> None:
        self.settle(electorate)

    put(Leases, "propose", propose)


@rule
def stands_without_a_poll(put: Put) -> None:
    """Who would lose the vote does not stand: a node that has voted obeys a healthy active master no more."""
    put(PairStandby, "_polls", property(lambda self: False))


@rule
def poll_counts_as_vote(put: Put) -> None:
    """What is answered to a poll is no vote."""
    granted_by = Candidacy._granted_by

    def counted(self: Candidacy, node: str, grant: messages.Grant) -> None:
        granted_by(self, node, grant._replace(poll=False))

    put(Candidacy, "_granted_by", counted)


@rule
def nobody_is_asked(put: Put) -> None:
    """Only with quorum "any" is a master active without votes."""
    count = PairStandby._count

    def alone(self: PairStandby, now: float) -> None:
        kept = self.settings
        self.settings = replace(kept, quorum=ANY)
        count(self, now)
        self.settings = kept

    put(PairStandby, "_count", alone)
