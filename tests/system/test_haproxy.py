"""A real HAProxy, set up as docs/HTTP.md says, in front of two gateways: one dies, one is rolled, and no GET fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_ports
from gateway_rig import APP, PATIENCE_S, Gateway, Load, Start, children_of, in_flight, listens, starting, until

from rota.testing import LocalCluster

PAGE = Path(__file__).parents[2] / "docs" / "HTTP.md"
LEAD = "2s"  # as the page says
CONNECTIONS = 16


def documented(port: int, gateways: list[int]) -> str:
    """The settings on the page, with these ports for those of its example."""
    [text] = re.findall(r"^```haproxy\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for old, new in (("*:80", f"127.0.0.1:{port}"), *zip(("edge-1:8080", "edge-2:8080"), gateways, strict=True)):
        assert text.count(old) == 1, old
        text = text.replace(old, new if isinstance(new, str) else f"127.0.0.1:{new}")
    return text


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(APP, processes=2, settings={"service.site.ramp": 0}) as running:
        yield running


class Site:
    """Two gateways and a HAProxy before them."""

    def __init__(self, folder: Path, start: Start, cluster: LocalCluster) -> None:
        self._folder, self._start, self._cluster = folder, start, cluster
        self.port, *self.ports = free_ports(3)
        (folder / "rota.toml").write_text(f'[http]\nlead = "{LEAD}"\n')
        self.gateways = [self.gateway(port) for port in self.ports]

    def gateway(self, port: int) -> Gateway:
        words = ("gateway", "--bind", f"127.0.0.1:{port}", "-m", self._cluster.address, "--route", "/=site")
        return self._start(*words, "-c", str(self._folder / "rota.toml")).listening().ready()

    def kill(self, number: int) -> None:
        """All processes of a gateway, as if its machine had died."""
        child = self.gateways[number].child
        below = children_of(child.pid)
        for pid in (child.pid, *below):
            os.kill(pid, signal.SIGKILL)
        assert child.wait(PATIENCE_S)

    def restart(self, number: int) -> None:
        self.gateways[number] = self.gateway(self.ports[number])


@pytest.fixture
def site(tmp_path: Path, cluster: LocalCluster) -> Iterator[Site]:
    haproxy = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin")
    assert haproxy, "this test needs a real HAProxy: sudo apt-get install -y haproxy"
    with starting(tmp_path) as start:
        found = Site(tmp_path, start, cluster)
        settings = tmp_path / "haproxy.cfg"
        settings.write_text(documented(found.port, found.ports))
        with open(tmp_path / "haproxy.log", "wb") as log:
            running = subprocess.Popen([haproxy, "-db", "-f", str(settings)], stdout=log, stderr=log)
        try:
            until(lambda: listens(found.port) or running.poll() is not None, "HAProxy does not listen")
            assert running.poll() is None, (tmp_path / "haproxy.log").read_text()
            yield found
        finally:
            running.kill()
            running.wait()


def test_a_gateway_that_is_killed_and_one_that_is_rolled_cost_no_get(site: Site) -> None:
    with Load(site.port, connections=CONNECTIONS) as load:
        load.more(200)
        site.kill(0)
        load.more(200)
        site.restart(0)
        load.more(200)
        rolled = site.gateways[1].child
        rolled.signal(signal.SIGTERM)
        assert rolled.wait(PATIENCE_S) and rolled.status() == 0
        load.more(200)
        site.restart(1)
        load.more(200)
    assert set(load.outcomes) == {200}, load.outcomes


def test_a_post_whose_gateway_is_killed_is_not_sent_again(site: Site, cluster: LocalCluster) -> None:
    """It may have been done: who sent it is told, and decides. One that no gateway has had goes to another one."""
    site.kill(0)
    until(lambda: not listens(site.ports[0]), "what was killed listens")
    with socket.create_connection(("127.0.0.1", site.port), PATIENCE_S) as sock:
        sock.sendall(b"POST /slow?60 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        until(lambda: in_flight(cluster), "not begun")
        site.restart(0)
        site.kill(1)
        assert sock.recv(4096).startswith(b"HTTP/1.1 502 ")
    assert in_flight(cluster) <= 1
    for pid in cluster.processes():  # the one that sleeps
        cluster.kill_process(pid)
