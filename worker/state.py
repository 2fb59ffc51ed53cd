"""What an agent remembers over its own restart: the intent for its node, the highest epoch that it has seen, its last
vote, and the process groups that it had, so that what is left of them can be ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

from ..common.fields import checked
from ..common.messages import Intent
from .core.votes import Ballot
from .groups import Group

_FILE = "agent.json"
_GROUPS = "groups.json"
_LOCK = "agent.lock"
_BOOT = "/proc/sys/kernel/random/boot_id"


class _Known(NamedTuple):
    """What is in _FILE, except for the vote. It is checked as a HELLO is, since it will be said there."""

    intent: Intent
    epoch: int


class State:
    """Without a directory it remembers nothing. `output`: where processes write, None for the system's own place."""

    def __init__(self, directory: str | None) -> None:
        """Raises OSError when the directory cannot be made or written to, or another agent uses it."""
        self.intent: Intent | None = None
        self.epoch = 0
        self.ballot: Ballot | None = None
        self.output: str | None = None
        self.left: list[Group] = []  # what an earlier agent had
        self._directory = directory
        self._written: tuple[Intent, int, Ballot | None] | None = None
        if directory is not None:
            self.output = os.path.join(directory, "output")
            try:
                os.makedirs(self.output, exist_ok=True)
                self._lock = _locked(directory)
            except OSError as error:
                if error.strerror is None:  # a sentence already
                    raise
                must = "it must be a directory that this user may write to, with all files in it"
                text = f"--state {directory}: {error.strerror}; {must}"
                raise OSError(text) from None
            self._boot = _boot()
            self._read_intent(os.path.join(directory, _FILE))
            self._read_groups(os.path.join(directory, _GROUPS))

    def remember(self, intent: Intent, epoch: int) -> None:
        """Durable when it returns. Raises OSError."""
        known = intent, epoch, self.ballot
        if self._directory is None or self._written == known:
            return
        self._write(_FILE, {"intent": intent._asdict(), "epoch": epoch, "ballot": self.ballot}, durable=True)
        self._written = known

    def cast(self, ballot: Ballot, intent: Intent) -> None:
        """A vote, durable when it returns. Raises OSError: then it must not be given."""
        before, self.ballot = self.ballot, ballot
        try:
            self.remember(intent, ballot.epoch)
        except OSError:
            self.ballot = before
            raise

    def note(self, groups: Iterable[Group]) -> None:
        """Not durable: what ends the machine ends the groups too. Raises OSError."""
        if self._directory is not None and self._boot:
            self._write(_GROUPS, {"boot": self._boot, "groups": list(groups)}, durable=False)

    def _write(self, name: str, data: dict[str, Any], durable: bool) -> None:
        """Whole or not at all."""
        assert self._directory is not None
        path = os.path.join(self._directory, name)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(path + ".new", path)
        if durable:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _read_intent(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            known = checked(_Known, data)
            if ballot := data.get("ballot"):
                self.ballot = checked(Ballot, dict(zip(Ballot._fields, ballot, strict=False)))
            self.intent, self.epoch = known
        except FileNotFoundError:
            pass
        except (ValueError, TypeError) as error:
            # The agent writes it whole or not at all, so somebody else wrote this. The master knows the intent, too.
            print(f"{path} is not readable, starting without it: {error}", file=sys.stderr)

    def _read_groups(self, path: str) -> None:
        """Only those of this start of the machine: ticks count from there."""
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            if data["boot"] == self._boot:
                self.left = [Group(int(pid), int(started), str(name)) for pid, started, name, *_ in data["groups"]]
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            print(f"{path} is not readable, what is left of older processes is not ended: {error}", file=sys.stderr)


def _locked(directory: str) -> IO[bytes]:
    """Held as long as it is open. Two agents would undo each other's notes, and end each other's processes."""
    lock = open(os.path.join(directory, _LOCK), "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OSError(f"another agent uses the state directory {directory}: give each its own --state") from None
    return lock


def _boot() -> str:
    """Which start of the machine this is; "" where it is hidden, as in a unit with ProcSubset=pid."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        print(f"{_BOOT} is not readable, what is left of older processes is not ended: {error}", file=sys.stderr)
        return ""
