"""Processes of a node: what the plan starts, how soon after a failure, what ends at its limit, what is told of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from node_rig import Node, sent, spawns

from rota.common import messages
from rota.common.limits import CONCURRENCY_MAX
from rota.common.messages import ROW_DONE, Failing, Plan, Retire
from rota.worker import processes as shell
from rota.worker.core.effects import Kill, Send, SetFloor, Stop
from rota.worker.core.processes import OUT_OF_MEMORY, SIGABRT, SIGKILL, SIGTERM, Overdue
from rota.worker.page import FLOOR, Page


def test_a_plan_is_followed_and_each_start_is_told_at_once(node: Node) -> None:
    effects = node.plan(2)
    assert spawns(effects) == ["web-1.3f2a9c.1", "web-1.3f2a9c.2"]
    assert [started.pid for started in sent(effects, messages.Started)] == [1, 2]
    assert node.plan(2) == []  # idempotent


def test_of_several_services_each_has_its_own_processes() -> None:
    node = Node(offers=["orders", "site"])
    node.join()
    node.hear(Plan({"orders": 1}))
    node.tick()
    node.hear(Plan({"orders": 1, "site": 2}))
    assert len(spawns(node.tick())) == 2


def test_no_more_run_than_each_and_its_replacement_whatever_a_master_wants(node: Node) -> None:
    assert len(spawns(node.plan(100))) == 2 * node.core.processes.capacity
    assert spawns(node.plan(101)) == []


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


def test_what_stops_already_or_is_gone_is_not_retired_again(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 1000))
    assert node.hear(Retire("web-1.3f2a9c.1", 60_000)) == node.hear(Retire("long.gone.1", 0)) == []
    assert Kill("web-1.3f2a9c.1", SIGKILL) in node.advance(12.1), "the first one holds"


def test_a_retired_process_has_the_grace_that_its_master_gives_it_and_then_ours(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.plan(0)
    node.hear(Retire("web-1.3f2a9c.1", 2000))
    assert [e for e in node.advance(11.9) if isinstance(e, Kill)] == []
    assert Kill("web-1.3f2a9c.1", SIGTERM) in node.advance(0.2)


def test_a_process_that_stops_while_it_boots_does_not_become_ready(node: Node) -> None:
    node.plan(1)
    node.hear(Retire("web-1.3f2a9c.1", 0))
    assert node.core.processes.ready("web-1.3f2a9c.1", node.now) == []
    assert node.core.processes.ready("long.gone.1", node.now) == []
    assert Kill("web-1.3f2a9c.1", SIGKILL) in node.advance(1.1)


def test_one_that_was_to_stop_before_it_was_ready_has_not_failed(node: Node) -> None:
    node.plan(1)
    node.hear(Retire("web-1.3f2a9c.1", 0))
    assert sent(node.die("web-1.3f2a9c.1", -15), Failing) == []


def test_why_it_was_ended_stays_whatever_comes_later(node: Node) -> None:
    node.plan(1)
    node.advance(60.1)
    node.hear(Retire("web-1.3f2a9c.1", 0))
    (exited,) = sent(node.die("web-1.3f2a9c.1", -9), messages.Exited)
    assert (exited.cause, exited.kind) == ("was not ready within 60 s (slave.start_timeout)", "start")


def test_one_that_is_ready_is_not_ended_for_its_start(node: Node) -> None:
    node.plan(1)
    node.ready()
    assert [e for e in node.advance(70.0) if isinstance(e, Kill)] == []


def test_a_process_whose_place_was_taken_for_long_has_its_time_to_start_and_its_limits(node: Node) -> None:
    node.hear(Plan({"orders": 1}))
    node.core.tick(node.now)
    assert [e for e in node.advance(70.0) if isinstance(e, Kill)] == []
    node.core.processes.spawned("web-1.3f2a9c.1", b"t" * 16, 7, node.now)
    assert [e for e in node.advance(59.0) if isinstance(e, Kill)] == []
    node.ready()
    effects = node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now)
    assert Kill("web-1.3f2a9c.1", SIGABRT) in effects


def test_one_that_is_to_stop_before_it_was_spawned_is_told_with_its_ticket_and_never_boots(node: Node) -> None:
    node.hear(Plan({"orders": 1}))
    node.core.tick(node.now)
    assert node.core.hello(node.now).processes == [], "nobody could say which process it is"
    node.hear(Retire("web-1.3f2a9c.1", 0))
    (started,) = sent(node.core.processes.spawned("web-1.3f2a9c.1", b"t" * 16, 7, 0.0), messages.Started)
    assert (started.ticket, started.pid) == (b"t" * 16, 7)
    node.ready("web-1.3f2a9c.1")
    assert Kill("web-1.3f2a9c.1", SIGKILL) in node.advance(1.1)


def test_of_one_that_was_never_spawned_no_master_hears(node: Node) -> None:
    node.hear(Plan({"orders": 1}))
    node.core.tick(node.now)
    assert sent(node.die("web-1.3f2a9c.1"), messages.Exited) == [] and node.core.hello(node.now).exits == []


def test_a_process_that_does_not_stop_gets_term_and_then_kill(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.plan(0)
    assert node.hear(Retire("web-1.3f2a9c.1", 0)) == [Stop("web-1.3f2a9c.1")]
    assert [e for e in node.advance(9.9) if isinstance(e, Kill)] == []
    kills = [e for e in node.advance(1.3) if isinstance(e, Kill)]
    assert kills == [Kill("web-1.3f2a9c.1", SIGTERM), Kill("web-1.3f2a9c.1", SIGKILL)]


def test_a_process_that_still_boots_is_stopped_by_term(node: Node) -> None:
    node.plan(1)
    node.plan(0)
    effects = node.hear(Retire("web-1.3f2a9c.1", 10_000))
    assert [*effects, *node.tick()] == [Stop("web-1.3f2a9c.1"), Kill("web-1.3f2a9c.1", SIGTERM)]


def test_a_process_that_does_not_get_ready_is_killed_and_counts_as_failed(node: Node) -> None:
    node.plan(1)
    kills = [effect for effect in node.advance(60.2) if isinstance(effect, Kill)]
    assert kills == [Kill("web-1.3f2a9c.1", SIGABRT), Kill("web-1.3f2a9c.1", SIGKILL)]
    dumped = "Fatal Python error: Aborted\n  File wsgi.py, line 7"
    effects = node.die("web-1.3f2a9c.1", -6, dumped)
    (exited,) = sent(effects, messages.Exited)
    assert (exited.cause, exited.kind) == ("was not ready within 60 s (slave.start_timeout)", "start")
    (failing,) = sent(effects, Failing)
    assert failing[1:] == (1, 500, f"{dumped}\n{exited.cause}", exited.cause)


@pytest.mark.parametrize(
    ("status", "failure", "cause"),
    [(70, "shop: ImportError: no quotes", "shop: ImportError: no quotes"), (-11, "", "killed by SIGSEGV")],
)
def test_why_a_start_failed_is_said_apart_from_what_was_written(
    node: Node, status: int, failure: str, cause: str
) -> None:
    node.plan(1)
    written = "Traceback\nImportError: no quotes\nFatal Python error: was not ready within"
    how = "killed by SIGSEGV" if status < 0 else "exited with 70"
    effects = node.core.processes.exited("web-1.3f2a9c.1", status, how, 0, [], written, node.now, failure=failure)
    (failing,) = sent(effects, Failing)
    assert (failing.text, failing.cause) == (written, cause)
    assert failing in node.core.processes.findings(node.now), "a master that knows nothing of it hears it, too"


def test_however_many_ended_while_no_master_was_there_a_hello_can_be_said(node: Node) -> None:
    processes = node.core.processes
    rows = [messages.Row(number, 2, b"s" * 16, number, 1, b"r" * 1000) for number in range(1, 65)]
    text = "\N{REPLACEMENT CHARACTER}" * 4096
    node.plan(1)
    for _ in range(1500):
        (incarnation,) = processes.alive
        processes.exited(incarnation, 1, "exited with 1", 64, rows, text, node.now)
        node.now += 61
        for spawn in processes.follow_plan(node.now):
            processes.spawned(spawn.incarnation, b"t" * 16, 7, node.now)
    hello = messages.decode(messages.encode(node.core.hello(node.now)))
    last, *_, oldest = reversed(hello.exits)
    assert (last.rows, last.text) == (rows, text)
    assert (oldest.started_upto, {row.reply for row in oldest.rows}, oldest.text) == (64, {b""}, "")
    assert len(processes.exits) == 1000, "what is kept is bounded, too"


def test_a_hello_tells_what_had_started_in_many_processes_before_it_tells_what_one_had_answered(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that is not named the master knows nothing: even what never started there ends as MaybeExecuted."""
    processes = node.core.processes
    rows = [messages.Row(number, 2, b"s" * 16, number, 1, b"r" * 1000) for number in range(1, 65)]
    for number in range(1000):
        processes.exits[str(number)] = messages.Exited(str(number), "orders", -9, "killed", 64, rows, "text")
    sizes = []
    encode = messages.encode
    monkeypatch.setattr(messages, "encode", lambda message: sizes.append(len(told := encode(message))) or told)
    exits = node.core.hello(node.now).exits
    assert [each.incarnation for each in exits] == [str(number) for number in range(1000 - len(exits), 1000)]
    assert len(exits) > 35 and all(len(each.rows) == 64 for each in exits) and exits[-1].rows == rows
    assert sum(sizes) < 5_000_000, "what it has no room for is not looked at: that took seconds"


