"""A real agent with real processes, between two masters that the test plays: its votes, and whom it follows."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from agent_rig import Start, agents_of, closing, run_processes
from fake_master import PATIENCE_S, FakeMaster, Frame

import rota
from rota.common import messages, wire
from rota.common.body import decode_result
from rota.common.errors import BY_FENCE, NOT_STARTED, OK
from rota.common.messages import AgentHello, Deny, Grant, Release, VoterHello, Won
from rota.common.settings import SlaveSettings
from rota.worker import agent as agent_module
from rota.worker.page import FENCE_EPOCH, Page

FOLLOWED_S = 2.0  # 0.1 s on a machine that has nothing else to do


@pytest.fixture
def a() -> Iterator[FakeMaster]:
    """Active in epoch 1."""
    made = FakeMaster(name="a")
    yield made
    made.close()


@pytest.fixture
def b() -> Iterator[FakeMaster]:
    """Its standby."""
    made = FakeMaster(name="b")
    yield made
    made.close()


@pytest.fixture
def start(a: FakeMaster, b: FakeMaster, tmp_path: Path) -> Iterator[Start]:
    with agents_of(a, tmp_path) as start:
        yield lambda **options: start(**{"master": [a.address, b.address], **options})


def join(a: FakeMaster, b: FakeMaster) -> AgentHello:
    """The agent obeys a, and has its voter links to both."""
    hello = a.welcome_agent()
    b.welcome_voter()
    a.until(lambda: a.beat)
    return hello


def granted(by: FakeMaster, epoch: int, *others: FakeMaster) -> None:
    """Asked until it is; the others are there meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while not isinstance(answer := by.ask(epoch), Grant):
        assert time.monotonic() < deadline, answer
        for other in others:
            other.pump()
        time.sleep(answer.wait_ms / 1000)
    assert answer.epoch == epoch


def win(b: FakeMaster, epoch: int) -> None:
    b.epoch = epoch
    b.tell_voter(Won(epoch))


def replied(frame: Frame) -> tuple[int, object]:
    return frame.head.code, decode_result(frame.body) if frame.head.code == OK else frame.body


