"""Streams at the master: frames find the other end, nobody sends more than was granted, answers are never mixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_rig import SESSION, Rig, held

from rota.common import errors, wire
from rota.common.messages import ROW_RUNNING, Exited, Recall, Recalled, Row, Started
from rota.common.streams import WINDOW, Chunk, Credit, chunk_of, credit_of
from rota.master.core import records
from rota.master.core.pool import Slot

MAYBE = errors.MaybeExecuted.code


class Streaming:
    """A rig whose request 1 may be streamed, at work on a process."""

    def __init__(self, target: str = "orders.again", slots: int = 2, **settings: Any) -> None:
        self.rig = Rig(**settings)
        self.slots = self.rig.pool_of(slots)
        self.rig.request(1, target, flags=wire.MORE)
        self.slot, self.number, self.delivery = self.rig.deliveries[0]

    def from_process(self, slot: Slot, frame: bytes) -> None:
        self.rig.core.backend(slot.route, frame, self.rig.now)
        self.rig.flush()

    def answer(self, offset: int, data: bytes, more: bool = True) -> None:
        chunk = Chunk(offset, data, more)
        self.from_process(self.slot, chunk.frame(self.slot.token, self.number, epoch=1, attempt=1))

    def grant(self, credit: Credit, slot: Slot | None = None) -> None:
        """The process asks for more of the upload."""
        slot = slot or self.slot
        self.from_process(slot, credit.frame(slot.token, next(iter(slot.inflight), 99)))

    def from_client(self, said: Chunk | Credit, number: int = 1) -> None:
        session = self.rig.dispatch.sessions[SESSION]
        self.rig.core.frontend(session.route, said.frame(session.token, number), self.rig.now)
        self.rig.flush()

    def to_client(self, kind: int) -> list[bytes]:
        return [answer.frame for answer in self.rig.answers if answer.kind == kind]

    def to_process(self, kind: int, slot: Slot | None = None) -> list[bytes]:
        slot = slot or self.slot
        return [frame for to, _, frame in self.rig.deliveries if to is slot and wire.parse(frame)[3] == kind]


class Resent:
    """A second master with two processes of one node; the first gave its caller's request 1 to one of them, and that
    has not come back yet. The caller is back, and has received so many bytes of the answer.
    """

    def __init__(self, received: int) -> None:
        before = records.Restored()
        before.read(records.present("n1", True))
        self.rig = Rig(epoch=2, restored=before)
        named = [Started(f"n1.b1.{number}", "orders", b"t", number) for number in (1, 2)]
        self.node = self.rig.agent(processes=named)
        self.rig.process_hello("n1.b1.1")
        self.rig.client(epoch=1)
        self.rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT | wire.OLDER, epoch=1)
        session = self.rig.dispatch.sessions[SESSION]
        credit = Credit(WINDOW + received, received, True)
        self.rig.core.frontend(session.route, credit.frame(session.token, 1), self.rig.now)
        self.rig.after(0.05)

    def back(self) -> None:
        self.rig.process_hello("n1.b1.2", received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
        self.rig.after(0.05)

    def sent(self) -> list[tuple[str, int]]:
        """To which process, of which kind."""
        return [(slot.incarnation, wire.parse(frame)[3]) for slot, _, frame in self.rig.deliveries]


def test_a_process_learns_that_its_caller_takes_streams() -> None:
    assert wire.parse_head(Streaming().delivery).flags & wire.MORE
    rig = Rig()
    rig.pool_of(1)
    rig.request(1)
    assert not wire.parse_head(rig.deliveries[0][2]).flags & wire.MORE


def test_chunks_of_an_answer_reach_the_caller_in_order_and_the_answer_ends_them() -> None:
    on = Streaming()
    on.answer(0, b"one")
    on.answer(3, b"two", more=False)
    on.from_client(Credit(WINDOW, 7, False))
    on.rig.reply(on.slot, on.number, body=b"over")
    frames = on.to_client(wire.CHUNK)
    session = on.rig.dispatch.sessions[SESSION]
    assert [wire.parse_head(frame).token for frame in frames] == [session.token] * 2
    assert [wire.parse_head(frame).number for frame in frames] == [1, 1]
    assert [chunk_of(wire.parse(frame), frame) for frame in frames] == [(0, b"one", True), (3, b"two", False)]
    assert [(head.epoch, head.code) for head in map(wire.parse_head, frames)] == [(1, 1)] * 2
    assert on.rig.answers[-1].kind == wire.ANSWER and on.rig.answers[-1].body == b"over"
    (credit,) = on.to_process(wire.CREDIT)
    assert credit_of(wire.parse(credit), credit) == (WINDOW, 7, False)


def test_an_upload_goes_as_far_as_its_process_granted() -> None:
    on = Streaming()
    on.from_client(Chunk(0, b"too early", True))
    assert on.to_process(wire.CHUNK) == []
    on.grant(Credit(10, 0, True))
    (credit,) = on.to_client(wire.CREDIT)
    assert credit_of(wire.parse(credit), credit) == (10, 0, True)
    on.from_client(Chunk(0, bytes(10), True))
    on.from_client(Chunk(10, b"x", False))
    (chunk,) = on.to_process(wire.CHUNK)
    head = wire.parse_head(chunk)
    assert (head.number, head.token) == (on.number, on.slot.token)
    assert on.rig.dispatch.counters["stray chunks"] == 2


def test_what_was_not_granted_does_not_reach_the_caller() -> None:
    on = Streaming()
    on.answer(WINDOW - 2, b"xxx")
    assert on.to_client(wire.CHUNK) == []
    assert on.rig.dispatch.counters["bad frames"] == 1
    on.from_client(Credit(WINDOW + 1, 0, False))
    on.answer(WINDOW - 2, b"xxx")
    assert len(on.to_client(wire.CHUNK)) == 1


@pytest.mark.parametrize("credit", [Credit(1 << 40, 0, False), Credit(0, 50, False)])
def test_nobody_can_grant_without_measure(credit: Credit) -> None:
    on = Streaming()
    on.from_client(credit)
    assert on.to_process(wire.CREDIT) == []
    assert on.rig.dispatch.counters["bad frames"] == 1


def test_an_answer_that_has_begun_is_not_made_again() -> None:
    on = Streaming()
    on.answer(0, b"half of ")
    on.rig.exited(on.slot, started_upto=1, rows=[(1, 1)])
    assert on.rig.codes() == {1: MAYBE}
    assert "its answer had begun" in on.rig.answers[-1].cause


def test_before_its_first_chunk_a_lost_attempt_is_made_again_and_its_upload_begins_anew() -> None:
    on = Streaming()
    on.grant(Credit(100, 0, True))
    on.from_client(Chunk(0, bytes(100), True))
    on.rig.exited(on.slot, started_upto=1, rows=[(1, 1)])
    (other,) = [slot for slot in on.slots if slot is not on.slot]
    assert len(on.to_process(wire.DELIVER, other)) == 1
    on.grant(Credit(50, 0, True), other)
    assert [credit_of(wire.parse(f), f) for f in on.to_client(wire.CREDIT)] == [(100, 0, True), (50, 0, True)]
    on.from_client(Chunk(0, bytes(50), True))
    assert len(on.to_process(wire.CHUNK, other)) == 1


def test_what_was_under_way_to_a_lost_attempt_does_not_reach_the_next_before_that_asks() -> None:
    """It would break the rules of streams there: nothing was granted yet."""
    on = Streaming()
    on.grant(Credit(100, 0, True))
    on.rig.exited(on.slot, started_upto=1, rows=[(1, 1)])
    (other,) = [slot for slot in on.slots if slot is not on.slot]
    on.from_client(Chunk(0, bytes(100), True))
    assert on.to_process(wire.CHUNK, other) == []
    assert on.rig.dispatch.counters["stray chunks"] == 1


def test_a_torn_stream_says_to_its_caller_nothing_that_a_lost_attempt_asked_for() -> None:
    on = Streaming()
    on.grant(Credit(100, 0, True))
    on.rig.exited(on.slot, started_upto=1, rows=[(1, 1)])
    session = on.rig.dispatch.sessions[SESSION]
    on.rig.dispatch.streams.unsent(list(session.open.values()))
    on.rig.after(0.05)
    assert len(on.to_client(wire.CREDIT)) == 1


def test_an_answer_that_has_begun_has_no_deadline() -> None:
    on = Streaming()
    on.rig.request(2, timeout_ms=1000, flags=wire.MORE)
    on.answer(0, b"event")
    on.rig.after(40.0)
    assert on.rig.codes() == {2: errors.Timeout.code}
    on.rig.reply(on.slot, on.number)
    assert on.rig.codes()[1] == errors.OK


def test_a_caller_that_has_begun_an_answer_that_nobody_has_is_served_as_any_other() -> None:
    on = Streaming(slots=1)
    on.rig.request(2, flags=wire.MORE)
    on.from_client(Credit(WINDOW + 5, 5, False), 2)
    on.rig.reply(on.slot, on.number)
    assert on.rig.where() == [(on.slot.incarnation, 1), (on.slot.incarnation, 2)]


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_stream_is_told_to_its_process(begun: bool) -> None:
    on = Streaming()
    if begun:
        on.answer(0, b"event")
    on.rig.say(wire.CANCEL, 1)
    (cancel,) = on.to_process(wire.CANCEL)
    assert wire.parse_head(cancel).number == on.number
    assert on.rig.codes() == {1: errors.Cancelled.code}
    on.answer(5, b"more")  # it may not have heard it
    assert len(on.to_process(wire.CANCEL)) == 2
    assert len(on.to_client(wire.CHUNK)) == int(begun)


def test_a_deadline_before_the_first_chunk_is_told_to_its_process() -> None:
    on = Streaming()
    on.rig.after(31.0)
    assert on.rig.codes() == {1: errors.Timeout.code}
    assert len(on.to_process(wire.CANCEL)) == 1


def test_a_call_that_is_no_stream_gets_no_chunks() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.core.backend(slot.route, Chunk(0, b"x", True).frame(slot.token, 1), rig.now)
    rig.flush()
    assert rig.answers == [] and rig.dispatch.counters["bad frames"] == 1


def test_chunks_that_a_connection_did_not_take_are_asked_for_again() -> None:
    on = Streaming()
    on.grant(Credit(100, 0, True))
    on.answer(0, b"lost")
    session = on.rig.dispatch.sessions[SESSION]
    on.rig.dispatch.answer_blocked(session, on.to_client(wire.CHUNK), False)
    on.rig.after(0.05)
    credits = [credit_of(wire.parse(frame), frame) for frame in on.to_process(wire.CREDIT)]
    assert credits == [(WINDOW, 0, True)]
    assert [credit_of(wire.parse(f), f) for f in on.to_client(wire.CREDIT)] == [(100, 0, True)] * 2


def test_chunks_never_pass_an_answer_that_waits_for_the_connection() -> None:
    on = Streaming()
    on.rig.request(2, "orders.quote")
    on.rig.reply(on.rig.deliveries[1][0], on.rig.deliveries[1][1])
    session = on.rig.dispatch.sessions[SESSION]
    on.rig.dispatch.answer_blocked(session, on.to_client(wire.ANSWER), False)
    before = len(on.rig.answers)
    on.answer(0, b"behind")
    assert len(on.rig.answers) == before
    on.rig.after(0.05)
    assert on.rig.answers[before].kind == wire.ANSWER
    assert on.to_process(wire.CREDIT)


def test_a_stream_frame_that_no_process_took_leaves_the_request_where_it_is() -> None:
    on = Streaming()
    on.from_client(Credit(WINDOW + 5, 5, False))
    on.rig.dispatch.losses.undeliverable(on.slot, on.to_process(wire.CREDIT), False, on.rig.now)
    assert on.slot.inflight
    on.rig.after(0.05)
    assert len(on.to_process(wire.CREDIT)) == 2


def test_what_an_older_master_had_streamed_goes_on_when_its_caller_is_back() -> None:
    rig = Rig(epoch=2)
    node = rig.agent(epoch=1)
    slot = rig.process(node, received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    chunk = Chunk(500, b"x", True).frame(slot.token, 7, epoch=1, attempt=1)
    rig.core.backend(slot.route, chunk, rig.now)
    rig.flush()
    assert not [frame for _, _, frame in rig.deliveries if wire.parse(frame)[3] == wire.CANCEL]
    rig.client(epoch=1)
    rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT | wire.OLDER, epoch=1)
    session = rig.dispatch.sessions[SESSION]
    rig.core.frontend(session.route, Credit(WINDOW + 500, 500, True).frame(session.token, 1), rig.now)
    rig.core.backend(slot.route, chunk, rig.now)
    rig.flush()
    (credit,) = [frame for _, _, frame in rig.deliveries if wire.parse(frame)[3] == wire.CREDIT]
    assert credit_of(wire.parse(credit), credit) == (WINDOW + 500, 500, True)
    assert wire.parse_head(credit).number == 7
    assert [answer.kind for answer in rig.answers] == [wire.CHUNK]


def test_of_two_attempts_that_run_their_caller_is_sent_one_and_sees_when_it_is_the_other() -> None:
    """A node was cut off from an older master, which had the request run again; then this master took over."""
    rig = Rig(epoch=2)
    node = rig.agent(epoch=1)
    first = rig.process(node, 1, received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    second = rig.process(node, 2, received_upto=3, started_upto=3, held=[held(3, 1, epoch=1)])

    def both_go_on(offset: int) -> None:
        for slot, number, attempt in ((first, 7, 1), (second, 3, 2)):
            chunk = Chunk(offset, b"%d" % attempt, True).frame(slot.token, number, epoch=1, attempt=attempt)
            rig.core.backend(slot.route, chunk, rig.now)
        rig.flush()

    def came() -> list[tuple[int, int, bytes]]:
        """Of which attempt, at which offset."""
        return [(each.code, wire.parse(each.frame)[10], each.body) for each in rig.answers if each.kind == wire.CHUNK]

    both_go_on(0)
    rig.client(epoch=1)
    rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT | wire.OLDER, epoch=1)
    session = rig.dispatch.sessions[SESSION]
    rig.core.frontend(session.route, Credit(WINDOW, 0, True).frame(session.token, 1), rig.now)
    both_go_on(0)
    both_go_on(1)
    assert came() == [(2, 0, b"2"), (2, 1, b"2")]
    rig.exited(second, started_upto=3, rows=[(3, ROW_RUNNING)])
    rig.after(0.3)
    both_go_on(2)
    assert came()[2:] == [(1, 2, b"1")], "which its caller gives up, for it is of another attempt"
    rig.say(wire.CANCEL, 1)
    rig.after(0.05)
    last = [(slot, wire.parse(frame)[3]) for slot, _, frame in rig.deliveries][-1]
    assert last == (first, wire.CANCEL)


def test_a_process_that_is_back_hears_what_it_was_granted() -> None:
    """The credit may have gone with its connection; its caller noticed nothing and will not say it again."""
    on = Streaming()
    on.answer(0, b"one")
    on.from_client(Credit(WINDOW + 3, 3, False))
    here = held(on.number, 1)
    on.rig.process_hello(on.slot.incarnation, route=b"again", received_upto=on.number, started_upto=1, held=[here])
    on.rig.after(0.05)
    assert [credit_of(wire.parse(frame), frame) for frame in on.to_process(wire.CREDIT)][-1] == (WINDOW + 3, 3, True)


def test_a_process_that_is_back_hears_again_that_nobody_waits() -> None:
    on = Streaming()
    on.rig.say(wire.CANCEL, 1)
    on.rig.process_hello(on.slot.incarnation, b"again", received_upto=1, started_upto=1, held=[held(1, 1)], hellos=2)
    on.rig.after(0.05)
    assert len(on.to_process(wire.CANCEL)) == 2


def test_a_stream_of_an_older_master_whose_caller_never_comes_is_given_up() -> None:
    rig = Rig(epoch=2)
    node = rig.agent(epoch=1)
    rig.process(node, received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    rig.after(29.0)
    assert rig.deliveries == []
    rig.after(2.0)
    assert [wire.parse(frame)[3] for _, _, frame in rig.deliveries] == [wire.CANCEL]


def test_a_stream_of_an_older_master_that_its_caller_has_given_up_is_cancelled_at_once() -> None:
    rig = Rig(epoch=2)
    node = rig.agent(epoch=1)
    rig.process(node, received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    rig.client(epoch=1)
    rig.say(wire.CANCEL, number=1)
    rig.after(0.05)
    assert [wire.parse(frame)[3] for _, _, frame in rig.deliveries] == [wire.CANCEL]


def test_so_it_is_where_its_caller_is_back_before_its_process() -> None:
    before = records.Restored()
    before.read(records.present("n1", True))
    rig = Rig(epoch=2, restored=before)
    rig.client(epoch=1)
    rig.say(wire.CANCEL, number=1)
    rig.agent(processes=[Started("n1.b1.1", "orders", b"t", 1)])
    rig.process_hello("n1.b1.1", received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    rig.after(0.05)
    assert [wire.parse(frame)[3] for _, _, frame in rig.deliveries] == [wire.CANCEL]


@pytest.mark.parametrize("end", [wire.CANCEL, wire.BYE, None])
def test_so_it_is_where_its_caller_came_and_went_before_its_process(end: int | None) -> None:
    on = Resent(received=500)
    if end is not None:
        on.rig.say(end, number=1)
    else:  # it was waited for as long as processes are
        on.rig.after(6.0)
        assert on.rig.codes() == {1: MAYBE}
    on.back()
    assert on.sent() == [("n1.b1.2", wire.CANCEL)]


def test_a_stream_that_nobody_waits_for_is_cancelled_though_an_older_attempt_of_it_runs_elsewhere() -> None:
    """An older master's attempt, whose process comes back only after this one had the request run again."""
    on = Streaming()
    on.rig.after(31.0)
    assert on.rig.codes() == {1: errors.Timeout.code}
    other = on.rig.process(on.slot.node, 3, received_upto=7, started_upto=7, held=[held(7, 1, epoch=9)])
    assert len(on.to_process(wire.CANCEL)) == 1
    on.grant(Credit(10, 0, True))
    assert len(on.to_process(wire.CANCEL)) == 2
    here = held(on.number, 1)
    on.rig.process_hello(on.slot.incarnation, b"again", received_upto=1, started_upto=1, held=[here], hellos=2)
    on.rig.after(0.05)
    assert len(on.to_process(wire.CANCEL)) == 3 and on.to_process(wire.CANCEL, other) == []


