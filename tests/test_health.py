"""Health: who counts as ill, who goes on the blacklist and for how long, and who never does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from core_rig import Rig

from rota.common import errors, exits, messages, wire
from rota.common.body import decode_call, encode_error, encode_result
from rota.common.errors import RemoteError
from rota.common.lifecycle import Health
from rota.common.messages import Exited, Plan, Unwell
from rota.common.settings import HealthSettings, ServiceSettings
from rota.master.core import records
from rota.master.core.health import DECAY_S, Falls, Mark, Watch, ordinal
from rota.master.core.pool import Slot
from rota.master.core.registry import Node, why

SETTINGS = HealthSettings()


# ---- counting --------------------------------------------------------------------------------------------------------


def test_a_node_falls_after_that_many_failures_in_a_row_and_no_fewer() -> None:
    watch = Watch(0, 0.0)
    for second in range(2):
        watch.failed("crash", False, float(second))
        assert not watch.has_fallen(SETTINGS)
    watch.failed("crash", False, 2.0)
    assert watch.has_fallen(SETTINGS)


def test_one_success_in_between_is_enough_to_begin_anew() -> None:
    watch = Watch(0, 0.0)
    watch.failed("crash", False, 0.0)
    watch.failed("crash", False, 1.0)
    watch.succeeded()
    watch.failed("crash", False, 2.0)
    assert watch.failures == 1 and watch.successes == 0


def test_failures_long_ago_do_not_add_up() -> None:
    watch = Watch(0, 0.0)
    for year in range(5):
        watch.failed("crash", False, year * (DECAY_S + 1))
    assert watch.failures == 1


def test_what_falls_together_is_one_failure() -> None:
    watch = Watch(0, 0.0)
    watch.failed("crash", False, 1.0)
    assert not watch.is_news(1.05) and watch.is_news(1.2)


def test_each_time_on_the_blacklist_is_twice_the_last_up_to_the_longest() -> None:
    mark, now, seconds = Mark(), 0.0, []
    for _ in range(8):
        seconds.append(mark.fell("orders", "crash", SETTINGS, 0.0, now))
        now += seconds[-1] + 1
    assert seconds == [5, 10, 20, 40, 80, 160, 300, 300]


def test_the_time_has_a_jitter_that_never_shortens_it() -> None:
    times = [Mark().fell("orders", "crash", SETTINGS, random, 0.0) for random in (0.0, 0.5, 1.0)]
    assert times == [5.0, 5.5, 6.0]


def test_the_count_of_falls_goes_down_by_time_only() -> None:
    mark = Mark()
    for fall in range(4):
        mark.fell("orders", "crash", SETTINGS, 0.0, float(fall))
    assert [mark.times(3.0 + halvings * DECAY_S) for halvings in range(4)] == [4, 2, 1, 0]
    assert mark.fell("orders", "crash", SETTINGS, 0.0, 3.0 + DECAY_S) == 20  # 2 falls still count
    assert mark.count == 3


def test_a_fall_that_was_everybodys_does_not_count() -> None:
    mark = Mark()
    mark.fell("orders", "crash", SETTINGS, 0.0, 0.0)
    mark.take_back()
    assert mark.times(1.0) == 0 and mark.until is None


@pytest.mark.parametrize(
    ("fallen", "of", "panic"), [(1, 1, False), (1, 2, False), (2, 2, True), (2, 4, False), (3, 4, True), (2, 3, True)]
)
def test_more_than_half_at_once_and_at_least_two_is_a_panic(fallen: int, of: int, panic: bool) -> None:
    falls = Falls()
    active = {f"n{number}" for number in range(of)}
    verdicts = [falls.fell(f"n{number}", active, SETTINGS, float(number)) for number in range(fallen)]
    assert verdicts[-1] is panic and falls.panic(float(fallen - 1)) is panic


def test_falls_that_are_far_apart_are_no_panic() -> None:
    falls = Falls()
    assert not any(falls.fell(f"n{number}", {"n0", "n1", "n2"}, SETTINGS, number * 20.0) for number in range(3))


def test_the_same_node_twice_is_one_node() -> None:
    falls = Falls()
    assert not falls.fell("n0", {"n0", "n1"}, SETTINGS, 0.0) and not falls.fell("n0", {"n0", "n1"}, SETTINGS, 1.0)


def test_those_that_fell_together_are_taken_back_in_the_order_of_their_falls() -> None:
    falls, names = Falls(), [f"n{number}" for number in (7, 1, 9, 4, 2, 8)]
    for name in names:
        falls.fell(name, set(names), HealthSettings(), 0.0)
    assert falls.lately() == names, "of a set the order would be another one in each process"


def test_a_panic_ends_when_nobody_falls_any_more() -> None:
    falls = Falls()
    falls.fell("n0", {"n0", "n1"}, SETTINGS, 0.0)
    falls.fell("n1", {"n0", "n1"}, SETTINGS, 1.0)
    assert falls.panic(20.0) and not falls.panic(60.0)


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22)] == "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd".split()


# ---- a cluster -------------------------------------------------------------------------------------------------------


class Ward(Rig):
    """Nodes n1, n2 … with one process each, and what becomes of them."""

    def __init__(self, nodes: int = 2, min_active: int = 1, up: bool = True, **health: Any) -> None:
        super().__init__(service={"health": replace(HealthSettings(), **health), "min_active": min_active})
        self.started_of: dict[str, int] = {}
        self.nodes = [self.agent(f"n{number}") for number in range(1, nodes + 1)]
        for node in self.nodes:
            self.spawn(node)
        if up:
            assert {node.health for node in self.nodes} == {Health.UP}

    def spawn(self, node: Node, **more: Any) -> Slot:
        number = self.started_of[node.name] = self.started_of.get(node.name, 0) + 1
        return self.process(node, number, **more)

    def crash(self, node: Node, times: int = 3) -> None:
        """Its process dies of SIGSEGV, and another one takes its place."""
        for _ in range(times):
            slot = next(iter(node.slots.values()))
            cause = "was killed by signal 11 (SIGSEGV)"
            self.tell(node, Exited(slot.incarnation, "orders", -11, cause, 0, [], "", "signalled"))
            self.fleet.processes.settle(slot, self.now)
            self.spawn(node)
            self.after(0.2)

    def silence(self, node: Node, seconds: float) -> None:
        """Of this one node."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for other in self.nodes:
                other.heard_at = node.heard_at if other is node else self.now
            self.core.tick(self.now)

    def serve(self, node: Node) -> None:
        """One request is answered there."""
        slot = next(iter(node.slots.values()))
        self.reply(slot, next(reversed(slot.inflight)))

    def checks(self, node: Node | None = None) -> list[tuple[Slot, int, bytes]]:
        """Those that wait for an answer."""
        mine = self.dispatch.prober.id
        return [
            (slot, number, frame)
            for slot, number, frame in self.deliveries
            if node in (None, slot.node) and number in slot.inflight and frame[wire.HEADER_SIZE :][:16] == mine
        ]

    def until_checked(self, node: Node, seconds: float = 10.0) -> tuple[Slot, int, bytes]:
        for _ in range(int(seconds * 10)):
            if found := self.checks(node):
                return found[0]
            self.after(0.1)
        raise AssertionError(f"{node.name} was not checked within {seconds} s")

    def answer_check(self, node: Node, code: int = errors.OK, body: bytes = encode_result("")) -> None:
        slot, number, _ = self.until_checked(node)
        self.reply(slot, number, code, body)

    def serve_elsewhere(self, seconds: float, well: tuple[Node, ...], ill: tuple[Node, ...] = ()) -> None:
        """Time passes; checks of these nodes are answered well, those of the others with an error."""
        for _ in range(int(seconds * 10)):
            self.after(0.1)
            for slot, number, _ in self.checks():
                if slot.node in well:
                    self.reply(slot, number, errors.OK, encode_result(""))
                elif slot.node in ill:
                    self.reply(slot, number, RemoteError.code, encode_error(RemoteError("OSError", "database")))

    def told(self, kind: str) -> list[str]:
        return [event["text"] for event in self.core.events.since(0) if event["kind"] == kind]

    def health(self) -> list[str]:
        return [str(node.health) for node in self.nodes]


