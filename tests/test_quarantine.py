"""Poison requests: who is blamed for a death, who runs alone, who is refused, and what an operator can do about it."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from core_rig import Answer, Rig

from rota.common import exits, messages
from rota.common.body import encode_call
from rota.common.errors import BY_FENCE, NOT_STARTED, MaybeExecuted, Overloaded, Quarantined, Timeout
from rota.common.messages import ROW_DONE, ROW_RUNNING, End
from rota.master.core.master import ALONE_TICK_S
from rota.master.core.pool import UNCAPPED, Slot
from rota.master.core.quarantine import CASES_MAX, COUNTED_FOR_S, PAYLOAD_KEPT, Case, State
from rota.master.core.records import Restored

POISON = b"\x92\x91\x01\x80"  # f(1)
AGAIN, QUOTE = "orders.again", "orders.quote"


class Fleet(Rig):
    """Processes that die of what they run, and are replaced."""

    def __init__(self, processes: int = 2, service: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__({"max_attempts": 5, **(service or {})}, **settings)
        self.node = self.agent(capacity=processes)
        self.born = 0
        self.slots = [self.fresh() for _ in range(processes)]

    def fresh(self, **more: Any) -> Slot:
        self.born += 1
        return self.process(self.node, self.born, **more)

    def with_it(self, number: int) -> Slot:
        """The slot where this request runs."""
        found = [s for s in self.fleet.processes.slots.values() for r in s.inflight.values() if r.number == number]
        assert len(found) == 1, f"request {number} is in flight {len(found)} times"
        return found[0]

    def runs(self, number: int) -> bool:
        return any(r.number == number for s in self.fleet.processes.slots.values() for r in s.inflight.values())

    def delivery(self, number: int) -> tuple[Slot, int]:
        slot = self.with_it(number)
        return slot, next(n for n, request in slot.inflight.items() if request.number == number)

    def dies(self, number: int, kind: str = End.SIGNALLED, **more: Any) -> None:
        """Of this request, which it had started as the only one; another one takes its place."""
        slot, at = self.delivery(number)
        self.exited(slot, at, [(at, ROW_RUNNING)], kind=kind, **more)
        if kind in messages.CRASHES:
            self.fresh()

    def answer(self, number: int) -> None:
        slot, at = self.delivery(number)
        self.reply(slot, at)

    def answers_of(self, number: int) -> list[Answer]:
        return [answer for answer in self.answers if answer.number == number]

    def case(self) -> Case:
        (found,) = self.dispatch.quarantine.cases.values()
        return found

    def state(self) -> str:
        cases = self.dispatch.quarantine.cases
        return str(self.case().state) if cases else ""

    def poisoned(self, number: int = 1) -> Fleet:
        """Two processes have died of POISON."""
        self.request(number, AGAIN, body=POISON)
        self.dies(number)
        self.dies(number)
        assert self.state() == State.QUARANTINED
        return self

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.core.events.since(0) if event["kind"] == kind]


# ---- who is blamed --------------------------------------------------------------------------------------------------


def test_two_processes_that_were_alone_with_it_die_and_no_third_one_gets_it() -> None:
    rig = Fleet()
    rig.request(1, AGAIN, body=POISON)
    rig.dies(1)
    assert rig.state() == State.SUSPECT and rig.runs(1)
    rig.dies(1)
    assert rig.state() == State.QUARANTINED and not rig.runs(1)
    (answer,) = rig.answers_of(1)
    assert answer.code == MaybeExecuted.code
    assert answer.cause.startswith("in quarantine: 2 processes died of it, the last was killed by signal 9; `rota quar")


def test_deaths_are_counted_by_payload_whatever_the_request_and_its_caller() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1)
    rig.client(b"t" * 16, b"other")
    rig.request(1, QUOTE, route=b"other", body=POISON)
    rig.dies(1)
    assert rig.state() == State.QUARANTINED


@pytest.mark.parametrize("target, body", [(AGAIN, POISON), (QUOTE, POISON + b"x"), (QUOTE, b"")])
def test_another_handler_or_payload_is_another_matter(target: str, body: bytes) -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1)
    rig.request(2, target, body=body)
    rig.dies(2)
    assert [case.state for case in rig.dispatch.quarantine.cases.values()] == [State.SUSPECT] * 2


def asked(port: int, known_as: str, target: bytes = b"/") -> bytes:
    """A call of a gateway."""
    about = {"version": "1.1", "root": "", "scheme": "http", "server": ["10.0.0.2", 80]}
    return encode_call(("GET", target, [], b"", about | {"client": ["10.0.0.1", port], "id": known_as}), {})


@pytest.mark.parametrize("other, alike", [(asked(65_535, "i" * 128), True), (asked(1, "id", b"/other"), False)])
def test_a_request_that_comes_by_http_is_the_same_from_another_port_and_with_another_id(
    other: bytes, alike: bool
) -> None:
    rig = Fleet()
    for number, body in enumerate((asked(1, "id"), other), 1):
        rig.request(number, "orders.http", body=body)
        rig.dies(number)
    assert len(rig.dispatch.quarantine.cases) == (1 if alike else 2)


def test_another_handler_may_have_arguments_of_these_names() -> None:
    rig = Fleet()
    for number in (1, 2):
        rig.request(number, QUOTE, body=encode_call((), {"client": number}))
        rig.dies(number)
    assert len(rig.dispatch.quarantine.cases) == 2


@pytest.mark.parametrize("kind", sorted(messages.CRASHES))
def test_every_kind_of_crash_counts(kind: str) -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1, kind)
    assert rig.state() == State.SUSPECT


@pytest.mark.parametrize("kind", ["", *sorted(set(End) - messages.CRASHES)])
def test_an_end_that_was_asked_for_or_that_nobody_explains_blames_no_request(kind: str) -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1, kind)
    assert rig.state() == ""


def test_the_death_of_a_node_blames_no_request() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.after(4.0, beat=False)
    assert rig.codes() == {1: MaybeExecuted.code} and rig.state() == ""


@pytest.mark.parametrize(("started_upto", "blamed"), [(2, False), (1, True)])
def test_what_died_in_company_blames_nobody_and_what_had_only_its_row_is_no_company(
    started_upto: int, blamed: bool
) -> None:
    """A process writes the row first."""
    rig = Fleet(processes=0)
    slot = rig.fresh(concurrency=2)
    rig.request(1, QUOTE, body=POISON)
    rig.request(2, QUOTE)
    rig.exited(slot, started_upto, [(1, ROW_RUNNING), (2, ROW_RUNNING)], kind=End.SIGNALLED)
    assert [case.payload for case in rig.dispatch.quarantine.cases.values()] == ([POISON] if blamed else [])


def test_what_was_done_or_had_not_started_is_no_company() -> None:
    rig = Fleet(processes=1, service={"credit": 3})
    for number, body in enumerate((b"done", POISON, b"waits"), 1):
        rig.request(number, AGAIN, body=body)
    slot = rig.with_it(2)
    rig.exited(slot, 2, [(1, ROW_DONE), (2, ROW_RUNNING)], kind=End.SIGNALLED)
    assert rig.case().payload == POISON


def test_a_death_counts_though_the_caller_has_given_up_long_before() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON, timeout_ms=100)
    rig.after(0.2)
    assert rig.codes() == {1: Timeout.code}
    rig.dies(1, End.HUNG)
    assert rig.state() == State.SUSPECT


def test_deaths_that_are_ten_minutes_apart_are_chance() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1)
    rig.now += COUNTED_FOR_S
    rig.after(2.0)
    assert rig.state() == ""
    rig.request(2, QUOTE, body=POISON)
    rig.dies(2)
    assert rig.state() == State.SUSPECT
    rig.request(3, QUOTE, body=POISON)
    rig.after(1.0)
    rig.dies(3)
    assert rig.state() == State.QUARANTINED, "those two were not"


def test_so_are_they_if_one_had_to_wait_for_that_long_for_a_process() -> None:
    rig = Fleet(processes=1, service={"queue_timeout": 3600.0}, session_idle=3600.0)
    rig.request(1, QUOTE, body=POISON)
    slot, at = rig.delivery(1)
    rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.SIGNALLED)
    rig.request(2, QUOTE, body=POISON, timeout_ms=3_600_000)
    rig.after(COUNTED_FOR_S + 2.0)
    assert rig.state() == State.SUSPECT
    rig.request(3, QUOTE, body=POISON)
    for number, state in ((2, State.SUSPECT), (3, State.QUARANTINED)):
        rig.fresh()
        rig.after(0.1)
        slot, at = rig.delivery(number)
        rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.SIGNALLED)
        assert rig.state() == state


# ---- suspects -------------------------------------------------------------------------------------------------------


def suspect(rig: Fleet, number: int = 1) -> Fleet:
    """One process died of POISON; its request is answered."""
    rig.request(number, QUOTE, body=POISON)
    rig.dies(number)
    assert rig.state() == State.SUSPECT
    return rig


def test_a_suspect_is_given_only_to_a_slot_that_has_nothing_else() -> None:
    rig = suspect(Fleet(service={"credit": 4}))
    for number in (2, 3):
        rig.request(number)
    rig.request(4, QUOTE, body=POISON)
    assert not rig.runs(4) and rig.core.next_deadline() <= rig.now + ALONE_TICK_S
    rig.answer(3)
    rig.after(0.02)
    assert rig.runs(4) and len(rig.with_it(4).inflight) == 1


def test_a_slot_that_runs_a_suspect_gets_nothing_else_until_that_is_answered() -> None:
    rig = suspect(Fleet(service={"credit": 4}))
    rig.request(2, QUOTE, body=POISON)
    alone = rig.with_it(2)
    for number in range(3, 7):
        rig.request(number)
    assert len(alone.inflight) == 1 and rig.dispatch.pools["orders"].queued == 0
    rig.request(7)
    assert len(alone.inflight) == 1 and rig.dispatch.pools["orders"].queued == 1
    rig.answer(2)
    rig.after(0.02)
    assert rig.with_it(7) is alone and alone.limit == 4


def test_a_slot_that_is_kept_free_for_a_suspect_serves_others_when_that_is_cancelled() -> None:
    rig = suspect(Fleet(processes=1))
    rig.request(2)
    rig.request(3, QUOTE, body=POISON)
    rig.request(4)
    rig.after(0.02)
    assert rig.with_it(2).limit == 0
    rig.say(18, 3)  # CANCEL
    rig.answer(2)
    rig.after(0.02)
    assert rig.runs(4)


def test_so_it_does_as_soon_as_another_one_has_nothing_else() -> None:
    rig = Fleet(processes=3, service={"credit": 2})
    for number in (1, 2):
        rig.request(number, QUOTE, body=POISON)
    rig.request(3)
    kept, other = rig.with_it(3), rig.with_it(2)
    slot, at = rig.delivery(1)
    rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.SIGNALLED)
    kept.progress_at = other.progress_at + 1.0
    rig.request(4, QUOTE, body=POISON)
    assert kept.cap == 0 and not rig.runs(4)
    other.pool.stall(other, 1, rig.now)
    rig.request(5)
    assert other.pool.queued == 1
    rig.reply(other, 1, code=NOT_STARTED)  # what it had goes to those that wait, and the first of them is given to it
    assert other.cap == 1 and rig.with_it(5) is kept


def test_a_suspect_does_not_wait_for_a_process_that_hangs() -> None:
    rig = suspect(Fleet())
    rig.request(2)
    rig.request(3)
    rig.request(4, QUOTE, body=POISON)
    hangs = next(turn.slot for turn in rig.dispatch.quarantine._turns.values())
    goes_on = next(slot for slot in rig.fleet.processes.slots.values() if slot is not hangs)
    for number in (5, 6):  # it always has something: the queue is never empty
        rig.request(number)
    rig.after(0.5)
    rig.reply(goes_on, 1)
    rig.after(0.1)
    assert len(goes_on.inflight) == 1 and hangs.cap == 0
    rig.after(1.0)
    assert (hangs.cap, goes_on.cap) == (UNCAPPED, 0)
    rig.reply(goes_on, 2)
    rig.after(0.02)
    assert rig.with_it(4) is goes_on


def test_a_suspect_is_not_given_to_a_process_that_starts_nothing() -> None:
    rig = suspect(Fleet(processes=1))
    (slot,) = rig.fleet.processes.slots.values()
    slot.pool.stall(slot, 0, rig.now)
    rig.request(2, QUOTE, body=POISON)
    assert not rig.runs(2)
    other = rig.fresh()
    rig.after(0.02)
    assert rig.with_it(2) is other


def test_one_request_of_a_suspect_payload_runs_at_a_time_so_that_only_two_processes_die() -> None:
    rig = suspect(Fleet(processes=3))
    for number in (2, 3, 4):
        rig.request(number, QUOTE, body=POISON)
    assert [number for number in (2, 3, 4) if rig.runs(number)] == [2]
    rig.dies(2)
    assert rig.codes() == {1: 9, 2: MaybeExecuted.code, 3: Quarantined.code, 4: Quarantined.code}
    assert rig.case().died == 2


def test_one_slot_of_a_service_is_enough_for_all_its_suspects() -> None:
    rig = Fleet(processes=3)
    for number in (1, 2, 3):
        rig.request(number, AGAIN, body=b"%d" % number)
    for number in (1, 2, 3):
        rig.dies(number)
    rig.after(0.02)
    assert [number for number in (1, 2, 3) if rig.runs(number)] == [1]
    for number in (1, 2, 3):
        rig.answer(number)
        rig.after(0.02)
    assert rig.codes() == {1: 0, 2: 0, 3: 0}


def test_what_waits_in_the_queue_with_a_suspect_payload_waits_for_its_turn_too() -> None:
    rig = Fleet(processes=1)
    for number in (1, 2, 3):
        rig.request(number, QUOTE, body=POISON if number < 3 else b"good")
    slot, at = rig.delivery(1)
    rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.SIGNALLED)
    assert [request.number for request in rig.dispatch.quarantine.waiting] == [2]
    rig.fresh()
    assert rig.dispatch.pools["orders"].queued + rig.dispatch.quarantine.held(rig.case().pool) == 1
    assert rig.runs(2) != rig.runs(3)


def test_a_suspect_that_is_answered_is_cleared_and_its_kind_runs_as_all_do() -> None:
    rig = suspect(Fleet(processes=3))
    for number in (2, 3, 4):
        rig.request(number, QUOTE, body=POISON)
    rig.answer(2)
    rig.after(0.02)
    assert rig.state() == State.CLEARED and rig.runs(3) and rig.runs(4)
    assert rig.told("released")[0]["text"] == "orders.quote: it was answered when it ran alone"
    new = reborn(rig)
    assert new.state() == State.CLEARED and not new.dispatch.quarantine.watched


def test_the_death_of_one_that_was_cleared_still_counts() -> None:
    rig = suspect(Fleet())
    rig.request(2, QUOTE, body=POISON)
    rig.answer(2)
    rig.after(0.02)
    rig.request(3, QUOTE, body=POISON)
    rig.dies(3)
    assert rig.state() == State.QUARANTINED


def test_a_suspect_whose_node_dies_or_is_drained_is_neither_cleared_nor_blamed() -> None:
    rig = suspect(Fleet())
    other = rig.agent("n2", "b2")
    rig.request(2, AGAIN, body=POISON)  # another handler: not the suspect
    rig.request(3, QUOTE, body=POISON)
    rig.dies(3, End.STOPPED)
    rig.process(other, 1)
    rig.request(4, QUOTE, body=POISON)
    rig.after(0.02)
    assert rig.state() == State.SUSPECT and rig.runs(4)


def test_a_suspect_that_had_not_started_runs_elsewhere_alone() -> None:
    rig = suspect(Fleet())
    rig.request(2, QUOTE, body=POISON)
    slot = rig.with_it(2)
    rig.exited(slot, 0, [], kind=End.SIGNALLED)
    assert rig.state() == State.SUSPECT and rig.with_it(2) is not slot and rig.with_it(2).limit == 1


def test_a_suspect_that_the_fence_of_another_master_kept_from_starting_is_not_cleared() -> None:
    rig = suspect(Fleet())
    rig.request(2, QUOTE, body=POISON)
    slot, at = rig.delivery(2)
    rig.reply(slot, at, code=NOT_STARTED, body=BY_FENCE)
    rig.after(0.1)
    assert rig.state() == State.SUSPECT and rig.answers_of(2)[0].code == NOT_STARTED
    rig.request(3, QUOTE, body=POISON)
    assert rig.with_it(3) is not slot


def test_a_suspect_that_had_not_started_is_not_refused_for_want_of_room() -> None:
    """It was accepted once, and goes back to where it waited."""
    rig = suspect(Fleet(service={"queue_limit": 2}))
    for number in (2, 3, 4):
        rig.request(number, QUOTE, body=POISON)
    rig.exited(rig.with_it(2), 0, [], kind=End.SIGNALLED)
    while left := [number for number in (2, 3, 4) if number not in rig.codes()]:
        rig.after(0.1)
        rig.answer(next(number for number in left if rig.runs(number)))
    assert [rig.codes()[number] for number in (2, 3, 4)] == [0, 0, 0]


def test_a_suspect_waits_for_a_process_and_gets_the_first_one() -> None:
    rig = Fleet(processes=1)
    rig.request(1, AGAIN, body=POISON)
    slot, at = rig.delivery(1)
    rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.EXITED)
    rig.after(0.1)
    rig.fresh()
    rig.after(0.1)
    rig.answer(1)
    assert rig.codes() == {1: 0}


def test_a_suspect_that_waits_is_bounded_counted_cancelled_and_in_time() -> None:
    rig = suspect(Fleet(service={"queue_limit": 2}))
    for number in (2, 3, 4):
        rig.request(number, QUOTE, body=POISON, timeout_ms=200)
    assert rig.core.status(rig.now)["services"][0]["queued"] == 2
    rig.request(5, QUOTE, body=POISON)
    (refused,) = rig.answers_of(5)
    assert (refused.code, refused.cause) == (Overloaded.code, "2 requests for orders wait already")
    rig.say(18, 3)  # CANCEL
    rig.after(0.3)
    assert rig.codes() == {1: 9, 5: Overloaded.code, 3: 4, 2: Timeout.code, 4: Timeout.code}
    assert rig.dispatch.queued_bytes == 0 and not rig.dispatch.quarantine.waiting


def test_a_suspect_waits_no_longer_than_queue_timeout() -> None:
    rig = suspect(Fleet(service={"queue_timeout": 1.0}))
    for number in (2, 3):
        rig.request(number, QUOTE, body=POISON)
    rig.after(1.1)
    assert rig.codes()[3] == Overloaded.code and rig.runs(2) and rig.dispatch.queued_bytes == 0


def test_a_master_that_stops_gives_back_what_waits_for_its_turn() -> None:
    rig = suspect(Fleet())
    for number in (2, 3, 4):
        rig.request(number, QUOTE, body=POISON)
    rig.dispatch.hand_back()
    rig.flush()
    assert [answer.number for answer in rig.answers if answer.code == NOT_STARTED] == [4, 3]  # the last first
    assert rig.dispatch.queued_bytes == 0 and not rig.dispatch.quarantine.waiting


def test_only_requests_of_a_handler_with_a_suspect_leave_the_quick_way() -> None:
    """The quick way is a cached target: it is taken again as soon as nothing of that handler is watched."""
    rig = suspect(Fleet())
    assert QUOTE.encode() not in rig.dispatch._targets
    rig.request(2)
    assert QUOTE.encode() not in rig.dispatch._targets
    rig.request(3, AGAIN)
    assert AGAIN.encode() in rig.dispatch._targets
    rig.answer(2)
    rig.answer(3)
    rig.request(4, QUOTE, body=POISON)
    rig.answer(4)
    rig.after(0.02)
    rig.request(5)
    assert QUOTE.encode() in rig.dispatch._targets


class Histories:
    """Everything that can happen to requests, suspects and processes, in an order that a seed decides."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.rig = Fleet(processes=3, service={"credit": self.random.choice([1, 4]), "quarantine_for": 2.0})
        self.rig.dispatch.settings = replace(self.rig.dispatch.settings, queue_bytes=1 << 20)
        self.asked = 0

    def step(self) -> None:
        rig, random = self.rig, self.random
        busy = [slot for slot in rig.fleet.processes.slots.values() if slot.inflight]
        match random.choice("rrrrraaaadddnckt"):
            case "r":
                self.asked += 1
                body = random.choice([POISON, b"other", b"%d" % self.asked])
                target, ms = random.choice([AGAIN, QUOTE]), random.choice([50, 5000])
                rig.request(self.asked, target, body=body, timeout_ms=ms)
            case "a" if busy:
                slot = random.choice(busy)
                rig.reply(slot, min(slot.inflight))
            case "d" if busy:
                slot = random.choice(busy)
                kind = random.choice([*messages.CRASHES, End.STOPPED, ""])
                rig.exited(slot, min(slot.inflight), [(min(slot.inflight), ROW_RUNNING)], kind=kind)
                rig.fresh()
            case "n" if busy:
                rig.exited(random.choice(busy), 0, [], kind=End.SIGNALLED)
                rig.fresh()
            case "c" if self.asked:
                rig.say(18, random.randint(1, self.asked))
            case "k" if rig.dispatch.quarantine.cases:
                case = random.choice(list(rig.dispatch.quarantine.cases.values()))
                rig.verb("quarantine", action=random.choice(["retry", "drop"]), id=case.id)
            case "t":
                rig.after(random.choice([0.02, 0.1, 1.0]))
        self.check()

    def check(self) -> None:
        dispatch = self.rig.dispatch
        pool, quarantine = dispatch.pools["orders"], dispatch.quarantine
        queued = [request for request in pool.queue if not request.answered]
        assert pool.queued == len(queued) and not any(request.answered for request in quarantine.waiting)
        assert dispatch.queued_bytes == sum(len(request.frame) for request in (*queued, *quarantine.waiting))
        assert not any(quarantine.case_of(request) for request in queued)
        for turn in quarantine._turns.values():
            if turn.request is not None and turn.request in turn.slot.inflight.values():
                assert list(turn.slot.inflight.values()) == [turn.request]
        capped = [slot for slot in pool.slots.values() if slot.cap < 2]
        assert set(capped) <= {turn.slot for turn in quarantine._turns.values()}
        assert len({answer.number for answer in self.rig.answers}) == len(self.rig.answers)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_suspects_are_alone_and_each_request_gets_one_answer(seed: int) -> None:
    run = Histories(seed)
    for _ in range(150):
        run.step()
    for _ in range(3 * run.asked):
        for slot in list(run.rig.fleet.processes.slots.values()):
            if slot.inflight:
                run.rig.reply(slot, min(slot.inflight))
        run.rig.after(0.02)
    assert sorted(answer.number for answer in run.rig.answers) == list(range(1, run.asked + 1))
    assert not run.rig.dispatch.quarantine.waiting and run.rig.dispatch.queued_bytes == 0
    assert all(slot.cap > 1 and not slot.inflight for slot in run.rig.fleet.processes.slots.values())


