"""900 clients that are too slow, at once: `python -m bench.slow_clients [--short] [--check]`.

300 drip a head, 300 a body, 300 read a large answer, each with 100 bytes a second, beside a good client. What must
hold: its p99 is less than doubled, no process is held, the gateway's memory grows by less than 50 MiB, each slow client
is cut at its limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import rota

from .http_systems import Rota
from .launch import NotMeasured, module, to_the_end
from .proc import rss
from .systems import wait_until_ready

EACH = 300
RATE = 100  # bytes a second
STEP_S = 0.5  # between two pieces of a slow client
OPEN_S = 3.0  # in which all connect: 300 a second, with 13 MB of answers a second in them
GOOD = 4  # connections of the good client
ANSWER = 128 * 1024  # what the readers ask for: a large page
BODY = 100_000  # what the uploaders announce
SETTLED_S = 2.0  # after the last has connected: the readers' requests have been answered
SAMPLE_S = 0.1
EARLY_S, LATE_S = 0.5, 1.5  # a time-out is noticed up to 0.25 s late, and seen 0.1 s later; machines are busy
P99_MAX, MEMORY_MAX = 2.0, 50 << 20
KINDS = ("head", "body", "reader")
ESTABLISHED = "01"


class Limits(NamedTuple):
    """Settings of the gateway, in seconds and bytes a second; the defaults, or shorter ones."""

    head: float = 10.0
    body: float = 10.0
    body_rate: int = 500
    write: float = 10.0
    write_rate: int = 8192
    idle: float = 5.0
    answer: int = ANSWER  # no setting: what the readers ask for

    def toml(self) -> str:
        return (
            f'[http]\nhead_timeout = "{self.head:g}s"\nbody_timeout = "{self.body:g}s"\nbody_rate = {self.body_rate}\n'
            f'write_timeout = "{self.write:g}s"\nwrite_rate = {self.write_rate}\nidle_timeout = "{self.idle:g}s"\n'
            "connections_per_address = 4096\n"
        )

    def cut_after(self, kind: str) -> tuple[float, float]:
        """Seconds from the first byte of the request until a client of 100 bytes a second is cut, at least and at most.

        What a kernel takes of an answer (3 MB on the loopback of Linux 6.18) has left as far as a gateway can tell:
        then it is the time without a next request that ends the connection.
        """
        if kind == "head":
            return self.head, self.head
        if kind == "body":  # the grace, and a second for each `body_rate` bytes that have come
            return (self.body / (1 - RATE / self.body_rate),) * 2
        return self.idle, max(self.idle, self.write + self.answer / self.write_rate)


SHORT = Limits(head=2.0, body=2.0, write=1.0, write_rate=1 << 20, idle=2.0)


class Server(Rota):
    name = "rota-slow"

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.settings = limits.toml()

    @property
    def port(self) -> int:
        return self._port

    @property
    def master(self) -> str:
        return f"tcp://127.0.0.1:{self._port - 3}"

    def gateway(self) -> int:
        """The process that serves."""
        return self.groups()["front"][-1]


# ---- the slow clients: a process of their own ------------------------------------------------------------------------


async def slow(port: int, answer: int) -> None:
    """Opens them all, tells kind, local port and time of each, and drips until the gateway has had enough of all."""
    opening = [
        asyncio.create_task(_slow_client(kind, port, answer, OPEN_S * number / EACH))
        for kind in KINDS
        for number in range(EACH)
    ]
    await asyncio.gather(*opening)


class SlowClient(NamedTuple):
    kind: str
    port: int  # its own
    began: float  # to connect, in seconds of the machine's monotonic clock
    connected: float  # certainly by then


async def _slow_client(kind: str, port: int, answer: int, after: float) -> None:
    await asyncio.sleep(after)
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    began = time.monotonic()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    connected = time.monotonic()
    first = {
        "head": b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY,
        "reader": b"GET /bytes?%d HTTP/1.1\r\nHost: x\r\n\r\n" % answer,
    }[kind]
    print(json.dumps(SlowClient(kind, sock.getsockname()[1], began, connected)), flush=True)
    with contextlib.suppress(OSError), sock:
        await loop.sock_sendall(sock, first)
        while True:
            await asyncio.sleep(STEP_S)
            if kind == "reader":
                await loop.sock_recv(sock, int(RATE * STEP_S))
            else:
                await loop.sock_sendall(sock, b"x" * int(RATE * STEP_S))


# ---- what is looked at meanwhile -------------------------------------------------------------------------------------


class Look(NamedTuple):
    begun: float
    ended: float
    open: set[int]  # ports of clients to which the gateway had a connection at some moment in between


class Held(NamedTuple):
    """Seconds from its connect: the gateway had it for `least`, and had cut it after `most` (infinity: never)."""

    least: float
    most: float


def held(client: SlowClient, looks: Sequence[Look]) -> Held:
    """What the looks prove. Between two of them, on a busy machine, a client may have come and gone unseen."""
    seen = max((look.begun for look in looks if client.port in look.open), default=client.began)
    known = max(seen, client.connected)
    gone = (look.ended for look in looks if look.begun >= known and client.port not in look.open)
    return Held(max(seen - client.began, 0.0), min(gone, default=math.inf) - client.began)


class Watch:
    """Looks at the gateway from outside, ten times a second where the machine allows it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pid = server.gateway()
        self._stop = threading.Event()
        self.looks: list[Look] = []
        self.memory = 0
        self.in_flight: list[tuple[float, int]] = []
        # Apart: while a busy master takes its time to answer, clients would come and go unseen.
        self._threads = ThreadPoolExecutor(2)

    def __enter__(self) -> Watch:
        self._watching = [self._threads.submit(each) for each in (self._look, self._ask)]
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what kept it from looking to the end: what it did not see would count as nothing."""
        self._stop.set()
        for each in self._watching:
            each.result()

    def _look(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            begun = time.monotonic()
            ports = connected(self._server.port)
            self.looks.append(Look(begun, time.monotonic(), ports))
            self.memory = max(self.memory, rss(self._pid))

    def _ask(self) -> None:
        with rota.Admin(self._server.master) as admin:
            while not self._stop.wait(SAMPLE_S):
                now = time.monotonic()
                self.in_flight.append((now, sum(each["in_flight"] for each in admin.status()["services"])))


def connected(port: int) -> set[int]:
    """The ports of the clients to which the server at `port` has an established connection."""
    own, found = f":{port:04X}", set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if local.endswith(own) and state == ESTABLISHED:
            found.add(int(remote.rpartition(":")[2], 16))
    return found


# ---- the measurement -------------------------------------------------------------------------------------------------


class Good(NamedTuple):
    per_second: float
    p99_ms: float
    text: str


def good_client(server: Server, seconds: float, pause: float) -> subprocess.Popen[str]:
    own = ("--connections", GOOD, "--seconds", seconds, "--pause", pause)
    command = module("bench.http_load", f"http://127.0.0.1:{server.port}/", *own)
    return server.family.start(command, piped=True)


def told(member: subprocess.Popen[str]) -> Good:
    assert member.stdout
    text = member.stdout.read()
    if member.wait() != 0:
        raise NotMeasured(f"requests of the good client failed: {text}")
    found = re.search(r"([\d,]+) requests/s .* p99 ([\d.]+) ms", text)
    assert found, text
    return Good(float(found[1].replace(",", "")), float(found[2]), text)


def measured(limits: Limits, seconds: float, pause: float) -> dict[str, Any]:
    server = Server(limits)
    with server.family:
        server.start()
        wait_until_ready(server.family, server.master, 2)
        told(good_client(server, 1, pause))
        before, memory = told(good_client(server, seconds, pause)), rss(server.gateway())
        longest = OPEN_S + max(limits.cut_after(kind)[1] for kind in KINDS) + LATE_S
        good = good_client(server, longest, pause)
        with Watch(server) as watch:
            crowd = server.family.start(module("bench.slow_clients", "--crowd", server.port, limits.answer), piped=True)
            begun = time.monotonic()
            assert crowd.stdout
            clients = [SlowClient(*json.loads(crowd.stdout.readline())) for _ in range(EACH * len(KINDS))]
            opened = time.monotonic()
            during = told(good)
            until = opened + longest  # the good one may have begun long before the crowd did
            while not all(math.isfinite(held(each, watch.looks).most) for each in clients):
                if time.monotonic() > until:
                    break
                time.sleep(SAMPLE_S)
        crowd.kill()
        return {
            "schema": 1,
            "each": EACH,
            "p99_ms": {"before": before.p99_ms, "during": during.p99_ms},
            "per_second": {"before": before.per_second, "during": during.per_second},
            "memory_mib": (watch.memory - memory) / 2**20,
            "opened_s": opened - begun,
            "in_flight_max": max(number for at, number in watch.in_flight if at > opened + SETTLED_S),
            "held_s": {kind: [held(each, watch.looks) for each in clients if each.kind == kind] for kind in KINDS},
            "limit_s": {kind: limits.cut_after(kind) for kind in KINDS},
        }


def judged(found: dict[str, Any], p99_max: float) -> list[tuple[bool, str]]:
    p99, memory = found["p99_ms"], found["memory_mib"]
    times = p99["during"] / p99["before"]
    rates = found["per_second"]
    verdicts = [
        (
            times < p99_max,
            f"a good client's p99 {p99['before']:.1f} -> {p99['during']:.1f} ms: {times:.2f} x, less than {p99_max:g}"
            f" ({rates['before']:,.0f} -> {rates['during']:,.0f} requests/s)",
        ),
        (
            found["in_flight_max"] <= GOOD,
            f"requests in processes: at most {found['in_flight_max']}, all of the good one",
        ),
        (memory < MEMORY_MAX / 2**20, f"memory of the gateway + {memory:.1f} MiB, less than {MEMORY_MAX >> 20}"),
    ]
    for kind in KINDS:
        times_held = [Held(*each) for each in found["held_s"][kind]]
        least, most = found["limit_s"][kind]
        soonest, latest = min(each.most for each in times_held), max(each.most for each in times_held)
        text = f"slow {kind}: {len(times_held)} cut after {soonest:.1f} to {latest:.1f} s, limit {least:.1f}"
        text += f" to {most:.1f} s" if most > least else " s"
        on_time = soonest >= least - EARLY_S and max(each.least for each in times_held) <= most + LATE_S
        verdicts.append((on_time and math.isfinite(latest), text))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients", description=__doc__)
    parser.add_argument("--short", action="store_true", help="shorter limits in the gateway: 10 s in all")
    parser.add_argument("--seconds", type=float, default=5.0, help="of the good client alone (%(default)g)")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between its requests on a connection")
    parser.add_argument("--p99", type=float, default=P99_MAX, help="times that its p99 may grow (%(default)g)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 if one of them does not hold")
    parser.add_argument("--answer", type=int, default=ANSWER, help="bytes that each reader asks for (%(default)d)")
    parser.add_argument("--crowd", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    if options.crowd:
        asyncio.run(slow(*options.crowd))
        return 0
    limits = (SHORT if options.short else Limits())._replace(answer=options.answer)
    found = to_the_end(lambda: measured(limits, options.seconds, options.pause))
    verdicts = judged(found, options.p99)
    if options.json:
        print(json.dumps({**found, "reached": all(holds for holds, _ in verdicts)}, indent=1))
    else:
        print("\n".join(f"{'reached' if holds else 'MISSED':9}{text}" for holds, text in verdicts))
    return 1 if options.check and not all(holds for holds, _ in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
