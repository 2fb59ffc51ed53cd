"""The two clocks: the caller's deadline, which kills nothing, and the handler's limit, which does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from system.load import Load
from system.pool import Pool
from waiting import is_gone, until

from .app import LIMIT_S
from .play import APP, ASYNC_APP, Callers, Outcome, Victim, began, fault, judged, victim, whole

DEADLINE_S = 0.3
DEADLINE_LATE_S = 0.02
LIMIT_LATE_S = 0.3
FIFTY = 50


@fault("caller's time-out")
def deadline(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Answered at the deadline, running or queued; the attempt goes on, and nothing is killed."""
    took: dict[str, float] = {}
    with Pool(folder, app=APP, nodes=2, processes=2) as pool:
        before = set(pool.processes())
        with Callers(pool, lanes=1) as callers:
            for _ in range(rounds):
                at = time.monotonic()
                key = callers.default.one(2 * DEADLINE_S, timeout=DEADLINE_S)
                took[key] = callers.default.told(key) - at - DEADLINE_S
            callers.more()
            until(lambda: not set(pool.running()) & set(took))
        misses = [] if before == set(pool.processes()) else ["processes were lost"]
    late = max(took.values())
    misses += [f"answered {late * 1000:.0f} ms after the deadline"] if late > DEADLINE_LATE_S else []
    figure = "counted from the deadline (<= 20 ms)"
    return callers.outcomes(title, told=("Timeout",), hit=took, detected=took, figure=figure, misses=misses)


def stop(hit: Victim) -> None:
    os.kill(hit.pid, signal.SIGSTOP)


HANGS: dict[str, Callable[[Victim], None] | None] = {
    "wait": stop,
    "regex": None,
    "loop_in_c": None,
    "deadlock": None,
}


@fault("handler over its limit: SIGSTOP, regex, C loop, deadlock")
def hung(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Gone at the limit and a little, replaced, its caller told."""
    took: dict[str, float] = {}
    worst: dict[str, float] = {}
    with Pool(folder, app=APP, nodes=2, processes=3) as pool, Callers(pool) as callers:
        for _ in range(min(rounds, 5)):
            for harm, hang in HANGS.items():
                hit = victim(callers.default, pool, harm, target="proof.limited")
                if hang is not None:
                    hang(hit)
                late = gone_after(pool, hit) - LIMIT_S
                hit.told()
                took[hit.key], worst[harm] = late, max(late, worst.get(harm, 0.0))
            whole(pool)
    misses = [f"{harm}: gone {late * 1000:.0f} ms late" for harm, late in worst.items() if late > LIMIT_LATE_S]
    figure = "gone after the limit: " + ", ".join(f"{harm} {late * 1000:.0f} ms" for harm, late in worst.items())
    return callers.outcomes(title, hit=took, detected=took, figure=f"{figure} (<= 300)", misses=misses)


def gone_after(pool: Pool, hit: Victim) -> float:
    """Seconds from the beginning of its handler to the end of its process."""
    (at,) = (each.at for each in pool.ledger.executions() if each.key == hit.key and each.word == "began")
    until(lambda: is_gone(hit.pid), "it was not ended")
    return time.time() - at


@fault("one late task among fifty, async")
def late_task(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """It is cancelled at its limit, and the others do not notice. One that will not be cancelled takes its process."""
    took: list[float] = []
    misses: list[str] = []
    with Pool(folder, app=ASYNC_APP, nodes=1, processes=1, settings={"service.proof.credit": 64}) as pool:
        before = pool.processes()
        with Load(pool.ledger, pool.client(), "proof.book", lanes=FIFTY - 1, seconds=0.2) as load:
            for _ in range(min(rounds, 5)):
                load.more(FIFTY)
                key = load.one(60.0)
                began(pool, key)
                at = time.monotonic()
                took.append(load.told(key) - at - LIMIT_S)
            load.more(FIFTY)
        if pool.processes() != before:
            misses.append("the process was replaced")
        findings = pool.ledger.check()
        misses += judged(findings, ("RemoteError", "MaybeExecuted"))
        if findings.failed != len(took):
            misses.append(f"{findings.failed} failed, {len(took)} were late")
        with Load(pool.ledger, pool.client(), "proof.book", lanes=4, seconds=0.05) as others:
            stubborn = others.one(60.0, True)
            pid = began(pool, stubborn)
            until(lambda: is_gone(pid), "it was not ended")
            others.told(stubborn)
            others.more(20)
    late = max(took)
    misses += [f"cancelled {late * 1000:.0f} ms late"] if late > LIMIT_LATE_S else []
    findings = pool.ledger.check()
    misses += judged(findings, ("RemoteError", "MaybeExecuted"))
    return [Outcome(title, "default", findings, took, load.stall, "cancelled after the limit (<= 300 ms)", misses)]