# ---- quarantine -----------------------------------------------------------------------------------------------------


def test_what_waits_to_run_again_when_its_payload_comes_into_quarantine_is_not_told_that_it_never_ran() -> None:
    rig = Fleet()
    rig.request(1, AGAIN, body=POISON)
    rig.request(2, AGAIN, body=POISON)
    rig.dies(1, End.STOPPED)  # which blames nobody: it waits for another process
    slot, at = rig.delivery(2)
    rig.exited(slot, at, [(at, ROW_RUNNING)], kind=End.SIGNALLED)
    rig.fresh()
    rig.after(0.02)
    (number,) = (number for number in (1, 2) if rig.runs(number))
    rig.dies(number)
    assert rig.state() == State.QUARANTINED
    assert rig.codes() == {1: MaybeExecuted.code, 2: MaybeExecuted.code}


def test_what_is_in_quarantine_is_refused_at_once_and_everything_else_is_served() -> None:
    rig = Fleet().poisoned()
    rig.request(2, AGAIN, body=POISON)
    (answer,) = rig.answers_of(2)
    assert answer.code == Quarantined.code and "rota quarantine show" in answer.cause
    rig.request(3, AGAIN, body=POISON + b"!")
    rig.answer(3)
    assert rig.codes()[3] == 0 and rig.case().refused == 1
    assert rig.core.status(rig.now)["services"][0]["quarantined"] == 1


