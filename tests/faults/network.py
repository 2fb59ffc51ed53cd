"""Faults of the way between a node and its master: by a proxy anywhere, by packets where there are namespaces."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from system.ledger import Ledger
from system.pool import Pool
from system.proxy import Proxy
from waiting import until

import rota

from .nodes import cut_off
from .play import APP, Callers, NotPlayed, Outcome, Watch, events, fault, judged
from .wire import NEAR, Network

CUT_S = 5.0
LONG_S = 600.0
FLIP = 0.03  # of the pieces of data that pass
SEALED_S = 1.0
SEALED = 25  # calls between two clean starts


# ---- by a proxy -----------------------------------------------------------------------------------------------------


@fault("TCP resets")
def resets(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Of connections of clients, processes and agents, in turn."""
    chance = random.Random(7)
    with Pool(folder, app=APP, nodes=2, processes=2, proxied=True) as pool, pool.through_proxy() as proxy:
        with proxied_callers(pool) as callers:
            for number in range(5 * rounds):
                role = ("frontend", "backend", "control")[number % 3]
                until(lambda role=role: proxy.reset(role, chance))  # type: ignore[misc]
                callers.more(10)
        done = proxy.resets
    return callers.outcomes(title, told=(), figure=f"{done} resets")


@contextmanager
def proxied_callers(pool: Pool, **options: Any) -> Iterator[Callers]:
    """Clients on the other side of the proxy too."""
    with ExitStack() as stack:
        yield stack.enter_context(
            Callers(pool, client=lambda: stack.enter_context(rota.Client(pool.proxied_address)), **options)
        )


@fault("TCP delayed by 50 to 150 ms each way")
def delays(folder: Path, rounds: int, title: str) -> list[Outcome]:
    with Pool(folder, app=APP, nodes=2, processes=2, proxied=True) as pool, pool.through_proxy() as proxy:
        with proxied_callers(pool) as callers, Watch(pool, "node-1") as watch:
            callers.more()
            proxy.delay = (0.05, 0.15)
            callers.steady(1.0 + rounds)
            proxy.delay = None
            callers.more()
        dead = events(pool, "DEAD")
    misses = [f"{len(dead)} nodes were called DEAD"] if dead else []
    return callers.outcomes(
        title, told=(), figure=f"suspect {suspicions(watch)} times, DEAD {len(dead)}", misses=misses
    )


def suspicions(watch: Watch) -> int:
    """How often it became suspect."""
    pairs = zip(watch.seen, watch.seen[1:], strict=False)
    return sum(one.liveness != "suspect" == two.liveness for one, two in pairs)


