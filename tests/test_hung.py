"""Handlers over their limit, in real processes under a real agent: what is ended, how soon, and what goes on."""

from __future__ import annotations

import time

import pytest
from agent_rig import Start, gone, run_processes
from fake_master import FakeMaster
from hung_app import LIMIT_S

from rota.common import errors, messages, wire
from rota.common.body import decode_error, decode_result
from rota.worker.core.processes import Overdue
from rota.worker.page import Page
from rota.worker.process import ASYNC_GRACE_S
from rota.worker.processes import Pause, look

GONE_S = 0.3  # after the limit: where there is a moment for us it is 0.01, and 0.11 if KILL is needed
TRIES = 5  # of which one must find such a moment


def test_a_limit_is_counted_without_the_time_in_which_the_agent_itself_stood_still() -> None:
    page = Page.create()
    page.start(0, 1, 1_000, 5_000, b"o" * 24, 1)
    assert look(page, 4_999, Pause()) == (1, None, 5_000)
    assert look(page, 5_000, Pause()) == (1, Overdue(4e-6, 0), 0)
    assert look(page, 5_000, Pause(4_500, 2_000)) == (1, None, 7_000)
    assert look(page, 7_000, Pause(4_500, 2_000)).overdue
    page.start(1, 2, 4_600, 6_000, b"o" * 24, 1)
    assert look(page, 6_000, Pause(4_500, 2_000)).overdue == Overdue(1.4e-6, 1)  # began after it
    page.close()


@pytest.fixture
def one(master: FakeMaster, start_agent: Start) -> messages.Started:
    """A node with one process of hung_app."""
    start_agent(app="hung_app:app")
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    return started


def hang(master: FakeMaster, handler: str) -> tuple[float, messages.Exited]:
    """Seconds from the limit to the end of the process; a fresh one is there when this returns."""
    began = time.monotonic()
    master.deliver(1, f"orders.{handler}")
    exited = master.expect(messages.Exited)
    late = time.monotonic() - began - LIMIT_S
    assert (exited.kind, exited.cause) == ("hung", "hung: its handler exceeded its limit of 0.3 s")
    assert (exited.started_upto, len(exited.rows)) == (1, 1)
    assert late >= 0, "nobody is ended before its limit"
    replacement = master.expect(messages.Started)
    assert master.welcome_process().incarnation == replacement.incarnation != exited.incarnation
    return late, exited


@pytest.mark.parametrize("handler", ["spin", "stopped", "gil_hog", "regex", "deadlock", "deaf"])
def test_whatever_hangs_is_gone_soon_after_its_limit_and_replaced(
    master: FakeMaster, one: messages.Started, handler: str
) -> None:
    writes = handler not in ("stopped", "deaf")  # those are past writing a dump
    for _ in range(TRIES):
        late, exited = hang(master, handler)
        dumped = f"in {handler}" in exited.text and "Fatal Python error: Aborted" in exited.text
        if late <= GONE_S and dumped is writes:
            break
    assert late <= GONE_S and dumped is writes
    assert exited.status == (-6 if dumped else -9)


def test_the_master_is_told_before_the_end_that_nothing_more_may_be_given(
    master: FakeMaster, one: messages.Started
) -> None:
    master.deliver(1, "orders.stopped")
    assert master.expect(messages.Ending).incarnation == one.incarnation
    assert master.expect(messages.Exited).incarnation == one.incarnation


def test_a_limit_ends_no_process_whose_handlers_keep_to_theirs(master: FakeMaster, one: messages.Started) -> None:
    for number in range(1, 11):
        master.deliver(number, "orders.pid")
        assert decode_result(master.expect_frame(wire.REPLY).body) == one.pid


def tasks(master: FakeMaster, start_agent: Start) -> messages.Started:
    start_agent(app="hung_app:tasks")
    master.welcome_agent()
    (started,) = run_processes(master, 1).values()
    return started


def test_one_late_task_among_fifty_is_cancelled_and_the_others_are_answered(
    master: FakeMaster, start_agent: Start
) -> None:
    started = tasks(master, start_agent)
    for number in range(1, 51):
        handler, more = ("late", {}) if number == 25 else ("nap", {"seconds": 0.8})
        master.deliver(number, f"orders.{handler}", **more)
    replies = {frame.head.number: frame for frame in (master.expect_frame(wire.REPLY) for _ in range(50))}
    first = next(iter(replies.values()))
    assert first.head.number == 25
    error = decode_error(first.head.code, first.body)
    assert isinstance(error, errors.RemoteError) and "over its limit" in str(error)
    assert {decode_result(frame.body) for number, frame in replies.items() if number != 25} == {"rested"}
    master.deliver(51, "orders.nap", seconds=0.0)
    assert master.expect_frame(wire.REPLY).head.number == 51
    assert not [frame for frame in master.control if isinstance(frame.message, messages.Exited | messages.Ending)]
    assert started.pid > 0


def test_a_task_that_ignores_its_cancellation_costs_its_process_but_not_the_work_beside_it(
    master: FakeMaster, start_agent: Start
) -> None:
    started = tasks(master, start_agent)
    began = time.monotonic()
    master.deliver(1, "orders.stubborn")
    master.deliver(2, "orders.nap", seconds=LIMIT_S + ASYNC_GRACE_S + 0.4)  # done within the grace of a crowded process
    master.expect(messages.Ending)
    master.expect_frame(wire.BYE)  # it says itself that it wants no more
    reply = master.expect_frame(wire.REPLY)
    assert (reply.head.number, decode_result(reply.body)) == (2, "rested")
    exited = master.expect(messages.Exited)
    assert time.monotonic() - began >= LIMIT_S + ASYNC_GRACE_S
    assert exited.cause == "hung: its handler exceeded its limit of 0.3 s, and did not end when it was cancelled"
    assert (exited.kind, exited.incarnation) == ("hung", started.incarnation)
    gone(master, started.pid)
