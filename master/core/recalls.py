"""What a process holds and has not begun: taken back while another could begin it, and all of it when a master stops.

An agent that is asked says what its process had started, and has the small replies of what is done: they may wait there
for the next one (docs/decisions/011). What becomes of the rest `losses` decides.
"""

from __future__ import annotations

from ...common import messages
from .dispatch import Dispatch
from .pool import Pool, Slot
from .registry import Node

RECALL_AFTER_S = 0.02  # a process that is busy for longer gives back what is parked behind it
# And one behind whose work nothing is parked gives back what it has not even started: asked once, most have only a long
# handler. So often those are asked again that nobody could take anything over from.
RECALL_SILENT_S = 0.5


class Recalls:
    """Each slot is asked once at a time: its `recall` is the floor that was asked for."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def tick(self, now: float) -> None:
        for pool in self._dispatch.pools.values():
            self._look(pool, now)

    def busy(self) -> bool:
        """Something waits behind others in a process, or did where nothing moves: it may have to be taken back soon."""
        for pool in self._dispatch.pools.values():
            if pool.parked or pool.stalled:
                return True
        return False

    def _look(self, pool: Pool, now: float) -> None:
        """Asks for slots that sit on work while they are busy, or stopped, when another could start it. While no other
        could, for what they have finished: now and again, since they may begin after they were looked at.
        """
        stalled = pool.stalled
        if stalled:
            pool.unstall(now)
            self._dispatch.pump(pool, now)
        late = now - RECALL_AFTER_S
        slow = [s for s in pool.parked if s.progress_at < late]
        missed = now >= pool.look_silent_at and self._dispatch.timers.next_deadline() is not None
        silent = self._long_silent(pool, now) if missed else []
        if not slow and not silent:
            return
        fresh = [s for s in slow if s not in stalled or stalled[s].at < now - RECALL_SILENT_S]
        for slot in (*fresh, *silent):  # else it would get again what it gives back: it has the fewest in flight
            pool.stall(slot, slot.concurrency, now)
        usable = [s for s in pool.slots.values() if s.open and s.limit]
        others = any(not s.inflight or s.progress_at >= late for s in usable)
        for slot in slow:
            if not slot.recall and (others or slot in fresh):
                self.ask(slot, slot.last_number if others else slot.recalled)
        for slot in silent:
            if not slot.recall and any(s is not slot for s in usable):
                self.ask(slot, slot.last_number)

    def _long_silent(self, pool: Pool, now: float) -> list[Slot]:
        """Slots where no request waits behind another, with some that were not asked for, and no news for
        RECALL_SILENT_S. The others are not that long silent before `look_silent_at`, so that a thousand cost two looks
        a second; and none while nobody waits for an answer.
        """
        slots = [s for s in pool.slots.values() if s.inflight and s not in pool.parked]
        unasked = [s for s in slots if next(reversed(s.inflight)) > s.recalled]
        late = now - RECALL_SILENT_S
        first = min((s.progress_at for s in unasked if s.progress_at >= late), default=now)
        pool.look_silent_at = first + RECALL_SILENT_S
        return [s for s in unasked if s.progress_at < late]

    def ask_all(self) -> None:
        for pool in self._dispatch.pools.values():
            for slot in pool.slots.values():
                if slot.inflight:
                    self.ask(slot, slot.last_number)

    def ask(self, slot: Slot, upto: int) -> None:
        slot.recalled = upto
        slot.recall = upto + 1
        recall = messages.Recall(slot.incarnation, upto, since=min(slot.inflight, default=0))
        self._dispatch.out.say(slot.node.route, slot.node.token, recall)

    def answered(self, node: Node, answer: messages.Recalled, now: float) -> None:
        if slot := node.slots.get(answer.incarnation):
            self._dispatch.losses.recalled(slot, answer, now)

    def settled(self) -> bool:
        """Nobody owes an answer: what processes hold now they have begun."""
        return not any(slot.recall for pool in self._dispatch.pools.values() for slot in pool.slots.values())
