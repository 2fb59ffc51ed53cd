"""Whether the kernel's OOM killer stands behind a death: its counter, read before and after.

A process that was killed for want of memory ends by SIGKILL, as one that an operator killed. The kernel counts its
kills by cgroup (`memory.events` of cgroup v2, `memory.oom_control` of v1); a node whose cgroup has no counter, as the
root of v2, is left with the one of the whole machine.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

KEPT_S = 1.0  # a kill that no death of ours is found for within this was of something else

_VMSTAT = "proc/vmstat"
_V2 = "sys/fs/cgroup"
_V1 = "sys/fs/cgroup/memory"


class Counter:
    """The counter of our own cgroup. `path` is None where the kernel has none."""

    def __init__(self, root: str = "/") -> None:
        self.path = next((path for path in _candidates(root) if _read(path) is not None), None)

    def read(self) -> int:
        return (self.path and _read(self.path)) or 0


class Kills:
    """Each rise of the counter stands for one death. Pure; `look` is called often enough to tell old rises from new."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._unclaimed: deque[float] = deque()  # when each kill was seen

    def look(self, count: int, now: float) -> None:
        rise = max(0, count - self._count)
        self._unclaimed.extend([now] * min(rise, 1024))
        self._count += rise
        while self._unclaimed and now - self._unclaimed[0] > KEPT_S:
            self._unclaimed.popleft()

    def claim(self, count: int, now: float) -> bool:
        """For a process that ended by SIGKILL, not ours."""
        self.look(count, now)
        if self._unclaimed:
            self._unclaimed.popleft()
            return True
        return False


def count(text: str) -> int | None:
    """The value of the line `oom_kill N`, None where there is none."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None


def _candidates(root: str) -> Iterator[str]:
    """By /proc/self/cgroup. In a container its paths may be those of the host; ours is then the top of the mount."""
    for line in _text(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        top, file = (_V1, "memory.oom_control") if controllers else (_V2, "memory.events")
        yield os.path.join(root, top, path.lstrip("/"), file)
        yield os.path.join(root, top, file)
    yield os.path.join(root, _VMSTAT)


def _read(path: str) -> int | None:
    return count(_text(path))


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
