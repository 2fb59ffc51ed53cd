"""Idempotency keys: calls of one key are one call, whoever makes them and whatever becomes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgpack
import pytest
from core_rig import Rig
from hypothesis import given
from hypothesis import strategies as st

from rota.common import errors, wire
from rota.common.errors import OK, BindError, RemoteError
from rota.common.messages import End, Exited, Held, Row
from rota.master.core.keys import ATTACHED_MAX, ENTRY_BYTES
from rota.master.core.pool import Slot
from rota.worker.page import RUNNING

MAYBE, TIMEOUT, OVERLOADED = errors.MaybeExecuted.code, errors.Timeout.code, errors.Overloaded.code
CONFLICT, CANCELLED = errors.Conflict.code, errors.Cancelled.code


def two_clients(rig: Rig) -> None:
    rig.client(b"1" * 16, b"c1")
    rig.client(b"2" * 16, b"c2")


def crashed(rig: Rig, slot: Slot, started: bool = True) -> None:
    """Its process ended while it ran what it had, or before it had begun; it is not the request's fault."""
    rows = [Row(number, RUNNING, b"x" * 16, number, 1) for number in slot.inflight]
    upto = slot.last_number if started else 0
    report = Exited(slot.incarnation, "orders", 0, "was stopped", upto, rows if started else [], "", End.STOPPED)
    rig.tell(slot.node, report)
    rig.out.probes.clear()
    rig.fleet.processes.settle(slot, rig.now)
    rig.flush()


def bodies(rig: Rig) -> list[bytes]:
    return [answer.body for answer in rig.answers]


# ---- one call ----------------------------------------------------------------------------------------------------


def test_a_repeated_call_gets_the_recorded_answer_and_runs_nothing() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.reply(slot, 1, body=b"booked")
    rig.request(2, key="basket")
    assert (rig.codes(), bodies(rig)) == ({1: OK, 2: OK}, [b"booked", b"booked"])
    assert len(rig.deliveries) == 1
    assert rig.dispatch.counters["keys answered"] == 1


def test_a_key_is_the_same_for_all_sessions_and_clients() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    two_clients(rig)
    rig.request(1, key="basket", route=b"c1")
    rig.request(9, key="basket", route=b"c2")
    assert len(rig.deliveries) == 1
    rig.reply(slot, 1, body=b"booked")
    assert (rig.codes(), bodies(rig)) == ({1: OK, 9: OK}, [b"booked", b"booked"])
    assert rig.dispatch.counters["keys attached"] == 1


def test_a_call_attaches_to_what_is_still_queued() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket")
    rig.request(3, key="basket")
    assert rig.dispatch.pools["orders"].queued == 1
    rig.reply(slot, 1)
    rig.reply(slot, 2, body=b"booked")
    assert (rig.codes(), bodies(rig)[1:]) == ({1: OK, 2: OK, 3: OK}, [b"booked", b"booked"])


def test_the_process_knows_the_request_by_its_first_caller() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(7, key="basket")
    frame = rig.deliveries[0][2]
    assert wire.ORIGIN_STRUCT.unpack_from(frame, wire.HEADER_SIZE) == (b"s" * 16, 7)
    head = wire.parse_head(frame)
    tail = frame[wire.HEADER_SIZE + wire.ORIGIN_SIZE + head.code : head.head_len]
    assert msgpack.unpackb(tail) == {"k": "basket"}


def test_other_keys_handlers_and_calls_without_a_key_are_other_calls() -> None:
    rig = Rig()
    rig.pool_of(1, credit=9)
    rig.request(1, key="basket")
    rig.request(2, key="other")
    rig.request(3, "orders.again", key="basket")
    rig.request(4)
    assert len(rig.deliveries) == 4


def test_an_error_of_the_handler_is_its_recorded_outcome() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.reply(slot, 1, code=RemoteError.code, body=b"sold out")
    rig.request(2, key="basket")
    assert rig.codes() == {1: RemoteError.code, 2: RemoteError.code} and bodies(rig) == [b"sold out"] * 2


def test_a_resend_of_a_keyed_call_attaches_to_it_once() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.request(1, key="basket", flags=wire.RESENT)
    rig.reply(slot, 1)
    assert len(rig.answers) == 1


