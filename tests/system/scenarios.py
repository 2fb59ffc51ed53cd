"""What rota promises, played on real processes and real sockets. Each takes a folder and how hard it is to be.

`rounds` 1 is what the tests run; `prove.py` runs more. Each ends with a `Result` that says what was missed.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from waiting import eventually, is_gone, until

from rota import Client

from . import hostile
from .ledger import Ledger
from .load import Load
from .pool import Pool, Status
from .result import Result, judge

LANES = 8
DRAIN_LIMIT_S = 0.1
DEADLINE_LIMIT_S = 0.02
REFUSAL_LIMIT_S = 0.25
SETTLED_S = 20.0


def processes(rounds: int) -> int:
    """On each node, where one would do: an interpreter is what costs most in a short test."""
    return min(rounds, 2)


# ---- updates --------------------------------------------------------------------------------------------------------


def rolling_update(folder: Path, rounds: int = 1) -> Result:
    """Three nodes, each drained, swapped and taken back under load; a process elsewhere is killed meanwhile."""
    fewest = 3
    misses: list[str] = []
    with Pool(folder, nodes=3, processes=processes(rounds), links=True) as pool, pool.admin() as admin:
        names = pool.nodes
        with Load(pool.ledger, pool.client(), "proof.quote", lanes=LANES) as load:
            load.more(50)
            for number in range(rounds):
                version = str(number + 2)
                for name in names:
                    admin.drain(name, reason="update")
                    if name == names[1]:
                        _, came_back = kill_busy(pool, names[2])
                        if came_back != {str(number + 1)}:
                            misses.append(f"a process killed on {names[2]} came back as {came_back}")
                    fewest = min(fewest, active_nodes(pool))
                    pool.swap(name, version)
                    admin.rejoin(name)
                    found = {process["version"] for process in pool.node(name)["processes"]}
                    if found != {version}:
                        misses.append(f"{name} came back as {found}, not {version}")
                    load.more(50)
        if fewest < 2:
            misses.append(f"only {fewest} nodes were active")
        findings = pool.ledger.check(may_run_again=load.keys)
        figure = f"fewest active {fewest}, stall {load.stall * 1000:.0f} ms"
        return judge("rolling update, a process killed", findings, figure=figure, limit=">= 2 active", misses=misses)


def active_nodes(pool: Pool) -> int:
    found: int = pool.status()["services"][0]["active_nodes"]
    return found


def kill_busy(pool: Pool, node: str | None = None) -> tuple[str, set[str]]:
    """SIGKILL amid a request. Answers the key that was running, and the versions on the node when it is whole again."""
    pid, key = stopped_amid_a_request(pool, set(pool.processes(node)))
    owner = node or next(n["name"] for n in pool.status()["nodes"] if pid in pool.processes(n["name"]))
    before = len(pool.processes(owner))
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in pool.processes(owner) and len(pool.processes(owner)) >= before)
    return key, {process["version"] for process in pool.node(owner)["processes"]}


def stopped_amid_a_request(pool: Pool, among: set[int]) -> tuple[int, str]:
    """A process that is certainly in the middle of this request: it was stopped there."""
    until = time.monotonic() + SETTLED_S
    while time.monotonic() < until:
        running = {pid: key for key, pid in pool.running().items() if pid in among}
        for pid in running:
            os.kill(pid, signal.SIGSTOP)
            eventually(lambda pid=pid: is_stopped(pid), 1.0)  # type: ignore[misc]
            now = {at: key for key, at in pool.running().items()}
            if pid in now:
                return pid, now[pid]
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("no process is in the middle of a request")


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"


def drains(folder: Path, rounds: int = 1) -> Result:
    """A drain is complete at the master when the longest running request is, and 100 ms."""
    late: list[float] = []
    with Pool(folder, nodes=2, processes=processes(rounds)) as pool, pool.admin() as admin:
        client = pool.client()
        with Load(pool.ledger, client, "proof.book", lanes=4) as load, Slowest(pool) as slowest:
            for number in range(2 * rounds):
                long = [submit_long(pool.ledger, client, f"long-{number}-{n}", 0.2 + 0.1 * n) for n in range(2)]
                until(lambda keys=long: set(keys) <= {e.key for e in pool.ledger.executions()})  # type: ignore[misc]
                late.append(drain_late(pool, "node-1"))
                admin.rejoin("node-1")
                load.more(20)
        findings = pool.ledger.check()
    worst = max(late)
    # Where other tests have the cores, a status is late as well.
    misses = [f"a drain was complete {worst * 1000:.0f} ms late"] if worst > DRAIN_LIMIT_S + slowest.found else []
    figure = f"{statistics.median(late) * 1000:.0f} ms, at most {worst * 1000:.0f} ms"
    return judge("drain after the last reply", findings, figure=figure, limit="100 ms", misses=misses)


def submit_long(ledger: Ledger, client: object, key: str, seconds: float) -> str:
    ledger.submitted(key)

    def done(future: object) -> None:
        error = future.exception()  # type: ignore[attr-defined]
        ledger.answered(key, future.result()) if error is None else ledger.failed(key, error)  # type: ignore[attr-defined]

    client.submit("proof.book", key, seconds).add_done_callback(done)  # type: ignore[attr-defined]
    return key


def drain_late(pool: Pool, node: str) -> float:
    """Seconds from the end of the last request on the node to `detached` at the master, by the wall clock of both."""
    pids = set(pool.processes(node))
    with pool.admin() as admin:
        asked = time.time()
        since = max(event["number"] for event in admin.events())
        admin.drain(node)
        events = [e for e in admin.events(since) if e["kind"] == "detached" and e["subject"] == node]
    ended = [each.at for each in pool.ledger.executions() if each.word == "ended" and each.pid in pids]
    return float(events[0]["at"]) - max(asked, *ended)


def changes(folder: Path, rounds: int = 1) -> Result:
    """reload and max_requests under load: one process at a time."""
    settings = {"service.proof.max_requests": 100}
    misses: list[str] = []
    with Pool(folder, nodes=2, processes=2, settings=settings) as pool, pool.admin() as admin:
        fewest = Fewest(pool)
        with Load(pool.ledger, pool.client(), "proof.book", lanes=LANES) as load, fewest:
            for _ in range(rounds):
                before = set(pool.processes())
                admin.reload("proof", timeout=60)
                if before & set(pool.processes()):
                    misses.append("reload left a process of before")
                load.more(4 * 100)  # every process is replaced for its count, about once
            handled = pool.status()["nodes"]
            over = [p["handled"] for node in handled for p in node["processes"] if p["handled"] > 100 + 100]
            if over:
                misses.append(f"processes of {over} requests, with max_requests = 100")
        if fewest.found < 3:
            misses.append(f"only {fewest.found} of 4 processes were ready at some moment")
        figure = f"fewest ready {fewest.found} of 4"
        limit = "one at a time"
        return judge("reload, recycle", pool.ledger.check(), figure=figure, limit=limit, misses=misses)


class Looking:
    """Asks the master for its status on and on, in a thread beside the block."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self._looking = self._executor.submit(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what kept it from looking to the end: it would have seen less."""
        self._stop.set()
        self._looking.result(SETTLED_S)

    def _look(self) -> None:
        with self._pool.admin() as admin:
            while not self._stop.wait(0.02):
                asked = time.monotonic()
                self.see(admin.status(), time.monotonic() - asked)

    def see(self, status: Status, took: float) -> None:
        raise NotImplementedError


