"""A move on the axis of liveness, of a node or of another master: LIVE, DEAD and CLOSE are told."""

from __future__ import annotations

from ...common import lifecycle
from ...common.lifecycle import IllegalTransition, Liveness
from .events import EventLog
from .outbox import Notify


def moved(before: Liveness, event: str, subject: str, title: str, events: EventLog) -> tuple[Liveness, list[Notify]]:
    """The state after the event, the same one if it does not know this event; and, of an edge, what those are told who
    are notified of masters.
    """
    try:
        after = lifecycle.step(lifecycle.LIVENESS, before, event)
    except IllegalTransition:
        return before, []
    edge = lifecycle.edge(before, after)
    if edge is None:
        return after, []
    text = f"{title}: {before} → {after}"
    events.tell(edge, subject, text)
    return after, [Notify(edge.lower(), subject, text)]
