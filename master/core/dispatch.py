"""The ledger: every accepted request gets one final answer, and runs elsewhere only if it had not started.

    REQUEST → a slot with credit, or the queue → DELIVER → REPLY → ANSWER

The hot path is `request` → `_deliver` → `reply` → `finish`; it is flat on purpose (a call costs 0.1 µs, an object 0.5).
Everything else here settles what was lost, by evidence only (docs/PROTOCOL.md, "The page").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgpack

from ...common import errors, wire
from ...common.limits import HEAD_MAX
from ...common.messages import Exited, Handler, Held
from ...common.names import unknown
from ...common.settings import MasterSettings
from .outbox import Outbox
from .pool import RECALL_AFTER_S, Pool, Request, Slot
from .sessions import Session
from .timers import Timers

ATTEMPTS_MAX = 2  # started and lost so often: then it is the request that is at fault, and no third process is risked
ROW_RUNNING, ROW_DONE, ROW_REFUSED = 1, 2, 3  # states of a row of the page
KEPT_MAX = 10_000  # replies of an older master's time that nobody has asked for yet; a process holds at most 64

_HEADER = wire.HEADER_SIZE
_HEAD_MAX = HEAD_MAX - wire.ORIGIN_SIZE  # of a request: its delivery carries the origin too
_parse = wire.parse
_head = wire.head
_delivery_head = wire.delivery_head
_META = wire.META
_RESENT = wire.RESENT
_ANSWER = wire.ANSWER
_NOT_STARTED = errors.NOT_STARTED
_with_body = wire.with_body
_COPY_TWICE_MAX = wire.COPY_TWICE_MAX

Target = tuple[Pool, Handler]
Origin = tuple[bytes, int]


def fault_body(cause: str, retry_after_ms: int = 0, **details: object) -> bytes:
    """The map that is the body of an answer with a fault's code."""
    body: bytes = msgpack.packb({"cause": cause, "retry_after_ms": retry_after_ms, **details})
    return body


