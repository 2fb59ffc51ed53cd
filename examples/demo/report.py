"""What the demo measured, as numbers, as a table, and as a verdict. Plain functions of plain data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

OLD, NEW = "1", "2"
LEAST_ACTIVE = 2  # of three nodes: one at a time is away, and a killed process must not take its node along


class Request(NamedTuple):
    """As `load.py --report` wrote it; `due` on the monotonic clock, both in seconds."""

    due: float
    latency: float
    outcome: str
    version: str


class Deploy(NamedTuple):
    begun: float
    ended: float
    exit: int | None
    killed: str  # which process was killed, and as what it came back; empty: none was
    run_again: int = 0  # requests that had started in it, and were run by another one since they are idempotent


class Report(NamedTuple):
    sent: int
    by_version: Counter[str]
    lost: int
    failed: Counter[str]
    old_after: int  # answers of the old version to requests that were due after the deploy
    before: tuple[float, float]  # p50 and p99 in seconds
    during: tuple[float, float]
    stall: float
    active: int | None  # smallest number of active nodes; None: never looked
    deploy: Deploy


def read(path: Path) -> list[Request]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [Request(float(x["due"]), float(x["latency"]), x["outcome"], x["version"]) for x in rows]


def report(requests: Sequence[Request], active: Sequence[int], deploy: Deploy) -> Report:
    answered = [x for x in requests if x.outcome == "ok"]
    outcomes = Counter(x.outcome for x in requests)
    lost = outcomes.pop("lost", 0)
    del outcomes["ok"]
    return Report(
        sent=len(requests),
        by_version=Counter(x.version for x in answered),
        lost=lost,
        failed=outcomes,
        old_after=sum(x.version == OLD for x in answered if x.due > deploy.ended),
        before=_quantiles(x.latency for x in answered if x.due < deploy.begun),
        during=_quantiles(x.latency for x in answered if deploy.begun <= x.due <= deploy.ended),
        stall=longest_stall(sorted(x.due + x.latency for x in answered)),
        active=min(active, default=None),
        deploy=deploy,
    )


def _quantiles(latencies: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(latencies) or [0.0]
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def longest_stall(arrived: Sequence[float]) -> float:
    """The longest time in which no answer came in; `arrived` is in order."""
    return max((later - earlier for earlier, later in pairwise(arrived)), default=0.0)


def table(found: Report) -> str:
    rows = [
        ("requests sent", f"{found.sent:,}"),
        ("answered by version 1", f"{found.by_version[OLD]:,}"),
        ("answered by version 2", f"{found.by_version[NEW]:,}"),
        ("lost", f"{found.lost:,}"),
        ("failed", f"{found.failed.total():,}"),
        ("p50 / p99 before", _milliseconds(*found.before)),
        ("p50 / p99 during", _milliseconds(*found.during)),
        ("longest stall", _milliseconds(found.stall)),
        ("fewest active nodes", "-" if found.active is None else str(found.active)),
        ("killed with SIGKILL", found.deploy.killed or "-"),
        ("run again elsewhere", f"{found.deploy.run_again:,}"),
        ("deploy", f"{found.deploy.ended - found.deploy.begun:.1f} s"),
    ]
    return "\n".join(f"  {name:22} {value}" for name, value in rows)


def _milliseconds(*seconds: float) -> str:
    return " / ".join(f"{1000 * value:.1f}" for value in seconds) + " ms"


def faults(found: Report) -> list[str]:
    """Why this was no rolling update without a loss; empty if it was one."""
    deploy = found.deploy
    checks = [
        (found.lost, f"{found.lost} requests were lost"),
        (found.failed, "requests failed: " + ", ".join(f"{n} × {name}" for name, n in found.failed.items())),
        (not found.by_version[OLD], "version 1 answered nothing"),
        (not found.by_version[NEW], "version 2 answered nothing"),
        (found.old_after and deploy.exit == 0, f"version 1 gave {found.old_after} answers after the deploy"),
        (found.active is None, "the number of active nodes is not known"),
        ((found.active or 0) < LEAST_ACTIVE, f"only {found.active} of 3 nodes were active at some moment"),
        (deploy.exit is None, "the deploy did not end"),
        (deploy.exit, f"the deploy script exited with {deploy.exit}"),
        (not deploy.killed, "no process was killed"),
    ]
    return [sentence for wrong, sentence in checks if wrong]
