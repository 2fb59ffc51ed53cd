from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_rig import HANDLERS
from hypothesis import given
from hypothesis import strategies as st

from rota.common import wire
from rota.common.limits import CREDIT_MAX, CREDIT_USUAL
from rota.common.settings import ServiceSettings
from rota.master.core.pool import Pool, Request, Shelf, Slot, Stage
from rota.master.core.registry import Node


def pool(**settings: Any) -> Pool:
    return Pool("orders", replace(ServiceSettings(), **settings), 0.0)


def slot(of: Pool, name: str = "a", node: str = "n1", is_open: bool = True) -> Slot:
    made = Slot(Node(node), of, name, b"t", 1, 0.0)
    made.stage, made.open = Stage.READY, is_open
    of.slots[name] = made
    of.adopt(made)
    return made


def request(queued_at: float = 0.0, answered: bool = False) -> Request:
    made = Request()
    made.frame, made.queued_at, made.answered, made.slot = b"", queued_at, answered, None
    return made


def give(to: Slot, number: int) -> None:
    to.inflight[number] = request()
    to.pool.shelf.placed(to)


# ---- the queue -------------------------------------------------------------------------------------------------------


def test_the_queue_is_first_in_first_out() -> None:
    orders = pool()
    first, second = request(), request()
    orders.enqueue(first)
    orders.enqueue(second)
    assert (orders.next_queued(), orders.next_queued(), orders.next_queued()) == (first, second, None)
    assert orders.queued == 0


def test_what_is_taken_back_goes_to_the_front_in_its_order() -> None:
    orders = pool()
    waiting, one, two = request(), request(), request()
    orders.enqueue(waiting)
    orders.requeue([one, two])
    assert [orders.next_queued() for _ in range(3)] == [one, two, waiting]


def test_what_was_answered_while_it_waited_is_skipped() -> None:
    orders = pool()
    gone, next_one = request(), request(queued_at=5.0)
    orders.enqueue(gone)
    orders.enqueue(next_one)
    gone.answered = True
    orders.leave_queue(gone)
    assert orders.oldest_wait(7.0) == 2.0
    assert orders.next_queued() is next_one
    assert orders.oldest_wait(7.0) == 0.0


@given(st.lists(st.booleans(), max_size=400))
def test_the_count_of_the_queue_is_true_and_answered_requests_do_not_pile_up(answered: list[bool]) -> None:
    orders = pool()
    for is_answered in answered:
        made = request()
        orders.enqueue(made)
        if is_answered:
            made.answered = True
            orders.leave_queue(made)
        assert orders.queued == sum(not each.answered for each in orders.queue)
        assert len(orders.queue) <= 2 * orders.queued + 65


# ---- the shelf -------------------------------------------------------------------------------------------------------


def test_the_least_loaded_process_is_next() -> None:
    orders = pool(credit=4)
    a, b = slot(orders, "a"), slot(orders, "b")
    give(a, 1)
    assert orders.shelf.first(0.0) is b
    give(b, 1)
    give(b, 2)
    assert orders.shelf.first(0.0) is a


def test_among_equals_the_least_recently_used_is_next() -> None:
    orders = pool(credit=4)
    a, b, c = (slot(orders, name) for name in "abc")
    for used in (a, b, c):
        give(used, 1)
    del a.inflight[1]
    orders.shelf.placed(a)
    del b.inflight[1]
    orders.shelf.placed(b)
    assert orders.shelf.first(0.0) is a


def test_round_robin_takes_each_in_turn_whatever_its_load() -> None:
    orders = pool(credit=4, balance="round-robin")
    a, b = slot(orders, "a"), slot(orders, "b")
    give(a, 1)
    assert orders.shelf.first(0.0) is b
    give(b, 1)
    give(a, 2)
    give(b, 2)
    assert orders.shelf.first(0.0) is a


def test_a_node_of_double_weight_carries_double() -> None:
    orders = pool(credit=16, weights={"big": 2})
    big, small = slot(orders, "a", "big"), slot(orders, "b", "small")
    for number in range(1, 13):
        chosen = orders.shelf.first(0.0)
        assert chosen is not None
        give(chosen, number)
    assert (len(big.inflight), len(small.inflight)) == (8, 4)


def test_a_process_without_credit_is_not_on_the_shelf() -> None:
    orders = pool(credit=2)
    a = slot(orders)
    give(a, 1)
    assert orders.shelf.first(0.0) is a
    give(a, 2)
    assert orders.shelf.first(0.0) is None
    del a.inflight[1]
    orders.shelf.placed(a)
    assert orders.shelf.first(0.0) is a


