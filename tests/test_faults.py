"""What callers are told of a fault, in rota's words or in those of the service."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import msgpack
import pytest
from click.testing import CliRunner
from core_rig import Answer, Rig

from rota.cli.main import JSON_WANTED, Verbs, main
from rota.common import errors, wire
from rota.common.body import decode_error
from rota.common.declare import declared
from rota.common.settings import FaultSettings, ServiceSettings
from rota.master.core.faults import MAINTENANCE, NAMES, worded

TOLD = {"text": "the shop is closed, try again later", "code": "E1203"}


def error_of(answer: Answer) -> errors.Error:
    return decode_error(answer.code, answer.body)


def test_every_setting_of_the_section_is_the_name_of_one_fault() -> None:
    assert {*NAMES.values(), MAINTENANCE} == set(declared(FaultSettings))
    assert len(set(NAMES.values())) == len(NAMES)


def test_without_words_of_its_own_a_service_has_rotas() -> None:
    assert all(worded(FaultSettings(), code) == {} for code in range(30))


def timed_out(rig: Rig) -> None:
    rig.pool_of(1)
    rig.request(1, timeout_ms=50)
    rig.after(0.1)


def refused(rig: Rig) -> None:
    rig.default = ServiceSettings(queue_limit=0, fault=rig.default.fault)
    rig.pool_of(1)
    rig.request(1)
    rig.request(2)


def lost(rig: Rig) -> None:
    first, _ = rig.pool_of(2)
    rig.request(1)
    rig.exited(first, started_upto=1)


def unknown(rig: Rig) -> None:
    rig.pool_of(1)
    rig.request(1, "orders.nothing")


def too_large(rig: Rig) -> None:
    rig.pool_of(1)
    rig.request(1, body=bytes(rig.core.settings.max_message + 1))


def contradicted(rig: Rig) -> None:
    rig.pool_of(1)
    rig.request(2, key="k", body=b"one")
    rig.request(3, key="k", body=b"two")


@pytest.mark.parametrize(
    ("fault", "cause_it", "kind", "words"),
    [
        ("timeout", timed_out, errors.Timeout, "while its handler ran"),
        ("overloaded", refused, errors.Overloaded, "wait already"),
        ("maybe_executed", lost, errors.MaybeExecuted, "signal 9"),
        ("no_service", unknown, errors.NoService, "orders.nothing"),
        ("payload_too_large", too_large, errors.PayloadTooLarge, "4,096 are allowed (master.max_message)"),
        ("conflict", contradicted, errors.Conflict, "other arguments"),
    ],
)
def test_callers_are_told_the_text_and_code_of_the_service_and_find_the_cause_in_the_details(
    fault: str, cause_it: Callable[[Rig], None], kind: type[errors.Error], words: str
) -> None:
    rig = Rig({"fault": FaultSettings(**{fault: TOLD})}, max_message=4096)
    cause_it(rig)
    error = error_of(rig.answers[-1])
    assert type(error) is kind and error.cause == TOLD["text"]
    assert error.details["code"] == "E1203" and words in str(error.details["cause"])


def test_a_retry_hint_stays_with_the_words_of_the_service() -> None:
    rig = Rig({"fault": FaultSettings(overloaded=TOLD)})
    refused(rig)
    assert error_of(rig.answers[-1]).retry_after is not None


def test_a_code_alone_leaves_rotas_words() -> None:
    rig = Rig({"fault": FaultSettings(timeout={"code": "E7"})})
    timed_out(rig)
    error = error_of(rig.answers[-1])
    assert error.details == {"code": "E7"} and "while its handler ran" in error.cause


def test_words_for_one_fault_leave_the_others_alone() -> None:
    rig = Rig({"fault": FaultSettings(timeout=TOLD)})
    lost(rig)
    error = error_of(rig.answers[-1])
    assert "signal 9" in error.cause and not error.details


def test_a_service_that_nobody_offers_has_its_words_too() -> None:
    rig = Rig()
    rig.services["shop"] = ServiceSettings(fault=FaultSettings(no_service=TOLD))
    rig.request(1, "shop.quote")
    rig.after(5.0)
    assert error_of(rig.answers[-1]).cause == TOLD["text"]


def test_new_words_hold_from_the_next_fault_on() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.default = ServiceSettings(fault=FaultSettings(no_service=TOLD))
    rig.core.reconfigure(rig.sections)
    rig.request(1, "orders.nothing")
    assert error_of(rig.answers[-1]).cause == TOLD["text"]


def test_every_caller_of_a_key_is_told_the_same() -> None:
    rig = Rig({"fault": FaultSettings(maybe_executed=TOLD)})
    first, _ = rig.pool_of(2)
    rig.request(1, key="k")
    rig.request(2, key="k")
    rig.exited(first, started_upto=1)
    rig.request(3, key="k")
    assert [error_of(answer).cause for answer in rig.answers] == [TOLD["text"]] * 3


@pytest.mark.parametrize("name", [b"\xff\xfe.x", b"", b".", b"nodot"])
def test_whatever_a_target_is_its_fault_is_told(name: bytes) -> None:
    rig = Rig()
    rig.client()
    token = rig.dispatch.routes[b"c"].token
    frame = wire.head(wire.REQUEST, token, 1, 1000, 1, 0, 1, len(name), 0, name)
    rig.core.frontend(b"c", frame, rig.now)
    rig.after(5.0)
    assert rig.codes() == {1: errors.NoService.code}
    assert msgpack.unpackb(rig.answers[-1].body)["cause"]


@pytest.mark.parametrize("details", [{}, {"code": "E1203", "cause": "the deadline passed"}])
def test_the_command_line_shows_the_code_and_json_the_cause_too(
    details: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    @click.pass_context
    def late(ctx: click.Context) -> None:
        ctx.meta[JSON_WANTED] = True
        raise errors.Timeout("the shop is slow", details=details)

    monkeypatch.setattr(Verbs, "get_command", lambda *_: late)
    said = CliRunner().invoke(main, ["call"])
    assert said.stderr == ("Error: E1203: the shop is slow\n" if details else "Error: the shop is slow\n")
    assert json.loads(said.stdout) == {"schema": 1, "error": "the shop is slow", **details}
