"""The quick ones of the fault lab, once each; `make faults` plays all of them, harder."""

import json
import os
import signal
from pathlib import Path

import pytest
from system.pool import Pool

from faults import lab, play
from faults.play import Callers, Fault, NotPlayed, Outcome, cpu, master

# Processes and masters that are killed are in tests/system/test_scenarios.py.
QUICK = ("segfault", "close_descriptors", "ignored_term", "kill_agent", "full_journal", "flips")


@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_lost_and_nothing_runs_twice(name: str) -> None:
    for row in lab.play(play.FAULTS[name], 1, name):
        assert not row.misses, row


def test_a_burst_of_hups_leaves_the_master_asleep(tmp_path: Path) -> None:
    with Pool(tmp_path, nodes=0) as pool:
        for _ in range(1000):
            os.kill(master(pool), signal.SIGHUP)
        assert pool.status()["nodes"] == []
        assert cpu(master(pool), 0.5) < 0.5


def planted(folder: Path, rounds: int) -> list[Outcome]:
    """A default handler's call that nobody answered, and one that was run twice, amid real ones."""
    with Pool(folder, app=play.APP) as pool, Callers(pool, lanes=1) as callers:
        callers.more(5)
        callers.stop()
        doubled = callers.default.keys[0]
        with pool.ledger.file.open("a") as file:
            file.write(f"began {doubled} 1 0.5\n")
        pool.ledger.submitted("forgotten")
        callers.default.keys.append("forgotten")
    return callers.outcomes("planted")


def refused(folder: Path, rounds: int) -> list[Outcome]:
    raise NotPlayed("this machine has no such thing")


def test_the_lab_finds_a_planted_loss_and_a_planted_double(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "FAULTS", {"planted": Fault("planted", "planted", planted, False)})
    assert lab.main(["--json"]) == 1
    default, idempotent = json.loads(capsys.readouterr().out)["rows"]
    assert (default["lost"], default["executed_twice"], default["verdict"]) == (1, 1, "MISSED")
    assert (idempotent["lost"], idempotent["executed_twice"], idempotent["verdict"]) == (0, 0, "ok")


def test_what_cannot_be_played_here_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "FAULTS", {"refused": Fault("refused", "refused", refused, False)})
    assert lab.main([]) == 0
    shown = capsys.readouterr()
    assert "not played: this machine has no such thing" in shown.out
    assert "not played: this machine has no such thing" in shown.err.splitlines()[-1]


def test_an_unknown_fault_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        lab.main(["no_such_fault"])
    assert ended.value.code == 2 and "--list" in capsys.readouterr().err
