"""What a stopped neighbour costs the others: `python -m bench.neighbour [--check]`.

A good client calls steadily. Beside it (a) a client that has asked for many large answers is stopped (SIGSTOP), so that
they pile up at the master, or (b) a process of the pool is stopped, with what it was given. Windows with the neighbour
stopped and with it at rest take turns; what counts is the median of the ratios of neighbouring windows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rota

from .launch import Family, free_ports, line_of, module, say, to_the_end
from .systems import System, start_node, wait_until_ready

PROCESSES = 3  # two are left when one is stopped: enough for the load
IN_FLIGHT, SIZE = 4, 128
PILE, PILE_SIZE = 200, 256 * 1024  # 50 MiB of answers, more than a session may have kept
WARMUP_S, AFTER_S = 0.15, 0.4
RATIO_MAX = 1.1


class Pool(System):
    name, kind = "neighbour", "rota"

    def serve(self) -> str:
        port = free_ports(3)
        self.address = f"tcp://127.0.0.1:{port}"
        settings = self.family.folder / "rota.toml"
        settings.write_text("[service.echo]\nramp = 0\n")
        self._master = self.family.start(module("rota", "master", "-c", settings, "--bind", self.address))
        start_node(self.family, self.address, PROCESSES)
        wait_until_ready(self.family, self.address, PROCESSES)
        return self.address

    def groups(self) -> dict[str, list[int]]:
        return {"master": [self._master.pid]}

    def processes(self) -> list[int]:
        with rota.Admin(self.address) as admin:
            return [each["pid"] for node in admin.status()["nodes"] for each in node["processes"]]


class Neighbour:
    """A client process that asks for a pile of answers when it is told to, and says when it has them."""

    def __init__(self, family: Family, address: str) -> None:
        self._process = family.start(module("bench.neighbour", "--pile", address), piped=True)
        line_of(self._process)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        assert self._process.stdin
        self._process.stdin.write("pile\n")
        line_of(self._process)  # they are asked for
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)
            self.failed = json.loads(line_of(self._process))


def pile(address: str) -> None:
    """The neighbour's own process."""
    with rota.Client(address) as own:
        client = own.options(timeout=20)
        client.call("echo.blob", 1)
        print("ready", flush=True)
        for _ in sys.stdin:
            futures = [client.submit("echo.blob", PILE_SIZE) for _ in range(PILE)]
            time.sleep(0.05)  # until they are sent
            print("asked", flush=True)
            failed = [type(error).__name__ for future in futures if (error := future.exception())]
            print(json.dumps({name: failed.count(name) for name in set(failed)}), flush=True)


@contextmanager
def stopped_process(pool: Pool, after: float) -> Iterator[None]:
    """One process of the pool, for `after` seconds: the good client's last calls wait for it too."""
    pid = pool.processes()[0]
    os.kill(pid, signal.SIGSTOP)
    timer = threading.Timer(after, _resume, [pid])
    timer.start()
    try:
        yield
    finally:
        timer.join()


def _resume(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass  # it was found hung and ended


def pairs(
    pool: Pool, stopped: Callable[[], Any], options: argparse.Namespace, name: str
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Windows at rest and stopped, in turn, another one first in each pair."""
    order = {"size": SIZE, "in_flight": IN_FLIGHT, "warmup": WARMUP_S, "seconds": options.seconds}
    found = []
    for number in range(options.pairs):
        say(f"{name}: pair {number + 1}/{options.pairs}")
        pair = {}
        for is_stopped in (False, True) if number % 2 else (True, False):
            if is_stopped:
                with stopped():
                    time.sleep(AFTER_S)  # what the neighbour has asked for is done
                    pair[is_stopped] = pool.measure(order)
            else:
                pair[is_stopped] = pool.measure(order)
            time.sleep(AFTER_S)
        found.append((pair[False], pair[True]))
    return found


def judged(name: str, found: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    def ratio(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(stopped) / of(rest) for rest, stopped in found)

    return {
        "neighbour": name,
        "pairs": len(found),
        "cpu_us": statistics.median(rest["cpu_us"]["master"] for rest, _ in found),
        "cpu_us_stopped": statistics.median(stopped["cpu_us"]["master"] for _, stopped in found),
        "cpu_ratio": ratio(lambda window: float(window["cpu_us"]["master"])),
        "p99_ms": statistics.median(rest["p99_ms"] for rest, _ in found),
        "p99_ms_stopped": statistics.median(stopped["p99_ms"] for _, stopped in found),
        "p99_ratio": ratio(lambda window: float(window["p99_ms"])),
        "per_second_ratio": ratio(lambda window: float(window["per_second"])),
    }


HEAD = f"{'stopped':10}{'pairs':>6}{'master us/request':>26}{'ratio':>7}{'p99 ms':>18}{'ratio':>7}{'requests/s':>12}"


def row(one: dict[str, Any]) -> str:
    cpu_us, p99 = (
        f"{one['cpu_us']:.1f} -> {one['cpu_us_stopped']:.1f}",
        f"{one['p99_ms']:.2f} -> {one['p99_ms_stopped']:.2f}",
    )
    word = "reached" if reached(one) else "MISSED"
    return (
        f"{one['neighbour']:10}{one['pairs']:6}{cpu_us:>26}{one['cpu_ratio']:7.2f}{p99:>18}{one['p99_ratio']:7.2f}"
        f"{one['per_second_ratio']:12.2f}  {word}"
    )


def reached(one: dict[str, Any]) -> bool:
    return bool(one["cpu_ratio"] <= RATIO_MAX and one["p99_ratio"] <= RATIO_MAX)


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    pool = Pool()
    with pool.family:
        pool.start()
        if "client" in options.only:
            neighbour = Neighbour(pool.family, pool.address)
            found.append(judged("client", pairs(pool, neighbour.stopped, options, "client")))
            say(f"what became of the last pile: {neighbour.failed or 'all answered'}")
        if "process" in options.only:
            after = AFTER_S + WARMUP_S + options.seconds + AFTER_S
            found.append(judged("process", pairs(pool, lambda: stopped_process(pool, after), options, "process")))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.neighbour", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each window")
    parser.add_argument("--only", choices=("client", "process"), action="append", help="may be repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    parser.add_argument("--pile", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pile:
        pile(options.pile)
        return 0
    options.only = options.only or ["client", "process"]
    found = to_the_end(lambda: measured(options))
    if options.json:
        print(json.dumps({"schema": 1, "neighbours": found, "reached": all(map(reached, found))}, indent=1))
    else:
        print("\n".join([HEAD, *map(row, found)]))
    return 1 if options.check and not all(map(reached, found)) else 0


if __name__ == "__main__":
    sys.exit(main())
