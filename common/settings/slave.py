"""A slave node: what it runs, how many processes of it, how they start and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from .. import host, limits
from ..declare import Computed, Section, setting
from ..kinds import (
    APP,
    Address,
    Boolean,
    Choice,
    Directory,
    Duration,
    File,
    Integer,
    Name,
    Optional,
    Several,
    Table,
    Text,
    Version,
)

_HOST_NAME = Computed(host.name, "the host's name")
_CPUS = Computed(host.usable_cpus, "the cores this machine or container may use")


@dataclass(init=False, repr=False, eq=False, slots=True)
class SlaveSettings(Section):
    """A slave node: what it offers, to which master, and how its processes start and stop."""

    section: ClassVar[str] = "slave"
    reloads: ClassVar[bool] = False

    app: str | None = setting(
        None,
        Optional(APP),
        "what to serve: module:attribute or file.py:attribute; without :attribute, the only Worker there",
        "no application could be assumed",
        flags=("APP",),
    )
    name: str = setting(
        _HOST_NAME,
        Name(),
        "the node's name, unique in the cluster and the same after each restart",
        "intents are kept by name: a node that was drained comes back drained",
        flags=("--name",),
    )
    master: tuple[str, ...] = setting(
        (f"tcp://127.0.0.1:{limits.CONTROL_PORT}",),
        Several(Address(), limit=limits.MASTERS_MAX),
        "control addresses of the masters, the primary first",
        "at a first try the master runs on the same machine",
        flags=("-m", "--master"),
    )
    processes: int = setting(
        _CPUS,
        Integer(1, 1024),
        "how many processes this node has room for, all services together",
        "one per core keeps the cores busy; more pay off when handlers mostly wait",
        flags=("-p", "--processes"),
    )
    threads: int = setting(
        1,
        Integer(1, limits.PAGE_ROWS),
        "how many requests a process of a WSGI application serves at once, each in a thread; leave it away for others",
        "unless an application says so, it may not be safe to call from several threads",
        flags=("--threads",),
    )
    concurrency: int = setting(
        limits.PAGE_ROWS,
        Integer(1, limits.CONCURRENCY_MAX),
        "how many requests a process of an async application serves at once; an open WebSocket is one; "
        "leave it away for others",
        "fewer requests already use all that one event loop can do; open WebSockets mostly wait, so more of them fit",
        flags=("--concurrency",),
    )
    service: str | None = setting(
        None,
        Optional(Name()),
        "offer the application under this name instead of its own",
        "a Worker has a name; a WSGI or ASGI application gets that of its module",
        flags=("--service",),
    )
    version: str | None = setting(
        None,
        Optional(Version()),
        "version of the application",
        "without it a file VERSION in app_dir is read at each start of a process, so that a "
        "swapped symlink brings its own version",
        flags=("--version",),
    )
    tags: Mapping[str, str] = setting(
        {},
        Table(Text(limit=64)),
        "labels to choose nodes by, as in rota drain --tag zone=a",
        "the names of nodes need not say where they are",
        flags=("--tag",),
    )
    factory: bool = setting(
        False,
        Boolean(),
        "the attribute of APP is a function without parameters that makes the application",
        "calling whatever is callable would call every WSGI application",
        flags=("--factory",),
    )
    interface: str = setting(
        "auto",
        Choice(("auto", "wsgi", "asgi", "rota")),
        "what APP is: a WSGI or ASGI application, a rota.Worker, or (auto) what it looks like",
        "the number of its parameters, and whether it is async, tell nearly all applications apart",
        flags=("--interface",),
    )
    app_dir: str = setting(
        ".",
        Directory(),
        "directory of the application, kept as typed and entered at each start of a process",
        "if it were resolved only once, a symlink would keep naming the old release",
        flags=("--app-dir",),
    )
    python: str | None = setting(
        None,
        Optional(File()),
        "interpreter of the processes; without it, the one that runs the agent",
        "where each release has a virtual environment, its processes need the interpreter of that one",
        flags=("--python",),
    )
    state: str | None = setting(
        None,
        Optional(Directory()),
        "directory for what must survive a restart of the agent: intent, votes, output of processes",
        "without it they go with the agent, which may then vote twice in one epoch; the master knows the intent, too",
        flags=("--state",),
    )
    start_timeout: float = setting(
        60.0,
        Duration("1s", "1h"),
        "how long a process may take to become ready; then the start counts as failed",
        "an import that hangs must show up as a failure; large models need more time",
    )
    drain_deadline: float = setting(
        60.0,
        Duration("0s", "1d"),
        "how long TERM waits for requests in flight before the agent leaves",
        "with stop_grace it stays below the 90 s of TimeoutStopSec, after which systemd kills",
    )
    stop_grace: float = setting(
        10.0,
        Duration("0s", "1h"),
        "how long a process that is told to stop may take for its on_stop hooks; then SIGKILL",
        "closing connections takes a moment; docker stop gives 10 s, too",
    )
