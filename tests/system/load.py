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
        self.ended: dict[str, float] = {}  # key → when its caller was told, monotonic
        self._ledger, self._client, self._target = ledger, client, target
        self._lanes, self._seconds = lanes, seconds
        self._under_way = 0
        self._last = monotonic()
        self._stopped = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self._last = monotonic()
        for _ in range(self._lanes):
            self._next()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        self.stop(0.0 if kind else END_S)

    def more(self, count: int, within: float = 20.0) -> None:
        """Returns when `count` more calls were answered. Raises AssertionError when that takes longer."""
        with self._changed:
            wanted = self.done + count
            reached = self._changed.wait_for(lambda: self.done >= wanted, within)
        assert reached, f"{self.done - wanted + count} of {count} more answers in {within:g} s"

    def one(self, *arguments: object, target: str = "", timeout: float | None = None) -> str:
        """A call beside the lanes, written down like theirs, that brings no other. Its key."""
        client = self._client if timeout is None else self._client.options(timeout=timeout)
        return self._submit(client, target or self._target, arguments, again=False)

    def told(self, key: str, within: float = 20.0) -> float:
        """When the caller of this call was told, monotonic. Raises AssertionError when that takes longer."""
        with self._changed:
            self._changed.wait_for(lambda: key in self.ended, within)
        assert key in self.ended, f"{key} was not answered in {within:g} s"
        return self.ended[key]

    def stop(self, within: float = END_S) -> None:
        """No more calls; returns when those under way have ended, or the time is over (then they are lost)."""
        self._stopped = True
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, within)

    def _next(self) -> None:
        if not self._stopped and self.faults < FAULTS_MAX:
            self._submit(self._client, self._target, (self._seconds,), again=True)

    def _submit(self, client: rota.Client, target: str, arguments: tuple[object, ...], again: bool) -> str:
        with self._changed:
            key = f"{self.name}-{len(self.keys)}"
            self.keys.append(key)
        self._ledger.submitted(key)
        begun = monotonic()
        with self._changed:
            self._under_way += 1
        future = client.submit(target, key, *arguments)
        future.add_done_callback(lambda done: self._ended(key, begun, done, again))
        return key

    def _ended(self, key: str, begun: float, future: Future[Any], again: bool) -> None:
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
            self.ended[key] = now
            self._under_way -= 1
            self._changed.notify_all()
        if again:
            self._next()
