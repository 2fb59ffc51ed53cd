"""Services that an operator has closed: their callers are told so, and no process is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...common import errors
from .faults import MAINTENANCE

if TYPE_CHECKING:
    from .dispatch import Dispatch
    from .pool import Request

RETRY_AFTER_S = 60.0  # where an operator says nothing: a migration takes minutes, and pages that poll are cheap


class Closed(NamedTuple):
    """`retry_after`: seconds, for the callers. `by`, `reason`: for operators. `stopped`: its processes end, too."""

    retry_after: float = RETRY_AFTER_S
    by: str = ""
    reason: str = ""
    stopped: bool = False


class Maintenance:
    """By name, since a service may be closed that no node offers. What is closed is never in the dispatch's memory of
    targets, so that open services pay nothing for it.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        self.closed: dict[str, Closed] = {}
        self._dispatch = dispatch

    def close(self, service: str, closed: Closed) -> None:
        """What waits is refused; what was dispatched goes on, and what it may still need (a second attempt) too."""
        self.closed[service] = closed
        self._dispatch.forget_targets()
        pool = self._dispatch.pools.get(service)
        for request in self._dispatch.waiting(pool) if pool is not None else ():
            if request.attempt == 0:
                self._dispatch.withdraw(request)
                self._refuse(request, service)

    def open(self, service: str) -> None:
        self.closed.pop(service, None)

    def stopped(self, service: str) -> bool:
        """No process of it is to run."""
        return service in self.closed and self.closed[service].stopped

    def takes(self, request: Request) -> bool:
        """True: its service is closed, and it has its answer."""
        if not self.closed:
            return False
        service = service_of(request.target())
        if service in self.closed:
            self._refuse(request, service)
        return service in self.closed

    def _refuse(self, request: Request, service: str) -> None:
        retry_after_ms = int(1000 * self.closed[service].retry_after)
        cause = f"{service} is closed for maintenance"
        self._dispatch.fail(request, errors.NoService.code, cause, retry_after_ms, **{MAINTENANCE: True})


def service_of(target: bytes) -> str:
    return target.decode("utf-8", "replace").rpartition(".")[0]
