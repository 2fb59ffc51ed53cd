"""One client's connection to whichever master answers: finds it, greets it, loses it, finds the next one.

Shell without a loop of its own: it never blocks, and its owner (the I/O thread of `client.py`, the event loop of
`aio.py`) calls `receive()` and `send()` when a socket of `link` or `next_deadline()` says so.

    PARTED ──► ASKING (control: where is the frontend?) ──► GREETING (frontend: HELLO) ──► OPEN
       ▲            │ lost, refused, silent                     │            ▲  │ WHO
       └────────────┴───────────────────────────────────────────┴── lost ────┴──┘

Of several masters one is active. A master that stands by says so, and the next one is asked (`search`). While nothing
comes over a connection, the other masters are asked `beside` it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import inf
from random import random

import zmq

from ..common import errors, memory, sockets, wire
from ..common.body import decode_error
from ..common.clock import boottime
from ..common.fields import BadMessage
from ..common.limits import BODY_MAX
from ..common.link import BYE_LINGER_MS, NO_ANSWER, Link, reconnect_delay
from ..common.messages import ClientHello, OperatorHello, Refusal, Welcome, decode, framed
from ..common.sockets import fast_recv, fast_send
from ..common.wire import ANSWER, BadFrame, parse
from . import streams
from .ages import MARK_S
from .beside import Beside, anew
from .calls import Calls, Failed
from .masters import frontend_address, other_address
from .search import GREETED_S, Search, final

SILENT_S = 1.0  # nothing was heard for so long, and calls are past their deadlines: a new connection is worth a try
BATCH = 256  # answers taken in one go: callbacks wait for them, and sends wait for the callbacks
LEAVE_S = 1.0  # for BYE to be heard, over another connection if need be: a master that is there takes a tenth of it
LEAVING_TICK_S = 0.005  # between two looks meanwhile

PARTED, ASKING, GREETING, OPEN = "parted", "asking", "greeting", "open"
_STREAM = (wire.CHUNK, wire.CREDIT)
_NOBLOCK = int(zmq.NOBLOCK)  # the enumeration's member would be converted at each call


class Session:
    """Owned by one thread. `link` is what to poll; it is another one after each change of phase."""

    def __init__(
        self,
        masters: Sequence[str],
        before_close: Callable[[], None] = lambda: None,
        chance: Callable[[], float] = random,
    ) -> None:
        """`before_close`: a loop that reads the link's descriptors lets go of them."""
        memory.hint()
        self.id = os.urandom(16)
        self.calls = Calls(session=self.id)
        self.link: Link | None = None
        self.phase = PARTED
        self.damaged = 0  # frames that were dropped
        self._before_close = before_close
        self._ctx = sockets.context()
        self._search = Search(masters, chance, reconnect_delay)
        self._beside = Beside(masters) if len(masters) > 1 else None
        self._refusals: dict[str, errors.Error] = {}  # by masters that will say the same when asked again
        self._doubted: set[str] = set()  # masters that refused once what waiting does not mend
        self._due = 0.0  # PARTED: when to dial; ASKING, GREETING: when to give up
        self._hello = b""  # still to be sent
        self._stuck: list[bytes] = []  # messages that the transport did not take yet
        self._silent = False  # the link had nothing to receive, and was not used since
        self._token = 0
        self._epoch = 0
        self._heard_at = 0.0
        self._born = 0  # of the session, as its master tells
        self._mark_at = 0.0
        self._body_max = BODY_MAX
        self._leave_by = 0.0  # until then it matters that a master hears our BYE
        self._told: Link | None = None  # BYE was said over this one

    # ---- what the owner calls -----------------------------------------------------------------------------------

    def receive(self, now: float, look: bool = True) -> bool:
        """Take what has come. `look`: the monitor may have news. True when there may be more to take."""
        if self.phase is OPEN:
            more = self._take(now)
        else:
            more = False
            self._greetings(now)
        if look and self.link is not None and self.link.lost():
            why = self.link.ended()
            while self.phase is OPEN and self._take(now):  # all that came before the end
                pass
            if self.link is not None:  # else it was given up for what came
                self._fail(why, now)
        return more

    def send(self, now: float) -> None:
        """Do what is due and send what can be sent."""
        if self.phase is OPEN:
            self._flush(now)
        else:
            self._look_for_one(now)
        if self._beside is not None and now >= self._beside.due:
            self._look_beside(self._beside, now)
        late = self.calls.expire(now)
        if late and self.phase is OPEN and now - self._heard_at > SILENT_S:
            # A master tells a caller that its deadline has passed. One that does not is not there, or the connection is
            # out of step, which TCP does not notice.
            self._fail("the master is silent", now)
        self._finish(late)

    def next_deadline(self) -> float:
        due = self.calls.next_deadline()
        if self.phase is not OPEN:
            due = min(due, self._due)
        if self._beside is not None and (self._waits() or self._beside.open):
            due = min(due, self._beside.due)
        return due

    def awaited(self) -> bool:
        """Can something be received already, or be sent that was stuck? To be asked before a wait for the link, whose
        descriptors tell only of what comes after this look.
        """
        if self.link is None or self._silent:
            return False
        return self.link.awaited(bool(self._stuck or self._hello))

    def leave(self, now: float, error: errors.Error | None = None) -> None:
        """Whoever still waits gets this error, or Cancelled. `close` has its turn when `leaving` is 0."""
        if self.calls.under_way:
            self._leave_by = now + LEAVE_S
        self._finish(self.calls.abandon(error or errors.Cancelled("the client was closed")))

    def leaving(self, now: float) -> float:
        """Seconds until the next look, while a master may have calls of ours and has not heard our BYE; 0 when it has
        heard it, or could not be reached in LEAVE_S.
        """
        link = self.link
        if now >= self._leave_by:
            return 0.0
        if self.phase is OPEN and link is not None and link is not self._told:
            self._say_bye(link)
            link.send(wire.head(wire.ACK, self._token))  # its session is over: the WHO that answers it shows that
        return LEAVING_TICK_S

    def close(self, error: errors.Error | None = None) -> None:
        """BYE: the master cancels what was waited for. Whoever still waits gets this error, or Cancelled."""
        if self.phase is OPEN and self.link is not None and self.link is not self._told:
            self._say_bye(self.link)
        self.drop(BYE_LINGER_MS)
        self._finish(self.calls.abandon(error or errors.Cancelled("the client was closed")))

    def _say_bye(self, link: Link) -> None:
        self._told = link
        link.send(wire.head(wire.BYE, self._token))

    def drop(self, linger_ms: int = 0) -> None:
        """Close without a word to the master."""
        self._part(linger_ms)
        if self._beside is not None:
            self._beside.close()
        self.phase, self._due = PARTED, inf
        self._ctx.term()

    def _part(self, linger_ms: int = 0) -> None:
        link, self.link = self.link, None
        self._silent = False
        if link is not None:
            self._before_close()
            link.close(linger_ms)

    # ---- open ---------------------------------------------------------------------------------------------------

    def _take(self, now: float) -> bool:
        assert self.link is not None
        dealer, readable = self.link.dealer, self.link.readable
        for _ in range(BATCH):
            if not readable():
                self._silent = True
                return False
            message = fast_recv(dealer, _NOBLOCK, False)
            self._heard_at = now
            # A large answer is decoded where the transport has it: what it decodes to is a copy already.
            frame = message.bytes if len(message) <= wire.BUNDLE_BYTES_MAX else message.buffer
            try:
                fields = parse(frame)
                if fields[3] == wire.BUNDLE:
                    self._take_each(wire.split(bytes(frame), fields), now)
                else:
                    self._take_each((frame,), now, fields)
            except BadFrame:  # perhaps an answer: over a new connection it is asked for again
                self.damaged += 1
                self._fail("a damaged frame", now)
            if self.phase is not OPEN:
                return True
        return True

    def _take_each(self, frames: Sequence[wire.Body], now: float, known: tuple[int, ...] | None = None) -> None:
        """`known`: the fields of a frame that is alone."""
        calls, token = self.calls, self._token
        for frame in frames:
            fields = known or parse(frame)
            if fields[3] != ANSWER or fields[5] != token:
                self._take_other(frame, fields, now)
                if self.phase is not OPEN:
                    return  # what is behind it in a bundle went with the connection, or its session
                continue
            call = calls.answered(fields[8], fields[9], len(frame))
            if call is None:
                continue
            code, body = fields[12], frame[fields[11] :]
            if not code:
                call.returned(body)
            elif code == errors.NOT_STARTED and not call.begun:
                calls.again(call)
            else:
                call.finish(None, decode_error(code, body))

    def _take_other(self, frame: wire.Body, fields: tuple[int, ...], now: float) -> None:
        kind, number = fields[3], fields[8]
        if kind == wire.WHO and self._told is self.link:
            self._leave_by = 0.0  # our BYE was heard
        elif kind == wire.WHO:  # our session or our route is forgotten there; what was sent is dropped
            self._greet(now)
        elif fields[5] != self._token:
            self.damaged += 1  # a stale connection's; the answer comes again when asked for
        elif kind in _STREAM:
            self._finish(streams.received(self.calls, fields, frame, now))
        elif kind == wire.BYE:
            self.calls.heard_upto(number)
            self._fail("the master was stopped", now, left=True)

    def _flush(self, now: float) -> None:
        """Sends what there is, several messages a frame; what the transport does not take waits in `_stuck`."""
        assert self.link is not None
        dealer = self.link.dealer
        if now >= self._mark_at:
            self._mark_at = now + MARK_S
            self.calls.mark(boottime())
        while True:
            ready, self._stuck = self._stuck, []
            ready += self.calls.frames(now, BATCH - len(ready))
            if not ready:
                return
            self._silent = False
            sent = 0
            for count, frame in wire.bundles(ready):
                try:
                    fast_send(dealer, frame, _NOBLOCK)
                except zmq.Again:
                    self._stuck = ready[sent:]
                    return
                sent += count
            if len(ready) < BATCH:
                return

    # ---- becoming open ------------------------------------------------------------------------------------------

    def _look_for_one(self, now: float) -> None:
        if now >= self._due:
            self._dial(now) if self.phase is PARTED else self._fail(NO_ANSWER, now)
        elif self._hello and self.link is not None:
            self._silent = False
            if self.link.send(self._hello):
                self._hello = b""
        if self.phase is PARTED and len(self._refusals) == len(self._search.masters):
            self._finish(self.calls.abandon(next(iter(self._refusals.values())), sent=False))

    def _dial(self, now: float) -> None:
        hello = framed(wire.HELLO, 0, OperatorHello(list(wire.VERSIONS), ""))
        address = self._search.address
        self.calls.unreachable.setdefault(address, "no answer yet")  # who gives up before that hears where it was
        self._connect(address, sockets.CONTROL, ASKING, hello, now)

    def _connect(self, address: str, role: str, phase: str, hello: bytes, now: float) -> None:
        self.phase, self._due, self._heard_at = phase, now + GREETED_S, now
        self._hello = hello
        try:
            self.link = Link(self._ctx, address, role, self._body_max)
        except (ValueError, zmq.ZMQError) as error:  # no address, or no descriptor is left
            self._fail(str(error), now)

    def _greetings(self, now: float) -> None:
        while self.phase in (ASKING, GREETING) and self.link is not None:
            frame = self.link.receive()
            if frame is None:
                return
            try:
                head = wire.parse_head(frame)
                message = decode(frame[head.head_len :]) if head.kind in (wire.WELCOME, wire.REFUSED) else None
            except (BadFrame, BadMessage):
                self.damaged += 1
                continue
            if isinstance(message, Refusal):
                self._refused(message, now)
            elif isinstance(message, Welcome) and self.phase is ASKING:
                self._answered(message, head.token, now)
            elif isinstance(message, Welcome):
                self._opened(message, head.token, now)

    def _answered(self, welcome: Welcome, token: int, now: float) -> None:
        """By the control socket, which was only asked where the frontend is."""
        assert self.link is not None
        self.link.send(wire.head(wire.BYE, token))
        self._part(BYE_LINGER_MS)
        unfit = self._search.unfit(welcome, now)
        if unfit:
            if self._search.learn(other_address(welcome)):
                self._beside = anew(self._beside, self._search.masters)
            return self._fail(unfit, now, standby=True)
        self._body_max = welcome.max_message or BODY_MAX
        address = frontend_address(self._search.address, welcome)
        self._connect(address, sockets.FRONTEND, GREETING, self._client_hello(), now)

    def _greet(self, now: float) -> None:
        self.calls.closed()
        self.phase, self._due = GREETING, now + GREETED_S
        self._stuck = []
        self._hello = self._client_hello()

    def _client_hello(self) -> bytes:
        return framed(wire.HELLO, 0, ClientHello(list(wire.VERSIONS), self.id, self._epoch))

    def _opened(self, welcome: Welcome, token: int, now: float) -> None:
        self.phase, self._token, self._epoch = OPEN, token, welcome.epoch
        self._heard_at = now
        self._search.found(welcome.epoch)
        self.calls.unreachable.clear()
        self._refusals.clear()
        self._doubted.clear()
        # `resumed` says only that the session was there; it may have been made by a HELLO whose WELCOME was lost.
        resumed = welcome.resumed and welcome.born == self._born
        self._born = welcome.born
        self._finish(self.calls.opened(token, welcome.epoch, resumed, welcome.max_message, now))
        self.calls.say_ages(boottime())  # the clock is read after the WELCOME came (PROTOCOL.md, "What never ran")

    def _refused(self, refusal: Refusal, now: float) -> None:
        address = self._search.address
        why = f"refused: {refusal.message or refusal.code}"
        error = final(address, refusal)
        if error is not None and address not in self._doubted:
            self._doubted.add(address)  # a HELLO that was damaged on its way looks like one of another version
            return self._fail(why, now)
        if refusal.code == "standby":
            self._fail(why, now, standby=True)
        else:
            self._fail(why, now, wait_s=refusal.wait_s)
        # Noted behind _fail, which forgets what this master said before.
        if error is not None:
            self._refusals[address] = error

    def _fail(self, why: str, now: float, *, wait_s: float = 0.0, standby: bool = False, left: bool = False) -> None:
        """Give this connection up; the next attempt is where and when `search` says. `left`: the master said BYE."""
        self._give_up(why)
        search = self._search
        if self.phase is not OPEN:
            self._due = search.next(now, standby, wait_s)
        else:
            self.calls.closed()
            self._due = search.left(now) if left else search.lost(now)
        self.phase = PARTED

    def _give_up(self, why: str) -> None:
        self._part()
        self._refusals.pop(self._search.address, None)
        self.calls.unreachable[self._search.address] = why
        self._hello, self._stuck = b"", []

    # ---- beside it ----------------------------------------------------------------------------------------------

    def _waits(self) -> bool:
        """Is a word of this master awaited?"""
        return self.calls.unanswered if self.phase is OPEN else self.link is not None

    def _look_beside(self, beside: Beside, now: float) -> None:
        if not self._waits():
            return beside.close()
        search, is_open = self._search, self.phase is OPEN
        address = beside.step(self._ctx, search.address, self._heard_at, *search.doubt(is_open), now)
        if address is None:
            return
        beside.close()
        self._give_up("silent")
        if is_open:
            self.calls.closed()
        search.go(address)
        self.phase, self._due = PARTED, now

    @staticmethod
    def _finish(failed: Sequence[Failed]) -> None:
        for call, error in failed:
            call.finish(None, error)
