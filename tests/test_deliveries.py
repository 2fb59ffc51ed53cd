from __future__ import annotations

from typing import Any

import pytest
from fake_master import delivery as frame_of

from rota.common import wire
from rota.common.errors import BY_FENCE, BY_FLOOR, NOT_STARTED, OK, MaybeExecuted
from rota.worker.core import deliveries as module
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.page import DONE, FENCE_EPOCH, FLOOR, REFUSED, RUNNING, STARTED_UPTO, Page

TOKEN = 99


@pytest.fixture
def ledger(page: Page) -> Deliveries:
    made = Deliveries(page, {"quote": 5_000_000_000}, 30_000_000_000)
    assert made.welcomed(TOKEN, epoch=1, upto=0) == []
    return made


def take(ledger: Deliveries, number: int, upto: int = 0, epoch: int = 1, handler: str = "orders.quote") -> Delivery:
    taken = try_to_take(ledger, frame_of(TOKEN, epoch, number, handler, upto, b"body"))
    assert taken is not None
    return taken


def start(ledger: Deliveries, *given: Any, **named: Any) -> Delivery:
    """As a process does that runs one at a time."""
    taken = take(ledger, *given, **named)
    ledger.start(taken, now_ns=1_000_000_000)
    return taken


def try_to_take(ledger: Deliveries, frame: bytes) -> Delivery | None:
    return ledger.take(wire.parse(frame), frame, now_ns=1_000_000_000)


def test_a_delivery_has_what_its_handler_may_ask_for(ledger: Deliveries) -> None:
    taken = start(ledger, 1)
    assert (taken.number, taken.handler, taken.body, taken.attempt) == (1, "quote", b"body", 1)
    assert taken.request_id == (b"s" * 16).hex() + "-1001"
    assert taken.deadline == 31.0
    assert (taken.idempotency_key, taken.session, dict(taken.headers)) == (None, None, {})


def test_meta_is_read_when_asked_for_and_may_be_anything(ledger: Deliveries) -> None:
    import msgpack

    meta = msgpack.packb({"k": "basket", "s": 5, "t": "00-1", "h": {"a": "b"}})
    for number, (raw, key, headers) in enumerate(
        [(meta, "basket", {"a": "b", "traceparent": "00-1"}), (b"\xc1garbage", None, {})], 1
    ):
        tail = wire.ORIGIN_STRUCT.pack(b"s" * 16, 1) + b"o.quote" + raw
        flags = wire.ORIGIN | wire.META
        frame = wire.head(wire.DELIVER, TOKEN, 1, 0, number, 0, 1, 7, flags, tail) + b"x"
        taken = try_to_take(ledger, frame)
        assert taken is not None and taken.body == b"x"
        assert (taken.idempotency_key, taken.session, taken.headers) == (key, None, headers)


def test_the_page_knows_a_delivery_before_it_runs_and_its_limit(ledger: Deliveries, page: Page) -> None:
    start(ledger, 1)
    start(ledger, 2, handler="orders.other")
    rows = {row.number: row for row in page.used_rows()}
    assert rows[1].state == RUNNING and rows[1].kill_ns == 6_000_000_000
    assert rows[2].kill_ns == 31_000_000_000
    assert page.words[STARTED_UPTO] == 2


def test_what_was_taken_is_held_and_has_not_started_before_its_process_says_so(ledger: Deliveries, page: Page) -> None:
    first, second = take(ledger, 1), take(ledger, 2)
    assert page.words[STARTED_UPTO] == 0 and page.used_rows() == []
    assert (ledger.received_upto, ledger.started_upto) == (2, 0)
    assert [(each.number, each.done) for each in ledger.held()] == [(1, False), (2, False)]
    assert not first.may_run and first.kill_ns == 0, "its limit has not begun"
    assert ledger.start(first, now_ns=7_000_000_000)
    assert [(row.number, row.started_ns, row.kill_ns) for row in page.used_rows()] == [(1, 7 * 10**9, 12 * 10**9)]
    assert page.words[STARTED_UPTO] == ledger.started_upto == 1
    page.words[FLOOR] = 3
    assert not ledger.start(second, now_ns=8_000_000_000), "it was taken back meanwhile"
    frame = ledger.not_started(second)
    assert frame[wire.parse_head(frame).head_len :] == BY_FLOOR