# ---- other arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [False, True])
def test_other_arguments_under_the_same_key_are_refused_with_a_sentence(answered: bool) -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1, key="basket", body=b"one")
    if answered:
        rig.reply(slot, 1)
    rig.request(2, key="basket", body=b"two")
    assert rig.codes()[2] == CONFLICT
    assert "'basket'" in rig.answers[-1].cause and "new key" in rig.answers[-1].cause
    assert len(rig.deliveries) == 1 and rig.dispatch.counters["keys refused"] == 1


# ---- callers that give up -------------------------------------------------------------------------------------------


def test_cancelling_one_call_of_a_key_cancels_nobody_else() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    two_clients(rig)
    rig.request(1, key="basket", route=b"c1")
    rig.request(2, key="basket", route=b"c2")
    rig.say(wire.CANCEL, 1, route=b"c1")
    assert rig.codes() == {1: CANCELLED}
    rig.reply(slot, 1)
    assert rig.codes() == {1: CANCELLED, 2: OK}


def test_the_first_callers_goodbye_ends_nobody_elses_call() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    two_clients(rig)
    rig.request(1, key="basket", route=b"c1")
    rig.request(2, key="basket", route=b"c2")
    rig.say(wire.BYE, route=b"c1")
    rig.reply(slot, 1)
    assert rig.codes()[2] == OK


def test_what_all_its_callers_gave_up_while_it_was_queued_never_runs() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket")
    rig.request(3, key="basket")
    rig.say(wire.CANCEL, 2)
    assert rig.dispatch.pools["orders"].queued == 1
    rig.say(wire.CANCEL, 3)
    assert (rig.dispatch.pools["orders"].queued, rig.dispatch.queued_bytes) == (0, 0)
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1
    rig.request(4, key="basket")
    assert len(rig.deliveries) == 2, "nothing had run: the next call of the key is a first one"


def test_a_late_reply_is_the_recorded_answer() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket", timeout_ms=100)
    rig.after(0.2)
    assert rig.codes() == {1: TIMEOUT}
    rig.reply(slot, 1, body=b"booked")
    rig.request(2, key="basket")
    assert (rig.codes()[2], bodies(rig)[-1]) == (OK, b"booked")
    assert len(rig.deliveries) == 1


def test_a_call_after_a_time_out_attaches_to_what_still_runs() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket", timeout_ms=100)
    rig.after(0.2)
    rig.request(2, key="basket")
    rig.request(3, key="basket", timeout_ms=100)
    rig.after(0.2)
    assert "started" not in msgpack.unpackb(rig.answers[-1].body), "its attempt runs"
    assert len(rig.deliveries) == 1
    rig.reply(slot, 1, body=b"booked")
    assert rig.codes() == {1: TIMEOUT, 2: OK, 3: TIMEOUT}


def test_each_caller_has_a_deadline_of_his_own() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket", timeout_ms=100)
    rig.request(3, key="basket", timeout_ms=5000)
    rig.after(0.2)
    assert rig.codes() == {2: TIMEOUT}
    rig.reply(slot, 1)
    rig.after(1.0)
    rig.reply(slot, 2)
    assert rig.codes() == {1: OK, 2: TIMEOUT, 3: OK}


def test_a_time_out_in_the_queue_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket", timeout_ms=100)
    rig.after(0.2)
    assert rig.codes() == {2: TIMEOUT}
    assert (rig.dispatch.keys.attempts, rig.dispatch.pools["orders"].queued, rig.dispatch.queued_bytes) == ({}, 0, 0)


def test_a_full_queue_refuses_all_callers_and_the_next_call_is_a_first_one() -> None:
    rig = Rig({"queue_limit": 0})
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket")
    assert rig.codes() == {2: OVERLOADED}
    rig.reply(slot, 1)
    rig.request(3, key="basket")
    assert len(rig.deliveries) == 2


def test_waiting_too_long_in_the_queue_refuses_all_callers() -> None:
    rig = Rig({"queue_timeout": 0.2})
    rig.pool_of(1)
    rig.request(1)
    rig.request(2, key="basket")
    rig.request(3, key="basket")
    rig.after(0.3)
    assert rig.codes() == {2: OVERLOADED, 3: OVERLOADED}
    assert not rig.dispatch.keys.attempts and not rig.dispatch.queued_bytes


# ---- lost attempts ------------------------------------------------------------------------------------------------


def test_a_key_alone_does_not_make_a_lost_attempt_run_again_now_or_later() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, key="basket")
    crashed(rig, first)
    assert rig.codes() == {1: MAYBE}
    rig.request(2, key="basket")
    assert rig.codes() == {1: MAYBE, 2: MAYBE}
    assert len(rig.deliveries) == 1 and not second.inflight
    assert "was stopped" in rig.answers[-1].cause


