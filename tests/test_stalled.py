"""A process that is stopped, or busy for long, is given nothing more that another could do."""

import pytest
from core_rig import SESSION, Rig

from rota.common import wire
from rota.common.errors import NOT_STARTED
from rota.common.messages import ROW_DONE, Recall, Recalled, Row, Started
from rota.master.core.pool import STALL_S, Slot
from rota.master.core.recalls import RECALL_SILENT_S


def stopped(rig: Rig) -> tuple[Slot, Slot]:
    """A stopped process and one that serves: what the first was given was taken back."""
    first, second = rig.pool_of(2, credit=4)
    for number in (1, 2, 3, 4):
        rig.request(number)
    for delivery in (1, 2):
        rig.reply(second, delivery)
    rig.after(0.06)
    rig.tell(first.node, Recalled(first.incarnation, 3, 0))
    for delivery in (3, 4):
        rig.reply(second, delivery)
    return first, second


def test_a_process_that_started_nothing_of_what_it_had_is_given_nothing_more() -> None:
    rig = Rig()
    first, second = stopped(rig)
    for number in range(5, 9):
        rig.request(number)
    rig.after(1.0)
    assert not first.inflight and len(second.inflight) == 4
    assert rig.out.cuts == [first.source], "a connection that lost its frames would lose them for ever"


def test_it_is_given_something_again_as_soon_as_it_has_a_new_connection() -> None:
    rig = Rig()
    first, _ = stopped(rig)
    rig.process_hello(first.incarnation, b"again", received_upto=2)
    rig.request(5)
    rig.request(6)
    assert len(first.inflight) == 1


def test_it_is_given_something_again_as_soon_as_it_answers() -> None:
    rig = Rig()
    first, _ = stopped(rig)
    rig.reply(first, 1, code=NOT_STARTED)  # of a delivery that was taken back: it runs again
    rig.after(0.1)
    rig.request(5)
    rig.request(6)
    assert len(first.inflight) == 1


def test_it_is_tried_again_after_a_while() -> None:
    rig = Rig()
    first, _ = stopped(rig)
    rig.after(STALL_S + 1)
    rig.request(5)
    rig.request(6)
    assert len(first.inflight) == 1


def test_a_request_that_is_alone_at_a_stopped_process_is_taken_back_too() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=4)
    rig.request(1)
    rig.after(0.6)
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 1, since=1)]
    rig.tell(first.node, Recalled(first.incarnation, 2, 0))
    assert list(second.inflight) == [1]


def test_a_process_that_is_asked_again_is_given_no_more_than_it_was_cut_to_until_it_answers() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=4)
    slot.pool.stall(slot, 2, rig.now)
    slot.pool.stall(slot, 4, rig.now + 1)
    assert slot.limit == 2
    rig.request(1)
    rig.after(0.1)
    rig.reply(slot, 1)
    slot.pool.stall(slot, 3, rig.now)
    assert slot.limit == 3


def done(slot: Slot, *numbers: int) -> list[Row]:
    """Rows of its page with the replies."""
    made = []
    for number in numbers:
        reply = wire.head(wire.REPLY, slot.token, 1, number=number, upto=number) + b"from the page"
        made.append(Row(number, ROW_DONE, SESSION, slot.inflight[number].number, 1, reply))
    return made


def test_a_request_that_is_alone_at_a_stopped_process_is_taken_back_while_all_others_are_busy() -> None:
    """The next that is free begins it."""
    rig = Rig()
    first, second = rig.pool_of(2, credit=1)
    rig.request(1)
    rig.request(2)
    rig.after(0.6)
    assert [recall.incarnation for recall in rig.heard("n1", Recall)] == [first.incarnation, second.incarnation]
    rig.tell(first.node, Recalled(first.incarnation, 2, 0))
    rig.reply(second, 1)
    assert [request.number for request in second.inflight.values()] == [1]


def test_a_request_that_is_alone_at_a_stopped_process_is_taken_back_when_there_is_another() -> None:
    rig = Rig()
    (first,) = rig.pool_of(1)
    rig.request(1)
    rig.after(2.0)
    assert not rig.heard("n1", Recall), "nobody could begin it"
    second = rig.process(rig.agent("n2"))
    rig.after(0.6)
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 1, since=1)]
    rig.tell(first.node, Recalled(first.incarnation, 2, 0))
    assert list(second.inflight) == [1]


def test_what_is_alone_is_looked_for_when_the_first_of_them_is_due_and_not_before() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    sent_at = rig.now
    rig.now += 0.3
    rig.request(2)
    rig.after(0.1)
    assert first.pool.look_silent_at == sent_at + RECALL_SILENT_S
    rig.after(0.16)
    assert [recall.incarnation for recall in rig.heard("n1", Recall)] == [first.incarnation]


def test_nothing_is_asked_back_for_nobody() -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.request(1, timeout_ms=100)
    rig.after(2.0)
    assert not rig.heard("n1", Recall)


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_nothing_is_taken_back_for_a_process_that_is_given_nothing(paused: bool, parked: bool) -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in range(1, 5 if parked else 2):
        rig.request(number)
    for delivery in list(second.inflight):
        rig.reply(second, delivery)
    if paused:
        rig.verb("pause", service="orders")
    else:
        rig.fleet.processes.bye(second, rig.now)
    rig.after(1.0)
    assert not any(recall.upto for recall in rig.heard("n1", Recall)) and len(first.inflight) == (2 if parked else 1)


