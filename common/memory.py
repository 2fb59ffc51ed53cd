"""How freed memory is kept, so that large messages do not pay for fresh pages each time."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1  # numbers of mallopt(3) in glibc's malloc.h
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 16 * 1024 * 1024  # freed memory at the end of the heap that is not given back
MAPPED_FROM_BYTES = 4 * 1024 * 1024  # blocks from here on are mapped, and given back when freed
HINT_BYTES = 4 * 1024 * 1024


def keep_freed() -> None:
    """For processes whose memory is ours to decide on (masters, worker processes, gateways). Large messages come and
    go: without this each one of 64 KiB pays for 16 page faults, a fifth of its CPU.

    Costs up to KEPT_BYTES of resident memory. Where malloc is not glibc's it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def hint() -> None:
    """The same for a process that belongs to a user, by example rather than by order. When glibc's malloc sees a mapped
    block freed it takes blocks of that size for common: from then on it maps larger ones only, and gives memory back
    when twice that size is free. The block is never touched, so this costs two system calls. Thresholds that the user
    has set (MALLOC_TRIM_THRESHOLD_, mallopt) stay.
    """
    bytes(HINT_BYTES)
