"""Which nodes have told what an older master had dispatched to them: while one has not, nobody knows what never ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...common import messages
from . import records
from .pool import Slot
from .recollection import AGE_MAX_S, Told
from .registry import Node

if TYPE_CHECKING:
    from .fleet import Fleet

LEFT_FOR_S = 1.1 * AGE_MAX_S  # for so long after a node has left it matters that nobody remembers what it did


class Census:
    """Each method is something that somebody has told, or will never tell."""

    def __init__(self, fleet: Fleet, now: float) -> None:
        self._fleet = fleet
        self._inherited = fleet.dispatch.inherited
        self._recollection = fleet.dispatch.inherited.recollection
        self._began = now
        self._must_tell: set[str] = set()  # nodes that an older master dispatched to and that have not told yet
        self._left: dict[str, float] = {}  # nodes that are on record as gone not long ago, until when

    def restore(self, restored: records.Restored) -> None:
        self._must_tell = set(restored.present)
        if restored.left:  # whatever they did
            self._recollection.lost(self._began)
            self._left = dict.fromkeys(restored.left, self._began + LEFT_FOR_S)

    def waits_for(self, node: Node) -> bool:
        return node.name in self._must_tell

    def agent_told(self, node: Node, hello: messages.AgentHello, now: float) -> None:
        if self.waits_for(node):
            self._recollection.agent_told(hello.ended_ms, hello.up_ms, now)
        self._left.pop(node.name, None)

    def process_told(self, slot: Slot, hello: messages.ProcessHello, now: float) -> None:
        """What it remembers. To be called before its first HELLO here has given it a token."""
        if not slot.token and self.waits_for(slot.node):
            self._recollection.process_told(hello.done, hello.done_ms, now)

    def process_ended(self, slot: Slot, report: messages.Exited, now: float) -> None:
        """A process that never said HELLO here takes what it remembered with it."""
        if not slot.token and report.started_upto:
            self._recollection.lost(now)

    def process_lost(self, slot: Slot, now: float) -> None:
        """A process is gone, and nobody knows whether it had begun anything."""
        if not slot.token and self.waits_for(slot.node):
            self._recollection.lost(now)

    def look(self, node: Node, now: float) -> None:
        """A node has told when all the processes that it named have said HELLO or ended."""
        if self.waits_for(node) and all(slot.token for slot in node.slots.values()):
            self._must_tell.discard(node.name)
            self._inherited.reconsider(now)

    def left(self, node: Node, now: float) -> None:
        """The node said goodbye: it will not tell any more."""
        self._must_tell.discard(node.name)
        self._left[node.name] = now + LEFT_FOR_S

    def forgotten(self, node: Node, now: float) -> None:
        """An operator has given the node up. It may be running what it was given, and what it had to tell is lost."""
        if self.waits_for(node):
            self._recollection.lost(now)
        self.left(node, now)

    def tick(self, now: float) -> None:
        for name in [name for name, until in self._left.items() if now >= until]:
            del self._left[name]
            self._fleet.journal(records.past(name))
        if now > self._began + 2 * AGE_MAX_S:  # whoever asks now for what an older master had asks too late
            self._recollection.done.clear()

    def told(self, older: bool, now: float) -> Told:
        """How much is told of what an older master may have dispatched. `older`: asked for a caller who had known such
        a master; without a journal nobody else knows that there was one.
        """
        settings = self._fleet.dispatch.settings
        if not self._must_tell and (settings.state or not older):
            return Told.ALL
        awaited = now < max(self._began + settings.dead_after + 1.0, self._fleet.patient_until)
        return Told.NOT_YET if awaited else Told.NEVER
