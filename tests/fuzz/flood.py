"""A real master with a real node, one of its sockets flooded, and a good client that is to notice nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from lines import next_line
from system.pool import Pool

from rota import Error
from rota.common import wire

from .damage import damaged
from .peers import SOCKETS, Hung, Stage

FRAMES_A_GUEST = 400  # then the next one comes
HELLO_EVERY = 50  # what it sends may end its session: a stranger's frames would not get far
WARM_UP_S = 15.0  # until what the first sessions left behind has ended
RSS_MAX = 5 << 20
STALL_MAX_MS = 2000.0
COUNTED = ("bad frames", "bad messages", "unknown routes", "replayed", "resent", "stray replies", "late replies")
SETTINGS = {"master.session_idle": 10.0}  # what fuzzed sessions leave behind is to end within the run


class Flooded(NamedTuple):
    socket: str
    frames: int
    per_second: float
    counters: dict[str, int]
    rss_before: int
    rss_after: int
    good: dict[str, Any]
    misses: list[str]

    @property
    def counted(self) -> int:
        return sum(self.counters.values())


def flood(
    socket: str, folder: Path, frames: int, warmup: int, seed: int, tell: Callable[[str], None] = lambda text: None
) -> Flooded:
    with Pool(folder, nodes=1, processes=2, settings=SETTINGS) as pool:
        client = pool.client()
        client.call("proof.pid")
        where = pool._running_where()
        host = where.control.rpartition(":")[0]
        addresses = {
            "control": where.control,
            "frontend": f"{host}:{where.frontend}",
            "backend": f"{host}:{where.backend}",
        }
        pid = int(pool.status()["master"]["pid"])
        good = _GoodClient(where.control)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.max_sockets = 4096
        misses: list[str] = []
        sent, took, before, after = 0, 0.0, 0, 0
        counters: dict[str, int] = {}
        try:
            sender = _Sender(socket, Stage(context, addresses), random.Random(seed))
            begun = time.monotonic()
            sender.send(warmup)
            while time.monotonic() < begun + (WARM_UP_S if warmup else 0.0):
                sender.send(HELLO_EVERY)
            tell(f"{socket}: warmed up")
            first, before = _counters(pool), rss(pid)
            begun = time.monotonic()
            while sent < frames:
                batch = min(frames - sent, 50_000)
                sender.send(batch)
                sent += batch
                tell(
                    f"{socket}: {sent:,} frames, {sent / (time.monotonic() - begun):,.0f}/s, {_delta(before, rss(pid))}"
                )
            took = time.monotonic() - begun
            after = rss(pid)
            counters = {name: count - first.get(name, 0) for name, count in _counters(pool).items()}
            tell(f"{socket}: {counters}")
            pool.client().call("proof.pid")
        except (Hung, Error, OSError) as error:
            misses.append(f"{type(error).__name__}: {error}")
        finally:
            context.destroy(linger=0)
            fared = good.stop()
        if misses:
            misses.append(f"the master's log ends with: {pool.log()[-1500:]}")
    return _judged(Flooded(socket, sent, sent / took if took else 0.0, counters, before, after, fared, misses))


def _judged(found: Flooded) -> Flooded:
    misses = found.misses
    if found.rss_after - found.rss_before > RSS_MAX:
        misses.append(f"RSS grew by {_delta(found.rss_before, found.rss_after)}")
    if found.good["failures"] or not found.good["calls"]:
        misses.append(f"{found.good['failures']} of {found.good['calls']} good calls failed: {found.good['errors']}")
    if found.good["stall_ms"] > STALL_MAX_MS:
        misses.append(f"the good client stood still for {found.good['stall_ms']:.0f} ms")
    return found


class _Sender:
    """Sends damaged frames, as one guest after the other."""

    def __init__(self, socket: str, stage: Stage, chance: random.Random) -> None:
        self._guests = SOCKETS[socket](stage, chance)
        self._chance = chance

    def send(self, count: int) -> None:
        while count > 0:
            guest = next(self._guests)
            sent = 0
            while sent < min(count, FRAMES_A_GUEST) and guest.peer.hello(guest.hello).kind == wire.WELCOME:
                guest.peer.drain()
                genuine = guest.frames(guest.peer.token)
                for _ in range(min(count - sent, HELLO_EVERY)):
                    guest.peer.send(damaged(genuine, self._chance))
                    sent += 1
                guest.beat()
            count -= sent


class _GoodClient:
    """In a process of its own: the fuzzer keeps this one's interpreter busy."""

    def __init__(self, address: str) -> None:
        program = Path(__file__).with_name("good.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        next_line(self._process)

    def stop(self) -> dict[str, Any]:
        told, _ = self._process.communicate(timeout=60)
        fared: dict[str, Any] = json.loads(told or '{"calls": 0, "failures": 0, "stall_ms": 0, "errors": {}}')
        return fared


def _counters(pool: Pool) -> dict[str, int]:
    told: dict[str, int] = pool.status()["master"]["counters"]
    return {name: count for name, count in told.items() if name in COUNTED}


def rss(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _delta(before: int, after: int) -> str:
    return f"{(after - before) / 2**20:+.1f} MiB"
