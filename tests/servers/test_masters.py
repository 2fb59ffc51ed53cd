"""Three real masters, two nodes and a client under load, with a real engine: `make test-servers`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from system.ledger import Ledger
from system.load import Load
from system.pair import Pair
from system.pool import APP
from system.proxy import PROXIED, Proxy
from waiting import eventually, until

import rota

from .engines import ENGINES, Engine

PATIENCE_S = 20.0
LEASE_S = 1.0  # takeover_after
TAKEOVER_S = 6.0  # of a machine that does other things, too: alone it takes 1.3 s


class Masters(Pair):
    """`a` is the primary and active, `b` and `c` are its backups; of the engine, `a` knows the address of the proxy."""

    engine: Engine
    proxy: Proxy
    ledger: Ledger

    def begin(self) -> None:
        self._env["ROTA_STANDBY_LEASE"] = self.engine.address(PROXIED)
        self.start_master("a")
        self._env["ROTA_STANDBY_LEASE"] = self.engine.address()
        self.start_master("b", "--backup-of", self.addresses["a"])
        self.start_master("c", "--backup-of", f"{self.addresses['a']},{self.addresses['b']}")
        until(lambda: self.state("a") == "active")
        self.start_node("n1", f"{APP}:proof")
        self.start_node("n2", f"{APP}:proof")
        with rota.Admin(self.both) as admin:
            admin.wait("ready", "proof", timeout=30)
        until(lambda: self.following() == {"b", "c"})

    def master(self, *names: str) -> dict[str, Any]:
        found: dict[str, Any] = self.status(*names)["master"]
        return found

    def following(self) -> set[str]:
        """Who has everything that the active one has."""
        peers = self.master().get("peers", [])
        return {peer["name"] for peer in peers if peer["liveness"] == "live" and peer["lag"] == 0}

    def active(self, *names: str) -> str:
        """The one of these that is, once one is."""

        def find() -> list[str]:
            return [name for name in names if self.state(name) == "active"]

        until(lambda: len(find()) == 1)
        return find()[0]

    def said(self, name: str, *words: str) -> bool:
        """Its events have these, in this order."""
        text, at = self.log(name).read_text(), 0
        for word in words:
            at = text.find(word, at)
            if at < 0:
                return False
            at += len(word)
        return True


@pytest.fixture(params=ENGINES, ids=lambda each: each.name)
def masters(request: Any, tmp_path: Path) -> Iterator[Masters]:
    engine = request.param(tmp_path)
    engine.start()
    env = {"PROOF_FILE": str(tmp_path / "executed"), "ROTA_STANDBY_TAKEOVER_GRACE": "2s"}
    made = Masters(tmp_path, env=env)
    made.engine, made.ledger = engine, Ledger(tmp_path / "executed")
    try:
        with Proxy({"engine": engine.port}) as made.proxy:
            made.begin()
            yield made
            made.close()
    finally:
        made.close()
        engine.stop()


def test_one_of_three_masters_is_active_whoever_dies_or_stands_still(masters: Masters) -> None:
    with rota.Client(*masters.both) as client, Load(masters.ledger, client.options(timeout=20), "proof.book") as load:
        load.more(100)
        epochs = [masters.master()["epoch"]]
        masters.masters["a"].kill()
        load.more(100)
        assert load.stall < TAKEOVER_S
        second = masters.active("b", "c")
        third = "c" if second == "b" else "b"
        epochs.append(masters.master(second)["epoch"])
        until(lambda: third in masters.following(), "it follows the new one")

        load.stall = 0.0
        masters.masters[second].signal(signal.SIGSTOP)  # its connections stay, and nothing comes over them
        load.more(100)
        assert load.stall < TAKEOVER_S
        assert masters.active(third) == third
        epochs.append(masters.master(third)["epoch"])
        masters.masters[second].signal(signal.SIGCONT)
        until(lambda: masters.state(second) == "standby")
        # Its clock says that the lease is over, or an agent that there is a higher epoch: whichever it looks at first.
        assert masters.said(second, "step down", "standby") or masters.said(second, "no quorum", "standby")
        load.more(50)

        masters.start_master("a")
        until(lambda: masters.following() == {"a", second}, "nothing goes back by itself")
        load.stall = 0.0
        with rota.Admin(masters.both) as admin:
            done = admin.switchover()
        assert done["to"] == "a" and done["epoch"] > epochs[-1], "the primary is the first of those that follow"
        load.more(50)
        assert load.stall < TAKEOVER_S
        assert epochs == sorted(set(epochs))
    findings = masters.ledger.check()
    assert findings.lost == [] and findings.twice == [] and findings.wrong == []
    assert set(findings.faults) <= {"MaybeExecuted"} and findings.failed <= 8, "what ran when its master died"


def test_without_its_engine_the_active_one_holds_and_goes_on_by_itself(masters: Masters) -> None:
    with rota.Client(*masters.both) as client, Load(masters.ledger, client.options(timeout=40), "proof.book") as load:
        load.more(50)
        epoch = masters.master()["epoch"]
        masters.engine.stop()

        def held() -> bool:
            alarms = masters.master("a")["alarms"]
            return any("no quorum: the lease cannot be renewed" in alarm for alarm in alarms)

        until(held)
        until(lambda: masters.said("a", "no quorum: ", "requests are held: the lease cannot be renewed: "))
        done = load.done
        time.sleep(LEASE_S)  # time enough for the others to take over, if they did
        assert load.done - done <= 8, "what ran is answered, and no more is dispatched"
        assert [masters.state(name) for name in "abc"] == ["active", "standby", "standby"]
        before = _cpu_s(masters.masters["a"].pid)
        time.sleep(LEASE_S)
        assert _cpu_s(masters.masters["a"].pid) - before < 0.3 * LEASE_S, "nothing spins"
        masters.engine.start()
        load.more(50)
        assert eventually(lambda: not held(), PATIENCE_S) and masters.master("a")["epoch"] == epoch

        load.stall = 0.0
        masters.proxy.hole = ["engine"]  # the active one is heard by all, and cannot renew
        load.more(50)
        assert load.stall < TAKEOVER_S
        assert masters.active("b", "c") in "bc"
        until(lambda: masters.state("a") == "standby", "agents and masters tell it")
        masters.proxy.heal()
        load.more(50)
    findings = masters.ledger.check()
    assert findings.lost == [] and findings.twice == [] and findings.wrong == []
    assert set(findings.faults) <= {"MaybeExecuted"} and findings.failed <= 16


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
