"""`python tests/system/prove.py`: the promises, longer and harder than the tests play them, and one table.

Every call is written down by its caller and by the process that runs it; the table is what the two say when they are
laid side by side. Exits 1 if anything was missed. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from system.result import Result, as_json, nothing, tell, told
from system.scenarios import SCENARIOS
from system.table import table

COLUMNS = ("SCENARIO", "SUBMITTED", "ANSWERED", "FAULTS", "LOST", "TWICE", "FIGURE", "LIMIT", "VERDICT")
NUMBERS = {"SUBMITTED", "ANSWERED", "LOST", "TWICE"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how hard: 1 is what the tests play (3)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("scenarios", nargs="*", help=f"default: all of {', '.join(SCENARIOS)}")
    options = parser.parse_args()
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    names = options.scenarios or list(SCENARIOS)
    results = [
        prove(name, SCENARIOS[name], options.rounds, f"{place}/{len(names)}") for place, name in enumerate(names, 1)
    ]
    print(
        as_json([each.as_data() for each in results])
        if options.json
        else table(COLUMNS, [row(result) for result in results], NUMBERS)
    )
    return told(results)


def prove(name: str, scenario: Callable[..., Result], rounds: int, place: str) -> Result:
    tell(f"{place} {name} …")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rota-prove-") as folder:
        try:
            result = scenario(Path(folder), rounds)
        except Exception as error:
            tell(traceback.format_exc())
            result = nothing(name, f"did not end: {type(error).__name__}: {error}")
    tell(f"{place} {name}: {result.verdict} after {time.monotonic() - begun:.0f} s")
    return result


def row(result: Result) -> tuple[str, ...]:
    found = result.findings
    faults = ", ".join(f"{count} {name}" for name, count in found.faults.items()) or "0"
    numbers = (f"{found.submitted:,}", f"{found.answered:,}", faults, str(len(found.lost)), str(len(found.twice)))
    return (result.scenario, *numbers, result.figure, result.limit or "-", result.verdict)


if __name__ == "__main__":
    sys.exit(main())
