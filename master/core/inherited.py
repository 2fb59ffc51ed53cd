"""What an older master had dispatched, as its processes and callers tell of it (docs/PROTOCOL.md, REQUEST).

A resend whose first send an older master may have run is settled by evidence: a process runs it, has answered it, or
died of it. Where nobody knows, it may have run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...common import errors, wire
from ...common.messages import ROW_DONE, ROW_RUNNING, Exited, Held, Row
from .maintenance import service_of
from .pool import NO_HANDLER, Request, Slot
from .recollection import AGE_MAX_S, Recollection, Told
from .sessions import Session

if TYPE_CHECKING:
    from .dispatch import Dispatch

# Replies of an older master's time that nobody has asked for yet; a process holds at most 64.
KEPT_MAX = 10_000
KEPT_BYTES_MAX = 64 * 1024 * 1024

Origin = tuple[bytes, int]  # session, request number


class Inherited:
    """The ledger of what this master did not dispatch itself."""

    def __init__(self, dispatch: Dispatch) -> None:
        # Attempts that processes hold, those that may run last: what was taken back from one may run in another.
        self.orphans: dict[Origin, list[Request]] = {}
        self.kept: dict[Origin, tuple[int, int, bytes]] = {}  # code, µs, body of a reply
        self.lost: dict[Origin, str] = {}  # started by a process that died since: why
        self.returned: dict[Origin, None] = {}  # its process was fenced off before it began
        self.given_up: dict[Origin, None] = {}  # by callers that were here before their processes
        self.recollection = Recollection()  # what processes have done
        # Fate or service not known yet; True: an older master may have run it.
        self.waiting: dict[Request, bool] = {}
        self.told: Callable[[bool], Told] = lambda older: Told.ALL  # asked with: was the session an older master's?
        self._kept_bytes = 0
        self._stale: list[Origin] = []  # of all of these, what was there at the last sweep
        self._sweep_at = 0.0
        self._dispatch = dispatch

    def adopt(self, slot: Slot, held: Held, now: float) -> None:
        """A delivery that we did not make and this process still holds: it takes credit, and its caller may come."""
        request = Request()
        request.session = Session(held.session, now)
        request.number = held.request
        request.pool = slot.pool
        request.handler = NO_HANDLER
        request.frame = b""
        request.head_len = request.tail_at = request.target_len = 0
        request.deadline = request.queued_at = now
        request.attempt = 1
        request.slot = slot
        request.delivery = held.number
        request.epoch = held.epoch
        request.tick = {}
        request.answered = True  # nobody waits for it here, until its caller resends it
        slot.inflight[held.number] = request
        # Of our own epoch: its node was given up, and its caller has its answer.
        if held.epoch != self._dispatch.epoch and not self._is_given_up(request.origin()):
            attempts = self.orphans.setdefault((held.session, held.request), [])
            attempts.insert(0 if held.done else len(attempts), request)

    def _is_given_up(self, origin: Origin) -> bool:
        """Its caller came before its process, and waits neither for it nor for another attempt."""
        session = self._dispatch.sessions.get(origin[0])
        known = session.open.get(origin[1]) if session is not None else None
        return origin in self.given_up or not (known is None or self._may_need_another(known))

    def _may_need_another(self, request: Request) -> bool:
        """It waits for its attempt, or for an older master's, which its process may turn out to have given back."""
        made = self._dispatch.keys.made_for(request)
        return made in self.waiting or (made.slot is not None and made.epoch != self._dispatch.epoch)

    def give_back(self, request: Request) -> None:
        """The fence of its process kept it from starting, and it was given to nobody else: its caller's resend may run.
        (What was refused by the floor was taken back by the older master, which may have had it run elsewhere.)
        """
        origin = self.forget(request)
        if origin is not None:
            if len(self.returned) >= KEPT_MAX:
                del self.returned[next(iter(self.returned))]
            self.returned[origin] = None

    def cancel(self, origin: Origin) -> None:
        """Its caller is here, and does not wait for it any more."""
        for orphan in self.orphans.pop(origin, ()):
            self._dispatch.streams.forsaken(orphan)
        if self.told(True) is Told.NOT_YET:
            self._give_up(origin)

    def withdraw(self, request: Request) -> None:
        """Its caller does not wait for it any more."""
        if self.release(request):
            self._give_up(request.origin())

    def _give_up(self, origin: Origin) -> None:
        """Nobody waits for it: a process that comes with it is told so."""
        if len(self.given_up) < KEPT_MAX:
            self.given_up[origin] = None

    def awaits_caller(self, request: Request) -> bool:
        """Its caller may still come for this attempt."""
        return request in self.orphans.get(request.origin(), ())

    def forget(self, request: Request) -> Origin | None:
        """Its origin, if its caller may still come; None for everything that is no orphan."""
        if not self.awaits_caller(request):
            return None
        origin = request.origin()
        self.orphans[origin].remove(request)
        if not self.orphans[origin]:
            del self.orphans[origin]
        return origin

    def lost_before(self, report: Exited) -> None:
        """An exit that an older master never noted: what had started there ended with an unknown outcome, unless its
        reply is in the page.
        """
        for row in report.rows:
            if row.epoch == self._dispatch.epoch or row.number > report.started_upto:
                continue
            origin = row.session, row.request
            if fields := reply_in(row):
                self.keep(origin, fields[12], fields[7], row.reply[fields[11] :])
            elif row.state in (ROW_RUNNING, ROW_DONE):
                self.lost[origin] = report.cause

    def look_up(self, request: Request, older: bool, now: float) -> None:
        """Settles it by evidence if an older master may have run it; else gives it to its pool, as soon as that is
        known.
        """
        target = self._dispatch.resolve(request.target())
        found = not isinstance(target, str)
        request.handler = NO_HANDLER
        if not isinstance(target, str):
            request.pool, request.handler = target
        if older:
            if self.settled_by_evidence(request, now):
                return
            if self._is_untold(request):
                return self._hold(request, older)
            older = not self._never_ran(request, now)
        if found and request.origin() in self.returned:
            del self.returned[request.origin()]
            # The refused attempt of a default handler was its only one; another handler's may be its second.
            older = request.may_run_again()
        if not older and self._dispatch.maintenance.takes(request):
            return
        if found and (not older or self._may_run_again(request)):
            request.attempt = int(older)  # the older master's counts as one
            self._dispatch.admit(request, now)
        elif self.told(request.session.epoch > 0) is Told.NOT_YET:
            self._hold(request, older)
        else:
            self.give_up(request, older)

    def _is_untold(self, request: Request) -> bool:
        """Whether it may run again depends on how much of an answer its caller has, which that has not said yet."""
        return request.may_run_again() and self._dispatch.streams.untold(request)

    def _may_run_again(self, request: Request) -> bool:
        """Once an answer has begun, its rest is worth something and another answer is not: its process is
        waited for.
        """
        again = request.may_run_again() and request.pool.settings.max_attempts > 1
        return again and not self._dispatch.streams.begun(request)

    def _never_ran(self, request: Request, now: float) -> bool:
        return self.told(True) is Told.ALL and self.recollection.never_ran(request, now)

    def _hold(self, request: Request, older: bool) -> None:
        """Keeps it until more is known. What waits here counts as queued."""
        size = len(request.frame)
        if self._dispatch.queued_bytes + size > self._dispatch.settings.queue_bytes:
            code = errors.MaybeExecuted.code if older else errors.Overloaded.code
            self._dispatch.fail(request, code, "too much waits already for nodes to tell what they run", 1000)
            return
        self._dispatch.queued_bytes += size
        self.waiting[request] = older

    def release(self, request: Request) -> bool:
        """It waits no longer. Answers whether an older master may have run it."""
        self._dispatch.queued_bytes -= len(request.frame)
        return self.waiting.pop(request)

    def settled_by_evidence(self, request: Request, now: float) -> bool:
        """Does a process run it, has one answered it, or did one die of it?"""
        origin = request.origin()
        if origin in self.kept:
            code, time_us, body = self.take(origin)
            self._dispatch.finish(request, code, time_us, body, 0)
        elif orphan := self._orphan(origin):
            self.forget(orphan)
            self._attach(request, orphan)
        elif origin in self.lost and not self._is_untold(request):
            request.attempt = 1  # the older master's
            self._dispatch.losses.settle_started(request, f"its process was lost ({self.lost.pop(origin)})", now)
        else:
            return False
        return True

    def _orphan(self, origin: Origin) -> Request | None:
        """The attempt that most likely runs; none that is being settled with its process."""
        for orphan in reversed(self.orphans.get(origin, ())):
            if orphan.slot is not None and orphan.slot.inflight.get(orphan.delivery) is orphan:
                return orphan
        return None

    def overdue(self, request: Request, now: float) -> bool:
        """Its deadline passed while it waited here. False: a process that came just now has it; else it is answered."""
        older = self.release(request)
        if not self.settled_by_evidence(request, now):
            self.give_up(request, older)
        return request.answered

    def give_up(self, request: Request, older: bool) -> None:
        """Nobody holds it. Processes keep a reply until a master has acknowledged it, and know what they have done for
        a while only: an older master may have had its reply.
        """
        if older:
            self._give_up(request.origin())
            cause = "a master was restarted, and no process that came back to this one has it"
            if self.recollection.was_done(request):
                cause = "it was executed, and its answer was lost with the master before this one"
            self._dispatch.fail(request, errors.MaybeExecuted.code, cause)
            return
        target = self._dispatch.resolve(request.target())
        if not isinstance(target, str):
            return self._dispatch.fail(request, errors.NoService.code, "its service came too late")
        known = service_of(request.target()) in self._dispatch.pools
        self._dispatch.fail(request, errors.NoService.code, target, unknown="handler" if known else "service")

    def _attach(self, request: Request, orphan: Request) -> None:
        slot = orphan.slot
        assert slot is not None  # an orphan is made in flight and never queued
        request.slot, request.delivery, request.epoch = slot, orphan.delivery, orphan.epoch
        request.attempt = 1
        slot.inflight[orphan.delivery] = request
        self._dispatch.streams.attached(request)

    def tick(self, now: float) -> None:
        if self.waiting:
            self.reconsider(now)
        if now >= self._sweep_at:
            # Who is silent for so long has lost its session, and whatever it asks for then was asked too long ago to be
            # run by what is known here.
            self._sweep_at = now + max(self._dispatch.settings.session_idle, 2 * AGE_MAX_S)
            self._sweep()

    def _sweep(self) -> None:
        """What nobody came for since the last time, nobody will come for."""
        for origin in self._stale:
            self.take(origin)
            self.lost.pop(origin, None)
            self.returned.pop(origin, None)
            self.given_up.pop(origin, None)
        self._stale = [*self.kept, *self.lost, *self.returned, *self.given_up]

    def reconsider(self, now: float) -> None:
        """The inventory may have grown: look again at what waits for it."""
        for request in list(self.waiting):
            self.look_up(request, self.release(request), now)

    def recorded(self, session: bytes, frame: bytes) -> None:
        """An answer of the master before, whose caller may not have it."""
        fields = wire.parse(frame)
        self.keep((session, fields[8]), fields[12], fields[7], frame[fields[11] :])

    def keep(self, origin: Origin, code: int, time_us: int, body: bytes) -> None:
        """A reply whose caller has not come yet. The oldest go where they are too many or too large."""
        self.take(origin)
        self._kept_bytes += len(body)
        self.kept[origin] = code, time_us, body
        while len(self.kept) > KEPT_MAX or self._kept_bytes > KEPT_BYTES_MAX:
            self.take(next(iter(self.kept)))

    def take(self, origin: Origin) -> tuple[int, int, bytes]:
        """The reply that was kept, no longer kept; nothing, if there is none."""
        found = self.kept.pop(origin, (0, 0, b""))
        self._kept_bytes -= len(found[2])
        return found


def reply_in(row: Row) -> tuple[int, ...] | None:
    """The head of the reply that stands in a row of a page; None unless it is one of this very delivery, which ran."""
    if row.state != ROW_DONE:
        return None
    try:
        fields = wire.parse(row.reply)
    except wire.BadFrame:
        return None
    of_it = fields[3] == wire.REPLY and fields[8] == row.number and fields[6] == row.epoch
    return fields if of_it and fields[12] != errors.NOT_STARTED else None
