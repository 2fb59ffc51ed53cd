"""What a standby decides: whether it promises, when it stands, whether it has won (docs/STANDBY.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
import zmq
from standby_rig import TOKEN, StandbyRig, T, sections

from rota.common import exits, messages, wire
from rota.common.lifecycle import Liveness
from rota.common.messages import Closing, Deny, Grant, Promise, Replica, Vote, VoterHello, Welcome
from rota.common.settings import StandbySettings
from rota.master.core import records
from rota.master.core.beginning import Identity, Past
from rota.master.core.candidacy import Candidacy, Stage
from rota.master.core.follower import ANSWERS, COPY
from rota.master.core.outbox import BecomeActive, Dial, HangUp, Notify, Rise, SayPeer
from rota.master.core.pair_standby import PairStandby
from rota.master.core.records import Peer, Restored
from rota.master.core.verbs import Refuse


class Rig(StandbyRig[PairStandby]):
    """The agents would vote for it, unless a test says that they would not."""

    def __init__(
        self, electorate: str = "abc", backup: bool = True, was_active: bool = False, stood: int = 0, **settings: Any
    ) -> None:
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
            Past(known, epoch=0 if backup else 5, epoch_by="me" if was_active else "other", stood=stood),
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


def test_a_primary_does_not_ask_for_one_nor_does_a_backup_that_knows_of_an_epoch() -> None:
    for rig in (Rig(backup=False), Rig(stood=2)):
        rig.core.link_opened()
        rig.link(Welcome(1, 0, "other", state="standby"), wire.WELCOME)
        assert not rig.core.alarms


# ---- LIVE, DEAD, CLOSE -----------------------------------------------------------------------------------------------


def test_the_active_is_live_when_it_is_first_heard_and_each_pulse_is_answered_with_a_promise(rig: Rig) -> None:
    assert rig.core.liveness is Liveness.LIVE
    assert [(promise.number, promise.lasts_ms) for promise in rig.told(Promise)] == [(1, 1000)]
    assert [event["kind"] for event in rig.core.events.since(0)] == ["master", "LIVE"]
    assert [(told.kind, told.subject) for told in rig.of(Notify)] == [("live", "other")]


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


def test_the_threshold_may_be_changed_by_a_reload(rig: Rig) -> None:
    rig.core.reconfigure(sections(replace(rig.core.settings, takeover_after=3.0)))
    rig.pulse()
    rig.wait(2.9)
    assert rig.core.liveness is Liveness.LIVE and rig.told(Promise)[-1].lasts_ms == 3000
    rig.wait(0.2)
    assert rig.core.liveness is Liveness.DEAD


def test_a_lost_connection_is_no_death(rig: Rig) -> None:
    rig.core.link_lost(rig.now)
    assert rig.core.liveness is Liveness.LIVE
    rig.wait(0.5)
    assert rig.stage is Stage.FOLLOWING and rig.of(Dial)


def test_who_stands_first_by_configuration_does_not_stand_after_a_goodbye_either() -> None:
    rig = Rig(backup=False)
    rig.greet(*"abc")
    rig.follow(6)
    rig.link(Closing(6, False))
    rig.wait(60.0)
    assert rig.core.liveness is Liveness.CLOSED and rig.stage is Stage.FOLLOWING


def test_the_goodbye_of_an_older_active_means_nothing(rig: Rig) -> None:
    rig.pulse(epoch=3)
    rig.link(Closing(1, True))
    assert rig.core.liveness is Liveness.LIVE and rig.stage is Stage.FOLLOWING


def test_an_older_active_gets_no_promise_nor_does_any_once_it_has_won(rig: Rig) -> None:
    rig.pulse(epoch=3)
    rig.said.clear()
    rig.pulse(epoch=2)
    assert not rig.told(Promise)
    rig.wait(1.1)
    rig.grant("a", "b")
    rig.pulse(epoch=3)
    assert not rig.told(Promise) and rig.stage is Stage.WON


def test_what_was_said_over_an_earlier_link_counts_for_nothing(rig: Rig) -> None:
    rig.said.clear()
    rig.link(messages.Pulse(9, 1, 7), token=TOKEN + 1)
    rig.link(Closing(1, True), token=TOKEN + 1)
    assert not rig.told(Promise) and rig.stage is Stage.FOLLOWING and not rig.of(HangUp)


def test_after_a_goodbye_without_handover_silence_means_nothing_until_it_is_live_again(rig: Rig) -> None:
    rig.link(Closing(1, False))
    rig.wait(60.0)
    assert rig.core.liveness is Liveness.CLOSED and rig.stage is Stage.FOLLOWING
    rig.follow()
    rig.wait(1.1)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.CANDIDATE


def test_a_goodbye_that_hands_over_is_followed_at_once(rig: Rig) -> None:
    rig.link(Closing(1, True))
    assert rig.stage is Stage.CANDIDATE and rig.of(HangUp)
    rig.wait(10.0)
    rig.grant("a", "b")
    assert rig.of(BecomeActive)[0].complete, "that was its last word"


def test_what_it_has_not_got_or_would_leave_at_once_is_not_handed_over_to_it(rig: Rig) -> None:
    rig.core.stop(rig.now)
    rig.link(Closing(1, True))
    rig.wait(5.0)
    assert rig.stage is Stage.FOLLOWING and rig.core.ready_to_end(rig.now)
    empty = Rig()
    empty.core.link_opened()
    empty.link(Welcome(1, 1, "other"), wire.WELCOME)
    empty.link(Closing(1, True))
    assert empty.stage is Stage.FOLLOWING


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


def test_each_voter_is_told_who_has_won(rig: Rig) -> None:
    rig.wait(1.1)
    rig.grant("a", "b")
    told = {route: messages.decode(frame[wire.parse_head(frame).head_len :]) for route, frame in rig.core.won()}
    assert told == dict.fromkeys([b"a", b"b", b"c"], messages.Won(2))


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
    (won,) = rig.of(BecomeActive)
    assert not won.complete, "nobody's vote could tell of a third one"


def test_without_any_node_it_takes_what_is_handed_over() -> None:
    rig = Rig(electorate="")
    rig.follow()
    rig.link(Closing(1, True))
    (won,) = rig.of(BecomeActive)
    assert won.complete and rig.core.mirror.known.peer is not None, "the other one may follow it"


def test_without_any_node_it_is_alone_when_an_operator_says_so() -> None:
    rig = Rig(electorate="")
    rig.follow()
    rig.wait(5.0)
    force(rig)
    assert rig.of(BecomeActive) and rig.core.mirror.known.peer is None


def test_what_an_operator_said_is_over_when_the_active_is_heard_again(rig: Rig) -> None:
    rig.would_vote = False
    rig.link(Closing(1, False))
    rig.wait(2.0)
    force(rig)
    rig.electorate = ""
    rig.follow()
    rig.link(Closing(1, True))
    assert rig.of(BecomeActive) and rig.core.mirror.known.peer is not None


def test_whoever_has_followed_nobody_is_not_left_alone() -> None:
    rig = Rig(electorate="")
    rig.wait(2.0)
    force(rig)
    rig.wait(5.0)
    assert not rig.of(BecomeActive)


@pytest.mark.parametrize(("electorate", "before", "enough"), [("", "a", "a"), ("ab", "cd", "abcd"), ("ab", "", "ab")])
def test_who_counted_before_is_asked_and_has_a_say(rig: Rig, electorate: str, before: str, enough: str) -> None:
    rig.link(Replica(8, [records.electorate(electorate, before=before)]))
    rig.greet("d", "z")
    rig.wait(1.1)
    rig.grant(*enough[:-1])
    assert not rig.of(BecomeActive)
    rig.grant(enough[-1])
    assert rig.of(BecomeActive)
    assert "z" not in rig.asked and "z" not in rig.polled, "it would know of an epoch that nobody has to believe it"


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


def test_a_candidate_whose_active_is_heard_before_its_epoch_is_durable_asks_nobody() -> None:
    subject = Candidacy("m", T, 1, False)
    subject.stand()
    subject.withdraw()
    subject.raised(0.0)
    assert subject.stage is Stage.FOLLOWING and subject.to_ask("abc", 0.0) == []


def polling(odd: bool = False) -> Candidacy:
    """That asked a and b, for epoch 6 or 7."""
    subject = Candidacy("m", T, 5, odd)
    subject.poll(0.0)
    assert subject.to_ask("ab", 0.0) == ["a", "b"]
    return subject


def candidate(odd: bool = False) -> Candidacy:
    subject = polling(odd)
    subject.stand()
    assert not subject.is_over(1e9), "it waits for its disk"
    subject.raised(0.5)
    subject.to_ask("ab", 0.5)
    return subject


def test_a_round_is_over_after_one_lease_or_when_its_epoch_is_no_news() -> None:
    subject = polling()
    assert not subject.is_over(T - 0.1) and subject.is_over(T)
    subject.saw(6)
    assert subject.is_over(0.0)
    subject = candidate()
    assert not subject.is_over(T + 0.4) and subject.is_over(T + 0.5)


def test_only_who_was_asked_in_this_round_has_a_say_and_from_then_on() -> None:
    subject = candidate()
    subject.answered("c", Grant(6), 0.5, 0.6)
    subject.answered("a", Grant(6), 0.5, 0.6)
    assert subject.granted == {"a": 0.5 + T}
    assert subject.to_ask("ab", 0.7) == ["b"], "who has granted it is not asked again"


def test_only_a_candidate_that_is_refused_rests_and_who_granted_it_does_not_refuse_it() -> None:
    subject = polling()
    subject.answered("a", Deny(6, 6, 0, ""), 0.5, 0.1)
    assert subject.stage is Stage.POLLING
    subject = candidate()
    subject.answered("a", Grant(6), 0.5, 0.6)
    subject.answered("a", Deny(6, 6, 0, ""), 0.5, 0.6)
    assert subject.stage is Stage.CANDIDATE
    subject.answered("b", Deny(6, 6, 0, ""), 0.5, 1.0)
    assert subject.rests and not subject.again(1.0 + 1.4 * T) and subject.again(1.0 + 1.5 * T)
    subject.withdraw()
    assert not subject.rests and not subject.again(1e9), "the active was heard"


@pytest.mark.parametrize(("before", "foreign"), [(0, 5), (5, 5), (6, 6), (-1, 6)])
def test_who_may_have_been_active_meanwhile_is_known_from_votes(before: int, foreign: int) -> None:
    subject = candidate(odd=True)
    subject.answered("a", Grant(7, before), 0.5, 0.6)
    assert subject.foreign == foreign


def test_its_own_epochs_are_nobody_elses() -> None:
    subject = candidate()
    subject.saw(6)
    assert subject.foreign == 5
    subject.saw(9)
    subject.saw(8)
    assert (subject.seen, subject.foreign) == (9, 9)


def test_nobody_is_elected_by_nobody() -> None:
    subject = candidate()
    assert not subject.has_won(frozenset()) and not subject.has_won(frozenset(), frozenset())


def test_the_primary_stands_for_odd_epochs_the_backup_for_even_ones() -> None:
    for seen, odd, epoch in ((0, True, 1), (0, False, 2), (1, True, 3), (1, False, 2), (7, True, 9), (7, False, 8)):
        assert Candidacy("m", T, seen, odd).stand() == epoch


@pytest.mark.parametrize("electorate", ["abc", ""])
def test_with_any_as_quorum_it_is_active_without_votes(electorate: str) -> None:
    rig = Rig(electorate, quorum="any")
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


def test_where_votes_do_not_count_none_is_missed() -> None:
    rig = Rig(quorum="any")
    rig.follow()
    rig.core.stop(rig.now)
    rig.wait(2.0)
    assert not rig.core.status(rig.now)["master"]["alarms"]


def test_of_nodes_that_cannot_vote_it_says_why(rig: Rig) -> None:
    def alarms() -> list[str]:
        return rig.core.status(rig.now)["master"]["alarms"]

    full = Deny(2, 1, 0, "its state directory cannot be written to: No space left on device")
    rig.wait(1.02)
    rig.say("a", full)
    assert not alarms(), "two are enough"
    rig.say("b", Deny(2, 1, 900, "other has its lease"))
    assert not alarms(), "that is over by itself"
    for _ in range(3):
        rig.say("b", full)
    (alarm,) = alarms()
    assert alarm.startswith(
        "no master can be elected: 2 of 3 nodes are to vote for it, and of 3 that are connected to me 2"
    )
    assert alarm.endswith(f"a: {full.why}; b: {full.why}")
    told = [event for event in rig.core.events.since(0) if event["kind"] == "denied"]
    assert [(event["subject"], event["text"]) for event in told] == [(n, f"{n} cannot vote: {full.why}") for n in "ab"]
    rig.wait(1.2)
    assert rig.stage in (Stage.POLLING, Stage.CANDIDATE) and alarms() == [alarm], "a poll is granted, and says nothing"
    rig.grant("b")
    assert not alarms()
    rig.say("b", Deny(rig.core.candidacy.epoch, 1, 0, full.why))
    rig.follow()
    rig.wait(1.2)
    for node in "abc":
        rig.greet(node)
    assert not alarms(), "the active was there: who knows what has been mended since"


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


def incomplete(backup: bool) -> Rig:
    rig = Rig(backup=backup)
    rig.greet(*"abc")
    rig.core.link_opened()
    rig.link(Welcome(1, 6, "other"), wire.WELCOME)
    rig.link(Replica(7, [records.electorate("abc")], True, True))  # and more to come
    rig.pulse(6)
    return rig


@pytest.mark.parametrize("backup", [True, False])
def test_one_that_has_not_got_everything_yet_takes_over_nothing(backup: bool) -> None:
    rig = incomplete(backup)
    rig.wait(3.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING


@pytest.mark.parametrize("goodbye", [True, False])
def test_one_that_has_not_got_everything_does_not_say_that_it_knows_all(goodbye: bool) -> None:
    rig = incomplete(backup=False)
    if goodbye:
        rig.link(Closing(6, False))
    rig.wait(1.1)
    force(rig)
    rig.grant("a", "b", before=6)
    assert not rig.of(BecomeActive)[0].complete


def test_who_was_not_active_last_and_has_heard_nobody_does_not_say_that_it_knows_all() -> None:
    rig = Rig(backup=False)
    rig.greet(*"abc")
    rig.wait(3.0)
    rig.grant("a", "b", before=5)
    assert not rig.of(BecomeActive)[0].complete


def test_started_again_it_never_stands_for_an_epoch_twice() -> None:
    rig = Rig(backup=False, was_active=True, stood=9)
    rig.greet(*"abc")
    rig.wait(3.0)
    assert rig.core.candidacy.epoch == 11


def test_one_that_is_told_to_stop_says_goodbye_and_does_not_stand(rig: Rig) -> None:
    rig.core.stop(rig.now)
    rig.flush()
    assert wire.parse_head(rig.of(SayPeer)[-1].frame).kind == wire.BYE
    rig.wait(3.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING


@pytest.mark.parametrize(("seconds", "complete"), [(2.6, True), (2.8, False)])
def test_one_that_was_out_of_touch_too_long_does_not_say_that_it_knows_all(
    rig: Rig, seconds: float, complete: bool
) -> None:
    """The active waits for it for three thresholds; their clocks may differ."""
    rig.wait(seconds)
    rig.grant("a", "b")
    assert rig.of(BecomeActive)[0].complete is complete


def test_a_link_over_which_nobody_speaks_is_given_up_and_dialled_anew(rig: Rig) -> None:
    rig.wait(9.0, pulses=1)
    rig.wait(2.5)
    assert not rig.of(HangUp)
    rig.wait(1.0)
    assert rig.of(HangUp) and rig.of(Dial)
    rig.core.link_opened()
    rig.link(Welcome(1, 1, "other"), wire.WELCOME)
    rig.effects.clear()
    rig.wait(2.5)
    assert not rig.of(HangUp), "it has as long over another one"


def test_one_refusal_for_good_is_doubted_as_a_damaged_hello_looks_like_another_versions(rig: Rig) -> None:
    refusal = messages.Refusal("incompatible", "update the older side", 30_000, [1, 1])
    rig.link(refusal, wire.REFUSED)
    assert not rig.core.alarms
    rig.effects.clear()
    rig.wait(1.0)
    assert rig.of(Dial)
    rig.follow()  # it was damaged: the next one is doubted again
    rig.link(refusal, wire.REFUSED)
    assert not rig.core.alarms
    for _ in range(2):
        rig.link(refusal, wire.REFUSED)
    assert "update the older side" in rig.core.alarms["refused"]
    assert [event["kind"] for event in rig.core.events.since(0)].count("alarm") == 1
    rig.effects.clear()
    rig.wait(20.0)
    assert not rig.of(Dial)


def test_whoever_refuses_it_is_left_alone_for_as_long_as_that_says(rig: Rig) -> None:
    rig.link(messages.Refusal("denied", "two are enough", 2000, [1, 1]), wire.REFUSED)
    rig.effects.clear()
    assert "two are enough" in rig.core.alarms["refused"]
    rig.wait(1.9)
    assert not rig.of(Dial)
    rig.wait(0.2)
    assert rig.of(Dial)
    rig.follow()
    assert not rig.core.alarms


def test_a_broken_connection_is_made_again_a_moment_later(rig: Rig) -> None:
    rig.core.link_lost(rig.now)
    rig.effects.clear()
    rig.wait(0.1)
    assert not rig.of(Dial)
    rig.wait(0.2)
    assert len(rig.of(Dial)) == 1


def test_where_no_other_master_is_known_none_is_dialled() -> None:
    rig = Rig(backup=False)
    rig.core.mirror.known.peer = None
    rig.wait(1.0)
    assert not rig.of(Dial)


def test_a_probe_is_no_reason_to_hang_up(rig: Rig) -> None:
    rig.core.from_link(wire.head(wire.PROBE, TOKEN), rig.now)
    rig.flush()
    assert not rig.of(HangUp)


def test_a_goodbye_that_it_did_not_act_on_does_not_make_it_know_all(rig: Rig) -> None:
    rig.link(Closing(1, False))
    rig.wait(2.0)
    rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)
    rig.flush()
    rig.grant("a", "b")
    assert not rig.of(BecomeActive)[0].complete
    assert rig.core.mirror.known.peer is not None, "with votes it is not alone: it needs leases"


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
    rig.flush()
    rig.say("stranger", Deny(2, 1 << 20, 0, ""))
    rig.wait(1.1)
    assert rig.core.candidacy.epoch == 2


def agent_hello(node: str, epoch: int) -> messages.AgentHello:
    return messages.AgentHello([1, 1], node, "boot", epoch, 1, [], {}, [], [], "active", 0)


@pytest.mark.parametrize("hello", [VoterHello([1, 1], "a", "boot", 9), agent_hello("a", 9)])
@pytest.mark.parametrize("electorate", ["abc", ""])
def test_what_a_node_that_counts_tells_of_epochs_is_believed(hello: Any, electorate: str) -> None:
    """Where nobody votes there is nobody else to believe."""
    rig = Rig(electorate, backup=False)
    rig.core.control(b"a", messages.framed(wire.HELLO, 0, hello), rig.now)
    assert rig.core.candidacy.seen == 9


def test_what_another_master_tells_of_epochs_is_believed() -> None:
    rig = Rig()
    rig.core.link_opened()
    rig.link(Welcome(1, 9, "other", state="standby"), wire.WELCOME)
    assert rig.core.candidacy.seen == 9


def test_a_voter_is_asked_as_soon_as_it_comes_and_one_that_left_is_missed(rig: Rig) -> None:
    rig.core.control(b"c", wire.head(wire.BYE, rig.voters["c"]), rig.now)
    assert rig.core.status(rig.now)["master"]["quorum"]["voters"] == ["a", "b"]
    rig.wait(1.1)
    asked = rig.now
    rig.greet("c")
    assert rig.now == asked and len(rig.asked["c"]) == 1


@pytest.mark.parametrize("name", ["", "a b", "x" * 300])
def test_what_is_no_name_is_no_voter(rig: Rig, name: str) -> None:
    rig.greet(name)
    assert rig.core._voters.nodes == set("abc")


def test_what_no_voter_says_is_none_of_its_business(rig: Rig) -> None:
    rig.wait(1.1)
    rig.say("a", messages.Noted("web-1"))
    rig.core.control(b"new", messages.framed(wire.HELLO, 0, messages.Pulse(1, 1, 1)), rig.now)
    rig.core.control(b"new", messages.framed(wire.HELLO, 0, VoterHello([98, 99], "new", "boot", 1)), rig.now)
    (refusal,) = [each for _, each in rig.core.out.control if wire.parse_head(each).kind == wire.REFUSED]
    assert b"incompatible" in refusal and rig.stage is Stage.CANDIDATE


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


def test_a_backup_that_was_active_last_stands_at_a_start_and_first() -> None:
    rig = Rig(electorate="", was_active=True)
    rig.wait(T)
    idle(rig)
    rig.wait(0.1)
    assert rig.stage is not Stage.FOLLOWING


def test_of_two_that_start_together_the_primary_waits_for_whoever_was_active_last() -> None:
    for was_active, stands in ((True, True), (False, False)):
        rig = Rig(backup=False, was_active=was_active, takeover_after=0.3)
        rig.greet(*"abc")
        rig.wait(0.4)
        idle(rig)
        rig.wait(0.1)
        assert (rig.stage is not Stage.FOLLOWING) is stands


def test_what_was_idle_may_be_active_behind_another_connection() -> None:
    rig = Rig(backup=False, was_active=True)
    rig.greet(*"abc")
    idle(rig)
    rig.core.link_lost(rig.now)
    rig.wait(1.5)
    assert rig.stage is Stage.FOLLOWING


def test_a_master_that_stood_still_after_its_start_has_waited_for_nobody() -> None:
    rig = Rig(backup=False, was_active=True)
    rig.greet(*"abc")
    rig.now += 30.0
    rig.core.tick(rig.now)
    rig.wait(1.0)
    assert rig.stage is Stage.FOLLOWING


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


def force(rig: Rig) -> Any:
    outcome = rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)
    rig.flush()
    return outcome


def test_an_operator_may_have_it_stand_but_not_against_a_live_active(rig: Rig) -> None:
    def ask() -> Any:
        return rig.core._verb(messages.Verb(1, "switchover", {"force": True}), rig.now)

    with pytest.raises(Refuse, match="is live"):
        ask()
    rig.link(Closing(1, False))
    rig.wait(2.0)
    for _ in range(2):
        assert ask().exit == 0 and rig.core.candidacy.epoch == 2
        rig.flush()
    assert [rise.epoch for rise in rig.of(Rise) if not rise.by] == [2] and rig.core.events.since(0)[-1][
        "kind"
    ] == "candidate"


def test_what_was_handed_over_needs_no_promise_to_run_out(rig: Rig) -> None:
    rig.link(Closing(1, True))
    assert force(rig).exit == 0


@pytest.mark.parametrize("verb", ["status", "events", "switchover"])
def test_an_argument_that_it_does_not_know_is_refused_and_nothing_is_done(rig: Rig, verb: str) -> None:
    rig.link(Closing(1, True))
    args = {"force": True, "dry_run": True} if verb == "switchover" else {"brief": True}
    before = rig.core.candidacy.epoch
    result = Desk(rig).asks(verb, **args)
    assert result.exit == exits.USAGE and "knows no argument" in result.data["error"]
    assert rig.core.candidacy.epoch == before


class Desk:
    """An operator at the control socket of a standby."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.put(messages.framed(wire.HELLO, 0, messages.OperatorHello([1, 1], "me")))
        ((_, frame),) = rig.core.out.control
        self.token = wire.parse_head(frame).token

    def put(self, frame: bytes) -> None:
        self.rig.core.out.control.clear()
        self.rig.core.control(b"desk", frame, self.rig.now)

    def says(self, message: Any) -> Any:
        self.put(messages.framed(wire.CONTROL, self.token, message))
        ((_, frame),) = self.rig.core.out.control
        self.rig.core.out.control.clear()
        return messages.decode(frame[wire.parse_head(frame).head_len :])

    def asks(self, verb: str, **args: Any) -> messages.Result:
        found = self.says(messages.Verb(1, verb, args))
        assert isinstance(found, messages.Result)
        return found