def test_of_the_widest_page_the_exit_tells_the_latest_replies(node: Node) -> None:
    node.plan(1)
    (incarnation,) = node.core.processes.alive
    rows = [messages.Row(number, 2, b"s" * 16, number, 1, b"r" * 4088) for number in range(CONCURRENCY_MAX, 0, -1)]
    effects = node.core.processes.exited(incarnation, -9, "killed", CONCURRENCY_MAX, rows, "", node.now)
    (exited,) = sent(effects, messages.Exited)
    messages.encode(exited)
    assert [row.number for row in exited.rows] == list(range(1, CONCURRENCY_MAX + 1))
    replies = [row.number for row in exited.rows if row.reply]
    assert replies == list(range(CONCURRENCY_MAX - 63, CONCURRENCY_MAX + 1))


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


def test_a_new_master_is_told_of_what_fails_and_not_of_what_came_right(node: Node) -> None:
    def told() -> list[int]:
        effects = node.core.welcomed(messages.Welcome(1, 1, "m"), node.now)
        return [failing.failures for failing in sent(effects, Failing)]

    node.plan(1)
    node.die("web-1.3f2a9c.1", 70, "Traceback")
    assert told() == [1]
    node.advance(0.6)
    node.ready()
    assert told() == [0]


def test_of_services_that_fail_the_first_whose_time_comes_is_started_first() -> None:
    node = Node(offers=["orders", "site"])
    node.join()
    node.hear(Plan({"orders": 1, "site": 1}))
    first, second = spawns(node.tick())
    node.die(first)
    node.now += 0.3
    node.die(second)
    assert node.core.processes.next_deadline() == pytest.approx(node.now + 0.2)


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


