"""`LIFECYCLE.md`: the four axes of a node, drawn from the tables of `common/lifecycle.py`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Any

from rota.common.lifecycle import EDGES, HEALTH, INTENT, LIVENESS, Health, Intent, Liveness, edge, eligible

Table = Mapping[Any, Mapping[str, Any]]

_HEAD = """\
# The life of a node

<!-- Generated from common/lifecycle.py by docs/generate.py; change it there. -->

A node is in four states at once, one on each axis. There is no single state "up" that would mix what an operator
wants with what the master sees.

Each axis is a table. An event that a state does not know (–) raises and changes nothing: it is a fault of rota, not of
a peer. For each node `rota status` shows since when it has been in its state, who put it there and why, and, where a
state ends by itself, until when.
"""

_INTENT = """\
What operators want. An intent is journaled before it is acknowledged, and the agents keep a copy, so that a drained
node stays drained when master, agent or machine starts again.

A node leaves *draining* when the count that the master keeps is zero (`empty`), at the drain deadline (`deadline`), or
when the node dies (`dead`). Until then an operator may change their mind.
"""

_LIVENESS = """\
What the master observes. An agent beats every 200 ms, for all its processes. It runs no user code, so a spinning
handler does not make a node look dead. `late` comes after `suspect_after` of silence, `silent` after `dead_after`.
Only when a node is dead are the requests that run there settled as lost.

A master that starts knows nodes from its journal: those that had said goodbye begin as *closed*, the others as
*unknown*. Of a closed one nothing is awaited, and it has no vote.
"""

_HEALTH = """\
What checks and results say ([FAULTS.md](FAULTS.md), "Health and blacklist").

* *At the start* health is closed: nothing is sent to a node of which no process was ready yet, or whose service wants
  checks to be passed first.
* *Later* it stays open in doubt: a node that would be blacklisted stays in the pool as *degraded* (`spare`) when
  `min_active` needs it, or when it is not alone in falling.
* *blacklisted* ends with its time, *trial* with its requests or after a minute, *degraded* with checks or answers that
  are well again. Each `restart` (another boot, a rejoin) begins anew.
"""

_RAMP = """\
The share of the node's slots that is open, from 0 to 1. It is derived, so it has no table. It rises over `ramp` from
the moment at which the node joined, never below one credit, and is 1 at once when no other node could carry the rest.
So it is, too, for what joins while the service is younger than `ramp` at this master: after the master's start, and
after a takeover. A `rota rejoin` across a switchover thus returns as soon as the node's processes are ready.

```mermaid
stateDiagram-v2
    direction LR
    [*] --> opening: joined
    opening --> full: after ramp, or no other node
    full --> [*]: left
```
"""


def lifecycle_page() -> str:
    return (
        _HEAD
        + _axis("Intent", Intent, INTENT, Intent.ACTIVE, _INTENT)
        + _axis("Liveness", Liveness, LIVENESS, Liveness.UNKNOWN, _LIVENESS)
        + _edges()
        + _axis("Health", Health, HEALTH, Health.UNCHECKED, _HEALTH)
        + f"\n## Ramp\n\n{_RAMP}"
        + _eligible()
    )


def _axis(title: str, states: type[StrEnum], table: Table, first: StrEnum, text: str) -> str:
    return f"\n## {title}\n\n{text}\n{_diagram(table, first)}\n{_meanings(states)}\n{_matrix(states, table)}"


def _diagram(table: Table, first: StrEnum) -> str:
    arrows: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for state, row in table.items():
        for event, after in row.items():
            if after is not state:  # what changes nothing is in the table below, not in the picture
                arrows.setdefault((state, after), []).append(event)
    lines = [f"    {before} --> {after}: {', '.join(events)}\n" for (before, after), events in arrows.items()]
    return f"```mermaid\nstateDiagram-v2\n    direction LR\n    [*] --> {first}\n{''.join(lines)}```\n"


def _meanings(states: type[StrEnum]) -> str:
    """The comments beside the states are their description."""
    comments = dict(re.findall(r'^ +(\w+) = "\w+"  # (.*)$', inspect.getsource(states), re.MULTILINE))
    rows = [f"| **{state}** | {comments.get(state.name, '')} |\n" for state in states]
    return "| state | meaning |\n|---|---|\n" + "".join(rows)


def _matrix(states: type[StrEnum], table: Table) -> str:
    events = list(dict.fromkeys(event for row in table.values() for event in row))
    rows = [
        f"| `{event}` | " + " | ".join(str(table[state].get(event, "–")) for state in states) + " |\n"
        for event in events
    ]
    return f"| event | in {' | in '.join(states)} |\n|---|{'---|' * len(states)}\n" + "".join(rows)


def _edges() -> str:
    published: dict[str, list[str]] = {name: [] for name in EDGES.values()}
    for before, row in LIVENESS.items():
        for after in dict.fromkeys(row.values()):
            if name := edge(before, after):
                published[name].append(f"{before} → {after}")
    rows = [f"| **{name}** | {', '.join(moves)} |\n" for name, moves in published.items()]
    return (
        "\nEvents are published for edges, not for states; *suspect* and back makes no noise.\n\n"
        "| edge | published at |\n|---|---|\n" + "".join(rows)
    )


def _eligible() -> str:
    axes = (Intent, Liveness, Health)
    allowed = [states for states in product(*axes) if eligible(*states)]
    parts = [[state for state in axis if any(state in states for states in allowed)] for axis in axes]
    assert len(allowed) == len(list(product(*parts))), "eligibility is no longer one condition an axis"
    sentence = ", ".join(
        f"{axis.__name__.lower()} is *{'* or *'.join(part)}*" for axis, part in zip(axes, parts, strict=True)
    )
    return (
        f"\n## Eligible\n\nA node may be given new work when its {sentence}. "
        "A node in *trial* gets one request at a time, a node that ramps up its share.\n"
    )
