"""The same with async handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import rota

app = rota.Worker("orders")


@app.handler
async def echo(text: str) -> str:
    return text


@app.handler
async def nap(seconds: float, path: str = "") -> str:
    if path:
        open(path, "w").close()
    await asyncio.sleep(seconds)
    return "rested"


@app.handler
async def work(seconds: float) -> None:
    time.sleep(seconds)


@app.handler
async def hold(path: str) -> str:
    """Until the file is there; the loop comes to nothing else."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return "released"


@app.handler
async def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler
def pid() -> int:
    return os.getpid()


@app.handler(timeout=0.2)
async def slow() -> None:
    await asyncio.sleep(60)


@app.handler(timeout=0.2)
async def block() -> None:
    time.sleep(60)