def test_what_ran_already_when_it_was_decided_counts_and_lets_nothing_go() -> None:
    rig = Fleet(processes=3)
    for number in (1, 2, 3):
        rig.request(number, AGAIN, body=POISON)
    rig.dies(1)
    rig.after(0.1)
    assert rig.runs(1), "it has its turn"
    rig.dies(2)
    until = rig.case().until
    rig.after(0.1)
    rig.dies(3)
    assert (rig.case().died, rig.case().until, len(rig.told("quarantined"))) == (3, until, 1)
    assert len(rig.case().deaths) == 2
    rig.answer(1)
    rig.after(0.1)
    assert rig.state() == State.QUARANTINED and rig.codes()[1] == 0 and not rig.told("released")
    assert reborn(rig).case().died == 3


def test_when_its_time_is_over_one_is_tried_again_alone_and_its_death_is_enough() -> None:
    """However long ago the others were."""
    rig = Fleet(service={"quarantine_for": COUNTED_FOR_S + 5.0}).poisoned()
    rig.now += COUNTED_FOR_S
    rig.after(6.5)
    assert rig.state() == State.SUSPECT
    rig.request(2, AGAIN, body=POISON)
    rig.request(3, AGAIN, body=POISON)
    rig.dies(2)
    assert rig.state() == State.QUARANTINED and rig.codes()[3] == Quarantined.code and rig.case().died == 3


