"""Services whose requests are held for a while."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from core_rig import SESSION, Rig, held

from rota.common import errors, exits, wire
from rota.common.settings import ServiceSettings
from rota.master.core.records import Restored


def pause(rig: Rig, service: str = "orders", **more: Any) -> dict[str, Any]:
    result = rig.verb("pause", service=service, **more)
    assert result is not None and result.ok, result
    return result.data


def resume(rig: Rig, service: str = "orders") -> dict[str, Any]:
    result = rig.verb("resume", service=service)
    assert result is not None and result.ok, result
    return result.data


def service(rig: Rig) -> dict[str, Any]:
    (found,) = rig.core.status(rig.now)["services"]
    return dict(found)


def events(rig: Rig) -> list[tuple[str, str, str]]:
    return [(each["kind"], each["by"], each["text"]) for each in rig.core.events.since(0) if "service" in each["kind"]]


def test_what_is_held_is_dispatched_in_its_order_and_what_was_in_flight_goes_on() -> None:
    rig = Rig()
    one, _two = rig.pool_of(2)
    rig.request(1)
    assert pause(rig) == {
        "schema": 1,
        "service": "orders",
        "left_s": 30.0,
        "in_flight": 1,
        "held": 0,
        "changed": True,
    }
    for number in range(2, 6):
        rig.request(number)
    assert len(rig.deliveries) == 1
    rig.reply(one, 1)
    assert rig.codes() == {1: 0} and len(rig.deliveries) == 1
    assert resume(rig)["held"] == 4
    while len(rig.answers) < 5:
        slot, number, _ = rig.deliveries[len(rig.answers)]
        rig.reply(slot, number)
    assert [answer.number for answer in rig.answers] == [1, 2, 3, 4, 5]
    assert set(rig.codes().values()) == {errors.OK}


def test_its_end_comes_by_itself() -> None:
    rig = Rig(service={"pause_for": 2.0})
    rig.pool_of(1)
    pause(rig)
    rig.request(1)
    rig.after(1.9)
    assert not rig.deliveries
    rig.after(0.2)
    assert len(rig.deliveries) == 1
    assert [kind for kind, _, _ in events(rig)] == ["service paused", "service resumed"]
    assert "its pause was over; it held 1 request" in events(rig)[-1][2]


def test_a_pause_that_is_said_again_counts_anew() -> None:
    rig = Rig()
    rig.pool_of(1)
    pause(rig, for_s=1.0)
    rig.request(1)
    rig.after(0.9)
    assert pause(rig, for_s=1.0)["changed"] is False
    rig.after(0.9)
    assert not rig.deliveries
    rig.after(0.2)
    assert rig.deliveries


@pytest.mark.parametrize("for_s", [0, -1, 3601, 1e12, "x"])
def test_a_pause_without_a_sensible_end_is_refused(for_s: object) -> None:
    rig = Rig()
    rig.pool_of(1)
    result = rig.verb("pause", service="orders", for_s=for_s)
    assert result is not None and result.exit == exits.USAGE
    rig.request(1)
    assert rig.deliveries


def test_unknown_services_are_told_with_the_nearest() -> None:
    rig = Rig()
    rig.pool_of(1)
    for verb in ("pause", "resume"):
        result = rig.verb(verb, service="order")
        assert result is not None and result.exit == exits.NOT_FOUND and result.data["nearest"] == ["orders"]


def test_to_resume_what_is_not_paused_is_done_already() -> None:
    rig = Rig()
    rig.pool_of(1)
    assert resume(rig) == {"schema": 1, "service": "orders", "held": 0, "changed": False}


def test_what_is_held_is_bounded_as_a_queue_is() -> None:
    rig = Rig(service={"queue_limit": 2})
    rig.pool_of(1)
    pause(rig, for_s=5.0)
    for number in (1, 2, 3):
        rig.request(number)
    (refused,) = rig.answers
    assert refused.number == 3 and refused.code == errors.Overloaded.code and "which is paused" in refused.cause
    assert msgpack.unpackb(refused.body)["retry_after_ms"] == pytest.approx(5000, abs=100)
    resume(rig)
    assert len(rig.deliveries) == 1


def test_the_time_of_a_pause_is_not_held_against_anybody() -> None:
    rig = Rig(service={"queue_timeout": 1.0})
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2)
    rig.after(0.8)
    pause(rig, for_s=3.0)
    rig.request(3)
    rig.after(2.9)
    assert not rig.answers
    rig.after(1.0)  # the pause is over for 0.9 s, and the first still runs
    assert not rig.answers
    rig.after(0.2)
    assert rig.codes() == {2: errors.Overloaded.code, 3: errors.Overloaded.code}
    rig.reply(slot, 1)
    assert rig.codes()[1] == errors.OK


def test_a_deadline_holds_during_a_pause() -> None:
    rig = Rig()
    rig.pool_of(1)
    pause(rig)
    rig.request(1, timeout_ms=500)
    rig.after(0.6)
    assert rig.codes() == {1: errors.Timeout.code}
    rig.request(2)
    resume(rig)
    assert len(rig.deliveries) == 1


def test_what_comes_back_from_a_lost_process_is_held_too() -> None:
    rig = Rig()
    one, two = rig.pool_of(2)
    rig.request(1)
    pause(rig)
    rig.exited(one)
    assert [slot for slot, _, _ in rig.deliveries] == [one] and not rig.answers
    resume(rig)
    assert [slot for slot, _, _ in rig.deliveries] == [one, two]


def test_processes_that_join_during_a_pause_wait_too() -> None:
    rig = Rig()
    rig.pool_of(1)
    pause(rig)
    rig.request(1)
    node = rig.agent("n2", "b2")
    rig.process(node)
    assert not rig.deliveries
    resume(rig)
    assert len(rig.deliveries) == 1


def test_no_process_is_added_for_what_is_held() -> None:
    rig = Rig(service={"min_processes": 1, "max_processes": 4, "grow_after": 0.5})
    node = rig.agent(capacity=4)
    rig.process(node)
    pause(rig, for_s=5.0)
    rig.request(1)
    rig.request(2)
    rig.after(4.0)
    assert service(rig)["target"] == 1
    resume(rig)
    rig.after(0.4)
    assert service(rig)["target"] == 1
    rig.after(0.4)
    assert service(rig)["target"] == 2


def test_status_and_events_say_who_and_why_and_how_long() -> None:
    rig = Rig()
    rig.pool_of(1)
    pause(rig, for_s=20.0, reason="new disk")
    rig.request(1)
    rig.after(5.0)
    pause(rig, for_s=15.0, reason="new disk")  # from now on, of a pause that has lasted for a while
    paused = service(rig)["paused"]
    assert (paused["by"], paused["reason"]) == ("ann", "new disk")
    assert paused["left_s"] == pytest.approx(15, abs=0.1) and paused["since_s"] == pytest.approx(5, abs=0.1)
    (alarm,) = rig.core.status(rig.now)["master"]["alarms"]
    assert alarm == (
        "orders is paused by ann: new disk; it holds 1 request; it ends in 15 s, or with `rota resume orders`"
    )
    resume(rig)
    assert service(rig)["paused"] is None and not rig.core.status(rig.now)["master"]["alarms"]
    assert [(kind, by) for kind, by, _ in events(rig)] == [
        ("service paused", "ann"),
        ("service paused", "ann"),
        ("service resumed", "ann"),
    ]


def test_waiting_for_paused_ends_when_nothing_is_in_flight() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    pause(rig)
    assert rig.verb("wait", condition="paused", names=["orders"], timeout_s=10.0) is None
    rig.reply(slot, 1)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.ok


def test_waiting_for_paused_fails_when_the_pause_is_over_and_is_under_way_when_its_time_is() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1)
    pause(rig, for_s=2.0)
    assert rig.verb("wait", condition="paused", names=["orders"], timeout_s=1.0) is None
    rig.after(1.1)
    late = rig.result()
    assert late is not None and late.exit == exits.UNDER_WAY
    assert late.data["pending"] == [{"name": "orders", "why": "1 request in flight"}]
    assert rig.verb("wait", condition="paused", names=["orders"], timeout_s=10.0) is None
    rig.after(1.0)
    over = rig.result()
    assert over is not None and over.exit == exits.FAILED and over.data["error"] == "orders is not paused"


def restored(rig: Rig) -> Restored:
    """What its journal says, compacted once."""
    written, compacted = Restored(), Restored()
    for record in rig.records:
        written.read(record)
    for record in written.records():
        compacted.read(record)
    return compacted


@pytest.mark.parametrize(("wall_s", "left_s"), [(4.0, 6.0), (-3600.0, 10.0), (0.0, 10.0)])
def test_a_restarted_master_holds_on_until_the_time_that_was_said(wall_s: float, left_s: float) -> None:
    before = Rig()
    before.wall -= wall_s  # so much later by the clock on the wall the next one starts
    before.pool_of(1)
    pause(before, for_s=10.0, reason="new disk")
    rig = Rig(restored=restored(before), epoch=2)
    ((kind, by, text),) = events(rig)
    assert (kind, by) == ("service paused", "ann") and f"still held, for {left_s:.1f} s" in text
    (alarm,) = rig.core.status(rig.now)["master"]["alarms"]
    assert "paused by ann: new disk; it holds 0 requests" in alarm, "though no node offers it yet"
    rig.pool_of(1)
    rig.request(1)
    rig.after(left_s - 0.2)
    assert not rig.deliveries
    rig.after(0.4)
    assert rig.deliveries


def test_what_an_older_master_dispatched_is_waited_for_too() -> None:
    before = Rig()
    before.pool_of(1)
    pause(before, for_s=10.0)
    rig = Rig(restored=restored(before), epoch=2)
    slot = rig.process(rig.agent(), held=[held(1, 1)], received_upto=1, started_upto=1)
    assert pause(rig)["in_flight"] == 1
    assert rig.verb("wait", condition="paused", names=["orders"], timeout_s=10.0) is None
    rig.reply(slot, 1, epoch=1, flags=wire.ORIGIN, tail=wire.ORIGIN_STRUCT.pack(SESSION, 1))
    rig.after(0.1)
    assert (result := rig.result()) is not None and result.ok


def test_a_pause_that_ended_or_whose_time_has_passed_is_not_held_on() -> None:
    before = Rig()
    before.wall -= 11.0
    before.pool_of(1)
    pause(before, for_s=10.0)
    late = Rig(restored=restored(before), epoch=2)
    late.after(0.02)
    assert "still held" not in str(events(late))
    assert not late.fleet.pauses.held and not late.core.known.paused, "nor by a third master whose clock is set back"
    before.wall += 11.0
    pause(before, for_s=10.0)
    assert Rig(restored=restored(before), epoch=2).fleet.pauses.held
    resume(before)
    assert not Rig(restored=restored(before), epoch=2).fleet.pauses.held


def test_resume_is_done_where_the_journal_fails_and_pause_is_not() -> None:
    rig = Rig()
    rig.pool_of(1)
    pause(rig)
    rig.request(1)
    rig.core.journal_failed("disk full")
    rig.durable = False
    assert resume(rig)["changed"] and rig.deliveries
    refused = rig.verb("pause", service="orders")
    assert refused is not None and refused.exit == exits.FAILED


def test_a_service_that_is_paused_drains_and_takes_new_settings() -> None:
    rig = Rig()
    one, *_ = rig.pool_of(1)
    other = rig.agent("n2", "b2")
    rig.process(other)
    pause(rig)
    rig.request(1)
    rig.services["orders"] = ServiceSettings(ramp=0.0, credit=4)
    rig.fleet.reconfigure()
    assert not rig.deliveries
    drained = rig.verb("drain", nodes=["n1"])
    assert drained is not None and drained.ok
    rig.after(0.1)
    assert str(one.node.intent) == "detached"
    resume(rig)
    assert [slot.node.name for slot, _, _ in rig.deliveries] == ["n2"]


def test_a_suspect_does_not_run_alone_during_a_pause() -> None:
    rig = Rig()
    one, two = rig.pool_of(2)
    rig.request(1, "orders.again")
    pause(rig)
    rig.exited(one, started_upto=1, rows=[(1, 1)], kind="signalled")
    rig.after(0.5)
    assert [slot for slot, _, _ in rig.deliveries] == [one] and rig.dispatch.quarantine.waiting
    resume(rig)
    rig.after(0.5)
    assert [slot for slot, _, _ in rig.deliveries] == [one, two]
