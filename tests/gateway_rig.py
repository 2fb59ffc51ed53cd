"""`rota gateway` as a child process, what asks it, and a load of GETs that counts how each ended."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import until

from rota.cli.children import Child
from rota.testing import LocalCluster

APP = str(Path(__file__).parent / "gateway_app.py")
PATIENCE_S = 15.0
PACE_S = 0.02  # between two requests of a connection of a load: it is to be there all the time, not to fill the cores
URL = re.compile(r"https?://127\.0\.0\.1:(\d+)")


def joined(*threads: threading.Thread, what: str, seconds: float = 2 * PATIENCE_S) -> None:
    """Threads whose own waits are over by then."""
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{what} did not end in {seconds:g} s"


class Gateway:
    """A `rota gateway`, or a command that starts one."""

    def __init__(self, log: Path, *words: str) -> None:
        self.child = Child([*words], log)
        self.port = 0

    def listening(self) -> Gateway:
        until(lambda: URL.search(self.child.output()) or self.child.status() is not None, "no gateway listens")
        found = URL.search(self.child.output())
        assert found, self.child.output()
        self.port = int(found[1])
        return self

    def ready(self) -> Gateway:
        until(lambda: self.get("/-/ready")[0] == 200, "not ready")
        return self

    def get(self, target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        answer, data = self.ask(target, method, body, **headers)
        return answer.status, data

    def ask(
        self, target: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, target, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """All that comes back until the gateway closes."""
        with self.connect() as sock:
            sock.sendall(data)
            return read_all(sock)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)


def read_all(sock: socket.socket) -> bytes:
    """Under TLS it raises SSLEOFError when the connection ends without a word."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        got = sock.recv(65536)
        assert got, data
        data += got
    return data


Start = Callable[..., Gateway]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    started: list[Gateway] = []

    def start(*words: str) -> Gateway:
        started.append(Gateway(folder / f"gateway-{len(started)}.log", *words))
        return started[-1]

    try:
        yield start
    finally:
        for gateway in started:
            gateway.child.end(0)


def front(start: Start, cluster: LocalCluster, *words: str, routes: tuple[str, ...] = ("/=site",)) -> Gateway:
    route = [word for each in routes for word in ("--route", each)]
    return start("gateway", "--bind", "127.0.0.1:*", "-m", cluster.address, *route, *words).listening()


def filled(gateway: Gateway, target: str) -> socket.socket:
    """A gateway whose `spool_max` is 1 MiB, and whose spools are full: all but one byte of this upload waits there.

    Of two uploads it is the second that finds no room; where that is ours it is sent again.
    """
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n".encode()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        waits = gateway.connect()
        try:
            waits.sendall(head + bytes(1_000_000))
            while not _readable(waits):
                if gateway.ask(target, "POST", bytes(300_000))[0].status == 503 and not _readable(waits, 0.2):
                    return waits
        except OSError:
            pass  # refused before it was sent
        waits.close()
    raise AssertionError("there is room")


def _readable(sock: socket.socket, seconds: float = 0.0) -> bool:
    return bool(select.select([sock], [], [], seconds)[0])


def spools(gateway: Gateway, folder: Path) -> list[str]:
    """The files without a name that its processes have there."""
    found = []
    for fd in (fd for pid in children_of(gateway.child.pid) for fd in Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # it was closed just now
            if os.readlink(fd).startswith(f"{folder}/rota-"):
                found.append(str(fd))
    return found


def asks_whether_it_is_there(gateway: Gateway, client: socket.socket) -> bool:
    """Whether the gateway's end of this connection has TCP keep-alive."""
    its = ["sport", "=", f":{gateway.port}", "dport", "=", f":{client.getsockname()[1]}"]
    return b"timer:(keepalive," in subprocess.run(["ss", "-Htno", *its], capture_output=True).stdout


class Load:
    """GETs on keep-alive connections to this port, one after the other on each, while the block runs."""

    def __init__(self, port: int, target: str = "/x", connections: int = 6) -> None:
        self.outcomes: Counter[object] = Counter()
        self._port, self._target = port, target
        self._over = False
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(connections)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        joined(*self._threads, what=f"the load on port {self._port}")

    def more(self, count: int = 100) -> None:
        """Returns when so many more requests are over."""
        wanted = self.outcomes.total() + count
        until(lambda: self.outcomes.total() >= wanted, f"the load stands still: {self.outcomes}")

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self._over:
            try:
                connection.request("GET", self._target)
                answer = connection.getresponse()
                answer.read()
                self.outcomes[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[repr(error)] += 1
                connection.close()
            time.sleep(PACE_S)
        connection.close()


def in_flight(cluster: LocalCluster) -> int:
    return sum(service["in_flight"] for service in cluster.status()["services"])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
