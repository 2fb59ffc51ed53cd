"""Sessions in front of real processes: an application with a memory, four processes on two nodes, browsers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_rig import PATIENCE_S, Gateway, Start, front, joined, starting

from rota.testing import LocalCluster

APP = f"{Path(__file__).with_name('counter_app.py')}:application"
SERVICE = "counter_app"
BROWSERS = 48  # by random names on four processes: once in 200,000 times one of these has none


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {f"service.{SERVICE}.{name}": 0 for name in ("ramp", "min_active")}
    with LocalCluster(APP, nodes=["web-1", "web-2"], processes=2, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with starting(tmp_path_factory.mktemp("sessions")) as starter:
        yield starter


def gateway_with(start: Start, cluster: LocalCluster, folder: Path, affinity: str) -> Gateway:
    file = folder / "rota.toml"
    file.write_text(f'[service.{SERVICE}.http]\naffinity = "{affinity}"\n')
    return front(start, cluster, "-c", str(file), routes=(f"/shop={SERVICE}",)).ready()


@pytest.fixture(scope="module")
def gateway(start: Start, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    return gateway_with(start, cluster, tmp_path_factory.mktemp("cookie"), "cookie")


class Browser:
    """Sends back the cookies that it was given. `seen`: pid and count of each answer."""

    def __init__(self, port: int, user: str) -> None:
        self.user = user
        self.cookies: dict[str, str] = {}
        self.given: list[str] = []
        self.seen: list[tuple[int, int]] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)

    def ask(self, method: str = "GET", **headers: str) -> int:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        if self.cookies:
            named["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._connection.request(method, f"/shop?{self.user}", headers=named)
        answer = self._connection.getresponse()
        body = answer.read()
        for cookie in answer.headers.get_all("Set-Cookie", []):
            self.given.append(cookie)
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        if answer.status == 200:
            pid, count = body.split()
            self.seen.append((int(pid), int(count)))
        return answer.status

    @property
    def homes(self) -> list[int]:
        """The processes that it was served by, in their order."""
        pids = [pid for pid, _ in self.seen]
        return [pid for place, pid in enumerate(pids) if not place or pids[place - 1] != pid]

    def close(self) -> None:
        self._connection.close()


def pids(cluster: LocalCluster, *nodes: str) -> set[int]:
    return {pid for node in nodes for pid in cluster.processes(node)}


def test_each_browser_always_sees_its_own_process(gateway: Gateway, cluster: LocalCluster) -> None:
    browsers = [Browser(gateway.port, f"a{number}") for number in range(BROWSERS)]
    for turn in range(6):
        for browser in browsers:
            assert browser.ask("POST" if turn % 2 else "GET") == 200
    for browser in browsers:
        assert len(browser.homes) == 1 and [count for _, count in browser.seen] == [1, 2, 3, 4, 5, 6]
        ours = [each for each in browser.given if each.startswith("rota_session=")]
        assert len(ours) == 1 and ours[0].endswith("; Path=/shop; HttpOnly; SameSite=Lax")
        assert browser.given.count("seen=1; Path=/") == 6, "its own cookies are left alone"
        browser.close()
    assert len({browser.homes[0] for browser in browsers}) == 4
    assert len({browser.cookies["rota_session"] for browser in browsers}) == BROWSERS
    (service,) = cluster.status()["services"]
    assert service["sessions"] == BROWSERS and cluster.status()["master"]["pins"]["sessions"] == BROWSERS


def test_a_node_that_drains_costs_no_request_and_its_sessions_go_on_elsewhere(
    gateway: Gateway, cluster: LocalCluster
) -> None:
    browsers = [Browser(gateway.port, f"b{number}") for number in range(6)]
    outcomes: list[int] = []
    over = threading.Event()

    def browse(browser: Browser) -> None:
        while not over.is_set():
            outcomes.append(browser.ask("POST"))

    threads = [threading.Thread(target=browse, args=(browser,)) for browser in browsers]
    for thread in threads:
        thread.start()
    admin = cluster.admin()
    before = pids(cluster, "web-1")
    try:
        more(outcomes, 60)
        admin.drain("web-1")
        more(outcomes, 120)
    finally:
        over.set()
        joined(*threads, what="a browser")
    assert set(outcomes) == {200}
    stay = pids(cluster, "web-2")
    for browser in browsers:
        assert browser.homes[-1] in stay
        assert len(set(browser.homes)) == len(browser.homes)  # it may move on from one that stands still, never back
        browser.close()
    assert any(len(browser.homes) > 1 for browser in browsers) or before.isdisjoint(b.homes[0] for b in browsers)
    admin.rejoin("web-1")


def more(outcomes: list[int], count: int) -> None:
    from gateway_rig import until

    wanted = len(outcomes) + count
    until(lambda: len(outcomes) >= wanted, f"no {count} more answers")


def test_a_process_that_is_killed_loses_its_sessions_to_another(gateway: Gateway, cluster: LocalCluster) -> None:
    browser = Browser(gateway.port, "c")
    assert browser.ask() == 200
    cluster.kill_process(browser.homes[0])
    assert [browser.ask() for _ in range(5)] == [200] * 5
    assert len(browser.homes) == 2
    browser.close()
    cluster.wait_ready()


def test_a_header_may_say_it(start: Start, cluster: LocalCluster, tmp_path: Path) -> None:
    gateway = gateway_with(start, cluster, tmp_path, "header:X-Session")
    found: dict[str, set[int]] = {}
    for number in range(60):
        session = f"user-{number % 12}"
        browser = Browser(gateway.port, f"d{number}")
        assert browser.ask(X_Session=session) == 200
        found.setdefault(session, set()).update(browser.homes)
        assert browser.given == ["seen=1; Path=/"]
        browser.close()
    assert all(len(homes) == 1 for homes in found.values()) and len(set.union(*found.values())) > 1


def test_calls_of_a_session_stay_with_a_process_and_the_handler_knows_whose_they_are(tmp_path: Path) -> None:
    (tmp_path / "who.py").write_text(
        "import os, rota\nwho = rota.Worker('who')\n\n@who.handler\ndef am_i(ctx: rota.Context) -> list:\n"
        "    return [os.getpid(), ctx.session]\n"
    )
    with LocalCluster(f"{tmp_path}/who.py:who", processes=3) as running:
        client = running.client()
        found = {
            name: [client.options(session=name).call("who.am_i") for _ in range(5)] for name in ("ann", "bob", "eve")
        }
    for name, answers in found.items():
        assert len({pid for pid, _ in answers}) == 1 and {session for _, session in answers} == {name}