def test_what_never_started_is_given_back_and_is_no_proof_for_another_master(ledger: Deliveries, page: Page) -> None:
    """Its number is not in the page: its master may take it back later."""
    page.words[FENCE_EPOCH] = 2
    frame = ledger.not_started(take(ledger, 1))
    assert wire.parse_head(frame).code == NOT_STARTED
    assert frame[wire.parse_head(frame).head_len :] == BY_FLOOR
    assert page.report() == [] and ledger.held()[0].done


def test_rows_whose_replies_were_acknowledged_are_used_by_what_was_taken_before(ledger: Deliveries, page: Page) -> None:
    for number in range(1, page.rows + 1):
        ledger.reply(start(ledger, number), OK, b"", 1)
    taken = take(ledger, page.rows + 1, upto=page.rows)
    assert ledger.start(taken, now_ns=1)


def test_names_that_callers_invent_are_not_remembered(ledger: Deliveries) -> None:
    for number, handler in enumerate(("orders.quote", "orders.a", "orders.b"), 1):
        start(ledger, number, handler=handler)
    assert len(ledger._handlers) == 1


def test_names_that_are_served_are_remembered_once(ledger: Deliveries) -> None:
    for number in (1, 2, 3):
        ledger.reply(start(ledger, number), OK, b"", 1)
    assert ledger._handlers == {b"orders.quote": ("quote", 5_000_000_000)}


def test_each_hello_has_a_higher_number(ledger: Deliveries) -> None:
    assert [ledger.next_hello() for _ in range(3)] == [1, 2, 3]


def test_the_agent_kills_later_by_the_grace_and_never_where_there_is_no_limit(page: Page) -> None:
    ledger = Deliveries(page, {"quote": 5_000_000_000}, 0, grace_ns=2_000_000_000)
    limited, unlimited = start(ledger, 1), start(ledger, 2, handler="orders.other")
    assert (limited.kill_ns, unlimited.kill_ns) == (6_000_000_000, 0)
    assert [row.kill_ns for row in page.used_rows()] == [8_000_000_000, 0]
    ledger.limit(limited, now_ns=3_000_000_000, limit_ns=0)  # it streams, and no piece of it is awaited
    ledger.limit(unlimited, now_ns=3_000_000_000, limit_ns=5_000_000_000)
    assert (limited.kill_ns, unlimited.kill_ns) == (0, 8_000_000_000)
    assert [(row.started_ns, row.kill_ns) for row in page.used_rows()] == [(3_000_000_000, 0), (3_000_000_000, 10**10)]


def test_a_delivery_that_comes_twice_is_dropped(ledger: Deliveries) -> None:
    start(ledger, 2)
    assert try_to_take(ledger, frame_of(TOKEN, 1, 2, "orders.quote")) is None
    assert try_to_take(ledger, frame_of(TOKEN, 1, 1, "orders.quote")) is None


def test_a_fenced_delivery_is_answered_as_not_started(ledger: Deliveries, page: Page) -> None:
    page.words[FLOOR] = 2
    taken = start(ledger, 1)
    assert not taken.may_run
    assert wire.parse_head(ledger.not_started(taken)).code == NOT_STARTED
    assert page.used_rows()[0].state == REFUSED


@pytest.mark.parametrize(("word", "by"), [(FLOOR, BY_FLOOR), (FENCE_EPOCH, BY_FENCE)])
def test_who_kept_it_from_starting_is_told_and_what_comes_next_runs(
    ledger: Deliveries, page: Page, word: int, by: bytes
) -> None:
    page.words[FLOOR] = 1
    page.words[word] = 2
    frame = ledger.not_started(start(ledger, 1, epoch=1))
    assert frame[wire.parse_head(frame).head_len :] == by
    assert start(ledger, 2, epoch=2).may_run


def test_what_the_fence_kept_from_starting_is_proof_for_the_first_master_that_is_told(
    ledger: Deliveries, page: Page
) -> None:
    """That one may have it run elsewhere, and die before it has acknowledged."""
    page.words[FENCE_EPOCH] = 2
    ledger.not_started(start(ledger, 1, epoch=1))

    def told(epoch: int) -> list[bytes]:
        return [frame[wire.parse_head(frame).head_len :] for frame in ledger.welcomed(TOKEN, epoch, upto=0)]

    assert [told(epoch) for epoch in (2, 2, 3, 3, 4)] == [[BY_FENCE], [BY_FENCE], [BY_FLOOR], [BY_FLOOR], [BY_FLOOR]]


def test_an_answer_is_the_same_for_every_master(ledger: Deliveries) -> None:
    ledger.reply(start(ledger, 1), OK, b"one", 10)
    for epoch in (2, 3, 4):
        (again,) = ledger.welcomed(TOKEN, epoch, upto=0)
        head = wire.parse_head(again)
        assert (head.code, head.epoch, again[head.head_len :]) == (OK, 1, b"one")


