"""The call table of one session: what is to be sent, what is waited for, what was answered. Pure: no clock, no socket.

The shell gives it calls and answers, takes `frames()` while a connection is open, and finishes the calls that
`answered()` and others return. A call is first *waiting* (not sent, no number), then *sent* (numbered, and kept whole
since it may have to be sent again), then over. Numbers are given in the order of sending, so that the master may take
any lower one for a replay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf

from ..common.body import Packed, decode_result
from ..common.errors import Error, Overloaded, PayloadTooLarge, ProtocolError, Timeout, Unavailable
from ..common.limits import ACK_AFTER_ANSWERS, ACK_AFTER_BYTES, ACK_AFTER_S, BODY_MAX, CLIENT_TIMEOUT_S
from ..common.wire import ACK, BUNDLE_BYTES_MAX, CANCEL, OLDER, ORIGIN, ORIGIN_STRUCT, REQUEST, RESENT, Body, head
from .ages import Ages

WINDOW = 4096  # calls sent and unanswered; below DEALER_HWM, so a full window waits here, where it can be cancelled
WINDOW_BYTES = 64 * 1024 * 1024  # the high-water mark counts messages, this counts what they hold
BEGUN_LOOK = 64  # so many answers more have begun before those that are over are looked for; some MiB at most
WITHDRAWN_LOOK = 64  # calls that were withdrawn and still stand among those that wait: more than half are thrown out
WAITING_MAX = 65_536  # calls that wait for the window or a connection; one more is Overloaded
WAITING_BYTES = 256 * 1024 * 1024

GRACE_S = 0.25  # the master's own "timeout" knows more than ours (queued or started?), so it may come a little late
SWEEP_S = 0.02  # between two looks through all calls for late ones: deadlines cost nothing until one passes
KEEP_S = 60.0  # a session that is silent for ten minutes is closed; one that waits longer for an answer says ACK
EARLY_MAX = 65_536  # sequences beyond a gap that are remembered; one that is further ahead makes another gap

OVER = -1

Address = tuple[bytes, int, int]  # tail of the request's head, length of the target in it, flags
Failed = tuple["Call", Error]


class Call:
    """One request as the table sees it; the shells add the future that its caller holds.

    number     0 while it waits; OVER when it was withdrawn, or not taken
    epoch      that of its first send
    deadline   monotonic seconds
    timeout    seconds that an answer which has begun waits for a lost connection
    begun      it has: then it is not sent anew
    """

    begun: bool = False
    number = 0
    epoch = 0
    deadline: float
    timeout = CLIENT_TIMEOUT_S
    address: Address
    body: Packed

    def returned(self, body: Body) -> None:
        """Its answer is a result."""
        try:
            value = decode_result(body)
        except ProtocolError as error:
            self.finish(None, error)
        else:
            self.finish(value, None)

    def finish(self, value: object, error: Error | None) -> None:
        """Hand the result, or the error, to whoever waits. Called once at most."""
        raise NotImplementedError

    def frames(self, token: int) -> list[bytes]:
        """What is to be said beside its request now."""
        return []

    def behind(self, token: int, now: float) -> list[bytes]:
        """What goes behind its request when that is sent again, over a new connection."""
        return []

    def parted(self, now: float) -> None:
        """There is no connection."""


def name(call: Call) -> str:
    """The target as the caller wrote it."""
    tail, length, _ = call.address
    return tail[:length].decode()


class Calls:
    """The one door to it all; not thread-safe."""

    def __init__(self, window: int = WINDOW, session: bytes = bytes(16)) -> None:
        self.window = window
        self.open = False
        self.unreachable: dict[str, str] = {}  # master -> why it is not reached, for the error of who waited for one
        self.body_max = WAITING_BYTES  # its master says what it takes, and then what waits is looked at again
        self._waiting: deque[Call] = deque()
        self._waiting_bytes = 0
        self._withdrawn = 0  # of what waits
        self._sent: dict[int, Call] = {}  # in the order of their numbers
        self._sent_bytes = 0
        self._begun: list[Call] = []  # calls whose answers have begun; some may be over by now
        self._begun_most = BEGUN_LOOK  # so many may be in it before those that are over are looked for
        self._resend: deque[Call] = deque()
        self._orders: deque[bytes] = deque()  # frames of CANCEL, and of streams
        self._given_up: dict[int, None] = {}  # numbers of calls that were sent, given up, and not answered yet
        self._session = session
        self._token = self._epoch = 0
        self._next = 1
        self._first_here = 1  # lower numbers were first sent to an earlier master
        self._upto = 0  # all answers up to this sequence were received
        self._early: list[tuple[int, int]] = []  # heap: sequence beyond a gap, the next number when it came
        self._acked = 0  # the highest `upto` that this connection was told
        self._unacked_bytes = 0
        self._ack_at = inf
        self._spoke_at = 0.0
        self._look_at = inf  # before then no call is late
        self._ages = Ages()

    def __len__(self) -> int:
        return len(self._sent) + len(self._waiting)

    @property
    def unanswered(self) -> bool:
        """Something was sent, and its answer is due over this connection."""
        return bool(self._sent)

    @property
    def under_way(self) -> bool:
        """A master may still have a call of this session, given up or not."""
        return bool(self._sent or self._given_up)

    # ---- the connection -----------------------------------------------------------------------------------------

    def opened(self, token: int, epoch: int, resumed: bool, body_max: int, now: float) -> list[Failed]:
        """WELCOME came: everything unanswered is to be sent again. Returns the waiting calls that are too large."""
        self.open = True
        self._token, self._epoch = token, epoch
        if not resumed:  # a session that the master does not know begins to count anew
            self._upto = 0
            self._early.clear()
            self._first_here = self._next
        self._acked = 0  # say again what was received: the last frame may be what was lost
        self._spoke_at = now
        self._resend = deque(self._sent.values())
        for number in self._given_up:
            self.unknown(number)  # the CANCEL that was said before may be lost
        if not resumed:  # then the answers to these never come
            self._given_up.clear()
        self.body_max = body_max or BODY_MAX
        return self._fail_waiting([(call, self._too_large(call)) for call in self._waiting if self._is_large(call)])

    def mark(self, at: float) -> None:
        """What is sent from now on is sent after this. `at`: of a clock that counts while a machine is suspended."""
        self._ages.mark(self._next, at)

    def say_ages(self, at: float) -> None:
        """Only if some of the calls that are to be sent again were first sent to an earlier master."""
        below = self._below()
        if self._resend and below < self._first_here:
            self._acked = self._upto
            told = head(ACK, self._token, self._epoch, upto=self._upto, below=below)
            self._orders.append(told + self._ages.pairs(below, at))

    def closed(self) -> None:
        """The connection is gone: calls wait, and have only their own deadlines."""
        self.open = False
        self._orders.clear()
        self._resend.clear()
        self._look_at = 0.0  # calls in their time of grace are late now: no answer can come
        self._ack_at = inf

    # ---- calls --------------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> Error | None:
        """Take a call, or say why not: PayloadTooLarge, Overloaded (this client's own queue is full). One that is not
        taken is over.
        """
        size = len(call.body)
        waiting, held = self._waiting, self._waiting_bytes + size
        if size > self.body_max:
            call.number = OVER
            return self._too_large(call)
        if len(waiting) >= WAITING_MAX or held > WAITING_BYTES:
            call.number = OVER
            return Overloaded(f"{len(waiting)} calls ({held - size} bytes) wait in this client already")
        waiting.append(call)
        self._waiting_bytes = held
        if call.deadline < self._look_at:
            self._look_at = call.deadline
        return None

    def cancel(self, call: Call) -> None:
        """Its caller gave up. One that is over, or was answered meanwhile, is left alone."""
        if call.number == 0:
            call.number = OVER  # dropped when its turn comes: searching a long queue would cost more
            self._waiting_bytes -= len(call.body)
            call.body = b""
            self._withdrawn += 1
            if self._withdrawn > WITHDRAWN_LOOK and 2 * self._withdrawn > len(self._waiting):
                self._fail_waiting([])
        elif self._sent.get(call.number) is call:
            self._give_up(call)
            if self.open:
                self.unknown(call.number)

    def sent(self, number: int) -> Call | None:
        """The call that waits for its answer under this number."""
        return self._sent.get(number)

    def say(self, call: Call) -> None:
        """Something of it is to go out beside its request; without a connection it goes behind the resend."""
        if self.open and self._sent.get(call.number) is call:
            self._orders += call.frames(self._token)

    def began(self, call: Call) -> None:
        """Its answer has begun, and may last for hours: it takes no place in the window any more."""
        if len(self._begun) >= self._begun_most:
            over = [each for each in self._begun if self._sent.get(each.number) is not each]
            self._begun = [each for each in self._begun if self._sent.get(each.number) is each]
            self._begun_most = len(self._begun) + BEGUN_LOOK
            self.window -= len(over)
            self._sent_bytes += sum(len(each.body) for each in over)  # subtracted twice
        self._begun.append(call)
        self.window += 1
        self._sent_bytes -= len(call.body)

    def unknown(self, number: int) -> None:
        """Nobody waits for the call of this number (any more)."""
        self._orders.append(head(CANCEL, self._token, self._epoch, number=number))

    def answered(self, number: int, sequence: int, size: int) -> Call | None:
        """The call that this answer finishes; None if nobody waits for it (any more)."""
        self._unacked_bytes += size
        if sequence == self._upto + 1 and not self._early:
            self._upto = sequence
        else:
            self._out_of_turn(sequence)
        call = self._sent.pop(number, None)
        if call is None:
            self._given_up.pop(number, None)
            return None
        self._sent_bytes -= len(call.body)
        return call

    def again(self, call: Call) -> None:
        """The master gave it back, not started: it waits for its turn as if it had never been sent."""
        call.number = 0
        self._waiting.appendleft(call)
        self._waiting_bytes += len(call.body)
        self._look_at = min(self._look_at, call.deadline)

    def heard_upto(self, number: int) -> None:
        """The master stops, and accepted nothing with a higher number: that is to be sent anew, not again. (Unless it
        was first sent to an earlier master, of which this one knows nothing.)
        """
        first = max(number + 1, self._first_here)
        lost = [call for number, call in self._sent.items() if number >= first and not call.begun]
        for call in reversed(lost):
            self._remove(call)
            self.again(call)

    def abandon(self, error: Error, sent: bool = True) -> list[Failed]:
        """Give up everything, or only what was never sent, with this error."""
        failed = self._fail_waiting([(call, error) for call in self._waiting])
        if sent:
            failed += [(call, error) for call in self._sent.values()]
            self._given_up.update(dict.fromkeys(self._sent))
            for call, _ in failed:
                self._sent.pop(call.number, None)
            self._sent_bytes = 0
            self.window -= len(self._begun)
            self._begun.clear()
        return failed

    # ---- frames -------------------------------------------------------------------------------------------------

    def frames(self, now: float, most: int) -> list[bytes]:
        """What to send now: so many messages or a few more; fewer when there are no more. Only while open."""
        if self._early:
            self._close_gaps()
        made: list[bytes] = []
        while self._orders and len(made) < most:
            made.append(self._orders.popleft())
        while self._resend and len(made) < most:
            call = self._resend.popleft()
            if call.number in self._sent:
                made += self._requests([call], now, RESENT if call.number >= self._first_here else RESENT | OLDER)
                made += call.behind(self._token, now)
        if self._waiting and len(made) < most:
            made += self._requests(self._numbered(most - len(made)), now, 0)
        if (self._upto != self._acked or now >= self._spoke_at + KEEP_S) and self._acknowledges(now):
            made.append(head(ACK, self._token, self._epoch, upto=self._upto, below=self._below()))
        return made

    def _numbered(self, most: int) -> list[Call]:
        """The next calls that wait, as far as the window goes; from now on they are sent."""
        taken: list[Call] = []
        waiting, sent, sent_bytes = self._waiting, self._sent, self._sent_bytes
        first = number = self._next
        end = first + min(most, self.window - len(sent))
        while waiting and number < end and sent_bytes < WINDOW_BYTES:
            call = waiting.popleft()
            if call.number == OVER:
                self._withdrawn -= 1
                continue
            call.number = number
            call.epoch = self._epoch
            sent[number] = call
            sent_bytes += len(call.body)
            number += 1
            taken.append(call)
        self._next = number
        self._waiting_bytes -= sent_bytes - self._sent_bytes
        self._sent_bytes = sent_bytes
        return taken

    def _requests(self, calls: Sequence[Call], now: float, flags: int) -> list[bytes]:
        if not calls:
            return []
        self._acknowledged(now)
        made: list[bytes] = []
        token, upto, below = self._token, self._upto, self._below()
        for call in calls:
            tail, length, own_flags = call.address
            body, number = call.body, call.number
            if len(body) > BUNDLE_BYTES_MAX:  # then its delivery has a head of the same size, and nobody copies it
                tail = ORIGIN_STRUCT.pack(self._session, number) + tail
                own_flags |= ORIGIN
            left_ms = int((call.deadline - now) * 1000)
            if left_ms < 1:
                left_ms = 1
            made.append(
                head(REQUEST, token, call.epoch, left_ms, number, upto, below, length, own_flags | flags, tail) + body
            )
        return made

    def _acknowledges(self, now: float) -> bool:
        """ACK when requests do not carry it: many answers, many bytes, a second, or a long silence."""
        owed = self._upto - self._acked
        if owed > 0:
            self._ack_at = min(self._ack_at, now + ACK_AFTER_S)
            due = owed >= ACK_AFTER_ANSWERS or self._unacked_bytes >= ACK_AFTER_BYTES
            due = due or now >= min(self._ack_at, self._spoke_at + KEEP_S)
        else:
            due = bool(self._sent)
        if due:
            self._acknowledged(now)
        return due

    def _acknowledged(self, now: float) -> None:
        """By what is said now, request or ACK."""
        self._acked = self._upto
        self._ack_at = inf
        self._unacked_bytes = 0
        self._spoke_at = now

    # ---- time ---------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When to call `expire()` and `frames()` though nothing happened; inf for never."""
        keep = self._spoke_at + KEEP_S if self._sent and self.open else inf
        return min(self._look_at, self._ack_at, keep)

    def expire(self, now: float) -> list[Failed]:
        """The calls whose time is over, each with its error."""
        if now < self._look_at:
            return []
        grace = GRACE_S if self.open else 0.0
        if not self.open:
            for call in self._sent.values():
                call.parted(now)
        late = [call for call in self._sent.values() if call.deadline + grace <= now]
        for call in late:
            self._give_up(call)
        unsent = [(call, self._never_sent(call)) for call in self._waiting if call.deadline <= now]
        failed = [(call, self._no_answer(call)) for call in late] + self._fail_waiting(unsent)
        first_sent = min([call.deadline for call in self._sent.values()], default=inf) + grace
        first_waiting = min([call.deadline for call in self._waiting], default=inf)
        self._look_at = max(now + SWEEP_S, min(first_sent, first_waiting))
        return failed

    def _no_answer(self, call: Call) -> Error:
        late = f"no answer to {name(call)} within its time-out"
        if self.open:
            return Timeout(f"{late}; it may have run")
        cause = f"{late}, and {self._none_reached()}; it may have run"
        return Timeout(cause, details={"masters": {**self.unreachable}})

    def _never_sent(self, call: Call) -> Error:
        if self.open:
            why = f"{name(call)} waited for its turn behind {len(self._sent)} others; it was not sent"
            return Timeout(why, details={"started": False})
        why = f"{name(call)} was not sent: {self._none_reached()}"
        return Unavailable(why, details={"masters": {**self.unreachable}})

    def _none_reached(self) -> str:
        reasons = "; ".join(f"{master}: {reason}" for master, reason in self.unreachable.items())
        return f"no master can be reached ({reasons or 'none has answered yet'})"

    # ---- bookkeeping --------------------------------------------------------------------------------------------

    def _is_large(self, call: Call) -> bool:
        return len(call.body) > self.body_max

    def _too_large(self, call: Call) -> Error:
        size, limit = len(call.body), self.body_max
        return PayloadTooLarge(
            f"the arguments of {name(call)} have {size:,} bytes, {limit:,} are allowed (master.max_message)",
            details={"size": size, "limit": limit},
        )

    def _fail_waiting(self, failed: list[Failed]) -> list[Failed]:
        """Take these out of the queue, and with them those that were withdrawn."""
        if not failed and not self._withdrawn:
            return failed
        live = [(call, error) for call, error in failed if call.number == 0]
        for call, _ in live:
            call.number = OVER
            self._waiting_bytes -= len(call.body)
        self._waiting = deque(call for call in self._waiting if call.number == 0)
        self._withdrawn = 0
        return live

    def _remove(self, call: Call) -> None:
        del self._sent[call.number]
        self._sent_bytes -= len(call.body)

    def _give_up(self, call: Call) -> None:
        self._remove(call)
        self._given_up[call.number] = None
        if len(self._given_up) > WINDOW:  # no master has more of ours
            del self._given_up[next(iter(self._given_up))]

    def _below(self) -> int:
        """No number under it waits for an answer."""
        return next(iter(self._sent), self._next)

    def _out_of_turn(self, sequence: int) -> None:
        """An answer beyond a gap, or one that was received before. Only connections that were lost make gaps."""
        if self._upto < sequence <= self._upto + EARLY_MAX and len(self._early) < EARLY_MAX:
            heappush(self._early, (sequence, self._next))
            self._close_gaps()

    def _close_gaps(self) -> None:
        """Acknowledge what is complete. An answer that was lost belongs either to a call that is still waited for (the
        master will say it again under the same sequence) or to one that was given up: then the gap would stay for ever,
        and the master keep everything beyond it. It is closed once nothing is waited for that is as old as the gap.
        """
        below = self._below()
        while self._early:
            first, next_then = self._early[0]
            if first > self._upto + 1 and next_then > below:
                return
            heappop(self._early)
            self._upto = first
