"""The clock of promises and leases: it counts on while the machine is suspended, so that a lease runs out meanwhile.

On Linux, that is; masters and agents run nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

boottime: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