def test_each_step_is_an_event_with_its_cause() -> None:
    rig = Fleet(service={"quarantine_for": 5.0}).poisoned()
    rig.after(6.5)
    (first,), (second,), (third,) = rig.told("suspect"), rig.told("quarantined"), rig.told("released")
    assert first["text"].startswith("orders.again: a process that was alone with it was killed by signal 9; it runs al")
    assert second["text"].startswith("orders.again: 2 processes died of it, the last was killed by signal 9; refused f")
    assert third["text"] == "orders.again: its time is over; it may run again, alone"
    assert {each["subject"] for each in (first, second, third)} == {rig.case().id}


def test_cases_are_bounded_in_number_and_the_oldest_go_first() -> None:
    rig = Fleet(processes=1)
    for number in range(1, CASES_MAX + 3):
        rig.request(number, QUOTE, body=b"%d" % number)
        rig.dies(number)
    cases = list(rig.dispatch.quarantine.cases.values())
    assert len(cases) == CASES_MAX and cases[0].payload == b"3"
    assert sum(map(len, rig.dispatch.quarantine.watched.values())) == CASES_MAX


def test_cases_are_bounded_in_bytes_too_and_those_that_are_waited_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.master.core.quarantine.CASES_BYTES_MAX", 130)
    rig = Fleet(processes=2)
    for number in range(1, 4):
        rig.request(number, QUOTE, body=b"%d" % number * 30)
        rig.dies(number, text="x" * 10)
    rig.request(4, QUOTE, body=b"1" * 30)  # has its turn
    rig.request(5, QUOTE, body=b"4" * 30)
    rig.dies(5, text="x" * 10)
    kept = [case.payload[:1] for case in rig.dispatch.quarantine.cases.values()]
    assert kept == [b"1", b"3", b"4"] and rig.runs(4)
    (told,) = rig.told("released")
    assert told["text"] == "orders.quote: forgotten, since there are too many newer ones"


