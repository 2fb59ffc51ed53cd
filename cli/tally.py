"""What a load has measured so far. Pure; memory does not grow with the number of requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ..common.errors import Unavailable


class Tally:
    """Counts, latencies to three digits, and the longest time without an answer while one was waited for."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.failures: Counter[str] = Counter()
        self.first_causes: dict[str, str] = {}
        self.longest_stall_s = 0.0
        self._micros: Counter[int] = Counter()
        self._max_s = 0.0
        self._waiting_since: float | None = None  # None: all that was asked is answered

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def outstanding(self) -> int:
        return self.sent - self.answered - self.failed

    @property
    def reached_nobody(self) -> bool:
        """Requests came back, and none of them from a master."""
        return not self.answered and self.failures.keys() == {Unavailable.__name__}

    def asked(self, now: float) -> None:
        if self._waiting_since is None:
            self._waiting_since = now
        self.sent += 1

    def told(self, now: float, asked_at: float, error: BaseException | None) -> None:
        """An answer, or the error in its place. `asked_at`: when it was due to be sent; waiting to be sent counts."""
        self._waited(now)
        if error is None:
            self.answered += 1
            self._waiting_since = now if self.outstanding else None
            self._micros[_three_digits(round(1e6 * (now - asked_at)))] += 1
            self._max_s = max(self._max_s, now - asked_at)
        else:
            kind = type(error).__name__
            self.failures[kind] += 1
            self.first_causes.setdefault(kind, str(error))

    def _waited(self, now: float) -> None:
        if self._waiting_since is not None:
            self.longest_stall_s = max(self.longest_stall_s, now - self._waiting_since)

    def percentiles_ms(self, wanted: Iterable[float]) -> list[float]:
        """Of what was answered; 0 while nothing was."""
        values = sorted(self._micros)
        found = []
        for percent in wanted:
            rank, seen, value = percent / 100 * self.answered, 0, 0
            for value in values:
                seen += self._micros[value]
                if seen >= rank:
                    break
            found.append(value / 1000)
        return found

    def report(self, began: float, now: float) -> dict[str, Any]:
        if self.outstanding:
            self._waited(now)
        elapsed_s = now - began
        p50, p95, p99 = self.percentiles_ms((50, 95, 99))
        return {
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "unanswered": self.outstanding,
            "failures": dict(self.failures.most_common()),
            "first_causes": dict(self.first_causes),
            "elapsed_s": round(elapsed_s, 3),
            "rate": round(self.answered / elapsed_s, 1) if elapsed_s else 0.0,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "max_ms": round(1000 * self._max_s, 3),
            "longest_stall_ms": round(1000 * self.longest_stall_s, 3),
        }


def _three_digits(micros: int) -> int:
    scale: int = 10 ** max(0, len(str(micros)) - 3)
    return micros // scale * scale
