"""A client of a pair: the real session over simulated connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rota.common import errors

from ..client_part import SimCall
from ..network import Timer, Watchdog
from .links import Context, Session

if TYPE_CHECKING:
    from .cluster import PairCluster


class PairClient:
    def __init__(self, cluster: PairCluster, name: str) -> None:
        self.cluster = cluster
        self.clock = cluster.clock
        self.name = name
        self.paused_until = 0.0
        self._watchdog = Watchdog(name)
        self._timer = Timer(cluster.clock, self.step)
        Context(cluster, name, self.wake)
        self.session: Any = Session(cluster.addresses, None, cluster.chance)
        self._timer.set(cluster.clock.now)

    @property
    def calls(self) -> Any:
        return self.session.calls

    def call(self, call: SimCall) -> None:
        error = self.calls.submit(call)
        if error is not None:
            call.finish(None, error)
        self.wake()

    def cancel(self, call: SimCall) -> None:
        if call.code is None:
            self.calls.cancel(call)
            call.answered(errors.Cancelled.code, "by its caller")
            self.wake()

    def pause(self, seconds: float) -> None:
        self.paused_until = max(self.paused_until, self.clock.now + seconds)

    def wake(self) -> None:
        self._timer.by(max(self.clock.now, self.paused_until))

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
