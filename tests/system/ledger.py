"""Joins what callers were told with what processes did: who says that nothing was lost must be able to find a loss.

Callers write down each call under a key of its own, and what became of it; handlers append the key to a file when they
begin (`app.py`). `check()` lays the one beside the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import rota

ANSWERED = "answered"
# Who is told one of these is told that nothing was run.
NOT_RUN = {
    "NotExecuted",
    "Quarantined",
    "Overloaded",
    "NoService",
    "Unavailable",
    "PayloadTooLarge",
    "Conflict",
    "BindError",
}


class Execution(NamedTuple):
    """One line of the file. `at`: wall clock, in seconds. `epoch`: which dispatched it, where handlers say so."""

    word: str  # began, ended
    key: str
    pid: int
    at: float
    epoch: int = 0


class Findings(NamedTuple):
    submitted: int
    answered: int
    faults: Counter[str]  # class of the error → how many
    lost: list[str]  # keys without a final answer
    twice: list[str]  # begun more than once
    wrong: list[str]  # sentences: answers of somebody else, answers without a run, runs that were denied

    @property
    def failed(self) -> int:
        return self.faults.total()


class Ledger:
    def __init__(self, file: Path) -> None:
        self.file = file
        self.file.touch()
        self._executions: list[Execution] = []
        self._read_upto = 0
        self._told: dict[str, str] = {}  # key → what its caller was told; "" = nothing yet
        self._unstarted: set[str] = set()  # keys: their time passed, and they were told that nothing had been run
        self._wrong: list[tuple[str, str]] = []  # key, sentence

    def submitted(self, key: str) -> None:
        if key in self._told:
            raise ValueError(f"{key} was submitted before: the ledger could not tell one from the other")
        self._told[key] = ""

    def answered(self, key: str, value: object) -> None:
        self._tell(key, ANSWERED)
        if not isinstance(value, list) or value[:1] != [key]:
            self._wrong.append((key, f"{key} was answered with {value!r}"))

    def failed(self, key: str, error: BaseException) -> None:
        self._tell(key, type(error).__name__ if isinstance(error, rota.Error) else repr(error))
        if isinstance(error, rota.Timeout) and error.details.get("started") is False:
            self._unstarted.add(key)

    def told(self, word: str) -> list[str]:
        """The keys of all calls that ended so: `ANSWERED`, or the class of an error."""
        return [key for key, told in list(self._told.items()) if told == word]

    def _tell(self, key: str, word: str) -> None:
        if self._told[key]:
            self._wrong.append((key, f"{key} was told {self._told[key]}, and then {word}"))
        self._told[key] = word

    def executions(self) -> list[Execution]:
        """What processes have written so far. A last line without its end is one that a kill cut short: it counts."""
        with self.file.open("rb") as file:
            file.seek(self._read_upto)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read_upto += len(whole)
        self._executions += _executions(whole)
        return self._executions + _executions(data[len(whole) :])

    def check(self, may_run_again: Iterable[str] = (), only: Iterable[str] | None = None) -> Findings:
        """`may_run_again`: keys of calls to idempotent handlers. `only`: of these calls, and nothing else."""
        begun = Counter(each.key for each in self.executions() if each.word == "began")
        among = self._told.keys() | begun.keys() if only is None else set(only)
        begun = Counter({key: count for key, count in begun.items() if key in among})
        told = {key: word for key, word in self._told.items() if key in among}
        wrong = [sentence for key, sentence in self._wrong if key in among]
        for key, word in told.items():
            if word == ANSWERED and not begun[key]:
                wrong.append(f"{key} was answered, and no process ran it")
            if (word in NOT_RUN or key in self._unstarted) and begun[key]:
                wrong.append(f"{key} was told {word}, and was run")
        wrong += [f"{key} was run, and nobody had asked for it" for key in begun if key not in told]
        return Findings(
            submitted=len(told),
            answered=sum(word == ANSWERED for word in told.values()),
            faults=Counter(word for word in told.values() if word not in (ANSWERED, "")),
            lost=[key for key, word in told.items() if not word],
            twice=sorted({key for key, count in begun.items() if count > 1} - set(may_run_again)),
            wrong=wrong,
        )


def _executions(data: bytes) -> list[Execution]:
    lines = [line.split() for line in data.decode().splitlines()]
    return [
        Execution(line[0], line[1], int(line[2]), float(line[3]), *map(int, line[4:]))
        for line in lines
        if len(line) in (4, 5)
    ]