class Fewest(Looking):
    """The smallest number of processes that could be given work."""

    found = 1 << 30

    def see(self, status: Status, took: float) -> None:
        self.found = min(self.found, status["services"][0]["ready"])


class Slowest(Looking):
    """The longest time that a status took, in seconds: how busy the machine is."""

    found = 0.0

    def see(self, status: Status, took: float) -> None:
        self.found = max(self.found, took)


# ---- what breaks ----------------------------------------------------------------------------------------------------


def killed_processes(folder: Path, rounds: int = 1) -> Result:
    """A default handler: of each process that is killed, the one request that ran there ends as MaybeExecuted."""
    kills = 2 * rounds
    running: set[str] = set()
    with Pool(folder, nodes=2, processes=processes(rounds)) as pool:
        with Load(pool.ledger, pool.client(), "proof.book", lanes=LANES, seconds=0.02) as load:
            for _ in range(kills):
                load.more(40)
                key, _ = kill_busy(pool)
                running.add(key)
            load.more(40)
        told = set(pool.ledger.told("MaybeExecuted"))
        misses = [f"told MaybeExecuted: {told}; were running: {running}"] if told != running else []
        findings = pool.ledger.check()
        figure = f"{kills} kills, {len(told & running)} running"
        return judge(
            "SIGKILL, default handler", findings, faults={"MaybeExecuted": kills}, figure=figure, misses=misses
        )


def resets(folder: Path, rounds: int = 1) -> Result:
    """TCP resets of connections of clients, processes and agents, in turn."""
    chance = random.Random(7)
    done = {"frontend": 0, "backend": 0, "control": 0}
    with Pool(folder, nodes=2, processes=processes(rounds), proxied=True) as pool, pool.through_proxy() as proxy:
        with Client(pool.proxied_address) as client, Load(pool.ledger, client, "proof.book", lanes=LANES) as load:
            load.more(50)
            for number in range(10 * rounds):
                role = ("frontend", "backend", "backend", "control")[number % 4] if number % 5 else "frontend"
                every = proxy.connections(role) if number % 10 == 9 else 1  # at last all of a role at once
                for _ in range(max(1, every)):
                    until(lambda role=role: proxy.reset(role, chance))  # type: ignore[misc]
                    done[role] += 1
                load.more(25)
        figure = ", ".join(f"{count} {role}" for role, count in done.items()) + f", stall {load.stall * 1000:.0f} ms"
        return judge("TCP resets", pool.ledger.check(), figure=figure, limit="none lost or twice")


def master_restarts(folder: Path, rounds: int = 1) -> Result:
    """The master is killed under load: what it forgot it does not make up. Told to stop, it leaves nobody unsure."""
    epochs: list[int] = []
    with Pool(folder, nodes=2, processes=processes(rounds), settings={"master.dead_after": 1.5}) as pool:
        running = set(pool.processes())
        for kill in (True, False):
            before = len(pool.ledger.told("MaybeExecuted"))
            with Load(pool.ledger, pool.client(), "proof.book", lanes=LANES, seconds=0.02) as load:
                for _ in range(rounds):
                    load.more(50)
                    pool.restart_master(kill=kill)
                    epochs.append(pool.status()["master"]["epoch"])
                load.more(50)
        planned = len(pool.ledger.told("MaybeExecuted")) - before
        misses = [] if running == set(pool.processes()) else ["processes did not live on"]
        misses += [f"{planned} unsure though the master was only told to stop"] if planned else []
        misses += [] if epochs == sorted(set(epochs)) else [f"epochs did not rise: {epochs}"]
        findings = pool.ledger.check()
        # What only the old master knew of is told as unknown; how much of that had really begun is in the figure.
        unsure = set(pool.ledger.told("MaybeExecuted"))
        begun = len(unsure & {each.key for each in pool.ledger.executions()})
        figure = f"{len(epochs)} restarts, {len(unsure)} unsure ({begun} had begun), stall {load.stall * 1000:.0f} ms"
        return judge(
            "master restarted",
            findings,
            any_number_of=("MaybeExecuted",),
            figure=figure,
            limit="0 wrong, 0 twice",
            misses=misses,
        )


def killed_agent(folder: Path, rounds: int = 1) -> Result:
    """SIGKILL at an agent takes its processes along; a fresh one takes over. TERM drains first."""
    misses: list[str] = []
    could_run = processes(rounds) * rounds
    with Pool(folder, nodes=2, processes=processes(rounds), settings={"master.dead_after": 1.2}) as pool:
        for _ in range(rounds):
            with Load(pool.ledger, pool.client(), "proof.book", lanes=LANES, seconds=0.02) as load:
                load.more(40)
                boot, pids = pool.node("node-1")["boot"], pool.processes("node-1")
                pool.stop_node("node-1", kill=True)
                if not eventually(lambda pids=pids: all(map(is_gone, pids)), 5):  # type: ignore[misc]
                    misses.append("processes outlived their agent")
                load.more(40)
                pool.start_node("node-1")
                if pool.node("node-1")["boot"] == boot:
                    misses.append("the new agent has the boot of the old one")
                load.more(40)
            lost = len(pool.ledger.told("MaybeExecuted"))
            with Load(pool.ledger, pool.client(), "proof.book", lanes=LANES, seconds=0.02) as load:
                load.more(40)
                pool.stop_node("node-1")
                load.more(40)
                pool.start_node("node-1")
                load.more(40)
            if load.faults:
                misses.append(f"{load.faults} failed when the agent was told to stop by TERM")
        findings = pool.ledger.check()
        if lost > could_run:
            misses.append(f"{lost} MaybeExecuted, {could_run} could be running")
        figure = f"{lost} were running"
        limit = f"<= {could_run}"
        any_number_of = ("MaybeExecuted",)
        return judge(
            "agent killed, told to stop",
            findings,
            any_number_of=any_number_of,
            figure=figure,
            limit=limit,
            misses=misses,
        )


# ---- what is sent to it ---------------------------------------------------------------------------------------------


def hostile_frames(folder: Path, rounds: int = 1) -> Result:
    """Damaged, replayed, foreign and oversized frames on each of the three sockets, while a good client is served."""
    count = 1500 * rounds
    sent = count * len(hostile.ROLES)
    chance = random.Random(rounds)
    misses: list[str] = []
    with Pool(folder, nodes=1, processes=2) as pool:
        where = pool._running_where()
        ports = {"frontend": where.frontend, "backend": where.backend}
        addresses = {"control": pool.address} | {role: f"tcp://127.0.0.1:{port}" for role, port in ports.items()}
        before = pool.processes("node-1")
        with Load(pool.ledger, pool.client(), "proof.book", lanes=4) as load:
            for role in hostile.ROLES:
                hostile.flood(role, addresses[role.socket], count, chance)
                load.more(10)
            for address in addresses.values():
                hostile.oversized(address)
                hostile.not_zmtp(int(address.rpartition(":")[2]), chance)
            load.more(50)
        status = pool.status()
        counters = status["master"]["counters"]
        counted = sum(counters.get(name, 0) for name in ("bad frames", "bad messages", "unknown routes", "replayed"))
        if pool.processes("node-1") != before:
            misses.append("processes were lost")
        if pool.node("node-1")["intent"] != "active" or pool.node("node-1")["liveness"] != "live":
            misses.append("the good node is not what it was")
        if counted < count:
            misses.append(f"only {counted} of {sent} frames were counted: {counters}")
        figure = f"{sent} frames, {counted} counted, stall {load.stall * 1000:.0f} ms"
        return judge("hostile frames", pool.ledger.check(), figure=figure, limit="others served on", misses=misses)


# ---- overload -------------------------------------------------------------------------------------------------------


def deadlines(folder: Path, rounds: int = 1) -> Result:
    """A request's deadline is answered by the master when it is over; the attempt goes on, and is run once."""
    late: list[float] = []
    with Pool(folder, nodes=1, processes=2) as pool, Slowest(pool) as slowest:
        client = pool.client(timeout=0.3)
        for number in range(2 * rounds):
            keys = [f"deadline-{number}-{n}" for n in range(4)]  # two run, two wait
            begun = time.monotonic()
            futures = []
            for key in keys:
                pool.ledger.submitted(key)
                futures.append(client.submit("proof.book", key, 0.5))
            for key, future in zip(keys, futures, strict=True):
                error = future.exception(SETTLED_S)
                late.append(time.monotonic() - begun - 0.3)
                pool.ledger.failed(key, error) if error else pool.ledger.answered(key, future.result())
            until(lambda: not pool.running())
        misses = [] if counted_late(pool) == 4 * rounds else [f"{counted_late(pool)} late replies were counted"]
        key = submit_long(pool.ledger, pool.client(), "after", 0.0)
        until(lambda: key in pool.ledger.told("answered"))
        ran = {each.key for each in pool.ledger.executions()}
        waited = [key for key in pool.ledger.told("Timeout") if key not in ran]
        if len(waited) != 4 * rounds:
            misses.append(f"{len(waited)} of {4 * rounds} that only waited were not run")
        findings = pool.ledger.check()
    worst = max(late)
    # Where other tests have the cores, what no timer is in is late as well.
    misses += [f"{worst * 1000:.0f} ms late"] if worst > DEADLINE_LIMIT_S + slowest.found or min(late) < -0.002 else []
    figure = f"{statistics.median(late) * 1000:.1f} ms, at most {worst * 1000:.1f} ms after it"
    figure += f"; status in {slowest.found * 1000:.1f} ms"
    faults = {"Timeout": 8 * rounds}
    return judge("request deadline", findings, faults=faults, figure=figure, limit="20 ms", misses=misses)


def counted_late(pool: Pool) -> int:
    counters = pool.status()["master"]["counters"]
    return sum(count for name, count in counters.items() if "late" in name)


def overload(folder: Path, rounds: int = 1) -> Result:
    """More than the queue takes is refused at once, with a hint when to come back; what is refused is not run."""
    settings = {"service.proof.queue_limit": 10}
    misses: list[str] = []
    with Pool(folder, nodes=1, processes=1, settings=settings) as pool:
        client = pool.client()
        hints: list[float | None] = []
        worst = 0.0
        for number in range(rounds):
            block = submit_long(pool.ledger, client, f"block-{number}", 0.3)
            until(lambda block=block: block in pool.running())  # type: ignore[misc]
            refused, busy, took = refusals(pool, client, [f"many-{number}-{n}" for n in range(200)], hints)
            worst = max(worst, refused)
            # Where other tests have the cores, a status is late as well; work of the master itself is no excuse.
            if refused > REFUSAL_LIMIT_S + took:
                misses.append(f"refused after {refused * 1000:.0f} ms, while a status took {took * 1000:.0f} ms")
            if busy > REFUSAL_LIMIT_S:
                misses.append(f"the master was busy for {busy * 1000:.0f} ms")
            until(lambda: not pool.running())
        findings = pool.ledger.check()
    if not all(hints):
        misses.append("a refusal came without a hint when to retry")
    count = findings.faults["Overloaded"]
    if not 200 * rounds - 30 * rounds <= count <= 190 * rounds:
        misses.append(f"{count} of {200 * rounds} were refused, with room for 10")
    figure = f"{count} refused, all within {worst * 1000:.0f} ms"
    any_number_of = ("Overloaded",)
    return judge("overload", findings, any_number_of=any_number_of, figure=figure, limit="250 ms", misses=misses)


def refusals(pool: Pool, client: Client, keys: list[str], hints: list[float | None]) -> tuple[float, float, float]:
    """Of these calls at once, in seconds: the longest until one was refused, what the master worked meanwhile, and the
    longest that a status took meanwhile.
    """
    master = pool.status()["master"]["pid"]
    took: dict[str, float] = {}
    futures = {}
    with Slowest(pool) as slowest:
        before = worked(master)
        for key in keys:
            pool.ledger.submitted(key)
            begun = time.monotonic()
            futures[key] = client.submit("proof.book", key)
            futures[key].add_done_callback(
                lambda _, key=key, begun=begun: took.update({key: time.monotonic() - begun})  # type: ignore[misc]
            )
        errors = {key: future.exception(SETTLED_S) for key, future in futures.items()}
        busy = worked(master) - before
    until(lambda: len(took) == len(keys), "a callback did not come")
    for key, error in errors.items():
        pool.ledger.failed(key, error) if error else pool.ledger.answered(key, futures[key].result(0))
    refused = [key for key, error in errors.items() if error]
    hints += [getattr(errors[key], "retry_after", None) for key in refused]
    return max((took[key] for key in refused), default=0.0), busy, slowest.found


def worked(pid: int) -> float:
    """Seconds of a core that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SCENARIOS: dict[str, Callable[..., Result]] = {
    each.__name__: each
    for each in (
        rolling_update,
        killed_processes,
        drains,
        resets,
        master_restarts,
        killed_agent,
        changes,
        hostile_frames,
        deadlines,
        overload,
    )
}