def test_of_a_large_payload_the_beginning_is_kept() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=b"x" * 300_000)
    rig.dies(1, text="y" * 10_000)
    assert (len(rig.case().payload), rig.case().size, len(rig.case().deaths[0].text)) == (PAYLOAD_KEPT, 300_000, 4096)


# ---- operators ------------------------------------------------------------------------------------------------------


def ask(rig: Fleet, action: str, case_id: str = "", **more: Any) -> messages.Result:
    result = rig.verb("quarantine", action=action, id=case_id, **more)
    assert result is not None
    return result


def test_list_says_what_when_how_often_and_why() -> None:
    rig = Fleet()
    assert ask(rig, "list").data == {"schema": 1, "entries": []}
    rig.poisoned()
    rig.request(2, AGAIN, body=POISON)
    rig.after(1.0)
    (entry,) = ask(rig, "list").data["entries"]
    assert entry == {
        "id": rig.case().id,
        "service": "orders",
        "handler": "again",
        "state": "quarantined",
        "since_s": pytest.approx(1.0, abs=0.1),
        "left_s": pytest.approx(3599, abs=0.2),
        "deaths": 2,
        "died_s": pytest.approx(1.0, abs=0.1),
        "cause": "was killed by signal 9",
        "refused": 1,
        "size": len(POISON),
    }


