"""A real agent with real processes, against a master that the test plays: what such tests share."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_master import PATIENCE_S, FakeMaster
from waiting import is_gone

from rota.common import messages

HERE = Path(__file__).parent

AGENT = """
import json, sys
from rota.common.settings import SlaveSettings
from rota.worker.agent import main
options = json.loads(sys.argv[1])
options["master"] = tuple(options["master"])
sys.exit(main(SlaveSettings(**options)))
"""


class Agent:
    def __init__(self, log: Path, options: dict[str, Any], **popen: Any) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", AGENT, json.dumps(options)], **{"cwd": HERE, "stderr": file, **popen}
            )
        self.pid = self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)


Start = Callable[..., Agent]


@contextmanager
def agents_of(master: FakeMaster, tmp_path: Path) -> Iterator[Start]:
    """A function that starts agents of this master; those that still run at the end are killed."""
    agents: list[Agent] = []

    def start(popen: dict[str, Any] | None = None, **options: Any) -> Agent:
        settings = {
            "app": "node_app:app",
            "name": "web-1",
            "master": [master.address],
            "processes": 2,
            "service": "orders",
            "stop_grace": 2.0,
            **options,
        }
        agents.append(Agent(tmp_path / f"agent-{len(agents)}.log", settings, **(popen or {})))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()


def run_processes(master: FakeMaster, count: int) -> dict[str, messages.Started]:
    """A plan, until that many have said HELLO."""
    master.tell(messages.Plan({"orders": count}))
    started = [master.expect(messages.Started) for _ in range(count)]
    for _ in range(count):
        master.welcome_process()
    return {each.incarnation: each for each in started}


def closing(master: FakeMaster, node: object) -> None:
    """Closes it in a thread, the master being played by this one."""
    thread = threading.Thread(target=node.close)  # type: ignore[attr-defined]
    thread.start()
    master.expect(messages.Leaving)
    master.tell(messages.Leave())
    master.until(lambda: not thread.is_alive(), "the end of the node")


def gone(master: FakeMaster, pid: int) -> None:
    master.until(lambda: is_gone(pid), f"the end of {pid}")
