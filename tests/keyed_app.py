"""Handlers that leave a line in a file for each time they run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import rota

app = rota.Worker("shop")


def _run(book: str, seconds: float) -> int:
    with Path(book).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


@app.handler
def charge(book: str, seconds: float = 0.0) -> int:
    return _run(book, seconds)


@app.handler(idempotent="key")
def keyed(book: str, seconds: float = 0.0, padding: bytes = b"") -> int:
    return _run(book, seconds)
