from __future__ import annotations

from dataclasses import replace
from datetime import time

import pytest
from core_rig import Rig

from rota.common import wire
from rota.common.lifecycle import Intent
from rota.common.messages import Plan, Reload, Retire, Usage
from rota.common.settings import ServiceSettings
from rota.master.core.pool import Slot, Stage
from rota.master.core.recycle import due, next_replacement, reload_is_due
from rota.master.core.registry import Node


def pool_of(count: int, nodes: int = 1, **service: object) -> Rig:
    rig = Rig(service=service)
    for place in range(1, nodes + 1):
        node = rig.agent(f"n{place}", capacity=count)
        for number in range(1, count + 1):
            rig.process(node, number)
    return rig


def retired(rig: Rig) -> list[str]:
    return [each.incarnation for name in ("n1", "n2") for each in rig.heard(name, Retire)]


def open_slots(rig: Rig) -> int:
    return sum(slot.open for slot in rig.fleet.processes.slots.values())


def replaced(rig: Rig, slot: Slot, number: int) -> None:
    """The agent does as it was told: it ends, a fresh one comes up."""
    rig.exited(slot)
    rig.process(slot.node, number)
    rig.after(0.1)


def test_a_reload_replaces_one_process_at_a_time() -> None:
    rig = pool_of(3)
    before = list(rig.fleet.processes.slots)
    rig.verb("reload", service="orders")
    assert rig.core.status(rig.now)["services"][0]["reloading"] == 3
    assert rig.verb("wait", condition="reloaded", names=["orders"], timeout_s=60.0) is None
    fresh = 10
    for done in range(3):
        rig.after(0.2)
        assert rig.result() is None
        assert len(retired(rig)) == done + 1
        assert open_slots(rig) == 2
        fresh += 1
        replaced(rig, rig.fleet.processes.slots[retired(rig)[-1]], fresh)
    rig.after(0.2)
    assert sorted(retired(rig)) == sorted(before)
    assert rig.fleet.staff.reloading(rig.dispatch.pools["orders"]) == 0 and open_slots(rig) == 3
    waited = rig.result()
    assert waited is not None and waited.ok


def test_hup_at_an_agent_replaces_the_processes_of_its_node_only() -> None:
    rig = pool_of(2, nodes=2)
    rig.tell(rig.fleet.nodes["n2"], Reload(["orders", "nobody-has-this"]))
    fresh = 10
    for _ in range(2):
        rig.after(0.2)
        fresh += 1
        replaced(rig, rig.fleet.processes.slots[retired(rig)[-1]], fresh)
    rig.after(2.0)
    assert sorted(retired(rig)) == ["n2.b1.1", "n2.b1.2"]


def test_hup_at_an_agent_inside_an_application_replaces_nothing() -> None:
    rig = Rig()
    node = rig.agent(embedded=True)
    rig.process(node)
    rig.tell(node, Reload(["orders"]))
    assert rig.core.status(rig.now)["services"][0]["reloading"] == 0


def test_a_single_process_is_replaced_start_first() -> None:
    rig = pool_of(1)
    (old,) = rig.fleet.processes.slots.values()
    rig.verb("reload", service="orders")
    rig.after(0.2)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2}
    assert retired(rig) == [] and open_slots(rig) == 1
    rig.process(old.node, 2)
    rig.after(0.2)
    assert retired(rig) == [old.incarnation] and open_slots(rig) == 1
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 1}


def test_a_replacement_that_does_not_come_up_leaves_the_others_alone() -> None:
    rig = pool_of(3)
    rig.verb("reload", service="orders")
    rig.after(0.2)
    rig.exited(rig.fleet.processes.slots[retired(rig)[0]])
    rig.after(60.0)
    assert len(retired(rig)) == 1 and open_slots(rig) == 2


def test_a_process_finishes_what_it_has_before_it_is_replaced() -> None:
    rig = pool_of(2)
    rig.request(1)
    busy = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("reload", service="orders")
    rig.after(1.0)
    assert busy.incarnation not in retired(rig)
    rig.reply(busy, 1)
    rig.after(0.2)
    assert busy.incarnation in retired(rig)


