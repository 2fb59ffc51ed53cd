"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource


def allow(wanted: int) -> int:
    """Up to so many, for those too that it starts: a shell gives 1024. Returns how many of these there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
