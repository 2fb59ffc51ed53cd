"""How a fault is played: callers of both kinds of handlers around it, and the rows of the table that come of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import rota

sys.path.append(str(Path(__file__).resolve().parent.parent))

from system.ledger import Findings
from system.load import Load
from system.pool import Pool
from waiting import eventually, is_gone, until

HERE = Path(__file__).resolve().parent
APP = f"{HERE / 'app.py'}:proof"
ASYNC_APP = f"{HERE / 'app_async.py'}:proof"
SETTLED_S = 30.0
LOOK_S = 0.01
NOTHING = Findings(0, 0, Counter(), [], [], [])


class NotPlayed(Exception):
    """This machine does not have what the fault needs; the sentence says what."""


class Outcome(NamedTuple):
    """A row. `detected`: seconds from the fault to its first consequence. `misses`: sentences, none if all held."""

    fault: str
    handler: str  # default, idempotent
    findings: Findings
    detected: list[float]
    outage: float  # longest time without an answer, seconds
    figure: str
    misses: list[str]
    not_played: str = ""

    @property
    def verdict(self) -> str:
        return "not played" if self.not_played else "MISSED" if self.misses else "ok"


class Callers:
    """A load of the default handler and one of the idempotent handler, beside each other."""

    def __init__(
        self, pool: Pool, *, lanes: int = 3, seconds: float = 0.02, client: Callable[[], rota.Client] | None = None
    ) -> None:
        make = client or pool.client
        self.pool = pool
        self.default = Load(pool.ledger, make(), "proof.book", lanes=lanes, seconds=seconds)
        self.idempotent = Load(pool.ledger, make(), "proof.quote", lanes=lanes, seconds=seconds)
        self.both = (self.default, self.idempotent)
        self.left = ""

    def __enter__(self) -> Self:
        for load in self.both:
            load.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for load in self.both:
            load.__exit__(kind, error, trace)
        if kind is None and not eventually(lambda: not self._left()):
            self.left = self._left()

    def _left(self) -> str:
        """What the master believes that somebody asks for. Empty: nothing."""
        held = [(each["in_flight"], each["queued"]) for each in self.pool.status()["services"]]
        in_flight, queued = map(sum, zip(*held, strict=True)) if held else (0, 0)
        return f"{in_flight} in flight and {queued} queued when all had ended" if in_flight or queued else ""

    def more(self, count: int = 20, within: float = SETTLED_S) -> None:
        """Returns when each kind has had so many more answers."""
        for load in self.both:
            load.more(count, within)

    def stop(self) -> None:
        for load in self.both:
            load.stop()

    def steady(self, seconds: float) -> None:
        """Returns after so long, during which both were answered on and on."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.more(5)

    def outcomes(
        self,
        fault: str,
        *,
        told: Collection[str] = ("MaybeExecuted",),
        hit: Collection[str] | None = None,
        detected: Mapping[str, float] | Iterable[float] = (),
        figure: str = "",
        misses: Iterable[str] = (),
    ) -> list[Outcome]:
        """One row a kind of handler. `told`: what the caller of a default handler may be told, and `hit`: which of them
        (None: any). `detected`: by key, or of the fault as a whole.
        """
        rows = []
        for handler, load in (("default", self.default), ("idempotent", self.idempotent)):
            again = handler == "idempotent"
            findings = self.pool.ledger.check(load.keys if again else (), load.keys)
            found = [*misses, *judged(findings, () if again else told), *filter(None, [self.left])]
            failed = [key for word in findings.faults for key in self.pool.ledger.told(word) if key in load.ended]
            if hit is not None and set(failed) - set(hit):
                found.append(f"others failed too: {', '.join(sorted(set(failed) - set(hit))[:5])}")
            times = (
                [detected[key] for key in load.keys if key in detected]
                if isinstance(detected, Mapping)
                else list(detected)
            )
            rows.append(Outcome(fault, handler, findings, times, load.stall, figure, found))
        return rows


def judged(findings: Findings, told: Collection[str] = ()) -> list[str]:
    """The sentences for what must never be. `told`: classes of errors that callers may be told."""
    found = [f"{name}: {', '.join(keys[:5])}" for name, keys in findings._asdict().items() if keys and name in _NEVER]
    others = {name: count for name, count in findings.faults.items() if name not in told}
    if others:
        found.append(f"faults: {others}")
    if not findings.answered:
        found.append("nothing was answered")
    return found


_NEVER = ("lost", "twice", "wrong")


class Victim(NamedTuple):
    key: str
    pid: int
    load: Load

    def told(self, within: float = SETTLED_S) -> float:
        """When its caller was told, monotonic."""
        return self.load.told(self.key, within)


def victim(load: Load, pool: Pool, *arguments: object, target: str = "") -> Victim:
    """A call that is certainly in its handler: it has written that down."""
    key = load.one(*(arguments or (0.0, "wait")), target=target)
    return Victim(key, began(pool, key), load)


def began(pool: Pool, key: str, within: float = SETTLED_S) -> int:
    """The pid of the process that has begun this call."""
    found: list[int] = []

    def looked() -> bool:
        found[:] = [each.pid for each in reversed(pool.ledger.executions()) if each.key == key]
        return bool(found)

    until(looked, lambda: f"{key} was not begun", within)
    return found[0]


def children(pool: Pool, keys: list[str]) -> list[int]:
    wanted = {f"of-{key}" for key in keys}
    return [each.pid for each in pool.ledger.executions() if each.word == "child" and each.key in wanted]


def whole(pool: Pool, within: float = SETTLED_S) -> None:
    """Returns when all processes are there again; what waits after a crash is started now."""
    with pool.admin() as admin:
        admin.recheck(*pool.nodes)
        wanted = sum(node["capacity"] for node in admin.status()["nodes"] if node["name"] in pool.nodes)
        until(lambda: len(pool.processes()) >= wanted, lambda: pool.status()["nodes"], within)


def gone(pids: Iterable[int], within: float = SETTLED_S) -> float | None:
    """Monotonic time at which the last of them is gone. None: they are still there."""
    wanted = list(pids)
    return time.monotonic() if eventually(lambda: all(map(is_gone, wanted)), within) else None


def agent(pool: Pool, name: str) -> int:
    return pool._nodes[name].pid


def master(pool: Pool) -> int:
    assert pool._master is not None
    return pool._master.pid


def cpu(pid: int, seconds: float = 1.0) -> float:
    """The share of one core that a process takes."""

    def used() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(seconds)
    return (used() - before) / os.sysconf("SC_CLK_TCK") / seconds


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Seen(NamedTuple):
    at: float  # monotonic
    liveness: str
    in_flight: int


class Watch:
    """What the master says of one node, as often as it answers."""

    def __init__(self, pool: Pool, node: str) -> None:
        self.seen: list[Seen] = []
        self._pool, self._node = pool, node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def since(self, at: float, liveness: str) -> float | None:
        """Seconds from then until the node was seen so; None: it was not."""
        return next((each.at - at for each in list(self.seen) if each.at >= at and each.liveness == liveness), None)

    def wait(self, at: float, liveness: str, within: float = SETTLED_S) -> float:
        until(lambda: self.since(at, liveness) is not None, lambda: f"never seen {liveness}", within)
        found = self.since(at, liveness)
        assert found is not None
        return found

    def given_after(self, at: float) -> int:
        """How many more requests it had in flight at any time after that than right then."""
        before = [each.in_flight for each in self.seen if each.at <= at]
        after = [each.in_flight for each in self.seen if each.at > at]
        return max(0, max(after, default=0) - (before[-1] if before else 0))

    def _look(self) -> None:
        with self._pool.admin() as admin:
            while not self._stop.wait(LOOK_S):
                try:
                    nodes: list[dict[str, Any]] = admin.status(timeout=5)["nodes"]
                except rota.Error:
                    continue
                now = time.monotonic()
                self.seen += [Seen(now, n["liveness"], n["in_flight"]) for n in nodes if n["name"] == self._node]


def at_start(**variables: str) -> dict[str, str]:
    """Environment for a cluster whose Python processes run `site/sitecustomize.py` with these variables."""
    path = os.pathsep.join(filter(None, [str(HERE / "site"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, **variables}


def events(pool: Pool, kind: str) -> list[dict[str, Any]]:
    with pool.admin() as admin:
        return [event for event in admin.events() if event["kind"] == kind]


def fd_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


Play = Callable[[Path, int], list[Outcome]]


class Fault(NamedTuple):
    name: str
    title: str
    play: Play
    long: bool


FAULTS: dict[str, Fault] = {}


def fault(title: str, *, long: bool = False) -> Callable[[Callable[..., list[Outcome]]], Callable[..., list[Outcome]]]:
    """Registers a function (folder, rounds, title) → rows under its own name. `long`: only when asked for."""

    def registered(function: Callable[..., list[Outcome]]) -> Callable[..., list[Outcome]]:
        name = function.__name__
        FAULTS[name] = Fault(name, title, lambda folder, rounds: function(folder, rounds, title), long)
        return function

    return registered
