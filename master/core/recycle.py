"""Replacing processes that still work: reload, max_requests, max_rss, max_age. One at a time, never below the minimum.

Stop-first where the others can spare it, start-first where they cannot. A replacement that does not come up holds
everything behind it: the rest of the old processes stay.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from ...common.settings import ServiceSettings
from .pool import Pool, Slot, Stage


class Step(StrEnum):
    """What is to be done next about one service's replacement."""

    NOTHING = "nothing"
    START = "start"  # one more process beside the old one
    CLOSE = "close"  # the old one gets nothing new and is retired


class Replacement(NamedTuple):
    """The one replacement of a pool that is under way."""

    old: Slot
    start_first: bool
    before: set[str]  # incarnations of the pool when it began: another one that is ready is the fresh one

    def fresh(self, pool: Pool) -> Slot | None:
        return next((slot for slot in pool.ready() if slot.incarnation not in self.before), None)


def due(pool: Pool, slot: Slot, now: float) -> str:
    """Why this process is to be replaced; empty: it is not."""
    settings = pool.settings
    if slot.incarnation in pool.reload:
        return "reload"
    if settings.max_requests is not None and slot.handled >= settings.max_requests:
        return f"max_requests: {slot.handled} handled"
    if settings.max_rss is not None and slot.rss > settings.max_rss:
        return f"max_rss: {slot.rss >> 20} MiB"
    if settings.max_age is not None and now - slot.ready_at > settings.max_age:
        return f"max_age: {now - slot.ready_at:.0f} s"
    return ""


def reload_is_due(settings: ServiceSettings, since_last_s: float, wall: float) -> bool:
    """By `reload_every`, or since `reload_at` (local time) passed after the last one."""
    if settings.reload_every is not None and since_last_s >= settings.reload_every:
        return True
    if settings.reload_at is None:
        return False
    today = datetime.fromtimestamp(wall)
    at = datetime.combine(today, settings.reload_at)
    if at > today:
        at -= timedelta(days=1)
    return today - timedelta(seconds=since_last_s) < at


def next_replacement(pool: Pool, now: float) -> Replacement | None:
    """The process that is due the longest, and how it is to be done."""
    settings = pool.settings
    if not pool.reload and settings.max_requests is settings.max_rss is settings.max_age is None:
        return None
    candidates = [slot for slot in pool.ready() if slot.open and due(pool, slot, now)]
    if not candidates:
        return None
    old = min(candidates, key=lambda slot: slot.ready_at)
    others = sum(slot.open for slot in pool.slots.values()) - 1
    last_of_node = sum(slot.open for slot in old.node.of(pool)) == 1
    return Replacement(old, others < (settings.min_processes or 1) or last_of_node, set(pool.slots))


def step(replacement: Replacement, pool: Pool, wanted: int) -> Step | None:
    """What to do now; None: it is complete. `wanted`: processes that the plan has for this pool."""
    old = replacement.old
    fresh = replacement.fresh(pool)
    if old.stage is Stage.EXITED:  # the plan may have shrunk meanwhile: then nobody takes its place
        return None if fresh is not None or len(pool.ready()) >= wanted else Step.NOTHING
    if old.stage is not Stage.READY:
        return Step.NOTHING
    if not replacement.start_first or fresh is not None:
        return Step.CLOSE
    return Step.START
