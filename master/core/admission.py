"""Which agents may come in: those with a valid name that no other live agent has, and with no more offers than a master
remembers.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...common import messages
from ...common.lifecycle import Intent, Liveness
from ...common.limits import NAME_MAX, NODES_MAX, OFFERS_MAX, SERVICES_MAX, TAGS_BYTES_MAX
from ...common.names import valid_name
from .greeting import refusal
from .pool import Pool
from .registry import Node


def refuse(hello: messages.AgentHello, nodes: Mapping[str, Node], pools: Mapping[str, Pool]) -> messages.Refusal | None:
    """Why this agent may not come in, given what the master knows already; None if it may."""
    bad = next((name for name in (hello.node, *hello.offers) if not valid_name(name)), None)
    if bad is not None:
        return refusal("denied", f"{bad!r} is no name for a node or service", 30_000)
    too_much = _too_much(hello, nodes, pools)
    if too_much:
        return refusal("denied", too_much, 30_000)
    node = nodes.get(hello.node)
    if node is None:
        return None
    if node.boot == hello.boot:
        if 0 < hello.hellos <= node.hellos:
            return refusal("busy", f"a later HELLO of {hello.node} was here before", 1000)
        return None
    if hello.boot in node.older_boots:
        return refusal("stale", f"a newer agent of {hello.node} has taken over", 30_000)
    if node.liveness is Liveness.LIVE:
        text = f"another agent is live under the name {hello.node}: give one of them another --name"
        return refusal("name in use", text, 1000)
    return None


def _too_much(hello: messages.AgentHello, nodes: Mapping[str, Node], pools: Mapping[str, Pool]) -> str:
    """Why this is more than a master remembers of one node, or of all; empty when it is not."""
    if hello.node not in nodes and len(nodes) >= NODES_MAX and longest_gone(nodes) is None:
        return f"{len(nodes)} nodes are known here already: `rota forget` those that are gone"
    services = pools.keys() | set(hello.offers)
    if len(hello.offers) > OFFERS_MAX or len(services) > max(SERVICES_MAX, len(pools)):
        return f"a node may offer {OFFERS_MAX} services, all nodes together {SERVICES_MAX}"
    if sum(len(key) + len(tag) for key, tag in hello.tags.items()) > TAGS_BYTES_MAX or len(hello.boot) > NAME_MAX:
        return f"its tags are longer than {TAGS_BYTES_MAX} characters, or its boot id than {NAME_MAX}"
    return ""


def longest_gone(nodes: Mapping[str, Node]) -> Node | None:
    """The node that gives its place to one with a name that is new: where machines come and go by themselves, each has
    a new name, and says goodbye. None of which operators want something, or that may come back to be dead or cut off.
    """
    gone = (node for node in nodes.values() if node.liveness is Liveness.CLOSED)
    unwanted = (node for node in gone if node.intent is Intent.ACTIVE or node.leaves_by_itself())
    return min(unwanted, key=lambda node: node.since, default=None)
