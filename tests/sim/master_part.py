"""The master of a simulated cluster: the real core in a shell that does what `master/server.py` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rota.common import messages, wire
from rota.common.settings import MasterSettings, ServiceSettings
from rota.master.core.beginning import Heritage, Identity, Past, Sections, Sources
from rota.master.core.master import Master
from rota.master.core.outbox import Outbox
from rota.master.core.pool import Slot
from rota.master.core.records import Restored
from rota.master.core.sessions import Source

from .network import Router, Timer, Watchdog

if TYPE_CHECKING:
    from .cluster import Cluster

PROBE_EVERY_S = 0.005
OPERATOR = b"operator"


class Journal:
    """Records that were written; durable a little later. Survives its master."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.known = Restored()  # what they add up to
        self.epoch = 0

    def append(self, data: bytes) -> None:
        self.records.append(data)
        self.known.read(data)

    def restored(self) -> Restored:
        return Restored.of(self.records)


class MasterPart:
    """One loop over three routers, effects in the order of the real one."""

    def __init__(self, cluster: Cluster, settings: MasterSettings, services: ServiceSettings, journal: Journal | None):
        self._open(cluster, "master")
        self.journal = journal
        clock, epoch = self.clock, 1
        if journal is not None:
            journal.epoch += 1
            epoch = journal.epoch
        self.core: Any = Master(
            Identity("m", 1, 2),
            Sections(settings, lambda name: services),
            Past(journal.restored() if journal else Restored(), epoch=epoch),
            self._sources(),
            Heritage(complete=journal is not None),
            None,
            clock.now,
        )
        self._begin()
        self.loop()

    def _sources(self) -> Sources:
        clock, cluster = self.clock, self.cluster
        return Sources(lambda: clock.rng.getrandbits(63) | 1, lambda: clock.now + cluster.wall_offset)

    def _open(self, cluster: Cluster, name: str) -> None:
        """All that is the same in whatever role."""
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.name = name
        self.control = Router(clock, self._woken)
        self.frontend = Router(clock, self._woken)
        self.backend = Router(clock, self._woken)
        self.alive = True
        self.paused_until = 0.0
        self.woke_at = clock.now  # when it last stood still until
        self.results: dict[int, messages.Result] = {}  # of the operator's verbs
        self._written_at = 0.0  # the last record: it is one file
        self.told = 0  # the last event of the core that is in the transcript
        self._reading = b""  # the route of the frame that is being read
        self._operator = 0
        self._verbs = 0
        self._probing: dict[Slot, None] = {}
        self._awake = False
        self._watchdog = Watchdog(name)
        self._timer = Timer(clock, self.loop)

    def _begin(self) -> None:
        def source() -> Source:
            return Source(int.from_bytes(self._reading, "big"), "client")

        self.core.read_from(source, source)
        self.cluster.checks.watch(self)

    def kill(self) -> None:
        self.alive = False
        self._timer.stop()
        for router in (self.control, self.frontend, self.backend):
            router.kill()

    def stop(self) -> None:
        """TERM. It goes on until it is ready to end, says its last word, and ends."""
        self.core.stop(self.clock.now)
        self._woken()

    def _end(self) -> None:
        self.core.end()
        self._flush()
        self._tell_events()
        self.alive = False
        self._timer.stop()
        for router in (self.control, self.frontend, self.backend):
            router.close()
        self.clock.after(self.cluster.between(0.05, 0.5), self.cluster.start_master)

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.clock.now + seconds)

    def paused(self, then: Callable[[], None]) -> bool:
        """Whatever it should do now it does when it goes on."""
        if self.clock.now >= self.paused_until:
            return False
        self.woke_at = self.paused_until
        self.clock.at(self.paused_until, then)
        return True

    def _woken(self) -> None:
        if not self._awake:
            self._awake = True
            self._timer.by(self.clock.now + self.cluster.chance() * 0.0005)

    def loop(self) -> None:
        clock, core = self.clock, self.core
        now = clock.now
        if not self.alive or self.paused(self.loop):
            return
        self._awake = False
        for router, receive in (
            (self.backend, core.backend),
            (self.frontend, core.frontend),
            (self.control, core.control),
        ):
            while router.inbox:
                route, frame = router.inbox.popleft()
                self._reading = route
                receive(route, frame, now)
            self._flush()
        for slot in [slot for slot in self._probing if self.backend.drained(slot.route)]:
            del self._probing[slot]
            core.fleet.processes.settle(slot, now)
        due = core.next_deadline()
        if now >= due or due - now > 0.15:
            core.tick(now)
            self.cluster.allow_bursts(core.dispatch.pools.values())
            due = core.next_deadline()
        self._flush()
        if core.ready_to_end(now):
            self._end()
            return
        self._watchdog.turn(due, now)
        self._timer.set(min(due, now + PROBE_EVERY_S) if self._probing else due)
        self._tell_events()
        self.cluster.checks.after_step(self)

    def _tell_events(self) -> None:
        events = self.core.events
        if events.last > self.told:
            for event in events.since(self.told):
                self.clock.tell("%s: %s", self.name, lambda event=event: f"{event['kind']}: {event['text']}")
            self.told = events.last

    def _send_deliveries(self, slot: Any) -> None:
        frames, slot.outgoing = slot.outgoing, []
        for place, frame in enumerate(frames):
            self.clock.tell("%s: delivery %s → %s", self.name, lambda frame=frame: _number(frame), slot.incarnation)
            if not self.backend.send(slot.route, frame):
                self.clock.tell("%s: that to %s is undeliverable", self.name, slot.incarnation)
                self.core.undeliverable(slot, frames[place:], True, self.clock.now)
                return

    def _send_answers(self, session: Any) -> None:
        frames, session.outgoing = session.outgoing, []
        for frame in frames:
            if not self.frontend.send(session.route, frame):
                self.core.dispatch.answer_blocked(session, [frame], True)
                return

    def _flush(self) -> None:
        out = self.core.out
        while out:
            self._carry_out(out)

    def _carry_out(self, out: Outbox) -> None:
        frames, out.backend = out.backend, []
        for route, frame in frames:
            self.backend.send(route, frame)
        frames, out.frontend = out.frontend, []
        for route, frame in frames:
            self.frontend.send(route, frame)
        slots, out.slots = out.slots, []
        for slot in slots:
            self._send_deliveries(slot)
        sessions, out.sessions = out.sessions, []
        for session in sessions:
            self._send_answers(session)
        frames, out.control = out.control, []
        for route, frame in frames:
            if route == OPERATOR:
                self._operator_hears(frame)
            elif not self.control.send(route, frame):
                self.core.control_gone(route)
        records, out.records = out.records, []
        self._record(records)
        cuts, out.cuts = out.cuts, []
        for source in cuts:
            self.cluster.connections[source.fd - 1].reset()
        self._probing.update(dict.fromkeys(out.probes))
        out.probes.clear()

    def _record(self, records: list[tuple[int, bytes]]) -> None:
        for number, data in records:
            self._written_at = max(self._written_at, self.clock.now + 0.002 + 0.01 * self.cluster.chance())
            self.clock.at(self._written_at, lambda number=number, data=data: self._write(number, data))

    def _write(self, number: int, data: bytes) -> None:
        if self.alive and not self.paused(lambda: self._write(number, data)):
            if self.journal is not None:
                self.journal.append(data)
            self.core.recorded(number, self.clock.now)
            self._flush()
            self._woken()

    # ---- the operator ------------------------------------------------------------------------------------------------

    def verb(self, verb: str, **args: Any) -> int:
        """Asks; the answer will stand in `results` under the number that this returns."""
        if not self._operator:
            hello = messages.OperatorHello([1, 1], "op")
            self.core.control(OPERATOR, messages.framed(wire.HELLO, 0, hello), self.clock.now)
            self._flush()
        self._verbs += 1
        frame = messages.framed(wire.CONTROL, self._operator, messages.Verb(self._verbs, verb, args))
        shown = " ".join(f"{name}={value}" for name, value in args.items())
        self.clock.tell("operator: %s %s", verb, shown)
        with self.cluster.checks.forced(bool(args.get("force"))):
            self.core.control(OPERATOR, frame, self.clock.now)
        self._flush()
        self._woken()
        return self._verbs

    def _operator_hears(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        if head.kind == wire.WELCOME:
            self._operator = head.token
        if head.kind != wire.CONTROL:
            return
        message = messages.decode(frame[head.head_len :])
        assert isinstance(message, messages.Result)
        self.clock.tell("operator: exit %d %s", message.exit, message.data.get("error", ""))
        self.results[message.id] = message


def _number(frame: bytes) -> int:
    return wire.parse_head(frame).number