def test_what_failed_before_a_drain_is_not_held_against_what_runs_after_it(node: Node) -> None:
    node.plan(1)
    for _ in range(5):
        (incarnation,) = node.core.processes.alive
        (failing,) = sent(node.die(incarnation), Failing)
        node.advance(failing.retry_in_ms / 1000 + 0.05)
    (incarnation,) = node.core.processes.alive
    node.plan(0)
    node.die(incarnation)
    node.advance(0.1)
    (fresh,) = spawns(node.plan(1))
    (failing,) = sent(node.die(fresh), Failing)
    assert (failing.failures, failing.retry_in_ms) == (1, 500)


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


def test_a_handler_over_its_limit_is_aborted_then_killed_and_replaced_at_once(node: Node) -> None:
    node.plan(1)
    node.ready()
    effects = node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now)
    assert effects == [Send(messages.Ending("web-1.3f2a9c.1")), Kill("web-1.3f2a9c.1", SIGABRT)]
    assert [e for e in node.tick(0.05) if isinstance(e, Kill)] == [], "it writes where it hangs"
    assert node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now) == []
    assert Kill("web-1.3f2a9c.1", SIGKILL) in node.advance(0.15)
    (exited,) = sent(node.die("web-1.3f2a9c.1", -6), messages.Exited)
    assert (exited.cause, exited.kind) == ("hung: its handler exceeded its limit of 5 s", "hung")
    assert len(spawns(node.tick())) == 1


def test_a_process_with_other_work_has_a_grace_and_gets_no_more(node: Node) -> None:
    node.plan(1)
    node.ready()
    effects = node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    assert effects == [Send(messages.Ending("web-1.3f2a9c.1")), Stop("web-1.3f2a9c.1")]
    assert [e for e in node.advance(0.9) if isinstance(e, Kill)] == []
    assert [e.signal for e in node.tick(0.15) if isinstance(e, Kill)] == [SIGABRT]
    assert node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now) == [], "it was aborted"
    assert [e.signal for e in node.advance(0.1) if isinstance(e, Kill)] == [SIGKILL]
    assert node.core.processes.seen("long.gone.1", 1, Overdue(5.0, 0), node.now) == []


def test_a_hung_process_is_not_waited_for_when_its_other_work_is_done(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    assert node.core.processes.seen("web-1.3f2a9c.1", 2, Overdue(5.0, 1), node.now + 0.1) == []
    assert node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now + 0.2) == [
        Kill("web-1.3f2a9c.1", SIGABRT)
    ]
    assert Kill("web-1.3f2a9c.1", SIGKILL) in node.advance(0.35)


