"""Random histories of a whole cluster, on all cores: `python tests/sim/run.py --seeds 1000 [--first N]`.

One of them with its transcript: `--seed N`. The rules of the protocol broken on purpose, to see each found:
`--mutants`. With `--pairs` before either: of a cluster with two masters. A seed is the whole history: the same number
plays the same faults at the same moments.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from random import Random
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rota.common.settings import MasterSettings
from sim import leftovers
from sim.cluster import Cluster, Violation
from sim.faults import FAULTS, Fault
from sim.mutants import MUTANTS, SHOWN_BY, Mutant, broken
from sim.network import BEGINNING
from sim.pairs.history import history as history_of_pair
from sim.pairs.mutants import MUTANTS as MUTANTS_OF_PAIRS
from sim.pairs.mutants import SHOWN_BY as SHOWN_BY_OF_PAIRS
from sim.played import Pace, Played, told, under_load

CHUNK = 25  # histories that a worker plays between two reports
PACE = Pace([0.004, 0.02, 0.05], [0.05, 0.1, 0.25], [0.7, 1.5, 3.0], [0.05, 0.8, 2.5, 2.5])
LONG_QUIET_S = 25.0  # every so often: what happens by itself long after the last fault
MUTANT_SEEDS_MAX = 500


History = Callable[[int, Sequence[Fault]], Played]


def history(seed: int, kinds: Sequence[Fault] = ()) -> Played:
    """Plays one, with some of all kinds of faults or with these. Raises Violation with a transcript and how to see it
    again.
    """
    choice = Random(seed)
    is_looked_at = seed % leftovers.EVERY == 0
    cluster = Cluster(
        seed,
        nodes=choice.choice([1, 2, 2, 3]),
        clients=choice.randint(1, 3),
        journal=choice.random() < 0.7,
        concurrency=choice.choice([1, 1, 1, 4]),
        credit=choice.choice([None, 1, 2, 8]),
        forget_s=leftovers.FORGET_S if is_looked_at else MasterSettings().session_idle,
    )
    with told(cluster, seed):
        faults = _play(cluster, choice, kinds or choice.sample(list(FAULTS), choice.randint(2, len(FAULTS))))
        if is_looked_at:
            leftovers.check(cluster)
    return Played(cluster.checks.answers, faults, cluster.clock.now - BEGINNING)


def _play(cluster: Cluster, choice: Random, kinds: Sequence[Fault]) -> int:
    """Load, then peace. How many faults there were."""
    if choice.random() < 0.7:
        cluster.run_until(cluster.ready, 10)
    faults = under_load(cluster, choice, FAULTS, kinds, PACE)
    cluster.settle(LONG_QUIET_S if choice.random() < 0.02 else 0.5)
    return faults


# ---- many -----------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    histories: int
    calls: Counter[int]
    faults: int
    violations: list[tuple[int, str]]  # seed, text
    counts: Counter[str]
    answered_after: float  # the longest


def _batch(play: History, seeds: range, keep_going: bool) -> Batch:
    """In a worker: plays these."""
    gc.set_threshold(50_000)  # a history is one large cycle, and collected as one
    calls: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    faults, violations, count, answered_after = 0, [], 0, 0.0
    for seed in seeds:
        count += 1
        try:
            played = play(seed, ())
            calls += played.answers
            counts += played.counts
            answered_after = max(answered_after, played.answered_after)
            faults += played.faults
        except Violation as violation:
            violations.append((seed, str(violation)))
            if not keep_going:
                break
    return Batch(count, calls, faults, violations, counts, answered_after)


def batches(play: History, first: int, count: int, keep_going: bool, workers: int) -> Iterator[Batch]:
    """From all cores, as they come. Closing it stops the workers after what they play now."""
    starts = iter(range(first, first + count, CHUNK))
    with ProcessPoolExecutor(workers) as pool:
        running: set[Future[Batch]] = set()
        try:
            while True:
                for start in starts:
                    running.add(pool.submit(_batch, play, range(start, min(start + CHUNK, first + count)), keep_going))
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    yield each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def play_many(first: int, count: int, keep_going: bool, workers: int, play: History = history) -> int:
    began = time.monotonic()
    histories = faults = 0
    answers: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    answered_after = 0.0
    failed: list[int] = []
    for batch in batches(play, first, count, keep_going, workers):
        histories += batch.histories
        faults += batch.faults
        answers += batch.calls
        counts += batch.counts
        answered_after = max(answered_after, batch.answered_after)
        rate = histories / (time.monotonic() - began) * 60
        if sys.stderr.isatty() or histories % 1000 < CHUNK:
            print(f"{histories} of {count} histories, {rate:.0f} a minute", file=sys.stderr, flush=True)
        for seed, text in batch.violations:
            failed.append(seed)
            print(text if not keep_going else "\n".join(text.splitlines()[-2:]), flush=True)
        if failed and not keep_going:
            break
    took = time.monotonic() - began
    codes = ", ".join(f"code {code}: {number}" for code, number in sorted(answers.items()))
    print(f"{histories} histories in {took:.1f} s ({60 * histories / took:.0f} a minute on {workers} cores)")
    print(f"{faults} faults, {sum(answers.values())} calls ({codes})")
    if counts:
        print(", ".join(f"{name}: {number}" for name, number in sorted(counts.items())))
        print(f"clients were answered again at most {answered_after:.1f} s after the last fault")
    print(f"violations: {len(failed)}{' in seeds ' + ', '.join(map(str, sorted(failed))) if failed else ''}")
    return 1 if failed else 0


# ---- mutants --------------------------------------------------------------------------------------------------------


def find(
    mutant: Mutant, seeds: Iterable[int], kinds: Sequence[Fault] = (), play: History = history
) -> tuple[int, int, str] | None:
    """How many histories it took to find what is broken, the seed, and the sentence that was violated."""
    with broken(mutant):
        for tries, seed in enumerate(seeds, 1):
            try:
                play(seed, kinds)
            except Violation as violation:
                return tries, seed, str(violation).splitlines()[-2].partition(": ")[2]
    return None


def play_mutants(mutants: dict[str, Mutant], shown_by: Mapping[str, Sequence[Fault]], play: History) -> int:
    missed = 0
    print(f"{'broken':26} {'found after':>12} {'seed':>5}  violated")
    for name, mutant in mutants.items():
        found = find(mutant, range(1, MUTANT_SEEDS_MAX + 1), shown_by.get(name, ()), play)
        missed += found is None
        tries, seed, sentence = found or ("not found", "", "")
        print(f"{name:26} {tries:>12} {seed:>5}  {sentence}", flush=True)
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one; prints its transcript when it fails")
    parser.add_argument("--keep-going", action="store_true", help="list all seeds that fail")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that play")
    parser.add_argument("--pairs", action="store_true", help="of two masters, of which one stands by")
    parser.add_argument("--mutants", action="store_true", help="break each rule on purpose, and show that it is found")
    options = parser.parse_args()
    play = history_of_pair if options.pairs else history
    if options.mutants:
        rules = (MUTANTS_OF_PAIRS, SHOWN_BY_OF_PAIRS) if options.pairs else (MUTANTS, SHOWN_BY)
        return play_mutants(*rules, play)
    if options.seed is not None:
        return play_many(options.seed, 1, False, 1, play)
    return play_many(options.first, options.seeds, options.keep_going, options.workers, play)


if __name__ == "__main__":
    sys.exit(main())