def test_a_caller_that_is_back_before_its_process_finds_its_stream_again() -> None:
    before = records.Restored()
    before.read(records.present("n1", True))
    rig = Rig(epoch=2, restored=before)
    rig.client(epoch=1)
    rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT | wire.OLDER, epoch=1)
    session = rig.dispatch.sessions[SESSION]
    rig.core.frontend(session.route, Credit(WINDOW + 500, 500, True).frame(session.token, 1), rig.now)
    rig.agent(processes=[Started("n1.b1.1", "orders", b"t", 1)])
    rig.process_hello("n1.b1.1", received_upto=7, started_upto=7, held=[held(7, 1, epoch=1)])
    rig.after(0.05)
    (credit,) = [frame for _, _, frame in rig.deliveries]
    assert credit_of(wire.parse(credit), credit) == (WINDOW + 500, 500, True)


def test_an_older_masters_answer_that_has_begun_waits_for_its_process() -> None:
    """Another one would begin it anew: the caller could only give it up."""
    on = Resent(received=500)
    on.rig.after(1.0)
    assert on.sent() == [] and on.rig.codes() == {}
    on.back()
    assert on.sent() == [("n1.b1.2", wire.CREDIT)]


def test_an_older_masters_answer_that_has_begun_is_not_made_again() -> None:
    on = Resent(received=500)
    on.rig.after(10.0)
    assert on.sent() == [] and on.rig.codes() == {1: MAYBE}


