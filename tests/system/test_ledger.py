"""The checker itself: what it must find, it finds."""

from pathlib import Path

import pytest

import rota
from system.ledger import Ledger
from system.result import judge


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three calls of which all is well."""
    made = Ledger(tmp_path / "executed")
    for key in ("a", "b", "c"):
        made.submitted(key)
        ran(made, key)
        made.answered(key, [key, 1, "1"])
    return made


def ran(ledger: Ledger, key: str) -> None:
    with ledger.file.open("a") as file:
        file.write(f"began {key} 1 0.5\nended {key} 1 0.6\n")


def test_what_is_well_is_found_well(ledger: Ledger) -> None:
    result = judge("all well", ledger.check())
    assert result.verdict == "ok" and result.findings.submitted == result.findings.answered == 3


def test_a_planted_double_is_found(ledger: Ledger) -> None:
    ran(ledger, "b")
    assert ledger.check().twice == ["b"]
    assert judge("", ledger.check()).misses == ["executed twice: b"]
    assert not ledger.check(may_run_again=["b"]).twice


def test_a_planted_loss_is_found(ledger: Ledger) -> None:
    ledger.submitted("d")
    ran(ledger, "d")
    assert judge("", ledger.check()).misses == ["lost: d"]


def test_an_answer_that_is_somebody_else_s_is_found(ledger: Ledger) -> None:
    ledger.submitted("d")
    ran(ledger, "d")
    ledger.answered("d", ["c", 1, "1"])
    assert "d was answered with" in ledger.check().wrong[0]


def test_an_answer_without_a_run_is_found(ledger: Ledger) -> None:
    ledger.submitted("d")
    ledger.answered("d", ["d", 1, "1"])
    assert ledger.check().wrong == ["d was answered, and no process ran it"]


def test_two_answers_to_one_call_are_found(ledger: Ledger) -> None:
    ledger.answered("a", ["a", 1, "1"])
    assert ledger.check().wrong == ["a was told answered, and then answered"]


@pytest.mark.parametrize(
    "told",
    [
        rota.NotExecuted("it was not run"),
        rota.Quarantined("nor will it be"),
        rota.Timeout("in the queue", details={"started": False}),
    ],
)
def test_a_run_that_its_caller_was_told_did_not_happen_is_found(ledger: Ledger, told: rota.Error) -> None:
    ledger.submitted("d")
    ran(ledger, "d")
    ledger.failed("d", told)
    assert ledger.check().wrong == [f"d was told {type(told).__name__}, and was run"]


def test_a_time_out_alone_does_not_say_that_nothing_was_run(ledger: Ledger) -> None:
    ledger.submitted("d")
    ran(ledger, "d")
    ledger.failed("d", rota.Timeout("while it ran"))
    assert not ledger.check().wrong


def test_a_fault_that_was_not_expected_is_a_miss(ledger: Ledger) -> None:
    ledger.submitted("d")
    ledger.failed("d", rota.MaybeExecuted("its process was lost"))
    assert judge("", ledger.check()).verdict == "MISSED"
    assert judge("", ledger.check(), faults={"MaybeExecuted": 1}).verdict == "ok"
    assert judge("", ledger.check(), faults={"MaybeExecuted": 2}).verdict == "MISSED"


def test_a_run_that_nobody_asked_for_is_found(ledger: Ledger) -> None:
    ran(ledger, "x")
    assert ledger.check().wrong == ["x was run, and nobody had asked for it"]


def test_a_key_cannot_be_used_twice(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="submitted before"):
        ledger.submitted("a")
