"""Two masters, and nodes that know both: `Pair`."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lan import Host
from waiting import until

import rota
from rota.cli.children import Child, Where, where

PATIENCE_S = 30.0
URL = re.compile(r"http://([0-9.]+:[0-9]+)")


class Pair:
    """`masters`: name → child. `a` is the primary and starts as the active one, `b` is its backup."""

    def __init__(
        self,
        folder: Path,
        *,
        env: dict[str, str] | None = None,
        http: Sequence[str] = (),
        hosts: Mapping[str, Host] | None = None,
    ) -> None:
        """`http`: routes; each master then has a gateway of its own. `hosts`: where each master and node runs; without
        it all are on this machine.
        """
        self.folder = folder
        self.hosts = hosts or {}
        self.masters: dict[str, Child] = {}
        self.nodes: dict[str, Child] = {}
        self.addresses: dict[str, str] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self._where: dict[str, Where] = {}
        self._routes = [word for route in http for word in ("--route", route)]
        own = {name: text for name, text in os.environ.items() if not name.startswith("ROTA_")}
        self._env = {**own, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}

    def start_master(self, name: str, *words: str) -> None:
        """The first time on free ports, later on those of the first time."""
        folder = self.folder / f"state-{name}"
        host = self.hosts[name].address if name in self.hosts else "127.0.0.1"
        log, env, bind = self.folder / f"{name}.log", dict(self._env), f"tcp://{host}:*"
        if name in self._where:
            control, frontend, backend = self._where[name]
            bind, words = control, self._words[name]
            env |= {"ROTA_MASTER_FRONTEND": f"tcp://{host}:{frontend}"}
            env |= {"ROTA_MASTER_BACKEND": f"tcp://{host}:{backend}"}
            log.rename(self.folder / f"{name}-{len(list(self.folder.glob(f'{name}-*.log')))}.log")  # of its last life
        else:
            folder.mkdir()
            self._words[name] = words
        door = ["--http", f"{host}:*", *self._routes] if self._routes else []
        with self._on(name):
            child = Child(
                ["master", "--name", name, "--state", str(folder), "--bind", bind, *door, *words], log, env=env
            )
        self.masters[name] = child
        found = where(child, PATIENCE_S)
        assert found, child.output()
        self._where[name] = found
        self.addresses[name] = found.control

    def start_node(self, name: str, app: str, processes: int = 2, *more: str) -> None:
        folder = self.folder / f"state-{name}"
        folder.mkdir(exist_ok=True)
        words = ["slave", app, "--name", name, "-p", str(processes), "--state", str(folder), *more]
        with self._on(name):
            self.nodes[name] = Child([*words, "-m", ",".join(self.both)], self.log(name), env=self._env)

    def _on(self, name: str) -> AbstractContextManager[None]:
        return self.hosts[name].inside() if name in self.hosts else nullcontext()

    @property
    def both(self) -> Sequence[str]:
        return tuple(self.addresses.values())

    def door(self, name: str) -> str:
        """host:port of the gateway that this master started."""
        found: list[str] = []

        def listens() -> bool:
            found.extend(URL.findall(self.log(name).read_text()))
            return bool(found)

        until(listens, lambda: self.log(name).read_text())
        return found[0]

    def status(self, *names: str) -> dict[str, Any]:
        """Of whoever is active; of these masters, whatever they are."""
        with rota.Admin([self.addresses[name] for name in names] or self.both) as admin:
            return admin.status(timeout=PATIENCE_S)

    def state(self, name: str) -> str:
        return str(self.status(name)["master"]["state"])

    def follows(self) -> bool:
        """The active one has a standby that is in sync, and that could be elected."""
        master = self.status()["master"]
        peer, electable = master.get("peer"), not any("no takeover" in alarm for alarm in master["alarms"])
        return peer is not None and peer["liveness"] == "live" and peer["lag"] == 0 and electable

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def close(self) -> None:
        children = [*self.nodes.values(), *self.masters.values()]
        for child in children:
            child.signal(signal.SIGCONT)
            child.signal(signal.SIGTERM)
        for child in children:
            child.wait(5.0)
            child.end(0)


@contextmanager
def pair(
    folder: Path,
    *,
    env: dict[str, str] | None = None,
    http: Sequence[str] = (),
    hosts: Mapping[str, Host] | None = None,
) -> Iterator[Pair]:
    """Both masters, the backup in sync as soon as it can be; nodes are started by the test."""
    made = Pair(folder, env=env, http=http, hosts=hosts)
    try:
        made.start_master("a")
        made.start_master("b", "--backup-of", made.addresses["a"])
        yield made
    finally:
        made.close()
