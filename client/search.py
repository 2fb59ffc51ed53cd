"""Which of several masters is asked, in which order and how soon. Pure: `now` is passed in, and chance.

One of them is active, the others stand by, or are dead, or do not know yet that another one took over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ..common.errors import Denied, Error, Incompatible
from ..common.limits import MASTERS_MAX
from ..common.messages import Refusal, Welcome
from ..common.wire import VERSIONS

ACTIVE = "active"
TAKEOVER_FIRST_S = 0.05  # between two rounds while somebody stands by: a planned switchover takes hardly longer
TAKEOVER_MAX_S = 0.25  # a takeover takes a second or two, and the master that takes over has other things to do, too
TAKEOVER_ROUNDS = 24  # some 5 s: if there is no active one then, the pair waits for votes, or for its operator
STANDING_BY_S = 1.0  # between two rounds then
OLDER_S = 10.0  # after so long a master with a lower epoch is believed: the pair has lost what it remembered

GREETED_S = 3.0  # to connect (2 s at most) and be greeted, one master
QUIET_S = 0.5  # of an open connection with calls unanswered: then another master may have taken over
UNGREETED_S = 0.25  # of a connection that is being made: nobody waits for a dead machine while another one is there
AGAIN_S = 0.25  # between two looks at the others
QUICK_S = 3.0  # of silence; a takeover is over by then, so a handler is slow
SLOW_S = 1.0  # between two looks after that: each costs one small frame each way, over a connection that is there


class Search:
    """Which master is to be asked. The owner dials `address` and reports what came of it; what returns a number
    says when to dial again.
    """

    def __init__(
        self, masters: Sequence[str], chance: Callable[[], float], delay: Callable[[int, float], float]
    ) -> None:
        """`delay`: rounds in vain and chance → seconds, where nobody answers."""
        self.masters = list(masters)
        self.epoch = 0  # the highest that an active master had
        self.seen_standby = False  # since one was active
        self._chance = chance
        self._delay = delay
        self._place = 0
        self._asked = 0  # in this round
        self._rounds = 0  # in vain
        self._standby = False  # in this round some master said that it stands by
        self._wait_s = 0.0
        self._older_at = inf

    @property
    def address(self) -> str:
        return self.masters[self._place]

    def unfit(self, welcome: Welcome, now: float) -> str:
        """Why this master is not the one, "" if it is. Of a single address the epoch does not matter: there is no other
        master to prefer.
        """
        if welcome.state != ACTIVE:
            return f"it is a {welcome.state[:20]}"
        if welcome.epoch < self.epoch and len(self.masters) > 1:
            self._older_at = min(self._older_at, now + OLDER_S)
            if now < self._older_at:
                return f"it has epoch {welcome.epoch}, and {self.epoch} was seen"
        return ""

    def learn(self, address: str) -> bool:
        """The standby that was asked follows the master at this address: it is asked next. True if that is news."""
        if not address or address in self.masters or len(self.masters) >= MASTERS_MAX:
            return False
        self.masters.insert(self._place + 1, address)
        return True

    def found(self, epoch: int) -> None:
        """This one is it."""
        self.epoch = epoch
        self.seen_standby = False
        self._older_at = inf
        self._begin()
        self._rounds = 0

    def next(self, now: float, standby: bool = False, wait_s: float = 0.0) -> float:
        """It is not this one; returns when to dial the next. `standby`: it said that it stands by. `wait_s`: it wants
        to be left alone for so long.
        """
        self.seen_standby |= standby
        self._standby |= standby
        self._wait_s = max(self._wait_s, wait_s)
        self._asked += 1
        self._place = (self._place + 1) % len(self.masters)
        if self._asked < len(self.masters):
            return now
        self._rounds += 1
        pause = self._pause()
        self._begin()
        return now + pause

    def _pause(self) -> float:
        chance = self._chance()
        if self._standby:  # a takeover is under way, or about to be
            most = TAKEOVER_MAX_S if self._rounds <= TAKEOVER_ROUNDS else STANDING_BY_S
            return min(most, TAKEOVER_FIRST_S * 1.5 ** min(self._rounds - 1, 8)) * (0.5 + chance)
        return max(self._delay(self._rounds, chance), self._wait_s)

    def over(self) -> bool:
        """All were asked, and the next round has not begun."""
        return self._asked == 0

    def lost(self, now: float) -> float:
        """The connection to the active one is gone. The same is dialled first: a cut connection is likelier than a dead
        master.
        """
        return now + self._delay(0, self._chance())

    def left(self, now: float) -> float:
        """The active one said goodbye."""
        if len(self.masters) == 1:
            return self.lost(now)
        return self.next(now)

    def doubt(self, is_open: bool) -> tuple[float, int]:
        """After how many seconds of silence the others are asked beside this one; and the epoch that another one must
        have. `is_open`: this one is the active one, as far as we know.
        """
        return (QUIET_S, self.epoch + 1) if is_open else (UNGREETED_S, self.epoch)

    def go(self, address: str) -> None:
        """That one is active, and to be dialled now."""
        self._begin()
        self._place = self.masters.index(address)

    def _begin(self) -> None:
        self._asked = 0
        self._wait_s = 0.0
        self._standby = False


def final(address: str, refusal: Refusal) -> Error | None:
    """What waiting does not mend, as an error; None: it may pass."""
    text = f"{address}: {refusal.message}"
    if refusal.code == "incompatible":
        lowest, highest = VERSIONS
        return Incompatible(f"{text}; this side speaks versions {lowest} to {highest}")
    return Denied(text) if refusal.code == "denied" else None


class Doubt:
    """When the other masters are asked beside a connection over which nothing comes. It may be the connection of a dead
    machine, which resets nothing.
    """

    def __init__(self) -> None:
        self.due = 0.0
        self._since = 0.0  # of the silence

    def look(self, heard_at: float, patience: float, now: float) -> bool:
        """To be called at `due`, while something is waited for. True: ask them now."""
        if heard_at > self._since or now > self.due + QUIET_S:  # late: nothing was waited for, or we stood still
            self._since = heard_at if now - heard_at < patience else now
        self.due = self._since + patience
        if now < self.due:
            return False
        self.due = now + (AGAIN_S if now - self._since < QUICK_S else SLOW_S)
        return True
