"""When an active master may dispatch (docs/STANDBY.md)."""

from __future__ import annotations

from itertools import combinations
from math import inf

import pytest

from rota.master.core.leases import Leases, blocking, majority

S = 1.0


def leased(leases: Leases, node: str, at: float) -> None:
    """The master answered a beat of it at this time, and it said so."""
    leases.echoed(node, 1, at)
    leases.heard(node, 1)


@pytest.mark.parametrize("size", range(1, 8))
def test_a_blocking_set_leaves_the_others_no_majority_and_is_the_smallest_that_does(size: int) -> None:
    assert size - blocking(size) < majority(size)
    assert size - (blocking(size) - 1) >= majority(size)


@pytest.mark.parametrize("size", range(1, 6))
def test_every_majority_meets_every_blocking_set(size: int) -> None:
    nodes = range(size)
    for voters in combinations(nodes, majority(size)):
        for lenders in combinations(nodes, blocking(size)):
            assert set(voters) & set(lenders)


def test_a_lease_counts_from_when_the_beat_was_answered_not_from_when_it_came() -> None:
    leases = Leases(S, ["a"])
    leases.echoed("a", 7, 100.0)
    assert leases.until() == -inf
    leases.heard("a", 7)
    assert leases.until() == 101.0


def test_a_beat_that_was_never_answered_is_no_lease() -> None:
    leases = Leases(S, ["a"])
    leases.echoed("a", 7, 100.0)
    leases.heard("a", 8)
    leases.heard("b", 7)
    assert leases.until() == -inf


def test_an_old_lease_does_not_shorten_a_newer_one() -> None:
    leases = Leases(S, ["a"])
    leases.echoed("a", 1, 100.0)
    leases.echoed("a", 2, 100.2)
    leases.heard("a", 2)
    leases.heard("a", 1)
    assert leases.until() == 101.2


def test_an_answer_that_comes_twice_takes_nothing_from_the_next() -> None:
    leases = Leases(S, ["a"])
    leases.echoed("a", 1, 100.0)
    leases.echoed("a", 2, 100.2)
    for beat, until in ((1, 101.0), (1, 101.0), (2, 101.2)):
        leases.heard("a", beat)
        assert leases.until() == until


def test_one_of_two_nodes_may_be_silent() -> None:
    leases = Leases(S, ["a", "b"])
    leased(leases, "a", 100.0)
    assert leases.until() == 101.0


def test_one_of_three_nodes_is_not_enough() -> None:
    leases = Leases(S, ["a", "b", "c"])
    leased(leases, "a", 100.0)
    assert leases.until() == -inf
    leased(leases, "b", 100.5)
    assert leases.until() == 101.0


def test_the_promise_alone_is_enough() -> None:
    leases = Leases(S, ["a", "b", "c"])
    leases.pulsed(3, 50.0)
    leases.promised(3, 2.0)
    assert leases.until() == 52.0


def test_a_promise_counts_from_its_pulse() -> None:
    leases = Leases(S, ["a"])
    leases.promised(9, 2.0)
    assert leases.until() == -inf


def test_the_later_of_promise_and_leases_counts() -> None:
    leases = Leases(S, ["a"])
    leases.pulsed(1, 100.0)
    leases.promised(1, 1.0)
    leased(leases, "a", 100.4)
    assert leases.until() == 101.4


def test_until_the_standby_agrees_both_electorates_must_be_blocked() -> None:
    leases = Leases(S, ["a", "b", "c"])
    leased(leases, "b", 100.0)
    leased(leases, "c", 100.0)
    leases.propose(frozenset({"a"}), record=5)
    assert leases.until() == -inf  # a standby that has it already needs no more than a
    assert not leases.agreed(4)
    leased(leases, "a", 100.1)
    assert leases.until() == 101.0
    assert leases.agreed(5)
    assert leases.until() == 101.1


def test_without_nodes_there_is_nobody_who_could_elect_another_master() -> None:
    assert Leases(S).until() == inf


def test_votes_are_the_first_leases() -> None:
    assert Leases(S, ["a", "b"], granted={"a": 7.0}).until() == 7.0


def test_an_agent_that_was_started_anew_and_counts_from_1_is_heard() -> None:
    leases = Leases(S, ["a"])
    for beat in range(1, 200):
        leases.echoed("a", beat, 100.0 + beat)
    leased(leases, "a", 500.0)
    assert leases.until() == 501.0
