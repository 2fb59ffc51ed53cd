"""Ten times more than a pool can do: `python -m bench.overload [--check]`.

Two processes whose handler sleeps 5 ms do about 390 calls a second. First that peak is measured (a closed loop), then
4,000 a second are offered by the clock from two client processes, with a time-out of 1 s. What must hold: the pool goes
on doing nearly what it can, what is too much is refused at once, and the master's memory stays below what it was given.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import rota

from . import proc
from .launch import Family, free_ports, line_of, module, say, to_the_end
from .systems import start_node, wait_until_ready

PROCESSES = 2
NAP_S = 0.005
TIMEOUT_S = 1.0
# What waits longest waits QUEUE x NAP_S / PROCESSES = 0.25 s: a quarter of the callers' time-out, so that nothing runs
# for a caller who has gone even where the machine is slow, and still 50 times what a process needs to stay busy.
QUEUE = 100
QUEUE_BYTES, ANSWERS_BYTES = 8 << 20, 4 << 20
CLIENTS = 2  # one interpreter cannot keep to the clock at 4,000 calls a second on a core it shares
GOODPUT_MIN, REFUSAL_MAX_MS = 0.9, 10.0
SAMPLE_S = 0.1


class Pool:
    """A master with bounds on its memory, and a node of two processes."""

    def __init__(self, family: Family) -> None:
        self.family = family
        port = free_ports(3)
        self.address = f"tcp://127.0.0.1:{port}"
        settings = family.folder / "rota.toml"
        settings.write_text(
            f"[master]\nqueue_bytes = {QUEUE_BYTES}\nanswers_bytes = {ANSWERS_BYTES}\n"
            f"max_message = {1 << 20}\n[service.echo]\nqueue_limit = {QUEUE}\nramp = 0\n"
        )
        self.master = family.start(module("rota", "master", "-c", settings, "--bind", self.address))
        self.agent = start_node(family, self.address, PROCESSES)
        wait_until_ready(self.family, self.address, PROCESSES)

    def counters(self) -> dict[str, int]:
        with rota.Admin(self.address) as admin:
            found: dict[str, int] = admin.status()["master"]["counters"]
            return found

    def offer(self, kind: str, number: int, seconds: float, clients: int) -> tuple[list[dict[str, Any]], int]:
        """What each client process tells, and the most memory that the master had meanwhile."""
        words = [kind, number // clients, seconds, TIMEOUT_S, NAP_S]
        members = [self.family.start(module("bench.offered", self.address, *words), piped=True) for _ in range(clients)]
        for member in members:
            line_of(member)
        groups = {"master": [self.master.pid], "process": proc.descendants(self.agent.pid)}
        groups["client"] = [member.pid for member in members]
        before = {name: proc.usage(pids) for name, pids in groups.items()}
        for member in members:
            assert member.stdin
            member.stdin.write("go\n")
        highest, until = 0, time.monotonic() + seconds + TIMEOUT_S
        while time.monotonic() < until:
            highest = max(highest, proc.rss(self.master.pid))
            time.sleep(SAMPLE_S)
        spent = {name: (proc.usage(pids) - before[name]).all_threads / 1e7 / seconds for name, pids in groups.items()}
        self.cpu_percent = spent  # of one core; who has no more to give is the limit
        return [json.loads(line_of(member)) for member in members], highest


def measured(options: argparse.Namespace) -> dict[str, Any]:
    with Family("overload") as family:
        pool = Pool(family)
        idle = proc.rss(pool.master.pid)
        say("the peak, closed loop")
        [closed], _ = pool.offer("closed", 32, options.peak_seconds, 1)
        peak = closed["ended"].get("ok", 0) / options.peak_seconds
        say(f"{options.rate:,}/s for {options.seconds:g} s")
        before = pool.counters()
        told, highest = pool.offer("open", options.rate, options.seconds, options.clients)
        counters = {name: count - before.get(name, 0) for name, count in pool.counters().items()}
    ended = {name: sum(each["ended"].get(name, 0) for each in told) for name in _names(told)}
    return {
        "peak_per_second": peak,
        "peak_ms": closed["ms"]["ok"],
        "offered_per_second": options.rate,
        "seconds": options.seconds,
        "ended_per_second": {name: count / options.seconds for name, count in ended.items()},
        "ms": {name: _worst([each["ms"][name] for each in told if name in each["ms"]]) for name in ended},
        "late_ms": _worst([each["late_ms"] for each in told]),
        "unanswered": sum(each["unanswered"] for each in told),
        "cpu_percent": pool.cpu_percent,
        "goodput": ended.get("ok", 0) / options.seconds / peak if peak else 0.0,
        "rss_idle": idle,
        "rss_highest": highest,
        "rss_cap": idle + QUEUE_BYTES + options.clients * ANSWERS_BYTES,
        "counters": {name: count for name, count in counters.items() if count},
    }


def _names(told: list[dict[str, Any]]) -> list[str]:
    return sorted({name for each in told for name in each["ended"]}, key=lambda name: (name != "ok", name))


def _worst(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(each[name] for each in found) for name in found[0]}


def verdicts(found: dict[str, Any]) -> list[tuple[bool, str]]:
    refusals = found["ms"].get("Overloaded", {"p99": float("inf")})["p99"]
    return [
        (found["goodput"] >= GOODPUT_MIN, f"goodput at least {GOODPUT_MIN:g} of the peak: {found['goodput']:.2f}"),
        (refusals <= REFUSAL_MAX_MS, f"refusals within {REFUSAL_MAX_MS:g} ms (p99): {refusals:.1f} ms"),
        (
            found["rss_highest"] <= found["rss_cap"],
            f"master RSS at most {found['rss_cap'] / 2**20:.1f} MiB (idle, queue_bytes, answers_bytes a client):"
            f" {found['rss_highest'] / 2**20:.1f} MiB",
        ),
        (not found["unanswered"], f"every call ended: {found['unanswered']} did not"),
    ]


def table(found: dict[str, Any]) -> str:
    lines = [
        f"peak {found['peak_per_second']:.0f}/s (32 in flight, p50 {found['peak_ms']['p50']:.0f} ms);"
        f" offered {found['offered_per_second']:,}/s for {found['seconds']:g} s",
        f"{'ended as':16}{'a second':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}",
    ]
    for name, rate in found["ended_per_second"].items():
        ms = found["ms"][name]
        lines.append(f"{name:16}{rate:10,.0f}{ms['p50']:10.1f}{ms['p99']:10.1f}{ms['max']:10.1f}")
    late = found["late_ms"]
    lines.append(f"{'(sent late)':16}{'':10}{late['p50']:10.1f}{late['p99']:10.1f}{late['max']:10.1f}")
    shares = ", ".join(f"{name} {share:.0f} %" for name, share in found["cpu_percent"].items())
    return "\n".join([*lines, f"CPU of one core meanwhile: {shares}"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--rate", type=int, default=4000, help="calls offered a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload")
    parser.add_argument("--peak-seconds", type=float, default=5.0, help="of the closed loop before it")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="processes that share the rate")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    options = parser.parse_args()
    found = to_the_end(lambda: measured(options))
    judged = verdicts(found)
    if options.json:
        print(json.dumps({"schema": 1, **found, "reached": all(good for good, _ in judged)}, indent=1))
    else:
        print(table(found))
        print("\n".join(f"{'reached' if good else 'MISSED':8} {text}" for good, text in judged))
    return 1 if options.check and not all(good for good, _ in judged) else 0


if __name__ == "__main__":
    sys.exit(main())
