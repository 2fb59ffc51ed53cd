"""The agent's shell: one thread, one poll loop. It runs no code of users, so whatever a handler does, the node beats.

What it decides is behind `core/supervision.py`; here the effects are carried out: connections, spawns, pages, signals.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from ..common import collector, exits, log, sockets, systemd, wire
from ..common.clock import boottime
from ..common.limits import PAGE_ROWS
from ..common.link import reconnect_delay
from ..common.messages import Deny, Grant, Vote, VoterHello, Welcome
from ..common.signals import Signals
from . import groups, spawn
from .children import Children
from .core import effects
from .core.effects import Effect
from .core.ports import Try
from .core.processes import Stage, Timing
from .core.supervision import Supervision
from .core.votes import Ballot, Votes
from .effects import Effects
from .master_link import MasterLink
from .masters import Masters
from .ports import PortTries
from .processes import LOOK_S, Processes, Spawner
from .state import State
from .voters import Voters

if TYPE_CHECKING:
    from ..common.settings import SlaveSettings

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_WANTED = (*_ENDING, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU)
FENCE_WAIT_S = 0.005  # for a fence what RECALL_WAIT_S is for a floor, of as many pages as there are


def main(settings: SlaveSettings) -> int:
    """Run a slave node until it is told to leave; the exit code. For the main thread: it owns the signals."""
    collector.loaded()
    service = settings.service
    try:
        if service is None:
            service = _probe(settings)
            if service is None:
                return exits.LOAD_FAILED
        return Agent(settings, service).run()
    except OSError as error:
        text = str(error)
        if not os.path.isdir(settings.app_dir):
            text = f"--app-dir {settings.app_dir} is no directory of this machine"
        elif error.filename is not None and settings.python and error.filename == spawn.as_program(settings.python):
            text = f"--python {settings.python} cannot be run: {error.strerror}"
        print(f"rota slave: {text}", file=sys.stderr)
        return exits.FAILED


def witness(settings: SlaveSettings) -> int:
    """Run a node without processes, that votes; the exit code. For the main thread."""
    try:
        return Agent(settings, "").run()
    except OSError as error:
        print(f"rota witness: {error}", file=sys.stderr)
        return exits.FAILED


def _probe(settings: SlaveSettings) -> str | None:
    """The name of the service, found in an interpreter of its own; None, after the traceback, when it does not load."""
    probe = spawn.Probe(settings)
    loaded = probe.outcome(settings.start_timeout)
    if loaded is None:
        how = f"the application failed to load: was not loaded within {settings.start_timeout:g} s"
        loaded = spawn.Loaded(False, f"{probe.kill()}\n{how}".lstrip())
    if loaded.ok:
        return loaded.text
    unfit = spawn.unfit(spawn.Place.of(settings.app_dir, settings.python).python, loaded.text)
    print(f"rota slave: {unfit}" if unfit else loaded.text, file=sys.stderr)
    return None


class Agent:
    """The loop. Its processes are children; in `embedded.py` there is one, and it is the parent."""

    embedded = False

    def __init__(self, settings: SlaveSettings, service: str) -> None:
        """`service`: what it offers; "" = nothing, it is a witness."""
        self._settings = settings
        self._kind = "slave" if service else "witness"
        self._state = State(settings.state)
        self._core = Supervision(
            settings.name,
            os.urandom(3).hex(),
            masters=settings.master,
            capacity=settings.processes if service else 0,
            offers=[service] if service else [],
            tags=settings.tags,
            reconnect_delay=lambda failures: reconnect_delay(failures, random()),
            votes=Votes(boottime(), self._state.epoch, self._state.ballot),
            timing=Timing(settings.start_timeout, settings.stop_grace),
            remembered=self._state.intent,
            embedded=self.embedded,
        )
        self._ctx = sockets.context()
        self._poller = zmq.Poller()
        self._effects = Effects(self._carry_out)
        self._starts: deque[effects.Spawn] = deque()  # still to be carried out
        self._masters = Masters(settings.master)
        self._link = MasterLink(self._ctx, self._poller, self._masters, self._core, self._effects, self._note)
        self._voters = Voters(
            self._ctx, self._poller, settings.master, self._voter_hello, self._told_by, self._asked, self._told_who_won
        )
        self._processes = Processes(self._core, self._masters, self._effects, spawn.application(settings))
        self._spawner = self._make_spawner()
        self._ports = PortTries()
        self._poller.register(self._ports.fd, zmq.POLLIN)
        self._ready: dict[Any, int] = {}  # what the last poll found
        self._unkept = ""  # why the state directory could not be written to last time
        self._told_systemd = False
        self._told_to_leave = False
        self._done = False

    def _make_spawner(self) -> Spawner:
        settings = self._settings
        return Children(
            self._processes,
            spawn.Place.of(settings.app_dir, settings.python),
            max(PAGE_ROWS, settings.concurrency),
            self._poller,
            self._state.output,
            lambda noted: self._keep(lambda: self._state.note(noted)),
        )

    def run(self) -> int:
        if ended := groups.end(self._state.left):
            pids = ", ".join(map(str, ended))
            self._note(f"ended what was left of an earlier agent's processes: {len(ended)} (pid {pids})")
        wakeup = Signals(_WANTED)
        self._poller.register(wakeup.fd, zmq.POLLIN)
        try:
            while not self._done:
                self._wait()
                if numbers := wakeup.numbers():
                    self._signalled(numbers)
                self._voters.attend()
                self._core.connection.in_touch = self._voters.in_touch
                self._link.attend()
                self._say_ready()
                self._spawner.reap(self._ready)
                for answer in self._ports.answers() if self._ports.fd in self._ready else ():
                    self._effects.perform(self._core.tried(*answer))
                if monotonic() >= self._processes.look_at:
                    self._spawner.look()
                    self._processes.look()
                self._effects.perform(self._core.tick(monotonic()))
                self._start_one()
        finally:
            wakeup.close()
            self._close()
        return 0

    def _wait(self) -> None:
        """pyzmq's poll counts whole seconds when a signal lands, so it is never trusted with more than a tick."""
        until = min(self._core.next_deadline(), self._processes.look_at, self._voters.next_deadline()) - monotonic()
        until = 0.0 if self._may_start() else until
        self._ready = dict(self._poller.poll(int(1000 * min(until, LOOK_S)) + 1 if until > 0 else 0))

    def _start_one(self) -> None:
        """A start takes milliseconds, on a busy machine many: beats, limits and votes do not wait for a hundred."""
        if self._may_start():
            incarnation, service = self._starts.popleft()
            if self._is_wanted(incarnation):
                self._spawner.spawn(incarnation, service)
            else:
                self._processes.ended(incarnation, 0, "never began")

    def _may_start(self) -> bool:
        return bool(self._starts) and (self._spawner.free or not self._is_wanted(self._starts[0].incarnation))

    def _is_wanted(self, incarnation: str) -> bool:
        """Not told to stop before it was started?"""
        return self._core.processes.alive[incarnation].stage is Stage.SPAWNING

    def _close(self) -> None:
        self._spawner.close()
        self._voters.close()
        self._link.close()
        self._ctx.term()

    # ---- signals ----------------------------------------------------------------------------------------------------

    def _signalled(self, numbers: bytes) -> None:
        """However many of a kind there are: those that ask for something ask once."""
        now = monotonic()
        for number in numbers:
            if number == signal.SIGTERM and not self._told_to_leave:
                self._told_to_leave = True
                self._notify("STOPPING=1")
                self._effects.perform(self._core.leaving.ask(self._settings.drain_deadline, now))
            elif number in _ENDING:
                self._effects.perform(self._core.leaving.at_once(now))
                return
        if more := numbers.count(signal.SIGTTIN) - numbers.count(signal.SIGTTOU):
            self._effects.perform(self._core.resize(self._core.processes.capacity + more, now))
        if signal.SIGHUP in numbers:
            self._effects.perform(self._core.reload())
        if signal.SIGUSR1 in numbers:
            self._note("USR1: there is no log to open again: this agent writes to stderr")

    # ---- votes ------------------------------------------------------------------------------------------------------

    def _voter_hello(self) -> VoterHello:
        return VoterHello(list(wire.VERSIONS), self._settings.name, self._core.boot, self._core.epoch)

    def _told_by(self, master: int, welcome: Welcome) -> None:
        if welcome.backend_port:
            self._masters.told(master, welcome)
        if welcome.state == "active":
            self._told_who_won(master, welcome.epoch)

    def _told_who_won(self, master: int, epoch: int) -> None:
        self._effects.perform(self._core.connection.won(master, epoch, monotonic()))

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
            return Deny(vote.epoch, votes.seen, 0, f"its state directory cannot be written to: {error.strerror}")
        self._effects.perform(self._core.voted(vote, boottime()))
        time.sleep(FENCE_WAIT_S)
        return Grant(vote.epoch, votes.before)

    # ---- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.Send(message):
                self._link.say(message)
            case effects.Hello(message):
                self._link.hello(message)
            case effects.Connect(master):
                self._link.connect(master)
            case effects.Spawn():
                self._starts.append(effect)
            case effects.Stop() | effects.Kill() | effects.SetFloor() if (
                effect.incarnation not in self._processes.pages
            ):
                pass  # it has not begun, or has ended
            case effects.Stop(incarnation):
                self._processes.stop(incarnation)
            case effects.Kill(incarnation, number):
                self._spawner.kill(incarnation, number)
            case effects.SetFloor():
                self._processes.set_floor(effect)
            case effects.Fence(epoch, master):
                self._processes.fence(epoch, master)
            case effects.Lease(master, epoch, lasts_s):
                self._core.votes.leased(master, epoch, lasts_s, boottime())
            case effects.Unsure(lasts_s):
                self._core.votes.unsure(boottime() + lasts_s)
            case effects.Reach():
                self._voters.reach()
            case effects.Remember(intent, epoch):
                self._keep(lambda: self._state.remember(intent, epoch))
            case effects.Weigh():
                self._processes.weigh()
            case Try():
                self._ports.start(effect)
            case effects.Note(text):
                self._note(text)
            case effects.Quit():
                self._link.say_bye()
                self._done = True

    def _keep(self, write: Callable[[], None]) -> None:
        """A full disk is no reason to end what works. What is not written is missed at the next start only."""
        before, self._unkept = self._unkept, ""
        try:
            write()
        except OSError as error:
            self._unkept = error.strerror or str(error)
            if self._unkept != before:
                self._note(f"the state directory cannot be written to, a restart would forget: {self._unkept}")

    def _note(self, text: str) -> None:
        log.note(f"rota {self._kind} {self._settings.name}: {text}")

    def _notify(self, state: str) -> None:
        try:
            systemd.notify(state)
        except OSError as error:
            self._note(f"systemd could not be told: {error}")

    def _say_ready(self) -> None:
        if self._core.connection.greeted and not self._told_systemd:
            self._told_systemd = True
            self._notify("READY=1")
