"""A standby that asks for votes: which epoch it stands for, whom it asks when, and whether it has won."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import inf

from ...common import messages
from .leases import majority

AGAIN_S = 0.3  # at most, after a vote that was lost to an epoch which was not known
ASK_AGAIN_S = 0.05  # a vote may be lost, a lease released before it runs out; asking twice does no harm


class Stage(StrEnum):
    FOLLOWING = "standby"
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
        self._name = name
        self._odd = odd
        self._lease_s = lease_s
        self._asked: dict[str, float] = {}  # node → when first: a grant may answer that
        self._ask_at: dict[str, float] = {}
        self._again_at = inf

    def stand(self) -> int:
        """The epoch that is to be made durable; then `raised`. The primary takes odd ones, the backup even ones: none
        can be won twice, whatever an agent forgets of its vote.
        """
        self.epoch = self.seen = self.seen + 1 + (self.seen + 1 + self._odd) % 2
        self._stood.add(self.epoch)
        self.stage = Stage.RAISING
        self.granted.clear()
        self._asked.clear()
        self._ask_at.clear()
        self._again_at = inf
        return self.epoch

    def saw(self, epoch: int) -> None:
        self.seen = max(self.seen, epoch)
        self.foreign = max(self.foreign, self._met(epoch))

    def _met(self, epoch: int) -> int:
        return 0 if epoch in self._stood else epoch

    def raised(self) -> None:
        if self.stage is Stage.RAISING:
            self.stage = Stage.CANDIDATE

    def withdraw(self) -> None:
        self.stage = Stage.FOLLOWING
        self._again_at = inf

    def to_ask(self, nodes: Iterable[str], now: float) -> list[str]:
        """Those of whom a vote is to be asked now."""
        if self.stage is not Stage.CANDIDATE:
            return []
        due = [node for node in nodes if node not in self.granted and now >= self._ask_at.get(node, -inf)]
        for node in due:
            self._asked.setdefault(node, now)
            self._ask_at[node] = now + ASK_AGAIN_S
        return due

    def vote(self) -> messages.Vote:
        return messages.Vote(self.epoch, self._name, int(self._lease_s * 1000))

    def answered(self, node: str, answer: messages.Grant | messages.Deny, random: float, now: float) -> None:
        """`random`: from 0 to 1."""
        if isinstance(answer, messages.Deny):
            self.saw(answer.seen)
        if self.stage is not Stage.CANDIDATE or answer.epoch != self.epoch or node not in self._asked:
            return
        if isinstance(answer, messages.Grant):
            # Whoever was active since had the vote of one of those whose votes make us active now.
            self.foreign = max(self.foreign, self._met(answer.before if answer.before >= 0 else self.epoch - 1))
            self.granted[node] = self._asked[node] + self._lease_s
        elif answer.seen >= self.epoch and node not in self.granted:
            self.withdraw()  # somebody else stood there: once more, with a higher epoch
            # When the leases that were granted here have run out: two candidates with half of the nodes each would
            # renew them for ever. Without any nobody waits for that.
            self._again_at = now + (self._lease_s * (1 + random) if self.granted else AGAIN_S * random)

    @property
    def rests(self) -> bool:
        """It has lost a vote and waits, whatever else there is to stand for."""
        return self.stage is Stage.FOLLOWING and self._again_at < inf

    def again(self, now: float) -> bool:
        """It is time to stand once more."""
        return self.stage is Stage.FOLLOWING and now >= self._again_at

    def has_won(self, *electorates: frozenset[str]) -> bool:
        """A majority of each: of two, while it is not known which of them counts. One without a node elects nobody, and
        so keeps the other one's majority from nothing.
        """
        asked = [each for each in electorates if each]
        return bool(asked) and all(len(self.granted.keys() & each) >= majority(len(each)) for each in asked)