# ---- what counts -----------------------------------------------------------------------------------------------------


def test_a_crash_loop_puts_a_node_on_the_blacklist_and_the_others_serve_on() -> None:
    ward = Ward()
    n1, _ = ward.nodes
    ward.crash(n1, 2)
    assert n1.health is Health.UP
    ward.crash(n1, 1)
    assert ward.health() == ["blacklisted", "up"]
    for number in range(1, 4):
        ward.request(number)
        ward.serve(ward.nodes[1])
    assert set(ward.codes().values()) == {errors.OK}
    assert not any(slot.open for slot in n1.slots.values())


def test_status_says_for_how_long_and_what_for_and_how_often() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    result = ward.verb("status")
    assert result is not None
    told = next(node for node in result.data["nodes"] if node["name"] == "n1")
    assert told["health"] == "blacklisted" and 4 < told["until_s"] <= 6
    for part in ("blacklisted for 5 s", "3 failures of orders in a row", "SIGSEGV", "1st time"):
        assert part in told["why"]
    assert "SIGSEGV" in ward.told("blacklisted")[0]


def test_errors_of_the_application_are_no_failures_of_the_node() -> None:
    ward = Ward(nodes=2)
    for number in range(1, 9):
        ward.request(number)
        for slot in ward.dispatch.pools["orders"].slots.values():
            for delivery in list(slot.inflight):
                ward.reply(slot, delivery, RemoteError.code, encode_error(RemoteError("ValueError", "x")))
        ward.after(0.2)
    assert ward.health() == ["up", "up"]


def test_time_outs_of_callers_are_no_failures_of_the_node() -> None:
    ward = Ward(nodes=2)
    for number in range(1, 9):
        ward.request(number, timeout_ms=50)
        ward.after(0.2)
    assert ward.health() == ["up", "up"]


def test_answered_traffic_between_two_crashes_begins_anew() -> None:
    ward = Ward(nodes=2)
    n1 = ward.nodes[0]
    for number in range(1, 7, 2):
        ward.crash(n1, 2)
        ward.request(number)
        ward.request(number + 1)  # one of the two goes there
        ward.serve(n1)
        ward.serve(ward.nodes[1])
    assert n1.health is Health.UP


def test_processes_that_are_killed_together_are_one_failure() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    for _ in range(3):
        ward.spawn(n1)
    for slot in list(n1.slots.values()):
        ward.exited(slot)
    assert n1.health is Health.UP


def test_that_all_was_quiet_between_two_crashes_takes_neither_back() -> None:
    ward = Ward()
    for _ in range(3):
        assert ward.health() == ["up", "up"]
        ward.after(60.0)
        ward.crash(ward.nodes[0], 1)
    assert ward.health() == ["blacklisted", "up"]


def test_a_process_that_was_never_ready_is_not_held_against_its_node() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    for number in range(20, 25):
        incarnation = ward.started(n1, number)
        ward.tell(n1, Exited(incarnation, "orders", 1, "exited with status 1", 0, [], "", "start"))
        ward.after(0.3)
    assert n1.health is Health.UP


def test_a_process_that_is_stopped_on_purpose_is_not_held_against_its_node() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    for kind in ("stopped", "agent leaving") * 3:
        slot = next(iter(n1.slots.values()))
        ward.tell(n1, Exited(slot.incarnation, "orders", 0, "stopped", 0, [], "", kind))
        ward.fleet.processes.settle(slot, ward.now)
        ward.spawn(n1)
        ward.after(0.2)
    assert n1.health is Health.UP


def test_hangs_count_though_their_process_was_being_ended() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    for _ in range(3):
        slot = next(iter(n1.slots.values()))
        ward.tell(n1, messages.Ending(slot.incarnation))
        ward.tell(n1, Exited(slot.incarnation, "orders", -6, "hung: its handler exceeded its limit", 0, [], "", "hung"))
        ward.fleet.processes.settle(slot, ward.now)
        ward.spawn(n1)
        ward.after(0.2)
    assert n1.health is Health.BLACKLISTED and "hung" in n1.mark.cause


def test_frames_that_break_the_protocol_count_against_the_node_of_their_process() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    slot = next(iter(n1.slots.values()))
    for _ in range(3):
        ward.core.backend(slot.route, b"no frame at all", ward.now)
        ward.after(0.2)
    assert ward.health() == ["blacklisted", "up"] and "protocol" in n1.mark.cause


def test_a_dead_node_is_not_blacklisted_for_it() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.silence(n1, 5.0)
    assert n1.liveness == "dead" and n1.health is Health.UP


# ---- the blacklist ---------------------------------------------------------------------------------------------------


def on_trial(**health: Any) -> tuple[Ward, Node, Slot]:
    """n1 fell, and its time is over."""
    ward = Ward(**health)
    n1 = ward.nodes[0]
    ward.spawn(n1)
    ward.crash(n1)
    assert n1.health is Health.BLACKLISTED
    ward.after(6.0)
    assert n1.health is Health.TRIAL
    (slot,) = [slot for slot in n1.slots.values() if slot.open]
    return ward, n1, slot


def test_after_its_time_a_node_is_tried_with_one_slot_and_one_request() -> None:
    ward, n1, slot = on_trial()
    ward.default = replace(ward.default, credit=16)
    ward.fleet.reconfigure()
    assert slot.limit == 1
    for number in range(1, 8):
        ward.request(number)
    assert n1.in_flight() == 1 and len(slot.inflight) == 1
    assert ward.told("trial") == ["n1: blacklisted → trial: one request at a time, 1st time"]


