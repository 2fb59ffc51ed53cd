"""A process's connection to the master that it is to obey: HELLO, WELCOME, what is lost and when to try again.

A shell without a loop: whoever serves calls `attend` at each idle tick, and hands over the frames that are no delivery.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import random
from time import monotonic, sleep

import zmq

from ..common import messages, sockets, wire
from ..common.fields import BadMessage
from ..common.limits import BODY_MAX, IDLE_TICK_S
from ..common.link import ANSWER_S, Link, reconnect_delay
from ..common.messages import ProcessHello, Refusal, Welcome
from .core.deliveries import Deliveries
from .core.streams import Streams
from .page import OBEY, STOP, Page, obeyed

TURN_TICK_S = 0.01  # to look at the page, while the master that is to be obeyed is a standby: another one will be
AGAIN_S = 0.01  # at least, from a refusal to the next HELLO
_OF_STREAMS = (wire.CHUNK, wire.CREDIT, wire.CANCEL)
BYE_LINGER_MS = 1000  # the last replies may take so long to leave


class Rejected(Exception):
    """The master will never take this process; the sentence says why."""


class Backend:
    """`greeted`: deliveries may come. `link` is there whenever it is true."""

    def __init__(
        self,
        addresses: Sequence[str],
        page: Page,
        deliveries: Deliveries,
        streams: Streams,
        hello: Callable[[], ProcessHello],
        batch: bool,
    ) -> None:
        """`batch`: each reply goes by itself (`sockets.context`)."""
        self.link: Link | None = None
        self.inbox: deque[bytes] = deque()  # the rest of a bundle; it goes with its connection, as what a socket holds
        self.replies: list[bytes] = []  # that are to go together; dropped with it, too, but kept to go again
        self.greeted = False
        self.body_max = BODY_MAX
        self.damaged = 0  # frames that broke the format
        self.before_close: Callable[[], None] = lambda: None  # a loop that reads the link's descriptor lets go of it
        self._ctx = sockets.context(batch)
        self._addresses = addresses
        self._page = page
        self._deliveries = deliveries
        self._streams = streams
        self._hello = hello
        self._failures = 0
        self._refused_once = False  # as of another version
        self._open_at = 0.0
        self._hello_at = 0.0  # not before this
        self._answer_by: float | None = None  # None: HELLO is still to be said
        self._turning = False  # its master is not active any more
        self.obeyed = 0  # the word of the page

    def attend(self) -> None:
        """Everything about the connection that is due. Never blocks."""
        now = monotonic()
        link = self.link
        if self._page.words[OBEY] != self.obeyed:
            self._turn()
        elif link is None:
            if now >= self._open_at:
                self._open()
        elif link.lost():
            self.drop()
        elif not self.greeted and link.connected:
            self._introduce(link, now)

    def wait(self) -> bytes | None:
        """While not greeted: sleeps until something may have changed, at most a tick; a frame if one came."""
        link, tick = self.link, TURN_TICK_S if self._turning else IDLE_TICK_S
        if link is None:
            sleep(max(0.0, min(self._open_at - monotonic(), tick)))
            return None
        if not link.connected:
            link.monitor.poll(int(tick * 1000))
            return None
        left = self._hello_at - monotonic() if self._answer_by is None else tick
        link.dealer.poll(int(1000 * min(tick, max(0.001, left))))
        return link.receive()

    def handle(self, frame: bytes) -> None:
        """A frame that is no delivery of this session. Raises Rejected."""
        try:
            fields = wire.parse(frame)
            kind = fields[3]
            if kind in _OF_STREAMS:
                self.send_all(self._streams.handle(fields, frame))
            elif kind == wire.WELCOME and isinstance(welcome := messages.decode(frame[fields[11] :]), Welcome):
                if not self.greeted:
                    self._welcomed(fields, welcome)
            elif kind == wire.REFUSED and isinstance(refusal := messages.decode(frame[fields[11] :]), Refusal):
                self._refused(refusal)
            elif kind == wire.WHO and not self._asked():
                self._doubted()
        except (wire.BadFrame, BadMessage):
            self.damaged += 1

    def _doubted(self) -> None:
        """The master does not know us, or something between us was damaged. Over a new connection nothing is in doubt;
        over this one what is still on its way would be.
        """
        if self.greeted:
            self.drop()
        else:
            self._hello_again(0.0)

    def damage(self) -> None:
        """A frame cannot be read: it may have been a delivery, which waits for ever unless we begin anew."""
        self.damaged += 1
        self.drop()

    def send(self, frame: bytes) -> None:
        """A reply that cannot be sent is kept, and goes again after the next HELLO."""
        if self.link is not None and self.greeted and not self.link.send(frame):
            self.drop()

    def send_all(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.send(frame)

    def send_replies(self) -> None:
        """Those that waited for one another, in as few frames as they fit in."""
        replies = self.replies
        if len(replies) == 1:  # the usual one, where each call waits for the one before: half of what a bundle costs
            return self.send(replies.pop())
        self.replies = []
        for _, frame in wire.bundles(replies):
            self.send(frame)

    def say_bye(self) -> None:
        self.send(wire.head(wire.BYE, self._deliveries.token))

    def drop(self) -> None:
        """The connection is of no use any more; another one is opened after a while."""
        if self.link is not None:
            self.before_close()
            self.link.close()
        self.link = None
        self.inbox.clear()
        self.replies.clear()
        self._failures = 0 if self.greeted else self._failures + 1
        self.greeted = False
        self._open_at = monotonic() + reconnect_delay(self._failures, random())

    def _turn(self) -> None:
        """Another master is to be obeyed, at once. What runs goes on, and what is answered is kept."""
        self.drop()
        self._failures, self._turning = 0, False
        self._open()

    def close(self) -> None:
        if self.link is not None:
            self.link.close(BYE_LINGER_MS)
        self._ctx.term()

    def _open(self) -> None:
        self.obeyed = self._page.words[OBEY]
        try:
            self.link = Link(self._ctx, obeyed(self._addresses, self.obeyed), sockets.BACKEND, self.body_max)
        except zmq.ZMQError:  # no descriptor is left: what runs may have them, and is not to end with us
            if not self._deliveries.running:
                raise  # nobody will give any back: a fresh process has some
            self.drop()
            return
        self.link.dealer.rcvtimeo = int(IDLE_TICK_S * 1000)
        self._hello_again(0.0)

    def _introduce(self, link: Link, now: float) -> None:
        if self._answer_by is not None:
            if now >= self._answer_by:
                self.drop()
        elif now >= self._hello_at and link.send(messages.framed(wire.HELLO, 0, self._hello())):
            self._answer_by = now + ANSWER_S

    def _asked(self) -> bool:
        """A HELLO is under way: it answers every WHO that was sent before it arrived."""
        return not self.greeted and self._answer_by is not None

    def _hello_again(self, at: float) -> None:
        self.greeted = False
        self._hello_at = at
        self._answer_by = None

    def _welcomed(self, fields: tuple[int, ...], welcome: Welcome) -> None:
        self.greeted = True
        self._failures, self._turning, self._refused_once = 0, False, False
        self.body_max = welcome.max_message or self.body_max
        self.send_all(self._deliveries.welcomed(fields[5], welcome.epoch, welcome.upto))
        self.send_all(self._streams.welcomed())
        if self._page.words[STOP]:
            self.say_bye()

    def _refused(self, refusal: Refusal) -> None:
        self._turning = refusal.code == "standby"
        if self.greeted:  # it has stepped down, or knows us no more: what it gave us that has not begun goes with it
            self.drop()
            return
        if refusal.code == "incompatible" and not self._refused_once:  # a HELLO damaged on its way looks alike
            self._refused_once = True
            self._hello_again(monotonic() + AGAIN_S)
            return
        self._hello_again(monotonic() + max(refusal.wait_s, AGAIN_S))
        if refusal.code == "interface":
            raise Rejected(refusal.message)
        if refusal.code not in ("unknown", "standby"):  # its agent has not spoken yet, or is told elsewhere: no news
            print(f"the master refuses this process: {refusal.message}", file=sys.stderr)
