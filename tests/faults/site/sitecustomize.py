"""On PYTHONPATH: what each Python process of a cluster does at its start, if the variable is there.

CLOCK_FILE    moves its wall clock by the seconds in that file. The machine's clock is everybody's, and a time namespace
              does not cover it (man time_namespaces: CLOCK_REALTIME is not virtualized). What reads the clock in C is
              not moved.
MEMORY_GROUP  enters that cgroup, as all that runs in a container is in one.
"""

import os
import time

_time = time.time


def _shift() -> float:
    try:
        with open(os.environ["CLOCK_FILE"], encoding="ascii") as file:
            return float(file.read() or 0)
    except (OSError, ValueError):
        return 0.0


if "CLOCK_FILE" in os.environ:
    time.time = lambda: _time() + _shift()
    time.time_ns = lambda: int(time.time() * 1e9)
if "MEMORY_GROUP" in os.environ:
    with open(os.path.join(os.environ["MEMORY_GROUP"], "cgroup.procs"), "w", encoding="ascii") as _procs:
        _procs.write(str(os.getpid()))
