"""The right to be active, where an engine decides it: who may count on it, and from when (docs/STANDBY.md)."""

from __future__ import annotations

import random
from math import inf

import pytest

from rota.master.core.engine_lease import MARGIN, Answer, EngineLease, Question, Row

L = 1.0


class Register:
    """An engine that does what is asked at once; the test says when the answer comes, if it does."""

    def __init__(self) -> None:
        self.row = Row(0, "", 0)

    def do(self, question: Question) -> Answer:
        changed = question.stamp is not None and question.stamp == self.row.stamp
        if changed:
            self.row = Row(self.row.stamp + 1, question.holder, question.epoch)
        return Answer(question.number, changed, self.row)


class Rig:
    """Masters with a lease each, and one engine for all of them. Time goes on in steps of 10 ms."""

    def __init__(self, names: str = "ab") -> None:
        self.now = 100.0
        self.engine = Register()
        self.leases = {name: EngineLease("etcd", f"{name} life", L, self.now) for name in names}
        self.cut: set[str] = set()  # answers with an error
        self.stopped: set[str] = set()  # does nothing, and its clock goes on

    def run(self, seconds: float = 0.0) -> None:
        until = self.now + seconds
        while True:
            for name, lease in self.leases.items():
                if name not in self.stopped:
                    lease.tick(self.now)
                    self.answer(name)
            if self.now >= until - 1e-9:
                return
            self.now += 0.01

    def answer(self, name: str) -> None:
        lease = self.leases[name]
        while lease.questions:
            question = lease.questions.pop(0)
            error = Answer(question.number, False, None, "connection refused")
            lease.answered(error if name in self.cut else self.engine.do(question), self.now)

    def holds(self, name: str) -> bool:
        return self.leases[name].until > self.now


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.run()
    made.leases["a"].take(1, made.now)
    made.run()
    return made


def test_what_nobody_ever_had_is_free_at_once() -> None:
    rig = Rig()
    rig.run()
    assert rig.leases["a"].is_free(rig.now)
    rig.leases["a"].take(1, rig.now)
    rig.run()
    assert rig.holds("a") and rig.engine.row.epoch == 1 and rig.leases["b"].holder in ("", "a")


def test_nothing_is_free_that_was_not_looked_at_lately(rig: Rig) -> None:
    lease = EngineLease("etcd", "c", L, rig.now)
    assert not lease.is_free(rig.now + 10 * L), "nobody was asked yet"
    rig.run(0.3)
    rig.cut.add("b")
    rig.run(5 * L)
    assert not rig.leases["b"].is_free(rig.now), "it was not heard: nobody knows"


def test_it_is_renewed_at_a_third_of_its_time_and_counts_from_when_that_was_sent(rig: Rig) -> None:
    lease = rig.leases["a"]
    assert lease.until == rig.now + L * (1 - MARGIN)
    assert lease.next_deadline() == pytest.approx(rig.now + L / 3)
    rig.now += L / 3
    lease.tick(rig.now)
    sent = rig.now
    rig.now += 0.2
    rig.answer("a")
    assert lease.until == pytest.approx(sent + L * (1 - MARGIN))


def test_while_it_is_renewed_it_is_free_for_nobody(rig: Rig) -> None:
    rig.run(0.2)
    for _ in range(50):
        rig.run(0.1)
        assert rig.holds("a") and not rig.leases["b"].is_free(rig.now)


def test_a_holder_has_stopped_before_it_is_free(rig: Rig) -> None:
    rig.run(0.3)
    rig.stopped.add("a")
    ended = 0.0
    while not rig.leases["b"].is_free(rig.now):
        ended = ended or (0.0 if rig.holds("a") else rig.now)
        rig.run(0.01)
    assert 0 < ended < rig.now < ended + 0.6 * L, "and it is free soon after"


def test_a_lost_answer_counts_for_nothing_and_the_next_look_tells_that_it_came_to_be() -> None:
    rig = Rig()
    rig.run()
    lease = rig.leases["a"]
    lease.take(1, rig.now)
    question = lease.questions.pop(0)
    rig.engine.do(question)
    lease.answered(Answer(question.number, False, None, "timed out"), rig.now)
    assert lease.until == -inf and lease.error == "timed out"
    rig.run(L / 5)
    assert rig.holds("a") and rig.engine.row.stamp == 2, "not what was in doubt counts, but a renewal after it"