def test_what_is_parked_is_taken_back_as_soon_as_another_has_nothing_to_do() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.after(0.06)
    rig.tell(first.node, Recalled(first.incarnation, 1, 1))
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.04)
    assert rig.heard("n1", Recall)[2:] == [Recall(first.incarnation, 2, since=1)]


def test_what_a_stopped_process_that_runs_many_at_once_has_not_begun_is_taken_back_too() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=8)
    for slot in (first, second):
        slot.concurrency = 4
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.after(0.4)
    assert not rig.heard("n1", Recall), "of many at once none waits behind another"
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.2)
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 2, since=1)]
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    assert (list(first.inflight), list(second.inflight)) == ([1], [3])
    for number in (5, 6, 7):
        rig.request(number)
    assert list(first.inflight) == [1], "it would not begin these either"
    rig.after(2.0)
    assert len([each for each in rig.heard("n1", Recall) if each.incarnation == first.incarnation]) == 1
    rig.reply(first, 1)
    rig.after(0.1)
    rig.request(8)
    assert len(first.inflight) == 1


def test_what_is_given_to_it_beside_one_that_was_asked_for_is_asked_for_too() -> None:
    """A WebSocket that it runs for hours does not hide what it was given later, and has not begun."""
    rig = Rig()
    first, second = rig.pool_of(2)
    for slot in (first, second):
        slot.concurrency = 4
        slot.pool.adopt(slot)
    rig.request(1)
    rig.after(0.6)
    rig.tell(first.node, Recalled(first.incarnation, 2, 1))
    rig.request(2)
    rig.request(3)
    assert (list(first.inflight), list(second.inflight)) == ([1, 2], [1])
    rig.after(0.6)
    assert rig.heard("n1", Recall)[1] == Recall(first.incarnation, 2, since=1)
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    assert (list(first.inflight), list(second.inflight)) == ([1], [1, 2])


def test_a_question_that_was_lost_with_the_agents_connection_is_asked_again() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1)
    rig.after(0.6)
    running = [Started(slot.incarnation, "orders", b"t", slot.pid) for slot in (first, second)]
    rig.agent(processes=running)
    assert rig.heard("n1", Recall) == [Recall(first.incarnation, 1, since=1)] * 2
    rig.core.stop(rig.now)
    rig.agent(processes=running)
    assert not rig.fleet.recalls.settled()
    rig.tell(first.node, Recalled(first.incarnation, 2, 0))
    assert rig.fleet.recalls.settled() and not first.inflight


def test_what_is_left_alone_at_a_stopped_process_when_its_replies_were_handed_in_is_taken_back_too() -> None:
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in (1, 2, 3, 4):
        rig.request(number)
    rig.after(0.06)
    assert [recall.upto for recall in rig.heard("n1", Recall)] == [0, 0], "none is idle: only what is done is asked for"
    rig.tell(first.node, Recalled(first.incarnation, 1, 1, done(first, 1)))
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.6)
    assert rig.heard("n1", Recall)[2:] == [Recall(first.incarnation, 2, since=2)]
    rig.tell(first.node, Recalled(first.incarnation, 3, 1))
    assert list(second.inflight) == [3]


def test_what_a_stopped_process_is_given_for_the_replies_that_were_handed_in_is_taken_back_too() -> None:
    """It had done all that it had, and has not sent the last of it."""
    rig = Rig()
    first, second = rig.pool_of(2, credit=2)
    for number in range(1, 6):
        rig.request(number)
    rig.after(0.06)
    rig.tell(first.node, Recalled(first.incarnation, 1, 2, done(first, 1, 2)))
    assert list(first.inflight) == [3] and first.progress_at == rig.now
    rig.reply(second, 1)
    rig.reply(second, 2)
    rig.after(0.6)
    assert rig.heard("n1", Recall)[2:] == [Recall(first.incarnation, 3, since=3)]
    rig.tell(first.node, Recalled(first.incarnation, 4, 2))
    assert list(second.inflight) == [3]


def test_a_long_handler_is_asked_once_and_left_in_peace() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2, credit=4)
    rig.request(1)
    rig.after(0.6)
    rig.tell(first.node, Recalled(first.incarnation, 2, 1))  # it had started
    rig.after(3)
    assert len(rig.heard("n1", Recall)) == 1 and list(first.inflight) == [1]
    rig.reply(first, 1, sequence=1)
    rig.after(0.1)
    assert not first.pool.stalled


def test_a_process_that_runs_many_at_once_is_given_more_while_one_of_them_lasts() -> None:
    rig = Rig()
    (only,) = rig.pool_of(1)
    only.concurrency = 4
    only.pool.adopt(only)
    rig.request(1)
    rig.after(0.6)  # a WebSocket, on which nothing is said
    for number in range(2, 7):
        rig.request(number)
    assert list(only.inflight) == [1, 2, 3, 4]
