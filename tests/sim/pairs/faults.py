"""What goes wrong with a pair, each fault as one function. Those of processes, connections and clients are the same."""

from __future__ import annotations

from typing import Any

from rota.common import messages

from .. import faults
from ..faults import Fault
from .cluster import BACKUP, PRIMARY, PairCluster

LONG_PAUSES_S = {0.05: 6, 0.3: 6, 1.2: 5, 3.5: 3, 10.0: 1}  # below a promise, about it, beyond everything; how often
DOWN_S = (0.05, 4.0)  # of what is started again
GONE = 0.15  # of the killed: they come back when the operator has time
NODES_MAX = 5


def _pause(cluster: PairCluster) -> float:
    return cluster.rng.choices(list(LONG_PAUSES_S), list(LONG_PAUSES_S.values()))[0]


def _master(cluster: PairCluster) -> Any:
    """Rather the active one."""
    if cluster.rng.random() < 0.6:
        return cluster.master
    return cluster.rng.choice(list(cluster.masters.values()))


def _machine(cluster: PairCluster) -> str:
    return cluster.rng.choice([*cluster.agents, *(client.name for client in cluster.clients), PRIMARY, BACKUP])


# ---- masters --------------------------------------------------------------------------------------------------------


def kill_master(cluster: PairCluster) -> None:
    """SIGKILL; started again at once, late, or never."""
    master = _master(cluster)
    if not master.alive:
        return
    cluster.clock.tell("FAULT: %s is killed", master.name)
    cluster.counts["masters killed"] += 1
    master.kill()
    others = [each for each in cluster.masters.values() if each is not master]
    if cluster.rng.random() > GONE or not all(each.could_be_active for each in others):
        cluster.start_again(master.name, cluster.between(*DOWN_S))


def kill_both(cluster: PairCluster) -> None:
    cluster.clock.tell("FAULT: both masters are killed")
    for master in list(cluster.masters.values()):
        if master.alive:
            cluster.counts["masters killed"] += 1
            master.kill()
    for name in (PRIMARY, BACKUP):
        if name not in cluster.coming:
            cluster.start_again(name, cluster.between(*DOWN_S))


def stop_master(cluster: PairCluster) -> None:
    """TERM; systemd starts it again."""
    master = _master(cluster)
    if master.alive and not master.core.stopping:
        cluster.clock.tell("FAULT: %s gets TERM", master.name)
        cluster.counts["masters told to stop"] += 1
        _when_it_goes_on(cluster, master, lambda: master.alive and master.stop())


def _when_it_goes_on(cluster: PairCluster, master: Any, act: Any) -> None:
    cluster.clock.at(max(cluster.clock.now, master.paused_until), act)


def pause_master(cluster: PairCluster) -> None:
    """SIGSTOP, and SIGCONT."""
    master, seconds = _master(cluster), _pause(cluster)
    if master.alive:
        cluster.clock.tell("FAULT: %s stands still for %s s", master.name, seconds)
        cluster.counts["masters paused"] += 1
        master.pause(seconds)


def freeze_master(cluster: PairCluster) -> None:
    """The same, between what it decides and what it sends."""
    master, seconds = _master(cluster), _pause(cluster)
    if master.alive:
        cluster.counts["masters paused"] += 1
        master.pause(seconds, mid=True)


# ---- the network ----------------------------------------------------------------------------------------------------


def cut(cluster: PairCluster, machine: str, other: str, seconds: float, ways: str) -> None:
    """Between two machines, of which one at least is a master's. `ways`: both, to or from the first."""
    until = cluster.clock.now + seconds
    for dialler, bound in ((machine, other), (other, machine)):
        if bound in (PRIMARY, BACKUP):
            path = cluster.path(dialler, bound)
            if ways in ("both", "from" if dialler == machine else "to"):
                path.up_open_at = max(path.up_open_at, until)
            if ways in ("both", "to" if dialler == machine else "from"):
                path.down_open_at = max(path.down_open_at, until)


