"""The process that runs lists and sends notifications: real commands, real receivers, a master that waits for none."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from notify_rig import mailbox, webhook
from waiting import is_gone

import rota
from rota.common import config
from rota.master import errands
from rota.master.errand_runner import Command
from rota.master.errands import Errands
from rota.testing import LocalCluster

PYTHON = sys.executable


class Shell:
    """What the server does with it."""

    def __init__(self, loaded: config.Config) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.errands = Errands(loaded, "tcp://127.0.0.1:1", lambda *told: self.told.append(told))
        self.slowest = 0.0

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            now = time.monotonic()
            assert now < end, self.told
            wait_s = min(0.1, max(0.0, self.errands.due_at - now))
            select.select([self.errands.fd], [], [], wait_s)
            begun = time.thread_time()
            self.errands.attend(time.monotonic())
            self.slowest = max(self.slowest, time.thread_time() - begun)

    def became(self, state: str) -> None:
        self.errands.became(state, f"now {state}", time.monotonic())

    def happened(self, kind: str, text: str = "text") -> None:
        self.errands.happened(kind, "a", text, time.monotonic())

    def events(self, kind: str) -> list[str]:
        return [text for each, _, text in self.told if each == kind]


@pytest.fixture
def shell() -> Iterator[Callable[..., Shell]]:
    shells: list[Shell] = []

    def make(text: str = "", **lists: Any) -> Shell:
        path = Path(os.environ["PYTEST_SHELL_FILE"]) if text else None
        if path is not None:
            path.write_text(text)
        flags = {f"standby.{key}": value for key, value in lists.items()}
        shells.append(Shell(config.load(path, {}, {"master.name": "b", **flags})))
        return shells[-1]

    yield make
    for each in shells:
        each.errands.close()


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_SHELL_FILE", str(tmp_path / "rota.toml"))


def python(code: str) -> str:
    return f'run {PYTHON} -c "{code}"'


def test_the_steps_of_a_takeover_run_in_order_with_their_words_as_they_are(shell, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write = f"import sys; open('{log}', 'a').write(repr(sys.argv[1:]))"
    made = shell(on_takeover=[f"{python(write)} 'a b' $HOME ';'", f"{python(write)} second"])
    made.became("active")
    made.until(lambda: len(made.events("step")) == 2)
    assert log.read_text() == "['a b', '$HOME', ';']['second']"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (python("print('one'); print('no device'); exit(3)"), "exit 3: one | no device"),
        (python("import os; os.kill(os.getpid(), 11)"), "signal 11"),
        ("run /nowhere/at-all", "exit 127: [Errno 2] No such file or directory: '/nowhere/at-all'"),
        ("run /etc/passwd", "exit 126: [Errno 13] Permission denied: '/etc/passwd'"),
        (python("print('x' * 100_000); exit(1)"), "exit 1: " + "x" * 600),
    ],
)
def test_a_command_that_fails_is_told_with_what_it_said(shell, step: str, told: str) -> None:
    made = shell(on_takeover=[step])
    made.became("active")
    made.until(lambda: made.events("step failed"))
    assert made.events("step failed")[0].endswith(told) and made.errands.alarms() == made.events("step failed")


def test_a_step_that_takes_too_long_is_killed_with_all_that_it_started(shell, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"echo $$ > {pids}; sleep 600 & echo $! >> {pids}; echo begun; trap '' TERM; wait; sleep 600"
    made = shell(on_takeover=[f'run sh -c "{code}"'], step_timeout="300ms")
    made.became("active")
    made.until(lambda: made.events("step failed"))
    assert "ended after 0." in made.events("step failed")[0] and made.events("step failed")[0].endswith(": begun")
    numbers = [int(line) for line in pids.read_text().split()]
    made.until(lambda: len(numbers) == 2 and all(map(is_gone, numbers)))


def test_a_command_may_leave_something_running_and_is_done_all_the_same(shell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    made = shell(on_takeover=[f'run sh -c "sleep 600 & echo $! > {pid}"'])
    made.became("active")
    made.until(lambda: made.events("step"))
    left = int(pid.read_text())
    assert not is_gone(left)
    os.kill(left, signal.SIGKILL)


def test_a_command_that_cannot_be_watched_does_not_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container forbids it: it was said not to run, ran, and had no time-out."""
    began: list[int] = []

    def forbidden(pid: int) -> int:
        began.append(pid)
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    with pytest.raises(PermissionError):
        Command(1, [PYTHON, "-c", "import time; time.sleep(60)"], "", 60.0)
    assert is_gone(began[0])