def test_of_two_that_try_at_once_one_gets_it() -> None:
    rig = Rig()
    rig.run()
    for lease in rig.leases.values():
        lease.take(1, rig.now)
    rig.run(0.5)
    assert [rig.holds(name) for name in "ab"].count(True) == 1
    assert [lease.epoch for lease in rig.leases.values()].count(0) == 1, "the other one wants it no more"


def test_who_cannot_renew_goes_on_until_its_time_is_over_and_again_when_nobody_came_between(rig: Rig) -> None:
    rig.cut |= {"a", "b"}
    rig.run(0.9)
    assert rig.holds("a")
    rig.run(0.1)
    assert not rig.holds("a") and rig.leases["a"].error == "connection refused"
    asked = rig.leases["a"]._numbers
    rig.run(10.0)
    assert rig.leases["a"]._numbers - asked <= 101, "nothing spins"
    rig.cut.clear()
    rig.run(0.1)
    assert rig.holds("a") and rig.leases["a"].error == "" and rig.engine.row.epoch == 1


def test_who_comes_back_after_somebody_else_took_it_has_lost_it(rig: Rig) -> None:
    rig.stopped.add("a")
    rig.run(1.3)
    assert rig.leases["b"].is_free(rig.now)
    rig.leases["b"].take(2, rig.now)
    rig.run()
    assert rig.holds("b")
    rig.stopped.clear()
    assert not rig.holds("a"), "before it has asked anybody"
    rig.run(0.1)
    assert rig.leases["a"].epoch == 0 and rig.leases["a"].known_epoch == 2 and rig.leases["a"].holder == "b"


def test_a_stamp_that_an_emptied_engine_has_given_to_somebody_else_is_not_taken_for_ours(rig: Rig) -> None:
    """It counts anew, and comes by each number again."""
    rig.stopped |= {"a", "b"}
    rig.run(1.3)
    rig.engine.row = rig.engine.row._replace(holder="b life", epoch=2)
    rig.stopped.discard("a")
    for _ in range(30):
        rig.run(0.01)
        assert not rig.holds("a") and rig.engine.row.holder == "b life"
    assert rig.leases["a"].holder == "b"


def test_what_was_tried_is_lost_when_somebody_else_has_it_and_not_while_the_answer_is_awaited() -> None:
    rig = Rig()
    a, b = rig.leases.values()
    for lease in (a, b):
        lease.take(1, rig.now)
    assert not a.is_lost(rig.now), "the engine was not heard yet"
    for name in "ab":
        rig.answer(name)
    a.take(2, rig.now)
    assert not a.is_lost(rig.now), "its answer is under way, and nobody has it"
    b.take(3, rig.now)
    rig.answer("b")
    rig.answer("a")
    rig.run(0.3)
    assert rig.holds("b") and a.is_lost(rig.now) and not b.is_lost(rig.now)


def test_who_held_it_waits_as_all_do_if_its_own_time_was_over_when_the_engine_forgot(rig: Rig) -> None:
    rig.cut.add("a")
    rig.stopped.add("b")
    rig.run(1.2 * L)
    rig.engine.row = Row(50, "", 0)
    rig.cut.clear()
    rig.run(0.5 * L)
    assert rig.leases["a"].row == Row(50, "", 0) and not rig.holds("a")
    rig.run(L)
    assert rig.holds("a") and rig.engine.row.epoch == 1


def test_an_engine_that_says_nothing_is_an_error_until_it_does(rig: Rig) -> None:
    lease = rig.leases["a"]
    rig.now += L / 3
    lease.tick(rig.now)
    rig.now += L
    lease.tick(rig.now)
    assert lease.error == "no answer for 1.0 s" and lease.next_deadline() == inf, "it is asked one thing at a time"
    rig.answer("a")
    assert lease.error == ""


