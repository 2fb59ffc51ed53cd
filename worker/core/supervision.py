"""What an agent decides: which processes run on its node, how they end, and what the master is told. Pure.

Events in, effects out. A message of the master only changes what is wanted; `tick` does what is due, so that a batch of
messages (a Retire and the Plan after it) is looked at as one. The shell calls `tick` after each batch and not later
than `next_deadline()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ...common import messages, wire
from ...common.limits import BEAT_S
from ...common.messages import End, Message
from .ports import Ports, Try
from .votes import Votes

SILENCE_S = 3.0  # of a master: as long as it gives us; the connection is then worth nothing
PAUSE_S = 1.0  # between two ticks: it was we who stood still, not the master
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
WELL_AFTER_S = 10.0  # ready for so long: whatever it dies of then, it is not its start
ABORT_S = 0.1  # faulthandler needs 2 ms to write its dump
TERM_S = 1.0  # from TERM to KILL
CROWDED_GRACE_S = 1.0  # a process that is over a limit and has other work may finish that
USAGE_S = 1.0
REPEAT_S = 60.0  # between two notes of the same refusal
EAGER = 20  # attempts, one master after the other and seldom more than 0.1 s apart, while any of them is in touch

OUT_OF_MEMORY = "killed by the kernel: out of memory (the oom_kill count of its cgroup rose)"

# POSIX numbers; signal names are the shell's business.
SIGABRT, SIGKILL, SIGTERM = 6, 9, 15


# ---- effects --------------------------------------------------------------------------------------------------------


class Connect(NamedTuple):
    """Drop the connection, if there is one, and open one to this master."""

    master: int


class Hello(NamedTuple):
    message: messages.AgentHello


class Send(NamedTuple):
    message: Message


class Spawn(NamedTuple):
    """To be answered with `spawned`, or with `exited` when it could not be."""

    incarnation: str
    service: str


class Stop(NamedTuple):
    """Store the stop word: finish and exit."""

    incarnation: str


class Kill(NamedTuple):
    """KILL goes to the process group, the other signals to the process."""

    incarnation: str
    signal: int


class SetFloor(NamedTuple):
    """Store the floor, wait 2 ms, answer with `recalled`."""

    incarnation: str
    floor: int


class Fence(NamedTuple):
    """Store epoch and the master to obey in every page, those to come included."""

    epoch: int
    master: int


class Lease(NamedTuple):
    """Note it by the clock of leases. The beat that gives it goes out after this."""

    master: str
    epoch: int
    lasts_s: float


class Unsure(NamedTuple):
    """So long, by the clock of leases, another agent may lease under our name. Then its master is asked again."""

    lasts_s: float


class Remember(NamedTuple):
    intent: messages.Intent
    epoch: int


class Weigh(NamedTuple):
    """Answer with `weighed`: the resident memory of each process."""


class Note(NamedTuple):
    """A sentence for the log."""

    text: str


class Quit(NamedTuple):
    """Say BYE, if connected, and exit."""


Effect = (
    Connect
    | Hello
    | Send
    | Spawn
    | Stop
    | Kill
    | SetFloor
    | Fence
    | Lease
    | Unsure
    | Remember
    | Weigh
    | Try
    | Note
    | Quit
)


# ---- what is known --------------------------------------------------------------------------------------------------


class Stage(StrEnum):
    SPAWNING = "spawning"  # the shell was asked to
    BOOTING = "booting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(slots=True, eq=False)
class Process:
    """One incarnation. `due`: the signals that it gets if it still lives then, in order."""

    incarnation: str
    service: str
    spawned_at: float
    stage: Stage = Stage.SPAWNING
    ticket: bytes = b""
    pid: int = 0
    ready_at: float = 0.0
    running: int = 0  # handlers, when last looked at
    aborted: bool = False  # got ABRT, to be followed by KILL
    end: End | None = None  # why it is ended, if it is we who do
    cause: str = ""  # the same as a sentence
    due: list[tuple[float, int]] = field(default_factory=list)


@dataclass(slots=True)
class Trouble:
    """Failures in a row of one service. One start is tried at a time until one is ready."""

    failures: int = 0
    counted_at: float = 0.0  # the last of them; what was started before it is part of it
    failed_at: float = 0.0
    retry_at: float = 0.0
    text: str = ""


class Overdue(NamedTuple):
    """A handler that runs beyond its limit. `others`: what else runs in that process."""

    limit_s: float
    others: int
    cancelled: bool = False  # an async one: its process was to cancel it, and it did not end


class Timing(NamedTuple):
    start_timeout_s: float = 60.0
    stop_grace_s: float = 10.0


TIMING = Timing()


@dataclass(slots=True)
class Refusals:
    """In a row, by the same sentence: it is noted once, then each minute at most, with their number."""

    text: str = ""
    count: int = 0
    noted_at: float = 0.0

    def note(self, text: str, now: float) -> list[Effect]:
        if text != self.text:
            self.text, self.count, self.noted_at = text, 1, now
            return [Note(text)]
        self.count += 1
        if now < self.noted_at + REPEAT_S:
            return []
        self.noted_at = now
        return [Note(f"{text} ({self.count} times so far)")]


class Supervision:
    """One node. Methods are events; each returns its effects in the order in which they are to happen."""

    def __init__(
        self,
        node: str,
        boot: str,
        *,
        masters: int,
        capacity: int,
        offers: Sequence[str],
        tags: Mapping[str, str],
        reconnect_delay: Callable[[int], float],
        timing: Timing = TIMING,
        remembered: messages.Intent | None = None,
        epoch: int = 0,
        votes: Votes | None = None,
        embedded: bool = False,
    ) -> None:
        """`masters`: how many addresses there are. `reconnect_delay`: failures in a row → seconds, with its jitter.
        `votes`: of a node that is asked for any; else `epoch` is the highest that was seen.
        """
        self.node = node
        self.boot = boot
        self.masters = masters
        self.capacity = capacity
        self.offers = list(offers)
        self.tags = dict(tags)
        self.timing = timing
        self._reconnect_delay = reconnect_delay
        self.intent = remembered or messages.Intent("active", 0, "", "")
        self.votes = votes or Votes(0.0, epoch)
        self.embedded = embedded
        self.plan: dict[str, int] = {}
        self.limits_ms: dict[str, int] = {}  # service → handler limit of handlers that declare none
        self.processes: dict[str, Process] = {}
        self.exits: dict[str, messages.Exited] = {}  # not yet noted by a master
        self.troubles: dict[str, Trouble] = {}
        self._ports = Ports()
        self.master = 0  # index of the one that we talk to
        self.greeted = False
        self.in_touch = False  # some master answers us, on whatever connection
        self.leaving = False
        self.leave_at = 0.0  # when leaving: not later than this
        self.left = False  # all processes are to go, then we
        self._sequence = 0
        self._beat = 0
        self._failures = 0  # connections in a row that came to nothing
        self._welcome: messages.Welcome | None = None  # of this connection
        self._obey = 0  # the master that the processes are told to obey
        self._winner: int | None = None  # said so while we were at it, or at another one
        self._told_to_wait = False  # by the master that refused us, until the next attempt
        self._echo = self._answered = 0  # our beats that came back: the newest, and the newest that gave a lease
        self._refusals = Refusals()
        self._hellos = 0
        self._hello_said = False  # on this connection, and not yet answered
        self._told_capacity = capacity  # with it
        self._connect_at: float | None = 0.0  # None: connected, or about to be
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._usage_at = 0.0
        self._ticked_at: float | None = None
        self._began_at: float | None = None  # of the first tick: what an earlier agent left is ended by then
        self._forgot_at: float | None = None  # when the last process ended that had started something
        self._bye = False

    @property
    def epoch(self) -> int:
        """The highest that was seen."""
        return self.votes.seen

    # ---- the connection ---------------------------------------------------------------------------------------------

    def connected(self, now: float) -> list[Effect]:
        """The transport is there: introduce ourselves, with all that we have."""
        self._heard_at = now
        return self._introduce(now)

    def lost(self, now: float) -> list[Effect]:
        """The connection is gone. The processes go on: they have connections of their own."""
        if self._connect_at is not None:
            return []
        was_greeted, self.greeted = self.greeted, False
        self._failures = 0 if was_greeted else self._failures + 1
        self.master = (self.master + 1) % self.masters
        self._connect_at = now + self._pause()
        self._hello_said = False
        if was_greeted:
            return [Note("the master is lost; connecting again")]
        # Once, and not for the first failure: a master that is started with its nodes may come a moment later.
        if self._failures == 2 and not self.in_touch:
            return [Note("no master answers; trying on; is one running? -m (slave.master) says where it is")]
        return []

    def _pause(self) -> float:
        """Seconds until the next attempt. Of masters in touch one will soon be active: they are asked in turn."""
        hurry = self.in_touch and self.masters > 1 and self._failures < EAGER
        return self._reconnect_delay(min(self._failures, 2) if hurry else self._failures)

    def _passed_on(self, now: float) -> list[Effect]:
        """This one is not active: it is another one's turn. Who won meanwhile may have answered before it did."""
        self.greeted = self._hello_said = False
        self._failures += 1
        if self._winner != self.master:
            self.master = (self.master + 1) % self.masters
        self._winner = None
        self._connect_at = now + self._pause()
        return [Note("no master is active; trying on")] if self._failures == EAGER else []

    def won(self, master: int, epoch: int, now: float) -> list[Effect]:
        """This master says, not over the connection to it as its node, that it is active: nobody else is waited for."""
        if epoch < self.epoch or (self.greeted and not self._is_outvoted(epoch)):
            return []
        self._winner = master
        if self.master == master and not self.greeted and (self._connect_at is None or self._told_to_wait):
            return []
        self.master, self._failures = master, 0
        return [self._connect(now)]

    def _is_outvoted(self, epoch: int) -> bool:
        """Is the master of this connection one of an epoch below this one?"""
        return self._welcome is None or self._welcome.epoch < epoch

    def hello(self, now: float) -> messages.AgentHello:
        self._hellos += 1
        return messages.AgentHello(
            versions=list(wire.VERSIONS),
            node=self.node,
            boot=self.boot,
            epoch=self.epoch,
            capacity=self.capacity,
            offers=self.offers,
            tags=self.tags,
            processes=[_started(process) for process in self.processes.values() if process.pid],
            exits=list(self.exits.values()),
            intent=self.intent.state,
            generation=self.intent.generation,
            embedded=self.embedded,
            leaving=self.leaving,
            hellos=self._hellos,
            ended_ms=-1 if self._forgot_at is None else max(0, int(1000 * (now - self._forgot_at))),
            up_ms=0 if self._began_at is None else max(0, int(1000 * (now - self._began_at))),
        )

    def welcomed(self, welcome: messages.Welcome, now: float) -> list[Effect]:
        effects: list[Effect] = []
        self._hello_said = False
        if welcome.state != "active":
            return self._passed_on(now)
        if welcome.epoch < self.epoch:
            text = f"{welcome.master} is a master of epoch {welcome.epoch}, {self.epoch} was seen: not obeyed"
            effects = [*self._refusals.note(text, now), *self._passed_on(now)]
            if not self.in_touch:
                self._connect_at = now + SILENCE_S
            return effects
        if not self.greeted:
            effects.append(Note(f"connected to {welcome.master}, epoch {welcome.epoch}"))
        if welcome.epoch > self.epoch:
            self.votes.saw(welcome.epoch)
            effects.append(Remember(self.intent, self.epoch))
        self.greeted = True
        self._welcome = welcome
        self._obey, self._winner = self.master, None
        self._echo = self._answered = 0
        self._failures = 0
        self._refusals = Refusals()
        self._heard_at = now
        self._beat_at = self._usage_at = now
        effects.append(Fence(self.epoch, self.master))
        # What happened between our HELLO and this was told to nobody; saying it twice does no harm.
        effects += [Send(_started(process)) for process in self.processes.values() if process.pid]
        effects += [Send(exited) for exited in self.exits.values()]
        effects += [self._failing(service, trouble, now) for service, trouble in self.troubles.items()]
        effects += [Send(unwell) for unwell in self._ports.findings()]
        if self.leaving:
            effects.append(self._leaving(now))
        if self.capacity != self._told_capacity:  # a signal came in between
            effects += self._introduce(now)
        return effects

    def refused(self, refusal: messages.Refusal, now: float) -> list[Effect]:
        """Not welcome. What a newer boot of this node replaced must go; else the reason may pass."""
        if refusal.code == "standby":
            return self._passed_on(now)
        self.greeted = self._hello_said = False
        effects = self._refusals.note(f"the master refuses this node: {refusal.message}", now)
        if refusal.code == "stale":
            return [*effects, *self.leave_now(now)]
        wait_s = max(refusal.retry_after_ms / 1000, BEAT_S)
        self._connect_at = now + wait_s
        self._told_to_wait = True
        return [*effects, Unsure(wait_s)] if refusal.code == "name in use" else effects

    def who(self, now: float) -> list[Effect]:
        """The master does not know us (any more). One answer is enough, however many of our frames it asks about: what
        would be sent before its WELCOME would only be asked about again.
        """
        self._heard_at = now
        if self._hello_said and not self.greeted:
            return []
        self.greeted = False
        return self._introduce(now)

    def _introduce(self, now: float) -> list[Effect]:
        self._hello_said = True
        self._told_capacity = self.capacity
        return [Hello(self.hello(now))]

    # ---- messages of the master -------------------------------------------------------------------------------------

    def received(self, message: Message, now: float) -> list[Effect]:
        """One that was outvoted is not obeyed, and its silence begins: what it goes on to say does not count."""
        if self._is_outvoted(self.epoch):
            return []
        self._heard_at = now
        match message:
            case messages.Beat():
                self._echo = max(self._echo, message.beat)
            case messages.Release():
                self.votes.released(message.epoch)
            case messages.Plan():
                self._planned(message, now)
            case messages.Retire():
                return self._retire(message, now)
            case messages.Recall():
                if message.incarnation in self.processes:
                    return [SetFloor(message.incarnation, message.upto + 1)]
            case messages.Intent():
                self.intent = message
                return [Remember(message, self.epoch)]
            case messages.Noted():
                self.exits.pop(message.incarnation, None)
            case messages.Leave():
                self.left = True
        return []

    def _planned(self, plan: messages.Plan, now: float) -> None:
        """The same plan again, or a service that is new in it, also means: try again now what failed. Operators fix an
        application and ask for a recheck. Any other change, growth say, is no reason to hurry a crash loop.
        """
        before = self.plan
        self.plan = {service: count for service, count in plan.processes.items() if service in self.offers}
        self.limits_ms = plan.limits_ms
        self._ports.planned(plan.checks, now)
        for service, trouble in self.troubles.items():
            if self.plan == before or not before.get(service):
                trouble.retry_at = 0.0

    def _retire(self, retire: messages.Retire, now: float) -> list[Effect]:
        process = self.processes.get(retire.incarnation)
        if process is None or process.stage is Stage.STOPPING:
            return []
        return self._stop(process, now, retire.grace_ms / 1000 + self.timing.stop_grace_s)

    # ---- processes --------------------------------------------------------------------------------------------------

    def spawned(self, incarnation: str, ticket: bytes, pid: int) -> list[Effect]:
        process = self.processes[incarnation]
        process.ticket = ticket
        process.pid = pid
        if process.stage is Stage.SPAWNING:
            process.stage = Stage.BOOTING
        return self._send(_started(process))

    def ready(self, incarnation: str, now: float) -> list[Effect]:
        """The process says so in its page."""
        process = self.processes.get(incarnation)
        if process is None or process.stage is not Stage.BOOTING:
            return []
        process.stage = Stage.READY
        process.ready_at = now
        process.due.clear()
        trouble = self.troubles.get(process.service)
        if trouble is None or process.spawned_at < trouble.failed_at:  # only one that was started since proves anything
            return []
        trouble.retry_at = 0.0
        trouble.text = ""
        return self._send(messages.Failing(process.service, 0, 0, ""))

    def exited(
        self,
        incarnation: str,
        status: int,
        how: str,
        started_upto: int,
        rows: list[messages.Row],
        text: str,
        now: float,
        out_of_memory: bool = False,
    ) -> list[Effect]:
        """`how`: the sentence for the status; ours is better when it was we who ended the process. `out_of_memory`: it
        was killed, and the kernel says that it killed something here for want of memory.
        """
        process = self.processes.pop(incarnation)
        if started_upto:
            self._forgot_at = now
        cause = process.cause or (OUT_OF_MEMORY if out_of_memory else how)
        kind = str(process.end or _end(process, status, out_of_memory))
        exited = messages.Exited(incarnation, process.service, status, cause, started_upto, rows, text, kind)
        if process.pid:  # else the master never heard of it
            self.exits[incarnation] = exited
        effects: list[Effect] = self._send(exited) if process.pid else []
        if process.stage is not Stage.STOPPING:
            effects.append(Note(f"process {incarnation} of {process.service}: {cause}"))
            effects += self._failed(process, text or cause, now)
        return effects

    def _failed(self, process: Process, text: str, now: float) -> list[Effect]:
        """One more failure of its service, unless it was well for a while, was ended by us at work (then its start is
        not at fault), or fell with others that were started before.
        """
        if process.ready_at and (process.cause or now - process.ready_at >= WELL_AFTER_S):
            return []
        trouble = self.troubles.setdefault(process.service, Trouble())
        if process.spawned_at > trouble.counted_at:
            trouble.failures += 1
            trouble.counted_at = now
        trouble.failed_at = now
        trouble.text = text
        wait = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (min(trouble.failures, 16) - 1))
        trouble.retry_at = now + wait
        return [self._failing(process.service, trouble, now)] if self.greeted else []

    def seen(self, incarnation: str, running: int, overdue: Overdue | None, now: float) -> list[Effect]:
        """A look at the page of a process: how many handlers run, and whether one is over its limit.

        Alone with it, a process is aborted at once; one with other work gets no more, and a grace to finish that.
        """
        process = self.processes.get(incarnation)
        if process is None:
            return []
        process.running = running
        if overdue is None or process.aborted or (overdue.others and process.end):
            return []
        effects: list[Effect] = []
        if process.end is not End.HUNG:
            process.end, process.cause = End.HUNG, _hung(overdue)
            effects += self._send(messages.Ending(incarnation))
        if overdue.others:
            process.due = [(now + CROWDED_GRACE_S, SIGABRT), (now + CROWDED_GRACE_S + ABORT_S, SIGKILL)]
            return [*effects, Stop(incarnation)]
        process.aborted = True
        process.due = [(now + ABORT_S, SIGKILL)]
        return [*effects, Kill(incarnation, SIGABRT)]

    def recalled(self, incarnation: str, floor: int, started_upto: int) -> list[Effect]:
        return self._send(messages.Recalled(incarnation, floor, started_upto))

    def weighed(self, rss: dict[str, int]) -> list[Effect]:
        return self._send(messages.Usage(rss)) if rss else []

    def resize(self, capacity: int) -> list[Effect]:
        """Room for more or fewer; the master plans anew when it is told."""
        if not self.capacity:  # a witness
            return []
        self.capacity = max(1, capacity)
        return self._introduce(self._ticked_at or 0.0) if self.greeted else []

    def reload(self) -> list[Effect]:
        """HUP: only the master can replace processes without going below what must stay active."""
        if not self.greeted:
            return [Note("HUP: nothing is reloaded, since no master is connected that could replace processes in turn")]
        return [
            Send(messages.Reload(list(self.offers))),
            Note("HUP: the master is asked to replace the processes, one at a time"),
        ]

    def _failing(self, service: str, trouble: Trouble, now: float) -> Send:
        failures = trouble.failures if trouble.text else 0
        wait_ms = max(0, round((trouble.retry_at - now) * 1000)) if failures else 0
        return Send(messages.Failing(service, failures, wait_ms, trouble.text))

    def _stop(self, process: Process, now: float, grace_s: float) -> list[Effect]:
        booting = process.stage in (Stage.SPAWNING, Stage.BOOTING)
        process.stage = Stage.STOPPING
        if process.end is None:
            process.end, process.cause = End.STOPPED, "stopped"
        if process.end is not End.HUNG:  # what that one gets is under way, and sooner
            term_at = now if booting else now + grace_s  # one that boots does not look at its page
            process.due = [(term_at, SIGTERM), (term_at + TERM_S, SIGKILL)]
        return [Stop(process.incarnation)]

    # ---- leaving ----------------------------------------------------------------------------------------------------

    def leave(self, deadline_s: float, now: float) -> list[Effect]:
        """TERM: the master drains this node and says when it may go; without a master it goes when nothing runs."""
        if self.leaving:
            return []
        self.leaving = True
        self.leave_at = now + deadline_s
        if not self.greeted:
            known_soon = self._hello_said or self.in_touch  # one that is about to know us is told with its WELCOME
            self.left = not known_soon and self._idle()
            return []
        return [self._leaving(now)]

    def _may_leave(self, now: float) -> bool:
        """Nobody else says so: the time is over, or nothing runs and each master was tried since the last was lost. One
        that is in touch may need our vote to be active, and is then told that we leave.
        """
        alone = not self.greeted and self._failures >= (EAGER if self.in_touch else self.masters)
        return now >= self.leave_at or (alone and self._idle())

    def _idle(self) -> bool:
        return not any(process.running for process in self.processes.values())

    def leave_now(self, now: float) -> list[Effect]:
        """A second TERM, INT, QUIT: nobody is waited for."""
        self.leaving = self.left = True
        self.leave_at = now
        effects: list[Effect] = []
        for process in self.processes.values():
            process.stage = Stage.STOPPING
            if process.end is None:
                process.end, process.cause = End.LEAVING, "killed: its node left at once"
            process.due = []
            effects.append(Kill(process.incarnation, SIGKILL))
        return effects

    def _leaving(self, now: float) -> Send:
        return Send(messages.Leaving(max(0, round((self.leave_at - now) * 1000))))

    # ---- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Everything that is due."""
        self._forgive_pause(now)
        effects: list[Effect] = []
        if self._connect_at is not None and now >= self._connect_at:
            effects.append(self._connect(now))
        elif self._connect_at is None and now >= self._heard_at + SILENCE_S:
            effects += self.lost(now)
        elif self.greeted:
            effects += self._report(now)
        if self.leaving and self._may_leave(now):
            self.left = True
        self._recovered(now)
        effects += self._follow_plan(now)
        effects += self._try_ports(now)
        effects += self._signals_due(now)
        if self.left and not self.processes and not self._bye:
            self._bye = True
            effects.append(Quit())
        return effects

    def next_deadline(self) -> float:
        """When `tick` has something to do, if nothing happens before."""
        times = [self._beat_at if self.greeted else self._heard_at + SILENCE_S]
        if self._connect_at is not None:
            times = [self._connect_at]
        if self.leaving and not self.left:
            times.append(self.leave_at)
        times += [process.due[0][0] for process in self.processes.values() if process.due]
        times += [trouble.retry_at for trouble in self.troubles.values() if trouble.retry_at]
        ports = self._ports.next_deadline()
        return min(times) if ports is None else min(*times, ports)

    def tried(self, service: str, number: int, text: str) -> list[Effect]:
        """What came of a Try. `text`: why it failed; "" = it did not."""
        return [effect for unwell in self._ports.tried(service, number, text) for effect in self._send(unwell)]

    def _try_ports(self, now: float) -> list[Effect]:
        found = self._ports.tick(now)
        effects: list[Effect] = [each for each in found if isinstance(each, Try)]
        if self.greeted:
            effects += [Send(each) for each in found if isinstance(each, messages.Unwell)]
        return effects

    def _connect(self, now: float) -> Connect:
        self._connect_at = None
        self._told_to_wait = False
        self._heard_at = now
        self.greeted = False
        return Connect(self.master)

    def _forgive_pause(self, now: float) -> None:
        """Whoever was stopped must not conclude that the others were silent, or took too long."""
        gap = 0.0 if self._ticked_at is None else now - self._ticked_at
        if self._began_at is None:
            self._began_at = now
        if gap > PAUSE_S:
            self._heard_at = max(self._heard_at, now - BEAT_S)
            self.leave_at += gap
            for process in self.processes.values():
                process.due = [(at + gap, signal) for at, signal in process.due]
        self._ticked_at = now

    def _report(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if now >= self._beat_at:
            self._beat += 1
            self._beat_at = max(self._beat_at + BEAT_S, now)
            effects += self._lease()
            heard, unheard_ms = self._answered, int(1000 * (now - self._heard_at))
            effects.append(Send(messages.Beat(self._beat, unheard_ms, heard, self.epoch)))
        if now >= self._usage_at:
            self._usage_at = now + USAGE_S
            effects.append(Weigh())
        return effects

    def _lease(self) -> list[Effect]:
        """The beat that is about to go answers a new one of a master that needs leases, and may have one. To others it
        answers nothing: what is said to be heard is a lease.
        """
        welcome = self._welcome
        if welcome is None or not welcome.lease_ms or self._echo == self._answered:
            return []
        if not self.votes.may_lease(welcome.epoch):
            return []
        self._answered = self._echo
        return [Lease(welcome.master, welcome.epoch, welcome.lease_ms / 1000)]

    def voted(self, vote: messages.Vote, now: float) -> list[Effect]:
        """Its ballot is durable; `now`: of the clock of leases. The master that we obey hears of the epoch at once."""
        self.votes.granted(vote, now)
        self._beat_at = 0.0
        return [Fence(self.epoch, self._obey)]

    def _follow_plan(self, now: float) -> list[Effect]:
        """Have these, want those: start what is missing. One that is too many is for the master to name (Retire): only
        it knows which of them has nothing to do. Who leaves stops all.
        """
        effects: list[Effect] = []
        for service in self.offers:
            wanted = 0 if self.left else self.plan.get(service, 0)
            have = [p for p in self.processes.values() if p.service == service and p.stage is not Stage.STOPPING]
            for process in have if self.left else []:
                effects += self._stop(process, now, self.timing.stop_grace_s)
            if len(have) < wanted and not self.leaving:
                effects += self._start(service, wanted - len(have), have, now)
        for trouble in self.troubles.values():
            if trouble.retry_at <= now:  # its time came and was used, or nobody wanted it: no deadline any more
                trouble.retry_at = 0.0
        return effects

    def _recovered(self, now: float) -> None:
        """A service whose newest process has been well for a while has no failures in a row any more."""
        for process in self.processes.values():
            trouble = self.troubles.get(process.service)
            if trouble and process.ready_at > trouble.failed_at and now - process.ready_at >= WELL_AFTER_S:
                del self.troubles[process.service]

    def _start(self, service: str, missing: int, have: list[Process], now: float) -> list[Effect]:
        trouble = self.troubles.get(service)
        if trouble is not None:
            if now < trouble.retry_at:
                return []
            trouble.retry_at = 0.0
            if not any(process.ready_at > trouble.failed_at for process in have):
                missing = 0 if any(process.stage is not Stage.READY for process in have) else 1
        room = 2 * self.capacity - len(self.processes)  # each may be replaced start-first; more is a master's mistake
        return [self._spawn(service, now) for _ in range(min(missing, room))]

    def _spawn(self, service: str, now: float) -> Spawn:
        self._sequence += 1
        incarnation = f"{self.node}.{self.boot}.{self._sequence}"
        process = Process(incarnation, service, now)
        process.due = [(now + self.timing.start_timeout_s, SIGKILL)]
        self.processes[incarnation] = process
        return Spawn(incarnation, service)

    def _signals_due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for process in self.processes.values():
            while process.due and now >= process.due[0][0]:
                _, signal = process.due.pop(0)
                if process.stage is Stage.BOOTING:
                    process.end = End.START
                    process.cause = f"was not ready within {self.timing.start_timeout_s:g} s"
                process.aborted = process.aborted or signal == SIGABRT
                effects.append(Kill(process.incarnation, signal))
        return effects

    def _send(self, message: Message) -> list[Effect]:
        """Only to a master that knows us; what it must know for sure stands in the next HELLO too."""
        return [Send(message)] if self.greeted else []


def _end(process: Process, status: int, out_of_memory: bool) -> End:
    """Of a process that was not ended by us."""
    if not process.ready_at:
        return End.START
    if out_of_memory:
        return End.OUT_OF_MEMORY
    return End.SIGNALLED if status < 0 else End.EXITED


def _hung(overdue: Overdue) -> str:
    ignored = ", and did not end when it was cancelled" if overdue.cancelled else ""
    return f"hung: its handler exceeded its limit of {overdue.limit_s:g} s{ignored}"


def _started(process: Process) -> messages.Started:
    return messages.Started(process.incarnation, process.service, process.ticket, process.pid)
