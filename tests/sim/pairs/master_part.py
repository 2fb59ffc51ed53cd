"""One master of a pair: `Standby` or `Master` in a shell that does what `master/server.py` does, and its journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rota.common import messages, wire
from rota.common.settings import StandbySettings
from rota.master.core import outbox
from rota.master.core.beginning import Heritage, Identity, Past, Sections, Sources
from rota.master.core.master import Master
from rota.master.core.pair_standby import PairStandby
from rota.master.core.records import Restored
from rota.master.core.standby import Standby

from ..master_part import PROBE_EVERY_S, Journal, MasterPart
from .links import Context, PeerLink

if TYPE_CHECKING:
    from .cluster import PairCluster

FSYNC_S = (0.001, 0.012)  # least and most
TURN_S = 0.15  # the loop ticks at least so often


class PairJournal(Journal):
    """One fsync takes all that was handed over before it."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch_by, self.stood = "", 0
        self.last = 0
        self.done = 0
        self._work: deque[tuple[int, bytes | list[bytes]]] = deque()

    def hand_over(self, number: int, work: bytes | list[bytes]) -> None:
        """A record; a list takes the place of all that was before it."""
        self.last = number
        self._work.append((number, work))

    def write(self, count: int = -1) -> None:
        """Makes so many of what was handed over durable, or all."""
        for _ in range(len(self._work) if count < 0 else min(count, len(self._work))):
            number, work = self._work.popleft()
            if isinstance(work, bytes):
                self.append(work)
            else:
                self.records, self.known = list(work), Restored.of(work)
            self.done = max(self.done, number)

    @property
    def waiting(self) -> int:
        return len(self._work)

    def rise(self, epoch: int, by: str) -> None:
        """Durable, and everything before it, when it returns."""
        self.write()
        self.stood = max(self.stood, epoch)
        if by:
            self.epoch, self.epoch_by = epoch, by

    def crash(self, written: int) -> None:
        """Its master dies; so much of what was handed over was on the disk by then."""
        self.write(written)
        self._work.clear()
        self.last = self.done = 0


