"""The bench's arithmetic and its way with processes; the figures themselves are `make bench`."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import zmq
from waiting import is_gone, until

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """`bench/` is no part of the installed package, so it is loaded from its folder."""
    place = ROOT / "bench"
    spec = importlib.util.spec_from_file_location(
        "bench", place / "__init__.py", submodule_search_locations=[str(place)]
    )
    assert spec and spec.loader
    package = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = package
    spec.loader.exec_module(package)
    for name in ("report", "proc", "launch", "http_systems", "http_peers", "rounds", "slow_clients", "operations"):
        importlib.import_module(f"bench.{name}")
    return package


def sample(bench, system, rate, turn=0, own=10.0):
    cell = bench.report.Cell(128, 32)
    return bench.report.Sample(system, cell, turn, rate, 1.0, 2.0, {"client": 5.0}, {"master": own})


def test_a_quantile_is_a_value_that_was_measured(bench):
    values = [1.0, 2.0, 3.0, 4.0]
    assert bench.report.quantile(values, 0.50) == 2.0
    assert bench.report.quantile(values, 0.99) == 4.0
    assert bench.report.quantile([7.0], 0.50) == 7.0
    assert bench.report.quantile([float(n) for n in range(1, 101)], 0.99) == 99.0


def test_a_batch_that_has_not_come_yet_is_taken_and_not_measured(bench, monkeypatch):
    """A busy machine gives the peer no time to send it while it is waited for."""
    monkeypatch.setattr(bench.operations, "SETTLE", 0.0)
    asked, waiting = [], []

    class Router:
        def send_multipart(self, frames):
            asked.append(frames)
            waiting.extend([len(asked) == 1] * 5)  # of the first batch nothing is there in time

        def recv_multipart(self):
            waiting.pop()

    def receive():
        if waiting[-1]:
            raise zmq.Again
        waiting.pop()

    assert bench.operations.receiving(Router(), b"peer", 5, receive, 0.0) >= 0
    assert (len(asked), waiting) == (4, [])


def test_a_ratio_compares_within_a_round_only(bench):
    rates = [("rota", 300, 0), ("textbook", 100, 0), ("rota", 100, 1), ("textbook", 50, 1)]
    rates += [("rota", 999, 2)]  # the other one is missing in round 2
    samples = [sample(bench, system, rate, turn) for system, rate, turn in rates]
    found = bench.report.ratios(samples, "rota", bench.report.Cell(128, 32), "textbook")
    assert found == [3.0, 2.0]
    assert bench.report.spread(found) == (2.5, 2.0, 3.0)


def test_what_was_not_measured_does_not_count_as_reached(bench):
    verdicts = bench.report.verdicts([sample(bench, "textbook", 100)])
    assert len(verdicts) == len(bench.report.FLOORS)
    assert not any(one.reached for one in verdicts)
    assert {line.split("  ")[0] for line in bench.report.verdict_lines(verdicts)} == {
        "not measured 128 B, 32 in flight: at least 1.5 x textbook",
        "not measured 128 B, 256 in flight: at least 1.5 x textbook",
        "not measured 128 B, 32 in flight: at least 4 x executor",
        "not measured 128 B, 256 in flight: at least 4 x executor",
        "not measured 64 KiB, 32 in flight: at least 0.9 x textbook",
        "not measured 64 KiB, 256 in flight: at least 0.9 x textbook",
        "not measured 128 B, 32 in flight: master's own thread at most 22 us a request",
        "not measured 128 B, 256 in flight: master's own thread at most 15 us a request",
    }


@pytest.mark.parametrize(("rate", "own", "reached"), [(150, 22.0, True), (149, 22.1, False)])
def test_a_floor_is_reached_at_its_very_number(bench, rate, own, reached):
    samples = [sample(bench, "rota", rate, own=own), sample(bench, "textbook", 100)]
    found = {one.floor.text: one.reached for one in bench.report.verdicts(samples)}
    assert found["128 B, 32 in flight: at least 1.5 x textbook"] is reached
    assert found["128 B, 32 in flight: master's own thread at most 22 us a request"] is reached


@pytest.mark.parametrize(("p99", "reached"), [(2.0, True), (2.1, False)])
def test_a_floor_of_p99_is_an_upper_one(bench, p99, reached):
    cell = bench.report.HttpCell("wsgi", 128, "trivial WSGI")
    samples = [
        bench.report.Sample(system, cell, 0, 100.0, 1.0, found, {}, {})
        for system, found in (("rota", p99), ("haproxy-gunicorn", 2.0))
    ]
    floor = bench.report.Floor("p99", cell, 1.0, "haproxy-gunicorn", field="p99_ms")
    [found] = bench.report.verdicts(samples, [floor])
    assert found.reached is reached and found.floor.text.startswith("trivial WSGI, 128 connections: p99 at most 1 x")


def test_each_floor_of_http_compares_systems_that_take_part_in_its_load(bench):
    for floor in bench.http_peers.floors():
        assert {floor.system, floor.versus} <= set(bench.http_systems.CASES[floor.cell.case].systems), floor
    for case, baseline in bench.http_peers.BASELINES.items():
        assert baseline in bench.http_systems.CASES[case].systems
    assert {name for case in bench.http_systems.CASES.values() for name in case.systems} == set(
        bench.http_systems.SYSTEMS
    )


def test_what_must_be_installed_is_said_with_the_command(bench, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(bench.http_systems, "SBIN", ())
    assert bench.http_peers.main([]) == 1
    assert "sudo apt-get install -y haproxy wrk" in capsys.readouterr().err


def test_a_table_has_a_row_for_each_system_that_was_measured(bench):
    samples = [sample(bench, "rota", 300), sample(bench, "textbook", 100)]
    text = bench.report.table(samples, bench.report.Cell(128, 32), ["rota", "textbook", "nats"])
    assert [line.split()[0] for line in text.split("\n")[2:]] == ["rota", "textbook"]
    assert "3.00 (3.00..3.00)" in text


class Measured:
    def takes(self, cell):
        return True

    def measure(self, order):
        return {"per_second": 1.0, "p50_ms": 1.0, "p99_ms": 1.0, "cpu_us": {}, "own_us": {}}


def test_progress_is_written_over_on_a_terminal_only(bench, monkeypatch, capsys):
    options = argparse.Namespace(rounds=2, seconds=0.0)
    cells = [bench.report.Cell(128, depth) for depth in (1, 32)]
    bench.rounds.take(options, {"rota": Measured(), "textbook": Measured()}, cells)
    assert capsys.readouterr().err == "round 1/2\nround 2/2\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bench.rounds.take(options, {"rota": Measured()}, cells[:1])
    assert (
        capsys.readouterr().err
        == "".join(f"\r\033[Kround {n}/2  128 B, 1 in flight  rota" for n in (1, 2)) + "\r\033[K"
    )


def test_cpu_time_is_read_of_every_thread_and_of_the_main_one(bench):
    before = bench.proc.usage([os.getpid()])
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    used = bench.proc.usage([os.getpid()]) - before
    assert used.all_threads >= used.own_thread >= 40_000_000


def test_nothing_is_left_behind_of_a_family(bench):
    sleeper = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
    sleeper += "time.sleep(60)']); time.sleep(60)"
    with bench.launch.Family("test") as family:
        member = family.start([sys.executable, "-c", sleeper])
        until(lambda: bench.proc.descendants(member.pid))
        below = bench.proc.descendants(member.pid)
        folder = family.folder
    assert below and not folder.exists()
    until(lambda: all(map(is_gone, (member.pid, *below))))


def found_of_slow_clients(bench, looks):
    """What `bench.slow_clients` makes of one client of each kind, that connected at 100 and was seen at these times."""
    slow = bench.slow_clients
    client = slow.SlowClient("head", 1, 100.0, 100.1)
    held = slow.held(client, [slow.Look(at, at, {1} if seen else set()) for at, seen in looks])
    found = {"p99_ms": {"before": 1.0, "during": 1.0}, "per_second": {"before": 1, "during": 1}, "in_flight_max": 0}
    found |= {"memory_mib": 0, "limit_s": dict.fromkeys(slow.KINDS, (2.0, 2.0))}
    return slow.judged(found | {"held_s": dict.fromkeys(slow.KINDS, [held])}, 2.0)[-1]


@pytest.mark.parametrize(
    ("looks", "reached"),
    [
        ([(99, False), (100, True), (102, True), (102.2, False)], True),
        ([(99, False), (100.05, False), (102.3, False)], True),  # a busy machine: nobody looked while it was held
        ([(99, False), (100, True), (107, False)], True),  # cut at some moment in between
        ([(99, False), (100, True), (101, False)], False),  # too soon
        ([(99, False), (100.2, False)], False),
        ([(99, False), (100, True), (104, True), (104.1, False)], False),  # too late
        ([(99, False), (100, True), (102, True)], False),  # not cut
        ([(99, False), (100.05, False)], False),  # nobody looked
    ],
)
def test_when_slow_clients_were_cut_is_judged_by_what_was_certainly_seen(bench, looks, reached):
    assert found_of_slow_clients(bench, looks)[0] is reached
