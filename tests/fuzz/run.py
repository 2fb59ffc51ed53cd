"""`python tests/fuzz/run.py`: damaged frames at each socket of a real master while a good client calls; one table.

Exits 1 if the master died, hung or grew, or if the good client noticed. Progress goes to stderr. The same seed sends
the same frames.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.flood import Flooded, flood
from fuzz.peers import SOCKETS
from fuzz.receivers import RECEIVERS

HEAD = (
    f"{'SOCKET':9} {'FRAMES':>10} {'FRAMES/S':>9} {'COUNTED':>9} {'RSS BEFORE':>11} {'AFTER':>10} {'GROWTH':>9}"
    f" {'GOOD CALLS':>11} {'FAILED':>7} {'LONGEST STALL':>14}  VERDICT"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000, help="to each socket (1000000)")
    parser.add_argument("--warmup", type=int, help="frames before memory is looked at (a tenth, at least 50000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--socket", choices=SOCKETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args()
    warmup = max(50_000, options.frames // 10) if options.warmup is None else options.warmup
    if not options.socket:
        flood_receivers(max(1000, options.frames // 10), options.seed)
    found = []
    for socket in options.socket or SOCKETS:
        with tempfile.TemporaryDirectory(prefix="rota-fuzz-") as folder:
            found.append(flood(socket, Path(folder), options.frames, warmup, options.seed, tell))
    if options.json:
        print(json.dumps({"schema": 1, "seed": options.seed, "sockets": [each._asdict() for each in found]}, indent=1))
    else:
        print("\n".join([HEAD, *map(row, found)]))
    for each in found:
        for miss in each.misses:
            tell(f"{each.socket}: {miss}")
    return 1 if any(each.misses for each in found) else 0


def flood_receivers(frames: int, seed: int) -> None:
    """What reads a master's frames raises nothing, or this ends with its traceback."""
    for name, flood_one in RECEIVERS.items():
        begun = time.monotonic()
        damages = flood_one(frames, random.Random(seed))
        tell(f"{name}: {frames:,} frames of a false master in {time.monotonic() - begun:.0f} s, {damages:,} damaged")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(found: Flooded) -> str:
    before, after = found.rss_before / 2**20, found.rss_after / 2**20
    return (
        f"{found.socket:9} {found.frames:10,} {found.per_second:9,.0f} {found.counted:9,} {before:7.1f} MiB"
        f" {after:6.1f} MiB {after - before:+5.1f} MiB {found.good['calls']:11,} {found.good['failures']:7,}"
        f" {found.good['stall_ms']:11.0f} ms  {'MISSED' if found.misses else 'reached'}"
    )


if __name__ == "__main__":
    sys.exit(main())
