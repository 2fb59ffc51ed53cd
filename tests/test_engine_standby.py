"""Where an engine decides who is active: when a standby stands, and what it does first; what the active one keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from standby_rig import StandbyRig, T, sections

from rota.common import messages, wire
from rota.common.lifecycle import Liveness
from rota.common.messages import Closing, Deny, Grant, PeerHello, Promise, Pulse, Replica, Vote, Welcome
from rota.common.settings import StandbySettings
from rota.master.core import followers, records
from rota.master.core.beginning import Identity, Past
from rota.master.core.candidacy import Stage
from rota.master.core.engine_lease import RETRIES, Answer, EngineLease, Question, Row
from rota.master.core.engine_standby import EngineStandby
from rota.master.core.events import EventLog
from rota.master.core.group import Group
from rota.master.core.outbox import BecomeActive, Dial, Outbox, Rise
from rota.master.core.records import Peer, Restored

OTHERS = ("tcp://a:7700", "tcp://c:7700")


class Engine:
    """Does at once what is asked, unless it is away."""

    def __init__(self) -> None:
        self.row = Row(0, "", 0)
        self.away = False
        self.full = False  # it can be read, and nothing is written

    def answer(self, question: Question) -> Answer:
        if self.full and question.stamp is not None:
            return Answer(question.number, False, None, "the disk is full")
        if self.away:
            return Answer(question.number, False, None, "connection refused")
        changed = question.stamp is not None and question.stamp == self.row.stamp
        if changed:
            self.row = Row(self.row.stamp + 1, question.holder, question.epoch)
        return Answer(question.number, changed, self.row)

    def held_by(self, name: str, epoch: int) -> None:
        self.row = Row(self.row.stamp + 1, f"{name} life" if name else "", epoch)


class Rig(StandbyRig[EngineStandby]):
    """The standby `b`, and the engine."""

    other = "a"

    def __init__(self, others: tuple[str, ...] | None = OTHERS, epoch: int = 0, was_active: bool = False) -> None:
        super().__init__()
        self.engine = Engine()
        self.lease = EngineLease("etcd", "b life", T, self.now)
        self.core = EngineStandby(
            Identity("b", address="tcp://b:7700"),
            sections(replace(StandbySettings(), backup_of=others, takeover_after=T)),
            Past(Restored(), epoch=epoch, epoch_by="b" if was_active else "a"),
            self.sources,
            self.lease,
            self.now,
        )

    def follow(self, epoch: int = 1) -> None:
        """`a` has the lease, too."""
        self.engine.held_by("a", epoch)
        self.wait(0.02)
        super().follow(epoch)

    def goes_on(self, epoch: int) -> None:
        """And renews it."""
        self.engine.held_by("a", epoch)
        super().goes_on(epoch)

    def flush(self) -> None:
        super().flush()
        while self.lease.questions:
            self.core.engine_answered(self.engine.answer(self.lease.questions.pop(0)), self.now)
            super().flush()

    @property
    def active(self) -> bool:
        return bool(self.of(BecomeActive))


def heard_only(rig: Rig, seconds: float) -> None:
    """The active one renews nothing meanwhile."""
    for _ in range(round(seconds / 0.02)):
        rig.now += 0.02
        rig.pulse()
        rig.core.tick(rig.now)
        rig.flush()


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.follow()
    return made


# ---- when it stands --------------------------------------------------------------------------------------------------


def test_while_the_lease_is_renewed_a_silent_active_is_no_reason_to_stand(rig: Rig) -> None:
    for _ in range(30):
        rig.wait(0.1)
        rig.engine.held_by("a", 1)
    assert rig.core.liveness is Liveness.DEAD and not rig.of(Rise)[1:], "the engine decides"


def test_when_the_lease_is_over_it_has_the_lease_first_and_then_the_nodes_fence(rig: Rig) -> None:
    rig.greet("n1", "n2")
    rig.wait(1.5)
    assert rig.engine.row.holder == "b life" and rig.engine.row.epoch == 2
    assert [type(each) for each in rig.asked["n1"]].count(Vote) >= 1
    assert rig.asked["n1"][0] == Vote(2, "b", 0), "no lease is asked of them, so none is in the way"
    assert not rig.active
    rig.say("n1", Grant(2))
    rig.say("n2", Grant(2))
    assert rig.active and rig.of(BecomeActive)[0].epoch == 2


def test_a_node_that_does_not_answer_is_waited_for_no_longer_than_one_lease(rig: Rig) -> None:
    rig.greet("n1", "n2")
    rig.wait(1.4)
    rig.say("n1", Grant(2))
    assert not rig.active
    rig.wait(T)
    assert rig.active and rig.engine.row.holder == "b life", "and it has renewed meanwhile"


def test_a_node_that_has_a_lease_running_to_a_master_of_a_pair_is_waited_for(rig: Rig) -> None:
    """That one was not told yet that an engine decides: it dispatches by leases of agents."""
    rig.greet("n1")
    rig.wait(1.4)
    for _ in range(5):
        rig.say("n1", Deny(2, 1, 500, "a has its lease"))
        rig.wait(T)
        assert not rig.active and rig.engine.row.holder == "b life"
    rig.say("n1", Grant(2))
    assert rig.active


def test_an_active_one_that_is_heard_but_cannot_renew_is_replaced(rig: Rig) -> None:
    rig.greet("n1")
    heard_only(rig, 1.5 * T)
    assert rig.engine.row.holder == "b life" and rig.core.liveness is Liveness.LIVE
    rig.pulse()
    rig.say("n1", Grant(2))
    assert rig.active, "it does not give up for being heard"


def test_an_active_one_that_is_heard_is_the_first_to_have_the_lease_when_the_engine_is_back(rig: Rig) -> None:
    rig.engine.away = True
    heard_only(rig, 3 * T)
    rig.engine.away = False
    heard_only(rig, 2 * T / RETRIES)  # in which it tries to renew it twice
    assert rig.engine.row.holder == "a life" and rig.stage is Stage.FOLLOWING
    rig.goes_on(1)
    heard_only(rig, 0.5 * T)
    assert rig.engine.row.holder == "a life" and rig.stage is Stage.FOLLOWING


def test_one_that_lost_the_race_follows_whoever_won(rig: Rig) -> None:
    rig.greet("n1")
    rig.wait(0.95)
    take = rig.engine.answer

    def faster(question: Question) -> Answer:
        if question.stamp is not None and "c" not in rig.engine.row.holder:
            rig.engine.held_by("c", 5)
        return take(question)

    rig.engine.answer = faster  # type: ignore[method-assign]
    rig.wait(0.5)
    assert rig.core.candidacy.stage is Stage.FOLLOWING and not rig.lease.epoch and not rig.active


def test_a_node_that_knows_a_higher_epoch_has_it_stand_once_more_above_that(rig: Rig) -> None:
    rig.greet("n1")
    rig.wait(1.4)
    rig.say("n1", Deny(2, 40, 0, "epoch 40 was seen"))
    rig.wait(0.5)
    assert rig.engine.row.epoch > 40 and rig.asked["n1"][-1].epoch == rig.engine.row.epoch


def test_one_that_was_refused_lets_the_lease_go_and_stands_above_what_was_seen(rig: Rig) -> None:
    rig.greet("n1")
    rig.wait(1.4)
    rig.say("n1", Deny(2, 3, 0, "epoch 3 was seen"))
    rig.pulse(3)
    assert rig.core.candidacy.stage is Stage.FOLLOWING
    rig.wait(0.3)
    assert rig.engine.row.epoch > 3, "it does not keep a lease that it has no use for"


def test_without_the_engine_it_does_not_stand_and_says_why(rig: Rig) -> None:
    rig.engine.away = True
    rig.wait(10.0)
    assert not rig.active and rig.core.candidacy.stage is Stage.FOLLOWING
    assert any("connection refused" in alarm for alarm in rig.core.status(rig.now)["master"]["alarms"])


def test_where_nothing_can_be_written_it_waits_for_the_lease_says_why_and_is_still_there(rig: Rig) -> None:
    """Else the active one would miss a standby that does nothing but wait."""
    rig.greet("n1")
    rig.engine.full = True
    heard_only(rig, 1.5)
    assert rig.stage is Stage.RAISING
    promises, epoch = len(rig.told(Promise)), rig.core.candidacy.epoch
    for _ in range(10):
        heard_only(rig, 0.1)
        alarms = rig.core.status(rig.now)["master"]["alarms"]
        assert alarms == ["the lease cannot be looked at: etcd: the disk is full"], (
            "also after a look that was answered"
        )
    assert len(rig.told(Promise)) >= promises + 10
    assert (rig.stage, rig.core.candidacy.epoch) == (Stage.RAISING, epoch), "it does not begin anew each time"
    rig.engine.full = False
    heard_only(rig, 0.5)
    assert rig.engine.row.holder == "b life"
    rig.grant("n1")
    assert rig.active and rig.core.lease.error == ""


def test_without_the_engine_it_tells_the_active_one_too(rig: Rig) -> None:
    rig.pulse()
    assert rig.told(Promise)[-1].unable == ""
    rig.engine.away = True
    heard_only(rig, 0.3)
    assert rig.told(Promise)[-1].unable == "the lease cannot be looked at: etcd: connection refused"


def test_silence_after_a_goodbye_without_handover_never_activates_it(rig: Rig) -> None:
    rig.link(Closing(1, False))
    rig.engine.held_by("", 1)
    rig.wait(10.0)
    assert not rig.active and not rig.of(Rise)[1:]


def test_what_an_operator_said_of_the_active_one_is_over_when_it_is_heard_again(rig: Rig) -> None:
    rig.link(Closing(1, False))
    assert rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now + 2.0).exit == 0
    rig.wait(0.5)  # somebody has the lease
    rig.core.link_opened()
    rig.link(Welcome(1, 1, "a"), wire.WELCOME)
    rig.pulse()
    rig.link(Closing(1, False))
    rig.engine.held_by("", 1)
    rig.wait(10.0)
    assert not rig.active and rig.core.candidacy.stage is Stage.FOLLOWING


@pytest.mark.parametrize("to", ["b", "c"])
def test_a_handover_is_followed_at_once_by_the_one_that_is_named_and_later_by_others(rig: Rig, to: str) -> None:
    rig.link(Closing(1, True, to))
    rig.engine.held_by("", 1)
    rig.wait(0.06)
    assert rig.active is (to == "b")
    rig.wait(0.3)
    assert rig.active, "if the other one does not"


def test_one_that_was_out_of_touch_lets_those_go_first_that_know_more(rig: Rig) -> None:
    rig.wait(2.9)
    assert rig.active
    late = Rig()
    late.follow()
    for _ in range(40):  # the active one goes on without us
        late.wait(0.1)
        late.engine.held_by("a", 1)
    late.wait(1.5)
    assert not late.active
    late.wait(2.0)
    assert late.active and not late.of(BecomeActive)[0].complete


# ---- at a start ------------------------------------------------------------------------------------------------------


def test_a_first_primary_without_others_is_active_at_once() -> None:
    rig = Rig(others=None)
    rig.wait(0.04)
    assert rig.active and rig.engine.row.epoch == 1


def test_a_backup_that_was_never_active_and_follows_nobody_does_not_stand() -> None:
    rig = Rig()
    rig.wait(30.0)
    assert not rig.active


@pytest.mark.parametrize("snapshot", [True, False])
def test_one_that_lacks_a_record_of_a_newer_active_does_not_stand_unless_an_operator_says_so(snapshot: bool) -> None:
    rig = Rig()
    rig.core.settings = replace(rig.core.settings, backup_of=None)  # the primary, which stands first after a start
    if snapshot:
        rig.snapshot = lambda: [msgpack.packb({"t": "moon"})]  # type: ignore[method-assign]
    rig.follow()
    if not snapshot:
        rig.link(Replica(8, [msgpack.packb({"t": "moon"})]))
    rig.wait(30.0)
    assert "records" in rig.core.alarms and not rig.active
    rig.core._force(rig.now)
    rig.wait(1.0)
    assert rig.active


def test_of_those_that_are_started_again_the_one_stands_whose_epoch_the_engine_has() -> None:
    last, before = Rig(epoch=7, was_active=True), Rig(epoch=5, was_active=True)
    for each in (last, before):
        each.engine.row = Row(9, "b earlier life", 7)
        each.wait(1.5)
    assert last.active and last.of(BecomeActive)[0].complete
    assert not before.active, "another one was active since"


def test_it_dials_the_others_in_turn_until_one_is_active() -> None:
    rig = Rig()
    for _ in range(3):
        rig.wait(0.3)
        rig.core.link_opened()
        rig.link(Welcome(1, 0, "?", state="standby"), wire.WELCOME)
    rig.wait(0.3)
    assert [each.address for each in rig.of(Dial)][:4] == [OTHERS[0], OTHERS[1], OTHERS[0], OTHERS[1]]


def test_a_connection_that_broke_is_made_again_at_the_same_master_first(rig: Rig) -> None:
    dialled = rig.of(Dial)[-1].address
    rig.core.link_lost(rig.now)
    rig.wait(0.3)
    assert rig.of(Dial)[-1].address == dialled
    rig.core.link_lost(rig.now)
    rig.wait(0.3)
    assert rig.of(Dial)[-1].address != dialled


def test_it_says_who_decides_so_that_masters_that_do_not_agree_on_that_do_not_pair(rig: Rig) -> None:
    assert rig.told(PeerHello)[0].lease == "etcd"


# ---- the active one --------------------------------------------------------------------------------------------------


class Active:
    def __init__(self) -> None:
        self.now = 100.0
        self.engine = Engine()
        self.out = Outbox()
        self.known = Restored()
        self.lease = EngineLease("etcd", "a life", T, self.now)
        self.number = 0
        settings = replace(StandbySettings(), takeover_after=T)
        active = followers.Active("a", settings, self.known, 0, self.journal, self.out, EventLog(lambda: 1_000_000.0))
        self.group = Group(active, self.lease, self.now)
        self.answer()
        self.lease.take(1, self.now)
        self.answer()

    def journal(self, data: bytes, ours: bool) -> int:
        self.number += 1
        self.known.read(data)
        self.group.record(self.number, data, ours)
        return self.number

    def answer(self) -> None:
        self.lease.tick(self.now)
        while self.lease.questions:
            self.lease.answered(self.engine.answer(self.lease.questions.pop(0)), self.now)

    def greet(self, name: str, role: str = "backup") -> None:
        hello = PeerHello([1, 1], name, f"tcp://{name}:7700", role, 1, 1000, "majority", "etcd")
        self.group.greet(name.encode(), ord(name), hello, 1, self.now)

    def promise(self, name: str, sequence: int, unable: str = "") -> None:
        self.group.from_standby(name.encode(), Promise(1, 1000, sequence, unable=unable), self.now)

    def tick(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.group.tick(1, self.now)
        self.answer()

    def said(self, name: str, kind: type) -> list[Any]:
        found = [messages.decode(frame[wire.parse_head(frame).head_len :]) for route, frame in self.out.control
                 if route == name.encode()]  # fmt: skip
        return [each for each in found if isinstance(each, kind)]


@pytest.fixture
def active() -> Active:
    made = Active()
    for name in "bc":
        made.greet(name)
    for name in "bc":
        made.promise(name, made.number)
    return made


def test_it_dispatches_while_it_has_the_lease_and_no_promise_makes_that_longer(active: Active) -> None:
    assert active.group.until() == pytest.approx(active.now + 0.95 * T)
    active.engine.away = True
    active.tick(0.34)
    active.promise("b", active.number)
    assert active.group.until() < 101.0 and not active.group.alone


def test_a_record_counts_when_every_standby_that_lives_has_it(active: Active) -> None:
    number = active.journal(records.scaled("shop", 3), False)
    assert active.group.durable(number) == number - 1
    active.promise("b", number)
    assert active.group.durable(number) == number - 1
    active.promise("c", number)
    assert active.group.durable(number) == number


def test_one_that_is_given_up_holds_nothing_up(active: Active) -> None:
    number = active.journal(records.scaled("shop", 3), False)
    for _ in range(32):
        active.promise("b", number)
        active.tick(0.1)
    assert active.group.others() == {"b": Liveness.LIVE, "c": Liveness.DEAD}
    assert active.group.durable(number) == number


def test_each_standby_gets_everything_and_knows_the_others(active: Active) -> None:
    first = active.said("c", Replica)[0]
    assert first.first and {"b", "c"} <= set(_members(first.records))
    active.journal(records.scaled("shop", 3), False)
    assert active.said("b", Replica)[-1].records == active.said("c", Replica)[-1].records
    active.tick(0.2)
    assert active.said("b", Pulse) and active.said("c", Pulse)


def _members(found: list[bytes]) -> dict[str, Peer]:
    known = Restored()
    for data in found:
        known.read(data)
    return known.members


def test_the_primary_that_follows_is_the_first_to_be_handed_over_to_and_the_lease_is_free(active: Active) -> None:
    active.greet("d", "primary")
    active.promise("d", active.number)
    for name in "bc":
        active.promise(name, active.number)
    active.group.close(1, True, active.now)
    assert {each.to for name in "bcd" for each in active.said(name, Closing)} == {"d"}
    active.answer()
    assert active.engine.row.holder == "" and active.group.until() < active.now


def test_a_standby_that_cannot_reach_the_engine_is_an_alarm_and_is_not_handed_over_to(active: Active) -> None:
    """By day, and not when it is to take over."""
    active.greet("d", "primary")
    for name in "bcd":
        active.promise(name, active.number, "etcd: timed out" if name in "cd" else "")
    wrong = [f"{name} could not take over: etcd: timed out" for name in "cd"]
    assert active.group.alarms(active.now) == wrong
    assert active.group.unready() == "" and active.group.peer and active.group.peer.name == "b"
    active.promise("b", active.number, "etcd: connection refused")
    assert active.group.unready() == "d could not take over: etcd: timed out"
    for name in "bcd":
        active.promise(name, active.number)
    assert active.group.alarms(active.now) == [] and not active.group.unready()


def test_without_its_engine_it_says_so_while_it_may_and_when_it_may_not(active: Active) -> None:
    assert active.group.alarms(active.now) == []
    active.engine.away = True
    active.tick(0.4)
    assert "the lease cannot be renewed: etcd: connection refused" in active.group.alarms(active.now)[0]
    active.now += 0.6
    assert active.group.why_held(active.now) == "the lease cannot be renewed: etcd: connection refused"
    assert active.group.alarms(active.now)[0].startswith("no quorum: the lease cannot be renewed: etcd: connection")


def test_one_that_is_forgotten_is_missed_no_more(active: Active) -> None:
    active.tick(10.0)
    assert sum("no standby" in each for each in active.group.alarms(active.now)) == 2
    active.group.forget("c")
    assert (
        sum("no standby" in each for each in active.group.alarms(active.now)) == 1 and "c" not in active.known.members
    )


def test_answers_are_copied_to_each_under_its_own_token(active: Active) -> None:
    copies = active.group.copies([(b"s" * 16, 0, b"answer")])
    assert [(route, wire.parse_head(frame).token) for route, frame in copies] == [(b"b", ord("b")), (b"c", ord("c"))]
