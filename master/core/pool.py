"""The pool of one service: its queue, its slots, and which slot gets the next request.

A slot is the master's handle on one process. It stands on the *shelf* while it may be given more: eligible, connected,
below its credit. The shelf is ordered by load, then by least recent use, so the choice costs the same with 4 and with
1,000 slots.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from ...common.lifecycle import Health
from ...common.limits import CREDIT_MAX, CREDIT_USUAL
from ...common.messages import Handler
from ...common.settings import ROUND_ROBIN
from ...common.wire import FLAGS_AT, KEYED, PINNED, Frame
from .retries import RetryBudget
from .sessions import Source

if TYPE_CHECKING:
    from ...common.settings import ServiceSettings
    from .pauses import Pause
    from .registry import Node
    from .sessions import Session
    from .timers import Tick

STRIDE = 256  # load is counted in parts of a weight of 1; the largest weight is 256
# Credit = one request to work at, and parked behind it as many as a process usually serves in 4 ms: it does not wait
# for the next one (0.3 ms, 2 and more on busy cores), and parked work waits no longer than that. By the median: where
# there is more to do than cores, the p95 of 0.1 ms of work is the 0.5 ms that it waited for its core; what is parked
# behind a request that is long after all is taken back (`recalls`). More than CREDIT_USUAL only by the p95.
PARKED_US = 4096  # service times are known up to powers of two, and the upper one counts: 2 to 4 ms
# A burst = as many requests as a process serves in half a millisecond, by the mean of its service times: so long the
# last of them waits for the others, on average (docs/decisions/018).
BURST_US = 500
STALL_S = 10.0  # until a process that started nothing of what it had is given something again
_ENOUGH = 512  # service times; beyond it each look halves the weight of those before
NO_HANDLER = Handler()  # of what is not known yet
UNCAPPED = 1 << 30
_FIRST_COUNT = 8  # before that many nothing is known of a pool


@dataclass(slots=True, eq=False, init=False, repr=False)
class Request:
    """One accepted request until its final answer, or longer: a timed-out attempt goes on without its caller.

    Made without arguments and filled field by field: that is what the hot path can afford.
    """

    session: Session
    number: int
    pool: Pool
    handler: Handler
    frame: Frame  # as the client sent it
    head_len: int
    tail_at: int  # in the frame: where its target begins
    target_len: int
    epoch: int  # of its delivery, or of its first send while it is not delivered
    deadline: float
    tick: Tick[Request]  # of the timers: where it is
    queued_at: float
    attempt: int  # dispatches so far
    slot: Slot | None  # None: queued
    delivery: int  # its number on that slot
    answered: bool

    def origin(self) -> tuple[bytes, int]:
        """What masters and processes know it by: its session and its number there."""
        return self.session.id, self.number

    def target(self) -> bytes:
        """`service.handler`, as the client wrote it."""
        return self.frame[self.tail_at : self.tail_at + self.target_len]

    def text(self, name: str) -> str:
        """This entry of its meta; "" if there is none, or it is no text. Decoded only where it is needed."""
        try:
            meta = msgpack.unpackb(self.frame[self.tail_at + self.target_len : self.head_len])
        except Exception:  # msgpack raises eight unrelated types on hostile bytes
            return ""
        text = meta.get(name) if isinstance(meta, dict) else None
        return text if isinstance(text, str) else ""

    def pinned(self) -> bool:
        """It belongs to a session, whose requests go to one process."""
        return bool(self.frame) and self.frame[FLAGS_AT] & PINNED != 0

    def may_run_again(self) -> bool:
        """Started and lost: is a second run allowed? Only the handler may say so (a key alone does not)."""
        idempotent = self.handler.idempotent
        return idempotent == "yes" or (idempotent == "key" and self.frame[FLAGS_AT] & KEYED != 0)


class Stage(StrEnum):
    """How far a process is, as the master sees it."""

    BOOTING = "booting"  # its agent told of it; it has not said HELLO
    READY = "ready"
    CLOSING = "closing"  # gets nothing new; retired when its last reply is there
    RETIRED = "retired"  # its agent was told to stop it
    EXITED = "exited"


@dataclass(slots=True, eq=False, repr=False)
class Slot:
    """The master's handle on one process (one incarnation)."""

    node: Node
    pool: Pool
    incarnation: str
    ticket: bytes
    pid: int
    born_at: float
    stage: Stage = Stage.BOOTING
    ready_at: float = 0.0
    version: str = ""
    concurrency: int = 1
    route: bytes = b""
    token: int = 0
    source: Source = Source()
    connected: bool = False
    fenced: bool = False  # it obeys another master, and refuses what is new; what it has it goes on with
    open: bool = False  # may be given new work; computed by the registry, never set elsewhere
    limit: int = 1  # credit: how many may be in flight here
    cap: int = UNCAPPED  # whatever the credit: 0 or 1 where a suspect is to run alone
    stride: int = STRIDE
    row: int = -1  # on the shelf: its load; -1: not there
    inflight: dict[int, Request] = field(default_factory=dict)
    outgoing: list[Frame] = field(default_factory=list)  # deliveries that the shell has not sent yet
    last_number: int = 0
    acked: int = 0  # reply sequence up to which every reply arrived
    progress_at: float = field(init=False)
    recall: int = 0  # floor that was asked for last and not yet answered
    recalled: int = 0  # up to this number what had not begun was taken back, or was asked for
    handled: int = 0
    hellos: int = 0  # the number of its last HELLO: an earlier one may come later, over a connection that is gone
    rss: int = 0
    retire_reason: str = ""  # why it is to be replaced; "" = it is not
    asked_at: float = 0.0  # when its agent was told to retire it

    def __post_init__(self) -> None:
        self.progress_at = self.born_at

    def serves(self) -> bool:
        """It would begin what it is given."""
        return self.stage is Stage.READY and self.connected and not self.fenced


