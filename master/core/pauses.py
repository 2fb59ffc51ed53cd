"""Services whose requests are held for a while: what is behind them is being switched (docs/PROTOCOL.md, "paused").

A pause always has an end: one that an operator forgot is worse than the error that it was to avoid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ...common.units import plural
from . import records

if TYPE_CHECKING:
    from .fleet import Fleet
    from .pool import Pool


class Pause(NamedTuple):
    """`since`, `until`: monotonic. `by`, `reason`: for operators."""

    since: float
    until: float
    by: str
    reason: str

    def status(self, now: float) -> dict[str, Any]:
        return {"since_s": now - self.since, "left_s": self.until - now, "by": self.by, "reason": self.reason}


class Pauses:
    """The services that are paused, by name: after a restart one may be that no node has offered yet."""

    def __init__(self, fleet: Fleet) -> None:
        self.held: dict[str, Pause] = {}
        self._fleet = fleet

    def restore(self, recorded: dict[str, records.Paused], now: float) -> None:
        """Goes on holding what an older master held for what is left by the time of day, and never longer than was
        said. The first tick ends what was over before, and with it its record.
        """
        for service, paused in recorded.items():
            left = max(0.0, min(paused.for_s, paused.until - self._fleet.wall()))
            self.held[service] = Pause(now, now + left, paused.by, paused.reason)
            if left:
                text = f"{service}: requests are still held, for {left:.1f} s"
                self._fleet.events.tell("service paused", service, text, paused.by, paused.reason)

    def pause(self, pool: Pool, for_s: float, by: str, reason: str, now: float) -> int:
        """Holds its requests for so long from now, whatever was said before. Answers the number of the record."""
        before = self.held.get(pool.name)
        pause = self.held[pool.name] = Pause(before.since if before else now, now + for_s, by, reason)
        pool.hold(pause)
        text = f"{pool.name}: requests are held for {for_s:g} s; {self.in_flight(pool)} in flight go on"
        self._fleet.events.tell("service paused", pool.name, text, by, reason)
        paused = records.Paused(for_s, self._fleet.wall() + for_s, by, reason)
        return self._fleet.journal(records.paused(pool.name, paused))

    def resume(self, service: str, why: str, by: str, reason: str, now: float) -> int:
        """Dispatches what was held, the oldest first. Answers the number of the record; 0 if it was not paused."""
        if self.held.pop(service, None) is None:
            return 0
        pool = self._fleet.dispatch.pools.get(service)
        held = pool.queued if pool is not None else 0
        self._fleet.events.tell(
            "service resumed", service, f"{service}: {why}; it held {plural(held, 'request')}", by, reason
        )
        if pool is not None:
            pool.release(now)
            self._fleet.dispatch.pump(pool, now)
        return self._fleet.journal(records.paused(service, None))

    def tick(self, now: float) -> None:
        for service, pause in list(self.held.items()):
            if now >= pause.until:
                self.resume(service, "its pause was over", "", "", now)

    def alarms(self, now: float) -> Iterator[str]:
        for service, pause in self.held.items():
            pool = self._fleet.dispatch.pools.get(service)
            held = pool.queued if pool is not None else 0
            by, because = f" by {pause.by}" if pause.by else "", f": {pause.reason}" if pause.reason else ""
            left = f"it holds {plural(held, 'request')}; it ends in {max(0.0, pause.until - now):.0f} s"
            yield f"{service} is paused{by}{because}; {left}, or with `rota resume {service}`"

    def in_flight(self, pool: Pool) -> int:
        """Requests, also those that an older master dispatched; not health checks."""
        prober = self._fleet.dispatch.prober
        return sum(request.session is not prober for slot in pool.slots.values() for request in slot.inflight.values())
