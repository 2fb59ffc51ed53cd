"""Real masters that die while requests wait in their queues: what never ran is run, by the next one, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from waiting import until

import rota

from .pair import Pair, pair
from .pool import APP

CALLS = 200
BUSY_S = 0.03  # of each: four processes have the queue for one and a half seconds
BEFORE = 30  # that have begun when the master dies


def test_what_waited_in_the_queue_of_a_killed_master_is_run_once_it_is_started_again(tmp_path: Path) -> None:
    masters = Pair(tmp_path, env={"PROOF_FILE": str(tmp_path / "executed")})

    def kill() -> None:
        masters.masters["a"].kill()
        masters.start_master("a")

    try:
        masters.start_master("a")
        each_ran_once(masters, tmp_path / "executed", kill)
    finally:
        masters.close()


def test_what_waited_in_the_queue_of_a_killed_master_is_run_by_its_standby(tmp_path: Path) -> None:
    with pair(tmp_path, env={"PROOF_FILE": str(tmp_path / "executed")}) as masters:
        until(masters.follows)
        each_ran_once(masters, tmp_path / "executed", lambda: masters.masters["a"].kill())


def each_ran_once(masters: Pair, executed: Path, kill: Callable[[], None]) -> None:
    """And each is answered; who is not told a result is told of one that was lost."""
    masters.start_node("n1", f"{APP}:proof")
    masters.start_node("n2", f"{APP}:proof")
    with rota.Client(*masters.both) as client, rota.Admin(masters.both) as admin:
        admin.wait("ready", "proof", timeout=30)
        until(lambda: admin.status()["services"][0]["open"] == 4)
        book = client.options(timeout=30)
        calls = {f"call {n}": book.submit("proof.book", key=f"call {n}", seconds=BUSY_S) for n in range(CALLS)}
        until(lambda: len(began(executed)) >= BEFORE)
        kill()
        failures = {key: error for key, call in calls.items() if (error := call.exception(30))}
    assert began(executed) == Counter(calls.keys()), "each was executed once"
    told = {key: str(error) for key, error in failures.items() if "it was executed" not in str(error)}
    assert told == {} and len(failures) <= 8, "nobody but those whose answers were under way"


def began(executed: Path) -> Counter[str]:
    lines = executed.read_text().splitlines() if executed.exists() else []
    return Counter(line[6:].rsplit(" ", 2)[0] for line in lines if line.startswith("began "))