def test_an_old_process_that_dies_before_its_replacement_is_there_leaves_no_extra_behind() -> None:
    rig = pool_of(1)
    (old,) = rig.fleet.processes.slots.values()
    rig.verb("reload", service="orders")
    rig.after(0.2)
    rig.exited(old)
    rig.process(old.node, 2)
    rig.after(0.2)
    assert old.node.extra == {}
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 1}
    assert not rig.fleet.staff._replacements


def test_a_replacement_whose_place_the_plan_took_away_blocks_nothing() -> None:
    rig = pool_of(3)
    rig.verb("reload", service="orders")
    rig.after(0.2)
    rig.exited(rig.fleet.processes.slots[retired(rig)[0]])
    rig.verb("scale", service="orders", processes=2)
    rig.after(0.3)
    assert len(retired(rig)) == 2, "the next one is under way"


@pytest.mark.parametrize("why", ["reload", "max_age"])
def test_a_replacement_goes_with_its_service_when_the_last_node_is_forgotten(why: str) -> None:
    rig = pool_of(1, max_age=60.0) if why == "max_age" else pool_of(1)
    if why == "reload":
        rig.verb("reload", service="orders")
    rig.after(61.0)
    assert rig.fleet.staff._replacements
    rig.after(5.0, beat=False)
    assert rig.fleet.nodes["n1"].liveness == "dead"
    rig.verb("forget", nodes=["n1"])
    rig.after(0.1)
    assert not rig.dispatch.pools
    assert not rig.fleet.staff.busy()


def replacing_where_it_is_not_offered_any_more() -> tuple[Rig, Node, Node]:
    """A reload whose first node came back without the service, and without its process; that node, and the other."""
    rig = pool_of(1, nodes=2)
    rig.verb("reload", service="orders")
    rig.after(0.2)
    (old,) = (node for node in rig.fleet.nodes.values() if node.extra)
    other = next(node for node in rig.fleet.nodes.values() if node is not old)
    rig.agent(old.name, capacity=1, offers=["shop"])
    return rig, old, other


def test_a_replacement_on_a_node_that_offers_the_service_no_longer_holds_up_nothing() -> None:
    rig, old, other = replacing_where_it_is_not_offered_any_more()
    rig.after(2.0)
    assert not old.extra
    assert rig.heard(old.name, Plan)[-1].processes == {"shop": 1}
    assert other.extra == {"orders": 1}, "the next one is under way"


def test_a_service_that_is_forgotten_in_a_replacement_leaves_no_plan_for_it_behind() -> None:
    rig, old, other = replacing_where_it_is_not_offered_any_more()
    rig.core.control(other.route, wire.head(wire.BYE, other.token), rig.now)
    rig.verb("forget", nodes=[other.name])
    rig.after(0.2)
    assert set(rig.dispatch.pools) == {"shop"} and not old.extra
    assert rig.heard(old.name, Plan)[-1].processes == {"shop": 1}


def test_a_node_that_is_drained_while_its_process_is_replaced_starts_no_other() -> None:
    """Each would be stopped as soon as it is there, and followed by the next one."""
    rig = pool_of(1, nodes=2)
    rig.verb("reload", service="orders")
    rig.after(0.2)
    (old,) = (slot for slot in rig.fleet.processes.slots.values() if slot.node.extra)
    rig.verb("drain", nodes=[old.node.name])
    rig.after(0.2)
    assert old.node.intent is Intent.DETACHED and retired(rig) == [old.incarnation]
    assert rig.heard(old.node.name, Plan)[-1].processes == {}
    rig.exited(old)
    rig.after(0.3)
    assert rig.heard(old.node.name, Plan)[-1].processes == {} and not old.node.extra
    (other,) = rig.fleet.processes.slots.values()
    assert other.node.extra == {"orders": 1}, "the next one is under way"


