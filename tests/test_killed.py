"""What a process takes with it that is killed: the request that it ran, and nothing that it had finished."""

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
