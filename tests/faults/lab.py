"""`python tests/faults`: real faults on real processes, and one table.

Every call is written down by its caller and by the process that runs it; the table is what the two say when they are
laid side by side. Exits 1 if anything was lost, executed twice by a default handler, failed although its handler is
idempotent, or missed its limit. What this machine cannot play says so in its row. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from system.table import table

from . import limits, machine, network, nodes, processes
from .play import FAULTS, NOTHING, Fault, NotPlayed, Outcome

__all__ = ["limits", "machine", "main", "network", "nodes", "processes"]  # the modules register what they play

COLUMNS = (
    "FAULT",
    "HANDLER",
    "SUBMITTED",
    "REPLIED",
    "FAULTS BY CLASS",
    "TWICE",
    "LOST",
    "DETECTED p50/max",
    "OUTAGE",
    "VERDICT",
    "NOTE",
)
NUMBERS = {"SUBMITTED", "REPLIED", "TWICE", "LOST", "OUTAGE", "DETECTED p50/max"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10, help="how often each is played; 1 is what the tests do (10)")
    parser.add_argument("--long", action="store_true", help="also what takes ten minutes each")
    parser.add_argument("--list", action="store_true", help="the names, and what they play")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="by name; default: all that are not long")
    options = parser.parse_args(arguments)
    if options.list:
        print(table(("NAME", "FAULT", ""), [(f.name, f.title, "long" if f.long else "") for f in FAULTS.values()]))
        return 0
    unknown = [name for name in options.faults if name not in FAULTS]
    if unknown:
        parser.error(f"there is no fault {', '.join(unknown)}; --list shows those there are")
    names = options.faults or [name for name, each in FAULTS.items() if options.long or not each.long]
    begun = time.monotonic()
    rows = []
    for place, name in enumerate(names, 1):
        rows += play(FAULTS[name], max(1, options.rounds), f"{place}/{len(names)}")
    print(as_json(rows) if options.json else table(COLUMNS, [shown(row) for row in rows], NUMBERS))
    tell(summary(rows, time.monotonic() - begun))
    return 1 if any(row.misses for row in rows) else 0


def play(fault: Fault, rounds: int, place: str) -> list[Outcome]:
    tell(f"{place} {fault.name}: {fault.title} …")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rota-faults-") as folder:
        try:
            rows = fault.play(Path(folder), rounds)
        except NotPlayed as reason:
            rows = [Outcome(fault.title, "-", NOTHING, [], 0.0, "", [], f"not played: {reason}")]
        except Exception as error:
            tell(traceback.format_exc())
            sentence = f"did not end: {type(error).__name__}: {(str(error).splitlines() or [''])[-1]}"
            rows = [Outcome(fault.title, "-", NOTHING, [], 0.0, "", [sentence])]
    tell(f"{place} {fault.name}: {', '.join(row.verdict for row in rows)} after {time.monotonic() - begun:.0f} s")
    for row in rows:
        for miss in row.misses:
            tell(f"  {row.handler}: {miss}")
    return rows


def shown(row: Outcome) -> tuple[str, ...]:
    found = row.findings
    return (
        row.fault,
        row.handler,
        f"{found.submitted:,}",
        f"{found.answered:,}",
        ", ".join(f"{count} {name}" for name, count in found.faults.items()) or "0",
        str(len(found.twice)),
        str(len(found.lost)),
        f"{milliseconds(statistics.median(row.detected))} / {milliseconds(max(row.detected))}" if row.detected else "-",
        milliseconds(row.outage),
        row.verdict,
        row.not_played or row.figure,
    )


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def summary(rows: Sequence[Outcome], seconds: float) -> str:
    found = [row.findings for row in rows]
    failed = sum(row.findings.failed for row in rows if row.handler == "idempotent")
    text = (
        f"{sum(each.submitted for each in found):,} submitted, {sum(each.answered for each in found):,} replied, "
        f"{sum(each.failed for each in found):,} faults; lost {sum(len(each.lost) for each in found)}, "
        f"executed twice {sum(len(each.twice) for each in found)}, idempotent and failed {failed}; "
        f"{sum(bool(row.misses) for row in rows)} rows missed something; {seconds:.0f} s"
    )
    return "\n".join([text, *(f"{row.fault}: {row.not_played}" for row in rows if row.not_played)])


def as_json(rows: Sequence[Outcome]) -> str:
    return json.dumps({"schema": 1, "ok": not any(row.misses for row in rows), "rows": list(map(_map, rows))}, indent=1)


def _map(row: Outcome) -> dict[str, object]:
    found = row.findings
    return {
        "fault": row.fault,
        "handler": row.handler,
        "submitted": found.submitted,
        "replied": found.answered,
        "faults": dict(found.faults),
        "executed_twice": len(found.twice),
        "lost": len(found.lost),
        "wrong": found.wrong,
        "detected_p50_s": statistics.median(row.detected) if row.detected else None,
        "detected_max_s": max(row.detected, default=None),
        "outage_s": row.outage,
        "verdict": row.verdict,
        "note": row.not_played or row.figure,
        "misses": row.misses,
    }


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
