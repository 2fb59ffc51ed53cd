"""`python tests/system/failover.py`: what a pair of masters promises, on real processes, and one table.

Every call is written down by its caller and by the process that runs it; the table is what the two say when they are
laid side by side. Exits 1 if anything was missed. Progress goes to stderr. Most of it plays on hosts of its own, in
network namespaces: it takes root.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lan import NoNetwork

from system.result import as_json, nothing, tell, told
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
    print(
        as_json([{**each.result.as_data(), "runs": each.runs} for each in found])
        if options.json
        else table(COLUMNS, [row(each) for each in found], NUMBERS)
    )
    return told([each.result for each in found])


def measure(name: str, runs: int, keep: Path | None, place: str) -> Measured:
    tell(f"{place} {name}, {runs} runs …")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rota-failover-") as made:
        folder = keep / name if keep else Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = SCENARIOS[name].play(folder, runs)
        except NoNetwork as reason:
            found = Measured(0, nothing(name, f"not played: {reason}"))
        except Exception as error:
            tell(traceback.format_exc())
            found = Measured(0, nothing(name, f"did not end: {type(error).__name__}: {error}"))
    tell(f"{place} {name}: {found.result.verdict} after {time.monotonic() - began:.0f} s")
    return found


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


if __name__ == "__main__":
    sys.exit(main())
