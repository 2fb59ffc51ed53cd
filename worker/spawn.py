"""Starting a fresh interpreter for a process or a probe. Nothing is forked that has run anything of the user's."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from errno import ENOSYS, EPERM
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from . import groups

if TYPE_CHECKING:
    from ..common.settings import SlaveSettings

TAIL_BYTES = 4096  # of its output: what an exit report carries
OUTPUT_MAX = 1024 * 1024  # bytes of output that are kept of one process once they are shown
FILE_MAX = 1 << 40  # bytes of its file, nearly all of them a hole: file systems have a limit
_PACKAGE = __name__.partition(".")[0]

_fallocate = ctypes.CDLL(None).fallocate
_fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64
_PUNCH_HOLE = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class Place(NamedTuple):
    """Where processes start. The directory is entered at each start, so a swapped symlink leads to the new release."""

    app_dir: str  # absolute, as typed
    python: str

    @classmethod
    def of(cls, app_dir: str, python: str | None) -> Place:
        return cls(as_typed(app_dir), as_program(python or sys.executable))


def as_typed(path: str) -> str:
    """Absolute, without resolving links: `$PWD` knows by which links we came here, getcwd() does not."""
    if os.path.isabs(path):
        return path
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current directory was removed: enter one that is there") from None
    shell_says = os.environ.get("PWD", "")
    if os.path.isabs(shell_says) and _same_directory(shell_says, here):
        here = shell_says
    return here if path in ("", ".") else os.path.join(here, path)


def as_program(python: str) -> str:
    """A path is meant from here, not from the directory that a process is started in; a bare name is one of PATH."""
    return as_typed(python) if os.sep in python else python


def _same_directory(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def watched(pid: int) -> int:
    """A descriptor that becomes readable when this process ends. Raises OSError."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise
        needed = "Linux 5.4 or newer is needed, in a container that allows it"
        raise OSError(f"pidfd_open: {error.strerror}: {needed}") from None


