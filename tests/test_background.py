"""Handlers that run inside an application: here, inside the test itself."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from agent_rig import closing
from fake_master import FakeMaster

import rota
from rota.common import messages, restarts, wire
from rota.common.body import decode_result
from rota.common.errors import LoadError
from rota.common.link import Link
from rota.common.names import valid_name
from rota.common.settings import SlaveSettings
from rota.worker import backend, background, embedded
from rota.worker.page import FLOOR, RUNNING, STARTED_UPTO, Page
from rota.worker.process import Specification
from rota.worker.processes import RECALL_WAIT_S


def worker() -> rota.Worker:
    made = rota.Worker("orders")
    seen: list[str] = []

    @made.handler
    def collect(text: str) -> list[str]:
        seen.append(text)
        return seen

    @made.handler
    def pid() -> int:
        return os.getpid()

    return made


def test_an_address_of_a_master_is_read_as_clients_read_it() -> None:
    """The port may be left out: an agent that was given such an address as it stood ended at once."""
    assert worker().background(master="tcp://10.0.0.1, tcp://10.0.0.2:7").masters == (
        "tcp://10.0.0.1:7700",
        "tcp://10.0.0.2:7",
    )
    with pytest.raises(ValueError, match="no master's address"):
        worker().background(master="localhost")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": 5}, r"^name must be 1 to 64 ASCII letters"),
        ({"tags": {"zone": 1}}, r"^tags .*zone.* must be a text"),
        ({"drain_deadline": "soon"}, r"^drain_deadline must be a duration"),
        ({"drain_deadline": -1}, r"^drain_deadline must be from 0s to 1d, not -1"),
        ({"version": 2}, r"^version must be a text in quotes, not 2"),
    ],
)
def test_options_are_checked_when_they_are_given(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        worker().background(**options)


def test_an_option_that_is_none_has_its_default() -> None:
    """As of `Worker.run`; this one raised KeyError."""
    node = worker().background(name=None, version=None, tags=None, state=None, drain_deadline=None)
    assert node._drain_deadline == 60.0


@pytest.mark.parametrize(
    ("hosts", "nodes"),
    [
        ("web-1.example.com", "web-1.example.com"),
        ("Web_1", "Web_1"),
        ("b\xfcro", "b-ro"),
        ("(none)", "none-"),
        ("my pc", "my-pc"),
        ("-.-", "_"),
        ("", "_"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_node_without_a_name_has_that_of_its_host_as_far_as_it_is_a_name(
    monkeypatch: pytest.MonkeyPatch, hosts: str, nodes: str
) -> None:
    """A master refuses others, and a pod may have a name of 63 letters."""
    monkeypatch.setattr("socket.gethostname", lambda: hosts)
    assert SlaveSettings().name == nodes and valid_name(nodes)
    name = worker().background().name
    assert name.endswith(f"-{os.getpid()}") and name.startswith(nodes[:50]) and valid_name(name)


def test_handlers_run_in_the_calling_process_on_its_own_objects(master: FakeMaster) -> None:
    with worker().background(master=master.address, name="app-1") as node:
        hello = master.welcome_agent()
        assert (hello.node, hello.embedded, hello.capacity, hello.offers) == ("app-1", True, 1, ["orders"])
        master.tell(messages.Plan({"orders": 1}))
        started = master.expect(messages.Started)
        assert (started.pid, master.welcome_process().ticket) == (os.getpid(), started.ticket)
        node.wait_ready()
        for number, text in enumerate(("a", "b"), 1):
            master.deliver(number, "orders.collect", upto=number - 1, text=text)
        master.expect_frame(wire.REPLY)
        assert decode_result(master.expect_frame(wire.REPLY).body) == ["a", "b"]
        closing(master, node)


def test_an_agent_that_hangs_does_not_keep_the_application(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LEFT_S", 0.2)
    node = worker().background(master=master.address, name="app-1", drain_deadline=0.1)
    with node:
        master.welcome_agent()
        agent = node._agent
        assert agent is not None
        agent.send_signal(signal.SIGSTOP)
    assert agent.returncode == -signal.SIGKILL


def test_an_agent_that_is_killed_is_started_again(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restarts, "FIRST_S", 0.01)
    with worker().background(master=master.address, name="app-1") as node:
        boots: set[str] = set()
        agents: list[Any] = []
        for _ in range(2):
            boots.add(master.welcome_agent(lambda hello: hello.boot not in boots).boot)
            master.tell(messages.Plan({"orders": 1}))
            master.expect(messages.Started)
            master.welcome_process()
            master.deliver(1, "orders.pid")
            assert decode_result(master.expect_frame(wire.REPLY).body) == os.getpid()
            agents.append(node._agent)
            if len(boots) == 1:
                agents[0].kill()
        assert len(boots) == 2
        assert [agent.stdin.closed and agent.stdout.closed for agent in agents] == [True, False]
        closing(master, node)
    assert "the agent of app-1 ended: killed by SIGKILL; another one is started in 0.01 s" in capfd.readouterr().err


def test_what_something_else_writes_in_the_interpreter_of_the_agent_is_shown_and_does_no_harm(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('measured by somebody', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        master.expect(messages.Started)
        master.welcome_process()
        closing(master, node)
    assert "measured by somebody" in capfd.readouterr().err


def test_a_slot_that_was_drained_comes_back(master: FakeMaster) -> None:
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        incarnations = set()
        for _ in range(2):
            master.tell(messages.Plan({"orders": 1}))
            incarnation = master.expect(messages.Started).incarnation
            incarnations.add(incarnation)
            master.welcome_process()
            master.deliver(1, "orders.pid")
            assert decode_result(master.expect_frame(wire.REPLY).body) == os.getpid()
            master.tell(messages.Plan({}))
            master.tell(messages.Retire(incarnation, 10_000))
            assert master.expect(messages.Exited).cause == "stopped"
        assert len(incarnations) == 2
        closing(master, node)


def hanging() -> tuple[rota.Worker, threading.Event]:
    """A worker whose handler is over its limit until the event is set."""
    made = rota.Worker("orders")
    release = threading.Event()

    @made.handler(timeout=0.2)
    def hang() -> None:
        release.wait(60)

    return made, release


def test_a_hung_slot_is_taken_out_not_killed_and_returns_when_its_handler_does(master: FakeMaster) -> None:
    made, release = hanging()
    with made.background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        first = master.expect(messages.Started)
        master.welcome_process()
        master.deliver(1, "orders.hang")
        exited = master.expect(messages.Exited)
        assert (exited.incarnation, exited.cause) == (
            first.incarnation,
            "hung: its handler exceeded its limit of 0.2 s",
        )
        assert [row.state for row in exited.rows] == [RUNNING]
        release.set()
        assert master.expect(messages.Started).incarnation != first.incarnation
        master.welcome_process()
        closing(master, node)


def test_a_block_ends_though_the_handler_that_hung_in_it_never_returns(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent waited for the slot, with a process that was not wanted any more, until it was killed."""
    monkeypatch.setattr(background, "JOIN_S", 0.1)
    made, release = hanging()
    with made.background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        master.expect(messages.Started)
        master.welcome_process()
        master.deliver(1, "orders.hang")
        master.expect(messages.Exited)
        agent = node._agent
        assert agent is not None
        closing(master, node)
    release.set()
    assert agent.returncode == 0


