"""A machine that stood still for longer than it takes to be given up, and goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from waiting import until

from rota import MaybeExecuted
from rota.testing import LocalCluster

PATIENCE_S = 20.0
SETTINGS = {"master.suspect_after": "0.4s", "master.dead_after": "0.8s"}


def test_a_node_that_was_only_paused_comes_back_and_its_stale_replies_do_not_count(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with LocalCluster("node_app:app", app_dir=Path(__file__).parent, settings=SETTINGS) as cluster:
        client = cluster.client()
        (pid,) = cluster.processes()
        call = client.submit("orders.nap", seconds=0.2, path=str(begun))
        until(begun.exists)
        stopped = [cluster._nodes["node-1"].pid, pid]
        for each in stopped:
            os.kill(each, signal.SIGSTOP)
        try:
            with pytest.raises(MaybeExecuted, match="dead or cut off"):
                call.result(PATIENCE_S)
        finally:
            for each in stopped:
                os.kill(each, signal.SIGCONT)
        until(lambda: {"late replies", "stray replies"} & set(cluster.status()["master"]["counters"]))
        assert client.call("orders.pid") == pid  # the same process: it was not its fault
        assert begun.read_text() == "x"
        (node,) = cluster.status()["nodes"]
        assert (node["liveness"], node["in_flight"]) == ("live", 0)
