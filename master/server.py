"""The master's process: one thread, one poll loop over three sockets, deadlines of its own.

poll until the next deadline → read → decide → send → what is due → again
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

import zmq

from ..common import config as configuration
from ..common import log, memory, sockets, wire
from ..common.config import Config, ConfigErrors
from . import ports
from .core.master import Identity, Master
from .core.pool import Slot
from .journal import Journal
from .log import EventWriter
from .ports import Inlet, Ports

LOOK_S = 0.002  # how long control, journal and signals may wait while requests keep the loop busy
PROBE_EVERY_S = 0.005  # how often it is looked whether an exited process's route is gone
WAKE_BYTES = 65536  # a pipe holds no more
_AT_ONCE = frozenset({signal.SIGINT, signal.SIGQUIT})
_HARMLESS = (signal.SIGHUP, signal.SIGUSR1)  # the other signals that are caught end it
POLL_MAX_MS = 100  # poll miscounts when signals land (whole seconds): never trust a long one


class Beside(Protocol):
    """What runs beside a master, in processes of its own."""

    def start(self, control_port: int) -> None:
        """The master listens."""

    def stop(self) -> None:
        """The master is told to stop, and finishes what it has."""


class Server:
    """Shell of `core.Master`: carries out what its outbox says."""

    def __init__(
        self, config: Config, reread: Callable[[], Config] | None = None, beside: Beside | None = None
    ) -> None:
        self.config = config
        self._reread = reread
        self._beside = beside
        state = Path(config.master.state) if config.master.state else None
        self.journal = Journal(state)
        self.ports = Ports(config.master)
        numbers = self.ports.ports
        identity = Identity(
            config.master.name,
            self.journal.epoch,
            numbers["frontend"],
            numbers["backend"],
            config.master.advertise or "",
            os.getpid(),
        )
        self.core = Master(
            identity,
            config.master,
            lambda name: self.config.services[name],
            self.journal.restored,
            lambda: secrets.randbits(64) | 1,
            time.time,
            time.monotonic(),
        )
        self._events = EventWriter(self.core.events)
        self._probing: dict[Slot, None] = {}
        self._next_probe = 0.0
        self._signals: list[int] = []
        self._control, self._frontend = Inlet(self.ports.control), Inlet(self.ports.frontend)
        self._backend = Inlet(self.ports.backend)
        self.core.source, self.core.process_source = self._frontend.source, self._backend.source
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fds = [int(sock.get(zmq.FD)) for sock in (self.ports.control, self.ports.frontend, self.ports.backend)]
        self._watched = [(fd, zmq.POLLIN) for fd in (*fds, self.journal.wake_fd, self._wake_read)]
        self._catch_signals()  # before anybody is told that it is here

    # ---- the loop --------------------------------------------------------------------------------

    def serve(self) -> int:
        """Until TERM, INT or QUIT. Clients and nodes reconnect to the next one by themselves."""
        core, clock = self.core, time.monotonic
        from_frontend, from_backend = self._frontend.receive, self._backend.receive
        deadline = poll_at = 0.0
        while True:
            now = clock()
            # While requests flow, the two data sockets are asked themselves; a poll of everything costs more.
            busy = from_backend(core.backend, now, core.backend_large)
            busy = from_frontend(core.frontend, now, core.frontend_large) or busy
            if not busy or now >= poll_at:
                deadline = min(deadline, self._next_deadline())  # requests with an earlier one may have come
                self._poll(now, now if busy else deadline)
                now = clock()
                if self._ending(now):
                    return 0
                poll_at = now + LOOK_S
            if now >= deadline:
                self.core.lag = now - deadline if deadline else 0.0
                self._do_due(now)
                deadline = self._next_deadline()
            self._flush()

    def _poll(self, now: float, until: float) -> None:
        """Serves what is not for requests, and waits for anything that comes.

        The descriptor of a socket tells only what is new since the socket itself was asked, so each is asked between
        its last use and the wait: the data sockets were just now. (Given the sockets, zmq_poll asks each of them
        before and after: 18 system calls more a wait.)
        """
        wait_s = 0.0 if self._control.receive(self.core.control, now) else until - now
        wait_ms = min(POLL_MAX_MS, int(wait_s * 1000) + 1) if wait_s > 0 else 0
        for fd, _ in sockets.fast_poll(self._watched, wait_ms):
            if fd == self.journal.wake_fd:
                self._recorded(time.monotonic())
            elif fd == self._wake_read:
                os.read(fd, WAKE_BYTES)  # whether or not a number was noted: what stays there keeps us awake

    def _do_due(self, now: float) -> None:
        if self._probing and now >= self._next_probe:
            self._probe(now)
        self.core.dispatch.counters["bad frames"] += self._take_bad()
        self.core.tick(now)
        self._events.write()

    def _next_deadline(self) -> float:
        due = self.core.next_deadline()
        return min(due, self._next_probe) if self._probing else due

    def _take_bad(self) -> int:
        """Messages that were dropped before the core could see them."""
        inlets = (self._control, self._frontend, self._backend)
        bad = sum(inlet.bad for inlet in inlets)
        for inlet in inlets:
            inlet.bad = 0
        return bad

    def close(self) -> None:
        self.ports.close()
        self.journal.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # ---- effects ---------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Carries out the outbox, and what carrying it out leads to."""
        out = self.core.out
        while out:
            # WELCOME goes first: it has the token without which a peer drops what follows.
            if out.backend:
                frames, out.backend = out.backend, []
                for route, frame in frames:
                    ports.send(self.ports.backend, route, frame)
            if out.frontend:
                frames, out.frontend = out.frontend, []
                for route, frame in frames:
                    ports.send(self.ports.frontend, route, frame)
            if out.slots:
                self._send_deliveries()
            if out.sessions:
                self._send_answers()
            if out.control:
                self._send_control()
            if out.records:
                records, out.records = out.records, []
                self.journal.record(records)
            if out.cuts:
                cuts, out.cuts = out.cuts, []
                for source in cuts:
                    ports.cut(source)
            if out.probes:
                self._probing.update(dict.fromkeys(out.probes))
                out.probes.clear()

    def _send_deliveries(self) -> None:
        """What goes to one process goes in one frame, in the order of its numbers."""
        out, sock = self.core.out, self.ports.backend
        slots, out.slots = out.slots, []
        for slot in slots:
            frames, slot.outgoing = slot.outgoing, []
            if not frames:  # taken back meanwhile
                continue
            error, unsent = _send_together(sock, slot.route, frames)
            if error:
                self.core.undeliverable(slot, unsent, error == errno.EHOSTUNREACH, time.monotonic())

    def _send_answers(self) -> None:
        """Likewise to one client, in the order of their sequences."""
        out, sock = self.core.out, self.ports.frontend
        sessions, out.sessions = out.sessions, []
        for session in sessions:
            frames, session.outgoing = session.outgoing, []
            if not frames:
                continue
            error, unsent = _send_together(sock, session.route, frames)
            if error:
                self.core.dispatch.answer_blocked(session, unsent, error == errno.EHOSTUNREACH)

    def _send_control(self) -> None:
        out = self.core.out
        frames, out.control = out.control, []
        for route, frame in frames:
            if ports.send(self.ports.control, route, frame):
                self.core.operators.gone(route)

    def _probe(self, now: float) -> None:
        """An exited process: once its route is gone, all that it ever sent can be read, and then it is settled."""
        self._next_probe = now + PROBE_EVERY_S
        gone = [s for s in self._probing if ports.send(self.ports.backend, s.route, wire.head(wire.PROBE, s.token))]
        if gone:
            self._backend.receive(self.core.backend, now)
        for slot in gone:
            del self._probing[slot]
            self.core.fleet.settle(slot, now)

    def _recorded(self, now: float) -> None:
        number, failure = self.journal.recorded()
        self.core.recorded(number, now)
        if failure and "journal" not in self.core.alarms:
            self.core.journal_failed(failure)

    # ---- signals ---------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        """The handler only notes the number: the loop does the work."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, *_HARMLESS):
            signal.signal(number, note)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def _ending(self, now: float) -> bool:
        """Does what signals ask for. TERM: orderly; INT, QUIT or a second TERM: the last word now. True: it is said."""
        numbers, self._signals = self._signals, []
        again = self.core.fleet.stopping
        if any(number not in _HARMLESS for number in numbers):
            self.core.stop(now)
            if self._beside is not None:
                self._beside.stop()
        if signal.SIGUSR1 in numbers:
            log.note("rota master: USR1: there is no log to open again: this master writes to stderr")
        if signal.SIGHUP in numbers:  # however many there were
            self._reload_config()
        at_once = _AT_ONCE.intersection(numbers) or (again and signal.SIGTERM in numbers)
        if not at_once and not self.core.ready_to_end(now):
            return False
        self.core.end()
        self._flush()
        self._events.write()
        return True

    def _reload_config(self) -> None:
        if self._reread is None:
            return
        try:
            fresh, fixed = configuration.reloaded(self.config, self._reread())
        except ConfigErrors as errors:
            log.note(f"rota master: configuration not reloaded:\n{errors}")
            return
        self.config = fresh
        self.core.reconfigure(fresh.master)
        kept = f"; a restart is needed for {', '.join(fixed)}" if fixed else ""
        log.note(f"rota master: configuration reloaded{kept}")


