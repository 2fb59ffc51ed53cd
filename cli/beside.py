"""The gateway of a master: started when that listens, anew when it ends by itself, and taken down with it."""

from __future__ import annotations

import signal
from math import inf

from ..common.config import Config
from ..common.limits import MASTERS_MAX
from ..common.log import note
from ..common.restarts import Restarts
from ..gateway.listening import check_free
from ..worker.spawn import how_it_ended
from .children import Child
from .gateway import Pairs, arguments, check, has_routes, start_of
from .verb import Mistake

STOPS_S = 5.0  # beyond what a drain may take, before it is not waited for
LOOK_S = 0.5  # between two looks whether it has ended


class Beside:
    """`attend` when `due_at` has come."""

    def __init__(self, config_file: str | None, config: Config, routes: Pairs) -> None:
        """Raises PortInUse; Mistake when nothing would be served; BadConfig, Failed when it would not start."""
        self.due_at = inf
        self._child: Child | None = None
        self._arguments: list[str] | None = None  # None: none is to run (any more)
        self._restarts = Restarts()
        self._file = config_file
        self._http = config.http
        self._routes = routes
        self._host = config.master.bind.rpartition(":")[0].removeprefix("tcp://")
        said = config.http.master if "http.master" in config.places else ()
        self._others = [*(config.standby.backup_of or ()), *said]  # whoever of the pair is active is called
        if self._http.bind is None:
            if routes:
                raise Mistake("--route is for HTTP requests: say --http HOST:PORT, too")
            return
        called = any(service.http.calls for service in config.services.values())
        if not routes and not called and not has_routes(config):
            raise Mistake('which service is --http for? Say --route /=NAME, or routes = ["/"] in [service.NAME.http]')
        check_free(self._http.bind)
        check(config)
        start_of(config, routes)  # with the routes of the command line, too

    def start(self, control_port: int, now: float) -> None:
        if self._http.bind is not None:
            host = "127.0.0.1" if self._host in ("*", "0.0.0.0", "[::]") else self._host
            masters = ",".join(list(dict.fromkeys([f"tcp://{host}:{control_port}", *self._others]))[:MASTERS_MAX])
            self._arguments = arguments(self._file, self._http, masters, self._routes)
            self.attend(now)

    def attend(self, now: float) -> None:
        status = self._child.status() if self._child is not None else None
        if status is not None:
            self._let_go(0.0)
            self._again(f"ended: {how_it_ended(status)}", now)
        elif self._child is not None:
            self.due_at = now + LOOK_S
        elif self._arguments is not None:
            self._start(self._arguments, now)

    def reread(self) -> None:
        if self._child is not None:
            self._child.signal(signal.SIGHUP)

    def stop(self) -> None:
        self._arguments, self.due_at = None, inf
        if self._child is not None:
            self._child.signal(signal.SIGTERM)

    def end(self) -> None:
        self._let_go(self._http.lead + self._http.drain + STOPS_S)

    def _start(self, words: list[str], now: float) -> None:
        self.due_at = now + LOOK_S
        self._restarts.started(now)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # it inherits that: one that comes while it
        try:  # starts is taken by its crew, and does not end it
            self._child = Child(words)
        except OSError as error:
            self._again(f"cannot be started: {error}", now)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _let_go(self, grace: float) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(grace)

    def _again(self, what: str, now: float) -> None:
        pause_s = self._restarts.pause(now)
        self.due_at = now + pause_s
        note(f"rota master: its gateway {what}; it is started again in {pause_s:g} s")
