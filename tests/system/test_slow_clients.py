"""900 slow clients at once, with short limits; `make slow` has those of the defaults, and judges the p99 of others."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
P99_MAX = 50  # other tests run beside this one: only that the good client is served at all


def test_slow_clients_hold_no_process_and_little_memory_and_are_cut_at_their_limits() -> None:
    command = [
        sys.executable,
        "-m",
        "bench.slow_clients",
        "--short",
        "--seconds",
        "1",
        "--pause",
        "0.02",  # the cores are for other tests
        "--p99",
        str(P99_MAX),
        "--check",
    ]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout + run.stderr
