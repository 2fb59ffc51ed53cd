"""rota beside other request/reply systems, echo, interleaved: `python -m bench --help`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence

import zmq

from . import report, rounds
from .report import Cell, Sample
from .rounds import numbers, some_of
from .systems import SYSTEMS, USUAL


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    rounds.add_options(parser, seconds=0.7)
    parser.add_argument("--warmup", type=float, default=0.2, help="before it, in each turn")
    parser.add_argument("--only", type=some_of(SYSTEMS), default=USUAL, help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--sizes", type=numbers, default=[report.SMALL, report.LARGE])
    parser.add_argument("--inflight", type=numbers, default=[1, 32, 256])
    return parser.parse_args(arguments)


def show(options: argparse.Namespace, samples: Sequence[Sample]) -> bool:
    """Print tables and verdicts; true when every floor is reached."""
    print(f"{platform.python_implementation()} {platform.python_version()}, pyzmq", end=" ")
    print(f"{zmq.__version__}, libzmq {zmq.zmq_version()}, {len(os.sched_getaffinity(0))} cores,")
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s; ratio to the textbook")
    print("broker of the same round; p50/p99 of a request; own: the master's main thread\n")
    for size in options.sizes:
        for depth in options.inflight:
            print(report.table(samples, Cell(size, depth), options.only), end="\n\n")
    return rounds.told(options, samples, report.FLOORS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    cells = [Cell(size, depth) for size in options.sizes for depth in options.inflight]
    return rounds.run(options, [SYSTEMS[name] for name in options.only], cells, lambda taken: show(options, taken))


if __name__ == "__main__":
    sys.exit(main())
