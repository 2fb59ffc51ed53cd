"""Reading what peers say: a message, or a count of what is none."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from ...common import messages
from ...common.messages import BadMessage, Message

Kind = TypeVar("Kind", bound=Message)


def any_message(body: bytes, counters: Counter[str]) -> Message | None:
    try:
        return messages.decode(body)
    except BadMessage:
        counters["bad messages"] += 1
        return None


def message(kind: type[Kind], body: bytes, counters: Counter[str]) -> Kind | None:
    """One of this kind; another is none either."""
    found = any_message(body, counters)
    if isinstance(found, kind):
        return found
    counters["bad messages"] += found is not None
    return None
