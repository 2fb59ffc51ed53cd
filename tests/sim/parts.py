"""The parts of a cluster as thin shells around the real cores: what the real shells do, without their sockets."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from rota.client.calls import Call, Calls
from rota.common import errors, messages, wire
from rota.common.errors import Error
from rota.common.messages import Handler, ProcessHello, Refusal, Welcome
from rota.common.settings import MasterSettings, ServiceSettings
from rota.master.core.master import Identity, Master
from rota.master.core.pool import Slot
from rota.master.core.records import Restored
from rota.worker.core import supervision
from rota.worker.core.deliveries import Deliveries, Delivery
from rota.worker.core.supervision import Overdue, Supervision, Timing
from rota.worker.page import FENCE_EPOCH, FLOOR, HANDLED, OBEY, PHASE, READY, STARTED_UPTO, STOP, STOPPING, Page

from .network import Connection, Router, Timer, Violation

if TYPE_CHECKING:
    from .cluster import Cluster

TICK_S = 0.1  # of an idle process or agent
CUT_S = 0.05  # a reconnect's first delay

# name → (what it declares, seconds that it runs: least and most)
HANDLERS = {
    "plain": (Handler("no"), 0.0005, 0.02),
    "slow": (Handler("no"), 0.05, 0.4),
    "again": (Handler("yes"), 0.0005, 0.05),
    "keyed": (Handler("key"), 0.0005, 0.05),
    "hangs": (Handler("no", 500), 0.001, 1.5),
}
LIMITS_NS = {name: handler.timeout_ms * 1_000_000 for name, (handler, _, _) in HANDLERS.items()}


class Journal:
    """Records that were written; durable a little later. Survives its master."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.epoch = 0

    def restored(self) -> Restored:
        restored = Restored()
        for record in self.records:
            restored.read(record)
        return restored


