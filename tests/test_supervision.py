"""What a node says to its master: HELLO, what follows WELCOME, beats and leases."""

from __future__ import annotations

from itertools import count

import pytest
from node_rig import Node, dialled, sent, welcome

from rota.common import messages
from rota.common.messages import Failing, Retire
from rota.worker.core import connection
from rota.worker.core.effects import Fence, Hello, Lease, Note, Remember, Send, Stop
from rota.worker.core.ports import Try

BEATS = count(1)


def test_an_exit_is_repeated_in_each_hello_until_it_is_noted(node: Node) -> None:
    node.plan(1)
    node.die("web-1.3f2a9c.1", -11)
    assert [exited.status for exited in node.core.hello(node.now).exits] == [-11]
    node.hear(messages.Noted("web-1.3f2a9c.1"))
    assert node.core.hello(node.now).exits == []


def test_a_hello_says_since_when_nobody_remembers_what_was_done_here(node: Node) -> None:
    node.plan(2)
    node.advance(1.0)
    assert node.core.hello(node.now).ended_ms == -1 and 998 <= node.core.hello(node.now).up_ms <= 1000
    node.die("web-1.3f2a9c.1")
    assert node.core.hello(node.now).ended_ms == -1, "it had started nothing"
    node.core.processes.exited("web-1.3f2a9c.2", 1, "exited with 1", 5, [], "", node.now)
    assert node.core.hello(node.now).ended_ms == 0
    node.advance(0.5)
    assert 748 <= node.core.hello(node.now + 0.25).ended_ms <= 750


def test_the_inventory_of_a_hello_has_all_that_runs(node: Node) -> None:
    node.plan(2)
    assert [started.pid for started in node.core.hello(node.now).processes] == [1, 2]


def test_a_new_master_is_told_what_fails(node: Node) -> None:
    node.plan(1)
    node.die("web-1.3f2a9c.1", 70, "Traceback")
    node.core.connection.lost(node.now)
    node.now += 0.2
    assert sent(node.join(), Failing)[0][:2] == ("orders", 1)


def test_one_hello_answers_a_storm_of_who(node: Node) -> None:
    assert isinstance(node.core.who(node.now)[0], Hello)
    assert [node.core.who(node.now) for _ in range(3)] == [[], [], []]
    assert sent(node.advance(0.5), messages.Beat) == []  # they would only be asked about again
    node.core.welcomed(messages.Welcome(1, 1, "m"), node.now)
    assert sent(node.advance(0.5), messages.Beat)
    assert isinstance(node.core.who(node.now)[0], Hello)


def test_what_changes_while_a_hello_is_under_way_is_told_after_it(node: Node) -> None:
    node.core.who(node.now)
    assert node.core.resize(5, node.now) == []
    assert node.core.leaving.ask(60, node.now) == []
    effects = node.core.welcomed(messages.Welcome(1, 1, "m"), node.now)
    assert sent(effects, messages.Leaving) == [messages.Leaving(60_000)]
    assert [effect.message.capacity for effect in effects if isinstance(effect, Hello)] == [5]


def test_hup_asks_the_master_to_replace_the_processes_in_turn(node: Node) -> None:
    assert messages.Reload(["orders"]) in [e.message for e in node.core.reload() if isinstance(e, Send)]
    node.core.connection.lost(node.now)
    assert [type(effect) for effect in node.core.reload()] == [Note]


def test_the_node_beats_five_times_a_second(node: Node) -> None:
    assert len(sent(node.advance(2), messages.Beat)) in (10, 11)


def test_the_highest_epoch_is_remembered_fenced_and_no_lower_one_is_obeyed(node: Node) -> None:
    node.core.connection.lost(node.now)
    node.now += 1
    effects = node.join(epoch=5)
    assert Fence(5, 1) in effects
    assert any(isinstance(effect, Remember) and effect.epoch == 5 for effect in effects)
    node.core.connection.lost(node.now)
    node.now += 1
    assert not any(isinstance(effect, Fence) for effect in node.join(epoch=4))
    assert node.core.next_deadline() == node.now + connection.SILENCE_S, "nor asked again at once"
    assert not node.core.connection.greeted
    assert node.core.hello(node.now).epoch == 5


def test_an_intent_is_remembered_and_reported(node: Node) -> None:
    intent = messages.Intent("detached", 3, "me", "release")
    assert node.hear(intent) == [Remember(intent, 1)]
    assert (node.core.hello(node.now).intent, node.core.hello(node.now).generation) == ("detached", 3)


def test_room_for_one_more_is_told(node: Node) -> None:
    before = node.core.hello(node.now).hellos
    (hello,) = node.core.resize(5, node.now)
    assert isinstance(hello, Hello) and hello.message.capacity == 5
    assert hello.message.hellos == before + 1, "of two on their way the later one counts"
    assert not any(isinstance(effect, Hello) for effect in node.core.welcomed(welcome(), node.now))
    (hello,) = node.core.resize(0, node.now)
    assert isinstance(hello, Hello) and hello.message.capacity == 1


def test_an_agent_that_was_drained_before_its_restart_says_so() -> None:
    node = Node(remembered=messages.Intent("detached", 3, "me", "release"))
    assert (node.core.hello(node.now).intent, node.core.hello(node.now).generation) == ("detached", 3)


def test_how_long_it_is_up_and_when_its_last_process_ended_is_told(node: Node) -> None:
    assert node.core.hello(node.now + 2.0)[-2:] == (-1, 2000)
    node.plan(1)
    node.core.processes.exited("web-1.3f2a9c.1", 1, "exited with 1", 7, [], "", node.now + 1.0)
    assert node.core.hello(node.now + 2.0)[-2:] == (1000, 2000)


