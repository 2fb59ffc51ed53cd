"""What operators want survives whatever restarts; verbs are safe to repeat."""

from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

import rota
from system.load import Load
from system.pool import Pool


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with Pool(tmp_path_factory.mktemp("pool"), nodes=2, remember=True) as pool:
        yield pool


@pytest.fixture
def pool(shared: Pool) -> Pool:
    """Both nodes active, whatever the test before did."""
    for name in ("node-1", "node-2"):
        if name not in shared.nodes:
            shared.start_node(name)
    with shared.admin() as admin:
        admin.scale("proof", 2)
        admin.rejoin(all=True, timeout=20)
    return shared


def restart_master(pool: Pool) -> None:
    pool.restart_master(kill=True)


def restart_agent(pool: Pool) -> None:
    pool.stop_node("node-1", kill=True)
    pool.start_node("node-1")


def restart_both(pool: Pool) -> None:
    pool.stop_node("node-1")
    pool.restart_master(kill=True)
    pool.start_node("node-1")


@pytest.mark.parametrize("restart", [restart_master, restart_agent, restart_both])
def test_a_drained_node_stays_drained(pool: Pool, restart: Callable[[Pool], None]) -> None:
    with pool.admin() as admin:
        admin.drain("node-1", reason="new disk")
    restart(pool)
    node = pool.node("node-1")
    assert (node["intent"], node["processes"], node["reason"]) == ("detached", [], "new disk")
    with Load(pool.ledger, pool.client(), "proof.book", lanes=2) as load, pool.admin() as admin:
        load.more(10)
        admin.rejoin("node-1", timeout=20)
        load.more(10)
    assert not load.faults and pool.node("node-1")["why"] == ""


def test_a_master_that_remembers_nothing_learns_from_the_agents_who_is_drained(tmp_path: Path) -> None:
    with Pool(tmp_path, nodes=2, state=False) as pool, pool.admin() as admin:
        admin.drain("node-1")
        epoch = pool.status()["master"]["epoch"]
        pool.restart_master(kill=True)
        until(lambda: pool.node("node-1")["intent"] == "detached")
        assert pool.status()["master"]["epoch"] > epoch


def test_verbs_may_be_repeated(pool: Pool) -> None:
    with pool.admin() as admin:
        first, again = admin.drain("node-1"), admin.drain("node-1")
        assert [each["nodes"][0]["changed"] for each in (first, again)] == [True, False]
        first, again = admin.rejoin("node-1", timeout=20), admin.rejoin("node-1", timeout=20)
        assert [each["nodes"][0]["changed"] for each in (first, again)] == [True, False]


def test_a_dry_run_changes_nothing(pool: Pool) -> None:
    with pool.admin() as admin:
        generation = pool.node("node-1")["generation"]
        assert admin.drain("node-1", dry_run=True)["dry_run"]
        assert pool.node("node-1")["intent"] == "active" and pool.node("node-1")["generation"] == generation


def test_the_last_active_node_is_not_drained_unless_forced(pool: Pool) -> None:
    with pool.admin() as admin:
        admin.drain("node-1")
        with pytest.raises(rota.Refused, match="min_active") as refused:
            admin.drain("node-2")
        assert refused.value.exit_code == 5  # type: ignore[attr-defined]
        assert pool.node("node-2")["intent"] == "active"
        admin.drain("node-2", force=True)
        assert pool.node("node-2")["intent"] == "detached"
        assert any(event["kind"] == "forced" for event in admin.events())


def test_a_drain_of_several_is_all_or_nothing(pool: Pool) -> None:
    with pool.admin() as admin:
        with pytest.raises(rota.Refused):
            admin.drain("node-1", "node-2")
        with pytest.raises(rota.NotFound):
            admin.drain("node-1", "nod-2")
        assert {node["intent"] for node in pool.status()["nodes"]} == {"active"}


def test_a_scaled_service_stays_scaled_when_the_master_restarts(pool: Pool) -> None:
    with pool.admin() as admin:
        admin.scale("proof", 1)
        until(lambda: len(pool.processes()) == 1)
        pool.restart_master(kill=True)
        assert pool.status()["services"][0]["target"] == 1
        until(lambda: len(pool.processes()) == 1)  # the first node that comes back may begin one too many


def test_a_second_agent_of_a_live_name_is_refused_and_the_first_serves_on(pool: Pool) -> None:
    from rota.cli.children import Child

    log = pool.folder / "second.log"
    arguments = pool._arguments("node-1", pool._source, None)
    boot, processes = pool.node("node-1")["boot"], pool.processes("node-1")
    second = Child([each for each in arguments if each != "--state"][: arguments.index("--state")], log, env=pool._env)
    try:
        until(lambda: "another agent is live under the name node-1" in log.read_text(), seconds=15)
        assert pool.node("node-1")["boot"] == boot and pool.processes("node-1") == processes
    finally:
        second.end(2)
