from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rota.master.core.timers import TICKS_PER_S, Timers

moments = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(moments, st.floats(min_value=0, max_value=2, allow_nan=False))
def test_nothing_is_due_early_and_nothing_later_than_a_tick(when: float, later: float) -> None:
    timers: Timers[str] = Timers()
    timers.add(when, "a")
    found = timers.due(when + later)
    if found:
        assert later > 0
    if later > 1.01 / TICKS_PER_S:
        assert found == ["a"]


@given(st.lists(moments, max_size=30), moments)
def test_everything_is_due_once(whens: list[float], now: float) -> None:
    timers: Timers[int] = Timers()
    for number, when in enumerate(whens):
        timers.add(when, number)
    first, second = timers.due(now), timers.due(1e7)
    assert sorted(first + second) == list(range(len(whens)))
    assert all(whens[number] < now for number in first)
    assert timers.due(1e8) == []


def test_what_was_removed_is_not_due() -> None:
    timers: Timers[str] = Timers()
    tick = timers.add(1.0, "a")
    timers.add(1.0, "b")
    tick.pop("a", None)
    assert timers.due(2.0) == ["b"]


def test_removing_what_was_due_is_no_error() -> None:
    timers: Timers[str] = Timers()
    tick = timers.add(1.0, "a")
    timers.due(2.0)
    tick.pop("a", None)


def test_the_next_deadline_is_the_earliest_that_has_something() -> None:
    timers: Timers[str] = Timers()
    assert timers.next_deadline() is None
    early = timers.add(1.0, "a")
    timers.add(5.0, "b")
    assert timers.next_deadline() == 1.01
    early.pop("a", None)
    assert timers.next_deadline() == 5.01


def test_what_was_answered_at_once_leaves_nothing_behind() -> None:
    timers: Timers[int] = Timers()
    for number in range(1000):
        timers.add(30.0 + number / 10, number).pop(number)
    assert timers.next_deadline() is None
    assert not timers._at and not timers._ticks


def test_what_is_due_at_the_moment_that_next_deadline_told_is_due_then() -> None:
    timers: Timers[str] = Timers()
    timers.add(1024.105, "a")
    at = timers.next_deadline()
    assert at == 1024.11 and at * 100 < 102411  # floats
    assert timers.due(at) == ["a"]


def test_deadlines_that_are_far_away_cost_nothing_once_their_requests_are_answered() -> None:
    timers: Timers[int] = Timers()
    timers.add(1.0, -1)  # there is always one that is due sooner
    for number in range(50_000):
        timers.add(86_400 + number / TICKS_PER_S, number).pop(number)
    assert len(timers._at) == len(timers._ticks) < 2000
    kept = [timers.add(90_000 + number, number) for number in range(3000)]
    assert all(kept) and len(timers.due(1e6)) == 3001
