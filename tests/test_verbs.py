"""What operators ask, with the exit codes of the command line."""

from __future__ import annotations

from typing import Any

import pytest
from core_rig import Rig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rota.common import exits, messages, wire
from rota.common.lifecycle import Intent
from rota.common.limits import ASKED_MAX, MAP_MAX
from rota.common.messages import Failing, Follow, Happened, Leave, Leaving, PeerHello, Plan, Promise, Result
from rota.common.messages import Intent as Word
from rota.master.core.pair import Pair
from rota.master.core.records import Restored
from rota.master.core.verbs import ARGUMENTS


def cluster(nodes: int = 2, **rig_settings: Any) -> Rig:
    rig = Rig(**rig_settings)
    for number in range(1, nodes + 1):
        rig.process(rig.agent(f"n{number}", capacity=1, tags={"zone": "a" if number < 3 else "b"}))
    return rig


def ask(rig: Rig, verb: str, **args: Any) -> Result:
    result = rig.verb(verb, **args)
    assert result is not None
    assert result.data["schema"] == 1
    return result


# ---- nodes -----------------------------------------------------------------------------------------------------------


def test_a_drain_says_what_it_did_and_twice_is_already_so() -> None:
    rig = cluster()
    first = ask(rig, "drain", nodes=["n1"], reason="disk").data["nodes"]
    asked = {"node": "n1", "intent": "draining", "liveness": "live", "in_flight": 0, "generation": 1, "changed": True}
    assert first == [asked]
    again = ask(rig, "drain", nodes=["n1"])
    assert again.exit == exits.DONE and again.data["nodes"][0]["changed"] is False
    assert again.data["nodes"][0]["generation"] == 1
    assert not [event for event in rig.core.events.since(0) if event["kind"] == "forced"]


def test_of_the_last_node_it_is_told_what_would_let_it_be_drained() -> None:
    result = ask(cluster(1), "drain", nodes=["n1"])
    assert result.exit == exits.REFUSED and "Start another node, or use --force" in result.data["error"]
    assert "Drain fewer at once, or" in ask(cluster(2), "drain", all=True).data["error"]


def test_a_drain_that_is_under_way_may_be_given_another_deadline() -> None:
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    rig.request(1)
    rig.request(2)
    ask(rig, "drain", nodes=["n1"])
    rig.after(1.0)
    assert node.intent is Intent.DRAINING
    ask(rig, "drain", nodes=["n1"])
    rig.after(1.0)
    assert node.intent is Intent.DRAINING
    assert ask(rig, "drain", nodes=["n1"], deadline_s=0.5, dry_run=True).data["nodes"][0]["changed"] is False
    rig.after(1.0)
    assert node.intent is Intent.DRAINING
    assert ask(rig, "drain", nodes=["n1"], deadline_s=0.5).data["nodes"][0]["changed"] is False
    rig.after(1.0)
    assert node.intent is Intent.DETACHED


def test_a_verb_is_answered_when_it_is_durable() -> None:
    rig = cluster()
    rig.durable = False
    assert rig.verb("drain", nodes=["n1"]) is None
    rig.durable = True
    rig.flush()
    rig.flush()
    assert rig.result() is not None
    assert any(b"draining" in record for record in rig.records)


def test_a_verb_that_finds_it_done_already_waits_for_its_record_too() -> None:
    rig = cluster()
    rig.durable = False
    assert rig.verb("drain", nodes=["n1"]) is None
    assert rig.verb("drain", nodes=["n1"]) is None  # changes nothing, and promises the same
    rig.durable = True
    rig.flush()
    rig.flush()
    assert rig.result() is not None


def test_the_agent_is_told_of_every_change_and_may_remember_it() -> None:
    rig = cluster()
    ask(rig, "drain", nodes=["n1"], reason="disk")
    rig.after(0.1)
    ask(rig, "rejoin", nodes=["n1"], version="7")
    words = rig.heard("n1", Word)
    assert [word.state for word in words][0] == "draining" and words[-1].state == "active"
    assert (words[0].by, words[0].reason, words[-1].version) == ("ann", "disk", "7")
    assert words[-1].generation == 2


def test_nodes_are_named_by_tag_or_all_at_once() -> None:
    rig = cluster(3)
    found = ask(rig, "drain", tags={"zone": "a"}, dry_run=True).data["nodes"]
    assert [each["node"] for each in found] == ["n1", "n2"]
    found = ask(rig, "recheck", all=True).data["nodes"]
    assert [each["node"] for each in found] == ["n1", "n2", "n3"]
    assert ask(rig, "drain", tags={"zone": "x"}).exit == exits.NOT_FOUND