def test_its_outcome_stays_unknown_when_its_service_is_gone() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    crashed(rig, slot)
    rig.fleet.forget(slot.node, rig.now)
    assert not rig.dispatch.pools
    rig.request(2, key="basket")
    assert rig.codes() == {1: MAYBE, 2: MAYBE}


def test_all_callers_of_a_lost_attempt_learn_of_it() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    for number in (1, 2, 3):
        rig.request(number, key="basket")
    crashed(rig, first)
    assert rig.codes() == {1: MAYBE, 2: MAYBE, 3: MAYBE}


@pytest.mark.parametrize("handler", ["again", "keyed"])
def test_a_repeated_call_of_a_handler_that_allows_it_runs_again_after_its_attempts_were_lost(handler: str) -> None:
    rig = Rig({"max_attempts": 2})
    slots = rig.pool_of(3)
    rig.request(1, f"orders.{handler}", key="basket")
    crashed(rig, slots[0])
    assert rig.codes() == {} and len(rig.deliveries) == 2
    crashed(rig, slots[1])
    assert rig.codes() == {1: MAYBE}
    rig.request(2, f"orders.{handler}", key="basket")
    rig.reply(slots[2], 1, body=b"booked")
    rig.request(3, f"orders.{handler}", key="basket")
    assert rig.codes() == {1: MAYBE, 2: OK, 3: OK} and len(rig.deliveries) == 3


def test_what_had_not_started_runs_elsewhere_for_all_who_wait() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, key="basket")
    rig.request(2, key="basket")
    crashed(rig, first, started=False)
    rig.reply(second, 1)
    assert rig.codes() == {1: OK, 2: OK}


def test_an_attempt_that_is_lost_when_nobody_waits_any_more_is_recorded_as_such() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1, key="basket", timeout_ms=100)
    rig.after(0.2)
    crashed(rig, first)
    rig.request(2, key="basket")
    assert rig.codes() == {1: TIMEOUT, 2: MAYBE} and len(rig.deliveries) == 1


def test_what_had_not_started_and_nobody_waits_for_is_dropped() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, key="basket")
    rig.say(wire.CANCEL, 1)
    crashed(rig, first, started=False)
    assert not second.inflight and not rig.dispatch.keys.attempts
    rig.request(2, key="basket")
    assert list(second.inflight) == [1]


def test_arguments_that_do_not_fit_ran_nothing_and_are_not_recorded() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket", body=b"wrong")
    rig.reply(slot, 1, code=BindError.code)
    rig.request(2, key="basket", body=b"right")
    assert len(rig.deliveries) == 2


def test_a_process_that_claims_a_time_out_ends_the_attempt() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.reply(slot, 1, code=TIMEOUT)
    assert rig.codes() == {1: TIMEOUT} and not rig.dispatch.keys.attempts


def test_an_unknown_service_is_said_and_not_recorded() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, "nothing.quote", key="basket")
    assert rig.codes() == {1: errors.NoService.code}
    assert not rig.dispatch.keys.attempts and not rig.dispatch.keys.recorded


def test_a_keyed_resend_after_a_restart_attaches_to_what_an_older_master_dispatched() -> None:
    rig = Rig(epoch=2)
    node = rig.agent(capacity=1)
    slot = rig.process(node, held=[Held(1, 5, b"s" * 16, 3, False)], received_upto=5, started_upto=5)
    rig.client(epoch=1)
    rig.request(3, key="basket", flags=wire.RESENT | wire.OLDER, epoch=1)
    assert not rig.deliveries
    rig.request(4, key="basket")
    rig.reply(slot, 5, epoch=1, body=b"booked")
    assert (rig.codes(), bodies(rig)) == ({3: OK, 4: OK}, [b"booked"] * 2)


def test_a_keyed_resend_that_is_here_before_its_process_gets_what_that_answers() -> None:
    rig = Rig(epoch=2, state="")
    rig.client(epoch=1)
    rig.request(3, key="basket", flags=wire.RESENT | wire.OLDER, epoch=1)
    held = [Held(1, 5, b"s" * 16, 3, False)]
    slot = rig.process(rig.agent(capacity=1), held=held, received_upto=5, started_upto=5)
    assert rig.codes() == {} and not rig.deliveries
    rig.after(0.5)
    rig.reply(slot, 5, epoch=1, body=b"booked")
    assert (rig.codes(), bodies(rig)) == ({3: OK}, [b"booked"])


