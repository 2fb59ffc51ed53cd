"""Port checks of a node: when is a port tried, when is the master told, and nothing ever waits for a name server."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from math import inf

import pytest
from node_rig import Node, sent

from rota.common.messages import Plan, PortCheck, Unwell
from rota.worker.core.ports import Ports, Try
from rota.worker.ports import PortTries, attempt

CHECK = PortCheck("db:5432", 1000, 300)


def tries(effects: list[Try | Unwell]) -> list[int]:
    return [effect.number for effect in effects if isinstance(effect, Try)]


@pytest.fixture
def ports() -> Ports:
    made = Ports()
    made.planned({"orders": CHECK}, 100.0)
    return made


def test_a_port_is_tried_at_once_and_then_at_its_interval(ports: Ports) -> None:
    assert ports.tick(100.0) == [Try("orders", 1, "db:5432", 0.3)]
    assert ports.tried("orders", 1, "") == [Unwell("orders", "")]  # what it found first is news
    assert ports.next_deadline() == 101.0
    assert ports.tick(100.9) == []
    assert tries(ports.tick(101.0)) == [2]


def test_only_a_change_is_told(ports: Ports) -> None:
    told = []
    for second, text in enumerate(["refused", "refused", "no route", "", "", "refused"]):
        (number,) = tries(ports.tick(100.0 + second))
        told += ports.tried("orders", number, text)
    assert told == [Unwell("orders", "refused"), Unwell("orders", ""), Unwell("orders", "refused")]


def test_a_try_that_does_not_come_back_is_a_failure_when_its_time_is_over(ports: Ports) -> None:
    ports.tick(100.0)
    assert ports.next_deadline() == pytest.approx(100.3)
    assert ports.tick(100.3) == [Unwell("orders", "db:5432: no answer within 300 ms")]


def test_a_pause_of_our_own_takes_no_time_from_a_try(node: Node) -> None:
    node.hear(Plan({"orders": 0}, {}, {"orders": CHECK}))
    (asked,) = [effect for effect in node.tick() if isinstance(effect, Try)]
    assert not sent(node.tick(60.0), Unwell)
    assert sent(node.core.tried("orders", asked.number, ""), Unwell) == [Unwell("orders", "")]


def test_a_late_answer_is_not_believed_and_until_it_comes_there_is_no_other_try(ports: Ports) -> None:
    ports.tick(100.0)
    ports.tick(100.3)
    assert ports.tick(101.0) == ports.tick(102.0) == []
    assert ports.tried("orders", 1, "") == []
    assert tries(ports.tick(103.0)) == [2]
    assert ports.tried("orders", 2, "") == [Unwell("orders", "")]


def test_a_new_master_is_told_what_was_found(ports: Ports) -> None:
    assert ports.findings() == []
    ports.tick(100.0)
    ports.tried("orders", 1, "refused")
    assert ports.findings() == [Unwell("orders", "refused")]


def test_a_plan_that_changes_nothing_disturbs_no_check(ports: Ports) -> None:
    ports.tick(100.0)
    ports.planned({"orders": CHECK}, 100.1)
    assert ports.tick(100.1) == []
    assert ports.tried("orders", 1, "") == [Unwell("orders", "")]


def test_another_address_is_another_check_and_answers_for_the_old_one_are_dropped(ports: Ports) -> None:
    ports.tick(100.0)
    ports.planned({"orders": CHECK._replace(address="db2:5432")}, 100.1)
    assert ports.tried("orders", 1, "refused") == []
    assert ports.tick(100.1) == [Try("orders", 2, "db2:5432", 0.3)]


def test_a_check_that_is_not_wanted_any_more_ends(ports: Ports) -> None:
    ports.tick(100.0)
    ports.planned({}, 100.1)
    assert (ports.tried("orders", 1, "refused"), ports.tick(200.0), ports.findings()) == ([], [], [])
    assert ports.next_deadline() == inf


# ---- real sockets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def address_of(listener: socket.socket) -> str:
    return "{}:{}".format(*listener.getsockname())


def test_a_port_that_somebody_listens_on_is_well(listener: socket.socket) -> None:
    assert attempt(address_of(listener), 5.0) == ""


def test_the_reason_of_a_failure_is_told(listener: socket.socket) -> None:
    address = address_of(listener)
    listener.close()
    assert attempt(address, 5.0) == f"{address}: Connection refused"
    assert attempt("127.0.0.1:port", 5.0).startswith("127.0.0.1:port: ")
    assert attempt("127.0.0.1:99999", 5.0).startswith("127.0.0.1:99999: ")
    assert attempt("host..invalid:80", 5.0).startswith("host..invalid:80: ")


def test_tries_answer_through_a_descriptor(listener: socket.socket) -> None:
    tries = PortTries()
    for number in (1, 2):
        tries.start(Try("orders", number, address_of(listener), 5.0))
    answers: list[tuple[str, int, str]] = []
    while len(answers) < 2:
        assert select.select([tries.fd], [], [], 20)[0]
        answers += tries.answers()
    assert sorted(answers) == [("orders", 1, ""), ("orders", 2, "")]
    assert tries.answers() == []