@pytest.mark.parametrize("verb", ["drain", "rejoin", "recheck"])
def test_an_unknown_node_is_exit_4_with_the_nearest_names(verb: str) -> None:
    result = ask(cluster(), verb, nodes=["n11"])
    assert result.exit == exits.NOT_FOUND and result.data["nearest"]
    assert "n11" in result.data["error"] and "n1" in result.data["error"]


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("scale", {"service": "orders", "processes": 2}),
        ("pause", {"service": "orders"}),
        ("maintenance", {"service": "orders"}),
        ("blacklist", {"action": "disable", "names": ["orders"]}),
        ("recheck", {"tags": {"zone": "a"}}),
    ],
)
def test_of_a_service_whose_nodes_have_not_told_yet_nobody_says_that_it_is_not_there(
    verb: str, args: dict[str, Any]
) -> None:
    """A deploy script went on past a restart of the master, and was told so."""
    rig = Rig(restored=Restored.of(cluster().records), epoch=2)
    assert rig.verb(verb, **args) is None
    assert ask(rig, "bogus").exit == exits.NOT_FOUND, "that no node can bring"
    rig.agent("n1", capacity=1, tags={"zone": "a"})
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.exit == exits.DONE


def test_a_service_that_does_not_come_is_not_there_when_its_nodes_are_given_up() -> None:
    rig = Rig(restored=Restored.of(cluster().records), epoch=2)
    assert rig.verb("reload", service="ordres") is None
    rig.agent("n1", capacity=1)
    rig.after(1.0)
    assert rig.result() is None
    rig.after(rig.sections.master.dead_after)
    result = rig.result()
    assert result is not None and result.exit == exits.NOT_FOUND and "orders" in result.data["error"]
    assert ask(rig, "reload", service="ordres").exit == exits.NOT_FOUND, "at once"


@pytest.mark.parametrize(("condition", "name"), [("reloaded", "ordres"), ("active", "n9"), ("maintenance", "ordres")])
def test_the_time_of_a_wait_counts_from_when_it_was_asked_though_nobody_of_that_name_is_here_yet(
    condition: str, name: str
) -> None:
    """It was not answered before the nodes had told, and whoever had asked heard that the master was silent."""
    rig = Rig(restored=Restored.of(cluster().records), epoch=2)
    assert ask(rig, "wait", condition=condition, names=[name], timeout_s=0.0).exit == exits.UNDER_WAY
    assert rig.verb("wait", condition=condition, names=[name], timeout_s=1.0) is None
    rig.after(1.1)
    result = rig.result()
    assert result is not None and result.exit == exits.UNDER_WAY and not rig.core.operators.early
    assert result.data["names"] == [name] and result.data["pending"] == [{"name": name, "why": "not here yet"}]


def test_a_node_that_comes_late_does_not_begin_the_time_of_a_wait_anew() -> None:
    rig = Rig(restored=Restored.of(cluster().records), epoch=2)
    assert rig.verb("wait", condition="detached", names=["n1", "n9"], timeout_s=1.0) is None
    rig.after(0.8)
    rig.agent("n9", capacity=1)
    rig.after(0.3)
    result = rig.result()
    assert result is not None and result.exit == exits.UNDER_WAY
    assert [each["name"] for each in result.data["pending"]] == ["n1", "n9"]


def test_whoever_leaves_or_asks_for_too_much_waits_for_no_service() -> None:
    rig = Rig(restored=Restored.of(cluster().records), epoch=2)
    for _ in range(ASKED_MAX):
        assert rig.verb("reload", service="orders") is None
    assert ask(rig, "reload", service="orders").exit == exits.NOT_FOUND
    rig.core.control(b"op", wire.head(wire.BYE, rig.core.operators.token(b"op")), rig.now)
    assert not rig.core.operators.early


@pytest.mark.parametrize("verb", ["drain", "rejoin", "recheck"])
def test_naming_nobody_is_a_mistake_of_usage(verb: str) -> None:
    assert ask(cluster(), verb).exit == exits.USAGE


def test_what_is_no_name_and_a_time_out_of_range_are_mistakes_too() -> None:
    rig = cluster()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("drain", {"nodes": [1]}),
        ("wait", {"condition": "active", "timeout_s": -1.0}),
    ]
    for verb, args in calls:
        assert ask(rig, verb, **args).exit == exits.USAGE


def test_rejoining_what_is_active_is_already_so() -> None:
    result = ask(cluster(), "rejoin", nodes=["n1"])
    assert result.exit == exits.DONE and result.data["nodes"][0]["changed"] is False


def test_a_dry_run_of_a_rejoin_says_what_it_would_do_and_does_nothing() -> None:
    rig = cluster()
    ask(rig, "drain", nodes=["n1"])
    rig.after(0.1)
    result = ask(rig, "rejoin", nodes=["n1", "n2"], dry_run=True)
    assert result.data["dry_run"] and [each["changed"] for each in result.data["nodes"]] == [True, False]
    assert rig.fleet.nodes["n1"].intent is Intent.DETACHED


@pytest.mark.parametrize("intent", ["active", "draining"])
def test_no_version_is_named_for_processes_that_go_on_under_another_one(intent: str) -> None:
    rig = cluster(3)
    ask(rig, "drain", nodes=["n3"])
    rig.after(0.1)
    rig.request(1)
    rig.request(2)
    if intent == "draining":
        ask(rig, "drain", nodes=["n1"])
    for dry_run in (True, False):
        result = ask(rig, "rejoin", nodes=["n3", "n1"], version="2", dry_run=dry_run)
        assert result.exit == exits.REFUSED
        assert f"n1 is {intent} with version 1: only a node that is detached" in result.data["error"]
    assert [rig.fleet.nodes[name].intent for name in ("n1", "n3")] == [intent, "detached"]


