"""A process of a simulated node: the real ledger and the real page in a shell that does what `worker/process.py` and
`backend.py` do, with handlers that only take time and are written down. Where several run at once, a delivery waits as
a task does for its event loop.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from rota.common import errors, messages, wire
from rota.common.body import encode_error
from rota.common.errors import RemoteError
from rota.common.limits import IDLE_TICK_S
from rota.common.messages import Handler, ProcessHello, Refusal, Welcome
from rota.worker.core import processes
from rota.worker.core.deliveries import Deliveries, Delivery, _Kept
from rota.worker.core.holding import Holding
from rota.worker.core.processes import Overdue
from rota.worker.core.streams import Stream, Streams
from rota.worker.page import FENCE_EPOCH, FLOOR, HANDLED, OBEY, PHASE, READY, STARTED_UPTO, STOP, STOPPING

from .network import Connection, Timer
from .streamed import Streaming

if TYPE_CHECKING:
    from .agent_part import AgentPart
    from .cluster import Cluster

REMEMBER = 4  # of what it has done: so little that much is forgotten in a history
STREAK = 2  # quick replies in a row, before one waits for the next
QUICKER = 50  # than `Behaviour` says they seem where that is decided: most may wait
ANSWER_S = 3.0  # a HELLO without an answer for so long: the connection is worth nothing
TURN_S = (0.0, 0.002)  # until an event loop comes to the next task, least and most
COMPUTES = 0.3  # of handlers on a loop: nothing else has its turn meanwhile
LOAD_S = (0.02, 0.2)  # an interpreter and an application, least and most


class Behaviour(NamedTuple):
    """What a handler declares, and what it does: seconds that it runs, least and most; whether it ends its process."""

    declared: Handler
    least_s: float
    most_s: float
    weight: float  # among random calls
    deadly: bool = False
    streams: bool = False


HANDLERS = {
    "plain": Behaviour(Handler("no"), 0.0005, 0.02, 8),
    "slow": Behaviour(Handler("no"), 0.05, 0.4, 1),
    "again": Behaviour(Handler("yes"), 0.0005, 0.05, 4),
    "keyed": Behaviour(Handler("key"), 0.0005, 0.05, 4),
    "once": Behaviour(Handler("no"), 0.0005, 0.05, 2),
    "hangs": Behaviour(Handler("no", 500), 0.001, 1.5, 0.3),
    "poison": Behaviour(Handler("no"), 0.001, 0.01, 0.1, deadly=True),
    "stream": Behaviour(Handler("no"), 0.0, 0.0, 0.5, streams=True),
    "streamagain": Behaviour(Handler("yes"), 0.0, 0.0, 0.5, streams=True),
}
KEYED = ("keyed", "once")  # calls of these may have an idempotency key
REPEATABLE = ("again", "streamagain")
DECLARED = {name: handler.declared for name, handler in HANDLERS.items()}
LIMITS_NS = {name: handler.declared.timeout_ms * 1_000_000 for name, handler in HANDLERS.items()}


class ProcessPart:
    def __init__(self, cluster: Cluster, agent: AgentPart, incarnation: str) -> None:
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.agent = agent
        self.incarnation = incarnation
        self.ticket = clock.rng.randbytes(16)
        self.pid = cluster.next_pid()
        self.page = cluster.new_page()
        self.deliveries = Deliveries(self.page, LIMITS_NS, 0, remember=REMEMBER)
        self.streams = Streams(self.deliveries)
        self.holding = Holding(STREAK)
        self.replies: list[bytes] = []  # that wait for the next
        self.alive = True
        self.greeted = False
        self.paused_until = 0.0
        self.concurrency = cluster.concurrency
        self.link: Connection | None = None
        self.running: dict[int, Delivery] = {}
        self._tasks: deque[Delivery] = deque()  # that the loop has not come to
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._parked: deque[tuple[Connection, bytes]] = deque()  # deliveries behind a handler that reads for its stream
        self._streaming: dict[int, Streaming] = {}
        self._loaded = self._stopping = False
        self._obeyed = 0
        self._open_at = self._hello_at = self._quiet_since = 0.0
        self._answer_by: float | None = None  # None: HELLO is still to be said
        self._timer = Timer(clock, self.step)
        self._timer.set(clock.now + cluster.between(*LOAD_S))

    # ---- what happens to it ------------------------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """The stop word."""
        if self.alive:
            self.page.words[STOP] = 1
            self.look_soon()

    def signalled(self, signal: int) -> None:
        """All but KILL wait until a stopped process goes on."""
        if self.clock.now < self.paused_until and signal != processes.SIGKILL:
            self.clock.at(self.paused_until, lambda: self.signalled(signal))
        elif signal == processes.SIGTERM and self._loaded:
            self.ask_to_stop()
        else:
            self.die(status=-signal)

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.clock.now + seconds)

    def die(self, report: bool = True, status: int = -9, gently: bool = False) -> None:
        if not self.alive:
            return
        self.alive = False
        self._timer.stop()
        ran = f", running {list(self.running)}" if self.running else ""
        how = "exited" if status == 0 else f"was killed by signal {-status}"
        self.clock.tell("%s: %s%s", self.incarnation, how, ran)
        if self.link is not None:
            self.link.close(gently)
        if report:
            notice_s = 0.005 * self.cluster.chance()
            self.clock.after(notice_s, lambda: self.agent.reaped(self, status, how))
        else:
            self.cluster.drop_page(self.page)

    def overdue(self) -> tuple[int, Overdue | None]:
        """How many handlers run, and the one that is over its limit."""
        words = self.page.words if self.alive else None
        if words is None or words[STARTED_UPTO] == words[HANDLED]:
            return 0, None
        rows, now_ns = self.page.running(), int(self.clock.now * 1e9)
        late = [row for row in rows if row.kill_ns and now_ns >= row.kill_ns]
        return len(rows), Overdue((late[0].kill_ns - late[0].started_ns) / 1e9, len(rows) - 1) if late else None

    def has(self, origin: tuple[bytes, int]) -> bool:
        """Is this what it runs, or an answer that it keeps?"""
        packed = wire.ORIGIN_STRUCT.pack(*origin)
        if any(each.origin == packed and self._may_yet_run(each) for each in self.deliveries.running.values()):
            return True
        self.deliveries.held()  # what was acknowledged is let go
        kept = [_Kept._make(reply) for reply in self.deliveries._kept]
        return any(reply.origin == packed and reply.head.code != errors.NOT_STARTED for reply in kept)

    def _may_yet_run(self, delivery: Delivery) -> bool:
        words = self.page.words
        allowed = delivery.number >= words[FLOOR] and delivery.epoch >= words[FENCE_EPOCH]
        return delivery.may_run or allowed

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        now = self.clock.now
        if not self.alive:
            return
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        self._notice(now)
        while (found := self._next()) is not None:
            origin, frame = found
            if origin is self.link:
                self._quiet_since = now
                self._receive(frame)
                if not self.alive:
                    return
        if self._reads():
            self._send_replies()
        if self._reads() or self.concurrency > 1:
            self._attend(now)
        if (
            self._stopping
            and not self.deliveries.running
            and (not self.greeted or now - self._quiet_since >= IDLE_TICK_S)
        ):
            self.die(status=0, gently=True)
            return
        self._timer.by(self._due(now))

    def _reads(self) -> bool:
        """A process of one thread reads nothing while its handler runs, unless that waits for its stream."""
        return len(self.deliveries.running) < self.concurrency or bool(self._streaming)

    def _next(self) -> tuple[Connection, bytes] | None:
        room = len(self.deliveries.running) < self.concurrency
        if room and self._parked:
            return self._parked.popleft()
        while self._inbox and (room or self._streaming):
            origin, frame = self._inbox.popleft()
            if room or wire.parse(frame)[3] != wire.DELIVER:
                return origin, frame
            self._parked.append((origin, frame))
        return None

    def _notice(self, now: float) -> None:
        words = self.page.words
        if not self._loaded:
            self._loaded = True
            words[PHASE] = READY
            self.agent.look_soon()
        if words[STOP] and not self._stopping:
            self._stopping = True
            words[PHASE] = STOPPING
            self._quiet_since = now
            if self.greeted and self.link is not None:
                self.link.send(wire.head(wire.BYE, self.deliveries.token))

    def _due(self, now: float) -> float:
        """When there is something to do though nobody speaks."""
        if self._stopping:
            return now + IDLE_TICK_S
        if self.concurrency == 1 and not self._reads():
            return inf
        if self.link is None:
            return self._open_at
        if self.greeted or not self.link.connected:
            return now + IDLE_TICK_S if self.page.words[OBEY] != self._obeyed else inf
        return self._hello_at if self._answer_by is None else self._answer_by

    def look_soon(self) -> None:
        """What its idle tick looks at has changed: page, connection."""
        self._timer.by(max(self.paused_until, self.clock.now + IDLE_TICK_S * self.cluster.chance()))

    # ---- the connection ----------------------------------------------------------------------------------------------

    def _attend(self, now: float) -> None:
        link = self.link
        if link is None:
            if now >= self._open_at and not self._stopping:
                self._obeyed = self.page.words[OBEY]
                self.link = self.cluster.connect(
                    "backend", self.agent.node, self._heard, self._link_changed, self._obeyed
                )
                self._hello_again(0.0)
        elif link.lost or self.page.words[OBEY] != self._obeyed:
            self._drop()
        elif not self.greeted and link.connected:
            if self._answer_by is not None:
                if now >= self._answer_by:
                    self._drop()
            elif now >= self._hello_at and link.send(messages.framed(wire.HELLO, 0, self._hello())):
                self.clock.tell("%s: HELLO, %s", self.incarnation, self._inventory())
                self._answer_by = now + ANSWER_S

    def _link_changed(self) -> None:
        if self.greeted:
            self.look_soon()
        else:
            self._timer.by(max(self.paused_until, self.clock.now))

    def _hello(self) -> ProcessHello:
        ledger = self.deliveries
        done, done_ms = ledger.done(int(self.clock.now * 1e9))
        return ProcessHello(
            versions=[1, 1],
            incarnation=self.incarnation,
            ticket=self.ticket,
            service="s",
            version="1",
            digest="d",
            handlers=DECLARED,
            concurrency=self.concurrency,
            pid=self.pid,
            received_upto=ledger.received_upto,
            started_upto=ledger.started_upto,
            reply_sequence=ledger.sequence,
            held=ledger.held(),
            hellos=ledger.next_hello(),
            done=done,
            done_ms=done_ms,
        )

    def _inventory(self) -> str:
        held = [f"{each.number}{' answered' if each.done else ''}" for each in self.deliveries.held()]
        return f"received up to {self.deliveries.received_upto}, holds [{', '.join(held)}]"

    def _hello_again(self, at: float) -> None:
        self.greeted = False
        self._hello_at = at
        self._answer_by = None

    def _drop(self) -> None:
        if self.link is not None:
            self.link.close(gently=False)
        self.link = None
        self.replies.clear()
        self.greeted = False
        self._open_at = self.clock.now + 0.05 * (0.5 + self.cluster.chance())

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        if self._reads():
            self._timer.by(max(self.paused_until, self.clock.now))

    def _receive(self, frame: bytes) -> None:
        fields = wire.parse(frame)
        kind = fields[3]
        if self.greeted and kind == wire.DELIVER and fields[5] == self.deliveries.token:
            delivery = self.deliveries.take(fields, frame, int(self.clock.now * 1e9))
            if delivery is None:
                return
            if self.concurrency == 1:
                self._start(delivery)
            else:
                self._tasks.append(delivery)
                self.clock.after(self.cluster.between(*TURN_S), self._turn)
        elif kind == wire.WELCOME and isinstance(welcome := messages.decode(frame[fields[11] :]), Welcome):
            self.greeted = True
            for reply in self.deliveries.welcomed(fields[5], welcome.epoch, welcome.upto):
                self._send(reply)
            for frame in self.streams.welcomed():
                self._send(frame)
        elif kind in (wire.CHUNK, wire.CREDIT, wire.CANCEL):
            for answer in self.streams.handle(fields, frame):
                self._send(answer)
        elif kind == wire.REFUSED and self.greeted:  # it has stepped down, or knows us no more
            self._drop()
        elif kind == wire.REFUSED and isinstance(refusal := messages.decode(frame[fields[11] :]), Refusal):
            self._hello_again(self.clock.now + max(refusal.retry_after_ms, 10) / 1000)
        elif kind == wire.WHO and (self.greeted or self._answer_by is None):  # else the HELLO that is under way answers
            self._hello_again(0.0)

    # ---- handlers ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """The loop comes to a task, in the order in which they were made."""
        if not self.alive:
            return
        if self.clock.now < self.paused_until:
            self.clock.at(self.paused_until, self._turn)
            return
        self._start(self._tasks.popleft())
        self.step()

    def _start(self, delivery: Delivery) -> None:
        if self.deliveries.start(delivery, int(self.clock.now * 1e9)):
            self._run(delivery)
        else:
            self.clock.tell("%s: refuses %d", self.incarnation, delivery.number)
            self.streams.settled(delivery.number, 0)
            self.replies.append(self.deliveries.not_started(delivery))
            self._send_replies()

    def _run(self, delivery: Delivery) -> None:
        now = self.clock.now
        if delivery.handler not in HANDLERS:  # a health check: any answer is good
            self.replies.append(self.deliveries.reply(delivery, errors.NoService.code, b"", 100))
            self._send_replies()
            return
        call = int(delivery.body)
        self.cluster.checks.executed(call, delivery, self)
        self.running[delivery.number] = delivery
        behaviour = HANDLERS[delivery.handler]
        if behaviour.streams:
            self._streaming[delivery.number] = Streaming(
                self, delivery, call, lambda code: self._streamed(delivery, call, code)
            )
            return
        takes_s = self.cluster.between(behaviour.least_s, behaviour.most_s)
        if self.concurrency > 1 and self.cluster.chance() < COMPUTES:
            self.pause(takes_s)
        self.clock.after(takes_s, lambda: self._ran(delivery, call, takes_s))
        if delivery.kill_ns and now + takes_s >= delivery.kill_ns / 1e9:
            self.clock.at(delivery.kill_ns / 1e9, self.agent.look_soon)

    def _ran(self, delivery: Delivery, call: int, took_s: float) -> None:
        if not self.alive:
            return
        if self.clock.now < self.paused_until:
            self.clock.at(self.paused_until, lambda: self._ran(delivery, call, took_s))
            return
        if HANDLERS[delivery.handler].deadly:
            self.die(status=-11)
            return
        del self.running[delivery.number]
        self.replies.append(self.deliveries.reply(delivery, 0, b"r%d" % call, int(took_s * 1e6)))
        if not self.holding.waits(int(took_s * 1e6) // QUICKER, self.concurrency == 1 and bool(self._inbox)):
            self._send_replies()
        self.step()

    def _streamed(self, delivery: Delivery, call: int, code: int) -> None:
        del self.running[delivery.number], self._streaming[delivery.number]
        elapsed_us = self.streams.settled(delivery.number, 1000)
        body = encode_error(RemoteError("Abandoned", "nobody waits")) if code else b"r%d" % call
        self.replies.append(self.deliveries.reply(delivery, code, body, elapsed_us))
        self._send_replies()
        self.step()

    def say(self, stream: Stream) -> None:
        for frame in self.streams.frames(stream):
            self._send(frame)

    def _send_replies(self) -> None:
        replies, self.replies = self.replies, []
        for _, frame in wire.bundles(replies):
            self._send(frame)

    def _send(self, frame: bytes) -> None:
        if self.link is not None and self.greeted and not self.link.send(frame):
            self._drop()
