"""Services that operators close: their callers are told at once, and what runs is finished."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from core_rig import Rig, held

from rota.common import errors, exits, wire
from rota.common.body import decode_error
from rota.common.messages import ROW_RUNNING, End
from rota.common.settings import FaultSettings
from rota.master.core.pool import Stage
from rota.master.core.records import Restored

NO_SERVICE = errors.NoService.code


def closed(rig: Rig, **more: Any) -> dict[str, Any]:
    result = rig.verb("maintenance", service="orders", on=True, **more)
    assert result is not None and result.exit == exits.DONE
    return result.data


def opened(rig: Rig) -> dict[str, Any]:
    result = rig.verb("maintenance", service="orders", on=False)
    assert result is not None and result.exit == exits.DONE
    return result.data


def error_of(rig: Rig, number: int) -> errors.Error:
    answer = next(each for each in rig.answers if each.number == number)
    return decode_error(answer.code, answer.body)


def test_a_closed_service_refuses_at_once_and_says_when_to_come_again() -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.request(1)
    closed(rig, retry_after_s=90, reason="disk")
    rig.request(2)
    error = error_of(rig, 2)
    assert isinstance(error, errors.NoService) and error.retry_after == 90 and error.details["maintenance"] is True
    assert "disk" not in str(error) and len(rig.deliveries) == 1
    opened(rig)
    rig.request(3)
    assert len(rig.deliveries) == 2 and rig.codes() == {2: NO_SERVICE}


def test_every_request_to_a_closed_service_is_refused() -> None:
    rig = Rig()
    rig.pool_of(2)
    closed(rig)
    for number in (1, 2, 3):
        rig.request(number)
    assert rig.codes() == {1: NO_SERVICE, 2: NO_SERVICE, 3: NO_SERVICE} and rig.deliveries == []


def test_what_waits_to_run_alone_is_told_too() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    for number in (1, 2):
        rig.request(number, body=b"poison")
    rig.exited(first, 1, [(1, ROW_RUNNING)], kind=End.SIGNALLED)
    rig.request(3, body=b"poison")
    closed(rig)
    rig.reply(second, 1)
    rig.after(0.1)
    assert (rig.codes()[3], rig.codes()[2], len(rig.deliveries)) == (NO_SERVICE, errors.OK, 2)


@pytest.mark.parametrize("fenced", [False, True])
def test_what_an_older_master_had_is_told_so_only_if_it_never_ran(fenced: bool) -> None:
    """That its service is closed would say that nothing was run."""
    rig = Rig(epoch=2)
    (slot,) = rig.pool_of(1)
    if fenced:
        rig.process_hello(slot.incarnation, route=b"again", received_upto=1, held=[held(1, 7, epoch=1)])
        rig.reply(slot, 1, code=errors.NOT_STARTED, epoch=1, body=errors.BY_FENCE)
    closed(rig)
    rig.client(epoch=1)
    rig.request(7, flags=wire.RESENT | wire.OLDER, epoch=1)
    assert rig.codes() == {7: NO_SERVICE if fenced else errors.MaybeExecuted.code} and not rig.deliveries


def test_waiting_ends_when_nothing_is_in_flight_or_when_it_is_over() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    closed(rig)
    assert rig.verb("wait", condition="maintenance", names=["orders"]) is None
    rig.reply(slot, 1)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.exit == exits.DONE
    opened(rig)
    result = rig.verb("wait", condition="maintenance", names=["orders"])
    assert result is not None and result.exit == exits.FAILED


def test_who_waits_without_a_name_waits_for_all_services() -> None:
    rig = Rig()
    rig.pool_of(1)
    result = rig.verb("wait", condition="maintenance", names=[])
    assert result is not None and result.exit == exits.FAILED, "none is closed"
    closed(rig)
    result = rig.verb("wait", condition="maintenance", names=[])
    assert result is not None and result.ok and result.data["names"] == ["orders"]


def test_a_handler_that_is_unknown_is_told_apart_from_a_service_that_is() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, "orders.nothing")
    rig.request(2, "nobody.quote")
    rig.after(0.1)
    assert [error_of(rig, number).details["unknown"] for number in (1, 2)] == ["handler", "service"]


def test_what_runs_is_finished_and_what_waits_is_refused() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.request(2)
    rig.request(3, key="k")
    assert closed(rig)["in_flight"] == 1
    assert rig.codes() == {2: NO_SERVICE, 3: NO_SERVICE} and rig.dispatch.queued_bytes == 0
    rig.reply(slot, 1)
    assert rig.codes()[1] == errors.OK and closed(rig)["in_flight"] == 0
    opened(rig)
    rig.request(4, key="k")  # a refusal is nothing that a key records
    rig.reply(slot, slot.last_number)
    assert rig.codes()[4] == errors.OK


def test_a_lost_attempt_of_before_may_still_run_again() -> None:
    rig = Rig()
    first, second = rig.pool_of(2)
    rig.request(1, "orders.again")
    closed(rig)
    slot = rig.deliveries[0][0]
    rig.exited(slot, started_upto=1, rows=[(1, 1)])
    other = second if slot is first else first
    rig.reply(other, other.last_number)
    assert rig.codes() == {1: errors.OK}


def test_what_a_key_has_on_record_is_answered_while_its_service_is_closed() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1, key="k")
    rig.reply(slot, 1)
    closed(rig)
    rig.request(2, key="k")
    rig.request(3, key="new")
    assert rig.codes() == {1: errors.OK, 2: errors.OK, 3: NO_SERVICE}


def test_a_service_is_closed_for_callers_also_where_no_node_offers_it_any_more() -> None:
    rig = Rig()
    rig.pool_of(1)
    closed(rig, reason="disk")
    restored = Restored()
    for record in rig.records:
        restored.read(record)
    again = Rig(restored=restored)
    for record in restored.records():
        Restored().read(record)
    again.request(1)
    again.after(0.1)
    assert error_of(again, 1).details["maintenance"] is True
    status = again.core.status(again.now)["master"]["maintenance"]
    assert status == {"orders": {"retry_after": 60.0, "by": "ann", "reason": "disk", "stopped": False}}
    opened(again)
    assert again.core.status(again.now)["master"]["maintenance"] == {}
    for record in again.records:
        restored.read(record)
    assert restored.closed == {}


def test_twice_is_already_so_and_journaled_once() -> None:
    rig = Rig()
    rig.pool_of(1)
    assert closed(rig)["changed"] and not closed(rig)["changed"]
    assert closed(rig, retry_after_s=5)["changed"]
    assert opened(rig)["changed"] and not opened(rig)["changed"]
    kinds = [msgpack.unpackb(record)["t"] for record in rig.records]
    assert kinds.count("closed") == 3


def test_a_service_that_nobody_knows_is_exit_4() -> None:
    rig = Rig()
    rig.pool_of(1)
    result = rig.verb("maintenance", service="order", on=True)
    assert result is not None and result.exit == exits.NOT_FOUND and result.data["nearest"] == ["orders"]


def test_a_service_words_it_itself() -> None:
    words = {"text": "Back at noon.", "code": "E-42"}
    rig = Rig({"fault": replace(FaultSettings(), maintenance=words)})
    rig.pool_of(1)
    closed(rig)
    rig.request(1)
    error = error_of(rig, 1)
    assert error.cause == "Back at noon." and error.details["code"] == "E-42"
    assert error.details["maintenance"] is True and "closed" in str(error.details["cause"])


def test_checks_of_health_go_on() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    closed(rig)
    rig.after(1.0)
    assert slot.open and rig.core.status(rig.now)["services"][0]["open"] == 1


def test_a_service_that_is_stopped_has_no_process_until_it_is_started_and_its_room_goes_to_others() -> None:
    rig = Rig()
    node = rig.agent(capacity=2, offers=["orders", "reports"])
    rig.after(0.1)
    assert node.plan == {"orders": 1, "reports": 1}
    rig.verb("maintenance", service="reports", on=True, stop=True)
    rig.after(0.1)
    assert node.plan == {"orders": 2}
    rig.verb("maintenance", service="reports", on=False)
    rig.after(0.1)
    assert node.plan == {"orders": 1, "reports": 1}


@pytest.mark.parametrize("sizes", [{}, {"min_processes": 2, "max_processes": 2}])
def test_a_stop_ends_also_the_last_processes_when_what_they_run_is_done(sizes: dict[str, int]) -> None:
    rig = Rig({"min_active": 1, **sizes})
    first, second = rig.pool_of(2)
    rig.request(1)
    rig.verb("maintenance", service="orders", on=True, stop=True)
    rig.after(0.1)
    busy, idle = (first, second) if first.inflight else (second, first)
    assert {busy.stage, idle.stage} == {Stage.CLOSING, Stage.RETIRED}
    rig.reply(busy, 1)
    rig.after(0.1)
    assert busy.stage is Stage.RETIRED and rig.codes() == {1: errors.OK}
    assert {node["why"].rpartition(", ")[2] for node in rig.core.status(rig.now)["nodes"]} == {
        "or it is closed for maintenance"
    }
    rig.verb("maintenance", service="orders", on=False)
    rig.after(0.1)
    assert first.node.plan == {"orders": 2}


@pytest.mark.parametrize("told", [{"stop": True}, {"retry_after_s": 5.0}])
def test_what_is_said_of_a_closed_service_is_refused_where_one_is_opened(told: dict[str, Any]) -> None:
    """It was opened, and its processes started: whoever said stop wanted them to end."""
    rig = Rig()
    rig.pool_of(1)
    closed(rig)
    result = rig.verb("maintenance", service="orders", on=False, **told)
    assert result is not None and result.exit == exits.USAGE
    assert "stop and retry_after are for a service that is to be closed" in result.data["error"]
    assert "orders" in rig.core.status(rig.now)["master"]["maintenance"], "and it is closed still"


def test_a_node_of_a_stopped_service_only_may_be_put_on_the_blacklist() -> None:
    rig = Rig()
    (slot, _) = rig.pool_of(2)
    pool, node = slot.pool, slot.node
    assert "would be left" in rig.fleet.checks._why_not_eject(node, pool, rig.now)
    rig.verb("maintenance", service="orders", on=True, stop=True)
    assert "would be left" not in rig.fleet.checks._why_not_eject(node, pool, rig.now)


def test_a_stop_outlasts_a_restart_of_the_master() -> None:
    rig = Rig()
    rig.pool_of(1)
    closed(rig, stop=True)
    restored = Restored()
    for record in rig.records:
        restored.read(record)
    again = Rig(restored=restored, epoch=2)
    node = again.agent()
    again.after(0.1)
    assert node.plan == {} and again.core.status(again.now)["master"]["maintenance"]["orders"]["stopped"]


def test_what_runs_inside_an_application_cannot_be_stopped() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    slot.node.embedded = True
    result = rig.verb("maintenance", service="orders", on=True, stop=True)
    assert result is not None and result.exit == exits.REFUSED and not rig.dispatch.maintenance.closed
