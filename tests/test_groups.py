"""What is left of an earlier agent's processes is ended; nothing else ever is, whatever its number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lines import next_line
from waiting import is_gone, until

from rota.common.messages import Intent
from rota.worker import groups
from rota.worker.core.votes import Ballot
from rota.worker.groups import VARIABLE, Group
from rota.worker.state import State

Make = Callable[..., subprocess.Popen[bytes]]
# A leader that starts a child in its group, tells its pid, and ends when its stdin does.
FAMILY = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[subprocess.Popen[bytes]] = []

    def make(*command: str, **variables: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command or ["sleep", "60"],
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **variables},
        )
        made.append(process)
        return process

    yield make
    for process in made:
        with process:  # closes its pipes, waits
            process.kill()


def group(process: subprocess.Popen[bytes], name: str = "web-1.b.1") -> Group:
    return Group(process.pid, groups.started_at(process.pid), name)


def family(make: Make, **variables: str) -> tuple[Group, int]:
    """A leader that has ended, and the child that is left of its group."""
    leader = make(sys.executable, "-S", "-c", FAMILY, **variables)
    assert leader.stdout is not None and leader.stdin is not None
    child = int(next_line(leader))
    noted = group(leader)
    leader.stdin.close()
    leader.wait(20)
    return noted, child


def ends(pid: int) -> None:
    until(lambda: is_gone(pid))


def test_a_process_that_outlived_its_agent_is_ended(make: Make) -> None:
    process = make()
    assert groups.end([group(process)]) == [process.pid]
    assert process.wait(20) == -9


def test_what_a_process_had_started_is_ended_though_its_leader_is_gone(make: Make) -> None:
    noted, child = family(make, **{VARIABLE: "web-1.b.1"})
    assert groups.end([noted]) == [child]
    ends(child)


def test_a_number_that_belongs_to_another_process_by_now_is_left_alone(make: Make) -> None:
    process = make()
    noted = group(process)
    assert groups.end([noted._replace(started=noted.started - 1)]) == []
    assert not is_gone(process.pid)


def test_a_group_that_belongs_to_others_by_now_is_left_alone_though_its_leader_is_gone(make: Make) -> None:
    noted, child = family(make, **{VARIABLE: "web-1.b.2"})
    try:
        assert groups.end([noted]) == []
        assert not is_gone(child)
    finally:
        os.kill(child, 9)


def test_one_that_ends_while_it_is_looked_for_is_no_harm_and_nothing_stays_open(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(), make()
    noted = [group(first), group(second)]
    before = len(os.listdir("/proc/self/fd"))
    opened = os.pidfd_open

    def ends_first(pid: int) -> int:
        if pid == first.pid:
            raise ProcessLookupError(pid)
        return opened(pid)

    monkeypatch.setattr(os, "pidfd_open", ends_first)
    assert groups.end(noted) == [second.pid]
    assert len(os.listdir("/proc/self/fd")) == before
    first.kill()
    first.wait(20)
    assert groups.started_at(first.pid) != noted[0].started, "0, or that of another by now"


def test_nothing_is_looked_for_when_nothing_was_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "listdir", None)
    assert groups.end([]) == []


# ---- the state directory ---------------------------------------------------------------------------------------------


def test_a_state_directory_that_cannot_be_used_is_told_with_what_it_must_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="--state .*/file: Not a directory; it must be a directory that this user may"):
        State(str(tmp_path / "file"))


def test_groups_and_intent_are_remembered(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    intent, noted = Intent("detached", 3, "me", "release"), [Group(7, 99, "web-1.b.1"), Group(8, 100, "web-1.b.2")]
    state.remember(intent, 4)
    state.note(noted)
    del state
    again = State(str(tmp_path))
    assert (again.intent, again.epoch, again.left) == (intent, 4, noted)


def test_groups_of_an_earlier_start_of_the_machine_are_forgotten(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    state.note([Group(7, 99, "web-1.b.1")])
    del state
    file = tmp_path / "groups.json"
    file.write_text(file.read_text().replace('"boot": "', '"boot": "other-'))
    assert State(str(tmp_path)).left == []


def test_where_the_start_of_the_machine_cannot_be_read_no_groups_are_noted_and_it_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a unit with ProcSubset=pid: at each start of a process it said that its directory cannot be written to."""
    monkeypatch.setattr("rota.worker.state._BOOT", "/nowhere")
    state = State(str(tmp_path))
    state.note([Group(7, 99, "web-1.b.1")])
    assert not (tmp_path / "groups.json").exists()
    said = "/nowhere is not readable, what is left of older processes is not ended: [Errno 2] No such file or directory"
    assert capsys.readouterr().err == f"{said}: '/nowhere'\n"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"boot": 1}', '{"boot": "x", "groups": [[1]]}'])