@fault("black hole: connections stay open, nothing passes")
def black_hole(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Suspect, given nothing more, DEAD; afterwards it comes back."""
    took: list[float] = []
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=2, processes=2, proxied=["node-1"]) as pool, pool.through_proxy() as proxy:
        with Callers(pool) as callers, Watch(pool, "node-1") as watch:
            for _ in range(min(rounds, 3)):
                callers.more()
                at = time.monotonic()
                proxy.hole = ("control", "backend")
                took.append(cut_off(watch, at, misses))
                callers.more()
                healed = time.monotonic()
                proxy.heal()
                watch.wait(healed, "live")
                until(lambda: len(pool.processes("node-1")) == 2)
                callers.more()
    return callers.outcomes(title, detected=took, figure="detected: suspect (<= 1 s); DEAD <= 3.5 s", misses=misses)


@fault("bit flips")
def flips(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """A head that was turned over is counted and dropped; a body is the application's, and these are sealed."""
    with Pool(folder, app=APP, nodes=2, processes=2, proxied=True) as pool, pool.through_proxy() as proxy:
        with rota.Client(pool.proxied_address) as client, ThreadPoolExecutor(8) as threads:
            patient = client.options(timeout=SEALED_S)
            sealed_call(pool.ledger, patient, "first")
            keys: list[str] = []
            worst = 0.0
            for number in range(20 * rounds):
                if number >= 2 * rounds and bad_frames(pool):  # most flips hit a body or a length
                    break
                batch = [f"sealed-{number}-{place}" for place in range(SEALED)]
                keys += batch
                proxy.flip = FLIP
                worst = max(worst, *threads.map(lambda key: sealed_call(pool.ledger, patient, key), batch))
                proxy.flip = 0.0
                cut_all(proxy)  # a length that was turned over waits for more for ever
            good = client.options(timeout=10)
            after = [f"after-{number}" for number in range(20)]
            for key in after:
                sealed_call(pool.ledger, good, key)
            healed = set(after) <= set(pool.ledger.told("answered"))
        bad = bad_frames(pool)
        findings = pool.ledger.check(may_run_again=keys)
    told = {
        "Timeout",
        "Unavailable",
        "RemoteError",
        "ProtocolError",
        "NoService",
        "BindError",
        "Damaged",
        "MaybeExecuted",
    }
    misses = judged(findings, told)
    misses += [] if healed else ["not all was well when it was over"]
    misses += [] if bad else ["no bad frame was counted"]
    figure = f"{proxy.flips} flips, {bad} bad frames at the master"
    return [Outcome(title, "sealed", findings, [], worst, figure, misses)]


def bad_frames(pool: Pool) -> int:
    return int(pool.status()["master"]["counters"].get("bad frames", 0))


def cut_all(proxy: Proxy) -> None:
    for role in ("frontend", "backend", "control"):
        for _ in range(proxy.connections(role)):
            proxy.reset(role)


class Damaged(rota.Error):
    """The seal of an answer is broken: the caller knows that it is none."""


def sealed_call(ledger: Ledger, client: rota.Client, key: str) -> float:
    """How long it took."""
    data = os.urandom(16)
    seal = zlib.crc32(data, zlib.crc32(key.encode()))
    ledger.submitted(key)
    at = time.monotonic()
    try:
        answer = client.call("proof.sealed", key, data, seal)
        if answer != [key, data, seal] and not _sealed(answer):
            raise Damaged(f"{key}: the answer's seal is broken")
        ledger.answered(key, answer)
    except (rota.Error, TypeError, ValueError) as error:  # a body that cannot be decoded
        ledger.failed(key, error if isinstance(error, rota.Error) else Damaged(str(error)))
    return time.monotonic() - at


def _sealed(answer: Any) -> bool:
    try:
        key, data, seal = answer
        return bool(zlib.crc32(data, zlib.crc32(key.encode())) == seal)
    except (TypeError, ValueError, AttributeError):
        return False


# ---- by packets -----------------------------------------------------------------------------------------------------


class Wired(Pool):
    """`far` is at the other end of a network, `near` beside the master."""

    _bind = "tcp://0.0.0.0:*"

    def __init__(self, folder: Path, network: Network, **options: Any) -> None:
        self._network = network
        super().__init__(folder, app=APP, nodes=["near", "far"], processes=2, **options)

    def _arguments(self, name: str, source: Any, version: str | None) -> list[str]:
        arguments = super()._arguments(name, source, version)
        if name == "far":
            arguments[arguments.index("--master") + 1] = f"tcp://{NEAR}:{self.address.rpartition(':')[2]}"
        return arguments

    def _start_node(self, name: str, arguments: list[str]) -> None:
        if name == "near":
            super()._start_node(name, arguments)
            return
        with self._network.far():
            super()._start_node(name, arguments)


@contextmanager
def wired(folder: Path) -> Iterator[tuple[Network, Wired]]:
    with ExitStack() as stack:
        try:
            network = stack.enter_context(Network())
        except OSError as error:
            raise NotPlayed(f"no network of its own: {error}") from None
        yield network, stack.enter_context(Wired(folder, network))


@fault("packets dropped from the node to the master")
def drop_out(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return dropped(folder, rounds, title, ["out"])


@fault("packets dropped from the master to the node")
def drop_in(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return dropped(folder, rounds, title, ["in"])


@fault("packets dropped both ways")
def drop_both(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return dropped(folder, rounds, title, ["out", "in"])


def dropped(folder: Path, rounds: int, title: str, ways: Sequence[str]) -> list[Outcome]:
    """Suspect, given nothing more, DEAD; when packets pass again, it comes back."""
    took: list[float] = []
    misses: list[str] = []
    with wired(folder) as (network, pool), Callers(pool) as callers, Watch(pool, "far") as watch:
        for _ in range(min(rounds, 2)):
            callers.more()
            at = time.monotonic()
            network.rules(cut=ways)
            took.append(cut_off(watch, at, misses))
            callers.steady(CUT_S - (time.monotonic() - at))
            healed = time.monotonic()
            network.rules()
            watch.wait(healed, "live")
            until(lambda: len(pool.processes("far")) == 2)
            callers.more()
    return callers.outcomes(title, detected=took, figure="detected: suspect (<= 1 s); DEAD <= 3.5 s", misses=misses)


@fault("packets: 100 ± 50 ms, 2 % lost")
def lossy(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return bad_wire(folder, title, 2.0 * rounds, delay=(0.05, 0.15), loss=0.02)


@fault("packets: 100 ± 50 ms, 2 % lost, 10 minutes", long=True)
def lossy_long(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return bad_wire(folder, title, LONG_S, delay=(0.05, 0.15), loss=0.02)


@fault("1 Mbit/s")
def slow_wire(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return bad_wire(folder, title, 1.0 * rounds, rate=1e6 / 8)


def bad_wire(folder: Path, title: str, seconds: float, **rules: Any) -> list[Outcome]:
    """A bad wire is no reason to call a node DEAD, and nothing fails."""
    with wired(folder) as (network, pool):
        with Callers(pool) as callers, Watch(pool, "far") as watch:
            network.rules(**rules)
            callers.steady(seconds)
            network.rules()
            callers.more()
        dead = events(pool, "DEAD")
    misses = [f"{len(dead)} times called DEAD"] if dead else []
    figure = f"{seconds:g} s: suspect {suspicions(watch)} times, DEAD {len(dead)}"
    return callers.outcomes(title, told=(), figure=figure, misses=misses)


# ---- not enough processor -------------------------------------------------------------------------------------------


@fault("twofold CPU oversubscription")
def oversubscribed(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return crowded(folder, title, 2.0 * rounds)


@fault("twofold CPU oversubscription, 10 minutes", long=True)
def oversubscribed_long(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return crowded(folder, title, LONG_S)


def crowded(folder: Path, title: str, seconds: float) -> list[Outcome]:
    """Two busy loops a core beside it: nobody is called DEAD, nothing fails."""
    with Pool(folder, app=APP, nodes=2, processes=2) as pool:
        with Callers(pool) as callers, Watch(pool, "node-1") as one, Watch(pool, "node-2") as two:
            with burners(2 * (os.cpu_count() or 1)):
                callers.steady(seconds)
            callers.more()
        dead = events(pool, "DEAD")
    misses = [f"{len(dead)} times called DEAD"] if dead else []
    figure = f"{seconds:g} s: suspect {suspicions(one) + suspicions(two)} times, DEAD {len(dead)}"
    return callers.outcomes(title, told=(), figure=figure, misses=misses)


@contextmanager
def burners(count: int) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=burn, args=(os.getpid(),), daemon=True) for _ in range(count)]
    for each in processes:
        each.start()
    try:
        yield
    finally:
        for each in processes:
            each.kill()
            each.join()


def burn(parent: int) -> None:
    while os.getppid() == parent:
        sum(range(1_000_000))
