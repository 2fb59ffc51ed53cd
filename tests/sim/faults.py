"""What goes wrong, each fault as one function of the cluster that it happens to. Victims are chosen by its chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rota.common import wire

from .cluster import Cluster
from .network import LEARN_S

T = TypeVar("T")
Fault = Callable[[Cluster], None]
PAUSES_S = {0.05: 10, 0.3: 8, 1.2: 4, 3.5: 1}  # below suspicion, … beyond death; and how often
DOWN_S = (0.05, 1.5)  # of what is started again


def _one(cluster: Cluster, among: Sequence[T]) -> T | None:
    return cluster.rng.choice(among) if among else None


def _node(cluster: Cluster) -> str:
    return cluster.rng.choice(list(cluster.agents))


def _pause(cluster: Cluster) -> float:
    return cluster.rng.choices(list(PAUSES_S), list(PAUSES_S.values()))[0]


def _machine(cluster: Cluster) -> str:
    return cluster.rng.choice([*cluster.agents, *(client.name for client in cluster.clients)])


# ---- processes ------------------------------------------------------------------------------------------------------


def kill_process(cluster: Cluster) -> None:
    """SIGKILL, rather to one that is at work."""
    alive = cluster.processes()
    process = _one(cluster, [each for each in alive if each.running] or alive)
    if process is not None:
        cluster.clock.tell("FAULT: process %s is killed", process.incarnation)
        process.die()


def stop_process(cluster: Cluster) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    process = _one(cluster, cluster.processes())
    if process is not None:
        pause = _pause(cluster)
        cluster.clock.tell("FAULT: process %s stands still for %s s", process.incarnation, pause)
        process.pause(pause)


# ---- the network ----------------------------------------------------------------------------------------------------


def reset_connection(cluster: Cluster) -> None:
    connection = _one(cluster, [each for each in cluster.connections if not each.cut and each.connected])
    if connection is not None:
        cluster.clock.tell("FAULT: connection %s is reset", connection.route.hex())
        connection.reset()


def reset_all(cluster: Cluster) -> None:
    cluster.clock.tell("FAULT: all connections are reset")
    for connection in [each for each in cluster.connections if not each.cut]:
        connection.reset()


def slow_network(cluster: Cluster) -> None:
    """Delays of one machine: whatever it says overtakes nothing of its own and is overtaken by all others."""
    machine = _machine(cluster)
    path = cluster.path(machine)
    path.slow_s, seconds = cluster.rng.choice([0.02, 0.2]), _pause(cluster)
    path.slow_until = cluster.clock.now + seconds
    cluster.clock.tell("FAULT: %s is slow by up to %s s for %s s", machine, path.slow_s, seconds)


def cut_machine(cluster: Cluster) -> None:
    """A black hole, both ways. A shorter one ends no longer one: what that holds comes when it ends."""
    machine, seconds = _machine(cluster), _pause(cluster)
    cluster.clock.tell("FAULT: %s is cut off for %s s", machine, seconds)
    path = cluster.path(machine)
    until = cluster.clock.now + seconds
    path.up_open_at, path.down_open_at = max(path.up_open_at, until), max(path.down_open_at, until)


def isolate_one_way(cluster: Cluster) -> None:
    """It hears and is not heard, or the other way round."""
    machine, seconds = _machine(cluster), _pause(cluster)
    path = cluster.path(machine)
    if cluster.rng.random() < 0.5:
        cluster.clock.tell("FAULT: %s is not heard for %s s", machine, seconds)
        path.up_open_at = max(path.up_open_at, cluster.clock.now + seconds)
    else:
        cluster.clock.tell("FAULT: %s hears nothing for %s s", machine, seconds)
        path.down_open_at = max(path.down_open_at, cluster.clock.now + seconds)


def forge(cluster: Cluster) -> None:
    """A process loses its connection, and a stranger who takes its routing id answers for what it runs."""
    backend = cluster.master.backend
    slots = cluster.master.core.fleet.processes.slots.values()
    slot = _one(cluster, [slot for slot in slots if slot.inflight and slot.route in backend.routes])
    if slot is None:
        return
    route, token = slot.route, cluster.rng.getrandbits(63) | 1
    cluster.clock.tell("FAULT: %s loses its connection, a stranger takes its place", slot.incarnation)
    backend.routes[route].reset()

    def answer() -> None:
        if slot.route == route and slot.inflight and cluster.master.alive:
            number, request = next(iter(slot.inflight.items()))
            head = wire.head(wire.REPLY, token, request.epoch, 1, number, slot.acked + 1)
            backend.inbox.append((route, head + b"forged"))
            backend.wake()

    cluster.clock.after(LEARN_S, answer)


# ---- agents and nodes -----------------------------------------------------------------------------------------------


def kill_agent(cluster: Cluster) -> None:
    """With its processes. It comes back, half of the time without its state directory."""
    name = _node(cluster)
    agent = cluster.agents[name]
    if not agent.alive:
        return
    cluster.clock.tell("FAULT: agent %s is killed", name)
    agent.kill()
    remembers = cluster.rng.random() >= 0.5

    def start() -> None:
        if cluster.agents.get(name) is agent:
            cluster.clock.tell("%s: starts anew", name)
            cluster.start_agent(name, remembers)

    cluster.clock.after(cluster.between(*DOWN_S), start)


def stop_agent(cluster: Cluster, remembers: bool = False) -> None:
    """TERM, and systemd starts it again. `remembers`: it keeps its state directory."""
    name = _node(cluster)
    agent = cluster.agents[name]
    if not agent.alive:
        return
    cluster.clock.tell("FAULT: agent %s gets TERM", name)
    agent.leave()

    def start() -> None:
        if cluster.agents.get(name) is not agent:
            return
        if agent.alive:
            cluster.clock.after(0.2, start)
        else:
            cluster.clock.tell("%s: starts anew", name)
            cluster.start_agent(name, remembers)

    cluster.clock.after(0.2, start)


def pause_agent(cluster: Cluster) -> None:
    name, seconds = _node(cluster), _pause(cluster)
    cluster.clock.tell("FAULT: agent %s stands still for %s s", name, seconds)
    cluster.agents[name].pause(seconds)


def pause_node(cluster: Cluster) -> None:
    """A virtual machine that is moved: its agent and its processes stand still together."""
    name, seconds = _node(cluster), _pause(cluster)
    cluster.clock.tell("FAULT: node %s stands still for %s s", name, seconds)
    agent = cluster.agents[name]
    for part in (agent, *agent.processes.values()):
        part.pause(seconds)


# ---- master and clients ---------------------------------------------------------------------------------------------


def pause_master(cluster: Cluster) -> None:
    seconds = _pause(cluster)
    cluster.clock.tell("FAULT: the master stands still for %s s", seconds)
    cluster.master.pause(seconds)


def restart_master(cluster: Cluster) -> None:
    """Killed and started; what its disk did not have yet is gone."""
    master = cluster.master
    if not master.alive:
        return
    cluster.clock.tell("FAULT: the master is killed")
    master.kill()
    cluster.clock.after(cluster.between(0.05, 0.5), cluster.start_master)


def stop_master(cluster: Cluster) -> None:
    """TERM, and started again."""
    if cluster.master.alive and not cluster.master.core.fleet.stopping:
        cluster.clock.tell("FAULT: the master gets TERM")
        cluster.master.stop()


def pause_client(cluster: Cluster) -> None:
    client, seconds = cluster.rng.choice(cluster.clients), _pause(cluster)
    cluster.clock.tell("FAULT: %s stands still for %s s", client.name, seconds)
    client.pause(seconds)


def turn_wall_clock(cluster: Cluster) -> None:
    """Somebody sets the time of day. No deadline may depend on it."""
    hours = cluster.rng.choice([-48, -1, 1, 48])
    cluster.clock.tell("FAULT: the wall clock jumps by %d h", hours)
    cluster.wall_offset += 3600 * hours


# ---- people ---------------------------------------------------------------------------------------------------------


def operate(cluster: Cluster) -> None:
    """An operator does anything to anything."""
    master, rng = cluster.master, cluster.rng
    nodes = list(master.core.fleet.nodes)
    if not master.alive or cluster.clock.now < master.paused_until or not nodes:
        return
    verb = rng.choice(["drain", "drain", "drain", "rejoin", "rejoin", "recheck", "reload", "scale", "pause", "resume"])
    if verb in ("reload", "scale", "pause", "resume"):
        more = {"scale": {"processes": rng.randint(1, 2 * len(nodes))}, "pause": {"for_s": rng.choice([0.3, 2.0])}}
        if "s" in master.core.dispatch.pools:
            master.verb(verb, service="s", **more.get(verb, {}))
    elif verb == "drain":
        chosen = rng.sample(nodes, rng.randint(1, len(nodes)))
        master.verb("drain", nodes=chosen, force=rng.random() < 0.1, deadline_s=rng.choice([0.2, 2.0]))
    else:
        master.verb(verb, nodes=[rng.choice(nodes)])


def cancel(cluster: Cluster) -> None:
    call = _one(cluster, [call for call in cluster.checks.calls.values() if call.code is None])
    if call is not None:
        cluster.clock.tell("%s: cancels call %d", call.client.name, call.id)
        call.client.cancel(call)


# How often, relative to each other, in a history that has them all.
FAULTS: dict[Fault, int] = {
    kill_process: 3,
    stop_process: 2,
    reset_connection: 6,
    reset_all: 1,
    slow_network: 2,
    cut_machine: 2,
    isolate_one_way: 2,
    forge: 1,
    kill_agent: 1,
    stop_agent: 1,
    pause_agent: 1,
    pause_node: 1,
    pause_master: 1,
    restart_master: 2,
    stop_master: 1,
    pause_client: 1,
    turn_wall_clock: 1,
    operate: 5,
    cancel: 4,
}
