"""What was imported and collected stays: Python's collector of cycles need not look through it again and again."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
