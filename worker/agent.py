"""The agent's shell: one thread, one poll loop. It runs no code of users, so whatever a handler does, the node beats.

What it decides is `core/supervision.py`; here its effects are carried out: connections, spawns, pages, signals.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import random
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple

import zmq

from ..common import collector, exits, host, log, messages, sockets, wire
from ..common.clock import boottime
from ..common.limits import BACKEND_OFFSET, CONTROL_PORT, PAGE_ROWS
from ..common.link import Link, reconnect_delay
from ..common.messages import BadMessage, Deny, Grant, Vote, VoterHello, Welcome
from . import groups, oom, spawn
from .core import supervision
from .core.ports import Try
from .core.supervision import Effect, Overdue, Supervision, Timing
from .core.votes import Ballot, Votes
from .page import BOOTING, FENCE_EPOCH, FLOOR, GRACE, HANDLED, OBEY, PHASE, READY, STARTED_UPTO, STOP, Page, obey
from .ports import PortTries
from .state import State
from .voters import Voters

LOOK_S = 0.1  # between two looks at the pages: how late a limit that is shorter may be noticed
RECALL_WAIT_S = 0.002  # longer than any store stays in a processor's buffer: then one of both has seen the other
FENCE_WAIT_S = 0.005  # the same for a fence, of as many pages as there are
SHOW_BYTES = 4096  # of output at a time: a pipe that is ready takes them whole (PIPE_BUF)
BYE_LINGER_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What `rota slave` was told. Durations in seconds."""

    app: str  # module:attribute or file.py:attribute
    name: str = field(default_factory=host.name)
    masters: tuple[str, ...] = (f"tcp://127.0.0.1:{CONTROL_PORT}",)
    processes: int = field(default_factory=host.usable_cpus)
    service: str | None = None  # None: the application's own name, learnt from a probe
    version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    factory: bool = False
    interface: str = "auto"
    threads: int = 1
    concurrency: int = PAGE_ROWS
    app_dir: str = "."
    python: str | None = None
    state: str | None = None
    start_timeout: float = 60.0
    drain_deadline: float = 60.0
    stop_grace: float = 10.0


def main(settings: AgentSettings) -> int:
    """Run a slave node until it is told to leave; the exit code. For the main thread: it owns the signals."""
    collector.loaded()
    service = settings.service
    try:
        place = spawn.Place.of(settings.app_dir, settings.python)
        if service is None:
            service = _probe(settings, place)
            if service is None:
                return exits.LOAD_FAILED
        return Agent(settings, service).run()
    except OSError as error:
        lost = not os.path.isdir(settings.app_dir)
        text = f"--app-dir {settings.app_dir} is no directory of this machine" if lost else str(error)
        print(f"rota slave: {text}", file=sys.stderr)
        return exits.FAILED


def witness(settings: AgentSettings) -> int:
    """Run a node without processes, that votes; the exit code. `app` is not looked at. For the main thread."""
    try:
        return Agent(replace(settings, processes=0), "").run()
    except OSError as error:
        print(f"rota witness: {error}", file=sys.stderr)
        return exits.FAILED


def _probe(settings: AgentSettings, place: spawn.Place) -> str | None:
    """The name of the service, found in an interpreter of its own; None, after the traceback, when it does not load."""
    specification = {
        "app": settings.app,
        "factory": settings.factory,
        "interface": settings.interface,
        "threads": settings.threads,
        "service": "",
        "version": settings.version or "",
    }
    reader, writer = os.pipe()
    with os.fdopen(reader) as answer:
        child = spawn.start(place, "probe", {**specification, "answer_fd": writer}, (writer,), None)
        os.close(writer)
        text = answer.read()
        select.select([child.pidfd], [], [])  # it has answered, and may not have ended yet: reap() would kill it
        status = child.reap()
    if status == 0 and text:
        return str(json.loads(text)["service"])
    print(child.tail() or f"the application failed to load: {spawn.how_it_ended(status)}", file=sys.stderr)
    return None


class Look(NamedTuple):
    """What a page shows. `next_ns`: when the next limit is over, monotonic; 0 = no limit runs."""

    running: int
    overdue: Overdue | None
    next_ns: int


_NOTHING_RUNS = Look(0, None, 0)


class Pause(NamedTuple):
    """We stood still ourselves, and so perhaps the processes: what had begun before has that much more time."""

    until_ns: int = 0
    length_ns: int = 0