@pytest.mark.parametrize("version", ["2 beta", "x" * 65, "2\n"])
def test_a_version_that_no_process_could_have_is_refused_before_it_is_on_record(version: str) -> None:
    rig = cluster()
    ask(rig, "drain", nodes=["n1"])
    rig.after(0.1)
    result = ask(rig, "rejoin", nodes=["n1"], version=version)
    assert result.exit == exits.USAGE and "1 to 64 printable characters without blanks" in result.data["error"]
    assert rig.fleet.nodes["n1"].intent is Intent.DETACHED


def test_the_version_that_a_node_was_rejoined_with_may_be_said_again() -> None:
    rig = cluster()
    assert ask(rig, "rejoin", nodes=["n1"], version="1").exit == exits.DONE, "that its processes report"
    ask(rig, "drain", nodes=["n1"])
    rig.after(0.1)
    assert ask(rig, "rejoin", nodes=["n1"], version="2").data["nodes"][0]["changed"] is True
    again = ask(rig, "rejoin", nodes=["n1"], version="2")  # before a process of it is ready, too
    assert again.exit == exits.DONE and again.data["nodes"][0]["changed"] is False
    assert ask(rig, "rejoin", nodes=["n1"], version="3").exit == exits.REFUSED


def test_a_node_that_is_leaving_is_not_rejoined() -> None:
    rig = cluster()
    rig.tell(rig.fleet.nodes["n1"], Leaving(60_000))
    result = ask(rig, "rejoin", nodes=["n1"])
    assert result.exit == exits.REFUSED and "start it again" in result.data["error"]


def test_a_node_that_was_told_to_stop_and_is_gone_keeps_no_others_from_being_taken_back() -> None:
    """After a drain of all of them the rejoin of all was refused, for what an autoscaler had taken away before."""
    rig = cluster()
    gone = rig.fleet.nodes["n1"]
    rig.tell(gone, Leaving(1000))
    rig.after(0.2)
    rig.core.control(gone.route, wire.head(wire.BYE, gone.token), rig.now)
    ask(rig, "drain", all=True, force=True)
    rig.after(1.0)
    assert ask(rig, "rejoin", all=True).exit == exits.DONE
    assert all(node.intent is Intent.ACTIVE for node in rig.fleet.nodes.values())
    assert rig.agent("n1", boot="b2").intent is Intent.ACTIVE


def test_a_node_that_said_goodbye_keeps_no_others_from_another_version_unless_it_is_named() -> None:
    rig = cluster(3)
    gone = rig.fleet.nodes["n1"]
    rig.core.control(gone.route, wire.head(wire.BYE, gone.token), rig.now)
    for name in ("n2", "n3"):
        ask(rig, "drain", nodes=[name], force=True)
    rig.after(1.0)
    named = ask(rig, "rejoin", nodes=["n1", "n2"], version="2")
    assert named.exit == exits.REFUSED and "n1 is active with no process ready" in named.data["error"]
    assert ask(rig, "rejoin", all=True, version="2").exit == exits.DONE
    assert [rig.fleet.nodes[name].version for name in ("n1", "n2", "n3")] == ["", "2", "2"]


def test_a_recheck_sends_the_plan_again() -> None:
    rig = cluster()
    rig.after(1.0)
    rig.said.clear()
    ask(rig, "recheck", nodes=["n1"])
    assert rig.heard("n1", Plan)


def test_a_live_node_is_not_forgotten() -> None:
    result = ask(cluster(), "forget", nodes=["n1"])
    assert result.exit == exits.REFUSED and "agent" in result.data["error"]


def test_a_detached_node_that_is_forgotten_is_told_to_leave() -> None:
    rig = cluster()
    ask(rig, "drain", nodes=["n1"], force=True)
    rig.after(1.0)
    assert rig.fleet.nodes["n1"].intent == "detached"
    assert ask(rig, "forget", nodes=["n1"]).exit == exits.DONE
    assert rig.heard("n1", Leave) and "n1" not in rig.fleet.nodes
    assert {slot.node.name for slot in rig.fleet.processes.slots.values()} == {"n2"}
    rig.process(rig.agent("n1", boot="b2", capacity=1))
    assert ask(rig, "forget", nodes=["n1"]).exit == exits.REFUSED, "it is here again"


def test_a_forgotten_node_that_leaves_as_it_was_told_is_not_remembered_again() -> None:
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    ask(rig, "drain", nodes=["n1"], force=True)
    rig.after(1.0)
    ask(rig, "forget", nodes=["n1"])
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.flush()
    assert list(Restored.of(rig.records).nodes) == list(rig.core.known.nodes) == ["n2"]
    assert "CLOSE" not in [event["kind"] for event in rig.core.events.since(0)]


