"""What the lease needs of an engine, asked of real ones: `make test-servers`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import psycopg
import pytest
from system.proxy import PROXIED, Proxy
from waiting import eventually

from rota.common.limits import EPOCH_MAX
from rota.master.core.engine_lease import EngineLease, Question, Row
from rota.master.engine import Engine, store
from rota.master.store import EngineError, Store

from .engines import ENGINES
from .engines import Engine as Server


@pytest.fixture(scope="module", params=ENGINES, ids=lambda each: each.name)
def server(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = request.param(tmp_path_factory.mktemp(request.param.name))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def stores(server: Server) -> Iterator[list[Store]]:
    """Of three masters."""
    made = [store(server.address()) for _ in range(3)]
    yield made
    row = made[0].read(1.0)
    made[0].change(ask(row, row.epoch, me=row.holder or "x", free=True))
    for each in made:
        each.close()


def ask(row: Row, epoch: int, me: str = "a 1", free: bool = False, lease_s: float = 30.0) -> Question:
    return Question(1, me, row.stamp, epoch, free, lease_s, 1.0)


def test_what_was_written_is_read_by_others_with_another_stamp(stores: list[Store]) -> None:
    before = stores[0].read(1.0)
    changed, row = stores[0].change(ask(before, before.epoch + 1))
    assert changed and row.stamp != before.stamp and (row.holder, row.epoch) == ("a 1", before.epoch + 1)
    assert stores[1].read(1.0) == row


def test_nobody_changes_what_has_changed_since_it_was_read_and_learns_what_is_there(stores: list[Store]) -> None:
    before = stores[0].read(1.0)
    _, row = stores[0].change(ask(before, before.epoch + 1))
    assert stores[1].change(ask(before, before.epoch + 1, me="b 1")) == (False, row)


def test_of_many_that_try_at_once_one_gets_it(stores: list[Store]) -> None:
    with ThreadPoolExecutor(len(stores)) as threads:
        for _ in range(10):
            row = stores[0].read(1.0)
            questions = [ask(row, row.epoch + 1, me=f"{each} 1") for each in range(len(stores))]
            made = list(threads.map(lambda each, question: each.change(question), stores, questions))
            assert [changed for changed, _ in made].count(True) == 1
            assert len({found for _, found in made}) == 1
            found = made[0][1]
            stores[0].change(ask(found, found.epoch, me=found.holder, free=True))


def test_the_database_lets_nobody_take_a_row_that_is_not_over_by_its_own_clock(
    server: Server, stores: list[Store]
) -> None:
    """A waiting master counts for itself, too; etcd has no clock in this."""
    if server.name != "postgresql":
        return
    _, row = stores[0].change(ask(stores[0].read(1.0), 1))
    assert stores[1].change(ask(row, 2, me="b 1")) == (False, row)
    _, row = stores[0].change(ask(row, 1, lease_s=0.1))
    by = monotonic() + 5
    while not (found := stores[1].change(ask(row, 2, me="b 1", lease_s=0.1)))[0]:
        assert monotonic() < by
    assert found[1].holder == "b 1"


def psql(server: Server, *statements: str) -> list[tuple[Any, ...]]:
    """What the last of them answers."""
    with psycopg.connect(server.address(), autocommit=True) as connection:
        for statement in statements:
            found = connection.execute(statement.encode())
        return found.fetchall() if found.description else []


@pytest.mark.parametrize("statement", ["DELETE FROM rota_lease", "DROP TABLE rota_lease"])
def test_a_row_that_somebody_has_deleted_is_made_again(server: Server, stores: list[Store], statement: str) -> None:
    if server.name != "postgresql":
        return
    stores[0].change(ask(stores[0].read(1.0), 3))
    psql(server, statement)
    row = stores[0].read(1.0)
    assert row == Row(0, "", 0)
    changed, row = stores[0].change(ask(row, 3))
    assert changed and stores[1].read(1.0) == row


@pytest.mark.parametrize("lock", ["SELECT FROM rota_lease FOR UPDATE", "LOCK TABLE rota_lease"])
def test_who_gives_up_a_locked_row_does_not_wait_on_at_the_server(
    server: Server, stores: list[Store], lock: str
) -> None:
    """Else each try would take one more of its connections, until nobody gets any."""
    if server.name != "postgresql":
        return
    _, row = stores[0].change(ask(stores[0].read(1.0), 3))
    with psycopg.connect(server.address()) as other:
        other.execute(lock.encode())
        for _ in range(3):
            with pytest.raises(EngineError, match="canceling statement due to statement timeout"):
                stores[0].change(ask(row, 3)._replace(patience_s=0.5))
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert eventually(lambda: not psql(server, waiting))
    assert stores[0].change(ask(row, 3)) == (True, row._replace(stamp=row.stamp + 1))


@pytest.mark.parametrize("epoch", [-1, EPOCH_MAX, 1 << 62])
def test_a_row_with_an_epoch_that_nobody_can_follow_is_no_lease(
    server: Server, stores: list[Store], epoch: int
) -> None:
    if server.name != "postgresql":
        return
    stores[0].change(ask(stores[0].read(1.0), 3))
    psql(server, f"UPDATE rota_lease SET epoch = {epoch}")
    try:
        with pytest.raises(EngineError, match=f"rota_lease.epoch: {epoch} is out of range: the row is not ours"):
            stores[0].read(1.0)
    finally:
        psql(server, "DELETE FROM rota_lease")


def test_a_silent_engine_is_given_up_in_time_and_asked_again_when_it_is_back(server: Server) -> None:
    with Proxy({"engine": server.port}) as proxy:
        far = store(server.address(PROXIED))
        row = far.read(1.0)
        proxy.hole = ["engine"]
        began = monotonic()
        with pytest.raises(EngineError):
            far.read(0.3)
        with pytest.raises(EngineError):
            far.change(ask(row, 1)._replace(patience_s=0.3))
        assert monotonic() - began < 2.0
        proxy.heal()
        assert far.read(1.0).holder == ""
        far.close()


def test_an_engine_that_is_started_again_knows_what_it_knew(server: Server, stores: list[Store]) -> None:
    _, row = stores[0].change(ask(stores[0].read(1.0), 7))
    server.stop()
    with pytest.raises(EngineError, match="127.0.0.1"):
        stores[0].read(0.5)
    server.start()
    by = monotonic() + 20
    while True:
        try:
            assert stores[0].read(0.5) == row
            return
        except EngineError:
            assert monotonic() < by


def test_with_several_hosts_one_that_answers_is_enough(server: Server) -> None:
    """The next one is asked after the first has failed."""
    host = f"127.0.0.1:{server.port}"
    several = store(server.address().replace(host, f"127.0.0.1:1,{host}"))
    with pytest.raises(EngineError):
        several.read(0.5)
    several.read(0.5)
    several.close()


def test_every_question_is_answered_also_when_there_is_no_engine(server: Server) -> None:
    lease = EngineLease(server.name, "a", 1.0, 0.0)
    engine = Engine(lease, store("etcd://127.0.0.1:1" if server.name == "etcd" else "postgresql://127.0.0.1:1/x"))
    lease.tick(0.0)
    engine.ask()
    by = monotonic() + 5
    while not (found := engine.answers()):
        assert monotonic() < by
    assert found[0].row is None and found[0].error and "\n" not in found[0].error
    engine.close()


def test_a_host_without_an_address_is_said_to_be_one() -> None:
    with pytest.raises(EngineError, match=r'PostgreSQL at no.invalid: could not translate host name "no.invalid"'):
        store("postgresql://no.invalid/rota").read(5.0)


def test_hosts_and_ports_that_do_not_match_are_a_mistake_and_no_host_is_dropped() -> None:
    with pytest.raises(EngineError, match="2 ports for 3 hosts"):
        store("postgresql:///rota?host=a,b,c&port=1,2")
