"""Fixtures that several files share. Those of one file stand in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import agent_rig
import gateway_rig
import node_rig
import pytest
from fake_master import FakeMaster


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
def node() -> node_rig.Node:
    return node_rig.joined()


@pytest.fixture
def paired() -> node_rig.Node:
    return node_rig.leasing()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[gateway_rig.Start]:
    """Of gateways."""
    with gateway_rig.starting(tmp_path) as starter:
        yield starter