def test_one_failure_is_not_told_as_a_row_of_them() -> None:
    rig = Rig()
    node = rig.agent()
    told = []
    for failures in (1, 2):
        rig.tell(node, Failing("orders", failures, 500, "ValueError: no"))
        told.append(rig.core.status(rig.now)["nodes"][0]["why"].partition(",")[0])
    assert told == ["orders failed once", "orders failed 2 times in a row"]


def test_a_service_that_only_forgotten_nodes_offered_is_waited_for_by_nobody() -> None:
    rig = cluster()
    for number, service in enumerate(("typo", "typo", "asked")):
        node = rig.agent(f"n{3 + number}", offers=[service])
        if service == "asked":
            rig.request(1, target="asked.f")
        rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    assert rig.verb("wait", condition="ready", names=[], timeout_s=1.0) is None
    assert ask(rig, "forget", nodes=["n3"]).exit == exits.DONE
    assert "typo" in rig.dispatch.pools  # n4 may come back
    assert ask(rig, "forget", nodes=["n4", "n5"]).exit == exits.DONE
    assert set(rig.dispatch.pools) == {"orders", "asked"}  # that one is still asked for


def standby(rig: Rig) -> None:
    """A backup of this master says HELLO, has everything, and promises once."""
    hello = PeerHello([1, 1], "other", "tcp://other:7700", "backup", 0, 1000, "majority")
    rig.core.control(b"other", messages.framed(wire.HELLO, 0, hello), rig.now)
    rig.flush()
    assert isinstance(rig.core.pair, Pair) and rig.core.pair.standby
    promise = Promise(1, 1000, 10**6, voters=2)
    rig.core.control(b"other", messages.framed(wire.CONTROL, rig.core.pair.standby.token, promise), rig.now)
    rig.flush()


def test_a_standby_that_is_gone_is_forgotten_and_twice_is_once() -> None:
    rig = cluster()
    for _ in range(2):  # also when it was here again meanwhile
        standby(rig)
        live = ask(rig, "forget", nodes=["other"])
        assert live.exit == exits.REFUSED and "stop it first" in live.data["error"]
        rig.after(5.0)
        assert rig.core.status(rig.now)["master"]["peer"]["liveness"] == "dead"
        assert ask(rig, "forget", nodes=["n1", "other"]).exit == exits.USAGE
        for _ in range(2):
            assert ask(rig, "forget", nodes=["other"]).data["nodes"] in (["other"], [])
        texts = [event["text"] for event in rig.core.events.since(0)]
        assert "other is no standby any more: this master is alone" in texts
        rig.after(0.1)
        assert rig.core.status(rig.now)["master"]["peer"] is None and rig.core.known.peer is None
    rig.request(1)
    assert rig.deliveries, "alone it needs nobody's promise"


def test_a_node_is_forgotten_and_not_the_standby_even_if_that_has_its_name() -> None:
    rig = cluster(3)
    standby(rig)
    rig.after(5.0)  # it is given up: no record waits for it
    for name in ("n3", "other"):
        node = rig.agent(name)
        rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
        assert ask(rig, "forget", nodes=[name]).data["nodes"] == [name]
        assert name not in rig.fleet.nodes and rig.core.status(rig.now)["master"]["peer"]["name"] == "other"


def test_nodes_to_forget_may_be_named_by_their_tags() -> None:
    rig = cluster(3)
    ask(rig, "drain", nodes=["n3"])
    assert ask(rig, "forget", tags={"zone": "b"}, reason="sold").data["nodes"] == ["n3"]
    (told,) = [event for event in rig.core.events.since(0) if event["kind"] == "forgotten"]
    assert (told["text"], told["by"], told["reason"]) == ("n3 left for good", "ann", "sold")
    assert ask(rig, "forget", all=True).exit == exits.REFUSED and ask(rig, "forget").exit == exits.USAGE


def test_to_forget_a_node_that_never_was_is_not_found() -> None:
    result = ask(cluster(), "forget", nodes=["n11"])
    assert result.exit == exits.NOT_FOUND and "n1" in result.data["nearest"]


def test_a_node_that_is_gone_is_forgotten_for_good_and_twice_is_already_so() -> None:
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    assert ask(rig, "forget", nodes=["n1"]).exit == exits.DONE
    assert "n1" not in rig.fleet.nodes
    assert ask(rig, "forget", nodes=["n1"]).exit == exits.DONE
    assert any(b"forgotten" in record for record in rig.records)


def test_that_a_node_was_forgotten_is_known_to_the_next_master_too() -> None:
    """Whoever heard no answer of the first asks it."""
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    assert ask(rig, "forget", nodes=["n1"]).exit == exits.DONE
    again = Rig(restored=Restored.of(Restored.of(rig.records).records()))
    assert ask(again, "forget", nodes=["n1"]).exit == exits.DONE
    again.agent("n2")
    assert ask(again, "forget", nodes=["n11"]).exit == exits.NOT_FOUND
    again.agent("n1")
    assert ask(again, "forget", nodes=["n1"]).exit == exits.REFUSED, "it has come back"


def test_a_node_that_is_named_twice_is_forgotten_once() -> None:
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    result = ask(rig, "forget", nodes=["n1", "n1"])
    assert result.exit == exits.DONE and result.data["nodes"] == ["n1"]


