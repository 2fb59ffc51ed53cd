"""Replies of a process of one thread that wait for the next ones."""

from rota.worker.core.holding import QUICK_STREAK, QUICK_US, Holding


def warm() -> Holding:
    """Its last replies were quick."""
    holding = Holding()
    for _ in range(QUICK_STREAK):
        assert not holding.waits(10, may_wait=False)
    return holding


def test_replies_wait_when_those_before_were_quick() -> None:
    holding = Holding()
    waited = [holding.waits(1, may_wait=True) for _ in range(QUICK_STREAK + 1)]
    assert waited == [False] * (QUICK_STREAK - 1) + [True] * 2


def test_one_that_took_long_goes_at_once_and_those_behind_it() -> None:
    holding = warm()
    assert holding.waits(QUICK_US - 1, may_wait=True)
    holding = warm()
    waited = [holding.waits(us, may_wait=True) for us in (10, QUICK_US, *[10] * QUICK_STREAK)]
    assert waited == [True, False, *[False] * (QUICK_STREAK - 1), True]


def test_no_more_wait_than_a_millisecond_of_work() -> None:
    holding = warm()
    assert [holding.waits(400, may_wait=True) for _ in range(5)] == [True, True, False, True, True]


def test_what_goes_leaves_nothing_to_count() -> None:
    holding = warm()
    holding.waits(900, may_wait=True)
    holding.waits(900, may_wait=False)
    assert holding.waits(900, may_wait=True)
