"""Fixtures that several files share. Those of one file stand in it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import agent_rig
import gateway_rig
import node_rig
import pytest
from fake_frontend import FakeFrontend
from fake_master import FakeMaster
from hypothesis import settings

from rota.worker.page import Page

settings.register_profile("shared cores", deadline=None)  # an example may have to wait for its core
settings.load_profile("shared cores")

# As in a script's `make test &`: whatever is started would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Begun before the other files of this folder: else the last worker has one of them, and the others nothing any more.
LONG = ("test_examples_web", "test_simulation", "test_spoken", "test_standby_examples", "test_tls", "test_voters")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent == Path(__file__).parent and item.path.stem not in LONG)


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    made = FakeMaster()
    yield made
    made.close()


@pytest.fixture
def start_agent(master: FakeMaster, tmp_path: Path) -> Iterator[agent_rig.Start]:
    with agent_rig.agents_of(master, tmp_path) as start:
        yield start


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page.create(rows=4)
    yield made
    made.close()


@pytest.fixture
def node() -> node_rig.Node:
    return node_rig.joined()


@pytest.fixture
def paired() -> node_rig.Node:
    return node_rig.leasing()


@pytest.fixture
def fake() -> Iterator[FakeFrontend]:
    with FakeFrontend() as made:
        yield made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[gateway_rig.Start]:
    """Of gateways."""
    with gateway_rig.starting(tmp_path) as starter:
        yield starter
