"""A client process that offers a load: `python -m bench.offered ADDRESS open|closed N SECONDS TIMEOUT NAP`.

Tells how its calls ended in one line of JSON.

`open`: N calls a second by the clock, whatever becomes of them, as callers do who know nothing of each other.
`closed`: N calls under way at any time, each answer brings the next one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import rota

from .report import quantile

TARGET = "echo.nap"
SLICE_S = 0.0005  # between two looks at the clock: calls that fell due meanwhile go out together


class Tally:
    """How each call ended, and after how long; told once all have ended."""

    def __init__(self) -> None:
        self.latencies: dict[str, list[float]] = {}
        self.ended_at: dict[str, list[float]] = {}
        self.late: list[float] = []  # how far behind the clock each call was sent
        self._open = 0
        self._changed = threading.Condition()

    def begin(self) -> float:
        with self._changed:
            self._open += 1
        return time.perf_counter()

    def end(self, began: float, future: Future[Any]) -> None:
        now = time.perf_counter()
        error = future.exception()
        with self._changed:
            name = type(error).__name__ if error else "ok"
            self.latencies.setdefault(name, []).append(now - began)
            self.ended_at.setdefault(name, []).append(now)
            self._open -= 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)

    def told(self, start: float, seconds: float) -> dict[str, Any]:
        ended = {name: sum(start <= at < start + seconds for at in times) for name, times in self.ended_at.items()}
        return {
            "ended": ended,
            "ms": {name: quantiles(found) for name, found in self.latencies.items()},
            "late_ms": quantiles(self.late),
            "unanswered": self._open,
        }


def quantiles(seconds: list[float]) -> dict[str, float]:
    found = sorted(seconds) or [0.0]
    return {"p50": quantile(found, 0.5) * 1e3, "p99": quantile(found, 0.99) * 1e3, "max": found[-1] * 1e3}


def offer_open(submit: Callable[[], Future[Any]], tally: Tally, rate: float, seconds: float) -> None:
    start = time.perf_counter()
    count = int(rate * seconds)
    sent = 0
    while sent < count:
        now = time.perf_counter()
        due = min(count, int((now - start) * rate) + 1)
        while sent < due:
            began = tally.begin()
            tally.late.append(began - start - sent / rate)
            submit().add_done_callback(partial(tally.end, began))
            sent += 1
        time.sleep(SLICE_S)


def offer_closed(submit: Callable[[], Future[Any]], tally: Tally, lanes: int, seconds: float) -> None:
    until = time.perf_counter() + seconds

    def ended(began: float, future: Future[Any]) -> None:
        tally.end(began, future)
        if time.perf_counter() < until:
            begin()

    def begin() -> None:
        submit().add_done_callback(partial(ended, tally.begin()))

    for _ in range(lanes):
        begin()
    time.sleep(seconds)


def main() -> None:
    address, kind, number, seconds, timeout, nap = sys.argv[1:7]
    tally = Tally()
    with rota.Client(address) as own:
        client = own.options(timeout=float(timeout))
        client.call(TARGET, 0.0)
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        offer = offer_open if kind == "open" else offer_closed
        offer(lambda: client.submit(TARGET, float(nap)), tally, int(number), float(seconds))  # type: ignore[operator]
        tally.wait(float(timeout) + 2)
    print(json.dumps(tally.told(start, float(seconds))), flush=True)


if __name__ == "__main__":
    main()
