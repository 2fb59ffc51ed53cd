"""What becomes of attempts whose process, connection or node was lost: decided by evidence, never by a guess.

Not started → run elsewhere, for free. Started → again only if its handler may, else `MaybeExecuted`. Who may say which
stands in docs/PROTOCOL.md, "The page".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...common import errors, wire
from ...common.limits import NUMBER_MAX
from ...common.messages import ROW_DONE, ROW_REFUSED, End, Exited, Held, Recalled, Row
from .inherited import reply_in
from .pool import Request, Slot

if TYPE_CHECKING:
    from .dispatch import Dispatch

_PLANNED = (End.STOPPED, End.LEAVING)  # ends that we asked for: running again what they cost is not charged


class Losses:
    """Each method is one kind of evidence about one slot."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._inherited = dispatch.inherited
        self.tell: Callable[[str, str, str], None] = lambda kind, subject, text: None  # an event

    def undeliverable(self, slot: Slot, frames: list[wire.Frame], gone: bool, now: float) -> None:
        """The transport did not take these deliveries; it settles these only. `gone`: the route is no more."""
        heads = [wire.parse_head(frame) for frame in frames]
        streams = [slot.inflight[h.number] for h in heads if h.kind != wire.DELIVER and h.number in slot.inflight]
        numbers = [head.number for head in heads if head.kind == wire.DELIVER]
        requests = [slot.inflight.pop(number) for number in numbers if number in slot.inflight]
        slot.pool.unpark(slot)
        if gone:
            self.disconnected(slot)
            self.not_started(requests, now)
        else:  # its pipe is full: the next tick tries again, for now would be for ever
            slot.pool.shelf.placed(slot)
            self._dispatch.streams.unsent(streams)
            self.not_started(requests, None)

    def disconnected(self, slot: Slot) -> None:
        """No more credit until its HELLO; what is in flight there is settled by evidence, not by this."""
        slot.connected = slot.open = False
        slot.pool.shelf.placed(slot)

    def recalled(self, slot: Slot, answer: Recalled, now: float) -> None:
        """Numbers above started_upto and below the floor did not start there, and never will."""
        if answer.floor >= slot.recall:  # else it is that of an earlier question
            slot.recall = 0
        progress_at, last_number = slot.progress_at, slot.last_number
        self._take_replies(slot, answer.rows, now)
        if slot.last_number == last_number:  # else it was given something just now
            slot.progress_at = progress_at  # these are no news of the process itself
        taken = [n for n in slot.inflight if answer.started_upto < n < answer.floor]
        requests = [slot.inflight.pop(n) for n in taken]
        slot.pool.unpark(slot)
        self._dispatch.counters["recalled"] += len(requests)
        if requests and (slot in slot.pool.stalled or not slot.inflight):  # what it is given now it would not start
            slot.pool.stall(slot, len(slot.inflight), now)
        if requests and not slot.inflight:  # it runs nothing and yet started nothing: it is stopped, or cut off
            self._dispatch.out.cuts.append(slot.source)  # a connection that lost its frames would lose them for ever
        slot.pool.shelf.placed(slot)
        self.not_started(requests, now)
        self._dispatch.pump(slot.pool, now)  # where nobody waits any more for what came back, others may

    def rejoined(self, slot: Slot, received_upto: int, held: list[Held], now: float) -> None:
        """A process said HELLO (again): what it never received goes elsewhere, what it holds is waited for."""
        holds = {each.number for each in held}
        missing = [n for n in slot.inflight if n not in holds]
        never = [slot.inflight.pop(n) for n in missing if n > received_upto]
        dropped = [slot.inflight.pop(n) for n in missing if n <= received_upto]
        if slot.last_number == 0:  # its first HELLO here; later all that it holds is in flight or was answered
            for each in held:
                if each.number <= received_upto and each.number not in slot.inflight:  # else it would lose its place
                    self._inherited.adopt(slot, each, now)
            if len(slot.inflight) > 1 and slot.concurrency == 1:
                slot.pool.parked[slot] = None
        slot.last_number = max(slot.last_number, min(received_upto, NUMBER_MAX >> 1))  # whatever a damaged one says
        slot.pool.unpark(slot)
        slot.pool.stalled.pop(slot, None)
        self._dispatch.streams.rejoined(slot.inflight.values(), now)
        self.not_started(never, now)
        for request in dropped:  # it received them and does not know them: a bug there, told as it is
            self.settle_started(request, "its process no longer knows it", now)

    def exited(self, slot: Slot, report: Exited, now: float) -> None:
        """The process is gone and all that it had sent is read: the page says what had started, and has small replies
        that its transport had not sent yet.
        """
        self._take_replies(slot, report.rows, now)
        states = {row.number: row.state for row in report.rows}
        planned = report.kind in _PLANNED
        inflight, slot.inflight = slot.inflight, {}
        self._dispatch.quarantine.exited(slot, report, inflight, now)
        never: list[Request] = []
        for number, request in inflight.items():
            state = states.get(number)
            if number > report.started_upto or state == ROW_REFUSED:
                never.append(request)
            else:
                when = "after it had run; the reply is lost" if state == ROW_DONE else "while it ran"
                self.settle_started(request, f"its process was lost {when} ({report.cause})", now, planned)
        self.not_started(never, now)

    def _take_replies(self, slot: Slot, rows: list[Row], now: float) -> None:
        for row in rows:
            if row.number in slot.inflight and (fields := reply_in(row)):
                self._dispatch.reply(slot, fields, row.reply, now)

    def abandoned(self, slot: Slot, cause: str, now: float) -> None:
        """Its node is dead or was superseded: nobody will ever tell what had started."""
        inflight, slot.inflight = slot.inflight, {}
        for request in inflight.values():
            self.settle_started(request, cause, now)

    def settle_started(self, request: Request, cause: str, now: float, planned: bool = False) -> None:
        self._dispatch.quarantine.lost(request)
        if request.answered:
            origin = self._inherited.forget(request)
            if origin is None:
                self._dispatch.counters["lost after its deadline"] += 1
                self._dispatch.keys.lost(request, cause)
            else:
                self._inherited.lost[origin] = cause
        elif request.epoch != self._dispatch.epoch and self._inherited.settled_by_evidence(request, now):
            pass  # an older master's, of which another attempt is known
        elif verdict := self._dispatch.quarantine.verdict(request):
            self._dispatch.fail(request, errors.MaybeExecuted.code, verdict)
        elif why_not := self._why_not_again(request, now, planned):
            self._dispatch.fail(request, errors.MaybeExecuted.code, f"{cause}; not run again: {why_not}")
        else:
            self._dispatch.counters["run again"] += 1
            self._run_elsewhere([request], now)

    def _why_not_again(self, request: Request, now: float, planned: bool) -> str:
        """Empty if it may; then it is charged."""
        if not request.may_run_again():
            return "its handler does not allow it"
        if self._dispatch.streams.begun(request):
            return "its answer had begun"
        pool, allowed = request.pool, request.pool.settings.max_attempts
        if request.attempt >= allowed:
            return f"this was attempt {request.attempt} of {allowed}"
        if now >= request.deadline:
            return "its deadline passed"
        if planned or pool.take_retry(now):
            return ""
        self._dispatch.counters["retry budget spent"] += 1
        if refused := pool.retries.to_tell(now):
            text = f"the retry budget of {pool.name} is spent: {refused} lost attempts were not run again"
            self.tell("retries", pool.name, text)
        return "too much is run again already (retry_percent, retry_per_s)"

    def refused(self, slot: Slot, request: Request, by: bytes, now: float) -> None:
        """Its process was kept from starting it."""
        if by == errors.BY_FENCE:
            self._inherited.give_back(request)
            if request.epoch != self._dispatch.epoch:  # an older master's attempt, which ran nowhere
                request.epoch = self._dispatch.epoch
                if request.may_run_again():
                    request.attempt += 1  # it may not have been the first
            else:  # another master stands, or has won
                slot.fenced, slot.open = True, False  # it would refuse the next one as quickly
                slot.pool.shelf.placed(slot)
                if not request.answered and not request.may_run_again():
                    # To that master it is proof too: so it is not run here, and its client sends it anew, under another
                    # number.
                    self._dispatch.quarantine.lost(request)
                    return self._dispatch.finish(request, errors.NOT_STARTED, 0, b"", 0)
        self.not_started([request], now)

    def not_started(self, requests: list[Request], now: float | None) -> None:
        """These attempts do not count."""
        for request in requests:
            request.attempt -= 1
            self._inherited.forget(request)
            self._dispatch.quarantine.lost(request)
            if request.answered:
                self._dispatch.keys.not_started(request)
        ours = self._dispatch.epoch
        self._run_elsewhere([request for request in requests if request.epoch == ours], now)
        for request in requests:
            # What an older master dispatched it may have taken back and had run elsewhere.
            if not request.answered and request.epoch != ours and now is not None:
                self._inherited.look_up(request, True, now)

    def _run_elsewhere(self, requests: list[Request], now: float | None) -> None:
        """Puts them at the front of the queue and dispatches at once (`now` None: not before the next tick)."""
        quarantine = self._dispatch.quarantine
        waiting = [r for r in requests if not r.answered and not quarantine.takes(r)]
        if now is not None and quarantine.waiting:
            quarantine.step(now)
        if not waiting:
            return
        pool = waiting[0].pool
        self._dispatch.queued_bytes += sum(len(request.frame) for request in waiting)
        self._dispatch.pins.requeue(pool, waiting)
        if now is not None:
            self._dispatch.pump(pool, now)