def test_what_is_let_go_is_free_at_once_for_who_looks(rig: Rig) -> None:
    rig.leases["a"].let_go(rig.now)
    assert not rig.holds("a") and not rig.leases["a"].is_settled
    rig.run()
    assert rig.leases["a"].is_settled and rig.engine.row.holder == ""
    rig.run(0.21)
    assert rig.leases["b"].is_free(rig.now) and rig.leases["b"].known_epoch == 1


def test_what_was_let_go_while_a_renewal_was_on_its_way_is_let_go_after_it(rig: Rig) -> None:
    lease = rig.leases["a"]
    rig.now += L / 3
    lease.tick(rig.now)
    lease.let_go(rig.now)
    assert len(lease.questions) == 1 and not rig.holds("a")
    rig.run()
    assert rig.engine.row.holder == "" and not rig.holds("a")


def test_what_is_wanted_while_a_look_is_on_its_way_is_tried_as_soon_as_that_is_over(rig: Rig) -> None:
    rig.leases["a"].let_go(rig.now)
    rig.run(0.21)
    rig.now += L / 5
    lease = rig.leases["b"]
    lease.tick(rig.now)
    lease.take(2, rig.now)
    assert [question.stamp for question in lease.questions] == [None]
    rig.answer("b")
    assert rig.holds("b")


def test_an_engine_that_forgot_gives_it_to_its_holder_again_or_to_others_after_a_whole_lease(rig: Rig) -> None:
    rig.run(0.3)
    rig.stopped.add("a")
    rig.engine.row = Row(0, "", 0)
    rig.run(0.3)
    assert not rig.leases["b"].is_free(rig.now), "its holder may not know yet"
    rig.stopped.clear()
    rig.run(0.3)
    assert rig.holds("a") and rig.engine.row == Row(1, "a life", 1)
    rig.run(0.5)
    rig.stopped.add("a")
    rig.engine.row = Row(0, "", 0)
    rig.run(1.3)
    assert rig.leases["b"].is_free(rig.now)


def test_an_answer_to_another_question_is_none(rig: Rig) -> None:
    lease = rig.leases["a"]
    rig.now += L / 3
    lease.tick(rig.now)
    question, until = lease.questions.pop(0), lease.until
    lease.answered(Answer(question.number - 1, True, Row(9, "a life", 1)), rig.now)
    assert lease.until == until


@pytest.mark.parametrize("seed", range(30))
def test_never_do_two_hold_it_whatever_is_lost_late_or_stopped(seed: int) -> None:
    """Each answer takes its time, or is lost, before or after it was done; masters stand still and go on."""
    chance = random.Random(seed)
    rig = Rig("abc")
    under_way: list[tuple[float, bool, str, Answer]] = []  # when, done or lost, whose
    epochs: list[int] = []
    for _ in range(2000):
        rig.now += 0.01
        for name, lease in rig.leases.items():
            if chance.random() < 0.002:
                (rig.stopped.discard if name in rig.stopped else rig.stopped.add)(name)
            if name in rig.stopped:
                continue
            for each in [each for each in under_way if each[2] == name and each[0] <= rig.now]:
                under_way.remove(each)
                lease.answered(each[3], rig.now)
            lease.tick(rig.now)
            if not lease.epoch and lease.is_free(rig.now) and chance.random() < 0.3:
                lease.take(lease.known_epoch + chance.randint(1, 2), rig.now)
            elif lease.epoch and not lease.is_ours and not lease.is_free(rig.now):
                lease.let_go(rig.now)
            elif chance.random() < 0.001:
                lease.let_go(rig.now)
            while lease.questions:
                question = lease.questions.pop(0)
                fate = chance.random()
                answer = rig.engine.do(question) if fate > 0.1 else Answer(question.number, False, None, "lost")
                if fate > 0.9:
                    answer = Answer(question.number, False, None, "timed out")
                under_way.append((rig.now + chance.choice([0.0, 0.0, 0.05, 0.4]), True, name, answer))
        holders = [lease for name, lease in rig.leases.items() if rig.holds(name)]
        assert len(holders) <= 1
        if holders and (not epochs or epochs[-1] != holders[0].epoch):
            epochs.append(holders[0].epoch)
    assert epochs and epochs == sorted(set(epochs)), "each time a higher one"
