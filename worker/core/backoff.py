"""How soon a service that fails is started again: each failure in a row doubles the wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from ...common.messages import Failing

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
WELL_AFTER_S = 10.0  # ready for so long: whatever it dies of then, it is not its start


@dataclass(slots=True)
class Trouble:
    """Failures in a row of one service. One start is tried at a time until one is ready."""

    failures: int = 0
    counted_at: float = 0.0  # the last of them; what was started before it is part of it
    failed_at: float = 0.0
    retry_at: float = 0.0
    text: str = ""
    cause: str = ""


class Backoff:
    """Of the services of one node. What is returned is for the master."""

    def __init__(self) -> None:
        self.troubles: dict[str, Trouble] = {}

    def failed(self, service: str, spawned_at: float, text: str, cause: str, now: float) -> Failing:
        """A process of it ended before it was well."""
        trouble = self.troubles.setdefault(service, Trouble())
        if spawned_at > trouble.counted_at:
            trouble.failures += 1
            trouble.counted_at = now
        trouble.failed_at = now
        trouble.text, trouble.cause = text, cause
        trouble.retry_at = now + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (min(trouble.failures, 16) - 1))
        return _failing(service, trouble, now)

    def ready(self, service: str, spawned_at: float) -> Failing | None:
        """Only a process that was started since the last failure proves anything."""
        trouble = self.troubles.get(service)
        if trouble is None or spawned_at < trouble.failed_at:
            return None
        trouble.retry_at = 0.0
        trouble.text = trouble.cause = ""
        return Failing(service, 0, 0, "")

    def well(self, service: str, ready_at: float, now: float) -> None:
        """A service whose newest process has been well for a while has no failures in a row any more."""
        trouble = self.troubles.get(service)
        if trouble and ready_at > trouble.failed_at and now - ready_at >= WELL_AFTER_S:
            del self.troubles[service]

    def hurry(self, service: str) -> None:
        """What failed is to be tried again now."""
        if trouble := self.troubles.get(service):
            trouble.retry_at = 0.0

    def forgive(self, service: str) -> None:
        """It was not wanted, and is again: what failed before may have been another version."""
        if trouble := self.troubles.get(service):
            trouble.retry_at, trouble.failures = 0.0, 0

    def may_start(self, service: str, missing: int, ready_at: Sequence[float], now: float) -> int:
        """How many of those that are missing. `ready_at`: since when those that it has are; 0 = not yet."""
        trouble = self.troubles.get(service)
        if trouble is None:
            return missing
        if now < trouble.retry_at:
            return 0
        if any(at > trouble.failed_at for at in ready_at):
            return missing
        return 1 if all(ready_at) else 0

    def findings(self, now: float) -> list[Failing]:
        """For a master that knows nothing of them."""
        return [_failing(service, trouble, now) for service, trouble in self.troubles.items()]

    def tick(self, now: float) -> None:
        for trouble in self.troubles.values():
            if trouble.retry_at <= now:  # its time came: no deadline any more
                trouble.retry_at = 0.0

    def next_deadline(self) -> float:
        return min((trouble.retry_at for trouble in self.troubles.values() if trouble.retry_at), default=inf)


def _failing(service: str, trouble: Trouble, now: float) -> Failing:
    failures = trouble.failures if trouble.text else 0
    wait_ms = max(0, round((trouble.retry_at - now) * 1000)) if failures else 0
    return Failing(service, failures, wait_ms, trouble.text, trouble.cause)
