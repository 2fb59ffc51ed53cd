"""Idempotency keys and the words of a service, with real clients and processes, some of which are killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import rota
from rota.testing import LocalCluster

TESTS = Path(__file__).parent
WAIT_S = 20.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {
        "service.shop.credit": 1,
        "service.shop.fault.maybe_executed": {"text": "we lost your order", "code": "E7"},
    }
    with LocalCluster("keyed_app:app", processes=3, app_dir=TESTS, settings=settings) as cluster:
        yield cluster


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """Where each run leaves a line."""
    return tmp_path / "book"


def runs(book: Path, least: int = 1) -> list[int]:
    """The processes that ran it, as soon as there are so many."""
    until = time.monotonic() + WAIT_S
    while True:
        found = [int(line) for line in book.read_text().split()] if book.exists() else []
        if len(found) >= least:
            return found
        assert time.monotonic() < until, "it did not begin"
        time.sleep(0.005)


def test_two_clients_with_one_key_are_one_run_and_both_are_answered(cluster: LocalCluster, book: Path) -> None:
    one, two = cluster.client(idempotency_key="both"), cluster.client(idempotency_key="both")
    first = one.submit("shop.charge", book=str(book), seconds=0.3)
    runs(book)
    second = two.submit("shop.charge", book=str(book), seconds=0.3)
    assert first.result(WAIT_S) == second.result(WAIT_S) == runs(book)[0]
    assert one.call("shop.charge", book=str(book), seconds=0.3) == first.result()
    assert len(runs(book)) == 1


def test_after_a_kill_a_repeated_call_of_a_default_handler_does_not_run_again(
    cluster: LocalCluster, book: Path
) -> None:
    one, two = cluster.client(idempotency_key="killed"), cluster.client(idempotency_key="killed")
    first = one.submit("shop.charge", book=str(book), seconds=30)
    (pid,) = runs(book)
    os.kill(pid, signal.SIGKILL)
    for call in (first, two.submit("shop.charge", book=str(book), seconds=30)):
        with pytest.raises(rota.MaybeExecuted, match="we lost your order") as raised:
            call.result(WAIT_S)
        assert raised.value.details["code"] == "E7" and "SIGKILL" in str(raised.value.details["cause"])
    assert runs(book) == [pid]


@pytest.mark.parametrize("size", [0, 200_000])  # large arguments are not copied on their way but patched in place
def test_after_a_kill_a_handler_that_is_idempotent_by_key_runs_again_once_for_all_callers(
    cluster: LocalCluster, book: Path, size: int
) -> None:
    one, two = (cluster.client(idempotency_key=f"again {size}") for _ in range(2))
    calls = [each.submit("shop.keyed", book=str(book), seconds=0.7, padding=bytes(size)) for each in (one, two)]
    (pid,) = runs(book)
    os.kill(pid, signal.SIGKILL)
    assert calls[0].result(WAIT_S) == calls[1].result(WAIT_S) == runs(book, 2)[1] != pid
    assert len(runs(book)) == 2


def test_a_call_that_timed_out_is_answered_when_it_is_repeated(cluster: LocalCluster, book: Path) -> None:
    client = cluster.client(idempotency_key="late")
    with pytest.raises(rota.Timeout):
        client.options(timeout=0.2).call("shop.charge", book=str(book), seconds=0.6)
    assert client.call("shop.charge", book=str(book), seconds=0.6) == runs(book)[0]
    assert len(runs(book)) == 1


def test_other_arguments_under_a_key_are_refused(cluster: LocalCluster, book: Path) -> None:
    client = cluster.client(idempotency_key="taken")
    client.call("shop.charge", book=str(book))
    with pytest.raises(rota.Conflict, match="take a new key"):
        client.call("shop.charge", book=str(book), seconds=0.1)


def test_the_masters_log_has_each_lost_process_with_its_cause(cluster: LocalCluster, book: Path) -> None:
    call = cluster.client().submit("shop.charge", book=str(book), seconds=30)
    (pid,) = runs(book)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(rota.MaybeExecuted):
        call.result(WAIT_S)
    until = time.monotonic() + WAIT_S
    while not any("process lost" in line and str(pid) in line for line in cluster.log().splitlines()):
        assert time.monotonic() < until
        time.sleep(0.02)
