"""How soon what ended by itself is started again."""

from __future__ import annotations

from rota.common.restarts import FIRST_S, MAX_S, WELL_S, Restarts


def test_what_ends_again_and_again_is_started_more_and_more_seldom() -> None:
    restarts = Restarts()
    pauses = []
    for now in range(0, 80, 10):
        restarts.started(now)
        pauses.append(restarts.pause(now + 1))
    assert pauses == [FIRST_S, 2, 4, 8, 16, MAX_S, MAX_S, MAX_S]


def test_the_end_of_what_was_well_for_a_while_is_a_first_one() -> None:
    restarts = Restarts()
    for now in (0.0, 0.0, WELL_S + 1):
        last = restarts.pause(now)
        restarts.started(now)
    assert last == FIRST_S
