"""A pair of real masters under load: the active one is killed, stopped, replaced. `make failover` plays more of it.

Promises are of a machine that does nothing else; limits here are for one that runs other tests, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .ledger import Findings
from .site import Site, TimedLoad, site
from .takeovers import kill, kill_amid_a_drain, pause, switch

TAKEOVER_S = 10.0
SWITCHOVER_S = 3.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Whatever a test does to it, it is whole again afterwards."""
    with site(tmp_path_factory.mktemp("pair"), nodes=("node-1", "node-2")) as made:
        yield made


@pytest.fixture
def load(place: Site) -> Iterator[TimedLoad]:
    with place.load(lanes=4) as made:
        yield made


def checked(place: Site, load: TimedLoad) -> Findings:
    load.stop()
    findings = place.ledger.check(only=load.keys)
    assert findings.lost == [] and findings.twice == [] and findings.wrong == []
    assert place.lower_epochs() == [] and place.two_in_one_epoch() == []
    return findings


def test_a_killed_master_is_noticed_as_a_wait(place: Site, load: TimedLoad) -> None:
    assert kill(place, load) < TAKEOVER_S
    assert set(checked(place, load).faults) <= {"MaybeExecuted"}


def test_a_switchover_costs_a_moment_and_no_error(place: Site, load: TimedLoad) -> None:
    assert switch(place, load) < SWITCHOVER_S
    assert checked(place, load).failed == 0


def test_a_master_that_was_stopped_steps_down_before_it_dispatches_anything(place: Site, load: TimedLoad) -> None:
    gap, dispatched = pause(place, load, 2.0)
    assert gap < TAKEOVER_S and dispatched == []
    assert set(checked(place, load).faults) <= {"MaybeExecuted"}


def test_a_drain_goes_on_when_its_master_is_killed(place: Site, load: TimedLoad) -> None:
    gap, misses = kill_amid_a_drain(place, load, 2.0)
    assert gap < TAKEOVER_S and misses == []
    assert set(checked(place, load).faults) <= {"MaybeExecuted"}
