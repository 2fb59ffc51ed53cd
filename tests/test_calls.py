"""The call table without a socket or a clock."""

from __future__ import annotations

import struct

import pytest

from rota.client import calls as module
from rota.client.calls import GRACE_S, KEEP_S, SWEEP_S, WAITING_MAX, Call, Calls
from rota.common import wire
from rota.common.errors import Error, Overloaded, PayloadTooLarge, Timeout, Unavailable
from rota.common.limits import ACK_AFTER_S

TOKEN = 77


class Asked(Call):
    def __init__(self, deadline: float = 1000.0, body: bytes = b"body", target: bytes = b"a.b") -> None:
        self.deadline, self.body, self.address = deadline, body, (target, len(target), 0)


def opened(window: int = 4096, epoch: int = 3) -> Calls:
    calls = Calls(window)
    calls.opened(TOKEN, epoch, False, 1000, 0.0)
    return calls


def forgotten(calls: Calls) -> None:
    """Its next master does not know the session."""
    calls.closed()
    calls.opened(TOKEN, 9, False, 1000, 1.0)


def frames(calls: Calls, now: float = 0.0) -> list[wire.Head]:
    return [wire.parse_head(frame) for frame in calls.frames(now, 10_000)]


def submitted(calls: Calls, count: int, deadline: float = 1000.0) -> list[Asked]:
    asked = [Asked(deadline) for _ in range(count)]
    for call in asked:
        assert calls.submit(call) is None
    return asked


def test_numbers_rise_by_one_in_the_order_of_sending() -> None:
    calls = opened()
    submitted(calls, 3)
    assert [(head.kind, head.number, head.token, head.epoch) for head in frames(calls)] == [
        (wire.REQUEST, number, TOKEN, 3) for number in (1, 2, 3)
    ]


def test_a_request_says_what_is_left_of_its_deadline() -> None:
    calls = opened()
    submitted(calls, 1, deadline=10.0)
    assert frames(calls, now=7.5)[0].time == 2500


def test_a_request_whose_deadline_has_just_passed_says_that_a_millisecond_is_left() -> None:
    calls = opened()
    submitted(calls, 1, deadline=1.0)
    assert [head.time for head in frames(calls, 1.5)] == [1]


def test_a_large_request_says_whose_it_is() -> None:
    calls = Calls(session=b"s" * 16)
    calls.opened(TOKEN, 1, False, 1 << 20, 0.0)
    calls.submit(Asked(body=bytes(wire.BUNDLE_BYTES_MAX + 1)))
    (frame,) = calls.frames(0.0, 10)
    assert wire.parse_head(frame).flags == wire.ORIGIN
    assert wire.ORIGIN_STRUCT.unpack_from(frame, wire.HEADER_SIZE) == (b"s" * 16, 1)


def test_an_answer_finishes_its_call_once() -> None:
    calls = opened()
    (call,) = submitted(calls, 1)
    frames(calls)
    assert calls.answered(1, 1, 60) is call
    assert calls.answered(1, 1, 60) is None
    assert len(calls) == 0


def test_the_next_request_acknowledges_answers_and_says_what_is_no_longer_waited_for() -> None:
    calls = opened()
    submitted(calls, 3)
    frames(calls)
    calls.answered(1, 1, 60)
    calls.answered(3, 2, 60)
    submitted(calls, 1)
    (head,) = frames(calls)
    assert (head.number, head.upto, head.below) == (4, 2, 2)
    assert frames(calls, 2 * ACK_AFTER_S) == [], "it has been said"


def test_another_master_is_told_how_long_ago_at_most_its_requests_were_first_sent() -> None:
    calls = opened()
    for at, count in ((100.0, 2), (105.0, 1)):
        calls.mark(at)
        submitted(calls, count)
        frames(calls)
    forgotten(calls)
    calls.say_ages(110.0)
    told, *again = calls.frames(1.0, 10)
    head = wire.parse_head(told)
    assert (head.kind, head.below) == (wire.ACK, 1)
    assert list(struct.iter_unpack("<QQ", told[head.head_len :])) == [(1, 10_001), (3, 5_001)]
    assert [wire.parse_head(frame).flags for frame in again] == [wire.RESENT | wire.OLDER] * 3


