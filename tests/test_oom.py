"""What the kernel counts of its OOM killer, on files as cgroup v1, cgroup v2 and a bare machine have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rota.worker.oom import KEPT_S, Counter, Kills, count

V2 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("cgroup", "path", "text"),
    [
        ("0::/system.slice/rota.service\n", "sys/fs/cgroup/system.slice/rota.service/memory.events", V2),
        ("0::/\n", "sys/fs/cgroup/memory.events", V2),  # a namespace of its own
        ("0::/docker/4f2a\n", "sys/fs/cgroup/memory.events", V2),  # the host's path, seen from inside
        ("9:cpu:/\n4:memory:/rota\n0::/\n", "sys/fs/cgroup/memory/rota/memory.oom_control", V1),
        ("4:memory:/docker/4f2a\n", "sys/fs/cgroup/memory/memory.oom_control", V1),
        ("0::/\n", "proc/vmstat", "nr_free_pages 1\noom_kill {}\n"),  # the root of v2 has no memory.events
        ("", "proc/vmstat", "oom_kill {}\n"),
    ],
)
def test_the_counter_of_our_own_cgroup_is_found(tmp_path: Path, cgroup: str, path: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", cgroup)
    file = write(tmp_path, path, text.format(4))
    counter = Counter(str(tmp_path))
    assert counter.read() == 4
    file.write_text(text.format(5))
    assert counter.read() == 5


def test_a_kernel_without_a_counter_says_nothing(tmp_path: Path) -> None:
    assert Counter(str(tmp_path)).read() == 0
    write(tmp_path, "proc/self/cgroup", "garbage\n0::\n::::\n")
    write(tmp_path, "sys/fs/cgroup/memory.events", "oom_kill many\n")
    assert Counter(str(tmp_path)).path is None


def test_the_counter_of_this_machine_can_be_read() -> None:
    assert Counter().read() >= 0


def test_other_lines_are_not_taken_for_it() -> None:
    assert count("oom 7\noom_kill_disable 1\noom_group_kill 2\n") is None


def test_one_rise_explains_one_death() -> None:
    kills = Kills(4)
    assert not kills.claim(4, 100.0)
    assert kills.claim(5, 101.0)
    assert not kills.claim(5, 101.0)


def test_two_that_were_killed_together_are_both_explained() -> None:
    kills = Kills(0)
    assert kills.claim(2, 100.0) and kills.claim(2, 100.1)
    assert not kills.claim(2, 100.2)


def test_a_kill_of_something_else_explains_no_later_death() -> None:
    kills = Kills(0)
    kills.look(1, 100.0)
    assert not kills.claim(1, 100.1 + KEPT_S)
