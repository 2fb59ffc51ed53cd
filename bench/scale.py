"""What a thousand registered processes cost the master: `python -m bench.scale [--check]`.

Two masters run side by side, one with 4 simulated processes and one with 1,000; the same load goes
to each in turn. The master's own thread is what is compared, so the simulator's speed hardly matters.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack

from . import proc
from .launch import free_ports, module, say, to_the_end
from .systems import System, wait_for_port, wait_until_ready

RATIO_MAX, IDLE_MAX, RSS_MAX_MIB = 1.3, 2.0, 100.0


class Simulated(System):
    name, kind = "scale", "rota"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def serve(self) -> str:
        port = free_ports(3)
        self.address = f"tcp://127.0.0.1:{port}"
        state = self.family.folder / "state"
        self._master = self.family.start(module("rota", "master", "--bind", self.address, "--state", state))
        wait_for_port(port, self.family)
        self._nodes = self.family.start(module("bench.simulator", self.address, self.count))
        wait_until_ready(self.family, self.address, self.count)
        return self.address

    def groups(self) -> dict[str, list[int]]:
        return {"master": [self._master.pid], "process": [self._nodes.pid]}

    def idle_percent(self, seconds: float) -> float:
        """Of one core, all threads of the master, with nothing but heartbeats coming in."""
        before, start = proc.usage([self._master.pid]), time.monotonic()
        time.sleep(seconds)
        used = proc.usage([self._master.pid]) - before
        return used.all_threads / 1e7 / (time.monotonic() - start)

    def rss_mib(self) -> float:
        return proc.rss(self._master.pid) / 2**20


def measured(options: argparse.Namespace) -> tuple[dict[int, list[float]], float, float]:
    """Costs of each master, and of the one with many processes its idle load and its memory."""
    with ExitStack() as stack:
        systems = {}
        for count in (options.few, options.many):
            systems[count] = Simulated(count)
            stack.enter_context(systems[count].family)
            systems[count].start()
        many = systems[options.many]
        idle = many.idle_percent(5)
        return take(systems, options), idle, many.rss_mib()


def take(systems: dict[int, Simulated], options: argparse.Namespace) -> dict[int, list[float]]:
    costs: dict[int, list[float]] = {count: [] for count in systems}
    order = {"size": 128, "in_flight": 32, "warmup": 0.3, "seconds": options.seconds}
    for number in range(options.rounds):
        for count, system in systems.items():
            say(f"round {number + 1}/{options.rounds}, {count} processes")
            costs[count].append(system.measure(order)["own_us"]["master"])
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is exceeded")
    options = parser.parse_args()
    costs, idle, rss = to_the_end(lambda: measured(options))
    pairs = zip(costs[options.few], costs[options.many], strict=True)
    ratio = statistics.median(many / few for few, many in pairs)
    for count, found in costs.items():
        print(f"{count:6,} processes: {statistics.median(found):.1f} us a request, own thread")
    print(f"ratio {ratio:.2f} (at most {RATIO_MAX}), idle {idle:.2f} % of a core", end=" ")
    print(f"(at most {IDLE_MAX:g}), RSS {rss:.0f} MiB (at most {RSS_MAX_MIB:g})")
    within = ratio <= RATIO_MAX and idle <= IDLE_MAX and rss <= RSS_MAX_MIB
    return 1 if options.check and not within else 0


if __name__ == "__main__":
    sys.exit(main())