def test_a_list_that_is_under_way_is_killed_for_the_next_one(shell, tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = shell(
        on_takeover=[f'run sh -c "echo up >> {log}; sleep 600"'], on_return=[f'run sh -c "echo down >> {log}"']
    )
    made.became("active")
    made.until(log.exists)
    made.became("standby")
    made.until(lambda: made.events("step"))
    assert log.read_text() == "up\ndown\n" and not made.events("step failed")


def test_each_receiver_is_told_once_and_in_order_though_it_fails_at_first(shell) -> None:
    with mailbox() as box, webhook() as hook:
        hook.statuses.append(503)
        box.replies.append("451 later")
        made = shell(f'[notify.ops]\nto = "a@x.org"\nserver = "{box.server}"\n[notify.chat]\nto = "{hook.url}"\n')
        made.became("standby")
        made.happened("dead")
        made.became("active")
        made.happened("live")
        made.until(lambda: len(hook.posts) == len(box.mails) == 3)
        made.until(lambda: sum("delivered" in text and "not" not in text for text in made.events("notify")) == 6)
    assert [(note["kind"], note["number"]) for note in hook.posts] == [("dead", 1), ("takeover", 2), ("live", 3)]
    assert [mail["Subject"].split(": ")[1] for mail in box.mails] == ["dead", "takeover", "live"]
    assert len({mail["Message-ID"] for mail in box.mails}) == 3
    assert [note["number"] for note in hook.attempts] == [1, 1, 2, 3]
    assert len({note["id"] for note in hook.attempts}) == 3


def test_a_receiver_that_hangs_keeps_neither_lists_nor_other_receivers_nor_the_master_waiting(shell) -> None:
    with mailbox() as box, webhook() as hook:
        hook.hold = threading.Event()
        text = f'[notify.ops]\nto = "a@x.org"\nserver = "{box.server}"\n[notify.chat]\nto = "{hook.url}"\n'
        made = shell(text, on_takeover=[python("pass")])
        made.became("standby")
        made.became("active")
        made.until(lambda: made.events("step") and box.mails and hook.attempts)
        assert not hook.posts
        hook.hold.set()
        made.until(lambda: hook.posts)
    assert made.slowest < 0.1  # of this thread's own time; all of it was a few ms


def test_a_hanging_receiver_is_given_its_time_and_tried_again(shell) -> None:
    with mailbox() as box:
        box.silent = True
        made = shell(f'[notify.ops]\nto = "a@x.org"\nserver = "{box.server}"\ntimeout = "1s"\n')
        made.happened("dead")
        made.until(lambda: any("timed out" in alarm for alarm in made.errands.alarms()))
        box.silent = False
        made.until(lambda: box.mails)


def test_the_process_that_dies_is_started_again_and_what_it_ran_is_killed(shell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with webhook() as hook:
        made = shell(f'[notify.chat]\nto = "{hook.url}"\n', on_takeover=[f'run sh -c "echo $$ > {pid}; sleep 600"'])
        made.became("standby")
        made.became("active")
        made.until(lambda: pid.exists() and pid.read_text().strip() and made.events("notify"))
        runner = made.errands._runner
        assert runner is not None
        os.kill(runner.pid, signal.SIGKILL)
        made.until(lambda: made.events("step failed"))
        made.until(lambda: is_gone(int(pid.read_text())))
        made.until(lambda: len(hook.posts) == 2)
    assert [note["kind"] for note in hook.posts] == ["takeover", "step failed"]


def test_when_the_master_is_gone_so_is_all_that_ran_for_it(shell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    made = shell(on_takeover=[f'run sh -c "echo $$ > {pid}; sleep 600"'])
    made.became("active")
    made.until(lambda: pid.exists() and pid.read_text().strip())
    runner = made.errands._runner
    assert runner is not None and runner.stdin is not None
    runner.stdin.close()  # as the kernel does it
    assert runner.wait(10) == 0
    assert is_gone(int(pid.read_text()))
    made.errands._runner = None


def test_where_nothing_is_configured_there_is_no_process_and_a_reload_starts_it(shell) -> None:
    made = shell()
    made.became("active")
    assert made.errands._runner is None and made.errands.due_at > 1e9
    made.errands.reconfigure(config.load(None, {}, {"standby.on_return": [python("pass")]}))
    made.became("standby")
    made.until(lambda: made.events("step"))


def test_what_else_its_interpreter_writes_is_passed_on_and_no_reason_to_stop(
    shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('measured by somebody', flush=True)\nprint(7, flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    made = shell(on_takeover=["run true"])
    made.became("active")
    made.until(lambda: made.events("step"))
    assert capfd.readouterr().err == "measured by somebody\n7\n"


def test_a_process_that_cannot_be_started_is_no_reason_to_stop(shell, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(errands.sys, "executable", "/nowhere/python")
    made = shell(on_takeover=["run true"])
    made.became("active")
    monkeypatch.undo()
    assert "cannot be started" in capfd.readouterr().err
    made.until(lambda: made.events("step"))


def test_what_is_more_than_the_pipe_holds_arrives_and_keeps_nobody_waiting(shell) -> None:
    text = "x" * 300_000
    with webhook() as hook:
        made = shell(f'[notify.chat]\nto = "{hook.url}"\n')
        runner = made.errands._runner
        assert runner is not None
        os.kill(runner.pid, signal.SIGSTOP)
        made.happened("dead", text)
        made.errands.attend(time.monotonic())
        assert made.errands._unsent
        os.kill(runner.pid, signal.SIGCONT)
        made.until(lambda: hook.posts)
    assert hook.posts[0]["text"] == text and not made.errands._unsent


def test_a_master_that_leaves_waits_for_its_list_but_not_when_told_to_hurry(shell, tmp_path: Path) -> None:
    log = tmp_path / "log"
    made = shell(on_return=[python("import time; time.sleep(0.3)"), f'run sh -c "echo down >> {log}"'])
    made.became("active")
    made.errands.leave("told to stop", time.monotonic, lambda: False)
    assert log.read_text() == "down\n"
    hasty = shell(on_return=["run sleep 600"])
    hasty.became("active")
    begun = time.monotonic()
    hasty.errands.leave("told to stop", time.monotonic, lambda: time.monotonic() > begun + 0.2)
    assert time.monotonic() < begun + 30


def test_services_are_stopped_and_started_at_a_real_master(shell, tmp_path: Path) -> None:
    app = tmp_path / "shop.py"
    app.write_text("import rota\norders = rota.Worker('orders')\n@orders.handler\ndef one():\n    return 1\n")
    with LocalCluster(f"{app}:orders") as cluster, cluster.admin() as admin, cluster.client() as client:
        made = shell(on_takeover=["stop orders"], on_return=["start orders"])
        made.errands._core.control = made.errands.peer = cluster.address
        made.became("standby")
        made.became("active")
        made.until(lambda: made.events("step"), 60)
        with pytest.raises(rota.NoService) as refused:
            client.call("orders.one")
        assert refused.value.details["maintenance"]
        made.until(lambda: admin.status()["nodes"][0]["processes"] == [], 60)
        (event,) = [each for each in admin.events() if each["kind"] == "maintenance"]
        assert event["reason"] == "on_takeover of b" and "its processes end" in event["text"]
        made.became("standby")
        made.until(lambda: len(made.events("step")) == 2, 60)
        admin.wait("ready", "orders", timeout=60)
        assert client.call("orders.one") == 1
