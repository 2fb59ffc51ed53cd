"""The ledger: every accepted request gets one final answer, and runs elsewhere only if it had not started.

    REQUEST → a slot with credit, or the queue → DELIVER → REPLY → ANSWER

The hot path is `request` → `_deliver` → `reply` → `finish`; it is flat on purpose (a call costs 0.1 µs, an object 0.5).
What was lost on the way is settled in `losses`, what an older master had dispatched in `inherited`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...common import errors, wire
from ...common.limits import HEAD_MAX
from ...common.messages import Handler
from ...common.names import unknown
from ...common.settings import ServiceSettings
from .beginning import Sections
from .faults import MAINTENANCE, fault_body, worded
from .inherited import Inherited
from .keys import Keys
from .losses import Losses
from .maintenance import Maintenance, service_of
from .outbox import Outbox
from .pins import Pins
from .pool import NO_HANDLER, Pool, Request, Slot
from .quarantine import Quarantine
from .sessions import Session
from .streams import Streams
from .timers import Timers

_HEADER = wire.HEADER_SIZE
_HEAD_MAX = HEAD_MAX - wire.ORIGIN_SIZE  # of a request that does not carry the origin: its delivery does
_parse = wire.parse
_head = wire.head
_delivery_head = wire.delivery_head
_FLAGS_AT = wire.FLAGS_AT
# Of a request, in its delivery: for its process, and for ourselves, as a large one has that head in place of its own.
_TO_PROCESS = wire.META | wire.KEYED | wire.MORE | wire.PINNED
_COLD = wire.RESENT | wire.KEYED | wire.PINNED  # flags that the hot path leaves to others
_ODD = 0xFF & ~(wire.META | wire.MORE)  # what HTTP requests have is usual
_KNOWN = wire.RESENT | wire.META | wire.KEYED | wire.OLDER | wire.MORE | wire.PINNED
_WHOLE_ONLY = wire.KEYED | wire.MORE  # an answer that is to be given again is no stream
_ANSWER = wire.ANSWER
_NOT_STARTED = errors.NOT_STARTED
_with_body = wire.with_body
_COPY_TWICE_MAX = wire.COPY_TWICE_MAX

IN_QUEUE = "in the queue"

Target = tuple[Pool, Handler]


class Dispatch:
    """The ledger with sessions on one side and slots on the other. Its owner opens and closes slots and tells it what
    ended.
    """

    def __init__(self, out: Outbox, epoch: int, settings: Sections) -> None:
        self.out = out
        self.epoch = epoch
        self.settings = settings.master
        self.services = settings.services
        self.pools: dict[str, Pool] = {}
        self.sessions: dict[bytes, Session] = {}  # by id
        self.routes: dict[bytes, Session] = {}
        self.slot_routes: dict[bytes, Slot] = {}
        self.timers: Timers[Request] = Timers()
        self.counters: Counter[str] = Counter()
        self.queued_bytes = 0
        self.unsent: dict[Session, None] = {}  # sessions with answers that their route did not take
        self.inherited = Inherited(self)
        self.quarantine = Quarantine(self)
        self.losses = Losses(self)
        self.keys = Keys(self)
        self.streams = Streams(self)
        self.maintenance = Maintenance(self)
        self.pins = Pins(self)
        self.prober = Session(bytes(16), 0.0)  # whose deliveries are health checks
        self.probed: Callable[[Slot, Request, int, bytes, float], None] = lambda *answer: None
        self._targets: dict[bytes, Target] = {}

    # ---- the hot path ----------------------------------------------------------------------------

    def request(
        self, session: Session, fields: tuple[int, ...], frame: wire.Frame, now: float, tail_at: int = _HEADER
    ) -> None:
        """A REQUEST of a known session; its target begins at `tail_at`."""
        _, _, _, _, flags, _, epoch, time_ms, number, _, _, head_len, target_len = fields
        target_end = tail_at + target_len
        if (head_len > _HEAD_MAX and tail_at == _HEADER) or target_end > head_len:
            self.counters["bad frames"] += 1  # its delivery would break the format: no process could answer it
            return
        if number <= session.highest or flags & _ODD:
            if not self._unusual(session, fields):
                return
        else:
            session.highest = number
        request = Request()
        request.session = session
        request.number = number
        request.frame = frame
        request.head_len = head_len
        request.target_len = target_len
        request.tail_at = tail_at
        request.epoch = epoch
        request.deadline = now + time_ms / 1000
        request.queued_at = now
        request.attempt = 0
        request.slot = None
        request.answered = False
        request.tick = self.timers.add(request.deadline, request)
        session.open[number] = request
        target = self._targets.get(frame[tail_at:target_end])
        if target is None or flags & _COLD or len(frame) - head_len > self.settings.max_message:
            return self._admit_unusual(request, flags, now)
        pool, request.handler = target
        request.pool = pool
        if pool.queued or (slot := pool.shelf.first(now)) is None:
            return self._wait(request, now)
        self._deliver(slot, request, now)
        pool.shelf.placed(slot)

    def admit(self, request: Request, now: float) -> None:
        """Gives it to the best slot, else to the queue."""
        if self.quarantine.takes(request, now):
            return self.quarantine.step(now)
        if request.pinned():
            return self.pins.admit(request, now)
        pool = request.pool
        if pool.queued or (slot := pool.shelf.first(now)) is None:
            return self._wait(request, now)
        self.give(slot, request, now)

    def give(self, slot: Slot, request: Request, now: float) -> None:
        """Gives it to this slot, which has room."""
        self._deliver(slot, request, now)
        slot.pool.shelf.placed(slot)

    def _wait(self, request: Request, now: float) -> None:
        """Puts it in the queue, or refuses it as Overloaded."""
        pool = request.pool
        if pool.pinned and len(pool.pinned) == pool.queued and (slot := pool.shelf.first(now)) is not None:
            return self.give(slot, request, now)  # all that waits, waits for other slots
        if self.may_wait(request, now):
            pool.enqueue(request)

    def may_wait(self, request: Request, now: float, full: bool = False) -> bool:
        """True if there is room for it to wait; its time in the queue begins. Otherwise it is refused. `full`: the line
        that it is to wait in has no room.
        """
        pool = request.pool
        settings = pool.settings
        size = len(request.frame)
        if full or pool.queued >= settings.queue_limit or self.queued_bytes + size > self.settings.queue_bytes:
            # Overloaded says that nothing was run, which nobody knows of what an older master had.
            code = errors.MaybeExecuted.code if request.attempt else errors.Overloaded.code
            paused = ", which is paused" if pool.pause else ""
            why = f"{self.queued(pool)} requests for {pool.name} wait already{paused}"
            self.fail(request, code, why, self._retry_after_ms(pool, now))
            return False
        self.queued_bytes += size
        if settings.queue_timeout < request.deadline - now:
            request.tick.pop(request, None)
            request.tick = self.timers.add(now + settings.queue_timeout, request)
        return True

    def _deliver(self, slot: Slot, request: Request, now: float) -> None:
        number = slot.last_number = slot.last_number + 1
        inflight = slot.inflight
        if not inflight:
            slot.progress_at = now
        elif len(inflight) == 1 and slot.concurrency == 1:
            slot.pool.parked[slot] = None
        inflight[number] = request
        request.slot = slot
        request.delivery = number
        request.epoch = self.epoch
        attempt = request.attempt = request.attempt + 1
        left = int((request.deadline - now) * 1000)
        frame = request.frame
        head_len = request.head_len
        head = _delivery_head(
            slot.token,
            self.epoch,
            left if left > 0 else 0,
            number,
            slot.acked,
            attempt,
            request.target_len,
            frame[_FLAGS_AT] & _TO_PROCESS,
            request.session.id,
            request.number,
            frame[request.tail_at : head_len],
        )
        outgoing = slot.outgoing
        if not outgoing:
            self.out.slots.append(slot)
        outgoing.append(head + frame[head_len:] if len(frame) < _COPY_TWICE_MAX else _with_body(head, frame, head_len))

    def reply(self, slot: Slot, fields: tuple[int, ...], frame: wire.Frame, now: float) -> None:
        """A REPLY from the slot's own route and token."""
        _, _, _, _, flags, _, epoch, time_us, number, sequence, _, head_len, code = fields
        if sequence == slot.acked + 1:
            slot.acked = sequence
        inflight = slot.inflight
        request = inflight.get(number)
        if request is None or request.epoch != epoch:
            self._stray_reply(slot, fields, frame, now)
            return
        del inflight[number]
        pool = slot.pool
        slot.progress_at = now
        if len(inflight) == 1:
            pool.parked.pop(slot, None)
        if code == _NOT_STARTED:
            self.losses.refused(slot, request, frame[head_len:], now)
        else:
            slot.handled += 1
            pool.times[time_us.bit_length()] += 1
            self.finish(request, code, time_us, frame, head_len)
        if pool.queued:
            while slot.open and len(inflight) < slot.limit:
                # Nobody else had room, or the queue would be empty: what waits longest comes here.
                waiting = self.next_queued(pool) if not pool.pinned else self.pins.next_for(slot)
                if waiting is None:
                    break
                self._deliver(slot, waiting, now)
        pool.shelf.placed(slot)

    def finish(self, request: Request, code: int, time_us: int, frame: wire.Frame, head_len: int) -> None:
        """The final answer: recorded under its sequence, and sent if the client has a route."""
        if request.answered:  # cancelled, or its deadline passed, while it ran; or its caller is not known yet
            origin = self.inherited.forget(request)
            if origin is None:
                self.counters["late replies"] += 1
                self.keys.late(request, code, time_us, frame, head_len)
            else:
                self.inherited.keep(origin, code, time_us, frame[head_len:])
            return
        request.answered = True
        request.tick.pop(request, None)
        session = request.session
        number = request.number
        session.open.pop(number, None)
        sequence = session.sequence = session.sequence + 1
        head = _head(_ANSWER, session.token, self.epoch, time_us, number, sequence, 0, code)
        answer = head + frame[head_len:] if len(frame) < _COPY_TWICE_MAX else _with_body(head, frame, head_len)
        session.keep(number, answer, self.settings.answers_bytes)
        if session.route and not session.unsent:
            if not session.outgoing:
                self.out.sessions.append(session)
            session.outgoing.append(answer)

    def send(self, session: Session, answer: wire.Frame) -> None:
        """Sends it in its turn with all else that goes to this client. Without a connection nothing is sent."""
        if session.route:
            if not session.outgoing:
                self.out.sessions.append(session)
            session.outgoing.append(answer)

    # ---- checks ----------------------------------------------------------------------------------

    def probe(self, slot: Slot, request: Request, now: float) -> None:
        """A delivery of our own. Its epoch is nobody's, so that its reply is never taken for a client's."""
        request.tick = self.timers.add(request.deadline, request)
        self.give(slot, request, now)
        request.epoch = 0
        request.frame = b""

    def _probe_ended(self, slot: Slot, request: Request, code: int, body: bytes, now: float) -> None:
        del slot.inflight[request.delivery]
        slot.pool.unpark(slot)
        request.tick.pop(request, None)
        slot.pool.shelf.placed(slot)
        self.probed(slot, request, code, body, now)
        self.pump(slot.pool, now)

    # ---- faults ----------------------------------------------------------------------------------

    def fail(self, request: Request, code: int, cause: str, retry_after_ms: int = 0, **details: object) -> None:
        """The final answer is a fault that rota makes."""
        self.counters[f"faults {code}"] += 1
        self.streams.given_up(request)
        words = worded(self.settings_of(request).fault, code, MAINTENANCE in details)
        self.finish(request, code, 0, fault_body(cause, retry_after_ms, **details, **words), 0)

    def settings_of(self, request: Request) -> ServiceSettings:
        """The settings of the service that it names, which may be one that nobody offers."""
        service = service_of(request.target())
        pool = self.pools.get(service)
        return pool.settings if pool is not None else self.services(service)

    def _retry_after_ms(self, pool: Pool, now: float) -> int:
        """About when half of the queue will be served; a second when nothing is known."""
        if pool.pause is not None:
            return min(30_000, max(10, int(1000 * (pool.pause.until - now))))
        slots = sum(slot.open for slot in pool.slots.values())
        if not slots or not pool.p95_us:
            return 1000
        return min(30_000, max(10, self.queued(pool) * pool.p95_us // slots // 2000))

    # ---- targets ---------------------------------------------------------------------------------

    def resolve(self, target: bytes) -> Target | str:
        """Pool and handler of `service.handler`, remembered; or the sentence that says what is wrong."""
        name = target.decode("utf-8", "replace")
        service, _, handler = name.rpartition(".")
        pool = self.pools.get(service)
        if pool is None:
            return unknown("service", service, self.pools)
        if handler not in pool.handlers:
            if not pool.handlers:  # no process of it has come yet: it waits, and is checked by the process
                return pool, NO_HANDLER
            return unknown("handler", name, (f"{service}.{each}" for each in pool.handlers))
        found = pool, pool.handlers[handler]
        if target not in self.quarantine.watched and service not in self.maintenance.closed:
            self._targets[target] = found
        return found

    def interface_known(self, pool: Pool) -> None:
        """The first process of a service came: what waits for it learns of its handlers, or that there is none."""
        self._targets.clear()
        for request in self.waiting(pool):
            target = self.resolve(request.target())
            if not isinstance(target, str):
                request.handler = target[1]
            else:
                self._drop_queued(request)
                self.fail(request, errors.NoService.code, target, unknown="handler")

    def is_done_with(self, pool: Pool) -> bool:
        """True when no request waits for the service and none of its payloads is suspected."""
        return not (pool.queued or self.inherited.waiting or self.quarantine.knows(pool))

    def forget_targets(self) -> None:
        """Called when a service has left, or has another interface."""
        self._targets.clear()

    # ---- time ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Deadlines of requests: queued → dropped, in flight → the caller is told and the attempt goes on."""
        for request in self.timers.due(now):
            if request.answered:
                continue
            if now < request.deadline:
                self._queue_timeout(request, now)
                continue
            if request in self.inherited.waiting and self.inherited.overdue(request, now):
                continue
            where = self.withdraw(request)
            known = {"started": False} if where == IN_QUEUE and request.attempt == 0 else {}
            self.fail(request, errors.Timeout.code, f"the deadline passed {where}", **known)
        for session in list(self.unsent):
            self._send_unsent(session)
        self.inherited.tick(now)
        self.quarantine.tick(now)
        self.keys.tick(now)
        self.streams.tick(now)
        for pool in self.pools.values():
            pool.mark_retries(now)
            pool.recount()
            self.pump(pool, now)

    def _queue_timeout(self, request: Request, now: float) -> None:
        pool = request.pool
        held = pool.held_until + pool.settings.queue_timeout if pool.held_until > request.queued_at else 0.0
        if held > now:
            request.tick = self.timers.add(min(held, request.deadline), request)
        elif request.slot is None and request.attempt == 0:  # else something of it ran: Overloaded would deny that
            self._drop_queued(request)
            waited = now - request.queued_at
            wait_ms = self._retry_after_ms(pool, now)
            self.fail(request, errors.Overloaded.code, f"waited {waited:.1f} s for a process of {pool.name}", wait_ms)
        else:
            request.tick = self.timers.add(request.deadline, request)

    # ---- the queue -------------------------------------------------------------------------------

    def waiting(self, pool: Pool) -> list[Request]:
        """All that wait for a process of the service, suspects too."""
        return [*pool.waiting(), *(request for request in self.quarantine.waiting if request.pool is pool)]

    def queued(self, pool: Pool) -> int:
        """How many these are."""
        return pool.queued + self.quarantine.held(pool)

    def leave_queue(self, request: Request) -> None:
        if not self.quarantine.leave(request):
            request.pool.leave_queue(request)
        self.queued_bytes -= len(request.frame)

    def _drop_queued(self, request: Request) -> None:
        """It is over. Its place is skipped in its turn, which may be late: it must not hold its body until then."""
        self.leave_queue(request)
        request.frame = request.frame[: request.head_len]

    def next_queued(self, pool: Pool) -> Request | None:
        request = pool.next_queued()
        if request is not None:
            self.queued_bytes -= len(request.frame)
        return request

    def pump(self, pool: Pool, now: float) -> None:
        """Queue and shelf meet: after anything that may have brought one of them something."""
        if pool.pinned:
            self.pins.pump(pool, now)
        while pool.queued:
            slot = pool.shelf.first(now)
            if slot is None:
                return
            request = self.next_queued(pool)
            if request is None:
                return
            self.give(slot, request, now)

    # ---- what is unusual about a request ---------------------------------------------------------

    def _unusual(self, session: Session, fields: tuple[int, ...]) -> bool:
        """True if the request is to be accepted as new."""
        flags, number = fields[4], fields[8]
        if flags & ~_KNOWN or flags & _WHOLE_ONLY == _WHOLE_ONLY:
            self.counters["bad frames"] += 1
            return False
        if not flags & wire.RESENT:
            if number <= session.highest:
                self.counters["replayed"] += 1
                return False
            session.highest = number
            return True
        self.counters["resent"] += 1
        known = session.open.get(number)
        if known is not None:
            self.streams.claimed(known)
            return False  # attached: the answer goes to the session's route of then
        answered = session.recorded(number)
        if answered is None:
            session.highest = max(session.highest, number)
            return True
        sequence, recorded = answered
        self.send(session, recorded or self._dropped(session, number, sequence))
        return False

    def _admit_unusual(self, request: Request, flags: int, now: float) -> None:
        """Admits what the hot path leaves: a key, a session, an unknown service, a resend of an older master's time;
        refuses what is too large.
        """
        size = len(request.frame) - request.head_len
        if size > self.settings.max_message:  # its delivery would be cut by the transport, and the process with it
            cause = f"the arguments have {size:,} bytes, {self.settings.max_message:,} are allowed (master.max_message)"
            return self.fail(request, errors.PayloadTooLarge.code, cause)
        # Its client says so, as epochs do not tell: without a journal one may come again. Epoch 0: no older master ever
        # had this session.
        older = flags & wire.OLDER != 0 and request.session.epoch > 0
        if flags & wire.KEYED:
            return self.keys.admit(request, older, now)
        self.inherited.look_up(request, older, now)

    def _stray_reply(self, slot: Slot, fields: tuple[int, ...], frame: wire.Frame, now: float) -> None:
        """No attempt of a client waits for it: a check, late, replayed, or of an older master's time (it is kept)."""
        slot.progress_at = now  # if it was stopped, it is no longer
        request = slot.inflight.get(fields[8])
        if request is not None and request.session is self.prober:
            return self._probe_ended(slot, request, fields[12], frame[fields[11] :], now)
        flags, epoch, head_len, code = fields[4], fields[6], fields[11], fields[12]
        has_origin = flags & wire.ORIGIN and head_len >= _HEADER + wire.ORIGIN_SIZE
        if has_origin and 0 < epoch < self.epoch and code != _NOT_STARTED:
            origin = wire.ORIGIN_STRUCT.unpack(frame[_HEADER : _HEADER + wire.ORIGIN_SIZE])
            self.inherited.keep(origin, code, fields[7], frame[head_len:])
        else:
            self.counters["stray replies"] += 1

    # ---- calls that end before their answer ------------------------------------------------------

    def cancel(self, session: Session, number: int) -> None:
        request = session.open.get(number)
        if request is None:
            return self.inherited.cancel((session.id, number))
        self.withdraw(request)
        self.fail(request, errors.Cancelled.code, "cancelled by the caller")

    def withdraw(self, request: Request) -> str:
        """Nobody waits for it any more: it leaves whatever it waits in. Says where it was."""
        if self.keys.leave(request):
            return "while the call that its key stands for was under way"
        if request in self.inherited.waiting:
            self.inherited.withdraw(request)
            return "while its fate was not known"
        if request.slot is None:
            self._drop_queued(request)
            return IN_QUEUE
        return "while its handler ran"

    def hand_back(self) -> int:
        """This master stops: what waits goes back to its callers, not started, and each is told up to where it was
        heard. So the next master is asked again only for what was dispatched. Answers how many went back.
        """
        given_back = 0
        queued = [request for pool in self.pools.values() for request in self.waiting(pool)]
        for request in reversed(queued):  # callers put each before what they have
            if request.attempt == 0:
                self.leave_queue(request)
                self.finish(request, _NOT_STARTED, 0, b"", 0)
                given_back += 1
        for request, older in list(self.inherited.waiting.items()):
            if not older:
                self.inherited.release(request)
                self.finish(request, _NOT_STARTED, 0, b"", 0)
                given_back += 1
        for session in self.sessions.values():
            self.send(session, _head(wire.BYE, session.token, self.epoch, number=session.highest))
        return given_back

    # ---- clients ---------------------------------------------------------------------------------

    def close_session(self, session: Session) -> None:
        """BYE or long silence: its queued requests are dropped, its attempts go on without it."""
        for number in list(session.open):
            self.cancel(session, number)
        self.sessions.pop(session.id, None)
        self.routes.pop(session.route, None)
        self.unsent.pop(session, None)
        session.route = b""

    def route_gone(self, session: Session) -> None:
        """Its answers are only recorded until it says HELLO."""
        self.routes.pop(session.route, None)
        session.route = b""
        session.outgoing.clear()
        self.unsent.pop(session, None)
        session.unsent = 0

    def answer_blocked(self, session: Session, frames: list[wire.Frame], gone: bool) -> None:
        """The route did not take these: answers stay recorded. `gone`: wait for a HELLO, else try again soon."""
        if gone:
            self.route_gone(session)
            return
        heads = [wire.parse_head(frame) for frame in frames]
        sequences = [head.upto for head in heads if head.kind == _ANSWER]
        if sequences:
            session.unsent = min(session.unsent or sequences[0], sequences[0])
            self.unsent[session] = None
        self.streams.unsent([session.open[head.number] for head in heads if head.number in session.open])

    def _send_unsent(self, session: Session) -> None:
        first, session.unsent = session.unsent, 0
        del self.unsent[session]
        skip = first - session.acked - 1
        for place, (number, frame) in enumerate(session.kept):
            if place >= skip:
                self.send(session, frame or self._dropped(session, number, session.acked + 1 + place))

    def _dropped(self, session: Session, number: int, sequence: int) -> bytes:
        """The answer in place of one that is no longer kept."""
        head = _head(_ANSWER, session.token, self.epoch, 0, number, sequence, 0, errors.MaybeExecuted.code)
        return head + fault_body("answer dropped: too many answers were not acknowledged")


assert _HEAD_MAX > _HEADER
