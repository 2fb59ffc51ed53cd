"""Random histories of single cores: `python tests/spoken/run.py [--seeds N] [--steps N] [WORLD ...]`.

One of them: `--seed N WORLD`. What goes wrong is shown once, cut down to the fewest steps that show it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from spoken.history import fault, play, shortest, steps
from spoken.worlds import WORLDS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="*", default=list(WORLDS))
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    found: dict[str, str] = {}
    for name in options.worlds:
        began = time.monotonic()
        for seed in seeds:
            history = steps(WORLDS[name], seed, options.steps)
            wrong = fault(WORLDS[name], history)
            if wrong and wrong not in found:
                found[wrong] = f"{name} --seed {seed}"
                print(f"\n{name}, seed {seed}: {wrong}", flush=True)
                short = shortest(WORLDS[name], history, wrong)
                print(*short, sep="\n")
                try:
                    play(WORLDS[name], short)
                except Exception:
                    print(traceback.format_exc(), flush=True)
        print(f"{name}: {len(seeds)} histories in {time.monotonic() - began:.1f} s", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
