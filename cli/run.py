"""rota run: a master and one slave on this machine, as one command in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from ..common import exits
from ..common.inuse import PortInUse
from ..common.limits import CONTROL_PORT
from ..common.log import note
from ..common.names import OF_HTTP
from ..common.settings import MasterSettings, SlaveSettings
from ..common.signals import inherit_none
from ..gateway.listening import check_free
from ..worker.orphans import reap_adopted
from ..worker.spawn import how_it_ended
from . import gateway
from .children import Child, where
from .operator import admin
from .options import arguments_of, as_written, config_option, load_or_exit, options
from .serve import what_to_serve
from .verb import Failed, verb

if TYPE_CHECKING:
    from ..client.admin import Admin
    from ..common.config import Config
    from .reloading import Reloading

HERE = f"tcp://127.0.0.1:{CONTROL_PORT}"
MASTER_STARTS_S = 20.0
MASTER_STOPS_S = 5.0
TICK_S = 0.05
LOOK_S = 1.0  # for the master to answer: meanwhile signals wait, and its end is not seen

_HOW = ("processes", "threads", "concurrency", "factory", "interface", "app_dir", "python")
_OWN = ("app", "name", "service", "version", "tags", *_HOW)


@verb(
    "run",
    examples=(
        "rota run shop.orders:orders            then: rota call orders.quote symbol=X",
        "rota run shop.py -p 2",
        "rota run shop.py --bind tcp://127.0.0.1:*   any free port",
        "rota run site.wsgi:application --http 127.0.0.1:8080",
        "rota run site.wsgi:application --http 127.0.0.1:8080 --reload",
    ),
    exits=(exits.FAILED, exits.LOAD_FAILED, exits.BAD_CONFIG),
)
@config_option
@options(SlaveSettings, only=_OWN)
@click.option(
    "--bind",
    metavar="ADDRESS",
    callback=as_written(MasterSettings, "bind"),
    help=f"Control address of the master; * as port for any free one. Default: {HERE}.",
)
@gateway.http_option
@click.option(
    "--reload",
    "reload",
    is_flag=True,
    help="For development: one process (or -p), replaced when a source file changes; exceptions are shown to browsers.",
)
def run(config_file: str | None, flags: dict[str, object], bind: str | None, reload: bool) -> None:
    """Run a master and one slave node on this machine.

    APP, what the processes serve, is module:attribute or file.py:attribute; without :attribute, the only
    rota.Worker there is taken. Ctrl-C lets running requests finish and ends; a second one ends at once.
    """
    own = {"master.bind": bind} if bind is not None else {}
    checked = load_or_exit(config_file, {**flags, **own})
    settings = what_to_serve(checked)
    gateway.check_address(checked, flags)
    bind = checked.master.bind if "master.bind" in checked.places else HERE
    file = ["-c", config_file] if config_file else []
    front = _front(config_file, checked)
    with _folder() as folder:
        reloading = _reloading(settings, Path(folder)) if reload else None
        if reload and "slave.processes" not in checked.places:
            flags["slave.processes"] = 1  # the new one is there before the old one goes, and nobody meets both
        foreground = Foreground(Path(folder), front, reloading, checked.places)
        try:
            master = ["master", *file, "--bind", bind, "--http", "off"]  # a signal drains the gateway before the node
            own_flags = {name: value for name, value in flags.items() if not name.startswith("http.")}
            code = foreground.run(master, ["slave", *file, *arguments_of(own_flags)])
        finally:
            foreground.end()
    sys.exit(code)


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="rota-run-")
    except OSError as error:
        raise Failed(f"there is nowhere to keep the master's log: {error}; TMPDIR names a directory") from None


def _reloading(settings: SlaveSettings, folder: Path) -> Reloading:
    from .reloading import Reloading

    return Reloading(settings, folder)


Front = Callable[[str, str], list[str]]  # a master's address and its first service → the arguments of a gateway


def _front(config_file: str | None, config: Config) -> Front | None:
    bind = config.http.bind
    if bind is None:
        return None
    try:
        check_free(bind)
        gateway.check(config)
    except PortInUse as error:
        raise Failed(str(error)) from None
    routed = gateway.has_routes(config)
    return lambda master, service: gateway.arguments(
        config_file, config.http, master, () if routed else (("/", service),)
    )


class Foreground:
    """The children, and what the terminal and signals have to do with them."""

    def __init__(self, folder: Path, front: Front | None, reloading: Reloading | None, made: Collection[str]) -> None:
        self._folder = folder
        self._front = front
        self._reloading = reloading
        self._environment = reloading.environment(os.environ, made) if reloading else None
        self._service = ""  # that is reloaded
        self._gateway: Child | None = None
        self._children: list[Child] = []
        self._signals: list[int] = []
        self._stops = 0
        self._is_ready = False
        unheard = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # by nohup
        for number in {signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP} - unheard:
            signal.signal(number, self._note)
        inherit_none()

    def run(self, master_arguments: list[str], slave_arguments: list[str]) -> int:
        """Until the slave node has left; the exit code."""
        if self._reloading is not None:
            if not self._loaded(self._reloading):
                return 0
            slave_arguments = [*slave_arguments, "--service", self._service]  # it is known: no need to load it again
        master = self._start(master_arguments, self._folder / "master.log")
        place = where(master, MASTER_STARTS_S)
        if place is None:
            raise Failed(
                f"the master did not start:\n{master.tail().removeprefix('Error: ')}", master.status() or exits.FAILED
            )
        master.unshown()  # its greeting is ours to say
        slave = self._start([*slave_arguments, "--master", place.control], None)
        with admin([place.control]) as asked:
            while slave.status() is None:
                self._obey(slave)
                reap_adopted(self._own())
                if (ended := master.status()) is not None:
                    raise Failed(f"the master ended: {how_it_ended(ended)}\n{master.unshown()}".rstrip())
                note(master.unshown())
                if self._gateway is not None:
                    self._look_at_gateway(self._gateway, slave)
                if not self._is_ready and not self._stops:
                    self._look(asked, place.control)
                if self._reloading is not None and not self._stops:
                    self._reloading.tick(asked, self._service)
                time.sleep(TICK_S)
        return self._outcome(slave.status() or 0)

    def _outcome(self, status: int) -> int:
        """The exit code. A node that is told to stop before it listens to signals ends by them."""
        if status >= 0:
            return status
        if self._stops and -status in (signal.SIGTERM, signal.SIGINT):
            return 0
        raise Failed(f"the slave node ended: {how_it_ended(status)}")

    def _loaded(self, reloading: Reloading) -> bool:
        """True as soon as the code loads, False when it is to end before."""
        while not self._signals and not self._service:
            self._service = reloading.first() or ""
            time.sleep(TICK_S)
        return not self._signals

    def end(self) -> None:
        if self._reloading is not None:
            self._reloading.stop()
        for child in reversed(self._children):
            child.end(MASTER_STOPS_S)

    def _start(self, arguments: list[str], log: Path | None) -> Child:
        child = Child(arguments, log, env=self._environment)
        self._children.append(child)
        return child

    def _own(self) -> set[int]:
        probes = self._reloading.pids() if self._reloading else ()
        return {*(child.pid for child in self._children), *probes}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _obey(self, slave: Child) -> None:
        """The first signal drains (but QUIT), the second ends at once. A gateway drains before the node does."""
        while self._signals:
            fast = self._signals.pop(0) == signal.SIGQUIT or self._stops
            self._stops += 1
            if not fast:
                note("rota run: finishing what is running; Ctrl-C again ends at once")
            for child in [self._gateway or slave] if not fast else filter(None, (self._gateway, slave)):
                child.signal(signal.SIGINT if fast else signal.SIGTERM)

    def _look_at_gateway(self, front: Child, slave: Child) -> None:
        status = front.status()
        if status is None:
            return
        self._gateway = None
        if not self._stops:
            raise Failed(f"the gateway ended: {how_it_ended(status)}")
        slave.signal(signal.SIGTERM)

    def _look(self, asked: Admin, address: str) -> None:
        """Tell when it is ready; Failed if the application does not start, unless it may be mended. Its own output is
        on the terminal.
        """
        from ..common.errors import Timeout, Unavailable

        try:
            status = asked.status(timeout=LOOK_S)
        except (Timeout, Unavailable):  # it has just ended, which is seen next
            return
        for node in status["nodes"] if self._reloading is None else ():
            for failing in node["failing"]:
                raise Failed(f"{failing['service']} failed to start: {failing['cause']}", exits.LOAD_FAILED)
        services = [each for each in status["services"] if each["target"] and each["ready"] >= each["target"]]
        if services:
            self._is_ready = True
            note(_greeting(services[0], address))
            if self._front is not None:
                self._gateway = self._start(self._front(address, services[0]["name"]), None)


def _greeting(service: dict[str, Any], address: str) -> str:
    from .render import plural

    option = "" if address == HERE else f" -m {address}"
    handlers = [name for name in service["handlers"] if name not in OF_HTTP]
    return (
        f"rota run: {service['name']} is ready: {plural(service['ready'], 'process')}, {address}\n"
        + (f"  handlers: {', '.join(handlers)}\n" if handlers else "")
        + f"  try: rota status{option}; Ctrl-C ends"
    )