def test_only_during_its_trial_a_process_is_given_one_request_at_a_time() -> None:
    ward = Ward()
    ward.default = replace(ward.default, credit=16)
    ward.fleet.reconfigure()
    n1 = ward.nodes[0]
    ward.crash(n1)
    assert n1.since == pytest.approx(ward.now, abs=0.3)
    ward.after(6.0)
    (slot,) = n1.slots.values()
    assert n1.health is Health.TRIAL and slot.limit == 1
    ask(ward, "blacklist", action="clear", names=["n1"])
    assert n1.health is Health.UP and slot.limit == 16


def test_a_trial_is_one_of_the_service_that_its_node_fell_for() -> None:
    ward = Ward()
    for name in ("n3", "n4"):
        node = ward.agent(name, offers=["reports", "orders"], capacity=2)
        ward.process(node, 1, service="reports")
    slot = ward.process(node, 2)
    for number in (3, 4, 5):
        ward.exited(slot, kind="signalled")
        ward.after(0.2)
        slot = ward.process(node, number)
    assert node.health is Health.BLACKLISTED
    ward.after(6.0)
    assert node.health is Health.TRIAL and [each for each in node.slots.values() if each.open] == [slot]


def test_a_node_on_trial_does_not_count_as_active() -> None:
    ward, n1, _ = on_trial()
    assert not n1.serves(ward.dispatch.pools["orders"], ward.now)
    result = ward.verb("drain", nodes=["n2"])
    assert result is not None and result.exit == exits.REFUSED and "on trial" in result.data["error"]


def test_two_good_requests_bring_it_back_with_a_ramp() -> None:
    ward, n1, slot = on_trial()
    ward.default = replace(ward.default, ramp=5.0)
    ward.fleet.reconfigure()
    for number in (1, 2):
        ward.request(2 * number)
        ward.request(2 * number + 1)
        ward.serve(n1)
        ward.serve(ward.nodes[1])
        ward.after(0.1)
        assert (n1.health is Health.UP) is (number == 2)
    assert ward.told("reinstated")[-1] == "n1: trial → up: 2 times well in a row"
    assert n1.ramp_from is not None and n1.ramp(slot.pool, ward.now) < 0.2


def test_a_failure_on_trial_is_enough_and_doubles_the_time() -> None:
    ward, n1, _ = on_trial()
    ward.crash(n1, 1)
    assert n1.health is Health.BLACKLISTED and n1.mark.count == 2
    assert n1.mark.until is not None and 9 < n1.mark.until - ward.now <= 12
    assert "2nd time" in why(n1, ward.now)


def test_without_traffic_a_node_on_trial_is_asked_for_any_answer() -> None:
    ward, n1, slot = on_trial()
    for _ in range(2):
        found, number, frame = ward.until_checked(n1)
        assert found is slot
        assert b"orders." in frame and b"orders.quote" not in frame
        ward.reply(slot, number, errors.NoService.code, b"")  # it is there, and it speaks
    assert n1.health is Health.UP


def test_a_trial_without_a_process_to_try_ends() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    slot = next(iter(n1.slots.values()))
    ward.exited(slot)
    n1.plan["orders"] = 1
    ward.after(6.0)
    assert n1.health is Health.TRIAL
    ward.after(61.0)
    assert n1.health is Health.BLACKLISTED and "no process of orders" in n1.mark.cause


def test_a_trial_that_runs_for_long_within_its_limit_does_not_fail() -> None:
    ward, n1, slot = on_trial()
    for number in (1, 2):
        ward.request(number, timeout_ms=300_000)
    ward.after(100.0)
    assert n1.health is Health.TRIAL and slot.inflight and n1.mark.count == 1


def test_a_node_comes_back_whose_service_does_not_run_there_any_more() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    n1.ports["orders"] = "connection refused"  # so that it is looked at before its first request
    ward.verb("maintenance", service="orders", stop=True)
    ward.exited(next(iter(n1.slots.values())))
    ward.after(7.0)
    assert n1.health is Health.UP and not n1.watches


def test_a_node_that_flaps_cannot_shake_its_count_off_by_a_restart() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    ward.after(3.0)
    ward.silence(n1, 5.0)
    ward.agent("n1", boot="b2")
    assert n1.health is Health.UNCHECKED
    ward.started_of["n1"] = 50
    ward.spawn(n1)
    assert n1.health is Health.UP
    ward.crash(n1)
    assert n1.mark.count == 2


def test_the_last_one_is_never_ejected_and_that_is_an_alarm() -> None:
    for least in (0, 1):
        ward = Ward(nodes=1, min_active=least)
        ward.crash(ward.nodes[0])
        assert ward.health() == ["degraded"]
        assert any(slot.open for slot in ward.nodes[0].slots.values())
        result = ward.verb("status")
        assert result is not None and any("n1 is degraded" in alarm for alarm in result.data["master"]["alarms"])


def test_min_active_holds_after_the_step() -> None:
    ward = Ward(nodes=3, min_active=2)
    ward.crash(ward.nodes[0])
    assert ward.health() == ["blacklisted", "up", "up"]
    ward.after(30.0)  # far enough from the first
    n2 = ward.nodes[1]
    ward.crash(n2)
    assert n2.health is Health.DEGRADED and "2 active nodes" in n2.mark.cause


def test_a_drain_and_the_blacklist_share_one_budget() -> None:
    ward = Ward(nodes=3, min_active=2)
    assert ward.verb("drain", nodes=["n3"]) is not None
    ward.crash(ward.nodes[0])
    assert ward.nodes[0].health is Health.DEGRADED
    ward = Ward(nodes=3, min_active=2)
    ward.crash(ward.nodes[0])
    result = ward.verb("drain", nodes=["n3"])
    assert result is not None and result.exit == exits.REFUSED


def test_a_node_that_is_ill_may_always_be_drained() -> None:
    ward = Ward(nodes=3, min_active=2)
    ward.crash(ward.nodes[0])
    assert ward.nodes[0].health is Health.BLACKLISTED
    result = ward.verb("drain", nodes=["n1"])
    assert result is not None and result.exit == exits.DONE
    ward.after(30.0)
    assert ward.nodes[0].intent == "detached" and len(ward.told("trial")) == 0


def test_a_drained_node_comes_back_unchecked_with_its_falls_remembered() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    ward.verb("drain", nodes=["n1"])
    ward.exited(next(iter(n1.slots.values())))
    ward.verb("rejoin", nodes=["n1"])
    assert n1.health is Health.UNCHECKED and n1.mark.until is None and n1.mark.times(ward.now) == 1
    ward.spawn(n1)
    assert n1.health is Health.UP


def test_a_degraded_node_that_is_well_again_is_up() -> None:
    ward = Ward(nodes=1)
    ward.crash(ward.nodes[0])
    ward.after(30.0)
    assert ward.health() == ["up"]


