"""The agent of a node with two masters: it votes, and obeys one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rota.common import messages, wire
from rota.common.messages import Deny, Grant, Vote, VoterHello, Welcome
from rota.worker.core import effects
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Ballot, Votes

from ..agent_part import AgentPart
from ..network import Timer
from .links import Context, Poller, Voters

if TYPE_CHECKING:
    from .cluster import PairCluster


class PairAgent(AgentPart):
    cluster: PairCluster

    def __init__(self, cluster: PairCluster, node: str, remembered: messages.Intent | None, epoch: int) -> None:
        self._voters: Any = None
        super().__init__(cluster, node, remembered, epoch)
        context = Context(cluster, node, self.wake)
        self._voters = Voters(
            context, Poller(), cluster.addresses, self._voter_hello, self._told_by, self._asked, self._told_who_won
        )
        self._voters_timer = Timer(self.clock, self.wake)  # their next deadline is not always the core's

    def _new_core(
        self, remembered: messages.Intent | None, epoch: int, masters: int = 1, votes: Votes | None = None
    ) -> Supervision:
        cluster = self.cluster
        votes = Votes(cluster.clock.now, epoch, cluster.ballots.get(self.node))
        return super()._new_core(remembered, epoch, len(cluster.addresses), votes)

    def step(self) -> None:
        if self.alive and self.clock.now >= self.paused_until:
            self._voters.attend()
            self.core.connection.in_touch = self._voters.in_touch
        super().step()
        if self.alive:
            self._voters_timer.set(self._voters.next_deadline())

    def kill(self) -> None:
        super().kill()
        self._part()

    def _quit(self) -> None:
        super()._quit()
        self._part()

    def _part(self) -> None:
        self._voters.close()
        self._voters_timer.stop()

    # ---- votes, as worker/agent.py has them --------------------------------------------------------------------------

    def _voter_hello(self) -> VoterHello:
        return VoterHello(list(wire.VERSIONS), self.node, self.core.boot, self.core.epoch)

    def _told_by(self, master: int, welcome: Welcome) -> None:
        if welcome.state == "active":
            self._told_who_won(master, welcome.epoch)

    def _told_who_won(self, master: int, epoch: int) -> None:
        self._effects.perform(self.core.connection.won(master, epoch, self.clock.now))

    def _asked(self, vote: Vote) -> Grant | Deny:
        now, votes = self.clock.now, self.core.votes
        denied = votes.refusal(vote, now)
        if denied is not None:
            self.clock.tell("%s: no vote for %s in epoch %d: %s", self.node, vote.master, vote.epoch, denied.why)
            return denied
        if vote.poll:
            return Grant(vote.epoch, poll=True)
        self.cluster.ballots[self.node] = Ballot(vote.epoch, vote.master)
        self.cluster.remembered[self.node] = self.core.intent, vote.epoch
        self._effects.perform(self.core.voted(vote, now))
        self.clock.tell("%s: votes for %s in epoch %d", self.node, vote.master, vote.epoch)
        self.cluster.checks.granted(self.node, vote)
        return Grant(vote.epoch, votes.before)

    def _carry_out(self, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Lease):
            self.core.votes.leased(effect.master, effect.epoch, effect.lasts_s, self.clock.now)
            self.cluster.checks.leases(self.node, effect.master, effect.lasts_s)
        elif isinstance(effect, effects.Unsure):
            self.core.votes.unsure(self.clock.now + effect.lasts_s)
        else:
            super()._carry_out(effect)
