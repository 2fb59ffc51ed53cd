"""What the demo starts: a master, slave nodes, and whatever else runs beside them; and the end of all that."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import randrange
from typing import NamedTuple, Self
from urllib.request import urlopen

from report import Request, read

import rota

NODES = ("node-1", "node-2", "node-3")
PROCESSES = 2  # a node: the death of one must not take its node along
END_S = 8.0  # a process that is told to end may take so long; then SIGKILL
LOAD_END_S = 30.0  # of the load, whose own time-outs are over after 12 s

EXAMPLES = Path(__file__).resolve().parent.parent


class Application(NamedTuple):
    """What is served as the service `loans`, and what puts load on it."""

    versions: Path  # a folder with v1 and v2
    slave: tuple[str, ...]  # APP, and more words for `rota slave`
    load: str
    web: bool = False


LOANS = Application(EXAMPLES / "loan_quote", ("app:loans",), "load.py")
LOANS_BOOK = Application(EXAMPLES / "loan_quote", ("app:loans",), "load_book.py")
LOANS_WEB = Application(EXAMPLES / "loan_web", ("app:application", "--service", "loans"), "load_web.py", web=True)


started = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True)


class Failed(Exception):
    """The demo cannot go on; the sentence says why."""


def play(folder: Path, plays: Callable[[], tuple[str, list[str]]], good: str) -> int:
    """The exit code. `plays` answers what is to be shown, and what was wrong."""
    try:
        shown, wrong = plays()
    except (Failed, rota.Error) as problem:
        print(f"\ndemo: {problem}\nThe logs are in {folder}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything is ended", file=sys.stderr)
        return 130
    print(f"\n{shown}\n")
    for sentence in wrong:
        print(f"demo: {sentence}", file=sys.stderr)
    print("FAILED" if wrong else good)
    return 1 if wrong else 0


def follow(process: subprocess.Popen[str], hear: Callable[[str], None]) -> None:
    """Each line that it writes."""
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            hear(line.rstrip())

    threading.Thread(target=read, daemon=True).start()


class Cluster:
    """Everything that the demo starts, in one folder; all of it ends with the block, also on Ctrl-C and TERM."""

    masters: tuple[str, ...] = ("master",)

    def __init__(self, folder: Path, application: Application, port: int) -> None:
        self.folder = folder
        self.application = application
        self.address = f"tcp://127.0.0.1:{port}"
        self.http = f"127.0.0.1:{port + 3}" if application.web else ""
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ROTA_")},
            "ROTA_MASTER": self.address,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "TIMEOUT": "30",  # of a step of deploy.sh
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # the examples are somebody's checkout
        }
        self.running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # what is under way here ends everything already
        self.end(*[name for name in self.running if name not in self.masters])
        self.end(*self.masters)

    @property
    def csv(self) -> Path:
        """What the load reports."""
        return self.folder / "requests.csv"

    def start(self, name: str, *command: str, log: bool = True) -> subprocess.Popen[str]:
        """In a session of its own: Ctrl-C at the terminal is for the demo alone, which ends the others in order."""
        with ExitStack() as stack:
            output = stack.enter_context((self.folder / f"{name}.log").open("a")) if log else subprocess.PIPE
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.running[name] = process
        return process

    def start_master(self) -> None:
        state = str(self.folder / "state")
        front = ("--http", self.http, "--route", "/=loans") if self.http else ()
        self.start("master", "rota", "master", "--bind", self.address, "--state", state, *front)

    def start_load(self, rate: int) -> subprocess.Popen[str]:
        where = ("--url", f"http://{self.http}") if self.http else ()
        program = str(EXAMPLES / self.application.load)
        options = ("--rate", str(rate), "--report", str(self.csv), *where)
        return self.start("load", sys.executable, program, *options, log=False)

    def end_load(self, load: subprocess.Popen[str], last_line: str) -> list[Request]:
        load.terminate()
        try:
            load.wait(LOAD_END_S)
        except subprocess.TimeoutExpired:
            raise Failed("the load does not end") from None
        if not self.csv.exists():
            raise Failed(f"the load ended with {load.returncode} and left no report: {last_line}")
        return read(self.csv)

    def takes_requests(self) -> bool:
        """Whether its gateway says that it is ready, if it has one."""
        if not self.http:
            return True
        try:
            with urlopen(f"http://{self.http}/-/ready", timeout=END_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def version(self, version: str) -> Path:
        return self.application.versions / f"v{version}"

    def start_node(self, name: str, version: str) -> None:
        """Its live version is a symlink of its own, as deploy scripts have it."""
        live = self.folder / name / "live"
        live.parent.mkdir()
        live.symlink_to(self.version(version))
        options = ("--name", name, "-m", self.address, "-p", str(PROCESSES), "--app-dir", str(live))
        self.start(name, "rota", "slave", *self.application.slave, *options)

    def check(self) -> None:
        """Raises Failed when something that should run has ended."""
        for name in (*self.masters, *NODES):
            process = self.running.get(name)
            if process is not None and process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}:\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-20:])

    def end(self, *names: str) -> None:
        """TERM, and KILL for what does not obey in time."""
        processes = [self.running.pop(name) for name in names if name in self.running]
        for process in processes:
            process.terminate()
        until = time.monotonic() + END_S
        for process in processes:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    """The first of four free ones in a row: control, frontend, backend, and HTTP. Below those that the system gives to
    connections: one of a node would take that of the gateway, which listens last.
    """
    while True:
        first = randrange(10_000, 32_000)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + 4):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
