"""How often a lost attempt runs again, and what its caller is told when it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from core_rig import SESSION, Rig, held

from rota.common import errors, messages, wire
from rota.common.messages import End, Exited, Row
from rota.master.core.pool import Slot
from rota.worker.page import DONE, RUNNING

OK, MAYBE = errors.OK, errors.MaybeExecuted.code


def killed(rig: Rig, slot: Slot, kind: str = End.SIGNALLED) -> None:
    """Its process ended while it ran all that it had."""
    numbers = list(slot.inflight)
    rows = [Row(number, RUNNING, SESSION, number, 1) for number in numbers]
    report = Exited(slot.incarnation, "orders", -9, "was killed by signal 9", slot.last_number, rows, "", kind)
    rig.tell(slot.node, report)
    rig.out.probes.clear()
    rig.fleet.processes.settle(slot, rig.now)
    rig.flush()


def events(rig: Rig, kind: str) -> list[str]:
    return [event["text"] for event in rig.core.events.since(0) if event["kind"] == kind]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_request_of_an_idempotent_handler_is_started_max_attempts_times(most: int) -> None:
    rig = Rig({"max_attempts": most})
    slots = rig.pool_of(4)
    rig.request(1, "orders.again")
    for slot in slots[:most]:
        assert rig.codes() == {}
        killed(rig, slot, End.STOPPED)  # crashes would bring it into quarantine
    assert rig.codes() == {1: MAYBE}
    assert len(rig.deliveries) == most
    assert f"attempt {most} of {most}" in rig.answers[0].cause


def test_of_a_killed_process_the_small_replies_count_that_its_transport_had_not_sent() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=16)
    for number in range(1, 9):
        rig.request(number)
    rig.reply(slot, 1)

    def row(of: int, state: int = DONE, kind: int = wire.REPLY, **head: int) -> Row:
        frame = wire.head(kind, 77, **{"epoch": 1, "number": of, "code": OK, **head}) + b"from the page"
        return Row(of, state, SESSION, of, 1, frame)

    rows = [row(1), row(2), row(3, number=2), row(4, RUNNING), row(5, kind=wire.CHUNK), row(6, epoch=2)]
    rows += [row(7, code=errors.NOT_STARTED), row(8)._replace(reply=b"damaged")]
    rig.tell(slot.node, Exited(slot.incarnation, "orders", -9, "was killed", 8, rows, ""))
    rig.out.probes.clear()
    rig.fleet.processes.settle(slot, rig.now)
    rig.flush()
    assert rig.codes() == {1: OK, 2: OK, **dict.fromkeys(range(3, 9), MAYBE)}
    assert len(rig.deliveries) == 8 and not rig.dispatch.counters["stray replies"]
    assert [answer.body for answer in rig.answers[:2]] == [b"ok", b"from the page"]


def test_attempts_that_did_not_start_are_as_many_as_it_takes() -> None:
    rig = Rig({"max_attempts": 1})
    slots = rig.pool_of(6)
    rig.request(1)
    for slot in slots[:5]:
        rig.exited(slot, started_upto=0)
    assert (rig.codes(), len(rig.deliveries)) == ({}, 6)
    rig.reply(slots[5], 1)
    assert rig.codes() == {1: 0}


def test_a_handler_that_allows_no_second_run_says_so() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    killed(rig, first)
    assert "not run again: its handler does not allow it" in rig.answers[0].cause


def test_when_the_budget_is_spent_a_lost_request_ends_as_maybe_executed_and_says_why() -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 0})
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    killed(rig, first)
    assert rig.codes() == {1: MAYBE}
    assert "retry_percent" in rig.answers[0].cause and "signal 9" in rig.answers[0].cause
    assert rig.dispatch.counters["retry budget spent"] == 1
    assert events(rig, "retries") == ["the retry budget of orders is spent: 1 lost attempts were not run again"]
    assert not second.inflight


def test_a_spent_budget_is_told_once_however_many_it_refuses() -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 0})
    slots = rig.pool_of(20)
    for number, slot in enumerate(slots, 1):
        rig.request(number, "orders.again", body=str(number).encode())
        killed(rig, slot)
    assert rig.dispatch.counters["retry budget spent"] == 20
    assert len(events(rig, "retries")) == 1


def test_what_is_lost_after_its_deadline_is_not_run_again() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again", timeout_ms=100)
    rig.now += 0.1
    killed(rig, first)
    assert rig.codes() == {1: MAYBE} and "its deadline passed" in rig.answers[0].cause
    assert not second.inflight


@pytest.mark.parametrize(
    ("target", "by", "codes", "attempts"),
    [
        ("orders.quote", errors.BY_FENCE, {}, [1]),
        ("orders.again", errors.BY_FENCE, {}, [2]),  # what was refused may have been its second attempt
        ("orders.quote", errors.BY_FLOOR, {50: MAYBE}, []),
        ("orders.again", errors.BY_FLOOR, {}, [2]),
    ],
)
def test_what_an_older_master_dispatched_is_run_elsewhere_where_no_other_process_can_have_run_it(
    target: str, by: bytes, codes: dict[int, int], attempts: list[int]
) -> None:
    """Below the floor that master took it back, and may have given it to another one."""
    rig = Rig(epoch=2)
    slot, _ = rig.pool_of(2)
    rig.process_hello(slot.incarnation, b"again", received_upto=5, held=[held(5, 50)])
    rig.client(epoch=1)
    rig.request(50, target, flags=wire.RESENT | wire.OLDER, epoch=1)
    assert rig.deliveries == []
    rig.reply(slot, 5, code=errors.NOT_STARTED, epoch=1, body=by)
    assert rig.codes() == codes
    assert [wire.parse_head(frame).below for _, _, frame in rig.deliveries] == attempts
    for given, number, _ in rig.deliveries:
        rig.reply(given, number)
    assert len(rig.deliveries) == len(attempts) and 50 in rig.codes()


@pytest.mark.parametrize(
    "settle",
    [
        lambda rig, slot: rig.dispatch.losses.undeliverable(slot, [rig.deliveries[1][2]], False, rig.now),
        lambda rig, slot: rig.tell(slot.node, messages.Recalled(slot.incarnation, 3, 1)),
        lambda rig, slot: rig.process_hello(slot.incarnation, b"again", received_upto=1, held=[held(1, 1)]),
        lambda rig, slot: rig.exited(slot, started_upto=1, rows=[(1, RUNNING)]),
        lambda rig, slot: rig.fleet.processes.drop_all(slot.node, "its node is dead", rig.now),
    ],
    ids=["undeliverable", "recalled", "rejoined", "exited", "abandoned"],
)
def test_where_nothing_is_parked_any_more_nothing_is_asked_back(settle: Callable[[Rig, Slot], None]) -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1)
    rig.request(2)
    rig.say(wire.CANCEL, 2)
    assert slot in slot.pool.parked
    settle(rig, slot)
    assert not slot.pool.parked


def test_what_had_not_started_is_not_charged() -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 0})
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    rig.exited(first, started_upto=0)
    assert list(second.inflight.values()) and rig.codes() == {}


@pytest.mark.parametrize("kind", [End.STOPPED, End.LEAVING])
def test_what_a_drain_or_stop_cost_is_not_charged(kind: str) -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 0})
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    killed(rig, first, kind)
    assert second.inflight and rig.codes() == {}


@pytest.mark.parametrize("kind", [End.EXITED, End.SIGNALLED, End.OUT_OF_MEMORY, End.HUNG, ""])
def test_what_a_crash_cost_is_charged(kind: str) -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 0})
    first, _ = rig.pool_of(2)
    rig.request(1, "orders.again")
    killed(rig, first, kind)
    assert rig.codes() == {1: MAYBE}


def test_a_dead_node_is_charged_and_its_idempotent_requests_run_elsewhere_while_the_budget_lasts() -> None:
    rig = Rig({"retry_percent": 0, "retry_per_s": 1, "credit": 16})
    rig.default = rig.services["orders"] = type(rig.default)(ramp=0.0, credit=16, retry_percent=0, retry_per_s=1)
    one, two = rig.agent("n1", capacity=1), rig.agent("n2", capacity=1)
    slot, other = rig.process(one), rig.process(two)
    for number in range(1, 33):
        rig.request(number, "orders.again")
    assert len(slot.inflight) == len(other.inflight) == 16
    for number in list(other.inflight):
        rig.reply(other, number)
    rig.tell(one, messages.Beat(1))
    two_only = rig.now + 4.0
    while rig.now < two_only:
        two.heard_at = rig.now
        rig.after(0.1, beat=False)
    assert len(other.inflight) == 10, "retry_per_s for ten seconds"
    assert sum(code == MAYBE for code in rig.codes().values()) == 6


def test_the_number_of_the_attempt_travels_with_each_delivery() -> None:
    rig = Rig({"max_attempts": 3})
    slots = rig.pool_of(3)
    rig.request(1, "orders.again")
    killed(rig, slots[0], End.STOPPED)
    killed(rig, slots[1], End.STOPPED)
    assert [wire.parse_head(frame).below for _, _, frame in rig.deliveries] == [1, 2, 3]


def test_a_reply_of_an_older_attempt_is_dropped_and_counted_while_a_newer_one_runs() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    killed(rig, first)
    assert list(second.inflight) == [1]
    # the first process was only thought dead: its reply comes over its own route, and over that of the second
    rig.reply(first, 1, body=b"old")
    assert rig.codes() == {}
    rig.reply(second, 1, epoch=rig.dispatch.epoch - 1, body=b"of another epoch")
    assert rig.codes() == {} and rig.dispatch.counters["stray replies"] >= 1
    rig.reply(second, 1, body=b"new")
    assert rig.answers[0].body == b"new"
    rig.reply(second, 1, body=b"again")
    assert len(rig.answers) == 1


def test_a_reply_after_the_deadline_is_dropped_and_counted() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, timeout_ms=100)
    rig.after(0.2)
    assert rig.codes() == {1: errors.Timeout.code}
    rig.reply(slot, 1)
    assert (len(rig.answers), rig.dispatch.counters["late replies"]) == (1, 1)


def test_status_shows_what_is_left_of_the_budget() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, "orders.again")
    killed(rig, first)
    (service,) = rig.core.status(rig.now)["services"]
    assert service["retries_left"] == 99


def test_an_older_masters_request_is_not_run_again_where_one_attempt_is_all() -> None:
    rig = Rig({"max_attempts": 1}, epoch=2)
    rig.pool_of(1)
    rig.client(epoch=1)
    rig.request(1, "orders.again", flags=wire.RESENT | wire.OLDER, epoch=1)
    assert rig.codes() == {1: MAYBE} and not rig.deliveries
