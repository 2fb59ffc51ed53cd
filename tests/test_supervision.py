from __future__ import annotations

from typing import Any

import pytest

from rota.common import messages
from rota.common.messages import Failing, Plan, Retire
from rota.worker.core import connection, processes
from rota.worker.core.effects import (
    Connect,
    Effect,
    Fence,
    Hello,
    Kill,
    Lease,
    Note,
    Quit,
    Remember,
    Send,
    SetFloor,
    Spawn,
    Stop,
    Unsure,
)
from rota.worker.core.processes import Overdue
from rota.worker.core.supervision import Supervision

ABRT, KILL, TERM = processes.SIGABRT, processes.SIGKILL, processes.SIGTERM


class Node:
    """A Supervision with the shell's part played: what is spawned gets a pid, time jumps as the test says."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.core = Supervision(
            "web-1",
            "3f2a9c",
            **{
                "masters": 2,
                "capacity": 4,
                "offers": ["orders"],
                "tags": {},
                "reconnect_delay": lambda failures: 0.1 * (failures + 1),
                **options,
            },
        )
        self.pids = 0

    def tick(self, seconds: float = 0.0) -> list[Effect]:
        self.now += seconds
        effects = self.core.tick(self.now)
        for effect in list(effects):
            if isinstance(effect, Spawn):
                self.pids += 1
                effects += self.core.processes.spawned(effect.incarnation, b"t" * 16, self.pids)
        return effects

    def advance(self, seconds: float) -> list[Effect]:
        """In steps of 50 ms, the master answering."""
        effects: list[Effect] = []
        for _ in range(round(seconds / 0.05)):
            effects += self.tick(0.05)
            if self.core.connection.greeted:
                self.hear(messages.Beat(1))
        return effects

    def hear(self, message: messages.Message) -> list[Effect]:
        return self.core.received(message, self.now)

    def join(self, epoch: int = 1) -> list[Effect]:
        assert Connect(self.core.connection.master) in self.tick()
        assert isinstance(self.core.connected(self.now)[0], Hello)
        return self.core.welcomed(messages.Welcome(1, epoch, "m"), self.now)

    def plan(self, count: int) -> list[Effect]:
        self.hear(Plan({"orders": count}))
        return self.tick()

    def ready(self, *incarnations: str) -> None:
        for each in incarnations or list(self.core.processes.alive):
            self.core.processes.ready(each, self.now)

    def die(self, incarnation: str, status: int = 1, text: str = "") -> list[Effect]:
        return self.core.processes.exited(incarnation, status, f"exited with {status}", 0, [], text, self.now)


@pytest.fixture
def node() -> Node:
    made = Node()
    made.join()
    return made


def spawns(effects: list[Effect]) -> list[str]:
    return [effect.incarnation for effect in effects if isinstance(effect, Spawn)]


def sent(effects: list[Effect], kind: type[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send) and isinstance(effect.message, kind)]


def test_a_plan_is_followed_and_each_start_is_told_at_once(node: Node) -> None:
    effects = node.plan(2)
    assert spawns(effects) == ["web-1.3f2a9c.1", "web-1.3f2a9c.2"]
    assert [started.pid for started in sent(effects, messages.Started)] == [1, 2]
    assert node.plan(2) == []  # idempotent


def test_a_service_that_is_not_offered_is_never_started(node: Node) -> None:
    node.hear(Plan({"site": 3}))
    assert spawns(node.tick()) == []


def test_a_smaller_plan_stops_nothing_since_only_the_master_knows_who_has_nothing_to_do(node: Node) -> None:
    node.plan(2)
    node.ready("web-1.3f2a9c.1", "web-1.3f2a9c.2")
    assert node.plan(1) == []
    assert node.hear(Retire("web-1.3f2a9c.2", 1000)) == [Stop("web-1.3f2a9c.2")]
    assert node.tick() == []


def test_retire_replaces_one_process_and_with_a_smaller_plan_it_is_the_one_that_goes(node: Node) -> None:
    node.plan(2)
    node.ready()
    assert node.hear(Retire("web-1.3f2a9c.1", 1000)) == [Stop("web-1.3f2a9c.1")]
    assert spawns(node.tick()) == ["web-1.3f2a9c.3"]
    node.hear(Retire("web-1.3f2a9c.2", 1000))
    assert node.plan(1) == []  # both in one batch: nothing is started to be stopped


def test_a_process_that_does_not_stop_gets_term_and_then_kill(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.plan(0)
    assert node.hear(Retire("web-1.3f2a9c.1", 0)) == [Stop("web-1.3f2a9c.1")]
    assert [e for e in node.advance(9.9) if isinstance(e, Kill)] == []
    kills = [e for e in node.advance(1.3) if isinstance(e, Kill)]
    assert kills == [Kill("web-1.3f2a9c.1", TERM), Kill("web-1.3f2a9c.1", KILL)]


def test_a_process_that_still_boots_is_stopped_by_term(node: Node) -> None:
    node.plan(1)
    node.plan(0)
    effects = node.hear(Retire("web-1.3f2a9c.1", 10_000))
    assert [*effects, *node.tick()] == [Stop("web-1.3f2a9c.1"), Kill("web-1.3f2a9c.1", TERM)]


def test_a_process_that_does_not_get_ready_is_killed_and_counts_as_failed(node: Node) -> None:
    node.plan(1)
    assert Kill("web-1.3f2a9c.1", KILL) in node.advance(60.1)
    effects = node.die("web-1.3f2a9c.1", -9)
    (exited,) = sent(effects, messages.Exited)
    assert exited.cause == "was not ready within 60 s"
    assert sent(effects, Failing)[0].failures == 1


def test_failing_starts_back_off_and_say_so(node: Node) -> None:
    node.plan(1)
    waits = []
    for _ in range(9):
        (incarnation,) = node.core.processes.alive
        (failing,) = sent(node.die(incarnation, 70, "Traceback"), Failing)
        waits.append(failing.retry_in_ms)
        assert failing.text == "Traceback"
        assert spawns(node.advance(failing.retry_in_ms / 1000 - 0.1)) == []
        assert len(spawns(node.advance(0.2))) == 1
    assert waits == [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]


def test_processes_that_fall_together_are_one_failure_and_one_is_tried(node: Node) -> None:
    node.plan(3)
    for incarnation in list(node.core.processes.alive):
        node.die(incarnation)
    assert node.core.processes.backoff.troubles["orders"].failures == 1
    (trial,) = spawns(node.advance(0.6))
    assert spawns(node.advance(2)) == []
    assert sent(node.core.processes.ready(trial, node.now), Failing) == [Failing("orders", 0, 0, "")]
    assert len(spawns(node.tick())) == 2


def test_a_process_that_was_well_is_replaced_at_once(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.advance(10.1)
    assert sent(node.die("web-1.3f2a9c.1", -9), Failing) == []
    assert len(spawns(node.tick())) == 1


def test_failures_are_forgotten_when_a_process_stays_well(node: Node) -> None:
    node.plan(1)
    node.die("web-1.3f2a9c.1")
    node.advance(0.6)
    node.ready()
    node.advance(10.1)
    assert node.core.processes.backoff.troubles == {}


def test_a_plan_means_try_again_now(node: Node) -> None:
    node.plan(1)
    node.die("web-1.3f2a9c.1")
    assert spawns(node.tick()) == []
    assert len(spawns(node.plan(1))) == 1


def test_a_plan_that_changes_for_another_reason_does_not_hurry_a_crash_loop(node: Node) -> None:
    node.plan(1)
    node.die("web-1.3f2a9c.1")
    assert spawns(node.plan(2)) == []
    node.plan(0)
    assert len(spawns(node.plan(1))) == 1


def test_a_process_that_becomes_ready_and_dies_within_seconds_again_and_again_backs_off_too(node: Node) -> None:
    node.plan(1)
    waits = []
    for _ in range(9):
        (incarnation,) = node.core.processes.alive
        node.ready(incarnation)
        node.advance(3)
        (failing,) = sent(node.die(incarnation, 7, "out of cheese"), Failing)
        waits.append(failing.retry_in_ms)
        assert failing.text == "out of cheese"
        assert spawns(node.advance(failing.retry_in_ms / 1000 - 0.1)) == []
        assert len(spawns(node.advance(0.2))) == 1
    assert waits == [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]


def test_several_processes_that_die_in_turn_soon_after_they_are_ready_back_off_too(node: Node) -> None:
    """One that was started before another died becomes ready after it: that must not end the back-off."""
    node.plan(2)
    due: dict[str, float] = {}
    started: list[float] = []
    while node.now < 160:
        started += [node.now] * len(spawns(node.advance(0.05)))
        for incarnation in list(node.core.processes.alive):
            lives_until = due.setdefault(incarnation, node.now + 0.4)
            if node.now >= lives_until - 0.2:
                node.ready(incarnation)
            if node.now >= lives_until:
                node.die(incarnation, 7)
    assert len(started) < 16 and node.core.processes.backoff.troubles["orders"].failures >= 5


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


def test_a_handler_over_its_limit_is_aborted_then_killed_and_replaced_at_once(node: Node) -> None:
    node.plan(1)
    node.ready()
    effects = node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now)
    assert effects == [Send(messages.Ending("web-1.3f2a9c.1")), Kill("web-1.3f2a9c.1", ABRT)]
    assert node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now) == []
    assert Kill("web-1.3f2a9c.1", KILL) in node.advance(0.15)
    (exited,) = sent(node.die("web-1.3f2a9c.1", -6), messages.Exited)
    assert (exited.cause, exited.kind) == ("hung: its handler exceeded its limit of 5 s", "hung")
    assert len(spawns(node.tick())) == 1


def test_a_process_with_other_work_has_a_grace_and_gets_no_more(node: Node) -> None:
    node.plan(1)
    node.ready()
    effects = node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    assert effects == [Send(messages.Ending("web-1.3f2a9c.1")), Stop("web-1.3f2a9c.1")]
    assert [e for e in node.advance(0.9) if isinstance(e, Kill)] == []
    assert [e.signal for e in node.advance(0.3) if isinstance(e, Kill)] == [ABRT, KILL]


def test_a_hung_process_is_not_waited_for_when_its_other_work_is_done(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    assert node.core.processes.seen("web-1.3f2a9c.1", 2, Overdue(5.0, 1), node.now + 0.1) == []
    assert node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now + 0.2) == [
        Kill("web-1.3f2a9c.1", ABRT)
    ]
    assert Kill("web-1.3f2a9c.1", KILL) in node.advance(0.35)


def test_a_retirement_gives_a_hung_process_no_longer_grace(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    node.hear(Retire("web-1.3f2a9c.1", 60_000))
    assert [e.signal for e in node.advance(1.2) if isinstance(e, Kill)] == [ABRT, KILL]
    (exited,) = sent(node.die("web-1.3f2a9c.1", -9), messages.Exited)
    assert exited.kind == "hung"


def test_a_handler_that_hangs_in_a_process_that_is_to_stop_is_ended_at_its_limit(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 60_000))
    effects = node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now)
    assert Kill("web-1.3f2a9c.1", ABRT) in effects


def test_why_a_process_ended_is_told_in_one_word(node: Node) -> None:
    def end(status: int, **options: Any) -> str:
        name = next(iter(node.core.processes.alive))
        effects = node.core.processes.exited(name, status, "", 0, [], "", node.now, **options)
        (exited,) = sent(effects, messages.Exited)
        node.core.processes.backoff.troubles.clear()
        node.plan(1)
        node.ready()
        kind: str = exited.kind
        return kind

    node.plan(1)
    assert end(-11) == "start"  # it was never ready
    assert end(3) == "exited"
    assert end(-11) == "signalled"
    assert end(-9, out_of_memory=True) == "out of memory"
    node.hear(Retire(next(iter(node.core.processes.alive)), 0))
    assert end(-9) == "stopped"
    node.core.leaving.at_once(node.now)
    (exited,) = sent(node.die(next(iter(node.core.processes.alive)), -9), messages.Exited)
    assert exited.kind == "agent leaving"


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


def test_a_hello_that_is_never_answered_is_said_over_another_connection(node: Node) -> None:
    node.core.who(node.now)
    effects: list[Effect] = []
    for _ in range(70):
        effects += node.tick(0.05)
    assert any(isinstance(effect, Connect) for effect in effects)


def test_hup_asks_the_master_to_replace_the_processes_in_turn(node: Node) -> None:
    assert messages.Reload(["orders"]) in [e.message for e in node.core.reload() if isinstance(e, Send)]
    node.core.connection.lost(node.now)
    assert [type(effect) for effect in node.core.reload()] == [Note]


def test_parked_work_is_recalled_through_the_page(node: Node) -> None:
    node.plan(1)
    assert node.hear(messages.Recall("web-1.3f2a9c.1", 7)) == [SetFloor("web-1.3f2a9c.1", 8)]
    assert node.core.processes.recalled("web-1.3f2a9c.1", 8, 5) == [Send(messages.Recalled("web-1.3f2a9c.1", 8, 5))]
    assert node.hear(messages.Recall("long.gone.1", 7)) == []


def test_the_node_beats_five_times_a_second(node: Node) -> None:
    assert len(sent(node.advance(2), messages.Beat)) in (10, 11)


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


def test_a_pause_of_our_own_takes_no_time_from_a_process_that_stops(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 0))
    assert [e for e in node.tick(60) if isinstance(e, Kill)] == []
    assert [e for e in node.advance(9.8) if isinstance(e, Kill)] == []
    assert Kill("web-1.3f2a9c.1", TERM) in node.advance(0.3)


def test_connections_that_fail_are_tried_again_with_growing_pauses() -> None:
    node = Node()
    for pause in (0.2, 0.3, 0.4):
        assert any(isinstance(effect, Connect) for effect in node.tick())
        node.core.connection.lost(node.now)
        node.core.connection.lost(node.now)  # told twice: counted once
        assert node.core.next_deadline() == pytest.approx(node.now + pause)
        assert node.tick(pause - 0.01) == []
        node.now += 0.02


def test_the_highest_epoch_is_remembered_fenced_and_no_lower_one_is_obeyed(node: Node) -> None:
    node.core.connection.lost(node.now)
    node.now += 1
    effects = node.join(epoch=5)
    assert Fence(5, 1) in effects
    assert any(isinstance(effect, Remember) and effect.epoch == 5 for effect in effects)
    node.core.connection.lost(node.now)
    node.now += 1
    assert not any(isinstance(effect, Fence) for effect in node.join(epoch=4))
    assert not node.core.connection.greeted
    assert node.core.hello(node.now).epoch == 5


def test_an_intent_is_remembered_and_reported(node: Node) -> None:
    intent = messages.Intent("detached", 3, "me", "release")
    assert node.hear(intent) == [Remember(intent, 1)]
    assert (node.core.hello(node.now).intent, node.core.hello(node.now).generation) == ("detached", 3)


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


def test_leaving_at_once_kills_what_runs(node: Node) -> None:
    node.plan(2)
    node.core.leaving.ask(60, node.now)
    assert [effect.signal for effect in node.core.leaving.at_once(node.now) if isinstance(effect, Kill)] == [KILL, KILL]


def test_a_boot_that_was_replaced_by_a_newer_one_goes(node: Node) -> None:
    node.plan(1)
    effects = node.core.refused(messages.Refusal("stale", "a newer boot is here", 0, [1, 1]), node.now)
    assert Kill("web-1.3f2a9c.1", KILL) in effects
    node.die("web-1.3f2a9c.1", -9)
    assert Quit() in node.tick()


def test_a_name_in_use_is_asked_for_again() -> None:
    node = Node()
    node.tick()
    node.core.refused(messages.Refusal("name in use", "by another", 500, [1, 1]), node.now)
    assert node.tick(0.4) == []
    assert any(isinstance(effect, Connect) for effect in node.tick(0.2))


def test_room_for_one_more_is_told(node: Node) -> None:
    (hello,) = node.core.resize(5, node.now)
    assert isinstance(hello, Hello) and hello.message.capacity == 5


def test_a_node_that_never_met_a_master_says_so_once() -> None:
    node = Node()
    told: list[str] = []
    for _ in range(4):
        node.tick(1.0)
        told += [effect.text for effect in node.core.connection.lost(node.now) if isinstance(effect, Note)]
    assert len(told) == 1 and told[0].startswith("no master answers")


# ---- two masters (docs/STANDBY.md) ----------------------------------------------------------------------------------


def welcome(epoch: int = 1, master: str = "a", **options: Any) -> messages.Welcome:
    return messages.Welcome(1, epoch, master, **options)


def dialled(effects: list[Effect]) -> list[int]:
    return [effect.master for effect in effects if isinstance(effect, Connect)]


@pytest.fixture
def paired() -> Node:
    """It obeys master 0, which has a standby and needs leases."""
    made = Node()
    made.core.connection.in_touch = True
    made.tick()
    made.core.connected(made.now)
    made.core.welcomed(welcome(lease_ms=1000), made.now)
    return made


def test_a_beat_that_answers_a_new_one_of_the_master_is_a_lease_and_noted_first(paired: Node) -> None:
    first = paired.tick()
    assert [beat.heard for beat in sent(first, messages.Beat)] == [0]
    assert not any(isinstance(effect, Lease) for effect in first)
    paired.hear(messages.Beat(1))
    effects = [effect for effect in paired.tick(0.2) if isinstance(effect, Lease | Send)]
    assert effects[:2] == [Lease("a", 1, 1.0), Send(messages.Beat(2, 200, 1, 1))]
    silent = paired.tick(0.2)
    assert not any(isinstance(effect, Lease) for effect in silent)  # the same again leases nothing more


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


def test_a_witness_has_no_room_whatever_signals_say() -> None:
    node = Node(capacity=0, offers=[])
    node.join()
    assert node.core.resize(1, node.now) == []
    assert (node.core.hello(node.now).capacity, node.core.hello(node.now).offers) == (0, [])
    node.plan(3)
    assert not node.core.processes.alive
