"""Python's collector of cycles, kept off what a process of ours is made of: modules, classes and functions stay.

Looking through them again and again, while more of them are imported and once more at the exit, is a good part of the
CPU of a start. Not for a process that is its user's.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """It does not run while this block imports."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()


def loaded() -> None:
    """All that is there by now stays. It runs from here on."""
    gc.enable()
    gc.freeze()
