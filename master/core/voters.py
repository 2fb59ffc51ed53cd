"""The agents that a standby may ask for their votes: each over a connection of its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ...common import messages, wire
from ...common.limits import NODES_MAX
from .outbox import Outbox

SILENCE_S = 3.0  # they say hello each half second
GONE_S = 60.0  # after so long nobody is asked who died without a goodbye


class Voter(NamedTuple):
    node: str
    token: int
    heard_at: float


class Voters:
    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._known: dict[bytes, Voter] = {}  # by route

    def came(self, route: bytes, node: str, token: int, now: float) -> int:
        """Answers the token that it has from now on. Said again it is the same: a vote may be under way under that."""
        if route in self._known:
            token = self._known[route].token
        gone = now - GONE_S
        for old in [old for old, voter in self._known.items() if voter.node == node or voter.heard_at < gone]:
            del self._known[old]
        if len(self._known) < NODES_MAX:
            self._known[route] = Voter(node, token, now)
        return token

    def gone(self, route: bytes) -> None:
        self._known.pop(route, None)

    def node(self, route: bytes, token: int) -> str | None:
        """The node that says this; None if it is none of these."""
        voter = self._known.get(route)
        return voter.node if voter is not None and voter.token == token else None

    @property
    def nodes(self) -> set[str]:
        return {voter.node for voter in self._known.values()}

    def heard(self, now: float) -> set[str]:
        """The nodes that have said hello lately. (One that died without a goodbye is in `nodes` still, and
        is asked.)
        """
        return {voter.node for voter in self._known.values() if now < voter.heard_at + SILENCE_S}

    def ask(self, nodes: Collection[str], vote: messages.Vote) -> None:
        for route, voter in self._known.items():
            if voter.node in nodes:
                self._out.say(route, voter.token, vote)

    def frames(self, message: messages.Message) -> list[tuple[bytes, bytes]]:
        """Route and frame of each."""
        body = messages.encode(message)
        return [(route, wire.head(wire.CONTROL, voter.token) + body) for route, voter in self._known.items()]
