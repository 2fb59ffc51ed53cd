"""What a master does beside dispatching when its state changes: steps of a list, and notifications (docs/STANDBY.md).

Events in: `became`, `happened`, `finished`, `lost`, and time through `tick`. Effects out, through `take`: commands that
somebody else runs. Of the list one step runs at a time; to each receiver one notification is under way at a time; so
both are in order, and nobody who is slow keeps another waiting.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

from ...common import exits
from ...common.settings import NotifySettings, StandbySettings
from ...common.settings.notify import RETURN, STEP_FAILED, TAKEOVER
from ...common.steps import RUN, STOP, Step, step

ACTIVE, STANDBY, CLOSED = "active", "standby", "closed"  # what a master became; CLOSED: it is told to stop

SCHEMA = 1
QUEUE_MAX = 1000  # notifications that wait for one receiver
LEAVE_S = 10.0  # what a master that stops still waits for
AGAIN_S = 0.5  # a service may not be known yet, or nobody be active: both within the second after a takeover
BACKOFF_S, BACKOFF_MAX_S = 1.0, 60.0
SEND_MORE_S = 2.0  # for a Python to start and end, beyond the time that its attempt may take
OUTPUT_MAX = 600  # characters of what a failed command said, in an event of at most 1000
_HOPELESS = (exits.USAGE, exits.REFUSED)


class Run(NamedTuple):
    """Run this, with `text` on its stdin, and say how it ended; kill it with all that it started after `timeout_s`."""

    number: int
    argv: tuple[str, ...]
    text: str
    timeout_s: float


class End(NamedTuple):
    """Kill it now."""

    number: int


Effect = Run | End


class Programs(NamedTuple):
    """The beginnings of command lines."""

    rota: tuple[str, ...]
    send: tuple[str, ...]  # reads {"receiver", "note"} from its stdin: exit 0 when it was delivered


class _Begun(NamedTuple):
    """The step that runs, or is about to be tried again."""

    step: Step
    text: str
    at: float


class _List:
    """`on_takeover` or `on_return` on its way. A step that fails ends it."""

    def __init__(self, errands: Errands, title: str, steps: tuple[str, ...], masters: str) -> None:
        self.title = title
        self.masters = masters  # where services are started and stopped
        self.number = 0  # of the command that runs; 0: none does
        self.again_at = inf
        self.begun: _Begun | None = None
        self._errands = errands
        self._left = deque(steps)
        self._count = len(steps)

    def tick(self, now: float) -> None:
        if self.begun is not None and now >= self.again_at:
            self._run(self.begun, now)
        elif self.begun is None and self._left:
            text = self._left.popleft()
            self.begun = _Begun(step(text), text, now)
            self._run(self.begun, now)

    def _run(self, begun: _Begun, now: float) -> None:
        self.again_at = inf
        left_s = max(0.1, begun.at + self._errands.settings.step_timeout - now)
        self.number = self._errands.run(self._argv(begun.step), "", left_s)

    def _argv(self, step: Step) -> tuple[str, ...]:
        if step.verb == RUN:
            return step.words
        how = ("on", "--stop", "--no-wait") if step.verb == STOP else ("off",)
        reason = f"{self.title} of {self._errands.name}"
        words = ("maintenance", step.words[0], *how, "--reason", reason, "--master", self.masters)
        return (*self._errands.programs.rota, *words)

    def finished(self, exit: int | None, output: str, now: float) -> None:
        begun, self.number = self.begun, 0
        assert begun is not None
        service = begun.step.verb != RUN
        if exit == exits.DONE:
            self.begun = None
            text = f"{self.title}: {begun.text}: done in {now - begun.at:.1f} s"
            self._errands.tell("step", self._errands.name, text)
        elif service and exit not in _HOPELESS and now + AGAIN_S < begun.at + self._errands.settings.step_timeout:
            self.again_at = now + AGAIN_S
        else:
            self.begun = None
            self._failed(begun, _how(exit, now - begun.at), output, now)

    def _failed(self, begun: _Begun, how: str, output: str, now: float) -> None:
        left = len(self._left)
        self._left.clear()
        rest = f"; the {left} after it are not run" if left else ""
        said = f": {_in_one_line(output)}" if output.strip() else ""
        text = f"{self.title}, step {self._count - left} of {self._count}: {begun.text}: {how}{rest}{said}"
        self._errands.failure = text
        self._errands.report(STEP_FAILED, text, now)


class _Receiver:
    """A receiver of notifications. Each waits here until those before it are delivered or given up."""

    def __init__(self, errands: Errands, name: str, settings: NotifySettings) -> None:
        self.name = name
        self.settings = settings
        self.number = 0  # of the command that sends; 0: none does
        self.due_at = inf
        self.failure = ""
        self._errands = errands
        self._waiting: deque[tuple[float, dict[str, Any]]] = deque()  # since when
        self._counted = 0
        self._attempts = 0

    def add(self, kind: str, subject: str, text: str, at: float, now: float) -> None:
        if kind not in self.settings.events:
            return
        self._counted += 1
        note = {
            "schema": SCHEMA,
            "id": f"{self._errands.boot}-{self.name}-{self._counted}",
            "number": self._counted,
            "kind": kind,
            "master": self._errands.name,
            "subject": subject,
            "text": text,
            "at": at,
        }
        if len(self._waiting) >= QUEUE_MAX:
            self._tell(f"{QUEUE_MAX} wait already; not told: {kind}")
            return
        self._waiting.append((now, note))
        if len(self._waiting) == 1:
            self.due_at = now

    def tick(self, now: float) -> None:
        if now < self.due_at:
            return
        text = json.dumps({"receiver": self.settings.as_data(), "note": self._waiting[0][1]})
        self._attempts += 1
        self.due_at = inf
        self.number = self._errands.run(self._errands.programs.send, text, self.settings.timeout + SEND_MORE_S)

    def finished(self, exit: int | None, output: str, now: float) -> None:
        self.number = 0
        since, note = self._waiting[0]
        if exit == exits.DONE:
            remark = f"; {_in_one_line(output)}" if output.strip() else ""
            self._tell(f"{note['kind']} (number {note['number']}) delivered{remark}")
            return self._next(now)
        why = _in_one_line(output) or _how(exit, self.settings.timeout)
        wait_s = min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(self._attempts - 1, 16))
        if now + wait_s > since + self.settings.retry_for:
            self._tell(f"{note['kind']} (number {note['number']}) given up after {self._attempts} attempts: {why}")
            return self._next(now)
        if not self.failure:
            self._tell(f"{note['kind']} (number {note['number']}) not delivered yet: {why}; tried again")
        self.failure = why
        self.due_at = now + wait_s

    def _next(self, now: float) -> None:
        self._waiting.popleft()
        self._attempts = 0
        self.failure = ""
        self.due_at = now if self._waiting else inf

    def _tell(self, text: str) -> None:
        self._errands.tell("notify", self.name, text)

    def alarm(self) -> str:
        return f"notify {self.name}: {len(self._waiting)} not delivered yet: {self.failure}" if self.failure else ""


class Errands:
    """`name`: of this master. `boot`: random, of this start. `control`, `peer`: control addresses of this master and of
    the other one. `tell` is that of the event log; `wall` the time of day, for readers.
    """

    def __init__(
        self,
        name: str,
        boot: str,
        control: str,
        settings: StandbySettings,
        receivers: Mapping[str, NotifySettings],
        programs: Programs,
        tell: Callable[[str, str, str], None],
        wall: Callable[[], float],
    ) -> None:
        self.name, self.boot, self.control, self.peer = name, boot, control, ""
        self.programs = programs
        self.tell = tell
        self.state = ""
        self.failure = ""  # of the last list: an alarm until another one is done
        self._wall = wall
        self._receivers: dict[str, _Receiver] = {}
        self._list: _List | None = None
        self._next_list: _List | None = None  # waits for the end of the command that was killed for it
        self._effects: list[Effect] = []
        self._numbers = 0
        self._leave_by = inf
        self.reconfigure(settings, receivers)

    def reconfigure(self, settings: StandbySettings, receivers: Mapping[str, NotifySettings]) -> None:
        """What waits for a receiver that is no more is dropped."""
        self.settings = settings
        self._receivers = {
            name: self._receivers.get(name) or _Receiver(self, name, each)
            for name, each in receivers.items()
            if each.to
        }
        for name, receiver in self._receivers.items():
            receiver.settings = receivers[name]

    @property
    def configured(self) -> bool:
        return bool(self._receivers or self.settings.on_takeover or self.settings.on_return)

    # ---- what happens ----------------------------------------------------------------------------------------------

    def became(self, state: str, why: str, now: float) -> None:
        """ACTIVE or STANDBY: its list begins, in place of one that is on its way. Also at the start of this master,
        when only commands are run: what an earlier life left on this machine is put right, and services are as they
        are on record. CLOSED: told to stop; what was ACTIVE does what it does on return.
        """
        before, self.state = self.state, state
        if state == before:
            return
        if state == CLOSED:
            self._leave_by = now + LEAVE_S
        if state != CLOSED or before == ACTIVE:
            alone = state == CLOSED and not self.peer
            self._begin(state == ACTIVE, commands_only=not before or alone, now=now)
        if before and state != CLOSED:
            self.happened(TAKEOVER if state == ACTIVE else RETURN, self.name, why, now)

    def happened(self, kind: str, subject: str, text: str, now: float) -> None:
        """Tells those who want to hear of this kind (common/settings/notify.py); of other kinds nobody does."""
        for receiver in self._receivers.values():
            receiver.add(kind, subject, text, self._wall(), now)
        self.tick(now)

    def report(self, kind: str, text: str, now: float) -> None:
        """An event of our own, which is told as well."""
        self.tell(kind, self.name, text)
        self.happened(kind, self.name, text, now)

    def _begin(self, active: bool, commands_only: bool, now: float) -> None:
        title, masters = ("on_takeover", self.control) if active else ("on_return", self.peer or self.control)
        steps: tuple[str, ...] = getattr(self.settings, title)
        if commands_only:
            steps = tuple(text for text in steps if step(text).verb == RUN)
        fresh = _List(self, title, steps, masters)
        self.failure = ""
        if self._list is not None and self._list.number:
            self._effects.append(End(self._list.number))
            self._next_list = fresh
        else:
            self._list = fresh
        self.tick(now)

    # ---- commands --------------------------------------------------------------------------------------------------

    def run(self, argv: tuple[str, ...], text: str, timeout_s: float) -> int:
        self._numbers += 1
        self._effects.append(Run(self._numbers, argv, text, timeout_s))
        return self._numbers

    def take(self) -> list[Effect]:
        """The commands that are to be run or ended now."""
        effects, self._effects = self._effects, []
        return effects

    def finished(self, number: int, exit: int | None, output: str, now: float) -> None:
        """How a command ended: its exit code, negative for a signal; None: its time was over, or it was ended."""
        if self._list is not None and number == self._list.number:
            if self._next_list is None:
                self._list.finished(exit, output, now)
            else:
                self._list, self._next_list = self._next_list, None
        for receiver in self._receivers.values():
            if number == receiver.number:
                receiver.finished(exit, output, now)
        self.tick(now)

    def lost(self, now: float) -> None:
        """Whoever runs the commands is gone, and killed them first: how far they came nobody knows."""
        everybody = (self._list, *self._receivers.values())
        under_way = [each.number for each in everybody if each is not None and each.number]
        self._effects.clear()
        for number in under_way:
            self.finished(number, None, "the process that ran it ended", now)

    # ---- time ------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        if self._list is not None:
            self._list.tick(now)
            if self._list.begun is None:  # nothing was left to begin
                self._list = None
        for receiver in self._receivers.values():
            receiver.tick(now)

    def next_deadline(self) -> float:
        again_at = self._list.again_at if self._list is not None else inf
        return min([again_at, *(receiver.due_at for receiver in self._receivers.values())])

    # ---- for people, and for the end -------------------------------------------------------------------------------

    def busy(self, now: float) -> bool:
        """A master that stops waits for its list, and for notifications that have not failed; not for long."""
        waits = self._list is not None or any(receiver.number for receiver in self._receivers.values())
        return waits and now < self._leave_by

    def alarms(self) -> list[str]:
        found = (receiver.alarm() for receiver in self._receivers.values())
        return [text for text in (self.failure, *found) if text]


def _how(exit: int | None, seconds: float) -> str:
    if exit is None:
        return f"ended after {seconds:.1f} s"
    return f"signal {-exit}" if exit < 0 else f"exit {exit}"


def _in_one_line(output: str) -> str:
    """The end of what a command said: there an error stands."""
    return " | ".join(filter(None, map(str.strip, output.splitlines())))[-OUTPUT_MAX:]
