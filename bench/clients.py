"""The client process: `python -m bench.clients KIND ADDRESS`, orders in, results out.

One JSON object a line each way. An order: {size, in_flight, warmup, seconds, groups}, where
`groups` names the process ids whose CPU is to be read at both ends of the measured window.
A kind keeps `in_flight` requests under way (a closed loop) until the meter says stop.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from . import proc
from .report import quantile

Run = Callable[[bytes, int, "Meter"], None]
PATIENCE = 20.0  # seconds for a system's workers to appear, and for the last answers to arrive


class Meter:
    """The measured window: latencies of every request, CPU and counts at its two edges."""

    def __init__(self, warmup: float, seconds: float, groups: dict[str, list[int]]) -> None:
        self.latencies: list[float] = []
        self._groups = groups
        self._seconds = seconds
        self._due = time.perf_counter() + warmup
        self._edges: list[tuple[float, int, dict[str, proc.Usage]]] = []

    def open(self, now: float) -> bool:
        """Pass an edge of the window if it is due; false once the second one is passed."""
        if now >= self._due:
            self.edge()
            self._due = time.perf_counter() + self._seconds
        return len(self._edges) < 2

    def edge(self) -> None:
        readings = {name: proc.usage(pids) for name, pids in self._groups.items()}
        self._edges.append((time.perf_counter(), len(self.latencies), readings))

    def until_due(self) -> float:
        """Seconds to sleep for one that does not make the requests itself."""
        return max(0.0, self._due - time.perf_counter())

    def result(self) -> dict[str, Any]:
        (start, first, before), (end, last, after) = self._edges[:2]
        taken = sorted(self.latencies[first:last])
        if not taken:
            raise RuntimeError("no request was answered in the window")
        spent = {name: after[name] - before[name] for name in before}
        return {
            "requests": len(taken),
            "per_second": len(taken) / (end - start),
            "p50_ms": quantile(taken, 0.50) * 1e3,
            "p99_ms": quantile(taken, 0.99) * 1e3,
            "cpu_us": {name: used.all_threads / len(taken) / 1e3 for name, used in spent.items()},
            "own_us": {name: used.own_thread / len(taken) / 1e3 for name, used in spent.items()},
        }


def expect(size: int, answer: bytes) -> None:
    if len(answer) != size:
        raise RuntimeError(f"sent {size} bytes, got {len(answer)} back")


def dealer(address: str) -> Run:
    """A raw DEALER with the extension's own calls; a request's number leads its only frame."""
    from zmq.backend.cython import _zmq

    from .brokers import connected

    sock = connected(address)
    recv, send, number_of = _zmq.Socket.recv, _zmq.Socket.send, struct.Struct("!Q")

    def run(body: bytes, in_flight: int, meter: Meter) -> None:
        started: dict[int, float] = {}
        number = 0

        def submit() -> None:
            nonlocal number
            number += 1
            started[number] = time.perf_counter()
            send(sock, number_of.pack(number) + body)

        for _ in range(in_flight):
            submit()
        running = True
        while started:
            answer = recv(sock)
            now = time.perf_counter()
            expect(len(body) + number_of.size, answer)
            meter.latencies.append(now - started.pop(number_of.unpack_from(answer)[0]))
            running = running and meter.open(now)
            if running:
                submit()

    return run


def futures(submit: Callable[[bytes], Future[bytes]], call: Callable[[bytes], bytes]) -> Run:
    """Futures whose callbacks submit the next request; a plain call when one is in flight."""

    def one(body: bytes, meter: Meter) -> None:
        running = True
        while running:
            before = time.perf_counter()
            expect(len(body), call(body))
            now = time.perf_counter()
            meter.latencies.append(now - before)
            running = meter.open(now)

    def many(body: bytes, in_flight: int, meter: Meter) -> None:
        ended = threading.Semaphore(0)
        stop = threading.Event()
        failures: list[BaseException] = []

        def send() -> None:
            before = time.perf_counter()
            submit(body).add_done_callback(lambda future: done(future, before))

        def done(future: Future[bytes], before: float) -> None:
            try:
                expect(len(body), future.result())
                meter.latencies.append(time.perf_counter() - before)
                if not stop.is_set():
                    return send()
            except BaseException as error:  # a callback's errors would be lost
                failures.append(error)
            ended.release()

        for _ in range(in_flight):
            send()
        while meter.open(time.perf_counter()):
            time.sleep(meter.until_due())
        stop.set()
        for _ in range(in_flight):
            if not ended.acquire(timeout=PATIENCE):
                raise RuntimeError("answers are missing")
        if failures:
            raise failures[0]

    def run(body: bytes, in_flight: int, meter: Meter) -> None:
        one(body, meter) if in_flight == 1 else many(body, in_flight, meter)

    return run


def rota(address: str) -> Run:
    from rota import Client

    client = Client(address)
    return futures(
        lambda body: client.submit("echo.echo", data=body),
        lambda body: client.call("echo.echo", data=body),
    )


def echo(body: bytes) -> bytes:
    return body


def executor(_: str) -> Run:
    from concurrent.futures import ProcessPoolExecutor

    from .launch import die_with_parent

    pool = ProcessPoolExecutor(2, initializer=die_with_parent)
    return futures(lambda body: pool.submit(echo, body), lambda body: pool.submit(echo, body).result())


def nats(address: str) -> Run:
    import asyncio

    loop = asyncio.new_event_loop()

    async def session(ask: Callable[[bytes], Awaitable[bytes]], *order: Any) -> None:
        body, in_flight, meter = order
        stop = False

        async def chain() -> None:
            while not stop:
                before = time.perf_counter()
                expect(len(body), await ask(body))
                meter.latencies.append(time.perf_counter() - before)

        chains = [asyncio.ensure_future(chain()) for _ in range(in_flight)]
        while meter.open(time.perf_counter()):
            await asyncio.sleep(meter.until_due())
        stop = True
        await asyncio.gather(*chains)

    connection = loop.run_until_complete(_nats_connection(address))

    async def ask(body: bytes) -> bytes:
        return bytes((await connection.request("echo", body, timeout=PATIENCE)).data)

    return lambda *order: loop.run_until_complete(session(ask, *order))


async def _nats_connection(address: str) -> Any:
    import nats as library

    return await library.connect(address)


KINDS: dict[str, Callable[[str], Run]] = {
    "dealer": dealer,
    "rota": rota,
    "executor": executor,
    "nats": nats,
}


def measure(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    groups = {"client": [os.getpid()], **order["groups"]}
    meter = Meter(order["warmup"], order["seconds"], groups)
    run(os.urandom(order["size"]), order["in_flight"], meter)
    return meter.result()


def first_answer(run: Run) -> None:
    """Wait until the system's workers are there: its first errors mean `not yet`."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return run(b"ready?", 1, Meter(0, 0, {}))
        except Exception:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)


def answer(result: dict[str, Any]) -> None:
    print(json.dumps(result), flush=True)


def main(kind: str, address: str) -> None:
    try:
        run = KINDS[kind](address)
        first_answer(run)
        answer({"ready": True})
        for line in sys.stdin:
            answer(measure(run, json.loads(line)))
    except Exception as error:
        answer({"error": f"{type(error).__name__}: {error}"})
        raise


if __name__ == "__main__":
    main(*sys.argv[1:3])
