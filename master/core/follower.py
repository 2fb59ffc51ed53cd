"""One standby, as the active master sees it: over which route it follows, how far it has come, what it is told."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from struct import Struct
from typing import Any

from ...common import messages, wire
from ...common.lifecycle import Liveness
from ...common.units import plural
from .events import EventLog
from .liveness import moved
from .outbox import Outbox
from .records import Peer

REPLICA_BYTES = 256 * 1024  # of records or answers in one message; a control message may have four times that
DEAD_AFTER = 3  # times takeover_after: so long nothing counts that the standby has not recorded too
EVENTS = 0  # id of the Happened in which a standby gets the events

ANSWERS = 65  # kind: what follows the head is, again and again, a head as below and an ANSWER frame
COPY = Struct("<16sQI")  # session, acknowledged answer sequence, length of the frame


class Follower:
    def __init__(self, peer: Peer, out: Outbox, events: EventLog) -> None:
        self.peer = peer
        self.liveness = Liveness.UNKNOWN
        self.route = b""
        self.token = 0
        self.acked = 0  # records that it has
        self.heard_at = -inf
        self.unable = ""  # what would keep it from taking over, as it says
        self._out = out
        self._events = events
        self._last_event = 0

    @property
    def followed(self) -> bool:
        """It is connected and heard: what is recorded is recorded there too."""
        return bool(self.route) and self.liveness is Liveness.LIVE

    def greet(self, route: bytes, token: int, known: list[bytes], last_record: int, now: float) -> None:
        """Tells it everything from the beginning."""
        self.route, self.token = route, token
        self.acked = self._last_event = 0
        self.heard_at = now
        first = True
        while first or known:
            size = count = 0
            while count < len(known) and size < REPLICA_BYTES:
                size += len(known[count])
                count += 1
            part, known = known[:count], known[count:]
            self.say(messages.Replica(last_record, part, first, bool(known)))
            first = False

    def promised(self, sequence: int, last_record: int, now: float) -> None:
        self.heard_at = now
        self.acked = min(max(self.acked, sequence), last_record)
        self.move("hello")

    def watch(self, takeover_after: float, now: float) -> None:
        """Silent for so long, it is given up: what is recorded counts without it."""
        if self.liveness is Liveness.LIVE and now - self.heard_at > DEAD_AFTER * takeover_after:
            self.move("silent")

    def behind(self, last_record: int) -> str:
        """Why it could not take over now, in good order; empty when it could."""
        if not self.followed:
            return f"{self.peer.name} does not follow ({self.liveness}): see `rota status`"
        left = last_record - self.acked
        return f"{self.peer.name} is {plural(left, 'record')} behind: try again" if left else self.hindered()

    def hindered(self) -> str:
        """Why it could not take over, though it follows and has everything; empty when it could."""
        return f"{self.peer.name} could not take over: {self.unable}" if self.unable and self.followed else ""

    def missed(self) -> str:
        said = "has said goodbye" if self.liveness is Liveness.CLOSED else "is not heard"
        return (
            f"no standby: {self.peer.name} ({self.peer.address}) {said}: it would not take over; "
            f"if it is gone for good, `rota forget {self.peer.name}`"
        )

    def gone(self) -> None:
        self.route, self.token = b"", 0

    def tell_events(self) -> None:
        if self.route and self._last_event < self._events.last:
            found = self._events.since(self._last_event)
            self._last_event = self._events.last
            self.say(messages.Happened(EVENTS, found))

    def say(self, message: messages.Message) -> None:
        if self.route:
            self._out.say(self.route, self.token, message)

    def move(self, event: str) -> None:
        name = self.peer.name
        self.liveness, words = moved(self.liveness, event, name, f"standby {name}", self._events)
        self._out.role += words

    def status(self, last_record: int, now: float) -> dict[str, Any]:
        return {
            **self.peer._asdict(),
            "liveness": str(self.liveness),
            "lag": last_record - self.acked if self.route else None,
            "heard_ms": None if self.heard_at == -inf else round((now - self.heard_at) * 1000),
            "promise_ms": None,
        }


def packed(answers: Iterable[tuple[bytes, int, wire.Frame]]) -> list[bytes]:
    """Session, what that has acknowledged, and frame of each, in as few messages as may be."""
    made: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for session, acked, frame in answers:
        if len(frame) > REPLICA_BYTES:
            continue  # a caller whose master dies over so large an answer learns MaybeExecuted
        if size + len(frame) > REPLICA_BYTES:
            made.append(b"".join(parts))
            parts, size = [], 0
        parts += (COPY.pack(session, acked, len(frame)), bytes(frame))
        size += len(frame)
    if parts:
        made.append(b"".join(parts))
    return made
