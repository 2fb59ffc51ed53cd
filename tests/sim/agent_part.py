"""The agent of a simulated node: the real core in a shell that does what `worker/agent.py` does."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rota.common import messages, wire
from rota.common.messages import Refusal, Welcome
from rota.worker.core import effects
from rota.worker.core.processes import Timing
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Votes
from rota.worker.effects import Effects
from rota.worker.page import FENCE_EPOCH, FLOOR, OBEY, PHASE, READY, STARTED_UPTO

from .network import Connection, Timer, Watchdog
from .process_part import ProcessPart

if TYPE_CHECKING:
    from .cluster import Cluster

CAPACITY = 2
LOOK_S = 0.1  # between two looks at the pages
RECALL_WAIT_S = 0.002
LEAVE_S = 5.0  # from TERM on
TIMING = Timing(5.0, 1.0)


class AgentPart:
    def __init__(self, cluster: Cluster, node: str, remembered: messages.Intent | None, epoch: int) -> None:
        self.cluster = cluster
        self.clock = clock = cluster.clock
        self.node = node
        self.core = self._new_core(remembered, epoch)
        self.processes: dict[str, ProcessPart] = {}
        self.alive = True
        self.paused_until = 0.0
        self.link: Connection | None = None
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._introduced = False
        self._token = 0
        self._epoch = self._obey = 0
        self._look_at = clock.now
        self._effects = Effects(self._carry_out)
        self._watchdog = Watchdog(node)
        self._timer = Timer(clock, self.step)
        self._timer.set(clock.now)

    def _new_core(
        self, remembered: messages.Intent | None, epoch: int, masters: int = 1, votes: Votes | None = None
    ) -> Supervision:
        cluster = self.cluster
        return Supervision(
            self.node,
            cluster.new_boot(),
            masters=[f"m{number}" for number in range(masters)],
            capacity=CAPACITY,
            offers=["s"],
            tags={},
            reconnect_delay=lambda failures: min(2.0, 0.05 * 2 ** min(failures, 6)) * (0.5 + 0.5 * cluster.chance()),
            votes=votes or Votes(0.0, epoch),
            timing=TIMING,
            remembered=remembered,
        )

    def kill(self) -> None:
        """With it die its processes."""
        self.alive = False
        self._timer.stop()
        for process in list(self.processes.values()):
            process.die(report=False)
        if self.link is not None:
            self.link.close(gently=False)

    def leave(self) -> None:
        if self.clock.now < self.paused_until:
            self.clock.at(self.paused_until, self.leave)
        elif self.alive:
            self._effects.perform(self.core.leaving.ask(LEAVE_S, self.clock.now))
            self.wake()

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.clock.now + seconds)

    def hears(self) -> bool:
        """A master that speaks to it is heard, and answered, at once."""
        link = self.link
        if link is None or link.cut or not self.alive or self.clock.now < self.paused_until:
            return False
        return self.core.connection.greeted and link.path.heals_at() <= self.clock.now

    def wake(self) -> None:
        if self.alive:
            self._timer.by(max(self.clock.now, self.paused_until))

    def look_soon(self) -> None:
        """Something in a page has changed, which is seen at the next look."""
        self._look_at = self.clock.now + LOOK_S * self.cluster.chance()
        self._timer.by(max(self._look_at, self.paused_until))

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        now = self.clock.now
        if not self.alive:
            return
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        self._attend_link(now)
        while self._inbox:
            origin, frame = self._inbox.popleft()
            if origin is self.link:
                self._receive(frame)
        if now >= self._look_at:
            self._look(now)
        self._effects.perform(self.core.tick(now))
        if self.alive:
            due = self.core.next_deadline()
            self._watchdog.turn(due, now)
            self._timer.by(due)

    def _look(self, now: float) -> None:
        self._look_at = now + LOOK_S
        for incarnation, process in list(self.processes.items()):
            if process.page.words[PHASE] == READY:
                self._effects.perform(self.core.processes.ready(incarnation, now))
            self._effects.perform(self.core.processes.seen(incarnation, *process.overdue(), now))

    def _attend_link(self, now: float) -> None:
        link = self.link
        if link is not None and link.lost:
            self._disconnect()
            self._effects.perform(self.core.connection.lost(now))
        elif link is not None and link.connected and not self._introduced:
            self._introduced = True
            self._effects.perform(self.core.connected(now))

    def _receive(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        now = self.clock.now
        body = frame[head.head_len :]
        if head.kind == wire.CONTROL and head.token == self._token and self.core.connection.greeted:
            self._effects.perform(self.core.received(messages.decode(body), now))
        elif head.kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token = head.token
            self._effects.perform(self.core.welcomed(welcome, now))
        elif head.kind == wire.REFUSED and isinstance(refusal := messages.decode(body), Refusal):
            self.clock.tell("%s: refused: %s", self.node, refusal.message)
            self._effects.perform(self.core.refused(refusal, now))
        elif head.kind == wire.WHO:
            self._effects.perform(self.core.who(now))

    # ---- effects -----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Send(message):
                self._send(messages.framed(wire.CONTROL, self._token, message))
            case effects.Hello(message):
                self._send(messages.framed(wire.HELLO, 0, message))
            case effects.Connect(master):
                self._disconnect()
                self.link = self.cluster.connect("control", self.node, self._heard, self.wake, master)
            case effects.Spawn(incarnation):
                self._spawn(incarnation)
            case effects.Stop(incarnation):
                if incarnation in self.processes:
                    self.processes[incarnation].ask_to_stop()
            case effects.Kill(incarnation, signal):
                if incarnation in self.processes:
                    self.processes[incarnation].signalled(signal)
            case effects.SetFloor(incarnation):
                if incarnation in self.processes:
                    self._set_floor(self.processes[incarnation], effect)
            case effects.Fence(epoch, master):
                self._epoch, self._obey = epoch, master
                for process in self.processes.values():
                    process.page.words[FENCE_EPOCH] = epoch
                    if process.page.words[OBEY] != master:
                        process.page.words[OBEY] = master
                        process.look_soon()
            case effects.Remember(intent, epoch):
                self.cluster.remembered[self.node] = intent, epoch
            case effects.Quit():
                self._quit()

    def _spawn(self, incarnation: str) -> None:
        process = ProcessPart(self.cluster, self, incarnation)
        process.page.words[FENCE_EPOCH] = self._epoch
        process.page.words[OBEY] = self._obey
        self.processes[incarnation] = process
        told = self.core.processes.spawned(incarnation, process.ticket, process.pid, self.clock.now)
        self._effects.perform_first(told)

    def _quit(self) -> None:
        self._send(wire.head(wire.BYE, self._token))
        self.clock.tell("%s: left", self.node)
        self.alive = False
        self._timer.stop()
        if self.link is not None:
            self.link.close()

    def _set_floor(self, process: ProcessPart, wanted: effects.SetFloor) -> None:
        incarnation, floor, since = wanted
        page = process.page
        page.words[FLOOR] = max(floor, page.words[FLOOR])

        def read() -> None:
            if self.clock.now < self.paused_until:
                self.clock.at(self.paused_until, read)
            elif self.alive and process.alive:
                started_upto, rows = page.words[STARTED_UPTO], page.replies(since) if since else []
                self._effects.perform(self.core.processes.recalled(incarnation, floor, started_upto, rows))

        self.clock.after(RECALL_WAIT_S, read)

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        self.wake()

    def _send(self, frame: bytes) -> None:
        if self.link is not None and not self.link.send(frame):
            self._disconnect()
            self._effects.perform(self.core.connection.lost(self.clock.now))

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
            self.clock.at(self.paused_until, lambda: self.reaped(process, status, how))
            return
        del self.processes[process.incarnation]
        rows, started_upto = process.page.report(), process.page.words[STARTED_UPTO]
        self.cluster.drop_page(process.page)
        self._effects.perform(
            self.core.processes.exited(process.incarnation, status, how, started_upto, rows, "", self.clock.now)
        )
        self.wake()
