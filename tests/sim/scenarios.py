"""Scenarios that an operator can read: what one cluster did, line by line, in `transcripts/`.

`python tests/sim/scenarios.py` writes them again. Nothing in them is left to chance, so that a change shows as a diff.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rota.common.lifecycle import Intent, Liveness
from sim.agent_part import AgentPart
from sim.cluster import Cluster

HERE = Path(__file__).resolve().parent / "transcripts"
CALL_EVERY_S = 0.02
# Lines of every single request; what became of them all stands in the last line.
HIDDEN = ("%s: delivery %s → %s", "%s: runs call %d (%s)", "%s: call %d (%s)%s, %s s", "%s: HELLO, %s")

Scenario = Callable[[Cluster], None]


def drain_under_load(cluster: Cluster) -> None:
    """A node is drained, released and taken back while clients go on calling. Nobody notices."""
    _ready(cluster)
    _load(cluster, 0.5, "slow")
    cluster.master.verb("drain", nodes=["n1"], reason="release 42")
    node = cluster.master.core.fleet.nodes["n1"]
    while node.intent is not Intent.DETACHED:
        _load(cluster, 0.1)
    _load(cluster, 0.5)
    cluster.master.verb("rejoin", nodes=["n1"])
    _load(cluster, 1.5)


def last_node_is_not_drained(cluster: Cluster) -> None:
    """A drain that would leave nobody is refused, with what to do instead."""
    _ready(cluster)
    cluster.master.verb("drain", nodes=["n0", "n1", "n2"])
    cluster.run(0.1)
    cluster.master.verb("drain", nodes=["n0", "n1"])
    cluster.run(0.5)
    cluster.master.verb("drain", nodes=["n2"])
    _load(cluster, 0.2)


def process_killed_while_busy(cluster: Cluster) -> None:
    """It costs the one call that it was running, if that may not run again; what waited behind it goes elsewhere."""
    _ready(cluster)
    for handler in ("slow", "again"):
        calls = [cluster.call(handler, 10.0, 0) for _ in range(8)]
        cluster.run(0.005)
        victim = next(process for process in cluster.processes() if process.running)
        cluster.clock.tell("FAULT: process %s is killed while it runs a call of %s", victim.incarnation, handler)
        victim.die()
        cluster.run_until(lambda calls=calls: all(call.code is not None for call in calls))
    cluster.run(1.0)


def node_cut_off_and_back(cluster: Cluster) -> None:
    """Suspect, dead, and back with the processes that it has; what it ran meanwhile is not run twice."""
    _ready(cluster)
    _load(cluster, 0.2, "slow")
    cluster.clock.tell("FAULT: n2 is cut off the network for 5 s")
    path = cluster.path("n2")
    path.up_open_at = path.down_open_at = cluster.clock.now + 5.0
    node = cluster.master.core.fleet.nodes["n2"]
    while node.liveness is not Liveness.DEAD:
        _load(cluster, 0.1)
    while not cluster.ready():
        _load(cluster, 0.1)
    _load(cluster, 0.2)


def master_restarted(cluster: Cluster) -> None:
    """What runs goes on running, and its callers get their answers from the next master."""
    _ready(cluster)
    calls = [cluster.call("slow", 10.0, 0) for _ in range(6)]
    cluster.run(0.05)
    cluster.clock.tell("FAULT: the master is killed")
    cluster.master.kill()
    cluster.run(0.3)
    cluster.start_master()
    cluster.run_until(lambda: all(call.code is not None for call in calls))
    cluster.run_until(cluster.ready)


def agent_stopped(cluster: Cluster) -> None:
    """TERM at an agent: the master drains the node, and the agent leaves when the last call is answered."""
    _ready(cluster)
    _load(cluster, 0.3, "slow")
    agent = cluster.agents["n0"]
    cluster.clock.tell("FAULT: agent n0 gets TERM")
    agent.leave()
    while agent.alive:
        _load(cluster, 0.1)
    _load(cluster, 0.5)
    cluster.clock.tell("n0: is started again")
    cluster.agents["n0"] = AgentPart(cluster, "n0", None, 0)
    while not cluster.ready():
        _load(cluster, 0.1)


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        drain_under_load,
        last_node_is_not_drained,
        process_killed_while_busy,
        node_cut_off_and_back,
        master_restarted,
        agent_stopped,
    )
}


def _ready(cluster: Cluster) -> None:
    cluster.run_until(cluster.ready)
    cluster.run(1.0)
    cluster.clock.lines.clear()
    cluster.clock.tell("nodes %s are up, with two processes each", ", ".join(cluster.agents))


def _load(cluster: Cluster, seconds: float, handler: str = "plain") -> None:
    for _ in range(round(seconds / CALL_EVERY_S)):
        cluster.call(handler, 10.0, 0)
        cluster.run(CALL_EVERY_S)


def transcript(scenario: Scenario) -> str:
    cluster = Cluster(1, nodes=3, clients=1, steady=True)
    try:
        scenario(cluster)
        cluster.run_until(lambda: not cluster.checks.silent)
        cluster.checks.after_step(cluster.master)
        lines = cluster.clock.told(lambda text, values: text not in HIDDEN and not _answered_well(text, values))
        return "\n".join((f"# {scenario.__doc__}", "", *lines, "", _summary(cluster), ""))
    finally:
        cluster.close()


def _answered_well(text: str, values: tuple[object, ...]) -> bool:
    return text.startswith("%s: call %d (%s) gets") and values[3] == 0


def _summary(cluster: Cluster) -> str:
    answers = cluster.checks.answers
    codes = Counter({f"{count} code {code}": count for code, count in sorted(answers.items()) if code})
    twice = sum(count > 1 for count in cluster.checks.runs.values())
    return f"{len(cluster.checks.calls)} calls: {', '.join((f'{answers[0]} replies', *codes))}; executed twice: {twice}"


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for name, scenario in SCENARIOS.items():
        (HERE / f"{name}.txt").write_text(transcript(scenario))


if __name__ == "__main__":
    main()