def test_a_degraded_node_is_up_when_what_ails_it_does_not_run_there_any_more() -> None:
    ward = Ward(nodes=1)
    n1 = ward.nodes[0]
    ward.crash(n1)
    assert ward.health() == ["degraded"] and ward.fleet.checks.alarms(ward.now)
    ward.exited(next(iter(n1.slots.values())))
    n1.offers, ward.fleet.staff.replan = [], True
    ward.after(12.0)
    assert ward.health() == ["up"] and not ward.fleet.checks.alarms(ward.now)


def test_a_degraded_node_is_not_well_again_because_another_service_is() -> None:
    ward = Ward(nodes=0, up=False)
    node = ward.agent("n1", offers=["orders", "reports"], capacity=2)
    reports, slot = ward.process(node, 1, service="reports"), ward.process(node, 2)
    for number in (3, 4, 5):
        ward.exited(slot, kind="signalled")
        ward.after(0.2)
        slot = ward.process(node, number)
    assert node.health is Health.DEGRADED
    for number in (1, 2, 3):
        ward.request(number, "reports.quote")
        ward.reply(reports, next(iter(reports.inflight)))
    ward.after(6.0)
    assert node.health is Health.DEGRADED and node.mark.service == "orders"


def test_a_degraded_node_that_said_goodbye_is_no_alarm() -> None:
    """Nothing mends it there, so that `rota status --check` complained of it for ever, also at the next master."""
    ward = Ward(nodes=1)
    n1 = ward.nodes[0]
    ward.crash(n1)
    assert ward.fleet.checks.alarms(ward.now)
    ward.core.control(n1.route, wire.head(wire.BYE, n1.token), ward.now)
    assert n1.health is Health.DEGRADED and not ward.fleet.checks.alarms(ward.now)


def test_a_degraded_node_is_ejected_when_the_budget_allows_it_again() -> None:
    ward = Ward(nodes=1)
    n1 = ward.nodes[0]
    ward.crash(n1)
    ward.nodes.append(n2 := ward.agent("n2"))
    ward.spawn(n2)
    ward.after(1.0)
    ward.crash(n1)
    assert ward.health() == ["blacklisted", "up"]


def test_where_eject_is_off_a_node_is_only_shown() -> None:
    ward = Ward(eject=False)
    ward.crash(ward.nodes[0])
    assert ward.health() == ["degraded", "up"] and "eject" in ward.told("degraded")[0]


# ---- everybody at once -----------------------------------------------------------------------------------------------


def test_a_fault_that_hits_all_nodes_ejects_nobody() -> None:
    ward = Ward(nodes=4)
    for node in ward.nodes:
        ward.crash(node)
    assert "blacklisted" not in ward.health()
    assert all(any(slot.open for slot in node.slots.values()) for node in ward.nodes)
    (told,) = ward.told("panic")
    assert "3 of 4 nodes fail at once" in told
    result = ward.verb("status")
    assert result is not None and any("a shared dependency?" in alarm for alarm in result.data["master"]["alarms"])


def test_nodes_that_are_drained_do_not_make_it_fewer() -> None:
    ward = Ward(nodes=5)
    ward.verb("drain", nodes=["n3", "n4", "n5"], force=True)
    ward.after(0.1)
    for node in ward.nodes[:2]:
        ward.crash(node)
    assert "2 of 2 nodes fail at once" in ward.told("panic")[0] and "blacklisted" not in ward.health()


def test_those_that_fell_before_it_was_seen_come_back_and_it_does_not_count() -> None:
    ward = Ward(nodes=3)
    ward.crash(ward.nodes[0])
    assert ward.health() == ["blacklisted", "up", "up"]
    ward.crash(ward.nodes[1])
    assert ward.health() == ["up", "degraded", "up"]
    assert ward.nodes[0].mark.times(ward.now) == 0


def test_who_fails_its_trial_during_a_panic_is_not_ejected_for_it() -> None:
    ward = Ward(nodes=4, blacklist=60.0)
    n1, *others = ward.nodes
    ward.crash(n1)
    ward.after(60.0)
    for node in others:
        ward.crash(node)
    for _ in range(100):
        ward.after(0.1)
        if n1.health is Health.TRIAL:
            break
    ward.crash(n1, 1)
    assert n1.health is Health.DEGRADED and "3 of 3 nodes fail at once" in n1.mark.cause


def test_a_pause_of_the_master_is_no_part_of_a_panic() -> None:
    ward = Ward(nodes=2)
    for node in ward.nodes:
        ward.crash(node)
    ward.now += 100.0
    ward.core.tick(ward.now)
    ward.after(1.0)
    assert len(ward.told("panic")) == 1, "it is not over"


def test_after_a_panic_one_node_may_be_ejected_again() -> None:
    ward = Ward(nodes=2)
    for node in ward.nodes:
        ward.crash(node)
    ward.after(40.0)
    assert ward.health() == ["up", "up"] and ward.told("panic")[-1].endswith("the panic is over")
    ward.crash(ward.nodes[0])
    assert ward.health() == ["blacklisted", "up"]


def test_a_node_that_was_out_before_says_nothing_of_the_others() -> None:
    ward = Ward(nodes=3)
    n1, n2, _ = ward.nodes
    ward.crash(n1)
    ward.after(20.0)
    ward.crash(n1, 1)  # its trial fails
    ward.crash(n2)
    assert ward.health() == ["blacklisted", "blacklisted", "up"] and not ward.told("panic")


# ---- checks ----------------------------------------------------------------------------------------------------------


def test_with_a_check_a_node_is_let_in_after_its_first_good_answers() -> None:
    ward = Ward(nodes=1, up=False, check="dummy")
    n1 = ward.nodes[0]
    ward.request(1)
    assert ward.health() == ["unchecked"] and "first good checks" in why(n1, ward.now)
    ward.answer_check(n1)
    assert ward.health() == ["unchecked"]
    ward.after(0.02)
    assert ward.checks(n1), "it waits for nothing else"
    ward.answer_check(n1)
    assert ward.health() == ["up"]
    assert 1 in {number for _, number, _ in ward.deliveries} and n1.in_flight() == 1


def test_a_node_is_let_in_when_each_of_its_services_is_well() -> None:
    ward = Ward(nodes=0, up=False, check="dummy")
    node = ward.agent("n1", offers=["orders", "reports"], capacity=2)
    slots = [ward.process(node, 1), ward.process(node, 2, service="reports")]
    for slot in slots:
        assert node.health is Health.UNCHECKED
        for _ in range(2):
            number = next(n for s, n, _ in [ward.until_checked(node), *ward.checks(node)] if s is slot)
            ward.reply(slot, number, errors.OK, encode_result(""))
            ward.after(0.1)
    assert node.health is Health.UP


def test_where_it_could_not_be_put_out_a_node_is_not_kept_out_either() -> None:
    assert Ward(nodes=1, up=False, check="dummy", eject=False).health() == ["up"]
    ward = Ward(nodes=1, up=False, check="dummy")
    ask(ward, "blacklist", action="disable", names=["orders"])
    ward.after(0.1)
    assert ward.health() == ["up"]