# ---- services --------------------------------------------------------------------------------------------------------


def test_scale_sets_the_size_and_survives() -> None:
    rig = Rig()
    rig.agent(capacity=4)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 4}
    result = ask(rig, "scale", service="orders", processes=2)
    assert result.data["processes"] == 2
    rig.after(0.2)
    assert rig.heard("n1", Plan)[-1].processes == {"orders": 2}
    assert any(b"scaled" in record for record in rig.records)


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("scale", {"service": "orders", "processes": 1}),
        ("reload", {"service": "orders"}),
        ("pause", {"service": "orders"}),
        ("maintenance", {"service": "orders"}),
        ("drain", {"nodes": ["n1"]}),
        ("forget", {"nodes": ["n3"]}),
    ],
)
def test_what_is_refused_for_its_reason_changes_nothing(verb: str, args: dict[str, Any]) -> None:
    rig = cluster(service={"min_active": 0})
    node = rig.agent("n3")
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    rig.flush()
    before = len(rig.records), rig.core.events.last
    result = ask(rig, verb, **args, reason="x" * 1001)
    assert result.exit == exits.USAGE and "reason: 1001 characters" in result.data["error"]
    assert (len(rig.records), rig.core.events.last) == before
    assert not rig.dispatch.pools["orders"].reload


def test_a_switchover_that_is_refused_for_its_reason_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = cluster()
    monkeypatch.setattr(rig.core.pair, "unready", lambda: "")
    assert ask(rig, "switchover", reason="x" * 1001).exit == exits.USAGE
    rig.after(1.0)
    assert not rig.core.ready_to_end(rig.now) and all(slot.open for slot in rig.fleet.processes.slots.values())


@pytest.mark.parametrize(("processes", "code"), [(1, 5), (2, 0), (4, 0), (5, 5)])
def test_a_service_is_scaled_within_its_limits(processes: int, code: int) -> None:
    rig = cluster(service={"min_processes": 2, "max_processes": 4})
    assert ask(rig, "scale", service="orders", processes=processes).exit == code


def test_a_switchover_is_answered_when_what_waits_was_given_back() -> None:
    rig = cluster()
    standby(rig)
    for number in (1, 2, 3):
        rig.request(number)
    assert rig.verb("switchover") is None
    rig.after(0.3)
    assert rig.core.ready_to_end(rig.now)
    rig.core.end()
    rig.flush()
    result = rig.result()
    assert result is not None and result.ok
    assert result.data == {"schema": 1, "epoch": 1, "to": "other", "given_back": 1}
    assert [answer.number for answer in rig.answers if answer.kind == wire.ANSWER] == [3]


def test_why_a_service_was_reloaded_is_an_event() -> None:
    rig = cluster()
    ask(rig, "reload", service="orders", reason="new certificate")
    (event,) = [event for event in rig.core.events.since(0) if event["kind"] == "reload"]
    assert (event["by"], event["reason"]) == ("ann", "new certificate")


@pytest.mark.parametrize("processes", [0, 1, 5])
def test_scale_stays_between_minimum_and_maximum(processes: int) -> None:
    rig = cluster(service={"min_processes": 2, "max_processes": 4})
    result = ask(rig, "scale", service="orders", processes=processes)
    assert result.exit == exits.REFUSED and "from 2 to 4" in result.data["error"]


@pytest.mark.parametrize("verb", ["scale", "reload"])
def test_an_unknown_service_is_exit_4_with_the_nearest(verb: str) -> None:
    result = ask(cluster(), verb, service="order")
    assert result.exit == exits.NOT_FOUND and result.data["nearest"] == ["orders"]


@pytest.mark.parametrize("verb", ["scale", "reload"])
def test_handlers_inside_an_application_are_not_scaled_or_reloaded(verb: str) -> None:
    rig = Rig()
    rig.process(rig.agent(embedded=True))
    result = ask(rig, verb, service="orders", **({"processes": 1} if verb == "scale" else {}))
    assert result.exit == exits.REFUSED and "application" in result.data["error"]


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_waiting_is_answered_in_the_step_in_which_it_becomes_true() -> None:
    rig = cluster()
    rig.request(1)
    slot = next(slot for slot in rig.fleet.processes.slots.values() if slot.inflight)
    ask(rig, "drain", nodes=[slot.node.name])
    assert rig.verb("wait", condition="detached", names=[slot.node.name]) is None
    rig.reply(slot, 1)
    rig.after(0.1)
    assert slot.node.intent is Intent.DETACHED
    assert rig.result() is None, "its process is still to be stopped"
    rig.exited(slot)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.exit == exits.DONE and result.data["waited_s"] > 0