def test_what_has_no_room_in_the_page_was_kept_from_starting_by_no_fence(ledger: Deliveries, page: Page) -> None:
    """Its number is not in the page, so that its master may take it back: that it ran nowhere is no proof."""
    given = [start(ledger, number) for number in range(1, page.rows + 2)]
    assert [each.number for each in given if not each.may_run] == [page.rows + 1]
    frame = ledger.not_started(given[-1])
    assert frame[wire.parse_head(frame).head_len :] == BY_FLOOR


def test_replies_are_kept_until_their_sequence_is_acknowledged(ledger: Deliveries, page: Page) -> None:
    first, second = start(ledger, 1), start(ledger, 2)
    ledger.reply(second, OK, b"two", 20)  # completion order is not delivery order
    ledger.reply(first, OK, b"one", 10)
    assert [row.state for row in page.used_rows()] == [DONE, DONE]
    assert [(held.number, held.done) for held in ledger.held()] == [(1, True), (2, True)]
    third = start(ledger, 3, upto=1)
    assert [(held.number, held.done) for held in ledger.held()] == [(1, True), (3, False)]
    assert ledger.held()[0].request == 1001
    ledger.reply(third, OK, b"three", 5)
    assert ledger.welcomed(TOKEN, 1, upto=3) == []


def test_a_small_reply_is_in_the_page_before_it_is_sent(ledger: Deliveries, page: Page) -> None:
    small, large = start(ledger, 1), start(ledger, 2)
    frames = [ledger.reply(each, OK, body, 1) for each, body in ((small, b"s"), (large, b"l" * 5000))]
    assert [row.reply for row in page.report()] == [frames[0], b""]
    page.words[FLOOR] = 9
    ledger.not_started(start(ledger, 3))
    assert page.report()[2].reply == b"", "it did not run"


def test_after_a_reconnect_kept_replies_go_again_in_order_with_their_origin(ledger: Deliveries) -> None:
    for number in (1, 2):
        ledger.reply(start(ledger, number), OK, b"%d" % number, 10)
    again = ledger.welcomed(token=100, epoch=1, upto=0)
    heads = [wire.parse_head(frame) for frame in again]
    assert [(head.number, head.upto, head.token) for head in heads] == [(1, 1, 100), (2, 2, 100)]
    assert all(head.below == 2 for head in heads), "what it has started"
    assert all(head.flags == wire.RESENT | wire.ORIGIN for head in heads)
    assert again[0][heads[0].head_len :] == b"1"
    assert wire.ORIGIN_STRUCT.unpack_from(again[0], wire.HEADER_SIZE) == (b"s" * 16, 1001)


def test_a_reply_for_another_epoch_names_its_origin(ledger: Deliveries) -> None:
    taken = start(ledger, 1, epoch=1)
    ledger.welcomed(token=100, epoch=2, upto=0)
    head = wire.parse_head(ledger.reply(taken, OK, b"", 10))
    assert (head.flags, head.epoch, head.token) == (wire.ORIGIN, 1, 100)
    assert wire.parse_head(ledger.reply(start(ledger, 2, epoch=2), OK, b"", 10)).flags == 0


def test_a_row_is_used_again_only_after_its_reply_was_acknowledged(ledger: Deliveries, page: Page) -> None:
    for number in range(1, 5):
        ledger.reply(start(ledger, number), OK, b"", 1)
    overfull = start(ledger, 5)
    assert not overfull.may_run  # a page has 4 rows here: what cannot be noted must not start
    assert page.words[STARTED_UPTO] == 4
    ledger.not_started(overfull)
    assert start(ledger, 6, upto=1).may_run
    ledger.welcomed(TOKEN, 1, upto=5)
    again = [start(ledger, number) for number in (7, 8, 9, 10)]
    assert [each.may_run for each in again] == [True, True, True, False]
    assert sorted(row.number for row in page.running()) == [6, 7, 8, 9]


def test_kept_replies_are_bounded_in_bytes_and_say_what_was_given_up(
    ledger: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 25_000)
    for number, size in enumerate((1, 10_000, 10_000, 10_000), 1):
        ledger.reply(start(ledger, number), OK, b"x" * size, 1)
    codes = [wire.parse_head(frame).code for frame in ledger.welcomed(TOKEN, 1, 0)]
    assert codes == [OK, MaybeExecuted.code, OK, OK], "no more than it takes; a small one holds nothing worth"


