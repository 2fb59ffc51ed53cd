"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource


def allow(wanted: int) -> int:
    """Raises the soft limit to `wanted`, or to the hard limit if that is lower: a shell mostly gives 1024. Processes
    that are started later inherit it. Returns how many of `wanted` are allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
