"""Whether a balancer in front should send requests here: asked of the master, by a thread that nobody waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..client.admin import Admin
from ..common.errors import Error
from ..common.log import note

LOOK_MAX_S = 1.0
ANSWER_S = 2.0


class Readiness:
    """`reason()` is "" when a master has answered, and a process may be given work, within the last `after` seconds."""

    def __init__(
        self,
        services: Collection[str],
        after: float,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] | None = note,
    ) -> None:
        """`tell`: whom a master that does not answer, or does again, is told; None: another process tells it."""
        self._tell = tell or (lambda text: None)
        self._silent = False  # and that was told
        self._services = frozenset(services)
        self._after = after
        self._clock = clock
        self._well_at = float("-inf")
        self._why = "no master has answered yet"

    def reason(self) -> str:
        return "" if self._clock() - self._well_at <= self._after else self._why

    def heard(self, services: Sequence[dict[str, Any]], closed: Collection[str] = ()) -> None:
        """What a master said of all services, and which are closed for maintenance: their page is to be seen."""
        if self._silent:
            self._silent = False
            self._tell("rota gateway: a master answers")
        ours = self._services
        if any(service["open"] for service in services if service["name"] in ours) or not ours.isdisjoint(closed):
            self._well_at = self._clock()
        else:
            self._why = f"no process of {' or '.join(sorted(self._services))} may be given work"

    def unheard(self) -> None:
        if not self._silent:
            self._silent = True
            self._tell(
                "rota gateway: no master answers; trying on; is one running? -m or ROTA_HTTP_MASTER says where it is"
            )
        self._why = "no master answers"

    def watch(self, masters: Sequence[str], stop: threading.Event) -> None:
        """Ask until `stop` is set; runs in a thread of its own."""
        pause = min(LOOK_MAX_S, self._after / 4)
        with Admin(masters, user="gateway") as admin:
            while not stop.is_set():
                try:
                    status = admin.verb("status", {"nodes": False}, ANSWER_S)
                    self.heard(status["services"], status["master"].get("maintenance", ()))
                except (Error, KeyError, TypeError):
                    self.unheard()
                stop.wait(pause)
