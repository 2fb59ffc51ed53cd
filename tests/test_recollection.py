"""What an older master was asked and never ran is run; what may have run is not: the rule of docs/PROTOCOL.md, "What
never ran", with a master's core whose peers say exactly what a test tells them to.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from core_rig import SESSION, Rig, held

from rota.client.ages import GROWTH, MARK_S, Ages
from rota.common import errors, wire
from rota.common.errors import NOT_STARTED, MaybeExecuted
from rota.common.limits import AGES_MAX
from rota.common.messages import Exited, Leaving, Row, Started
from rota.master.core import records
from rota.master.core.beginning import Heritage
from rota.master.core.recollection import AGE_MAX_S
from rota.worker.page import DONE

MAYBE = MaybeExecuted.code
OLDER = wire.RESENT | wire.OLDER
PAIR = struct.Struct("<QQ")
LONG_AGO_MS = 3_600_000


class Later(Rig):
    """A second master with the journal of the first, epoch 1, which had given requests to node n1."""

    def __init__(self, *, complete: bool = True, since: int | None = 1, more: tuple[bytes, ...] = ()) -> None:
        before = records.Restored()
        before.read(records.present("n1", True))
        if since is not None:
            before.read(records.whole(since))
        for record in more:
            before.read(record)
        super().__init__(epoch=2, restored=before, heritage=Heritage(complete=complete))

    def back(self, done: tuple[int, ...] = (), done_ms: int = -1, ended_ms: int = -1, up_ms: int = LONG_AGO_MS) -> None:
        """The node, with its one process, has told what it remembers."""
        incarnation = self.named(ended_ms, up_ms)
        self.process_hello(incarnation, done=origins(*done), done_ms=done_ms)
        self.after(0.1)

    def named(self, ended_ms: int = -1, up_ms: int = LONG_AGO_MS) -> str:
        incarnation = "n1.b1.1"
        named = [Started(incarnation, "orders", b"t", 1)]
        self.agent(processes=named, ended_ms=ended_ms, up_ms=up_ms)
        return incarnation

    def resend(self, number: int = 50, age_ms: int | None = 1000, target: str = "orders.quote", **more: object) -> None:
        """Its client had sent it to the master before, so long ago."""
        if b"c" not in self.dispatch.routes:
            self.client(epoch=1)
        if age_ms is not None:
            self.tell_ages((number, age_ms))
        self.request(number, target, flags=OLDER, epoch=1, **more)  # type: ignore[arg-type]

    def tell_ages(self, *pairs: tuple[int, int]) -> None:
        token = self.dispatch.routes[b"c"].token
        body = b"".join(PAIR.pack(*pair) for pair in pairs)
        self.core.frontend(b"c", wire.head(wire.ACK, token) + body, self.now)


def origins(*numbers: int) -> bytes:
    return b"".join(wire.ORIGIN_STRUCT.pack(SESSION, number) for number in numbers)


def test_what_nobody_has_done_who_remembers_all_is_run_as_if_it_were_new() -> None:
    rig = Later()
    rig.back(done=(7, 8))
    rig.resend()
    assert rig.codes() == {} and len(rig.deliveries) == 1
    assert wire.parse_head(rig.deliveries[0][2]).below == 1, "its first attempt"


def test_it_is_decided_when_all_have_told() -> None:
    rig = Later()
    rig.resend()
    incarnation = rig.named()
    rig.after(0.5)
    assert not rig.deliveries and not rig.answers
    rig.process_hello(incarnation, done_ms=-1)
    rig.after(0.1)
    assert len(rig.deliveries) == 1


def test_what_was_done_is_told_so_if_nobody_keeps_its_answer() -> None:
    rig = Later()
    rig.back(done=(50,))
    rig.resend()
    assert rig.codes() == {50: MAYBE} and not rig.deliveries
    assert "it was executed, and its answer was lost" in rig.answers[0].cause


def test_an_idempotent_handler_runs_what_was_done_once_more() -> None:
    rig = Later()
    rig.back(done=(50,))
    rig.resend(target="orders.again")
    assert len(rig.deliveries) == 1


@pytest.mark.parametrize(
    ("remembers", "runs"),
    [
        ({"done_ms": 1500}, True),
        ({"done_ms": 900}, False),
        ({"done_ms": 1010}, False),  # within the margin
        ({"done_ms": 1115}, False),  # its clock may be faster than ours
        ({"done_ms": 1125}, True),
        ({"done_ms": 0}, False),
        ({"ended_ms": 1500}, True),
        ({"ended_ms": 900}, False),
        ({"up_ms": 1500}, True),
        ({"up_ms": 900}, False),
    ],
)
def test_whoever_may_have_run_it_must_remember_from_before_it_was_sent(remembers: dict[str, int], runs: bool) -> None:
    rig = Later()
    rig.back(**remembers)  # type: ignore[arg-type]
    rig.now -= 0.1  # `back` lets so much time pass: the ages below are as of the same moment
    rig.resend(age_ms=1000)
    assert len(rig.deliveries) == runs
    assert rig.codes() == ({} if runs else {50: MAYBE})


def test_one_long_request_does_not_spoil_the_others() -> None:
    rig = Later()
    rig.back(done_ms=5000)
    rig.client(epoch=1)
    rig.tell_ages((70, 10), (60, 900), (1, 40_000))
    for number in (1, 59, 60, 65, 70, 99):
        rig.resend(number, None)
    assert sorted(rig.codes()) == [1, 59], "the bound for 59 is that of request 1"
    assert rig.dispatch.pools["orders"].queued + len(rig.deliveries) == 4


def test_of_ages_that_are_half_told_or_too_many_the_whole_and_the_first_count() -> None:
    rig = Later()
    rig.client(epoch=1)
    token = rig.dispatch.routes[b"c"].token
    for body, count in ((PAIR.pack(50, 1000) + b"half", 1), (PAIR.pack(50, 1000) * (AGES_MAX + 1), AGES_MAX)):
        rig.core.frontend(b"c", wire.head(wire.ACK, token) + body, rig.now)
        assert len(rig.dispatch.sessions[SESSION].asked) == count


def test_a_client_that_tells_no_age_gets_no_second_run() -> None:
    rig = Later()
    rig.back()
    rig.resend(age_ms=None)
    assert rig.codes() == {50: MAYBE}


def test_what_is_too_old_is_not_looked_into() -> None:
    rig = Later()
    rig.back()
    rig.resend(age_ms=int(1000 * AGE_MAX_S))
    assert rig.codes() == {50: MAYBE}


def test_records_that_may_lack_a_node_prove_nothing() -> None:
    rig = Later(complete=False)
    rig.back()
    rig.resend()
    assert rig.codes() == {50: MAYBE}
    assert records.whole(2) in rig.records, "from now on they are complete"


def test_a_gap_in_the_records_is_remembered_by_the_masters_after_it() -> None:
    """Epoch 1 had nodes that the master of epoch 2 did not know: no later one knows them either."""
    rig = Later(since=2)
    rig.back()
    rig.resend()
    assert rig.codes() == {50: MAYBE}


def test_a_journal_of_an_older_version_proves_nothing() -> None:
    rig = Later(since=None)
    rig.back()
    rig.resend()
    assert rig.codes() == {50: MAYBE}


@pytest.mark.parametrize("record", [records.present("n2", False), records.forgotten("n2")])
def test_what_a_node_did_that_has_left_nobody_remembers_until_it_is_long_past(record: bytes) -> None:
    rig = Later(more=(record,))
    rig.back()
    rig.resend()
    assert rig.codes() == {50: MAYBE}
    rig.after(2 * AGE_MAX_S)
    assert records.past("n2") in rig.records
    again = Later(more=(record, records.past("n2")))
    again.back()
    again.resend()
    assert again.codes() == {} and len(again.deliveries) == 1


def test_a_node_that_comes_back_tells_for_itself() -> None:
    rig = Later(more=(records.present("n2", False), records.present("n2", True)))
    rig.back()
    rig.resend()
    assert not rig.answers and not rig.deliveries, "n2 is waited for"
    rig.agent("n2", up_ms=LONG_AGO_MS, ended_ms=-1)
    rig.after(0.1)
    assert len(rig.deliveries) == 1


def test_a_node_that_no_master_had_recorded_has_nothing_to_tell() -> None:
    rig = Later()
    rig.back()
    rig.process(rig.agent("new", up_ms=5))
    rig.resend()
    assert len(rig.deliveries) == 1


@pytest.mark.parametrize("has_told", [False, True])
def test_a_node_that_an_operator_forgets_takes_what_it_has_not_told_with_it(has_told: bool) -> None:
    rig = Later(more=(records.present("n2", True),))
    rig.back()
    if has_told:
        rig.agent("n2", up_ms=LONG_AGO_MS, ended_ms=-1)
    rig.fleet.forget(rig.fleet.nodes["n2"], rig.now)
    rig.resend()
    rig.after(0.1)
    assert (rig.codes(), len(rig.deliveries)) == (({}, 1) if has_told else ({50: MAYBE}, 0))


def test_a_node_that_says_goodbye_before_its_process_has_told_takes_what_it_knows_with_it() -> None:
    rig = Later()
    rig.resend()
    rig.named()
    rig.core.control(b"n1", wire.head(wire.BYE, rig.fleet.nodes["n1"].token), rig.now)
    rig.after(0.1)
    assert rig.codes() == {50: MAYBE}


def test_a_node_that_says_goodbye_after_it_has_told_is_remembered() -> None:
    rig = Later()
    rig.back(done=(50,))
    rig.core.control(b"n1", wire.head(wire.BYE, rig.fleet.nodes["n1"].token), rig.now)
    rig.process(rig.agent("n2", up_ms=1))
    rig.resend(51)
    rig.resend(50)
    assert rig.codes() == {50: MAYBE} and len(rig.deliveries) == 1


@pytest.mark.parametrize(("started_upto", "runs"), [(0, True), (3, False)])
def test_a_process_that_ends_before_it_has_told_is_remembered_by_nobody(started_upto: int, runs: bool) -> None:
    rig = Later()
    rig.resend()
    incarnation = rig.named()
    rows = [Row(3, 2, b"o" * 16, 9, 1)] if started_upto else []
    rig.tell(rig.fleet.nodes["n1"], Exited(incarnation, "orders", -9, "was killed", started_upto, rows, ""))
    rig.process(rig.fleet.nodes["n1"], 2)
    rig.after(0.1)
    assert (len(rig.deliveries) == 1) is runs
    assert rig.codes() == ({} if runs else {50: MAYBE})


def test_a_reply_that_stands_in_the_page_of_a_process_that_ended_meanwhile_is_the_answer() -> None:
    rig = Later()
    rig.resend()
    incarnation = rig.named()
    reply = wire.head(wire.REPLY, 77, 1, number=3) + b"from the page"
    refused = wire.head(wire.REPLY, 77, 1, number=5, code=NOT_STARTED)
    rows = [Row(3, DONE, SESSION, 50, 1, reply), Row(4, DONE, SESSION, 51, 1, reply)]
    rows += [Row(5, DONE, SESSION, 52, 1, refused)]
    rig.tell(rig.fleet.nodes["n1"], Exited(incarnation, "orders", -9, "was killed", 5, rows, ""))
    rig.resend(51)
    rig.resend(52)
    rig.after(0.1)
    assert rig.codes() == {50: 0, 51: MAYBE, 52: MAYBE}, "what stands in the rows of 51 and 52 is not theirs"
    assert not rig.deliveries
    assert rig.answers[0].body == b"from the page"


def test_a_process_that_is_told_to_stop_must_tell_all_the_same() -> None:
    rig = Later()
    rig.resend()
    incarnation = rig.named()
    rig.fleet.processes.slots[incarnation].stage = type(rig.fleet.processes.slots[incarnation].stage).RETIRED
    rig.process(rig.agent("n2", up_ms=LONG_AGO_MS), 1)
    rig.after(0.5)
    assert not rig.deliveries and not rig.answers


def test_an_agent_that_was_started_anew_meanwhile_remembers_nothing_of_the_one_before() -> None:
    rig = Later()
    rig.resend()
    rig.named()
    rig.after(0.1)
    rig.fleet.bye(rig.fleet.nodes["n1"], rig.now)
    rig.process(rig.agent(boot="b2", up_ms=10), 1)
    rig.after(0.1)
    assert rig.codes() == {50: MAYBE}


def test_what_runs_or_is_kept_is_found_before_anything_is_concluded() -> None:
    rig = Later()
    incarnation = rig.named()
    rig.process_hello(incarnation, received_upto=5, held=[held(5, 50)], done=origins(49), done_ms=-1)
    rig.after(0.1)
    rig.resend(50)
    assert not rig.deliveries
    rig.reply(rig.fleet.processes.slots[incarnation], 5, epoch=1, body=b"from before")
    assert rig.codes() == {50: errors.OK}


def test_a_key_stands_for_other_requests_too() -> None:
    rig = Later()
    rig.back()
    rig.resend(key="k")
    assert rig.codes() == {50: MAYBE}


def test_a_stream_follows_the_same_rule() -> None:
    rig = Later()
    rig.back(done=(51,))
    rig.client(epoch=1)
    rig.tell_ages((1, 1000))
    for number in (50, 51):
        rig.request(number, flags=OLDER | wire.MORE, epoch=1)
    assert rig.codes() == {51: MAYBE} and len(rig.deliveries) == 1


def test_what_never_ran_and_finds_no_room_may_be_told_so() -> None:
    rig = Later()
    rig.default = replace(rig.default, queue_limit=1)
    rig.back()
    for number in (50, 51, 52):
        rig.resend(number)
    assert rig.codes() == {52: errors.Overloaded.code}


def test_what_may_have_run_and_finds_no_room_is_not_told_that_nothing_was_run() -> None:
    rig = Later()
    rig.default = replace(rig.default, queue_limit=1)
    rig.back()
    for number in (50, 51, 52):
        rig.resend(number, None, "orders.again")
    assert rig.codes() == {52: MAYBE}


def test_without_a_journal_nothing_is_known_to_be_complete() -> None:
    rig = Rig(state=None, heritage=Heritage(complete=True))
    rig.client(epoch=1)
    rig.process(rig.agent(epoch=1, up_ms=LONG_AGO_MS, ended_ms=-1))
    token = rig.dispatch.routes[b"c"].token
    rig.core.frontend(b"c", wire.head(wire.ACK, token) + PAIR.pack(1, 1000), rig.now)
    rig.request(50, flags=OLDER, epoch=1)
    rig.after(10.0)
    assert rig.codes() == {50: MAYBE}


def test_who_has_left_and_since_when_records_are_whole_is_kept_when_the_journal_is_written_anew() -> None:
    before = records.Restored()
    for record in (records.present("n1", True), records.present("n2", True), records.present("n2", False)):
        before.read(record)
    before.read(records.forgotten("n3"))
    before.read(records.whole(4))
    after = before.copy()
    assert (after.present, after.left, after.whole_since) == ({"n1"}, {"n2", "n3"}, 4)
    after.read(records.past("n3"))
    after.read(records.present("n2", True))
    assert after.left == set()


def test_leaving_is_on_record_at_once_and_past_after_a_while() -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(node, Leaving(0))
    rig.core.control(b"n1", wire.head(wire.BYE, node.token), rig.now)
    rig.flush()
    assert rig.core.known.left == {"n1"}
    rig.after(2 * AGE_MAX_S)
    assert rig.core.known.left == set()


# ---- the client's side -----------------------------------------------------------------------------------------------


def bounds(ages: Ages, lowest: int, at: float) -> dict[int, int]:
    return dict(PAIR.iter_unpack(ages.pairs(lowest, at)))


def test_every_request_is_at_most_as_old_as_its_bound_and_not_much_younger() -> None:
    ages, sent_at = Ages(), {}
    for number in range(1, 2000):
        at = number * 0.02
        if number % 3 == 1:  # marked each 60 ms
            ages.mark(number, at)
        sent_at[number] = at + 0.001
    now = 2000 * 0.02
    pairs = bounds(ages, 1, now)
    assert len(pairs) <= 16
    for number in range(min(pairs), 2000):
        bound_s = min(ms for first, ms in pairs.items() if first <= number) / 1000
        age_s = now - sent_at[number]
        assert age_s <= bound_s <= GROWTH * age_s + 5 * MARK_S, number


def test_marks_reach_back_to_the_lowest_and_no_further() -> None:
    ages = Ages()
    for number in (1, 10, 20, 30):
        ages.mark(number, float(number))
    assert bounds(ages, 12, 60.0) == {30: 30_001, 10: 50_001}
    assert bounds(ages, 30, 60.0) == {30: 30_001}


def test_marks_that_go_on_for_hours_are_few_and_of_those_the_first_and_the_last_are_told() -> None:
    ages = Ages()
    for number in range(1, 100_000):
        ages.mark(number, number * MARK_S)
    assert len(ages._marks) <= 64
    pairs = bounds(ages, 1, 99_999 * MARK_S)
    assert len(pairs) == AGES_MAX and min(pairs) == 1 and pairs[99_999] == 1


def test_after_an_outage_the_marks_before_it_are_near_each_other_and_still_tell() -> None:
    ages = Ages()
    for number, at in ((1, 100.0), (200, 100.1), (300, 100.2)):
        ages.mark(number, at)
    pairs = bounds(ages, 33, 103.0)
    assert pairs[1] == 3001 and min(pairs) == 1
