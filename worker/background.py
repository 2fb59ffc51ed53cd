"""`Worker.background()`: the handlers of an application that is already running, on its own objects.

One thread serves; an agent in a subprocess beats, reads the page and reports the end of this process. No signal is
touched, nothing is forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Self

from ..common import host
from ..common.addresses import control_addresses
from ..common.declare import given
from ..common.errors import LoadError, Timeout
from ..common.limits import NAME_MAX
from ..common.log import note
from ..common.restarts import Restarts
from ..common.settings import SlaveSettings
from .backend import Rejected
from .loading import version_of
from .page import PHASE, READY, Page
from .process import Process, Specification, failed
from .spawn import as_typed, how_it_ended
from .tracebacks import text_of, traceback_text

if TYPE_CHECKING:
    from .app import Worker

POLL_S = 0.02
JOIN_S = 1.0
LEFT_S = 10.0  # for an agent to end, after the deadline of its drain


class Background:
    """One slot in this process, from `with` to its end, once; `name` is the node's.

    `drain()`, `rejoin()` as the command line does; both wait. Reload and scale are refused by the master: only whoever
    runs the application can start it anew. A handler over its limit cannot be killed: the slot is taken out of the
    pool until it returns.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        master: str | Sequence[str] | None = None,
        name: str | None = None,
        version: str | None = None,
        tags: dict[str, str] | None = None,
        state: str | None = None,
        drain_deadline: float | None = None,
    ) -> None:
        """`master`: control address(es); default: ROTA_MASTER, then this machine. Durations in seconds. What is None
        has the default of `rota slave`.

        Raises ValueError for what is no address, or no value of its option; LoadError if the version cannot be read.
        """
        options = {"name": name, "version": version, "tags": tags, "state": state, "drain_deadline": drain_deadline}
        chosen = given(SlaveSettings, options, options)
        self.worker = worker
        pid = f"-{os.getpid()}"
        self.name: str = chosen.get("name") or host.name()[: NAME_MAX - len(pid)] + pid
        self.masters = control_addresses(master)
        self._version = version_of(worker, flag=version, app_dir=as_typed("."))
        self._drain_deadline: float = chosen.get("drain_deadline", SlaveSettings().drain_deadline)
        self._options = {
            "name": self.name,
            "masters": self.masters,
            "service": worker.name,
            "tags": chosen.get("tags", {}),
            "state": chosen.get("state"),
            "drain_deadline": self._drain_deadline,
        }
        self._agent: subprocess.Popen[bytes] | None = None
        self._pid = 0  # of who entered the block
        self._failure = ""  # why the last start failed
        self._restarts = Restarts()
        self._turn = threading.Lock()  # held to replace the agent, or to leave
        self._leaving = threading.Event()

    def __enter__(self) -> Self:
        if self._pid:
            raise RuntimeError(f"{self.name} had its block already: make another one by background(...)")
        self._pid = os.getpid()
        self._page = Page.create()
        self._agent = self._start_agent()
        self._thread = threading.Thread(target=self._serve, name=f"rota-{self.worker.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drain, finish, leave: as TERM does at a node. A forked child leaves the node to its parent."""
        if os.getpid() != self._pid:
            return
        with self._turn:
            agent, self._agent = self._agent, None
            self._leaving.set()
        if agent is None:
            return
        self._say({"leave": self._drain_deadline}, agent)
        try:
            agent.wait(self._drain_deadline + LEFT_S)
        except subprocess.TimeoutExpired:  # it is stopped, or hangs
            agent.kill()
            agent.wait()
        self._thread.join(JOIN_S)
        if not self._thread.is_alive():  # else a handler hangs in it, beyond all limits
            self._page.close()
            _close_pipes(agent)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Until the slot serves. Raises Timeout, with the traceback of a start hook that failed; RuntimeError outside
        the block.
        """
        deadline = monotonic() + timeout
        while True:
            if self._agent is None:
                raise RuntimeError(f"{self.name} does not run: use it in its `with` block")
            if self._page.words[PHASE] == READY:
                return
            if monotonic() >= deadline:
                why = f"; its last start failed:\n{self._failure}" if self._failure else ""
                raise Timeout(f"{self.name} was not ready within {timeout:g} s{why}")
            sleep(POLL_S)

    def drain(self, **options: Any) -> dict[str, Any]:
        """As `rota drain` on this node: nothing new comes, what runs is finished. Options as of Admin.drain."""
        return self._verb("drain", options)

    def rejoin(self, **options: Any) -> dict[str, Any]:
        """As `rota rejoin` on this node."""
        return self._verb("rejoin", options)

    def _verb(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        from .. import Admin  # by the face of the package: a worker knows nothing of the client

        with Admin(self.masters) as admin:
            answer: dict[str, Any] = getattr(admin, verb)(self.name, **options)
            return answer

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        agent = self._agent
        while agent is not None:
            self._obey(agent)
            ended, agent = agent, self._another(f"ended: {how_it_ended(agent.wait())}")
            if agent is not None:  # else whoever leaves may still tell it so
                _close_pipes(ended)

    def _obey(self, agent: subprocess.Popen[bytes]) -> None:
        """One incarnation after the other, as the agent says, until it has left."""
        assert agent.stdout is not None
        for line in agent.stdout:
            said = _start(line)
            if said is None:
                note(line.decode(errors="replace"))
                continue
            self._failure = self._serve_one(agent, said)
            self._say({"ended": self._failure}, agent)

    def _another(self, what: str) -> subprocess.Popen[bytes] | None:
        """The agent in place of one that has ended by itself; None if that was told to leave."""
        while not self._leaving.is_set():
            pause_s = self._restarts.pause(monotonic())
            note(f"rota: the agent of {self.name} {what}; another one is started in {pause_s:g} s")
            self._leaving.wait(pause_s)
            with self._turn:
                try:
                    self._agent = None if self._leaving.is_set() else self._start_agent()
                    return self._agent
                except OSError as error:
                    what = f"cannot be started: {error}"
        return None

    def _start_agent(self) -> subprocess.Popen[bytes]:
        self._restarts.started(monotonic())
        agent = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.embedded"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._page.fd,),
            start_new_session=True,  # Ctrl-C is for the application, which then leaves in its own order
        )
        self._say({**self._options, "page_fd": self._page.fd}, agent)
        return agent

    def _serve_one(self, agent: subprocess.Popen[bytes], said: dict[str, Any]) -> str:
        """The reason if it could not start, or failed later."""

        def check_agent() -> None:
            if agent.poll() is not None:
                process.stop()

        try:  # an agent that took another's place may be of a newer version than what runs here
            process = Process(Specification.read(said), self.worker, self._version, self._page)
            process.check_agent = check_agent
            process.run()
        except (LoadError, Rejected) as error:
            return failed(self._page, error)
        except Exception as error:  # it would end a process; this thread is to serve again
            self._page.fail(f"{type(error).__name__}: {text_of(error)}")
            return traceback_text(error)
        return ""

    def _say(self, message: dict[str, Any], agent: subprocess.Popen[bytes]) -> None:
        assert agent.stdin is not None
        try:
            agent.stdin.write(json.dumps(message).encode() + b"\n")
            agent.stdin.flush()
        except BrokenPipeError:
            pass  # the agent has ended; the thread notices


def _start(line: bytes) -> dict[str, Any] | None:
    """What the agent says; None for what something else in its interpreter has written, such as a sitecustomize."""
    try:
        said: dict[str, Any] = json.loads(line)["start"]
        return said
    except (ValueError, TypeError, KeyError):
        return None


def _close_pipes(agent: subprocess.Popen[bytes]) -> None:
    for pipe in (agent.stdin, agent.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):  # what it was told last, and did not read
            pipe.close()
