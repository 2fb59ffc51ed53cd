"""Those who type `rota` commands at a standby: each verb is answered at once, events are followed."""

from __future__ import annotations

from collections.abc import Callable

from ...common import messages
from .events import EventLog
from .operators import Connected
from .outbox import Outbox
from .verbs import Outcome, Refuse


class StandbyOperators(Connected):
    """`verb` does one."""

    def __init__(self, out: Outbox, events: EventLog, verb: Callable[[messages.Verb, float], Outcome]) -> None:
        super().__init__(out, events)
        self._verb = verb

    def said(self, route: bytes, message: messages.Message | None, now: float) -> None:
        if isinstance(message, messages.Follow):
            self.follow(route, message)
        elif isinstance(message, messages.Verb):
            try:
                outcome = self._verb(message, now)
            except Refuse as refused:
                outcome = refused.outcome
            self._say(route, outcome.result(message.id))
