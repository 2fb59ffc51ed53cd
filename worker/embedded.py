"""`python -m rota.worker.embedded`: the agent of an application that serves on its own objects (`Worker.background`).

Its one process is its parent, with which it talks in JSON lines: settings, then `ended` and `leave` come on stdin,
`start` goes out on stdout. It cannot kill the process: a slot that hangs is taken out, and comes back when its handler
has returned. When the parent is gone, that is the exit of the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Container
from time import monotonic
from typing import Any

import zmq

from ..common import exits
from ..common.settings import SlaveSettings
from .agent import Agent
from .core.supervision import Supervision
from .effects import Effects
from .page import FLOOR, STOP, Page
from .processes import RECALL_WAIT_S, Processes, Spawner
from .spawn import watched


class EmbeddedAgent(Agent):
    embedded = True

    def __init__(self, settings: SlaveSettings, service: str, page: Page) -> None:
        self._page = page
        super().__init__(settings, service)

    def _make_spawner(self) -> Spawner:
        return Parent(self._processes, self._core, self._effects, self._poller, self._page)


class Parent(Spawner):
    """One at a time: what the parent does between a start and an end."""

    def __init__(
        self,
        processes: Processes,
        core: Supervision,
        effects: Effects,
        poller: zmq.Poller,
        page: Page,
    ) -> None:
        self._processes = processes
        self._core = core
        self._effects = effects
        self._page = page
        self._current = ""  # the incarnation that has the slot, taken out or not
        self._read = b""
        self._parent = os.getppid()
        self._parent_ended = watched(self._parent)  # not the pipe alone: a child that it forked holds that open
        self._poller = poller
        self._poller.register(0, zmq.POLLIN)
        self._poller.register(self._parent_ended, zmq.POLLIN)

    @property
    def free(self) -> bool:
        return not self._current

    def spawn(self, incarnation: str, service: str) -> None:
        self._current = incarnation
        self._page.clear()
        specification = self._processes.begin(incarnation, service, self._page)
        self._processes.started(specification, self._parent)
        self._say({"start": specification})

    def kill(self, incarnation: str, number: int) -> None:
        """TERM says no more than the stop word did. The others: no more starts there; what runs goes on, and nobody
        waits for its outcome.
        """
        if number == signal.SIGTERM:
            return
        self._page.words[FLOOR] = (1 << 64) - 1
        self._page.words[STOP] = 1
        time.sleep(RECALL_WAIT_S)  # as for any floor: the page is that of a process that runs
        self._processes.ended(incarnation, 0, "taken out of the pool")

    def reap(self, ready: Container[int]) -> None:
        """What the parent says."""
        orphaned = self._parent_ended in ready
        if 0 in ready:
            data = os.read(0, 65536)
            *lines, self._read = (self._read + data).split(b"\n")
            for line in lines:
                self._told(json.loads(line))
            orphaned = orphaned or not data
        if orphaned:
            self._orphaned()

    def look(self) -> None:
        """There is nothing to be shown: it writes where its application does."""

    def close(self) -> None:
        """The parent is not ours to end."""

    def _told(self, message: dict[str, Any]) -> None:
        if "leave" in message:
            self._effects.perform(self._core.leaving.ask(float(message["leave"]), monotonic()))
        elif "ended" in message:
            incarnation, self._current = self._current, ""
            if incarnation in self._processes.pages:
                text = message["ended"]
                status = exits.LOAD_FAILED if text else 0
                self._processes.ended(incarnation, status, "the slot failed", text)

    def _orphaned(self) -> None:
        self._poller.unregister(0)
        self._poller.unregister(self._parent_ended)
        if self._current in self._processes.pages:
            self._processes.ended(self._current, -9, "the application ended")
        self._current = "gone"
        self._effects.perform(self._core.leaving.at_once(monotonic()))

    def _say(self, message: dict[str, Any]) -> None:
        try:
            os.write(1, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            pass  # stdin tells it too


def main() -> int:
    options = json.loads(_first_line())
    page = Page(options.pop("page_fd"))
    service = options.pop("service")
    settings = SlaveSettings(processes=1, master=tuple(options.pop("masters")), **options)
    try:
        return EmbeddedAgent(settings, service, page).run()
    except OSError as error:
        print(f"rota: {error}", file=sys.stderr)
        return exits.FAILED


def _first_line() -> bytes:
    """Byte by byte: what follows is for the loop, and must not end up in a buffer that it does not see."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