def test_a_master_that_got_the_requests_first_is_told_no_ages() -> None:
    calls = opened()
    calls.mark(100.0)
    submitted(calls, 2)
    frames(calls)
    calls.closed()
    calls.opened(TOKEN, 3, True, 1000, 1.0)
    calls.say_ages(110.0)
    assert [head.kind for head in frames(calls, 1.0)] == [wire.REQUEST] * 2


def test_after_a_reconnect_everything_unanswered_is_resent_with_the_epoch_of_its_first_send() -> None:
    calls = opened(epoch=3)
    submitted(calls, 3)
    frames(calls)
    calls.answered(2, 1, 60)
    calls.closed()
    submitted(calls, 1)
    calls.opened(TOKEN + 1, 4, True, 1000, 1.0)
    assert [(head.number, head.epoch, head.flags, head.token) for head in frames(calls, 1.0)] == [
        (1, 3, wire.RESENT, TOKEN + 1),
        (3, 3, wire.RESENT, TOKEN + 1),
        (4, 4, 0, TOKEN + 1),
    ]


def test_what_was_answered_before_its_turn_to_be_resent_is_not_resent() -> None:
    calls = opened()
    submitted(calls, 2)
    frames(calls)
    calls.closed()
    calls.opened(TOKEN, 3, True, 1000, 1.0)
    calls.answered(1, 1, 60)
    assert [head.number for head in frames(calls, 1.0)] == [2]


def test_an_answer_beyond_a_gap_is_not_acknowledged_while_the_missing_one_is_waited_for() -> None:
    calls = opened()
    submitted(calls, 3)
    frames(calls)
    calls.answered(2, 2, 60)  # 1 was answered with sequence 1, which was lost
    submitted(calls, 1)
    assert frames(calls)[0].upto == 0
    calls.answered(1, 1, 60)
    submitted(calls, 1)
    assert frames(calls)[0].upto == 2


def test_a_gap_is_closed_when_nobody_waits_for_the_missing_answer_any_more() -> None:
    calls = opened()
    abandoned, other, third = submitted(calls, 3)
    frames(calls)
    calls.cancel(abandoned)
    calls.answered(other.number, 2, 60)
    submitted(calls, 1)
    assert frames(calls)[-1].upto == 0  # the third might be the missing one
    calls.answered(third.number, 3, 60)
    submitted(calls, 1)
    assert frames(calls)[-1].upto == 3


def test_a_session_that_the_master_does_not_know_counts_answers_anew() -> None:
    calls = opened()
    submitted(calls, 2)
    frames(calls)
    calls.answered(1, 1, 60)
    forgotten(calls)
    assert [head.upto for head in frames(calls, 1.0)] == [0]
    assert calls.answered(2, 1, 60) is not None
    assert frames(calls, 3.0) == [] and frames(calls, 3.0 + ACK_AFTER_S)[0].upto == 1


def test_what_came_out_of_turn_from_one_session_acknowledges_nothing_of_the_next() -> None:
    calls = opened()
    submitted(calls, 3)
    frames(calls)
    calls.answered(2, 2, 60)
    forgotten(calls)
    frames(calls, 1.0)
    calls.answered(1, 1, 60)
    submitted(calls, 1)
    assert frames(calls, 1.0)[0].upto == 1


def test_what_was_acknowledged_over_a_connection_that_is_gone_is_acknowledged_again() -> None:
    calls = opened()
    submitted(calls, 1)
    frames(calls)
    calls.answered(1, 1, 60)
    assert [head.kind for head in frames(calls, ACK_AFTER_S)] == []
    assert [head.upto for head in frames(calls, 2 * ACK_AFTER_S)] == [1]
    calls.closed()
    calls.opened(TOKEN, 3, True, 1000, 3.0)
    frames(calls, 3.0)
    assert [head.upto for head in frames(calls, 3.0 + ACK_AFTER_S)] == [1]


