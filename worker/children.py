"""Processes that are children of their agent: started, listened to, killed, reaped."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Container
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import zmq

from ..common import exits
from ..common.limits import PAGE_ROWS
from . import groups, oom, spawn
from .core.supervision import Supervision
from .effects import Effects
from .masters import Masters
from .page import BOOTING, PHASE, STARTED_UPTO, Page
from .processes import Processes

if TYPE_CHECKING:
    from .agent import AgentSettings

SHOW_BYTES = 4096  # of output at a time: a pipe that is ready takes them whole (PIPE_BUF)


class Children(Processes):
    """`poller` watches for their ends. They write to `output`. `keep` notes which groups there are."""

    def __init__(
        self,
        settings: AgentSettings,
        core: Supervision,
        masters: Masters,
        effects: Effects,
        poller: zmq.Poller,
        output: str | None,
        keep: Callable[[list[groups.Group]], None],
    ) -> None:
        super().__init__(settings, core, masters, effects)
        self._place = spawn.Place.of(settings.app_dir, settings.python)
        self._poller = poller
        self._output = output
        self._keep = keep
        self._children: dict[str, spawn.Child] = {}
        self._by_pidfd: dict[int, str] = {}
        self._oom_counter = oom.Counter()
        self._oom_kills = oom.Kills(self._oom_counter.read())

    def spawn(self, incarnation: str, service: str) -> None:
        ticket = os.urandom(16)
        page = None
        try:
            page = Page.create(max(PAGE_ROWS, self._settings.concurrency))
            self._fenced(page)
            specification = self._specification(incarnation, service, ticket, page.fd)
            child = spawn.start(self._place, "process", specification, (page.fd,), self._output)
        except OSError as error:
            if page is not None:
                page.close()
            how = f"could not be started: {error}"
            self._effects.add(self._core.exited(incarnation, exits.LOAD_FAILED, how, 0, [], how, monotonic()))
            return
        self.pages[incarnation] = page
        self._children[incarnation] = child
        self._by_pidfd[child.pidfd] = incarnation
        self._poller.register(child.pidfd, zmq.POLLIN)
        self._note_groups()
        # At once, so that the master knows of it before it can say HELLO.
        self._effects.add_first(self._core.spawned(incarnation, ticket, child.pid))

    def kill(self, incarnation: str, number: int) -> None:
        self._children[incarnation].signal(number)

    def reap(self, ready: Container[int]) -> None:
        for pidfd in [pidfd for pidfd in self._by_pidfd if pidfd in ready]:
            incarnation = self._by_pidfd.pop(pidfd)
            child, page = self._children.pop(incarnation), self.pages.pop(incarnation)
            self._poller.unregister(pidfd)
            status = child.reap()
            self._note_groups()
            while _show(child):
                pass
            now = monotonic()
            if page.words[PHASE] != BOOTING:  # since the last look
                self._effects.perform(self._core.ready(incarnation, now))
            started_upto, rows = page.words[STARTED_UPTO], page.report()
            text, how = child.tail(), spawn.how_it_ended(status)
            child.output.close()
            page.close()
            starved = status == -signal.SIGKILL and self._oom_kills.claim(self._oom_counter.read(), now)
            self._effects.perform(self._core.exited(incarnation, status, how, started_upto, rows, text, now, starved))

    def look(self) -> None:
        """And at what they wrote."""
        self._oom_kills.look(self._oom_counter.read(), monotonic())
        super().look()
        for child in self._children.values():
            _show(child)

    def close(self) -> None:
        for child in self._children.values():  # only if something unforeseen ended the loop
            child.signal(signal.SIGKILL)

    def _note_groups(self) -> None:
        self._keep([groups.Group(child.pid, child.started, name) for name, child in self._children.items()])


def _show(child: spawn.Child) -> bool:
    """Passes on what a process wrote; False when there is nothing, or nobody takes it. Never waits."""
    stderr = select.poll()
    stderr.register(2, select.POLLOUT)
    data = child.unshown(SHOW_BYTES) if stderr.poll(0) == [(2, select.POLLOUT)] else b""
    if data:
        with suppress(OSError):  # a full disk
            os.write(2, data)
    return bool(data)
