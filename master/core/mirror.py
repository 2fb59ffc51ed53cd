"""What a standby has of the active master: its records, its events, and the answers that clients may still ask for."""

from __future__ import annotations

from collections import deque
from typing import Any

from ...common import messages, wire
from .events import EVENTS_KEPT
from .follower import COPY
from .outbox import Outbox
from .records import Peer, Restored

ANSWERS_MAX = 10_000
ANSWERS_BYTES_MAX = 64 * 2**20


class OutOfStep(Exception):
    """Something was lost on the way: only a new snapshot helps."""


class Mirror:
    """`known`: the sum of all records. `synced`: it is all that the active had, at least once in this life."""

    def __init__(self, known: Restored, last_record: int, out: Outbox) -> None:
        """`last_record`: number of the last record of our own journal."""
        self.known = known
        self.synced = False
        self.confirmed = 0  # the active's records up to here are durable here
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._out = out
        self._ours = last_record
        self._sequence = 0  # of the active's last record
        self._pending: deque[tuple[int, int]] = deque()  # our number, the active's
        self._snapshot: list[bytes] | None = None  # as far as it has come
        self._answers: dict[tuple[bytes, int], bytes] = {}  # by session and number
        self._answers_bytes = 0

    def replica(self, replica: messages.Replica, peer: Peer) -> None:
        """Raises OutOfStep, or ValueError for a record that this version does not understand."""
        if replica.first:
            self._snapshot = []
        if self._snapshot is not None:
            self._snapshot += replica.records
            if not replica.more:
                snapshot, self._snapshot = self._snapshot, None
                self._begin(snapshot, replica.sequence, peer)
            return
        if replica.sequence != self._sequence + len(replica.records):
            raise OutOfStep
        self._sequence = replica.sequence
        for data in replica.records:
            self.known.read(data)
            self._ours += 1
            self._out.records.append((self._ours, data))
        self._pending.append((self._ours, replica.sequence))

    def _begin(self, snapshot: list[bytes], sequence: int, peer: Peer) -> None:
        fresh = Restored.of(snapshot)
        fresh.peer = peer
        self.known, self._sequence = fresh, sequence
        self._ours += 1
        self._out.records.append((self._ours, fresh.records()))
        self._pending.clear()
        self._pending.append((self._ours, sequence))
        self.confirmed = 0
        self.events.clear()
        self._answers.clear()
        self._answers_bytes = 0
        self.synced = True

    def recorded(self, number: int) -> None:
        """Everything up to this record of ours is durable."""
        while self._pending and self._pending[0][0] <= number:
            self.confirmed = self._pending.popleft()[1]

    def behind(self, sequence: int) -> int:
        """Records of the active that are not durable here."""
        return sequence - self.confirmed

    def keep(self, frame: bytes, place: int) -> None:
        """Answers, in the order in which they were made. Raises BadFrame."""
        while place + COPY.size <= len(frame):
            session, acked, length = COPY.unpack_from(frame, place)
            place += COPY.size
            answer = frame[place : place + length]
            place += length
            fields = wire.parse(answer)
            if fields[3] == wire.ANSWER and fields[9] > acked:
                self._drop((session, fields[8]))  # it was said again
                self._answers[session, fields[8]] = answer
                self._answers_bytes += length
        while len(self._answers) > ANSWERS_MAX or self._answers_bytes > ANSWERS_BYTES_MAX:
            self._drop(next(iter(self._answers)))

    def _drop(self, origin: tuple[bytes, int]) -> None:
        self._answers_bytes -= len(self._answers.pop(origin, b""))

    def answers(self) -> list[tuple[bytes, bytes]]:
        """Session and frame of each."""
        return [(session, frame) for (session, _), frame in self._answers.items()]
