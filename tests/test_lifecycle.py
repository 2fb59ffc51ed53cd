from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from rota.common import lifecycle
from rota.common.lifecycle import HEALTH, INTENT, LIVENESS, Health, IllegalTransition, Intent, Liveness, edge, step

TABLES: list[tuple[type[StrEnum], Mapping[Any, Mapping[str, Any]]]] = [
    (Intent, INTENT),
    (Liveness, LIVENESS),
    (Health, HEALTH),
]


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_every_state_has_a_row_and_can_be_reached_and_left(states: Any, table: Any) -> None:
    assert set(table) == set(states)
    first = next(iter(states))
    reached, fresh = {first}, [first]
    while fresh:
        for after in table[fresh.pop()].values():
            if after not in reached:
                reached.add(after)
                fresh.append(after)
    assert reached == set(states)
    assert all(set(row.values()) - {state} for state, row in table.items()), "no state is a trap"


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_a_pair_that_is_not_in_the_table_raises_and_names_both(states: Any, table: Any) -> None:
    events = {event for row in table.values() for event in row} | {"nonsense"}
    for state in states:
        for event in events - set(table[state]):
            with pytest.raises(IllegalTransition, match=f"{state.value}.*{event}"):
                step(table, state, event)


def test_missed_beats_mean_nothing_after_a_goodbye() -> None:
    for event in ("late", "silent", "beat"):
        with pytest.raises(IllegalTransition):
            step(LIVENESS, Liveness.CLOSED, event)


def test_detached_is_left_only_by_a_rejoin() -> None:
    assert [event for event, after in INTENT[Intent.DETACHED].items() if after is not Intent.DETACHED] == ["rejoin"]


def test_live_dead_and_close_are_published_on_the_edges_only() -> None:
    told = {(a, b): edge(a, b) for a in Liveness for b in Liveness if edge(a, b)}
    assert {name for name in told.values()} == {"LIVE", "DEAD", "CLOSE"}
    assert (Liveness.LIVE, Liveness.SUSPECT) not in told and (Liveness.SUSPECT, Liveness.LIVE) not in told
    assert (Liveness.UNKNOWN, Liveness.DEAD) not in told, "DEAD only if it was live"
    assert {pair for pair, name in told.items() if name == "DEAD"} == {
        (Liveness.LIVE, Liveness.DEAD),
        (Liveness.SUSPECT, Liveness.DEAD),
    }


def test_only_an_active_live_and_healthy_node_is_eligible() -> None:
    eligible = {(i, a, h) for i in Intent for a in Liveness for h in Health if lifecycle.eligible(i, a, h)}
    assert eligible == {(Intent.ACTIVE, Liveness.LIVE, health) for health in (Health.UP, Health.DEGRADED, Health.TRIAL)}


def test_a_node_that_was_never_checked_is_not_up() -> None:
    assert not lifecycle.eligible(Intent.ACTIVE, Liveness.LIVE, Health.UNCHECKED)
    assert step(HEALTH, Health.UP, "restart") is Health.UNCHECKED
