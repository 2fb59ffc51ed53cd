"""A pair of masters, nodes, and a client under load, each on a host of its own if there are hosts: `Site`."""

from __future__ import annotations

import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lan import Host, lan
from waiting import until

import rota

from .ledger import Execution, Ledger
from .load import Load
from .pair import Pair, pair

APP = Path(__file__).with_name("epoch_app.py")
ACTIVE = re.compile(r"^.* (?:master|takeover): .*active with epoch (\d+)", re.MULTILINE)
SETTLED_S = 30.0
CALL_S = 30.0  # time-out of calls under load: longer than any takeover
Status = dict[str, Any]


class Answer(NamedTuple):
    """`began`, `ended`: monotonic. `epoch`: in which it was dispatched."""

    began: float
    ended: float
    epoch: int


class TimedLoad(Load):
    """A load that keeps when each call began and ended."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.answers: list[Answer] = []

    def _ended(self, key: str, begun: float, future: Future[Any], again: bool) -> None:
        if future.exception() is None:
            self.answers.append(Answer(begun, time.monotonic(), future.result()[3]))
        super()._ended(key, begun, future, again)

    def first_above(self, epoch: int, within: float = SETTLED_S) -> float:
        """When the first call was answered that a later epoch dispatched."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            for answer in self.answers[-100:]:  # the first comes alone, after a second without any
                if answer.epoch > epoch:
                    return answer.ended
            time.sleep(0.002)
        raise AssertionError(f"no epoch above {epoch} has answered anything in {within:g} s")

    def longest(self, begin: float, end: float) -> float:
        """The longest wait for an answer that came between these two moments."""
        return max((each.ended - each.began for each in self.answers if begin <= each.ended <= end), default=0.0)

    def usual(self, begin: float, end: float) -> float:
        waits = [each.ended - each.began for each in self.answers if begin <= each.ended <= end]
        return statistics.median(waits) if waits else 0.0


class Site:
    def __init__(self, masters: Pair, ledger: Ledger, hosts: Mapping[str, Host]) -> None:
        self.masters = masters
        self.ledger = ledger
        self.hosts = hosts
        self.admin = rota.Admin(masters.both)
        self.connection = rota.Client(*masters.both)
        self.client = self.connection.options(timeout=CALL_S)

    def load(self, target: str = "proof.book", *, lanes: int = 6, seconds: float = 0.02) -> TimedLoad:
        return TimedLoad(self.ledger, self.client, target, lanes=lanes, seconds=seconds)

    # ---- looking -------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        return self.admin.status(timeout=SETTLED_S)

    def active(self) -> tuple[str, int]:
        """Name and epoch."""
        master = self.status()["master"]
        assert master["state"] == "active", f"{master['name']} is {master['state']}"
        return master["name"], master["epoch"]

    @property
    def nodes(self) -> list[str]:
        return list(self.masters.nodes)

    def other(self, name: str) -> str:
        return "b" if name == "a" else "a"

    def node(self, name: str) -> Status:
        return next((node for node in self.status()["nodes"] if node["name"] == name), {})

    def in_sync(self, within: float = SETTLED_S) -> None:
        """Returns when the active one has a standby that could take over, and every node is there."""
        until(self._whole, lambda: f"not whole after {within:g} s: {self.status()['master']}", within)

    def _whole(self) -> bool:
        status = self.status()
        peer = status["master"].get("peer") or {}
        live = [node for node in status["nodes"] if node["liveness"] == "live"]
        running = [name for name, child in self.masters.nodes.items() if child.status() is None]
        electable = not any("no takeover is possible" in alarm for alarm in status["master"]["alarms"])
        return peer.get("liveness") == "live" and peer.get("lag") == 0 and electable and len(live) >= len(running)

    def in_flight(self) -> int:
        return sum(service["in_flight"] for service in self.status()["services"])

    def executions(self) -> list[Execution]:
        return [each for each in self.ledger.executions() if each.word == "began"]

    def lower_epochs(self) -> list[str]:
        """Sentences: a process that ran something of a lower epoch than it had run before."""
        highest: dict[int, int] = {}
        found = []
        for each in self.executions():
            if each.epoch < highest.setdefault(each.pid, each.epoch):
                found.append(f"{each.key} of epoch {each.epoch} ran after one of epoch {highest[each.pid]}")
            highest[each.pid] = max(highest[each.pid], each.epoch)
        return found

    def two_in_one_epoch(self) -> list[str]:
        """Sentences, by what the masters themselves said in all their lives."""
        who: dict[int, set[str]] = {}
        for name in self.masters.masters:
            for log in self.masters.folder.glob(f"{name}*.log"):
                for found in ACTIVE.findall(log.read_text(errors="replace")):
                    who.setdefault(int(found), set()).add(name)
        assert who, "no master has said that it is active"
        return [f"{' and '.join(sorted(names))} were active in epoch {n}" for n, names in who.items() if len(names) > 1]

    def late(self) -> int:
        """How often something began that a lower epoch had dispatched than another had run already, anywhere."""
        highest = count = 0
        for each in sorted(self.executions(), key=lambda each: each.at):
            count += each.epoch < highest
            highest = max(highest, each.epoch)
        return count

    # ---- doing ---------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> float:
        """The moment."""
        child = self.masters.masters[name]
        at = time.monotonic()
        child.kill()
        return at

    def stop(self, name: str) -> float:
        at = time.monotonic()
        self.masters.masters[name].signal(signal.SIGSTOP)
        return at

    def go_on(self, name: str) -> float:
        at = time.monotonic()
        self.masters.masters[name].signal(signal.SIGCONT)
        return at

    def start_node(self, name: str, *more: str, app: str = f"{APP}:proof", processes: int = 1) -> None:
        self.masters.start_node(name, app, processes, *more)

    def close(self) -> None:
        self.admin.close()
        self.connection.close()


@contextmanager
def site(
    folder: Path,
    *,
    nodes: Sequence[str] = ("node-1", "node-2", "node-3"),
    hosts: bool = False,
    start: Callable[[Site, str], None] | None = None,
    http: Sequence[str] = (),
) -> Iterator[Site]:
    """Everything is there and in sync. `hosts`: each part is on a host of its own. `start`: how a node is started.
    `http`: routes, of a gateway at each master.
    """
    ledger = Ledger(folder / "executed")
    config = folder / "rota.toml"
    config.write_text("[service.proof]\nramp = 0\n")
    env = {"PROOF_FILE": str(ledger.file), "ROTA_CONFIG": str(config)}
    with ExitStack() as stack:
        network: dict[str, Host] = {}
        if hosts:
            names = ["a", "b", *nodes, "client"]
            network = dict(zip(names, stack.enter_context(lan(len(names))), strict=True))
            stack.enter_context(network["client"].inside())
        masters = stack.enter_context(pair(folder, env=env, http=http, hosts=network))
        made = Site(masters, ledger, network)
        stack.callback(made.close)
        for name in nodes:
            start(made, name) if start else made.start_node(name)
        made.admin.wait("ready", "proof", timeout=SETTLED_S)
        made.in_sync()
        yield made
