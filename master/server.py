"""The master's process: one thread, one poll loop over three sockets, deadlines of its own.

poll until the next deadline → read → decide → send → what is due → again
"""

from __future__ import annotations

import os
import secrets
import select
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Protocol

from ..common import collector, descriptors, log, memory, systemd
from ..common import config as configuration
from ..common.clock import boottime
from ..common.config import Config, ConfigErrors
from ..common.signals import Signals
from . import addresses, engine, signals
from .core import outbox
from .core.beginning import Heritage, Identity, Past, Sections, Sources
from .core.engine_standby import EngineStandby
from .core.errands import ACTIVE, STANDBY
from .core.master import Master
from .core.outbox import Outbox
from .core.pair_standby import PairStandby
from .core.records import Restored
from .core.standby import Standby
from .effects import Effects
from .errands import Errands
from .journal import Journal, JournalError
from .log import EventWriter
from .peer_link import PeerLink
from .ports import Ports

LOOK_S = 0.002  # how long control, journal and signals may wait while requests keep the loop busy
PEER_LINGER_MS = 100  # for the last frames to the other master
# One a connection: of each client, of each agent two, of each process. Where there is none left, libzmq's thread keeps
# a core busy with whoever would connect, and nobody is told.
DESCRIPTORS = 65_536


class Beside(Protocol):
    """What runs beside a master, in processes of its own. `attend` when `due_at` has come."""

    due_at: float

    def start(self, control_port: int, now: float) -> None:
        """The master listens."""

    def attend(self, now: float) -> None:
        """Perhaps it has ended."""

    def stop(self) -> None:
        """The master is told to stop, and finishes what it has."""


