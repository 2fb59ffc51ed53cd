"""Reading what peers say: a message, or a count of what is none."""

from __future__ import annotations

from collections import Counter

from ...common import messages
from ...common.fields import BadMessage
from ...common.messages import Message


def message(body: bytes, counters: Counter[str]) -> Message | None:
    try:
        return messages.decode(body)
    except BadMessage:
        counters["bad messages"] += 1
        return None
