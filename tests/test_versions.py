"""Peers of the next version, N+1: what docs/PROTOCOL.md promises that they may say to this one, made of raw frames."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from core_rig import Rig
from fake_frontend import FakeFrontend, Request
from node_rig import Node, joined, sent
from standby_rig import TOKEN
from test_standby import Rig as StandbyRig

import rota
from rota.common import exits, messages, wire
from rota.common.errors import LoadError
from rota.common.fields import BadMessage
from rota.common.lifecycle import Liveness
from rota.common.messages import Handler, Refusal, Started, UnknownMessage, Welcome
from rota.master.core.candidacy import Stage
from rota.master.core.outbox import Dial, HangUp
from rota.worker import asgi, wsgi
from rota.worker.core.effects import Connect
from rota.worker.process import Specification

NEWER = {"versions": [1, 2], "colour": "red", "sizes": {"a": [1]}}
UNKNOWN_KIND = 99
UNKNOWN_FLAG = 128
SESSION = b"n" * 16
HELLOS: dict[str, tuple[str, dict[str, Any]]] = {
    "agent": ("control", messages.AgentHello([], "n9", "b9", 0, 1, ["orders"], {}, [], [], "active", 0)._asdict()),
    "operator": ("control", messages.OperatorHello([], "ann")._asdict()),
    "voter": ("control", messages.VoterHello([], "n9", "b9", 0)._asdict()),
    "peer": ("control", messages.PeerHello([], "b", "tcp://b:7700", "backup", 0, 1000, "votes")._asdict()),
    "client": ("frontend", messages.ClientHello([], SESSION)._asdict()),
    "process": (
        "backend",
        messages.ProcessHello([], "n1.b1.9", b"t", "orders", "1", "d", {}, 1, 1, 0, 0, 0, [])._asdict(),
    ),
}
NAMES = {
    "agent": "AgentHello", "operator": "OperatorHello", "voter": "VoterHello", "peer": "PeerHello",
    "client": "ClientHello", "process": "ProcessHello",
}  # fmt: skip


def raw(name: str, fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb([name, fields])
    return packed


def say_hello(core: Any, who: str, now: float, name: str = "", **fields: Any) -> tuple[int, Any]:
    """Kind and message of what it is answered with; 0 and None: with nothing."""
    door, known = HELLOS[who]
    said = {key: value for key, value in {**known, **NEWER, **fields}.items() if value is not None}
    getattr(core.out, door).clear()
    getattr(core, door)(b"newer", wire.head(wire.HELLO, 0) + raw(name or NAMES[who], said), now)
    for _, frame in getattr(core.out, door):
        head = wire.parse_head(frame)
        if head.kind in (wire.WELCOME, wire.REFUSED):
            return head.kind, messages.decode(frame[head.head_len :])
    return 0, None


# ---- HELLO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", HELLOS)
def test_who_speaks_the_next_version_too_is_welcomed_with_this_one_whatever_else_it_says(who: str) -> None:
    rig = Rig()
    rig.started(rig.agent(), 9)
    kind, answer = say_hello(rig.core, who, rig.now)
    if who == "peer":  # what this rig's settings have to say to it is of no concern here
        assert not isinstance(answer, Refusal) or answer.code != "incompatible"
    else:
        assert kind == wire.WELCOME and answer.version == 1


@pytest.mark.parametrize("who", ["operator", "voter", "peer"])
def test_so_it_is_by_a_standby(who: str) -> None:
    rig = StandbyRig()
    kind, answer = say_hello(rig.core, who, rig.now)
    assert kind == wire.WELCOME and answer.version == 1


@pytest.mark.parametrize("who", HELLOS)
@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"versions": [2, 3]}, "versions 1 to 1, the peer 2 to 3: update the older side"),
        ({"versions": [2, 3], "name": "MoonHello"}, "versions 1 to 1, the peer 2 to 3: update the older side"),
        ({"name": "MoonHello"}, "no message is called 'MoonHello'"),
        ({"hellos": "one", "epoch": "one", "user": 1}, "expected, not"),
    ],
    ids=["version", "version and name", "name", "field"],
)
@pytest.mark.parametrize("standby", [False, True], ids=["active", "standby"])
def test_a_hello_that_is_not_understood_is_refused_with_the_reason_and_not_left_unanswered(
    who: str, said: dict[str, Any], why: str, standby: bool
) -> None:
    rig = StandbyRig() if standby else Rig()
    if standby and HELLOS[who][0] != "control":
        why = "is a standby"
    kind, answer = say_hello(rig.core, who, rig.now, **said)
    assert kind == wire.REFUSED and why in answer.message
    assert answer.code == ("standby" if why == "is a standby" else "incompatible") and answer.versions == [1, 1]


@pytest.mark.parametrize("who", HELLOS)
def test_who_does_not_say_which_versions_it_speaks_is_counted_and_not_answered(who: str) -> None:
    rig = Rig()
    assert say_hello(rig.core, who, rig.now, versions=None) == (0, None)
    assert rig.dispatch.counters["bad messages"] == 1


def test_only_a_name_that_nobody_knows_is_of_a_newer_peer() -> None:
    with pytest.raises(UnknownMessage, match="Moon"):
        messages.decode(raw("Moon", {}))
    with pytest.raises(BadMessage) as caught:
        messages.decode(raw("Beat", {}))
    assert not isinstance(caught.value, UnknownMessage)
    assert messages.versions_of(raw("Moon", {"versions": [2, 3], "more": 1})) == [2, 3]
    assert not messages.versions_of(raw("Moon", {"versions": ["2"]})) and not messages.versions_of(b"\x93")


# ---- a master hears more than it knows ------------------------------------------------------------------------------


def serves(rig: Rig, number: int = 1) -> None:
    rig.request(number)
    slot, delivery, _ = rig.deliveries[-1]
    rig.reply(slot, delivery)
    assert rig.codes()[number] == 0


def test_an_agent_may_say_what_is_not_known_here() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.client()
    node = slot.node
    for body in (
        raw("Moon", {"phase": 1}),
        raw("Beat", {"beat": 7, "colour": "red"}),
        raw("Usage", {"rss": {slot.incarnation: 5}, "cpu": {slot.incarnation: 5}}),
    ):
        rig.core.control(node.route, wire.head(wire.CONTROL, node.token) + body, rig.now)
    rig.core.control(node.route, wire.head(UNKNOWN_KIND, node.token), rig.now)
    assert (slot.rss, rig.dispatch.counters["bad messages"]) == (5, 1)
    serves(rig)


def test_an_exit_of_a_kind_that_is_not_known_here_is_settled_as_any_and_blames_no_request() -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.client()
    rig.request(1, "orders.again")
    slot = rig.deliveries[-1][0]
    rig.exited(slot, started_upto=1, rows=[(1, 1)], kind="abducted")
    rig.after(1.0)
    assert len(rig.deliveries) == 2 and not rig.dispatch.quarantine.all(), "it runs again, on the other one"


def test_an_intent_that_is_not_known_here_is_no_reason_to_refuse_its_node() -> None:
    rig = Rig()
    node = rig.agent(intent="hibernating", generation=7)
    rig.process(node)
    rig.client()
    serves(rig)


def test_a_handler_that_is_idempotent_in_a_way_that_is_not_known_here_is_not_run_again() -> None:
    rig = Rig()
    slots = [rig.process(rig.agent(name), handlers={"quote": Handler("sometimes")}) for name in ("n1", "n2")]
    rig.client()
    rig.request(1)
    slot = rig.deliveries[-1][0]
    assert slot in slots
    rig.exited(slot, started_upto=1, rows=[(1, 1)])
    rig.after(1.0)
    assert rig.codes() == {1: rota.MaybeExecuted.code}


def test_kinds_and_flags_are_of_a_version_so_what_has_others_is_counted_and_dropped_alone() -> None:
    rig = Rig()
    rig.pool_of(1)
    token = rig.client()
    for kind, flags in ((UNKNOWN_KIND, 0), (wire.REQUEST, UNKNOWN_FLAG)):
        frame = wire.head(kind, token, 1, 1000, 1, code=12, tail=b"orders.quote", flags=flags)
        rig.core.frontend(b"c", frame + b"body", rig.now)
    assert rig.dispatch.counters["bad frames"] == 2
    serves(rig)


def test_a_head_may_be_longer_than_is_known_here() -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.client()
    rig.request(1)
    slot, number, _ = rig.deliveries[-1]
    tail = b"what only N+1 puts there"
    rig.core.backend(slot.route, wire.head(wire.REPLY, slot.token, 1, 5, number, 1, tail=tail) + b"answer", rig.now)
    rig.flush()
    assert [(each.number, each.code, each.body) for each in rig.answers] == [(1, 0, b"answer")]


def test_a_request_may_have_entries_in_its_map_that_are_not_known_here() -> None:
    rig = Rig()
    rig.pool_of(1)
    token = rig.client()
    flags, meta = wire.META | wire.PINNED | wire.KEYED, msgpack.packb({"s": "ann", "k": "key", "z": [1], "y": {"b": 2}})
    frame = wire.head(wire.REQUEST, token, 1, 1000, 1, code=12, tail=b"orders.quote" + meta, flags=flags) + b"body"
    rig.core.frontend(b"c", frame, rig.now)
    rig.flush()
    slot, delivery, _ = rig.deliveries[-1]
    rig.reply(slot, delivery)
    assert rig.codes() == {1: 0}


def test_an_argument_of_a_verb_that_is_not_known_here_refuses_it_and_nothing_is_done() -> None:
    """A command line of N+1 may have asked what a drain would do, in a way that this master does not understand."""
    rig = Rig()
    rig.pool_of(1)
    result = rig.verb("drain", all=True, force=True, only_look=True)
    assert result is not None and result.exit == exits.USAGE
    assert "no argument 'only_look' of drain" in result.data["error"] and "update" in result.data["error"]
    assert [str(node.intent) for node in rig.fleet.nodes.values()] == ["active"]


# ---- an agent, a client, a process hear more than they know ---------------------------------------------------------


def test_a_plan_may_say_more_than_an_agent_knows() -> None:
    node = joined()
    node.hear(messages.decode(raw("Plan", {"processes": {"orders": 2}, "where": {"orders": "numa-1"}})))
    node.tick()
    assert len(node.core.processes.alive) == 2


def test_an_intent_that_an_agent_does_not_know_is_remembered_and_reported_as_it_is() -> None:
    node = joined()
    node.hear(messages.Intent("hibernating", 4, "ann", "spring"))
    hello = node.core.hello(node.now)
    assert (hello.intent, hello.generation) == ("hibernating", 4)


def test_a_master_in_a_state_that_an_agent_does_not_know_is_not_obeyed() -> None:
    node = Node()
    assert Connect(0) in node.tick()
    node.core.connected(node.now)
    node.core.welcomed(Welcome(1, 1, "m", state="meditating"), node.now)
    assert not node.core.connection.greeted
    assert Connect(1) in node.tick(1.0), "the other one's turn"


def test_a_refusal_with_a_code_that_an_agent_does_not_know_is_noted_and_tried_again() -> None:
    node = Node()
    node.tick()
    node.core.connected(node.now)
    effects = node.core.refused(Refusal("moody", "come back at noon", 2000, [1, 2]), node.now)
    assert any("come back at noon" in str(effect) for effect in effects)
    assert not node.tick(1.0) and Connect(0) in node.tick(1.1)
    assert not sent(effects, Started)


def test_a_client_takes_answers_of_a_newer_master_and_what_it_does_not_know_beside_them() -> None:
    def answer(fake: FakeFrontend, request: Request) -> tuple[int, object] | None:
        session = fake.sessions[request.session]
        fake.send(fake.frontend, session.route, wire.head(UNKNOWN_KIND, session.token, number=request.number))
        if request.args == ["known"]:
            tail = b"what only N+1 puts there"
            good = wire.head(wire.ANSWER, session.token, 1, 5, request.number, 1, tail=tail)
            fake.send(fake.frontend, session.route, good + msgpack.packb("done"))
            session.sequence = 1
            return None
        return 77, msgpack.packb({"cause": "the moon is full", "retry_after_ms": 5, "phase": "full"})

    with FakeFrontend(answer) as fake, rota.Client(fake.address) as client:
        assert client.call("a.b", "known") == "done"
        with pytest.raises(rota.Error, match="the moon is full") as caught:
            client.call("a.b", "unknown")
        assert caught.value.details["code"] == 77 and caught.value.details["phase"] == "full"


def test_a_process_takes_what_an_agent_of_another_version_says_and_names_what_it_lacks() -> None:
    """A new rota is on disk before the agent is restarted: its next process is of another version than it."""
    said = {
        "app": "a:b", "factory": False, "service": "", "version": "", "incarnation": "n.b.1", "ticket": "00",
        "page_fd": 3, "agent_pid": 1, "backends": [], "handler_timeout_s": 1.0,
    }  # fmt: skip
    assert Specification.read({**said, "colour": "red"}) == Specification(**said)  # type: ignore[arg-type]
    del said["backends"]
    with pytest.raises(LoadError, match="says no backends: it is of another version of rota, restart it"):
        Specification.read(said)


def test_what_an_application_offers_is_the_same_to_each_version_of_rota() -> None:
    """Two interfaces under one version of an application are refused: with another digest here, no process of a new
    rota would be taken beside those of the one before. Of what is hosted the interface is rota's own.
    """
    worker = rota.Worker("orders")

    @worker.handler(idempotent="key")
    def pay(ctx: rota.Context, amount: int, currency: str = "EUR") -> str:
        return f"{amount} {currency}"

    async def application(scope: Any, receive: Any, send: Any) -> None: ...

    assert worker.interface()["digest"] == "86a7382e2ade2404"
    for hosted in (wsgi.worker(lambda environ, start: [], "shop"), asgi.worker(application, "shop")):
        assert hosted.interface()["digest"] == "885c526d08dd5be4"


# ---- a standby hears more than it knows -----------------------------------------------------------------------------


def test_a_standby_follows_on_whatever_else_a_newer_active_says() -> None:
    rig = StandbyRig()
    rig.follow()
    for frame in (
        wire.head(wire.CONTROL, TOKEN) + raw("Moon", {"phase": 1}),
        wire.head(wire.CONTROL, TOKEN) + raw("Pulse", {"number": 9, "epoch": 1, "sequence": 7, "colour": "red"}),
        wire.head(UNKNOWN_KIND, TOKEN) + b"anything",
        wire.head(wire.PROBE, 0),
    ):
        rig.core.from_link(frame, rig.now)
        rig.flush()
    assert not rig.of(HangUp) and rig.core.counters["bad frames"] == 2
    assert rig.told(messages.Promise)[-1].number == 9


def test_a_standby_that_lacks_a_record_does_not_stand_while_it_is_told_all_of_them_again() -> None:
    rig = StandbyRig()
    for node in "abc":
        rig.greet(node)
    rig.follow()
    rig.link(messages.Replica(8, [msgpack.packb({"t": "moon"})]))
    rig.core.link_opened()
    rig.link(Welcome(1, 1, "other"), wire.WELCOME)
    rig.link(messages.Replica(8, rig.snapshot(), first=True, more=True))
    rig.wait(5.0)
    assert rig.core.liveness is Liveness.DEAD and rig.stage is Stage.FOLLOWING


def test_a_primary_that_comes_back_and_does_not_understand_the_newer_backup_does_not_stand_when_that_dies() -> None:
    rig = StandbyRig(backup=False)
    for node in "abc":
        rig.greet(node)
    rig.core.link_opened()
    rig.link(Welcome(1, 6, "other"), wire.WELCOME)
    rig.link(messages.Replica(7, [msgpack.packb({"t": "moon"})], first=True, more=False))
    rig.wait(10.0)
    assert "records" in rig.core.alarms and rig.stage is Stage.FOLLOWING


def test_a_record_in_a_message_that_cannot_be_read_is_still_asked_for_anew() -> None:
    rig = StandbyRig()
    rig.follow()
    rig.core.from_link(wire.head(wire.CONTROL, TOKEN) + raw("Replica", {"sequence": "8", "records": []}), rig.now)
    assert any(isinstance(effect, HangUp) for effect in rig.core.out.role)


def test_a_standby_whose_hello_is_not_answered_says_so_and_dials_again() -> None:
    """As an older active does with one that it does not understand; or the HELLO was damaged on the way."""
    rig = StandbyRig()
    rig.core.tick(rig.now)
    rig.core.link_opened()
    rig.flush()
    rig.wait(2.9)
    assert not rig.core.alarms and len(rig.of(Dial)) == 1
    rig.wait(0.5)
    assert "answers no HELLO" in rig.core.alarms["unanswered"] and len(rig.of(Dial)) == 2
    rig.follow()
    assert not rig.core.alarms
