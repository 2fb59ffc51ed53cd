"""A standby that asks for votes: which epoch it stands for, whom it asks when, and whether it has won.

It takes a poll first: an agent that has granted a vote obeys no lower epoch any more, so that a vote in vain would end
a healthy active master.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import inf

from ...common import messages
from .leases import majority

AGAIN_S = 0.3  # at most, until it stands again after it lost to an epoch that it had not known
ASK_AGAIN_S = 0.05  # a vote may be lost, a lease released before it runs out; asking twice does no harm


class Stage(StrEnum):
    FOLLOWING = "standby"
    POLLING = "polling"  # it asks who would vote for it: nothing of that is noted anywhere
    RAISING = "raising"  # its epoch becomes durable before anybody is asked
    CANDIDATE = "candidate"
    WON = "won"


class Candidacy:
    """`seen`: the highest epoch that anybody has told of, or that this master has stood for; `foreign`: the highest of
    those that it has not stood for.
    """

    def __init__(self, name: str, lease_s: float, seen: int, odd: bool) -> None:
        self.stage = Stage.FOLLOWING
        self.epoch = 0  # that it stands for
        self.seen = self.foreign = seen
        self._stood: set[int] = set()
        self.granted: dict[str, float] = {}  # node → when its vote, which is a lease, runs out
        self.unable: dict[str, str] = {}  # node → why it can vote for nobody, which only people can change
        self._name = name
        self._odd = odd
        self._lease_s = lease_s
        self._asked: dict[str, float] = {}  # node → when first: a grant may answer that
        self._ask_at: dict[str, float] = {}
        self._again_at = inf
        self._until = inf  # who has not won by then asks anew

    def poll(self, now: float) -> None:
        self._begin(Stage.POLLING)
        self._until = now + self._lease_s

    def stand(self) -> int:
        """Begins to stand. Answers the epoch, which is to be made durable; then `raised`."""
        self._begin(Stage.RAISING)
        self.seen = self.epoch
        self._stood.add(self.epoch)
        return self.epoch

    def _begin(self, stage: Stage) -> None:
        """The primary takes odd epochs, the backup even ones: none can be won twice, whatever an agent forgets of its
        vote.
        """
        self.stage = stage
        lowest = self.seen + 1
        self.epoch = lowest if lowest % 2 == self._odd else lowest + 1
        self.granted.clear()
        self._asked.clear()
        self._ask_at.clear()

    def saw(self, epoch: int) -> None:
        self.seen = max(self.seen, epoch)
        self.foreign = max(self.foreign, self._met(epoch))

    def _met(self, epoch: int) -> int:
        return 0 if epoch in self._stood else epoch

    def raised(self, now: float) -> None:
        if self.stage is Stage.RAISING:
            self.stage = Stage.CANDIDATE
            self._until = now + self._lease_s

    def withdraw(self) -> None:
        self.stage = Stage.FOLLOWING
        self._again_at = inf

    def to_ask(self, nodes: Iterable[str], now: float) -> list[str]:
        """The nodes that are to be asked for their vote now."""
        if not self.asks:
            return []
        due = [node for node in nodes if node not in self.granted and now >= self._ask_at.get(node, -inf)]
        for node in due:
            self._asked.setdefault(node, now)
            self._ask_at[node] = now + ASK_AGAIN_S
        return due

    @property
    def asks(self) -> bool:
        return self.stage in (Stage.POLLING, Stage.CANDIDATE)

    def is_over(self, now: float) -> bool:
        """What it was told in this round is too old, or somebody has told of a higher epoch than it polls for."""
        return self.asks and (now >= self._until or self.stage is Stage.POLLING and self.epoch <= self.seen)

    def vote(self) -> messages.Vote:
        return messages.Vote(self.epoch, self._name, int(self._lease_s * 1000), self.stage is Stage.POLLING)

    def answered(self, node: str, answer: messages.Grant | messages.Deny, random: float, now: float) -> None:
        """`random`: from 0 to 1."""
        if isinstance(answer, messages.Deny):
            self.saw(answer.seen)
        if not self.asks or answer.epoch != self.epoch or node not in self._asked:
            return
        if isinstance(answer, messages.Grant):
            return self._granted_by(node, answer)
        if not answer.wait_ms and answer.seen < answer.epoch:
            self.unable[node] = answer.why
        if self.stage is Stage.CANDIDATE and answer.seen >= self.epoch and node not in self.granted:
            self.withdraw()  # somebody else stood there: once more, with a higher epoch
            # When the leases that were granted here have run out: two candidates with half of the nodes each would
            # renew them for ever. Without any nobody waits for that.
            self._again_at = now + (self._lease_s * (1 + random) if self.granted else AGAIN_S * random)

    def _granted_by(self, node: str, grant: messages.Grant) -> None:
        if not grant.poll:
            self.unable.pop(node, None)  # not by a poll: for that it has to note nothing
            # Whoever was active since had the vote of one of those whose votes make us active now.
            self.foreign = max(self.foreign, self._met(grant.before if grant.before >= 0 else self.epoch - 1))
        elif self.stage is not Stage.POLLING:
            return  # a late answer to the poll: it binds nobody
        self.granted[node] = self._asked[node] + self._lease_s

    @property
    def rests(self) -> bool:
        """It has lost a vote and waits; until then it does not stand, whatever speaks for it."""
        return self.stage is Stage.FOLLOWING and self._again_at < inf

    def again(self, now: float) -> bool:
        """True when it is time to stand once more."""
        return self.stage is Stage.FOLLOWING and now >= self._again_at

    def has_won(self, *electorates: frozenset[str]) -> bool:
        """A majority of each electorate: of two of them while it is not known which one counts. One without a node
        elects nobody; it is left out, so that it cannot stand in the way of the other one's majority.
        """
        asked = [each for each in electorates if each]
        return bool(asked) and all(len(self.granted.keys() & each) >= majority(len(each)) for each in asked)