def test_of_its_own_health_a_service_may_only_say_that_all_is_well() -> None:
    ward = Ward(nodes=1, up=False, check="request")
    ward.answer_check(ward.nodes[0], body=encode_result("no database"))
    (watch,) = ward.nodes[0].watches.values()
    assert watch.failures == 1 and "expected ''" in watch.cause


def test_a_check_may_have_any_answer_unless_one_is_expected() -> None:
    for code in (errors.OK, RemoteError.code, errors.NoService.code, errors.BindError.code):
        ward = Ward(nodes=1, up=False, check="dummy", handler="quote")
        for _ in range(2):
            assert b"orders.quote" in ward.until_checked(ward.nodes[0])[2]
            ward.answer_check(ward.nodes[0], code, b"")
        assert ward.health() == ["up"], code


def test_a_request_is_sent_with_its_arguments_and_its_answer_is_compared() -> None:
    ward = Ward(nodes=1, up=False, check="request", handler="quote", args={"symbol": "X"}, expect={"price": [1, 2.5]})
    n1 = ward.nodes[0]
    _, _, frame = ward.until_checked(n1)
    assert decode_call(frame[wire.parse_head(frame).head_len :]) == ([], {"symbol": "X"})
    for _ in range(2):
        ward.answer_check(n1, body=encode_result({"price": [1, 2.5]}))
    assert ward.health() == ["up"]


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (errors.OK, encode_result("ill")),
        (errors.OK, b"\xc1"),
        (RemoteError.code, encode_error(RemoteError("OSError", "database"))),
        (errors.NoService.code, b"\xc1"),
    ],
)
def test_any_other_answer_is_a_failure(code: int, body: bytes) -> None:
    ward = Ward(nodes=1, up=False, check="request", handler="quote", expect="well")
    for _ in range(3):
        ward.answer_check(ward.nodes[0], code, body)
        ward.after(0.2)
    assert ward.health() == ["degraded"] and "its check was answered with" in ward.nodes[0].mark.cause


def test_where_nobody_else_serves_a_node_is_let_in_though_its_checks_fail() -> None:
    """A pool of one must be able to start, and is only shown."""
    ward = Ward(nodes=1, up=False, check="request", handler="quote")
    ward.request(1)
    ward.serve_elsewhere(5.0, well=(), ill=tuple(ward.nodes))
    assert ward.health() == ["degraded"] and ward.nodes[0].in_flight() == 1


def test_where_others_serve_a_node_whose_first_checks_fail_is_kept_out() -> None:
    ward = Ward(nodes=1, up=False, check="request", handler="quote")
    n1 = ward.nodes[0]
    ward.answer_check(n1)
    ward.answer_check(n1)
    ward.nodes.append(n2 := ward.agent("n2"))
    ward.spawn(n2)
    ward.serve_elsewhere(5.0, well=(n1,), ill=(n2,))
    assert ward.health() == ["up", "blacklisted"]


def test_a_check_without_an_answer_fails_at_its_time_out_and_keeps_its_credit() -> None:
    ward = Ward(nodes=1, up=False, check="dummy", timeout=1.0, every=2.0)
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.after(0.9)
    assert ward.nodes[0].watches[slot.pool].failures == 0
    ward.after(0.15)
    assert ward.nodes[0].watches[slot.pool].failures == 1
    assert number in slot.inflight
    ward.after(4.1)  # it still runs: that is a failure more for each time it should have been asked
    assert ward.nodes[0].watches[slot.pool].failures == 0 and ward.health() == ["degraded"]
    assert len(ward.checks()) == 1
    ward.reply(slot, number)
    assert not slot.inflight and ward.health() == ["degraded"]
    assert ward.nodes[0].watches[slot.pool].successes == 0, "it is too late for anything"


def test_a_check_that_the_fence_of_another_master_kept_from_starting_says_nothing() -> None:
    ward = Ward(nodes=1, up=False, check="dummy")
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.reply(slot, number, errors.NOT_STARTED, errors.BY_FENCE)
    watch = slot.node.watches[slot.pool]
    assert (watch.successes, watch.failures) == (0, 0)


def test_nobody_is_asked_twice_at_a_time_and_never_a_busy_process() -> None:
    ward = Ward(nodes=2, up=False, check="dummy", every=1.0, timeout=0.5)
    ward.serve_elsewhere(2.0, well=tuple(ward.nodes))
    assert ward.health() == ["up", "up"]
    for number in (1, 2):
        ward.request(number)
    assert all(node.in_flight() == 1 for node in ward.nodes)
    before = len(ward.deliveries)
    ward.after(5.0)
    assert len(ward.deliveries) == before and ward.health() == ["up", "up"]


def test_the_processes_of_a_node_are_asked_in_turn() -> None:
    ward = Ward(nodes=0, up=False, check="dummy", every=1.0)
    node = ward.agent("n1", capacity=3)
    slots = {ward.spawn(node) for _ in range(3)}
    asked = []
    for _ in range(6):
        slot, number, frame = ward.until_checked(node)
        asked.append((slot, frame[wire.HEADER_SIZE :][:24]))
        ward.reply(slot, number, errors.OK, encode_result(""))
    assert {slot for slot, _ in asked[:3]} == {slot for slot, _ in asked[3:]} == slots
    assert len({origin for _, origin in asked}) == 6, "each is a request of its own"


def test_answered_traffic_is_as_good_as_a_check() -> None:
    ward = Ward(nodes=2, up=False, check="dummy", every=1.0, timeout=0.5)
    ward.serve_elsewhere(2.0, well=tuple(ward.nodes))
    for number in range(1, 100, 2):
        for _ in range(2):
            ward.request(number + _)
        for node in ward.nodes:
            ward.serve(node)
        ward.after(0.1)
        assert not ward.checks()


def test_other_answers_do_not_stand_in_for_the_expected_one() -> None:
    ward = Ward(nodes=2, up=False, check="request", handler="quote", every=1.0, timeout=0.5)
    n1, n2 = ward.nodes
    ward.serve_elsewhere(2.0, well=(n1, n2))
    for number in range(1, 100, 2):
        ward.request(number)
        ward.request(number + 1)
        for slot in [slot for node in ward.nodes for slot in node.slots.values()]:
            for delivery in list(slot.inflight):
                ward.reply(slot, delivery)
        ward.serve_elsewhere(0.1, well=(n2,), ill=(n1,))
    assert ward.health() == ["blacklisted", "up"]


def test_answers_do_not_take_back_that_a_port_cannot_be_reached() -> None:
    """A node that answers everything with an error at once would get the most."""
    ward = Ward(nodes=2, up=False, check="port", port="db:5432", every=1.0, timeout=0.5)
    n1, n2 = ward.nodes
    for node in ward.nodes:
        ward.tell(node, Unwell("orders", ""))
    ward.after(3.0)
    ward.tell(n1, Unwell("orders", "db:5432: connection refused"))
    for number in range(1, 100, 2):
        ward.request(number)
        ward.request(number + 1)
        for slot in [slot for node in ward.nodes for slot in node.slots.values()]:
            for delivery in list(slot.inflight):
                ward.reply(slot, delivery)
        ward.after(0.1)
    assert ward.health() == ["blacklisted", "up"] and n2.health is Health.UP


