"""How a node leaves: with its master, without one, and at once."""

from __future__ import annotations

from math import inf

import pytest
from node_rig import Node, sent, spawns, welcome

from rota.common import messages
from rota.common.messages import Retire
from rota.worker.core import connection
from rota.worker.core.effects import Kill, Quit, Send, Stop
from rota.worker.core.processes import SIGKILL


def test_term_asks_the_master_and_leaves_when_it_says_so(node: Node) -> None:
    node.plan(1)
    node.ready()
    assert node.core.leaving.ask(60, node.now) == [Send(messages.Leaving(60_000))]
    assert not any(isinstance(effect, Stop) for effect in node.advance(1))
    assert node.core.hello(node.now).leaving
    node.hear(Retire("web-1.3f2a9c.1", 1000))
    assert spawns(node.tick()) == []  # whoever leaves starts nothing
    node.hear(messages.Leave())
    node.die("web-1.3f2a9c.1", 0)
    assert node.tick() == [Quit()]
    assert node.tick() == []


def test_leaving_has_a_deadline(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.leaving.ask(2, node.now)
    assert Stop("web-1.3f2a9c.1") in node.advance(2.1)


def test_who_is_told_twice_that_it_leaves_asks_once_and_keeps_its_deadline(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.leaving.ask(2, node.now)
    assert node.core.leaving.next_deadline() == node.now + 2
    assert node.core.leaving.ask(60, node.now) == []
    assert Stop("web-1.3f2a9c.1") in node.advance(2.1)
    assert node.core.leaving.next_deadline() == inf, "it goes already"


def test_a_pause_of_our_own_takes_no_time_from_a_node_that_leaves(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.leaving.ask(2, node.now)
    assert not any(isinstance(effect, Stop) for effect in node.tick(60))
    assert not any(isinstance(effect, Stop) for effect in node.advance(1.9))
    assert Stop("web-1.3f2a9c.1") in node.advance(0.2)


def test_only_who_leaves_says_so(node: Node) -> None:
    assert not sent(node.core.welcomed(messages.Welcome(1, 1, "m"), node.now), messages.Leaving)


def test_a_node_whose_master_went_before_it_answered_leaves_at_once() -> None:
    node = Node()
    node.tick()
    node.core.connected(node.now)
    node.core.connection.lost(node.now)
    node.core.leaving.ask(60, node.now)
    assert Quit() in node.tick()


def test_a_node_without_a_master_leaves_at_once() -> None:
    node = Node()
    assert node.core.leaving.ask(60, node.now) == []
    assert Quit() in node.tick()


def lose_all(node: Node) -> None:
    """The connection, and then one to each of the two masters: nobody answers."""
    node.core.connection.lost(node.now)
    for _ in range(2):
        assert not any(isinstance(effect, Quit | Stop) for effect in node.advance(0.5))
        node.core.connection.lost(node.now)


def test_a_leaving_node_whose_masters_are_gone_goes_when_nothing_runs(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.leaving.ask(60, node.now)
    lose_all(node)
    assert Stop("web-1.3f2a9c.1") in node.tick()
    node.die("web-1.3f2a9c.1", 0)
    assert Quit() in node.tick()


@pytest.mark.parametrize("told_first", [True, False])
def test_a_leaving_node_whose_masters_are_gone_finishes_what_runs(node: Node, told_first: bool) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 1, None, node.now)
    if told_first:
        node.core.leaving.ask(60, node.now)
    lose_all(node)
    if not told_first:
        node.core.leaving.ask(60, node.now)
    assert not any(isinstance(effect, Stop) for effect in node.advance(5))
    node.core.processes.seen("web-1.3f2a9c.1", 0, None, node.now)
    assert Stop("web-1.3f2a9c.1") in node.tick()


def test_a_leaving_node_waits_for_the_master_that_takes_over(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.leaving.ask(60, node.now)
    node.core.connection.lost(node.now)
    node.advance(0.5)
    node.core.connection.lost(node.now)  # the first of two
    node.advance(0.5)
    node.core.connected(node.now)
    assert sent(node.core.welcomed(messages.Welcome(1, 2, "m"), node.now), messages.Leaving)
    assert not any(isinstance(effect, Stop) for effect in node.advance(1))


def test_a_node_that_was_told_to_go_goes_also_when_term_comes_after_its_master_is_lost(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 1, None, node.now)
    node.hear(messages.Leave())
    node.core.connection.lost(node.now)
    node.core.leaving.ask(60, node.now)
    assert Stop("web-1.3f2a9c.1") in node.tick()


def test_leaving_at_once_kills_what_runs(node: Node) -> None:
    node.plan(2)
    node.core.leaving.ask(60, node.now)
    assert [effect.signal for effect in node.core.leaving.at_once(node.now) if isinstance(effect, Kill)] == [
        SIGKILL,
        SIGKILL,
    ]


def test_what_is_killed_as_its_node_leaves_gets_no_other_signal_and_keeps_its_cause(node: Node) -> None:
    node.plan(2)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 0))
    node.core.leaving.at_once(node.now)
    assert not any(isinstance(effect, Kill | Stop) for effect in node.advance(30))
    ends = [sent(node.die(f"web-1.3f2a9c.{number}", -9), messages.Exited)[0].kind for number in (1, 2)]
    assert ends == ["stopped", "agent leaving"]


def test_who_leaves_at_once_says_that_no_time_is_left(node: Node) -> None:
    node.core.leaving.at_once(node.now)
    node.now += 1
    effects = node.core.welcomed(messages.Welcome(1, 1, "m"), node.now)
    assert sent(effects, messages.Leaving) == [messages.Leaving(0)]


def test_a_boot_that_was_replaced_by_a_newer_one_goes(node: Node) -> None:
    node.plan(1)
    effects = node.core.refused(messages.Refusal("stale", "a newer boot is here", 0, [1, 1]), node.now)
    assert Kill("web-1.3f2a9c.1", SIGKILL) in effects
    node.die("web-1.3f2a9c.1", -9)
    assert Quit() in node.tick()


@pytest.mark.parametrize("told_first", [True, False])
def test_a_leaving_node_stays_for_a_takeover(paired: Node, told_first: bool) -> None:
    """Its vote may be needed, and the new master is to hear its goodbye."""
    if told_first:
        paired.core.leaving.ask(60, paired.now)
    paired.core.connection.lost(paired.now)
    if not told_first:
        paired.core.leaving.ask(60, paired.now)
    for _ in range(5):
        assert not any(isinstance(effect, Quit) for effect in paired.advance(0.35))
        paired.core.connected(paired.now)
        paired.core.refused(messages.Refusal("standby", "not here", 0, []), paired.now)
    paired.core.connection.won(1, 2, paired.now)
    paired.core.connected(paired.now)
    assert sent(paired.core.welcomed(welcome(2, "b"), paired.now), messages.Leaving)


def test_a_leaving_node_does_not_stay_for_one_that_never_comes(paired: Node) -> None:
    paired.core.leaving.ask(60, paired.now)
    paired.core.connection.lost(paired.now)
    for _ in range(connection.EAGER):
        effects = paired.advance(0.35)
        paired.core.connected(paired.now)
        paired.core.refused(messages.Refusal("standby", "not here", 0, []), paired.now)
    assert Quit() in [*effects, *paired.tick()]
