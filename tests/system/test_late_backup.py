"""A backup is added to a master whose nodes know no other one. Until they know both, it is as if it were not there."""

from __future__ import annotations

from pathlib import Path

from waiting import until

import rota

from .pair import Pair

APP = """
import rota

shop = rota.Worker("shop")


@shop.handler
def ping() -> str:
    return "pong"
"""
NODES = ["n1", "n2"]


def ready(pair: Pair) -> bool:
    services = pair.status("a")["services"]
    return bool(services) and services[0]["active_nodes"] == len(NODES)


def cannot_take_over(pair: Pair) -> bool:
    master = pair.status("a")["master"]
    alarmed = any("no takeover is possible" in alarm for alarm in master["alarms"])
    return alarmed and master["quorum"]["electorate"] == NODES


def test_nodes_elect_the_only_master_that_they_know_after_it_was_killed(tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text(APP)
    pair = Pair(tmp_path)
    try:
        pair.start_master("a")
        for name in NODES:
            pair.start_node(name, str(app), 1)
        until(lambda: ready(pair), "its nodes are not active")
        pair.start_master("b", "--backup-of", pair.addresses["a"])
        until(lambda: cannot_take_over(pair), "nobody says that b cannot take over")
        pair.masters["a"].kill()
        pair.start_master("a")
        with rota.Client(pair.addresses["a"]) as client:
            assert client.call("shop.ping") == "pong"
        assert pair.state("a") == "active"
        until(lambda: pair.state("b") == "standby", "b does not hear that a is active")
    finally:
        pair.close()