def test_without_a_connection_nothing_is_due_but_deadlines() -> None:
    calls = opened()
    submitted(calls, 2)
    frames(calls)
    calls.answered(1, 1, 60)
    frames(calls)
    calls.closed()
    calls.expire(1.0)
    assert calls.next_deadline() == 1000.0


def test_64_answers_are_acknowledged_without_a_request() -> None:
    calls = opened()
    submitted(calls, 64)
    frames(calls)
    for number in range(1, 64):
        calls.answered(number, number, 60)
    assert frames(calls) == []
    calls.answered(64, 64, 60)
    (ack,) = frames(calls)
    assert (ack.kind, ack.upto, ack.below) == (wire.ACK, 64, 65)
    assert frames(calls) == []


def test_many_bytes_are_acknowledged_without_a_request() -> None:
    calls = opened()
    submitted(calls, 1)
    frames(calls)
    calls.answered(1, 1, 256 * 1024)
    assert [head.kind for head in frames(calls)] == [wire.ACK]


def test_one_answer_is_acknowledged_after_a_second() -> None:
    calls = opened()
    submitted(calls, 1)
    frames(calls)
    calls.answered(1, 1, 60)
    assert frames(calls, 1.0) == []
    assert calls.next_deadline() == 1.0 + ACK_AFTER_S
    assert [head.kind for head in frames(calls, 1.0 + ACK_AFTER_S)] == [wire.ACK]
    assert calls.next_deadline() > 1.0 + ACK_AFTER_S


def test_a_session_that_waits_long_for_an_answer_is_kept_alive() -> None:
    calls = opened()
    submitted(calls, 1)
    frames(calls)
    assert calls.next_deadline() == KEEP_S
    assert [head.kind for head in frames(calls, KEEP_S)] == [wire.ACK]
    assert calls.next_deadline() == 2 * KEEP_S


def test_an_answer_that_is_to_be_acknowledged_later_is_so_when_something_is_to_be_said_anyway() -> None:
    calls = opened()
    submitted(calls, 2)
    frames(calls)
    calls.answered(1, 1, 60)
    assert frames(calls, KEEP_S - ACK_AFTER_S / 2) == []
    assert [(head.kind, head.upto) for head in frames(calls, calls.next_deadline())] == [(wire.ACK, 1)]
    assert calls.next_deadline() == 2 * KEEP_S


def test_cancelling_a_sent_call_tells_the_master() -> None:
    calls = opened()
    (call,) = submitted(calls, 1)
    frames(calls)
    calls.cancel(call)
    assert [(head.kind, head.number) for head in frames(calls)] == [(wire.CANCEL, 1)]
    assert calls.under_way, "the master may have it still"
    assert calls.answered(1, 1, 60) is None and not calls.under_way


def test_what_was_given_up_is_said_again_over_each_new_connection_until_it_is_answered() -> None:
    calls = opened()
    before, while_parted, late, waited_for = submitted(calls, 4)
    late.deadline = 5.0
    frames(calls)
    calls.cancel(before)
    frames(calls)  # and lost with the connection
    calls.closed()
    calls.cancel(while_parted)
    calls.expire(6.0)
    for _ in range(2):
        calls.opened(TOKEN, 1, True, 0, 6.0)
        told = [(head.kind, head.number) for head in frames(calls, 6.0)]
        assert told[:4] == [*((wire.CANCEL, each) for each in (1, 2, 3)), (wire.REQUEST, 4)]
        calls.closed()
    for number in (1, 2, 3):
        calls.answered(number, number, 60)
    calls.opened(TOKEN, 1, True, 0, 6.0)
    assert [head.number for head in frames(calls, 6.0) if head.kind == wire.CANCEL] == []
    assert waited_for.number == 4 and calls.under_way