def test_a_keyed_resend_that_waits_for_its_process_gives_up_at_its_deadline() -> None:
    rig = Rig(epoch=2, state="")
    rig.client(epoch=1)
    rig.request(3, "orders.quote", key="basket", flags=wire.RESENT | wire.OLDER, epoch=1, timeout_ms=300)
    assert rig.codes() == {} and rig.dispatch.inherited.waiting
    rig.after(0.5)
    assert rig.codes() == {3: TIMEOUT}
    assert not rig.dispatch.inherited.waiting and not rig.dispatch.keys.attempts and not rig.dispatch.queued_bytes


def test_a_master_that_stops_gives_queued_calls_back_to_all_their_callers() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="runs")
    rig.request(2, key="queued")
    rig.request(3, key="queued")
    rig.dispatch.hand_back()
    rig.flush()
    given_back = {answer.number for answer in rig.answers if answer.code == errors.NOT_STARTED}
    assert given_back == {2, 3} and list(slot.inflight) == [1]
    assert not rig.dispatch.keys.recorded


# ---- bounds -------------------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_for_keys_for_and_no_longer() -> None:
    rig = Rig({"keys_for": 2.0})
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.reply(slot, 1)
    rig.after(1.8)
    rig.request(2, key="basket")
    assert len(rig.deliveries) == 1
    rig.after(0.4)
    assert (len(rig.dispatch.keys.recorded), rig.dispatch.keys.bytes) == (0, 0)
    rig.request(3, key="basket")
    assert len(rig.deliveries) == 2


def test_an_answer_is_recorded_for_that_long_from_the_end_of_its_call() -> None:
    rig = Rig({"keys_for": 2.0})
    (slot,) = rig.pool_of(1)
    rig.request(1, key="basket")
    rig.after(5.0)
    rig.reply(slot, 1)
    rig.after(1.8)
    rig.request(2, key="basket")
    assert rig.codes() == {1: OK, 2: OK} and len(rig.deliveries) == 1


def test_a_call_that_attaches_later_has_all_the_time_of_its_own() -> None:
    """What is queued waits for the last deadline of those that wait for it, however early the first one gives up."""
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    two_clients(rig)
    rig.request(1, key="basket", route=b"c1", timeout_ms=2000)
    rig.request(1, key="basket", route=b"c2", timeout_ms=20_000)
    (attempt,) = rig.dispatch.keys.attempts.values()
    assert attempt.request.deadline == rig.now + 20.0
    rig.request(2, key="basket", route=b"c1", timeout_ms=2000)
    assert attempt.request.deadline == rig.now + 20.0
    rig.after(5.0)
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 2, "the second caller still waits"


def test_an_answer_behind_one_that_is_kept_longer_is_not_given_when_its_time_is_over() -> None:
    rig = Rig(service={"keys_for": 100.0})
    (slot,) = rig.pool_of(1)
    rig.request(1, key="kept")
    rig.reply(slot, 1)
    rig.default = replace(rig.default, keys_for=10.0)
    rig.dispatch.pools["orders"].settings = rig.default
    rig.request(2, key="basket")
    rig.reply(slot, 2)
    rig.after(11.0)
    rig.request(3, key="basket")
    assert len(rig.deliveries) == 3
    rig.request(4, key="kept")
    assert len(rig.deliveries) == 3
    rig.reply(slot, 3)
    expected = sum(ENTRY_BYTES + len(b"orders.quote") + len(key) + len(b"ok") for key in ("kept", "basket"))
    assert rig.dispatch.keys.bytes == expected, "what it replaces counts no more"


def test_the_oldest_answers_go_when_all_are_larger_than_keys_bytes() -> None:
    room = 10_000 + 3 * (ENTRY_BYTES + 50)
    rig = Rig(keys_bytes=room)
    (slot,) = rig.pool_of(1)
    for number in range(1, 5):
        rig.request(number, key=f"basket {number}")
        rig.reply(slot, number, body=bytes(3500))
        assert rig.dispatch.keys.bytes <= room
    assert rig.dispatch.counters["keys dropped"] == 2
    rig.request(5, key="basket 4")
    assert rig.codes()[5] == OK and len(rig.deliveries) == 4
    rig.request(6, key="basket 1")
    assert len(rig.deliveries) == 5


