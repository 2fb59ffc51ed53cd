"""How a node leaves: its master drains it, or nobody is there to do so, or it goes at once. Pure."""

from __future__ import annotations

from math import inf

from ...common import messages
from .connection import Connection
from .effects import Effect
from .processes import Processes


class Leaving:
    """`asked`: it is to be drained. `over`: all processes are to go, then the agent."""

    def __init__(self, connection: Connection, processes: Processes) -> None:
        self.asked = False
        self.over = False
        self._until = 0.0  # not later than this
        self._connection = connection
        self._processes = processes

    def ask(self, deadline_s: float, now: float) -> list[Effect]:
        """TERM: the master drains this node and says when it may go; without a master it goes when nothing runs."""
        if self.asked:
            return []
        self.asked = True
        self._until = now + deadline_s
        if not self._connection.is_expected() and self._processes.are_idle():
            self.over = True
        return self._connection.say(self._wish(now))

    def at_once(self, now: float) -> list[Effect]:
        """A second TERM, INT, QUIT: nobody is waited for."""
        self.asked = self.over = True
        self._until = now
        return self._processes.kill_all()

    def told(self) -> None:
        """The master says that it may go."""
        self.over = True

    def findings(self, now: float) -> list[messages.Leaving]:
        """For a master that may know nothing of it."""
        return [self._wish(now)] if self.asked else []

    def tick(self, now: float) -> None:
        """Does nobody else say that it is over? The time is, or nothing runs and no master is there. One that is in
        touch may need our vote to be active, and is then told that we leave.
        """
        if self.asked and (now >= self._until or (self._connection.is_given_up() and self._processes.are_idle())):
            self.over = True

    def next_deadline(self) -> float:
        return self._until if self.asked and not self.over else inf

    def extend(self, gap: float) -> None:
        """The agent itself was paused."""
        self._until += gap

    def _wish(self, now: float) -> messages.Leaving:
        return messages.Leaving(max(0, round((self._until - now) * 1000)))
