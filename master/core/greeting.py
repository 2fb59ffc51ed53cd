"""What a HELLO is answered with: the version that both sides speak, or why it is not welcome."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from ...common import messages, wire
from ...common.fields import BadMessage
from ...common.messages import AgentHello, ClientHello, OperatorHello, PeerHello, ProcessHello, Refusal, VoterHello
from . import received

Kind = TypeVar("Kind", ClientHello, ProcessHello)

TEXT_MAX = 16 * 1024  # characters: some sentences repeat what the peer said, which may be all that a message holds

OnControl = AgentHello | OperatorHello | VoterHello | PeerHello  # who says HELLO there


def agree(versions: list[int]) -> int | None:
    """The highest version that both sides speak, None when there is none."""
    if len(versions) != 2:
        return None
    highest = min(versions[1], wire.VERSIONS[1])
    return highest if highest >= max(versions[0], wire.VERSIONS[0]) else None


def refusal(code: str, message: str, retry_after_ms: int) -> Refusal:
    return Refusal(code, message[:TEXT_MAX], retry_after_ms, list(wire.VERSIONS))


def incompatible(versions: list[int]) -> Refusal:
    ours = f"{wire.VERSIONS[0]} to {wire.VERSIONS[1]}"
    theirs = " to ".join(str(each) for each in versions[:2]) or "none"
    text = f"this master speaks protocol versions {ours}, the peer {theirs}: update the older side"
    return refusal("incompatible", text, 30_000)


def not_understood(hello: bytes) -> Refusal | None:
    """For a HELLO that cannot be read: another version's, if it says which ones its peer speaks. Unanswered it would be
    said for ever, and nobody would know why. None: it is no HELLO of anybody.
    """
    versions = messages.versions_of(hello)
    if not versions:
        return None
    if agree(versions) is None:
        return incompatible(versions)
    try:
        why = f"it is a {type(messages.decode(hello)).__name__}"
    except BadMessage as error:
        why = str(error)
    return refusal(
        "incompatible", f"this master does not understand the peer's HELLO ({why}): update the older side", 30_000
    )


def read(kind: type[Kind], body: bytes, place: str, counters: Counter[str]) -> tuple[Kind, int] | Refusal | None:
    """The HELLO of a data port, with the version to speak. A Refusal if it belongs on control, whose port by default is
    `place` ("one lower"), or is of another version; None for anything else, which is counted.
    """
    found = received.message(body, counters)
    if isinstance(found, kind):
        version = agree(found.versions)
        return incompatible(found.versions) if version is None else (found, version)
    if isinstance(found, OnControl):
        return refusal("port", f"this is not the control port of the master, which by default is {place}", 5000)
    if found is None:
        return not_understood(body)
    counters["bad messages"] += 1
    return None
