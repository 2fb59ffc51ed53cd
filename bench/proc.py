"""What /proc says of processes: CPU time, memory, children."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """Nanoseconds of CPU that processes have used so far."""

    all_threads: int
    own_thread: int  # the main thread: in a Python master the one that runs the loop

    def __sub__(self, before: Usage) -> Usage:  # type: ignore[override]
        return Usage(self.all_threads - before.all_threads, self.own_thread - before.own_thread)


def usage(pids: list[int]) -> Usage:
    """Sum over processes; one that is gone counts nothing."""
    threads = [of_threads(pid) for pid in pids]
    own = sum(times.get(pid, 0) for pid, times in zip(pids, threads, strict=True))
    return Usage(sum(sum(times.values()) for times in threads), own)


def of_threads(pid: int) -> dict[int, int]:
    """Thread id -> nanoseconds on a CPU (first field of schedstat; /proc/PID/stat has 10 ms)."""
    times = {}
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            times[int(task.name)] = int((task / "schedstat").read_text().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        pass  # a thread, or the process, ended while we looked
    return times


def rss(pid: int) -> int:
    """Bytes of resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # as above
    return found


def descendants(pid: int) -> list[int]:
    """Process ids below `pid`, nearest first."""
    found = children(pid)
    for each in found:  # which grows meanwhile
        found += children(each)
    return found