@pytest.mark.parametrize("condition", ["reloaded", "paused", "ready", "maintenance"])
def test_waiting_for_a_service_outlives_it(condition: str) -> None:
    rig = cluster()
    node = rig.agent("n3", offers=["shop"])
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    ask(rig, "status")
    for verb, args in (("wait", {"condition": condition, "names": ["shop"]}), ("forget", {"nodes": ["n3"]})):
        frame = messages.framed(wire.CONTROL, rig.core.operators.token(b"op"), messages.Verb(8, verb, args))
        rig.core.control(b"op", frame, rig.now)  # both are read before the next tick
    rig.after(0.1)
    assert "shop" not in rig.dispatch.pools
    assert "internal errors" not in ask(rig, "status").data["master"]["counters"]


def test_whoever_waits_for_a_reload_or_a_drain_is_told_what_is_left() -> None:
    rig = cluster()
    ask(rig, "reload", service="orders")
    for condition, name, left in (
        ("reloaded", "orders", "2 processes still to be replaced"),
        ("detached", "n1", "active"),
    ):
        for names in ([name], []):
            pending = ask(rig, "wait", condition=condition, names=names, timeout_s=0.0).data["pending"]
            assert pending[0] == {"name": name, "why": left}


def test_nobody_waits_for_processes_of_a_node_that_is_dead() -> None:
    rig = cluster()
    rig.agent("n1", boot="b1", capacity=2)  # room for one more, that has not started
    assert rig.verb("wait", condition="ready", names=["orders"]) is None
    for _ in range(50):
        rig.after(0.1, beat=False)
        rig.tell(rig.fleet.nodes["n2"], messages.Beat(1))
    assert rig.fleet.nodes["n1"].liveness == "dead"
    assert (result := rig.result()) is not None and result.ok


def test_nobody_waits_for_a_node_that_said_goodbye_unless_it_is_named() -> None:
    rig = cluster()
    node = rig.fleet.nodes["n1"]
    rig.tell(node, Failing("orders", 3, 1000, "Traceback\nImportError: nope"))
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    assert ask(rig, "wait", condition="active", names=[]).ok
    assert rig.verb("wait", condition="active", names=["n1"], timeout_s=1.0) is None
    rig.after(1.1)
    result = rig.result()
    assert result is not None and "goodbye" in result.data["pending"][0]["why"]
    for slot in list(rig.fleet.nodes["n2"].slots.values()):
        rig.exited(slot)
    assert rig.verb("wait", condition="ready", names=["orders"], timeout_s=60.0) is None, "what failed there is gone"


def test_waiting_too_long_is_exit_75_and_says_for_whom_and_why() -> None:
    rig = cluster()
    ask(rig, "drain", nodes=["n1"])
    assert rig.verb("wait", condition="active", names=["n1"], timeout_s=2.0) is None
    rig.after(2.1)
    result = rig.result()
    assert result is not None and result.exit == exits.UNDER_WAY
    assert result.data["pending"][0]["name"] == "n1" and "rejoin" in result.data["pending"][0]["why"]


def test_whoever_waits_for_a_node_is_told_how_many_processes_it_still_lacks_or_that_it_is_gone() -> None:
    rig = cluster(1)
    node = rig.agent("n2", capacity=2)
    rig.process(node)
    pending = ask(rig, "wait", condition="active", names=["n2"], timeout_s=0.0).data["pending"]
    assert pending == [{"name": "n2", "why": "1 of 2 processes ready"}]
    rig.core.control(node.route, wire.head(wire.BYE, node.token), rig.now)
    assert rig.verb("wait", condition="active", names=["n2"], timeout_s=1.0) is None
    rig.fleet.forget(node, rig.now)
    rig.after(1.1)
    result = rig.result()
    assert result is not None and result.data["pending"] == [{"name": "n2", "why": "it was forgotten"}]


def test_a_service_that_an_operator_has_stopped_is_as_ready_as_it_is_wanted() -> None:
    rig = cluster()
    ask(rig, "maintenance", service="orders", stop=True)
    for slot in list(rig.fleet.processes.slots.values()):
        rig.exited(slot)
    assert ask(rig, "wait", condition="ready", names=["orders"]).ok and ask(rig, "wait", condition="leader").ok


@pytest.mark.parametrize(("condition", "name"), [("active", "n1"), ("ready", "orders")])
def test_waiting_for_what_fails_to_start_ends_with_its_traceback(condition: str, name: str) -> None:
    rig = cluster()
    slot = next(iter(rig.fleet.nodes["n1"].slots.values()))
    rig.exited(slot)
    rig.verb("wait", condition=condition, names=[name], timeout_s=60.0)
    rig.tell(rig.fleet.nodes["n1"], Failing("orders", 2, 1000, "Traceback\nImportError: nope"))
    rig.after(0.1)
    assert rig.result() is None, "it is tried again"
    rig.tell(rig.fleet.nodes["n1"], Failing("orders", 3, 1000, "Traceback\nImportError: nope", "exited with 1"))
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.exit == exits.FAILED and "ImportError: nope" in result.data["error"]


def test_what_fails_of_other_services_or_on_nodes_that_are_drained_ends_no_wait_for_a_service() -> None:
    rig = cluster(1)
    for name, service in (("n2", "reports"), ("n3", "orders")):
        node = rig.agent(name, offers=["orders", "reports"])
        rig.tell(node, Failing(service, 3, 1000, "Traceback\nImportError: nope"))
    ask(rig, "drain", nodes=["n3"], force=True)
    assert rig.verb("wait", condition="ready", names=["orders"], timeout_s=60.0) is None
    rig.after(0.1)
    assert rig.result() is None