def test_what_was_abandoned_is_cancelled_at_a_master_that_is_found_later() -> None:
    calls = opened()
    submitted(calls, 2)
    frames(calls)
    calls.closed()
    calls.abandon(Error("the client was closed"))
    calls.opened(TOKEN, 4, False, 0, 1.0)
    assert [(head.kind, head.number) for head in frames(calls)] == [(wire.CANCEL, 1), (wire.CANCEL, 2)]


def test_a_master_that_does_not_know_the_session_is_told_once_what_was_given_up() -> None:
    calls = opened()
    (call,) = submitted(calls, 1)
    frames(calls)
    calls.cancel(call)
    for expected in ([1], []):
        calls.closed()
        calls.opened(TOKEN, 2, False, 0, 1.0)
        assert [head.number for head in frames(calls) if head.kind == wire.CANCEL] == expected
    assert not calls.under_way


def test_cancelling_a_waiting_call_takes_no_number() -> None:
    calls = opened()
    first, _ = submitted(calls, 2)
    calls.cancel(first)
    assert [head.number for head in frames(calls)] == [1]


def test_what_was_cancelled_takes_no_room_from_what_waits() -> None:
    calls = Calls()  # no master can be reached
    kept = submitted(calls, 100)
    for _ in range(2 * WAITING_MAX):
        calls.cancel(submitted(calls, 1)[0])
    assert len(calls) < 300
    calls.opened(TOKEN, 3, False, 1000, 0.0)
    assert [head.number for head in frames(calls)] == list(range(1, 101)) == [call.number for call in kept]
    assert len(calls) == 100


def test_cancelling_an_answered_call_does_nothing() -> None:
    calls = opened()
    (call,) = submitted(calls, 1)
    frames(calls)
    calls.answered(1, 1, 60)
    calls.cancel(call)
    assert frames(calls) == []


def errors(failed: list[tuple[Call, Error]]) -> list[type[Error]]:
    return [type(error) for _, error in failed]


def test_the_masters_own_timeout_may_come_a_little_after_the_deadline() -> None:
    calls = opened()
    submitted(calls, 1, deadline=5.0)
    frames(calls)
    assert calls.next_deadline() == 5.0
    assert calls.expire(5.0) == []
    assert calls.next_deadline() == 5.0 + GRACE_S
    assert errors(calls.expire(5.0 + GRACE_S)) == [Timeout]
    assert calls.next_deadline() > 1000


def test_a_call_that_was_never_sent_ends_as_unavailable_and_names_the_masters() -> None:
    calls = Calls()
    calls.unreachable["tcp://a:7700"] = "no connection"
    submitted(calls, 1, deadline=5.0)
    assert calls.expire(4.9) == []
    ((_, error),) = calls.expire(5.0)
    assert isinstance(error, Unavailable)
    assert "tcp://a:7700: no connection" in str(error)
    assert error.details["masters"] == {"tcp://a:7700": "no connection"}


def test_a_call_that_was_sent_before_the_connection_was_lost_ends_as_timeout_at_its_deadline() -> None:
    calls = opened()
    submitted(calls, 1, deadline=5.0)
    frames(calls)
    calls.closed()
    calls.unreachable["tcp://a:7700"] = "no connection"
    ((_, error),) = calls.expire(5.0)
    assert isinstance(error, Timeout) and error.details["masters"] == {"tcp://a:7700": "no connection"}


@pytest.mark.parametrize("is_open", [False, True])
def test_calls_that_wait_end_each_at_its_own_deadline(is_open: bool) -> None:
    calls = Calls(window=0)
    if is_open:
        calls.opened(TOKEN, 3, False, 1000, 0.0)
    asked = [submitted(calls, 1, deadline)[0] for deadline in (9.0, 2.0, 5.0)]
    ended = []
    while len(calls):
        now = calls.next_deadline()
        ended += [(call, now) for call, _ in calls.expire(now)]
    assert ended == [(asked[1], 2.0), (asked[2], 5.0), (asked[0], 9.0)]


