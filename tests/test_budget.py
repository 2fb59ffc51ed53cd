from __future__ import annotations

from core_rig import Rig

from rota.common import exits
from rota.common.lifecycle import Intent
from rota.common.messages import Started


def cluster(nodes: int = 2, **service: object) -> Rig:
    rig = Rig(service=service)
    for number in range(1, nodes + 1):
        node = rig.agent(f"n{number}", capacity=1)
        rig.process(node)
    return rig


def drain(rig: Rig, *names: str, **args: object) -> int:
    result = rig.verb("drain", nodes=list(names), **args)
    assert result is not None
    return result.exit


def test_the_last_active_node_is_not_drained_and_the_sentence_says_why() -> None:
    rig = cluster()
    assert drain(rig, "n1") == exits.DONE
    result = rig.verb("drain", nodes=["n2"])
    assert result is not None and result.exit == exits.REFUSED
    assert "0 active nodes" in result.data["error"] and "n1 is not active" in result.data["error"]
    assert result.data["error"].endswith(". Take another node back (`rota rejoin NODE`), or use --force"), "not: wait"
    assert rig.fleet.nodes["n2"].intent is Intent.ACTIVE


def test_draining_several_is_all_or_nothing() -> None:
    rig = cluster(3)
    result = rig.verb("drain", nodes=["n1", "n2", "n3"])
    assert result is not None and result.exit == exits.REFUSED
    assert result.data["error"].endswith(". Drain fewer at once, or use --force")
    assert {node.intent for node in rig.fleet.nodes.values()} == {Intent.ACTIVE}
    assert drain(rig, "n1", "n2") == exits.DONE


def test_force_overrides_it_and_is_recorded_with_who_and_why() -> None:
    rig = cluster(1)
    assert drain(rig, "n1", force=True, reason="fire") == exits.DONE
    (event,) = [each for each in rig.core.events.since(0) if each["kind"] == "forced"]
    assert (event["by"], event["reason"]) == ("ann", "fire") and "min_active" in event["text"]


def test_a_node_that_serves_nothing_may_always_go() -> None:
    rig = cluster(1)
    rig.agent("empty", offers=[])
    assert drain(rig, "empty") == exits.DONE


def test_a_node_that_is_not_active_may_go_though_too_few_are() -> None:
    rig = Rig(service={"min_active": 2})
    rig.process(rig.agent("n1", capacity=1))
    rig.agent("n2", capacity=1)
    assert drain(rig, "n2") == exits.DONE
    assert drain(rig, "n1") == exits.REFUSED


def test_a_node_that_still_ramps_does_not_count() -> None:
    rig = Rig(service={"ramp": 10.0})
    rig.process(rig.agent("n1", capacity=1))
    rig.after(20.0)
    rig.process(rig.agent("n2", capacity=1))
    result = rig.verb("drain", nodes=["n1"])
    assert result is not None and result.exit == exits.REFUSED
    assert result.data["error"].endswith(". Wait for the others (`rota wait active`), or use --force")
    rig.after(10.1)
    assert drain(rig, "n1") == exits.DONE


def test_a_node_that_is_draining_does_not_count() -> None:
    rig = cluster(2)
    rig.request(1)
    assert drain(rig, "n1") == exits.DONE
    assert drain(rig, "n2") == exits.REFUSED
    assert drain(rig, "n1") == exits.DONE, "twice is already so"


def test_min_active_counts_after_the_step() -> None:
    rig = cluster(3, min_active=2)
    assert drain(rig, "n1") == exits.DONE
    assert drain(rig, "n2") == exits.REFUSED


def test_min_active_of_zero_gives_the_promise_up() -> None:
    assert drain(cluster(1, min_active=0), "n1") == exits.DONE


def test_every_service_of_a_node_has_its_own_budget() -> None:
    rig = cluster(2)
    node = rig.fleet.nodes["n1"]
    rig.agent(
        "n1",
        capacity=2,
        offers=["orders", "mail"],
        processes=[*(Started(name, "orders", b"t", 1) for name in node.slots)],
    )
    rig.process(node, 2, service="mail")
    result = rig.verb("drain", nodes=["n1"])
    assert result is not None and result.exit == exits.REFUSED and "mail" in result.data["error"]
    assert "orders" not in result.data["error"].partition("mail")[0]


def test_a_dry_run_says_what_would_be_and_changes_nothing() -> None:
    rig = cluster(2)
    result = rig.verb("drain", nodes=["n1"], dry_run=True)
    assert result is not None and result.ok and result.data["dry_run"] is True
    assert result.data["nodes"][0]["changed"] is True
    assert rig.fleet.nodes["n1"].intent is Intent.ACTIVE
    assert drain(rig, "n1", "n2", dry_run=True) == exits.REFUSED


def test_scaling_does_not_go_below_min_active() -> None:
    rig = cluster(3, min_active=2)
    result = rig.verb("scale", service="orders", processes=1)
    assert result is not None and result.exit == exits.REFUSED