def test_an_operator_is_shown_what_a_standby_has_and_is_sent_to_the_active_for_the_rest(rig: Rig) -> None:
    rig.sequence += 2
    rig.pulse()
    rig.wait(0.5)
    desk = Desk(rig)
    rig.core.journal_failed("the disk is full")
    found = desk.asks("status").data["master"]
    assert (found["state"], found["alarms"]) == ("standby", ["the disk is full"])
    assert found["quorum"]["may_dispatch"] is found["durable"] is False
    peer = found["peer"]
    assert (peer["name"], peer["role"], peer["liveness"], peer["lag"]) == ("other", "primary", "live", 2)
    assert peer["heard_ms"] == peer["promise_ms"] == 500
    assert [event["kind"] for event in desk.asks("events").data["events"]] == ["master", "LIVE", "alarm"]
    assert [event["kind"] for event in desk.asks("events", since=1, limit=1).data["events"]] == ["alarm"]
    for verb, args in (("drain", {"force": True}), ("switchover", {})):
        refused = desk.asks(verb, **args)
        assert not refused.ok and "ask the active master, other at tcp://other:7700" in refused.data["error"]
    rig.wait(1.1)
    assert desk.asks("status").data["master"]["state"] == "candidate"
    assert isinstance(desk.says(messages.Follow(2, 0)), messages.Happened)
    rig.core.control(b"desk", wire.head(wire.BYE, desk.token), rig.now)
    desk.put(messages.framed(wire.CONTROL, desk.token, messages.Verb(1, "status", {})))
    assert [wire.parse_head(frame).kind for _, frame in rig.core.out.control] == [wire.WHO]


