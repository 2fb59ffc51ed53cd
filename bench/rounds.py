"""Systems that take turns: what benches do between their command line and their tables."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from . import report
from .launch import NotMeasured, say, to_the_end
from .report import AnyCell, Floor, Sample
from .systems import System

CORES = 2  # everything shares two cores, as the published figures do


def add_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=seconds, help="measured, in each turn (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples and verdicts")
    parser.add_argument("--check", action="store_true", help="exit 1 if a floor is missed")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
        return chosen

    return names


def run(
    options: argparse.Namespace,
    kinds: Sequence[type[System]],
    cells: Sequence[AnyCell],
    show: Callable[[list[Sample]], bool],
) -> int:
    """Measure, and `show`, which says whether all floors are reached; the exit code."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    begun = time.monotonic()
    reached = show(to_the_end(lambda: measured(options, kinds, cells)))
    say(f"{time.monotonic() - begun:.0f} s")
    return 1 if options.check and not reached else 0


def measured(options: argparse.Namespace, kinds: Sequence[type[System]], cells: Sequence[AnyCell]) -> list[Sample]:
    with ExitStack() as stack:
        running = start(kinds, stack)
        if not running:
            raise NotMeasured("no system came up")
        return take(options, running, cells)


def told(options: argparse.Namespace, samples: Sequence[Sample], floors: Sequence[Floor]) -> bool:
    """Print the verdicts, write the file; true when every floor is reached."""
    found = report.verdicts(samples, floors)
    print("\n".join(report.verdict_lines(found)))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(samples, found), indent=1) + "\n")
    return all(one.reached for one in found)


def start(kinds: Sequence[type[System]], stack: ExitStack) -> dict[str, System]:
    """The systems that came up; of the others one line says why they did not."""
    running = {}
    for kind in kinds:
        system = kind()
        stack.enter_context(system.family)
        say(f"starting {kind.name}")
        try:
            system.start()
            running[kind.name] = system
        except NotMeasured as reason:
            say(f"{kind.name}: not measured: {reason}")
            system.family.close()
    return running


def turns(rounds: int, cells: Sequence[AnyCell], running: dict[str, System]) -> Iterator[tuple[int, AnyCell, str]]:
    """Systems take turns within each cell, another one first in each round."""
    for number in range(rounds):
        for cell in cells:
            order = [name for name, system in running.items() if system.takes(cell)]
            first = number % max(1, len(order))
            for name in order[first:] + order[:first]:
                yield number, cell, name


def take(options: argparse.Namespace, running: dict[str, System], cells: Sequence[AnyCell]) -> list[Sample]:
    samples = []
    in_place = sys.stderr.isatty()  # else a line a round: what is written over is one endless line in a file
    told = -1
    for number, cell, name in turns(options.rounds, cells, dict(running)):
        if name not in running:
            continue
        if in_place:
            say(f"\r\033[Kround {number + 1}/{options.rounds}  {cell}  {name}", end="")
        elif number > told:
            told = number
            say(f"round {number + 1}/{options.rounds}")
        order = {**cell._asdict(), "warmup": getattr(options, "warmup", 0.0), "seconds": options.seconds}
        try:
            found = running[name].measure(order)
        except NotMeasured as reason:
            if in_place:
                say("")
            say(f"{name}: left out from here on, {cell}: {reason}")
            running.pop(name).family.close()
            continue
        fields = {key: found[key] for key in Sample._fields if key in found}
        samples.append(Sample(system=name, cell=cell, round=number, **fields))
    if in_place:
        say("\r\033[K", end="")
    return samples
