"""Which master a node talks to, and when it tries another one; of a pair, who won (docs/STANDBY.md)."""

from __future__ import annotations

import pytest
from node_rig import Node, dialled, welcome

from rota.common import messages
from rota.worker.core import connection
from rota.worker.core.effects import Connect, Effect, Fence, Kill, Note, Reach, Stop, Unsure


def test_a_hello_that_is_never_answered_is_said_over_another_connection(node: Node) -> None:
    node.core.who(node.now)
    effects: list[Effect] = []
    for _ in range(70):
        effects += node.tick(0.05)
    assert any(isinstance(effect, Connect) for effect in effects)


def test_a_silent_master_is_left_for_the_next_one_and_processes_go_on(node: Node) -> None:
    node.plan(1)
    effects: list[Effect] = []
    for _ in range(70):
        effects += node.tick(0.05)
    assert Connect(1) in effects
    assert not any(isinstance(effect, Stop | Kill) for effect in effects)


def test_a_pause_of_our_own_is_not_the_masters_silence(node: Node) -> None:
    assert not any(isinstance(effect, Connect) for effect in node.tick(20))
    assert node.core.connection.greeted


def test_connections_that_fail_are_tried_again_with_growing_pauses() -> None:
    node = Node()
    for pause in (0.2, 0.3, 0.4):
        assert any(isinstance(effect, Connect) for effect in node.tick())
        node.core.connection.lost(node.now)
        node.core.connection.lost(node.now)  # told twice: counted once
        assert node.core.next_deadline() == pytest.approx(node.now + pause)
        assert node.tick(pause - 0.01) == []
        node.now += 0.02


def test_a_refusal_is_noted_once_and_then_each_minute_with_its_number(node: Node) -> None:
    def refuse(text: str) -> list[Effect]:
        return node.core.refused(messages.Refusal("taken", text, 1000, [1]), node.now)

    def refuse_for(seconds: int, text: str) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(seconds):
            node.now += 1.0
            effects += refuse(text)
        return effects

    assert refuse("the name is taken") == [Note("the master refuses this node: the name is taken")]
    assert refuse_for(59, "the name is taken") == []
    assert refuse_for(1, "the name is taken") == [
        Note("the master refuses this node: the name is taken (61 times so far)")
    ]
    assert refuse("too many nodes") == [Note("the master refuses this node: too many nodes")]
    node.now += 1.0
    node.join()
    assert refuse("too many nodes") == [Note("the master refuses this node: too many nodes")]


def test_one_refusal_for_good_is_doubted_as_a_damaged_hello_looks_like_another_versions(node: Node) -> None:
    refusal = messages.Refusal("incompatible", "update the older side", 30_000, [1, 1])
    for _ in range(2):  # each time anew
        assert node.core.refused(refusal, node.now) == []
        node.now += 0.3
        node.join()
    node.core.refused(refusal, node.now)
    assert dialled(node.tick(0.3)) == [0]
    assert node.core.refused(refusal, node.now) == [Note(f"the master refuses this node: {refusal.message}")]
    assert dialled(node.tick(29.9)) == []


def test_a_name_in_use_is_asked_for_again() -> None:
    node = Node()
    node.tick()
    node.core.refused(messages.Refusal("name in use", "by another", 500, [1, 1]), node.now)
    assert node.tick(0.4) == []
    assert any(isinstance(effect, Connect) for effect in node.tick(0.2))


def test_a_node_that_never_met_a_master_says_so_once() -> None:
    node = Node()
    told: list[str] = []
    for _ in range(4):
        node.tick(1.0)
        told += [effect.text for effect in node.core.connection.lost(node.now) if isinstance(effect, Note)]
    assert len(told) == 1 and told[0].startswith("no master answers at tcp://a:7700, tcp://b:7700; trying on;")
    assert all(way in told[0] for way in ("-m ", "ROTA_SLAVE_MASTER", "master=", "ROTA_MASTER"))


def test_who_won_is_dialled_at_once(paired: Node) -> None:
    paired.core.voted(messages.Vote(2, "b", 1000), 0.0)
    assert paired.core.connection.won(1, 2, paired.now) == [Connect(1)]
    paired.core.connected(paired.now)
    assert Fence(2, 1) in paired.core.welcomed(welcome(2, "b"), paired.now)
    assert paired.core.connection.won(1, 2, paired.now) == []  # said again
    assert paired.core.connection.won(0, 1, paired.now) == []  # by one that has not heard yet that it lost