def look(page: Page, now_ns: int, pause: Pause) -> Look:
    """How many handlers run, and the one that is over its limit. Free of cost while nothing runs."""
    words = page.words
    if words[STARTED_UPTO] == words[HANDLED]:
        return _NOTHING_RUNS
    rows = page.running()
    limited = [row for row in rows if row.kill_ns]
    if not limited:
        return Look(len(rows), None, 0)
    ends = [row.kill_ns + (pause.length_ns if row.started_ns < pause.until_ns else 0) for row in limited]
    next_ns, first = min(zip(ends, limited, strict=True))
    if now_ns < next_ns:
        return Look(len(rows), None, next_ns)
    grace_ns = words[GRACE]
    limit_s = (first.kill_ns - first.started_ns - grace_ns) / 1e9
    return Look(len(rows), Overdue(limit_s, len(rows) - 1, grace_ns > 0), 0)


class Agent:
    """The half that does not depend on what a process is: the master, the pages, time. `_spawn`, `_kill`, `_reap` and
    `_look` are the other half; here processes are children, in `embedded.py` there is one, and it is the parent.
    """

    embedded = False

    def __init__(self, settings: AgentSettings, service: str) -> None:
        """`service`: what it offers; "" = nothing, it is a witness."""
        self._settings = settings
        self._kind = "slave" if service else "witness"
        self._place = spawn.Place.of(settings.app_dir, settings.python)
        self._state = State(settings.state)
        self._core = Supervision(
            settings.name,
            os.urandom(3).hex(),
            masters=len(settings.masters),
            capacity=settings.processes,
            offers=[service] if service else [],
            tags=settings.tags,
            reconnect_delay=lambda failures: reconnect_delay(failures, random()),
            timing=Timing(settings.start_timeout, settings.stop_grace),
            remembered=self._state.intent,
            votes=Votes(boottime(), self._state.epoch, self._state.ballot),
            embedded=self.embedded,
        )
        self._ctx = sockets.context()
        self._poller = zmq.Poller()
        self._link: Link | None = None
        self._introduced = False  # on this link
        self._token = 0
        self._backends = [_backend_of(address) for address in settings.masters]
        self._voters = Voters(
            self._ctx, self._poller, settings.masters, self._voter_hello, self._told_by, self._asked, self._told_who_won
        )
        self._ports = PortTries()
        self._poller.register(self._ports.fd, zmq.POLLIN)
        self._pages: dict[str, Page] = {}
        self._children: dict[str, spawn.Child] = {}
        self._by_pidfd: dict[int, str] = {}
        self._oom_counter = oom.Counter()
        self._oom_kills = oom.Kills(self._oom_counter.read())
        self._epoch = self._obey = 0
        self._look_at = 0.0
        self._looked_at = monotonic()
        self._pause = Pause()
        self._ready: dict[Any, int] = {}  # what the last poll found
        self._effects: deque[Effect] = deque()
        self._told_systemd = False
        self._terms = 0
        self._done = False
        self.damaged = 0  # frames that broke the format

    def run(self) -> int:
        if ended := groups.end(self._state.left):
            pids = ", ".join(map(str, ended))
            self._note(f"ended what was left of an earlier agent's processes: {len(ended)} (pid {pids})")
        wakeup = _Signals()
        self._poller.register(wakeup.fd, zmq.POLLIN)
        try:
            while not self._done:
                self._wait()
                if numbers := wakeup.numbers():
                    self._signalled(numbers)
                self._voters.attend()
                self._core.in_touch = self._voters.in_touch
                self._attend_link()
                self._reap()
                for answer in self._ports.answers() if self._ports.fd in self._ready else ():
                    self._perform(self._core.tried(*answer))
                if monotonic() >= self._look_at:
                    self._look()
                self._perform(self._core.tick(monotonic()))
        finally:
            wakeup.close()
            self._close()
        return 0

    def _wait(self) -> None:
        """pyzmq's poll counts whole seconds when a signal lands, so it is never trusted with more than a tick."""
        until = min(self._core.next_deadline(), self._look_at, self._voters.next_deadline()) - monotonic()
        self._ready = dict(self._poller.poll(int(1000 * min(until, LOOK_S)) + 1 if until > 0 else 0))

    def _close(self) -> None:
        for child in self._children.values():  # only if something unforeseen ended the loop
            child.signal(signal.SIGKILL)
        self._voters.close()
        if self._link is not None:
            self._link.close(BYE_LINGER_MS)
        self._ctx.term()

    # ---- signals ----------------------------------------------------------------------------------------------------

    def _signalled(self, numbers: bytes) -> None:
        """However many of a kind there are: those that ask for something ask once."""
        now = monotonic()
        for number in numbers:
            if number == signal.SIGTERM and not self._terms:
                self._terms += 1
                self._notify("STOPPING=1")
                self._perform(self._core.leave(self._settings.drain_deadline, now))
            elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self._perform(self._core.leave_now(now))
                return
        if more := numbers.count(signal.SIGTTIN) - numbers.count(signal.SIGTTOU):
            self._perform(self._core.resize(self._core.capacity + more))
        if signal.SIGHUP in numbers:
            self._perform(self._core.reload())
        if signal.SIGUSR1 in numbers:
            self._note("USR1: there is no log to open again: this agent writes to stderr")

    # ---- the master -------------------------------------------------------------------------------------------------

    def _attend_link(self) -> None:
        link = self._link
        if link is None:
            return
        if link.lost():
            self._disconnect()
            self._perform(self._core.lost(monotonic()))
            return
        if link.connected and not self._introduced:
            self._introduced = True
            self._perform(self._core.connected(monotonic()))
        while self._link is link and (frame := link.receive()) is not None:
            try:
                self._receive(frame)
            except BadMessage:  # of a newer master, perhaps
                self.damaged += 1
            except wire.BadFrame:  # it may have been an order: the next HELLO tells what we have, and we are told anew
                self.damaged += 1
                self._disconnect()
                self._perform(self._core.lost(monotonic()))

    def _receive(self, frame: bytes) -> None:
        fields = wire.parse(frame)
        kind, token, body = fields[3], fields[5], frame[fields[11] :]
        now = monotonic()
        if kind == wire.CONTROL and token == self._token and self._core.greeted:
            self._perform(self._core.received(messages.decode(body), now))
        elif kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token = token
            self._backends[self._core.master] = _backend_at(self._settings.masters[self._core.master], welcome)
            self._perform(self._core.welcomed(welcome, now))
            if self._core.greeted and not self._told_systemd:
                self._told_systemd = True
                self._notify("READY=1")
        elif kind == wire.REFUSED and isinstance(refusal := messages.decode(body), messages.Refusal):
            self._perform(self._core.refused(refusal, now))
        elif kind == wire.WHO:
            self._perform(self._core.who(now))
        elif kind != wire.PROBE:
            self.damaged += 1

    # ---- votes ------------------------------------------------------------------------------------------------------

    def _voter_hello(self) -> VoterHello:
        return VoterHello(list(wire.VERSIONS), self._settings.name, self._core.boot, self._core.epoch)

    def _told_by(self, master: int, welcome: Welcome) -> None:
        if welcome.backend_port:
            self._backends[master] = _backend_at(self._settings.masters[master], welcome)
        if welcome.state == "active":
            self._told_who_won(master, welcome.epoch)

    def _told_who_won(self, master: int, epoch: int) -> None:
        self._perform(self._core.won(master, epoch, monotonic()))

    def _asked(self, vote: Vote) -> Grant | Deny:
        """The order is the proof: durable, fenced, seen by every process; only then it is said."""
        votes = self._core.votes
        denied = votes.refusal(vote, boottime())
        if denied is not None or vote.poll:
            return denied or Grant(vote.epoch, poll=True)
        try:
            self._state.cast(Ballot(vote.epoch, vote.master), self._core.intent)
        except OSError as error:
            self._note(f"no vote for {vote.master}: it cannot be made durable: {error}")
            return Deny(vote.epoch, votes.seen, 0, "its state directory cannot be written to")
        self._perform(self._core.voted(vote, boottime()))
        time.sleep(FENCE_WAIT_S)
        return Grant(vote.epoch, votes.before)

    # ---- the main link ----------------------------------------------------------------------------------------------

    def _connect(self, master: int) -> None:
        self._disconnect()
        try:
            self._link = Link(self._ctx, self._settings.masters[master], sockets.CONTROL)
        except zmq.ZMQError as error:  # no descriptor left, mostly
            self._note(f"no connection to the master can be made: {error}")
            self._effects.extend(self._core.lost(monotonic()))
            return
        self._poller.register(self._link.dealer, zmq.POLLIN)
        self._poller.register(self._link.monitor, zmq.POLLIN)

    def _disconnect(self, linger_ms: int = 0) -> None:
        link, self._link = self._link, None
        self._introduced = False
        if link is not None:
            self._poller.unregister(link.dealer)
            self._poller.unregister(link.monitor)
            link.close(linger_ms)

    def _send(self, frame: bytes) -> None:
        if self._link is not None and not self._link.send(frame):
            self._disconnect()
            self._effects.extend(self._core.lost(monotonic()))

    # ---- processes --------------------------------------------------------------------------------------------------

    def _spawn(self, incarnation: str, service: str) -> None:
        ticket = os.urandom(16)
        page = None
        try:
            page = Page.create(max(PAGE_ROWS, self._settings.concurrency))
            page.words[FENCE_EPOCH] = self._epoch
            page.words[OBEY] = self._obey
            specification = self._specification(incarnation, service, ticket, page.fd)
            child = spawn.start(self._place, "process", specification, (page.fd,), self._state.output)
        except OSError as error:
            if page is not None:
                page.close()
            how = f"could not be started: {error}"
            self._effects.extend(self._core.exited(incarnation, exits.LOAD_FAILED, how, 0, [], how, monotonic()))
            return
        self._pages[incarnation] = page
        self._children[incarnation] = child
        self._by_pidfd[child.pidfd] = incarnation
        self._poller.register(child.pidfd, zmq.POLLIN)
        self._note_groups()
        # At once, so that the master knows of it before it can say HELLO.
        self._effects.extendleft(reversed(self._core.spawned(incarnation, ticket, child.pid)))

    def _specification(self, incarnation: str, service: str, ticket: bytes, page_fd: int) -> dict[str, Any]:
        settings = self._settings
        return {
            "app": settings.app,
            "factory": settings.factory,
            "interface": settings.interface,
            "threads": settings.threads,
            "concurrency": settings.concurrency,
            "service": service,
            "version": self._core.intent.version or settings.version or "",
            "incarnation": incarnation,
            "ticket": ticket.hex(),
            "page_fd": page_fd,
            "agent_pid": os.getpid(),
            "backends": self._backends,
            "handler_timeout_s": self._core.limits_ms.get(service, 0) / 1000,
        }

    def _reap(self) -> None:
        for pidfd in [pidfd for pidfd in self._by_pidfd if pidfd in self._ready]:
            incarnation = self._by_pidfd.pop(pidfd)
            child, page = self._children.pop(incarnation), self._pages.pop(incarnation)
            self._poller.unregister(pidfd)
            status = child.reap()
            self._note_groups()
            while _show(child):
                pass
            now = monotonic()
            if page.words[PHASE] != BOOTING:  # since the last look
                self._perform(self._core.ready(incarnation, now))
            started_upto, rows = page.words[STARTED_UPTO], page.report()
            text, how = child.tail(), spawn.how_it_ended(status)
            child.output.close()
            page.close()
            starved = status == -signal.SIGKILL and self._oom_kills.claim(self._oom_counter.read(), now)
            self._perform(self._core.exited(incarnation, status, how, started_upto, rows, text, now, starved))

    def _note_groups(self) -> None:
        noted = [groups.Group(child.pid, child.started, name) for name, child in self._children.items()]
        self._keep(lambda: self._state.note(noted))

    def _keep(self, write: Callable[[], None]) -> None:
        """A full disk is no reason to end what works. What is not written is missed at the next start only."""
        try:
            write()
        except OSError as error:
            self._note(f"the state directory cannot be written to, a restart would forget: {error}")

    def _look(self) -> None:
        """At every page: who is ready, who is over a limit. And at what the children wrote.

        The next look comes with the next limit that is known of: only one that is shorter than LOOK_S is noticed late.
        """
        now = monotonic()
        late = now - self._looked_at - LOOK_S
        now_ns = monotonic_ns()
        if late > supervision.PAUSE_S:
            self._pause = Pause(now_ns, int(late * 1e9))
        self._looked_at = now
        self._look_at = now + LOOK_S
        self._oom_kills.look(self._oom_counter.read(), now)
        for incarnation, page in list(self._pages.items()):
            if page.words[PHASE] == READY:
                self._perform(self._core.ready(incarnation, now))
            running, overdue, next_ns = look(page, now_ns, self._pause)
            if next_ns:
                self._look_at = min(self._look_at, now + (next_ns - now_ns) / 1e9)
            self._perform(self._core.seen(incarnation, running, overdue, now))
        for child in self._children.values():
            _show(child)

    def _kill(self, incarnation: str, number: int) -> None:
        self._children[incarnation].signal(number)

    def _set_floor(self, incarnation: str, floor: int) -> None:
        words = self._pages[incarnation].words
        words[FLOOR] = floor
        time.sleep(RECALL_WAIT_S)
        self._effects.extend(self._core.recalled(incarnation, floor, words[STARTED_UPTO]))

    def _fence(self, epoch: int, master: int) -> None:
        self._epoch, self._obey = epoch, obey(master, self._backends[master])
        for page in self._pages.values():
            page.words[FENCE_EPOCH] = epoch
            page.words[OBEY] = self._obey

    # ---- effects ----------------------------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        """Carries them out in order, and those that come of it after them."""
        self._effects.extend(effects)
        while self._effects:
            self._perform_one(self._effects.popleft())

    def _perform_one(self, effect: Effect) -> None:
        match effect:
            case supervision.Send(message):
                self._send(wire.head(wire.CONTROL, self._token) + messages.encode(message))
            case supervision.Hello(message):
                self._send(wire.head(wire.HELLO, 0) + messages.encode(message))
            case supervision.Connect(master):
                self._connect(master)
            case supervision.Spawn(incarnation, service):
                self._spawn(incarnation, service)
            case supervision.Stop(incarnation):
                if incarnation in self._pages:
                    self._pages[incarnation].words[STOP] = 1
            case supervision.Kill(incarnation, number):
                if incarnation in self._pages:
                    self._kill(incarnation, number)
            case supervision.SetFloor(incarnation, floor):
                if incarnation in self._pages:
                    self._set_floor(incarnation, floor)
            case supervision.Fence(epoch, master):
                self._fence(epoch, master)
            case supervision.Lease(master, epoch, lasts_s):
                self._core.votes.leased(master, epoch, lasts_s, boottime())
            case supervision.Unsure(lasts_s):
                self._core.votes.unsure(boottime() + lasts_s)
            case supervision.Remember(intent, epoch):
                self._keep(lambda: self._state.remember(intent, epoch))
            case supervision.Weigh():
                pids = {process.incarnation: process.pid for process in self._core.processes.values() if process.pid}
                self._effects.extend(self._core.weighed({name: _resident(pid) for name, pid in pids.items()}))
            case Try():
                self._ports.start(effect)
            case supervision.Note(text):
                self._note(text)
            case supervision.Quit():
                self._send(wire.head(wire.BYE, self._token))
                self._done = True

    def _note(self, text: str) -> None:
        log.note(f"rota {self._kind} {self._settings.name}: {text}")

    def _notify(self, state: str) -> None:
        """systemd's Type=notify; an abstract socket is written with a leading @."""
        address = os.environ.get("NOTIFY_SOCKET")
        if address:
            import socket

            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                try:
                    sock.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
                except OSError as error:
                    self._note(f"systemd could not be told: {error}")