@pytest.mark.parametrize("received", [0, 500])
def test_what_was_lost_before_its_caller_came_waits_for_how_much_of_an_answer_that_has(received: int) -> None:
    rig = Rig(epoch=2)
    rows = [Row(7, ROW_RUNNING, SESSION, 1, 1)]
    lost = Exited("n1.b1.9", "orders", -9, "was killed by signal 9", 7, rows, "")
    rig.process(rig.agent(epoch=1, exits=[lost]))
    rig.client(epoch=1)
    rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT | wire.OLDER, epoch=1)
    assert not rig.deliveries and not rig.answers
    session = rig.dispatch.sessions[SESSION]
    rig.core.frontend(session.route, Credit(WINDOW + received, received, True).frame(session.token, 1), rig.now)
    rig.after(0.5)
    assert rig.codes() == ({1: MAYBE} if received else {})
    assert [wire.parse_head(frame).below for _, _, frame in rig.deliveries[:1]] == ([] if received else [2])


def test_nor_is_one_whose_process_died() -> None:
    on = Resent(received=500)
    rows = [Row(7, ROW_RUNNING, SESSION, 1, 1)]
    on.rig.tell(on.node, Exited("n1.b1.2", "orders", -9, "was killed by signal 9", 7, rows, ""))
    on.rig.after(0.5)
    assert on.sent() == [] and on.rig.codes() == {1: MAYBE}


