"""The connection to a master: to which one, when, and whether it is still heard. Pure.

One is tried after the other until an active one knows this node. Which one that is, the others may say too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...common.limits import BEAT_S
from ...common.messages import Message, Refusal, Welcome
from .effects import Connect, Effect, Note, Reach, Send, Unsure
from .votes import Votes

SILENCE_S = 3.0  # of a master: as long as it gives us; the connection is then worth nothing
REPEAT_S = 60.0  # between two notes of the same refusal
EAGER = 20  # attempts, one master after the other and seldom more than 0.1 s apart, while any of them is in touch


@dataclass(slots=True)
class Refusals:
    """In a row, by the same sentence: it is noted once, then each minute at most, with their number."""

    text: str = ""
    count: int = 0
    noted_at: float = 0.0

    def note(self, text: str, now: float) -> list[Effect]:
        if text != self.text:
            self.text, self.count, self.noted_at = text, 1, now
            return [Note(text)]
        self.count += 1
        if now < self.noted_at + REPEAT_S:
            return []
        self.noted_at = now
        return [Note(f"{text} ({self.count} times so far)")]


class Connection:
    """Methods are events; each returns its effects in the order in which they are to happen."""

    def __init__(self, masters: Sequence[str], votes: Votes, reconnect_delay: Callable[[int], float]) -> None:
        """`masters`: their addresses. `reconnect_delay`: failures in a row → seconds, with its jitter."""
        self.master = 0  # index of the one that we talk to
        self.greeted = False
        self.in_touch = False  # some master answers us, over whichever connection
        self.heard_at = 0.0
        self.welcome: Welcome | None = None  # the last one
        self._addresses = ", ".join(masters)
        self._masters = len(masters)
        self._votes = votes
        self._reconnect_delay = reconnect_delay
        self._failures = 0  # connections in a row that came to nothing
        self._winner: int | None = None  # the master that has said that it won, until one is connected or passes us on
        self._told_to_wait = False  # by the master that refused us, until the next attempt
        self._refusals = Refusals()
        self._refused_once = False  # as of another version
        self._hello_said = False  # on this connection, and not yet answered
        self._connect_at: float | None = 0.0  # None: connected, or about to be

    # ---- what is said and heard -------------------------------------------------------------------------------------

    def say(self, message: Message) -> list[Effect]:
        """Only to a master that knows us; what it must know for sure stands in the next HELLO too."""
        return [Send(message)] if self.greeted else []

    def introduced(self) -> None:
        """A HELLO goes out."""
        self._hello_said = True

    def heard(self, now: float) -> None:
        self.heard_at = now

    def is_outvoted(self, epoch: int) -> bool:
        """Is the master of this connection one of an epoch below this one?"""
        return self.welcome is None or self.welcome.epoch < epoch

    def welcomed(self, welcome: Welcome, now: float) -> list[Effect]:
        """We are greeted, unless this one is not to be obeyed."""
        self._hello_said = self._refused_once = False
        if welcome.state != "active":
            return self._passed_on(now)
        seen = self._votes.seen
        if welcome.epoch < seen:
            text = f"{welcome.master} is a master of epoch {welcome.epoch}, {seen} was seen: not obeyed"
            effects = [*self._refusals.note(text, now), *self._passed_on(now)]
            if not self.in_touch:
                self._connect_at = now + SILENCE_S
            return effects
        was_greeted, self.greeted = self.greeted, True
        self.welcome = welcome
        self._winner = None
        self._failures = 0
        self._refusals = Refusals()
        self.heard_at = now
        return [] if was_greeted else [Note(f"connected to {welcome.master}, epoch {welcome.epoch}")]

    def refused(self, refusal: Refusal, now: float) -> list[Effect]:
        """Not welcome. The reason may pass, but for a boot that was replaced by a newer one."""
        if refusal.code == "standby":
            return self._passed_on(now)
        self.greeted = self._hello_said = False
        if refusal.code == "incompatible" and not self._refused_once:  # a HELLO damaged on its way looks alike
            self._refused_once = self._told_to_wait = True
            self._connect_at = now + BEAT_S
            return []
        effects = self._refusals.note(f"the master refuses this node: {refusal.message}", now)
        if refusal.code == "stale":
            return effects
        wait_s = max(refusal.wait_s, BEAT_S)
        self._connect_at = now + wait_s
        self._told_to_wait = True
        return [*effects, Unsure(wait_s)] if refusal.code == "name in use" else effects

    def unknown(self, now: float) -> bool:
        """The master does not know us (any more): is a HELLO to be said? One answer is enough, however many of our
        frames it asks about: what would be sent before its WELCOME would only be asked about again.
        """
        self.heard_at = now
        if self._hello_said and not self.greeted:
            return False
        self.greeted = False
        return True

    # ---- which one, and when ----------------------------------------------------------------------------------------

    def lost(self, now: float) -> list[Effect]:
        """The connection is gone. The processes go on: they have connections of their own."""
        if self._connect_at is not None:
            return []
        was_greeted, self.greeted = self.greeted, False
        self._failures = 0 if was_greeted else self._failures + 1
        self.master = (self.master + 1) % self._masters
        self._connect_at = now + self._pause()
        self._hello_said = False
        if was_greeted:
            return [Note("the master is lost; connecting again")]
        # Once, and not for the first failure: a master that is started with its nodes may come a moment later.
        if self._failures == 2 and not self.in_touch:
            where = f"no master answers at {self._addresses}"  # mostly a name that is wrong, or the default
            how = "-m or ROTA_SLAVE_MASTER says where it is; from Python, master= or ROTA_MASTER"
            return [Note(f"{where}; trying on; is one running? {how}")]
        return []

    def won(self, master: int, epoch: int, now: float) -> list[Effect]:
        """This master says over a voter link, not over the main one, that it is active: no other is waited for."""
        if epoch < self._votes.seen or (self.greeted and not self.is_outvoted(epoch)):
            return []
        self._winner = master
        if self.master == master and not self.greeted and (self._connect_at is None or self._told_to_wait):
            return []
        self.master, self._failures = master, 0
        return [self._connect(now)]

    def is_expected(self) -> bool:
        """Does a master know us, or will one soon?"""
        return self.greeted or self._hello_said or self.in_touch

    def is_given_up(self) -> bool:
        """Was each master tried in vain since the last was lost? Of those that are in touch one may become active."""
        return not self.greeted and self._failures >= (EAGER if self.in_touch else self._masters)

    def tick(self, now: float) -> list[Effect]:
        if self._connect_at is None:
            return self.lost(now) if now >= self.heard_at + SILENCE_S else []
        return [self._connect(now)] if now >= self._connect_at else []

    def next_deadline(self) -> float:
        return self.heard_at + SILENCE_S if self._connect_at is None else self._connect_at

    def forgive_pause(self, now: float) -> None:
        """It was we who stood still, not the master."""
        self.heard_at = max(self.heard_at, now - BEAT_S)

    def _connect(self, now: float) -> Connect:
        self._connect_at = None
        self._told_to_wait = False
        self.heard_at = now
        self.greeted = False
        return Connect(self.master)

    def _passed_on(self, now: float) -> list[Effect]:
        """This one is not active: another one is tried, unless this one has won since it gave that answer."""
        self.greeted = self._hello_said = False
        self._failures += 1
        if self._winner != self.master:
            self.master = (self.master + 1) % self._masters
        self._winner = None
        self._connect_at = now + self._pause()
        effects: list[Effect] = [Reach()] if self._masters == 1 else []
        return [*effects, Note("no master is active; trying on")] if self._failures == EAGER else effects

    def _pause(self) -> float:
        """Seconds until the next attempt. Of masters in touch one will soon be active: they are asked in turn."""
        hurry = self.in_touch and self._masters > 1 and self._failures < EAGER
        return self._reconnect_delay(min(self._failures, 2) if hurry else self._failures)
