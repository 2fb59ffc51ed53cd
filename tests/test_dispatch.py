"""The ledger: what a request's caller is told, whatever happens to the process that has it."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from core_rig import SESSION, Rig, as_large, held

from rota.common import errors, messages, wire
from rota.common.errors import NOT_STARTED
from rota.common.limits import HEAD_MAX, NUMBER_MAX
from rota.common.messages import End, Exited, Handler, Recall, Recalled, Row, Started
from rota.master.core import inherited, records
from rota.master.core.beginning import Heritage
from rota.master.core.pool import Slot
from rota.master.core.registry import why
from rota.worker.page import DONE, REFUSED, RUNNING

OK = 0
ORIGIN = wire.ORIGIN_STRUCT.pack(SESSION, 50)
MAYBE, OVERLOADED, TIMEOUT = errors.MaybeExecuted.code, errors.Overloaded.code, errors.Timeout.code


# ---- the way there and back ------------------------------------------------------------------------------------------


def test_a_request_goes_to_a_process_and_its_reply_back_to_its_caller() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, body=b"question")
    ((given, number, frame),) = rig.deliveries
    head = wire.parse_head(frame)
    assert (given, number, head.kind, head.token, head.epoch, head.below) == (slot, 1, wire.DELIVER, slot.token, 1, 1)
    assert wire.ORIGIN_STRUCT.unpack_from(frame, wire.HEADER_SIZE) == (SESSION, 1)
    assert frame[head.head_len - head.code : head.head_len] == b"orders.quote"
    assert frame[head.head_len :] == b"question"
    rig.reply(slot, 1, body=b"answer")
    (answer,) = rig.answers
    assert (answer.number, answer.code, answer.sequence, answer.body) == (1, OK, 1, b"answer")


def test_an_error_of_the_handler_passes_through_untouched() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1, code=errors.RemoteError.code, body=b"\xc1 not msgpack")
    assert (rig.answers[0].code, rig.answers[0].body) == (errors.RemoteError.code, b"\xc1 not msgpack")


def test_the_deadline_travels_as_what_is_left_of_it() -> None:
    rig = Rig()
    slots = rig.pool_of(1)
    rig.request(1)
    rig.request(2, timeout_ms=1000)
    rig.after(0.4)
    rig.reply(slots[0], 1)
    assert 580 <= wire.parse_head(rig.deliveries[1][2]).time <= 600


def test_a_deadline_that_passed_since_the_last_tick_travels_as_nothing_left() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, timeout_ms=100)
    rig.now += 0.15
    rig.reply(slot, 1)
    assert wire.parse_head(rig.deliveries[1][2]).time == 0


def test_a_process_is_never_given_more_than_its_credit() -> None:
    rig = Rig()
    slots = rig.pool_of(2, credit=3)
    for number in range(1, 10):
        rig.request(number)
    assert [len(slot.inflight) for slot in slots] == [3, 3]
    rig.reply(slots[0], 1)
    assert [len(slot.inflight) for slot in slots] == [3, 3]
    assert rig.dispatch.pools["orders"].queued == 2


def test_the_queue_is_served_in_its_order() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in range(1, 5):
        rig.request(number)
    for number in range(1, 5):
        rig.reply(slot, number)
    assert [answer.number for answer in rig.answers] == [1, 2, 3, 4]


def test_each_delivery_acknowledges_the_replies_before_it() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in (1, 2, 3):
        rig.request(number)
    rig.reply(slot, 1)
    rig.reply(slot, 2)
    assert [wire.parse_head(frame).upto for _, _, frame in rig.deliveries] == [0, 1, 2]


# ---- too much, too late ----------------------------------------------------------------------------------------------


def test_a_reply_behind_a_lost_one_acknowledges_nothing() -> None:
    """The process would let go of the one that was lost."""
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1)
    rig.request(2)
    rig.reply(slot, 2, sequence=2)
    rig.request(3)
    assert wire.parse_head(rig.deliveries[-1][2]).upto == 0


def test_beyond_its_limit_the_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    rig = Rig(service={"queue_limit": 2})
    (slot,) = rig.pool_of(1)
    for number in range(1, 5):
        rig.request(number)
    assert rig.codes() == {4: OVERLOADED}
    assert msgpack.unpackb(rig.answers[0].body)["retry_after_ms"] > 0
    for delivery in (1, 2, 3):
        rig.reply(slot, delivery)
    assert rig.codes() == {4: OVERLOADED, 1: OK, 2: OK, 3: OK}
    assert rig.dispatch.pools["orders"].queued == rig.dispatch.queued_bytes == 0, "what was refused has no place"


@pytest.mark.parametrize(("is_open", "least", "most"), [(True, 200, 400), (False, 1000, 1000)])
def test_who_is_refused_is_to_come_again_when_about_half_of_the_queue_was_served(
    is_open: bool, least: int, most: int
) -> None:
    rig = Rig(service={"queue_limit": 4})
    (slot,) = rig.pool_of(1)
    for number in range(1, 11):
        rig.request(number)
        rig.reply(slot, number, time=100_000)
    rig.after(0.1)
    rig.request(11)
    if not is_open:  # nothing is known then
        rig.dispatch.losses.disconnected(slot)
    for number in range(12, 17):
        rig.request(number)
    assert least <= msgpack.unpackb(rig.answers[-1].body)["retry_after_ms"] <= most


def test_beyond_its_bytes_the_queue_refuses_and_they_come_free_again() -> None:
    rig = Rig(queue_bytes=3000)
    (slot,) = rig.pool_of(1)
    for number in range(1, 5):
        rig.request(number, body=b"x" * 1200)
    assert rig.codes() == {4: OVERLOADED}
    for number in (1, 2, 3):
        rig.reply(slot, number)
    assert rig.dispatch.queued_bytes == 0


def test_waiting_longer_than_queue_timeout_is_overloaded_not_timeout() -> None:
    rig = Rig(service={"queue_timeout": 0.5})
    rig.pool_of(1)
    rig.request(1)
    rig.request(2)
    rig.after(0.4)
    assert rig.codes() == {}
    rig.after(0.2)
    assert rig.codes() == {2: OVERLOADED}


def test_a_request_that_ran_and_waits_to_run_again_is_never_called_overloaded() -> None:
    """Overloaded says that nothing was run."""
    rig = Rig(service={"queue_timeout": 0.5})
    (slot, other) = rig.pool_of(2)
    rig.request(1)
    rig.request(2)
    rig.request(3, "orders.again", timeout_ms=2000)
    rig.reply(slot, 1)
    rig.request(4)
    assert rig.where()[-1] == (slot.incarnation, 2)
    rig.exited(slot, started_upto=2, rows=[(2, RUNNING)])
    rig.after(1.0)
    assert rig.codes()[4] == OVERLOADED
    assert 3 not in rig.codes()
    rig.after(1.5)
    assert rig.codes()[3] == TIMEOUT
    assert "started" not in msgpack.unpackb(rig.answers[-1].body)


def test_a_deadline_that_passes_in_the_queue_drops_the_request() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, timeout_ms=100)
    rig.after(0.15)
    assert rig.codes() == {2: TIMEOUT}
    assert msgpack.unpackb(rig.answers[0].body)["started"] is False
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1


def test_a_deadline_that_passes_while_it_runs_leaves_the_attempt_and_its_credit() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, timeout_ms=100)
    rig.request(2)
    rig.after(0.15)
    assert rig.codes() == {1: TIMEOUT}
    assert "started" not in msgpack.unpackb(rig.answers[0].body)
    assert list(slot.inflight) == [1]
    rig.reply(slot, 1)
    assert rig.codes() == {1: TIMEOUT}, "the first outcome counts"
    assert rig.dispatch.counters["late replies"] == 1
    assert rig.where()[-1] == (slot.incarnation, 2)


def test_an_answer_comes_within_a_tick_of_its_deadline() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, timeout_ms=100)
    due = rig.dispatch.timers.next_deadline()
    assert due is not None and rig.now + 0.1 <= due <= rig.now + 0.12


# ---- cancel ----------------------------------------------------------------------------------------------------------


def test_a_queued_request_that_is_cancelled_never_runs() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2)
    rig.say(wire.CANCEL, 2)
    assert rig.codes() == {2: errors.Cancelled.code}
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1


def test_a_running_request_that_is_cancelled_keeps_its_credit_until_its_reply() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.say(wire.CANCEL, 1)
    assert rig.codes() == {1: errors.Cancelled.code}
    assert list(slot.inflight) == [1]
    rig.reply(slot, 1)
    assert not slot.inflight
    assert len(rig.answers) == 1


def test_cancelling_what_is_unknown_does_nothing() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.client()
    rig.say(wire.CANCEL, 9)
    assert rig.answers == []


def test_a_client_that_says_bye_leaves_nothing_in_the_queue() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2)
    rig.say(wire.BYE)
    assert rig.dispatch.pools["orders"].queued == rig.dispatch.queued_bytes == 0
    assert not rig.dispatch.sessions and not rig.dispatch.routes
    rig.reply(slot, 1)
    assert not slot.inflight


def test_a_session_that_was_silent_for_long_is_closed() -> None:
    rig = Rig(session_idle=60.0)
    rig.pool_of(1)
    rig.client()
    rig.after(59.0)
    assert rig.dispatch.sessions
    rig.after(3.0)
    assert not rig.dispatch.sessions


# ---- what a dead process leaves --------------------------------------------------------------------------------------


def test_what_had_not_started_runs_elsewhere_for_free() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    assert list(first.inflight) == [1, 2]
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.exited(first, started_upto=1, rows=[(1, DONE)])
    assert rig.where()[-1] == (second.incarnation, 3)
    assert wire.parse_head(rig.deliveries[-1][2]).below == 1, "an attempt that did not start does not count"


@pytest.mark.parametrize(("state", "words"), [(RUNNING, "while it ran"), (DONE, "the reply is lost")])
def test_what_had_started_ends_as_maybe_executed_and_says_why(state: int, words: str) -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rig.exited(first, started_upto=1, rows=[(1, state)])
    assert rig.codes() == {1: MAYBE}
    assert rig.answers[0].cause.startswith("its process was lost ") and words in rig.answers[0].cause
    assert "(was killed by signal 9)" in rig.answers[0].cause


def test_what_its_page_calls_refused_had_not_started() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1)
    rig.exited(first, started_upto=1, rows=[(1, REFUSED)])
    assert rig.where() == [(first.incarnation, 1), (second.incarnation, 1)]


def test_a_number_without_a_row_counts_as_started() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rig.exited(first, started_upto=5)
    assert rig.codes() == {1: MAYBE}


def test_an_idempotent_request_runs_again_but_risks_no_third_process() -> None:
    rig = Rig()
    slots = rig.pool_of(3)
    rig.request(1, "orders.again")
    rig.exited(slots[0], started_upto=1, rows=[(1, RUNNING)])
    assert rig.codes() == {}
    assert wire.parse_head(rig.deliveries[-1][2]).below == 2, "the process is told which attempt it is"
    rig.exited(slots[1], started_upto=1, rows=[(1, RUNNING)])
    assert rig.codes() == {1: MAYBE}
    assert len(rig.deliveries) == 2


@pytest.mark.parametrize(("key", "again"), [("basket", True), ("", False)])
def test_a_keyed_handler_runs_again_only_with_a_key(key: str, again: bool) -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.keyed", meta=msgpack.packb({"s": "user", "k": key}), key=key)
    rig.exited(first, started_upto=1, rows=[(1, RUNNING)])
    assert (len(rig.deliveries) == 2) is again
    assert (rig.codes() == {}) is again


def test_a_key_alone_licenses_nothing() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, "orders.quote", key="basket")
    rig.exited(first, started_upto=1, rows=[(1, RUNNING)])
    assert rig.codes() == {1: MAYBE}


def test_a_reply_that_was_still_on_its_way_counts() -> None:
    """The report of the exit overtakes the reply: another connection."""
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rows = [Row(1, DONE, SESSION, 1, 1)]
    rig.tell(first.node, Exited(first.incarnation, "orders", -9, "was killed", 1, rows, ""))
    assert rig.out.probes == [first], "the shell is asked to look for what it had sent"
    rig.reply(first, 1, body=b"just made it")
    assert rig.codes() == {1: OK}


def test_a_lost_reply_is_waited_for_no_longer_than_200_ms() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rows = [Row(1, DONE, SESSION, 1, 1)]
    rig.tell(first.node, Exited(first.incarnation, "orders", -9, "was killed", 1, rows, ""))
    rig.after(0.15)
    assert rig.codes() == {}
    rig.after(0.1)
    assert rig.codes() == {1: MAYBE}


def test_what_a_lost_process_had_whose_caller_gave_up_is_only_counted() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, timeout_ms=50)
    rig.after(0.1)
    rig.exited(first, started_upto=1, rows=[(1, RUNNING)])
    assert len(rig.answers) == 1
    assert rig.dispatch.counters["lost after its deadline"] == 1


# ---- connections -----------------------------------------------------------------------------------------------------


def test_a_delivery_that_the_route_does_not_take_settles_only_itself() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    assert list(first.inflight) == [1, 2]
    unsent = [frame for slot, number, frame in rig.deliveries if slot is first and number == 2]
    rig.dispatch.losses.undeliverable(first, unsent, True, rig.now)
    assert list(first.inflight) == [1], "nothing is concluded about what was sent before"
    assert not first.open and first.row == -1
    assert rig.dispatch.pools["orders"].queued == 1
    rig.reply(second, 1)
    assert rig.where()[-1][0] == second.incarnation
    assert rig.dispatch.pools["orders"].queued == 0


def test_a_full_route_is_tried_again_later_and_not_for_ever() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.dispatch.losses.undeliverable(slot, [rig.deliveries[0][2]], False, rig.now)
    assert rig.dispatch.pools["orders"].queued == 1 and not rig.out.slots
    rig.after(0.1)
    assert rig.where() == [(slot.incarnation, 1), (slot.incarnation, 2)]


def test_what_comes_does_not_overtake_what_a_full_route_gave_back() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.dispatch.losses.undeliverable(slot, [rig.deliveries.pop()[2]], False, rig.now)
    rig.request(2)
    rig.request(3, key="basket")
    assert rig.deliveries == []
    rig.after(0.1)
    assert [request.number for request in slot.inflight.values()] == [1]


def test_what_was_settled_meanwhile_is_not_settled_again_by_a_full_route() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1)
    frames = [rig.deliveries[0][2], wire.head(wire.CREDIT, slot.token, number=1)]
    rig.dispatch.losses.undeliverable(slot, frames, False, rig.now)
    assert rig.codes() == {1: OK} and rig.dispatch.pools["orders"].queued == 0


def test_nothing_is_given_to_a_process_whose_connection_is_gone() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.dispatch.losses.disconnected(slot)
    rig.request(1)
    assert rig.deliveries == [] and rig.dispatch.pools["orders"].queued == 1


def test_after_a_reconnect_what_never_arrived_runs_elsewhere_and_what_is_held_is_waited_for() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3):
        rig.request(number)
    assert list(first.inflight) == [1, 2]
    rig.dispatch.losses.disconnected(first)
    rig.process_hello(first.incarnation, b"new route", received_upto=1, started_upto=1, held=[held(1, 1)])
    assert list(first.inflight) == [1, 3] or list(second.inflight) == [1, 2]
    assert rig.codes() == {}
    rig.reply(first, 1)
    assert rig.codes() == {1: OK}


def test_numbers_go_on_above_everything_that_was_ever_sent() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=3)
    for number in (1, 2, 3):
        rig.request(number)
    rig.dispatch.losses.disconnected(slot)
    rig.process_hello(slot.incarnation, b"new route", received_upto=1, held=[held(1, 1)])
    assert [number for _, number in rig.where()] == [1, 2, 3, 4, 5]


def test_a_second_hello_over_one_connection_settles_nothing() -> None:
    """What was sent after the first is on its way to a process that had not seen it when it spoke."""
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    token = slot.token
    rig.process_hello(slot.incarnation, slot.route, received_upto=0)
    assert rig.where() == [(slot.incarnation, 1)]
    assert slot.token == token, "its replies under the first token are on their way"


def test_a_reply_that_was_acknowledged_is_not_waited_for_again() -> None:
    """The process reconnects before a delivery could tell it that its reply had arrived."""
    rig = Rig(epoch=2)
    node = rig.agent()
    incarnation = rig.started(node)
    old = held(5, 50, done=True)
    rig.process_hello(incarnation, b"r1", received_upto=5, reply_sequence=9, held=[old])
    slot = rig.fleet.processes.slots[incarnation]
    rig.reply(slot, 5, sequence=9, epoch=1)
    assert not slot.inflight and slot.acked == 9
    rig.process_hello(incarnation, b"r2", received_upto=5, reply_sequence=9, held=[old])
    assert not slot.inflight, "its credit would be gone for good"


@pytest.mark.parametrize("received_upto", [1, 3])
def test_a_delivery_that_its_process_no_longer_knows_ends_as_maybe_executed(received_upto: int) -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.dispatch.losses.disconnected(slot)
    rig.process_hello(slot.incarnation, b"new route", received_upto=received_upto)
    assert rig.codes() == {1: MAYBE}


@pytest.mark.parametrize("by", [b"", errors.BY_FLOOR, errors.BY_FENCE])
def test_a_fenced_delivery_runs_elsewhere(by: bytes) -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    rig.fleet.nodes["n1"].slots[second.incarnation].inflight.clear()
    rig.reply(first, 1, code=NOT_STARTED, body=by)
    assert len(rig.deliveries) == 2
    assert wire.parse_head(rig.deliveries[-1][2]).below == 1


def test_a_process_that_is_fenced_for_another_master_is_given_nothing_more_before_it_says_hello() -> None:
    """It refuses at once, so it would be the one with the fewest in flight each time."""
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    rig.reply(first, 1, code=NOT_STARTED, body=errors.BY_FENCE)
    assert [request.number for request in second.inflight.values()] == [1]
    rig.request(2, "orders.again")
    assert not first.inflight
    rig.process_hello(first.incarnation, b"new route", received_upto=1)
    assert [request.number for request in first.inflight.values()] == [2]


def test_what_a_fenced_process_runs_goes_on_and_its_last_replies_are_waited_for() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1)
    rig.request(2)
    rig.reply(slot, 2, code=NOT_STARTED, body=errors.BY_FENCE)
    rig.tell(slot.node, Exited(slot.incarnation, "orders", 0, "exited", 1, [Row(1, RUNNING, SESSION, 1, 1)], ""))
    assert slot in rig.out.probes and list(slot.inflight) == [1]
    rig.reply(slot, 1)
    assert rig.codes() == {1: OK, 2: NOT_STARTED}


def test_why_a_node_gets_nothing_is_not_that_nothing_is_connected_where_its_processes_are_fenced() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1, code=NOT_STARTED, body=errors.BY_FENCE)
    slot.node.plan = {"orders": 1}
    assert why(slot.node, rig.now) == "its processes obey another master"


def test_a_fenced_process_whose_node_is_dead_is_asked_who_it_is() -> None:
    """It has a connection, over which it waits for what its master says: if that one is elected anew, for ever."""
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1, code=NOT_STARTED, body=errors.BY_FENCE)
    rig.fleet.processes.drop_all(slot.node, "its node is dead", rig.now)
    assert (slot.route, wire.head(wire.WHO, 0)) in rig.out.backend


@pytest.mark.parametrize("key", ["", "basket"])
@pytest.mark.parametrize(("by", "given_back"), [(errors.BY_FLOOR, False), (errors.BY_FENCE, True)])
def test_what_may_run_once_and_was_kept_from_it_by_the_fence_of_another_master_is_left_to_that(
    by: bytes, given_back: bool, key: str
) -> None:
    """The agent has voted for one, which perhaps loses: then both would be told that it ran nowhere, and run it."""
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, key=key)
    rig.reply(first, 1, code=NOT_STARTED, body=by)
    assert len(rig.deliveries) == (1 if given_back else 2)
    assert rig.codes() == ({1: NOT_STARTED} if given_back else {}), "its client sends it anew, under another number"
    assert not first.inflight
    assert not (given_back and (rig.dispatch.sessions[SESSION].open or rig.dispatch.keys.attempts))


def test_what_a_fence_kept_from_starting_is_no_answer_for_the_next_call_of_its_key() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, key="basket", timeout_ms=100)
    rig.after(0.2)
    assert rig.codes() == {1: errors.Timeout.code}
    rig.reply(first, 1, code=NOT_STARTED, body=errors.BY_FENCE)
    rig.request(2, key="basket")
    assert rig.codes() == {1: errors.Timeout.code} and len(rig.deliveries) == 2


def test_a_stray_reply_is_counted_and_dropped() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 7)
    rig.reply(slot, 1, epoch=4)
    assert rig.answers == []
    assert rig.dispatch.counters["stray replies"] == 2


@pytest.mark.parametrize(
    ("epoch", "code", "flags", "tail"),
    [
        (2, OK, wire.ORIGIN, ORIGIN),
        (0, OK, wire.ORIGIN, ORIGIN),
        (1, NOT_STARTED, wire.ORIGIN, ORIGIN),
        (1, OK, 0, ORIGIN),
        (1, OK, wire.ORIGIN, b"short"),
    ],
)
def test_what_is_no_reply_of_an_older_masters_time_is_not_kept(epoch: int, code: int, flags: int, tail: bytes) -> None:
    rig = restarted()
    slot = rig.process(rig.agent())
    rig.reply(slot, 5, epoch=epoch, code=code, flags=flags, tail=tail)
    assert not rig.dispatch.inherited.kept and rig.dispatch.counters["stray replies"] == 1


# ---- parked work -----------------------------------------------------------------------------------------------------


def test_work_that_is_parked_behind_a_long_one_is_taken_back_when_another_is_idle() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.06)
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 2, since=1)]
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    assert rig.where()[-1] == (second.incarnation, 3)
    assert list(first.inflight) == [1]
    assert first.recall == 0, "it may be asked again"


def test_work_that_is_parked_behind_a_long_one_is_taken_back_while_another_is_busy_and_quick() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in range(1, 12):
        rig.request(number)
    for delivery in range(1, 6):
        rig.after(0.01)
        rig.reply(second, delivery)
        assert second.inflight
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 2, since=1)]


def test_what_is_not_below_the_floor_may_have_started_and_is_left_where_it_is() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=4)
    for number in range(1, 7):
        rig.request(number)
    assert list(first.inflight) == [1, 2, 3]
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    assert 3 in first.inflight and 2 not in first.inflight


def test_who_gave_something_back_has_room_for_what_waits() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    for number in (1, 2, 3):
        rig.request(number)
    rig.tell(slot.node, Recalled(slot.incarnation, 3, 1))
    assert [request.number for request in slot.inflight.values()] == [1, 2]
    rig.say(wire.CANCEL, 2)
    rig.tell(slot.node, Recalled(slot.incarnation, 4, 1))
    assert [request.number for request in slot.inflight.values()] == [1, 3]


def test_a_process_that_has_nothing_to_give_back_is_not_taken_for_a_stopped_one() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1)
    rig.tell(slot.node, Recalled(slot.incarnation, 2, 1))
    rig.request(2)
    assert len(rig.deliveries) == 2 and not rig.out.cuts


def test_a_recall_whose_answer_was_lost_is_said_again_after_the_agent_came_back() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.06)
    known = [Started(slot.incarnation, "orders", b"t", 1) for slot in (first, second)]
    rig.agent(processes=known)
    rig.after(0.06)
    assert len(rig.heard("n1", Recall)) == 2


def test_what_was_given_just_now_is_not_taken_back() -> None:
    rig = Rig()
    _, second = rig.pool_of(2, credit=2)
    rig.after(1.0)
    for number in (1, 2, 3):
        rig.request(number)
    rig.reply(second, 1)
    rig.after(0.01)
    assert rig.heard("n1", Recall) == [] and not second.pool.stalled


def test_nothing_is_taken_back_from_a_process_that_runs_many_at_once() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=4)
    first.concurrency = 4
    for number in (1, 2, 3):
        rig.request(number)
    rig.reply(second, 1)
    rig.after(0.1)
    assert len(first.inflight) == 2 and rig.heard("n1", Recall) == []


def test_nothing_is_taken_back_while_nobody_is_idle_but_what_is_done_is_asked_for_once() -> None:
    rig = Rig()
    slots = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    asked = [Recall(slot.incarnation, 0, since=1) for slot in slots]
    for _ in range(10):
        rig.after(0.05)
        for slot in slots:
            if slot.recall:
                rig.tell(slot.node, Recalled(slot.incarnation, 1, 1))
    assert rig.heard("n1", Recall) == asked and [len(slot.inflight) for slot in slots] == [2, 2]


def test_what_is_done_is_asked_for_again_while_nothing_moves() -> None:
    """The answer may have been made before the process began: what it finished then may wait behind one that hangs."""
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=4)
    for number in (1, 2, 3):
        rig.request(number)
    rig.after(0.06)
    rig.tell(slot.node, Recalled(slot.incarnation, 1, 0))
    rig.after(0.6)
    assert rig.heard("n1", Recall) == [Recall(slot.incarnation, 0, since=1)] * 2
    frame = wire.head(wire.REPLY, slot.token, 1, number=1, upto=1) + b"from the page"
    rig.tell(slot.node, Recalled(slot.incarnation, 1, 2, [Row(1, DONE, SESSION, 1, 1, frame)]))
    assert rig.codes() == {1: OK} and list(slot.inflight) == [2, 3]


def test_what_was_taken_back_stays_so_when_what_is_done_is_asked_for() -> None:
    """An agent stores the floor that it is told."""
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.05)
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    rig.reply(first, 1)
    rig.after(0.05)
    for number in range(5, 8):
        rig.request(number)
    rig.after(0.05)
    assert all(len(slot.inflight) == 2 for slot in (first, second))
    asked = [recall for recall in rig.heard("n1", Recall) if recall.incarnation == first.incarnation]
    assert asked == [Recall(first.incarnation, 2, since=1), Recall(first.incarnation, 2, since=3)]


def test_what_a_busy_process_had_finished_is_answered_and_the_rest_taken_back() -> None:
    """Its small replies may wait there for the next one, which takes long."""
    rig = Rig()
    first, second = rig.pool_of(2, credit=4)
    for number in range(1, 7):
        rig.request(number)
    assert [request.number for request in first.inflight.values()] == [1, 3, 5]
    rig.after(0.06)
    stalled_at = first.progress_at
    frame = wire.head(wire.REPLY, first.token, 1, number=1, upto=1) + b"from the page"
    rig.tell(first.node, Recalled(first.incarnation, 4, 2, [Row(1, DONE, SESSION, 1, 1, frame)]))
    assert (rig.codes(), rig.answers[0].body) == ({1: OK}, b"from the page")
    assert [request.number for request in first.inflight.values()] == [3]
    assert first.progress_at == stalled_at and first in first.pool.stalled, "that is no news of the process"
    assert first.acked == 1
    rig.reply(first, 1, sequence=1, body=b"over its connection")
    assert len(rig.answers) == 1 and rig.dispatch.counters["stray replies"] == 1


# ---- resends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "basket"])
def test_a_replay_is_dropped_and_counted(key: str) -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.request(1, key=key)
    rig.request(1)
    assert len(rig.deliveries) == 1
    assert rig.dispatch.counters["replayed"] == 1


def test_a_resend_of_what_runs_attaches_to_it() -> None:
    rig = Rig()
    slots = rig.pool_of(2)
    rig.request(1)
    rig.client(route=b"c2")
    rig.request(1, route=b"c2", flags=wire.RESENT)
    assert len(rig.deliveries) == 1
    rig.reply(slots[0], 1)
    assert [answer.number for answer in rig.answers] == [1]
    assert rig.answers[0].token == rig.dispatch.sessions[SESSION].token


def test_a_resend_of_what_was_answered_gets_the_recorded_answer() -> None:
    rig = Rig()
    slots = rig.pool_of(2)
    rig.request(1)
    rig.reply(slots[0], 1, body=b"once")
    rig.client(route=b"c2")
    rig.request(1, route=b"c2", flags=wire.RESENT)
    assert len(rig.deliveries) == 1
    assert [(answer.body, answer.sequence) for answer in rig.answers] == [(b"once", 1), (b"once", 1)]


def test_a_resend_whose_answer_was_dropped_for_its_size_is_maybe_executed() -> None:
    rig = Rig(answers_bytes=500)
    (slot,) = rig.pool_of(1)
    for number in (1, 2, 3):
        rig.request(number)
        rig.reply(slot, number, body=b"x" * 200)
    rig.request(1, flags=wire.RESENT)
    assert rig.answers[-1].code == MAYBE and "answer dropped" in rig.answers[-1].cause
    assert rig.answers[-1].sequence == 1, "under its own sequence, or an answer that it lacks would be acknowledged"
    assert len(rig.deliveries) == 3


def test_a_resend_that_never_arrived_is_run() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.client()
    rig.request(1, flags=wire.RESENT)
    assert len(rig.deliveries) == 1


def test_answers_are_recorded_while_the_client_is_away() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    session = rig.dispatch.sessions[SESSION]
    rig.dispatch.answer_blocked(session, [wire.head(wire.ANSWER, 1, upto=1)], True)
    rig.reply(slot, 1)
    assert rig.answers == []
    rig.client(route=b"c2")
    rig.request(1, route=b"c2", flags=wire.RESENT)
    assert rig.codes() == {1: OK}


def test_what_a_full_client_did_not_take_is_sent_again_in_its_order() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in (1, 2, 3):
        rig.request(number)
    rig.reply(slot, 1)
    blocked = rig.dispatch.sessions[SESSION]
    rig.dispatch.answer_blocked(blocked, [wire.head(wire.ANSWER, 1, number=1, upto=1)], False)
    rig.reply(slot, 2)
    rig.reply(slot, 3)
    rig.answers.clear()
    rig.after(0.05)
    assert [answer.number for answer in rig.answers] == [1, 2, 3]


def test_only_what_a_full_client_did_not_take_is_sent_again_even_if_it_is_no_longer_kept() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in range(1, 6):
        rig.request(number)
        rig.reply(slot, number)
    rig.say(wire.ACK, upto=1)
    session = rig.dispatch.sessions[SESSION]
    for kind, upto in ((wire.ANSWER, 3), (wire.PROBE, 0), (wire.ANSWER, 5)):
        rig.dispatch.answer_blocked(session, [wire.head(kind, 1, number=upto, upto=upto)], False)
    number, _ = session.kept[2]
    session.kept[2] = number, b""
    rig.answers.clear()
    rig.after(0.05)
    told = [(answer.number, answer.sequence, answer.code) for answer in rig.answers]
    assert told == [(3, 3, OK), (4, 4, MAYBE), (5, 5, OK)]
    rig.after(0.05)
    assert len(rig.answers) == 3


# ---- an older master -------------------------------------------------------------------------------------------------


def restarted() -> Rig:
    """A second master with its journal; node n1 may hold requests of epoch 1."""
    before = records.Restored()
    before.read(records.present("n1", True))
    return Rig(epoch=2, restored=before)


def holding() -> tuple[Rig, Slot]:
    """A master that was started again, and the process of a node that still runs an attempt of its predecessor."""
    rig = restarted()
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, received_upto=5, held=[held(5, 50)])
    return rig, rig.fleet.processes.slots[incarnation]


def resend(rig: Rig) -> None:
    """The caller of what it holds comes."""
    rig.client(epoch=1)
    rig.request(50, flags=wire.RESENT | wire.OLDER, epoch=1)


def is_answered_by(rig: Rig, runs: Slot, done: bool) -> None:
    """The caller waits for its delivery 7 there, unless that is done, and nothing is left of any other attempt."""
    if not done:
        assert rig.answers == []
        rig.reply(runs, 7, epoch=1, body=b"from before")
    assert (rig.codes(), rig.answers[0].body) == ({50: OK}, b"from before")
    assert not rig.dispatch.inherited.orphans


def test_a_resend_attaches_to_what_an_older_master_had_dispatched() -> None:
    rig, slot = holding()
    resend(rig)
    assert rig.deliveries == []
    rig.reply(slot, 5, epoch=1, body=b"from before")
    assert (rig.codes(), rig.answers[0].body) == ({50: OK}, b"from before")


@pytest.mark.parametrize("other", [5, 6], ids=["twice", "never received"])
def test_what_a_process_cannot_hold_leaves_nothing_behind(other: int) -> None:
    """Only a damaged one says so; what took the place of such a delivery would leave it there for ever."""
    rig = restarted()
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, received_upto=5, held=[held(5, 50), held(other, 51)], concurrency=4)
    slot = rig.fleet.processes.slots[incarnation]
    rig.request(1)
    assert len(rig.dispatch.inherited.orphans) == 1
    rig.exited(slot, started_upto=6, rows=[(5, 1), (6, 1)])
    assert not rig.dispatch.inherited.orphans


def test_what_a_process_says_to_have_received_leaves_numbers_for_what_is_behind_it() -> None:
    """Else its agent could not read what the master says of them."""
    rig = restarted()
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, received_upto=NUMBER_MAX)
    rig.request(1)
    slot, number, _ = rig.deliveries[-1]
    recall = Recall(slot.incarnation, number)
    assert messages.decode(messages.encode(recall)) == recall


def test_a_resend_before_its_process_is_back_waits_for_it() -> None:
    """Neither run again nor refused with 'no service': both would be wrong."""
    rig = restarted()
    resend(rig)
    rig.after(1.0)
    assert rig.answers == []
    incarnation = "n1.b1.1"
    rig.agent(processes=[Started(incarnation, "orders", b"t", 1)])
    rig.after(1.0)
    assert rig.answers == [], "the node named it, so it has not told all"
    rig.process_hello(incarnation, received_upto=5, held=[held(5, 50)])
    rig.after(0.1)
    assert rig.deliveries == []
    rig.reply(rig.fleet.processes.slots[incarnation], 5, epoch=1)
    assert rig.codes() == {50: OK}


def test_a_kept_reply_that_comes_before_its_resend_waits_for_it() -> None:
    rig = restarted()
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, received_upto=5, reply_sequence=1, held=[held(5, 50, done=True)])
    rig.reply(rig.fleet.processes.slots[incarnation], 5, epoch=1, sequence=1, body=b"kept")
    assert not rig.fleet.processes.slots[incarnation].inflight
    resend(rig)
    assert (rig.codes(), rig.answers[0].body) == ({50: OK}, b"kept")


def test_an_answer_that_the_standby_had_a_copy_of_is_given_whole() -> None:
    before = Rig()
    (slot,) = before.pool_of(1)
    before.request(50)
    before.reply(slot, 1, errors.RemoteError.code, b"what its handler said")
    rig = Rig(epoch=2, heritage=Heritage(answers=[(SESSION, before.answers[0].frame)]))
    resend(rig)
    assert rig.codes() == {50: errors.RemoteError.code} and rig.answers[0].body == b"what its handler said"


def test_a_reply_that_comes_after_its_node_was_given_up_still_waits_for_its_caller() -> None:
    rig, slot = holding()
    rig.dispatch.losses.abandoned(slot, "its node is dead", rig.now)
    rig.reply(slot, 5, epoch=1, flags=wire.ORIGIN, tail=ORIGIN, body=b"late")
    resend(rig)
    assert (rig.codes(), rig.answers[0].body) == ({50: OK}, b"late")


def test_what_was_lost_with_its_node_before_its_caller_came_is_told_so() -> None:
    rig, slot = holding()
    rig.dispatch.losses.abandoned(slot, "its node is dead", rig.now)
    resend(rig)
    assert rig.codes() == {50: MAYBE} and "its node is dead" in rig.answers[0].cause


def test_what_was_lost_with_its_process_before_its_caller_came_is_told_so() -> None:
    """And suspected of nothing: what it was asked for is not known here."""
    rig, slot = holding()
    rig.exited(slot, 5, [(5, RUNNING)], kind=End.SIGNALLED)
    resend(rig)
    assert rig.codes() == {50: MAYBE} and "was killed by signal 9" in rig.answers[0].cause
    assert not rig.dispatch.quarantine.cases


def test_what_died_with_its_process_under_an_older_master_is_maybe_executed() -> None:
    rig = restarted()
    report = Exited("n1.b1.1", "orders", -9, "was killed", 5, [Row(5, RUNNING, SESSION, 50, 1)], "")
    node = rig.agent(exits=[report])
    rig.process(node, 2)
    resend(rig)
    assert rig.codes() == {50: MAYBE}
    assert "was killed" in rig.answers[0].cause


@pytest.mark.parametrize(
    ("state", "started_upto", "epoch"),
    [(RUNNING, 4, 1), (REFUSED, 5, 1), (RUNNING, 5, 2)],
    ids=["above what had started", "refused", "our own"],
)
def test_what_no_process_had_begun_for_an_older_master_did_not_die_with_it(
    state: int, started_upto: int, epoch: int
) -> None:
    rig = restarted()
    row = Row(5, state, SESSION, 50, epoch)
    rig.agent(exits=[Exited("n1.b1.1", "orders", -9, "was killed", started_upto, [row], "")])
    assert not rig.dispatch.inherited.lost


def test_what_nobody_has_is_not_run_again_unless_its_handler_allows_it() -> None:
    """The older master may have had the reply: processes forget what was acknowledged."""
    rig = restarted()
    rig.process(rig.agent())
    resend(rig)
    rig.request(51, "orders.again", flags=wire.RESENT | wire.OLDER, epoch=1)
    assert rig.codes() == {50: MAYBE}
    assert len(rig.deliveries) == 1


def test_a_node_that_does_not_come_back_is_waited_for_no_longer_than_it_takes_to_be_dead() -> None:
    rig = restarted()
    resend(rig)
    rig.after(3.5, beat=False)
    assert rig.codes() == {}
    rig.after(1.0, beat=False)
    assert rig.codes() == {50: MAYBE}


def test_a_deadline_that_passes_while_its_fate_is_not_known_is_no_time_out() -> None:
    """Which would say less: it may have run."""
    rig = restarted()
    rig.client(epoch=1)
    rig.request(50, timeout_ms=500, flags=wire.RESENT | wire.OLDER, epoch=1)
    rig.request(51, timeout_ms=500)
    rig.after(0.6)
    assert rig.codes() == {50: MAYBE, 51: errors.NoService.code}
    assert rig.dispatch.queued_bytes == 0


def test_what_waits_for_nodes_to_tell_is_bounded_as_the_queue_is() -> None:
    before = records.Restored()
    before.read(records.present("n1", True))
    rig = Rig(epoch=2, restored=before, queue_bytes=100)
    rig.client(epoch=1)
    rig.request(50)
    rig.request(51, flags=wire.RESENT | wire.OLDER, epoch=1)
    rig.request(52)
    assert rig.codes() == {51: MAYBE, 52: OVERLOADED}
    assert [request.number for request in rig.dispatch.inherited.waiting] == [50]


def test_replies_that_nobody_asks_for_are_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited, "KEPT_MAX", 3)
    monkeypatch.setattr(inherited, "KEPT_BYTES_MAX", 100)
    kept = restarted().dispatch.inherited
    for number, size in ((1, 40), (1, 40), (2, 40), (3, 20)):
        kept.keep((SESSION, number), OK, 1, b"x" * size)
    assert [number for _, number in kept.kept] == [1, 2, 3]
    kept.keep((SESSION, 4), OK, 1, b"")
    assert [number for _, number in kept.kept] == [2, 3, 4]
    assert kept.take((SESSION, 2)) == (OK, 1, b"x" * 40)
    kept.keep((SESSION, 5), OK, 1, b"x" * 80)
    assert [number for _, number in kept.kept] == [3, 4, 5]
    kept.keep((SESSION, 6), OK, 1, b"x")
    assert [number for _, number in kept.kept] == [4, 5, 6]
    kept.keep((SESSION, 7), OK, 1, b"x" * 30)
    assert [number for _, number in kept.kept] == [6, 7], "too large, though not too many"


@pytest.mark.parametrize("cancelled", [True, False])
def test_only_what_an_older_master_dispatched_and_a_caller_waits_for_is_kept_for_it(cancelled: bool) -> None:
    rig = restarted()
    rig.client(epoch=1)
    if cancelled:
        rig.say(wire.CANCEL, 50)
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, received_upto=6, held=[held(5, 50), held(6, 51, epoch=2)])
    assert [number for _, number in rig.dispatch.inherited.orphans] == ([] if cancelled else [50])


def test_calls_that_were_given_up_before_their_processes_are_back_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited, "KEPT_MAX", 3)
    rig = restarted()
    rig.client(epoch=1)
    for number in range(50, 60):
        rig.say(wire.CANCEL, number)
    assert len(rig.dispatch.inherited.given_up) == 3


def refused_by_its_fence(rig: Rig, slot: Slot, *numbers: int) -> None:
    """What an older master had given it, and what ran nowhere."""
    holds = [held(place, number, epoch=1) for place, number in enumerate(numbers, 1)]
    rig.process_hello(slot.incarnation, b"again", received_upto=len(numbers), held=holds)
    for delivery in range(1, len(numbers) + 1):
        rig.reply(slot, delivery, code=NOT_STARTED, epoch=1, body=errors.BY_FENCE)


def test_what_fences_gave_back_is_bounded_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inherited, "KEPT_MAX", 3)
    rig = Rig(epoch=2)
    (slot,) = rig.pool_of(1)
    refused_by_its_fence(rig, slot, 50, 51, 52, 53)
    assert [number for _, number in rig.dispatch.inherited.returned] == [51, 52, 53]


def test_that_a_fence_gave_a_call_back_is_proof_once() -> None:
    rig = Rig(epoch=2)
    (slot,) = rig.pool_of(1)
    refused_by_its_fence(rig, slot, 50)
    resend(rig)
    rig.reply(slot, slot.last_number)
    assert rig.codes() == {50: OK}
    rig.dispatch.close_session(rig.dispatch.sessions[SESSION])
    resend(rig)
    assert rig.codes() == {50: MAYBE} and len(rig.deliveries) == 1


def test_a_service_that_comes_as_the_time_of_a_call_passes_comes_too_late() -> None:
    rig = restarted()
    rig.request(1, timeout_ms=100)
    rig.now += 0.2
    rig.agent(processes=[Started("n1.b1.1", "orders", b"t", 1)])
    assert rig.codes() == {1: errors.NoService.code} and rig.answers[0].cause == "its service came too late"


def test_a_call_that_waits_here_for_a_second_run_waits_for_no_attempt_of_an_older_master() -> None:
    rig = restarted()
    names = [f"n1.b1.{number}" for number in (1, 2)]
    rig.agent(processes=[Started(name, "orders", b"t", 1) for name in names])
    rig.process_hello(names[0])
    rig.request(1)
    rig.client(epoch=1)
    rig.request(50, "orders.again", flags=wire.RESENT | wire.OLDER, epoch=1)
    rig.process_hello(names[1], received_upto=5, held=[held(5, 50)])
    assert not rig.dispatch.inherited.orphans


def test_a_new_call_to_a_service_that_is_not_back_yet_waits_for_it() -> None:
    rig = restarted()
    rig.request(1)
    assert rig.answers == []
    rig.process(rig.agent())
    rig.after(0.1)
    assert len(rig.deliveries) == 1


def test_without_a_journal_what_clients_remember_is_enough_to_wait() -> None:
    rig = Rig(state=None)
    resend(rig)
    assert rig.answers == [], "the same epoch by accident, another master by the session"
    incarnation = rig.started(rig.agent(epoch=1))
    assert rig.dispatch.epoch == 2
    rig.process_hello(incarnation, received_upto=5, held=[held(5, 50)])
    rig.after(0.1)
    rig.reply(rig.fleet.processes.slots[incarnation], 5, epoch=1)
    assert rig.codes() == {50: OK}


def test_a_session_that_was_closed_meanwhile_runs_nothing_twice() -> None:
    rig = Rig(session_idle=60.0)
    (slot,) = rig.pool_of(1)
    rig.request(1, timeout_ms=600_000)
    rig.after(62.0)
    rig.reply(slot, 1)
    rig.client(epoch=1)
    rig.request(1, flags=wire.RESENT | wire.OLDER, epoch=1)
    assert len(rig.deliveries) == 1
    assert rig.answers[-1].code == MAYBE


def test_what_comes_in_a_session_that_was_closed_with_nothing_open_never_ran() -> None:
    rig = Rig(session_idle=60.0)
    rig.pool_of(1)
    rig.client(epoch=1)
    rig.after(62.0)
    assert not rig.dispatch.sessions
    rig.client(epoch=1)
    rig.request(7, flags=wire.RESENT | wire.OLDER, epoch=1)
    assert len(rig.deliveries) == 1


def test_two_processes_that_hold_the_same_request_break_nothing() -> None:
    rig = restarted()
    node = rig.agent()
    names = [rig.started(node, 1), rig.started(node, 2)]
    for name in names:
        rig.process_hello(name, received_upto=5, held=[held(5, 50)])
    rig.reply(rig.fleet.processes.slots[names[0]], 5, epoch=1)
    rig.reply(rig.fleet.processes.slots[names[1]], 5, epoch=1)
    assert not rig.dispatch.inherited.orphans


@pytest.mark.parametrize("runner_first", [True, False])
@pytest.mark.parametrize("caller_first", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_what_one_process_gave_back_does_not_hide_what_another_has(
    runner_first: bool, caller_first: bool, done: bool
) -> None:
    """Of one request that was taken back from a busy process both have something that is not acknowledged."""
    rig = restarted()
    node = rig.agent()
    gave_back, runs = rig.started(node, 1), rig.started(node, 2)
    say = {
        gave_back: lambda: rig.process_hello(gave_back, received_upto=5, held=[held(5, 50, done=True)]),
        runs: lambda: rig.process_hello(runs, received_upto=7, held=[held(7, 50, done=done)]),
    }
    first, second = (runs, gave_back) if runner_first else (gave_back, runs)
    say[first]()
    if caller_first:
        resend(rig)
    say[second]()
    slots = rig.fleet.processes.slots
    rig.reply(slots[gave_back], 5, epoch=1, code=NOT_STARTED, body=errors.BY_FLOOR)
    if done:
        rig.reply(slots[runs], 7, epoch=1, body=b"from before")
    if not caller_first:
        resend(rig)
    rig.after(1.0)
    assert rig.deliveries == []
    is_answered_by(rig, slots[runs], done)


@pytest.mark.parametrize("done", [True, False])
def test_what_one_process_lost_does_not_hide_what_another_has(done: bool) -> None:
    """Its caller waits for the attempt that was given back, whose node dies before it could say so."""
    rig = restarted()
    node = rig.agent()
    runs = rig.started(node, 2)
    gave_back = rig.started(node, 1)
    rig.process_hello(gave_back, received_upto=5, held=[held(5, 50, done=True)])
    resend(rig)
    rig.process_hello(runs, received_upto=7, held=[held(7, 50, done=done)])
    slots = rig.fleet.processes.slots
    if done:
        rig.reply(slots[runs], 7, epoch=1, body=b"from before")
    rig.fleet.processes._drop(slots[gave_back], "its node is dead", rig.now)
    rig.flush()
    is_answered_by(rig, slots[runs], done)


@pytest.mark.parametrize("dropped", [True, False])
def test_an_attempt_that_was_lost_with_its_process_is_no_other_attempt(dropped: bool) -> None:
    """What was taken back was given to the same process again, which died of it."""
    rig = restarted()
    name = rig.started(rig.agent())
    rig.process_hello(name, received_upto=6, held=[held(5, 50, done=True), held(6, 50)])
    resend(rig)
    slot = rig.fleet.processes.slots[name]
    assert rig.answers == []
    if dropped:
        rig.fleet.processes._drop(slot, "its node is dead", rig.now)
        rig.flush()
    else:
        rig.exited(slot, started_upto=6, rows=[(5, REFUSED), (6, RUNNING)])
    assert rig.codes() == {50: MAYBE}
    assert not rig.dispatch.inherited.orphans and not slot.inflight


@pytest.mark.parametrize("done", [True, False])
def test_whose_time_passes_just_as_its_process_comes_back_is_not_told_that_none_has_it(done: bool) -> None:
    rig = restarted()
    here, other = (f"n1.b1.{number}" for number in (1, 2))
    rig.agent(processes=[Started(name, "orders", b"t", 1) for name in (here, other)])
    rig.client(epoch=1)
    rig.request(50, flags=wire.RESENT | wire.OLDER, epoch=1, timeout_ms=100)
    rig.now += 0.2
    rig.process_hello(here, received_upto=5, held=[held(5, 50, done=done)])
    if done:
        rig.reply(rig.fleet.processes.slots[here], 5, epoch=1, body=b"from before")
    assert rig.answers == [], "the other one has not told what it has"
    rig.core.tick(rig.now)
    rig.flush()
    assert rig.codes() == {50: OK if done else errors.Timeout.code}
    assert not rig.dispatch.inherited.orphans and not rig.dispatch.queued_bytes


def test_a_call_of_an_older_master_that_was_cancelled_waits_for_none_of_its_attempts() -> None:
    before = records.Restored()
    for name in ("n1", "n2"):
        before.read(records.present(name, True))
    rig = Rig(epoch=2, restored=before)
    rig.process_hello(rig.started(rig.agent("n1")), received_upto=5, held=[held(5, 50)])
    rig.client(epoch=1)
    rig.say(wire.CANCEL, 50)
    rig.process_hello(rig.started(rig.agent("n2")), received_upto=7, held=[held(7, 50)])
    assert not rig.dispatch.inherited.orphans


def test_what_waits_behind_what_an_older_master_dispatched_is_taken_back_too() -> None:
    rig = restarted()
    node = rig.agent()
    busy = rig.started(node, 1)
    rig.process_hello(busy, received_upto=5, held=[held(4, 49, done=True), held(5, 50)])
    slot = rig.fleet.processes.slots[busy]
    slot.pool.reconfigure(replace(slot.pool.settings, credit=4))
    rig.client()
    rig.request(1)
    rig.reply(slot, 4, epoch=1)
    assert list(slot.inflight) == [5, 6]
    rig.after(0.06)
    assert [recall.since for recall in rig.heard("n1", Recall)] == [5]


def test_what_an_older_master_dispatched_holds_its_credit() -> None:
    rig, slot = holding()
    rig.request(1)
    assert rig.deliveries == []
    rig.reply(slot, 5, epoch=1)
    assert len(rig.deliveries) == 1


# ---- names and hostile frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "words"), [("order.quote", "orders"), ("orders.qote", "orders.quote")])
def test_an_unknown_service_or_handler_is_answered_with_the_nearest(target: str, words: str) -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, target)
    assert rig.codes() == {1: errors.NoService.code}
    assert words in rig.answers[0].cause


def test_of_many_services_the_nearest_are_named_and_some_where_none_is_near() -> None:
    rig = Rig()
    rig.agent(offers=["audit", "books", "carts", "orders"])
    rig.request(1, "order.quote")
    rig.request(2, "xyz.quote")
    assert [answer.cause.partition("mean ")[2] for answer in rig.answers] == ["orders?", "audit or books or carts?"]


def test_a_request_waits_for_the_first_process_of_its_service_and_is_checked_then() -> None:
    rig = Rig()
    node = rig.agent()
    rig.request(1)
    rig.request(2, "orders.nonsense")
    assert rig.codes() == {}
    rig.process(node)
    assert rig.codes() == {2: errors.NoService.code}
    assert [number for _, number in rig.where()] == [1]
    assert (rig.dispatch.pools["orders"].queued, rig.dispatch.queued_bytes) == (0, 0)


def test_what_waited_for_the_first_process_may_run_again_if_its_handler_turns_out_to_allow_it() -> None:
    rig = Rig()
    node = rig.agent()
    rig.request(1, "orders.again")
    slot = rig.process(node)
    rig.exited(slot, started_upto=1, rows=[(1, RUNNING)])
    assert rig.codes() == {}


def test_what_a_new_version_says_of_a_handler_holds_from_then_on() -> None:
    rig = Rig()
    node = rig.agent()
    rig.process(node)
    rig.request(1)
    slot = rig.process(node, 2, version="2", digest="e", handlers={"quote": Handler("yes")})
    rig.request(2)
    rig.exited(slot, started_upto=1, rows=[(1, RUNNING)])
    assert rig.codes() == {}


def test_a_request_whose_delivery_no_process_could_read_is_dropped() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    token = rig.client()
    too_long = wire.head(wire.REQUEST, token, 1, 1000, 1, code=12, tail=b"orders.quote" + b"m" * (HEAD_MAX - 70))
    lying = wire.head(wire.REQUEST, token, 1, 1000, 2, code=12, tail=b"orders.") + b"quote"
    for frame in (too_long, lying):
        rig.core.frontend(b"c", frame, rig.now)
    rig.flush()
    assert rig.dispatch.counters["bad frames"] == 2
    assert not slot.inflight, "a process would drop it unanswered, and its credit with it"
    rig.request(3)
    assert len(rig.deliveries) == 1


def test_a_body_that_the_transport_would_cut_on_its_way_to_a_process_is_refused() -> None:
    rig = Rig(max_message=1024)
    rig.pool_of(1)
    rig.request(1, body=b"x" * 1024)
    rig.request(2, body=b"x" * 1025)
    assert rig.codes() == {2: errors.PayloadTooLarge.code}
    assert len(rig.deliveries) == 1


@pytest.mark.parametrize("flags", [wire.ORIGIN, wire.MORE | wire.KEYED, 128])
def test_flags_that_no_client_may_set_are_refused(flags: int) -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, flags=flags, key="basket")
    assert (rig.deliveries, rig.answers) == ([], [])
    assert rig.dispatch.counters["bad frames"] == 1


# ---- large messages --------------------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 256  # 64 KiB


def large_request(rig: Rig, number: int, session: bytes = SESSION) -> wire.Large:
    token = rig.dispatch.routes[b"c"].token if b"c" in rig.dispatch.routes else rig.client()
    tail = wire.ORIGIN_STRUCT.pack(session, number) + b"orders.quote"
    head = wire.head(wire.REQUEST, token, 1, 9000, number, 0, 1, len(b"orders.quote"), wire.ORIGIN, tail)
    return as_large(head + BODY)


def test_a_large_request_becomes_its_delivery_and_a_large_reply_its_answer_without_a_copy() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    frame = large_request(rig, 1)
    rig.core.frontend_large(b"c", frame, rig.now)
    assert slot.outgoing == [frame]
    delivery = wire.parse_head(frame)
    assert (delivery.kind, delivery.token, delivery.number) == (wire.DELIVER, slot.token, 1)
    assert wire.ORIGIN_STRUCT.unpack(frame[wire.HEADER_SIZE : wire.WITH_ORIGIN]) == (SESSION, 1)
    assert frame[wire.WITH_ORIGIN : delivery.head_len] == b"orders.quote"
    assert frame[delivery.head_len :] == BODY

    reply = as_large(wire.head(wire.REPLY, slot.token, 1, 10, 1, 1) + BODY)
    rig.core.backend_large(slot.route, reply, rig.now)
    session = rig.dispatch.sessions[SESSION]
    assert session.outgoing == [reply] and list(session.kept) == [(1, reply)]
    rig.flush()
    assert (rig.answers[0].number, rig.answers[0].code, rig.answers[0].body) == (1, OK, BODY)


def test_a_large_request_that_was_not_started_goes_elsewhere_whole() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    frame = large_request(rig, 1)
    rig.core.frontend_large(b"c", frame, rig.now)
    unsent, first.outgoing = first.outgoing, []
    rig.dispatch.losses.undeliverable(first, unsent, True, rig.now)
    (again,) = second.outgoing
    delivery = wire.parse_head(again)
    assert (delivery.token, delivery.kind) == (second.token, wire.DELIVER)
    assert again[wire.WITH_ORIGIN : delivery.head_len] == b"orders.quote" and again[delivery.head_len :] == BODY
    assert wire.parse_head(frame).token == first.token, "what may be on its way is not touched again"


def test_a_recorded_large_answer_is_told_again_under_the_new_token() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.core.backend_large(slot.route, as_large(wire.head(wire.REPLY, slot.token, 1, 10, 1, 1) + BODY), rig.now)
    rig.flush()
    token = rig.client(route=b"d")
    rig.request(1, route=b"d", flags=wire.RESENT)
    assert (rig.answers[-1].token, rig.answers[-1].body) == (token, BODY)


def test_a_large_request_in_the_name_of_another_session_is_dropped() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.core.frontend_large(b"c", large_request(rig, 1, session=b"x" * 16), rig.now)
    assert not slot.inflight and rig.dispatch.counters["bad frames"] == 1


def test_a_damaged_large_message_is_dropped() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    frame = large_request(rig, 1)
    frame.buffer[20] ^= 1
    rig.core.frontend_large(b"c", frame, rig.now)
    rig.core.backend_large(slot.route, frame, rig.now)
    assert not slot.inflight and rig.dispatch.counters["bad frames"] == 2


@pytest.mark.parametrize("body", [b"small", BODY])
def test_a_head_may_be_as_long_as_that_of_its_delivery_whether_its_body_is_large_or_not(body: bytes) -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    room = HEAD_MAX - wire.WITH_ORIGIN - len(b"orders.quote")
    rig.request(1, meta=bytes(room + 1), body=body)
    assert not slot.inflight and rig.dispatch.counters["bad frames"] == 1
    rig.request(2, meta=bytes(room), body=body)
    assert list(slot.inflight) == [1] and wire.parse_head(rig.deliveries[0][2]).head_len == HEAD_MAX


def test_a_large_chunk_acknowledges_as_all_else_that_its_client_says() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.reply(slot, 1)
    session = rig.dispatch.sessions[SESSION]
    assert session.kept
    rig.core.frontend_large(b"c", as_large(wire.head(wire.CHUNK, session.token, number=2, upto=1) + BODY), rig.now)
    assert not session.kept


# ---- a master that is told to stop -----------------------------------------------------------------------------------


def test_a_master_that_stops_gives_back_what_waits_and_says_up_to_where_it_heard() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in (1, 2, 3):
        rig.request(number)
    rig.core.stop(rig.now)
    rig.core.end()
    session = rig.dispatch.sessions[SESSION]
    told = [wire.parse_head(frame) for frame in session.outgoing]
    assert [(head.kind, head.number, head.code) for head in told] == [
        (wire.ANSWER, 3, NOT_STARTED),
        (wire.ANSWER, 2, NOT_STARTED),
        (wire.BYE, 3, 0),
    ]
    assert list(slot.inflight) == [1], "what was dispatched comes to the next master from its process"


def test_a_master_that_stops_gives_nothing_back_that_was_answered_in_the_queue() -> None:
    rig = Rig()
    rig.pool_of(1)
    for number, timeout_ms in ((1, 30_000), (2, 100), (3, 30_000)):
        rig.request(number, timeout_ms=timeout_ms)
    rig.after(0.2)
    assert rig.dispatch.hand_back() == 1
    rig.flush()
    assert rig.codes() == {2: TIMEOUT, 3: NOT_STARTED} and rig.dispatch.pools["orders"].queued == 0


@pytest.mark.parametrize("how", ["told to stop", "no quorum"])
def test_a_master_that_may_dispatch_nothing_more_dispatches_nothing_whatever_comes(how: str) -> None:
    rig = Rig()
    node = rig.agent(capacity=2)
    rig.process(node)
    rig.core.stop(rig.now) if how == "told to stop" else rig.fleet.hold(True, rig.now)
    rig.request(1)
    rig.process(node, 2)
    rig.dispatch.tick(rig.now)
    rig.flush()
    assert not rig.deliveries and rig.dispatch.pools["orders"].queued == 1
    rig.core.end()
    rig.flush()
    assert rig.codes() == {1: NOT_STARTED}


def test_a_master_that_stops_gives_back_what_is_new_of_what_waits_for_nodes_to_tell() -> None:
    rig = restarted()
    resend(rig)
    rig.request(51)
    assert rig.dispatch.hand_back() == 1
    rig.flush()
    assert rig.codes() == {51: NOT_STARTED} and list(rig.dispatch.sessions[SESSION].open) == [50]
    assert rig.dispatch.queued_bytes == len(rig.dispatch.sessions[SESSION].open[50].frame)


def test_a_master_that_stops_waits_for_what_processes_have_not_begun() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rig.core.stop(rig.now)
    rig.flush()
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 1, since=1)]
    assert not rig.fleet.recalls.settled()
    rig.tell(first.node, Recalled(first.incarnation, 2, 1))
    assert rig.fleet.recalls.settled() and list(first.inflight) == [1]


def test_a_master_that_stops_does_not_take_an_earlier_answer_for_the_one_that_it_waits_for() -> None:
    """A moment before it had asked for what is done, and taken nothing back."""
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=4)
    for number in (1, 2, 3):
        rig.request(number)
    rig.after(0.06)
    rig.core.stop(rig.now)
    rig.flush()
    assert [recall.upto for recall in rig.heard("n1", Recall)] == [0, 3]
    rig.tell(slot.node, Recalled(slot.incarnation, 1, 1))
    assert not rig.fleet.recalls.settled()
    rig.tell(slot.node, Recalled(slot.incarnation, 4, 1))
    assert rig.fleet.recalls.settled() and list(slot.inflight) == [1]


def test_what_had_started_once_is_not_given_back() -> None:
    rig = Rig(service={"credit": 1})
    first, _ = rig.pool_of(2)
    rig.request(1, "orders.again")
    rig.request(2, "orders.again")
    rig.exited(first, started_upto=1, rows=[(1, RUNNING)])
    assert rig.dispatch.pools["orders"].queued == 1
    rig.core.stop(rig.now)
    rig.core.end()
    assert [wire.parse_head(frame).kind for frame in rig.dispatch.sessions[SESSION].outgoing] == [wire.BYE]


@pytest.mark.parametrize("by, runs", [(errors.BY_FENCE, True), (errors.BY_FLOOR, False)])
def test_only_what_the_fence_kept_from_starting_for_an_older_master_runs_for_this_one(by: bytes, runs: bool) -> None:
    rig = Rig(epoch=2)
    (slot,) = rig.pool_of(1)
    rig.process_hello(slot.incarnation, route=b"again", received_upto=1, held=[held(1, 7, epoch=1)])
    rig.reply(slot, 1, code=NOT_STARTED, epoch=1, body=by)
    rig.client(epoch=1)
    rig.request(7, flags=wire.RESENT | wire.OLDER, epoch=1)
    assert [number for _, number, _ in rig.deliveries] == ([2] if runs else [])
    assert rig.codes() == ({} if runs else {7: MAYBE})


def test_a_hello_that_a_later_one_has_overtaken_settles_nothing() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.process_hello(slot.incarnation, route=b"second", hellos=2)
    rig.request(1)
    rig.process_hello(slot.incarnation, route=b"first", hellos=1)
    assert (slot.route, list(slot.inflight), slot.last_number) == (b"second", [1], 1)


def test_what_an_older_master_left_and_nobody_came_for_is_let_go() -> None:
    rig, slot = holding()
    ledger, idle = rig.dispatch.inherited, rig.core.settings.session_idle
    ledger.keep((b"a" * 16, 1), OK, 1, b"x" * 1000)
    ledger.returned[b"b" * 16, 1] = None
    ledger.given_up[b"c" * 16, 1] = None
    rig.dispatch.losses.settle_started(slot.inflight[5], "its process was lost", rig.now)
    for _ in range(8):
        assert ledger.kept and ledger.lost and ledger.returned and ledger.given_up, "its session may still come"
        rig.now += idle / 4
        rig.dispatch.tick(rig.now)
    assert not (ledger.kept or ledger.lost or ledger.returned or ledger.given_up)
    ledger.keep((b"a" * 16, 2), OK, 1, b"y" * (inherited.KEPT_BYTES_MAX - 1))
    assert ledger.kept, "there is room for as much again"


def test_what_waited_in_vain_holds_no_memory_while_others_wait() -> None:
    rig = Rig(service={"queue_timeout": 60.0})
    rig.agent()
    rig.request(1, timeout_ms=50_000)
    for number in range(2, 20):
        rig.request(number, timeout_ms=100, body=bytes(100_000))
    rig.after(0.2)
    pool = rig.dispatch.pools["orders"]
    assert sum(len(request.frame) for request in pool.queue) < 10_000 and pool.queued == 1
    for number in range(20, 220):
        rig.request(number, timeout_ms=10)
        rig.after(0.02)
    assert len(pool.queue) < 100 and pool.queued == 1
    rig.say(wire.CANCEL, 1)
    assert not pool.queue


def test_what_waited_in_vain_is_gone_when_the_last_that_waits_has_its_turn() -> None:
    rig = Rig(service={"queue_timeout": 60.0})
    node = rig.agent()
    rig.request(1, timeout_ms=50_000)
    rig.request(2, timeout_ms=100)
    rig.after(0.2)
    rig.process(node)
    assert rig.where() and not rig.dispatch.pools["orders"].queue
