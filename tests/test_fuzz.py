"""Damaged frames at a real master for a moment (`make fuzz` is the long run), and what such frames once led to."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from core_rig import Rig
from fuzz.flood import flood
from fuzz.peers import SOCKETS
from fuzz.receivers import RECEIVERS

from rota import MaybeExecuted
from rota.common import exits, messages, wire
from rota.common.lifecycle import Intent, Liveness
from rota.common.limits import ASKED_MAX, NODES_MAX, OFFERS_MAX
from rota.master.core.events import TEXTS_MAX
from rota.master.core.registry import Node
from rota.worker.core.effects import Spawn
from rota.worker.core.processes import Timing
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Votes

OPERATOR = b"operator"


@pytest.mark.parametrize("socket", SOCKETS)
def test_damaged_frames_neither_end_nor_stop_a_master(socket: str, tmp_path: Path) -> None:
    found = flood(socket, tmp_path, frames=3000, warmup=0, seed=3)
    assert found.frames == 3000 and found.good["calls"] and not found.good["failures"]
    assert not [miss for miss in found.misses if "RSS" not in miss]  # it grows until it is warm: the long run looks


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_damaged_frames_of_a_master_end_nobody_who_reads_them(receiver: str) -> None:
    assert RECEIVERS[receiver](2000, random.Random(5)) > 100


def test_an_agent_starts_no_more_than_it_has_room_for_whatever_it_is_told() -> None:
    options: dict[str, Any] = {"masters": ["m"], "capacity": 4, "offers": ["orders"], "tags": {}, "votes": Votes(0.0)}
    timing = Timing(60.0, 10.0)
    core = Supervision("web-1", "3f2a9c", reconnect_delay=lambda failures: 0.1, timing=timing, **options)
    core.tick(1.0)
    core.connected(1.0)
    core.welcomed(messages.Welcome(1, 1, "m"), 1.0)
    core.received(messages.Plan({"orders": 1 << 40}), 1.0)
    assert sum(isinstance(each, Spawn) for each in core.tick(1.0)) == 8


def ask(rig: Rig, *said: messages.Message) -> list[messages.Result]:
    """What an operator is answered."""
    hello = messages.OperatorHello(list(wire.VERSIONS), "x")
    rig.core.control(OPERATOR, messages.framed(wire.HELLO, 0, hello), rig.now)
    token = rig.core._token_of(OPERATOR)
    for each in said:
        rig.core.control(OPERATOR, messages.framed(wire.CONTROL, token, each), rig.now)
    rig.flush()
    return [each for each in rig.said[OPERATOR] if isinstance(each, messages.Result)]


def refused(rig: Rig, **more: object) -> str:
    """What an agent whose hello is this is told; empty if it is taken."""
    name = str(more.get("name", "greedy"))
    try:
        rig.agent(name, **{key: value for key, value in more.items() if key != "name"})
    except KeyError:  # the rig finds no node of that name
        return rig.said[name.encode()][-1].message
    return ""


def test_a_status_that_no_message_holds_is_told_as_that() -> None:
    rig = Rig()
    for number in range(NODES_MAX):
        rig.fleet.nodes[f"n{number}"] = Node(f"n{number}", reason="x" * 1000)
    [result] = ask(rig, messages.Verb(1, "status", {}))
    assert not result.ok and result.exit == exits.FAILED and "too large" in result.data["error"]


def test_a_node_may_make_the_master_remember_so_much_and_no_more() -> None:
    rig = Rig()
    assert "services" in refused(rig, offers=[f"s{n}" for n in range(OFFERS_MAX + 1)])
    assert "tags" in refused(rig, tags={"a": "x" * 100_000})
    assert "boot" in refused(rig, boot="x" * 100_000)
    assert not refused(rig, name="modest", offers=["orders"], tags={"zone": "a"})


def silent_for_long(upto: int) -> Rig:
    """A client with one answer, acknowledged up to here, comes back when its session was closed, and sends the next."""
    rig = Rig(session_idle=10.0)
    slot = rig.process(rig.agent())
    rig.request(1)
    rig.reply(slot, 1)
    rig.say(wire.ACK, upto=upto)
    rig.after(20)
    assert not rig.dispatch.sessions
    rig.client(epoch=1)
    rig.request(2, flags=wire.RESENT | wire.OLDER)
    return rig


def test_a_client_that_was_silent_for_long_and_was_owed_nothing_is_served_on() -> None:
    assert 2 not in silent_for_long(upto=1).codes()  # it runs


def test_a_client_whose_session_was_closed_with_answers_kept_is_told_that_it_may_have_run() -> None:
    assert silent_for_long(upto=0).codes()[2] == MaybeExecuted.code


def test_a_client_that_acknowledges_nothing_and_goes_on_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each answer at least the number was kept, of however many."""
    monkeypatch.setattr("rota.master.core.frontend.UNACKED_MAX", 3)
    rig = Rig()
    slot = rig.process(rig.agent())
    for number in range(1, 6):
        rig.request(number)
        rig.reply(slot, number)
        assert len(rig.dispatch.sessions) == 1
        if number == 3:
            rig.after(1.5)
    rig.after(1.5)
    assert not rig.dispatch.sessions and len(rig.out.cuts) == 1
    rig.client(epoch=1)
    rig.request(1, flags=wire.RESENT | wire.OLDER)
    rig.request(6)
    rig.after(0.1)
    assert rig.codes()[1] == MaybeExecuted.code and rig.where()[-1][1] == 6


