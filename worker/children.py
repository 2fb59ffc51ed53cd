"""Processes that are children of their agent: started, listened to, killed, reaped."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Container
from contextlib import suppress
from time import monotonic

import zmq

from ..common import exits, log
from . import groups, oom, spawn
from .orphans import reap_adopted
from .page import Page
from .processes import Processes, Spawner

SHOW_BYTES = 4096  # of output at a time: a pipe that is ready takes them whole (PIPE_BUF)
SHOW_MAX = 256 * 1024  # of one process at each look: half a millisecond; what it writes beyond that waits in its file
LAST_MAX = 4 * 1024 * 1024  # of that when it has ended: some 10 ms; beats and votes do not wait for more
BEHIND_MAX = 16 * 1024 * 1024  # of that while it lives: beyond it all but the last is left out, or it fills the disk


class Children(Spawner):
    """`poller` watches for their ends. `output`: the directory for the files that they write to, None for the system's
    own. `keep` notes which process groups there are.
    """

    def __init__(
        self,
        processes: Processes,
        place: spawn.Place,
        page_rows: int,
        poller: zmq.Poller,
        output: str | None,
        keep: Callable[[list[groups.Group]], None],
    ) -> None:
        self._processes = processes
        self._place = place
        self._page_rows = page_rows
        self._poller = poller
        self._output = output
        self._keep = keep
        self._children: dict[str, spawn.Child] = {}
        self._by_pidfd: dict[int, str] = {}
        self._oom_counter = oom.Counter()
        self._oom_kills = oom.Kills(self._oom_counter.read())

    def spawn(self, incarnation: str, service: str) -> None:
        page = None
        try:
            page = Page.create(self._page_rows)
            specification = self._processes.begin(incarnation, service, page)
            child = spawn.start(self._place, "process", specification, (page.fd,), self._output)
        except OSError as error:
            how = f"could not be started: {error}"
            self._processes.ended(incarnation, exits.LOAD_FAILED, how, how)
            if page is not None:
                page.close()
            return
        self._children[incarnation] = child
        self._by_pidfd[child.pidfd] = incarnation
        self._poller.register(child.pidfd, zmq.POLLIN)
        self._note_groups()
        self._processes.started(specification, child.pid)

    def kill(self, incarnation: str, number: int) -> None:
        self._children[incarnation].signal(number)

    def reap(self, ready: Container[int]) -> None:
        for pidfd in [pidfd for pidfd in self._by_pidfd if pidfd in ready]:
            incarnation = self._by_pidfd.pop(pidfd)
            child, page = self._children.pop(incarnation), self._processes.pages[incarnation]
            self._poller.unregister(pidfd)
            status = child.reap()
            self._note_groups()
            text, how = child.tail(), spawn.how_it_ended(status)  # before it is shown, which may empty the file
            _leave_out(child, f"{incarnation} ended")
            _show(child, LAST_MAX)
            if unfit := spawn.unfit(self._place.python, text):
                page.fail(unfit)
                text = unfit
            child.output.close()
            starved = status == -signal.SIGKILL and self._oom_kills.claim(self._oom_counter.read(), monotonic())
            self._processes.ended(incarnation, status, how, text, starved)
            page.close()

    def look(self) -> None:
        """At what they wrote, at the kernel's OOM counter, and at ended processes that they left behind."""
        self._oom_kills.look(self._oom_counter.read(), monotonic())
        reap_adopted({child.pid for child in self._children.values()})
        for incarnation, child in self._children.items():
            _show(child, SHOW_MAX)
            if child.behind() > BEHIND_MAX:
                _leave_out(child, f"{incarnation} writes faster than that is passed on")

    def close(self) -> None:
        for child in self._children.values():  # only if something unforeseen ended the loop
            child.signal(signal.SIGKILL)

    def _note_groups(self) -> None:
        self._keep([groups.Group(child.pid, child.started, name) for name, child in self._children.items()])


def _leave_out(child: spawn.Child, why: str) -> None:
    if left_out := child.skip(LAST_MAX):
        log.note(f"rota slave: {why}; {left_out} bytes that it wrote before are left out here")


def _show(child: spawn.Child, most: int) -> None:
    """Passes on what a process wrote, until there is nothing more, or it is not taken now. Never waits."""
    stderr = select.poll()
    stderr.register(2, select.POLLOUT)
    while most > 0 and stderr.poll(0) and (data := child.unshown(SHOW_BYTES)):
        most -= len(data)
        with suppress(OSError):  # a full disk, or nobody who will ever read it
            os.write(2, data)
