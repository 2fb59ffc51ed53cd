"""A client of a simulated cluster: the real call table in a shell that does what `client/session.py` does."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgpack

from rota.client import streams
from rota.client.ages import MARK_S
from rota.client.calls import Call, Calls
from rota.common import errors, messages, wire
from rota.common.body import decode_error
from rota.common.errors import Error
from rota.common.messages import Welcome

from .network import Connection, Timer, Violation, Watchdog

if TYPE_CHECKING:
    from .cluster import Cluster
    from .pairs.cluster import PairCluster

ATTEMPT_S = 1.0  # for a connection and its WELCOME
CUT_S = 0.05  # a reconnect's first delay
UNDISTURBED_S = 0.5  # longer than it takes to say all again that has no answer, and to hear the answers
SESSION_EVERY, SESSIONS = 3, 5  # which calls belong to a session, and to how many


class SimCall(Call):
    """What its caller was told is written down, once. It carries its id and wants it back; one that repeats an earlier
    call, as a caller does who does not know what became of it, carries that one's id and key.
    """

    def __init__(
        self,
        number: int,
        handler: str,
        deadline: float,
        cluster: Cluster,
        client: ClientPart,
        has_key: bool,
        repeats: SimCall | None,
    ) -> None:
        self.number = 0
        self.epoch = 0
        self.id = number
        self.handler = handler
        self.deadline = deadline
        self.payload = repeats.payload if repeats else number
        self.has_key = has_key
        target = b"s." + handler.encode()
        said = {"k": f"k{self.payload}"} if has_key else {}
        flags = wire.KEYED if has_key else 0
        if not cluster.steady and self.payload % SESSION_EVERY == 0:
            said["s"] = f"user {self.payload % SESSIONS}"
            flags |= wire.PINNED
        meta: bytes = msgpack.packb(said) if said else b""
        self.address = (target + meta, len(target), flags | wire.META if said else 0)
        self.body = b"%d" % self.payload
        self.cluster = cluster
        self.client = client
        self.code: int | None = None
        self.details: Mapping[str, object] = {}  # of the error

    def returned(self, body: wire.Body) -> None:
        self.finish(bytes(body), None)  # it is that of a simulated handler

    def finish(self, value: object, error: Error | None) -> None:
        if error is None and value != b"r%d" % self.payload:  # bodies say whose they are
            raise Violation(f"call {self.id} got the answer of another: {value!r}")
        self.details = error.details if error else {}
        self.answered(error.code if error else 0, str(error or ""))

    def answered(self, code: int, text: str) -> None:
        if self.code is not None:
            raise Violation(f"call {self.id} got two final answers: {self.code} and {code}")
        self.code = code
        self.cluster.checks.answered(self, code, text)


class Caller:
    """Whoever calls, one master or two. It is stopped while it is paused."""

    calls: Calls

    def __init__(self, cluster: Cluster | PairCluster, name: str) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.name = name
        self.paused_until = 0.0
        self._watchdog = Watchdog(name)
        self._timer = Timer(cluster.clock, self.step)
        self._timer.set(cluster.clock.now)

    def call(self, call: SimCall) -> None:
        error = self.calls.submit(call)
        if error is not None:
            call.finish(None, error)
        self.wake()

    def cancel(self, call: SimCall) -> None:
        if call.code is None:
            self.calls.cancel(call)
            call.answered(errors.Cancelled.code, "by its caller")
            self.wake()

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.clock.now + seconds)

    def wake(self) -> None:
        self._timer.by(max(self.clock.now, self.paused_until))

    def vanish(self) -> None:
        """It is killed, and says no goodbye."""
        self._timer.stop()
        self.part()

    def is_left_alone(self, call: SimCall) -> bool:
        """Its master is certainly through with this call, and has nothing more to say."""
        return False

    def core(self) -> object:
        """What remembers."""
        raise NotImplementedError

    def part(self) -> None:
        """Its connection is gone."""
        raise NotImplementedError

    def step(self) -> None:
        raise NotImplementedError


class ClientPart(Caller):
    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(cluster, name)
        self.calls = Calls()
        self.id = cluster.clock.rng.randbytes(16)
        self.link: Connection | None = None
        self._inbox: deque[tuple[Connection, bytes]] = deque()
        self._epoch = 0
        self._born = 0
        self._token = 0
        self._hello_due = False
        self._due = 0.0
        self._failures = 0
        self._mark_at = 0.0
        self._welcomed_at = 0.0

    def is_left_alone(self, call: SimCall) -> bool:
        link, master, path = self.link, self.cluster.master, self.cluster.path(self.name)
        disturbed = max(self._welcomed_at, self.paused_until, master.paused_until, path.heals_at())
        if link is None or link.cut or link.rising or link.falling or not self.calls.open:
            return False
        if self.clock.now - disturbed < UNDISTURBED_S:
            return False
        session = master.core.dispatch.sessions.get(self.id)
        return session is not None and call.number not in session.open and not session.outgoing

    def core(self) -> object:
        return self.calls

    def part(self) -> None:
        if self.link is not None:
            self.link.close(gently=False)

    def stay_away(self, seconds: float) -> None:
        """No new connection for a while."""
        self._due = self.clock.now + seconds

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        now = self.clock.now
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        while self._inbox:
            origin, frame = self._inbox.popleft()
            if origin is self.link:
                self._receive(frame)
        self._attend(now)
        for call, error in self.calls.expire(now):
            call.finish(None, error)
        due = self.calls.next_deadline()
        self._watchdog.turn(due, now)
        self._timer.by(min(due, self._due) if not self.calls.open else due)

    def _attend(self, now: float) -> None:
        link = self.link
        if link is not None and (link.lost or (not self.calls.open and now >= self._due)):
            self._part()
        elif link is None and now >= self._due:
            self.link = self.cluster.connect("frontend", self.name, self._heard, self.wake)
            self._hello_due = True
            self._due = now + ATTEMPT_S
        elif link is not None and link.connected and self._hello_due:
            hello = messages.ClientHello([1, 1], self.id, self._epoch)
            link.send(messages.framed(wire.HELLO, 0, hello))
            self._hello_due = False
        elif link is not None and self.calls.open:
            if now >= self._mark_at:
                self._mark_at = now + MARK_S
                self.calls.mark(now)
            for frame in self.calls.frames(now, 10_000):
                link.send(frame)

    def _part(self) -> None:
        if self.link is not None:
            self.link.close(gently=False)
        self._failures = 0 if self.calls.open else self._failures + 1
        self.link = None
        self.calls.closed()
        self._due = self.clock.now + CUT_S * min(16, 2**self._failures) * self.cluster.chance()

    def _heard(self, frame: bytes) -> None:
        assert self.link is not None
        self._inbox.append((self.link, frame))
        self.wake()

    def _receive(self, frame: bytes) -> None:
        head = wire.parse_head(frame)
        body = frame[head.head_len :]
        if head.kind == wire.WELCOME and isinstance(welcome := messages.decode(body), Welcome):
            self._token, self._epoch, self._welcomed_at = head.token, welcome.epoch, self.clock.now
            resumed, self._born = welcome.resumed and welcome.born == self._born, welcome.born
            failed = self.calls.opened(head.token, welcome.epoch, resumed, welcome.max_message, self.clock.now)
            for call, error in failed:
                call.finish(None, error)
            self.calls.say_ages(self.clock.now)
        elif head.kind == wire.WHO and self.calls.open:
            self.calls.closed()
            self._hello_due, self._due = True, self.clock.now + ATTEMPT_S
        elif head.kind == wire.BYE and self.calls.open and head.token == self._token:
            self.calls.heard_upto(head.number)
            self._part()
        elif head.kind in (wire.CHUNK, wire.CREDIT) and self.calls.open and head.token == self._token:
            for call, error in streams.received(self.calls, tuple(head), frame, self.clock.now):
                call.finish(None, error)
        elif head.kind == wire.ANSWER and self.calls.open and head.token == self._token:
            answered = self.calls.answered(head.number, head.upto, len(frame))
            if isinstance(answered, SimCall) and head.code == errors.NOT_STARTED:
                self.calls.again(answered)
            elif isinstance(answered, SimCall):
                answered.finish(body, decode_error(head.code, body) if head.code else None)
