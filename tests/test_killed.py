"""What a process takes with it that is killed, or keeps back while it hangs: the request that it runs, and nothing that
it has finished.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import rota
from rota.testing import LocalCluster

WAIT_S = 20.0


@pytest.mark.parametrize("app", ["node_app:app", "node_app_async:app"])
def test_a_process_that_is_killed_loses_no_answer_that_it_had_made(app: str) -> None:
    """Its transport sends what it is given a moment later, and by then there is no transport."""
    settings = {"service.orders.credit": 64}  # all at once: they are one bundle
    with LocalCluster(app, app_dir=Path(__file__).parent, settings=settings) as cluster:
        client = cluster.client()
        for kill in range(3):
            client.call("orders.echo", text="here")
            texts = [f"{number} before {kill}" for number in range(30)]
            made = [client.submit("orders.echo", text=text) for text in texts]
            killed = client.submit("orders.die", number=kill)
            assert [each.result(WAIT_S) for each in made] == texts
            with pytest.raises(rota.MaybeExecuted, match="while it ran"):
                killed.result(WAIT_S)


def test_a_process_that_is_killed_takes_nothing_with_it_that_its_loop_had_not_come_to() -> None:
    """So it is known which request it was, too."""
    settings = {"service.orders.credit": 64}
    with LocalCluster("node_app_async:app", app_dir=Path(__file__).parent, settings=settings) as cluster:
        client = cluster.client()
        for error, why in (
            (rota.MaybeExecuted, "while it ran"),
            (rota.MaybeExecuted, "2 processes died of it"),
            (rota.Quarantined, "2 processes died of it"),
        ):
            client.call("orders.echo", text="here")
            computes = client.submit("orders.work", seconds=0.3)  # meanwhile the others come: they are read together
            kills = client.submit("orders.die", number=7)
            texts = [f"{number} behind it" for number in range(30)]
            made = [client.submit("orders.echo", text=text) for text in texts]
            beside = client.submit("orders.pid")  # in a thread, which has nothing to do
            assert [each.result(WAIT_S) for each in made] == texts
            assert beside.result(WAIT_S)
            assert computes.result(WAIT_S) is None
            with pytest.raises(error, match=why):
                kills.result(WAIT_S)


def test_what_a_process_has_finished_does_not_wait_for_a_handler_that_hangs(tmp_path: Path) -> None:
    """It may hold replies back for those behind them. There is no other process that could take anything over."""
    settings = {"service.orders.credit": 64}
    with LocalCluster("node_app:app", app_dir=Path(__file__).parent, settings=settings) as cluster:
        client = cluster.client()
        for _ in range(3):
            list(client.map("orders.echo", [{"text": "quick"}] * 100))
        for round in range(5):
            texts = [f"{number} of {round}" for number in range(10)]
            made = [client.submit("orders.echo", text=text) for text in texts]
            hangs = client.submit("orders.hold", path=str(tmp_path / f"go{round}"))
            behind = client.submit("orders.echo", text="behind")
            assert [each.result(WAIT_S) for each in made] == texts
            assert not hangs.done() and not behind.done()
            (tmp_path / f"go{round}").touch()
            assert (hangs.result(WAIT_S), behind.result(WAIT_S)) == ("released", "behind")
            list(client.map("orders.echo", [{"text": "quick"}] * 100))


def test_what_a_loop_that_hangs_had_read_and_not_begun_is_begun_elsewhere(tmp_path: Path) -> None:
    settings = {"service.orders.credit": 64}
    with LocalCluster("node_app_async:app", app_dir=Path(__file__).parent, processes=2, settings=settings) as cluster:
        client = cluster.client()
        for round in range(2):
            hangs = client.submit("orders.hold", path=str(tmp_path / f"go{round}"))
            texts = [f"{number} of {round}" for number in range(20)]
            made = [client.submit("orders.echo", text=text) for text in texts]
            assert [each.result(WAIT_S) for each in made] == texts
            assert not hangs.done()
            (tmp_path / f"go{round}").touch()
            assert hangs.result(WAIT_S) == "released"
