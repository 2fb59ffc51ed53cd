"""What people and programs may say by mistake: values that are odd, and mostly ones that are not."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from rota.common.messages import Message

Value = TypeVar("Value")

NUMBERS = (-(1 << 31), -1, 0, 0, 1, 1, 2, 3, 7, 100, 1000, 65_536, 1 << 31, (1 << 63) - 1)
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "n1", "orders", "é\n\x1b[31m", "x" * 1001, b"", b"n1"),
    *(0, 1, -1, 3, 2**31, 2**63, 2**64 - 1, 0.0, 0.5, -0.5, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
    *([], ["n1"], ["n1", "n1"], ["n1", 1], [[]], ["nobody"], {}, {"rack": "a"}, {"rack": "zzz"}, {1: 2}, {"a": [1]}),
)


def number(chance: Random, *usual: int) -> int:
    return chance.choice(usual) if usual and chance.random() < 0.8 else chance.choice(NUMBERS)


def some(chance: Random, values: Sequence[Value], most: int = 3) -> list[Value]:
    """Perhaps none, perhaps one twice."""
    return [chance.choice(values) for _ in range(chance.randint(0, most))] if values else []


def odd_field(chance: Random, message: Message) -> Message:
    """The same with another number somewhere."""
    fields = [name for name, value in message._asdict().items() if type(value) is int]
    if not fields or chance.random() < 0.85:
        return message
    return message._replace(**{chance.choice(fields): chance.choice(NUMBERS)})
