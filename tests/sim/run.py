"""Random histories: `python tests/sim/run.py --seeds 1000 [--first N]`, or one of them with `--seed N`.

A seed is the whole history: the same number plays the same faults at the same moments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sim.cluster import Cluster, Violation
from sim.parts import MasterPart

FAULTS = (
    ("kill_process", 3),
    ("reset_connection", 6),
    ("reset_all", 1),
    ("restart_agent", 1),
    ("stop_agent", 1),
    ("pause_agent", 1),
    ("pause_master", 1),
    ("restart_master", 1),
    ("operate", 4),
    ("cancel", 4),
)


def history(seed: int, tamper: object = None) -> Counter[int]:
    """Plays one; answers the calls by their code. Raises Violation with a transcript and how to see it again."""
    choice = Random(seed)
    kinds = choice.sample(FAULTS, choice.randint(1, len(FAULTS)))
    cluster = Cluster(
        seed,
        nodes=choice.randint(1, 3),
        clients=choice.randint(1, 3),
        journal=choice.random() < 0.7,
        concurrency=choice.choice([1, 1, 1, 4]),
    )
    if callable(tamper):
        cluster.tamper = tamper
        tamper(cluster.master)
    try:
        _play(cluster, choice, [name for name, weight in kinds for _ in range(weight)])
    except (Violation, Exception) as problem:
        cluster.clock.tell("VIOLATION: %s", f"{type(problem).__name__}: {problem}")
        again = f"python tests/sim/run.py --seed {seed}"
        raise Violation(f"{cluster.clock.transcript()}\n\nseed {seed}: {problem}\nagain: {again}") from problem
    return cluster.checks.answers


def _play(cluster: Cluster, choice: Random, faults: list[str]) -> None:
    cluster.run(choice.choice([0.0, 1.0]))
    pause = choice.choice([0.005, 0.03, 0.1])
    until = cluster.clock.now + choice.choice([2.0, 5.0, 10.0])
    fault_every = choice.choice([0.1, 0.5, 1.5])
    next_fault = cluster.clock.now + fault_every
    calls = 0
    while cluster.clock.now < until:
        cluster.run(choice.expovariate(1 / pause))
        if calls < 600:
            calls += 1
            cluster.call(timeout=choice.choice([0.05, 1.0, 6.0, 6.0]))
        if cluster.clock.now >= next_fault:
            next_fault = cluster.clock.now + choice.expovariate(1 / fault_every)
            getattr(cluster, choice.choice(faults))()
    cluster.settle()


def plant_double(master: MasterPart) -> None:
    """A master that runs again what had started."""
    dispatch = master.core.dispatch
    losses = dispatch.losses
    losses.settle_started = lambda request, cause, now: losses._run_elsewhere([request], now)  # type: ignore[method-assign]


def plant_loss(master: MasterPart) -> None:
    """A master that forgets the deadline and the place of every tenth request."""
    dispatch = master.core.dispatch
    admit = dispatch.admit
    seen = [0]

    def forgetful(request: object, now: float) -> None:
        seen[0] += 1
        if seen[0] % 10:
            admit(request, now)  # type: ignore[arg-type]

    dispatch.admit = forgetful  # type: ignore[method-assign, assignment]


PLANTS = {"double": plant_double, "loss": plant_loss}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many histories")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="break the master, to see the checker find it")
    parser.add_argument("--keep-going", action="store_true", help="list all failing seeds")
    options = parser.parse_args()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    answers: Counter[int] = Counter()
    began, failed = time.monotonic(), []
    for seed in seeds:
        try:
            answers += history(seed, PLANTS.get(options.plant))
        except Violation as violation:
            if not options.keep_going:
                print(violation)
                return 1
            failed.append(seed)
            print(str(violation).splitlines()[-2])
    took = time.monotonic() - began
    codes = ", ".join(f"code {code}: {count}" for code, count in sorted(answers.items()))
    print(
        f"{len(seeds)} histories in {took:.1f} s, {sum(answers.values())} calls ({codes}); failed: {failed or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
