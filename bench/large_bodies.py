"""Bodies of a GiB through the HTTP front door: `python -m bench.large_bodies [--mib 1024] [--interface wsgi asgi]`.

Down and up, byte-exact, and how much memory and CPU gateway, master and process need for it. Fails if one of them grows
by more than 16 MiB.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rota.cli.children import Child
from rota.testing import LocalCluster

from .proc import children, usage

MIB = 1024 * 1024
GROWTH_MIB = 16  # most that a process may grow by: windows, a spool's memory, what malloc keeps
BLOCK = bytes(range(256)) * 256
STARTS_S = 20.0
APPS = Path(__file__).parent.parent / "tests"  # the applications of the tests: /many?N gives N blocks, /digest a hash


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--interface", nargs="+", default=["wsgi", "asgi"], choices=["wsgi", "asgi"])
    given = parser.parse_args()
    return max(_measure(interface, given.mib) for interface in given.interface)


def _measure(interface: str, mib: int) -> int:
    app = f"{APPS}/streams_{interface}.py:application"
    with tempfile.TemporaryDirectory() as folder, LocalCluster(app, settings={"slave.service": "site"}) as cluster:
        settings, log = Path(folder) / "rota.toml", Path(folder) / "gateway.log"
        settings.write_text('[http]\nmax_body = "1TiB"\n')
        words = ["gateway", "--bind", "127.0.0.1:*", "-m", cluster.address, "--route", "/=site", "-c", str(settings)]
        gateway = Child(words, log)
        try:
            port = _port(gateway)
            parts = {"gateway": children(gateway.pid)[0], "process": cluster.processes()[0]}
            parts["master"] = cluster.status()["master"]["pid"]
            _ask(port, "GET", "/plain")
            return max(_moved(f"{interface} {way}", parts, port, way, mib) for way in ("down", "up"))
        finally:
            gateway.end(0)


def _moved(what: str, parts: dict[str, int], port: int, way: str, mib: int) -> int:
    memory = {name: _resident_mib(pid) for name, pid in parts.items()}
    spent = {name: usage([pid]).all_threads for name, pid in parts.items()}
    began = time.monotonic()
    whole = _down(port, mib) if way == "down" else _up(port, mib)
    rate = mib / (time.monotonic() - began)
    grown = {name: _resident_mib(pid) - memory[name] for name, pid in parts.items()}
    each = (
        f"{name} {(usage([pid]).all_threads - spent[name]) / 1e6 / mib:.2f} ms/MiB +{grown[name]} MiB"
        for name, pid in parts.items()
    )
    good = whole and max(grown.values()) <= GROWTH_MIB
    print(f"{what}: {mib} MiB, {rate:.0f} MiB/s, {'whole' if whole else 'NOT THE SAME'}: {', '.join(each)}", flush=True)
    return 0 if good else 1


def _down(port: int, mib: int) -> bool:
    seen, expected = hashlib.sha256(), hashlib.sha256()
    for piece in _ask(port, "GET", f"/many?{mib * 16}"):
        seen.update(piece)
    for _ in range(mib * 16):
        expected.update(BLOCK)
    return seen.digest() == expected.digest()


def _up(port: int, mib: int) -> bool:
    expected = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for _ in range(mib * 16):
            expected.update(BLOCK)
            yield BLOCK

    found = b"".join(_ask(port, "POST", "/digest", blocks(), {"Content-Length": str(mib * MIB)}))
    return found.decode() == expected.hexdigest()


def _ask(
    port: int, method: str, target: str, body: Iterator[bytes] | None = None, headers: dict[str, str] | None = None
) -> list[bytes] | Iterator[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(method, target, body, headers or {})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{method} {target}: {answer.status} {answer.read()!r}")
    return iter(lambda: answer.read(65536), b"")


def _port(gateway: Child) -> int:
    until = time.monotonic() + STARTS_S
    while "http://" not in gateway.output():
        if time.monotonic() > until:
            raise SystemExit(f"no gateway: {gateway.output()}")
        time.sleep(0.05)
    return int(gateway.output().partition("http://127.0.0.1:")[2].split()[0])


def _resident_mib(pid: int) -> int:
    """The most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())
