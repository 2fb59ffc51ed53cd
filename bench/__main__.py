"""rota beside other request/reply systems, echo, interleaved: `python -m bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import zmq

from . import report
from .launch import NotMeasured
from .report import Cell, Sample
from .systems import SYSTEMS, USUAL, System

CORES = 2  # everything shares two cores, as the published figures do


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in SYSTEMS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(SYSTEMS)}")
    return chosen


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="measured, in each turn")
    parser.add_argument("--warmup", type=float, default=0.2, help="before it, in each turn")
    parser.add_argument("--only", type=names, default=USUAL, help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--sizes", type=numbers, default=[report.SMALL, report.LARGE])
    parser.add_argument("--inflight", type=numbers, default=[1, 32, 256])
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples and verdicts")
    parser.add_argument("--check", action="store_true", help="exit 1 if a floor is missed")
    return parser.parse_args(arguments)


def say(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def start(chosen: Sequence[str], stack: ExitStack) -> dict[str, System]:
    """The systems that came up; of the others one line says why they did not."""
    running = {}
    for name in chosen:
        system = SYSTEMS[name]()
        stack.enter_context(system.family)
        say(f"starting {name}")
        try:
            system.start()
            running[name] = system
        except NotMeasured as reason:
            say(f"{name}: not measured: {reason}")
            system.family.close()
    return running


def turns(options: argparse.Namespace, running: dict[str, System]) -> Iterator[tuple[int, Cell, str]]:
    """Systems take turns within each cell, another one first in each round."""
    cells = [Cell(size, depth) for size in options.sizes for depth in options.inflight]
    for number in range(options.rounds):
        for cell in cells:
            order = list(running)
            order = order[number % len(order) :] + order[: number % len(order)]
            for name in order:
                yield number, cell, name


def take(options: argparse.Namespace, running: dict[str, System]) -> list[Sample]:
    samples = []
    for number, cell, name in turns(options, dict(running)):
        if name not in running:
            continue
        say(f"\r\033[Kround {number + 1}/{options.rounds}  {cell}  {name}", end="")
        order = {**cell._asdict(), "warmup": options.warmup, "seconds": options.seconds}
        try:
            found = running[name].measure(order)
        except NotMeasured as reason:
            say(f"\n{name}: left out from here on, {cell}: {reason}")
            running.pop(name).family.close()
            continue
        fields = {key: found[key] for key in Sample._fields if key in found}
        samples.append(Sample(system=name, cell=cell, round=number, **fields))
    say("\r\033[K", end="")
    return samples


def show(options: argparse.Namespace, samples: Sequence[Sample]) -> bool:
    """Print tables and verdicts; true when every floor is reached."""
    print(f"{platform.python_implementation()} {platform.python_version()}, pyzmq", end=" ")
    print(f"{zmq.__version__}, libzmq {zmq.zmq_version()}, {len(os.sched_getaffinity(0))} cores,")
    print(f"medians of {options.rounds} rounds of {options.seconds:g} s; ratio to the textbook")
    print("broker of the same round; p50/p99 of a request; own: the master's main thread\n")
    for size in options.sizes:
        for depth in options.inflight:
            print(report.table(samples, Cell(size, depth), options.only), end="\n\n")
    found = report.verdicts(samples)
    print("\n".join(report.verdict_lines(found)))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(samples, found), indent=1) + "\n")
    return all(one.reached for one in found)


def interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # TERM, and INT even where a shell had it ignored, end what was started


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    begun = time.monotonic()
    try:
        with ExitStack() as stack:
            running = start(options.only, stack)
            if not running:
                say("nothing to measure")
                return 1
            samples = take(options, running)
    except KeyboardInterrupt:
        say("\ninterrupted")
        return 130
    reached = show(options, samples)
    say(f"{time.monotonic() - begun:.0f} s")
    return 1 if options.check and not reached else 0


if __name__ == "__main__":
    sys.exit(main())
