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


class HttpCell(NamedTuple):
    """One load over HTTP: what is asked for, a key of http_systems.CASES, and over how many connections."""

    case: str
    connections: int
    title: str

    def __str__(self) -> str:
        return f"{self.title}, {self.connections} connections"


AnyCell = Cell | HttpCell


class Sample(NamedTuple):
    """What one system did in one cell of one round. CPU in microseconds a request by group."""

    system: str
    cell: AnyCell
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
    """A figure that must be reached: at least `bound` if it is a ratio of requests/s, else at most."""

    name: str
    cell: AnyCell
    bound: float
    versus: str | None  # the system to divide by; None: CPU of the master's own thread
    system: str = "rota"
    field: str = "per_second"  # of the samples

    @property
    def text(self) -> str:
        if self.field == "p99_ms":
            return f"{self.cell}: p99 at most {self.bound:g} x that of {self.versus}"
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


def ratios(
    samples: Sequence[Sample], system: str, cell: AnyCell, versus: str, field: str = "per_second"
) -> list[float]:
    """Requests/s, or another figure, of one system over another's, round by round: the machine's drift cancels."""
    rates = {(sample.system, sample.round): getattr(sample, field) for sample in samples if sample.cell == cell}
    return [
        rate / rates[versus, turn] for (name, turn), rate in rates.items() if name == system and (versus, turn) in rates
    ]


def own_thread(samples: Sequence[Sample], system: str, cell: AnyCell) -> list[float]:
    return [
        sample.own_us["master"]
        for sample in samples
        if sample.system == system and sample.cell == cell and "master" in sample.own_us
    ]


def verdicts(samples: Sequence[Sample], floors: Sequence[Floor] = FLOORS) -> list[Verdict]:
    return [verdict(floor, samples) for floor in floors]


def verdict(floor: Floor, samples: Sequence[Sample]) -> Verdict:
    if floor.versus:
        found = spread(ratios(samples, floor.system, floor.cell, floor.versus, floor.field))
    else:
        found = spread(own_thread(samples, floor.system, floor.cell))
    if floor.versus and floor.field == "per_second":
        reached = found is not None and found.median >= floor.bound
    else:
        reached = found is not None and found.median <= floor.bound
    return Verdict(floor, found.median if found else None, reached)


def median_of(samples: Sequence[Sample], field: str, group: str | None = None) -> float | None:
    values = [getattr(sample, field) for sample in samples]
    if group is not None:
        values = [value[group] for value in values if group in value]
    return statistics.median(values) if values else None


class Column(NamedTuple):
    """One figure of a table: the median of a field of the samples, or of one group in it."""

    heading: str
    field: str
    group: str | None = None
    width: int = 9
    digits: int = 1


RATES = (Column("p50 ms", "p50_ms", digits=2), Column("p99 ms", "p99_ms", digits=2))
COLUMNS = (
    *RATES,
    Column("client", "cpu_us", "client"),
    Column("master", "cpu_us", "master"),
    Column("own", "own_us", "master", width=8),
    Column("process", "cpu_us", "process"),
)
NAME = 20


def table(
    samples: Sequence[Sample],
    cell: AnyCell,
    systems: Sequence[str],
    columns: Sequence[Column] = COLUMNS,
    baseline: str = BASELINE,
) -> str:
    """One cell of the run; all but the first columns are CPU in microseconds a request."""
    headings = "".join(f"{column.heading:>{column.width}}" for column in columns)
    lines = [f"{cell}   (behind p99: us of CPU a request)"]
    lines.append(f"{'':{NAME}}{'requests/s':>11}{'ratio (min..max)':>21}{headings}")
    for system in systems:
        own = [sample for sample in samples if sample.system == system and sample.cell == cell]
        if own:
            lines.append(_row(system, own, spread(ratios(samples, system, cell, baseline)), columns))
    return "\n".join(lines)


def _row(system: str, own: Sequence[Sample], ratio: Spread | None, columns: Sequence[Column]) -> str:
    compared = f"{ratio.median:.2f} ({ratio.low:.2f}..{ratio.high:.2f})" if ratio else "-"
    figures = (_number(median_of(own, each.field, each.group), each.width, each.digits) for each in columns)
    return f"{system:{NAME}}{_number(median_of(own, 'per_second'), 11, 0)}{compared:>21}{''.join(figures)}"


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