def test_a_check_counts_neither_as_service_time_nor_as_a_request() -> None:
    ward = Ward(nodes=1, up=False, check="dummy")
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.reply(slot, number, time=60_000_000)
    assert slot.handled == 0 and slot.pool.p95_us == 0 and slot.pool.served() == 0
    assert not ward.answers and not ward.dispatch.sessions


def test_a_check_that_dies_with_its_process_is_nobodys_loss() -> None:
    ward = Ward(nodes=2, up=False, check="dummy")
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.exited(slot, number, [(number, messages.ROW_RUNNING)])
    ward.after(5.0)
    assert not ward.answers and ward.dispatch.pools["orders"].queued == 0
    assert not ward.dispatch.quarantine.cases


def test_drained_and_blacklisted_nodes_are_not_asked() -> None:
    ward = Ward(nodes=3, up=False, check="dummy", every=1.0, timeout=0.5, blacklist=60.0)
    ward.serve_elsewhere(2.0, well=tuple(ward.nodes))
    ward.verb("drain", nodes=["n3"])
    ward.crash(ward.nodes[0])
    assert ward.nodes[0].health is Health.BLACKLISTED
    before = len(ward.deliveries)
    ward.serve_elsewhere(20.0, well=(ward.nodes[1],))
    assert {slot.node.name for slot, _, _ in ward.deliveries[before:]} == {"n2"}


def test_on_trial_the_check_of_the_service_goes_before_real_requests() -> None:
    ward = Ward(nodes=2, up=False, check="request", handler="quote", every=1.0, timeout=0.5)
    n1, n2 = ward.nodes
    ward.serve_elsewhere(2.0, well=(n1, n2))
    ward.serve_elsewhere(6.0, well=(n2,), ill=(n1,))
    assert n1.health is Health.BLACKLISTED
    for _ in range(200):
        ward.after(0.1)
        if n1.health is Health.TRIAL:
            break
    assert ward.checks(n1) and n1.in_flight() == 1
    ward.answer_check(n1, RemoteError.code, b"")
    assert n1.health is Health.BLACKLISTED and n1.mark.count == 2


def test_checks_of_nodes_are_spread_in_time() -> None:
    ward = Ward(nodes=4, up=False, check="dummy", every=10.0)
    ward.serve_elsewhere(3.0, well=tuple(ward.nodes))
    randoms = iter([0.1, 0.3, 0.6, 0.9])
    ward.fleet.checks.random = lambda: next(randoms)
    for node in ward.nodes:
        node.watches.clear()
        ward.fleet.checks.ready(next(iter(node.slots.values())), ward.now)
    due = [watch.due - ward.now for node in ward.nodes for watch in node.watches.values()]
    assert due == pytest.approx([1.0, 3.0, 6.0, 9.0])


def test_nodes_that_were_let_in_together_are_not_asked_together() -> None:
    ward = Ward(nodes=3, up=False, check="dummy", every=10.0)
    randoms = iter([0.0, 0.4, 0.8])
    ward.fleet.checks.random = lambda: next(randoms)
    ward.serve_elsewhere(2.0, well=tuple(ward.nodes))
    due = sorted(watch.due - ward.now for node in ward.nodes for watch in node.watches.values())
    assert set(ward.health()) == {"up"} and due[1] - due[0] > 1.5 and due[2] - due[1] > 1.5


def test_a_port_that_the_node_cannot_reach_is_a_failure_of_each_look() -> None:
    ward = Ward(nodes=2, up=False, check="port", port="db:5432", every=1.0, timeout=0.5)
    assert ward.heard("n1", Plan)[-1].checks["orders"] == messages.PortCheck("db:5432", 1000, 500)
    for node in ward.nodes:
        ward.tell(node, Unwell("orders", ""))
    ward.after(3.0)
    assert ward.health() == ["up", "up"]
    ward.tell(ward.nodes[0], Unwell("orders", "db:5432: connection refused"))
    ward.after(4.0)
    assert ward.health() == ["blacklisted", "up"] and "connection refused" in ward.nodes[0].mark.cause
    ward.after(4.0)
    assert ward.nodes[0].mark.count == 2 and ward.nodes[0].health is Health.BLACKLISTED
    ward.tell(ward.nodes[0], Unwell("orders", ""))
    ward.serve_elsewhere(20.0, well=tuple(ward.nodes))
    assert ward.health() == ["up", "up"]


def test_of_a_service_that_its_node_does_not_offer_no_port_is_remembered() -> None:
    ward = Ward(nodes=1)
    ward.tell(ward.nodes[0], Unwell("nothing", "refused"))
    assert not ward.nodes[0].ports


def test_a_port_that_no_node_can_reach_ejects_nobody() -> None:
    ward = Ward(nodes=4, up=False, check="port", port="db:5432", every=1.0, timeout=0.5)
    for node in ward.nodes:
        ward.tell(node, Unwell("orders", ""))
    ward.after(3.0)
    assert set(ward.health()) == {"up"}
    for node in ward.nodes:
        ward.tell(node, Unwell("orders", "db:5432: connection refused"))
    ward.after(20.0)
    assert ward.health().count("blacklisted") == 0 and ward.told("panic")


def test_a_node_is_let_in_only_when_its_agent_has_looked_at_the_port() -> None:
    ward = Ward(nodes=1, up=False, check="port", port="db:5432", every=1.0, timeout=0.5)
    n1 = ward.nodes[0]
    ward.tell(n1, Unwell("orders", ""))
    ward.after(3.0)
    ward.nodes.append(n2 := ward.agent("n2"))
    ward.spawn(n2)
    ward.after(1.2)
    assert ward.health() == ["up", "unchecked"] and "has not told" in why(n2, ward.now)


def test_a_pause_of_the_master_is_no_failure_of_what_it_asked() -> None:
    ward = Ward(nodes=1, up=False, check="dummy", timeout=1.0)
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.now += 30.0
    ward.core.tick(ward.now)
    ward.reply(slot, number)
    watch = slot.node.watches[slot.pool]
    assert watch.failures == 0 and watch.successes == 1


def test_an_answer_that_is_read_after_its_time_is_a_failure() -> None:
    ward = Ward(nodes=1, up=False, check="dummy", timeout=1.0)
    slot, number, _ = ward.until_checked(ward.nodes[0])
    ward.now += 1.005
    ward.reply(slot, number)
    assert slot.node.watches[slot.pool].failures == 1 and not slot.inflight