def test_an_older_masters_answer_that_has_begun_has_no_deadline() -> None:
    """Its next piece may take hours."""
    on = Resent(received=500)
    on.back()
    for _ in range(10):
        on.rig.say(wire.ACK)
        on.rig.after(30.0)
    assert on.rig.codes() == {}


def test_what_has_not_begun_is_run_again_at_once_and_the_older_attempt_is_given_up() -> None:
    on = Resent(received=0)
    assert on.sent() == [("n1.b1.1", wire.DELIVER)]
    on.back()
    assert on.sent()[1:] == [("n1.b1.2", wire.CANCEL)]


def test_an_answer_that_has_begun_ends_when_its_caller_is_back_and_does_not_ask_for_it() -> None:
    on = Streaming()
    on.rig.request(2, flags=wire.MORE)
    on.answer(0, b"one")
    other, delivery, _ = on.rig.deliveries[1]
    on.from_process(other, Chunk(0, b"two", True).frame(other.token, delivery, epoch=1, attempt=1))
    on.rig.client(route=b"c2")
    on.rig.request(2, route=b"c2", flags=wire.MORE | wire.RESENT)
    on.rig.after(4.0)
    assert on.rig.codes() == {}
    on.rig.after(1.5)
    assert on.rig.codes() == {1: errors.Cancelled.code}
    assert len(on.to_process(wire.CANCEL)) == 1 and on.to_process(wire.CANCEL, other) == []