def test_show_has_the_last_words_of_both_processes_and_the_payload() -> None:
    rig = Fleet()
    rig.request(1, AGAIN, body=POISON)
    rig.dies(1, text="first words")
    rig.dies(1, End.EXITED, text="last words", cause="exited with status 3")
    data = ask(rig, "show", rig.case().id[:4]).data
    assert data["payload"] == POISON and data["waiting"] == 0
    assert [death["text"] for death in data["last_deaths"]] == ["first words", "last words"]
    assert [(death["kind"], death["died_s"]) for death in data["last_deaths"]] == [("signalled", 0.0), ("exited", 0.0)]
    assert {(d["session"], d["request"], d["node"]) for d in data["last_deaths"]} == {((b"s" * 16).hex(), 1, "n1")}
    assert not any("at" in death for death in data["last_deaths"]), "that is of a clock of the master's own"


def test_show_counts_what_waits_with_this_payload_and_no_other() -> None:
    rig = Fleet()
    rig.request(1, QUOTE, body=POISON)
    rig.dies(1)
    rig.request(2, QUOTE, body=POISON + b"x")
    rig.dies(2)
    for number, body in ((3, POISON), (4, POISON), (5, POISON + b"x")):
        rig.request(number, QUOTE, body=body)  # the first one runs, alone
    waiting = [ask(rig, "show", case.id).data["waiting"] for case in rig.dispatch.quarantine.cases.values()]
    assert waiting == [1, 1]


