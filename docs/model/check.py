"""`make model`: the model of the pair, what must hold of it, and that each deliberate mistake is found.

check.py [--keep DIR] [NAME ...]   only these checks; --keep: leave what spin made there, to read a trace
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
AT_ONCE = 2  # each may take MEMORY_MIB
MEMORY_MIB = 900
SECONDS = 600  # for one check: a model that has grown beyond that is no check any more
DEPTH = 2_000_000  # steps of the longest path that is followed

HOLDS, FOUND, REACHED = "holds", "found", "reached"


class Check(NamedTuple):
    name: str
    expected: str
    flags: str
    text: str


ALL = [
    Check("one", HOLDS, "AGENTS=1", "1 agent, all messages late or lost"),
    Check("two", HOLDS, "AGENTS=2 PROMPT DELIVERIES HANDOVER", "2 agents, answers late or lost, handover, deliveries"),
    Check("three", HOLDS, "AGENTS=3 PROMPT LENGTH=1", "3 agents, answers late or lost"),
    Check("electorate", HOLDS, "AGENTS=2 PROMPT CHANGE FIRST=1 LENGTH=1", "nodes that come and go, 1 to 2"),
    Check("forgetful", HOLDS, "AGENTS=1 FORGETFUL", "1 agent that forgets its votes"),
    Check("forgetful-three", HOLDS, "AGENTS=3 PROMPT LENGTH=1 FORGETFUL", "3 agents that forget their votes"),
    Check(
        "forgetful-two",
        FOUND,
        "AGENTS=2 PROMPT FORGETFUL",
        "2 agents that forget their votes: one half for each master",
    ),
    Check(
        "healthy", HOLDS, "AGENTS=2 PROMPT CALM", "(4) standby dead, and one of two nodes: the active may dispatch on"
    ),
    Check("takeover", REACHED, "AGENTS=2 PROMPT REACH_TAKEOVER", "(5) the standby takes over"),
    Check("return", REACHED, "AGENTS=2 PROMPT REACH_RETURN", "(5) and the first takes over again"),
    Check(
        "late-start",
        REACHED,
        "AGENTS=2 PROMPT DELIVERIES REACH_LATE_START FIRST=1",
        "a node outside the electorate starts what an old active sent: it is not fenced yet",
    ),
    Check("ignores-lease", FOUND, "AGENTS=2 PROMPT MUTANT_IGNORES_LEASE", "an agent votes while its lease runs"),
    Check("ignores-promise", FOUND, "AGENTS=2 PROMPT MUTANT_IGNORES_PROMISE", "the standby stands despite its promise"),
    Check(
        "promise-forgotten", FOUND, "AGENTS=2 PROMPT MUTANT_PROMISE_FORGOTTEN", "a master stands right after a start"
    ),
    Check(
        "candidate-promises", FOUND, "AGENTS=2 PROMPT MUTANT_CANDIDATE_PROMISES", "a candidate promises, and goes on"
    ),
    Check("late-fence", FOUND, "AGENTS=1 DELIVERIES MUTANT_FENCE_AFTER_GRANT", "the fence is written after the grant"),
    Check("poll-counts", FOUND, "AGENTS=1 MUTANT_POLL_COUNTS", "what is answered to a poll is counted as a vote"),
    Check("no-abstention", FOUND, "AGENTS=1 MUTANT_NO_ABSTENTION", "an agent votes right after its start"),
    Check(
        "vote-lost", FOUND, "AGENTS=1 FORGETFUL MUTANT_NO_ABSTENTION", "one that forgets votes right after its start"
    ),
    Check(
        "leases-at-once",
        FOUND,
        "AGENTS=1 FORGETFUL MUTANT_LEASES_AT_ONCE",
        "one that forgets leases though it may have",
    ),
    Check("epoch-lost", FOUND, "AGENTS=2 PROMPT MUTANT_EPOCH_NOT_DURABLE", "a master forgets its epochs"),
    Check("from-receipt", FOUND, "AGENTS=1 MUTANT_COUNTS_FROM_RECEIPT", "the active counts from receipt"),
    Check("early-handover", FOUND, "AGENTS=1 HANDOVER MUTANT_HANDS_OVER_EARLY", "Closing is said before it stops"),
    Check("grants-again", FOUND, "AGENTS=3 PROMPT LENGTH=1 MUTANT_GRANTS_AGAIN", "a vote is repeated despite a lease"),
    Check(
        "active-not-joint",
        FOUND,
        "AGENTS=2 PROMPT CHANGE FIRST=1 LENGTH=1 MUTANT_ACTIVE_NOT_JOINT",
        "the active counts the new electorate only",
    ),
    Check(
        "candidate-not-joint",
        FOUND,
        "AGENTS=2 PROMPT CHANGE FIRST=1 LENGTH=1 MUTANT_CANDIDATE_NOT_JOINT",
        "a candidate forgets that its last change was not acknowledged",
    ),
]


class Result(NamedTuple):
    outcome: str
    states: int
    depth: int
    seconds: float


def main() -> int:
    options = parsed()
    missing = [tool for tool in ("spin", "gcc") if not shutil.which(tool)]
    if missing:
        print(f"make model needs {' and '.join(missing)}: apt-get install spin gcc libc6-dev", file=sys.stderr)
        return 2
    chosen = [check for check in ALL if not options.names or check.name in options.names]
    print(f"{'check':20} {'':9} {'states':>10} {'depth':>6} {'s':>5}   what")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        root = Path(options.keep or scratch)
        results = list(pool.map(lambda check: told(check, root / check.name), chosen))
    wrong = [check.name for check, outcome in zip(chosen, results, strict=True) if outcome != check.expected]
    if wrong:
        print(f"not as it must be: {', '.join(wrong)}. docs/model/README.md says how to read a trace.")
    else:
        print(
            "holds: never may two masters dispatch; an epoch is won once; "
            "after a grant no process starts anything older."
        )
    return 1 if wrong else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check the model of the pair.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(check.name for check in ALL))
    parser.add_argument("--keep", help="leave what spin made in this directory")
    return parser.parse_args()


def told(check: Check, where: Path) -> str:
    """Runs it and prints its line. The outcome."""
    result = run(check, where)
    mark = "" if result.outcome == check.expected else f"   ** expected: {check.expected}"
    figures = f"{result.states:10,} {result.depth:6} {result.seconds:5.1f}"
    print(f"{check.name:20} {result.outcome:9} {figures}   {check.text}{mark}", flush=True)
    return result.outcome


def run(check: Check, where: Path) -> Result:
    where.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "pair.pml", where)
    began = time.monotonic()
    flags = [f"-D{flag}" for flag in check.flags.split()]
    command(["spin", "-a", *flags, "pair.pml"], where)
    # HC4: a state is kept as a hash of 64 bits; of 10^7 states one is overlooked with a probability below 10^-5.
    # -E: that nobody can move any more is no fault here.
    command(["gcc", "-O1", "-w", "-DSAFETY", "-DHC4", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"], where)
    try:
        out = command(["./pan", f"-m{DEPTH}", "-w22", "-E"], where)
    except subprocess.TimeoutExpired:
        return Result("too long", 0, 0, time.monotonic() - began)
    return Result(
        outcome(check, out),
        figure(r"(\d[\d.e+]*) states, stored", out),
        figure(r"depth reached (\d+)", out),
        time.monotonic() - began,
    )


def command(words: list[str], where: Path) -> str:
    done = subprocess.run(words, cwd=where, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode and words[0] != "./pan":
        sys.exit(f"{' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def figure(pattern: str, out: str) -> int:
    found = re.search(pattern, out)
    return int(float(found[1])) if found else 0


def outcome(check: Check, out: str) -> str:
    """Nothing counts as checked if the search was cut short."""
    errors = re.search(r"errors: (\d+)", out)
    if errors is None or "max search depth too small" in out or "out of memory" in out or "reached -DMEMLIM" in out:
        return "cut short"
    if errors[1] == "0":
        return HOLDS
    if "assertion violated" not in out:
        return "failed"
    return REACHED if check.expected == REACHED else FOUND


if __name__ == "__main__":
    sys.exit(main())