def test_there_are_so_many_nodes_and_no_more() -> None:
    rig = Rig()
    for number in range(NODES_MAX):
        rig.fleet.nodes[f"n{number}"] = Node(f"n{number}")
    assert "rota forget" in refused(rig, name="one-too-many")
    assert not refused(rig, name="n7")  # a known one may come back


def test_who_said_goodbye_longest_ago_gives_its_place_to_a_new_name() -> None:
    """An autoscaler gives each machine a new one. The thousand-and-first was refused, though few of them were there."""
    rig = Rig()
    for number in range(NODES_MAX):
        rig.fleet.nodes[f"n{number}"] = Node(f"n{number}")
    for since, name in enumerate(("n9", "n5", "n3"), 1):
        rig.fleet.nodes[name].liveness, rig.fleet.nodes[name].since = Liveness.CLOSED, float(since)
    rig.fleet.nodes["n9"].intent = Intent.DETACHED  # an operator's word
    assert not refused(rig, name="new-1") and not refused(rig, name="new-2")
    assert "n9" in rig.fleet.nodes and len(rig.fleet.nodes) == NODES_MAX
    assert [event["subject"] for event in rig.core.events.since(0) if event["kind"] == "forgotten"] == ["n5", "n3"]
    assert "rota forget" in refused(rig, name="new-3")


def test_who_was_told_to_stop_and_said_goodbye_gives_its_place_too() -> None:
    """As an autoscaler does it: TERM, and the master drains it. That is no operator's word."""
    rig = Rig()
    for name in ("gone", "drained"):
        node = rig.agent(name)
        if name == "drained":
            rig.verb("drain", nodes=[name], force=True)
        rig.tell(node, messages.Leaving(1000))
        rig.after(0.1)
        rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    for number in range(2, NODES_MAX):
        rig.fleet.nodes[f"n{number}"] = Node(f"n{number}")
    assert not refused(rig, name="new-1") and "gone" not in rig.fleet.nodes
    assert "rota forget" in refused(rig, name="new-2")


def test_an_operator_waits_for_so_many_things_at_a_time_and_no_more() -> None:
    rig = Rig()
    waits = [messages.Verb(n, "wait", {"condition": "ready", "names": ["none"]}) for n in range(ASKED_MAX + 1)]
    [result] = ask(rig, *waits)
    assert result.id == ASKED_MAX and result.exit == exits.REFUSED
    follows = [messages.Follow(n, 0) for n in range(100, 100 + ASKED_MAX + 1)]
    assert ask(rig, *follows)[-1].exit == exits.REFUSED


def test_what_a_vanished_operator_waited_for_is_forgotten() -> None:
    rig = Rig()
    ask(rig, messages.Verb(1, "wait", {"condition": "ready", "names": ["none"], "timeout_s": 600}))
    rig.said.clear()
    rig.after(1.5)
    assert wire.PROBE in rig.said[OPERATOR]  # the transport finds out whether it is still there
    rig.core.operators.gone(OPERATOR)
    assert not rig.core.operators.waiting


def test_one_connection_has_one_session() -> None:
    rig = Rig()
    for number in range(100):
        hello = messages.ClientHello(list(wire.VERSIONS), bytes([number]) * 16)
        rig.core.frontend(b"client", messages.framed(wire.HELLO, 0, hello), rig.now)
    assert len(rig.dispatch.sessions) == len(rig.dispatch.routes) == 1


def test_a_client_may_not_make_the_master_decode_a_large_hello() -> None:
    rig = Rig()
    hello = messages.framed(wire.HELLO, 0, messages.ClientHello(list(wire.VERSIONS), b"s" * 100_000))
    rig.core.frontend(b"client", hello, rig.now)
    assert rig.dispatch.counters["bad frames"] == 1


def test_events_are_kept_up_to_so_many_characters() -> None:
    rig = Rig()
    for number in range(10_000):
        rig.core.events.tell("x", "y" * 5000, "z" * 5000, reason=str(number))
    assert sum(each.characters() for each in rig.core.events._kept) <= TEXTS_MAX
    assert rig.core.events.since(0)[-1]["reason"] == "9999"
