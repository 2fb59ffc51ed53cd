"""Those who type `rota` commands at a standby: each verb is answered at once, events are followed."""

from __future__ import annotations

from collections.abc import Callable

from ...common import messages
from .events import EventLog
from .operators import OPERATORS_MAX
from .outbox import Outbox
from .verbs import Outcome, Refuse


class StandbyOperators:
    """`verb` does one."""

    def __init__(self, out: Outbox, events: EventLog, verb: Callable[[messages.Verb, float], Outcome]) -> None:
        self._out = out
        self._events = events
        self._verb = verb
        self._tokens: dict[bytes, int] = {}  # by route
        self._follows: dict[tuple[bytes, int], int] = {}  # route and id of a Follow → last event that was told

    def came(self, route: bytes, token: int) -> None:
        if len(self._tokens) >= OPERATORS_MAX:  # those that vanished without BYE; the oldest goes
            self.gone(next(iter(self._tokens)))
        self._tokens[route] = token

    def gone(self, route: bytes) -> None:
        if self._tokens.pop(route, None) is not None:
            for follow in [follow for follow in self._follows if follow[0] == route]:
                del self._follows[follow]

    def token(self, route: bytes) -> int:
        """0: it is no operator's."""
        return self._tokens.get(route, 0)

    def said(self, route: bytes, message: messages.Message | None, now: float) -> None:
        if isinstance(message, messages.Follow) and len(self._follows) < OPERATORS_MAX:
            self._follows[route, message.id] = message.since
        elif isinstance(message, messages.Verb):
            try:
                outcome = self._verb(message, now)
            except Refuse as refused:
                outcome = refused.outcome
            self._out.say(route, self._tokens[route], outcome.result(message.id))

    def tick(self) -> None:
        """Tells what has happened."""
        for (route, follow), since in self._follows.items():
            if since < self._events.last:
                self._follows[route, follow] = self._events.last
                self._out.say(route, self._tokens[route], messages.Happened(follow, self._events.since(since)))
