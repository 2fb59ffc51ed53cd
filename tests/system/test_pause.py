"""A service that is paused under load, with real processes: callers notice a wait, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from click.testing import CliRunner
from waiting import until

from rota.cli.main import main

from .load import Load
from .pool import Pool


def rota(pool: Pool, *words: str) -> tuple[int, Any]:
    result = CliRunner().invoke(main, [*words, "-m", pool.address, "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_a_pause_of_a_second_under_load_costs_nobody_an_answer(tmp_path: Path) -> None:
    with Pool(tmp_path, nodes=2, processes=2) as pool, pool.client() as client:
        with Load(pool.ledger, client, "proof.book", lanes=12) as load:
            load.more(100)
            code, paused = rota(pool, "pause", "proof", "--for", "20s", "--reason", "new disk")
            began = monotonic()
            assert code == 0 and paused["changed"] and not pool.running(), "nothing is in flight"
            executed = len(pool.ledger.executions())
            until(lambda: pool.status()["services"][0]["queued"] == 12)
            (alarm,) = pool.status()["master"]["alarms"]
            assert alarm.startswith("proof is paused by") and "new disk; it holds 12 requests" in alarm
            assert rota(pool, "status", "--check")[0] == 3
            sleep(max(0.0, began + 1.0 - monotonic()))
            assert len(pool.ledger.executions()) == executed, "nothing was dispatched"
            code, resumed = rota(pool, "resume", "proof")
            assert code == 0 and resumed["held"] == 12
            load.more(100)
        assert load.faults == 0 and load.stall >= 0.9
        assert rota(pool, "resume", "proof") == (0, {"schema": 1, "service": "proof", "held": 0, "changed": False})
        kinds = [each["kind"] for each in pool.admin().events() if each["kind"].startswith("service ")]
        assert kinds == ["service paused", "service resumed"]
        pool.ledger.check()


@pytest.mark.parametrize(("kill", "target"), [(False, "proof.book"), (True, "proof.quote")])
def test_what_is_held_runs_in_its_order_also_after_a_restart_of_the_master(
    tmp_path: Path, kill: bool, target: str
) -> None:
    """(Whether a request of a default handler ran, nobody knows after a master was killed.)"""
    with Pool(tmp_path) as pool, pool.client(timeout=20) as client:
        assert rota(pool, "pause", "proof", "--for", "30s")[0] == 0
        futures = [client.submit(target, key=f"k{number}") for number in range(40)]
        until(lambda: pool.status()["services"][0]["queued"] == 40)
        pool.restart_master(kill=kill)
        until(lambda: any(each["queued"] == 40 for each in pool.status()["services"]))
        assert not pool.ledger.executions() and not any(future.done() for future in futures)
        assert rota(pool, "resume", "proof")[1]["held"] == 40
        assert [future.result(20)[0] for future in futures] == [f"k{number}" for number in range(40)]
        begun = [each.key for each in pool.ledger.executions() if each.word == "began"]
        assert begun == [f"k{number}" for number in range(40)]


def test_a_pause_ends_by_itself_and_one_that_waits_in_vain_says_so(tmp_path: Path) -> None:
    with Pool(tmp_path, settings={"service.proof.pause_for": "1s"}) as pool, pool.client() as client:
        slow = client.submit("proof.book", key="slow", seconds=2.0)
        until(lambda: bool(pool.running()))
        code, reply = rota(pool, "pause", "proof")
        assert (code, reply["error"]) == (1, "proof is not paused")
        assert client.call("proof.book", key="held")[0] == "held" and slow.result(10)[0] == "slow"
        code, reply = rota(pool, "pause", "prof")
        assert code == 4 and reply["nearest"] == ["proof"]