def test_a_process_that_is_not_open_is_not_on_the_shelf() -> None:
    orders = pool()
    a = slot(orders)
    a.open = False
    orders.shelf.placed(a)
    assert orders.shelf.first(0.0) is None and a.row == -1


def who_is_given(orders: Pool, count: int, now: float) -> str:
    """So many requests come at this moment: who is given each, by name."""
    names = ""
    for _ in range(count):
        chosen = orders.shelf.first(now)
        assert chosen is not None
        if not chosen.inflight:
            chosen.progress_at = now
        chosen.last_number += 1
        give(chosen, chosen.last_number)
        names += chosen.incarnation
    return names


def answer(of: Slot, count: int, now: float) -> None:
    for number in list(of.inflight)[:count]:
        del of.inflight[number]
        of.progress_at = now
        of.pool.shelf.placed(of)


def in_bursts(names: str, credit: int = 7) -> tuple[Pool, list[Slot]]:
    """Bursts of three."""
    orders = pool(credit=credit)
    orders.shelf.burst = 3
    return orders, [slot(orders, name) for name in names]


def test_of_what_comes_at_one_moment_an_idle_process_is_given_a_burst() -> None:
    orders, _ = in_bursts("abc")
    assert who_is_given(orders, 11, 1.0) == "aaabbbcccab"


def test_what_comes_later_goes_to_the_least_loaded_whatever_a_burst_is() -> None:
    orders, _ = in_bursts("ab")
    assert who_is_given(orders, 1, 1.0) + who_is_given(orders, 1, 2.0) + who_is_given(orders, 2, 3.0) == "abab"


def test_who_has_just_answered_may_be_given_the_rest_of_a_burst() -> None:
    orders, (a, _) = in_bursts("ab")
    assert who_is_given(orders, 3, 1.0) == "aaa"
    answer(a, 1, 2.0)
    assert who_is_given(orders, 5, 2.0) == "abbba"


def test_who_has_answered_all_of_its_burst_was_used_last() -> None:
    orders, (a, _) = in_bursts("ab")
    assert who_is_given(orders, 2, 1.0) == "aa"
    answer(a, 2, 1.0)
    assert who_is_given(orders, 4, 1.0) == "bbba"


def test_who_has_no_credit_or_is_not_open_any_more_is_given_no_burst() -> None:
    orders, (a, b) = in_bursts("ab", credit=2)
    assert who_is_given(orders, 3, 1.0) == "aab"
    b.open = False
    orders.shelf.placed(b)
    answer(a, 1, 1.0)
    assert who_is_given(orders, 1, 1.0) == "a"


def test_an_empty_shelf_has_no_first() -> None:
    assert Shelf().first(0.0) is None


def test_a_process_may_come_to_the_shelf_with_much_in_flight() -> None:
    orders = pool(credit=8)
    a, b = slot(orders, "a"), slot(orders, "b", is_open=False)
    b.inflight = {number: request() for number in range(5)}
    b.open = True
    orders.adopt(b)
    give(b, 5)
    assert orders.shelf.first(0.0) is a
    give(a, 1)
    assert orders.shelf.first(0.0) is a


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["give", "take", "open", "close"])), max_size=60))
def test_the_shelf_holds_exactly_what_is_open_and_has_credit(steps: list[tuple[int, str]]) -> None:
    orders = pool(credit=3)
    slots = [slot(orders, str(number)) for number in range(4)]
    for number, (place, step) in enumerate(steps):
        chosen = slots[place]
        if step == "give" and chosen.open and len(chosen.inflight) < chosen.limit:
            chosen.inflight[number] = request()
        elif step == "take" and chosen.inflight:
            chosen.inflight.pop(next(iter(chosen.inflight)))
        elif step in ("open", "close"):
            chosen.open = step == "open"
        orders.shelf.placed(chosen)
        expected = [each for each in slots if each.open and len(each.inflight) < 3]
        assert [each for each in slots if each.row >= 0] == expected
        first = orders.shelf.first(0.0)
        assert (first is None) == (not expected)
        assert first is None or len(first.inflight) == min(len(each.inflight) for each in expected)


def observe(orders: Pool, time_us: int, times: int = 1) -> None:
    orders.times[time_us.bit_length()] += times
    orders.recount()


# ---- credit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_us", "credit"),
    [(20, CREDIT_MAX), (100, 33), (300, 9), (1000, 5), (2000, 3), (2100, 2), (4100, 1), (50_000, 1)],
)
def test_credit_is_one_request_and_what_a_process_serves_in_four_milliseconds(time_us: int, credit: int) -> None:
    orders = pool()
    a = slot(orders)
    for _ in range(8):
        observe(orders, time_us)
    assert orders.credit == a.limit == credit