def test_a_service_that_is_stopped_while_its_process_is_replaced_starts_no_other() -> None:
    """What was to replace it may be what does not start."""
    rig = pool_of(1)
    (old,) = rig.fleet.processes.slots.values()
    rig.verb("reload", service="orders")
    rig.after(0.2)
    assert old.node.extra
    rig.verb("maintenance", service="orders", stop=True)
    rig.after(0.2)
    assert retired(rig) == [old.incarnation]
    rig.exited(old)
    rig.after(0.3)
    assert rig.heard("n1", Plan)[-1].processes == {} and not old.node.extra


def test_a_node_that_dies_while_its_processes_are_replaced_leaves_nothing_to_replace() -> None:
    rig = pool_of(2)
    rig.verb("reload", service="orders")
    rig.after(0.2)
    rig.after(5.0, beat=False)
    assert rig.fleet.nodes["n1"].liveness == "dead"
    assert not rig.fleet.staff.reloading(rig.dispatch.pools["orders"]) and not rig.fleet.staff.busy()


def test_scaling_down_keeps_the_process_that_serves_and_stops_the_one_that_boots() -> None:
    rig = Rig()
    node = rig.agent(capacity=2)
    serving = rig.process(node)
    booting = rig.started(node, 2)
    rig.verb("scale", service="orders", processes=1)
    rig.after(0.2)
    assert retired(rig) == [booting] and serving.open


def test_a_plan_that_moves_a_service_leaves_the_old_place_when_the_new_one_serves() -> None:
    rig = Rig(service={"ramp": 0.5})
    booting = rig.started(rig.agent("n1", capacity=1), 1)
    serving = rig.process(rig.agent("n2", capacity=1), 1)
    rig.after(1.0)
    rig.verb("scale", service="orders", processes=1)
    rig.after(3.0)
    assert retired(rig) == [] and serving.open
    rig.process_hello(booting)
    rig.after(3.0)
    assert retired(rig) == [serving.incarnation] and rig.fleet.processes.slots[booting].open


def test_max_requests_replaces_a_process_that_served_so_many() -> None:
    rig = pool_of(2, max_requests=3)
    slots = list(rig.fleet.processes.slots.values())
    for number in range(1, 7):
        rig.request(number)
        slot = next(each for each in slots if each.inflight)
        rig.reply(slot, next(iter(slot.inflight)))
    rig.after(1.2)
    assert len(retired(rig)) == 1
    assert "max_requests: 3 handled" in rig.fleet.processes.slots[retired(rig)[0]].retire_reason


def test_max_rss_replaces_a_process_that_grew() -> None:
    rig = pool_of(2, max_rss=100 << 20)
    slot = next(iter(rig.fleet.processes.slots.values()))
    rig.tell(slot.node, Usage({slot.incarnation: 101 << 20}))
    rig.after(1.2)
    assert retired(rig) == [slot.incarnation] and slot.retire_reason == "max_rss: 101 MiB"


@pytest.mark.parametrize(
    ("service", "slot", "why"),
    [
        ({"max_requests": 3}, {"handled": 2}, ""),
        ({"max_requests": 3}, {"handled": 3}, "max_requests: 3 handled"),
        ({"max_rss": 100 << 20}, {"rss": 100 << 20}, ""),
        ({"max_rss": 100 << 20}, {"rss": 101 << 20}, "max_rss: 101 MiB"),
        ({"max_age": 60.0}, {"ready_at": 40.0}, ""),
        ({"max_age": 60.0}, {"ready_at": 39.0}, "max_age: 61 s"),
        ({}, {"handled": 10**9, "rss": 1 << 40, "ready_at": 0.0}, ""),
    ],
)
def test_a_process_is_due_beyond_its_limits_and_not_before(
    service: dict[str, object], slot: dict[str, float], why: str
) -> None:
    rig = pool_of(1, **service)
    (old,) = rig.fleet.processes.slots.values()
    assert old.ready_at == rig.now == 100.0
    for name, value in slot.items():
        setattr(old, name, value)
    found = next_replacement(old.pool, rig.now)
    assert due(old.pool, old, rig.now) == why and (found.old if found else None) is (old if why else None)