def test_of_a_process_that_writes_nothing_the_cause_is_told_once() -> None:
    rig = cluster()
    rig.exited(next(iter(rig.fleet.nodes["n1"].slots.values())))
    rig.verb("wait", condition="active", names=["n1"], timeout_s=60.0)
    rig.tell(rig.fleet.nodes["n1"], Failing("orders", 3, 1000, "exited with 7", "exited with 7"))
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.data["error"].count("exited with 7") == 1


@pytest.mark.parametrize("mend", ["recheck", "rejoin", "drain and rejoin"])
def test_what_failed_before_a_recheck_or_rejoin_ends_no_wait_after_it(mend: str) -> None:
    rig = cluster()
    slot = next(iter(rig.fleet.nodes["n1"].slots.values()))
    rig.exited(slot)
    rig.tell(rig.fleet.nodes["n1"], Failing("orders", 3, 1000, "Traceback\nImportError: nope"))
    if mend == "drain and rejoin":
        ask(rig, "drain", nodes=["n1"])
        rig.after(0.1)
    ask(rig, mend.split()[-1], nodes=["n1"])
    assert rig.verb("wait", condition="active", names=["n1"], timeout_s=60.0) is None
    rig.process(rig.fleet.nodes["n1"], 2)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.ok


@pytest.mark.parametrize(
    ("condition", "names"), [("activ", []), ("active", ["nx"]), ("reloaded", ["nx"]), ("maintenance", ["nx"])]
)
def test_waiting_for_what_does_not_exist_is_exit_4_at_once(condition: str, names: list[str]) -> None:
    rig = cluster()
    result = ask(rig, "wait", condition=condition, names=names)
    assert result.exit == exits.NOT_FOUND
    rig.after(0.1)


def test_ready_may_be_waited_for_before_any_node_offers_it() -> None:
    rig = Rig()
    assert rig.verb("wait", condition="ready", names=["orders"]) is None
    rig.process(rig.agent(capacity=1))
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.ok


@pytest.mark.parametrize("condition", ["active", "ready"])
def test_all_of_them_are_at_least_one(condition: str) -> None:
    rig = Rig()
    rig.verb("wait", condition=condition, names=[], timeout_s=2.0)
    rig.after(1.0)
    assert rig.result() is None, "an empty pool serves nobody"
    node = rig.agent(capacity=1)
    rig.after(0.1)
    assert rig.result() is None, "it has come, and its process has not"
    rig.process(node)
    rig.after(0.1)
    result = rig.result()
    assert result is not None and result.ok and result.data["names"] == ["n1" if condition == "active" else "orders"]


@pytest.mark.parametrize(
    ("condition", "which", "why"),
    [("active", "nodes", "none has come yet"), ("ready", "services", "no node offers one yet")],
)
def test_who_waits_for_all_of_none_is_told_so(condition: str, which: str, why: str) -> None:
    rig = Rig()
    result = ask(rig, "wait", condition=condition, names=[], timeout_s=0.0)
    assert result.exit == exits.UNDER_WAY and result.data["pending"] == [{"name": which, "why": why}]
    assert ask(rig, "wait", condition="detached", names=[]).ok, "of none there is nothing left to stop"


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_status_has_the_shape_that_is_promised() -> None:
    rig = cluster()
    status = ask(rig, "status").data
    assert set(status) == {"schema", "master", "services", "nodes"}
    (service,) = status["services"]
    assert (service["name"], service["ready"], service["active_nodes"], service["handlers"]) == (
        "orders",
        2,
        2,
        ["again", "http", "keyed", "quote"],
    )
    node = status["nodes"][0]
    assert (node["name"], node["intent"], node["liveness"], node["why"]) == ("n1", "active", "live", "")
    assert node["processes"][0]["state"] == "ready"


def test_events_come_oldest_first_and_only_the_newer_ones() -> None:
    rig = cluster()
    events = ask(rig, "events").data["events"]
    numbers = [event["number"] for event in events]
    assert numbers == sorted(numbers) and numbers[0] == 1
    assert ask(rig, "events", since=numbers[-2]).data["events"] == events[-1:]
    assert ask(rig, "events", limit=1).data["events"] == events[-1:]


def test_whatever_was_told_fits_into_a_message() -> None:
    rig = cluster()
    for number in range(3000):
        rig.core.events.tell("kind", "s" * 5000, "ü" * 5000, "ann", f"{number}" * 5000)
    result = ask(rig, "events", limit=100_000)
    assert len(messages.encode(result)) <= MAP_MAX
    assert result.data["events"][-1]["number"] == rig.core.events.last