def test_the_stream_of_a_caller_that_is_gone_does_not_hold_its_process() -> None:
    on = Streaming()
    on.answer(0, b"one")
    on.rig.after(60.0)
    on.rig.core.frontend(
        on.rig.dispatch.sessions[SESSION].route,
        wire.head(wire.ACK, on.rig.dispatch.sessions[SESSION].token, 1),
        on.rig.now,
    )
    on.rig.after(89.0)
    assert on.to_process(wire.CANCEL) == []
    on.rig.after(2.0)
    assert len(on.to_process(wire.CANCEL)) == 1


def test_the_stream_of_a_caller_whose_connection_is_gone_is_given_up_as_soon_as_the_caller_has() -> None:
    on = Streaming()
    on.answer(0, b"one")
    on.rig.after(6.0)
    assert on.to_client(wire.PROBE)  # the transport finds out whether it is still there
    on.rig.dispatch.route_gone(on.rig.dispatch.sessions[SESSION])
    on.rig.after(29.0)
    assert on.to_process(wire.CANCEL) == []
    on.rig.after(2.0)
    assert len(on.to_process(wire.CANCEL)) == 1


def test_a_caller_that_is_back_in_time_keeps_its_stream() -> None:
    on = Streaming()
    on.answer(0, b"one")
    on.rig.dispatch.route_gone(on.rig.dispatch.sessions[SESSION])
    on.rig.after(29.0)
    on.rig.client(route=b"another")
    on.rig.request(1, "orders.again", flags=wire.MORE | wire.RESENT, route=b"another")
    on.rig.after(20.0)
    assert on.to_process(wire.CANCEL) == []


