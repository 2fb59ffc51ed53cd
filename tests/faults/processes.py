"""Faults of a process: killed, stopped, ended by its own handler, not to be started, not to be ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system.pool import Pool
from waiting import eventually, until

from .play import APP, SETTLED_S, Callers, Outcome, at_start, began, children, events, fault, gone, victim, whole

KILL_LIMIT_S = 0.05
KILLS = 20  # a round
MEMORY = Path("/sys/fs/cgroup/memory")  # version 1
UNIFIED = Path("/sys/fs/cgroup")  # version 2
MEMORY_LIMIT = 768 << 20  # for the whole cluster, which takes a third of it


@fault("SIGKILL of a busy process")
def kill_process(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Only the one request is affected, and its caller knows within 50 ms."""
    took: dict[str, float] = {}
    with Pool(folder, app=APP, nodes=2, processes=6 if rounds == 1 else 12) as pool:
        with Callers(pool) as callers:
            for _ in range(rounds):
                for number in range(4 if rounds == 1 else KILLS):
                    hit = victim(callers.both[number % 2], pool)
                    at = time.monotonic()
                    os.kill(hit.pid, signal.SIGKILL)
                    took[hit.key] = hit.told() - at
                whole(pool)
    late = percentile(list(took.values()), 0.99)
    misses = [f"p99 {late * 1000:.0f} ms"] if late > KILL_LIMIT_S else []
    figure = f"{len(took)} kills, p99 {late * 1000:.1f} ms (<= 50)"
    return callers.outcomes(title, hit=took, detected=took, figure=figure, misses=misses)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@fault("SIGSTOP of a process, CONT after 1 s")
def stop_process(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Below its limit a stopped process is only slow."""
    with Pool(folder, app=APP, nodes=2, processes=2) as pool, Callers(pool) as callers:
        for _ in range(rounds):
            hit = [victim(load, pool, 0.2) for load in callers.both]
            for each in hit:
                os.kill(each.pid, signal.SIGSTOP)
            callers.steady(1.0)
            for each in hit:
                os.kill(each.pid, signal.SIGCONT)
            for each in hit:
                each.told()
    return callers.outcomes(title, told=())


@fault("os._exit in a handler")
def exit_at_once(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return harmed(folder, rounds, title, "exit_at_once")


@fault("segmentation fault")
def segfault(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return harmed(folder, rounds, title, "segfault")


@fault("all descriptors closed by a handler")
def close_descriptors(folder: Path, rounds: int, title: str) -> list[Outcome]:
    return harmed(folder, rounds, title, "close_descriptors")


@fault("out of memory")
def out_of_memory(folder: Path, rounds: int, title: str) -> list[Outcome]:
    with memory_group() as group:
        if group is not None:
            return harmed(folder, rounds, title, "eat", at_start(MEMORY_GROUP=str(group)), "a memory group of 768 MiB")
    told = ("RemoteError",)  # MemoryError: the handler ran, and raised
    with Pool(folder, app=APP, nodes=1, processes=2) as pool, Callers(pool) as callers:
        hit = []
        for _ in range(rounds):
            hit.append(victim(callers.default, pool, 0.0, "eat"))
            hit[-1].told()
    keys = [each.key for each in hit]
    return callers.outcomes(title, told=told, hit=keys, figure="MemoryError under RLIMIT_AS: no memory group")


def harmed(
    folder: Path, rounds: int, title: str, harm: str, env: dict[str, str] | None = None, figure: str = ""
) -> list[Outcome]:
    """A handler ends its own process: the one request is told, or run again, and the process is replaced. The kernel
    may end a second process before the first one has given its memory back: what ran there is told so, too.
    """
    took: dict[str, float] = {}
    with Pool(folder, app=APP, nodes=1, processes=3, env=env) as pool, Callers(pool) as callers:
        for _ in range(min(rounds, 5)):
            for load in callers.both:
                at = time.monotonic()
                hit = victim(load, pool, 0.0, harm)
                took[hit.key] = hit.told() - at
            whole(pool)
        callers.more()
        deaths = causes_of_deaths(pool)
    beside = sum("out of memory" in death for death in deaths) - len(took)
    more = [f"{beside} more than asked for it"] if beside > 0 else []
    figure = "; ".join(filter(None, [figure, *sorted(set(deaths)), *more]))
    return callers.outcomes(title, hit=None if more else took, detected=took, figure=figure)


def causes_of_deaths(pool: Pool) -> list[str]:
    """As the events tell them, without what is of one process."""
    return [event["text"].partition(") ")[2].partition(";")[0] for event in events(pool, "process lost")]


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """A memory group of its own with a limit; None where we may not make one."""
    parent, limit = (MEMORY, "memory.limit_in_bytes") if MEMORY.is_dir() else (UNIFIED, "memory.max")
    group = parent / f"rota-faults-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        try:
            (group / limit).write_text(str(MEMORY_LIMIT))
            usable: Path | None = group
        except OSError:  # version 2, and the controller is not delegated to us
            usable = None
        yield usable
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text().split())
        group.rmdir()


@fault("the application cannot be imported on one node")
def import_failure(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """The other node serves; the failure is shown with its traceback; a recheck takes the mended node back. Once only:
    each crash doubles the agent's patience, which is not what is looked at here.
    """
    misses: list[str] = []
    took: list[float] = []
    with Pool(folder, nodes=2, processes=2, links=True) as pool, Callers(pool) as callers, pool.admin() as admin:
        (pool.release("broken") / "app.py").write_text("import no_such_module\n")
        pool.swap("node-1", "broken")
        killed = pool.processes("node-1")
        at = time.monotonic()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if eventually(lambda: "no_such_module" in str(pool.node("node-1")["failing"]), SETTLED_S):
            took.append(time.monotonic() - at)
        else:
            misses.append(f"the failure is not shown: {pool.node('node-1')}")
        callers.more(50)
        pool.swap("node-1", "1")
        admin.recheck("node-1")
        if not eventually(lambda: len(pool.processes("node-1")) == 2, SETTLED_S):
            misses.append("the mended node did not come back")
    return callers.outcomes(title, detected=took, misses=misses)


@fault("TERM ignored, with children that ignore it too")
def ignored_term(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """A drain that is over its deadline ends the whole process group."""
    settings = {"slave.stop_grace": "200ms"}
    took: list[float] = []
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=2, processes=2, settings=settings) as pool, pool.admin() as admin:
        with Callers(pool) as callers:
            hit: list[str] = []
            for _ in range(min(rounds, 5)):
                admin.drain("node-2")  # both victims are to be on the other
                keys = [load.one(0.0, "shield") for load in callers.both]
                group = [began(pool, key) for key in keys]
                until(lambda keys=keys: len(children(pool, keys)) == 2 * len(keys))  # type: ignore[misc]
                group += children(pool, keys)
                admin.rejoin("node-2")
                at = time.monotonic()
                admin.drain("node-1", deadline=0.3)
                ended = gone(group, 10)
                if ended is None:
                    misses.append("some of the group live on")
                    for pid in group:
                        os.kill(pid, signal.SIGKILL)
                else:
                    took.append(ended - at - 0.3)
                for load, key in zip(callers.both, keys, strict=True):
                    load.told(key)
                hit += keys
                admin.rejoin("node-1")
                callers.more()
    figure = f"{2 * len(hit)} children gone; counted from the drain deadline (stop_grace 0.2 s, 1 s from TERM to KILL)"
    return callers.outcomes(title, hit=hit, detected=took, figure=figure, misses=misses)
