"""The agents that a master may ask for their votes, by the connection over which they said so.

They outlive a change of role: who hands over and is to take over again must not wait until each has said HELLO anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...common.limits import NODES_MAX


class Voter(NamedTuple):
    node: str
    token: int


class Voters:
    def __init__(self) -> None:
        self._by_route: dict[bytes, Voter] = {}

    def __iter__(self) -> Iterator[tuple[bytes, Voter]]:
        return iter(list(self._by_route.items()))

    def greet(self, route: bytes, node: str, token: Callable[[], int]) -> int:
        """The token of this route: the one that it has, as a vote may be under way under it, else a new one. A node has
        one route, the last.
        """
        known = self._by_route.get(route)
        voter = Voter(node, known.token if known else token())
        for old in [old for old, each in self._by_route.items() if each.node == node]:
            del self._by_route[old]
        if len(self._by_route) < NODES_MAX:
            self._by_route[route] = voter
        return voter.token

    def gone(self, route: bytes) -> None:
        self._by_route.pop(route, None)

    def at(self, route: bytes) -> Voter | None:
        return self._by_route.get(route)

    def nodes(self) -> set[str]:
        return {voter.node for voter in self._by_route.values()}
