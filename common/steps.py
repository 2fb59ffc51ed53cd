"""The steps of a list: what a master does, in order, when it becomes active or standby.

    start SERVICE       its processes run, and it takes requests
    stop SERVICE        its callers are told to come again later, and its processes end
    run COMMAND…        words as a shell splits them; no shell runs it

A step is kept as it was written, and read where it is used.
"""

from __future__ import annotations

import shlex
from typing import ClassVar, NamedTuple

from .kinds import Kind, Name, quoted

START, STOP, RUN = "start", "stop", "run"
STEPS_MAX = 64
TEXT_MAX = 4096


class Step(NamedTuple):
    """`words`: the one name of a service, or a command with its arguments."""

    verb: str
    words: tuple[str, ...]


def step(text: str) -> Step:
    """Raises ValueError with the rest of a sentence about the text."""
    verb, _, rest = text.strip().partition(" ")
    if verb in (START, STOP):
        return Step(verb, (Name().read(rest.strip()),))
    if verb != RUN:
        raise ValueError(f"must be start SERVICE, stop SERVICE or run COMMAND, not {quoted(text)}")
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise ValueError(f"has a command that cannot be split into words ({error}): {quoted(text)}") from None
    if not words:
        raise ValueError("must name the command that is to be run")
    return Step(verb, tuple(words))


class Steps(Kind):
    """A tuple of texts, each a step; in a variable one a line."""

    metavar: ClassVar[str] = "STEPS"

    def read(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple) or len(value) > STEPS_MAX:
            raise ValueError(f"must be a list of at most {STEPS_MAX} steps, not {quoted(value)}")
        return tuple(self._read_one(number, each) for number, each in enumerate(value, 1))

    def read_text(self, text: str) -> tuple[str, ...]:
        return self.read([line for line in text.splitlines() if line.strip()])

    def _read_one(self, number: int, text: object) -> str:
        if not isinstance(text, str) or len(text) > TEXT_MAX or not text.isprintable():
            raise ValueError(f"has a step {number} that is no text of one line: {quoted(text)}")
        try:
            step(text)
        except ValueError as error:
            raise ValueError(f"has a step {number} that {error}") from None
        return text

    def describe(self) -> str:
        return f"list of up to {STEPS_MAX} steps"
