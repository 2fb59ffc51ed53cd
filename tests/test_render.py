"""Replies as text for people, what counts as degraded, and what a load measures."""

import time
from typing import Any

import pytest

from rota.cli.call import plain, read_values
from rota.cli.check import problems
from rota.cli.load import due_times, summary
from rota.cli.look import clock_of
from rota.cli.render import Cell, Paint, duration, event, node_state, nodes_begun, number, plural, status, table
from rota.cli.tally import Tally
from rota.cli.verb import Mistake
from rota.common.errors import Overloaded

PLAIN, COLOURED = Paint(False), Paint(True)


def node(name: str = "web-1", **changes: Any) -> dict[str, Any]:
    process = {"incarnation": "a", "service": "orders", "state": "ready", "pid": 7, "version": "1", "in_flight": 0}
    return {
        "name": name,
        "intent": "active",
        "liveness": "live",
        "health": "up",
        "ramp": 1.0,
        "since_s": 75.0,
        "why": "",
        "in_flight": 2,
        "versions": ["1"],
        "processes": [process, {**process, "state": "booting"}],
        "failing": [],
        **changes,
    }


def service(**changes: Any) -> dict[str, Any]:
    return {
        "name": "orders",
        "target": 4,
        "min": 4,
        "max": 4,
        "ready": 4,
        "in_flight": 2,
        "queued": 0,
        "active_nodes": 2,
        "min_active": 1,
        "p95_ms": 1.25,
        "versions": {"2": 1, "1": 3},
        "reloading": 0,
        **changes,
    }


def reply(**changes: Any) -> dict[str, Any]:
    master = {"name": "m1", "state": "active", "epoch": 3, "uptime_s": 3700.0, "durable": True, "alarms": []}
    return {
        "schema": 1,
        "master": {**master, **changes.pop("master", {})},
        "services": changes.pop("services", [service()]),
        "nodes": changes.pop("nodes", [node()]),
    }


def text(answer: dict[str, Any], width: int = 80) -> str:
    return "\n".join(status(answer, PLAIN, width))


def test_columns_are_aligned_and_numbers_stand_at_their_right_edge() -> None:
    lines = table([Cell("NAME"), number("COUNT"), Cell("X")], [[Cell("a"), number(7), Cell("y")]], PLAIN, 80)
    assert lines == ["NAME  COUNT  X", "a         7  y"]


def test_a_last_column_that_is_too_long_is_wrapped_under_itself() -> None:
    lines = table([Cell("A"), Cell("B")], [[Cell("a"), Cell("some words that do not fit")]], PLAIN, 20)
    assert lines == ["A  B", "a  some words that", "   do not fit"]


