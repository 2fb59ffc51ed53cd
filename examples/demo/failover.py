"""The active master is killed under load, and nobody but the operator notices: `make demo-failover`.

Starts two masters, three slave nodes with the loan service, and a steady load from a process of its own: quotes, and
loans that must not be granted twice. Kills the active master with SIGKILL; the other one takes over. The killed one
returns as the standby, and a planned switchover leads back to it. Ends with a picture and a table of what clients saw;
exits 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import failover_report as report
from cluster import LOANS_BOOK, NODES, PROCESSES, Cluster, Failed, follow, free_port, play, say
from failover_report import Change
from watching import Status, active_nodes, processes

import rota

READY_S = 30.0
BEFORE_S, AFTER_S = 3.0, 3.0  # of load around each change
LOOK_S = 0.05
OTHER = {"a": "b", "b": "a"}


class Masters(Cluster):
    """Master a, its backup b, and nodes and clients that know both."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LOANS_BOOK, free_port())
        self.addresses = {"a": self.address, "b": f"tcp://127.0.0.1:{free_port()}"}
        self.address = ",".join(self.addresses.values())
        self.environment |= {"ROTA_MASTER": self.address, "LOANS_BOOK": str(self.book)}

    @property
    def book(self) -> Path:
        return self.folder / "loans-book.txt"

    def start_masters(self, *names: str) -> None:
        for name in names:
            state = str(self.folder / f"state-{name}")
            backup = ("--backup-of", self.addresses["a"]) if name == "b" else ()
            self.start(
                name, "rota", "master", "--name", name, "--bind", self.addresses[name], "--state", state, *backup
            )
            self.masters = tuple({*self.masters, name} - {"master"})

    def kill(self, name: str) -> None:
        self.masters = tuple({*self.masters} - {name})
        process = self.running.pop(name)
        process.kill()
        process.wait()


class Demo:
    def __init__(self, cluster: Masters, rate: int) -> None:
        self.cluster = cluster
        self.rate = rate
        self.load_line = ""
        self.admin = rota.Admin(cluster.address, user="demo")
        self.changes: list[Change] = []

    def play(self) -> report.Report:
        self.bring_up()
        load = self.start_load()
        self.watch(BEFORE_S)
        self.change("SIGKILL of the active master", self.kill)
        self.watch(AFTER_S)
        self.bring_back()
        self.watch(BEFORE_S)
        self.change("rota switchover", self.switch)
        self.watch(AFTER_S)
        say(picture(self.status()))
        requests = self.cluster.end_load(load, self.load_line)
        say("done, ending everything")
        return report.report(requests, self.changes, self.granted())

    def bring_up(self) -> None:
        say(f"masters a and b, {len(NODES)} nodes with {PROCESSES} processes each")
        self.cluster.start_masters("a")
        self.cluster.start_masters("b")
        for name in NODES:
            self.cluster.start_node(name, "1")
        self.wait_for("complete pair", lambda: self.complete(self.status()))
        say(picture(self.status()))

    def start_load(self) -> subprocess.Popen[str]:
        say(f"load: {self.rate} requests a second from a client process, every second one grants a loan")
        load = self.cluster.start_load(self.rate)
        follow(load, self.heard_load)
        self.wait_for("answer", lambda: bool(self.load_line))
        return load

    def heard_load(self, line: str) -> None:
        self.load_line = line
        say(line)

    def change(self, what: str, happen: Callable[[str], None]) -> None:
        before = self.status()["master"]
        at = time.monotonic()
        happen(before["name"])
        self.wait_for("later epoch", lambda: self.status()["master"]["epoch"] > before["epoch"])
        after = self.status()["master"]
        self.changes.append(
            Change(what, at, before["name"], before["epoch"], after["name"], after["epoch"], after["state"])
        )
        say(picture(self.status()))

    def kill(self, name: str) -> None:
        say(f"SIGKILL to master {name}")
        self.cluster.kill(name)

    def switch(self, name: str) -> None:
        say(f"rota switchover: {name} hands over to {OTHER[name]}")
        cost = self.admin.switchover(reason="the demo")
        say(f"{cost['to']} is active with epoch {cost['epoch']}, after {cost['took_ms']:.0f} ms")

    def bring_back(self) -> None:
        name = self.changes[-1].before
        say(f"master {name} is started again")
        self.cluster.start_masters(name)
        self.wait_for(f"standby {name}", lambda: self.complete(self.status()))
        say(picture(self.status()))

    def granted(self) -> Counter[str]:
        """Customer → how many loans the book shows."""
        return Counter(line.split()[1] for line in self.cluster.book.read_text(encoding="utf-8").splitlines())

    # ---- watching ---------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        return self.admin.status(timeout=READY_S)

    @staticmethod
    def complete(status: Status) -> bool:
        peer, alarms = status["master"].get("peer") or {}, status["master"]["alarms"]  # no takeover is possible: one
        ready = all(len(processes(status, name)) == PROCESSES for name in NODES)
        follows = peer.get("liveness") == "live" and peer.get("lag") == 0 and not alarms
        return ready and active_nodes(status) == len(NODES) and follows

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(LOOK_S)
            self.cluster.check()

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + READY_S
        while not holds():
            if time.monotonic() > until:
                raise Failed(f"no {what} after {READY_S:.0f} s: {picture(self.status())}")
            self.watch(LOOK_S)


def picture(status: Status) -> str:
    """`a active, epoch 1 | b standby, lag 0`"""
    master, peer = status["master"], status["master"].get("peer")
    other = "no standby yet"
    if peer and peer["liveness"] != "unknown":
        live = peer["liveness"] == "live"
        other = f"{peer['name']} standby, lag {peer['lag']}" if live else f"{peer['name']} is {peer['liveness']}"
    return f"{master['name']} {master['state']}, epoch {master['epoch']} | {other}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="for states, logs and the report (.demo)")
    parser.add_argument("--rate", type=int, default=200, help="requests a second (200)")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()

    def plays() -> tuple[str, list[str]]:
        with Masters(folder) as cluster:
            found = Demo(cluster, options.rate).play()
        return f"{report.picture(found)}\n\n{report.table(found)}", report.faults(found)

    return play(folder, plays, "The active master was killed, and then changed: nothing lost, no loan granted twice.")


if __name__ == "__main__":
    sys.exit(main())
