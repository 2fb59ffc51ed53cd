"""What clients saw while the active master changed: a picture, a table, a verdict. Plain functions of plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from report import Request, longest_stall

BAR_S = 0.1
SHOWN_S = (-1.0, 3.0)  # around a change
BARS = " ▁▂▃▄▅▆▇█"
TAKEOVER_S, SWITCHOVER_S = 3.0, 0.5  # longest stall: of a takeover, of a switchover (it promises 250 ms)


class Change(NamedTuple):
    """`at`: monotonic. Names and epochs of who was active before and after it."""

    what: str
    at: float
    before: str
    epoch_before: int
    after: str
    epoch: int
    state: str


class Phase(NamedTuple):
    """The requests that were due around a change, and nearer to it than to any other."""

    change: Change
    sent: int
    answered: int
    maybe: int
    lost: int
    failed: Counter[str]
    stall: float
    bars: list[int]  # answers in each tenth of a second


class Report(NamedTuple):
    phases: list[Phase]
    granted: int
    twice: list[str]  # customers with more than one loan
    missing: list[str]  # customers who were told a number, and the book does not show it


def report(requests: Sequence[Request], changes: Sequence[Change], granted: Mapping[str, int]) -> Report:
    """Request number N is of `customer-N`, and grants a loan if N is odd. `granted`: what the book shows."""
    told = [f"customer-{n}" for n, request in enumerate(requests) if n % 2 and request.outcome == "ok"]
    bounds = [0.0, *((one.at + other.at) / 2 for one, other in pairwise(changes)), float("inf")]
    return Report(
        phases=[
            _phase(change, [x for x in requests if begin <= x.due < end])
            for change, (begin, end) in zip(changes, pairwise(bounds), strict=True)
        ],
        granted=sum(granted.values()),
        twice=[customer for customer, count in granted.items() if count > 1],
        missing=[customer for customer in told if customer not in granted],
    )


def _phase(change: Change, requests: Sequence[Request]) -> Phase:
    outcomes = Counter(x.outcome for x in requests)
    arrived = sorted(x.due + x.latency for x in requests if x.outcome == "ok")
    bars = [0] * round((SHOWN_S[1] - SHOWN_S[0]) / BAR_S)
    for at in arrived:
        place = int((at - change.at - SHOWN_S[0]) // BAR_S)
        if 0 <= place < len(bars):
            bars[place] += 1
    maybe, lost, answered = (outcomes.pop(name, 0) for name in ("MaybeExecuted", "lost", "ok"))
    return Phase(change, len(requests), answered, maybe, lost, outcomes, longest_stall(arrived), bars)


def picture(found: Report) -> str:
    lines = ["  answers in each tenth of a second, from one second before it to three seconds after it"]
    lines.append("  " + "|".rjust(round(-SHOWN_S[0] / BAR_S) + 1))
    for phase in found.phases:
        high = sorted(phase.bars)[len(phase.bars) // 2] or max(phase.bars) or 1
        drawn = "".join(BARS[min(len(BARS) - 1, -(-count * (len(BARS) - 2) // high))] for count in phase.bars)
        lines.append(f"  {drawn}  {phase.change.what}")
    return "\n".join(lines)


def table(found: Report) -> str:
    phases = found.phases
    rows = [
        ("", [phase.change.what for phase in phases]),
        ("requests", [f"{phase.sent:,}" for phase in phases]),
        ("answered", [f"{phase.answered:,}" for phase in phases]),
        ("MaybeExecuted", [str(phase.maybe) for phase in phases]),
        ("failed", [str(phase.failed.total()) for phase in phases]),
        ("lost", [str(phase.lost) for phase in phases]),
        ("longest stall", [f"{phase.stall * 1000:,.0f} ms" for phase in phases]),
        ("active before", [f"{phase.change.before}, epoch {phase.change.epoch_before}" for phase in phases]),
        ("active after", [f"{phase.change.after}, epoch {phase.change.epoch}" for phase in phases]),
    ]
    width = max(len(cell) for _, cells in rows for cell in cells) + 3
    lines = [f"  {name:22}" + "".join(cell.ljust(width) for cell in cells) for name, cells in rows]
    lines.append(f"  {'loans granted':22}{found.granted:,}")
    lines.append(f"  {'granted twice':22}{len(found.twice)}")
    return "\n".join(line.rstrip() for line in lines)


def faults(found: Report) -> list[str]:
    """Which promise was broken; empty if none was."""
    checks: list[tuple[object, str]] = [
        (found.twice, f"{len(found.twice)} loans were granted twice: {', '.join(found.twice[:5])}"),
        (found.missing, f"{len(found.missing)} customers have a number of a loan that is not in the book"),
        (len(found.phases) < 2, "the active master was not changed twice"),
    ]
    for phase, limit in zip(found.phases, (TAKEOVER_S, SWITCHOVER_S), strict=False):
        change = phase.change
        failed = ", ".join(f"{count} × {name}" for name, count in phase.failed.items())
        checks += [
            (phase.lost, f"{change.what}: {phase.lost} requests were lost"),
            (phase.failed, f"{change.what}: requests failed: {failed}"),
            (not phase.answered, f"{change.what}: nothing was answered"),
            (phase.stall > limit, f"{change.what}: nothing was answered for {phase.stall:.2f} s"),
            (change.after == change.before, f"{change.what}: {change.before} is still the active master"),
            (change.epoch <= change.epoch_before, f"{change.what}: no later epoch"),
            (change.state != "active", f"{change.what}: {change.after} is {change.state}"),
        ]
    planned = found.phases[1:2]
    checks.append((planned and planned[0].maybe, "the switchover left calls whose outcome nobody knows"))
    return [sentence for wrong, sentence in checks if wrong]
