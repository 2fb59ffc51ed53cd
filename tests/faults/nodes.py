"""Faults of an agent and of the master: killed, stopped, shelled with signals."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from system.pool import Pool
from waiting import until

from .play import APP, Callers, Outcome, Watch, agent, children, cpu, events, fault, gone, master, stopped, victim

SUSPECT_LIMIT_S = 1.0
DEAD_LIMIT_S = 3.5
PAUSE_S = 5.0
STORM = 1000
SPIN = 0.5  # of a core, without a request


@fault("SIGKILL of an agent")
def kill_agent(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Its processes end with it, and what was left of their groups with the next agent of the node."""
    took: dict[str, float] = {}
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=1, processes=2, remember=True) as pool, Callers(pool) as callers:
        for number in range(1, min(rounds, 5) + 1):
            hit = [victim(load, pool, 0.0, "shield") for load in callers.both]  # on node-1: there is no other
            keys = [each.key for each in hit]
            until(lambda keys=keys: len(children(pool, keys)) == 4)  # type: ignore[misc]
            pool.start_node(f"other-{number}")
            at = time.monotonic()
            pool.stop_node("node-1", kill=True)
            if gone([each.pid for each in hit], 5) is None:
                misses.append("processes outlived their agent")
            for each in hit:
                took[each.key] = each.told() - at
            pool.start_node("node-1")
            if gone(children(pool, keys), 5) is None:
                misses.append("their children outlived the next agent")
                for pid in children(pool, keys):
                    os.kill(pid, signal.SIGKILL)
            callers.more()
            pool.stop_node(f"other-{number}")
    late = max(took.values())
    misses += [f"told after {late:.1f} s"] if late > DEAD_LIMIT_S else []
    # Requests of the load may have been running in the instant of the kill, two processes at most.
    return callers.outcomes(title, detected=took, misses=misses)


@fault("SIGSTOP of an agent, CONT after 5 s")
def stop_agent(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Suspect, then DEAD; it comes back, and what its processes answered meanwhile does not count."""
    took: list[float] = []
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=2, processes=3) as pool, Callers(pool) as callers, Watch(pool, "node-1") as watch:
        for _ in range(min(rounds, 3)):
            late = [(load, load.one(4.0)) for load in callers.both for _ in range(2)]
            at = time.monotonic()
            with stopped(agent(pool, "node-1")):
                took.append(cut_off(watch, at, misses))
                callers.steady(PAUSE_S - (time.monotonic() - at))
                back = time.monotonic()
            watch.wait(back, "live")
            for load, key in late:
                load.told(key)
            until(lambda: len(pool.processes("node-1")) == 3)
            callers.more()
    return callers.outcomes(title, detected=took, figure="detected: suspect", misses=misses)


def cut_off(watch: Watch, at: float, misses: list[str]) -> float:
    """Seconds until the node was suspect. It is to be so within 1 s, given nothing after that, and DEAD in 3.5 s."""
    suspect, dead = watch.wait(at, "suspect"), watch.wait(at, "dead")
    if suspect > SUSPECT_LIMIT_S:
        misses.append(f"suspect after {suspect:.2f} s")
    if dead > DEAD_LIMIT_S:
        misses.append(f"DEAD after {dead:.2f} s")
    given = watch.given_after(at + SUSPECT_LIMIT_S)
    if given:
        misses.append(f"{given} requests were given to a suspect")
    return suspect


@fault("SIGKILL of the master")
def kill_master(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """What only it knew is told as unknown to callers of default handlers; processes live on."""
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=2, processes=2) as pool:
        processes = set(pool.processes())
        with Callers(pool) as callers:
            for _ in range(min(rounds, 5)):
                callers.more()
                pool.restart_master(kill=True)
            callers.more(50)
        if processes != set(pool.processes()):
            misses.append("processes did not live on")
    return callers.outcomes(title, misses=misses)


@fault("SIGSTOP of the master, CONT after 5 s")
def stop_master(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """It distrusts what it concludes from its own pause: no node is DEAD, no request fails."""
    with Pool(folder, app=APP, nodes=2, processes=2) as pool, Callers(pool) as callers:
        for _ in range(min(rounds, 3)):
            with stopped(master(pool)):
                time.sleep(PAUSE_S)
            callers.more()
        dead = events(pool, "DEAD")
        paused = events(pool, "paused")
    misses = [f"{len(dead)} nodes were called DEAD"] if dead else []
    misses += [] if paused else ["it did not notice its pause"]
    return callers.outcomes(title, told=(), misses=misses)


@fault("storm of signals: 4 × 1,000 to agent and master")
def signal_storm(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Nothing fails, and nobody is left spinning. HUP at an agent is a reload: processes are replaced one at a time."""
    wanted = (signal.SIGCHLD, signal.SIGHUP, signal.SIGWINCH, signal.SIGCONT)
    with Pool(folder, app=APP, nodes=2, processes=2) as pool:
        targets = {"master": master(pool), "agent": agent(pool, "node-1")}
        with Callers(pool) as callers:
            for _ in range(min(rounds, 3)):
                for number in range(STORM * len(wanted)):
                    for pid in targets.values():
                        os.kill(pid, wanted[number % len(wanted)])
                callers.more()
        spent = {name: cpu(pid) for name, pid in targets.items()}
        lost = [event["text"] for event in events(pool, "process lost")]
    misses = [f"{len(lost)} processes were lost: {lost[0]}"] if lost else []
    misses += [f"{name} takes {share:.0%} of a core at rest" for name, share in spent.items() if share > SPIN]
    figure = ", ".join(f"{name} {share:.0%} of a core at rest" for name, share in spent.items())
    return callers.outcomes(title, told=(), figure=figure, misses=misses)
