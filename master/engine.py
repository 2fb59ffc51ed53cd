"""The engine that decides who is the active master, asked by a thread of its own: the loop never waits for it.

A thread, as it mostly waits: a few questions a second, each of some 0.3 ms of Python.
"""

from __future__ import annotations

import os
import queue
import threading
from typing import Protocol

from .core.engine_lease import Answer, Question, Row

CLOSE_S = 0.5


class EngineError(Exception):
    """The sentence says what is wrong with the engine, or with its address."""


class Store(Protocol):
    """One row. Both may raise EngineError; then nobody knows whether a change was made. Used by one thread."""

    def read(self, patience_s: float) -> Row: ...

    def change(self, question: Question) -> tuple[bool, Row]:
        """Whether it was made, and what is there now. Only if the stamp is still that of the question."""
        ...

    def close(self) -> None: ...


class Engine:
    """`wake_fd` is readable when there are `answers`. One question at a time."""

    def __init__(self, store: Store) -> None:
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = store
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> None:
        self._questions.put(question)

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
        """A thread that is still waiting is left: it ends with the process."""
        self._questions.put(None)
        self._thread.join(CLOSE_S)

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
            return Answer(question.number, False, None, str(error))
        except Exception as error:  # of a library: whatever it is, the lease is not renewed
            return Answer(question.number, False, None, f"{type(error).__name__}: {error}")


def store(address: str) -> Store:
    """Raises EngineError."""
    if address.startswith("etcd://"):
        from .etcd import Etcd

        return Etcd(address)
    from .postgres import Postgres

    return Postgres(address)


def engine_name(address: str) -> str:
    """For people; the address may have a password."""
    return address.partition(":")[0]
