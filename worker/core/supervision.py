"""What an agent decides: the one door to its core. Pure.

Events in, effects out. A message of the master only changes what is wanted; `tick` does what is due, so that a batch of
messages (a Retire and the Plan after it) is looked at as one. The shell calls `tick` after each batch and not later
than `next_deadline()`. What concerns one part only is that part's own event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...common import messages, wire
from ...common.messages import Message
from .beats import Beats
from .connection import Connection
from .effects import Effect, Fence, Hello, Note, Quit, Remember, Send
from .leaving import Leaving
from .ports import Ports, Try
from .processes import Processes, Timing
from .votes import Votes

PAUSE_S = 1.0  # between two ticks: it was we who stood still, not the master


class Supervision:
    """One node. Methods are events; each returns its effects in the order in which they are to happen."""

    def __init__(
        self,
        node: str,
        boot: str,
        *,
        masters: Sequence[str],
        capacity: int,
        offers: Sequence[str],
        tags: Mapping[str, str],
        reconnect_delay: Callable[[int], float],
        votes: Votes,
        timing: Timing,
        remembered: messages.Intent | None = None,
        embedded: bool = False,
    ) -> None:
        """`masters`: their addresses. `reconnect_delay`: failures in a row → seconds, with its jitter."""
        self.node = node
        self.boot = boot
        self.offers = list(offers)
        self.tags = dict(tags)
        self.embedded = embedded
        self.intent = remembered or messages.Intent("active", 0, "", "")
        self.votes = votes
        self.connection = Connection(masters, self.votes, reconnect_delay)
        self.processes = Processes(node, boot, capacity, self.offers, timing, self.connection)
        self.leaving = Leaving(self.connection, self.processes)
        self._beats = Beats(self.connection, self.votes)
        self._ports = Ports()
        self._obeyed = 0  # the master that the processes are told to obey
        self._hellos = 0
        self._told_capacity = capacity  # with the last HELLO
        self._ticked_at: float | None = None
        self._began_at: float | None = None  # of the first tick: what an earlier agent left is ended by then
        self._has_quit = False

    @property
    def epoch(self) -> int:
        """The highest that was seen."""
        return self.votes.seen

    # ---- who we are -------------------------------------------------------------------------------------------------

    def connected(self, now: float) -> list[Effect]:
        """The transport is there: introduce ourselves, with all that we have."""
        self.connection.heard(now)
        return self._introduce(now)

    def who(self, now: float) -> list[Effect]:
        """The master does not know us (any more)."""
        return self._introduce(now) if self.connection.unknown(now) else []

    def resize(self, capacity: int, now: float) -> list[Effect]:
        """Room for more or fewer; the master plans anew when it is told."""
        if not self.processes.capacity:  # a witness
            return []
        self.processes.capacity = max(1, capacity)
        return self._introduce(now) if self.connection.greeted else []

    def hello(self, now: float) -> messages.AgentHello:
        self._hellos += 1
        forgot_at = self.processes.forgot_at
        return messages.AgentHello(
            versions=list(wire.VERSIONS),
            node=self.node,
            boot=self.boot,
            epoch=self.epoch,
            capacity=self.processes.capacity,
            offers=self.offers,
            tags=self.tags,
            processes=self.processes.started(),
            exits=self.processes.unnoted(),
            intent=self.intent.state,
            generation=self.intent.generation,
            embedded=self.embedded,
            leaving=self.leaving.asked,
            hellos=self._hellos,
            ended_ms=-1 if forgot_at is None else max(0, int(1000 * (now - forgot_at))),
            up_ms=0 if self._began_at is None else max(0, int(1000 * (now - self._began_at))),
        )

    def _introduce(self, now: float) -> list[Effect]:
        self.connection.introduced()
        self._told_capacity = self.processes.capacity
        return [Hello(self.hello(now))]

    # ---- what a master says -----------------------------------------------------------------------------------------

    def welcomed(self, welcome: messages.Welcome, now: float) -> list[Effect]:
        effects = self.connection.welcomed(welcome, now)
        if not self.connection.greeted:
            return effects
        if welcome.epoch > self.epoch:
            self.votes.saw(welcome.epoch)
            effects.append(Remember(self.intent, self.epoch))
        self._beats.welcomed(now)
        self._obeyed = self.connection.master
        effects.append(Fence(self.epoch, self._obeyed))
        # What happened between our HELLO and this was told to nobody; saying it twice does no harm.
        known = (*self.processes.findings(now), *self._ports.findings(), *self.leaving.findings(now))
        effects += [Send(message) for message in known]
        if self.processes.capacity != self._told_capacity:  # a signal came in between
            effects += self._introduce(now)
        return effects

    def refused(self, refusal: messages.Refusal, now: float) -> list[Effect]:
        """Not welcome. A boot that was replaced by a newer one of its node must go."""
        effects = self.connection.refused(refusal, now)
        return [*effects, *self.leaving.at_once(now)] if refusal.code == "stale" else effects

    def received(self, message: Message, now: float) -> list[Effect]:
        """A master that was outvoted is not obeyed: whatever it says counts as silence."""
        if self.connection.is_outvoted(self.epoch):
            return []
        self.connection.heard(now)
        match message:
            case messages.Beat():
                self._beats.heard(message.beat)
            case messages.Release():
                self.votes.released(message.epoch)
                if self.votes.lease is None:
                    self._beats.released()
            case messages.Plan():
                self.processes.planned(message)
                self._ports.planned(message.checks, now)
            case messages.Retire():
                return self.processes.retire(message, now)
            case messages.Recall():
                return self.processes.recall(message)
            case messages.Intent():
                self.intent = message
                return [Remember(message, self.epoch)]
            case messages.Noted():
                self.processes.noted(message.incarnation)
            case messages.Leave():
                self.leaving.told()
        return []

    # ---- what others say --------------------------------------------------------------------------------------------

    def voted(self, vote: messages.Vote, now: float) -> list[Effect]:
        """Its ballot is durable; `now`: of the clock of leases. The master that we obey hears of the epoch at once."""
        self.votes.granted(vote, now)
        self._beats.hurry()
        return [Fence(self.epoch, self._obeyed)]

    def tried(self, service: str, number: int, text: str) -> list[Effect]:
        """What came of a Try. `text`: why it failed; "" = it did not."""
        return [effect for unwell in self._ports.tried(service, number, text) for effect in self.connection.say(unwell)]

    def reload(self) -> list[Effect]:
        """HUP: only the master can replace processes without going below what must stay active."""
        if not self.connection.greeted:
            return [Note("HUP: nothing is reloaded, since no master is connected that could replace processes in turn")]
        return [
            Send(messages.Reload(list(self.offers))),
            Note("HUP: the master is asked to replace the processes, one at a time; settings wait for a restart"),
        ]

    # ---- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Everything that is due."""
        self._forgive_pause(now)
        effects = self.connection.tick(now)
        if self.connection.greeted:
            effects += self._beats.tick(now)
        self.leaving.tick(now)
        self.processes.recover(now)
        if self.leaving.over:
            effects += self.processes.stop_all(now)
        elif not self.leaving.asked:  # who leaves starts nothing
            effects += self.processes.follow_plan(now)
        effects += self._try_ports(now)
        effects += self.processes.signals_due(now)
        if self.leaving.over and not self.processes.alive and not self._has_quit:
            self._has_quit = True
            effects.append(Quit())
        return effects

    def next_deadline(self) -> float:
        """When `tick` has something to do, if nothing happens before."""
        return min(
            self._beats.next_deadline() if self.connection.greeted else self.connection.next_deadline(),
            self.leaving.next_deadline(),
            self.processes.next_deadline(),
            self._ports.next_deadline(),
        )

    def _try_ports(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for each in self._ports.tick(now):
            effects += [each] if isinstance(each, Try) else self.connection.say(each)
        return effects

    def _forgive_pause(self, now: float) -> None:
        """An agent that was stopped itself must not conclude that others were silent, or took too long."""
        gap = 0.0 if self._ticked_at is None else now - self._ticked_at
        if self._began_at is None:
            self._began_at = now
            self._beats.began(now)
        if gap > PAUSE_S:
            self.connection.forgive_pause(now)
            self.leaving.extend(gap)
            self.processes.extend(gap)
            self._ports.extend(gap)
        self._ticked_at = now
