"""`Worker.run()`: a file that is run is a slave node of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fake_master import PATIENCE_S, FakeMaster

import rota
from rota.common import messages, wire
from rota.common.body import decode_result
from rota.common.declare import given
from rota.common.settings import SlaveSettings
from rota.worker.run import application

FILE = """
import rota
orders = rota.Worker("orders")

@orders.handler
def name() -> str:
    return __name__

if __name__ == "__main__":
    orders.run(processes=1, name="web-1")
"""


@pytest.mark.parametrize("arguments", [["shop.py"], ["-m", "shop"]])
def test_a_file_that_is_run_serves_in_processes_that_load_it(
    master: FakeMaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (tmp_path / "shop.py").write_text(FILE)
    monkeypatch.setenv("ROTA_MASTER", master.address)
    node = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path)
    try:
        assert master.welcome_agent().offers == ["orders"]
        master.tell(messages.Plan({"orders": 1}))
        assert master.welcome_process().pid != node.pid
        master.deliver(1, "orders.name")
        assert decode_result(master.expect_frame(wire.REPLY).body) == "shop"
        node.send_signal(signal.SIGINT)
        assert node.wait(PATIENCE_S) == 0
    finally:
        node.kill()
        node.wait()


def test_nothing_of_a_file_that_is_run_is_where_its_stderr_was(master: FakeMaster, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(FILE)
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "shop.py"]
    node = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "ROTA_MASTER": master.address})
    try:
        master.welcome_agent()
        assert [os.readlink(f"/proc/{node.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    finally:
        node.kill()
        node.wait()


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"processes": "2"}, ValueError, "processes must be a whole number, not '2'"),
        ({"processes": True}, ValueError, "processes must be a whole number, not True"),
        ({"start_timeout": 0}, ValueError, "start_timeout must be from 1s to 1h, not 0"),
        ({"app_dir": 3}, ValueError, "app_dir must be a text in quotes, not 3"),
        ({"proceses": 2}, TypeError, "there is no option 'proceses'; did you mean processes?"),
        ({"service": "x"}, TypeError, "there is no option 'service'; there are name, processes, version"),
    ],
)
def test_options_are_checked_when_they_are_given(
    options: dict[str, object], kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind, match=problem):
        rota.Worker("orders").run(**options)


def test_paths_and_durations_are_read_as_those_of_files_are(tmp_path: Path) -> None:
    chosen = given(
        SlaveSettings, ("app_dir", "stop_grace", "state"), {"app_dir": tmp_path, "stop_grace": "2s", "state": None}
    )
    assert chosen == {"app_dir": str(tmp_path), "stop_grace": 2.0}


def test_a_worker_that_processes_could_not_find_is_refused() -> None:
    module = ModuleType("__main__")
    module.__file__ = __file__
    with pytest.raises(RuntimeError, match="top level"):
        application(rota.Worker("orders"), module)
