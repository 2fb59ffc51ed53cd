"""A client of a pair: the real session over simulated connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client_part import Caller
from .links import Context, Session

if TYPE_CHECKING:
    from .cluster import PairCluster


class PairClient(Caller):
    def __init__(self, cluster: PairCluster, name: str) -> None:
        super().__init__(cluster, name)
        Context(cluster, name, self.wake)
        self.session: Any = Session(cluster.addresses, chance=cluster.chance)
        self.calls = self.session.calls

    def core(self) -> object:
        return self.session

    def part(self) -> None:
        self.session.drop()

    def step(self) -> None:
        now, session = self.clock.now, self.session
        if now < self.paused_until:
            self._timer.set(self.paused_until)
            return
        while session.receive(now):
            pass
        session.send(now)
        due = session.next_deadline()
        self._watchdog.turn(due, now)
        self._timer.by(due)
