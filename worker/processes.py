"""What an agent does with its processes through their pages: who is ready, who is over a limit, how each ended."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple

from .core import supervision
from .core.effects import SetFloor
from .core.processes import Overdue
from .core.supervision import Supervision
from .effects import Effects
from .masters import Masters
from .page import BOOTING, FENCE_EPOCH, FLOOR, GRACE, HANDLED, OBEY, PHASE, READY, STARTED_UPTO, STOP, Page

LOOK_S = 0.1  # between two looks at the pages: how late a limit that is shorter may be noticed
RECALL_WAIT_S = 0.002  # longer than any store stays in a processor's buffer: then one of both has seen the other


class Look(NamedTuple):
    """What a page shows. `next_ns`: when the next limit is over, monotonic; 0 = no limit runs."""

    running: int
    overdue: Overdue | None
    next_ns: int


_NOTHING_RUNS = Look(0, None, 0)


class Pause(NamedTuple):
    """The agent stood still, and so perhaps the processes: handlers that had begun before have so much more time."""

    until_ns: int = 0
    length_ns: int = 0


def look(page: Page, now_ns: int, pause: Pause) -> Look:
    """How many handlers run, and which one is over its limit. Costs nothing while none runs."""
    words = page.words
    if words[STARTED_UPTO] == words[HANDLED]:
        return _NOTHING_RUNS
    rows = page.running()
    limited = [row for row in rows if row.kill_ns]
    if not limited:
        return Look(len(rows), None, 0)
    ends = [row.kill_ns + (pause.length_ns if row.started_ns < pause.until_ns else 0) for row in limited]
    next_ns, first = min(zip(ends, limited, strict=True))
    if now_ns < next_ns:
        return Look(len(rows), None, next_ns)
    grace_ns = words[GRACE]
    limit_s = (first.kill_ns - first.started_ns - grace_ns) / 1e9
    return Look(len(rows), Overdue(limit_s, len(rows) - 1, grace_ns > 0), 0)


class Spawner(ABC):
    """Starts and ends processes, whatever these are, and tells `Processes` of it."""

    @property
    def free(self) -> bool:
        """Can another one be started now?"""
        return True

    @abstractmethod
    def spawn(self, incarnation: str, service: str) -> None: ...

    @abstractmethod
    def kill(self, incarnation: str, number: int) -> None: ...

    @abstractmethod
    def reap(self, ready: Container[int]) -> None:
        """Take note of those that have ended. `ready`: the descriptors that are readable."""

    @abstractmethod
    def look(self) -> None:
        """Called with each look at the pages."""

    @abstractmethod
    def close(self) -> None:
        """The loop has ended, perhaps by something unforeseen."""


class Processes:
    """The shell's view of them, by incarnation; each has a page from its `begin` to its `ended`."""

    def __init__(self, core: Supervision, masters: Masters, effects: Effects, application: Mapping[str, Any]) -> None:
        """`application`: what each is told to load, and how."""
        self.look_at = 0.0  # when the next `look` is due
        self.pages: dict[str, Page] = {}
        self._core = core
        self._effects = effects
        self._masters = masters
        self._application = application
        self._epoch = self._obey = 0
        self._looked_at = monotonic()
        self._pause = Pause()

    # ---- for the spawner --------------------------------------------------------------------------------------------

    def begin(self, incarnation: str, service: str, page: Page) -> dict[str, Any]:
        """A process is about to be started, with this page. Returns the specification that it is given."""
        self._fenced(page)
        self.pages[incarnation] = page
        return {
            **self._application,
            "service": service,
            "version": self._core.intent.version or self._application["version"],
            "incarnation": incarnation,
            "ticket": os.urandom(16).hex(),
            "page_fd": page.fd,
            "agent_pid": os.getpid(),
            "backends": self._masters.backends,
            "handler_timeout_s": self._core.processes.limits_ms.get(service, 0) / 1000,
        }

    def started(self, specification: Mapping[str, Any], pid: int) -> None:
        """It was started with this specification. The master is told at once, before the process can say HELLO."""
        incarnation, ticket = specification["incarnation"], bytes.fromhex(specification["ticket"])
        self._effects.perform_first(self._core.processes.spawned(incarnation, ticket, pid, monotonic()))

    def ended(self, incarnation: str, status: int, how: str, text: str = "", out_of_memory: bool = False) -> None:
        """A process has ended, or will never begin. `how`: a sentence."""
        now, core = monotonic(), self._core.processes
        page = self.pages.pop(incarnation, None)
        if page is None:
            self._effects.perform(core.exited(incarnation, status, how, 0, [], text, now))
            return
        if page.words[PHASE] != BOOTING:  # since the last look
            self._effects.perform(core.ready(incarnation, now))
        started_upto, rows = page.words[STARTED_UPTO], page.report()
        self._effects.perform(
            core.exited(incarnation, status, how, started_upto, rows, text, now, out_of_memory, page.failure())
        )

    # ---- for the core -----------------------------------------------------------------------------------------------

    def stop(self, incarnation: str) -> None:
        self.pages[incarnation].words[STOP] = 1

    def set_floor(self, wanted: SetFloor) -> None:
        incarnation, floor, since = wanted
        page = self.pages[incarnation]
        if page.words[FLOOR] < floor:
            page.words[FLOOR] = floor
            time.sleep(RECALL_WAIT_S)
        started_upto, rows = page.words[STARTED_UPTO], page.replies(since) if since else []
        self._effects.perform(self._core.processes.recalled(incarnation, floor, started_upto, rows))

    def fence(self, epoch: int, master: int) -> None:
        self._epoch, self._obey = epoch, self._masters.obey(master)
        for page in self.pages.values():
            self._fenced(page)

    def _fenced(self, page: Page) -> None:
        """Gives this page the fence that all pages have."""
        page.words[FENCE_EPOCH] = self._epoch
        page.words[OBEY] = self._obey

    def look(self) -> None:
        """At every page: who is ready, who is over a limit.

        The next look comes with the next limit that is known of: only one that is shorter than LOOK_S is noticed late.
        """
        now = monotonic()
        late = now - self._looked_at - LOOK_S
        now_ns = monotonic_ns()
        if late > supervision.PAUSE_S:
            self._pause = Pause(now_ns, int(late * 1e9))
        self._looked_at = now
        self.look_at = now + LOOK_S
        for incarnation, page in list(self.pages.items()):
            if page.words[PHASE] == READY:
                self._effects.perform(self._core.processes.ready(incarnation, now))
            running, overdue, next_ns = look(page, now_ns, self._pause)
            if next_ns:
                self.look_at = min(self.look_at, now + (next_ns - now_ns) / 1e9)
            self._effects.perform(self._core.processes.seen(incarnation, running, overdue, now))

    def weigh(self) -> None:
        pids = {process.incarnation: process.pid for process in self._core.processes.alive.values() if process.pid}
        self._effects.perform(self._core.processes.weighed({name: _resident(pid) for name, pid in pids.items()}))


def _resident(pid: int) -> int:
    """Bytes of memory; 0 for one that just ended."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_SIZE
    except (OSError, IndexError, ValueError):
        return 0


_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
