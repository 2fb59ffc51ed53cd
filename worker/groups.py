"""The process groups of an agent, noted so that the next one can end what is left of them.

A process ends with its agent (`process._settle`), what it had started itself does not. A group is known by its leader's
pid *and* start time: a pid alone may be anybody's by now. Of a group whose leader is gone only those are ended whose
environment names the incarnation.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import NamedTuple

VARIABLE = "ROTA_INCARNATION"  # in the environment of each process, and so of what it starts


class Group(NamedTuple):
    pid: int  # of the leader, and so of the group
    started: int  # as /proc/PID/stat has it: ticks since the machine started
    incarnation: str


class _Stat(NamedTuple):
    pid: int
    group: int
    started: int
    ended: bool  # and was not waited for


def started_at(pid: int) -> int:
    """When a process was started, 0 if there is none; of one that was not waited for yet, too."""
    stat = _stat(pid)
    return stat.started if stat else 0


def end(groups: Iterable[Group]) -> list[int]:
    """Kills what is left of these groups; the pids that it found."""
    noted = {group.pid: group for group in groups}
    if not noted:
        return []
    everybody = list(_all())
    leaders = {stat.pid: stat.started for stat in everybody if stat.pid in noted}
    left = [stat for stat in everybody if stat.group in noted and not stat.ended]
    return [stat.pid for stat in left if _is_of(noted[stat.group], stat, leaders) and _kill(stat)]


def _is_of(group: Group, stat: _Stat, leaders: dict[int, int]) -> bool:
    if group.pid in leaders:  # it lives, or its number is another's: then nothing of the group was left
        return leaders[group.pid] == group.started
    return f"{VARIABLE}={group.incarnation}".encode() in _environment(stat.pid)


def _kill(stat: _Stat) -> bool:
    """Through a descriptor: between a look and a kill by number, the number may have become another's."""
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OSError:
        return False
    try:
        if _stat(stat.pid) != stat:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)


def _all() -> Iterator[_Stat]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))):
            yield stat


def _stat(pid: int) -> _Stat | None:
    fields = _read(pid, "stat").rpartition(b")")[2].split()  # after the name, which may hold anything
    return _Stat(pid, int(fields[2]), int(fields[19]), fields[0] == b"Z") if len(fields) > 19 else None


def _environment(pid: int) -> list[bytes]:
    return _read(pid, "environ").split(b"\0")


def _read(pid: int, file: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as stream:
            return stream.read()
    except OSError:
        return b""
