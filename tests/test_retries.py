"""The retry budget by itself: a window of ten seconds, counted in successes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rota.master.core.retries import STEP_S, WINDOW_S, RetryBudget


def drawn(budget: RetryBudget, successes: int, percent: int, per_s: int, now: float) -> int:
    """How many it gives when it is asked without end."""
    count = 0
    while budget.take(successes, percent, per_s, now):
        count += 1
    return count


def test_a_service_without_traffic_has_its_seconds_share() -> None:
    assert drawn(RetryBudget(), 0, percent=20, per_s=10, now=5.0) == 100


def test_a_share_of_what_succeeded_in_the_last_ten_seconds_comes_on_top() -> None:
    budget = RetryBudget()
    for second in range(30):
        budget.mark(successes=1000 * second, now=float(second))
    # 10,000 successes in the window, and whatever the oldest mark in it is too old by
    assert 2000 <= drawn(budget, 29_000 + 1000, percent=20, per_s=0, now=30.0) <= 2200


def test_successes_of_long_ago_buy_nothing() -> None:
    budget = RetryBudget()
    budget.mark(0, 0.0)
    budget.mark(1_000_000, 1.0)
    for second in range(2, 14):
        budget.mark(1_000_000, float(second))
    assert drawn(budget, 1_000_000, percent=20, per_s=0, now=14.0) == 0


def test_what_was_charged_comes_free_after_ten_seconds() -> None:
    budget = RetryBudget()
    budget.mark(0, 0.0)
    assert drawn(budget, 0, percent=0, per_s=1, now=0.5) == 10
    for second in range(1, 13):
        budget.mark(0, float(second))
        if second < WINDOW_S:
            assert budget.left(0, 0, 1, float(second)) == 0
    assert drawn(budget, 0, percent=0, per_s=1, now=13.0) == 10


def test_a_budget_of_nothing_gives_nothing() -> None:
    assert drawn(RetryBudget(), 0, percent=0, per_s=0, now=1.0) == 0


def test_refusals_are_told_once_in_ten_seconds_with_their_number() -> None:
    budget = RetryBudget()
    assert budget.to_tell(1.0) == 0
    for _ in range(5):
        budget.take(0, 0, 0, 1.0)
    assert (budget.to_tell(1.0), budget.to_tell(1.1)) == (5, 0)
    for _ in range(3):
        budget.take(0, 0, 0, 2.0)
    assert (budget.to_tell(10.9), budget.to_tell(11.0), budget.to_tell(30.0)) == (0, 3, 0)


@given(
    steps=st.lists(st.tuples(st.floats(0.05, 1.0), st.integers(0, 50), st.integers(0, 30)), max_size=60),
    percent=st.integers(0, 100),
    per_s=st.integers(0, 5),
)
def test_no_ten_seconds_ever_see_more_than_the_share(
    steps: list[tuple[float, int, int]], percent: int, per_s: int
) -> None:
    """A step is time that passes, successes at its end, and how many retries are asked for then."""
    budget = RetryBudget()
    now, successes = 0.0, 0
    budget.mark(0, 0.0)
    answered, given_at = [(0.0, 0)], []
    for passed, more, asked in steps:
        now, successes = now + passed, successes + more
        answered.append((now, successes))
        budget.mark(successes, now)
        given_at += [now for _ in range(asked) if budget.take(successes, percent, per_s, now)]
        recent = sum(at > now - WINDOW_S for at in given_at)
        # The window's first mark may be older than it by a step, and by the tick after which that one was made.
        before = [count for at, count in answered if at <= now - WINDOW_S - 2 * STEP_S]
        assert recent <= (successes - max(before, default=0)) * percent // 100 + per_s * WINDOW_S
