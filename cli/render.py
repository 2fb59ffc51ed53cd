"""Replies as text for people: aligned tables, colours where a terminal shows them. Pure: a reply in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..common.log import printable as printable
from ..common.units import in_a_row
from ..common.units import plural as plural

Reply = dict[str, Any]

TRACEBACK_LINES = 20  # of an application that does not start: its end says why
_GAP = "  "


class Cell(NamedTuple):
    text: str
    colour: str = ""
    right: bool = False  # numbers


class Paint:
    """Colours, or none: `paint("dead", "red")`."""

    CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "": ""}

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted

    def __call__(self, text: str, colour: str) -> str:
        code = self.CODES[colour] if self.wanted else ""
        return f"\x1b[{code}m{text}\x1b[0m" if code and text else text


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(header: Sequence[Cell], rows: Sequence[Sequence[Cell]], paint: Paint, width: int) -> list[str]:
    """Columns as wide as they need; the last one is wrapped where the line would be longer than `width`."""
    widths = [max(len(row[column].text) for row in (header, *rows)) for column in range(len(header))]
    used = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    widths[-1] = max(len(header[-1].text), min(widths[-1], width - used))
    lines = _row([cell._replace(colour="dim") for cell in header], widths, paint)
    for row in rows:
        lines += _row(row, widths, paint)
    return lines


def _row(cells: Sequence[Cell], widths: Sequence[int], paint: Paint) -> list[str]:
    *first, last = cells
    fixed = _GAP.join(_padded(cell, size, paint) for cell, size in zip(first, widths[:-1], strict=True))
    indent = " " * (sum(widths[:-1]) + len(_GAP) * (len(widths) - 1))
    wrapped = [last.text] if last.right else _words(last.text, max(8, widths[-1]))
    lines = [indent + paint(line, last.colour) for line in wrapped]
    end = _padded(last, widths[-1], paint) if last.right else paint(wrapped[0], last.colour)
    lines[0] = f"{fixed}{_GAP if first else ''}{end}"
    return [line.rstrip() for line in lines]


def _words(text: str, width: int, indent: str = "") -> list[str]:
    """A word stays whole, however long: it is read, and copied. `indent`: of all lines but the first."""
    wrapped = textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return wrapped or [""]


def _padded(cell: Cell, size: int, paint: Paint) -> str:
    pad = " " * (size - len(cell.text))
    painted = paint(cell.text, cell.colour)
    return pad + painted if cell.right else painted + pad


def number(value: object, colour: str = "") -> Cell:
    return Cell(str(value), colour, right=True)


# ---- status ---------------------------------------------------------------------------------------------------------


def status(reply: Reply, paint: Paint, width: int) -> list[str]:
    """Master, services, nodes; under a node the reason why it gets no traffic, and what does not start on it."""
    lines = _master(reply["master"], paint, width)
    if reply["services"]:
        lines += ["", *_services(reply["services"], paint, width)]
    if reply["nodes"]:
        return [*lines, "", *_nodes(reply["nodes"], paint, width)]
    if reply["master"]["state"] != "active":  # nodes are the active one's
        return lines
    return [*lines, "", "no slave node has come yet: start one with `rota slave APP -m tcp://HOST:PORT`"]


def _master(master: Reply, paint: Paint, width: int) -> list[str]:
    peer = master.get("peer")
    facts = [
        f"master {paint(master['name'], 'bold')}",
        paint(master["state"], "green" if master["state"] == "active" else "yellow"),
        *([str(master["role"])] if peer else []),
        f"epoch {master['epoch']}",
        f"up {duration(master['uptime_s'])}",
        _memory(master),
    ]
    alarms = [paint(line, "red") for alarm in master["alarms"] for line in wrapped(f"alarm: {alarm}", width)]
    maintenance = master.get("maintenance", {}).items()
    closed = [paint(line, "yellow") for name, how in maintenance for line in wrapped(_closed(name, how), width)]
    if lease := master.get("lease"):
        peers = master.get("peers", [peer] if peer else [])
        pair = [*(_peer(each, master["state"], paint) for each in peers), *wrapped(_lease(lease, master), width)]
    elif peer:
        pair = [_peer(peer, master["state"], paint), *wrapped(_votes(master["quorum"], master["state"]), width)]
    else:
        pair = []
    return [_GAP.join(facts), *pair, *alarms, *closed]


def _memory(master: Reply) -> str:
    """Would a restart find what operators want? A journal that failed is an alarm: without one there is no journal."""
    return "durable" if master["durable"] else "not durable" if master["alarms"] else "no state directory"


def _peer(peer: Reply, state: str, paint: Paint) -> str:
    """The other master, as this one sees it."""
    facts = [
        f"{'standby' if state == 'active' else 'follows'} {paint(printable(peer['name']) or '(not met yet)', 'bold')}",
        printable(peer["address"]) or "at an unknown address",
        paint(str(peer["liveness"]), "green" if peer["liveness"] == "live" else "red"),
        f"lag {peer['lag']}" if peer["lag"] is not None else "not in sync",
        f"heard {duration(peer['heard_ms'] / 1000)} ago" if peer["heard_ms"] is not None else "never heard",
    ]
    if peer["promise_ms"] is not None:  # where an engine decides, nobody promises
        facts.append(f"promise {duration(peer['promise_ms'] / 1000)}" if peer["promise_ms"] else "no promise")
    return _GAP.join(facts)


def _lease(lease: Reply, master: Reply) -> str:
    """Of the engine that decides who is active."""
    holder = printable(lease["holder"]) or "nobody"
    text = f"lease in {lease['engine']}: {holder} has it, epoch {lease['epoch']}"
    if master["state"] == "active":
        text += f", {duration(lease['left_ms'] / 1000)} left"
        return text + ("" if master["quorum"]["may_dispatch"] else "; nothing is dispatched")
    return text


def _votes(quorum: Reply, state: str) -> str:
    """Who votes, and what that comes to: the leases of an active master, the votes of one that stands."""
    nodes = quorum["electorate"]
    text = f"votes of {', '.join(nodes) or 'no node'}: "
    if state == "active":
        held = f"{plural(quorum['leases'], 'lease')}, {quorum['needed']} needed without a promise"
        return text + held + ("" if quorum["may_dispatch"] else "; nothing is dispatched")
    here = f"{len(quorum.get('voters', ()))} of {len(nodes)} are connected"
    granted = quorum.get("granted")
    return text + here + (f", granted by {', '.join(granted)}" if granted else "")


def _closed(service: str, how: Reply) -> str:
    reason = f": {how['reason']}" if how["reason"] else ""
    return f"maintenance: {service} is closed by {how['by'] or 'an operator'}{reason}"


def _services(services: list[Reply], paint: Paint, width: int) -> list[str]:
    header = [Cell("SERVICE"), *(number(name) for name in ("READY", "FLIGHT", "QUEUED", "P95", "NODES"))]
    return table([*header, Cell("VERSIONS")], [_service(each) for each in services], paint, width)


def _service(service: Reply) -> list[Cell]:
    ready, target = service["ready"], service["target"]
    active, least = service["active_nodes"], service["min_active"]
    versions = ", ".join(f"{printable(version)} × {count}" for version, count in sorted(service["versions"].items()))
    return [
        Cell(service["name"], "bold"),
        number(f"{ready}/{target}", "red" if not ready else "yellow" if ready < target else ""),
        number(service["in_flight"]),
        number(service["queued"], "yellow" if service["queued"] else ""),
        number(millis(service["p95_ms"]) if service["p95_ms"] else "–"),
        number(f"{active} (min {least})", "yellow" if active < least else ""),
        Cell("; ".join(filter(None, (versions, *_asides(service))))),
    ]


def _asides(service: Reply) -> Iterable[str]:
    if service["reloading"]:
        yield f"{service['reloading']} to reload"
    if service.get("paused"):
        yield f"paused for {duration(service['paused']['left_s'])} more"
    if service.get("pinned"):
        yield f"{service['pinned']} wait for their session's process"
    if service.get("quarantined"):
        yield f"{plural(service['quarantined'], 'payload')} in quarantine"


def _nodes(nodes: list[Reply], paint: Paint, width: int) -> list[str]:
    header = [Cell("NODE"), Cell("STATE"), number("SINCE"), number("FLIGHT"), Cell("VERSIONS"), Cell("PROCESSES")]
    lines = table(header, [_node(each) for each in nodes], paint, width)
    return lines + [line for each in nodes for line in _remarks(each, paint, width)]


def _node(node: Reply) -> list[Cell]:
    state, colour = node_state(node)
    return [
        Cell(node["name"], "bold"),
        Cell(state, colour),
        number(duration(node["since_s"])),
        number(node["in_flight"]),
        Cell(", ".join(map(printable, node["versions"])) or "-"),
        Cell(_processes(node)),
    ]


def node_state(node: Reply) -> tuple[str, str]:
    """The four axes in one or two words, and their colour: what keeps traffic away comes first."""
    intent, liveness, health, ramp = (node[axis] for axis in ("intent", "liveness", "health", "ramp"))
    if liveness != "live":
        return (liveness if intent == "active" else f"{intent}, {liveness}"), "red"
    if intent != "active":
        return intent, "yellow"
    if node.get("capacity") == 0:
        return "witness", "green"
    if health != "up":
        return ("starting" if health == "unchecked" else health), "yellow"
    return ("active", "green") if ramp >= 1 else (f"ramp {ramp:.0%}", "yellow")


def _processes(node: Reply) -> str:
    """Ready and all of each service: "orders 2/2, site 1/2"."""
    counts: dict[str, list[int]] = {}
    for process in node["processes"]:
        count = counts.setdefault(process["service"], [0, 0])
        count[0] += str(process["state"]).startswith("ready")
        count[1] += 1
    return ", ".join(f"{service} {ready}/{count}" for service, (ready, count) in sorted(counts.items())) or "none"


def _remarks(node: Reply, paint: Paint, width: int) -> list[str]:
    lines = []
    if node["why"] and not any(node["why"].startswith(f"{each['service']} failed ") for each in node["failing"]):
        lines += ["", *wrapped(f"{node['name']}: {node['why']}", width)]
    for failing in node["failing"]:
        times, again = in_a_row(failing["failures"]), duration(failing["retry_in_ms"] / 1000)
        lines += ["", paint(f"{node['name']}: {failing['service']} failed {times}, next try in {again}:", "red")]
        lines += tail(failing["text"])
    return lines


def tail(text: str, lines: int = TRACEBACK_LINES) -> list[str]:
    return [f"    {printable(line)}" for line in text.rstrip().split("\n")[-lines:]]


# ---- the smaller replies --------------------------------------------------------------------------------------------


def nodes_begun(verb: str, reply: Reply) -> list[str]:
    """Of drain, rejoin and recheck: a line a node, of what has begun and not of what it is to become."""
    return [f"{each['node']}: {_begun(verb, each, reply.get('dry_run', False))}" for each in reply["nodes"]]


def _begun(verb: str, node: Reply, dry_run: bool) -> str:
    gone = "; its agent said goodbye: start it again" if node.get("liveness") == "closed" else ""
    if verb == "recheck":
        return f"asked again{gone}"
    if dry_run and node["changed"]:
        return f"would be {verb}ed"
    if verb == "rejoin":
        return f"{'rejoining' if node['changed'] else 'is not drained'}{gone}"
    flight = f", {plural(node['in_flight'], 'request')} in flight" if node["in_flight"] else ""
    return f"{node['intent']}{'' if node['changed'] else ' already'}{flight}"


def event(one: Reply, paint: Paint, clock: str) -> str:
    """One line. `clock`: its time of day, made by the caller, who knows the zone."""
    asked = f" (by {one['by']}{': ' + one['reason'] if one['reason'] else ''})" if one["by"] else ""
    return f"{paint(clock, 'dim')}  {one['kind']:15}  {printable(one['text'])}{printable(asked)}"


# ---- words ----------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Two units at most: "850ms", "12s", "3m 20s", "2h 5m", "4d 1h"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.0f}s"
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    whole = int(seconds)
    parts = []
    for unit, size in units:
        count, whole = divmod(whole, size)
        parts.append((count, unit))
    first = next(place for place, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)


def millis(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms" if value >= 1 else f"{value:.2f} ms"


def wrapped(text: str, width: int) -> list[str]:
    return [line for part in text.split("\n") for line in _words(printable(part), width, "    ")]
