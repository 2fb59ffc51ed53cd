"""The right to be the active master, where an engine outside decides it: etcd, PostgreSQL (docs/STANDBY.md).

The engine keeps one row: holder, epoch, and a stamp that is another one after each change. It is read, and it is
changed under the condition that its stamp is still the one that was read: of two who try, one succeeds. All time is
counted here, on `clock.boottime`:

* who holds it counts from when the renewal was *sent*, less a margin;
* who waits counts from when it *saw* the stamp: one that has not changed for a whole lease is of nobody.

So the holder has stopped before anybody else may take it, whatever the clocks of the machines say.
"""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

RENEWALS = 3  # in the time of one lease: two may fail
LOOKS = 5  # of a standby, in that time
RETRIES = 10  # after an error
MARGIN = 0.05  # of the lease: so far the clocks of two machines may run apart, and a turn of the loop
FRESH = 0.5  # of the lease: what was seen longer ago says nothing of now


class Row(NamedTuple):
    stamp: int  # 0: nobody has ever written it
    holder: str  # "" = nobody
    epoch: int  # of the last holder


class Question(NamedTuple):
    """`stamp` None: what does the row say? Otherwise: if it still has this stamp, make it ours with this epoch, or
    `free` again.
    """

    number: int
    me: str
    stamp: int | None
    epoch: int
    free: bool
    lease_s: float
    patience_s: float  # for the answer

    @property
    def holder(self) -> str:
        return "" if self.free else self.me


class Answer(NamedTuple):
    """`row` None: the engine gave no answer, for this reason, and whether anything was changed nobody knows."""

    number: int
    changed: bool
    row: Row | None
    error: str = ""


class EngineLease:
    """`questions` are for the engine, which answers each of them once, sooner or later. `epoch`: the one in which we
    want the lease; 0: we do not want it.
    """

    def __init__(self, engine: str, me: str, lease_s: float, now: float) -> None:
        """`engine`: its name, for people. `me`: names this life of this master, since an earlier one held another
        lease.
        """
        self.engine = engine
        self.lease_s = lease_s
        self.questions: list[Question] = []
        self.until = -inf  # we have it until then
        self.epoch = 0
        self.row: Row | None = None
        self.error = ""
        self._me = me
        self._seen_at = now  # the row's stamp, for the first time
        self._fresh_at = -inf  # the last answer
        self._forgotten = False  # the engine knows less than it did
        self._unwritten = False  # `error` is of a change: that it can be read says nothing of that
        self._asked: Question | None = None
        self._asked_at = -inf
        self._ask_at = now
        self._again = False  # something else is wanted than when the question was asked
        self._numbers = 0

    # ---- for masters -----------------------------------------------------------------------------------------------

    def take(self, epoch: int, now: float) -> None:
        """Try to get it with this epoch, which is durable, and then keep it. It must be higher than the row's."""
        self._want(epoch, now)

    def let_go(self, now: float) -> None:
        """We dispatch nothing any more: whoever wants it may have it."""
        self._want(0, now)

    def _want(self, epoch: int, now: float) -> None:
        self.epoch, self.until = epoch, -inf
        self._ask_at = now
        self._again = self._asked is not None
        self.tick(now)

    def is_free(self, now: float) -> bool:
        """Nobody has it, as far as the engine was heard lately."""
        return self.row is not None and self._is_fresh(now) and self._may_be_free(now)

    def _is_fresh(self, now: float) -> bool:
        return now - self._fresh_at <= FRESH * self.lease_s

    def _may_be_free(self, now: float) -> bool:
        assert self.row is not None
        return (not self.row.holder and not self._forgotten) or now - self._seen_at >= self.lease_s

    def is_lost(self, now: float) -> bool:
        """What was tried has failed: somebody else has it, and it is not free."""
        return not self.epoch or (self.row is not None and not self.is_ours and not self._may_be_free(now))

    def look(self, now: float) -> None:
        """Asks again now: it may be free in a moment."""
        self._ask_at = min(self._ask_at, now)

    @property
    def is_ours(self) -> bool:
        return self.row is not None and self.row.holder == self._me

    @property
    def is_settled(self) -> bool:
        """Nothing has to be said before we may end."""
        return self._asked is None and not self.is_ours

    @property
    def known_epoch(self) -> int:
        """The highest that the engine told of."""
        return self.row.epoch if self.row else 0

    @property
    def holder(self) -> str:
        """Name of the master that has it."""
        return self.row.holder.partition(" ")[0] if self.row else ""

    def status(self, now: float) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "holder": self.holder,
            "epoch": self.known_epoch,
            "left_ms": max(0, round((self.until - now) * 1000)) if self.until > 0 else 0,
            "error": self.error,
        }

    # ---- time and word from the engine -----------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self._asked is not None:
            if now - self._asked_at > 2 * self._asked.patience_s:  # our own thread, which looks for a name, perhaps
                self.error = f"no answer for {now - self._asked_at:.1f} s"
        elif now >= self._ask_at:
            self._ask(now)

    def next_deadline(self) -> float:
        return inf if self._asked is not None else self._ask_at

    def answered(self, answer: Answer, now: float) -> None:
        asked = self._asked
        if asked is None or answer.number != asked.number:
            return
        self._asked = None
        if answer.row is None:  # also of a change nobody knows whether it was made: the next look tells
            self.error, self._unwritten = answer.error, asked.stamp is not None
            self._ask_at = now + self.lease_s / RETRIES
            return
        if asked.stamp is not None or not (self._unwritten and self.epoch):
            self.error = ""
        self._fresh_at = now
        self._see(answer.row, now)
        if answer.changed and asked.epoch == self.epoch and not asked.free:
            self.until = self._asked_at + self.lease_s * (1 - MARGIN)
            self._ask_at = self._asked_at + self.lease_s / RENEWALS
        elif self.is_ours or self._again:  # what was in doubt came to be, and is renewed, or let go, at once
            self._ask_at = now
        else:
            self._ask_at = now + self.lease_s / LOOKS
        self._again = False
        if self.epoch and not self.is_ours and answer.row.epoch >= self.epoch:
            self.epoch, self.until = 0, -inf  # somebody else came after us
        self.tick(now)

    def _see(self, row: Row, now: float) -> None:
        before, self.row = self.row, row
        if row != before:
            self._seen_at = now
        if before is not None and row.epoch != before.epoch:  # a lower one: restored, or emptied
            self._forgotten = row.epoch < before.epoch  # the holder may not know yet

    def _ask(self, now: float) -> None:
        self._numbers += 1
        stamp = self.row.stamp if self.row is not None and self._to_change(now) else None
        free = not self.epoch
        epoch = self.known_epoch if free else self.epoch
        patience_s = self.lease_s / RENEWALS
        self._asked = Question(self._numbers, self._me, stamp, epoch, free, self.lease_s, patience_s)
        self._asked_at = now
        self.questions.append(self._asked)

    def _to_change(self, now: float) -> bool:
        if self.is_ours:  # later somebody else's row may have our stamp: an engine that was emptied counts anew
            return now < self.until or self._is_fresh(now)
        if not self.epoch:
            return False
        assert self.row is not None
        # Still within our lease: the engine forgot it, and nobody else may have it before that is over.
        return self.epoch > self.row.epoch and (self.is_free(now) or (self._forgotten and now < self.until))