def partition(cluster: PairCluster) -> None:
    """Any two parts, one way or both."""
    master = cluster.rng.choice([PRIMARY, BACKUP])
    machine = _machine(cluster)
    if machine == master:
        machine = BACKUP if master == PRIMARY else PRIMARY
    seconds, ways = _pause(cluster), cluster.rng.choice(["both", "both", "to", "from"])
    cluster.clock.tell("FAULT: %s and %s are cut (%s) for %s s", machine, master, ways, seconds)
    cluster.counts["partitions"] += 1
    cut(cluster, machine, master, seconds, ways)


def cut_masters(cluster: PairCluster) -> None:
    """From each other only: both go on with what else they reach."""
    seconds, ways = _pause(cluster), cluster.rng.choice(["both", "both", "to", "from"])
    cluster.clock.tell("FAULT: the masters are cut from each other (%s) for %s s", ways, seconds)
    cluster.counts["partitions"] += 1
    cut(cluster, PRIMARY, BACKUP, seconds, ways)


def isolate(cluster: PairCluster) -> None:
    """One machine, mostly a master's, from all others, or from a part of them: a switch that died."""
    machine = cluster.master.name if cluster.rng.random() < 0.6 else _machine(cluster)
    seconds, ways = _pause(cluster), cluster.rng.choice(["both", "both", "to", "from"])
    others = [PRIMARY, BACKUP]
    if machine in others:
        others = [*cluster.agents, *(client.name for client in cluster.clients), *others]
    if machine in others:
        others.remove(machine)
    if cluster.rng.random() < 0.4:
        others = cluster.rng.sample(others, cluster.rng.randint(1, len(others)))
    cluster.clock.tell("FAULT: %s is cut from %s (%s) for %s s", machine, ", ".join(others), ways, seconds)
    cluster.counts["partitions"] += 1
    for other in others:
        cut(cluster, machine, other, seconds, ways)


def slow_network(cluster: PairCluster) -> None:
    """Delays between a machine and a master: overtaken by everything that goes another way."""
    machine, master = _machine(cluster), cluster.rng.choice([PRIMARY, BACKUP])
    path = cluster.path(machine, master)
    path.slow_s, seconds = cluster.rng.choice([0.02, 0.2, 0.9]), _pause(cluster)
    path.slow_until = cluster.clock.now + seconds
    cluster.clock.tell("FAULT: from %s to %s is slow by up to %s s for %s s", machine, master, path.slow_s, seconds)


def forge(cluster: PairCluster) -> None:
    if cluster.master.is_active:
        faults.forge(cluster)


# ---- nodes ----------------------------------------------------------------------------------------------------------


def stop_agent(cluster: PairCluster) -> None:
    """While it is away it does not vote: so not beside one that is gone for good and still counts, for the two may be
    the majority that is needed to let it come back.
    """
    active = cluster.active
    if not cluster.removed or (active is not None and not cluster.removed & active.core.pair.leases.electorate):
        faults.stop_agent(cluster, remembers=True)


def vote_in_vain(cluster: PairCluster) -> None:
    """A node whose lease has just run out votes for the one that stands, as no other does, and that never hears of it;
    the active one does only after a while.
    """
    active, name = cluster.active, cluster.rng.choice(list(cluster.agents))
    others = [each for each in cluster.masters.values() if each is not active and each.alive]
    agent = cluster.agents[name]
    if active is None or not others or not agent.hears():
        return
    leases = active.core.pair.leases  # nothing that its holder counts on lasts longer than what was granted
    leases._until.pop(name, None)
    leases._beats.pop(name, None)
    active.core.lapse(cluster.clock.now)
    agent.core.votes.lease = None
    epoch = max(each.core.votes.seen for each in cluster.agents.values()) + 1
    cluster.clock.tell("FAULT: %s is asked for a vote for %s", name, others[0].name)
    agent._asked(messages.Vote(epoch, others[0].name, active.core.pair.lease_ms))
    agent.pause(cluster.rng.choice([0.05, 0.3]))


