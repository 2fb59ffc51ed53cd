"""A process that is stopped, or busy for long, is given nothing more that another could do."""

from core_rig import Rig

from rota.common.errors import NOT_STARTED
from rota.common.messages import Recall, Recalled
from rota.master.core.pool import STALL_S, Slot


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
