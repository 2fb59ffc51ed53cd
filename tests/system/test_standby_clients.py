"""Two real masters, and what clients, gateways and operators notice when another one becomes active."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from gateway_rig import APP as SITE
from gateway_rig import Gateway, starting
from gateway_rig import Load as Gets
from waiting import eventually, until

import rota
from rota.cli.main import main

from .ledger import Ledger
from .load import Load
from .pair import Pair, pair
from .pool import APP

TAKEOVER_S = 10.0  # of a machine that does other things, too: alone it takes a second
SOON = {"ROTA_STANDBY_TAKEOVER_GRACE": "2s"}  # until a standby that has not come back is missed


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, env={"PROOF_FILE": str(tmp_path / "executed"), **SOON}, http=["/=site"]) as made:
        made.start_node("work", f"{APP}:proof")
        made.start_node("web", SITE)
        with rota.Admin(made.both) as admin:
            admin.wait("ready", "proof", "site", timeout=30)
        until(made.follows)
        yield made


def gateway_of(masters: Pair, name: str) -> Gateway:
    """The one that this master started."""
    found = Gateway.__new__(Gateway)
    found.port = int(masters.door(name).rpartition(":")[2])
    return found.ready()


def command(*words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(main, [*words, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_who_calls_over_both_masters_notices_a_killed_one_as_a_wait(masters: Pair, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "executed")
    both = ",".join(masters.both)
    seen: list[str] = []
    with (
        starting(tmp_path) as start,
        rota.Client(*masters.both) as client,
        rota.Admin(masters.both) as admin,
        rota.Admin(masters.both) as other,
    ):
        edge = start("gateway", "--bind", "127.0.0.1:*", "-m", both, "--route", "/=site").listening().ready()

        def follow() -> None:
            for event in other.events(follow=True):
                seen.append(event["kind"])
                if event["kind"] == "scaled":
                    return

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        with Gets(edge.port) as gets, Load(ledger, client.options(timeout=20), "proof.book") as load:
            load.more(50)
            gets.more(50)
            masters.masters["a"].kill()
            load.more(100)
            gets.more(100)
            assert edge.get("/-/ready")[0] == 200
        assert load.stall < TAKEOVER_S
        assert set(gets.outcomes) == {200}, "held meanwhile: nobody got a 502 or 503"
        findings = ledger.check()
        assert findings.lost == [] and findings.twice == [] and findings.wrong == []
        assert set(findings.faults) <= {"MaybeExecuted"} and findings.failed <= 8, "what ran when its master died"

        status = admin.status()
        assert (status["master"]["name"], status["master"]["state"]) == ("b", "active")
        until(lambda: command("status", "--check", "-m", both)[0] == 3, "after a while for its return")
        assert any("no standby" in sentence for sentence in command("status", "--check", "-m", both)[1]["degraded"])
        assert command("wait", "leader", "--timeout", "10s", "-m", both)[0] == 0
        admin.scale("proof", 1)
        following.join(20)
        assert not following.is_alive() and "takeover" in seen, "who follows the events sees how it went on"


def test_a_switchover_and_a_silent_master_cost_a_moment_and_no_error(masters: Pair, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "executed")
    with rota.Client(*masters.both) as client:
        gateways = [gateway_of(masters, name) for name in "ab"]
        with (
            Gets(gateways[0].port, connections=2) as of_a,
            Gets(gateways[1].port, connections=2) as of_b,
            Load(ledger, client.options(timeout=20), "proof.book") as load,
        ):
            load.more(50)
            code, cost = command("switchover", "--reason", "new kernel", "-m", masters.addresses["a"])
            assert code == 0, cost
            assert (cost["from"], cost["to"], cost["master"]["state"]) == ("a", "b", "active")
            assert cost["epoch"] > cost["epoch_before"]
            for each in (load, of_a, of_b):
                each.more(50)
            assert masters.state("a") == "standby", "and its own gateway calls the other one now"
            assert load.faults == 0 and eventually(masters.follows, 20)

            load.stall = 0.0
            masters.masters["b"].signal(signal.SIGSTOP)  # its connections stay, and nothing comes over them
            for each in (load, of_a):
                each.more(50, *([30.0] if each is load else []))
            assert load.stall < TAKEOVER_S
            masters.masters["b"].signal(signal.SIGCONT)
            until(lambda: masters.state("b") == "standby", "it steps down by itself")
            for each in (load, of_a, of_b):
                each.more(50)
        assert set(of_a.outcomes) == set(of_b.outcomes) == {200}
        findings = ledger.check()
        assert findings.lost == [] and findings.twice == [] and findings.wrong == []
        assert set(findings.faults) <= {"MaybeExecuted"} and findings.failed <= 8
