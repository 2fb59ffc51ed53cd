"""On PYTHONPATH it moves the wall clock of one Python process by the seconds in the file that CLOCK_FILE names.

The machine's clock is everybody's, and a time namespace does not cover it (man time_namespaces: CLOCK_REALTIME is not
virtualized). What reads the clock in C, as file systems do, is not moved.
"""

import os
import time

_time = time.time


def _shift() -> float:
    try:
        with open(os.environ["CLOCK_FILE"], encoding="ascii") as file:
            return float(file.read() or 0)
    except (OSError, KeyError, ValueError):
        return 0.0


time.time = lambda: _time() + _shift()
time.time_ns = lambda: int(time.time() * 1e9)
