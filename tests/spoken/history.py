"""Random histories of one core, and the shortest one that shows the same fault.

A history is a list of steps, each the name of an action and the seed of its own chances: what is left of one when some
are taken out is a history, too, so one that fails is cut down by leaving steps out.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, NamedTuple, Protocol

STUCK_S = 20  # of one history: a step of it does not come back


class Violation(AssertionError):
    """What must hold does not."""


class Step(NamedTuple):
    action: str
    seed: int


class World(Protocol):
    """A core with all who talk to it. `actions`: the names of its methods that are steps → how often each comes."""

    actions: Mapping[str, int]
    ended: bool  # nothing more can happen

    def check(self) -> None:
        """What holds after each step."""

    def end(self) -> None:
        """What holds when all is over."""


def steps(world: type[Any], seed: int, count: int) -> list[Step]:
    chance = Random(seed)
    actions, weights = list(world.actions), list(world.actions.values())
    return [Step(action, chance.getrandbits(32)) for action in chance.choices(actions, weights, k=count)]


def play(made: Callable[[], World], history: Sequence[Step]) -> None:
    """Raises whatever goes wrong."""
    world = made()
    with _in_time(), ExitStack() as stack:
        stack.callback(getattr(world, "restore", lambda: None))  # what it has put in the place of others
        for step in history:
            if world.ended:
                break
            getattr(world, step.action)(Random(step.seed))
            world.check()
        world.end()


@contextmanager
def _in_time() -> Iterator[None]:
    def stuck(*_: object) -> None:
        raise Violation("it does not come back")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(STUCK_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(made: Callable[[], World], history: Sequence[Step]) -> str:
    """What goes wrong, and where; empty if nothing does."""
    try:
        play(made, history)
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
        text = str(error) if isinstance(error, Violation) else place
        return f"{type(error).__name__}: {text}"
    return ""


def shortest(made: Callable[[], World], history: Sequence[Step], wrong: str) -> list[Step]:
    """With as few steps as can be found that go wrong in the same way."""
    left = list(history)
    size = len(left) // 2
    while size:
        place = 0
        while place < len(left):
            fewer = left[:place] + left[place + size :]
            if fault(made, fewer) == wrong:
                left = fewer
            else:
                place += size
        size //= 2
    return left