def test_an_epoch_that_is_no_news_is_not_written_again(node: Node) -> None:
    assert not any(isinstance(effect, Remember) for effect in node.core.welcomed(welcome(1), node.now))
    assert any(isinstance(effect, Remember) for effect in node.core.welcomed(welcome(2), node.now))


def test_what_its_plan_says_of_limits_and_ports_is_followed(node: Node) -> None:
    node.hear(messages.Plan({"orders": 0}, {"orders": 5000}, {"orders": messages.PortCheck("db:5432", 1000, 300)}))
    assert node.core.processes.limits_ms == {"orders": 5000}
    assert [effect for effect in node.tick() if isinstance(effect, Try)] == [Try("orders", 1, "db:5432", 0.3)]
    assert sent(node.tick(0.3), messages.Unwell), "no answer"
    assert not node.core.tried("orders", 1, "refused"), "it was late"
    node.tick(1.0)
    assert sent(node.core.tried("orders", 2, ""), messages.Unwell) == [messages.Unwell("orders", "")]


def test_a_beat_that_answers_a_new_one_of_the_master_is_a_lease_and_noted_first(paired: Node) -> None:
    first = paired.tick()
    assert [beat.heard for beat in sent(first, messages.Beat)] == [0]
    assert not any(isinstance(effect, Lease) for effect in first)
    paired.hear(messages.Beat(1))
    effects = [effect for effect in paired.tick(0.2) if isinstance(effect, Lease | Send)]
    assert effects[:2] == [Lease("a", 1, 1.0), Send(messages.Beat(2, 200, 1, 1))]
    silent = paired.tick(0.2)
    assert not any(isinstance(effect, Lease) for effect in silent)  # the same again leases nothing more


def leases(node: Node) -> list[str]:
    """To which masters, with the next beat that answers a new one."""
    node.hear(messages.Beat(next(BEATS)))
    return [effect.master for effect in node.tick(0.2) if isinstance(effect, Lease)]


@pytest.mark.parametrize("epoch, waits", [(0, True), (1, False)])
def test_who_remembers_no_vote_leases_to_nobody_for_one_lease_after_its_start(epoch: int, waits: bool) -> None:
    """Its earlier life may have voted for another master, and leased to that until it ended."""
    node = Node(epoch=epoch)
    began = node.now
    node.tick()
    node.core.connected(node.now)
    node.core.welcomed(welcome(1, "a", lease_ms=1000), node.now)
    while node.now < began + 0.75:
        assert leases(node) == ([] if waits else ["a"])
    node.now = began + 1.0
    silent = [effect for effect in node.tick() if isinstance(effect, Lease)]
    assert not silent  # nor is a lease what it heard meanwhile
    assert leases(node) == ["a"]


def test_a_lease_to_another_master_has_to_run_out_or_to_be_released_first(paired: Node) -> None:
    def leases_to(master: str, epoch: int) -> bool:
        paired.core.welcomed(welcome(epoch, master, lease_ms=1000), paired.now)
        return leases(paired) == [master]

    assert leases_to("a", 1)
    assert not leases_to("b", 2)
    paired.advance(1.0)
    assert leases_to("b", 2)
    assert not leases_to("a", 3)
    paired.core.votes.leased("b", 2, 1.0, paired.now)
    paired.hear(messages.Release(2))
    assert leases_to("a", 3)


def test_the_first_beat_of_another_master_is_a_new_one_whatever_the_last_one_had_counted_to(paired: Node) -> None:
    paired.hear(messages.Beat(1000))
    assert Lease("a", 1, 1.0) in paired.tick(0.2)
    paired.tick(1.0)
    paired.core.welcomed(welcome(2, "b", lease_ms=1000), paired.now)
    paired.hear(messages.Beat(1))
    assert Lease("b", 2, 1.0) in paired.tick(0.2)


def test_a_master_that_needs_no_leases_gets_none(node: Node) -> None:
    node.tick()
    node.hear(messages.Beat(1))
    effects = node.tick(0.2)
    assert [beat.heard for beat in sent(effects, messages.Beat)] == [0]
    assert not any(isinstance(effect, Lease) for effect in effects)


def test_after_a_release_no_beat_is_a_lease(paired: Node) -> None:
    paired.tick()
    paired.hear(messages.Release(1))
    paired.hear(messages.Beat(1))
    assert not any(isinstance(effect, Lease) for effect in paired.tick(0.2))


def test_a_vote_fences_and_the_master_that_is_obeyed_hears_of_it_at_once(paired: Node) -> None:
    paired.tick()
    assert paired.core.voted(messages.Vote(2, "b", 1000), 0.0) == [Fence(2, 0)]  # whom to obey is not settled by it
    assert [beat.epoch for beat in sent(paired.tick(), messages.Beat)] == [2]


def test_who_was_outvoted_is_obeyed_in_nothing_and_given_up_for_its_silence(paired: Node) -> None:
    paired.plan(1)
    paired.core.voted(messages.Vote(2, "b", 1000), 0.0)
    assert paired.hear(Retire("web-1.3f2a9c.1", 1000)) == []
    paired.hear(messages.Leave())
    paired.hear(messages.Beat(9))
    effects = paired.advance(connection.SILENCE_S + 0.5)
    assert not any(isinstance(effect, Lease | Stop) for effect in effects)
    assert dialled(effects)[0] == 1


def test_a_witness_has_no_room_whatever_signals_say() -> None:
    node = Node(capacity=0, offers=[])
    node.join()
    assert node.core.resize(1, node.now) == []
    assert (node.core.hello(node.now).capacity, node.core.hello(node.now).offers) == (0, [])
    node.plan(3)
    assert not node.core.processes.alive
