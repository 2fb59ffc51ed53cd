"""The whole cluster in one thread, through random faults and through a few chosen ones (`make sim` for more)."""

from __future__ import annotations

import pytest
from sim.cluster import Cluster, Violation
from sim.run import PLANTS, history

from rota.common import errors
from rota.common.lifecycle import Intent, Liveness

SEEDS = 40


def ready(cluster: Cluster) -> bool:
    slots = cluster.master.core.fleet.slots
    return len(slots) == 2 * len(cluster.agents) and all(slot.open for slot in slots.values())


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster(seed=7)
    made.run_until(lambda: ready(made))
    return made


@pytest.mark.parametrize("first", range(1, SEEDS, 10))
def test_every_call_gets_one_true_answer_whatever_breaks(first: int) -> None:
    for seed in range(first, first + 10):
        history(seed)


def test_the_same_seed_is_the_same_history() -> None:
    assert history(5) == history(5)


@pytest.mark.parametrize(("plant", "words"), [("double", "executed twice"), ("loss", "in 0 places")])
def test_the_checker_finds_what_is_planted(plant: str, words: str) -> None:
    with pytest.raises(Violation, match=words) as caught:
        for seed in range(1, SEEDS):
            history(seed, PLANTS[plant])
    assert "again: python tests/sim/run.py --seed" in str(caught.value)
    assert "FAULT" in str(caught.value) or plant == "loss", "the transcript tells what happened"


def test_an_unanswered_call_is_found_at_the_end(cluster: Cluster) -> None:
    call = cluster.call("plain")
    cluster.clients[0].step = cluster.clients[1].step = lambda: None  # type: ignore[method-assign]
    for client in cluster.clients:
        client._timer._act = lambda: None
    with pytest.raises(Violation, match="got no answer"):
        cluster.run(1.0)
        cluster.checks.complete(cluster.master)
    assert call.code is None


def test_a_killed_process_costs_only_what_it_was_running(cluster: Cluster) -> None:
    calls = [cluster.call("slow", timeout=30.0) for _ in range(60)]
    cluster.run(0.2)
    victim = next(process for process in cluster.processes() if process.running)
    victim.die()
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert sorted(call.code or 0 for call in calls) == [0] * 59 + [errors.MaybeExecuted.code]


def test_an_idempotent_call_survives_its_process(cluster: Cluster) -> None:
    calls = [cluster.call("again", timeout=30.0) for _ in range(60)]
    cluster.run(0.01)
    next(process for process in cluster.processes() if process.running).die()
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}


def test_resets_lose_nothing_and_run_nothing_twice(cluster: Cluster) -> None:
    calls = []
    for _ in range(10):
        calls += [cluster.call("plain", timeout=30.0) for _ in range(20)]
        cluster.run(0.03)
        cluster.reset_all()
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}
    assert set(cluster.checks.runs.values()) == {1}


def test_a_drained_node_has_lost_nothing_when_it_is_detached(cluster: Cluster) -> None:
    calls = [cluster.call("slow", timeout=30.0) for _ in range(30)]
    cluster.run(0.1)
    cluster.master.verb("drain", nodes=["n0"])
    node = cluster.master.core.fleet.nodes["n0"]
    cluster.run_until(lambda: node.intent is Intent.DETACHED)
    running = [p.incarnation for p in cluster.agents["n0"].processes.values() if p.alive and p.running]
    assert not running
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}


def test_a_rolling_restart_of_every_node_fails_no_call(cluster: Cluster) -> None:
    calls = []
    core = cluster.master.core
    for name in list(cluster.agents):
        cluster.master.verb("drain", nodes=[name])
        while core.fleet.nodes[name].intent is not Intent.DETACHED:
            calls.append(cluster.call("plain", timeout=30.0))
            cluster.run(0.01)
        cluster.master.verb("rejoin", nodes=[name])
        while not ready(cluster):
            calls.append(cluster.call("plain", timeout=30.0))
            cluster.run(0.01)
        cluster.run(1.0)  # its ramp
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}
    assert not [number for number, result in cluster.master.results.items() if not result.ok]


def test_a_restarted_master_attaches_what_runs_and_answers_what_is_done(cluster: Cluster) -> None:
    calls = [cluster.call("slow", timeout=30.0) for _ in range(6)]
    cluster.run_until(lambda: sum(len(process.running) for process in cluster.processes()) == 6)
    cluster.restart_master()
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}


def test_what_an_older_master_may_have_had_answered_is_not_run_again(cluster: Cluster) -> None:
    """The reply was acknowledged, the answer was lost with the master: no process remembers it."""
    call = cluster.call("plain", timeout=30.0, client=0)
    cluster.run_until(lambda: cluster.checks.runs[call.id])
    client = cluster.clients[0]
    assert client.link is not None
    client.link.reset()  # before its answer
    cluster.run_until(lambda: not call.client.calls.open)  # type: ignore[attr-defined]
    client._due = cluster.clock.now + 3.0  # and it stays away for a while
    for _ in range(12):  # their deliveries acknowledge the reply
        cluster.call("plain", client=1)
        cluster.run(0.05)
    cluster.restart_master()
    cluster.run_until(lambda: call.code is not None)
    assert call.code == errors.MaybeExecuted.code
    assert cluster.checks.runs[call.id] == 1


def test_a_drained_node_stays_drained_when_the_master_comes_back(cluster: Cluster) -> None:
    cluster.master.verb("drain", nodes=["n1"], reason="disk")
    cluster.run_until(lambda: cluster.master.core.fleet.nodes["n1"].intent is Intent.DETACHED)
    cluster.run(1.0)
    cluster.restart_master()
    cluster.run(5.0)
    node = cluster.master.core.fleet.nodes["n1"]
    assert (node.intent, node.by, node.reason, node.liveness) == (Intent.DETACHED, "op", "disk", Liveness.LIVE)
    assert not node.slots


def test_without_a_journal_the_agents_remember_what_was_drained() -> None:
    cluster = Cluster(seed=3, journal=False)
    cluster.run_until(lambda: ready(cluster))
    cluster.master.verb("drain", nodes=["n1"])
    cluster.run_until(lambda: cluster.master.core.fleet.nodes["n1"].intent is Intent.DETACHED)
    cluster.run(1.0)
    cluster.restart_master()
    cluster.run(5.0)
    assert cluster.master.core.fleet.nodes["n1"].intent is Intent.DETACHED
    assert cluster.master.core.dispatch.epoch == 2


def test_a_master_that_stood_still_declares_nobody_dead(cluster: Cluster) -> None:
    cluster.master.paused_until = cluster.clock.now + 10.0
    cluster.run(12.0)
    assert {node.liveness for node in cluster.master.core.fleet.nodes.values()} == {Liveness.LIVE}
    assert not [each for each in cluster.master.core.events.since(0) if each["kind"] == "DEAD"]


def test_a_node_that_was_cut_off_comes_back_with_its_processes(cluster: Cluster) -> None:
    agent = cluster.agents["n2"]
    before = sorted(agent.processes)
    agent.paused_until = cluster.clock.now + 6.0
    node = cluster.master.core.fleet.nodes["n2"]
    cluster.run_until(lambda: node.liveness is Liveness.DEAD)
    cluster.run_until(lambda: ready(cluster))
    assert sorted(agent.processes) == before
