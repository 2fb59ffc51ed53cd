"""A real agent with real processes, against a master that the test plays."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import agent_rig
import pytest
from agent_rig import HERE, Start, gone, run_processes
from fake_master import PATIENCE_S, FakeMaster
from waiting import is_gone

from rota.common import exits, messages, wire
from rota.common.body import decode_result
from rota.common.settings import SlaveSettings
from rota.worker import agent
from rota.worker.page import DONE, RUNNING
from rota.worker.spawn import Place, as_typed


def test_a_node_says_who_it_is_and_runs_what_the_plan_says(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent(tags={"zone": "a"})
    hello = master.welcome_agent()
    assert (hello.node, hello.capacity, hello.offers, hello.tags) == ("web-1", 2, ["orders"], {"zone": "a"})
    started = run_processes(master, 2)
    assert all(each.incarnation.startswith(f"web-1.{hello.boot}.") for each in started.values())
    assert all(os.getpgid(each.pid) == each.pid for each in started.values())
    master.tell(messages.Plan({}))
    for incarnation in started:
        master.tell(messages.Retire(incarnation, 10_000))
    for _ in range(2):
        exited = master.expect(messages.Exited)
        assert (exited.status, exited.cause) == (0, "stopped")
    assert agent.process.poll() is None


def test_the_agent_tells_of_a_process_before_it_says_hello(master: FakeMaster, start_agent: Start) -> None:
    start_agent()
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 1}))
    started = master.expect(messages.Started)
    hello = master.welcome_process()
    assert (hello.incarnation, hello.ticket, hello.pid) == (started.incarnation, started.ticket, started.pid)


RARE_LOOKS = """
from rota.worker import processes
processes.LOOK_S = 60.0
"""


def test_a_killed_process_is_reported_at_once_with_the_rows_of_its_page(
    master: FakeMaster, start_agent: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_rig, "AGENT", RARE_LOOKS + agent_rig.AGENT)
    start_agent()
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    master.deliver(1, "orders.echo", text="done")
    master.expect_frame(wire.REPLY)
    master.deliver(2, "orders.nap", seconds=60)
    master.deliver(3, "orders.echo", text="parked")
    path = Path(f"/proc/{started.pid}/stat")
    assert path.exists()
    master.until(lambda: _naps(started.pid))
    killed_at = time.monotonic()
    os.kill(started.pid, signal.SIGKILL)
    exited = master.expect(messages.Exited)
    assert time.monotonic() - killed_at < 10.0  # 3 ms on an idle machine; no look is waited for
    assert (exited.status, exited.cause, exited.started_upto) == (-9, "killed by SIGKILL", 2)
    assert exited.kind == "signalled"
    rows = {row.number: row for row in exited.rows}
    assert {number: row.state for number, row in rows.items()} == {1: DONE, 2: RUNNING}
    assert (rows[2].session, rows[2].request, rows[2].epoch) == (b"s" * 16, 1002, 1)
    assert master.expect(messages.Started).incarnation != exited.incarnation


def _naps(pid: int) -> bool:
    with open(f"/proc/{pid}/wchan") as file:
        wchan = file.read()
    with open(f"/proc/{pid}/syscall") as file:
        syscall = file.read().split()[0]
    return "nanosleep" in wchan or syscall == "230"


def test_an_async_process_that_blocks_its_loop_is_ended_too(master: FakeMaster, start_agent: Start) -> None:
    start_agent(app="node_app_async:app")
    master.welcome_agent()
    run_processes(master, 1)
    master.deliver(1, "orders.block")
    assert "exceeded its limit" in master.expect(messages.Exited).cause


SLOW_STARTS = """
import time
from rota.worker import spawn
start = spawn.start
spawn.start = lambda *given: time.sleep(0.2) or start(*given)
"""


def test_a_node_beats_between_the_starts_of_its_processes(
    master: FakeMaster, start_agent: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_rig, "AGENT", SLOW_STARTS + agent_rig.AGENT)
    start_agent(processes=5)
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 5}))
    beats = set()
    for _ in range(5):
        master.expect(messages.Started)
        beats.add(master.beat)
    assert len(beats) > 3


def test_who_leaves_at_once_starts_nothing_of_what_was_still_to_be_started(
    master: FakeMaster, start_agent: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_rig, "AGENT", SLOW_STARTS + agent_rig.AGENT)
    agent = start_agent(processes=100)
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 100}))  # 20 s of starts
    master.expect(messages.Started)
    asked = time.monotonic()
    agent.signal(signal.SIGINT)
    assert agent.ended() == 0 and time.monotonic() - asked < 10.0


def test_retire_stops_one_and_a_fresh_one_comes(master: FakeMaster, start_agent: Start) -> None:
    start_agent()
    master.welcome_agent()
    (old,) = run_processes(master, 1)
    master.tell(messages.Retire(old, 100))
    assert master.expect(messages.Started).incarnation != old
    assert master.expect(messages.Exited).incarnation == old


def test_an_exit_is_repeated_until_it_is_noted_and_the_inventory_comes_with_hello(
    master: FakeMaster, start_agent: Start
) -> None:
    start_agent()
    master.welcome_agent()
    first, second = run_processes(master, 2).values()
    os.kill(first.pid, signal.SIGKILL)
    master.expect(messages.Exited)
    master._control.send_multipart([master.agent, wire.head(wire.WHO, 0)])
    hello = master.welcome_agent()
    assert [exited.incarnation for exited in hello.exits] == [first.incarnation]
    assert second in hello.processes
    master.tell(messages.Noted(first.incarnation))
    master._control.send_multipart([master.agent, wire.head(wire.WHO, 0)])
    assert master.welcome_agent().exits == []


def test_a_silent_master_is_connected_again_while_processes_work_on(master: FakeMaster, start_agent: Start) -> None:
    start_agent()
    hello = master.welcome_agent()
    run_processes(master, 1)
    master.answer_beats = False
    master.control.clear()
    master.deliver(1, "orders.echo", text="on")
    assert decode_result(master.expect_frame(wire.REPLY).body) == "on"
    again = master.welcome_agent()
    assert (again.boot, len(again.processes)) == (hello.boot, 1)


def test_parked_work_is_taken_back_through_the_page(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    start_agent()
    master.welcome_agent()
    (incarnation,) = run_processes(master, 1)
    master.deliver(1, "orders.hold", path=str(tmp_path / "go"))
    master.until((tmp_path / "go.begun").exists)
    master.deliver(2, "orders.echo", text="parked")
    master.tell(messages.Recall(incarnation, 2))
    recalled = master.expect(messages.Recalled)
    (tmp_path / "go").touch()
    assert (recalled.floor, recalled.started_upto) == (3, 1)
    codes = {frame.head.number: frame.head.code for frame in (master.expect_frame(wire.REPLY) for _ in range(2))}
    assert codes[2] == 12


def test_processes_die_with_their_agent(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    agent.signal(signal.SIGKILL)
    gone(master, started.pid)


def test_what_a_process_left_behind_dies_with_it(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(
        "import rota, subprocess\napp = rota.Worker('orders')\n"
        "@app.handler\ndef fork() -> int:\n    return subprocess.Popen(['sleep', '60']).pid\n"
    )
    start_agent(app="forks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    master.deliver(1, "orders.fork")
    child: int = decode_result(master.expect_frame(wire.REPLY).body)
    os.kill(started.pid, signal.SIGKILL)
    gone(master, child)


def test_the_next_agent_ends_what_is_left_of_the_processes_of_one_that_died(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "forks.py").write_text(
        "import rota, subprocess\napp = rota.Worker('orders')\n"
        "@app.handler\ndef fork() -> int:\n    return subprocess.Popen(['sleep', '60']).pid\n"
    )
    options = {"app": "forks:app", "app_dir": str(tmp_path), "state": str(tmp_path / "state")}
    agent = start_agent(**options)
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    master.deliver(1, "orders.fork")
    child: int = decode_result(master.expect_frame(wire.REPLY).body)
    agent.signal(signal.SIGKILL)
    gone(master, started.pid)
    assert not is_gone(child)  # nobody was left to end it
    agent.process.wait()
    again = start_agent(**options)
    master.welcome_agent()
    gone(master, child)
    assert f"ended what was left of an earlier agent's processes: 1 (pid {child})" in again.log.read_text()


def test_a_state_directory_is_not_shared(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    start_agent(state=str(tmp_path / "state"))
    master.welcome_agent()
    second = start_agent(state=str(tmp_path / "state"))
    assert second.ended() == 1
    assert "another agent uses the state directory" in second.log.read_text()


def test_a_state_directory_that_takes_nothing_any_more_ends_no_process(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    agent = start_agent(state=str(tmp_path / "state"))
    master.welcome_agent()
    master.until((tmp_path / "state" / "agent.json").exists)
    for file in ("agent.json.new", "groups.json.new"):  # as good as a full disk, and for root too
        (tmp_path / "state" / file).mkdir()
    master.tell(messages.Intent("active", 4, "me", "release"))
    run_processes(master, 1)
    master.deliver(1, "orders.echo", text="on")
    assert decode_result(master.expect_frame(wire.REPLY).body) == "on"
    said = agent.log.read_text()
    assert said.count("a restart would forget: ") == 1 and "[Errno" not in said


def test_an_agent_without_descriptors_starts_no_more_says_so_and_keeps_what_it_has(
    master: FakeMaster, start_agent: Start
) -> None:
    limit = 40  # for the agent some 25 of them, and four a process
    agent = start_agent(
        processes=8, popen={"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))}
    )
    master.welcome_agent()
    run_processes(master, 1)
    master.tell(messages.Plan({"orders": 8}))
    failing = master.expect(messages.Failing, lambda failing: failing.failures > 0)
    assert "Too many open files" in failing.text
    master.deliver(1, "orders.echo", text="on")
    assert decode_result(master.expect_frame(wire.REPLY).body) == "on"
    assert agent.process.poll() is None


def blocked_and_ignored() -> None:
    """As a program may leave it to what it starts: exec() resets neither."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_signals_that_who_started_the_agent_had_blocked_or_ignored_are_heard(
    master: FakeMaster, start_agent: Start
) -> None:
    agent = start_agent({"preexec_fn": blocked_and_ignored})
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    signals = dict(line.split(":\t") for line in Path(f"/proc/{started.pid}/status").read_text().splitlines())
    assert int(signals["SigBlk"], 16) == 0 == int(signals["SigIgn"], 16) & 1 << signal.SIGCHLD - 1
    os.kill(started.pid, signal.SIGKILL)
    exited = master.expect(messages.Exited)
    assert (exited.status, exited.cause) == (-9, "killed by SIGKILL")
    agent.signal(signal.SIGTERM)
    master.expect(messages.Leaving)


