"""An application whose handlers hang in every way that is known, each with a limit of 0.3 s."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import threading
import time

import rota

LIMIT_S = 0.3

app = rota.Worker("orders")
limited = app.handler(timeout=LIMIT_S)


@app.handler
def pid() -> int:
    return os.getpid()


@limited
def spin() -> None:
    while True:
        pass


@limited
def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@limited
def gil_hog() -> None:
    ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the GIL: no thread of the process runs meanwhile


@limited
def regex() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # a C loop that looks at no signal


@limited
def deadlock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@limited
def deaf() -> None:
    for number in (signal.SIGABRT, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


tasks = rota.Worker("orders")


@tasks.handler
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


@tasks.handler(timeout=LIMIT_S)
async def late() -> None:
    await asyncio.sleep(60)


@tasks.handler(timeout=LIMIT_S)
async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
