"""Python's garbage collector, kept away from modules, classes and functions, which stay until the process ends.

Searching them for cycles again and again while more are imported, and once more at the exit, is a good part of the CPU
of a start. Only for processes of our own: in a process that belongs to a user its collector is left alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Off while this block imports."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


def loaded() -> None:
    """On from here; what exists by now is never looked at again."""
    gc.enable()
    gc.freeze()
