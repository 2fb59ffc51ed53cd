"""Who may import whom (docs/ARCHITECTURE.md), read from the sources: what decides stays free of sockets and clocks."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
ALL = {"common", "client", "gateway", "master", "worker", "cli", "testing"}
MAY_IMPORT = {
    "common": set[str](),
    "client": {"common"},
    "gateway": {"common", "client"},
    "master": {"common"},
    "worker": {"common"},
    "cli": ALL,
    "testing": ALL,
}
CORES = ("client.ages.", "client.calls.", "client.search.", "client.streams.", "common.streams.")  # beside such folders
IMPURE = set(
    "zmq socket selectors asyncio threading time random os signal subprocess logging pathlib"
    " multiprocessing concurrent secrets uuid select ssl http urllib".split()  # the same by other names
)
SHELLS_OF_COMMON = {"common.link", "common.sockets"}


class Import(NamedTuple):
    """One imported name, its dots resolved: `master.core.pool.Pool`, or `os.path` with `ours` false."""

    name: str
    line: int
    ours: bool
    relative: bool
    types_only: bool  # under `if TYPE_CHECKING:`; never happens


def modules() -> Iterator[tuple[str, str]]:
    """(dotted name below rota, source) of everything that is shipped, apart from the face."""
    for part in sorted(MAY_IMPORT):
        for path in sorted((ROOT / part).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text(encoding="utf-8")


def imports(module: str, source: str) -> Iterator[Import]:
    """Every import in the source, whether at the top, in a function, or for the type checker only."""
    nodes = list(ast.walk(ast.parse(source)))
    guards = [node for node in nodes if isinstance(node, ast.If) and isinstance(node.test, ast.Name | ast.Attribute)]
    guarded = [node for node in guards if "TYPE_CHECKING" in ast.unparse(node.test)]
    types_only = {inner for node in guarded for statement in node.body for inner in ast.walk(statement)}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _absolute(alias.name, node.lineno, node in types_only)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            for alias in node.names:
                name = ".".join([*base, *filter(None, [node.module]), alias.name])
                if node.level:
                    yield Import(name, node.lineno, True, True, node in types_only)
                else:
                    yield _absolute(name, node.lineno, node in types_only)


def _absolute(name: str, line: int, types_only: bool) -> Import:
    first, _, rest = name.partition(".")
    return Import(rest if first == "rota" else name, line, first == "rota", False, types_only)


def is_core(module: str) -> bool:
    return ".core." in module or f"{module}.".startswith(CORES)


def violations(module: str, source: str) -> list[str]:
    """One line for each import in it that the architecture forbids."""
    return [
        f"{module}:{found.line}: {reason} ({found.name})"
        for found in imports(module, source)
        if (reason := _forbidden(module, found))
    ]


def _forbidden(module: str, found: Import) -> str | None:
    part, other = module.split(".")[0], found.name.split(".")[0]
    if not found.ours:
        return "a core imports what acts, waits or guesses" if is_core(module) and other in IMPURE else None
    if not found.relative:
        return "imports inside the package are relative"
    if other in ALL and other != part and other not in MAY_IMPORT[part]:
        return f"{part} must not import {other}"
    acts = is_core(module) and _is_shell(part, found.name) and not found.types_only  # it may name what it is given
    return "a core imports a shell" if acts else None


def _is_shell(part: str, name: str) -> bool:
    if name.startswith("common."):
        return any(f"{name}.".startswith(f"{shell}.") for shell in SHELLS_OF_COMMON)
    return name.startswith(f"{part}.") and not is_core(f"{name}.")


def test_nobody_imports_what_the_architecture_forbids() -> None:
    found = [line for module, source in modules() for line in violations(module, source)]
    assert not found, "\n".join(found)


def test_the_modules_are_seen_at_all() -> None:
    seen = {module for module, _ in modules()}
    assert {"common.wire", "common.lifecycle", "client.calls", "cli.main"} <= seen
    parts = {module.split(".")[0] for module in seen if is_core(module)}
    assert parts == {"master", "worker", "client", "gateway", "common"}


PLANTED = {
    "a clock in a core": ("master.core.pool", "import time"),
    "a clock by its parts": ("master.core.pool", "from time import monotonic"),
    "a socket in a function of a core": ("worker.core.supervision", "def f():\n    import zmq.asyncio"),
    "paths in the client's core": ("client.calls", "from pathlib import Path"),
    "a thread for the type checker": ("client.calls", "if TYPE_CHECKING:\n    from threading import Lock"),
    "a core that knows its shell": ("master.core.pool", "from ..server import Server"),
    "a core that knows its shell by name": ("master.core.pool", "from .. import journal"),
    "a core that opens links": ("worker.core.supervision", "from ...common.link import Link"),
    "a core that opens sockets": ("worker.core.supervision", "from ...common import sockets"),
    "a loop in the gateway's core": ("gateway.core.connection", "import asyncio"),
    "the client's core with its shell": ("client.calls", "from .client import Client"),
    "master knows worker": ("master.server", "from ..worker import page"),
    "worker knows master": ("worker.agent", "from ..master.core.pool import Pool"),
    "a core of one knows the other": ("worker.core.deliveries", "from ...master.core import pool"),
    "client knows worker": ("client.admin", "def f():\n    from ..worker.app import Worker"),
    "common knows anybody": ("common.wire", "from ..client import calls"),
    "gateway knows master": ("gateway.http", "from .. import master"),
    "its own package by its absolute name": ("master.server", "from rota.master.core import pool"),
    "the face by its absolute name": ("cli.main", "import rota"),
}


@pytest.mark.parametrize("module, source", PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


ALLOWED = {
    "a core and common": ("master.core.pool", "from ...common.limits import CREDIT_MAX\nfrom ...common import wire"),
    "a core and its neighbours": ("master.core.pool", "from . import budget\nfrom .timers import Timers"),
    "a core and the type of what it is given": (
        "worker.core.deliveries",
        "if TYPE_CHECKING:\n    from ..page import Page",
    ),
    "a core and plain Python": ("master.core.pool", "from collections import deque\nimport heapq"),
    "a shell and the world": ("master.server", "import os, time, zmq\nfrom .core.pool import Pool"),
    "gateway and client": ("gateway.http", "from ..client.aio import AsyncClient"),
    "cli and all": ("cli.run", "from ..master import server\nfrom ..worker import agent"),
    "testing and all": ("testing.cluster", "from ..master import server\nfrom ..worker import agent"),
}


@pytest.mark.parametrize("module, source", ALLOWED.values(), ids=ALLOWED)
def test_what_the_architecture_allows_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []
