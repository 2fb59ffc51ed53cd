"""The processes of a node, from their start to their end: what the plan wants, limits, recalls, exits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import NamedTuple

from ...common import messages
from ...common.messages import End, Message
from .backoff import WELL_AFTER_S, Backoff
from .connection import Connection
from .effects import Effect, Kill, Note, SetFloor, Spawn, Stop

ABORT_S = 0.1  # faulthandler needs 2 ms to write its dump
TERM_S = 1.0  # from TERM to KILL
CROWDED_GRACE_S = 1.0  # a process that is over a limit and has other work may finish that

TEXT_MAX = 32 * 1024  # characters of what a process, or the application around it, says at its end
REPLIES_BYTES = 256 * 1024  # of those that one message tells: what a page of the usual size holds
EXITS_BYTES = 512 * 1024  # of those that stand in a HELLO: half of what a message may be
EXITS_MAX = 1000  # kept, while no master is there to note them

OUT_OF_MEMORY = "killed by the kernel: out of memory (the oom_kill count of its cgroup rose)"

# POSIX numbers; signal names are the shell's business.
SIGABRT, SIGKILL, SIGTERM = 6, 9, 15


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


class Overdue(NamedTuple):
    """A handler that runs beyond its limit. `others`: what else runs in that process."""

    limit_s: float
    others: int
    cancelled: bool = False  # an async one: its process was to cancel it, and it did not end


class Timing(NamedTuple):
    start_timeout_s: float
    stop_grace_s: float


class Processes:
    """Methods are events; each returns its effects in the order in which they are to happen."""

    def __init__(
        self, node: str, boot: str, capacity: int, offers: Sequence[str], timing: Timing, connection: Connection
    ) -> None:
        self.capacity = capacity
        self.alive: dict[str, Process] = {}  # by incarnation, from the wish to start one to its exit
        self.exits: dict[str, messages.Exited] = {}  # not yet noted by a master
        self.limits_ms: dict[str, int] = {}  # service → handler limit of handlers that declare none
        self.backoff = Backoff()
        self.forgot_at: float | None = None  # when the last process ended that had started something
        self._names = f"{node}.{boot}"
        self._sequence = 0
        self._offers = offers
        self._timing = timing
        self._connection = connection
        self._plan: dict[str, int] = {}
        self._rss: dict[str, int] = {}  # bytes of memory, by incarnation, when last looked at

    # ---- what the master says ---------------------------------------------------------------------------------------

    def planned(self, plan: messages.Plan) -> None:
        """The same plan again, or a service that is new in it, also means: try again now what failed. Operators fix an
        application and ask for a recheck. Any other change, growth say, is no reason to hurry a crash loop.
        """
        before = self._plan
        self._plan = {service: count for service, count in plan.processes.items() if service in self._offers}
        self.limits_ms = plan.limits_ms
        for service in self._offers:
            if not before.get(service):
                self.backoff.forgive(service)
            elif self._plan == before:
                self.backoff.hurry(service)

    def retire(self, retire: messages.Retire, now: float) -> list[Effect]:
        process = self.alive.get(retire.incarnation)
        if process is None or process.stage is Stage.STOPPING:
            return []
        return self._stop(process, now, retire.grace_ms / 1000 + self._timing.stop_grace_s)

    def recall(self, recall: messages.Recall) -> list[Effect]:
        if recall.incarnation not in self.alive:
            return []
        return [SetFloor(recall.incarnation, recall.upto + 1, recall.since)]

    def noted(self, incarnation: str) -> None:
        """The master has noted its exit."""
        self.exits.pop(incarnation, None)

    # ---- what becomes of them ---------------------------------------------------------------------------------------

    def spawned(self, incarnation: str, ticket: bytes, pid: int, now: float) -> list[Effect]:
        """It was started; perhaps long after that was wanted, if its place was taken."""
        process = self.alive[incarnation]
        process.ticket = ticket
        process.pid = pid
        if process.stage is Stage.SPAWNING:
            process.stage = Stage.BOOTING
            late = now + self._timing.start_timeout_s
            process.due = [(late, SIGABRT), (late + ABORT_S, SIGKILL)]  # its stack says where the start hangs
        return self._connection.say(_started(process))

    def ready(self, incarnation: str, now: float) -> list[Effect]:
        """The process says so in its page."""
        process = self.alive.get(incarnation)
        if process is None or process.stage is not Stage.BOOTING:
            return []
        process.stage = Stage.READY
        process.ready_at = now
        process.due.clear()
        recovered = self.backoff.ready(process.service, process.spawned_at)
        return self._connection.say(recovered) if recovered else []

    def seen(self, incarnation: str, running: int, overdue: Overdue | None, now: float) -> list[Effect]:
        """A look at the page of a process: how many handlers run, and whether one is over its limit.

        Alone with it, a process is aborted at once; one with other work gets no more, and a grace to finish that.
        """
        process = self.alive.get(incarnation)
        if process is None:
            return []
        process.running = running
        if overdue is None or process.aborted or (overdue.others and process.end):
            return []
        effects: list[Effect] = []
        if process.end is not End.HUNG:
            process.end, process.cause = End.HUNG, _hung(overdue)
            effects += self._connection.say(messages.Ending(incarnation))
        if overdue.others:
            process.due = [(now + CROWDED_GRACE_S, SIGABRT), (now + CROWDED_GRACE_S + ABORT_S, SIGKILL)]
            return [*effects, Stop(incarnation)]
        process.aborted = True
        process.due = [(now + ABORT_S, SIGKILL)]
        return [*effects, Kill(incarnation, SIGABRT)]

    def recalled(self, incarnation: str, floor: int, started_upto: int, rows: list[messages.Row]) -> list[Effect]:
        """`rows`: those of deliveries that are done, with the replies that were asked for."""
        return self._connection.say(messages.Recalled(incarnation, floor, started_upto, _with_latest_replies(rows)))

    def weighed(self, rss: dict[str, int]) -> list[Effect]:
        news = {name: size for name, size in rss.items() if self._rss.get(name) != size}
        self._rss = rss
        return self._connection.say(messages.Usage(news)) if news else []

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
        failure: str = "",
    ) -> list[Effect]:
        """`how`: the sentence for the status; ours is better when it was we who ended the process. `out_of_memory`: it
        was killed, and the kernel says that it killed something here for want of memory. `failure`: why it did not
        start, in its own words.
        """
        process = self.alive.pop(incarnation)
        if started_upto:
            self.forgot_at = now
        cause = process.cause or (OUT_OF_MEMORY if out_of_memory else how)
        kind = str(process.end or _end(process, status, out_of_memory))
        text, rows = text[-TEXT_MAX:], _with_latest_replies(rows)
        exited = messages.Exited(incarnation, process.service, status, cause, started_upto, rows, text, kind)
        if process.pid:  # else the master never heard of it
            self.exits[incarnation] = exited
            if len(self.exits) > EXITS_MAX:
                del self.exits[next(iter(self.exits))]
        effects: list[Effect] = self._connection.say(exited) if process.pid else []
        if process.stage is not Stage.STOPPING:
            effects.append(Note(f"process {incarnation} of {process.service}: {cause}"))
            said = f"{text}\n{cause}".strip() if process.end is End.START else text or cause
            effects += self._failed(process, said, failure or cause, now)
        return effects

    def _failed(self, process: Process, text: str, cause: str, now: float) -> list[Effect]:
        """One more failure of its service, unless it was well for a while, or was ended by us at work: then its start
        is not at fault.
        """
        if process.ready_at and (process.cause or now - process.ready_at >= WELL_AFTER_S):
            return []
        return self._connection.say(self.backoff.failed(process.service, process.spawned_at, text, cause, now))

    # ---- time -------------------------------------------------------------------------------------------------------

    def recover(self, now: float) -> None:
        """Failures whose time is over count no more."""
        for process in self.alive.values():
            self.backoff.well(process.service, process.ready_at, now)
        self.backoff.tick(now)

    def follow_plan(self, now: float) -> list[Effect]:
        """Have these, want those: start what is missing. One that is too many is for the master to name (Retire): only
        it knows which of them has nothing to do.
        """
        effects: list[Effect] = []
        for service in self._offers:
            have = [p.ready_at for p in self.alive.values() if p.service == service and p.stage is not Stage.STOPPING]
            missing = self._plan.get(service, 0) - len(have)
            if missing > 0:
                # Each may be replaced start-first; more is a master's mistake.
                room = 2 * self.capacity - len(self.alive)
                count = min(self.backoff.may_start(service, missing, have, now), room)
                effects += [self._spawn(service, now) for _ in range(count)]
        return effects

    def stop_all(self, now: float) -> list[Effect]:
        running = [process for process in self.alive.values() if process.stage is not Stage.STOPPING]
        return [effect for each in running for effect in self._stop(each, now, self._timing.stop_grace_s)]

    def kill_all(self) -> list[Effect]:
        """Their node leaves at once."""
        effects: list[Effect] = []
        for process in self.alive.values():
            process.stage = Stage.STOPPING
            if process.end is None:
                process.end, process.cause = End.LEAVING, "killed: its node left at once"
            process.due = []
            effects.append(Kill(process.incarnation, SIGKILL))
        return effects

    def signals_due(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for process in self.alive.values():
            while process.due and now >= process.due[0][0]:
                _, signal = process.due.pop(0)
                if process.stage is Stage.BOOTING:
                    process.end = End.START
                    process.cause = f"was not ready within {self._timing.start_timeout_s:g} s (slave.start_timeout)"
                process.aborted = process.aborted or signal == SIGABRT
                effects.append(Kill(process.incarnation, signal))
        return effects

    def next_deadline(self) -> float:
        signal_at = min((process.due[0][0] for process in self.alive.values() if process.due), default=inf)
        return min(signal_at, self.backoff.next_deadline())

    def extend(self, gap: float) -> None:
        """The agent itself was paused: nobody could do anything meanwhile."""
        for process in self.alive.values():
            process.due = [(at + gap, signal) for at, signal in process.due]

    # ---- what is known ----------------------------------------------------------------------------------------------

    def started(self) -> list[messages.Started]:
        return [_started(process) for process in self.alive.values() if process.pid]

    def unnoted(self) -> list[messages.Exited]:
        """The newest exits that a HELLO has room for. In half of it they say what had started, without output and
        replies; in what is left, the newest have these, too. Of the others the master learns only that they are gone.
        """
        left = EXITS_BYTES
        bare = []
        for exited in reversed(self.exits.values()):
            each = exited._replace(text="", rows=[row._replace(reply=b"") for row in exited.rows])
            size = len(messages.encode(each))
            if size > left - EXITS_BYTES // 2:
                break  # to look at all of them would take seconds, in which no limit is kept
            left -= size
            bare.append((exited, each, size))
        found = []
        for exited, each, size in bare:
            more = len(messages.encode(exited)) - size
            if more <= left:
                left -= more
                each = exited
            found.append(each)
        return found[::-1]

    def findings(self, now: float) -> list[Message]:
        """For a master that may know nothing of them."""
        return [*self.started(), *self.exits.values(), *self.backoff.findings(now), messages.Usage(self._rss)]

    def are_idle(self) -> bool:
        return not any(process.running for process in self.alive.values())

    def _spawn(self, service: str, now: float) -> Spawn:
        self._sequence += 1
        incarnation = f"{self._names}.{self._sequence}"
        self.alive[incarnation] = Process(incarnation, service, now)
        return Spawn(incarnation, service)

    def _stop(self, process: Process, now: float, grace_s: float) -> list[Effect]:
        booting = process.stage in (Stage.SPAWNING, Stage.BOOTING)
        process.stage = Stage.STOPPING
        if process.end is None:
            process.end, process.cause = End.STOPPED, "stopped"
        if process.end is not End.HUNG:  # what that one gets is under way, and sooner
            term_at = now if booting else now + grace_s  # one that boots does not look at its page
            process.due = [(term_at, SIGTERM), (term_at + TERM_S, SIGKILL)]
        return [Stop(process.incarnation)]


def _with_latest_replies(rows: list[messages.Row]) -> list[messages.Row]:
    """The same without the replies for which a message has no room; the oldest were most likely heard."""
    left = REPLIES_BYTES
    told = []
    for row in sorted(rows, reverse=True):  # by number
        left -= len(row.reply)
        told.append(row if left >= 0 else row._replace(reply=b""))
    return told[::-1]


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
