"""`python tests/system/failover.py`: what a pair of masters promises, on real processes, and one table.

Every call is written down by its caller and by the process that runs it; the table is what the two say when they are
laid side by side. Exits 1 if anything was missed. Progress goes to stderr. Most of it plays on hosts of its own, in
network namespaces: it takes root.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lan import NoNetwork

from system.ledger import Findings
from system.result import Result
from system.table import table
from system.takeovers import SCENARIOS, Measured

COLUMNS = ("SCENARIO", "RUNS", "ANSWERED", "MAYBE", "OTHER FAULTS", "LOST", "TWICE", "FIGURE", "LIMIT", "VERDICT")
NUMBERS = {"RUNS", "ANSWERED", "MAYBE", "LOST", "TWICE"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, help="of each scenario (default: as many as are promised)")
    parser.add_argument(
        "--share", type=float, default=1.0, help="so much of the default number of runs, at least one (1)"
    )
    parser.add_argument("--keep", type=Path, help="folder for what masters and nodes said")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("scenarios", nargs="*", help=f"default: all of {', '.join(SCENARIOS)}")
    options = parser.parse_args()
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    names = options.scenarios or list(SCENARIOS)
    found = []
    for place, name in enumerate(names, 1):
        runs = options.runs or max(1, round(SCENARIOS[name].runs * options.share))
        found.append(measure(name, runs, options.keep, f"{place}/{len(names)}"))
    print(as_json(found) if options.json else table(COLUMNS, [row(each) for each in found], NUMBERS))
    for each in found:
        for miss in each.result.misses:
            tell(f"{each.result.scenario}: {miss}")
    return 1 if any(each.result.misses for each in found) else 0


def measure(name: str, runs: int, keep: Path | None, place: str) -> Measured:
    tell(f"{place} {name}, {runs} runs …")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rota-failover-") as made:
        folder = keep / name if keep else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = SCENARIOS[name].play(folder, runs)
        except NoNetwork as reason:
            found = _nothing(name, f"not played: {reason}")
        except Exception as error:
            tell(traceback.format_exc())
            found = _nothing(name, f"did not end: {type(error).__name__}: {error}")
    tell(f"{place} {name}: {found.result.verdict} after {time.monotonic() - began:.0f} s")
    return found


def _nothing(name: str, why: str) -> Measured:
    return Measured(0, Result(name, Findings(0, 0, Counter(), [], [], []), "", "", [why]))


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(measured: Measured) -> tuple[str, ...]:
    found = measured.result.findings
    others = ", ".join(f"{count} {name}" for name, count in found.faults.items() if name != "MaybeExecuted")
    return (
        measured.result.scenario,
        str(measured.runs),
        f"{found.answered:,}",
        str(found.faults["MaybeExecuted"]),
        others or "0",
        str(len(found.lost)),
        str(len(found.twice)),
        measured.result.figure,
        measured.result.limit,
        measured.result.verdict,
    )


def as_json(found: list[Measured]) -> str:
    rows = [
        {
            "scenario": result.scenario,
            "runs": runs,
            "submitted": result.findings.submitted,
            "answered": result.findings.answered,
            "faults": dict(result.findings.faults),
            "lost": len(result.findings.lost),
            "executed_twice": len(result.findings.twice),
            "wrong": result.findings.wrong,
            "figure": result.figure,
            "limit": result.limit,
            "verdict": result.verdict,
            "misses": result.misses,
        }
        for runs, result in found
    ]
    return json.dumps({"schema": 1, "ok": not any(row["misses"] for row in rows), "scenarios": rows}, indent=1)


if __name__ == "__main__":
    sys.exit(main())
