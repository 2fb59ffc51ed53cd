"""What a master tells its operator: every event, one line each, and never at the price of standing still."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from core_rig import Rig
from lines import next_line

from rota.common import log
from rota.master.core.events import EventLog
from rota.master.log import LINES_MAX, EventWriter, line


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(log, "note", lines.append)
    return lines


def test_each_event_is_one_line_once(said: list[str]) -> None:
    events = EventLog(lambda: 0.0)
    writer = EventWriter(events)
    events.tell("LIVE", "web-1", "web-1: unknown → live")
    writer.write()
    writer.write()
    events.tell("draining", "web-1", "web-1: active → draining", "ann", "release")
    writer.write()
    assert [re.sub(r"^\S+ \S+ ", "", each) for each in said] == [
        "LIVE: web-1: unknown → live",
        "draining: web-1: active → draining (by ann: release)",
    ]


def test_a_line_says_who_it_is_about() -> None:
    event = {"at": 0.0, "kind": "process lost", "subject": "n1.b.1", "text": "killed", "by": "", "reason": ""}
    assert line(event).endswith(" process lost: n1.b.1: killed")


def test_what_peers_say_stays_on_its_line_and_cannot_move_the_cursor() -> None:
    event = {"at": 0.0, "kind": "failing", "subject": "s", "text": "a\nb\x1b[2J\r", "by": "", "reason": ""}
    assert line(event).isprintable()


def test_a_flood_of_events_is_cut_and_said_to_be(said: list[str]) -> None:
    events = EventLog(lambda: 0.0)
    writer = EventWriter(events)
    for number in range(LINES_MAX + 50):
        events.tell("process lost", f"n1.b.{number}", "killed")
    writer.write()
    assert len(said) == LINES_MAX + 1
    assert said[0] == "(50 events are left out here; `rota events` shows them)"
    assert f"n1.b.{LINES_MAX + 49}:" in said[-1]


def test_a_member_that_fails_is_told_with_its_cause() -> None:
    rig = Rig()
    first, _ = rig.pool_of(2)
    rig.request(1)
    rig.exited(first, started_upto=1)
    lines = [line(event) for event in rig.core.events.since(0)]
    assert any("process lost: " in each and first.incarnation in each and "signal 9" in each for each in lines)


FLOOD = """
import os, sys
from rota.common import log
for number in range(5000):
    log.note(f"line {number} " + 100 * "x")
print("done", flush=True)
sys.stdin.readline()
log.note("afterwards")
"""


def test_nobody_waits_for_a_stderr_that_is_not_read() -> None:
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", FLOOD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write, text=True
    )
    try:
        os.close(write)
        assert child.stdin is not None and child.stdout is not None
        assert next_line(child) == "done\n"
        written = os.read(read, 1 << 20)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(20) == 0
        rest = os.read(read, 1 << 20).decode()
    finally:
        os.close(read)
        child.kill()
        child.wait()
    lines = written.decode().splitlines()
    assert lines[0].startswith("line 0 ") and all(len(each) > 100 for each in lines)
    dropped = 5000 - len(lines)
    assert dropped > 0 and rest == f"({dropped} lines were dropped here: nobody read them)\nafterwards\n"


@pytest.mark.parametrize("stderr", ["/dev/full", "closed"])
def test_a_line_that_cannot_be_written_ends_nothing(stderr: str) -> None:
    code = "from rota.common import log; log.note('x'); log.note('y' * 10000); print('on')"
    command = [sys.executable, "-c", code]
    if stderr == "closed":
        command = ["sh", "-c", 'exec "$0" "$@" 2>&-', *command]
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=30)
    else:
        with Path(stderr).open("wb") as full:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"on\n")
