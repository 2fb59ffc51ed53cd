"""The promises, played once each; `prove.py` plays them longer and harder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

from rota.common import wire
from system import hostile, prove
from system.ledger import Ledger
from system.pool import Pool
from system.result import Result, judge
from system.scenarios import SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_the_promise_holds(scenario: Callable[..., Result], tmp_path: Path) -> None:
    result = scenario(tmp_path)
    assert not result.misses, result


def test_prove_exits_1_when_something_was_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plant(folder: Path, rounds: int) -> Result:
        ledger = Ledger(folder / "executed")
        for key in ("answered", "doubled", "forgotten"):
            ledger.submitted(key)
        ledger.file.write_text("".join(f"began {key} 1 0.5\n" for key in ("answered", "doubled", "doubled")))
        ledger.answered("answered", ["answered", 1, "1"])
        ledger.answered("doubled", ["doubled", 1, "1"])
        return judge("planted", ledger.check())

    monkeypatch.setattr(prove, "SCENARIOS", {"plant": plant})
    monkeypatch.setattr("sys.argv", ["prove.py", "--json"])
    assert prove.main() == 1
    shown = json.loads(capsys.readouterr().out)
    (row,) = shown["scenarios"]
    assert not shown["ok"] and (row["lost"], row["executed_twice"], row["verdict"]) == (1, 1, "MISSED")


def test_a_reply_that_is_too_short_for_the_origin_it_claims_harms_nobody(tmp_path: Path) -> None:
    with Pool(tmp_path) as pool:
        backend = f"tcp://127.0.0.1:{pool._running_where().backend}"
        with hostile.peer(pool.address) as agent, hostile.peer(backend) as process:
            agent.hello(hostile.as_agent("ghost", "aaaaaa"))
            process.hello(hostile.as_process("ghost", "aaaaaa"))
            process.send(wire.head(wire.REPLY, process.token, 99, number=1, flags=wire.ORIGIN | wire.RESENT) + b"x")
            with pool.admin() as admin:

                def counted() -> bool:
                    counters = admin.status(timeout=3)["master"]["counters"]
                    return bool(counters.get("bad frames") or counters.get("stray replies"))

                until(counted)