def test_a_call_that_waits_behind_others_ends_as_a_time_out_that_says_that_nothing_was_run() -> None:
    calls = opened(window=1)
    submitted(calls, 1)
    (late,) = submitted(calls, 1, deadline=1.0)
    (later,) = submitted(calls, 1, deadline=2.0)
    (withdrawn,) = submitted(calls, 1, deadline=1.0)
    frames(calls)
    calls.cancel(withdrawn)
    ((call, error),) = calls.expire(1.5)
    assert call is late and isinstance(error, Timeout) and error.details == {"started": False}
    assert calls.next_deadline() == 2.0
    assert [call for call, _ in calls.expire(2.0)] == [later]
    assert len(calls) == 1


def test_late_calls_do_not_make_every_look_through_all_of_them() -> None:
    calls = opened()
    for late in range(10):
        submitted(calls, 1, deadline=5.0 + late / 1000)
    frames(calls)
    calls.expire(5.0)
    assert calls.next_deadline() >= 5.0 + SWEEP_S


def test_calls_above_the_window_wait_for_their_turn() -> None:
    calls = opened(window=2)
    submitted(calls, 3)
    assert [head.number for head in frames(calls)] == [1, 2]
    calls.answered(2, 1, 60)
    assert [head.number for head in frames(calls)] == [3]


def test_bytes_above_the_window_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_BYTES", 100)
    calls = opened()
    asked = [Asked(body=b"x" * 60) for _ in range(7)]
    for call in asked:
        assert calls.submit(call) is None
    assert [head.number for head in frames(calls)] == [1, 2]
    calls.answered(1, 1, 60)
    assert [head.number for head in frames(calls)] == [3]
    calls.cancel(asked[1])
    assert [head.number for head in frames(calls) if head.kind == wire.REQUEST] == [4]
    calls.began(asked[2])
    assert [head.number for head in frames(calls)] == [5]
    calls.abandon(Unavailable("x"))
    submitted(calls, 1)
    assert [head.number for head in frames(calls)] == [6]
    assert calls.window == module.WINDOW


def test_what_was_given_up_is_remembered_of_no_more_than_a_master_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 2)
    calls = opened()
    for call in submitted(calls, 3):
        frames(calls)
        calls.cancel(call)
    calls.closed()
    calls.opened(TOKEN, 3, True, 1000, 1.0)
    assert [head.number for head in frames(calls)] == [2, 3]


def test_more_calls_than_may_wait_are_refused() -> None:
    calls = Calls()
    submitted(calls, WAITING_MAX)
    assert isinstance(calls.submit(Asked()), Overloaded)


def test_the_bytes_that_wait_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 100)
    calls = opened(window=1)
    first, second = Asked(body=b"x" * 50), Asked(body=b"x" * 50)
    for most in (first, second):
        assert calls.submit(most) is None
    assert isinstance(calls.submit(Asked()), Overloaded)
    frames(calls)  # the first is sent
    assert calls.submit(Asked(body=b"x" * 50)) is None and isinstance(calls.submit(Asked()), Overloaded)
    calls.cancel(second)
    assert calls.submit(Asked(body=b"x" * 50)) is None and isinstance(calls.submit(Asked()), Overloaded)
    assert calls.answered(1, 1, 60) is first
    calls.again(first)
    assert isinstance(calls.submit(Asked(body=b"")), Overloaded)


def test_a_call_that_was_given_back_has_no_time_of_grace() -> None:
    """It was not sent."""
    calls = opened(window=1)
    first = Asked(deadline=5.0)
    calls.submit(first)
    frames(calls)
    assert calls.expire(5.0) == [] and calls.next_deadline() == 5.0 + GRACE_S
    calls.answered(1, 1, 60)
    calls.again(first)
    assert [call for call, _ in calls.expire(5.1)] == [first]


