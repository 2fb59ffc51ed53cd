"""A real process against a master that the test plays."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from fake_master import PATIENCE_S, FakeMaster, delivery

from rota.common import messages, wire
from rota.common.body import decode_error, decode_result, encode_call
from rota.common.errors import NOT_STARTED, OK, RemoteError
from rota.worker import spawn
from rota.worker.page import DONE, FLOOR, PHASE, READY, REFUSED, RUNNING, STARTED_UPTO, STOP, Page

HERE = str(Path(__file__).parent)


class Running:
    """What an agent holds of a process."""

    def __init__(self, master: FakeMaster, app: str, **specification: Any) -> None:
        self.page = Page.create()
        self.child = spawn.start(
            spawn.Place.of(specification.pop("app_dir", HERE), None),
            "process",
            {
                "app": app,
                "factory": False,
                "service": "",
                "version": "",
                "incarnation": "web-1.abc.1",
                "ticket": "00" * 16,
                "page_fd": self.page.fd,
                "agent_pid": os.getpid(),
                "backends": [master.backend_address],
                "handler_timeout_s": 30.0,
                **specification,
            },
            (self.page.fd,),
            None,
        )

    def ended(self) -> int:
        import select

        assert select.select([self.child.pidfd], [], [], PATIENCE_S)[0], "the process did not end"
        return self.child.reap()


@pytest.fixture
def start(master: FakeMaster) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(app: str = "node_app:app", **specification: Any) -> Running:
        started.append(Running(master, app, **specification))
        return started[-1]

    yield start
    for each in started:
        each.child.signal(signal.SIGKILL)


Start = Callable[..., Running]


def result(frame: Any) -> Any:
    assert frame.head.code == OK, decode_error(frame.head.code, frame.body)
    return decode_result(frame.body)


PRINTS = """
import os, sys, rota
app = rota.Worker('orders')
room = os.dup(1)

@app.handler
def prints(text: str, to: str) -> str:
    os.dup2(room if to == 'file' else os.open('/dev/full', os.O_WRONLY), 1)
    print(text)
    print(text, file=sys.stdout, flush=True)
    return text
