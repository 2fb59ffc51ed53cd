"""What a HELLO is answered with: the version that both sides speak, or why it is not welcome."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from ...common import wire
from ...common.messages import AgentHello, ClientHello, OperatorHello, PeerHello, ProcessHello, Refusal, VoterHello
from . import received

Kind = TypeVar("Kind", ClientHello, ProcessHello)

OnControl = AgentHello | OperatorHello | VoterHello | PeerHello  # who says HELLO there


def agree(versions: list[int]) -> int | None:
    """The highest version that both sides speak, None when there is none."""
    if len(versions) != 2:
        return None
    highest = min(versions[1], wire.VERSIONS[1])
    return highest if highest >= max(versions[0], wire.VERSIONS[0]) else None


def refusal(code: str, message: str, retry_after_ms: int) -> Refusal:
    return Refusal(code, message, retry_after_ms, list(wire.VERSIONS))


def incompatible(versions: list[int]) -> Refusal:
    ours = f"{wire.VERSIONS[0]} to {wire.VERSIONS[1]}"
    theirs = " to ".join(str(each) for each in versions[:2]) or "none"
    text = f"this master speaks protocol versions {ours}, the peer {theirs}: update the older side"
    return refusal("incompatible", text, 30_000)


def read(kind: type[Kind], body: bytes, place: str, counters: Counter[str]) -> Kind | Refusal | None:
    """The HELLO of a data port. Refusal: it belongs on control, whose port by default is so much lower (`place`)."""
    found = received.message(body, counters)
    if isinstance(found, kind):
        return found
    if isinstance(found, OnControl):
        return refusal("port", f"this is not the control port of the master, which by default is {place}", 5000)
    counters["bad messages"] += found is not None
    return None
