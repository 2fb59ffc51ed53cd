"""A rolling update under load, with a process killed in the middle of it: `make demo`, and `make demo-web` for HTTP.

Starts a master and three slave nodes with version 1 of the loan service, puts a steady load on them from a process of
its own (`load.py`; with --web `load_web.py`, through a gateway), plays the deploy script (`deploy.sh`) that brings them
to version 2, and kills one process with SIGKILL on a node that is not being drained. Ends with a table; exits 1 if
anything was lost or failed, or if fewer than two nodes were active at any moment.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import report
from cluster import EXAMPLES, LOANS, LOANS_WEB, NODES, PROCESSES, Cluster, Failed, follow, free_port, play, say
from report import NEW, OLD, Deploy
from watching import SAMPLE_S, Sampler, Status, active_nodes, node, picture, processes

import rota

DRAINED, VICTIM = NODES[1], NODES[2]  # while the one is away, a process of the other, not yet updated, is killed

READY_S = 30.0
BEFORE_S = 6.0  # of load before the deploy begins: some 2,400 requests, enough for a p99
AFTER_S = 2.0
DEPLOY_S = 90.0
LOOKS = 50  # for a busy process: one is, half of the time


def complete(status: Status) -> bool:
    ready = [len(processes(status, name)) == PROCESSES for name in NODES]
    return all(ready) and active_nodes(status) == len(NODES)


class Kill(NamedTuple):
    pid: int
    version: str


class Demo:
    def __init__(self, cluster: Cluster, sampler: Sampler, rate: int) -> None:
        self.cluster = cluster
        self.sampler = sampler
        self.rate = rate
        self.load_line = ""
        self.kill: Kill | None = None
        self.came_back = ""

    def play(self) -> report.Report:
        self.bring_up()
        load = self.start_load()
        self.watch(BEFORE_S)
        deploy = self.deploy()
        self.watch(AFTER_S)
        self.sampler.counting = False
        return report.report(self.cluster.end_load(load, self.load_line), self.sampler.active, deploy)

    def bring_up(self) -> None:
        say(f"master on {self.cluster.address}, {len(NODES)} nodes with {PROCESSES} processes each, version {OLD}")
        self.cluster.start_master()
        for name in NODES:
            self.cluster.start_node(name, OLD)
        self.sampler.start()
        self.wait_for("three complete nodes", READY_S, lambda: complete(self.sampler.latest))
        self.wait_for("gateway that is ready", READY_S, self.cluster.takes_requests)
        say(picture(self.sampler.latest))

    def start_load(self) -> subprocess.Popen[str]:
        how = f"GETs a second of http://{self.cluster.http}/quote" if self.cluster.http else "quotes a second"
        say(f"load: {self.rate} {how} from a client process")
        load = self.cluster.start_load(self.rate)
        follow(load, self.heard_load)
        self.wait_for("the first answers", READY_S, lambda: bool(self.load_line))
        self.sampler.counting = True
        return load

    def deploy(self) -> Deploy:
        say("deploy.sh: for each node drain, swap its link to version 2, rejoin")
        begun = time.monotonic()
        command = (str(EXAMPLES / "deploy.sh"), str(self.cluster.folder), str(self.cluster.version(NEW)), *NODES)
        script = self.cluster.start("deploy", "bash", *command, log=False)
        follow(script, lambda line: say(f"deploy.sh: {line.removeprefix('deploy.sh: ')}"))
        while script.poll() is None and time.monotonic() < begun + DEPLOY_S:
            self.tick()
            self.kill_when_due()
        ended, run_again = time.monotonic(), self.sampler.latest["master"]["counters"].get("run again", 0)
        return Deploy(begun, ended, script.poll(), self.killed(), run_again)

    def kill_when_due(self) -> None:
        """While one node is drained, a process of another that is not yet updated is killed."""
        status = self.sampler.latest
        ready = processes(status, VICTIM)
        if self.kill is None and node(status, DRAINED).get("intent") != "active" and len(ready) == PROCESSES:
            victim = self.find_busy()
            self.kill = Kill(victim["pid"], victim["version"])
            os.kill(self.kill.pid, signal.SIGKILL)
            say(f"SIGKILL to process {self.kill.pid} on {VICTIM} (version {self.kill.version})")
        elif self.kill and not self.came_back and len(ready) == PROCESSES:
            if self.kill.pid not in [process["pid"] for process in ready]:
                self.came_back = ", ".join(sorted({process["version"] for process in ready}))
                say(f"{VICTIM} has started another one: version {self.came_back}")

    def find_busy(self) -> Status:
        """A process in the middle of a request, as of this millisecond; any one if it was not to be had."""
        with rota.Admin(self.cluster.address, user="demo") as admin:
            for _ in range(LOOKS):
                ready = processes(admin.status(), VICTIM)
                busy = [process for process in ready if process["in_flight"]]
                if busy:
                    return busy[0]
        return ready[0]

    def killed(self) -> str:
        if self.kill is None:
            return ""
        return f"one of version {self.kill.version}, came back as version {self.came_back or '?'}"

    # ---- watching ---------------------------------------------------------------------------------------------------

    def watch(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tick()

    def wait_for(self, what: str, seconds: float, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                raise Failed(f"no {what} after {seconds:.0f} s: {picture(self.sampler.latest) or 'no status'}")
            self.tick()

    def tick(self) -> None:
        """One look at everything; it ends the demo when something broke."""
        time.sleep(SAMPLE_S / 2)
        self.cluster.check()
        if self.sampler.problem:
            raise Failed(f"status failed: {self.sampler.problem}")

    def heard_load(self, line: str) -> None:
        """Each second a line of the load, shown beside what the nodes do."""
        self.load_line = line
        if not self.sampler.stopped.is_set():
            say(f"{line}  | {picture(self.sampler.latest)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="for links, logs and the report (.demo)")
    parser.add_argument("--rate", type=int, default=400, help="requests a second (400)")
    parser.add_argument("--web", action="store_true", help="a web application, under a load of HTTP requests")
    options = parser.parse_args()
    folder = options.folder.resolve()

    def plays() -> tuple[str, list[str]]:
        application = LOANS_WEB if options.web else LOANS
        with Cluster(folder, application, free_port()) as cluster, Sampler(cluster.address) as sampler:
            found = Demo(cluster, sampler, options.rate).play()
            say("done, ending everything")
        return report.table(found), report.faults(found)

    return play(folder, plays, "A rolling update with a killed process in it: nothing lost, nothing failed.")


if __name__ == "__main__":
    sys.exit(main())