def test_a_master_that_slept_does_not_take_its_callers_for_gone() -> None:
    on = Streaming()
    on.answer(0, b"one")
    on.rig.now += 200.0
    on.rig.after(1.0)
    assert on.to_process(wire.CANCEL) == []


def test_what_a_client_says_of_a_stream_that_is_over_or_never_was_is_passed_over() -> None:
    on = Streaming()
    on.rig.reply(on.slot, on.number)
    on.rig.request(2)
    for number in (1, 2, 3):
        on.from_client(Credit(WINDOW, 0, False), number)
        on.from_client(Chunk(0, b"late", False), number)
    assert not on.to_process(wire.CREDIT) and not on.to_process(wire.CHUNK)
    assert on.rig.dispatch.counters["bad frames"] == 2, "of the one that takes no streams"


def test_a_process_that_did_not_take_its_cancel_is_told_again() -> None:
    on = Streaming()
    on.answer(0, b"begun")
    on.rig.say(wire.CANCEL, 1)
    (frame,) = on.to_process(wire.CANCEL)
    on.rig.core.undeliverable(on.slot, [frame], False, on.rig.now)
    on.rig.after(0.1)
    assert len(on.to_process(wire.CANCEL)) == 2


def test_what_is_parked_behind_a_stream_is_taken_back_however_busily_that_goes_on() -> None:
    on = Streaming(slots=2)
    on.rig.default = replace(on.rig.default, credit=2)
    on.rig.fleet.reconfigure()
    (other,) = (slot for slot in on.slots if slot is not on.slot)
    for number in (2, 3):
        on.rig.request(number)
    on.rig.reply(other, 1)
    assert list(on.slot.inflight) == [1, 2], "parked behind it"
    for piece in range(50):
        on.answer(10 * piece, bytes(10))
        on.rig.after(0.01)
    assert on.rig.heard("n1", Recall) == [Recall(on.slot.incarnation, 2, since=1)]
    on.rig.tell(on.slot.node, Recalled(on.slot.incarnation, 3, 1))
    assert list(on.slot.inflight) == [1] and list(other.inflight) == [2]
