"""A steady load: so many calls under way at any time, each written down in a ledger."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from time import monotonic
from types import TracebackType
from typing import Any, Self

import rota

from .ledger import Ledger

FAULTS_MAX = 500  # a load that only fails would spin
END_S = 40.0  # the calls' own time-outs are over by then

_numbers = itertools.count(1)


class Load:
    """`lanes` calls of `target` under way until it is stopped: each answer brings the next call.

    with Load(ledger, client, "proof.book", lanes=8, seconds=0.01) as load:
        load.more(200)   # returns when so many more have been answered
    """

    def __init__(
        self, ledger: Ledger, client: rota.Client, target: str, *, lanes: int = 8, seconds: float = 0.01
    ) -> None:
        self.name = f"load{next(_numbers)}"
        self.stall = 0.0  # longest time without an answer
        self.slowest = 0.0
        self.faults = 0
        self.done = 0
        self.keys: list[str] = []
        self._ledger, self._client, self._target = ledger, client, target
        self._lanes, self._seconds = lanes, seconds
        self._under_way = 0
        self._last = monotonic()
        self._stopped = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        for _ in range(self._lanes):
            self._submit()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self.stop(0.0 if kind else END_S)

    def more(self, count: int, within: float = 20.0) -> None:
        """Returns when `count` more calls were answered. Raises AssertionError when that takes longer."""
        with self._changed:
            wanted = self.done + count
            reached = self._changed.wait_for(lambda: self.done >= wanted, within)
        assert reached, f"{self.done - wanted + count} of {count} more answers in {within:g} s"

    def stop(self, within: float = END_S) -> None:
        """No more calls; returns when those under way have ended, or the time is over (then they are lost)."""
        self._stopped = True
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, within)

    def _submit(self) -> None:
        if self._stopped or self.faults >= FAULTS_MAX:
            return
        key = f"{self.name}-{len(self.keys)}"
        self.keys.append(key)
        self._ledger.submitted(key)
        begun = monotonic()
        with self._changed:
            self._under_way += 1
        future = self._client.submit(self._target, key, self._seconds)
        future.add_done_callback(lambda done: self._ended(key, begun, done))

    def _ended(self, key: str, begun: float, future: Future[Any]) -> None:
        error = future.exception()
        now = monotonic()
        with self._changed:
            if error is None:
                self._ledger.answered(key, future.result())
                self.done += 1
                self.stall = max(self.stall, now - self._last)
                self._last = now
            else:
                self._ledger.failed(key, error)
                self.faults += 1
            self.slowest = max(self.slowest, now - begun)
            self._under_way -= 1
            self._changed.notify_all()
        self._submit()