class PairMaster(MasterPart):
    cluster: PairCluster
    journal: PairJournal  # type: ignore[assignment]

    def __init__(self, cluster: PairCluster, name: str, backup_of: str | None, journal: PairJournal) -> None:
        self._open(cluster, name)
        self.journal = journal
        self.standby_settings = replace(
            StandbySettings(),
            backup_of=(backup_of,) if backup_of else None,
            quorum=cluster.quorum,
            handover=cluster.handover,
        )
        Context(cluster, name, self._woken)
        self.peer = PeerLink()
        self._then: dict[int, Callable[[messages.Result], None]] = {}  # what an operator does with an answer
        self.frozen = False  # it stands still between a decision and its carrying out
        self._freeze_s = 0.0
        self._writing = False
        restored = journal.restored()
        journal.last = journal.done = 0
        if backup_of or restored.peer:
            self._follow(restored)
        else:
            self._be_active(journal.epoch + 1, restored, Heritage(complete=True))
        self.loop()

    # ---- roles -------------------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """By its own belief."""
        return self.alive and isinstance(self.core, Master) and not self.core.fleet.stopping

    @property
    def could_be_active(self) -> bool:
        """If the other one is gone for good; a standby that never heard it could not."""
        return self.alive and (isinstance(self.core, Master) or bool(self.core.mirror.known.peer and self.core.epoch))

    def may_dispatch(self, now: float) -> bool:
        """By promise or leases, whether or not it can at this moment."""
        return self.is_active and self.core.pair.until() > now

    def _be_active(self, epoch: int, known: Restored, heritage: Heritage) -> None:
        clock = self.clock
        self.journal.rise(epoch, self.name)
        self.core = Master(*self._role(known), heritage, None, clock.now)
        self._change()
        clock.tell("%s: active with epoch %d", self.name, epoch)
        self.cluster.checks.became_active(self, known, heritage.granted)

    def _follow(self, known: Restored, seen: int = 0) -> None:
        self.core = PairStandby(*self._role(known, seen), self.clock.now)
        self._change()
        self.clock.tell("%s: stands by", self.name)

    def _role(self, known: Restored, seen: int = 0) -> tuple[Identity, Sections, Past, Sources]:
        cluster, journal = self.cluster, self.journal
        return (
            Identity(self.name, 7701, 7702, address=cluster.address(self.name)),
            Sections(cluster.settings, lambda name: cluster.services, self.standby_settings),
            Past(known, journal.last, journal.epoch, journal.epoch_by, max(seen, journal.stood)),
            self._sources(),
        )

    def _change(self) -> None:
        self.told = max(0, self.core.events.last - 1)  # a new active one has the events of the one before
        self._operator = 0
        self._probing.clear()
        if isinstance(self.core, Master):
            self._begin()

    def kill(self) -> None:
        super().kill()
        self.peer.hang_up()
        self.journal.crash(self.cluster.rng.randint(0, self.journal.waiting))

    def pause(self, seconds: float, mid: bool = False) -> None:
        """`mid`: when it has decided something next, and before it carries that out."""
        if mid:
            self._freeze_s = seconds
        else:
            super().pause(seconds)

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        clock, core = self.clock, self.core
        now = clock.now
        if not self.alive or self.frozen or self.paused(self.loop):
            return
        self._awake = False
        if now >= core.dispatches_until:
            core.lapse(now)
        for router, receive in (
            (self.backend, core.backend),
            (self.frontend, core.frontend),
            (self.control, core.control),
        ):
            while router.inbox:
                route, frame = router.inbox.popleft()
                self._reading = route
                receive(route, frame, now)
        if isinstance(core, Standby):
            while self.peer.attend(core, now):
                pass
        if isinstance(core, Master):
            for slot in [slot for slot in self._probing if self.backend.drained(slot.route)]:
                del self._probing[slot]
                core.fleet.processes.settle(slot, now)
        due = core.next_deadline()
        if now >= due or due - now > TURN_S:
            core.tick(now)
            if isinstance(core, Master):
                self.cluster.allow_bursts(core.dispatch.pools.values())
        if self._freeze_s and core.out:
            return self._freeze()
        self._rest()

    def _freeze(self) -> None:
        seconds, self._freeze_s = self._freeze_s, 0.0
        self.clock.tell("FAULT: %s stands still for %s s with what it was about to say", self.name, seconds)
        self.frozen = True
        super().pause(seconds)
        self.woke_at = self.paused_until
        self.clock.at(self.paused_until, self._thaw)

    def _thaw(self) -> None:
        self.frozen = False
        if self.alive:
            self._rest()

    def _rest(self) -> None:
        """Carries out what was decided."""
        now = self.clock.now
        core = self.core
        self._flush()
        if core is self.core and core.ready_to_end(now):
            core.end()
            self._flush()
            if core is self.core:
                return self._end()
        self._tell_events()
        due = self.core.next_deadline()
        self._watchdog.turn(due, now)
        self._timer.set(min(due, now + PROBE_EVERY_S) if self._probing else due)
        self.cluster.checks.after_step(self)

    def _end(self) -> None:
        """It was told to stop, and has said its last word."""
        self._tell_events()
        self.clock.tell("%s: ends", self.name)
        self.peer.hang_up(200)
        self.journal.write()
        self.alive = False
        self._timer.stop()
        for router in (self.control, self.frontend, self.backend):
            router.close()
        self.cluster.start_again(self.name, self.cluster.between(0.05, 2.0))

    # ---- effects -----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Of a core that is no more nothing is carried out beyond its last word."""
        while self.core.out:
            out = self.core.out
            self._carry_out(out)
            if out.role:
                self._play(out)

    def _play(self, out: outbox.Outbox) -> None:
        effects, out.role = out.role, []
        for effect in effects:
            match effect:
                case outbox.Dial(address):
                    self.peer.dial(address, self.clock.now)
                    self._woken()
                case outbox.HangUp():
                    self.peer.hang_up()
                case outbox.SayPeer(frame):
                    self.peer.send(frame)
                case outbox.Rise(epoch, by):
                    if not by and isinstance(self.core, Standby):
                        self.cluster.checks.stands(self)
                    self.journal.rise(epoch, by)
                    if not by and isinstance(self.core, Standby):
                        self.core.raised(self.clock.now)
                case outbox.BecomeActive():
                    self._take_over(effect)
                case outbox.StepDown(seen):
                    self._step_down(seen)
        self._woken()

    def _take_over(self, won: outbox.BecomeActive) -> None:
        standby = self.core
        self._tell_events()
        self.peer.hang_up(100)
        heritage = Heritage(won.granted, won.answers, standby.history(), won.complete)
        self._be_active(won.epoch, standby.mirror.known, heritage)
        self.core.out.control += standby.won()

    def _step_down(self, seen: int) -> None:
        self._tell_events()
        self.cluster.checks.stepped_down(self)
        self._follow(self.core.known, seen)

    def _send_answers(self, session: Any) -> None:
        pair = self.core.pair
        frames = list(session.outgoing)
        super()._send_answers(session)
        if pair.routes and frames:
            for route, frame in pair.copies([(session.id, session.acked, frame) for frame in frames]):
                if not self.control.send(route, frame):
                    return pair.gone(route)

    # ---- the disk ----------------------------------------------------------------------------------------------------

    def _record(self, records: list[tuple[int, bytes | list[bytes]]]) -> None:
        for number, data in records:
            self.journal.hand_over(number, data)
        if records:
            self._write_soon()

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            self.clock.after(self.cluster.between(*FSYNC_S), self._written)

    def _written(self) -> None:
        """Its thread stands still when its process does."""
        if not self.alive or self.paused(self._written):
            return
        self._writing = False
        self.journal.write()
        self.core.recorded(self.journal.done, self.clock.now)
        self._flush()
        self._woken()

    # ---- the operator ------------------------------------------------------------------------------------------------

    def verb(self, verb: str, then: Callable[[messages.Result], None] | None = None, **args: Any) -> int:
        number = self._verbs + 1
        if then is not None:
            self._then[number] = then
        return super().verb(verb, **args)

    def _operator_hears(self, frame: bytes) -> None:
        super()._operator_hears(frame)
        head = wire.parse_head(frame)
        if head.kind == wire.CONTROL:
            message = messages.decode(frame[head.head_len :])
            if isinstance(message, messages.Result) and message.id in self._then:
                self._then.pop(message.id)(message)
