"""Poison requests and crash loops with real processes, a real master, and the command line of an operator."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from click.testing import CliRunner

import rota
from rota.cli.main import main
from rota.common.body import encode_call
from rota.testing import LocalCluster

from .pool import eventually

APP = """
import os, sys, time
import rota

shop = rota.Worker("shop")
DEATHS = os.environ["DEATHS"]

@shop.handler(idempotent=True)
def quote(symbol: str) -> str:
    if symbol == "POISON" and not os.path.exists(DEATHS + ".fixed"):
        with open(DEATHS, "a") as file:
            file.write(f"{os.getpid()}\\n")
        print(f"cannot price {symbol}", file=sys.stderr, flush=True)
        os._exit(3)
    return symbol
"""

LOOPING = """
import os, sys, threading, time
import rota

loop = rota.Worker("loop")

@loop.on_start
def start() -> None:
    def die() -> None:
        time.sleep(0.05)
        print("out of cheese", file=sys.stderr, flush=True)
        os._exit(7)
    with open(os.environ["DEATHS"], "a") as file:
        file.write(f"{time.monotonic()}\\n")
    threading.Thread(target=die, daemon=True).start()

@loop.handler
def noop() -> None:
    pass
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "loop.py").write_text(LOOPING)
    env = {"DEATHS": str(tmp_path / "deaths")}
    settings = {"service.shop.ramp": 0, "service.shop.max_attempts": 9}
    with LocalCluster(str(tmp_path / "shop.py"), nodes=["web-1"], processes=2, settings=settings, env=env) as running:
        yield running


class Others:
    """A caller of the other payloads, all the while; `failed` is to stay empty."""

    def __init__(self, client: rota.Client) -> None:
        self.client = client
        self.done = 0
        self.failed: list[BaseException] = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = monotonic()
            try:
                assert self.client.call("shop.quote", symbol=f"S{self.done}") == f"S{self.done}"
            except Exception as error:
                self.failed.append(error)
            self.slowest = max(self.slowest, monotonic() - began)
            self.done += 1
            self._stop.wait(0.002)

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def operator(cluster: LocalCluster, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["quarantine", *words], env={"ROTA_MASTER": cluster.address})
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_payload_that_kills_takes_two_processes_and_no_other_request_and_an_operator_can_release_it(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    deaths = tmp_path / "deaths"
    with Others(cluster.client(timeout=20)) as others, cluster.client(timeout=20) as client:
        with pytest.raises(rota.MaybeExecuted, match="in quarantine: 2 processes died of it, the last .*3"):
            client.call("shop.quote", symbol="POISON")
        for _ in range(5):
            with pytest.raises(rota.Quarantined, match="rota quarantine show"):
                client.call("shop.quote", symbol="POISON")
        assert client.call("shop.quote", symbol="poison") == "poison"
        assert len(deaths.read_text().split()) == 2

        (entry,) = json.loads(operator(cluster, "list", "--json"))["entries"]
        assert (entry["service"], entry["handler"], entry["deaths"], entry["refused"]) == ("shop", "quote", 2, 5)
        assert "shop.quote" in operator(cluster, "list")
        text = operator(cluster, "show", entry["id"])
        assert "shop.quote(symbol='POISON')" in text and text.count("    cannot price POISON") == 2
        shown = json.loads(operator(cluster, "show", entry["id"][:6], "--json"))
        assert base64.b64decode(shown["payload"]) == encode_call((), {"symbol": "POISON"})
        assert shown["arguments"] == {"args": [], "kwargs": {"symbol": "POISON"}}
        operator(cluster, "show", "nothing", code=4)

        Path(f"{deaths}.fixed").touch()
        assert "may run again" in operator(cluster, "retry", entry["id"], "--reason", "fixed")
        assert client.call("shop.quote", symbol="POISON") == "POISON"
        assert eventually(lambda: cluster.admin().quarantine()["entries"][0]["state"] == "cleared")
        assert "forgotten" in operator(cluster, "drop", entry["id"])
        assert "forgotten before" in operator(cluster, "drop", entry["id"])
        assert operator(cluster, "list") == "nothing is in quarantine\n"
    assert others.failed == [] and others.done > 20
    events = [event for event in cluster.admin().events() if event["subject"] == entry["id"]]
    assert [event["kind"] for event in events] == ["suspect", "quarantined", "released", "released", "released"]
    assert events[2]["reason"] == "fixed"


def test_a_service_that_dies_again_and_again_backs_off_is_shown_failed_and_leaves_the_others_alone(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    before = cluster.processes("web-1")
    with Others(cluster.client(timeout=20)) as others:
        with pytest.raises((rota.LoadError, rota.Timeout)):
            cluster.start_node("web-2", app=str(tmp_path / "loop.py"))

        def failing() -> list[dict[str, Any]]:
            return [each for node in cluster.status()["nodes"] for each in node["failing"]]

        assert eventually(lambda: any(each["failures"] >= 3 for each in failing()), 15)
        (each,) = failing() or [failing()]
        assert each["service"] == "loop" and each["text"].strip() == "out of cheese"
    starts = [float(line) for line in (tmp_path / "deaths").read_text().split()]
    gaps = [after - at for at, after in zip(starts, starts[1:], strict=False)]
    print(starts, gaps)
    assert cluster.processes("web-1") == before
    assert others.failed == [] and others.slowest < 2.0
