"""rota's HTTP front door beside other HTTP servers, interleaved, asked by wrk: `python -m bench.http_peers --help`."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence

from . import report, rounds
from .http_systems import CASES, SYSTEMS, debian
from .launch import NotMeasured, say
from .report import RATES, Column, Floor, HttpCell, Sample
from .rounds import numbers, some_of

CONNECTIONS = (32, 128)
BASELINES = {"wsgi": "haproxy-gunicorn", "asgi": "haproxy-uvicorn", "echo": "haproxy-gunicorn", "cpu": "gunicorn"}
COLUMNS = (
    *RATES,
    Column("wrk", "cpu_us", "client"),
    Column("front", "cpu_us", "front"),
    Column("master", "cpu_us", "master"),
    Column("process", "cpu_us", "process"),
)


def cell(case: str, connections: int) -> HttpCell:
    return HttpCell(case, connections, CASES[case].title)


def floors(connections: Sequence[int] = CONNECTIONS) -> list[Floor]:
    found = []
    for number in connections:
        found += [
            Floor("wsgi", cell("wsgi", number), 4.0, "haproxy-gunicorn"),
            Floor("wsgi", cell("wsgi", number), 1.2, "uwsgi-router"),
            Floor("asgi", cell("asgi", number), 0.8, "haproxy-uvicorn", system="rota-asgi"),
            Floor("echo", cell("echo", number), 2.0, "haproxy-gunicorn"),
            Floor("cpu", cell("cpu", number), 0.9, "gunicorn"),  # within 10 %
        ]
    for case in ("wsgi", "echo", "cpu"):
        found.append(Floor("p99", cell(case, 128), 1.0, "haproxy-gunicorn", field="p99_ms"))
    return found


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.http_peers", description=__doc__)
    rounds.add_options(parser, seconds=3)
    parser.add_argument(
        "--only", type=some_of(CASES), default=list(CASES), metavar="CASES", help=f"of {','.join(CASES)}"
    )
    parser.add_argument("--connections", type=numbers, default=list(CONNECTIONS), help="of wrk, such as 32,128")
    return parser.parse_args(arguments)


def show(options: argparse.Namespace, cells: Sequence[HttpCell], samples: Sequence[Sample]) -> bool:
    """Print tables and verdicts; true when every floor is reached."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {versions()},")
    print(f"{len(os.sched_getaffinity(0))} cores for everything, wrk too; medians of {options.rounds} rounds of")
    print(f"{options.seconds:g} s; ratio to {', '.join(sorted(set(BASELINES.values())))} of the same round\n")
    for each in cells:
        systems, baseline = CASES[each.case].systems, BASELINES[each.case]
        print(report.table(samples, each, systems, COLUMNS, baseline), end="\n\n")
    return rounds.told(options, samples, [floor for floor in floors(CONNECTIONS) if floor.cell in cells])


def versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("uvloop", "gunicorn", "uvicorn", "pyuwsgi"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    haproxy = subprocess.run([debian("haproxy")["haproxy"], "-v"], capture_output=True, text=True).stdout
    return ", ".join([" ".join(haproxy.split()[:3]).replace(" version", ""), *found])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        debian("haproxy", "wrk")
    except NotMeasured as reason:
        say(f"bench-http: {reason}")
        return 1
    cells = [cell(case, number) for case in options.only for number in options.connections]
    wanted = {name for case in options.only for name in CASES[case].systems}
    kinds = [kind for name, kind in SYSTEMS.items() if name in wanted]
    return rounds.run(options, kinds, cells, lambda taken: show(options, cells, taken))


if __name__ == "__main__":
    sys.exit(main())
