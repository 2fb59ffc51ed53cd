"""The application that tests of a slave node serve."""

from __future__ import annotations

import os
import signal
import sys
import time

import rota

app = rota.Worker("orders", version="7")


@app.handler
def echo(text: str) -> str:
    return text


@app.handler
def pid() -> int:
    return os.getpid()


@app.handler
def nap(seconds: float, path: str = "") -> str:
    if path:
        with open(path, "a") as file:
            file.write("x")
    time.sleep(seconds)
    return "rested"


@app.handler
def hold(path: str) -> str:
    """Until the file is there; another one tells that it began."""
    open(path + ".begun", "w").close()
    while not os.path.exists(path):
        time.sleep(0.005)
    return "released"


@app.handler(timeout=0.3)
def hang() -> None:
    print("about to hang", file=sys.stderr)
    while True:
        pass


@app.handler
def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler
def cwd() -> list[str]:
    return [os.getcwd(), sys.path[0]]


@app.on_stop
def stopped() -> None:
    path = os.environ.get("NODE_APP_STOPPED")
    if path:
        with open(path, "a") as file:
            file.write("stopped\n")