class Dispatch:
    """Sessions on one side, slots on the other. Its owner opens and closes slots and tells it what ended."""

    def __init__(self, out: Outbox, epoch: int, settings: MasterSettings) -> None:
        self.out = out
        self.epoch = epoch
        self.settings = settings
        self.pools: dict[str, Pool] = {}
        self.sessions: dict[bytes, Session] = {}  # by id
        self.routes: dict[bytes, Session] = {}
        self.slot_routes: dict[bytes, Slot] = {}
        self.timers: Timers[Request] = Timers()
        self.counters: Counter[str] = Counter()
        self.queued_bytes = 0
        self.unsent: dict[Session, None] = {}  # sessions with answers that their route did not take
        # What an earlier master had dispatched, as its processes report it (docs/PROTOCOL.md, REQUEST).
        self.orphans: dict[Origin, Request] = {}
        self.kept: dict[Origin, tuple[int, int, bytes]] = {}  # code, µs, body of its reply
        self.lost: dict[Origin, str] = {}  # started by a process that died since: why
        # Fate or service not known yet; True: an older master may have run it.
        self.waiting: dict[Request, bool] = {}
        # Has every node told what it holds? None: not yet. Asked with: was the session an older master's?
        self.accounted: Callable[[bool], bool | None] = lambda older: True
        self._targets: dict[bytes, Target] = {}

    # ---- the hot path ----------------------------------------------------------------------------

    def request(self, session: Session, fields: tuple[int, ...], frame: bytes, now: float) -> None:
        """A REQUEST of a known session."""
        _, _, _, _, flags, _, epoch, time_ms, number, _, _, head_len, target_len = fields
        if head_len > _HEAD_MAX or _HEADER + target_len > head_len:
            self.counters["bad frames"] += 1  # its delivery would break the format: no process could answer it
            return
        if number <= session.highest or flags:
            if not self._unusual(session, fields, frame, now):
                return
        else:
            session.highest = number
        request = Request()
        request.session = session
        request.number = number
        request.frame = frame
        request.head_len = head_len
        request.target_len = target_len
        request.epoch = epoch
        request.deadline = now + time_ms / 1000
        request.queued_at = now
        request.attempt = 0
        request.slot = None
        request.answered = False
        request.tick = self.timers.add(request.deadline, request)
        session.open[number] = request
        name = frame[_HEADER : _HEADER + target_len]
        target = self._targets.get(name)
        if target is None or flags & _RESENT or len(frame) - head_len > self.settings.max_message:
            return self._admit_unusual(request, flags, now)
        pool, request.handler = target
        request.pool = pool
        slot = pool.shelf.first()
        if slot is None or pool.queued:
            return self._wait(request, now)
        self._deliver(slot, request, now)
        pool.placed(slot)

    def admit(self, request: Request, now: float) -> None:
        """To the best slot, else to the queue."""
        slot = request.pool.shelf.first()
        if slot is None or request.pool.queued:
            return self._wait(request, now)
        self._deliver(slot, request, now)
        request.pool.placed(slot)

    def _wait(self, request: Request, now: float) -> None:
        """In the queue, or Overloaded."""
        pool = request.pool
        settings = pool.settings
        size = len(request.frame)
        if pool.queued >= settings.queue_limit or self.queued_bytes + size > self.settings.queue_bytes:
            # Overloaded says that nothing was run, which nobody knows of what an older master had.
            code = errors.MaybeExecuted.code if request.attempt else errors.Overloaded.code
            cause = f"{pool.queued} requests for {pool.name} wait already"
            return self.fail(request, code, cause, self._retry_after_ms(pool))
        self.queued_bytes += size
        pool.enqueue(request)
        if settings.queue_timeout < request.deadline - now:
            self.timers.remove(request.tick, request)
            request.tick = self.timers.add(now + settings.queue_timeout, request)

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
            frame[7] & _META,
            (request.session.id, request.number),
            frame[_HEADER:head_len],
        )
        outgoing = slot.outgoing
        if not outgoing:
            self.out.slots.append(slot)
        outgoing.append(head + frame[head_len:] if len(frame) < _COPY_TWICE_MAX else _with_body(head, frame, head_len))

    def reply(self, slot: Slot, fields: tuple[int, ...], frame: bytes, now: float) -> None:
        """A REPLY from the slot's own route and token."""
        _, _, _, _, flags, _, epoch, time_us, number, sequence, _, head_len, code = fields
        if sequence == slot.acked + 1:
            slot.acked = sequence
        inflight = slot.inflight
        request = inflight.get(number)
        if request is None or request.epoch != epoch:
            self._stray_reply(fields, frame)
            return
        del inflight[number]
        pool = slot.pool
        slot.progress_at = now
        if len(inflight) == 1:
            pool.parked.pop(slot, None)
        if code == _NOT_STARTED:
            self._not_started([request], now)
        else:
            slot.handled += 1
            pool.observe(time_us)
            self.finish(request, code, time_us, frame, head_len)
        if pool.queued and slot.open and len(inflight) < slot.limit:
            # Nobody else had room, or the queue would be empty: what waits longest comes here.
            waiting = self._next_queued(pool)
            if waiting is not None:
                self._deliver(slot, waiting, now)
        pool.placed(slot)

    def finish(self, request: Request, code: int, time_us: int, frame: bytes, head_len: int) -> None:
        """The final answer: recorded under its sequence, and sent if the client has a route."""
        if request.answered:  # cancelled, or its deadline passed, while it ran; or its caller is not known yet
            origin = self._forget_orphan(request)
            if origin is None:
                self.counters["late replies"] += 1
            else:
                self.kept[origin] = code, time_us, frame[head_len:]
            return
        request.answered = True
        self.timers.remove(request.tick, request)
        session = request.session
        number = request.number
        session.open.pop(number, None)
        sequence = session.sequence = session.sequence + 1
        head = _head(_ANSWER, session.token, self.epoch, time_us, number, sequence, 0, code)
        answer = head + frame[head_len:] if len(frame) < _COPY_TWICE_MAX else _with_body(head, frame, head_len)
        session.keep(number, answer, self.settings.answers_bytes)
        if session.unsent:
            self.unsent[session] = None
        else:
            self._send(session, answer)

    def _send(self, session: Session, answer: bytes) -> None:
        """In its turn with what else goes to this client; without a connection it only stays recorded."""
        if session.route:
            if not session.outgoing:
                self.out.sessions.append(session)
            session.outgoing.append(answer)

    # ---- faults ----------------------------------------------------------------------------------

    def fail(self, request: Request, code: int, cause: str, retry_after_ms: int = 0) -> None:
        """The final answer is a fault that rota makes."""
        self.counters[f"faults {code}"] += 1
        self.finish(request, code, 0, fault_body(cause, retry_after_ms), 0)

    def _retry_after_ms(self, pool: Pool) -> int:
        """About when half of the queue will be served; a second when nothing is known."""
        slots = sum(slot.open for slot in pool.slots.values())
        if not slots or not pool.p95_us:
            return 1000
        return min(30_000, max(10, pool.queued * pool.p95_us // slots // 2000))

    def _resolve(self, target: bytes) -> Target | str:
        """Pool and handler of `service.handler`, remembered; or the sentence that says what is wrong."""
        name = target.decode("utf-8", "replace")
        service, _, handler = name.rpartition(".")
        pool = self.pools.get(service)
        if pool is None:
            return unknown("service", service, self.pools)
        if handler not in pool.handlers:
            if not pool.handlers:  # no process of it has come yet: it waits, and is checked by the process
                return pool, _NO_HANDLER
            return unknown("handler", name, (f"{service}.{each}" for each in pool.handlers))
        found = self._targets[target] = pool, pool.handlers[handler]
        return found

    def interface_known(self, pool: Pool) -> None:
        """The first process of a service came: what waits for it learns of its handlers, or that there is none."""
        self._targets.clear()
        for request in list(pool.queue):
            target = self._resolve(request.frame[_HEADER : _HEADER + request.target_len])
            if not isinstance(target, str):
                request.handler = target[1]
            elif not request.answered:
                self._leave_queue(request)
                self.fail(request, errors.NoService.code, target)

    def forget_targets(self) -> None:
        """After a service left, or its interface changed."""
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
            if request in self.waiting:
                self._give_up(request)
                continue
            where = "in the queue" if request.slot is None else "while its handler ran"
            if request.slot is None:
                self._leave_queue(request)
            self.fail(request, errors.Timeout.code, f"the deadline passed {where}")
        for session in list(self.unsent):
            self._send_unsent(session)
        if self.waiting:
            self.reconsider(now)
        for pool in self.pools.values():
            self.pump(pool, now)

    def _queue_timeout(self, request: Request, now: float) -> None:
        pool = request.pool
        if request.slot is None and request.attempt == 0:  # else something of it ran: Overloaded would deny that
            self._leave_queue(request)
            waited = now - request.queued_at
            wait_ms = self._retry_after_ms(pool)
            self.fail(request, errors.Overloaded.code, f"waited {waited:.1f} s for a process of {pool.name}", wait_ms)
        else:
            request.tick = self.timers.add(request.deadline, request)

    def _leave_queue(self, request: Request) -> None:
        request.pool.leave_queue(request)
        self.queued_bytes -= len(request.frame)

    def _next_queued(self, pool: Pool) -> Request | None:
        request = pool.next_queued()
        if request is not None:
            self.queued_bytes -= len(request.frame)
        return request

    def pump(self, pool: Pool, now: float) -> None:
        """Queue and shelf meet: after anything that may have brought one of them something."""
        while pool.queued:
            slot = pool.shelf.first()
            if slot is None:
                return
            request = self._next_queued(pool)
            if request is None:
                return
            self._deliver(slot, request, now)
            pool.placed(slot)

    def to_recall(self, pool: Pool, now: float) -> list[Slot]:
        """Slots that sit on parked work while they are busy, when another could start it."""
        if not pool.parked:
            return []
        slow = [s for s in pool.parked if now - s.progress_at > RECALL_AFTER_S and not s.recall]
        return slow if any(not s.inflight for s in pool.slots.values() if s.open) else []

    # ---- what was lost ---------------------------------------------------------------------------

    def undeliverable(self, slot: Slot, frames: list[bytes], gone: bool, now: float) -> None:
        """The transport did not take these deliveries; it settles these only. `gone`: the route is no more."""
        numbers = [wire.parse_head(frame).number for frame in frames]
        requests = [slot.inflight.pop(number) for number in numbers if number in slot.inflight]
        self._unpark(slot)
        if gone:
            self.disconnected(slot)
            self._not_started(requests, now)
        else:  # its pipe is full: the next tick tries again, for now would be for ever
            slot.pool.placed(slot)
            self._not_started(requests, None)

    def disconnected(self, slot: Slot) -> None:
        """No more credit until its HELLO; what is in flight there is settled by evidence, not by this."""
        slot.connected = slot.open = False
        slot.pool.placed(slot)

    def recalled(self, slot: Slot, floor: int, started_upto: int, now: float) -> None:
        """Numbers above started_upto and below the floor did not start there, and never will."""
        slot.recall = 0
        taken = [n for n in slot.inflight if started_upto < n < floor]
        requests = [slot.inflight.pop(n) for n in taken]
        self._unpark(slot)
        self.counters["recalled"] += len(requests)
        slot.pool.placed(slot)
        self._not_started(requests, now)

    def rejoined(self, slot: Slot, received_upto: int, held: list[Held], now: float) -> None:
        """A process said HELLO (again): what it never received goes elsewhere, what it holds is waited for."""
        holds = {each.number for each in held}
        missing = [n for n in slot.inflight if n > received_upto or n not in holds]
        never = [slot.inflight.pop(n) for n in missing if n > received_upto]
        dropped = [slot.inflight.pop(n) for n in missing if n <= received_upto]
        if slot.last_number == 0:  # its first HELLO here; later all that it holds is in flight or was answered
            for each in held:
                self._adopt_orphan(slot, each, now)
        slot.last_number = max(slot.last_number, received_upto)
        self._unpark(slot)
        self._not_started(never, now)
        for request in dropped:  # it received them and does not know them: a bug there, told as it is
            self._settle_started(request, "its process no longer knows it", now)

    def exited(self, slot: Slot, report: Exited, now: float) -> None:
        """The process is gone and all that it had sent is read: the page says what had started."""
        states = {row.number: row.state for row in report.rows}
        inflight, slot.inflight = slot.inflight, {}
        self._unpark(slot)
        never: list[Request] = []
        for number, request in inflight.items():
            state = states.get(number)
            if number > report.started_upto or state == ROW_REFUSED:
                never.append(request)
            elif state == ROW_DONE:
                self._settle_started(request, f"its process {report.cause} after it had run; the reply is lost", now)
            else:
                self._settle_started(request, f"its process {report.cause} while it ran", now)
        self._not_started(never, now)

    def abandoned(self, slot: Slot, cause: str, now: float) -> None:
        """Its node is dead or was superseded: nobody will ever tell what had started."""
        inflight, slot.inflight = slot.inflight, {}
        self._unpark(slot)
        for request in inflight.values():
            self._settle_started(request, cause, now)

    def _settle_started(self, request: Request, cause: str, now: float) -> None:
        if request.answered:
            origin = self._forget_orphan(request)
            if origin is None:
                self.counters["lost after its deadline"] += 1
            else:
                self.lost[origin] = cause
        elif request.may_run_again() and request.attempt < ATTEMPTS_MAX and now < request.deadline:
            self.counters["run again"] += 1
            self._run_elsewhere([request], now)
        else:
            self.fail(request, errors.MaybeExecuted.code, cause)

    def _not_started(self, requests: list[Request], now: float | None) -> None:
        """These attempts do not count."""
        for request in requests:
            request.attempt -= 1
            self._forget_orphan(request)
        self._run_elsewhere(requests, now)

    def _run_elsewhere(self, requests: list[Request], now: float | None) -> None:
        """To the front of the queue, and on at once (None: not before the next tick)."""
        waiting = [request for request in requests if not request.answered]
        if not waiting:
            return
        pool = waiting[0].pool
        self.queued_bytes += sum(len(request.frame) for request in waiting)
        pool.requeue(waiting)
        if now is not None:
            self.pump(pool, now)

    def _unpark(self, slot: Slot) -> None:
        if len(slot.inflight) < 2:
            slot.pool.parked.pop(slot, None)

    # ---- what is unusual about a request ---------------------------------------------------------

    def _unusual(self, session: Session, fields: tuple[int, ...], frame: bytes, now: float) -> bool:
        """True if the request is to be accepted as new."""
        flags, number, below = fields[4], fields[8], fields[10]
        if flags & ~(wire.RESENT | wire.META) or below > number:
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
            return False  # attached: the answer goes to the session's route of then
        answered = session.recorded(number)
        if answered is None:
            session.highest = max(session.highest, number)
            return True
        sequence, recorded = answered
        if not recorded:
            head = _head(wire.ANSWER, session.token, self.epoch, 0, number, sequence, 0, errors.MaybeExecuted.code)
            recorded = head + fault_body("answer dropped: too many answers were not acknowledged")
        self._send(session, recorded)
        return False

    def cancel(self, session: Session, number: int) -> None:
        request = session.open.get(number)
        if request is None:
            return
        if request in self.waiting:
            del self.waiting[request]
        elif request.slot is None:
            self._leave_queue(request)
        self.fail(request, errors.Cancelled.code, "cancelled by the caller")

    def close_session(self, session: Session) -> None:
        """BYE or long silence: its queued requests are dropped, its attempts go on without it."""
        for number in list(session.open):
            self.cancel(session, number)
        self.sessions.pop(session.id, None)
        self.routes.pop(session.route, None)
        self.unsent.pop(session, None)
        session.route = b""

    def answer_blocked(self, session: Session, frame: bytes, gone: bool) -> None:
        """The route did not take an answer: it stays recorded. `gone`: wait for a HELLO, else try again soon."""
        if gone:
            self.routes.pop(session.route, None)
            session.route = b""
            self.unsent.pop(session, None)
            session.unsent = 0
            return
        sequence = wire.parse_head(frame).upto
        session.unsent = min(session.unsent or sequence, sequence)
        self.unsent[session] = None

    def _send_unsent(self, session: Session) -> None:
        first, session.unsent = session.unsent, 0
        del self.unsent[session]
        skip = max(0, first - session.acked - 1)
        for place, (_, frame) in enumerate(session.kept):
            if place >= skip and frame:
                self._send(session, frame)

    # ---- what an older master had dispatched -----------------------------------------------------

    def _adopt_orphan(self, slot: Slot, held: Held, now: float) -> None:
        """A delivery that we did not make and this process still holds: it takes credit, and its caller may come."""
        request = Request()
        request.session = Session(held.session, now)
        request.number = held.request
        request.pool = slot.pool
        request.handler = _NO_HANDLER
        request.frame = b""
        request.head_len = request.target_len = 0
        request.deadline = request.queued_at = now
        request.attempt = 1
        request.slot = slot
        request.delivery = held.number
        request.epoch = held.epoch
        request.tick = 0
        request.answered = True  # nobody waits for it here, until its caller resends it
        slot.inflight[held.number] = request
        if held.epoch != self.epoch:  # of our own epoch: its node was given up, and its caller has its answer
            self.orphans[held.session, held.request] = request

    def _forget_orphan(self, request: Request) -> Origin | None:
        """Its origin, if its caller may still come; None for everything that is no orphan."""
        origin = request.session.id, request.number
        if self.orphans.get(origin) is not request:
            return None
        del self.orphans[origin]
        return origin

    def lost_before(self, report: Exited) -> None:
        """An exit that an older master never noted: what had started there ended with an unknown outcome."""
        for row in report.rows:
            if row.epoch != self.epoch and row.state in (ROW_RUNNING, ROW_DONE) and row.number <= report.started_upto:
                self.lost[row.session, row.request] = report.cause

    def _admit_unusual(self, request: Request, flags: int, now: float) -> None:
        """Its service is not known, or it may have run under an older master, or it is too large."""
        size = len(request.frame) - request.head_len
        if size > self.settings.max_message:  # its delivery would be cut by the transport, and the process with it
            cause = f"{size} bytes, the largest message is {self.settings.max_message}"
            return self.fail(request, errors.PayloadTooLarge.code, cause)
        resent = bool(flags & wire.RESENT)
        self._look_up(request, resent and (request.epoch != self.epoch or request.epoch <= request.session.epoch), now)

    def _look_up(self, request: Request, older: bool, now: float) -> None:
        """By evidence if an older master may have run it; else to its pool, as soon as that is known."""
        target = self._resolve(request.frame[_HEADER : _HEADER + request.target_len])
        found = not isinstance(target, str)
        request.handler = _NO_HANDLER
        if not isinstance(target, str):
            request.pool, request.handler = target
        if older and self._settled_by_evidence(request, now):
            return
        if found and (not older or request.may_run_again()):
            request.attempt = int(older)  # the older master's counts as one
            self.admit(request, now)
        elif self.accounted(request.session.epoch > 0) is None:
            self.waiting[request] = older
        else:
            self._give_up(request, older)

    def _settled_by_evidence(self, request: Request, now: float) -> bool:
        """Does a process run it, has one answered it, or did one die of it?"""
        origin = (request.session.id, request.number)
        orphan = self.orphans.pop(origin, None)
        if orphan is not None:
            self._attach(request, orphan)
        elif origin in self.kept:
            code, time_us, body = self.kept.pop(origin)
            self.finish(request, code, time_us, body, 0)
        elif origin in self.lost:
            self._settle_started(request, f"its process {self.lost.pop(origin)}", now)
        else:
            return False
        return True

    def _give_up(self, request: Request, older: bool | None = None) -> None:
        """Nobody knows of it. Processes forget what a master has acknowledged, so even all of them cannot say that it
        did not run: the older master may have had its reply.
        """
        older = self.waiting.pop(request, False) if older is None else older
        if older:
            cause = "a master was restarted, and no process that came back to this one has it"
            self.fail(request, errors.MaybeExecuted.code, cause)
            return
        target = self._resolve(request.frame[_HEADER : _HEADER + request.target_len])
        self.fail(request, errors.NoService.code, target if isinstance(target, str) else "its service came too late")

    def _attach(self, request: Request, orphan: Request) -> None:
        slot = orphan.slot
        assert slot is not None  # an orphan is made in flight and never queued
        request.slot, request.delivery, request.epoch = slot, orphan.delivery, orphan.epoch
        request.attempt = 1
        slot.inflight[orphan.delivery] = request

    def reconsider(self, now: float) -> None:
        """The inventory may have grown: look again at what waits for it."""
        waiting, self.waiting = self.waiting, {}
        for request, older in waiting.items():
            self._look_up(request, older, now)

    def _stray_reply(self, fields: tuple[int, ...], frame: bytes) -> None:
        """No attempt of ours waits for it: late, replayed, or of an older master's time (then it is kept)."""
        flags, epoch, head_len, code = fields[4], fields[6], fields[11], fields[12]
        has_origin = flags & wire.ORIGIN and head_len >= _HEADER + wire.ORIGIN_SIZE
        if has_origin and epoch != self.epoch and code != errors.NOT_STARTED:
            if len(self.kept) >= KEPT_MAX:
                del self.kept[next(iter(self.kept))]
            self.kept[wire.ORIGIN_STRUCT.unpack_from(frame, _HEADER)] = code, fields[7], frame[head_len:]
        else:
            self.counters["stray replies"] += 1


_NO_HANDLER = Handler()
assert _HEAD_MAX > _HEADER