def test_a_follower_hears_everything_once() -> None:
    rig = cluster()
    ask(rig, "status")
    token = rig.core.operators.token(b"op")
    follow = messages.framed(wire.CONTROL, token, Follow(9, rig.core.events.last))
    rig.core.control(b"op", follow, rig.now)
    rig.core.events.tell("kind", "s", "one")
    rig.core.tick(rig.now)
    rig.core.tick(rig.now)
    rig.flush()
    happened = [each for each in rig.said[b"op"] if isinstance(each, Happened)]
    assert [[event["text"] for event in each.events] for each in happened] == [["one"]]


def test_whoever_followed_an_earlier_life_of_the_master_hears_all_of_this_one() -> None:
    rig = cluster()
    ask(rig, "status")
    follow = messages.framed(wire.CONTROL, rig.core.operators.token(b"op"), Follow(9, 5000))
    rig.core.control(b"op", follow, rig.now)
    rig.core.events.tell("kind", "s", "one")
    rig.core.tick(rig.now)
    rig.flush()
    happened = [each for each in rig.said[b"op"] if isinstance(each, Happened)]
    told = [event["number"] for each in happened for event in each.events]
    assert told == list(range(1, rig.core.events.last + 1))


def mistaken(*_: object) -> Any:
    return {}["what nobody has thought of"]


@pytest.mark.parametrize(
    ("verb", "args", "where"),
    [
        ("status", {}, ("rota.master.core.status", "nodes")),
        ("wait", {"condition": "paused", "names": ["orders"]}, ("rota.master.core.pauses", "Pauses.in_flight")),
        ("blacklist", {}, ("rota.master.core.status", "blacklist")),
        ("quarantine", {"action": "list"}, ("rota.master.core.quarantine", "Quarantine.all")),
    ],
)
def test_a_mistake_of_ours_in_what_only_looks_is_told_and_everybody_is_served_on(
    verb: str, args: dict[str, Any], where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = cluster()
    with monkeypatch.context() as patch:
        patch.setattr(".".join(where), mistaken)
        result = ask(rig, verb, **args)
    assert result.exit == exits.FAILED
    assert result.data["error"].startswith(f"internal error in {verb}: KeyError: 'what nobody has thought of', in mist")
    (event,) = [event for event in rig.core.events.since(0) if event["kind"] == "internal error"]
    assert "mistaken (test_verbs.py:" in event["text"]
    status = ask(rig, "status").data["master"]
    assert status["counters"]["internal errors"] == 1 and "please report it" in status["alarms"][0]
    rig.request(1)
    assert len(rig.deliveries) == 1


def test_a_mistake_of_ours_in_what_changes_something_ends_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = cluster()
    monkeypatch.setattr("rota.master.core.intents.Intents.say", mistaken)
    with pytest.raises(KeyError):
        rig.verb("drain", nodes=["n1"])


def test_a_failed_journal_refuses_changes_and_goes_on_dispatching() -> None:
    rig = cluster()
    rig.core.journal_failed("the disk is full")
    result = ask(rig, "drain", nodes=["n1"])
    assert result.exit == exits.FAILED and "disk is full" in result.data["error"]
    status = ask(rig, "status").data["master"]
    assert (status["alarms"], status["durable"]) == (["the disk is full"], False)
    rig.request(1)
    assert len(rig.deliveries) == 1


def test_who_waits_for_a_record_is_told_when_the_journal_fails() -> None:
    rig = cluster()
    rig.durable = False
    assert rig.verb("drain", nodes=["n1"]) is None
    rig.core.journal_failed("the disk is full")
    rig.flush()
    result = rig.result()
    assert result is not None and not result.ok and result.exit == exits.FAILED
    assert "would forget" in result.data["error"] and "disk is full" in result.data["error"]


def test_a_drain_that_is_refused_for_its_deadline_tells_of_none() -> None:
    rig = cluster(1)
    events = rig.core.events.last
    assert ask(rig, "drain", nodes=["n1"], force=True, deadline_s="soon").exit == exits.USAGE
    assert rig.core.events.last == events


# ---- hostile ---------------------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(["n1", "orders", "clear", "disable", "list", ["n1"], ["n1", "n1"], ["orders", "n1"]])
calls = st.sampled_from([*ARGUMENTS, "nonsense", "__init__", "_nodes"]).flatmap(
    lambda verb: st.tuples(
        st.just(verb),
        st.dictionaries(st.sampled_from([*ARGUMENTS.get(verb, ()), "nonsense"]), plain | known, max_size=4),
    )
)
conditions = st.sampled_from("active detached ready reloaded leader paused maintenance".split())


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(calls, conditions)
def test_no_verb_and_no_argument_breaks_the_master(call: tuple[str, dict[str, Any]], condition: str) -> None:
    rig, (verb, args) = cluster(1), call
    if verb == "wait":
        args["condition"] = condition
    rig.verb(verb, **args)
    rig.after(0.1)
    assert ask(rig, "status").ok


def test_waiting_for_a_node_that_nothing_is_wanted_of_ends_at_once() -> None:
    rig = Rig({"min_processes": 1, "max_processes": 1})
    rig.process(rig.agent("n1"))
    rig.agent("n2")
    rig.after(1.0)
    assert not rig.fleet.nodes["n2"].plan
    assert ask(rig, "wait", condition="active", names=["n2"]).exit == exits.DONE
