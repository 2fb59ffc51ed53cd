"""What `rota status` shows, as plain maps; the shape is in docs/PROTOCOL.md, "Verbs"."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...common.lifecycle import Intent
from .fleet import Fleet
from .pool import Pool, Slot
from .registry import Node, active_nodes, why


def services(fleet: Fleet, now: float) -> list[dict[str, Any]]:
    return [_service(pool, fleet, now) for _, pool in sorted(fleet.dispatch.pools.items())]


def nodes(fleet: Fleet, now: float) -> list[dict[str, Any]]:
    return [_node(node, now) for _, node in sorted(fleet.nodes.items())]


def _service(pool: Pool, fleet: Fleet, now: float) -> dict[str, Any]:
    dispatch, (least, most) = fleet.dispatch, fleet.staff.bounds(pool)
    ready = pool.ready()
    return {
        "name": pool.name,
        "target": most if fleet.staff.fixed(pool) else pool.target or 0,
        "min": least,
        "max": most,
        "fixed": fleet.staff.fixed(pool),
        "processes": len(pool.slots),
        "ready": len(ready),
        "open": sum(slot.open for slot in ready),
        "in_flight": sum(len(slot.inflight) for slot in pool.slots.values()),
        "queued": dispatch.queued(pool),
        "pinned": len(pool.pinned),
        "oldest_wait_ms": int(1000 * max((now - each.queued_at for each in dispatch.waiting(pool)), default=0.0)),
        "active_nodes": len(active_nodes(fleet.nodes, pool, now)),
        "min_active": pool.settings.min_active,
        "credit": pool.credit,
        "p95_ms": pool.p95_us / 1000,
        "retries_left": pool.retries_left(now),
        "versions": dict(Counter(slot.version for slot in ready)),
        "handlers": sorted(pool.handlers),
        "reloading": fleet.staff.reloading(pool),
        "quarantined": dispatch.quarantine.quarantined(pool),
        "sessions": dispatch.pins.sessions[pool.name],
        "paused": pool.pause.status(now) if pool.pause is not None else None,
    }


def _node(node: Node, now: float) -> dict[str, Any]:
    return {
        "name": node.name,
        "boot": node.boot,
        "intent": str(node.intent),
        "liveness": str(node.liveness),
        "health": str(node.health),
        "ramp": min((node.ramp(pool, now) for pool in node.pools()), default=1.0),
        "since_s": now - node.since,
        "by": node.by,
        "reason": node.reason,
        "generation": node.generation,
        "until_s": None if (until := _until(node)) is None else max(0.0, until - now),
        "why": why(node, now),
        "capacity": node.capacity,
        "in_flight": node.in_flight(),
        "offers": node.offers,
        "tags": node.tags,
        "versions": node.versions(),
        "processes": [_process(slot, now) for slot in node.slots.values()],
        "failing": [failing._asdict() for failing in node.failing.values()],
    }


def _until(node: Node) -> float | None:
    """When its state ends by itself: a drain, the blacklist, a trial."""
    return node.drain_until if node.intent is Intent.DRAINING else node.mark.until


def blacklist(fleet: Fleet, now: float) -> dict[str, Any]:
    """Who is ill, what operators have disabled, and which services are in a panic."""
    return {
        "nodes": [_ill(node, now) for _, node in sorted(fleet.nodes.items()) if node.is_marked(now)],
        "disabled": sorted(fleet.checks.exempt),
        "panics": [
            {"service": name, "text": falls.text, "until_s": falls.until - now}
            for name, falls in sorted(fleet.checks.falls.items())
            if falls.panic(now)
        ],
    }


def _ill(node: Node, now: float) -> dict[str, Any]:
    mark = node.mark
    return {
        "node": node.name,
        "health": str(node.health),
        "service": mark.service,
        "cause": mark.cause,
        "times": mark.times(now),
        "since_s": now - node.since,
        "until_s": None if mark.until is None else max(0.0, mark.until - now),
    }


def _process(slot: Slot, now: float) -> dict[str, Any]:
    return {
        "incarnation": slot.incarnation,
        "service": slot.pool.name,
        "state": str(slot.stage) + (f" ({slot.retire_reason})" if slot.retire_reason else ""),
        "pid": slot.pid,
        "version": slot.version,
        "in_flight": len(slot.inflight),
        "handled": slot.handled,
        "rss": slot.rss,
        "age_s": now - slot.born_at,
    }
