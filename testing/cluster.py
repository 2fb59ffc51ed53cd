"""`LocalCluster`: a master and slave nodes as child processes on 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from ..cli.children import Child, Where, where
from ..common.errors import Error, LoadError, NotFound, Timeout, Unavailable
from ..common.names import unknown
from .where_from import Source, source_of

if TYPE_CHECKING:
    from ..client.admin import Admin
    from ..client.client import Client
    from ..worker.app import Worker

LOOK_S = 0.05  # a status is a millisecond or two of the master, who has better to do while nodes start
STOP_S = 10.0  # for TERM: running requests finish; then they are not waited for


class LocalCluster:
    """A real master, and nodes with real processes of an application; all of it ends with the block.

        with LocalCluster("shop.orders:orders", nodes=2, processes=2) as cluster:
            assert cluster.client().call("orders.quote", symbol="X") == ...

    app        `module:attribute`, `file.py:attribute`, `file.py`, or a `rota.Worker` that is defined in a file
    nodes      how many, or their names, each once; processes: of each
    app_dir    folder that the application is imported from (default: that of the file, or the current one)
    state      True, or a folder: the master remembers intents and its epoch across `restart_master()`
    settings   of `rota.toml`, by their dotted names: {"service.orders.queue_limit": 10, "master.dead_after": "1s"}
    env        variables for the processes, beside those of this process
    timeout    seconds until everything must be ready

    It is ready when the block is entered. Raises LoadError with the application's own traceback, or another rota.Error
    that says what did not start and ends with what it wrote.
    """

    def __init__(
        self,
        app: str | Worker,
        *,
        nodes: int | Sequence[str] = 1,
        processes: int = 1,
        app_dir: str | os.PathLike[str] | None = None,
        state: bool | str | os.PathLike[str] = False,
        settings: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._source = source_of(app, app_dir)
        self._names = _names(nodes)
        self._processes = processes
        self._state = state
        self._settings = settings or {}
        self._env = {**_without_rota(os.environ), **(env or {})}
        self._timeout = timeout
        self._folder: TemporaryDirectory[str] | None = None
        self._where: Where | None = None
        self._master: Child | None = None
        self._nodes: dict[str, Child] = {}
        self._starts: dict[str, list[str]] = {}  # node → the arguments that it was last started with
        self._stale: dict[str, str] = {}  # node → its boot before it was started again: what the master still shows
        self._open: list[Client | Admin] = []

    _bind = "tcp://127.0.0.1:*"  # of the master's first start; later ones take the ports of the first

    def __enter__(self) -> Self:
        if self._folder is not None:
            raise RuntimeError("this cluster runs already")
        self._folder = TemporaryDirectory(prefix="rota-cluster-")
        try:
            self._write_settings()
            self._start_master()
            for name in self._names:
                self._start_node(name, self._arguments(name, self._source, None))
            self._wait(starting=self._names)
        except BaseException:
            self.close(grace=0)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(grace=0 if kind else STOP_S)

    def close(self, grace: float = STOP_S) -> None:
        """End everything; what runs may take `grace` seconds to finish. May be called twice."""
        for each in self._open:
            each.close()
        self._open.clear()
        _end_together(list(self._nodes.values()), grace)
        self._nodes.clear()
        if self._master is not None:
            self._master.end(min(grace, STOP_S))
            self._master = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # ---- what there is ----------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The master's control address: for `rota.Client`, `rota.Admin`, and `rota -m` at a terminal."""
        return self._running_where().control

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes that run."""
        return [name for name, child in self._nodes.items() if child.status() is None]

    def client(self, **options: Any) -> Client:
        """A new `rota.Client`, with `options()` such as timeout=2; closed with the cluster."""
        from ..client.client import Client

        client = Client(self.address)
        self._open.append(client)
        return client.options(**options) if options else client

    def admin(self) -> Admin:
        """A new `rota.Admin`; closed with the cluster."""
        admin = self._asking()
        self._open.append(admin)
        return admin

    def status(self) -> dict[str, Any]:
        """As `rota.Admin.status()`."""
        with self._asking() as admin:
            return admin.status(timeout=self._timeout)

    def processes(self, node: str | None = None) -> list[int]:
        """The pids of the processes that are ready, of all nodes or of one."""
        return [
            process["pid"]
            for each in self.status()["nodes"]
            if node in (None, each["name"])
            for process in each["processes"]
            if str(process["state"]).startswith("ready")
        ]

    def log(self, name: str = "master") -> str:
        """What the master, or the node of this name with its processes, wrote."""
        path = self._log(name)
        return path.read_text(errors="replace") if path.exists() else ""

    # ---- what can happen to it --------------------------------------------------------------------------------------

    def kill_process(self, pid: int | None = None) -> int:
        """End a process (the first one unless named) with SIGKILL, as a crash would; its pid. Another one comes up."""
        known = self.processes()
        chosen = pid if pid is not None else next(iter(known), None)
        if chosen not in known or chosen is None:
            raise NotFound(f"no ready process{'' if pid is None else f' has the pid {pid}'}; there are {known}")
        os.kill(chosen, signal.SIGKILL)
        return chosen

    def restart_master(self, kill: bool = False) -> None:
        """End the master (by SIGKILL if so wanted) and start it on the same ports; returns when all is ready again."""
        if self._master is not None:
            self._master.kill() if kill else self._master.end(STOP_S)
        self._start_master()
        self.wait_ready()

    def stop_node(self, name: str, kill: bool = False) -> None:
        """TERM: the node finishes what it has and leaves. `kill`: SIGKILL for the agent, as if the machine had died."""
        child = self._nodes.pop(name, None)
        if child is None:
            raise NotFound(unknown("running node", name, self._nodes))
        if kill:
            child.kill()
        else:
            child.end(self._timeout)

    def start_node(
        self,
        name: str,
        *,
        app: str | Worker | None = None,
        app_dir: str | os.PathLike[str] | None = None,
        version: str | None = None,
    ) -> None:
        """Start a node that was stopped, as it was unless said otherwise, or another one; returns when it is ready."""
        if name in self.nodes:
            raise ValueError(f"{name} runs already")
        arguments = self._starts.get(name)
        if arguments is None or app is not None or app_dir is not None or version is not None:
            source = self._source.within(app_dir) if app is None else source_of(app, app_dir)
            arguments = self._arguments(name, source, version)
        self._stale |= {node["name"]: node["boot"] for node in self.status()["nodes"] if node["name"] == name}
        self._start_node(name, arguments)
        self._wait(starting=[name])

    def wait_ready(self) -> None:
        """Return when each node that runs, and is not drained, has all its processes ready for requests."""
        self._wait()

    def _wait(self, starting: Sequence[str] = ()) -> None:
        """`starting`: nodes whose first failure is final: what fails at its first start will fail at its second."""
        until = time.monotonic() + self._timeout
        with self._asking() as admin:
            while pending := self._pending(admin, starting):
                self._check_children()
                if time.monotonic() > until:
                    raise Timeout(f"not ready after {self._timeout:g} s: {'; '.join(pending)}{self._tails()}")
                time.sleep(LOOK_S)

    # ---- starting ---------------------------------------------------------------------------------------------------

    def _start_master(self) -> None:
        env = dict(self._env)
        if self._where is not None:  # processes know the backend's address since they were started
            env["ROTA_MASTER_FRONTEND"] = f"tcp://127.0.0.1:{self._where.frontend}"
            env["ROTA_MASTER_BACKEND"] = f"tcp://127.0.0.1:{self._where.backend}"
        address = self._where.control if self._where else self._bind
        log = self._log("master")
        log.unlink(missing_ok=True)
        arguments = ["master", "-c", str(self._path("rota.toml")), "--name", "master", "--bind", address]
        self._master = Child([*arguments, *self._state_arguments()], log, env=env)
        self._where = where(self._master, self._timeout)
        if self._where is None:
            raise Unavailable(f"the master did not start (exit code {self._master.status()}):\n{self._master.tail()}")

    def _state_arguments(self) -> list[str]:
        if self._state is False:
            return []
        folder = self._path("state") if self._state is True else Path(os.fspath(self._state))
        folder.mkdir(exist_ok=True)
        return ["--state", str(folder)]

    def _arguments(self, name: str, source: Source, version: str | None) -> list[str]:
        arguments = ["slave", source.app, "--name", name, "--master", self.address, "-p", str(self._processes)]
        arguments += ["-c", str(self._path("rota.toml"))]
        arguments += ["--app-dir", source.app_dir] if source.app_dir else []
        return arguments + (["--version", version] if version else [])

    def _start_node(self, name: str, arguments: list[str]) -> None:
        self._starts[name] = arguments
        self._nodes[name] = Child(arguments, self._log(name), env=self._env)

    def _write_settings(self) -> None:
        sections: dict[str, list[str]] = {}
        for key, value in self._settings.items():
            section, _, name = key.rpartition(".")
            sections.setdefault(section, []).append(f"{name} = {_toml(value)}")
        text = "\n".join(f"[{section}]\n" + "\n".join(lines) for section, lines in sections.items())
        self._path("rota.toml").write_text(text + "\n")

    # ---- looking ----------------------------------------------------------------------------------------------------

    def _pending(self, admin: Admin, starting: Sequence[str]) -> list[str]:
        """What is still missing, a sentence each."""
        try:
            status = admin.status(timeout=1.0)
        except (Unavailable, Timeout) as error:
            return [str(error)]
        found = {node["name"]: node for node in status["nodes"]}
        missing = [f"{name} has not come" for name in self._nodes if name not in found]
        here = [found[name] for name in self._nodes if name in found]
        for node in here:
            if node["name"] in starting and node["boot"] != self._stale.get(node["name"]):
                _raise_failing(node)
        full = all(service["ready"] >= service["target"] for service in status["services"])
        missing += [f"{node['name']}: {text}" for node in here if (text := self._missing(node, full))]
        services = sorted({service for node in here if node["intent"] == "active" for service in node["offers"]})
        return missing or (_unready(admin, services) if services else [])

    def _missing(self, node: dict[str, Any], full: bool) -> str:
        """`full`: the services have what they want; a node without a process is then one that needs none."""
        if node["boot"] == self._stale.get(node["name"]):
            return "has not come back"
        if node["liveness"] != "live":
            return f"is {node['liveness']}"
        ready = sum(str(process["state"]).startswith("ready") for process in node["processes"])
        wanted = self._processes if node["intent"] == "active" else 0
        here = len(node["processes"]) or (0 if full else wanted)
        return "" if ready >= min(wanted, here) else str(node["why"]) or "not ready"

    def _check_children(self) -> None:
        if self._master is not None and self._master.status() is not None:
            raise Error(f"the master ended with {self._master.status()}:\n{self._master.tail()}")
        for name, child in self._nodes.items():
            if child.status() is not None:
                text = f"{name} ended with {child.status()}:\n{child.tail()}"
                raise LoadError(text, details={"traceback_text": child.tail()})

    def _tails(self) -> str:
        return "".join(f"\n--- {name} wrote:\n{child.tail()}" for name, child in self._nodes.items())

    def _asking(self) -> Admin:
        from ..client.admin import Admin

        return Admin(self.address)

    def _running_where(self) -> Where:
        if self._where is None or self._folder is None:
            raise RuntimeError("the cluster does not run: use it in a `with` block")
        return self._where

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise RuntimeError("the cluster does not run: use it in a `with` block")
        return Path(self._folder.name, name)

    def _log(self, name: str) -> Path:
        return self._path(f"{name}.log")


def _names(nodes: int | Sequence[str]) -> list[str]:
    if isinstance(nodes, int):
        return [f"node-{number}" for number in range(1, nodes + 1)]
    names = [nodes] if isinstance(nodes, str) else list(nodes)
    if len(set(names)) < len(names):
        raise ValueError(f"nodes: each has a name of its own, not {names}")
    return names


def _raise_failing(node: dict[str, Any]) -> None:
    for failing in node["failing"]:
        text = f"{failing['service']} does not start on {node['name']}:\n{failing['text']}"
        raise LoadError(text, details={"traceback_text": failing["text"]})


def _unready(admin: Admin, services: list[str]) -> list[str]:
    try:
        admin.wait("ready", *services, timeout=0.1)
    except Timeout as error:
        return [str(error)]
    return []


def _end_together(children: list[Child], grace: float) -> None:
    """TERM for all before any of them is waited for: they drain side by side."""
    if grace > 0:
        for child in children:
            child.signal(signal.SIGTERM)
        until = time.monotonic() + grace
        for child in children:
            child.wait(max(0.0, until - time.monotonic()))
    for child in children:
        child.end(0)


def _without_rota(environment: Mapping[str, str]) -> dict[str, str]:
    """What is set for another cluster must not reach this one."""
    return {name: value for name, value in environment.items() if not name.startswith("ROTA_")}


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