def test_a_pause_of_the_master_serves_no_time_on_the_blacklist() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    assert n1.mark.until is not None
    left = n1.mark.until - ward.now
    ward.now += 30.0
    ward.core.tick(ward.now)
    assert n1.health is Health.BLACKLISTED and n1.mark.until - ward.now == pytest.approx(left, abs=0.1)


def test_a_node_that_waits_to_be_checked_is_let_in_when_no_check_is_wanted_any_more() -> None:
    ward = Ward(nodes=1, up=False, check="dummy")
    assert ward.health() == ["unchecked"]
    ward.default = replace(ward.default, health=HealthSettings())
    ward.fleet.reconfigure()
    ward.after(0.2)
    assert ward.health() == ["up"]


def test_a_service_that_left_its_node_keeps_nobody_out() -> None:
    ward = Ward()
    n1 = ward.nodes[0]
    ward.crash(n1)
    slot = next(iter(n1.slots.values()))
    ward.fleet.staff.retire(slot, 0, ward.now)
    ward.exited(slot)
    n1.offers, ward.fleet.staff.replan = [], True
    ward.after(12.0)
    assert n1.health is Health.UP


def test_a_single_crash_among_many_nodes_is_forgotten_by_nobody_but_counts_for_nothing() -> None:
    ward = Ward(nodes=3)
    for node in ward.nodes:
        ward.crash(node, 1)
    assert ward.health() == ["up", "up", "up"]


# ---- operators -------------------------------------------------------------------------------------------------------


def ask(ward: Ward, verb: str, **args: Any) -> messages.Result:
    result = ward.verb(verb, **args)
    assert result is not None
    return result


def test_the_list_shows_who_is_ill_until_when_and_why() -> None:
    ward = Ward(nodes=3)
    ward.crash(ward.nodes[0])
    data = ask(ward, "blacklist").data
    (row,) = data["nodes"]
    assert row["node"] == "n1" and row["health"] == "blacklisted" and row["times"] == 1
    assert row["service"] == "orders" and 0 < row["until_s"] <= 6 and "SIGSEGV" in row["cause"]
    assert data["disabled"] == [] and data["panics"] == []


def test_an_operator_clears_a_node_and_its_count() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    result = ask(ward, "blacklist", action="clear", names=["n1"], reason="new disk")
    assert result.exit == exits.DONE and result.data["names"] == [{"name": "n1", "changed": True}]
    assert ward.nodes[0].mark.times(ward.now) == 0 and ward.told("cleared")
    assert reborn(ward)[1].mark.count == 0
    again = ask(ward, "blacklist", action="clear", names=["n1"])
    assert again.exit == exits.DONE and again.data["names"][0]["changed"] is False
    ward.request(1)
    ward.request(2)
    assert ward.nodes[0].in_flight() == 1


def test_what_is_disabled_is_never_ejected_and_comes_back_at_once() -> None:
    for name in ("n1", "orders"):
        ward = Ward()
        ward.crash(ward.nodes[0])
        result = ask(ward, "blacklist", action="disable", names=[name])
        assert result.data["names"] == [{"name": name, "changed": True}]
        assert ward.nodes[0].health is Health.UP and ward.told("blacklist") == [f"the blacklist is disabled for {name}"]
        ward.crash(ward.nodes[0])
        assert ward.health() == ["degraded", "up"]
        assert ask(ward, "blacklist").data["disabled"] == [name]
        assert ask(ward, "blacklist", action="disable", names=[name]).data["names"][0]["changed"] is False
        ask(ward, "blacklist", action="enable", names=[name])
        ward.crash(ward.nodes[0])
        assert ward.health() == ["blacklisted", "up"]


def test_it_is_answered_when_it_is_durable_and_survives_a_restart() -> None:
    ward = Ward()
    ward.durable = False
    assert ward.verb("blacklist", action="disable", names=["n1", "orders"]) is None
    ward.durable = True
    ward.flush()
    assert ward.result() is not None
    ask(ward, "blacklist", action="enable", names=["n1"])
    restored = records.Restored.of(ward.records)
    assert restored.exempt == {"orders"}
    again = records.Restored()
    for record in restored.records():
        again.read(record)
    assert again.exempt == {"orders"}
    assert Rig(restored=again).fleet.checks.exempt == {"orders"}


def test_a_name_that_nobody_has_is_not_found_with_the_nearest() -> None:
    ward = Ward()
    for action, name in (("clear", "n11"), ("clear", "orders"), ("disable", "order"), ("eject", "n1")):
        result = ask(ward, "blacklist", action=action, names=[name])
        assert result.exit == exits.NOT_FOUND and "nearest" in result.data
    assert ask(ward, "blacklist", action="enable", names=[]).exit == exits.USAGE


def test_one_unknown_name_among_several_changes_nothing() -> None:
    ward = Ward()
    assert ask(ward, "blacklist", action="disable", names=["n1", "nobody"]).exit == exits.NOT_FOUND
    assert not ward.fleet.checks.exempt


# ---- settings --------------------------------------------------------------------------------------------------------


def test_settings_of_health_have_a_section_of_their_own(tmp_path: Any) -> None:
    from rota.common import config

    path = tmp_path / "rota.toml"
    path.write_text(
        "[service.orders.health]\ncheck = 'request'\nhandler = 'quote'\nargs = { symbol = 'X', n = 1 }\n"
        "expect = { price = [1, 2.5], ok = true }\nevery = '10s'\n"
    )
    health = config.load(path, {}).services["orders"].health
    assert health.expect == {"price": [1, 2.5], "ok": True} and health.args == {"symbol": "X", "n": 1}
    assert config.load(path, {}).services["other"].health == ServiceSettings().health == HealthSettings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("every = '1s'\ntimeout = '1s'", "must be less than every"),
        ("check = 'port'", "needs port"),
        ("args = { a = 1 }", "needs a handler"),
        ("check = 'request'\nhandler = 'http-safe'", "http-safe or websocket for check = request"),
        ("blacklist = '10m'", "must not be above blacklist_max"),
        ("check = 'ping'", "one of heartbeat, port, dummy, request"),
        ("expect = 1979-05-27", "must be a text, a number"),
        ("check = 'dummy'\nhandler = 'quote'\nargs = { a = 18446744073709551616 }", "at most 64 bits"),
    ],
)
def test_settings_that_cannot_work_together_are_found_at_load(tmp_path: Any, text: str, sentence: str) -> None:
    from rota.common import config

    path = tmp_path / "rota.toml"
    path.write_text(f"[service.orders.health]\n{text}\n")
    with pytest.raises(config.ConfigErrors) as found:
        config.load(path, {})
    assert sentence in str(found.value)


# ---- whatever happens ------------------------------------------------------------------------------------------------