def test_colours_do_not_move_columns() -> None:
    rows = [[Cell("dead", "red"), number(1, "red"), Cell("x")]]
    coloured = "\n".join(table([Cell("S"), number("N"), Cell("X")], rows, COLOURED, 80))
    assert "\x1b[31mdead\x1b[0m" in coloured
    for code in ("\x1b[31m", "\x1b[2m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == "\n".join(table([Cell("S"), number("N"), Cell("X")], rows, PLAIN, 80))


def test_status_fits_eighty_columns_and_says_why_a_node_gets_no_traffic() -> None:
    drained = node("web-2", intent="draining", why="draining by alice: " + "a long reason " * 9, in_flight=1)
    shown = text(reply(nodes=[node(), drained]))
    assert max(map(len, shown.split("\n"))) <= 80
    assert "web-2: draining by alice" in shown
    assert "orders 1/2" in shown and "1 × 3, 2 × 1" in shown and "1m 15s" in shown


def test_a_command_in_a_reason_is_not_broken_within_a_word() -> None:
    for length in range(40, 80):
        shown = text(reply(nodes=[node("web-2", why=f"{'x' * length} `rota rejoin web-east`")]))
        assert "web-east`" in shown


def test_status_shows_the_traceback_of_what_does_not_start() -> None:
    failing = {"service": "orders", "failures": 3, "retry_in_ms": 4000, "text": "Traceback:\n  File x\nValueError: no"}
    shown = text(reply(nodes=[node(failing=[failing])]))
    assert "web-1: orders failed 3 times in a row, next try in 4s:" in shown
    assert "      File x\n    ValueError: no" in shown


def test_why_a_node_serves_nothing_is_said_once() -> None:
    failing = {"service": "orders", "failures": 3, "retry_in_ms": 4000, "text": "ValueError: no"}
    why = "orders failed 3 times in a row, next try in 4 s: ValueError: no"
    shown = text(reply(nodes=[node(why=why, failing=[failing])]))
    assert shown.count("in a row") == 1 and shown.count("ValueError: no") == 1


def test_a_word_of_a_narrow_column_stays_whole() -> None:
    lines = table([Cell("A" * 20), Cell("B")], [[Cell("a"), Cell("1 payload in quarantine")]], PLAIN, 30)
    assert lines[-1].split() == ["quarantine"]


def test_status_without_nodes_says_how_to_start_one() -> None:
    assert "rota slave APP" in text(reply(nodes=[], services=[]))


def test_a_master_whose_journal_failed_is_not_told_to_be_without_a_state_directory() -> None:
    assert text(reply(master={"durable": False})).split("\n")[0].endswith("  no state directory")
    failed = reply(master={"durable": False, "alarms": ["the journal cannot be written: disk full"]})
    assert text(failed).split("\n")[0].endswith("  not durable")


def test_alarms_and_maintenance_are_wrapped_as_the_reasons_of_nodes_are() -> None:
    sentence = "a sentence of nine words that is too long"
    closed = {"by": "alice", "reason": sentence, "retry_after": 60, "stopped": False}
    lines = status(reply(nodes=[], master={"alarms": [sentence], "maintenance": {"shop": closed}}), PLAIN, 50)
    assert "alarm: a sentence of nine words that is too long" in lines
    lines = status(reply(nodes=[], master={"alarms": [sentence], "maintenance": {"shop": closed}}), COLOURED, 45)
    assert "\x1b[31malarm: a sentence of nine words that is too\x1b[0m" in lines and "\x1b[31m    long\x1b[0m" in lines
    assert "\x1b[33mmaintenance: shop is closed by alice: a\x1b[0m" in lines


def test_what_came_over_the_wire_cannot_move_the_cursor() -> None:
    failing = {"service": "orders", "failures": 1, "retry_in_ms": 0, "text": "\x1b[2Jgone"}
    hostile = reply(nodes=[node(versions=["\x1b[H"], why="a\x07", failing=[failing])], master={"alarms": ["\x1b[H"]})
    assert "\x1b" not in text(hostile) and "\x07" not in text(hostile)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "active"),
        ({"ramp": 0.4}, "ramp 40%"),
        ({"health": "unchecked"}, "starting"),
        ({"health": "unchecked", "capacity": 0}, "witness"),
        ({"health": "blacklisted"}, "blacklisted"),
        ({"intent": "draining"}, "draining"),
        ({"liveness": "dead"}, "dead"),
        ({"liveness": "dead", "intent": "detached"}, "detached, dead"),
    ],
)
def test_a_node_s_state_says_first_what_keeps_traffic_away(changes: dict[str, Any], state: str) -> None:
    assert node_state(node(**changes))[0] == state


GONE: dict[str, Any] = {
    "liveness": "closed",
    "health": "blacklisted",
    "failing": [{"service": "orders", "text": "x", "cause": "KeyError: 1"}],
}


