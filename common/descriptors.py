"""Descriptors of this process: how many it may have, and what the first three are."""

from __future__ import annotations

import os
import resource
import sys


def allow(wanted: int) -> int:
    """Raises the soft limit to `wanted`, or to the hard limit if that is lower: a shell mostly gives 1024. Processes
    that are started later inherit it. Returns how many of `wanted` are allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def open_standard() -> None:
    """Descriptors 0 to 2 that were closed are nowhere: else what is opened next has their numbers, and a line for
    stderr goes to a peer.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)
