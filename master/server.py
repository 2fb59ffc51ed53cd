"""The master's process: one thread, one poll loop over three sockets, deadlines of its own.

poll until the next deadline → read → decide → send → what is due → again
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Protocol

import zmq

from ..common import collector, log, memory, wire
from ..common import config as configuration
from ..common.clock import boottime
from ..common.config import Config, ConfigErrors
from . import addresses, engine, ports
from .core import outbox
from .core.beginning import Heritage, Identity, Past, Sections, Sources
from .core.engine_standby import EngineStandby
from .core.master import Master
from .core.outbox import Outbox
from .core.pair_standby import PairStandby
from .core.pool import Slot
from .core.records import Restored
from .core.standby import Standby
from .errands import Errands
from .journal import Journal, JournalError
from .log import EventWriter
from .peer_link import PeerLink
from .ports import Port, Ports
from .signals import AT_ONCE, HARMLESS, Signals

LOOK_S = 0.002  # how long control, journal and signals may wait while requests keep the loop busy
PROBE_EVERY_S = 0.005  # how often it is looked whether an exited process's route is gone
PEER_LINGER_MS = 100  # for the last frames to the other master


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
        self.peer = PeerLink()
        self._probing: dict[Slot, None] = {}
        self._next_probe = 0.0
        self._told_to_stop = False  # whatever this master becomes meanwhile
        self._control, self._frontend = Port(self.ports.control), Port(self.ports.frontend)
        self._backend = Port(self.ports.backend)
        self._ports = {
            _descriptor(self.ports.control): self._control,
            _descriptor(self.ports.frontend): self._frontend,
            _descriptor(self.ports.backend): self._backend,
        }
        self._listen_at = 0.0  # control rests until then
        self._signals = Signals()  # before anybody is told that it is here
        self.errands = Errands(
            config,
            addresses.here(config.master, self.ports.ports["control"]),
            lambda *told: self.core.events.tell(*told),
        )
        self._events: EventWriter
        self.core: Master | Standby
        self._engine = engine.asked(config)
        if self._engine or config.standby.backup_of or self.journal.restored.peer:
            self._follow(self.journal.restored)
        else:
            self._be_active(self.journal.epoch + 1, self.journal.restored, Heritage(complete=state is not None))

    # ---- roles -----------------------------------------------------------------------------------

    def _be_active(self, epoch: int, known: Restored, heritage: Heritage) -> None:
        """Raises JournalError when the epoch cannot be made durable."""
        self.journal.rise(epoch, self.config.master.name)
        lease = self._engine.lease if self._engine else None
        self.core = master = Master(*self._role(known), heritage, lease, boottime())
        master.read_from(self._frontend.source, self._backend.source)
        self._begin()

    def _follow(self, known: Restored, seen: int = 0) -> None:
        """`seen`: the highest epoch that anybody has told of."""
        given = self._role(known, seen)
        if self._engine:
            self.core = EngineStandby(*given, self._engine.lease, boottime())
        else:
            self.core = PairStandby(*given, boottime())
        self._begin()

    def _role(self, known: Restored, seen: int = 0) -> tuple[Identity, Sections, Past, Sources]:
        """With what a role begins, whichever it is."""
        config, numbers, journal = self.config, self.ports.ports, self.journal
        identity = Identity(
            config.master.name,
            numbers["frontend"],
            numbers["backend"],
            config.master.advertise or "",
            addresses.elsewhere(config.master, config.standby, numbers["control"]),
            os.getpid(),
        )
        past = Past(known, journal.last, journal.epoch, journal.epoch_by, max(seen, journal.stood))
        return identity, self._sections(), past, Sources(_token, time.time)

    def _sections(self) -> Sections:
        return Sections(self.config.master, lambda name: self.config.services[name], self.config.standby)

    def _begin(self) -> None:
        self._events = EventWriter(self.core.events)
        self._watch()
        if isinstance(self.core, Standby):
            self.errands.peer = self.core.peer_address
            self.errands.became("standby", "the other master is active, or may be", boottime())
        else:
            self.errands.became("active", f"active with epoch {self.core.dispatch.epoch}", boottime())
        if self._told_to_stop:
            self.core.stop(boottime())

    def _watch(self) -> None:
        """What wakes this role from its wait, and what then is to be done, apart from reading the three sockets."""
        self._all, self._others = select.poll(), select.poll()  # the others: all but control
        self._woken: dict[int, Callable[[], None]] = {
            self.journal.wake_fd: self._recorded,
            self._signals.fd: self._signals.awake,
            self.errands.fd: lambda: self._attend_errands(boottime()),
            **{_descriptor(sock): lambda: None for sock in self.peer.sockets},  # it is attended before each wait
        }
        if self._engine:
            self._woken[self._engine.wake_fd] = self._engine_answers
        for fd in (*self._ports, *self._woken):
            self._all.register(fd, select.POLLIN)
            if self._ports.get(fd) is not self._control:
                self._others.register(fd, select.POLLIN)

    # ---- the loop --------------------------------------------------------------------------------

    def serve(self) -> int:
        """Until TERM, INT or QUIT. Clients and nodes reconnect to the next one by themselves."""
        while not self._serve_role():
            pass
        return 0

    def _serve_role(self) -> bool:
        """Until this master is something else than now (False), or at its end (True)."""
        core, out, clock = self.core, self.core.out, boottime
        backend, frontend, control = self._backend, self._frontend, self._control
        # What is done once a wake-up runs cold, at several times its cost: while requests flow, all that is not for
        # them is looked at once in LOOK_S (`look_at`; inf: no request has come since the last look).
        due = look_at = 0.0
        waited = False  # so that everything that can come was just looked for
        while core is self.core:
            now = clock()
            if now >= core.dispatches_until:
                core.lapse(now)
            if not backend.empty and backend.receive(core.backend, now, core.backend_large) and look_at == inf:
                look_at = now + LOOK_S
            if not frontend.empty and frontend.receive(core.frontend, now, core.frontend_large) and look_at == inf:
                look_at = now + LOOK_S
            if now >= look_at or now >= due:
                if self._look(now, waited):
                    return True
                if core is not self.core:
                    break
                if now >= due:
                    core.lag = now - due if due else 0.0
                    self._do_due(now)
                due, look_at = self._next_deadline(), inf
            waited = False
            if out:
                self._carry_out(out)
                continue  # that may have led to more; and the ports that it used are to be asked
            if not (backend.empty and frontend.empty):
                continue
            rests = now < self._listen_at
            if not (control.empty or rests) and self._listen(now):
                look_at, waited = 0.0, True
            elif isinstance(core, Standby) and self._attend_peer(core, now):
                look_at = 0.0
            elif rests:
                if self._wait(min(due, look_at, self._listen_at) - clock(), self._others):
                    look_at = 0.0
            elif control.empty:
                waited = True
                if self._wait(min(due, look_at) - clock(), self._all):
                    look_at = 0.0
        return False

    def _look(self, now: float, waited: bool) -> bool:
        """Serves what is not for requests. True: this was the end."""
        if not waited:
            self._wait(0.0, self._all)
        if not self._control.empty:
            self._listen(now)
        return self._ending(now)

    def _listen(self, now: float) -> bool:
        """Reads control. False: there was nothing."""
        read = self._control.receive(self.core.control, now)
        self._listen_at = now + self.core.rest_s(read)
        return read > 0

    def _wait(self, wait_s: float, poller: select.poll) -> bool:
        """For anything that comes of what `poller` has. True: something did that is not for requests.

        The descriptor of a socket tells only what is new since the socket itself was asked, so each is asked between
        its last use and the wait (`Port.empty`). Given the sockets, zmq_poll would ask each of them before and after:
        18 system calls more a wait.
        """
        other, woken = False, self._woken
        for fd, _ in poller.poll(wait_s * 1000 if wait_s > 0 else 0):
            port = self._ports.get(fd)
            if port is None:
                woken[fd]()
                other = True
            else:
                port.empty = False
        return other

    def _attend_peer(self, standby: Standby, now: float) -> bool:
        """False: nothing came from the other master, and the sockets of the link to it were just asked."""
        before = self.peer.sockets
        came = self.peer.attend(standby, now)
        if self.peer.sockets is not before:
            self._watch()
        return came

    def _attend_errands(self, now: float) -> None:
        self.errands.attend(now)
        alarms = self.core.alarms
        for key in [key for key in alarms if key.startswith("errand")]:
            del alarms[key]
        alarms.update((f"errand {number}", text) for number, text in enumerate(self.errands.alarms()))

    def _do_due(self, now: float) -> None:
        if now >= self.errands.due_at:
            self._attend_errands(now)
        if self._probing and now >= self._next_probe:
            self._probe(now)
        self.core.counters["bad frames"] += self._take_bad()
        self.core.tick(now)
        if self._engine:
            self._engine.ask()
        self._events.write()

    def _next_deadline(self) -> float:
        due = min(self.core.next_deadline(), self.errands.due_at)
        return min(due, self._next_probe) if self._probing else due

    def _take_bad(self) -> int:
        """Messages that were dropped before the core could see them."""
        ports = (self._control, self._frontend, self._backend)
        bad = sum(port.bad for port in ports)
        for port in ports:
            port.bad = 0
        return bad

    def close(self) -> None:
        self.errands.close()
        self.peer.close()
        self.ports.close()
        if self._engine:
            self._engine.close()
        self.journal.close()
        self._signals.close()

    # ---- effects ---------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Carries out the outbox, and what carrying it out leads to."""
        out = self.core.out
        while out and out is self.core.out:
            self._carry_out(out)

    def _carry_out(self, out: Outbox) -> None:
        # WELCOME goes first: it has the token without which a peer drops what follows.
        if out.backend:
            frames, out.backend = out.backend, []
            for route, frame in frames:
                self._backend.send(route, frame)
        if out.frontend:
            frames, out.frontend = out.frontend, []
            for route, frame in frames:
                self._frontend.send(route, frame)
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
        if out.role:
            self._play(out)  # the last: after a change of role nobody has anything to do with the rest

    def _engine_answers(self) -> None:
        assert self._engine
        for answer in self._engine.answers():
            core = self.core
            assert isinstance(core, EngineStandby | Master)
            core.engine_answered(answer, boottime())
            self._flush()
            self._engine.ask()

    def _play(self, out: Outbox) -> None:
        """Effects of one master of a pair. A change of role is the last of them."""
        effects, out.role = out.role, []
        for effect in effects:
            match effect:
                case outbox.Dial(address):
                    self.errands.peer = address  # whom steps are said to, if it is the active one
                    if not self.peer.dial(address, boottime()) and isinstance(self.core, Standby):
                        self.core.link_lost(boottime())
                    self._watch()
                case outbox.HangUp():
                    self.peer.hang_up()
                    self._watch()
                case outbox.SayPeer(frame):
                    self.peer.send(frame)
                case outbox.Rise(epoch, by):
                    self.journal.rise(epoch, by)
                    if not by and isinstance(self.core, Standby):
                        self.core.raised(boottime())
                case outbox.BecomeActive():
                    self._take_over(effect)
                case outbox.Notify(kind, subject, text):
                    self.errands.happened(kind, subject, text, boottime())
                case outbox.StepDown(seen):
                    self._step_down(seen)
        if self._engine:
            self._engine.ask()

    def _take_over(self, won: outbox.BecomeActive) -> None:
        standby = self.core
        assert isinstance(standby, Standby)
        self.peer.hang_up(PEER_LINGER_MS)
        self._events.write()
        heritage = Heritage(won.granted, won.answers, standby.history(), won.complete)
        self._be_active(won.epoch, standby.mirror.known, heritage)
        self.core.out.control += standby.won()

    def _step_down(self, seen: int) -> None:
        master = self._master()
        self._probing.clear()
        self._events.write()
        self._follow(master.known, seen)

    def _send_deliveries(self) -> None:
        """What goes to one process goes in one frame, in the order of its numbers."""
        out, port = self.core.out, self._backend
        slots, out.slots = out.slots, []
        for slot in slots:
            frames, slot.outgoing = slot.outgoing, []
            if not frames:  # taken back meanwhile
                continue
            error, unsent = _send_together(port, slot.route, frames)
            if error:
                self._master().undeliverable(slot, unsent, error == errno.EHOSTUNREACH, boottime())

    def _send_answers(self) -> None:
        """Likewise to one client, in the order of their sequences."""
        out, port = self.core.out, self._frontend
        sessions, out.sessions = out.sessions, []
        copies: list[tuple[bytes, int, wire.Frame]] | None = [] if self._master().pair.routes else None
        for session in sessions:
            frames, session.outgoing = session.outgoing, []
            if not frames:
                continue
            if copies is not None:
                copies += [(session.id, session.acked, frame) for frame in frames]
            error, unsent = _send_together(port, session.route, frames)
            if error:
                self._master().dispatch.answer_blocked(session, unsent, error == errno.EHOSTUNREACH)
        if copies:
            self._copy(copies)

    def _copy(self, answers: list[tuple[bytes, int, wire.Frame]]) -> None:
        """To each standby, which keeps them for clients that ask there. One that does not read begins anew."""
        pair = self._master().pair
        gone = set()
        for route, frame in pair.copies(answers):
            if route not in gone and self._control.send(route, frame):
                gone.add(route)
                pair.gone(route)

    def _send_control(self) -> None:
        out = self.core.out
        frames, out.control = out.control, []
        for route, frame in frames:
            if self._control.send(route, frame):
                self.core.control_gone(route)

    def _probe(self, now: float) -> None:
        """An exited process: once its route is gone, all that it ever sent can be read, and then it is settled."""
        self._next_probe = now + PROBE_EVERY_S
        gone = [s for s in self._probing if self._backend.send(s.route, wire.head(wire.PROBE, s.token))]
        if gone:
            self._backend.receive(self.core.backend, now)
        for slot in gone:
            del self._probing[slot]
            self._master().fleet.processes.settle(slot, now)

    def _recorded(self) -> None:
        number, failure = self.journal.recorded()
        self.core.recorded(number, boottime())
        if failure and isinstance(self.core, Standby):  # what it cannot record it must not confirm; the active goes on
            raise JournalError(failure)
        if failure and "journal" not in self.core.alarms:
            self.core.journal_failed(failure)

    def _master(self) -> Master:
        """Whose effects these are: a standby has none such."""
        assert isinstance(self.core, Master)
        return self.core

    # ---- signals ---------------------------------------------------------------------------------

    def _ending(self, now: float) -> bool:
        """Does what signals ask for. TERM: orderly; INT, QUIT or a second TERM: the last word now. True: it is said."""
        if not self._signals.numbers and not self.core.ready_to_end(now):
            return False
        numbers = self._signals.take()
        again = self.core.stopping
        if any(number not in HARMLESS for number in numbers):
            self._told_to_stop = True
            self.core.stop(now)
            if self._beside is not None:
                self._beside.stop()
        if signal.SIGUSR1 in numbers:
            log.note("rota master: USR1: there is no log to open again: this master writes to stderr")
        if signal.SIGHUP in numbers:  # however many there were
            self._reload_config()
        at_once = AT_ONCE.intersection(numbers) or (again and signal.SIGTERM in numbers)
        core = self.core
        if not at_once and not core.ready_to_end(now):
            return False
        core.end()
        self._flush()
        if core is not self.core:  # it has handed over
            return False
        if not at_once:
            if isinstance(core, Master) and core.pair.peer:
                self.errands.peer = core.pair.peer.address
            self.errands.leave("told to stop", boottime, lambda: bool(self._signals.numbers))
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
        self.core.reconfigure(self._sections())
        self.errands.reconfigure(fresh)
        kept = f"; a restart is needed for {', '.join(fixed)}" if fixed else ""
        log.note(f"rota master: configuration reloaded{kept}")


def _descriptor(sock: ports.Socket) -> int:
    return int(sock.get(zmq.FD))


def _token() -> int:
    return secrets.randbits(64) | 1


def _send_together(port: Port, route: bytes, frames: list[wire.Frame]) -> tuple[int, list[wire.Frame]]:
    """The errno that ended it, 0 for none, and what was not sent."""
    if len(frames) == 1:
        return port.send(route, frames[0]), frames
    sent = 0
    for count, frame in wire.bundles(frames):
        error = port.send(route, frame)
        if error:
            return error, frames[sent:]
        sent += count
    return 0, []


def main(config: Config, reread: Callable[[], Config] | None = None, beside: Beside | None = None) -> int:
    """Serves until it is told to stop. Raises PortInUse or JournalError with a sentence for the user."""
    collector.loaded()
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
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)