class Server:
    """Shell of `core.Master`, or of a `core.Standby`: whichever it is at the time."""

    def __init__(self, config: Config, reread: Callable[[], Config], beside: Beside) -> None:
        self.config = config
        self._reread = reread
        self._beside = beside
        state = Path(config.master.state) if config.master.state else None
        self.journal = Journal(state)
        self.ports = Ports(config.master)
        self.peer = PeerLink()
        self._told_to_stop = False  # whatever this master becomes meanwhile
        self._listen_at = 0.0  # control rests until then
        self._signals = Signals(signals.WANTED)  # before anybody is told that it is here
        self._signalled = b""  # their numbers, while nobody has obeyed them
        self.errands = Errands(
            config,
            addresses.here(config.master, self.ports.numbers["control"]),
            lambda *told: self.core.events.tell(*told),
        )
        self.core: Master | Standby
        self._effects: Effects
        self._events: EventWriter
        self._engine = engine.configured(config)
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
        master.read_from(self.ports.frontend.source, self.ports.backend.source)
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
        """What a role begins with, whichever it is."""
        config, numbers, journal = self.config, self.ports.numbers, self.journal
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
        self._effects = Effects(self.core, self.ports, self.journal, self._play)
        self._events = EventWriter(self.core.events)
        self._watch()
        if isinstance(self.core, Standby):
            self.errands.peer = self.core.peer_address
            self.errands.became(STANDBY, "the other master is active, or may be", boottime())
        else:
            self.errands.became(ACTIVE, f"active with epoch {self.core.dispatch.epoch}", boottime())
        if self._told_to_stop:
            self.core.stop(boottime())

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
        master = self.core
        assert isinstance(master, Master)
        self._events.write()
        self._follow(master.known, seen)

    # ---- the loop --------------------------------------------------------------------------------

    def serve(self) -> None:
        """Serves until TERM, INT or QUIT. Clients and nodes then reconnect to the next master by themselves."""
        while not self._serve_role():
            pass

    def _serve_role(self) -> bool:
        """Serves until this master changes its role (False) or has come to its end (True)."""
        core, out, clock = self.core, self.core.out, boottime
        backend, frontend, control = self.ports.backend, self.ports.frontend, self.ports.control
        carry_out = self._effects.carry_out
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
                carry_out(out)
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
        if not self.ports.control.empty:
            self._listen(now)
        return self._ending(now)

    def _listen(self, now: float) -> bool:
        """Reads control. False: there was nothing."""
        read = self.ports.control.receive(self.core.control, now)
        self._listen_at = now + self.core.rest_s(read)
        return read > 0

    def _wait(self, wait_s: float, poller: select.poll) -> bool:
        """For anything that comes of what `poller` has. True: something did that is not for requests.

        The descriptor of a socket tells only what is new since the socket itself was asked, so each is asked between
        its last use and the wait (`Port.empty`). Given the sockets, zmq_poll would ask each of them before and after:
        18 system calls more a wait.
        """
        other, ports, woken = False, self.ports.by_fd, self._woken
        for fd, _ in poller.poll(wait_s * 1000 if wait_s > 0 else 0):
            port = ports.get(fd)
            if port is None:
                woken[fd]()
                other = True
            else:
                port.empty = False
        return other

    def _do_due(self, now: float) -> None:
        if now >= self.errands.due_at:
            self._attend_errands(now)
        if now >= self._beside.due_at:
            self._beside.attend(now)
        self._effects.tick(now)
        self.core.counters["bad frames"] += self.ports.take_bad()
        self.core.tick(now)
        if self._engine:
            self._engine.ask()
        self._events.write()

    def _next_deadline(self) -> float:
        return min(self.core.next_deadline(), self.errands.due_at, self._beside.due_at, self._effects.next_deadline())

    # ---- what else wakes it ----------------------------------------------------------------------

    def _watch(self) -> None:
        """What wakes this role from its wait, and what then is to be done, apart from reading the three sockets."""
        self._all, self._others = select.poll(), select.poll()  # the others: all but control
        self._woken: dict[int, Callable[[], None]] = {
            self.journal.wake_fd: self._recorded,
            self._signals.fd: self._note_signals,
            self.errands.fd: lambda: self._attend_errands(boottime()),
            **{fd: lambda: None for fd in self.peer.fds},  # it is attended before each wait
        }
        if self._engine:
            self._woken[self._engine.wake_fd] = self._engine_answers
        for fd in (*self.ports.by_fd, *self._woken):
            self._all.register(fd, select.POLLIN)
            if fd != self.ports.control.fd:
                self._others.register(fd, select.POLLIN)

    def _attend_peer(self, standby: Standby, now: float) -> bool:
        """False: nothing came from the other master, and the sockets of the link to it were just asked."""
        before = self.peer.fds
        came = self.peer.attend(standby, now)
        if self.peer.fds is not before:
            self._watch()
        return came

    def _attend_errands(self, now: float) -> None:
        self.errands.attend(now)
        alarms = self.core.alarms
        for key in [key for key in alarms if key.startswith("errand")]:
            del alarms[key]
        alarms.update((f"errand {number}", text) for number, text in enumerate(self.errands.alarms()))

    def _recorded(self) -> None:
        number, failure = self.journal.recorded()
        self.core.recorded(number, boottime())
        if failure and isinstance(self.core, Standby):  # what it cannot record it must not confirm; the active goes on
            raise JournalError(failure)
        if failure and "journal" not in self.core.alarms:
            self.core.journal_failed(failure)

    def _engine_answers(self) -> None:
        assert self._engine
        for answer in self._engine.answers():
            core = self.core
            assert isinstance(core, EngineStandby | Master)
            core.engine_answered(answer, boottime())
            self._flush()
            self._engine.ask()

    def _flush(self) -> None:
        """Carries out the outbox, and what carrying it out leads to."""
        out = self.core.out
        while out and out is self.core.out:
            self._effects.carry_out(out)

    # ---- signals and the end ---------------------------------------------------------------------

    def _note_signals(self) -> None:
        self._signalled += self._signals.numbers()

    def _ending(self, now: float) -> bool:
        """Does what signals ask for. True: the last word is said."""
        if not self._signalled and not self.core.ready_to_end(now):
            return False
        asked, self._signalled = signals.asked(self._signalled, self.core.stopping), b""
        self._obey(asked, now)
        core = self.core
        if not asked.at_once and not core.ready_to_end(now):
            return False
        core.end()
        self._flush()
        if core is not self.core:  # it has handed over
            return False
        if not asked.at_once:
            if isinstance(core, Master) and core.pair.peer:
                self.errands.peer = core.pair.peer.address
            self.errands.leave("told to stop", boottime, lambda: bool(self._signals.numbers()))
        self._events.write()
        return True

    def _obey(self, asked: signals.Asked, now: float) -> None:
        if asked.end:
            self._told_to_stop = True
            self.core.stop(now)
            self._beside.stop()
        if asked.reopen:
            log.note("rota master: USR1: there is no log to open again: this master writes to stderr")
        if asked.reload:
            self._reload_config()

    def _reload_config(self) -> None:
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

    def close(self) -> None:
        self.errands.close()
        self.peer.close()
        self.ports.close()
        if self._engine:
            self._engine.close()
        self.journal.close()
        self._signals.close()


def _token() -> int:
    return secrets.randbits(64) | 1


def main(config: Config, reread: Callable[[], Config], beside: Beside) -> None:
    """Serves until it is told to stop. Raises PortInUse or JournalError with a sentence for the user."""
    collector.loaded()
    memory.keep_freed()
    descriptors.allow(DESCRIPTORS)
    server = Server(config, reread, beside)
    numbers = server.ports.numbers
    host = config.master.bind.rpartition(":")[0]
    log.note(
        f"rota master {config.master.name}: control {host}:{numbers['control']} "
        f"frontend {numbers['frontend']} backend {numbers['backend']} epoch {server.journal.epoch}"
    )
    if not config.master.state:
        text = "rota master: no --state directory: drained nodes and targets are remembered only by the agents"
        log.note(text)
    if server.journal.truncated:
        log.note(
            f"rota master: the last {server.journal.truncated} bytes of the journal are no whole records, left out: a "
            f"crash cut them short, or the disk damaged them; the file is kept as {config.master.state}/journal.damaged"
        )
    try:
        systemd.notify("READY=1")
    except OSError as error:
        log.note(f"rota master: systemd could not be told: {error}")
    try:
        beside.start(numbers["control"], boottime())
        server.serve()
    finally:
        server.close()