class MasterPart:
    """As `master/server.py`: one loop over three routers, effects in its order."""

    def __init__(self, cluster: Cluster, settings: MasterSettings, services: ServiceSettings, journal: Journal | None):
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.journal = journal
        epoch = 1
        if journal is not None:
            journal.epoch += 1
            epoch = journal.epoch
        self.control = Router(clock, self._woken)
        self.frontend = Router(clock, self._woken)
        self.backend = Router(clock, self._woken)
        self.core = Master(
            Identity("m", epoch, 1, 2, ""),
            settings,
            lambda name: services,
            journal.restored() if journal else Restored(),
            lambda: clock.rng.getrandbits(63) | 1,
            lambda: clock.now,
            clock.now,
        )
        self.alive = True
        self.paused_until = 0.0
        self.results: dict[int, messages.Result] = {}  # of the operator's verbs
        self._operator = 0
        self._verbs = 0
        self._probing: dict[Slot, None] = {}
        self._awake = False
        self._timer = Timer(clock, self.loop)
        self.loop()

    def kill(self) -> None:
        self.alive = False
        self._timer.stop()
        for router in (self.control, self.frontend, self.backend):
            router.kill()

    def _woken(self) -> None:
        if not self._awake:
            self._awake = True
            self.clock.after(0.0005 * self.clock.rng.random(), self.loop)

    def loop(self) -> None:
        clock, core = self.clock, self.core
        now = clock.now
        if not self.alive:
            return
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        self._awake = False
        for router, receive in (
            (self.backend, core.backend),
            (self.frontend, core.frontend),
            (self.control, core.control),
        ):
            while router.inbox:
                route, frame = router.inbox.popleft()
                receive(route, frame, now)
            self._flush()
        for slot in [slot for slot in self._probing if self.backend.drained(slot.route)]:
            del self._probing[slot]
            core.fleet.settle(slot, now)
        if now >= core.next_deadline() or core.next_deadline() - now > 0.15:
            core.tick(now)
        self._flush()
        self._timer.set(min(core.next_deadline(), now + (0.005 if self._probing else 1.0)))
        self.cluster.checks.after_step(self)

    def _send_deliveries(self, slot: Any) -> None:
        frames, slot.outgoing = slot.outgoing, []
        for place, frame in enumerate(frames):
            number = wire.parse_head(frame).number
            self.cluster.checks.delivered(self, slot, number)
            if not self.backend.send(slot.route, frame):
                self.clock.tell("master: delivery %d to %s is undeliverable", number, slot.incarnation)
                self.core.undeliverable(slot, frames[place:], True, self.clock.now)
                return

    def _send_answers(self, session: Any) -> None:
        frames, session.outgoing = session.outgoing, []
        for frame in frames:
            if not self.frontend.send(session.route, frame):
                self.core.dispatch.answer_blocked(session, frame, True)
                return

    def _flush(self) -> None:
        out, clock = self.core.out, self.clock
        while out:
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
                if route == b"operator":
                    self._operator_hears(frame)
                elif not self.control.send(route, frame):
                    self.core.operator_gone(route)
            records, out.records = out.records, []
            for number, data in records:
                clock.after(
                    0.002 + 0.01 * clock.rng.random(), lambda number=number, data=data: self._write(number, data)
                )  # type: ignore[misc]
            self._probing.update(dict.fromkeys(out.probes))
            out.probes.clear()

    def _write(self, number: int, data: bytes) -> None:
        if self.alive:
            if self.journal is not None:
                self.journal.records.append(data)
            self.core.recorded(number, self.clock.now)
            self._flush()

    # ---- the operator ------------------------------------------------------------------------------------------------

    def verb(self, verb: str, **args: Any) -> int:
        """Asks; the answer will stand in `results` under the number that this returns."""
        if not self._operator:
            hello = messages.encode(messages.OperatorHello([1, 1], "op"))
            self.core.control(b"operator", wire.head(wire.HELLO, 0) + hello, self.clock.now)
            self._flush()
        self._verbs += 1
        before = self.cluster.checks.active(self.core, self.clock.now)
        frame = wire.head(wire.CONTROL, self._operator) + messages.encode(messages.Verb(self._verbs, verb, args))
        self.clock.tell("operator: %s %s", verb, args)
        self.core.control(b"operator", frame, self.clock.now)
        if verb == "drain" and not args.get("force"):
            self.cluster.checks.budget_kept(self, before)
        self._flush()
        self._woken()
        return self._verbs

    def _operator_hears(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        if head.kind == wire.WELCOME:
            self._operator = head.token
            return
        message = messages.decode(frame[head.head_len :])
        assert isinstance(message, messages.Result)
        self.clock.tell("operator: answer to %d is %d %s", message.id, message.exit, message.data.get("error", ""))
        self.results[message.id] = message


class AgentPart:
    """As `worker/agent.py`."""

    def __init__(self, cluster: Cluster, node: str, remembered: messages.Intent | None, epoch: int) -> None:
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.node = node
        rng = clock.rng
        self.core = Supervision(
            node,
            f"{rng.getrandbits(24):06x}",
            masters=1,
            capacity=2,
            offers=["s"],
            tags={},
            reconnect_delay=lambda failures: min(2.0, CUT_S * 2 ** min(failures, 6)) * (0.5 + 0.5 * rng.random()),
            timing=Timing(5.0, 1.0),
            remembered=remembered,
            epoch=epoch,
        )
        self.processes: dict[str, ProcessPart] = {}
        self.alive = True
        self.paused_until = 0.0
        self.link: Connection | None = None
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._introduced = False
        self._token = 0
        self._epoch = self._obey = 0
        self._effects: deque[supervision.Effect] = deque()
        self._timer = Timer(clock, self.step)
        self._timer.set(clock.now)

    def kill(self) -> None:
        """With it die its processes."""
        self.alive = False
        self._timer.stop()
        for process in list(self.processes.values()):
            process.die(report=False)
        if self.link is not None:
            self.link.close(gently=False)

    def leave(self) -> None:
        self._perform(self.core.leave(20.0, self.clock.now))
        self._timer.set(self.clock.now)

    def step(self) -> None:
        now = self.clock.now
        if not self.alive:
            return
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        link = self.link
        if link is not None and link.lost:
            self._disconnect()
            self._perform(self.core.lost(now))
        elif link is not None and link.connected and not self._introduced:
            self._introduced = True
            self._perform(self.core.connected(now))
        while self._inbox:
            origin, frame = self._inbox.popleft()
            if origin is self.link:
                self._receive(frame)
        for incarnation, process in list(self.processes.items()):
            if process.page.words[PHASE] == READY:
                self._perform(self.core.ready(incarnation, now))
            self._perform(self.core.seen(incarnation, *process.overdue(), now))
        self._perform(self.core.tick(now))
        if self.alive:
            due = self.core.next_deadline()
            if due < now - 0.001:  # a real agent would spin
                self.cluster.spins[due, self.node] += 1
                if self.cluster.spins[due, self.node] > 20:
                    raise Violation(f"{self.node} spins: its deadline stays {now - due:.3f} s in the past")
            self._timer.set(max(min(due, now + TICK_S), now + 0.0001))

    def _receive(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        now = self.clock.now
        body = frame[head.head_len :]
        if head.kind == wire.CONTROL and head.token == self._token and self.core.greeted:
            self._perform(self.core.received(messages.decode(body), now))
        elif head.kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token = head.token
            self._perform(self.core.welcomed(welcome, now))
        elif head.kind == wire.REFUSED and isinstance(refusal := messages.decode(body), Refusal):
            self.clock.tell("%s: refused: %s", self.node, refusal.message)
            self._perform(self.core.refused(refusal, now))
        elif head.kind == wire.WHO:
            self._perform(self.core.who(now))

    def _perform(self, effects: list[supervision.Effect]) -> None:
        self._effects.extend(effects)
        while self._effects:
            self._perform_one(self._effects.popleft())

    def _perform_one(self, effect: supervision.Effect) -> None:
        match effect:
            case supervision.Send(message):
                self._send(wire.head(wire.CONTROL, self._token) + messages.encode(message))
            case supervision.Hello(message):
                self._send(wire.head(wire.HELLO, 0) + messages.encode(message))
            case supervision.Connect():
                self._disconnect()
                self.link = self.cluster.connect("control", self._heard)
            case supervision.Spawn(incarnation):
                process = ProcessPart(self.cluster, self, incarnation)
                process.page.words[FENCE_EPOCH] = self._epoch
                process.page.words[OBEY] = self._obey
                self.processes[incarnation] = process
                self._effects.extendleft(reversed(self.core.spawned(incarnation, process.ticket, process.pid)))
            case supervision.Stop(incarnation):
                if incarnation in self.processes:
                    self.processes[incarnation].page.words[STOP] = 1
            case supervision.Kill(incarnation, signal):
                if incarnation in self.processes:
                    self.processes[incarnation].signalled(signal)
            case supervision.SetFloor(incarnation, floor):
                if incarnation in self.processes:
                    self._set_floor(self.processes[incarnation], floor)
            case supervision.Fence(epoch, master):
                self._epoch, self._obey = epoch, master
                for process in self.processes.values():
                    process.page.words[FENCE_EPOCH] = epoch
                    process.page.words[OBEY] = master
            case supervision.Remember(intent, epoch):
                self.cluster.remembered[self.node] = intent, epoch
            case supervision.Quit():
                self._send(wire.head(wire.BYE, self._token))
                self.clock.tell("%s: left", self.node)
                self.alive = False
                self._timer.stop()
                if self.link is not None:
                    self.link.close()

    def _set_floor(self, process: ProcessPart, floor: int) -> None:
        words = process.page.words
        words[FLOOR] = floor

        def read() -> None:
            if self.alive and process.alive:
                self._perform(self.core.recalled(process.incarnation, floor, words[STARTED_UPTO]))

        self.clock.after(0.002, read)

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        self._timer.set(self.clock.now)

    def _send(self, frame: bytes) -> None:
        if self.link is not None and not self.link.send(frame):
            self._disconnect()
            self._effects.extend(self.core.lost(self.clock.now))

    def _disconnect(self) -> None:
        link, self.link = self.link, None
        self._introduced = False
        if link is not None:
            link.close()

    def reaped(self, process: ProcessPart, status: int, how: str) -> None:
        """The pidfd tells at once; a paused agent looks later."""
        if not self.alive:
            return
        if self.clock.now < self.paused_until:
            self.clock.after(self.paused_until - self.clock.now, lambda: self.reaped(process, status, how))
            return
        del self.processes[process.incarnation]
        rows, started_upto = process.page.report(), process.page.words[STARTED_UPTO]
        process.page.close()
        self._perform(
            self.core.exited(process.incarnation, status, how, started_upto, rows, "", self.clock.now),
        )
        self._timer.set(self.clock.now)


class ProcessPart:
    """As `worker/process.py` and `backend.py`, with handlers that only take time and are written down."""

    def __init__(self, cluster: Cluster, agent: AgentPart, incarnation: str) -> None:
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.agent = agent
        self.incarnation = incarnation
        self.ticket = clock.rng.randbytes(16)
        self.pid = cluster.next_pid()
        self.page = Page.create()
        self.deliveries = Deliveries(self.page, LIMITS_NS, 0)
        self.alive = True
        self.greeted = False
        self.concurrency = cluster.concurrency
        self.link: Connection | None = None
        self.running: dict[int, Delivery] = {}
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._stopping = False
        self._obeyed = 0
        self._failures = 0
        self._open_at = self._hello_at = self._quiet_since = 0.0
        self._answer_by: float | None = None
        self._timer = Timer(clock, self.step)
        self._timer.set(clock.now + 0.02 + 0.2 * clock.rng.random())
        self._loaded = False

    def signalled(self, signal: int) -> None:
        if signal == supervision.SIGTERM and self._loaded:
            self.page.words[STOP] = 1
        else:
            self.die(status=-signal)

    def die(self, report: bool = True, status: int = -9, gently: bool = False) -> None:
        if not self.alive:
            return
        self.alive = False
        self._timer.stop()
        self.clock.tell("%s: ends with %d, running %s", self.incarnation, status, list(self.running))
        if self.link is not None:
            self.link.close(gently)
        if report:
            how = "exited" if status == 0 else f"was killed by signal {-status}"
            self.clock.after(0.005 * self.clock.rng.random(), lambda: self.agent.reaped(self, status, how))
        else:
            self.page.close()

    def overdue(self) -> tuple[int, Overdue | None]:
        now_ns = int(self.clock.now * 1e9)
        words = self.page.words
        if not self.alive or words[STARTED_UPTO] == words[HANDLED]:
            return 0, None
        running = self.page.running()
        late = [row for row in running if row.kill_ns and now_ns >= row.kill_ns]
        return len(running), Overdue(0.5, len(running) - 1) if late else None

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        if not self.alive:
            return
        if not self._loaded:
            self._loaded = True
            self.page.words[PHASE] = READY
        if self.page.words[STOP] and not self._stopping:
            self._stopping = True
            self.page.words[PHASE] = STOPPING
            self._quiet_since = self.clock.now
            if self.greeted and self.link is not None:
                self.link.send(wire.head(wire.BYE, self.deliveries.token))
        while self._inbox and len(self.running) < self.concurrency:
            origin, frame = self._inbox.popleft()
            if origin is self.link:
                self._quiet_since = self.clock.now
                self._receive(frame)
                if not self.alive:
                    return
        if len(self.running) < self.concurrency or self.concurrency > 1:
            self._attend()
        if self._stopping and not self.running and (not self.greeted or self.clock.now - self._quiet_since >= TICK_S):
            self.die(status=0, gently=True)
            return
        self._timer.set(self.clock.now + TICK_S)

    def _attend(self) -> None:
        now = self.clock.now
        link = self.link
        if link is None:
            if now >= self._open_at and not self._stopping:
                self._obeyed = self.page.words[OBEY]
                self.link = self.cluster.connect("backend", self._heard)
                self._hello_again(0.0)
        elif link.lost or self.page.words[OBEY] != self._obeyed:
            self._drop()
        elif not self.greeted and link.connected:
            if self._answer_by is not None:
                if now >= self._answer_by:
                    self._drop()
            elif now >= self._hello_at and link.send(wire.head(wire.HELLO, 0) + messages.encode(self._hello())):
                self.clock.tell(
                    "%s: HELLO received %d held %s",
                    self.incarnation,
                    self.deliveries.received_upto,
                    [(each.number, each.done) for each in self.deliveries.held()],
                )
                self._answer_by = now + 3.0

    def _hello(self) -> ProcessHello:
        ledger = self.deliveries
        return ProcessHello(
            versions=[1, 1],
            incarnation=self.incarnation,
            ticket=self.ticket,
            service="s",
            version="1",
            digest="d",
            handlers={name: handler for name, (handler, _, _) in HANDLERS.items()},
            concurrency=self.concurrency,
            pid=self.pid,
            received_upto=ledger.received_upto,
            started_upto=ledger.started_upto,
            reply_sequence=ledger.sequence,
            held=ledger.held(),
        )

    def _hello_again(self, at: float) -> None:
        self.greeted = False
        self._hello_at = at
        self._answer_by = None

    def _drop(self) -> None:
        if self.link is not None:
            self.link.close(gently=False)
        self.link = None
        self.greeted = False
        self._open_at = self.clock.now + CUT_S * (0.5 + self.clock.rng.random())

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        if len(self.running) < self.concurrency:
            self._timer.set(self.clock.now)

    def _receive(self, frame: bytes) -> None:
        fields = wire.parse(frame)
        kind = fields[3]
        if self.greeted and kind == wire.DELIVER and fields[5] == self.deliveries.token:
            delivery = self.deliveries.take(fields, frame, int(self.clock.now * 1e9))
            if delivery is None:
                return
            if delivery.may_run:
                self._run(delivery)
            else:
                self.clock.tell("%s: refuses %d", self.incarnation, delivery.number)
                self._send(self.deliveries.not_started(delivery))
        elif kind == wire.WELCOME and isinstance(welcome := messages.decode(frame[fields[11] :]), Welcome):
            self.greeted = True
            for reply in self.deliveries.welcomed(fields[5], welcome.epoch, welcome.upto):
                self._send(reply)
        elif kind == wire.REFUSED and isinstance(refusal := messages.decode(frame[fields[11] :]), Refusal):
            self._hello_again(self.clock.now + max(refusal.retry_after_ms, 10) / 1000)
        elif kind == wire.WHO:
            self._hello_again(0.0)

    def _run(self, delivery: Delivery) -> None:
        call = int(delivery.body)
        self.cluster.checks.executed(call, delivery.handler, self)
        self.running[delivery.number] = delivery
        _, least, most = HANDLERS[delivery.handler]
        self.clock.after(least + (most - least) * self.clock.rng.random(), lambda: self._ran(delivery, call))

    def _ran(self, delivery: Delivery, call: int) -> None:
        if not self.alive:
            return
        del self.running[delivery.number]
        self._send(self.deliveries.reply(delivery, 0, b"r%d" % call, 1000))
        self.step()

    def _send(self, frame: bytes) -> None:
        if self.link is not None and self.greeted and not self.link.send(frame):
            self._drop()


class SimCall(Call):
    """What its caller was told is written down, once."""

    def __init__(self, number: int, handler: str, deadline: float, cluster: Cluster, key: bool) -> None:
        self.number = 0
        self.epoch = 0
        self.id = number
        self.handler = handler
        self.deadline = deadline
        target = b"s." + handler.encode()
        meta = b"\x81\xa1k\xa1x" if key else b"\x81\xa1s\xa1x"
        self.address = (target + meta, len(target), wire.META) if handler == "keyed" else (target, len(target), 0)
        self.key = key
        self.body = b"%d" % number
        self.cluster = cluster
        self.code: int | None = None

    def finish(self, value: object, error: Error | None) -> None:
        self.answered(error.code if error else 0, str(error or ""))

    def answered(self, code: int, text: str) -> None:
        if self.code is not None:
            raise Violation(f"call {self.id} got two final answers: {self.code} and {code}")
        self.code = code
        self.cluster.checks.answered(self, code, text)


class ClientPart:
    """As `client/session.py`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.calls = Calls()
        self.id = cluster.clock.rng.randbytes(16)
        self.link: Connection | None = None
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._epoch = 0
        self._token = 0
        self._hello_due = False
        self._due = 0.0
        self._failures = 0
        self._timer = Timer(cluster.clock, self.step)
        self._timer.set(cluster.clock.now)

    def call(self, call: SimCall) -> None:
        error = self.calls.submit(call)
        if error is not None:
            call.finish(None, error)
        self._timer.set(self.clock.now)

    def cancel(self, call: SimCall) -> None:
        if call.code is None:
            self.calls.cancel(call)
            call.answered(errors.Cancelled.code, "by its caller")
            self._timer.set(self.clock.now)

    def step(self) -> None:
        now = self.clock.now
        while self._inbox:
            origin, frame = self._inbox.popleft()
            if origin is self.link:
                self._receive(frame)
        link = self.link
        if link is None:
            if now >= self._due:
                self.link = self.cluster.connect("frontend", self._heard)
                self._hello_due = True
                self._due = now + 1.0
        elif link.lost or (not self.calls.open and now >= self._due):
            self._part()
        elif self._hello_due and link.connected:
            hello = messages.encode(messages.ClientHello([1, 1], self.id, self._epoch))
            link.send(wire.head(wire.HELLO, 0) + hello)
            self._hello_due = False
        elif self.calls.open:
            while (frame := self.calls.next_frame(now)) is not None:
                link.send(frame)
        for call, error in self.calls.expire(now):
            call.finish(None, error)
        due = self.calls.next_deadline()
        self._timer.set(max(now + 0.001, min(due, now + (TICK_S if self.calls.open else 0.01))))

    def _part(self) -> None:
        if self.link is not None:
            self.link.close(gently=False)
        self._failures = 0 if self.calls.open else self._failures + 1
        self.link = None
        self.calls.closed()
        self._due = self.clock.now + CUT_S * min(16, 2**self._failures) * self.clock.rng.random()

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        self._timer.set(self.clock.now)

    def _receive(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        body = frame[head.head_len :]
        if head.kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token, self._epoch = head.token, welcome.epoch
            failed = self.calls.opened(head.token, welcome.epoch, welcome.resumed, welcome.max_message, self.clock.now)
            for call, error in failed:
                call.finish(None, error)
        elif head.kind == wire.WHO and self.calls.open:
            self.calls.closed()
            self._hello_due, self._due = True, self.clock.now + 1.0
        elif head.kind == wire.ANSWER and self.calls.open and head.token == self._token:
            answered = self.calls.answered(head.number, head.upto, len(frame))
            if isinstance(answered, SimCall):
                if head.code == 0 and body != b"r%d" % answered.id:
                    raise Violation(f"call {answered.id} got the answer of another: {body!r}")
                answered.answered(head.code, body.decode("latin-1") if head.code else "")
