"""A node that is ill and one that is well, with real processes: callers notice nothing, and it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from waiting import eventually

from rota.cli.main import main
from rota.testing import LocalCluster

APP = """
import os, signal
import rota

shop = rota.Worker("shop")

def is_ill() -> bool:
    try:
        with open(os.environ["ILL"]) as file:
            return file.read() == str(os.getppid())
    except FileNotFoundError:
        return False

@shop.handler(idempotent=True)
def quote(number: int) -> int:
    if is_ill():
        os.kill(os.getpid(), signal.SIGSEGV)
    return number

@shop.health
def well() -> bool:
    return not is_ill()
"""


class Shop:
    def __init__(self, cluster: LocalCluster, ill: Path) -> None:
        self.cluster = cluster
        self._ill = ill
        self._client = cluster.client().options(timeout=20)
        self._sent = 0

    def node(self, name: str) -> dict[str, Any]:
        return next(node for node in self.cluster.status()["nodes"] if node["name"] == name)

    def serve(self, calls: int = 4) -> None:
        """Every call of these is answered, whichever node it met."""
        numbers = range(self._sent, self._sent + calls)
        self._sent += calls
        futures = [self._client.submit("shop.quote", number=number) for number in numbers]
        assert [future.result(20) for future in futures] == list(numbers)

    def falls_ill(self, name: str) -> None:
        pid = self.node(name)["processes"][0]["pid"]
        agent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        self._ill.write_text(agent)

    def is_mended(self) -> None:
        self._ill.unlink()

    def becomes(self, name: str, health: str, traffic: bool = True) -> bool:
        def holds() -> bool:
            if traffic:
                self.serve()
            return bool(self.node(name)["health"] == health)

        return eventually(holds, 20)

    def rota(self, *words: str) -> Any:
        done = CliRunner().invoke(main, [*words, "--master", self.cluster.address])
        return done


@contextmanager
def shop(folder: Path, **health: object) -> Iterator[Shop]:
    (folder / "shop.py").write_text(APP)
    ill = folder / "ill"
    settings = {"service.shop.ramp": 0, **{f"service.shop.health.{key}": value for key, value in health.items()}}
    with LocalCluster(f"{folder / 'shop.py'}:shop", nodes=2, settings=settings, env={"ILL": str(ill)}) as cluster:
        yield Shop(cluster, ill)


def test_a_crash_loop_costs_no_call_and_the_node_comes_back_after_its_time(tmp_path: Path) -> None:
    with shop(tmp_path, fall=2, blacklist="1s") as it:
        it.serve()
        it.falls_ill("node-1")
        assert it.becomes("node-1", "blacklisted")
        assert "SIGSEGV" in it.node("node-1")["why"] and it.node("node-2")["health"] == "up"
        it.serve(100)
        shown = it.rota("blacklist", "list").stdout
        assert "node-1" in shown and "SIGSEGV" in shown and "node-2" not in shown
        it.is_mended()
        assert it.becomes("node-1", "up")
        kinds = [event["kind"] for event in it.cluster.admin().events()]
        assert kinds.index("blacklisted") < kinds.index("trial") < kinds.index("reinstated")


def test_a_node_whose_own_probe_says_no_is_out_until_it_says_yes(tmp_path: Path) -> None:
    with shop(tmp_path, check="request", every="400ms", timeout="300ms", fall=2, blacklist="60s") as it:
        assert it.becomes("node-1", "up", traffic=False) and it.becomes("node-2", "up", traffic=False)
        it.falls_ill("node-1")
        assert it.becomes("node-1", "blacklisted", traffic=False)
        assert "the health probe returned False" in it.node("node-1")["why"]
        it.serve(50)
        assert it.rota("drain", "node-2", "--no-wait").exit_code == 5
        it.is_mended()
        cleared = it.rota("blacklist", "clear", "node-1", "--reason", "mended", "--json")
        assert cleared.exit_code == 0 and json.loads(cleared.stdout)["names"] == [{"name": "node-1", "changed": True}]
        assert it.node("node-1")["health"] == "up"
        it.serve(50)
