"""The engine that decides who is the active master, asked by a thread of its own: the loop never waits for it.

A thread, as it mostly waits: a few questions a second, each of some 0.3 ms of Python.
"""

from __future__ import annotations

import os
import queue
import secrets
import select
import threading

from ..common.clock import boottime
from ..common.config import Config
from ..common.log import printable
from ..common.settings import AGENTS
from .core.engine_lease import Answer, EngineLease, Question
from .store import EngineError, Store

CLOSE_S = 0.5
ERROR_MAX = 500  # characters of what an engine says is wrong: the active master is told, ten times a second
LET_GO_S = 0.3  # for the engine to take back the lease, at the end


class Engine:
    """Asks an engine for one `lease`, one question at a time. `wake_fd` is readable when there are `answers`."""

    def __init__(self, lease: EngineLease, store: Store) -> None:
        self.lease = lease
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = store
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """What the lease wants to know by now."""
        while self.lease.questions:
            self._questions.put(self.lease.questions.pop(0))

    def answers(self) -> list[Answer]:
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            pass
        found = []
        while not self._answers.empty():
            found.append(self._answers.get())
        return found

    def close(self) -> None:
        """Nobody should have to wait until our lease is over. A thread that is still waiting is left: it ends with the
        process.
        """
        self._let_go()
        self._questions.put(None)
        self._thread.join(CLOSE_S)

    def _let_go(self) -> None:
        lease, by = self.lease, boottime() + LET_GO_S
        lease.let_go(boottime())
        while not lease.is_settled and boottime() < by:
            self.ask()
            select.select([self.wake_fd], [], [], LET_GO_S)
            for answer in self.answers():
                lease.answered(answer, boottime())

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            self._answers.put(self._answer(question))
            os.eventfd_write(self.wake_fd, 1)
        self._store.close()

    def _answer(self, question: Question) -> Answer:
        try:
            if question.stamp is None:
                return Answer(question.number, False, self._store.read(question.patience_s))
            return Answer(question.number, *self._store.change(question))
        except EngineError as error:
            text = str(error)
        except Exception as error:  # of a library: whatever it is, the lease is not renewed
            text = f"{type(error).__name__}: {error}"
        return Answer(question.number, False, None, printable(text)[:ERROR_MAX])


def configured(config: Config) -> Engine | None:
    """The engine that decides who is active; None where the agents do. Raises EngineError."""
    address = config.standby.lease
    if address == AGENTS:
        return None
    if not config.master.state:
        raise EngineError("a lease from an engine needs --state: an epoch must outlast this process")
    name = address.partition(":")[0]  # for people; the address may have a password
    me = f"{config.master.name} {secrets.randbits(64):016x}"
    return Engine(EngineLease(name, me, config.standby.takeover_after, boottime()), store(address))


def store(address: str) -> Store:
    """Raises EngineError."""
    if address.startswith("etcd://"):
        from .etcd import Etcd

        return Etcd(address)
    from .postgres import Postgres

    return Postgres(address)
