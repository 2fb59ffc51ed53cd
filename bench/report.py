"""From samples to tables and verdicts. Plain arithmetic: no process, no clock, no socket."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

BASELINE = "textbook"


class Cell(NamedTuple):
    """One load: payload bytes and requests kept in flight."""

    size: int
    in_flight: int

    def __str__(self) -> str:
        return f"{readable(self.size)}, {self.in_flight} in flight"


class Sample(NamedTuple):
    """What one system did in one cell of one round. CPU in microseconds a request by group."""

    system: str
    cell: Cell
    round: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    own_us: dict[str, float]


class Spread(NamedTuple):
    median: float
    low: float
    high: float


class Floor(NamedTuple):
    """A figure that must be reached: at least `bound` if it is a ratio, else at most."""

    name: str
    cell: Cell
    bound: float
    versus: str | None  # the system to divide by; None: CPU of the master's own thread

    @property
    def text(self) -> str:
        if self.versus:
            return f"{self.cell}: at least {self.bound:g} x {self.versus}"
        return f"{self.cell}: master's own thread at most {self.bound:g} us a request"


class Verdict(NamedTuple):
    floor: Floor
    value: float | None  # None: not measured
    reached: bool


SMALL, LARGE = 128, 65536
FLOORS = (
    Floor("echo", Cell(SMALL, 32), 1.5, BASELINE),
    Floor("echo", Cell(SMALL, 256), 1.5, BASELINE),
    Floor("echo", Cell(SMALL, 32), 4.0, "executor"),
    Floor("echo", Cell(SMALL, 256), 4.0, "executor"),
    Floor("large", Cell(LARGE, 32), 0.9, BASELINE),
    Floor("large", Cell(LARGE, 256), 0.9, BASELINE),
    Floor("master", Cell(SMALL, 32), 22.0, None),
    Floor("master", Cell(SMALL, 256), 15.0, None),
)


def readable(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 and size % 1024 == 0 else f"{size} B"


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed (nearest rank)."""
    rank = -(-len(ascending) * share // 1)  # ceiling
    return ascending[min(len(ascending), max(1, int(rank))) - 1]


def spread(values: Iterable[float]) -> Spread | None:
    found = list(values)
    return Spread(statistics.median(found), min(found), max(found)) if found else None


def ratios(samples: Sequence[Sample], system: str, cell: Cell, versus: str) -> list[float]:
    """Requests/s of one system over another's, round by round: the machine's drift cancels."""
    rates = {(sample.system, sample.round): sample.per_second for sample in samples if sample.cell == cell}
    return [
        rate / rates[versus, turn] for (name, turn), rate in rates.items() if name == system and (versus, turn) in rates
    ]


def own_thread(samples: Sequence[Sample], system: str, cell: Cell) -> list[float]:
    return [
        sample.own_us["master"]
        for sample in samples
        if sample.system == system and sample.cell == cell and "master" in sample.own_us
    ]


def verdicts(samples: Sequence[Sample], system: str = "rota") -> list[Verdict]:
    return [verdict(floor, samples, system) for floor in FLOORS]


def verdict(floor: Floor, samples: Sequence[Sample], system: str) -> Verdict:
    if floor.versus:
        found = spread(ratios(samples, system, floor.cell, floor.versus))
        reached = found is not None and found.median >= floor.bound
    else:
        found = spread(own_thread(samples, system, floor.cell))
        reached = found is not None and found.median <= floor.bound
    return Verdict(floor, found.median if found else None, reached)


def median_of(samples: Sequence[Sample], field: str, group: str | None = None) -> float | None:
    values = [getattr(sample, field) for sample in samples]
    if group is not None:
        values = [value[group] for value in values if group in value]
    return statistics.median(values) if values else None


HEAD = (
    f"{'':12}{'requests/s':>11}{'ratio (min..max)':>21}{'p50 ms':>9}{'p99 ms':>9}"
    f"{'client':>9}{'master':>9}{'own':>8}{'process':>9}"
)


def table(samples: Sequence[Sample], cell: Cell, systems: Sequence[str]) -> str:
    """One cell of the run; the last four columns are CPU in microseconds a request."""
    lines = [f"{cell}   (last four columns: us of CPU a request)", HEAD]
    for system in systems:
        own = [sample for sample in samples if sample.system == system and sample.cell == cell]
        if own:
            lines.append(_row(system, own, spread(ratios(samples, system, cell, BASELINE))))
    return "\n".join(lines)


def _row(system: str, own: Sequence[Sample], ratio: Spread | None) -> str:
    compared = f"{ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f})" if ratio else "-"
    return (
        f"{system:12}{_number(median_of(own, 'per_second'), 11, 0)}{compared:>21}"
        f"{_number(median_of(own, 'p50_ms'), 9, 2)}{_number(median_of(own, 'p99_ms'), 9, 2)}"
        f"{_number(median_of(own, 'cpu_us', 'client'), 9)}"
        f"{_number(median_of(own, 'cpu_us', 'master'), 9)}"
        f"{_number(median_of(own, 'own_us', 'master'), 8)}"
        f"{_number(median_of(own, 'cpu_us', 'process'), 9)}"
    )


def _number(value: float | None, width: int, digits: int = 1) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width},.{digits}f}"


def verdict_lines(found: Sequence[Verdict]) -> list[str]:
    return [f"{_word(one):12} {one.floor.text}{_reading(one)}" for one in found]


def _word(one: Verdict) -> str:
    if one.value is None:
        return "not measured"
    return "reached" if one.reached else "MISSED"


def _reading(one: Verdict) -> str:
    return "" if one.value is None else f": {one.value:.2f}"


def as_json(samples: Sequence[Sample], found: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "schema": 1,
        "samples": [{**one._asdict(), "cell": one.cell._asdict()} for one in samples],
        "verdicts": [{"floor": one.floor.text, "value": one.value, "reached": one.reached} for one in found],
    }
