"""Masters, slaves and gateways as child processes: started, awaited, ended, never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.02
TAIL_LINES = 30
KILL_AFTER_S = 2.0  # from INT, which waits for nobody, to KILL

_READY = re.compile(r"^rota master \S+: control (\S+) frontend (\d+) backend (\d+) epoch (\d+)$", re.MULTILINE)


class Where(NamedTuple):
    """Where a master listens."""

    control: str
    frontend: int
    backend: int


class Child:
    """One `rota` command in a session of its own, so that Ctrl-C is ours to pass on.

    log: where its stdout and stderr go; None: to ours.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.arguments = list(arguments)
        self.log = log
        self._shown = 0
        reader, self._tie = os.pipe()
        try:
            self._process = self._start(reader, cwd, env)
        except BaseException:
            os.close(self._tie)
            raise
        finally:
            os.close(reader)
        self.pid = self._process.pid

    def _start(self, reader: int, cwd: str | None, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        # -P: a folder `rota` where we are started must not be taken for us.
        command = [sys.executable, "-P", "-m", f"{__package__}.tied", str(reader), *self.arguments]
        output = None if self.log is None else open(self.log, "ab")
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(reader,),
                start_new_session=True,
                cwd=cwd,
                env=env,
            )
        finally:
            if output is not None:
                output.close()

    def status(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Nothing happens if it has ended: until it is reaped here, nobody else can have its number."""
        self._process.send_signal(number)

    def wait(self, timeout: float) -> bool:
        """True when it has ended."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, grace: float) -> None:
        """TERM and so much time; then INT; then KILL."""
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGINT, KILL_AFTER_S)):
            if patience > 0:
                self.signal(number)
                if self.wait(patience):
                    break
        else:
            self.kill()
        self._untie()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()
        self._untie()

    def _untie(self) -> None:
        if self._tie >= 0:
            os.close(self._tie)
            self._tie = -1

    def output(self) -> str:
        """All that it wrote to its log."""
        return "" if self.log is None else self.log.read_text(errors="replace")

    def unshown(self) -> str:
        """What it wrote since the last call."""
        if self.log is None:
            return ""
        with open(self.log, "rb") as file:
            file.seek(self._shown)
            data = file.read()
        self._shown += len(data)
        return data.decode(errors="replace")

    def tail(self) -> str:
        return "\n".join(self.output().rstrip().split("\n")[-TAIL_LINES:])


def where(master: Child, timeout: float) -> Where | None:
    """Where a master that was just started listens; None when it ended, or says nothing in time."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        ended = master.status() is not None
        found = _READY.search(master.output())
        if found:
            return Where(found[1], int(found[2]), int(found[3]))
        if ended:
            break
        time.sleep(POLL_S)
    return None
