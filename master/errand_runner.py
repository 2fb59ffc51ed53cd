"""`python -m rota.master.errand_runner`: runs the commands that a master sends it, each in a process group of its own.

Lines of JSON on stdin: {"run": {number, argv, text, timeout_s}} or {"end": number}; on stdout one for each command,
when it has ended: {number, exit, output}. `exit` is negative for a signal and null where it was killed; `output` the
end of what it wrote to stdout and stderr. When stdin is closed, the master is gone: all that runs is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import time
from typing import Any, BinaryIO

OUTPUT_MAX = 4096  # bytes: the end of it, where an error stands
NOT_FOUND, NOT_RUN = 127, 126  # exit codes of a shell for a command that is not there, or cannot be run
_READ_BYTES = 65536
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Command:
    """A command that runs. `killed`: its exit code says nothing."""

    def __init__(self, number: int, argv: list[str], text: str, timeout_s: float) -> None:
        self.number = number
        self.until = time.monotonic() + timeout_s
        self.killed = False
        self.output = b""
        with _with_text(text) as stdin:
            self.process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # there are no threads here
            )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        os.set_blocking(self.pipe, False)
        try:
            self.ended = os.pidfd_open(self.process.pid)  # not the pipe: what it leaves running may hold that open
        except OSError:  # nobody would notice its end, or its time-out
            self.kill()
            self.process.communicate()
            raise

    def read(self) -> bool:
        """All that is there. False: nothing more will come."""
        try:
            while data := os.read(self.pipe, _READ_BYTES):
                self.output = (self.output + data)[-OUTPUT_MAX:]
        except BlockingIOError:
            return True
        return False

    def kill(self) -> None:
        self.killed = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def finish(self) -> None:
        exit = self.process.wait()
        self.read()
        _tell(self.number, None if self.killed else exit, self.output)
        os.close(self.ended)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Runner:
    def __init__(self, orders: int) -> None:
        self._orders = orders
        self._selector = selectors.DefaultSelector()
        self._selector.register(orders, selectors.EVENT_READ, self._read)
        self._running: dict[int, Command] = {}
        self._unread = b""
        self._open = True

    def serve(self) -> None:
        while self._open:
            until = min((each.until for each in self._running.values() if not each.killed), default=None)
            for key, _ in self._selector.select(None if until is None else max(0.0, until - time.monotonic())):
                key.data()
            now = time.monotonic()
            for command in self._running.values():
                if now >= command.until and not command.killed:
                    command.kill()
        for command in self._running.values():
            command.kill()

    def _read(self) -> None:
        data = os.read(self._orders, _READ_BYTES)
        if not data:
            self._open = False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if "run" in order:
            self._start(**order["run"])
        elif order["end"] in self._running:
            self._running[order["end"]].kill()

    def _start(self, number: int, argv: list[str], text: str, timeout_s: float) -> None:
        try:
            command = Command(number, argv, text, timeout_s)
        except (OSError, ValueError) as error:
            _tell(number, NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUN, str(error).encode())
            return
        self._running[number] = command
        self._selector.register(command.pipe, selectors.EVENT_READ, lambda: self._hear(command))
        self._selector.register(command.ended, selectors.EVENT_READ, lambda: self._finish(command))

    def _hear(self, command: Command) -> None:
        if command.number in self._running and not command.read():
            self._selector.unregister(command.pipe)

    def _finish(self, command: Command) -> None:
        del self._running[command.number]
        self._selector.unregister(command.ended)
        if command.pipe in self._selector.get_map():
            self._selector.unregister(command.pipe)
        command.finish()


def _end_with_parent() -> None:
    """Lets a command end with us even where we are killed: one that runs on, with nobody to say how it ended, could run
    beside its repetition.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _with_text(text: str) -> BinaryIO:
    """A file, so that nobody waits for whoever does not read it."""
    file = os.fdopen(os.memfd_create("text"), "w+b")
    file.write(text.encode())
    file.seek(0)
    return file


def _tell(number: int, exit: int | None, output: bytes) -> None:
    text = json.dumps({"number": number, "exit": exit, "output": output.decode(errors="replace")})
    os.write(1, text.encode() + b"\n")


def main() -> None:
    Runner(0).serve()


if __name__ == "__main__":
    main()
