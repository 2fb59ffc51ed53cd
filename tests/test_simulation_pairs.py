"""Two masters and their cluster in one thread, through random faults (`make sim-pairs` for more)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sim import leftovers
from sim.mutants import MUTANTS as MUTANTS_OF_ONE
from sim.pairs import faults
from sim.pairs.cluster import BACKUP, PRIMARY, PairCluster
from sim.pairs.history import history
from sim.pairs.mutants import MUTANTS, SHOWN_BY
from sim.run import find

from rota.common.lifecycle import Intent
from rota.common.messages import Vote

SEEDS = 6
# By this seed, as in test_simulation.py.
SOON_FOUND = {
    "right_to_dispatch_ignored": 15,
    "nobody_is_asked": 4,
    "fence_proves_twice": 4,
    "fenced_process_has_credit": 1,
}


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[PairCluster]:
    """With what a parameter says."""
    with closing(PairCluster(seed=7, **getattr(request, "param", {}))) as made:
        made.run_until(lambda: made.active and made.ready() and not made.active.core.pair.unready())
        yield made


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_whatever_breaks_one_master_dispatches_and_calls_are_answered(seed: int) -> None:
    history(seed)


def test_nothing_stays_of_what_has_passed() -> None:
    history(leftovers.EVERY)


def test_the_same_seed_is_the_same_history() -> None:
    assert history(4) == history(4)


def test_each_rule_that_is_broken_stands_on_the_page() -> None:
    page = (Path(__file__).parent.parent / "docs" / "SIMULATION.md").read_text(encoding="utf-8")
    assert [name for name in (*MUTANTS_OF_ONE, *MUTANTS) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", SOON_FOUND)
def test_a_broken_rule_of_the_standby_is_found(name: str) -> None:
    seeds = dict.fromkeys([SOON_FOUND[name], *range(1, 60)])
    assert find(MUTANTS[name], seeds, SHOWN_BY.get(name, ()), history), MUTANTS[name].__doc__


def test_a_killed_master_is_replaced_within_two_seconds_and_nothing_is_lost(cluster: PairCluster) -> None:
    calls = [cluster.call("again", timeout=10.0) for _ in range(20)]
    cluster.masters[PRIMARY].kill()
    began = cluster.clock.now
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    assert cluster.clock.now - began < 2.0
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}


def test_a_paused_master_steps_down_before_it_dispatches_anything(cluster: PairCluster) -> None:
    cluster.masters[PRIMARY].pause(10.0, mid=True)
    for _ in range(40):
        cluster.call("plain", timeout=20.0)
        cluster.run(0.3)
    assert cluster.masters[BACKUP].is_active and not cluster.masters[PRIMARY].is_active
    cluster.settle()


def test_one_of_two_nodes_and_the_standby_may_die(cluster: PairCluster) -> None:
    cluster.masters[BACKUP].kill()
    cluster.agents["n0"].kill()
    cluster.run(5.0)
    calls = [cluster.call("plain", timeout=5.0) for _ in range(10)]
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    assert {call.code for call in calls} == {0}


def test_a_node_that_said_goodbye_has_no_vote_at_the_next_master_either(cluster: PairCluster) -> None:
    gone = cluster.agents.pop("n2")
    cluster.removed.add("n2")
    gone.leave()
    cluster.run_until(lambda: cluster.active.core.pair.leases.electorate == cluster.agents.keys())
    cluster.masters[PRIMARY].kill()
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    cluster.start_again(PRIMARY, 0.5)
    cluster.run(cluster.active.core.settings.dead_after + 10.0)
    cluster.settle()


def test_nodes_that_a_dying_master_took_for_others_of_their_name_elect_the_next_one(cluster: PairCluster) -> None:
    for node in ("n0", "n1"):
        cluster.agents[node].kill()
        cluster.start_agent(node, remembers=True)
    cluster.run(0.3)  # their former lives are not dead yet, for the master
    assert all(not cluster.agents[node].core.connection.greeted for node in ("n0", "n1"))
    cluster.masters[PRIMARY].kill()
    began = cluster.clock.now
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    assert cluster.clock.now - began < 2.5  # they abstain for 2 s from the refusal


@pytest.mark.parametrize("cluster", [{"nodes": 1}], indirect=True, ids=["one node"])
def test_one_that_forgot_its_vote_does_not_give_the_last_master_what_it_leased_to_the_present_one(
    cluster: PairCluster,
) -> None:
    """Both might dispatch: the one by the lease of this life, the other one by that of the life before."""
    faults.cut(cluster, BACKUP, PRIMARY, 10.0, "both")
    faults.cut(cluster, "n0", PRIMARY, 10.0, "both")
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    cluster.run(1.0)
    cluster.path("n0", PRIMARY).heal()
    faults.cut(cluster, "n0", BACKUP, 10.0, "both")
    cluster.agents["n0"].kill()
    cluster.start_agent("n0", remembers=False)
    cluster.run_until(
        lambda: cluster.masters[PRIMARY].may_dispatch(cluster.clock.now)
    )  # and at no instant before, both


def test_a_standby_that_was_cut_off_with_a_minority_disturbs_nobody_when_it_is_back(cluster: PairCluster) -> None:
    active = cluster.masters[PRIMARY]
    for one, other in ((PRIMARY, BACKUP), ("n0", PRIMARY), ("n1", BACKUP), ("n2", BACKUP)):
        faults.cut(cluster, one, other, 5.0, "both")
    for _ in range(100):
        cluster.run(0.1)
        assert active.may_dispatch(cluster.clock.now) and active.core.dispatch.epoch == 1
    cluster.run_until(lambda: not active.core.pair.unready())
    cluster.settle()


@pytest.mark.parametrize("seed", range(15, 23))
def test_what_a_vote_for_a_candidate_that_lost_kept_from_starting_runs_once(seed: int) -> None:
    """The active dispatches on until it hears of that vote. Both it and the next master are told that it never ran."""
    with closing(PairCluster(seed, clients=1, credit=1)) as cluster:
        cluster.run_until(lambda: cluster.active and cluster.ready() and not cluster.active.core.pair.unready())
        cluster.run(1.0)
        voter = cluster.agents["n0"]
        voter.core.votes.lease = None  # it ran out, and that of the others was renewed
        voter._asked(Vote(2, BACKUP, 1000))
        voter.pause(0.05)
        for _ in range(3):
            cluster.call("slow", timeout=6.0)
            cluster.run(0.004)
        cluster.run(0.02)
        for process in [each for node in ("n1", "n2") for each in cluster.agents[node].processes.values()]:
            process.pause(1.5)  # the next master hears of them after it has heard of those that refused
        cluster.settle()


def test_nothing_is_acknowledged_that_a_standby_does_not_have_which_may_take_over(cluster: PairCluster) -> None:
    cluster.run(1.0)
    faults.cut(cluster, PRIMARY, BACKUP, 10.0, "both")
    master = cluster.masters[PRIMARY]
    number = master.verb("drain", nodes=["n1"])
    cluster.run(1.5)
    assert number not in master.results
    master.kill()
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    cluster.start_again(PRIMARY, 0.5)
    cluster.settle()


def test_a_drain_that_was_acknowledged_goes_on_after_a_takeover(cluster: PairCluster) -> None:
    calls = [cluster.call("slow", timeout=10.0) for _ in range(30)]
    cluster.run(0.05)
    master = cluster.masters[PRIMARY]
    number = master.verb("drain", nodes=["n1"], deadline_s=5.0)
    cluster.run_until(lambda: number in master.results)
    master.kill()
    cluster.run_until(lambda: cluster.masters[BACKUP].is_active)
    fleet = cluster.masters[BACKUP].core.fleet
    cluster.run_until(lambda: fleet.nodes["n1"].intent is Intent.DETACHED)
    cluster.run_until(lambda: all(call.code is not None for call in calls))


def test_a_switchover_is_one_and_leads_back(cluster: PairCluster) -> None:
    for name in (BACKUP, PRIMARY):
        faults.switchover(cluster)
        cluster.run_until(lambda name=name: cluster.masters[name].is_active and cluster.active.core.pair.followed)
        cluster.run_until(lambda: not cluster.active.core.pair.unready())
    cluster.settle()
