"""The one place where `min_active` is checked: drain, blacklist, rollout, reload and scale share
this budget.

It counts *after* the step. What does not lower the count is never refused: a node that serves nothing may always go.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...common.units import plural
from .pool import Pool
from .registry import Node, active_nodes, why


def refusal(pools: Iterable[Pool], nodes: dict[str, Node], leaving: set[Node], now: float) -> str | None:
    """The sentence that says why these nodes may not leave together; None: they may."""
    sentences = [sentence for pool in pools if (sentence := _refusal(pool, nodes, leaving, now))]
    return "; ".join(sentences) or None


def _refusal(pool: Pool, nodes: dict[str, Node], leaving: set[Node], now: float) -> str | None:
    before = active_nodes(nodes, pool, now)
    after = [node for node in before if node not in leaving]
    least = pool.settings.min_active
    if len(after) == len(before) or len(after) >= least:
        return None
    rest = ", ".join(sorted(node.name for node in after)) or "none"
    others = [node for node in nodes.values() if node not in before and pool.name in node.offers]
    waiting = "; ".join(f"{node.name} is not active ({why(node, now) or 'not ready'})" for node in others)
    return (
        f"{pool.name} would be left with {plural(len(after), 'active node')} ({rest}), "
        f"min_active is {least}{'; ' + waiting if waiting else ''}"
    )


def indispensable(pools: Iterable[Pool], nodes: dict[str, Node], node: Node, now: float) -> str:
    """Why no automatic step may take this node out; empty if one may. Stricter than what an operator may do: the last
    one stays whatever `min_active` says, and a node that serves nothing at the moment counts as one that could.
    """
    for pool in pools:
        others = [other for other in active_nodes(nodes, pool, now) if other is not node]
        least = max(1, pool.settings.min_active)
        if len(others) < least:
            return f"{pool.name} would be left with {len(others)} of {least} active nodes"
    return ""
