"""What a standby decides: whether it promises, when it stands, whether it has won (docs/STANDBY.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from standby_rig import TOKEN, StandbyRig, T, sections

from rota.common import messages, wire
from rota.common.lifecycle import Liveness
from rota.common.messages import Closing, Deny, Grant, Promise, Replica, Vote, VoterHello, Welcome
from rota.common.settings import StandbySettings
from rota.master.core import records
from rota.master.core.beginning import Identity, Past
from rota.master.core.candidacy import Candidacy, Stage
from rota.master.core.outbox import BecomeActive, Dial, HangUp, Rise
from rota.master.core.pair_standby import PairStandby
from rota.master.core.records import Peer, Restored
from rota.master.core.verbs import Refuse


class Rig(StandbyRig[PairStandby]):
    """The agents would vote for it, unless a test says that they would not."""

    def __init__(self, electorate: str = "abc", backup: bool = True, was_active: bool = False, **settings: Any) -> None:
        super().__init__()
        self.electorate = electorate
        self.polled: dict[str, list[Vote]] = {}
        self.would_vote = True
        known = Restored()
        if not backup:
            known.peer = Peer("other", "tcp://other:7700", "backup")
            known.electorate = frozenset(electorate)
        given = {"backup_of": ("tcp://other:7700",) if backup else None, "takeover_after": T, **settings}
        self.core = PairStandby(
            Identity("me", address="tcp://me:7700"),
            sections(replace(StandbySettings(), **given)),
            Past(known, epoch=0 if backup else 5, epoch_by="me" if was_active else "other"),
            self.sources,
            self.now,
        )

    def snapshot(self) -> list[bytes]:
        return [records.electorate(self.electorate)]

    def hears(self, node: str, message: Any) -> None:
        if not message.poll:
            return super().hears(node, message)
        self.polled.setdefault(node, []).append(message)
        if self.would_vote:
            self.say(node, Grant(message.epoch, poll=True))


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    for node in "abc":
        made.greet(node)
    made.follow()
    return made


@pytest.mark.parametrize(
    "backup_of, told",
    [
        ("tcp://other:7700", "no master is active: the one at tcp://other:7700 is the backup of another one, as me is"),
        ("tcp://me:7700", "me is to stand by for itself: --backup-of is for the address of the other master"),
    ],
    ids=["each other's", "its own"],
)
def test_a_backup_without_a_primary_says_so_until_there_is_one(backup_of: str, told: str) -> None:
    rig = Rig(backup_of=(backup_of,))
    rig.core.link_opened()
    rig.link(Welcome(1, 0, "other", state="standby"), wire.WELCOME)
    (alarm,) = rig.core.status(rig.now)["master"]["alarms"]
    assert alarm.startswith(told) and rig.stage is Stage.FOLLOWING
    rig.follow()
    assert not rig.core.status(rig.now)["master"]["alarms"]


# ---- LIVE, DEAD, CLOSE -----------------------------------------------------------------------------------------------


def test_the_active_is_live_when_it_is_first_heard_and_each_pulse_is_answered_with_a_promise(rig: Rig) -> None:
    assert rig.core.liveness is Liveness.LIVE
    assert [(promise.number, promise.lasts_ms) for promise in rig.told(Promise)] == [(1, 1000)]
    assert [event["kind"] for event in rig.core.events.since(0)] == ["master", "LIVE"]


def test_silence_for_the_threshold_is_death_and_the_standby_stands(rig: Rig) -> None:
    rig.wait(0.9)
    assert rig.core.liveness is Liveness.LIVE and rig.stage is Stage.FOLLOWING
    rig.wait(0.2)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.CANDIDATE


def test_who_was_never_live_cannot_die_so_a_standby_that_starts_first_waits() -> None:
    rig = Rig()
    for node in "abc":
        rig.greet(node)
    rig.wait(60.0)
    assert rig.core.liveness is Liveness.UNKNOWN and rig.stage is Stage.FOLLOWING
    rig.follow()
    assert rig.core.liveness is Liveness.LIVE


def test_a_lost_connection_is_no_death(rig: Rig) -> None:
    rig.core.link_lost(rig.now)
    assert rig.core.liveness is Liveness.LIVE
    rig.wait(0.5)
    assert rig.stage is Stage.FOLLOWING and rig.of(Dial)


def test_after_a_goodbye_without_handover_silence_means_nothing_until_it_is_live_again(rig: Rig) -> None:
    rig.link(Closing(1, False))
    rig.wait(60.0)
    assert rig.core.liveness is Liveness.CLOSED and rig.stage is Stage.FOLLOWING
    rig.follow()
    rig.wait(1.1)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.CANDIDATE


def test_a_goodbye_that_hands_over_is_followed_at_once(rig: Rig) -> None:
    rig.link(Closing(1, True))
    assert rig.stage is Stage.CANDIDATE


def test_the_standby_that_stood_still_itself_does_not_call_that_silence(rig: Rig) -> None:
    rig.now += 30.0
    rig.core.tick(rig.now)
    rig.flush()
    assert rig.core.liveness is Liveness.LIVE and rig.stage is Stage.FOLLOWING


# ---- standing --------------------------------------------------------------------------------------------------------


def test_its_epoch_is_durable_before_anybody_is_asked_for_a_vote(rig: Rig) -> None:
    rig.core.raised = lambda now: None  # type: ignore[method-assign]  # the disk takes its time
    rig.wait(1.2)
    assert rig.of(Rise)[-1] == Rise(2, "") and rig.stage is Stage.RAISING and not rig.asked


def test_whoever_would_lose_does_not_stand_so_nobody_notes_an_epoch(rig: Rig) -> None:
    rig.would_vote = False
    rig.wait(1.1)
    rig.say("a", Grant(2, poll=True))
    rig.say("b", Deny(2, 1, 900, "other has its lease"))
    rig.wait(30.0)
    rig.say("a", Grant(2, poll=True))
    assert rig.stage is Stage.POLLING and not rig.asked and Rise(2, "") not in rig.effects
    assert rig.polled["a"][-1] == Vote(2, "me", 1000, True)
    rig.say("b", Grant(2, poll=True))
    assert rig.of(Rise)[-1] == Rise(2, "") and {node: len(votes) for node, votes in rig.asked.items()} == dict.fromkeys(
        "abc", 1
    )


def test_what_was_answered_to_the_poll_is_no_vote(rig: Rig) -> None:
    rig.wait(1.1)
    for node in "abc":
        rig.say(node, Grant(2, poll=True))
    assert rig.stage is Stage.CANDIDATE


def test_what_a_poll_was_told_counts_for_one_lease(rig: Rig) -> None:
    rig.would_vote = False
    rig.wait(1.1)
    rig.say("a", Grant(2, poll=True))
    rig.wait(1.1)
    rig.say("b", Grant(2, poll=True))
    assert rig.stage is Stage.POLLING
    rig.say("c", Grant(2, poll=True))
    assert rig.stage is Stage.CANDIDATE


def test_a_poll_is_taken_for_an_epoch_above_each_that_is_told(rig: Rig) -> None:
    rig.would_vote = False
    rig.wait(1.1)
    rig.say("a", Deny(2, 8, 0, "epoch 8 was seen"))
    rig.wait(0.1)
    assert rig.stage is Stage.POLLING and rig.polled["b"][-1].epoch == 10


def test_who_has_too_few_votes_for_one_lease_polls_again_and_counts_them_no_more(rig: Rig) -> None:
    rig.wait(1.1)
    rig.grant("a")
    rig.would_vote = False
    rig.wait(1.1)
    assert rig.stage is Stage.POLLING and rig.polled["a"][-1].epoch == 4 and not rig.core.candidacy.granted


def test_what_is_handed_over_is_taken_without_a_poll(rig: Rig) -> None:
    rig.would_vote = False
    rig.link(Closing(1, True))
    assert rig.stage is Stage.CANDIDATE and not rig.polled


def test_a_majority_of_votes_makes_a_master(rig: Rig) -> None:
    rig.wait(1.1)
    assert {node: votes[0] for node, votes in rig.asked.items()} == dict.fromkeys("abc", Vote(2, "me", 1000))
    rig.grant("a")
    assert not rig.of(BecomeActive)
    rig.grant("b")
    won = rig.of(BecomeActive)[0]
    assert won.epoch == 2 and set(won.granted) == {"a", "b"} and won.complete


def test_a_vote_counts_as_a_lease_from_when_it_was_first_asked_for(rig: Rig) -> None:
    rig.wait(1.1)
    asked_at = rig.now
    rig.wait(0.5)  # it is asked again meanwhile
    rig.grant("a", "b")
    assert all(until <= asked_at + T for until in rig.of(BecomeActive)[0].granted.values())


def test_votes_of_nodes_that_do_not_count_make_no_master(rig: Rig) -> None:
    rig.greet("d")
    rig.greet("e")
    rig.wait(1.1)
    rig.grant("d", "e", "a")
    assert not rig.of(BecomeActive)


def test_votes_for_an_earlier_epoch_are_worth_nothing(rig: Rig) -> None:
    rig.wait(1.1)
    rig.say("a", Grant(1))
    rig.say("b", Grant(1))
    assert not rig.of(BecomeActive)


def test_without_any_node_nobody_can_be_elected() -> None:
    rig = Rig(electorate="")
    rig.follow()
    rig.wait(5.0)
    assert rig.stage is Stage.FOLLOWING and not rig.of(BecomeActive)


def test_without_any_node_two_that_were_started_again_do_not_wait_for_votes() -> None:
    rig = Rig(electorate="", backup=False, was_active=True)
    rig.wait(5.0)
    assert not rig.of(BecomeActive)  # the other one may be active
    rig.core.link_opened()
    rig.link(Welcome(1, 5, "other", state="standby"), wire.WELCOME)
    rig.wait(0.1)
    assert rig.of(BecomeActive)


def test_without_any_node_it_takes_what_is_handed_over() -> None:
    rig = Rig(electorate="")
    rig.follow()
    rig.link(Closing(1, True))
    assert rig.of(BecomeActive)


def test_while_a_change_is_not_agreed_both_electorates_must_have_voted(rig: Rig) -> None:
    rig.link(Replica(8, [records.electorate("abcde", before="abc")]))
    for node in "de":
        rig.greet(node)
    rig.wait(1.1)
    rig.grant("c", "d", "e")
    assert not rig.of(BecomeActive)  # a majority of the new one only
    rig.grant("a")
    assert rig.of(BecomeActive)


def test_the_first_nodes_elect_a_master_though_they_were_not_agreed_on(rig: Rig) -> None:
    rig.link(Replica(8, [records.electorate("abc", before="")]))
    rig.wait(1.1)
    rig.grant("a", "b")
    assert rig.of(BecomeActive)


def test_a_candidate_that_was_refused_rests_though_the_active_is_dead(rig: Rig) -> None:
    """Two that stand again at once keep each one node of two, for ever."""
    rig.wait(1.1)
    epoch = rig.core.candidacy.epoch
    rig.grant("b")
    rig.say("a", Deny(epoch, epoch + 1, 0, "another one stood"))
    rig.wait(0.9)
    assert rig.stage is Stage.FOLLOWING
    rig.wait(1.3)
    assert rig.stage is Stage.CANDIDATE and rig.core.candidacy.epoch > epoch


def test_the_primary_stands_for_odd_epochs_the_backup_for_even_ones() -> None:
    for seen, odd, epoch in ((0, True, 1), (0, False, 2), (1, True, 3), (1, False, 2), (7, True, 9), (7, False, 8)):
        assert Candidacy("m", T, seen, odd).stand() == epoch


def test_with_any_as_quorum_it_is_active_without_votes() -> None:
    rig = Rig(quorum="any")
    rig.follow()
    rig.wait(1.1)
    assert rig.of(BecomeActive)[0].epoch == 2


def test_a_voter_whose_lease_runs_is_asked_again_soon_for_it_may_be_released(rig: Rig) -> None:
    rig.wait(1.02)
    rig.say("a", Deny(2, 1, 900, "other has its lease"))
    asked = len(rig.asked["a"])
    rig.wait(0.08)
    assert len(rig.asked["a"]) == asked + 1


def test_a_vote_lost_to_a_higher_epoch_is_stood_for_again_above_it(rig: Rig) -> None:
    rig.wait(1.02)
    rig.say("a", Deny(2, 8, 0, "epoch 8 was seen"))
    assert rig.stage is Stage.FOLLOWING
    rig.wait(0.4)
    assert rig.of(Rise)[-1] == Rise(10, "")


def test_with_too_few_voters_it_says_what_to_start(rig: Rig) -> None:
    def alarms() -> list[str]:
        return rig.core.status(rig.now)["master"]["alarms"]

    rig.wait(1.1)
    assert not alarms()
    rig.wait(2.5)
    rig.greet("a")
    (alarm,) = alarms()  # the others died without a goodbye
    assert "of 3 nodes that vote 1 are connected to me, and 2 are needed: start 1 of b, c again" in alarm
    assert "with both masters' addresses (-m)" in alarm
    assert "`rota witness --name b -m …`" in alarm
    rig.greet("c")
    assert not alarms()


def test_the_active_is_told_how_many_voters_were_heard_lately(rig: Rig) -> None:
    rig.wait(2.0, pulses=1)
    rig.greet("a")
    assert rig.said[-1].voters == 3
    rig.wait(2.0, pulses=1)
    assert rig.said[-1].voters == 1


def test_a_vote_that_crosses_a_hello_said_again_counts(rig: Rig) -> None:
    rig.wait(1.1)
    before = dict(rig.voters)
    rig.greet("a")
    assert rig.voters == before
    rig.grant("a", "b")
    assert rig.stage is Stage.WON


def test_a_candidate_that_hears_the_active_again_withdraws_and_late_votes_do_not_make_it_one(rig: Rig) -> None:
    rig.wait(1.02)
    rig.pulse()
    assert rig.stage is Stage.FOLLOWING and rig.core.liveness is Liveness.LIVE
    rig.say("a", Grant(2))
    rig.say("b", Grant(2))
    assert not rig.of(BecomeActive)


def test_it_does_not_stand_before_its_last_promise_is_over(rig: Rig) -> None:
    rig.wait(0.5, pulses=1)
    rig.core.liveness = Liveness.DEAD
    rig.wait(0.9)
    assert rig.stage is Stage.FOLLOWING
    rig.wait(0.2)
    assert rig.stage is Stage.CANDIDATE


def test_one_that_has_not_got_everything_yet_takes_over_nothing() -> None:
    rig = Rig()
    rig.core.link_opened()
    rig.link(Welcome(1, 1, "other"), wire.WELCOME)
    rig.link(Replica(7, [records.electorate("abc")], True, True))  # and more to come
    rig.pulse()
    rig.wait(3.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING


def test_one_that_was_out_of_touch_too_long_does_not_say_that_it_knows_all(rig: Rig) -> None:
    rig.wait(5.0)
    rig.grant("a", "b")
    assert not rig.of(BecomeActive)[0].complete


def test_a_link_over_which_nobody_speaks_is_given_up_and_dialled_anew(rig: Rig) -> None:
    rig.wait(2.5)
    assert not rig.of(HangUp)
    rig.wait(1.0)
    assert rig.of(HangUp) and rig.of(Dial)


def test_a_goodbye_that_it_did_not_act_on_does_not_make_it_know_all(rig: Rig) -> None:
    rig.link(Closing(1, False))
    rig.wait(2.0)
    rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)
    rig.flush()
    rig.grant("a", "b")
    assert not rig.of(BecomeActive)[0].complete


def test_where_another_master_stood_meanwhile_it_does_not_say_that_it_knows_all(rig: Rig) -> None:
    rig.link(Closing(1, True))
    rig.say("a", Deny(2, 9, 0, "epoch 9 was seen"))
    rig.wait(0.4)
    rig.grant("a", "b")
    won = rig.of(BecomeActive)[0]
    assert won.epoch == 10 and not won.complete


def test_voters_that_have_seen_another_master_since_show_that_it_does_not_know_all(rig: Rig) -> None:
    rig.pulse(epoch=4)
    rig.wait(1.1)
    rig.grant("a", before=5)
    rig.grant("b", before=4)
    won = rig.of(BecomeActive)[0]
    assert won.epoch == 6 and not won.complete


def test_who_was_active_last_and_of_whose_voters_nobody_has_seen_another_one_knows_all() -> None:
    for before, complete in ((5, True), (6, False), (-1, False)):
        rig = Rig(backup=False, was_active=True)
        for node in "abc":
            rig.greet(node)
        rig.wait(3.0)
        rig.grant("a", "b", before=before)
        won = rig.of(BecomeActive)[0]
        assert won.epoch == 7 and won.complete is complete


def test_what_a_stranger_tells_of_epochs_counts_for_nothing(rig: Rig) -> None:
    hello = VoterHello([1, 1], "stranger", "boot", 1 << 20)
    rig.core.control(b"stranger", messages.framed(wire.HELLO, 0, hello), rig.now)
    rig.wait(1.1)
    assert rig.core.candidacy.epoch == 2


def test_a_snapshot_and_the_record_behind_it_are_written_in_this_order(rig: Rig) -> None:
    core = rig.core
    core.link_opened()
    core.from_link(messages.framed(wire.WELCOME, TOKEN, Welcome(1, 1, "other")), rig.now)
    for each in (Replica(7, [records.electorate("abc")], True, False), Replica(8, [records.scaled("orders", 3)])):
        core.from_link(messages.framed(wire.CONTROL, TOKEN, each), rig.now)
    (first, snapshot), (second, record) = core.out.records
    assert second == first + 1 and isinstance(snapshot, list) and isinstance(record, bytes)


def test_an_active_of_a_lower_epoch_than_it_knows_is_not_followed(rig: Rig) -> None:
    rig.pulse(epoch=4)
    rig.core.link_lost(rig.now)
    rig.core.link_opened()
    rig.link(Welcome(1, 3, "other"), wire.WELCOME)
    assert rig.of(HangUp)


# ---- after a start ---------------------------------------------------------------------------------------------------


def idle(rig: Rig) -> None:
    """The other master is there, and no more active than this one."""
    rig.core.link_opened()
    rig.link(Welcome(1, 5, "other", state="standby"), wire.WELCOME)


@pytest.mark.parametrize(("backup", "was_active", "within"), [(False, True, 1.3), (False, False, 1.7)])
def test_of_two_that_start_together_who_was_active_last_stands_first(
    backup: bool, was_active: bool, within: float
) -> None:
    rig = Rig(backup=backup, was_active=was_active)
    for node in "abc":
        rig.greet(node)
    for _ in range(20):
        idle(rig)
        rig.wait(within / 20)
    assert rig.stage is Stage.CANDIDATE and rig.core.candidacy.epoch == 7


def test_a_backup_that_was_never_active_does_not_stand_at_a_start() -> None:
    rig = Rig(backup=True)
    for _ in range(20):
        idle(rig)
        rig.wait(0.5)
    assert rig.stage is Stage.FOLLOWING


def test_a_primary_whose_other_master_does_not_answer_stands_after_a_while() -> None:
    rig = Rig(backup=False, was_active=True)
    for node in "abc":
        rig.greet(node)
    rig.wait(1.5)
    assert rig.stage is Stage.FOLLOWING
    rig.wait(1.5)
    assert rig.stage is Stage.CANDIDATE


def test_an_operator_may_have_it_stand_but_not_against_a_live_active(rig: Rig) -> None:
    def ask() -> Any:
        return rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)

    with pytest.raises(Refuse, match="is live"):
        ask()
    rig.link(Closing(1, False))
    rig.wait(2.0)
    assert ask().exit == 0 and rig.core.candidacy.epoch == 2


def test_an_operator_cannot_have_it_break_its_promise(rig: Rig) -> None:
    rig.link(Closing(1, False))
    with pytest.raises(Refuse, match="promised"):
        rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)


# ---- what is replicated ----------------------------------------------------------------------------------------------


def test_a_record_is_confirmed_when_it_is_durable_here(rig: Rig) -> None:
    rig.core.recorded = lambda number, now: None  # type: ignore[method-assign]  # the disk takes its time
    rig.link(Replica(8, [records.scaled("orders", 3)]))
    rig.sequence = 8
    rig.pulse()
    assert rig.said[-1].sequence == 7
    PairStandby.recorded(rig.core, 10, rig.now)
    rig.pulse()
    assert rig.said[-1].sequence == 8 and rig.core.mirror.known.targets == {"orders": 3}


def test_a_gap_ends_the_connection_and_everything_comes_anew(rig: Rig) -> None:
    rig.link(Replica(9, [records.scaled("orders", 3)]))
    assert rig.of(HangUp)
    rig.wait(0.3)
    assert rig.of(Dial)
    rig.follow()
    assert rig.core.mirror.known.electorate == frozenset("abc")


def test_a_record_that_is_not_understood_is_an_alarm_not_an_end(rig: Rig) -> None:
    rig.link(Replica(8, [b"\x81\xa1t\xa3new"]))
    assert "update it" in rig.core.alarms["records"] and rig.of(HangUp)


def test_answers_are_kept_until_their_caller_has_acknowledged_them(rig: Rig) -> None:
    from rota.master.core.follower import ANSWERS, COPY

    def answer(sequence: int, acked: int) -> None:
        frame = wire.head(wire.ANSWER, 5, number=sequence + 10, upto=sequence) + b"body"
        copies = COPY.pack(b"s" * 16, acked, len(frame)) + frame
        rig.core.from_link(wire.head(ANSWERS, TOKEN) + copies, rig.now)

    answer(1, 0)
    answer(2, 0)
    assert [wire.parse(frame)[8] for _, frame in rig.core.mirror.answers()] == [11, 12]
    answer(1, 1)  # it is known by now that this one has arrived
    assert len(rig.core.mirror.answers()) == 2  # what was kept is bounded by number and bytes, no more


@pytest.mark.parametrize("frame", [b"", b"\0" * 60, wire.head(wire.CONTROL, TOKEN) + b"\xc1", wire.head(wire.WHO, 0)])
def test_whatever_cannot_be_read_ends_the_link_not_the_standby(rig: Rig, frame: bytes) -> None:
    rig.core.from_link(frame, rig.now)
    rig.flush()
    assert rig.of(HangUp)


# ---- whoever comes here ----------------------------------------------------------------------------------------------


def test_clients_processes_and_agents_are_told_that_this_is_a_standby(rig: Rig) -> None:
    core = rig.core
    hello = messages.AgentHello([1, 1], "n", "b", 0, 1, [], {}, [], [], "active", 0)
    core.control(b"r", messages.framed(wire.HELLO, 0, hello), rig.now)
    core.frontend(b"r", wire.head(wire.HELLO, 0) + b"x", rig.now)
    core.backend(b"r", wire.head(wire.HELLO, 0) + b"x", rig.now)
    for out in (core.out.control, core.out.frontend, core.out.backend):
        head = wire.parse_head(out[-1][1])
        refusal = messages.decode(out[-1][1][head.head_len :])
        assert head.kind == wire.REFUSED and isinstance(refusal, messages.Refusal) and refusal.code == "standby"


def test_other_frames_are_asked_who_they_are_of(rig: Rig) -> None:
    rig.core.frontend(b"r", wire.head(wire.REQUEST, 7, number=1), rig.now)
    assert wire.parse_head(rig.core.out.frontend[-1][1]).kind == wire.WHO


def test_a_frame_with_anothers_token_is_no_vote(rig: Rig) -> None:
    rig.wait(1.1)
    for node in "ab":
        frame = messages.framed(wire.CONTROL, rig.voters["c"], Grant(2))
        rig.core.control(node.encode(), frame, rig.now)
    rig.flush()
    assert not rig.of(BecomeActive)


def test_who_has_handed_over_does_not_stand_against_the_candidate_that_it_made_one() -> None:
    rig = Rig(backup=False, was_active=True)
    rig.core.link_opened()
    rig.link(Welcome(1, 5, "other", state="candidate"), wire.WELCOME)
    rig.wait(1.0)
    assert rig.core.candidacy.stage is Stage.FOLLOWING
    rig.core.link_opened()
    rig.link(Welcome(1, 5, "other", state="standby"), wire.WELCOME)
    rig.wait(0.1)
    assert rig.core.candidacy.stage is not Stage.FOLLOWING, "one that is idle, too, is no reason to wait"
