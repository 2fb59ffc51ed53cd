"""What this machine is called and how much of it is ours."""

from __future__ import annotations

import math
import os
import socket

from .names import as_name

_CGROUP_CPU = "/sys/fs/cgroup/cpu.max"


def name() -> str:
    """As a node or a master may have it."""
    return as_name(socket.gethostname())


def usable_cpus() -> int:
    """Cores that this process may keep busy: its affinity, less a container's CPU quota.

    The machine's count would start 64 processes in a container that is given two cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota(_read(_CGROUP_CPU))))


def _quota(cpu_max: str) -> int:
    """Cores of a cgroup v2 `cpu.max`: "200000 100000" is two, "max 100000" is no limit."""
    fields = cpu_max.split()
    if len(fields) != 2 or not all(field.isdigit() for field in fields) or fields[1] == "0":
        return 1 << 20
    return math.ceil(int(fields[0]) / int(fields[1]))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