class Storm(Ward):
    """Random faults, checks, requests and operators; what must hold is looked at after every step."""

    def __init__(self, seed: int) -> None:
        self.choice = Random(seed)
        check = self.choice.choice(["heartbeat", "dummy", "request", "port"])
        more = {"handler": "quote"} if check == "request" else {"port": "db:1"} if check == "port" else {}
        least = self.choice.randint(0, 2)
        self.sent = 0
        super().__init__(
            self.choice.randint(1, 4), least, up=False, check=check, every=1.0, timeout=0.5, blacklist=2.0, **more
        )
        for node in self.nodes:
            self.spawn(node)
        inner = self.fleet.checks._move
        self.fleet.checks._move = lambda *step: self._moved(inner, *step)  # type: ignore[method-assign]

    def _moved(self, inner: Any, node: Node, event: str, why_: str, now: float) -> None:
        if event == "fall":
            for pool in node.pools():
                others = [each for each in self.fleet.nodes.values() if each is not node and each.serves(pool, now)]
                assert len(others) >= max(1, pool.settings.min_active), f"{node.name} was ejected: {why_}"
        inner(node, event, why_, now)

    def step(self) -> None:
        node = self.choice.choice(self.nodes)
        slots = list(node.slots.values())
        match self.choice.randrange(12):
            case 0 | 1 if slots:
                self._end(self.choice.choice(slots), self.choice.choice(list(messages.End)))
            case 2:
                self.spawn(node)
            case 3 | 4 | 5:
                self.sent += 1
                self.request(self.sent, timeout_ms=self.choice.choice([300, 5000]))
            case 6 | 7:
                for slot in [slot for slot in self.fleet.processes.slots.values() if slot.inflight]:
                    code = self.choice.choice([errors.OK, errors.OK, RemoteError.code, errors.NOT_STARTED])
                    self.reply(slot, self.choice.choice(list(slot.inflight)), code, encode_result(""))
            case 8:
                self.tell(node, Unwell("orders", self.choice.choice(["", "refused"])))
            case 9:
                self.verb(self.choice.choice(["drain", "rejoin", "rejoin", "rejoin"]), nodes=[node.name])
            case 10:
                action = self.choice.choice(["clear", "disable", "enable", "list"])
                self.verb("blacklist", action=action, names=[node.name])
            case 11 if slots:
                self.core.backend(slots[0].route, b"damaged", self.now)
        self.after(self.choice.choice([0.02, 0.1, 0.5, 3.0]))
        self.look()

    def _end(self, slot: Slot, kind: messages.End) -> None:
        report = Exited(slot.incarnation, "orders", -9, f"ended: {kind}", 0, [], "", str(kind))
        self.tell(slot.node, report)
        self.fleet.processes.settle(slot, self.now)

    def look(self) -> None:
        for node in self.nodes:
            opened = [slot for slot in node.slots.values() if slot.open]
            if node.health in (Health.BLACKLISTED, Health.UNCHECKED):
                assert not opened
            if node.health is Health.TRIAL:
                assert len(opened) <= 1 and all(slot.limit == 1 for slot in opened)
            if node.health in (Health.BLACKLISTED, Health.TRIAL):
                assert node.mark.until is not None, "no state without a deadline"
                if node.intent == "active":
                    assert node.mark.until > self.now - 0.2, "its time is over and nothing happened"
            else:
                assert node.mark.until is None
        checks = Counter((slot.node.name, slot.pool.name) for slot, _, _ in self.checks())
        assert all(count == 1 for count in checks.values()), "two checks at a time"


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_budget_and_the_deadlines_hold(seed: int) -> None:
    storm = Storm(seed)
    for _ in range(60):
        storm.step()
    storm.choice = Random(0)
    for node in storm.nodes:  # and when all is well again, all of them are
        storm.verb("rejoin", nodes=[node.name])
        storm.verb("blacklist", action="enable", names=[node.name])
        storm.tell(node, Unwell("orders", ""))
        for slot in list(node.slots.values()):
            storm._end(slot, messages.End.STOPPED)
        storm.spawn(node)
    for _ in range(350):
        storm.after(0.2)
        for slot in list(storm.fleet.processes.slots.values()):
            for number in list(slot.inflight):
                storm.reply(slot, number, errors.OK, encode_result(""))
    assert set(storm.health()) == {"up"}
    assert all(sorted(slot.inflight) == [] for slot in storm.fleet.processes.slots.values())


# ---- another master --------------------------------------------------------------------------------------------------


def reborn(ward: Ward, boot: str = "b1", seconds: float = 1.0) -> tuple[Rig, Node]:
    """A master that begins with the records of this one, that much later; n1 says hello to it."""
    restored = records.Restored.of(ward.records)
    rig = Rig(service={"health": HealthSettings()}, restored=restored, epoch=2)
    rig.wall = ward.wall + seconds
    rig.core.fleet.wall = lambda: ward.wall + seconds
    return rig, rig.agent("n1", boot=boot)


def test_a_node_that_is_out_stays_out_when_another_master_takes_over() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    rig, n1 = reborn(ward)
    rig.process(n1, 9)
    assert n1.health is Health.BLACKLISTED and n1.mark.count == 1 and n1.mark.service == "orders"
    assert not any(slot.open for slot in n1.slots.values())


def test_its_time_on_the_blacklist_goes_on_where_it_was() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    left = (ward.nodes[0].mark.until or 0.0) - ward.now
    _, n1 = reborn(ward)
    assert n1.mark.until is not None and n1.mark.until - 100.0 == pytest.approx(left, abs=1.01)
    assert n1.mark.fell_at == pytest.approx(100.0, abs=1.01), "and its fall counts for as long"


def test_a_trial_begins_anew_when_another_master_takes_over() -> None:
    ward, _, _ = on_trial()
    rig, n1 = reborn(ward)
    rig.process(n1, 9)
    rig.after(0.1)
    assert n1.health is Health.TRIAL and sum(slot.limit for slot in n1.slots.values() if slot.open) == 1


def test_an_agent_that_was_started_anew_meanwhile_begins_anew_but_its_falls_count() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    rig, n1 = reborn(ward, boot="b2")
    rig.process(n1, 1)
    assert n1.health is not Health.BLACKLISTED and n1.mark.count == 1


def test_falls_that_an_operator_cleared_when_the_node_was_well_again_are_forgotten_too() -> None:
    ward, n1, slot = on_trial()
    for _ in range(2):
        _, number, _ = ward.until_checked(n1)
        ward.reply(slot, number)
    assert n1.health is Health.UP and reborn(ward)[1].mark.count == 1
    ward.verb("blacklist", action="clear", names=["n1"])
    ward.flush()
    assert reborn(ward)[1].mark.count == 0


def test_what_an_operator_cleared_is_forgotten_for_the_next_master_too() -> None:
    ward = Ward()
    ward.crash(ward.nodes[0])
    ward.verb("blacklist", action="clear", names=["n1"])
    ward.flush()
    _, n1 = reborn(ward)
    assert n1.health is Health.UNCHECKED and n1.mark.count == 0


def test_a_node_that_never_fell_costs_no_record() -> None:
    ward = Ward()
    assert not any(b"marked" in data for data in ward.records)