def test_a_refused_call_that_is_cancelled_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 100)
    calls = opened()
    for _ in range(3):
        for refused in (Asked(body=b"x" * 101), Asked(body=b"x" * 1001)):
            assert calls.submit(refused) is not None
            calls.cancel(refused)
    assert isinstance(calls.submit(Asked(body=b"x" * 101)), Overloaded)


def test_a_payload_above_the_masters_limit_is_refused_before_anything_is_sent() -> None:
    calls = opened()
    error = calls.submit(Asked(body=b"x" * 1001))
    assert isinstance(error, PayloadTooLarge)
    assert error.details == {"size": 1001, "limit": 1000}
    assert frames(calls) == []


def test_a_waiting_payload_is_refused_when_the_master_turns_out_to_take_less() -> None:
    calls = Calls()
    large, small = Asked(body=b"x" * 1001), Asked()
    assert calls.submit(large) is None and calls.submit(small) is None
    assert [(call, type(error)) for call, error in calls.opened(TOKEN, 1, False, 1000, 0.0)] == [
        (large, PayloadTooLarge)
    ]
    assert [head.number for head in frames(calls)] == [1]


def test_giving_up_what_was_never_sent_leaves_what_was_sent() -> None:
    calls = opened(window=1)
    sent, waiting = submitted(calls, 2)
    frames(calls)
    failure = Unavailable("x")
    (withdrawn,) = submitted(calls, 1)
    calls.cancel(withdrawn)
    assert calls.abandon(failure, sent=False) == [(waiting, failure)]
    assert calls.abandon(failure) == [(sent, failure)]
    assert len(calls) == 0


def test_what_a_master_gives_back_is_sent_anew_under_another_number() -> None:
    calls = opened()
    first, second = submitted(calls, 2)
    frames(calls)
    assert calls.answered(1, 1, 60) is first
    calls.again(first)
    calls.closed()
    calls.opened(TOKEN, 4, False, 1000, 1.0)
    again = frames(calls)
    assert [(head.number, head.epoch, bool(head.flags & wire.RESENT)) for head in again] == [
        (2, 3, True),
        (3, 4, False),
    ]
    assert calls.answered(3, 1, 60) is first
    assert calls.answered(2, 2, 60) is second


def test_what_a_master_gave_back_may_be_given_up_before_its_turn() -> None:
    calls = opened()
    (call,) = submitted(calls, 1)
    frames(calls)
    assert calls.answered(1, 1, 60) is call
    calls.again(call)
    calls.cancel(call)
    assert frames(calls) == [] and not calls.under_way


def test_what_a_stopping_master_never_heard_is_sent_anew_in_its_order() -> None:
    calls = opened()
    asked = submitted(calls, 4)
    frames(calls)
    calls.heard_upto(2)
    calls.closed()
    calls.opened(TOKEN, 4, False, 1000, 1.0)
    assert [(head.number, head.epoch) for head in frames(calls)] == [(1, 3), (2, 3), (5, 4), (6, 4)]
    assert [calls.answered(number, number - 4, 60) for number in (5, 6)] == asked[2:]
    assert len(calls) == 2


def test_what_an_earlier_master_was_sent_is_not_sent_anew_because_a_later_one_never_heard_it() -> None:
    calls = opened()
    submitted(calls, 1)
    frames(calls)
    calls.closed()
    calls.opened(TOKEN, 4, False, 1000, 1.0)
    calls.heard_upto(0)
    calls.closed()
    calls.opened(TOKEN, 5, False, 1000, 2.0)
    older = wire.RESENT | wire.OLDER
    assert [(head.number, head.epoch, head.flags) for head in frames(calls)] == [(1, 3, older)]
    calls.closed()
    calls.opened(TOKEN, 5, True, 1000, 3.0)
    assert [head.flags for head in frames(calls)] == [older], "whoever had it first is gone all the same"
