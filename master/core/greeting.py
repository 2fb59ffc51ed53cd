"""What a HELLO is answered with: the version that both sides speak, or why it is not welcome."""

from __future__ import annotations

from ...common import wire
from ...common.messages import AgentHello, OperatorHello, PeerHello, Refusal, VoterHello

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