def test_who_won_is_followed_also_by_those_who_did_not_vote(paired: Node) -> None:
    assert paired.core.connection.won(1, 2, paired.now) == [Connect(1)]


def test_who_won_interrupts_the_wait_between_two_attempts(paired: Node) -> None:
    paired.core.connection.lost(paired.now)
    assert paired.core.connection.won(1, 2, paired.now) == [Connect(1)]
    assert dialled(paired.tick(1)) == []


def test_who_won_is_dialled_though_another_one_has_not_answered_yet() -> None:
    node = Node()
    assert dialled(node.tick()) == [0]
    node.core.connected(node.now)
    assert node.core.connection.won(1, 1, node.now) == [Connect(1)]


def test_a_master_that_is_still_active_in_its_epoch_is_dialled_again_at_once(paired: Node) -> None:
    paired.core.connection.lost(paired.now)
    assert paired.core.connection.won(0, 1, paired.now) == [Connect(0)]


def test_who_won_an_epoch_that_is_over_is_not_followed(paired: Node) -> None:
    paired.core.votes.saw(5)
    assert paired.core.connection.won(1, 4, paired.now) == []


def test_a_standby_that_wins_while_it_refuses_is_dialled_once_more(paired: Node) -> None:
    paired.core.connection.lost(paired.now)
    assert dialled(paired.advance(0.5)) == [1]
    assert paired.core.connection.won(1, 2, paired.now) == []  # we are at it
    assert paired.core.refused(messages.Refusal("standby", "not here", 0, []), paired.now) == []
    assert dialled(paired.advance(0.5)) == [1]


def test_an_active_master_that_refuses_is_not_asked_again_before_it_said(paired: Node) -> None:
    paired.core.refused(messages.Refusal("denied", "too many", 5000, []), paired.now)
    assert paired.core.connection.won(0, 1, paired.now) == []
    assert dialled(paired.advance(4.9)) == []
    assert dialled(paired.advance(0.2)) == [0]


def test_what_another_agent_leased_under_our_name_is_not_known_until_its_master_is_asked_again(paired: Node) -> None:
    effects = paired.core.refused(messages.Refusal("name in use", "another agent is live", 1000, []), paired.now)
    assert effects[-1] == Unsure(1.0)
    assert dialled(paired.advance(0.95)) == []
    assert dialled(paired.advance(0.1)) == [0]
    assert Unsure(1.0) not in paired.core.refused(messages.Refusal("denied", "too many", 1000, []), paired.now)


@pytest.mark.parametrize("how", ["refused", "welcomed"])
def test_standbys_are_passed_by_in_turn_and_quietly(how: str) -> None:
    node = Node()
    node.core.connection.in_touch = True
    turns: list[int] = []
    notes: list[str] = []
    for _ in range(connection.EAGER):
        effects = node.advance(0.35)  # the longest pause of this node's reconnect_delay, for two failures
        turns += dialled(effects)
        node.core.connected(node.now)
        if how == "refused":
            answer = node.core.refused(messages.Refusal("standby", "not here", 0, []), node.now)
        else:
            answer = node.core.welcomed(welcome(state="standby"), node.now)
        notes += [effect.text for effect in answer if isinstance(effect, Note)]
    assert turns == [0, 1] * (connection.EAGER // 2)
    assert notes == ["no master is active; trying on"]
    assert not node.core.connection.greeted
    assert node.core.next_deadline() > node.now + 2.0, "from now on less often"


def test_an_only_master_that_stands_by_is_reached_for_its_question() -> None:
    refusal = messages.Refusal("standby", "not here", 0, [])
    assert Node(masters=["tcp://a:7700"]).core.refused(refusal, 0.0) == [Reach()]
    assert Node().core.refused(refusal, 0.0) == []  # of several all are reached from the beginning


def test_while_no_master_is_in_touch_attempts_become_rarer(paired: Node) -> None:
    pauses: list[float] = []
    for in_touch in (True, False):
        paired.core.connection.in_touch = in_touch
        for _ in range(5):
            paired.core.connection.lost(paired.now)
            pauses.append(paired.core.next_deadline() - paired.now)
            paired.advance(pauses[-1] + 0.05)
    assert max(pauses[:5]) == pytest.approx(0.3)
    assert pauses[-1] > 0.9
