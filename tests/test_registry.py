"""Nodes and their processes, as the master sees them (registry and fleet)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_rig import Rig

from rota.common import wire
from rota.common.lifecycle import Health, Intent, Liveness
from rota.common.limits import BEAT_S, CONCURRENCY_MAX, NAME_MAX, STARTED_MAX
from rota.common.messages import (
    Beat,
    Ending,
    Exited,
    Failing,
    Handler,
    Leave,
    Leaving,
    Noted,
    Plan,
    Refusal,
    Retire,
    Started,
    Unwell,
    Welcome,
)
from rota.common.messages import (
    Intent as Word,
)
from rota.master.core import records
from rota.master.core.pool import Stage
from rota.master.core.records import Restored
from rota.master.core.registry import active_nodes, why


def two_nodes(**service: object) -> Rig:
    rig = Rig(service=service)
    for name in ("n1", "n2"):
        node = rig.agent(name)
        for number in (1, 2):
            rig.process(node, number)
    return rig


def edges(rig: Rig) -> list[str]:
    return [event["kind"] for event in rig.core.events.since(0) if event["kind"] in ("LIVE", "DEAD", "CLOSE")]


# ---- coming ----------------------------------------------------------------------------------------------------------


def test_a_node_is_welcomed_before_it_is_told_its_plan() -> None:
    rig = Rig()
    rig.agent()
    said = rig.said[b"n1"]
    assert [type(each) for each in said] == [Welcome, Plan]
    assert said[1].processes == {"orders": 2}


def test_a_process_gets_work_only_when_its_node_is_durable() -> None:
    rig = Rig()
    rig.durable = False
    slot = rig.process(rig.agent())
    rig.request(1)
    assert rig.deliveries == [] and "journal" in why(slot.node, rig.now)
    rig.durable = True
    rig.flush()
    rig.flush()
    assert len(rig.deliveries) == 1


def test_a_process_that_speaks_before_its_agent_is_asked_to_come_again() -> None:
    rig = Rig()
    rig.agent()
    rig.process_hello("n1.b1.1")
    ((_, frame),) = rig.out.backend
    head = wire.parse_head(frame)
    assert head.kind == wire.REFUSED and b"unknown" in frame[head.head_len :]


def test_a_refusal_repeats_no_more_of_what_a_peer_said_than_a_message_has_room_for() -> None:
    """It ended the master: its answer was longer than a message may be."""
    rig = Rig()
    node = rig.agent()
    rig.process(node, 1, handlers={f"{number:064}": Handler() for number in range(9000)})
    incarnation = rig.started(node, 2)
    rig.process_hello(incarnation, handlers={f"{number:063}": Handler() for number in range(9000)}, digest="other")
    route, frame = rig.out.backend[-1]
    assert route == incarnation.encode() and b"interface" in frame and len(frame) < 20_000
    with pytest.raises(KeyError):
        rig.agent("\0" * 1_000_000)  # would be shown as four characters each
    (refusal,) = rig.heard("\0" * 1_000_000, Refusal)
    assert refusal.code == "denied" and len(refusal.message) < 20_000


@pytest.mark.parametrize("wrong", [{"ticket": b"x"}, {"service": "other"}])
def test_a_process_with_another_ticket_or_service_is_denied(wrong: dict[str, object]) -> None:
    rig = Rig()
    incarnation = rig.started(rig.agent())
    rig.process_hello(incarnation, **wrong)
    assert b"denied" in rig.out.backend[-1][1]
    assert rig.fleet.processes.slots[incarnation].stage is Stage.BOOTING


def test_a_second_interface_under_one_version_is_refused_and_both_are_shown() -> None:
    rig = two_nodes()
    incarnation = rig.started(rig.fleet.nodes["n2"], 3)
    rig.process_hello(incarnation, digest="other")
    assert b"interface" in rig.out.backend[-1][1]
    text = rig.core.events.since(0)[-1]["text"]
    assert "n2" in text and "n1" in text and "quote" in text
    rig.process_hello(incarnation, digest="other", version="2")
    assert rig.fleet.processes.slots[incarnation].stage is Stage.READY


def test_only_an_incarnation_of_this_boot_is_believed() -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(node, Started("n1.zzz.1", "orders", b"t", 1))
    rig.tell(node, Started("n2.b1.1", "orders", b"t", 1))
    assert not rig.fleet.processes.slots


# ---- names and boots -------------------------------------------------------------------------------------------------


def test_two_hosts_with_one_name_the_live_one_wins_and_the_other_is_told() -> None:
    rig = two_nodes()
    rig.agent("n1", boot="b2")
    (refusal,) = rig.heard("n1", Refusal)
    assert refusal.code == "name in use" and "--name" in refusal.message
    assert rig.fleet.nodes["n1"].boot == "b1" and len(rig.fleet.nodes["n1"].slots) == 2


def test_a_newer_boot_supersedes_one_that_is_silent_and_the_old_one_never_comes_back() -> None:
    rig = two_nodes()
    rig.request(1)
    rig.after(1.0, beat=False)
    node = rig.agent("n1", boot="b2")
    assert node.boot == "b2" and not node.slots
    assert rig.codes() == {1: 9} and "n1 was started anew" in rig.answers[0].cause, "its processes died with it"
    rig.after(1.0, beat=False)
    rig.agent("n1", boot="b1")
    assert rig.heard("n1", Refusal)[-1].code == "stale"


def test_an_earlier_hello_of_an_agent_that_comes_later_is_none() -> None:
    """It comes over a connection that is gone."""
    rig = Rig()
    node = rig.agent(hellos=2, capacity=3)
    rig.agent(hellos=1, capacity=1)
    assert rig.heard("n1", Refusal)[-1].code == "busy" and node.capacity == 3
    rig.agent(hellos=3, capacity=1)
    assert node.capacity == 1


def test_what_an_older_boot_said_of_a_port_says_nothing_of_the_next_one() -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(node, Unwell("orders", "db:5432: connection refused"))
    assert node.ports
    rig.after(1.0, beat=False)
    rig.agent(boot="b2")
    assert not node.ports


def test_a_node_that_is_leaving_when_it_comes_is_given_nothing() -> None:
    node = Rig().agent(leaving=True)
    assert node.leaving and node.intent is not Intent.ACTIVE


def test_a_name_that_could_not_stand_in_a_file_is_denied() -> None:
    rig = Rig()
    with pytest.raises(KeyError):
        rig.agent("../etc")
    assert rig.heard("../etc", Refusal)[0].code == "denied"


def test_a_master_whose_state_is_lost_takes_no_node_that_saw_a_later_epoch() -> None:
    """Its processes would refuse every delivery, for ever."""
    rig = Rig(epoch=1)
    with pytest.raises(KeyError):
        rig.agent(epoch=5)
    assert "--state" in rig.heard("n1", Refusal)[0].message


def test_a_master_without_state_rises_above_every_epoch_that_was_seen() -> None:
    rig = Rig(state=None)
    rig.agent(epoch=5)
    assert rig.dispatch.epoch == 6 and rig.heard("n1", Welcome)[0].epoch == 6


# ---- liveness --------------------------------------------------------------------------------------------------------


def test_a_silent_node_is_suspect_then_dead_and_comes_back() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.after(0.9, beat=False)
    assert node.liveness is Liveness.SUSPECT and not any(slot.open for slot in node.slots.values())
    rig.core.control(node.route, wire.head(wire.CONTROL, node.token) + b"", rig.now)
    rig.fleet.beat(node, rig.now)
    assert node.liveness is Liveness.LIVE and all(slot.open for slot in node.slots.values())
    rig.after(3.2, beat=False)
    assert node.liveness is Liveness.DEAD
    assert edges(rig) == ["LIVE", "LIVE", "DEAD", "DEAD"], "suspect makes no noise"
    rig.agent("n1")
    assert node.liveness is Liveness.LIVE


def test_a_node_that_does_not_hear_its_master_is_as_good_as_silent() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    node = slot.node
    for number in range(1, 20):  # its beats arrive, our answers do not
        rig.after(BEAT_S, beat=False)
        rig.tell(node, Beat(number, int(1000 * BEAT_S * number)))
        if number * BEAT_S > 1.0:
            assert not slot.open
    assert node.liveness is Liveness.DEAD


def test_what_an_agent_says_after_a_pause_of_the_master_is_no_silence() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.now += 5.0
    rig.core.tick(rig.now)
    for number in range(1, 25):  # they waited to be read
        rig.tell(slot.node, Beat(number, 200 * number))
    rig.core.tick(rig.now)
    assert slot.node.liveness is Liveness.LIVE


def test_a_node_that_is_well_and_is_heard_costs_an_idle_master_a_look_or_two_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = two_nodes()
    rig.after(5.0)
    looks: list[str] = []
    look = rig.fleet._look
    monkeypatch.setattr(rig.fleet, "_look", lambda node, now: (looks.append(node.name), look(node, now)))
    rig.after(10.0)
    assert 20 <= len(looks) <= 40
    rig.after(1.0, beat=False)
    assert {node.liveness for node in rig.fleet.nodes.values()} == {Liveness.SUSPECT}


def test_what_changes_between_two_ticks_is_looked_at_in_the_next_one_however_soon_that_comes() -> None:
    rig = two_nodes()
    rig.after(1.0)
    rig.verb("drain", nodes=["n1"], force=True)
    rig.now += 0.001
    rig.core.tick(rig.now)
    assert rig.fleet.nodes["n1"].intent is Intent.DETACHED


def test_how_long_a_node_may_be_silent_may_change_meanwhile() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.after(0.3, beat=False)
    master = replace(rig.sections.master, suspect_after=0.2)
    rig.core.reconfigure(rig.sections._replace(master=master))
    rig.after(0.1, beat=False)
    assert node.liveness is Liveness.SUSPECT


def test_of_a_node_that_was_forgotten_nothing_more_is_told() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.fleet.forget(node, rig.now)
    rig.fleet.refresh(node, rig.now)
    rig.after(5.0, beat=False)
    assert edges(rig)[-1] == "DEAD" and node.liveness is Liveness.LIVE


def test_what_waits_goes_to_a_node_that_is_no_longer_suspect() -> None:
    rig = Rig()
    slot = rig.process(rig.agent())
    rig.after(1.0, beat=False)
    rig.request(1)
    assert rig.deliveries == []
    rig.tell(slot.node, Beat(1))
    assert len(rig.deliveries) == 1


def test_what_a_dead_node_had_is_maybe_executed() -> None:
    rig = two_nodes()
    for number in range(1, 5):
        rig.request(number)
    rig.fleet.nodes["n2"].heard_at = rig.now + 100
    rig.after(3.5, beat=False)
    assert list(rig.codes().values()) == [9, 9]
    assert "dead" in rig.answers[0].cause


def test_a_process_of_a_node_that_was_given_up_is_asked_who_it_is() -> None:
    """It may have nothing to say by itself, and would wait for ever."""
    rig = two_nodes()
    rig.out.backend.clear()
    rig.after(3.5, beat=False)
    who = [route for route, frame in rig.out.backend if wire.parse_head(frame).kind == wire.WHO]
    assert sorted(who) == [b"n1.b1.1", b"n1.b1.2", b"n2.b1.1", b"n2.b1.2"]


def test_a_master_that_stood_still_blames_nobody_even_if_one_node_is_heard_first() -> None:
    rig = two_nodes()
    rig.now += 30.0
    node = rig.fleet.nodes["n1"]
    rig.tell(node, Beat(1))
    rig.core.tick(rig.now)
    assert {each.liveness for each in rig.fleet.nodes.values()} == {Liveness.LIVE}


def test_a_restored_node_that_never_comes_is_dead_after_a_while() -> None:
    before = records.Restored()
    before.read(records.present("n1", True))
    rig = Rig(epoch=2, restored=before)
    assert "not heard of" in why(rig.fleet.nodes["n1"], rig.now)
    rig.after(5.0, beat=False)
    assert rig.fleet.nodes["n1"].liveness is Liveness.DEAD
    assert edges(rig) == [], "it was never live here"


def test_a_node_that_said_goodbye_is_closed_and_stays_so() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.after(5.0)
    assert node.liveness is Liveness.CLOSED
    assert edges(rig)[-1] == "CLOSE"


def test_a_node_that_said_goodbye_is_closed_for_the_next_master_too() -> None:
    """It was dead there, and had a vote: with each node that an autoscaler had taken away a takeover came closer to
    being impossible.
    """
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.flush()
    rig = Rig(restored=Restored.of(rig.records), epoch=2)
    rig.agent("n2")
    rig.after(20.0)
    assert rig.fleet.nodes["n1"].liveness is Liveness.CLOSED
    assert rig.fleet.voters(frozenset(["n2"])) == {"n2"}
    assert rig.agent("n1", boot="b2").liveness is Liveness.LIVE


def test_a_node_that_came_back_after_its_goodbye_is_waited_for_by_the_next_master() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.agent("n1", boot="b2")
    rig = Rig(restored=Restored.of(rig.records), epoch=2)
    assert rig.fleet.nodes["n1"].liveness is Liveness.UNKNOWN
    assert rig.fleet.voters(frozenset(["n1", "n2"])) == {"n1", "n2"}
    assert rig.fleet.voters(frozenset(["n1"])) == {"n1"}, "n2 has had no vote, and is not heard yet"


def test_an_exit_report_before_the_goodbye_still_counts() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.request(1)
    slot = next(slot for slot in node.slots.values() if slot.inflight)
    rig.tell(node, Exited(slot.incarnation, "orders", 0, "stopped", 0, [], ""))
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.after(0.3)
    assert rig.codes() == {}, "the report says that it had not started"
    assert rig.where()[-1][0].startswith("n2")


def test_a_process_that_is_being_ended_is_given_nothing_more() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    slot, other = node.slots.values()
    rig.tell(node, Ending(slot.incarnation))
    for number in range(1, 8):
        rig.request(number)
    assert {name for name, _ in rig.where()} == {other.incarnation, "n2.b1.1", "n2.b1.2"}
    rig.tell(node, Exited(slot.incarnation, "orders", -6, "hung: it was", 0, [], "", "hung"))
    rig.after(0.3)
    lost = [event for event in rig.core.events.since(0) if event["kind"] == "process lost"]
    assert "hung: it was" in lost[-1]["text"]


def test_an_event_names_what_a_lost_process_was_doing() -> None:
    rig = two_nodes()
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.exited(slot, started_upto=1, rows=[(1, 1)])
    (lost,) = (event for event in rig.core.events.since(0) if event["kind"] == "process lost")
    assert lost["text"].endswith("; 1 in flight: orders.quote")


def test_what_ended_before_it_said_its_version_is_told_without_one() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.tell(node, Started("n1.b1.9", "orders", b"t", 4711))
    rig.tell(node, Exited("n1.b1.9", "orders", 1, "exited with 1 before it was ready", 0, [], ""))
    (lost,) = (event for event in rig.core.events.since(0) if event["kind"] == "process lost")
    assert lost["text"] == "orders on n1 (pid 4711) exited with 1 before it was ready"


def test_every_exit_is_noted_once_or_again() -> None:
    rig = two_nodes()
    slot = next(iter(rig.fleet.nodes["n1"].slots.values()))
    rig.exited(slot)
    rig.exited(slot)
    assert rig.heard("n1", Noted) == [Noted(slot.incarnation)] * 2


def test_while_the_last_replies_of_a_process_are_read_it_ends_once_and_does_not_come_back() -> None:
    rig = two_nodes()
    slot = next(iter(rig.fleet.nodes["n1"].slots.values()))
    for _ in range(2):
        rig.tell(slot.node, Exited(slot.incarnation, "orders", -9, "was killed by signal 9", 0, [], ""))
    assert [event["kind"] for event in rig.core.events.since(0)].count("process lost") == 1
    rig.process_hello(slot.incarnation)
    assert slot.stage is Stage.EXITED and not slot.open
    assert wire.parse_head(rig.out.backend[-1][1]).kind == wire.REFUSED


def test_only_its_own_agent_ends_a_process() -> None:
    rig = two_nodes()
    slot = next(iter(rig.fleet.nodes["n1"].slots.values()))
    rig.tell(rig.fleet.nodes["n2"], Exited(slot.incarnation, "orders", -9, "was killed by signal 9", 0, [], ""))
    rig.after(1.0)
    assert slot.open and slot.stage is Stage.READY


def test_a_process_that_its_agent_knows_no_more_is_gone() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    gone, kept = node.slots.values()
    rig.agent("n1", processes=[Started(kept.incarnation, "orders", b"t", 2)])
    assert list(node.slots.values()) == [kept] and kept.open
    assert gone.stage is Stage.EXITED and gone.incarnation not in rig.dispatch.pools["orders"].slots


@pytest.mark.parametrize("incarnation, service", [("n1.b1." + "9" * 2 * NAME_MAX, "orders"), ("n1.b1.1", "site")])
def test_what_no_agent_could_have_started_is_not_believed(incarnation: str, service: str) -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(node, Started(incarnation, service, b"t", 1))
    assert not node.slots and rig.dispatch.counters["bad messages"] == 1


def test_of_one_node_no_more_processes_are_believed_than_its_settings_allow() -> None:
    rig = Rig()
    node = rig.agent()
    for number in range(STARTED_MAX + 1):
        rig.started(node, number)
    assert len(node.slots) == STARTED_MAX


@pytest.mark.parametrize("says, counts", [(1 << 40, CONCURRENCY_MAX), (0, 1), (-5, 1), (7, 7)])
def test_how_many_requests_a_process_says_it_runs_at_once_is_bounded(says: int, counts: int) -> None:
    rig = Rig()
    assert rig.process(rig.agent(), concurrency=says).concurrency == counts


# ---- drain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Liveness.DEAD, Liveness.CLOSED])
def test_what_ran_on_a_node_that_is_gone_is_started_on_another(how: Liveness) -> None:
    rig = Rig(service={"min_processes": 2, "max_processes": 2})
    for name in ("n1", "n2"):
        rig.process(rig.agent(name))
    rig.after(0.1)
    assert rig.heard("n1", Plan)[-1].processes == rig.heard("n2", Plan)[-1].processes == {"orders": 1}
    n1, n2 = rig.fleet.nodes.values()
    if how is Liveness.CLOSED:
        rig.core.control(n2.route, wire.head(wire.BYE, n2.token), rig.now)
    for _ in range(40):
        rig.now += 0.1
        n1.heard_at = rig.now
        rig.core.tick(rig.now)
    rig.flush()
    assert n2.liveness is how and rig.heard("n1", Plan)[-1].processes == {"orders": 2}


def test_a_node_has_room_for_so_many_processes_and_no_more_whatever_it_says() -> None:
    rig = Rig()
    node = rig.agent(capacity=1 << 40)
    rig.verb("scale", service="orders", processes=1 << 40)
    rig.after(0.1)
    assert node.capacity == sum(node.plan.values()) == STARTED_MAX


def test_a_drain_dispatches_nothing_more_from_the_step_that_accepts_it() -> None:
    rig = two_nodes()
    rig.durable = False
    rig.verb("drain", nodes=["n1"])
    for number in range(1, 8):
        rig.request(number)
    assert {name.split(".")[0] for name, _ in rig.where()} == {"n2"}


def test_a_drain_is_complete_when_the_count_is_zero_at_the_master() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    node = slot.node
    rig.verb("drain", nodes=[node.name])
    rig.after(1.0)
    assert node.intent is Intent.DRAINING and rig.heard(node.name, Retire) == []
    rig.reply(slot, 1)
    rig.after(0.04)
    assert node.intent is Intent.DETACHED
    retired = rig.heard(node.name, Retire)
    assert {each.incarnation for each in retired} == set(node.slots)
    plans = rig.heard(node.name, Plan)
    assert plans[-1].processes == {} and plans[-2].processes
    said = rig.heard(node.name, tuple)
    assert said.index(plans[-1]) < said.index(retired[0]), "it would start others in their place"


def test_a_draining_node_that_beats_is_live() -> None:
    rig = two_nodes()
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("drain", nodes=[slot.node.name])
    rig.after(10.0)
    assert slot.node.liveness is Liveness.LIVE and slot.node.intent is Intent.DRAINING


def test_a_drain_ends_at_its_deadline_whatever_runs() -> None:
    rig = two_nodes()
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("drain", nodes=[slot.node.name], deadline_s=2.0)
    rig.after(2.1)
    assert slot.node.intent is Intent.DETACHED
    assert rig.heard(slot.node.name, Retire)[0].grace_ms == 0


def test_while_the_master_stands_still_the_time_of_a_drain_does_not_pass() -> None:
    rig = two_nodes()
    rig.request(1)
    (node,) = (slot.node for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("drain", nodes=[node.name], deadline_s=5.0)
    rig.now += 30.0
    rig.core.tick(rig.now)
    assert node.intent is Intent.DRAINING and node.in_flight() == 1


def test_when_settings_change_each_agent_is_told_its_plan_again_for_limits_go_with_it() -> None:
    rig = two_nodes()
    rig.after(1.0)
    rig.said.clear()
    rig.fleet.reconfigure()
    rig.after(0.02)
    assert rig.heard("n1", Plan) and rig.heard("n2", Plan)


def test_a_node_that_dies_while_it_drains_is_detached() -> None:
    rig = two_nodes()
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    rig.verb("drain", nodes=[slot.node.name])
    rig.after(3.5, beat=False)
    assert slot.node.intent is Intent.DETACHED
    assert "draining → detached (dead)" in str(rig.core.events.since(0))


def away_while_detached(dead_first: bool) -> Rig:
    """n1 was drained and has rejoined, and its agent has heard of neither."""
    rig = two_nodes()
    if dead_first:
        rig.after(3.5, beat=False)
    else:
        rig.request(1)
    rig.verb("drain", nodes=["n1"], force=True)
    rig.after(3.5, beat=False)
    assert rig.fleet.nodes["n1"].intent is Intent.DETACHED and rig.fleet.nodes["n1"].liveness is Liveness.DEAD
    rig.verb("rejoin", nodes=["n1"])
    return rig


def older() -> list[Started]:
    return [Started(f"n1.b1.{number}", "orders", b"t", number) for number in (1, 2)]


@pytest.mark.parametrize("dead_first", [True, False])
def test_what_ran_before_a_drain_that_its_agent_never_heard_of_is_not_what_rejoins(dead_first: bool) -> None:
    rig = away_while_detached(dead_first)
    node = rig.agent(processes=older())
    rig.process_hello("n1.b1.1")
    rig.after(0.1)
    assert {each.incarnation for each in rig.heard("n1", Retire)} == {"n1.b1.1", "n1.b1.2"}
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2} and not any(slot.open for slot in node.slots.values())


def test_what_was_started_since_the_rejoin_stays_when_its_agent_comes_back() -> None:
    rig = away_while_detached(dead_first=True)
    node = rig.agent()
    rig.process(node, 3)
    rig.after(3.5, beat=False)
    assert node.liveness is Liveness.DEAD
    rig.agent(processes=[Started("n1.b1.3", "orders", b"t", 3)], generation=node.generation)
    rig.after(0.1)
    assert rig.heard("n1", Retire) == []


def test_a_drain_that_was_taken_back_ends_no_process_that_was_cut_off_meanwhile() -> None:
    rig = two_nodes()
    rig.request(1)
    node = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight).node
    rig.verb("drain", nodes=[node.name])
    rig.verb("rejoin", nodes=[node.name])
    rig.after(3.5, beat=False)
    rig.agent(node.name, processes=[Started(f"{node.name}.b1.1", "orders", b"t", 1)])
    assert rig.heard(node.name, Retire) == []


def test_the_next_master_knows_what_is_older_than_the_rejoin_too() -> None:
    before = records.Restored()
    before.read(records.intent(away_while_detached(dead_first=True).fleet.nodes["n1"]))
    rig = Rig(epoch=2, restored=before)
    rig.agent(processes=older())
    assert {each.incarnation for each in rig.heard("n1", Retire)} == {"n1.b1.1", "n1.b1.2"}


def test_after_a_restart_a_drain_waits_for_what_the_older_master_gave() -> None:
    before = records.Restored()
    before.read(records.present("n1", True))
    node = before.nodes["n1"]
    node.intent, node.generation, node.by = Intent.DRAINING, 3, "ann"
    rig = Rig(epoch=2, restored=before)
    rig.after(1.0)
    assert rig.fleet.nodes["n1"].intent is Intent.DRAINING, "it has not told what it runs"
    rig.agent(processes=[Started("n1.b1.1", "orders", b"t", 1)])
    rig.after(0.2)
    assert rig.fleet.nodes["n1"].intent is Intent.DRAINING
    rig.process_hello("n1.b1.1")
    rig.after(0.2)
    assert rig.fleet.nodes["n1"].intent is Intent.DETACHED


def test_a_drain_waits_for_nothing_from_a_node_that_is_dead() -> None:
    known = Restored()
    known.read(records.present("n1", True))
    rig = Rig(restored=known)
    rig.after(10.0)
    assert rig.fleet.nodes["n1"].liveness == "dead"
    rig.verb("drain", nodes=["n1"])
    rig.after(0.1)
    assert rig.fleet.nodes["n1"].intent == "detached"


def test_rejoining_before_the_drain_is_done_takes_the_work_that_waits() -> None:
    rig = Rig()
    slot = rig.process(rig.agent())
    rig.request(1)
    rig.verb("drain", nodes=["n1"], force=True)
    rig.request(2)
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1
    rig.verb("rejoin", nodes=["n1"])
    assert slot.node.health is Health.UP
    assert len(rig.deliveries) == 2


def test_a_node_that_rejoins_without_a_process_that_is_ready_is_not_up() -> None:
    rig = Rig()
    slot = rig.process(rig.agent(capacity=1))
    rig.exited(slot)
    rig.started(slot.node, 2)
    slot.node.drain_until = None
    rig.fleet.intents.drain(slot.node, "ann", "", rig.now)
    rig.verb("rejoin", nodes=["n1"])
    assert (slot.node.intent, slot.node.health) == (Intent.ACTIVE, Health.UNCHECKED)


def test_a_rejoin_dispatches_only_when_it_is_durable() -> None:
    rig = Rig()
    slot = rig.process(rig.agent())
    rig.request(1)
    rig.verb("drain", nodes=["n1"], force=True)
    rig.durable = False
    rig.request(2)
    rig.verb("rejoin", nodes=["n1"])
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1
    rig.durable = True
    rig.flush()
    rig.flush()
    assert len(rig.deliveries) == 2


def test_a_process_that_comes_up_on_a_detached_node_is_stopped() -> None:
    rig = two_nodes()
    rig.verb("drain", nodes=["n1"])
    rig.after(0.1)
    incarnation = rig.started(rig.fleet.nodes["n1"], 9)
    assert rig.heard("n1", Retire)[-1].incarnation == incarnation


# ---- what agents did not hear ----------------------------------------------------------------------------------------


def test_what_was_said_over_a_lost_connection_is_said_again() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.verb("drain", nodes=["n1"])
    rig.after(0.1)
    rig.said.clear()
    rig.agent("n1", processes=[Started(name, "orders", b"t", 1) for name in node.slots])
    rig.after(0.1)
    assert {each.incarnation for each in rig.heard("n1", Retire)} == set(node.slots)
    assert rig.heard("n1", Plan) == [Plan({}, {})]
    assert rig.heard("n1", Word)[-1].state in ("draining", "detached")


def test_one_route_has_one_token_however_often_it_says_hello() -> None:
    """Its frames under the first are on their way: they would be answered with WHO, and that with HELLO, for ever."""
    rig = Rig()
    node = rig.agent()
    token = node.token
    rig.agent()
    assert node.token == token
    assert rig.client() == rig.client()


# ---- leaving ---------------------------------------------------------------------------------------------------------


def test_term_drains_and_lets_go_and_the_next_boot_is_active() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.tell(node, Leaving(5000))
    rig.after(0.1)
    assert node.intent is Intent.DETACHED and rig.heard("n1", Leave)
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.agent("n1", boot="b2")
    assert node.intent is Intent.ACTIVE
    assert not any(b"detached" in record or b"draining" in record for record in rig.records), "no operator's word"


def test_term_is_never_refused() -> None:
    rig = Rig()
    rig.process(rig.agent())
    rig.tell(rig.fleet.nodes["n1"], Leaving(5000))
    rig.after(0.1)
    assert rig.heard("n1", Leave)


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_what_an_operator_drained_stays_drained_when_its_agent_is_restarted(pause: float) -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.verb("drain", nodes=["n1"], reason="disk")
    rig.after(pause)
    rig.tell(node, Leaving(5000))
    rig.after(0.1)
    assert rig.heard("n1", Leave), "a detached node may go at once"
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.agent("n1", boot="b2")
    rig.after(0.1)
    assert (node.intent, node.by, node.reason) == (Intent.DETACHED, "ann", "disk")
    assert rig.heard("n1", Plan)[-1].processes == {}


@pytest.mark.parametrize("intent", ["draining", "detached"])
def test_what_an_operator_drained_stays_drained_when_its_master_has_forgotten_it(intent: str) -> None:
    rig = Rig(state=None)
    node = rig.agent(intent=intent, generation=3)
    rig.after(0.1)
    assert (node.intent, node.generation, node.by) == (Intent.DETACHED, 3, "")
    assert not any(plan.processes for plan in rig.heard("n1", Plan))
    rig.verb("rejoin", nodes=["n1"])
    rig.after(0.1)
    assert (node.intent, node.generation) == (Intent.ACTIVE, 4)


def test_what_only_an_agent_remembers_of_an_operator_holds_when_that_is_restarted_too() -> None:
    """It passed for the wish of an agent that is told to stop, which ends with that."""
    rig = Rig(state=None)
    node = rig.agent(intent="detached", generation=3)
    rig.after(0.1)
    rig.tell(node, Leaving(5000))
    rig.after(0.1)
    assert rig.heard("n1", Leave)
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.agent(boot="b2", intent="detached", generation=3)
    rig.after(0.1)
    assert (node.intent, node.generation) == (Intent.DETACHED, 3)


def test_an_agent_that_knows_less_of_its_intent_is_told_it() -> None:
    rig = two_nodes()
    rig.verb("drain", nodes=["n1"])
    rig.after(0.1)
    node = rig.agent("n1", intent="active", generation=0)
    assert node.intent is Intent.DETACHED
    assert rig.heard("n1", Word)[-1][:2] == ("detached", node.generation)


def test_a_drain_of_a_node_that_is_leaving_makes_it_the_operators_word_and_it_still_leaves() -> None:
    rig = two_nodes()
    node = rig.fleet.nodes["n1"]
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    node = slot.node
    rig.tell(node, Leaving(60_000))
    rig.verb("drain", nodes=[node.name])
    rig.reply(slot, 1)
    rig.after(0.1)
    assert rig.heard(node.name, Leave)
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.agent(node.name, boot="b2")
    assert node.intent is Intent.DETACHED


def test_one_that_was_rejoined_while_it_was_away_is_on_record_when_it_is_back() -> None:
    """Else the next master does not know that it must ask this node, too, what had been given to it."""
    rig = Rig()
    node = rig.agent()
    rig.verb("drain", nodes=["n1"])
    rig.after(0.1)
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.verb("rejoin", nodes=["n1"])
    assert node.intent is Intent.ACTIVE and not node.eligible()
    rig.process(rig.agent("n1", boot="b2"))
    assert node.eligible() and Restored.of(rig.records).present == {"n1"}


def test_one_that_left_before_it_was_on_record_is_on_record_when_it_is_back() -> None:
    rig = Rig()
    rig.durable = False
    node = rig.agent()
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.durable = True
    rig.flush()
    rig.agent("n1", boot="b2")
    assert Restored.of(rig.records).present == {"n1"}


# ---- ramp ------------------------------------------------------------------------------------------------------------


def test_a_joining_node_opens_its_slots_over_its_ramp() -> None:
    rig = Rig(service={"ramp": 10.0})
    rig.process(rig.agent("n1"))
    rig.after(20.0)
    late = rig.agent("n2", capacity=4)
    for number in range(1, 5):
        rig.process(late, number)
    assert sum(slot.open for slot in late.slots.values()) == 1, "one at least, or it would starve"
    assert "ramping" in why(late, rig.now)
    pool = rig.dispatch.pools["orders"]
    assert [node.name for node in active_nodes(rig.fleet.nodes, pool, rig.now)] == ["n1"]
    rig.after(5.1)
    assert sum(slot.open for slot in late.slots.values()) == 3
    rig.after(5.0)
    assert why(late, rig.now) == "" and late.ramp_from is None


def test_the_first_nodes_of_a_pool_do_not_ramp() -> None:
    rig = two_nodes(ramp=10.0)
    assert all(slot.open for slot in rig.fleet.processes.slots.values())


# ---- why -------------------------------------------------------------------------------------------------------------


def test_why_names_what_keeps_traffic_away() -> None:
    rig = Rig()
    node = rig.agent()
    assert "starting" in why(node, rig.now) or "planned" in why(node, rig.now)
    rig.tell(node, Failing("orders", 3, 2000, "Traceback\nImportError: no quotes"))
    assert "ImportError: no quotes" in why(node, rig.now) and "3 times" in why(node, rig.now)
    rig.process(node)
    assert why(node, rig.now) == ""
    rig.request(1)
    rig.verb("drain", nodes=["n1"], force=True, reason="kernel")
    assert why(node, rig.now) == "draining by ann: kernel; 1 request in flight"
    rig.verb("rejoin", nodes=["n1"])
    rig.after(0.1)
    assert why(node, rig.now) == ""
    for seconds, sentence in ((1.5, "suspect: no beat for "), (2.5, "dead: silent for ")):
        rig.after(seconds, beat=False)
        assert why(node, rig.now).startswith(sentence)


def test_what_fails_is_told_when_it_changes_and_forgotten_when_it_is_over() -> None:
    def told() -> int:
        return [event["kind"] for event in rig.core.events.since(0)].count("failing")

    rig = Rig()
    node = rig.agent()
    for failures, count in ((1, 1), (1, 1), (2, 2)):
        rig.tell(node, Failing("orders", failures, 2000, "Traceback"))
        assert told() == count and node.failing["orders"].failures == failures
    rig.tell(node, Failing("orders", 0, 0, ""))
    rig.tell(node, Failing("nobody-has-this", 1, 2000, "Traceback"))
    assert told() == 2 and node.failing == {}
    rig.tell(node, Failing("orders", 1, 2000, "Traceback"))
    rig.process(node)
    assert node.failing == {}


def test_why_a_start_failed_is_what_its_agent_says_not_what_the_last_line_is() -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(
        node, Failing("orders", 3, 2000, "ValidationError: no url\n  see the manual", "shop: ValidationError: no url")
    )
    assert why(node, rig.now).endswith(": shop: ValidationError: no url")
    assert [e["text"] for e in rig.core.events.since(0) if e["kind"] == "failing"][-1].endswith(
        "shop: ValidationError: no url"
    )
    assert node.failing["orders"]._asdict()["cause"] == "shop: ValidationError: no url"


def test_a_huge_traceback_is_cut_before_it_fills_a_message() -> None:
    rig = Rig()
    node = rig.agent()
    rig.tell(node, Failing("orders", 1, 2000, "x" * 100_000))
    assert len(node.failing["orders"].text) == 4096


# ---- size ------------------------------------------------------------------------------------------------------------


def test_a_pool_grows_on_queue_wait_and_shrinks_with_hysteresis() -> None:
    rig = Rig(service={"min_processes": 1, "max_processes": 3, "grow_after": 0.5, "shrink_after": 5.0})
    node = rig.agent(capacity=4)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 1}
    slot = rig.process(node)
    for number in range(1, 6):
        rig.request(number)
    rig.after(0.7)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2}
    rig.after(0.5)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2}, "at most one more a second"
    rig.after(3.0)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 3}
    rig.process(node, 2)
    rig.process(node, 3)
    for each in list(rig.fleet.processes.slots.values()):
        for number in list(each.inflight):
            rig.reply(each, number)
    for number in list(slot.inflight):
        rig.reply(slot, number)
    rig.after(4.0)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 3}
    rig.after(12.0)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 1}


@pytest.mark.parametrize(
    ("service", "scaled", "runs"),
    [
        ({}, None, 4),
        ({}, 3, 3),
        ({}, 0, 0),
        ({}, 9, 4),
        ({"min_processes": 2}, None, 2),
        ({"min_processes": 2}, 1, 2),
        ({"min_processes": 2}, 9, 4),
        ({"max_processes": 3}, None, 3),
        ({"max_processes": 3}, 9, 3),
        ({"max_processes": 3}, 1, 1),
        ({"min_processes": 2, "max_processes": 3}, 3, 3),
    ],
)
def test_a_size_is_what_an_operator_says_within_what_is_set_and_offered(
    service: dict[str, object], scaled: int | None, runs: int
) -> None:
    restored = Restored()
    if scaled is not None:
        restored.targets = {"orders": scaled}
    rig = Rig(service=service, restored=restored)
    rig.agent(capacity=4)
    assert rig.heard("n1", Plan)[-1].processes == ({"orders": runs} if runs else {})


def test_a_pool_whose_processes_are_all_at_work_does_not_shrink() -> None:
    rig = Rig(service={"min_processes": 1, "max_processes": 3, "grow_after": 0.5, "shrink_after": 5.0})
    node = rig.agent(capacity=3)
    rig.process(node)
    for number in range(1, 3):
        rig.request(number, timeout_ms=10**6)
    rig.after(0.7)
    rig.process(node, 2)
    rig.after(30.0)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2}


def test_a_pool_with_one_more_than_it_needs_gives_up_one_at_a_time() -> None:
    rig = Rig(service={"min_processes": 1, "max_processes": 3, "shrink_after": 5.0})
    node = rig.agent(capacity=3)
    rig.dispatch.pools["orders"].target, rig.fleet.staff.replan = 3, True
    rig.after(0.1)
    for number in (1, 2, 3):
        rig.process(node, number)
    for runs in (3, 2, 1, 1):
        rig.after(4.0)
        assert rig.heard("n1", Plan)[-1].processes == {"orders": runs}
        rig.after(1.1)


def test_what_a_drained_node_ran_runs_on_the_others() -> None:
    rig = Rig(service={"min_processes": 2, "max_processes": 2})
    for name in ("n1", "n2"):
        rig.process(rig.agent(name))
    rig.after(0.2)
    assert rig.heard("n2", Plan)[-1].processes == {"orders": 1}
    rig.verb("drain", nodes=["n1"])
    rig.after(0.2)
    assert rig.heard("n2", Plan)[-1].processes == {"orders": 2}


def test_a_node_that_died_and_was_forgotten_leaves_nothing_but_its_name() -> None:
    rig = two_nodes()
    for _ in range(200):
        rig.fleet.nodes["n2"].heard_at = rig.now = rig.now + 0.1
        rig.core.tick(rig.now)
    rig.verb("forget", nodes=["n1"], force=True)
    rig.agent("n3")
    assert {node.name for node in rig.core._agents.values()} == {"n2", "n3"}


def test_of_versions_that_run_no_more_no_interface_is_remembered() -> None:
    rig = Rig()
    node = rig.agent()
    for number in range(1, 6):
        slot = rig.process(node, number, version=str(number), digest=str(number))
        assert slot.pool.digests == {str(number): str(number)}
        rig.exited(slot)


def test_only_the_last_names_that_were_forgotten_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.master.core.fleet.NODES_MAX", 3)
    rig = Rig()
    for number in range(5):
        rig.fleet.forget(rig.agent(f"n{number}"), rig.now)
    assert list(rig.fleet.forgotten) == ["n2", "n3", "n4"]


def test_of_an_ill_node_that_was_forgotten_nothing_is_remembered() -> None:
    rig = Rig()
    node = rig.agent()
    node.health, node.mark.count = Health.BLACKLISTED, 1
    rig.fleet.checks._record(node, rig.now)
    rig.fleet.forget(node, rig.now)
    assert not rig.fleet.checks._recorded and not Restored.of(rig.records).marked


def test_a_reload_that_is_over_is_forgotten() -> None:
    rig = Rig()
    node = rig.agent()
    slots = [rig.process(node, number) for number in (1, 2)]
    rig.fleet.staff.reload(slots[0].pool)
    for slot in slots:
        rig.exited(slot)
    rig.after(2.5)
    assert slots[0].pool.reload == []