def mistaken(*_: object) -> Any:
    return {}["what nobody has thought of"]


@pytest.mark.parametrize("verb, where", [("status", "mirror.Mirror.behind"), ("events", "events.EventLog.since")])
def test_a_mistake_of_ours_in_what_only_looks_is_told_and_it_stands_by(
    rig: Rig, verb: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(rig)
    with monkeypatch.context() as patch:
        patch.setattr(f"rota.master.core.{where}", mistaken)
        result = desk.asks(verb)
    assert result.exit == exits.FAILED and result.data["error"].startswith(f"internal error in {verb}: KeyError: ")
    status = desk.asks("status").data["master"]
    assert status["counters"]["internal errors"] == 1 and "please report it" in status["alarms"][0]
    rig.wait(0.5)
    before = len(rig.told(Promise))
    rig.pulse()
    assert len(rig.told(Promise)) == before + 1


def test_a_mistake_of_ours_in_what_makes_it_stand_ends_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.link(Closing(1, False))
    rig.wait(T + 0.1)
    monkeypatch.setattr("rota.master.core.pair_standby.PairStandby._stand", mistaken)
    with pytest.raises(KeyError):
        Desk(rig).asks("switchover", force=True)


def test_an_operator_is_sent_to_nobody_while_no_other_master_was_heard() -> None:
    refused = Desk(Rig()).asks("drain", all=True)
    text = "me is a standby, and has not heard another master at tcp://other:7700 yet"
    assert (refused.exit, refused.data["error"]) == (exits.REFUSED, text)


def test_of_a_master_that_it_has_not_heard_yet_it_shows_what_is_on_record() -> None:
    desk = Desk(Rig(backup=False))
    assert "ask the active master, other at tcp://other:7700" in desk.asks("drain", all=True).data["error"]
    master = desk.asks("status").data["master"]
    peer = master["peer"]
    assert (peer["name"], peer["role"], peer["lag"], peer["heard_ms"]) == ("other", "backup", None, None)
    desk.rig.wait(0.5)
    assert desk.asks("status").data["master"]["uptime_s"] == pytest.approx(0.5)


def test_what_an_operator_says_that_is_no_question_has_no_answer(rig: Rig) -> None:
    desk = Desk(rig)
    desk.put(messages.framed(wire.CONTROL, desk.token, Grant(2)))
    assert not rig.core.out.control


def test_of_a_long_history_an_operator_is_told_what_one_message_holds(rig: Rig) -> None:
    told = {"at": 0.0, "kind": "join", "subject": "n1", "text": "x" * 1000, "by": "", "reason": ""}
    for number in range(0, 10_000, 100):
        rig.link(messages.Happened(1, [{"number": number + each, **told} for each in range(100)]))
    answer = Desk(rig).asks("events")
    assert answer.ok
    found = answer.data["events"]
    assert found[-1]["kind"] == "LIVE" and found[-3]["number"] == 9_999, "the newest"
    assert len(found) > 400


def test_an_operator_that_has_read_the_history_hears_what_happens_next(rig: Rig) -> None:
    rig.link(messages.Happened(1, [event(41, "join"), event(42, "leave")]))
    desk = Desk(rig)
    desk.put(messages.framed(wire.CONTROL, desk.token, messages.Follow(2, rig.core.history()[-1]["number"])))
    rig.core.events.tell("alarm", "me", "no primary")
    rig.core.tick(rig.now)
    frames = [frame for _, frame in rig.core.out.control if wire.parse_head(frame).kind == wire.CONTROL]
    told: list[Any] = [messages.decode(frame[wire.parse_head(frame).head_len :]) for frame in frames]
    assert [event["text"] for each in told for event in each.events] == ["no primary"]
    desk.put(messages.framed(wire.CONTROL, desk.token, messages.Follow(3, told[0].events[0]["number"])))
    assert not rig.core.out.control, "over another connection it asks for what comes after that"


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
    rig.wait(3.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING, "it has not got everything"
    rig.core.link_opened()
    rig.link(Welcome(1, 1, "other"), wire.WELCOME)
    rig.link(Replica(8, rig.snapshot(), True, True))
    assert "records" in rig.core.alarms, "there is more to come"
    rig.link(Replica(8, rig.snapshot(), False, False))
    assert not rig.core.alarms


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("mirror.Mirror.replica", Replica(8, [records.scaled("orders", 3)])),
        ("standby.fields.checked", messages.Happened(1, [{}])),
        ("mirror.Mirror.keep", None),
    ],
    ids=["record", "event", "answer"],
)
def test_a_mistake_of_ours_in_what_is_copied_is_an_alarm_and_everything_comes_anew(
    rig: Rig, where: str, message: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = wire.CONTROL if message else ANSWERS
    with monkeypatch.context() as patch:
        patch.setattr(f"rota.master.core.{where}", mistaken)
        rig.core.from_link(messages.framed(kind, TOKEN, message) if message else wire.head(kind, TOKEN), rig.now)
        rig.flush()
    (told,) = [event["text"] for event in rig.core.history() if event["kind"] == "internal error"]
    assert told.startswith("internal error in following: KeyError: ") and "test_standby.py" in told
    status = Desk(rig).asks("status").data["master"]
    assert "other could not be followed" in "; ".join(status["alarms"]) and status["counters"]["internal errors"] == 1
    assert rig.of(HangUp)
    rig.wait(3.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING, "it may lack something"
    assert not rig.of(Dial), "an active that it cannot follow is not told to begin anew all the time"
    rig.wait(3.0)
    assert rig.of(Dial)
    rig.follow()
    assert [*rig.core.alarms] == ["internal error"] and rig.core.liveness is Liveness.LIVE


@pytest.mark.parametrize(("backup", "role"), [(True, "primary"), (False, "backup")])
def test_the_active_is_on_record_as_the_other_one_and_its_epoch_once(backup: bool, role: str) -> None:
    rig = Rig(backup=backup)
    rig.follow(6)
    rig.pulse(6)
    assert rig.core.mirror.known.peer == Peer("other", "tcp://other:7700", role)
    assert rig.of(Rise) == [Rise(6, "other")]


def event(number: int, kind: str) -> dict[str, Any]:
    return {"number": number, "at": 1.0, "kind": kind, "subject": "n1", "text": "", "by": "", "reason": ""}


def test_what_happened_at_the_active_goes_before_what_happened_here(rig: Rig) -> None:
    rig.link(messages.Happened(1, [event(41, "join"), event(42, "leave")]))
    found = rig.core.history()
    assert [event["kind"] for event in found] == ["join", "leave", "master", "LIVE"]
    assert [event["number"] for event in found] == [41, 42, 43, 44]


def test_what_is_no_event_is_left_out_of_what_happened(rig: Rig) -> None:
    odd = {**event(43, "join"), "number": "43"}
    rig.link(messages.Happened(1, [event(41, "join"), {"number": 42}, odd, {**event(44, "leave"), "newer": 1}]))
    assert [each["number"] for each in rig.core.mirror.events] == [41, 44]
    assert rig.core.counters["bad messages"] == 2


def test_answers_are_kept_until_their_caller_has_acknowledged_them(rig: Rig) -> None:
    def answer(sequence: int, acked: int) -> None:
        frame = wire.head(wire.ANSWER, 5, number=sequence + 10, upto=sequence) + b"body"
        copies = COPY.pack(b"s" * 16, acked, len(frame)) + frame
        rig.core.from_link(wire.head(ANSWERS, TOKEN) + copies, rig.now)

    answer(1, 0)
    answer(2, 0)
    assert [wire.parse(frame)[8] for _, frame in rig.core.mirror.answers()] == [11, 12]
    rig.core.from_link(wire.head(ANSWERS, TOKEN + 1) + b"of an older link", rig.now)
    assert not rig.of(HangUp)
    answer(1, 1)  # it is known by now that this one has arrived
    assert len(rig.core.mirror.answers()) == 2  # what was kept is bounded by number and bytes, no more


@pytest.mark.parametrize("frame", [b"", b"\0" * 60, wire.head(wire.CONTROL, TOKEN) + b"\xc1", wire.head(wire.WHO, 0)])
def test_whatever_cannot_be_read_ends_the_link_not_the_standby(rig: Rig, frame: bytes) -> None:
    rig.core.from_link(frame, rig.now)
    rig.flush()
    assert rig.of(HangUp) and rig.core.counters["bad frames"] == (frame != wire.head(wire.WHO, 0))


def test_what_only_a_newer_active_says_does_not_end_the_link(rig: Rig) -> None:
    rig.core.from_link(wire.head(wire.CONTROL, TOKEN) + msgpack.packb(["Newer", {}]), rig.now)
    rig.core.from_link(wire.head(wire.ANSWER, TOKEN), rig.now)
    rig.flush()
    assert not rig.of(HangUp) and rig.core.counters["bad frames"] == 2


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
        assert refusal.message == "me is a standby: the other master is at tcp://other:7700"


def test_other_frames_are_asked_who_they_are_of(rig: Rig) -> None:
    rig.core.frontend(b"r", wire.head(wire.REQUEST, 7, number=1), rig.now)
    large = wire.Large(zmq.Frame(wire.head(wire.REQUEST, 7, number=1)))
    rig.core.frontend_large(b"s", large, rig.now)
    rig.core.backend_large(b"t", large, rig.now)
    rig.core.control(b"u", messages.framed(wire.CONTROL, 7, Grant(2)), rig.now)
    rig.core.frontend(b"v", wire.head(wire.BYE, 7), rig.now)
    rig.core.frontend(b"w", b"garbage", rig.now)
    rig.core.control(b"x", b"garbage", rig.now)
    assert rig.core.counters["bad frames"] == 2
    out = rig.core.out
    asked = [(route, wire.parse_head(frame).kind) for route, frame in (*out.frontend, *out.backend, *out.control)]
    assert asked == [(route, wire.WHO) for route in (b"r", b"s", b"t", b"u")]


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


def test_an_operator_who_vanished_is_noticed_and_forgotten(rig: Rig) -> None:
    rig.core.control(b"op", messages.framed(wire.HELLO, 0, messages.OperatorHello([1, 1], "ann")), rig.now)
    rig.flush()
    probed: list[bytes] = []
    for _ in range(100):
        rig.now += 0.02
        rig.core.tick(rig.now)
        probed += [route for route, frame in rig.core.out.control if wire.parse_head(frame).kind == wire.PROBE]
        rig.flush()
    assert probed == [b"op"] * 2
    rig.core.control_gone(b"op")
    assert not rig.core._operators.token(b"op")


def test_an_agent_that_died_without_a_goodbye_is_asked_for_a_minute(rig: Rig) -> None:
    rig.wait(59.0, pulses=1)
    rig.greet("a")
    assert rig.core._voters.nodes == {"a", "b", "c"}
    rig.wait(2.0, pulses=1)
    rig.greet("a")
    assert rig.core._voters.nodes == {"a"}