def test_retry_lets_it_run_again_alone_and_twice_is_once() -> None:
    rig = Fleet().poisoned()
    case_id = rig.case().id
    assert ask(rig, "retry", case_id, reason="fixed").data == {"schema": 1, "id": case_id, "changed": True}
    assert ask(rig, "retry", case_id).data["changed"] is False
    rig.request(2, AGAIN, body=POISON)
    assert rig.with_it(2).limit == 1
    rig.answer(2)
    rig.after(0.02)
    assert rig.state() == State.CLEARED
    assert (rig.told("released")[0]["by"], rig.told("released")[0]["reason"]) == ("ann", "fixed")


def test_a_retry_that_dies_goes_back_to_quarantine() -> None:
    rig = Fleet().poisoned()
    ask(rig, "retry", rig.case().id)
    rig.request(2, AGAIN, body=POISON)
    rig.dies(2)
    assert rig.state() == State.QUARANTINED


def test_drop_forgets_all_of_it_and_twice_is_once() -> None:
    rig = Fleet().poisoned()
    case_id = rig.case().id
    assert ask(rig, "drop", case_id, reason="mended").data["changed"] is True
    for said in (case_id, case_id[:4]):
        again = ask(rig, "drop", said)
        assert (again.exit, again.data["changed"], rig.state()) == (exits.DONE, False, "")
    (told,) = rig.told("released")
    assert (told["text"], told["reason"]) == ("orders.again: forgotten by an operator", "mended")
    assert ask(rig, "drop", "").exit == exits.NOT_FOUND
    rig.request(2, AGAIN, body=POISON)
    rig.dies(2)
    assert rig.state() == State.SUSPECT


def test_a_beginning_of_several_entries_is_not_taken_for_one_that_is_forgotten() -> None:
    """Exit 0 would say that it is gone, and each of them is there still."""
    rig = Fleet().poisoned()
    first = rig.case()
    alike = [replace(first, fingerprint=first.fingerprint[:-1] + bytes([n])) for n in (0, 1, 2)]
    rig.dispatch.quarantine.cases = {each.fingerprint: each for each in alike}
    assert ask(rig, "drop", alike[0].fingerprint.hex()).data["changed"] is True
    assert ask(rig, "drop", first.id[:4]).exit == exits.NOT_FOUND
    assert len(rig.dispatch.quarantine.cases) == 2