"""


def test_a_request_does_not_fail_because_the_disk_is_full_that_it_prints_to(
    master: FakeMaster, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "prints.py").write_text(PRINTS)
    running = start("prints:app", app_dir=str(tmp_path))
    master.welcome_process()
    for number, to in enumerate(("full", "full", "file"), 1):
        master.deliver(number, "orders.prints", text=f"line {number}", to=to)
        assert result(master.expect_frame(wire.REPLY)) == f"line {number}"
    assert running.child.tail() == "(28 bytes could not be written here)\nline 3\nline 3"
    running.page.words[STOP] = 1
    assert running.ended() == 0


def test_what_a_process_wrote_and_the_disk_does_not_give_back_is_no_reason_to_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent would, with all its processes."""

    def pread(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    child = start().child
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        assert child.unshown(4096) == b""
        assert child.tail() == "(what it wrote cannot be read: Input/output error)"


@pytest.mark.parametrize("has_holes", [True, False])
def test_nothing_is_lost_that_a_process_writes_while_its_file_is_made_smaller(
    start: Start, monkeypatch: pytest.MonkeyPatch, has_holes: bool
) -> None:
    """It was emptied when all was shown, and with that what had come since the last look."""
    if not has_holes:
        monkeypatch.setattr(spawn, "_fallocate", lambda *told: -1)
    child = start().child
    child.signal(signal.SIGKILL)
    child.reap()
    written = b"".join(b"%09d\n" % n for n in range(200_000))
    os.ftruncate(child.output.fileno(), 0)
    child.output.write(written)
    read, late = os.pread, [b"just now\n"]

    def pread(fd: int, size: int, place: int) -> bytes:
        data = read(fd, size, place)
        if not data and late:
            child.output.write(late.pop())  # the process goes on
        return data

    monkeypatch.setattr(os, "pread", pread)
    shown = b""
    while data := child.unshown(4096) or child.unshown(4096):
        shown += data
    assert shown == written + b"just now\n" and not late
    assert 512 * os.fstat(child.output.fileno()).st_blocks < 2 * spawn.OUTPUT_MAX
    assert child.tail().endswith("just now")


def test_a_process_that_says_hello_is_ready_and_tells_its_interface(master: FakeMaster, start: Start) -> None:
    running = start()
    hello = master.welcome_process()
    assert (hello.service, hello.version, hello.concurrency) == ("orders", "7", 1)
    assert hello.handlers["hang"].timeout_ms == 300
    assert hello.pid == running.child.pid
    assert (hello.received_upto, hello.held) == (0, [])
    assert running.page.words[PHASE] == READY


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
def test_a_delivery_is_answered_once_and_noted_in_the_page(master: FakeMaster, start: Start, app: str) -> None:
    running = start(app)
    master.welcome_process()
    for number in (1, 2, 3):
        master.deliver(number, "orders.echo", upto=number - 1, text=f"hello {number}")
        frame = master.expect_frame(wire.REPLY)
        assert result(frame) == f"hello {number}"
        assert (frame.head.number, frame.head.upto, frame.head.token) == (number, number, master.token)
        assert running.page.words[STARTED_UPTO] == number
    assert {row.state for row in running.page.used_rows()} == {DONE}


def test_a_foreign_token_reaches_no_handler(master: FakeMaster, start: Start) -> None:
    start()
    master.welcome_process()
    master.deliver(1, "orders.echo", token=5, text="foreign")
    master.deliver(1, "orders.echo", text="mine")
    assert result(master.expect_frame(wire.REPLY)) == "mine"


def test_after_a_damaged_frame_a_process_begins_anew_since_it_may_have_been_a_delivery(
    master: FakeMaster, start: Start
) -> None:
    start()
    master.welcome_process()
    master.send(b"garbage")
    hello = master.welcome_process()
    assert (hello.received_upto, hello.hellos) == (0, 2)
    master.deliver(1, "orders.echo", text="mine")
    assert result(master.expect_frame(wire.REPLY)) == "mine"


def test_who_is_answered_with_hello(master: FakeMaster, start: Start) -> None:
    start()
    master.welcome_process()
    master.deliver(1, "orders.echo", text="x")
    master.expect_frame(wire.REPLY)
    master.send(wire.head(wire.WHO, 0))
    hello = master.welcome_process()
    assert (hello.received_upto, hello.reply_sequence) == (1, 1)
    assert master.expect_frame(wire.REPLY).flags == wire.RESENT | wire.ORIGIN


def test_a_process_that_nobody_knows_yet_says_hello_again(master: FakeMaster, start: Start) -> None:
    start()
    master.refuse_process("unknown")
    master.welcome_process()


def test_a_process_doubts_one_refusal_for_good_as_a_damaged_hello_looks_like_another_versions(
    master: FakeMaster, start: Start
) -> None:
    running = start()
    master.refuse_process("incompatible", retry_after_ms=60_000)
    master.welcome_process()
    assert "refuses" not in running.child.tail()


def test_a_process_with_another_interface_exits(master: FakeMaster, start: Start) -> None:
    running = start()
    master.refuse_process("interface")
    assert running.ended() == 70
    assert "a sentence" in running.child.tail()


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
def test_after_a_lost_connection_running_work_and_kept_replies_are_held(
    master: FakeMaster, start: Start, app: str
) -> None:
    running = start(app)
    master.welcome_process()
    master.deliver(1, "orders.echo", text="kept")
    master.expect_frame(wire.REPLY)
    master.deliver(2, "orders.nap", seconds=0.3)
    master.until(lambda: running.page.words[STARTED_UPTO] == 2)
    master.rebind_backend()
    hello = master.welcome_process()
    assert [held.number for held in hello.held] == [1, 2]
    assert hello.held[0].done
    again = master.expect_frame(wire.REPLY)
    assert (again.head.number, again.origin, result(again)) == (1, (b"s" * 16, 1001), "kept")
    assert result(master.expect_frame(wire.REPLY, lambda frame: frame.head.number == 2)) == "rested"
    master.deliver(3, "orders.echo", upto=2, text="on")
    assert result(master.expect_frame(wire.REPLY)) == "on"


def test_parked_deliveries_can_be_taken_back(master: FakeMaster, start: Start, tmp_path: Path) -> None:
    running = start()
    master.welcome_process()
    master.deliver(1, "orders.hold", path=str(tmp_path / "go"))
    master.deliver(2, "orders.echo", text="parked")
    master.until(lambda: running.page.words[STARTED_UPTO] == 1)
    running.page.words[FLOOR] = 3
    (tmp_path / "go").touch()
    assert result(master.expect_frame(wire.REPLY)) == "released"
    refused = master.expect_frame(wire.REPLY)
    assert (refused.head.number, refused.head.code) == (2, NOT_STARTED)
    assert running.page.used_rows()[1].state == REFUSED


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
@pytest.mark.parametrize("how", ["TERM", "page"])
def test_a_process_that_is_told_to_stop_finishes_what_it_received(
    master: FakeMaster, start: Start, how: str, app: str
) -> None:
    running = start(app)
    master.welcome_process()
    master.deliver(1, "orders.nap", seconds=0.2)
    master.deliver(2, "orders.echo", text="parked")
    master.until(lambda: running.page.words[STARTED_UPTO] >= 1)
    if how == "TERM":
        running.child.signal(signal.SIGTERM)
    else:
        running.page.words[STOP] = 1
    numbers = {master.expect_frame(wire.REPLY).head.number for _ in range(2)}
    assert numbers == {1, 2}
    assert running.ended() == 0


def test_stop_hooks_run(master: FakeMaster, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_APP_STOPPED", str(tmp_path / "stopped"))
    running = start()
    master.welcome_process()
    running.child.signal(signal.SIGTERM)
    master.expect_frame(wire.BYE)
    assert running.ended() == 0
    assert (tmp_path / "stopped").read_text() == "stopped\n"


def test_a_process_that_is_to_stop_says_so_to_every_master_that_welcomes_it(master: FakeMaster, start: Start) -> None:
    running = start("node_app_async:app")
    master.welcome_process()
    master.deliver(1, "orders.nap", seconds=60)
    master.until(lambda: running.page.words[STARTED_UPTO] == 1)
    running.page.words[STOP] = 1
    master.expect_frame(wire.BYE)
    master.rebind_backend()
    master.welcome_process()
    master.expect_frame(wire.BYE)


STOPS_SLOWLY = """
import asyncio, pathlib, rota
app, here = rota.Worker("orders"), pathlib.Path(__file__).parent

@app.handler
async def echo(text):
    return text

@app.on_stop
async def stop():
    (here / "stopping").touch()
    while not (here / "go").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
"""


def test_nothing_is_taken_any_more_when_stop_hooks_run(master: FakeMaster, start: Start, tmp_path: Path) -> None:
    (tmp_path / "stops_slowly.py").write_text(STOPS_SLOWLY)
    running = start("stops_slowly:app", app_dir=str(tmp_path))
    master.welcome_process()
    running.page.words[STOP] = 1
    master.until((tmp_path / "stopping").exists)
    master.deliver(1, "orders.echo", text="too late")
    (tmp_path / "go").touch()
    assert running.ended() == 0
    assert running.page.words[STARTED_UPTO] == 0, "it runs elsewhere"


@pytest.mark.parametrize("app, more", [("node_app:app", {}), ("node_app_async:app", {"concurrency": 1})])
def test_what_was_not_begun_goes_with_the_connection_of_a_master_that_refuses_afterwards(
    master: FakeMaster, start: Start, app: str, more: dict[str, int]
) -> None:
    start(app, **more)
    master.welcome_process()
    master.deliver(1, "orders.nap", seconds=0.3)
    master.deliver(2, "orders.echo", text="parked")
    refusal = messages.Refusal("busy", "a sentence", 20, [1, 1])
    master.send(messages.framed(wire.REFUSED, 0, refusal))
    number = master.welcome_process().received_upto + 1
    master.deliver(number, "orders.echo", text="another")
    assert result(master.expect_frame(wire.REPLY, lambda frame: frame.head.number == number)) == "another"


def test_a_welcome_that_nobody_asked_for_changes_nothing(master: FakeMaster, start: Start) -> None:
    start("node_app_async:app")
    master.welcome_process()
    master.send(wire.head(wire.WELCOME, master.token + 1) + messages.encode(messages.Welcome(1, 1, "fake")))
    master.deliver(1, "orders.echo", text="mine")
    assert result(master.expect_frame(wire.REPLY)) == "mine"


def test_interrupts_are_left_to_the_agent(master: FakeMaster, start: Start) -> None:
    running = start()
    master.welcome_process()
    running.child.signal(signal.SIGINT)
    master.deliver(1, "orders.echo", text="alive")
    assert result(master.expect_frame(wire.REPLY)) == "alive"


def test_an_application_that_does_not_load_shows_its_traceback_and_exits_70(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def make():\n    return 1 / 0\nmake()\n")
    running = start("broken:app", app_dir=str(tmp_path))
    assert running.ended() == 70
    assert "ZeroDivisionError" in running.child.tail()
    assert "broken.py" in running.child.tail()


def test_abort_dumps_the_stack(master: FakeMaster, start: Start) -> None:
    running = start()
    master.welcome_process()
    master.deliver(1, "orders.hang")
    master.until(lambda: [row for row in running.page.used_rows() if row.state == RUNNING and row.kill_ns])
    running.child.signal(signal.SIGABRT)
    assert running.ended() == -signal.SIGABRT
    assert "in hang" in running.child.tail()


def test_an_async_handler_over_its_limit_is_cancelled_and_the_others_go_on(master: FakeMaster, start: Start) -> None:
    start("node_app_async:app")
    master.welcome_process()
    master.deliver(1, "orders.slow")
    master.deliver(2, "orders.nap", seconds=0.6)
    frame = master.expect_frame(wire.REPLY)
    assert (frame.head.number, frame.head.code) == (1, RemoteError.code)
    assert "limit" in str(decode_error(frame.head.code, frame.body))
    assert result(master.expect_frame(wire.REPLY)) == "rested"


def test_async_deliveries_run_at_the_same_time(master: FakeMaster, start: Start) -> None:
    start("node_app_async:app")
    master.welcome_process()
    master.deliver(1, "orders.nap", seconds=0.5)
    master.deliver(2, "orders.nap", seconds=0.01)
    master.deliver(3, "orders.pid")
    assert {master.expect_frame(wire.REPLY).head.number for _ in range(2)} == {2, 3}
    assert master.expect_frame(wire.REPLY).head.number == 1


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
def test_replies_of_quick_handlers_go_in_one_frame_and_in_their_order(
    master: FakeMaster, start: Start, app: str
) -> None:
    start(app)
    master.welcome_process()
    numbers = count(1)

    def bundled() -> bool:
        some = list(islice(numbers, 5))
        deliveries = [
            delivery(master.token, master.epoch, each, "orders.echo", body=encode_call(("x",), {})) for each in some
        ]
        [(_, frame)] = wire.bundles(deliveries)
        master.send(frame)
        replies = [master.expect_frame(wire.REPLY) for _ in some]
        assert [reply.head.upto for reply in replies] == some  # their sequence
        return master.bundles > 0

    master.until(bundled)  # none goes with what took long, as each may on a busy machine


@pytest.mark.parametrize(("app", "handler"), [("node_app:app", "orders.nap"), ("node_app_async:app", "orders.work")])
def test_what_took_long_is_not_held_for_others(master: FakeMaster, start: Start, app: str, handler: str) -> None:
    start(app)
    master.welcome_process()
    deliveries = [
        delivery(master.token, master.epoch, each, handler, body=encode_call((0.05,), {})) for each in (1, 2, 3)
    ]
    [(_, frame)] = wire.bundles(deliveries)
    master.send(frame)
    assert [master.expect_frame(wire.REPLY).head.number for _ in deliveries] == [1, 2, 3] and not master.bundles