class Child:
    """One started interpreter: its pid, a pidfd that becomes readable when it ends, and what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.pid = process.pid
        self.pidfd = watched(process.pid)
        self.started = groups.started_at(process.pid)
        self.output = output
        self._process = process
        self._shown = 0
        self._freed = 0

    def signal(self, number: int) -> None:
        """KILL ends the whole process group; others are for the process itself."""
        try:
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)  # it leads its group: start_new_session
            else:
                signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def reap(self) -> int:
        """When it has ended, the exit code, negative for a signal. What is left of its group ends with it."""
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        ended.poll()
        self.signal(signal.SIGKILL)  # before wait: until then nobody else can have its number
        status = self._process.wait()
        os.close(self.pidfd)
        return status

    def tail(self, most: int = TAIL_BYTES) -> str:
        """The end of what it wrote, where an error stands."""
        size = os.fstat(self.output.fileno()).st_size
        try:
            data = os.pread(self.output.fileno(), most, max(0, size - most))
        except OSError as error:
            return f"(what it wrote cannot be read: {error.strerror})"
        return data.decode("utf-8", "replace").strip()

    def unshown(self, most: int) -> bytes:
        """What it wrote since the last call."""
        try:
            data = os.pread(self.output.fileno(), most, self._shown)
        except OSError:  # a disk that fails ends nothing that works; `tail` tells it
            return b""
        self._shown += len(data)
        if self._shown - self._freed > OUTPUT_MAX:
            self._free()
        return data

    def behind(self) -> int:
        """How many bytes are unshown."""
        return os.fstat(self.output.fileno()).st_size - self._shown

    def skip(self, most: int) -> int:
        """Leaves out what is unshown, except for the last `most` bytes; how many these are."""
        left_out = max(0, self.behind() - most)
        if left_out:
            self._shown += left_out
            self._free()
        return left_out

    def _free(self) -> None:
        """What was shown, but for its end, takes no room on the disk any more. To empty the file would lose what is
        written meanwhile.
        """
        fd, end = self.output.fileno(), self._shown - TAIL_BYTES
        if end < FILE_MAX and not _fallocate(fd, _PUNCH_HOLE, 0, end):
            self._freed = self._shown
        elif not self.behind():  # a file system that has no holes
            os.ftruncate(fd, 0)  # the process appends, so it goes on at the start
            self._shown = self._freed = 0


def start(
    place: Place, module: str, specification: Mapping[str, Any], pass_fds: Sequence[int], output_dir: str | None
) -> Child:
    """Run `python -m rota.worker.MODULE` with the specification on stdin. Raises OSError when that cannot be."""
    try:
        output = tempfile.TemporaryFile(buffering=0, dir=output_dir)
    except OSError as error:
        names = "--state" if output_dir else "TMPDIR"
        raise OSError(f"there is nowhere to keep what processes write: {error}; {names} names a directory") from None
    # (Its mode "ab" would not do that.) Without it, what is written after the file was emptied stands behind a hole.
    fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)
    process = subprocess.Popen(
        # -P: a file of the application that is called like a module of ours must not be taken for it.
        [place.python, "-P", "-m", f"{__package__}.{module}"],
        cwd=place.app_dir,
        env={**os.environ, "PWD": place.app_dir, groups.VARIABLE: str(specification.get("incarnation", ""))},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        child = Child(process, output)
    except OSError:
        process.kill()
        process.communicate()
        raise
    assert process.stdin is not None
    try:
        with process.stdin as stdin:  # a few hundred bytes: a pipe takes them without waiting for the reader
            stdin.write(json.dumps(specification).encode())
    except BrokenPipeError:
        pass  # it ended already; its exit says why
    return child


def application(settings: SlaveSettings) -> dict[str, Any]:
    """What is to be loaded and how, as a probe and each process are told."""
    return {
        "app": settings.app,
        "factory": settings.factory,
        "interface": settings.interface,
        "threads": settings.threads,
        "concurrency": settings.concurrency,
        "version": settings.version or "",
    }


class Loaded(NamedTuple):
    """What a probe found: the name of the service, or why there is none."""

    ok: bool
    text: str


class Probe:
    """The application being loaded by an interpreter of its own."""

    def __init__(self, settings: SlaveSettings) -> None:
        """Raises OSError when that cannot be started."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)  # whoever was forked there may have the other end for ever
        self._answer = os.fdopen(reader, "rb", buffering=0)
        asked = {"service": settings.service or "", "answer_fd": writer, "agent_pid": os.getpid()}
        place = Place.of(settings.app_dir, settings.python)
        try:
            self._child = start(place, "probe", {**application(settings), **asked}, (writer,), None)
        finally:
            os.close(writer)

    @property
    def pid(self) -> int:
        return self._child.pid

    def outcome(self, patience_s: float = 0.0, most: int = TAIL_BYTES) -> Loaded | None:
        """None: after so many seconds it has not ended. `most`: bytes of what a failed load says."""
        if not select.select([self._child.pidfd], [], [], patience_s)[0]:
            return None
        status, said = self._child.reap(), self._child.tail(most)
        with self._answer, self._child.output:
            answer = self._answer.read() if status == 0 else b""
        if answer:
            return Loaded(True, str(json.loads(answer)["service"]))
        return Loaded(False, said or f"the application failed to load: {how_it_ended(status)}")

    def kill(self) -> str:
        """What it has said."""
        self._child.signal(signal.SIGKILL)
        self._child.reap()
        with self._answer, self._child.output:
            return self._child.tail()


def unfit(python: str, said: str) -> str:
    """The sentence for what an interpreter writes that cannot run ours at all; "" for anything else."""
    if said.startswith("Unknown option: -P"):
        return f"{python} is older than Python 3.11: {_PACKAGE} runs in 3.11 and newer"
    if f"(ModuleNotFoundError: No module named {_PACKAGE!r})" in said:
        return f"{python} has no {_PACKAGE}, which each process imports: install it there, too"
    return ""


def how_it_ended(status: int) -> str:
    """The sentence for an exit status."""
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
