from __future__ import annotations

import pytest
from fake_master import delivery as frame_of

from rota.common import wire
from rota.common.errors import NOT_STARTED, OK, MaybeExecuted
from rota.worker.core import deliveries as module
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.page import DONE, FLOOR, REFUSED, RUNNING, STARTED_UPTO, Page

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


def try_to_take(ledger: Deliveries, frame: bytes) -> Delivery | None:
    return ledger.take(wire.parse(frame), frame, now_ns=1_000_000_000)


def test_a_delivery_has_what_its_handler_may_ask_for(ledger: Deliveries) -> None:
    taken = take(ledger, 1)
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
    take(ledger, 1)
    take(ledger, 2, handler="orders.other")
    rows = {row.number: row for row in page.used_rows()}
    assert rows[1].state == RUNNING and rows[1].kill_ns == 6_000_000_000
    assert rows[2].kill_ns == 31_000_000_000
    assert page.words[STARTED_UPTO] == 2


def test_a_delivery_that_comes_twice_is_dropped(ledger: Deliveries) -> None:
    take(ledger, 2)
    assert try_to_take(ledger, frame_of(TOKEN, 1, 2, "orders.quote")) is None
    assert try_to_take(ledger, frame_of(TOKEN, 1, 1, "orders.quote")) is None
    assert ledger.dropped == 2


def test_a_fenced_delivery_is_answered_as_not_started(ledger: Deliveries, page: Page) -> None:
    page.words[FLOOR] = 2
    taken = take(ledger, 1)
    assert not taken.may_run
    assert wire.parse_head(ledger.not_started(taken)).code == NOT_STARTED
    assert page.used_rows()[0].state == REFUSED


def test_replies_are_kept_until_their_sequence_is_acknowledged(ledger: Deliveries, page: Page) -> None:
    first, second = take(ledger, 1), take(ledger, 2)
    ledger.reply(second, OK, b"two", 20)  # completion order is not delivery order
    ledger.reply(first, OK, b"one", 10)
    assert [row.state for row in page.used_rows()] == [DONE, DONE]
    assert [(held.number, held.done) for held in ledger.held()] == [(1, True), (2, True)]
    third = take(ledger, 3, upto=1)
    assert [(held.number, held.done) for held in ledger.held()] == [(1, True), (3, False)]
    assert ledger.held()[0].request == 1001
    ledger.reply(third, OK, b"three", 5)
    assert ledger.welcomed(TOKEN, 1, upto=3) == []


def test_after_a_reconnect_kept_replies_go_again_in_order_with_their_origin(ledger: Deliveries) -> None:
    for number in (1, 2):
        ledger.reply(take(ledger, number), OK, b"%d" % number, 10)
    again = ledger.welcomed(token=100, epoch=1, upto=0)
    heads = [wire.parse_head(frame) for frame in again]
    assert [(head.number, head.upto, head.token) for head in heads] == [(1, 1, 100), (2, 2, 100)]
    assert all(head.flags == wire.RESENT | wire.ORIGIN for head in heads)
    assert again[0][heads[0].head_len :] == b"1"
    assert wire.ORIGIN_STRUCT.unpack_from(again[0], wire.HEADER_SIZE) == (b"s" * 16, 1001)


def test_a_reply_for_another_epoch_names_its_origin(ledger: Deliveries) -> None:
    taken = take(ledger, 1, epoch=1)
    ledger.welcomed(token=100, epoch=2, upto=0)
    head = wire.parse_head(ledger.reply(taken, OK, b"", 10))
    assert (head.flags, head.epoch, head.token) == (wire.ORIGIN, 1, 100)


def test_a_row_is_used_again_only_after_its_reply_was_acknowledged(ledger: Deliveries, page: Page) -> None:
    for number in range(1, 5):
        ledger.reply(take(ledger, number), OK, b"", 1)
    overfull = take(ledger, 5)
    assert not overfull.may_run  # a page has 4 rows here: what cannot be noted must not start
    assert page.words[STARTED_UPTO] == 4
    ledger.not_started(overfull)
    assert take(ledger, 6, upto=1).may_run


def test_kept_replies_are_bounded_in_bytes_and_say_what_was_given_up(
    ledger: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES_MAX", 15_000)
    for number in (1, 2, 3):
        ledger.reply(take(ledger, number), OK, b"x" * 10_000, 1)
    codes = [wire.parse_head(frame).code for frame in ledger.welcomed(TOKEN, 1, 0)]
    assert codes == [MaybeExecuted.code, MaybeExecuted.code, OK]


def test_a_delivery_without_origin_or_with_an_impossible_target_is_dropped(ledger: Deliveries) -> None:
    assert try_to_take(ledger, wire.head(wire.DELIVER, TOKEN, 1, 0, 1)) is None
    tail = wire.ORIGIN_STRUCT.pack(b"s" * 16, 1)
    assert try_to_take(ledger, wire.head(wire.DELIVER, TOKEN, 1, 0, 1, 0, 1, 9, wire.ORIGIN, tail)) is None
    assert ledger.received_upto == 0


def test_an_hour_long_handler_does_not_break_the_header(ledger: Deliveries) -> None:
    head = wire.parse_head(ledger.reply(take(ledger, 1), OK, b"", 1 << 40))
    assert head.time == (1 << 32) - 1


# ---- what it has done ------------------------------------------------------------------------------------------------


def done_by(page: Page, count: int, remember: int = 16) -> Deliveries:
    """One delivery each second from 1 s on, answered at once."""
    ledger = Deliveries(page, {}, 0, remember=remember)
    ledger.welcomed(TOKEN, epoch=1, upto=0)
    for number in range(1, count + 1):
        frame = frame_of(TOKEN, 1, number, "orders.quote", number - 1, b"body")
        taken = ledger.take(wire.parse(frame), frame, now_ns=number * 1_000_000_000)
        assert taken is not None
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
    ledger.not_started(take(ledger, 1))
    ledger.reply(take(ledger, 2), OK, b"", 1)
    assert numbers(ledger.done(0)[0]) == [2]