@pytest.mark.parametrize(
    ("count", "nodes", "least", "start_first"),
    [
        (1, 1, None, True),
        (2, 1, None, False),
        (2, 1, 2, True),
        (3, 1, 2, False),
        (1, 2, None, True),
        (2, 2, None, False),
    ],
)
def test_it_is_replaced_start_first_where_the_others_cannot_spare_it(
    count: int, nodes: int, least: int | None, start_first: bool
) -> None:
    """The last one of its node: that would not serve meanwhile."""
    rig = pool_of(count, nodes, min_processes=least)
    pool = rig.dispatch.pools["orders"]
    pool.reload = [next(iter(pool.slots))]
    found = next_replacement(pool, rig.now)
    assert found is not None and found.start_first is start_first
    found.old.open = False
    assert next_replacement(pool, rig.now) is None, "it is on its way out, or not well: nobody waits for it"


def test_max_age_replaces_the_oldest_first() -> None:
    rig = pool_of(2, max_age=60.0)
    rig.after(61.0)
    assert retired(rig) == ["n1.b1.1"]


@pytest.mark.parametrize(("every", "since", "found"), [(60.0, 59.0, False), (60.0, 60.0, True), (None, 1e9, False)])
def test_a_reload_is_due_after_its_interval(every: float | None, since: float, found: bool) -> None:
    assert reload_is_due(replace(ServiceSettings(), reload_every=every), since, 0.0) is found


def test_reload_every_counts_from_the_last_reload() -> None:
    rig = pool_of(2, reload_every=100.0)
    rig.after(99.0)
    assert retired(rig) == []
    rig.after(2.0)
    assert len(retired(rig)) == 1


@pytest.mark.parametrize(
    ("since_last_s", "now", "due"),
    [(3600, "04:00:30", True), (20, "04:00:30", False), (3600, "03:59:00", False), (90_000, "03:00:00", True)],
)
def test_reload_at_is_due_once_a_day(since_last_s: float, now: str, due: bool) -> None:
    from datetime import datetime

    settings = replace(ServiceSettings(), reload_at=time(4, 0))
    wall = datetime.combine(datetime(2026, 3, 10), time.fromisoformat(now)).timestamp()
    assert reload_is_due(settings, since_last_s, wall) is due


def test_a_reload_does_not_take_the_last_active_node_away() -> None:
    """The fresh process came up on the other node, which then left: it waits until the budget allows it."""
    rig = pool_of(1, nodes=2)
    rig.verb("reload", service="orders")
    rig.after(0.1)
    first = rig.fleet.staff._replacements[rig.dispatch.pools["orders"]].old
    other = next(slot for slot in rig.fleet.processes.slots.values() if slot.node is not first.node)
    rig.exited(other)
    fresh = rig.process(other.node, 2)
    fresh.open = False
    rig.after(1.0)
    assert first.stage is Stage.READY and first.open
    fresh.open = True
    rig.after(1.0)
    assert first.stage is Stage.RETIRED and open_slots(rig) == 1


def test_a_process_that_does_not_finish_is_replaced_at_its_deadline_and_gets_no_grace() -> None:
    rig = pool_of(2, drain_deadline=3.0)
    rig.request(1, timeout_ms=60_000)
    busy = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("reload", service="orders")
    pool = rig.dispatch.pools["orders"]
    pool.reload = [busy.incarnation]
    rig.after(2.0)
    assert busy.stage is Stage.CLOSING and not busy.open and rig.fleet.staff.busy()
    rig.after(1.2)
    assert rig.heard("n1", Retire) == [Retire(busy.incarnation, 0)]
    replaced(rig, busy, 3)
    rig.after(0.2)
    assert not rig.fleet.staff.busy()
