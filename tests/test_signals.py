"""What signals do to a master and to a node that work: those that reload or reopen something end nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from waiting import until

from rota.testing import LocalCluster


def test_signals_that_reload_or_reopen_end_nothing_and_requests_are_served_meanwhile() -> None:
    with LocalCluster("node_app:app", app_dir=Path(__file__).parent) as cluster:
        client, before = cluster.client(), set(cluster.processes())
        node, master = cluster._nodes["node-1"].pid, cluster.status()["master"]["pid"]
        for number in (signal.SIGUSR1, signal.SIGHUP):
            os.kill(node, number)
            os.kill(master, number)
        while before & set(cluster.processes()):  # its one process is replaced start-first
            assert client.call("orders.echo", text="on") == "on"
        until(lambda: len(cluster.processes()) == 1)
        for name in ("master", "node-1"):
            assert "USR1: there is no log to open again" in cluster.log(name)
