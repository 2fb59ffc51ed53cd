"""Keep-alive load on an HTTP address, and the CPU that each part spends a request.

python -m bench.http_load http://127.0.0.1:8080/ --connections 32 --seconds 5 gateway=PID master=PID process=PID,PID
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from urllib.parse import urlsplit

from .proc import usage

LAST_S = 10.0  # for the last answers


class Stream(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, or after a pause."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._load.under_way += 1
        self._began = time.perf_counter()
        self._transport.write(self._load.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        got = self._got = self._got + data if self._got else data
        end = got.find(b"\r\n\r\n")
        if end < 0:
            return
        at = got.lower().find(b"content-length:", 0, end)
        if len(got) < end + 4 + int(got[at + 15 : got.find(b"\r", at)]):
            return
        self._got = b""
        self._load.answered(got[9:12], time.perf_counter() - self._began)
        if self._load.pause_s:
            asyncio.get_running_loop().call_later(self._load.pause_s, self._again)
        else:
            self._again()

    def _again(self) -> None:
        if not self._load.over:
            self._ask()


class Load:
    def __init__(self, request: bytes, pause_s: float) -> None:
        self.request = request
        self.pause_s = pause_s
        self.over = False
        self.lost = 0
        self.under_way = 0
        self.statuses: dict[bytes, int] = {}
        self.latencies: list[float] = []

    def answered(self, status: bytes, latency: float) -> None:
        self.under_way -= 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.append(latency)

    async def run(self, host: str, port: int, connections: int, length_s: float) -> float:
        """Requests a second. Those that were asked for by then are waited for: who hangs is to be seen in the p99."""
        loop = asyncio.get_running_loop()
        opened = [await loop.create_connection(lambda: Stream(self), host, port) for _ in range(connections)]
        began = time.perf_counter()
        await asyncio.sleep(length_s)
        self.over = True
        rate = len(self.latencies) / (time.perf_counter() - began)
        until = time.perf_counter() + LAST_S
        while self.under_way and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        self.lost = self.under_way
        for transport, _ in opened:
            transport.close()
        return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before a connection's next request")
    parser.add_argument("--body", type=int, default=0, help="bytes of a POST; 0: GET")
    parser.add_argument("parts", nargs="*", metavar="NAME=PID[,PID]")
    given = parser.parse_intermixed_args()
    url = urlsplit(given.url)
    line = f"{'POST' if given.body else 'GET'} {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\n"
    length = f"Content-Length: {given.body}\r\n" if given.body else ""
    load = Load(f"{line}{length}\r\n".encode() + b"x" * given.body, given.pause)
    parts = {
        name: [int(pid) for pid in pids.split(",")] for name, _, pids in (part.partition("=") for part in given.parts)
    }
    before = {name: usage(pids) for name, pids in parts.items()}
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run  # type: ignore[assignment]
    rate = run(load.run(url.hostname or "127.0.0.1", url.port or 80, given.connections, given.seconds))
    spent = {name: usage(pids) - before[name] for name, pids in parts.items()}
    latencies = sorted(load.latencies)
    count = len(latencies)
    if not count:
        sys.exit("no request was answered")
    p50, p99 = (latencies[count * percent // 100] * 1e3 for percent in (50, 99))
    print(f"{rate:,.0f} requests/s  p50 {p50:.2f} ms  p99 {p99:.2f} ms")
    print("statuses " + ", ".join(f"{status.decode()}: {number}" for status, number in load.statuses.items()))
    each = (
        f"{name} {cpu.all_threads / count / 1e3:.1f} ({cpu.own_thread / count / 1e3:.1f})"
        for name, cpu in spent.items()
    )
    print("µs of CPU a request, of all threads (of the main thread): " + ", ".join(each))
    sys.exit(bool(load.lost) or set(load.statuses) != {b"200"})


if __name__ == "__main__":
    main()
