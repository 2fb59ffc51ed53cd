"""A cluster that serves `app.py`, with a ledger beside it, and nodes whose live version is a symlink of their own."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rota.testing import LocalCluster

from .ledger import Ledger
from .proxy import PROXIED, Proxy

APP = Path(__file__).with_name("app.py")
Status = dict[str, Any]


class Pool(LocalCluster):
    """`app`: FILE:WORKER, of the service `proof`. `links`: each node serves FOLDER/NAME/live. `remember`: agents have a
    --state. `proxied`: these nodes (True: all) reach the master through `proxy`. `env`: more variables for all of it.
    """

    proxy: Proxy

    def __init__(
        self,
        folder: Path,
        *,
        app: str = f"{APP}:proof",
        nodes: int | Sequence[str] = 1,
        processes: int = 1,
        links: bool = False,
        remember: bool = False,
        proxied: bool | Collection[str] = False,
        state: bool = True,
        settings: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.ledger = Ledger(folder / "executed")
        self._links, self._remember = links, remember
        names = [f"node-{number}" for number in range(1, nodes + 1)] if isinstance(nodes, int) else list(nodes)
        self._proxied = names if proxied is True else list(proxied or ())
        super().__init__(
            app,
            nodes=[name for name in names if name not in self._proxied],
            processes=processes,
            state=state,
            settings={"service.proof.ramp": 0, **(settings or {})},
            env={"PROOF_FILE": str(self.ledger.file), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        )

    def _arguments(self, name: str, source: Any, version: str | None) -> list[str]:
        if self._links:
            source = source._replace(app="app:proof", app_dir=str(self.live(name)))
        arguments = super()._arguments(name, source, version)
        if name in self._proxied:
            arguments[arguments.index("--master") + 1] = self.proxied_address
        if self._remember:
            state = self.folder / f"{name}-state"
            state.mkdir(exist_ok=True)
            arguments += ["--state", str(state)]
        return arguments

    # ---- versions on disk -----------------------------------------------------------------------------------------

    def live(self, name: str) -> Path:
        """The node's symlink; it names version 1 at first."""
        link = self.folder / name / "live"
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(self.release("1"))
        return link

    def release(self, version: str) -> Path:
        folder = self.folder / f"release-{version}"
        if not folder.exists():
            folder.mkdir()
            (folder / "app.py").write_text(APP.read_text())
            (folder / "VERSION").write_text(f"{version}\n")
        return folder

    def swap(self, name: str, version: str) -> None:
        link = self.live(name)
        fresh = link.with_name("fresh")
        fresh.symlink_to(self.release(version))
        os.replace(fresh, link)

    # ---- through the proxy ----------------------------------------------------------------------------------------

    @property
    def proxied_address(self) -> str:
        return f"tcp://{PROXIED}:{self._running_where().control.rpartition(':')[2]}"

    @contextmanager
    def through_proxy(self) -> Iterator[Proxy]:
        """Starts those nodes that are to be behind it. A proxy of all three sockets."""
        where = self._running_where()
        control = int(where.control.rpartition(":")[2])
        ports = {"control": control, "frontend": where.frontend, "backend": where.backend}
        with Proxy(ports) as self.proxy:
            try:
                for name in self._proxied:
                    self._start_node(name, self._arguments(name, self._source, None))
                self._wait(starting=self._proxied)
                yield self.proxy
            finally:
                self.close()  # while the way to the master is there

    # ---- looking --------------------------------------------------------------------------------------------------

    def node(self, name: str) -> Status:
        return next((node for node in self.status()["nodes"] if node["name"] == name), {})

    def running(self) -> dict[str, int]:
        """Key → pid of what has begun and not ended."""
        begun: dict[str, int] = {}
        for each in self.ledger.executions():
            if each.word == "began":
                begun[each.key] = each.pid
            else:
                begun.pop(each.key, None)
        return begun
