"""What malloc does with freed memory, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from rota.common import memory
getattr(memory, sys.argv[1])()
def use():
    for _ in range(100):
        blocks = [bytearray(b"x" * 100_000) for _ in range(5)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("how", ["hint", "keep_freed"])
def test_blocks_that_come_and_go_are_not_faulted_in_each_time(how: str) -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=30)
    assert int(done.stdout) < 1000  # 4,600 without