@pytest.mark.parametrize("forks", [False, True])
def test_the_end_of_the_application_is_reported(forks: bool, master: FakeMaster, tmp_path: Path) -> None:
    """Also when a child that it forked lives on, which holds all its descriptors open."""
    app = tmp_path / "app.py"
    app.write_text(
        "import rota, time\nw = rota.Worker('orders')\n"
        f"@w.handler\ndef nap() -> None: open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(60)\n"
        f"with w.background(master={master.address!r}, name='app-1'):\n"
        "    import os\n"
        f"    child = os.fork() if {forks} else -1\n"
        "    if child: print(child, flush=True)\n"
        "    time.sleep(60)\n"
    )
    application = subprocess.Popen([sys.executable, str(app)], stdout=subprocess.PIPE, text=True)
    assert application.stdout is not None
    child = int(application.stdout.readline())
    try:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        master.expect(messages.Started)
        master.welcome_process()
        master.deliver(1, "orders.nap")
        master.until((tmp_path / "begun").exists)
        application.kill()
        application.wait(10)
        exited = master.expect(messages.Exited)
        assert (exited.cause, exited.started_upto) == ("the application ended", 1)
        master.until(lambda: [frame for frame in master.control if frame.head.kind == wire.BYE])
    finally:
        application.kill()
        application.wait(10)
        application.stdout.close()
        if child > 0:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_leaves_the_node_to_its_parent(master: FakeMaster) -> None:
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        incarnation = master.expect(messages.Started).incarnation
        master.welcome_process()
        child = os.fork()
        if not child:
            try:
                node.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        master.tell(messages.Retire(incarnation, 10_000))
        master.until(lambda: [each for each in master.control if isinstance(each.message, messages.Exited)])
        assert not [each for each in master.control if isinstance(each.message, messages.Leaving)]
        closing(master, node)


def test_a_node_has_one_block_and_is_ready_in_it_or_not_at_all(master: FakeMaster) -> None:
    node = worker().background(master=master.address, name="app-1")
    with pytest.raises(RuntimeError, match="does not run"):
        node.wait_ready(0.1)
    with node:
        master.welcome_agent()
        with pytest.raises(RuntimeError, match="had its block"), node:
            pass
        with pytest.raises(rota.Timeout, match=r"app-1 was not ready within 0.1 s$"):
            node.wait_ready(0.1)
        closing(master, node)
    with pytest.raises(RuntimeError, match="does not run"):
        node.wait_ready(0.1)