def test_every_page_is_fenced_before_a_vote_is_granted(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    start()
    join(a, b)
    run_processes(a, 1)
    a.deliver(1, "echo", text="before")
    assert replied(a.expect_frame(wire.REPLY)) == (OK, "before")
    granted(b, 2, a)
    a.deliver(2, "echo", text="after")
    assert replied(a.expect_frame(wire.REPLY)) == (NOT_STARTED, BY_FENCE)


def test_a_process_that_comes_after_the_grant_is_fenced_too(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    start()
    join(a, b)
    a.tell(messages.Plan({"orders": 1}))
    a.expect(messages.Started)  # it boots
    granted(b, 2, a)
    a.welcome_process()
    a.deliver(1, "echo", text="late")
    assert replied(a.expect_frame(wire.REPLY)) == (NOT_STARTED, BY_FENCE)


def test_a_vote_is_durable_then_fenced_then_given_time_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut, or a process that starts something just then, may find at the moment of the wait."""
    settings = SlaveSettings(
        app="x", name="web-1", master=("tcp://127.0.0.1:1", "tcp://127.0.0.1:2"), state=str(tmp_path)
    )
    agent = agent_module.Agent(settings, "orders")
    page = agent._processes.pages["web-1.1"] = Page.create()
    found: list[tuple[object, int, float]] = []

    def wait(seconds: float) -> None:
        ballot = json.loads((tmp_path / "agent.json").read_text())["ballot"]
        found.append((ballot, page.words[FENCE_EPOCH], seconds))

    monkeypatch.setattr(agent_module.time, "sleep", wait)
    assert agent._asked(messages.Vote(4, "b", 0, poll=True)) == messages.Grant(4, poll=True)
    assert not found and agent._core.votes.seen == 0 and agent._core.votes.lease is None, "nothing of a poll is noted"
    assert agent._asked(messages.Vote(4, "b", 0)).epoch == 4
    assert found == [([4, "b"], 4, 0.005)]
    agent._close()
    page.close()


def test_the_old_master_hears_of_the_higher_epoch(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    start()
    join(a, b)
    a.welcome_voter("active")
    granted(b, 2, a)
    a.until(lambda: a.beat is not None and a.beat.epoch == 2, "a beat that names the epoch")
    assert a.welcome_voter().epoch == 2  # and over its other connection, if this one is cut


def test_a_vote_outlives_the_agent(a: FakeMaster, b: FakeMaster, start: Start, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    agent = start(state=state)
    join(a, b)
    granted(b, 2, a)
    agent.signal(signal.SIGKILL)
    agent.ended()
    start(state=state)
    assert b.welcome_voter().epoch == 2
    b.name = "c"
    denied = b.ask(2)
    assert isinstance(denied, Deny) and denied.seen == 2
    b.name = "b"
    assert isinstance(b.ask(2, lease_ms=60_000), Deny)  # it may have leased since then to who won that epoch
    assert b.ask(2, lease_ms=1).epoch == 2


def test_an_agent_that_has_just_started_abstains(b: FakeMaster, start: Start) -> None:
    start()
    b.welcome_voter()
    denied = b.ask(2, lease_ms=60_000)
    assert isinstance(denied, Deny)
    assert "just started" in denied.why and 30_000 < denied.wait_ms <= 60_000


def test_a_vote_that_cannot_be_made_durable_is_not_given(
    a: FakeMaster, b: FakeMaster, start: Start, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    start(state=str(state))
    join(a, b)
    (state / "agent.json.new").mkdir()  # as root ignores modes
    b.until(lambda: "written" in getattr(b.ask(2), "why", ""), "that reason")
    (state / "agent.json.new").rmdir()
    granted(b, 2, a)


def test_a_beat_that_answers_the_master_is_a_lease_until_it_is_released(
    a: FakeMaster, b: FakeMaster, start: Start, tmp_path: Path
) -> None:
    a.lease_ms = 60_000
    intent = messages.Intent("active", 0, "", "")
    known = {"intent": intent._asdict(), "epoch": 1}  # who remembers nothing leases to nobody for as long
    (tmp_path / "agent.json").write_text(json.dumps(known))
    start(state=str(tmp_path))
    join(a, b)
    a.until(lambda: a.beat is not None and a.beat.heard, "a beat that answers")
    time.sleep(0.05)  # the abstention that the votes here ask for
    denied = b.ask(2)
    assert isinstance(denied, Deny) and "a has its lease" in denied.why and denied.wait_ms > 30_000
    a.tell(Release(1))
    b.until(lambda: isinstance(b.ask(2), Grant), "a grant")


def test_a_master_without_a_standby_gets_no_leases(a: FakeMaster, start: Start) -> None:
    start()
    a.welcome_agent()
    a.until(lambda: a.beat is not None and a.beat.beat > 3, "some beats")
    assert a.beat is not None and a.beat.heard == 0


def follow(a: FakeMaster, b: FakeMaster) -> float:
    """B wins; until its agent and one process are there: the seconds of it."""
    granted(b, 2, a)
    began = time.monotonic()
    win(b, 2)
    b.welcome_agent()
    b.welcome_process()
    return time.monotonic() - began


@pytest.mark.parametrize("app", [{}, {"app": "node_app_async:app"}, {"app": "streams_wsgi:application", "threads": 2}])
def test_who_won_is_followed_at_once_by_agent_and_processes(
    a: FakeMaster, b: FakeMaster, start: Start, app: dict[str, Any]
) -> None:
    agent = start(**app)
    join(a, b)
    started = run_processes(a, 1)
    granted(b, 2, a)
    began = time.monotonic()
    win(b, 2)
    hello = b.welcome_agent()
    assert hello.epoch == 2
    assert [each.incarnation for each in hello.processes] == list(started)
    assert b.welcome_process().incarnation in started
    assert time.monotonic() - began < FOLLOWED_S
    b.deliver(1, "", text="of b")  # a health check, which every application answers
    assert b.expect_frame(wire.REPLY).head.code == OK
    assert "lost" not in agent.log.read_text()


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
def test_what_runs_goes_on_and_what_was_answered_is_kept(
    a: FakeMaster, b: FakeMaster, start: Start, app: str, tmp_path: Path
) -> None:
    start(app=app)
    join(a, b)
    run_processes(a, 1)
    a.deliver(1, "echo", text="kept")
    a.expect_frame(wire.REPLY)
    begun = tmp_path / "begun"
    a.deliver(2, "nap", seconds=0.5, path=str(begun))
    a.until(begun.exists)
    granted(b, 2, a)
    win(b, 2)
    b.welcome_agent()
    hello = b.welcome_process()
    assert [(each.epoch, each.number) for each in hello.held] == [(1, 1), (1, 2)]
    replies = [b.expect_frame(wire.REPLY) for _ in range(2)]
    assert [(frame.head.epoch, frame.head.number, replied(frame)) for frame in replies] == [
        (1, 1, (OK, "kept")),
        (1, 2, (OK, "rested")),
    ]
    assert all(frame.origin is not None for frame in replies)


def test_a_process_whose_master_is_dead_or_a_standby_follows_as_fast(
    a: FakeMaster, b: FakeMaster, start: Start
) -> None:
    start()
    join(a, b)
    run_processes(a, 1)
    granted(b, 2, a)
    a.close()
    time.sleep(0.3)  # it tries in vain, at longer and longer intervals
    began = time.monotonic()
    win(b, 2)
    b.welcome_agent()
    b.welcome_process()
    assert time.monotonic() - began < FOLLOWED_S


def test_an_application_that_serves_itself_follows_too(a: FakeMaster, b: FakeMaster) -> None:
    worker = rota.Worker("orders")

    @worker.handler
    def echo(text: str) -> str:
        return text

    with worker.background(master=[a.address, b.address], name="app-1") as node:
        join(a, b)
        run_processes(a, 1)
        follow(a, b)
        b.deliver(1, "echo", text="of b")
        assert replied(b.expect_frame(wire.REPLY)) == (OK, "of b")
        closing(b, node)


def test_one_that_is_active_is_found_over_the_voter_links(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    """Its Won was said while nobody listened."""
    start()
    a.expect(AgentHello)  # and does not answer
    b.epoch = 5
    b.welcome_voter("active")
    assert b.welcome_agent().epoch == 0


def test_a_master_that_stepped_down_learns_anew_who_votes(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    start()
    join(a, b)
    a.welcome_voter("active")
    a.welcome_voter("standby")  # said again by itself: that is how it finds out
    granted(a, 2, b)


def test_a_standby_hears_again_and_again_who_votes(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    """What came late over an earlier connection may have made it forget who does."""
    start()
    join(a, b)
    b.welcome_voter(state="standby")
    b.welcome_voter(state="standby")


def test_a_connection_for_votes_that_is_lost_or_damaged_is_made_again(
    a: FakeMaster, b: FakeMaster, start: Start
) -> None:
    start()
    join(a, b)
    b.rebind_control()
    b.welcome_voter()
    granted(b, 2, a)
    earlier = b.voter
    b.send_voter(b"no frame of ours, and it may have asked for a vote")
    b.until(lambda: b.welcome_voter() and b.voter != earlier, "another connection")
    granted(b, 3, a)


def test_what_only_a_newer_master_says_over_a_connection_for_votes_is_passed_over(
    a: FakeMaster, b: FakeMaster, start: Start
) -> None:
    start()
    join(a, b)
    connection = b.voter
    b.send_voter(wire.head(wire.CONTROL, b.token) + msgpack.packb(["Survey", {"epoch": 2}]))
    granted(b, 2, a)
    assert b.voter == connection


def test_a_master_that_does_not_answer_a_voter_is_greeted_over_another_connection(
    a: FakeMaster, b: FakeMaster, start: Start
) -> None:
    start()
    a.welcome_agent()
    first = b.expect_of_voter(VoterHello).route
    again = b.until(lambda: [frame for frame in b.voters if isinstance(frame.message, VoterHello)], "another HELLO")
    assert again[0].route != first


def test_a_refusal_for_good_is_doubted_once(a: FakeMaster, start: Start) -> None:
    """A HELLO that was damaged on its way looks like another version's."""
    start()
    a.refuse_voter("incompatible", retry_after_ms=60_000)
    a.welcome_voter("active")


def test_a_standby_sends_the_node_on_and_nobody_hears_of_it(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    agent = start(master=[b.address, a.address])
    b.refuse_agent("standby")
    a.welcome_agent()
    a.until(lambda: a.beat)
    assert agent.log.read_text().splitlines() == ["rota slave web-1: connected to a, epoch 1"]


def test_a_node_of_one_master_is_not_asked_for_votes(a: FakeMaster, start: Start) -> None:
    start(master=[a.address])
    a.welcome_agent()
    a.until(lambda: a.beat is not None and a.beat.beat > 2, "some beats")
    assert not a.voters


def test_a_node_of_one_master_votes_where_that_one_turns_out_to_be_one_of_a_pair(b: FakeMaster, start: Start) -> None:
    """Else nobody could be elected after its restart: nodes that were started before their master had a backup."""
    start(master=[b.address])
    b.refuse_agent("standby")
    b.welcome_voter()
    granted(b, 2)
    win(b, 2)
    b.welcome_agent()
    b.until(lambda: b.beat)


def test_a_lower_epoch_is_not_obeyed_and_another_master_is_tried(a: FakeMaster, b: FakeMaster, start: Start) -> None:
    start()
    b.epoch = 7
    a.expect(AgentHello)  # and does not answer
    b.welcome_voter("active")
    b.welcome_agent()
    b.until(lambda: b.beat)
    b.close()
    a.welcome_voter("active")
    for _ in range(3):
        assert a.welcome_agent().epoch == 7  # it asks again, and still does not obey


def test_a_witness_votes_and_offers_nothing(a: FakeMaster, b: FakeMaster, tmp_path: Path) -> None:
    masters = f"{a.address},{b.address}"
    with (tmp_path / "log").open("wb") as log:
        words = ["witness", "--name", "w", "-m", masters, "--state", str(tmp_path / "state")]
        process = subprocess.Popen([sys.executable, "-m", "rota", *words], stderr=log)
    try:
        hello = join(a, b)
        assert (hello.node, hello.capacity, hello.offers) == ("w", 0, [])
        a.tell(messages.Plan({"orders": 2}))
        granted(b, 2, a)
        win(b, 2)
        assert b.welcome_agent().processes == []
        process.terminate()
        b.expect(messages.Leaving)
        b.tell(messages.Leave())
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
