"""A small Ethernet: hosts in network namespaces of their own, on one bridge. The machine's own network is not touched.

It needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), `unshare`, `nsenter` and `ip`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

NETWORK, BITS = "10.79.0", 24
NOBODY = "02:00:00:00:00:01"  # no host has it: what is sent there is lost, and nobody is told
_CLONE_NEWNET = 0x40000000


class NoNetwork(Exception):
    """With a sentence that says what is missing."""


class Host:
    """A network namespace, which is there as long as its one process."""

    bridge: Host

    def __init__(self, number: int) -> None:
        self.number = number
        self.address = f"{NETWORK}.{number}"
        try:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError as error:
            raise NoNetwork(f"{error.filename} is missing (apt-get install util-linux)") from None
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if not self._holder.stdout.readline():
            raise NoNetwork(
                f"this kernel makes no network namespace for us: {self._holder.stderr.read().decode().strip()}; "
                "run the tests as root, in a container with --cap-add SYS_ADMIN --cap-add NET_ADMIN"
            )
        self.pid = self._holder.pid

    def words(self, *command: str) -> list[str]:
        """The command, to be run on this host."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *command]

    def run(self, *command: str, code: int | None = 0) -> str:
        try:
            done = subprocess.run(self.words(*command), capture_output=True, text=True, timeout=30)
        except FileNotFoundError as error:
            raise NoNetwork(f"{error.filename} is missing (apt-get install util-linux)") from None
        if done.returncode == 127:
            raise NoNetwork(f"{command[0]} is missing (apt-get install iproute2): {done.stderr.strip()}")
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Within, this thread, the threads and processes that it starts, and all their sockets are on this host."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            there = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def mute(self, *others: Host) -> None:
        """What it sends to them is lost from now on; what they send comes."""
        words = " nud permanent; ".join(f"ip neigh replace {each.address} lladdr {NOBODY} dev eth0" for each in others)
        self.run("sh", "-ec", f"{words} nud permanent")

    def unmute(self) -> None:
        self.run("ip", "neigh", "flush", "dev", "eth0", "nud", "permanent")

    def plug(self, there: bool) -> None:
        """Without its plug it reaches nobody, and nobody it; nobody is told, either."""
        self.bridge.run("ip", "link", "set", f"port{self.number}", *(("master", "lan") if there else ("nomaster",)))

    def has(self, address: str) -> bool:
        return bool(self.run("ip", "-o", "address", "show", "to", f"{address}/32").strip())

    def hardware(self) -> str:
        return self.run("ip", "-o", "link", "show", "eth0").partition("link/ether ")[2].split()[0]

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        for pipe in (self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise NoNetwork(f"a network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")


@contextmanager
def lan(hosts: int) -> Iterator[Sequence[Host]]:
    """So many hosts that reach each other by their `eth0`."""
    made: list[Host] = []
    try:
        bridge = Host(0)
        made.append(bridge)
        bridge.run("ip", "link", "add", "lan", "type", "bridge")
        bridge.run("ip", "link", "set", "lan", "up")
        for number in range(1, hosts + 1):
            host = Host(number)
            host.bridge = bridge
            made.append(host)
            port = f"port{number}"
            bridge.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            bridge.run("ip", "link", "set", port, "master", "lan", "up")
            host.run("ip", "address", "add", f"{host.address}/{BITS}", "dev", "eth0")
            host.run("ip", "link", "set", "lo", "up")
            host.run("ip", "link", "set", "eth0", "up")
        yield made[1:]
    except AssertionError as error:
        if "not permitted" in str(error) or "Unknown device type" in str(error):
            raise NoNetwork(f"this kernel makes no bridge and no veth for us: {error}") from None
        raise
    finally:
        for host in made:
            host.close()
