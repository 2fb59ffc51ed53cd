"""How the demo looks at the cluster: through `rota.Admin`, ten times a second."""

from __future__ import annotations

import threading
from typing import Any, Self

import rota

SAMPLE_S = 0.1
STOP_S = 5.0

Status = dict[str, Any]


class Sampler(threading.Thread):
    """Looks at the cluster ten times a second, from `start` to the end of its block."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.latest: Status = {}
        self.active: list[int] = []
        self.counting = False  # while there is load
        self.problem = ""
        self.stopped = threading.Event()

    def run(self) -> None:
        try:
            with rota.Admin(self.address, user="demo") as admin:
                while not self.stopped.wait(SAMPLE_S):
                    self.look(admin.status())
        except rota.Error as error:
            self.problem = f"{type(error).__name__}: {error}"

    def look(self, status: Status) -> None:
        self.latest = status
        if self.counting:
            self.active.append(active_nodes(status))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        if self.is_alive():
            self.join(STOP_S)


def active_nodes(status: Status) -> int:
    return next((int(x["active_nodes"]) for x in status.get("services", ()) if x["name"] == "loans"), 0)


def node(status: Status, name: str) -> Status:
    return next((x for x in status.get("nodes", ()) if x["name"] == name), {})


def processes(status: Status, name: str) -> list[Status]:
    return [x for x in node(status, name).get("processes", ()) if x["state"] == "ready"]


def picture(status: Status) -> str:
    """`node-1 2 × v2 | node-2 draining | node-3 2 × v1`"""
    return " | ".join(f"{x['name']} {_node_words(x)}" for x in status.get("nodes", ()))


def _node_words(state: Status) -> str:
    if state["intent"] != "active":
        return str(state["intent"])
    versions = [x["version"] for x in state["processes"] if x["state"] == "ready"]
    words = " + ".join(f"{versions.count(v)} × v{v}" for v in sorted(set(versions))) or "starting"
    return words if state["ramp"] >= 1 else f"{words}, ramp {state['ramp']:.0%}"