def test_damaged_notes_stop_no_agent(tmp_path: Path, text: str) -> None:
    State(str(tmp_path))
    (tmp_path / "groups.json").write_text(text)
    (tmp_path / "agent.json").write_text(text)
    state = State(str(tmp_path))
    assert (state.left, state.intent) == ([], None)


@pytest.mark.parametrize(
    "damage",
    [
        ('"epoch": 4', '"epoch": 4398046511108'),
        ('"epoch": 4', '"epoch": -4'),
        ('"generation": 3', '"generation": "3"'),
        ('"generation": 3', '"generation": 9223372036854775811'),
        ('"by": "me"', '"bx": "me"'),
        ('[4, "b"]', "[4]"),
        ('[4, "b"]', '{"b": 4}'),
    ],
)
def test_what_no_master_would_understand_is_not_remembered(
    damage: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    State(str(tmp_path)).cast(Ballot(4, "b"), Intent("detached", 3, "me", "release"))
    file = tmp_path / "agent.json"
    assert damage[0] in file.read_text()
    file.write_text(file.read_text().replace(*damage))
    assert State(str(tmp_path)).intent is None
    assert f"{file} is not readable, starting without it" in capsys.readouterr().err


def test_what_a_newer_agent_noted_besides_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An agent that is put back to the version before must not forget its intent and its vote."""
    state = State(str(tmp_path))
    state.cast(Ballot(4, "b"), Intent("detached", 3, "me", "release"))
    state.note([Group(7, 99, "web-1.b.1")])
    del state
    for name, known, newer in (
        ("agent.json", '[4, "b"]', '[4, "b", "until noon"]'),
        ("agent.json", '"generation": 3', '"generation": 3, "mood": "good"'),
        ("agent.json", '"epoch": 4', '"epoch": 4, "colour": "red"'),
        ("groups.json", '"web-1.b.1"]', '"web-1.b.1", "/sys/fs/cgroup"]'),
    ):
        text = (tmp_path / name).read_text()
        assert known in text
        (tmp_path / name).write_text(text.replace(known, newer))
    found = State(str(tmp_path))
    assert (found.ballot, found.intent, found.epoch) == (Ballot(4, "b"), Intent("detached", 3, "me", "release"), 4)
    assert found.left == [Group(7, 99, "web-1.b.1")] and not capsys.readouterr().err


def test_a_vote_and_an_intent_are_fsynced_once_with_the_directory_and_groups_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []  # inodes
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        synced.append(os.fstat(fd).st_ino)

    def taken() -> list[int]:
        found = synced[:]
        synced.clear()
        return found

    state, intent = State(str(tmp_path)), Intent("detached", 3, "me", "release")
    monkeypatch.setattr(os, "fsync", noted)
    state.cast(Ballot(4, "b"), intent)
    assert taken() == [(tmp_path / "agent.json").stat().st_ino, tmp_path.stat().st_ino]
    state.remember(intent, 4)
    assert not taken(), "nothing of it is new"
    state.remember(intent, 5)
    assert len(taken()) == 2
    state.note([Group(7, 99, "web-1.b.1")])
    assert not taken()


def test_a_vote_that_cannot_be_made_durable_was_not_cast(tmp_path: Path) -> None:
    state, intent = State(str(tmp_path)), Intent("detached", 3, "me", "release")
    state.cast(Ballot(4, "b"), intent)
    (tmp_path / "agent.json.new").mkdir()  # as good as a full disk, and for root too
    with pytest.raises(OSError):
        state.cast(Ballot(5, "c"), intent)
    assert state.ballot == Ballot(4, "b")


def test_a_state_directory_has_one_agent(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    with pytest.raises(OSError, match="another agent uses"):
        State(str(tmp_path))
    del state
    State(str(tmp_path))


def test_without_a_directory_nothing_is_remembered() -> None:
    state = State(None)
    state.remember(Intent("active", 1, "", ""), 1)
    state.note([Group(7, 99, "web-1.b.1")])
    assert state.left == []
