"""When a node counts as ill, for how long it is on the blacklist, and when an illness is everybody's.

Plain counting: who looks, who asks and who acts stands in `checks`. Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ...common.settings import HealthSettings

TOGETHER_S = 0.1  # what fails within this fell with one cause: four processes that are killed at once are one failure
DECAY_S = 600.0  # without a fall for so long, and the count is halved
COUNT_MAX = 16  # 5 s × 2¹⁶ is above any blacklist_max; a larger number only overflows
JITTER = 0.2  # of the time on the blacklist, on top: nodes that fell together do not come back together
WINDOW_S = 10.0  # falls within it belong together, or within two checks if those are further apart


@dataclass(slots=True, eq=False, repr=False)
class Watch:
    """What is known of one service on one node: failures and successes in a row."""

    answered: int  # replies of its processes, at the last look
    due: float  # the next check
    failures: int = 0
    successes: int = 0
    cause: str = ""  # of the last failure
    severe: bool = False  # port or expected answer failed: that other answers come takes nothing back
    failed_at: float = -inf
    turn: int = 0  # which of the idle processes is asked next

    def is_news(self, now: float) -> bool:
        """A failure at this time is one of its own; else it only fell together with the last one."""
        return now - self.failed_at >= TOGETHER_S

    def failed(self, cause: str, severe: bool, now: float) -> None:
        if now - self.failed_at > DECAY_S:
            self.failures = 0  # so long ago that the two have nothing to do with each other
        self.failures += 1
        self.successes = 0
        self.failed_at = now
        self.cause, self.severe = cause, self.severe or severe

    def succeeded(self, times: int = 1) -> None:
        self.successes += times
        self.failures = 0
        self.severe = False

    def has_fallen(self, settings: HealthSettings) -> bool:
        return self.failures >= settings.fall

    def has_risen(self, settings: HealthSettings) -> bool:
        return self.successes >= settings.rise

    def began_anew(self) -> None:
        """Called after each change of health: what counted for one change does not count for the next."""
        self.failures = self.successes = 0


@dataclass(slots=True, eq=False, repr=False)
class Mark:
    """How often a node fell and what for. It outlives its agent: a node that flaps cannot shake it off by a restart.

    The count goes down by time only, halved for each DECAY_S since the last fall. What a node does well meanwhile does
    not count, or one that works for a minute and falls for a minute would never be away for long.
    """

    count: int = 0
    fell_at: float = 0.0
    service: str = ""
    cause: str = ""
    until: float | None = None  # of the blacklist, or of the trial

    def times(self, now: float) -> int:
        """How many falls still count."""
        halvings = int(max(0.0, now - self.fell_at) // DECAY_S)
        return self.count >> min(halvings, COUNT_MAX)

    def fell(self, service: str, cause: str, settings: HealthSettings, random: float, now: float) -> float:
        """Puts it on the blacklist for a time, and answers how many seconds. `random` is from 0 to 1."""
        before = self.times(now)
        seconds = min(settings.blacklist_max, settings.blacklist * 2.0**before) * (1 + JITTER * random)
        self.count = min(before + 1, COUNT_MAX)
        self.fell_at = now
        self.service, self.cause = service, cause
        self.until = now + seconds
        return seconds

    def take_back(self) -> None:
        """The last fall was not its fault."""
        self.count = max(0, self.count - 1)
        self.until = None

    def clear(self) -> None:
        """An operator says that it is mended."""
        self.count = 0
        self.until = None


class Falls:
    """The falls of a service's nodes, lately. Where more than half of them fall at once it is what they share that is
    ill.
    """

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self.text = ""
        self.until = -inf  # of the panic: nobody is ejected

    def panic(self, now: float) -> bool:
        return now < self.until

    def fell(self, node: str, active: set[str], settings: HealthSettings, now: float) -> bool:
        """Notes one; answers whether this is a panic. `active`: the nodes of the service that were not out before."""
        window = max(WINDOW_S, 2 * settings.every)
        self._at[node] = now
        self._at = {name: at for name, at in self._at.items() if now - at <= window}
        fallen = len(self._at)
        of = len(active | self._at.keys())
        if self.panic(now) or (fallen >= 2 and 2 * fallen > of):
            # It lasts until nobody falls any more: one that is ill falls again after `fall` more checks.
            self.until = now + window + settings.fall * settings.every
            self.text = f"{fallen} of {of} nodes fail at once: a shared dependency? nobody is ejected"
        return self.panic(now)

    def lately(self) -> list[str]:
        """The nodes that fell within the window of the last fall."""
        return list(self._at)


def ordinal(number: int) -> str:
    ending = "th" if 11 <= number % 100 <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