class _Signals:
    """Signals as bytes of a pipe: their handlers do nothing, the loop does the work."""

    _WANTED = (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )

    def __init__(self) -> None:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, lambda *_: None) for number in self._WANTED}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def numbers(self) -> bytes:
        try:
            return os.read(self.fd, 65536)  # all that the pipe holds
        except BlockingIOError:
            return b""

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._writer)


def _backend_of(control: str) -> str:
    """Where the backend of a master is, as long as it has not said otherwise."""
    head, _, port = control.rpartition(":")
    return f"{head}:{int(port) + BACKEND_OFFSET}"


def _backend_at(control: str, welcome: Welcome) -> str:
    dialled = control.removeprefix("tcp://").rpartition(":")[0]
    if not welcome.backend_port:
        return _backend_of(control)
    return f"tcp://{welcome.host or dialled}:{welcome.backend_port}"


def _show(child: spawn.Child) -> bool:
    """Passes on what a process wrote; False when there is nothing, or nobody takes it. Never waits."""
    stderr = select.poll()
    stderr.register(2, select.POLLOUT)
    data = child.unshown(SHOW_BYTES) if stderr.poll(0) == [(2, select.POLLOUT)] else b""
    if data:
        with suppress(OSError):  # a full disk
            os.write(2, data)
    return bool(data)


def _resident(pid: int) -> int:
    """Bytes of memory; 0 for one that just ended."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_SIZE
    except (OSError, IndexError, ValueError):
        return 0


_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