def test_calls_that_wait_for_others_are_bounded() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    for number in range(1, ATTACHED_MAX + 3):
        rig.request(number, key="basket", body=b"")
    assert rig.codes() == {ATTACHED_MAX + 2: OVERLOADED}
    rig.reply(slot, 1)
    assert Counter(rig.codes().values()) == {OK: ATTACHED_MAX + 1, OVERLOADED: 1}
    assert not rig.dispatch.counters["late replies"], "whoever was refused waits no more"


def test_a_caller_that_waits_for_another_holds_no_body() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, key="basket", body=bytes(100_000))
    rig.request(2, key="basket", body=bytes(100_000))
    assert all(len(request.frame) < 200 for request in rig.dispatch.sessions[b"s" * 16].open.values())


def test_status_shows_what_is_kept_for_keys() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1, key="basket")
    rig.request(2, key="other")
    rig.reply(slot, 1, body=b"12345")
    shown = rig.core.status(rig.now)["master"]["keys"]
    assert shown == {"running": 1, "recorded": 1, "bytes": ENTRY_BYTES + len(b"orders.quotebasket12345")}


# ---- hostile ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meta", [b"", b"\xc1", msgpack.packb({}), msgpack.packb({"k": 7}), msgpack.packb({"k": ""}), msgpack.packb("k")]
)
def test_a_keyed_request_without_a_key_is_a_bad_frame_and_says_so(meta: bytes) -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, flags=wire.KEYED, meta=meta)
    assert rig.codes() == {1: errors.ProtocolError.code}
    assert rig.dispatch.counters["bad frames"] == 1 and not rig.deliveries


@given(meta=st.binary(max_size=60) | st.recursive(st.none() | st.text() | st.binary(), st.lists).map(msgpack.packb))
def test_whatever_the_meta_is_nothing_raises_and_there_is_an_answer(meta: bytes) -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, flags=wire.KEYED, meta=meta)
    if slot.inflight:
        rig.reply(slot, 1)
    assert 1 in rig.codes()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "reply", "cancel", "crash", "idle crash", "wait", "bye"]),
        st.integers(0, 2),  # which key, which slot, which client
        st.integers(0, 1),  # which arguments
    ),
    max_size=40,
)


@given(steps=STEPS, handler=st.sampled_from(["quote", "again", "keyed"]))
def test_whatever_happens_each_call_has_one_answer_and_a_default_handler_runs_once_a_key(
    steps: list[tuple[str, int, int]], handler: str
) -> None:
    rig = Rig({"max_attempts": 2})
    node = rig.agent(capacity=3)
    slots = [rig.process(node, number) for number in (1, 2, 3)]
    calls, made = 0, 3
    runs: Counter[str] = Counter()  # per key

    def ran(slot: Slot) -> None:
        runs.update(request.session.key[1] for request in slot.inflight.values())

    for what, which, other in steps:
        route, slot = b"c%d" % which, slots[which]
        if what == "call":
            if route not in rig.dispatch.routes:
                rig.client(b"%d" % which * 16, route)
            calls += 1
            body = b"%d" % other
            rig.request(calls, f"orders.{handler}", route=route, key=f"{which % 2}", body=body, timeout_ms=400)
        elif what == "reply" and slot.inflight:
            ran(slot)
            rig.reply(slot, next(iter(slot.inflight)))
        elif what == "cancel":
            for session in list(rig.dispatch.sessions.values()):
                rig.dispatch.cancel(session, calls - which)
            rig.flush()
        elif what in ("crash", "idle crash"):
            if what == "crash":
                ran(slot)
            crashed(rig, slot, started=what == "crash")
            made += 1
            slots[which] = rig.process(node, made)
        elif what == "wait":
            rig.after(0.25)
        elif what == "bye" and route in rig.dispatch.routes:
            rig.say(wire.BYE, route=route)
        dispatch = rig.dispatch
        queued = [request for pool in dispatch.pools.values() for request in pool.queue if not request.answered]
        assert dispatch.queued_bytes == sum(len(request.frame) for request in queued)
        assert len(queued) == sum(pool.queued for pool in dispatch.pools.values())
    rig.after(0.6)
    for slot in slots:
        while slot.inflight:
            rig.reply(slot, next(iter(slot.inflight)))
    numbers = [answer.number for answer in rig.answers]
    assert len(numbers) == len(set(numbers))
    assert not any(session.open for session in rig.dispatch.sessions.values())
    assert not rig.dispatch.keys.attempts and not rig.dispatch.keys._callers and not rig.dispatch.queued_bytes
    assert handler != "quote" or all(count == 1 for count in runs.values())