class Stall(NamedTuple):
    """`credit`: 1 while it is busy, 0 when it does not even start anything. `at`: when it was noticed last."""

    progress_at: float
    credit: int
    at: float


class Shelf:
    """Slots that may be given more, the least loaded first, then the least recently used. Of quick requests that come
    at one moment an idle slot is given a burst: several, before the next slot is woken.
    """

    def __init__(self) -> None:
        self.burst = 1  # requests
        self._woken: Slot | None = None  # the next one of last time
        # By load. A dict keeps the holes of what was taken from its front: of 1,000 slots a look would pass hundreds.
        self._rows: list[OrderedDict[Slot, None]] = [OrderedDict()]
        self._lowest = 0  # the rows before this one are empty

    def first(self, now: float) -> Slot | None:
        """The next one for what comes now."""
        slot = self._woken
        # Its progress is of this moment: it was idle, or has just answered.
        if slot is not None and slot.progress_at == now and 0 < len(slot.inflight) < self.burst and slot.row >= 0:
            return slot
        self._woken = slot = self._least_loaded()
        return slot

    def _least_loaded(self) -> Slot | None:
        rows = self._rows
        for slot in rows[self._lowest]:
            return slot
        for place in range(self._lowest + 1, len(rows)):
            for slot in rows[place]:
                self._lowest = place
                return slot
        self._lowest = len(rows) - 1
        return None

    def placed(self, slot: Slot) -> None:
        """After any change of a slot's load, credit or eligibility: to the end of its row, for it was used just now."""
        rows, row, load = self._rows, slot.row, len(slot.inflight)
        if row >= 0:
            del rows[row][slot]
        if not slot.open or load >= slot.limit:
            slot.row = -1
            return
        if slot.stride != STRIDE:
            load = load * slot.stride // STRIDE
        slot.row = load
        try:
            rows[load][slot] = None
        except IndexError:
            rows += (OrderedDict() for _ in range(len(rows), load))
            rows.append(OrderedDict({slot: None}))
        if load < self._lowest:
            self._lowest = load