def test_a_delivery_without_origin_or_with_an_impossible_target_is_dropped(ledger: Deliveries) -> None:
    assert try_to_take(ledger, wire.head(wire.DELIVER, TOKEN, 1, 0, 1)) is None
    tail = wire.ORIGIN_STRUCT.pack(b"s" * 16, 1)
    assert try_to_take(ledger, wire.head(wire.DELIVER, TOKEN, 1, 0, 1, 0, 1, 9, wire.ORIGIN, tail)) is None
    long = wire.head(wire.DELIVER, TOKEN, 1, 0, 1, 0, 1, 9, 0, tail + b"o.greeting")
    assert try_to_take(ledger, long) is None
    assert ledger.received_upto == 0


def test_an_hour_long_handler_does_not_break_the_header(ledger: Deliveries) -> None:
    head = wire.parse_head(ledger.reply(start(ledger, 1), OK, b"", 1 << 40))
    assert head.time == (1 << 32) - 1


# ---- what it has done ------------------------------------------------------------------------------------------------


def done_by(page: Page, count: int, remember: int = 16) -> Deliveries:
    """One delivery each second from 1 s on, answered at once."""
    ledger = Deliveries(page, {}, 0, remember=remember)
    ledger.welcomed(TOKEN, epoch=1, upto=0)
    for number in range(1, count + 1):
        frame = frame_of(TOKEN, 1, number, "orders.quote", number - 1, b"body")
        taken = ledger.take(wire.parse(frame), frame, now_ns=number * 1_000_000_000)
        assert taken is not None and ledger.start(taken, now_ns=number * 1_000_000_000)
        ledger.reply(taken, OK, b"", 1)
    return ledger


def numbers(origins: bytes) -> list[int]:
    return [number - 1000 for _, number in wire.ORIGIN_STRUCT.iter_unpack(origins)]


def test_a_process_says_what_it_has_done_and_that_it_has_forgotten_nothing(page: Page) -> None:
    origins, back_ms = done_by(page, 15).done(now_ns=20_000_000_000)
    assert (numbers(origins), back_ms) == (list(range(1, 16)), -1)


def test_what_it_has_forgotten_was_done_before_the_time_that_it_tells(page: Page) -> None:
    origins, back_ms = done_by(page, 40).done(now_ns=50_000_000_000)
    assert numbers(origins) == list(range(25, 41))
    assert back_ms == 25_000, "the 24th was done before the 25th came, at 25 s"


@pytest.mark.parametrize("count", [1023, 1024, 1025, 1100, 5000])
def test_what_it_remembers_goes_far_back_with_few_marks(page: Page, count: int) -> None:
    origins, back_ms = done_by(page, count, remember=1024).done(now_ns=count * 1_000_000_000)
    assert numbers(origins) == list(range(max(1, count - 1023), count + 1))
    if count <= 1024:
        assert back_ms == -1
    else:
        assert 1023_000 - 64_000 <= back_ms < 1024_000


def test_what_was_not_started_was_not_done(ledger: Deliveries, page: Page) -> None:
    page.words[FLOOR] = 2
    ledger.not_started(start(ledger, 1))
    ledger.reply(start(ledger, 2), OK, b"", 1)
    assert numbers(ledger.done(0)[0]) == [2]


def test_refusals_make_it_forget_nothing(page: Page) -> None:
    ledger = Deliveries(page, {}, 0, remember=16)
    page.words[FLOOR] = 20
    for number in range(1, 23):
        taken = start(ledger, number, upto=number - 1)
        _ = ledger.reply(taken, OK, b"", 1) if taken.may_run else ledger.not_started(taken)
    origins, back_ms = ledger.done(now_ns=5_000_000_000)
    assert (numbers(origins), back_ms) == ([20, 21, 22], -1)


def test_a_reply_that_was_acknowledged_before_it_was_made_is_kept(ledger: Deliveries) -> None:
    delivery = start(ledger, 1, upto=5)
    ledger.reply(delivery, OK, b"", 1)
    assert [held.number for held in ledger.held()] == [1]


@pytest.mark.parametrize("number, epoch", [((1 << 63) - 1, 1), ((1 << 64) - 1, 1), (1, (1 << 31) - 1)])
def test_a_delivery_that_no_hello_could_tell_of_is_none(ledger: Deliveries, number: int, epoch: int) -> None:
    assert try_to_take(ledger, frame_of(TOKEN, epoch, number, "orders.quote")) is None
    assert ledger.received_upto == 0
