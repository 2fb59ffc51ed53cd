"""Whether a balancer in front should send requests here: asked of the master, by a thread that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any

from ..client.admin import Admin
from ..common.errors import Denied, Error, Incompatible
from ..common.log import note
from ..common.names import did_you_mean

LOOK_MAX_S = 1.0
ANSWER_S = 2.0
SHOWN = 5  # handlers


class Readiness:
    """`reason()` is "" when a master has answered, and a process may be given work, within the last `after` seconds."""

    def __init__(
        self,
        services: Collection[str],
        after: float,
        tell: Callable[[str], None] | None = note,
        routed: Collection[str] = (),
    ) -> None:
        """`tell`: whom it is told that a master does not answer, or a service is not there, or is again; None: another
        process tells it. `routed`: those of the services that HTTP requests go to.
        """
        self._tell = tell or (lambda text: None)
        self._trouble = ""  # with the masters, as it was told
        self._services = frozenset(services)
        self._missing: frozenset[str] | None = None  # of them; None: no master has said which there are
        self._routed = set(routed)  # those of which it is not known yet what they answer
        self._after = after
        self._well_at = float("-inf")
        self._why = "no master has answered yet"

    def reason(self) -> str:
        return "" if monotonic() - self._well_at <= self._after else self._why

    def heard(self, services: Sequence[dict[str, Any]], closed: Collection[str] = ()) -> None:
        """What a master said of all services, and which are closed for maintenance: their page is to be seen."""
        if self._trouble:
            self._trouble = ""
            self._tell("rota gateway: a master answers")
        self._look_for({service["name"] for service in services}.union(closed))
        self._look_into([each for each in services if each["name"] in self._routed])
        ours = self._services
        if any(service["open"] for service in services if service["name"] in ours) or not ours.isdisjoint(closed):
            self._well_at = monotonic()
        else:
            self._why = f"no process of {' or '.join(sorted(self._services))} may be given work"

    def _look_for(self, there: set[str]) -> None:
        """Those that nobody has served yet: misspelt, or their nodes come later."""
        before = self._services if self._missing is None else self._missing
        missing = before - there
        if self._missing is None:
            for name in sorted(missing):
                meant = did_you_mean(name, there)
                self._tell(f"rota gateway: nobody serves '{name}' yet: 503 until somebody does{meant}")
        else:
            for name in sorted(before - missing):
                self._tell(f"rota gateway: the service '{name}' is there now")
        self._missing = missing

    def _look_into(self, services: Sequence[dict[str, Any]]) -> None:
        """A rota.Worker mostly has no handler for HTTP: no request of its routes will ever be answered."""
        for service in services:
            name, handlers = service["name"], service.get("handlers")
            if handlers:  # a process has said them
                self._routed.remove(name)
                if "http" not in handlers:
                    said = f"'{name}' is no WSGI or ASGI application: requests of its routes are answered 502"
                    self._tell(f"rota gateway: {said}; its handlers are {', '.join(handlers[:SHOWN])}")

    def unheard(self, masters: Sequence[str], error: Exception | None = None) -> None:
        """`error`: what came in place of an answer."""
        if isinstance(error, Incompatible | Denied):  # one is there, and will not have us
            self._why = "the master refuses this gateway"
            trouble = f"{error}; trying on"
        else:
            self._why = "no master answers"
            where = f"no master answers at {', '.join(masters)}"  # mostly a name that is wrong, or the default
            if error is not None and not isinstance(error, Error):
                where += f" with its status ({type(error).__name__}: {error})"
            trouble = f"{where}; trying on; is one running? -m or ROTA_HTTP_MASTER says where it is"
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(f"rota gateway: {trouble}")

    def watch(self, masters: Sequence[str], stop: threading.Event) -> None:
        """Ask until `stop` is set; runs in a thread of its own."""
        pause = min(LOOK_MAX_S, self._after / 4)
        with Admin(masters, user="gateway") as admin:
            while not stop.is_set():
                try:
                    status = admin.verb("status", {"nodes": False}, ANSWER_S)
                    self.heard(status["services"], status["master"].get("maintenance", ()))
                except Exception as error:  # what is no status raises anything, and without this thread nobody asks
                    self.unheard(masters, error)
                stop.wait(pause)