@pytest.mark.parametrize(("time_us", "burst"), [(3, 125), (7, 62), (15, 31), (31, 15), (63, 7), (200, 1), (9000, 1)])
def test_a_burst_is_what_a_process_serves_in_half_a_millisecond(time_us: int, burst: int) -> None:
    orders = pool()
    assert orders.shelf.burst == 1
    for _ in range(8):
        observe(orders, time_us)
    assert orders.shelf.burst == burst


def test_rare_long_requests_make_bursts_shorter() -> None:
    orders = pool()
    for number in range(1000):
        observe(orders, 50_000 if number % 125 == 0 else 5)
    assert orders.shelf.burst == 1
    for number in range(1000):
        observe(orders, 5_000 if number % 125 == 0 else 5)
    assert 1 < orders.shelf.burst < 20


@pytest.mark.parametrize("settings", [{"balance": "round-robin"}, {"weights": {"big": 2}}])
def test_in_turn_or_by_weight_each_is_given_one(settings: dict[str, Any]) -> None:
    orders = pool(**settings)
    for _ in range(8):
        observe(orders, 3)
    assert orders.shelf.burst == 1


def test_who_is_to_give_to_each_in_turn_from_now_on_does_so_with_the_next_request() -> None:
    orders = pool(credit=4)
    slot(orders, "a")
    slot(orders, "b")
    observe(orders, 3, times=8)
    orders.reconfigure(replace(orders.settings, balance="round-robin"))
    assert who_is_given(orders, 4, 1.0) == "abab"


def test_a_fixed_credit_is_kept() -> None:
    orders = pool(credit=5)
    for _ in range(600):
        observe(orders, 10)
    assert orders.credit == 5


def test_credit_follows_a_service_that_became_slow() -> None:
    orders = pool()
    for _ in range(600):
        observe(orders, 20)
    assert orders.credit == CREDIT_MAX
    for _ in range(2048):
        observe(orders, 20_000)
    assert orders.credit == 1


def test_what_is_long_past_counts_less_and_all_that_was_served_is_counted() -> None:
    orders = pool()
    for time_us in (20, 20_000):
        for _ in range(3000):
            observe(orders, time_us)
    assert orders.credit == 1 and orders.p95_us > 20_000
    for _ in range(3000):
        observe(orders, 20)
    assert orders.credit == CREDIT_MAX
    assert orders.served() == 9000


def test_rare_slow_requests_do_not_lower_the_credit() -> None:
    orders = pool()
    for number in range(1024):
        observe(orders, 1_000_000 if number % 50 == 0 else 20)
    assert orders.credit == CREDIT_MAX


def test_where_some_requests_are_slow_no_more_than_the_usual_credit_is_given() -> None:
    orders = pool()
    for number in range(1024):
        observe(orders, 10_000 if number % 10 == 0 else 20)
    assert orders.credit == CREDIT_USUAL


def test_any_service_time_that_a_frame_can_carry_is_taken() -> None:
    orders = pool()
    for _ in range(8):
        observe(orders, 0)
        observe(orders, (1 << 32) - 1)
    assert (orders.credit, orders.p95_us) == (CREDIT_USUAL, (1 << 32) - 1)


def test_a_process_with_several_handlers_at_a_time_has_that_much_credit() -> None:
    orders = pool(credit=2)
    a = slot(orders)
    a.concurrency = 64
    orders.adopt(a)
    assert a.limit == 64


def test_new_settings_reach_every_process() -> None:
    orders = pool(credit=1)
    a = slot(orders)
    orders.reconfigure(replace(orders.settings, credit=7))
    assert a.limit == 7


# ---- may it run again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "flags", "again"),
    [
        ("quote", wire.KEYED | wire.META, False),
        ("again", 0, True),
        ("keyed", wire.KEYED | wire.META, True),
        ("keyed", wire.META, False),
        ("keyed", 0, False),
    ],
)
def test_only_the_handler_may_allow_a_second_run(handler: str, flags: int, again: bool) -> None:
    made = Request()
    made.frame = wire.head(wire.REQUEST, 1, flags=flags) + b"body"
    made.handler = HANDLERS[handler]
    assert made.may_run_again() is again


def test_meta_that_is_no_map_is_no_key() -> None:
    made = Request()
    made.frame = wire.head(wire.REQUEST, 1, code=1, flags=wire.META, tail=b"o\xc1\xff")
    made.tail_at, made.target_len, made.head_len = wire.HEADER_SIZE, 1, len(made.frame)
    made.handler = HANDLERS["keyed"]
    assert made.may_run_again() is False
