"""Poison requests and crash loops with real processes, a real master, and the command line of an operator."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner
from waiting import until

import rota
from rota.cli.main import main
from rota.common.body import encode_call
from rota.testing import LocalCluster

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
        time.sleep(0.2)  # it was ready, and for a moment all is well
        print("out of cheese", file=sys.stderr, flush=True)
        os._exit(7)
    with open(os.environ["STARTS"], "a") as file:
        file.write(f"{time.monotonic()}\\n")
    threading.Thread(target=die, daemon=True).start()

@loop.handler
def noop() -> None:
    pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("poison")
    (made / "shop.py").write_text(APP)
    (made / "loop.py").write_text(LOOPING)
    return made


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[LocalCluster]:
    env = {"DEATHS": str(folder / "deaths"), "STARTS": str(folder / "starts")}
    settings = {"service.shop.ramp": 0, "service.shop.max_attempts": 9}
    with LocalCluster(str(folder / "shop.py"), nodes=["web-1"], processes=2, settings=settings, env=env) as running:
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
        self._thread.join(30.0)  # a call of its client takes 20 s at most
        assert not self._thread.is_alive(), "its last call was not answered"


def operator(cluster: LocalCluster, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["quarantine", *words], env={"ROTA_MASTER": cluster.address})
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_payload_that_kills_takes_two_processes_and_no_other_request_and_an_operator_can_release_it(
    cluster: LocalCluster, folder: Path
) -> None:
    deaths = folder / "deaths"
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
        until(lambda: cluster.admin().quarantine()["entries"][0]["state"] == "cleared")
        assert "forgotten" in operator(cluster, "drop", entry["id"])
        assert "forgotten before" in operator(cluster, "drop", entry["id"])
        assert operator(cluster, "list") == "nothing is in quarantine\n"
    assert others.failed == [] and others.done > 5
    events = [event for event in cluster.admin().events() if event["subject"] == entry["id"]]
    assert [event["kind"] for event in events] == ["suspect", "quarantined", "released", "released", "released"]
    assert events[2]["reason"] == "fixed"


def test_a_service_that_dies_again_and_again_backs_off_is_shown_failed_and_leaves_the_others_alone(
    cluster: LocalCluster, folder: Path
) -> None:
    cluster.wait_ready()
    before = cluster.processes("web-1")

    def status() -> str:
        return CliRunner().invoke(main, ["status"], env={"ROTA_MASTER": cluster.address}).stdout

    with Others(cluster.client(timeout=20)) as others:
        with suppress(rota.LoadError):  # it is ready, and dies; or was seen too late
            cluster.start_node("web-2", app=str(folder / "loop.py"))
        shown = r"web-2: loop failed [2-9] times in a row, next try in .*:\n    out of cheese"
        until(
            lambda: re.search(shown, status()) is not None,
            lambda: status() + str(list(cluster.admin().events())[-12:]),
            15,
        )
    first, _, again = [float(line) for line in (folder / "starts").read_text().split()][:3]  # two at first, then one
    assert again - first > 0.2 + 0.5
    assert cluster.processes("web-1") == before
    assert others.failed == [] and others.done > 5 and others.slowest < 2.0