def _send_together(sock: ports.Socket, route: bytes, frames: list[wire.Frame]) -> tuple[int, list[wire.Frame]]:
    """The errno that ended it, 0 for none, and what was not sent."""
    if len(frames) == 1:
        return ports.send(sock, route, frames[0]), frames
    sent = 0
    for count, frame in wire.bundles(frames):
        error = ports.send(sock, route, frame)
        if error:
            return error, frames[sent:]
        sent += count
    return 0, []


def main(config: Config, reread: Callable[[], Config] | None = None, beside: Beside | None = None) -> int:
    """Serves until it is told to stop. Raises PortInUse or JournalError with a sentence for the user."""
    memory.keep_freed()
    server = Server(config, reread, beside)
    numbers = server.ports.ports
    host = config.master.bind.rpartition(":")[0]
    log.note(
        f"rota master {config.master.name}: control {host}:{numbers['control']} "
        f"frontend {numbers['frontend']} backend {numbers['backend']} epoch {server.journal.epoch}"
    )
    if not config.master.state:
        text = "rota master: no --state directory: drained nodes and targets are remembered only by the agents"
        log.note(text)
    if server.journal.truncated:
        text = f"rota master: the journal ended in {server.journal.truncated} bytes of an unfinished record, dropped"
        log.note(text)
    _notify_ready()
    try:
        if beside is not None:
            beside.start(numbers["control"])
        return server.serve()
    finally:
        server.close()


def _notify_ready() -> None:
    """Type=notify of systemd, if that is who started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