def test_a_storm_of_signals_is_one_request(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    master.welcome_agent()
    run_processes(master, 1)
    agent.signal(signal.SIGSTOP)
    for _ in range(200):
        for number in (signal.SIGHUP, signal.SIGUSR1):
            agent.signal(number)
    agent.signal(signal.SIGCONT)
    assert master.expect(messages.Reload)
    master.deliver(1, "orders.echo", text="on")
    assert decode_result(master.expect_frame(wire.REPLY).body) == "on"


def test_a_node_that_was_stopped_with_its_processes_goes_on_and_answers(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    hello = master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    master.deliver(1, "orders.echo", text="before")
    master.expect_frame(wire.REPLY)
    for pid in (agent.pid, started.pid):
        os.kill(pid, signal.SIGSTOP)
    master.deliver(2, "orders.echo", text="stopped")
    master._control.send_multipart([master.agent, wire.head(wire.WHO, 0)])  # it was given up meanwhile
    for pid in (agent.pid, started.pid):
        os.kill(pid, signal.SIGCONT)
    again = master.welcome_agent()
    assert (again.boot, [each.pid for each in again.processes]) == (hello.boot, [started.pid])
    reply = master.expect_frame(wire.REPLY)
    assert (reply.head.number, reply.head.epoch) == (2, 1)  # by which the master knows whether it still counts


def test_more_and_fewer_processes_by_signal(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    assert master.welcome_agent().capacity == 2
    for number, capacity in [(signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1), (signal.SIGTTOU, 1)]:
        agent.signal(number)
        assert master.welcome_agent().capacity == capacity


def test_hup_asks_the_master_to_reload_and_usr1_does_no_harm(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    master.expect(messages.AgentHello)
    agent.signal(signal.SIGUSR1)
    agent.signal(signal.SIGHUP)
    master.until(lambda: "no master is connected" in agent.log.read_text())
    assert "USR1: there is no log to open again" in agent.log.read_text()
    master._control.send_multipart([master.agent, wire.head(wire.WHO, 0)])  # its HELLO is under way: no second one
    agent.signal(signal.SIGINT)
    assert agent.ended() == 0
    agent = start_agent()
    master.welcome_agent()
    run_processes(master, 1)
    agent.signal(signal.SIGHUP)
    assert master.expect(messages.Reload) == messages.Reload(["orders"])


def test_the_port_that_a_service_needs_is_watched_from_its_node(master: FakeMaster, start_agent: Start) -> None:
    start_agent()
    master.welcome_agent()
    with socket.create_server(("127.0.0.1", 0)) as needed:
        address = "{}:{}".format(*needed.getsockname())
        master.tell(messages.Plan({}, {}, {"orders": messages.PortCheck(address, 50, 1000)}))
        assert master.expect(messages.Unwell) == messages.Unwell("orders", "")
    unwell = master.expect(messages.Unwell)
    assert unwell == messages.Unwell("orders", f"{address}: Connection refused")
    master._control.send_multipart([master.agent, wire.head(wire.WHO, 0)])
    master.welcome_agent()
    assert master.expect(messages.Unwell) == unwell
    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        assert master.expect(messages.Unwell) == messages.Unwell("orders", "")


def test_term_asks_to_leave_and_bye_follows_leave(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent(drain_deadline=30.0)
    master.welcome_agent()
    run_processes(master, 1)
    master.deliver(1, "orders.nap", seconds=0.3)
    agent.signal(signal.SIGTERM)
    assert 29_000 < master.expect(messages.Leaving).deadline_ms <= 30_000
    assert decode_result(master.expect_frame(wire.REPLY).body) == "rested"
    master.tell(messages.Leave())
    assert master.expect(messages.Exited).status == 0
    master.until(lambda: [frame for frame in master.control if frame.head.kind == wire.BYE])
    assert agent.ended() == 0


def test_a_leaving_node_whose_master_is_gone_does_not_wait_for_its_deadline(
    master: FakeMaster, start_agent: Start
) -> None:
    agent = start_agent(drain_deadline=300.0)
    master.welcome_agent()
    run_processes(master, 1)
    agent.signal(signal.SIGTERM)
    master.expect(messages.Leaving)
    master.close()
    assert agent.ended() == 0


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_interrupt_or_a_second_term_leaves_at_once(master: FakeMaster, start_agent: Start, signals: list[int]) -> None:
    agent = start_agent()
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    master.deliver(1, "orders.nap", seconds=60)
    for number in signals:
        agent.signal(number)
        if number == signal.SIGTERM and signals.count(number) == 2:
            signals = signals[1:]
            master.expect(messages.Leaving)
    assert agent.ended() == 0
    assert is_gone(started.pid)


def test_a_boot_that_was_superseded_goes(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    master.refuse_agent("stale")
    assert agent.ended() == 0


def test_the_service_is_learnt_from_a_probe_and_a_broken_application_exits_70(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    start_agent(service=None)
    assert master.welcome_agent().offers == ["orders"]
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    broken = start_agent(app="broken:app", app_dir=str(tmp_path), service=None)
    assert broken.ended() == 70
    assert "nothing_of_this_name" in broken.log.read_text()


APPLICATION = "import rota\napp = rota.Worker('orders')\n@app.handler\ndef f() -> None: ...\n"
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
MUCH = "for _ in range(4_000): print('x' * 1_000)\nprint('the end')\n"
FLOOD = (
    "@app.handler\ndef flood() -> None:\n    for _ in range(64): os.write(1, bytes(1 << 20))\n    print('the end')\n"
)
STDOUT = "import sys\nclass Closed:\n    def flush(self): raise ValueError\nsys.stdout = Closed()\n"
PID = "import os, time\nwith open('pid', 'w') as file:\n    print(os.getpid(), file=file)\ntime.sleep(600)\n"
CHILD = f"import os\nif os.fork() == 0:\n    os.setsid()\n    exec({PID!r})\nwhile not os.path.exists('pid'): ...\n"

LEAVES = "import os\nif not os.fork():\n    os.fork() or print(os.getpid(), file=open('pid', 'w'))\n    os._exit(0)\n"


def become_subreaper() -> None:
    """What process 1 of a container is to those whose parents have ended."""
    ctypes.CDLL(None).prctl(36, 1)


def noted(file: Path, master: FakeMaster) -> int:
    """The pid that PID writes there."""
    master.until(lambda: file.exists() and file.read_text().endswith("\n"), "the start of it")
    return int(file.read_text())


@pytest.mark.parametrize("code", [THREAD, STDOUT, CHILD], ids=["thread", "stdout", "child"])
def test_what_an_application_leaves_behind_where_it_is_probed_is_not_waited_for(
    master: FakeMaster, start_agent: Start, tmp_path: Path, code: str
) -> None:
    (tmp_path / "busy.py").write_text(code + APPLICATION)
    start_agent(app="busy:app", app_dir=str(tmp_path), service=None)
    try:
        assert master.welcome_agent().offers == ["orders"]
    finally:
        if code is CHILD:
            os.kill(noted(tmp_path / "pid", master), signal.SIGKILL)


def test_an_application_that_does_not_come_to_its_end_is_told_in_time(start_agent: Start, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text("import time\nprint('asking the database', flush=True)\ntime.sleep(600)\n")
    stuck = start_agent(app="stuck:app", app_dir=str(tmp_path), service=None, start_timeout=1.0)
    assert stuck.ended() == exits.LOAD_FAILED
    assert stuck.log.read_text() == ("asking the database\nthe application failed to load: was not loaded within 1 s\n")


def test_an_application_that_makes_itself_a_daemon_is_not_waited_for(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    """It ends with 0 and has said nothing, and what it left has our pipe."""
    (tmp_path / "daemon.py").write_text(CHILD + "os._exit(0)\n")
    left = start_agent(app="daemon:app", app_dir=str(tmp_path), service=None)
    try:
        assert left.ended() == exits.LOAD_FAILED
        assert left.log.read_text() == "the application failed to load: exited with 0\n"
    finally:
        os.kill(noted(tmp_path / "pid", master), signal.SIGKILL)


def test_a_probe_ends_with_its_agent(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(PID)
    agent = start_agent(app="stuck:app", app_dir=str(tmp_path), service=None)
    pid = noted(tmp_path / "pid", master)
    agent.signal(signal.SIGKILL)
    agent.ended()
    gone(master, pid)


def test_the_first_process_of_a_container_reaps_what_applications_leave_to_it(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "busy.py").write_text(LEAVES + APPLICATION)
    start_agent({"preexec_fn": become_subreaper}, app="busy:app", app_dir=str(tmp_path))
    master.welcome_agent()
    run_processes(master, 1)
    left = noted(tmp_path / "pid", master)
    master.until(lambda: not Path(f"/proc/{left}").exists(), "the end of what was left")


def test_an_application_that_breaks_later_is_failing_with_its_traceback(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "later.py").write_text("1 / 0\n")
    start_agent(app="later:app", app_dir=str(tmp_path))
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 2}))
    failing = master.expect(messages.Failing)
    assert "ZeroDivisionError" in failing.text and failing.retry_in_ms >= 500
    assert failing.cause == "later failed to import: ZeroDivisionError: division by zero"
    (tmp_path / "later.py").write_text("import rota\napp = rota.Worker('orders')\n@app.handler\ndef f() -> None: ...\n")
    master.tell(messages.Plan({"orders": 2}))
    master.expect(messages.Failing, lambda failing: failing.failures == 0)


def test_a_start_that_hangs_is_failing_with_its_stack_and_its_time(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "hangs.py").write_text("import time\nprint('migrating')\ntime.sleep(1000)\n")
    start_agent(app="hangs:app", app_dir=str(tmp_path), start_timeout=1.0)
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 1}))
    failing = master.expect(messages.Failing)
    assert failing.cause == "was not ready within 1 s (slave.start_timeout)"
    assert 'hangs.py", line 3 in <module>' in failing.text


def test_a_swapped_symlink_takes_effect_at_the_next_start(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    for number in ("1", "2"):
        release = tmp_path / number
        release.mkdir()
        (release / "node_app.py").write_text((HERE / "node_app.py").read_text())
        (release / "VERSION").write_text(number)
    live = tmp_path / "live"
    live.symlink_to("1")
    # Started inside the link, as `cd live && rota slave`: getcwd() knows only the release.
    start_agent(popen={"cwd": live, "env": {**os.environ, "PWD": str(live)}})
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 1}))
    old = master.expect(messages.Started)
    assert master.welcome_process().version == "1"
    master.deliver(1, "orders.cwd")
    assert decode_result(master.expect_frame(wire.REPLY).body) == [str(tmp_path / "1")] * 2
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(live)
    master.tell(messages.Retire(old.incarnation, 0))
    assert master.welcome_process().version == "2"


def test_the_version_of_a_rejoin_stands_above_all_others_and_is_remembered(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    agent = start_agent(state=str(tmp_path / "state"), version="from the flag".replace(" ", "-"))
    master.welcome_agent()
    run_and_check = [("from-the-flag", ""), ("2026.11", "2026.11")]
    for expected, announced in run_and_check:
        master.tell(messages.Intent("active", 4, "me", "release", announced))
        master.tell(messages.Plan({"orders": 1}))
        hello = master.welcome_process()
        assert hello.version == expected
        master.tell(messages.Plan({}))
        master.tell(messages.Retire(hello.incarnation, 10_000))
        master.expect(messages.Exited)
    agent.signal(signal.SIGKILL)
    agent.process.wait()
    start_agent(state=str(tmp_path / "state"))
    again = master.welcome_agent()
    assert (again.intent, again.generation, again.epoch) == ("active", 4, 1)


def room_of_output(process: messages.Started) -> int:
    """Bytes that its file takes on the disk."""
    return 512 * os.stat(f"/proc/{process.pid}/fd/1").st_blocks


def test_output_of_processes_is_passed_on(master: FakeMaster, start_agent: Start) -> None:
    agent = start_agent()
    master.welcome_agent()
    run_processes(master, 1)
    master.deliver(1, "orders.hang")
    master.expect(messages.Exited)
    master.until(lambda: "about to hang" in agent.log.read_text())


def test_output_of_a_process_that_writes_much_is_passed_on_at_once(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    """At 40 KB a second it was late, by as much as it had written, and its file grew."""
    (tmp_path / "talks.py").write_text(APPLICATION + MUCH)
    agent = start_agent(app="talks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    run_processes(master, 1)
    master.until(lambda: agent.log.read_text().endswith("the end\n"))


def test_what_a_process_writes_after_its_file_was_made_smaller_is_passed_on_and_nothing_else(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    """It went on behind a hole as long as all that it had written before: that was passed on as zeros, each time."""
    again = "@app.handler\ndef again() -> None: print('again')\n"
    (tmp_path / "talks.py").write_text(APPLICATION + MUCH + again)
    agent = start_agent(app="talks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    (process,) = run_processes(master, 1).values()
    for number, end in ((1, b"again\n"), (2, b"again\nagain\n")):
        master.until(lambda: room_of_output(process) < 2 << 20)
        master.deliver(number, "orders.again")
        master.until(partial(lambda end: agent.log.read_bytes().endswith(end), end))
    assert b"\0" not in agent.log.read_bytes()


def test_who_wrote_faster_than_is_passed_on_does_not_hold_its_agent_up_when_it_ends(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    """A handler that printed until its limit was over had the node silent for seconds: it was dead to its master."""
    (tmp_path / "talks.py").write_text("import os\n" + APPLICATION + FLOOD + "    os._exit(3)\n")
    agent = start_agent(app="talks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    run_processes(master, 1)
    master.deliver(1, "orders.flood")
    assert master.expect(messages.Exited).status == 3
    shown = agent.log.read_bytes()
    assert len(shown) < 32 << 20 and b"the end\n" in shown and b"bytes that it wrote before are left out" in shown


def test_the_file_of_a_process_that_writes_faster_than_is_passed_on_does_not_fill_the_disk(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "talks.py").write_text("import os\n" + APPLICATION + FLOOD)
    agent = start_agent(app="talks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    (process,) = run_processes(master, 1).values()
    master.deliver(1, "orders.flood")
    master.until(lambda: b"is passed on; " in agent.log.read_bytes())
    master.until(lambda: room_of_output(process) <= 16 << 20)
    master.until(lambda: agent.log.read_bytes().endswith(b"the end\n"))
    shown = agent.log.read_bytes()
    assert len(shown) < 32 << 20 and b"is passed on; " in shown and b"bytes that it wrote before are left out" in shown


def test_why_a_start_failed_is_told_however_much_was_written_before(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    (tmp_path / "talks.py").write_text(APPLICATION + MUCH + "raise OSError('no database')\n")
    start_agent(app="talks:app", app_dir=str(tmp_path))
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 1}))
    assert "OSError: no database" in master.expect(messages.Failing).text


def test_what_nobody_can_read_any_more_is_not_kept(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    """Whoever read the agent's stderr has ended."""
    (tmp_path / "talks.py").write_text(APPLICATION + MUCH)
    reader, writer = os.pipe()
    os.close(reader)
    start_agent(app="talks:app", app_dir=str(tmp_path), popen={"stderr": writer})
    os.close(writer)
    master.welcome_agent()
    (process,) = run_processes(master, 1).values()
    master.until(lambda: room_of_output(process) < 2 << 20)


def test_systemd_is_told_when_the_node_is_in(master: FakeMaster, start_agent: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        start_agent(popen={"env": {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}})
        master.welcome_agent()
        assert systemd.recv(100) == b"READY=1"


def test_a_directory_is_kept_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "live").symlink_to("release")
    monkeypatch.chdir(tmp_path / "live")
    monkeypatch.setenv("PWD", str(tmp_path / "live"))
    assert as_typed(".") == str(tmp_path / "live")
    assert as_typed("app") == str(tmp_path / "live" / "app")
    monkeypatch.setenv("PWD", "/")  # a lie: another directory
    assert as_typed(".") == str(tmp_path / "release")
    assert as_typed("/x/y") == "/x/y"
    monkeypatch.chdir(tmp_path / "release")
    (tmp_path / "release").rmdir()
    with pytest.raises(OSError, match="the current directory was removed: enter one that is there"):
        as_typed(".")


def test_a_relative_interpreter_is_one_from_here_wherever_processes_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "live").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    script(tmp_path / "live" / "python", "echo it began; exit 3")
    settings = SlaveSettings(app=f"{HERE / 'node_app.py'}:orders", app_dir="live", python="live/python")
    assert agent.main(settings) == exits.LOAD_FAILED and "it began" in capfd.readouterr().err
    assert agent.main(replace(settings, python="live/none")) == exits.FAILED
    assert capfd.readouterr().err == "rota slave: --python live/none cannot be run: No such file or directory\n"
    assert Place.of("live", "python3").python == "python3", "one of PATH"


def test_an_interpreter_without_rota_is_told_as_that(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = script(tmp_path / "python", f'exec {sys.executable} -S "$@"')
    settings = SlaveSettings(app=f"{HERE / 'node_app.py'}:orders", app_dir=str(tmp_path), python=str(python))
    assert agent.main(settings) == exits.LOAD_FAILED
    expected = f"rota slave: {python} has no rota, which each process imports: install it there, too"
    assert capfd.readouterr().err.strip() == expected
    assert agent.main(replace(settings, python=str(tmp_path / "none"))) == exits.FAILED
    assert capfd.readouterr().err == f"rota slave: --python {tmp_path}/none cannot be run: No such file or directory\n"


def test_an_interpreter_that_is_too_old_is_told_as_that_also_when_a_release_brings_it(
    master: FakeMaster, start_agent: Start, tmp_path: Path
) -> None:
    python = script(tmp_path / "python", "echo 'Unknown option: -P' >&2; echo 'Try `python -h'; exit 2")
    start_agent(python=str(python))
    master.welcome_agent()
    master.tell(messages.Plan({"orders": 1}))
    failing = master.expect(messages.Failing)
    assert failing.text == failing.cause == f"{python} is older than Python 3.11: rota runs in 3.11 and newer"


def script(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path