def test_what_an_operator_asked_for_is_not_degraded() -> None:
    nodes = [node(), node("web-2", intent="detached", processes=[]), node("web-3", **GONE)]
    assert problems(reply(nodes=nodes)) == []
    assert problems(reply(services=[service(target=3, ready=3)])) == []  # `rota scale`, without min_processes
    closed = service(target=0, ready=0, active_nodes=0)
    assert problems(reply(services=[closed], master={"maintenance": {"orders": {"stopped": True}}})) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"services": [service(ready=0, queued=5)]}, "orders has no ready process; 5 requests in its queue"),
        ({"services": [service(ready=3)]}, "orders has 3 ready processes, but should have at least 4"),
        ({"services": [service(active_nodes=0)]}, "served by 0 nodes, fewer than min_active 1"),
        ({"services": [service(quarantined=2)]}, "orders has 2 payloads in quarantine that processes died of: `rota"),
        ({"nodes": [node(liveness="dead", why="silent")]}, "web-1 is dead: silent"),
        ({"nodes": [node(liveness="dead", why="dead: silent for 5 s")]}, "web-1 is dead: silent for 5 s"),
        ({"nodes": [node(health="blacklisted", why="until noon")]}, "web-1 is blacklisted: until noon"),
        (
            {"nodes": [node(failing=[{"service": "orders", "text": "x", "cause": "KeyError: 1"}])]},
            "on web-1: KeyError: 1",
        ),
        ({"master": {"alarms": ["the disk is full"]}}, "master m1: the disk is full"),
        ({"nodes": [], "services": []}, "no slave node has come yet"),
    ],
)
def test_each_thing_that_is_wrong_is_said(changes: dict[str, Any], sentence: str) -> None:
    found = problems(reply(**changes))
    assert len(found) == 1 and sentence in found[0]


def test_a_verb_on_nodes_says_what_changed_and_what_was_so_already() -> None:
    drained = {"node": "a", "intent": "draining", "in_flight": 1, "generation": 2, "changed": True}
    already = {**drained, "node": "b", "intent": "detached", "in_flight": 0, "changed": False}
    lines = nodes_begun("drain", {"nodes": [drained, already]})
    assert lines == ["a: draining, 1 request in flight", "b: detached already"]
    joined = {**drained, "intent": "active"}
    lines = nodes_begun("rejoin", {"nodes": [joined, {**joined, "node": "b", "changed": False}]})
    assert lines == ["a: rejoining", "b: is not drained"]
    assert nodes_begun("recheck", {"nodes": [joined]}) == ["a: asked again"]
    gone = {**joined, "liveness": "closed"}
    assert nodes_begun("rejoin", {"nodes": [gone]}) == ["a: rejoining; its agent said goodbye: start it again"]
    assert nodes_begun("recheck", {"nodes": [gone]}) == ["a: asked again; its agent said goodbye: start it again"]


def test_an_event_is_one_line_with_who_and_why() -> None:
    one = {"number": 1, "at": 0.0, "kind": "drain", "text": "web-1: drain", "by": "alice", "reason": "kernel"}
    assert event(one, PLAIN, "12:00:00") == "12:00:00  drain            web-1: drain (by alice: kernel)"


def test_an_event_of_another_day_has_its_date() -> None:
    noon = time.mktime((2026, 11, 23, 12, 0, 0, 0, 0, -1))
    assert clock_of(noon - 60, noon) == "11:59:00"
    assert clock_of(noon - 86_400, noon) == "2026-11-22 12:00:00"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.85, "850ms"), (12.4, "12s"), (200, "3m 20s"), (3600, "1h"), (7500, "2h 5m"), (349_200, "4d 1h"), (0, "0ms")],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_plurals() -> None:
    assert [plural(1, "process"), plural(2, "process"), plural(1200, "node")] == [
        "1 process",
        "2 processes",
        "1,200 nodes",
    ]


# ---- call and load --------------------------------------------------------------------------------------------------


