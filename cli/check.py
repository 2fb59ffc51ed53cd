"""What `rota status --check` finds wrong. What an operator has asked for (drained, closed) is not wrong by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..common.units import plural

Reply = dict[str, Any]


def problems(status: Reply) -> list[str]:
    """Sentences, the master's first; none when all is well."""
    closed = status["master"].get("maintenance", ())
    return [
        *of_master(status["master"]),
        *(["no slave node has come yet"] if status["master"]["state"] == "active" and not status["nodes"] else []),
        *(text for service in status["services"] if service["name"] not in closed for text in _of_service(service)),
        *(text for node in status["nodes"] for text in _of_node(node)),
    ]


def of_master(master: Reply) -> Iterator[str]:
    state, peer = master["state"], master.get("peer") or {}
    if state not in ("active", "standby"):
        yield f"master {master['name']} is {state}: no master is active"
    if state == "standby" and peer.get("liveness") != "live":  # an active one has alarms for this
        name = peer.get("name") or "the active master"
        yield f"master {master['name']} stands by, and {name} is {peer.get('liveness', 'unknown')}"
    for alarm in master["alarms"]:
        yield f"master {master['name']}: {alarm}"


def _of_service(service: Reply) -> Iterator[str]:
    name, ready = service["name"], service["ready"]
    least = min(service["min"], service["target"])  # without min_processes `rota scale` may ask for fewer
    if not ready:
        yield f"{name} has no ready process; {plural(service['queued'], 'request')} in its queue"
    elif ready < least:
        yield f"{name} has {plural(ready, 'ready process')}, but should have at least {least}"
    if service["active_nodes"] < service["min_active"]:
        nodes = plural(service["active_nodes"], "node")
        yield f"{name} is served by {nodes}, fewer than min_active {service['min_active']}"
    if died_of := service.get("quarantined"):  # though nobody may send them again: requests kill processes
        yield f"{name} has {plural(died_of, 'payload')} in quarantine that processes died of: `rota quarantine list`"


def _of_node(node: Reply) -> Iterator[str]:
    name = node["name"]
    if node["liveness"] == "closed":
        return  # what was wrong there went with it
    if node["intent"] == "active" and node["liveness"] in ("unknown", "suspect", "dead"):
        yield f"{name} is {_because(node['liveness'], node['why'])}"
    if node["health"] in ("blacklisted", "trial"):  # of one that is degraded an alarm tells
        yield f"{name} is {_because(node['health'], node['why'])}"
    for failing in node["failing"]:
        why = failing.get("cause", "an older master does not say why")
        yield f"{failing['service']} does not start on {name}: {why}"


def _because(state: str, why: str) -> str:
    """Mostly the reason begins with the state itself: "dead: silent for 5 s"."""
    return why if state in why.partition(":")[0] else f"{state}: {why}"
