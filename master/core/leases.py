"""May this active master dispatch? What its standby has promised, what the agents have granted, and who of them counts.

docs/STANDBY.md, "Who may dispatch". Times are those of this master, of a clock that counts suspended time too; each
promise and lease counts from when that was sent which it answers, so that this side is always the first to stop.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from math import inf

REMEMBERED = 64  # questions to one peer that may still be answered: six seconds of pulses, twelve of beats


def majority(size: int) -> int:
    """How many votes of an electorate of this size make a master. Of nobody it is 1, which nobody has."""
    return size // 2 + 1


def blocking(size: int) -> int:
    """How many leases leave the others without a majority: 1 of 2, 2 of 3, 2 of 4."""
    return (size + 1) // 2


class Asked:
    """When each numbered question was sent: its answer counts from then."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, float]] = deque(maxlen=REMEMBERED)

    def sent(self, number: int, now: float) -> None:
        if self._sent and number <= self._sent[-1][0]:
            self._sent.clear()  # whoever answers was started anew, and counts from 1
        self._sent.append((number, now))

    def answered(self, number: int) -> float | None:
        """When it was sent; None for what was not, or too long ago. Older questions are forgotten."""
        while self._sent and self._sent[0][0] <= number:
            found, at = self._sent.popleft()
            if found == number:
                return at
        return None


class Leases:
    """`electorate`: the nodes whose leases count. `proposed`: those that are to count once the standby has agreed."""

    def __init__(
        self,
        lease_s: float,
        electorate: Iterable[str] = (),
        granted: Mapping[str, float] | None = None,
        sure: bool = True,
    ) -> None:
        self.lease_s = lease_s
        self.electorate = frozenset(electorate)
        self.proposed: frozenset[str] | None = None
        self.promised_until = -inf
        self.sure = sure  # no candidate has an electorate of which we do not know
        self._until: dict[str, float] = dict(granted or {})  # node → when its lease runs out
        self._beats: defaultdict[str, Asked] = defaultdict(Asked)
        self._pulses = Asked()
        self._proposal = 0

    # ---- the agents ------------------------------------------------------------------------------------------------

    def echoed(self, node: str, beat: int, now: float) -> None:
        """Our answer to this beat was sent; once the node says that it was heard, that is a lease from now on."""
        self._beats[node].sent(beat, now)

    def heard(self, node: str, beat: int) -> None:
        """The node has heard our answer to this beat."""
        at = self._beats[node].answered(beat)
        if at is not None:
            self._until[node] = at + self.lease_s  # of what was said later, as `Asked` has it

    # ---- the standby -----------------------------------------------------------------------------------------------

    def pulsed(self, number: int, now: float) -> None:
        self._pulses.sent(number, now)

    def promised(self, number: int, lasts_s: float) -> None:
        at = self._pulses.answered(number)
        if at is not None:
            self.promised_until = max(self.promised_until, at + lasts_s)

    # ---- the electorate --------------------------------------------------------------------------------------------

    def propose(self, electorate: frozenset[str], record: int) -> None:
        """From now on both count, until the standby has this record."""
        self.proposed, self._proposal = electorate, record

    def agreed(self, record: int) -> bool:
        """The standby has everything up to this record. True: the electorate has changed."""
        if self.proposed is None or record < self._proposal:
            return False
        self.settle(self.proposed)
        return True

    def settle(self, electorate: frozenset[str]) -> None:
        """These count, and no others. Of who is gone nothing is remembered."""
        for node in self.electorate - electorate:
            self._beats.pop(node, None)
            self._until.pop(node, None)
        self.electorate, self.proposed = electorate, None

    # ---- the answer ------------------------------------------------------------------------------------------------

    def until(self) -> float:
        """Until when this master may dispatch if it has a standby."""
        counting = [each for each in (self.electorate, self.proposed) if each]
        if counting:
            leased = min(self._blocked_until(each) for each in counting)
        else:
            leased = inf if self.sure else -inf  # nobody could elect another one
        return max(self.promised_until, leased)

    def held(self, now: float) -> int:
        """How many of the electorate have granted a lease that runs."""
        return sum(self._until.get(node, -inf) > now for node in self.electorate)

    def _blocked_until(self, electorate: frozenset[str]) -> float:
        needed = blocking(len(electorate))
        return sorted((self._until.get(node, -inf) for node in electorate), reverse=True)[needed - 1]