class Pool:
    """One service. `settings` may be replaced at any time (reload)."""

    def __init__(self, name: str, settings: ServiceSettings, now: float) -> None:
        self.name = name
        self.settings = settings
        self.handlers: dict[str, Handler] = {}
        self.digests: dict[str, str] = {}  # version → digest of the interface that its first process had
        self.first_ready: float | None = None  # when the first process of all was ready
        self.slots: dict[str, Slot] = {}
        self.shelf = Shelf()
        self.queue: deque[Request] = deque()  # may hold answered ones (timed out, cancelled): skipped
        self.queued = 0  # of them, those that still wait, and all that wait for one slot:
        self.pinned: dict[Request, Slot | None] = {}  # None: it is not known yet for which
        self.lines: dict[Slot | None, OrderedDict[Request, None]] = {}  # the same by slot, first come first served
        self.pause: Pause | None = None  # nothing is dispatched meanwhile
        self.held_until = 0.0  # the end of the last pause: waiting before it does not count
        self.credit = settings.credit or 1
        self.median_us = self.p95_us = 0  # upper bounds: powers of two
        self.parked: dict[Slot, None] = {}  # slots with two or more in flight
        self.stalled: dict[Slot, Stall] = {}  # slots that do not answer
        self.look_silent_at = 0.0  # for slots whose requests may have been lost
        self.times = [0] * 33  # how many service times there were of so many bits, in µs; the older ones count less
        self._counted = 0
        self._forgotten = 0
        self.retries = RetryBudget()
        # how large it is to be
        self.target: int | None = None  # None: all that is offered
        self.grow_at = 0.0
        self.busy_at = now
        self.reload: list[str] = []  # incarnations still to be replaced
        self.reloaded_at = now
        self.look_at = 0.0  # for processes that are due to be replaced

    # ---- the queue -------------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        request.slot = None
        self.queue.append(request)
        self.queued += 1
        if len(self.queue) > 2 * self.queued + 64:
            self.queue = deque(request for request in self.queue if not request.answered)

    def requeue(self, requests: list[Request]) -> None:
        """Puts them at the front, in their order: they were there before the others."""
        for request in reversed(requests):
            request.slot = None
            self.queue.appendleft(request)
        self.queued += len(requests)

    def next_queued(self) -> Request | None:
        queue = self.queue
        while queue:
            request = queue.popleft()
            if not request.answered:
                self.queued -= 1
                if not self.queued:
                    queue.clear()
                return request
        return None

    def line_up(self, request: Request, slot: Slot | None) -> None:
        """Lets it wait for this slot alone; None: until it is known for which one."""
        request.slot = None
        self.pinned[request] = slot
        self.lines.setdefault(slot, OrderedDict())[request] = None
        self.queued += 1

    def first_in_line(self, slot: Slot | None) -> Request | None:
        line = self.lines.get(slot)
        return next(iter(line)) if line else None

    def waiting(self) -> list[Request]:
        """All that wait, for any slot or for one."""
        return [*(request for request in self.queue if not request.answered), *self.pinned]

    def leave_queue(self, request: Request) -> None:
        """It waits no longer. Its place in the queue is skipped later."""
        self.queued -= 1
        if request in self.pinned:
            slot = self.pinned.pop(request)
            line = self.lines[slot]
            del line[request]
            if not line:
                del self.lines[slot]
        if not self.queued:
            self.queue.clear()

    def take(self, requests: list[Request]) -> None:
        """These leave the queue and the lines, unanswered, to wait elsewhere."""
        if requests:
            for request in requests:
                self.leave_queue(request)
            taken = set(requests)
            self.queue = deque(request for request in self.queue if request not in taken)

    def first_queued(self) -> Request | None:
        """The next request for any slot, which stays in the queue."""
        queue = self.queue
        while queue and queue[0].answered:
            queue.popleft()
        return queue[0] if queue else None

    def oldest_wait(self, now: float) -> float:
        first = self.first_queued()
        return now - first.queued_at if first is not None else 0.0

    # ---- slots -----------------------------------------------------------------------------------

    def adopt(self, slot: Slot) -> None:
        """Sets what depends on the pool: credit and weight."""
        settings = self.settings
        stall = self.stalled.get(slot)
        credit = 1 if slot.node.health is Health.TRIAL else max(self.credit, slot.concurrency)
        credit = credit if stall is None else min(credit, stall.credit)
        slot.limit = min(slot.cap, credit) if self.pause is None else 0
        weight = settings.weights.get(slot.node.name, 1) if settings.weights else 1
        slot.stride = 0 if settings.balance == ROUND_ROBIN else max(1, STRIDE // weight)
        self.shelf.placed(slot)

    def unpark(self, slot: Slot) -> None:
        """Called when some of what it had in flight is gone: nothing waits behind a single request."""
        if len(slot.inflight) < 2:
            self.parked.pop(slot, None)

    def stall(self, slot: Slot, credit: int, now: float) -> None:
        """It has not answered for a while: what it is given beyond this credit would only wait there. Until it answers,
        what it was cut to before holds, too.
        """
        before = self.stalled.get(slot)
        if before is not None and before.progress_at == slot.progress_at:
            credit = min(credit, before.credit)
        self.stalled[slot] = Stall(slot.progress_at, credit, now)
        self.adopt(slot)

    def unstall(self, now: float) -> None:
        """Those that have answered get their credit back; those that have nothing to answer are tried again."""
        for slot, stall in list(self.stalled.items()):
            if slot.progress_at != stall.progress_at or (not slot.inflight and now - stall.at > STALL_S):
                del self.stalled[slot]
                self.adopt(slot)

    def cap(self, slot: Slot, most: int) -> None:
        """Lets it have at most so many in flight, until it is uncapped."""
        slot.cap = most
        self.adopt(slot)

    def hold(self, pause: Pause) -> None:
        """Nothing is given to its slots any more."""
        self.pause = pause
        self.held_until = pause.until
        for slot in self.slots.values():
            self.adopt(slot)

    def release(self, now: float) -> None:
        self.pause = None
        self.held_until = now
        for slot in self.slots.values():
            self.adopt(slot)

    def starts_nothing(self, slot: Slot) -> bool:
        """It gave back all that it had without having begun any: it is stopped, or cut off."""
        stall = self.stalled.get(slot)
        return stall is not None and stall.credit == 0

    def reconfigure(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.credit = settings.credit or self.credit
        self.shelf.burst = 1  # until the next look: `balance` and `weights` may be others
        for slot in self.slots.values():
            self.adopt(slot)

    def ready(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.stage is Stage.READY]

    # ---- what may run again ----------------------------------------------------------------------

    def served(self) -> int:
        """Attempts of all time that a process has answered."""
        return self._forgotten + sum(self.times)

    def mark_retries(self, now: float) -> None:
        """What its retry budget needs to know, each tick."""
        self.retries.mark(self.served(), now)

    def retries_left(self, now: float) -> int:
        return self.retries.left(self.served(), self.settings.retry_percent, self.settings.retry_per_s, now)

    def take_retry(self, now: float) -> bool:
        """Charge the second run of an attempt that was started and lost."""
        return self.retries.take(self.served(), self.settings.retry_percent, self.settings.retry_per_s, now)

    # ---- credit and bursts -----------------------------------------------------------------------

    def recount(self) -> None:
        """Each tick: credit and bursts follow the service times."""
        count = sum(self.times)
        if count == self._counted or count < _FIRST_COUNT:
            return
        self.median_us, self.p95_us = self._longest(50), self._longest(5)
        mean_us = sum(number << bits for bits, number in enumerate(self.times)) // count
        shared = self.settings.balance == ROUND_ROBIN or self.settings.weights  # each request as it says
        self.shelf.burst = 1 if shared else max(1, BURST_US // mean_us)
        if count >= _ENOUGH:
            self.times[:] = [each // 2 for each in self.times]
        self._counted = sum(self.times)
        self._forgotten += count - self._counted
        self._set_credit()

    def _longest(self, percent: int) -> int:
        """All but so many of the service times were not longer, in µs."""
        left = sum(self.times) * percent // 100
        for bits in range(32, 0, -1):
            left -= self.times[bits]
            if left < 0:
                break
        return (1 << bits) - 1

    def _set_credit(self) -> None:
        usual = min(CREDIT_USUAL, 1 + PARKED_US // max(1, self.median_us))
        quick = min(CREDIT_MAX, 1 + PARKED_US // max(1, self.p95_us))
        credit = self.settings.credit or max(usual, quick)
        if credit != self.credit:
            self.credit = credit
            for slot in self.slots.values():
                self.adopt(slot)