def test_a_value_is_json_if_it_parses_and_text_if_not() -> None:
    assert read_values(("a=1", "b=x y", "c=[1, null]", "d:=true", "e=", "f=a=b", 'g:="7"')) == {
        "a": 1,
        "b": "x y",
        "c": [1, None],
        "d": True,
        "e": "",
        "f": "a=b",
        "g": "7",
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("X",), "have names"), (("=1",), "have names"), (("a:=x",), "not JSON"), (("a=1", "a=2"), "given twice")],
)
def test_what_is_no_argument_is_told_with_its_text(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(Mistake, match=sentence):
        read_values(words)


def test_a_value_that_is_nested_too_deeply_for_json_is_text_too() -> None:
    deep = "[" * 100_000
    assert read_values([f"a={deep}"]) == {"a": deep}
    with pytest.raises(Mistake, match="is not JSON"):
        read_values([f"a:={deep}"])


def test_results_that_json_has_no_word_for_become_text() -> None:
    from datetime import date
    from decimal import Decimal

    value = {1: (date(2026, 1, 2), Decimal("1.50")), "b": b"\xff", "s": {3, 1}}
    assert plain(value) == {"1": ["2026-01-02", "1.50"], "b": "/w==", "s": [1, 3]}
    assert plain([float("nan"), float("-inf"), 0.5]) == ["nan", "-inf", 0.5]


def test_requests_at_a_rate_are_due_at_even_intervals_and_others_at_once() -> None:
    assert list(due_times(4, 3)) == [0, 0.25, 0.5]
    assert list(due_times(None, 2)) == [0, 0]


def test_a_tally_counts_answers_and_failures_by_class() -> None:
    tally = Tally()
    for _ in range(4):
        tally.asked(0.0)
    for _ in range(2):
        tally.told(0.1, 0.0, None)
    tally.told(0.2, 0.0, ValueError("the first"))
    assert (tally.answered, tally.failed, tally.outstanding) == (2, 1, 1)
    report = tally.report(0.0, 2.0)
    assert report["failures"] == {"ValueError": 1} and report["first_causes"] == {"ValueError": "the first"}
    assert report["rate"] == 1.0
    assert report["sent"] == report["answered"] + report["failed"] + report["unanswered"] and report["unanswered"] == 1
    lines = summary(report)
    assert any("ValueError: 1, the first: the first" in line for line in lines)
    assert "unanswered     1, not waited for" in lines


def test_percentiles_are_exact_to_three_digits_and_the_maximum_is_exact() -> None:
    tally = Tally()
    for millis in range(1, 101):
        tally.asked(0.0)
        tally.told(millis / 1000, 0.0, None)
    assert tally.percentiles_ms((50, 99, 100)) == [50.0, 99.0, 100.0]
    tally.asked(0.0)
    tally.told(1.23456, 0.0, None)
    assert tally.percentiles_ms((100,)) == [1230.0] and tally.report(0.0, 1.0)["max_ms"] == 1234.56


def test_memory_of_a_tally_does_not_grow_with_the_requests() -> None:
    tally = Tally()
    for tens in range(50_000):
        tally.asked(0.0)
        tally.told(tens * 1e-5, 0.0, None)
    assert len(tally._micros) < 4000


def test_a_stall_is_time_without_answers_while_one_was_waited_for() -> None:
    tally = Tally()
    tally.asked(0.0)
    tally.told(0.5, 0.0, None)
    tally.asked(10.0)  # idle in between: nobody waited
    tally.told(10.2, 10.0, None)
    assert tally.longest_stall_s == 0.5


def test_a_failure_ends_no_stall() -> None:
    tally = Tally()
    tally.asked(0.0)
    tally.told(0.1, 0.0, None)
    for second in range(1, 6):  # at a rate: the next is asked when the last has failed
        tally.asked(second)
        tally.told(second + 0.1, second, Overloaded("no room"))
    assert tally.longest_stall_s == pytest.approx(4.1)
    tally.asked(6.0)
    tally.told(6.5, 6.0, None)
    tally.asked(10.0)
    tally.told(10.2, 10.0, None)
    assert tally.longest_stall_s == 5.5


def test_what_is_not_answered_at_the_end_was_waited_for() -> None:
    tally = Tally()
    tally.asked(1.0)
    assert tally.report(0.0, 4.0)["longest_stall_ms"] == 3000


def test_where_nothing_was_answered_no_latency_is_said() -> None:
    tally = Tally()
    tally.asked(0.0)
    tally.told(0.1, 0.0, ValueError("no"))
    lines = summary(tally.report(0.0, 1.0))
    assert not any("latency" in line for line in lines) and any("ValueError: 1" in line for line in lines)


def test_a_tally_of_nothing_has_zeros() -> None:
    assert Tally().report(0.0, 0.0)["p99_ms"] == 0


PEER = {
    "name": "b", "address": "tcp://b:7700", "role": "backup", "liveness": "live",
    "lag": 0, "heard_ms": 40, "promise_ms": 960,
}  # fmt: skip
QUORUM = {"electorate": ["web-1", "web-2"], "leases": 2, "needed": 1, "may_dispatch": True}


def paired(peer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return reply(master={"role": "primary", "peer": {**PEER, **(peer or {})}, "quorum": QUORUM, **changes})


def stands_by(peer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    quorum = {"electorate": ["web-1", "web-2"], "voters": ["web-1"], "granted": [], "may_dispatch": False}
    own = {"role": "backup", "state": "standby", "quorum": quorum, **changes}
    peer = {**PEER, "name": "a", "address": "tcp://a:7700", **(peer or {})}
    return reply(master={**own, "peer": peer}, services=[], nodes=[])


def test_an_active_master_shows_its_standby_and_its_votes() -> None:
    lines = status(paired(), PLAIN, 80)
    assert lines[:3] == [
        "master m1  active  primary  epoch 3  up 1h 1m  durable",
        "standby b  tcp://b:7700  live  lag 0  heard 40ms ago  promise 960ms",
        "votes of web-1, web-2: 2 leases, 1 needed without a promise",
    ]
    assert all(len(line) <= 80 for line in lines)


def test_where_an_engine_decides_every_standby_is_shown_and_who_has_the_lease() -> None:
    lease = {"engine": "etcd", "holder": "m1", "epoch": 3, "left_ms": 700, "error": ""}
    peers = [{**PEER, "promise_ms": None}, {**PEER, "name": "c", "address": "tcp://c:7700", "promise_ms": None}]
    assert status(paired(peers[0], peers=peers, lease=lease), PLAIN, 80)[:4] == [
        "master m1  active  primary  epoch 3  up 1h 1m  durable",
        "standby b  tcp://b:7700  live  lag 0  heard 40ms ago",
        "standby c  tcp://c:7700  live  lag 0  heard 40ms ago",
        "lease in etcd: m1 has it, epoch 3, 700ms left",
    ]
    held = {**QUORUM, "may_dispatch": False}
    lost = status(paired(peers[0], peers=peers, lease={**lease, "left_ms": 0}, quorum=held), PLAIN, 80)
    assert lost[3].endswith("left; nothing is dispatched")
    following = stands_by({"promise_ms": None}, lease={**lease, "holder": "a"})
    assert status(following, PLAIN, 80)[1:] == [
        "follows a  tcp://a:7700  live  lag 0  heard 40ms ago",
        "lease in etcd: a has it, epoch 3",
    ]


def test_a_standby_that_is_gone_and_a_lost_quorum_are_seen() -> None:
    gone = paired({"liveness": "dead", "lag": None, "promise_ms": 0}, quorum={**QUORUM, "may_dispatch": False})
    lines = status(gone, PLAIN, 80)
    assert (
        "dead  not in sync  heard 40ms ago  no promise" in lines[1]
        and "needed without a promise; nothing is" in lines[2]
    )


def test_a_standby_shows_whom_it_follows_and_no_nodes() -> None:
    assert status(stands_by(), PLAIN, 80) == [
        "master m1  standby  backup  epoch 3  up 1h 1m  durable",
        "follows a  tcp://a:7700  live  lag 0  heard 40ms ago  promise 960ms",
        "votes of web-1, web-2: 1 of 2 are connected",
    ]


def test_a_standby_that_follows_is_well_and_one_that_does_not_is_degraded() -> None:
    assert problems(stands_by()) == []
    assert problems(stands_by({"liveness": "dead"})) == ["master m1 stands by, and a is dead"]
    assert problems(stands_by(state="candidate")) == ["master m1 is candidate: no master is active"]