def test_a_retirement_gives_a_hung_process_no_longer_grace(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.core.processes.seen("web-1.3f2a9c.1", 3, Overdue(5.0, 2), node.now)
    node.hear(Retire("web-1.3f2a9c.1", 60_000))
    assert [e.signal for e in node.advance(1.2) if isinstance(e, Kill)] == [SIGABRT, SIGKILL]
    (exited,) = sent(node.die("web-1.3f2a9c.1", -9), messages.Exited)
    assert exited.kind == "hung"


def test_a_handler_that_hangs_in_a_process_that_is_to_stop_is_ended_at_its_limit(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 60_000))
    effects = node.core.processes.seen("web-1.3f2a9c.1", 1, Overdue(5.0, 0), node.now)
    assert Kill("web-1.3f2a9c.1", SIGABRT) in effects


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
    assert end(0) == "exited"
    assert end(-9, out_of_memory=True) == "out of memory"
    node.hear(Retire(next(iter(node.core.processes.alive)), 0))
    assert end(-9) == "stopped"
    node.core.leaving.at_once(node.now)
    (exited,) = sent(node.die(next(iter(node.core.processes.alive)), -9), messages.Exited)
    assert exited.kind == "agent leaving"


def test_what_the_kernel_ended_for_want_of_memory_is_told_so(node: Node) -> None:
    for out_of_memory, cause in ((True, OUT_OF_MEMORY), (False, "ended by signal 9")):
        (name,) = spawns(node.plan(1))
        node.ready()
        effects = node.core.processes.exited(name, -9, "ended by signal 9", 0, [], "", node.now, out_of_memory)
        assert sent(effects, messages.Exited)[0].cause == cause
        node.core.processes.backoff.troubles.clear()


def test_parked_work_is_recalled_through_the_page(node: Node) -> None:
    node.plan(1)
    name = "web-1.3f2a9c.1"
    assert node.hear(messages.Recall(name, 7)) == [SetFloor(name, 8, since=0)]
    assert node.hear(messages.Recall(name, 7, 3)) == [SetFloor(name, 8, since=3)]
    rows = [messages.Row(number, ROW_DONE, b"s" * 16, number, 1, bytes(4000)) for number in range(1, 100)]
    (told,) = sent(node.core.processes.recalled(name, 8, 5, rows), messages.Recalled)
    assert told[:3] == (name, 8, 5)
    assert [row.number for row in told.rows if row.reply] == [*range(35, 100)], "what a message has room for"
    assert node.hear(messages.Recall("long.gone.1", 7)) == []


def test_a_question_for_what_is_done_does_not_keep_the_agent(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one thread of its own for all: where no floor is raised there is nothing to wait for."""
    waited: list[float] = []
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(shell.time, "sleep", waited.append)
    core: Any = SimpleNamespace(processes=SimpleNamespace(recalled=lambda *answer: told.append(answer[1:3])))
    effects: Any = SimpleNamespace(perform=lambda said: None)
    processes = shell.Processes(core, effects, effects, {})
    processes.pages["p"] = page
    for floor in (8, 8, 5, 9):
        processes.set_floor(SetFloor("p", floor, since=1))
    assert waited == [shell.RECALL_WAIT_S] * 2 and page.words[FLOOR] == 9
    assert told == [(8, 0), (8, 0), (5, 0), (9, 0)]


def test_a_pause_of_our_own_takes_no_time_from_a_process_that_stops(node: Node) -> None:
    node.plan(1)
    node.ready()
    node.hear(Retire("web-1.3f2a9c.1", 0))
    assert [e for e in node.tick(60) if isinstance(e, Kill)] == []
    assert [e for e in node.advance(9.8) if isinstance(e, Kill)] == []
    assert Kill("web-1.3f2a9c.1", SIGTERM) in node.advance(0.3)


def test_the_next_signal_and_the_next_try_are_waited_for(node: Node) -> None:
    node.plan(2)
    node.ready("web-1.3f2a9c.2")
    processes = node.core.processes
    assert processes.next_deadline() == node.now + 60.0
    node.die("web-1.3f2a9c.1")
    assert processes.next_deadline() == node.now + 0.5
    node.hear(Retire("web-1.3f2a9c.2", 0))
    assert processes.next_deadline() == node.now + 0.5
    processes.backoff.troubles.clear()
    assert processes.next_deadline() == node.now + 10.0


# ---- what they weigh -------------------------------------------------------------------------------------------------


def test_of_the_memory_of_processes_only_changes_are_told_and_all_to_a_master_that_may_know_nothing(node: Node) -> None:
    node.plan(2)
    one, two = "web-1.3f2a9c.1", "web-1.3f2a9c.2"

    def told(**sizes: int) -> list[dict[str, int]]:
        return [
            usage.rss for usage in sent(node.core.processes.weighed({one: sizes["a"], two: sizes["b"]}), messages.Usage)
        ]

    assert told(a=1, b=2) == [{one: 1, two: 2}]
    assert told(a=1, b=2) == []
    assert told(a=3, b=2) == [{one: 3}]
    effects = node.core.welcomed(messages.Welcome(1, 1, "m"), node.now)
    assert [usage.rss for usage in sent(effects, messages.Usage)] == [{one: 3, two: 2}]