def test_a_start_hook_that_fails_is_shown_as_failing(master: FakeMaster) -> None:
    made = worker()

    @made.on_start
    def fail() -> None:
        raise OSError("no database caf\udce9")  # a name of a file that is no UTF-8

    with made.background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        failing = master.expect(messages.Failing)
        assert failing.cause == "on_start function fail failed: OSError: no database caf?"
        assert "Traceback" in failing.text and "caf\\udce9" in failing.text
        with pytest.raises(rota.Timeout, match="(?s)within 0.1 s; its last start failed:.*no database"):
            node.wait_ready(0.1)
        closing(master, node)


def test_what_a_start_hook_says_at_length_is_told_in_part(master: FakeMaster) -> None:
    """An agent whose parent says more than a message holds ended by it."""
    made = worker()

    @made.on_start
    def fail() -> None:
        raise LoadError(f"no {2_000_000 * 'e'} database")

    with made.background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        exited = master.expect(messages.Exited)
        assert exited.text.endswith("e database") and len(exited.text) < 100_000
        closing(master, node)


def without_descriptors(monkeypatch: pytest.MonkeyPatch, tries: int) -> list[zmq.ZMQError]:
    """None is left for the next connections of slots. What of it is still to come."""
    carry_on = Link
    failures = [zmq.ZMQError(errno.EMFILE)] * tries

    def link(*args: Any) -> Link:
        if failures:
            raise failures.pop()
        return carry_on(*args)

    monkeypatch.setattr(backend, "Link", link)
    return failures


def test_a_slot_that_fails_to_connect_is_started_again(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own it would end that; here it ended the thread, and nobody served ever after."""
    without_descriptors(monkeypatch, 1)
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        assert "Too many open files" in master.expect(messages.Failing).text
        master.welcome_process()
        node.wait_ready()
        closing(master, node)


def test_what_runs_goes_on_while_there_is_no_descriptor_for_a_connection(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what has them all. It ended with its process, as its callers' MaybeExecuted."""
    made = rota.Worker("orders")
    failures: list[zmq.ZMQError] = []
    begun, lost = threading.Event(), threading.Event()

    @made.handler
    async def hoard() -> str:
        begun.set()
        while failures or not lost.is_set():
            await asyncio.sleep(0.01)
        return "done"

    with made.background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        master.expect(messages.Started)
        master.welcome_process()
        master.deliver(1, "orders.hoard")
        master.until(begun.is_set)
        failures = without_descriptors(monkeypatch, 2)
        master.rebind_backend()
        lost.set()
        assert [held.number for held in master.welcome_process().held] == [1]
        assert decode_result(master.expect_frame(wire.REPLY).body) == "done"
        closing(master, node)


def test_an_agent_that_is_not_understood_is_told_why(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process says it; here it ended the thread, and nobody served ever after."""
    carry_on = Specification.read
    failures = [LoadError("the agent of this process says no backends")]

    def read(said: dict[str, Any]) -> Specification:
        if failures:
            raise failures.pop()
        return carry_on(said)

    monkeypatch.setattr(Specification, "read", read)
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        assert master.expect(messages.Failing).cause == "the agent of this process says no backends"
        master.welcome_process()
        node.wait_ready()
        closing(master, node)


def test_a_slot_that_is_wanted_again_before_it_has_stopped_comes_back(master: FakeMaster) -> None:
    with worker().background(master=master.address, name="app-1") as node:
        master.welcome_agent()
        master.tell(messages.Plan({"orders": 1}))
        first = master.expect(messages.Started)
        master.welcome_process()
        master.tell(messages.Retire(first.incarnation, 0))
        assert master.expect(messages.Exited).incarnation == first.incarnation
        assert master.expect(messages.Started).incarnation != first.incarnation
        master.welcome_process()
        closing(master, node)


def test_what_began_in_a_slot_at_the_moment_when_it_is_taken_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last store may still be on its way from one core to the other: what looks as if it had not begun would run
    elsewhere, too.
    """
    page, told = Page.create(), []
    processes = SimpleNamespace(ended=lambda *_: told.append(page.words[STARTED_UPTO]))
    slot: Any = SimpleNamespace(_page=page, _processes=processes)

    def arrive(seconds: float) -> None:
        assert seconds >= RECALL_WAIT_S and page.words[FLOOR]
        page.words[STARTED_UPTO] = 5

    monkeypatch.setattr(time, "sleep", arrive)
    embedded.Parent.kill(slot, "app-1.b.1", signal.SIGTERM)
    assert not told and not page.words[FLOOR], "what runs may finish: it was told to stop before"
    embedded.Parent.kill(slot, "app-1.b.1", signal.SIGKILL)
    page.close()
    assert told == [5]