def move_agent(cluster: PairCluster) -> None:
    """Killed, and started at once on another machine, without its state directory, while leases of its earlier life
    run: it reaches the master that is not active, or that knows of no other one that is, and not the active one.
    """
    name = cluster.rng.choice(list(cluster.agents))
    agent, seconds = cluster.agents[name], _pause(cluster)
    if not agent.alive:
        return
    cluster.clock.tell("FAULT: agent %s moves, and is cut from %s for %s s", name, cluster.master.name, seconds)
    agent.kill()
    for other in (PRIMARY, BACKUP):
        cluster.path(name, other).heal()
    cut(cluster, name, cluster.master.name, seconds, "both")
    cluster.start_agent(name, remembers=False)


def add_node(cluster: PairCluster) -> None:
    if len(cluster.agents) < NODES_MAX:
        name = f"n{len(cluster.agents) + len(cluster.removed)}"
        cluster.clock.tell("FAULT: node %s is added", name)
        cluster.counts["nodes added"] += 1
        cluster.start_agent(name, remembers=False)


def remove_node(cluster: PairCluster) -> None:
    """For good, in good order or not. One of three at most: those that are left can still elect a master."""
    active = cluster.active
    if active is None or active.core.pair.unready() or cluster.removed:
        return
    electorate = active.core.pair.leases.electorate
    if len(electorate) < 3 or electorate != cluster.agents.keys():
        return
    name = cluster.rng.choice(list(cluster.agents))
    agent = cluster.agents.pop(name)
    cluster.removed.add(name)
    cluster.counts["nodes removed"] += 1
    gently = cluster.rng.random() < 0.5
    cluster.clock.tell("FAULT: node %s is removed%s", name, "" if gently else " by force")
    if gently and agent.alive:
        agent.leave()
    elif agent.alive:
        agent.kill()


# ---- people ---------------------------------------------------------------------------------------------------------


def switchover(cluster: PairCluster) -> None:
    active = cluster.active
    if active is not None:
        cluster.counts["switchovers asked for"] += 1

        def told(result: messages.Result) -> None:
            cluster.counts["switchovers"] += result.ok

        active.verb("switchover", told)


def operate(cluster: PairCluster) -> None:
    """An operator changes what is to hold; a takeover may come at any moment."""
    active, rng = cluster.active, cluster.rng
    nodes = list(active.core.fleet.nodes) if active is not None else []
    if not nodes:
        return
    verb = rng.choice(["drain", "drain", "drain", "rejoin", "rejoin", "reload", "reload", "scale", "pause", "recheck"])
    if verb == "scale":
        count = rng.randint(1, 2 * len(nodes))
        _ask(cluster, active, verb, "service s", count, service="s", processes=count)
    elif verb in ("drain", "rejoin"):
        name = rng.choice(nodes)
        more = {"deadline_s": rng.choice([0.2, 2.0])} if verb == "drain" else {}
        _ask(cluster, active, verb, f"node {name}", verb, nodes=[name], **more)
    elif verb == "recheck":
        active.verb(verb, nodes=[rng.choice(nodes)])
    elif "s" in active.core.dispatch.pools:
        active.verb(verb, service="s", **({"for_s": rng.choice([0.3, 2.0])} if verb == "pause" else {}))


def _ask(cluster: PairCluster, active: Any, verb: str, about: str, value: object, **args: Any) -> None:
    checks = cluster.checks
    number = checks.asks(about)

    def told(result: messages.Result) -> None:
        if result.ok:
            checks.acknowledged(about, number, value, active)

    active.verb(verb, told, **args)


FAULTS: dict[Fault, int] = {
    kill_master: 4,
    kill_both: 1,
    stop_master: 2,
    pause_master: 3,
    freeze_master: 3,
    partition: 6,
    cut_masters: 2,
    isolate: 4,
    slow_network: 2,
    forge: 1,
    faults.kill_process: 2,
    faults.stop_process: 1,
    faults.reset_connection: 4,
    faults.reset_all: 1,
    faults.kill_agent: 2,
    vote_in_vain: 1,
    move_agent: 1,
    stop_agent: 1,
    faults.pause_agent: 2,
    faults.pause_node: 1,
    faults.pause_client: 1,
    faults.turn_wall_clock: 1,
    faults.cancel: 2,
    add_node: 1,
    remove_node: 1,
    switchover: 3,
    operate: 4,
}  # type: ignore[dict-item]
