"""Clients that do not read their answers: found by what they owe, cut before they cost the others memory.

What was sent to a client sits in its connection until it reads; libzmq bounds that in messages only. What a client has
not acknowledged is known here in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from .sessions import Session

LOOK_EVERY_S = 0.25
STUCK_S = 1.0  # a client that reads acknowledges within milliseconds; a garbage collection stops it for less


class Readers:
    """Remembers since when each stands still."""

    def __init__(self) -> None:
        self._stuck: dict[Session, tuple[int, float]] = {}  # its acknowledgement when it was first over, since when
        self._look_at = 0.0

    def to_cut(self, sessions: Iterable[Session], total_max: int, now: float) -> list[tuple[Session, str]]:
        """The sessions that are to be cut now, with the reason.

        Where all together owe too much, those that owe most lose what is kept for them, connected or not.
        """
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_EVERY_S
        owing = [session for session in sessions if session.kept]
        found = self._stopped(owing, now)
        total = sum(session.kept_bytes for session in owing)
        if total <= total_max:
            return found
        for session in sorted(owing, key=Session.owed, reverse=True):
            total -= session.kept_bytes
            session.drop_all()
            found.append((session, "all clients together were owed more than answers_total"))
            if total <= total_max:
                break
        return found

    def _stopped(self, owing: list[Session], now: float) -> list[tuple[Session, str]]:
        stuck: dict[Session, tuple[int, float]] = {}
        found = []
        for session in owing:
            if not session.route or not session.dropped:  # within its limit nothing is dropped
                continue
            acked, since = self._stuck.get(session, (-1, now))
            if acked != session.acked:
                since = now
            if now - since >= STUCK_S:
                found.append((session, f"it has read nothing for {now - since:.1f} s"))
            else:
                stuck[session] = session.acked, since
        self._stuck = stuck
        return found