def test_what_was_dropped_while_it_ran_or_waited_goes_on() -> None:
    rig = suspect(Fleet())
    rig.request(2, QUOTE, body=POISON)
    rig.request(3, QUOTE, body=POISON)
    ask(rig, "drop", rig.case().id)
    assert rig.runs(2) and rig.runs(3)
    rig.answer(2)
    rig.after(0.02)
    rig.answer(3)
    assert rig.codes() == {1: 9, 2: 0, 3: 0}
    assert all(slot.limit == 1 and slot.row == 0 for slot in rig.fleet.processes.slots.values())


@pytest.mark.parametrize("action", ["show", "retry", "drop"])
def test_an_unknown_entry_is_told_with_the_nearest(action: str) -> None:
    rig = Fleet().poisoned()
    wrong = rig.case().id[:-1] + "x"
    result = ask(rig, action, wrong)
    assert result.exit == exits.NOT_FOUND and result.data["nearest"] == [rig.case().id]
    assert ask(rig, action, "").exit == exits.NOT_FOUND and rig.state() == State.QUARANTINED


def test_an_unknown_action_is_told_with_the_nearest() -> None:
    result = ask(Fleet(), "dropp", "x")
    assert result.exit == exits.NOT_FOUND and result.data["nearest"][0] == "drop"


# ---- another master --------------------------------------------------------------------------------------------------


def left_by(rig: Fleet) -> Restored:
    """What the next master begins with."""
    restored = Restored()
    for data in rig.records:
        restored.read(data)
    return restored


def reborn(rig: Fleet) -> Fleet:
    """A master that begins with the records of this one, under which nothing has run yet."""
    return Fleet(restored=left_by(rig), epoch=2)


def test_what_is_in_quarantine_stays_there_when_another_master_takes_over() -> None:
    old = Fleet().poisoned()
    rig = reborn(old)
    rig.request(7, AGAIN, body=POISON)
    assert rig.codes()[7] == Quarantined.code and not rig.runs(7)
    before, after = old.case(), rig.case()
    assert (after.died, after.strikes, after.payload, after.deaths[-1].cause) == (
        before.died,
        before.strikes,
        before.payload,
        before.deaths[-1].cause,
    )


@pytest.mark.parametrize("action", ["show", "retry", "drop"])
def test_an_entry_whose_service_has_not_come_yet_is_not_said_not_to_be_there(action: str) -> None:
    old = Fleet().poisoned()
    rig = Rig(restored=left_by(old), epoch=2)
    assert rig.verb("quarantine", action=action, id=old.case().id) is None
    rig.agent("n1", capacity=2)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.ok and result.data["id"] == old.case().id


def test_another_master_counts_time_from_the_same_moments() -> None:
    old = Fleet()
    old.after(5.0)
    old.wall -= 1000.0
    old.poisoned()
    (entry,) = ask(reborn(old), "list").data["entries"]
    assert (entry["since_s"], entry["died_s"], entry["left_s"]) == pytest.approx((1000.0, 1000.0, 2600.0), abs=0.1)


def test_what_an_older_master_knew_waits_for_its_service() -> None:
    restored = Restored()
    for data in Fleet().poisoned().records:
        restored.read(data)
    rig = Rig(restored=restored, epoch=2)
    rig.agent("n2", offers=["reports"])
    assert not rig.dispatch.quarantine.cases
    rig.agent("n1")
    assert len(rig.dispatch.quarantine.cases) == 1


def test_a_suspect_still_runs_alone_at_the_next_master_and_dies_once_more_at_most() -> None:
    old = Fleet()
    old.request(1, AGAIN, body=POISON)
    old.dies(1)
    rig = reborn(old)
    assert rig.state() == State.SUSPECT
    rig.request(2, AGAIN, body=POISON)
    rig.dies(2)
    assert rig.state() == State.QUARANTINED


def test_what_an_operator_dropped_is_forgotten_for_the_next_master_too() -> None:
    old = Fleet().poisoned()
    old.verb("quarantine", action="drop", id=old.case().id)
    old.flush()
    assert not reborn(old).dispatch.quarantine.cases


@pytest.mark.parametrize("ended", ["dropped", "over"])
def test_what_is_forgotten_is_dropped_already_at_the_next_master_too(ended: str) -> None:
    old = Fleet(service={"quarantine_for": 1.0}).poisoned()
    case_id = old.case().id
    if ended == "dropped":
        old.verb("quarantine", action="drop", id=case_id)
        old.flush()
    else:
        old.after(COUNTED_FOR_S + 3.0)
    for rig in (old, reborn(old)):
        for said in (case_id, case_id[:4]):
            again = ask(rig, "drop", said)
            assert (again.exit, again.data["changed"]) == (exits.DONE, False)
        assert ask(rig, "retry", case_id).exit == exits.NOT_FOUND
