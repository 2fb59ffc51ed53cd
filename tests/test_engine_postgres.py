"""PostgreSQL as the engine, where no server is needed: what is said of one that is too far away."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rota.master.postgres import Postgres
from rota.master.store import EngineError


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_database_that_is_too_far_away_is_said_to_be_late_with_the_time_and_the_setting(
    silent: socket.socket,
) -> None:
    store = Postgres(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/rota")
    with pytest.raises(EngineError) as caught:
        store.read(0.05)
    assert str(caught.value) == (
        "PostgreSQL at 127.0.0.1: no connection within 50ms, a third of standby.takeover_after: raise that, at all "
        "masters, if the engine is so far away"
    )
