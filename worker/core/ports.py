"""What a node's services need beside them: is a port reachable from here? When to try, and what to tell. Pure.

One try at a time per service. Its time-out runs here, whatever the try is stuck in (a name server, mostly). An answer
that comes later is not believed, but the next try waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ...common.messages import PortCheck, Unwell


class Try(NamedTuple):
    """To be answered with `tried`, under the same number."""

    service: str
    number: int
    address: str
    timeout_s: float


@dataclass(slots=True)
class _Check:
    what: PortCheck
    due_at: float  # of the next try
    number: int = 0  # of the try that is out; 0 = none
    until: float | None = None  # the end of its time; None: that has passed, or no try is out
    text: str | None = None  # what was found last; None: nothing yet


class Ports:
    """Methods are events; each returns what is to be told to the master, `tick` also what is to be tried."""

    def __init__(self) -> None:
        self._checks: dict[str, _Check] = {}
        self._numbers = 0

    def planned(self, wanted: Mapping[str, PortCheck], now: float) -> None:
        """A check that stays the same goes on; a new one is tried at once."""
        kept = {service: check for service, check in self._checks.items() if wanted.get(service) == check.what}
        self._checks = {service: kept.get(service) or _Check(what, now) for service, what in wanted.items()}

    def tried(self, service: str, number: int, text: str) -> list[Unwell]:
        """`text`: why it failed; "" = a connection came about."""
        check = self._checks.get(service)
        if check is None or check.number != number:
            return []
        check.number = 0
        if check.until is None:  # it was late
            return []
        check.until = None
        return _found(service, check, text)

    def tick(self, now: float) -> list[Try | Unwell]:
        effects: list[Try | Unwell] = []
        for service, check in self._checks.items():
            if check.until is not None and now >= check.until:
                check.until = None
                effects += _found(service, check, f"{check.what.address}: no answer within {check.what.timeout_ms} ms")
            if now >= check.due_at:
                check.due_at = now + max(0.001, check.what.every_ms / 1000)
                if not check.number:
                    effects.append(self._try(service, check, now))
        return effects

    def extend(self, gap: float) -> None:
        """The agent itself was paused: a try that is out may have come about meanwhile."""
        for check in self._checks.values():
            if check.until is not None:
                check.until += gap

    def next_deadline(self) -> float:
        times = [time for check in self._checks.values() for time in (check.due_at, check.until) if time is not None]
        return min(times, default=inf)

    def findings(self) -> list[Unwell]:
        """For a master that knows nothing of them."""
        return [Unwell(service, check.text) for service, check in self._checks.items() if check.text is not None]

    def _try(self, service: str, check: _Check, now: float) -> Try:
        self._numbers += 1
        timeout_s = check.what.timeout_ms / 1000
        check.number, check.until = self._numbers, now + timeout_s
        return Try(service, self._numbers, check.what.address, timeout_s)


def _found(service: str, check: _Check, text: str) -> list[Unwell]:
    if check.text is not None and bool(check.text) == bool(text):
        return []
    check.text = text
    return [Unwell(service, text)]
