"""What a pair of masters promises, on real processes: each scenario takes a folder and how often, ends with a row.

Most play on hosts of their own in network namespaces (`lan.py`), which take root.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from gateway_rig import Gateway, starting
from gateway_rig import Load as Gets
from waiting import eventually, until

import rota

from .load import Load
from .result import Result, judge
from .site import APP, SETTLED_S, Site, TimedLoad, site
from .streams import Streams

MEDIAN_LIMIT_S, MAX_LIMIT_S, HOLE_LIMIT_S = 2.0, 3.0, 3.5  # from the fault to the first answer
WARM = 200  # calls: some two seconds of load
ADDED_LIMIT_S = 0.25  # to the slowest call, by a planned switchover
STOPPED_S = 10.0
DOWN_S = 30.0
STALL_LIMIT_S = 1.0  # of a stream, by a planned switchover
HELD_S = 10.0  # from the end of all streams until nothing is in flight
STREAM_KILLS = 2
TIGHT_S = 5.0  # time-out of calls while nobody is there
STREAMS_APP = Path(__file__).with_name("streams_app.py")
EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
MAYBE = ("MaybeExecuted",)  # what a call may be told whose process is lost with its master, or whose answer was


class Measured(NamedTuple):
    runs: int
    result: Result


def took(seconds: Sequence[float]) -> str:
    return f"median {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s"


def over(seconds: Sequence[float], most: float, median: float | None = None) -> list[str]:
    found = [f"{max(seconds):.2f} s until the first answer"] if max(seconds) > most else []
    if median is not None and statistics.median(seconds) > median:
        found.append(f"median {statistics.median(seconds):.2f} s until the first answer")
    return found


def judged(
    name: str, place: Site, runs: int, figure: str, limit: str, misses: Iterable[str] = (), told: Sequence[str] = MAYBE
) -> Measured:
    """By the ledger, by the epochs, and by what the scenario found itself."""
    found = [*misses, *place.lower_epochs()[:5], *place.two_in_one_epoch()]
    return Measured(
        runs, judge(name, place.ledger.check(), any_number_of=tuple(told), figure=figure, limit=limit, misses=found)
    )


# ---- the active master is gone -------------------------------------------------------------------------------------


def kill(place: Site, load: TimedLoad) -> float:
    """SIGKILL of whoever is active; it comes back as the standby. Seconds to the first answer."""
    load.more(20)
    name, epoch = place.active()
    at = place.kill(name)
    gap = load.first_above(epoch) - at
    place.masters.start_master(name)
    place.in_sync()
    return gap


def killed(folder: Path, runs: int) -> Measured:
    """Each time the one that took over before."""
    with site(folder, hosts=True) as place, place.load() as load:
        gaps = [kill(place, load) for _ in range(runs)]
        load.stop()
        misses = over(gaps, MAX_LIMIT_S, MEDIAN_LIMIT_S)
        return judged("active killed", place, runs, took(gaps), "median 2.0 s, max 3.0 s", misses)


def black_hole(folder: Path, runs: int) -> Measured:
    """The active master's cable is pulled: nothing is refused, nothing is reset. Later it is plugged in again."""
    gaps = []
    with site(folder, hosts=True) as place, place.load() as load:
        for _ in range(runs):
            load.more(20)
            name, epoch = place.active()
            at = time.monotonic()
            place.hosts[name].plug(False)
            gaps.append(load.first_above(epoch) - at)
            time.sleep(random.uniform(0.0, 2.0))
            place.hosts[name].plug(True)
            place.in_sync()
        load.stop()
        return judged("active blackholed", place, runs, took(gaps), "max 3.5 s", over(gaps, HOLE_LIMIT_S))


def switch(place: Site, load: TimedLoad) -> float:
    """`rota switchover`. So many seconds longer than usual the slowest call took."""
    began = time.monotonic()
    load.more(60)
    asked = time.monotonic()
    place.admin.switchover(reason="measured")
    load.more(60)
    added = load.longest(asked, time.monotonic()) - load.usual(began, asked)
    place.in_sync()
    return added


def switched(folder: Path, runs: int) -> Measured:
    """To and fro."""
    with site(folder, hosts=True) as place, place.load() as load:
        load.more(WARM)  # an agent votes for nobody within one lease of its start
        added = [switch(place, load) for _ in range(runs)]
        load.stop()
        figure = f"slowest call + {statistics.median(added) * 1000:.0f} ms, max {max(added) * 1000:.0f} ms"
        misses = [f"a call took {max(added) * 1000:.0f} ms longer"] if max(added) > ADDED_LIMIT_S else []
        return judged("planned switchover", place, runs, figure, "max 250 ms, 0 failed", misses, told=())


def pause(place: Site, load: TimedLoad, seconds: float) -> tuple[float, list[str]]:
    """SIGSTOP of the active master, and SIGCONT when the other one is active. Seconds to the first answer, and keys of
    what it dispatched afterwards.
    """
    load.more(20)
    name, epoch = place.active()
    at = place.stop(name)
    gap = load.first_above(epoch) - at
    time.sleep(max(0.0, at + seconds - time.monotonic()))
    went_on = time.time()
    place.go_on(name)
    until(lambda: place.masters.state(name) == "standby", "it does not step down")
    place.in_sync()
    load.more(20)
    return gap, [each.key for each in place.executions() if each.epoch <= epoch and each.at > went_on]


def paused(folder: Path, runs: int) -> Measured:
    with site(folder, hosts=True) as place, place.load() as load:
        found = [pause(place, load, STOPPED_S) for _ in range(runs)]
        load.stop()
        late = [key for _, keys in found for key in keys]
        figure = f"{took([gap for gap, _ in found])}; {len(late)} dispatched after SIGCONT"
        misses = [f"it dispatched after SIGCONT: {', '.join(late[:5])}"] if late else []
        return judged(f"active stopped for {STOPPED_S:g} s", place, runs, figure, "0 dispatched", misses)


# ---- other parts are gone ------------------------------------------------------------------------------------------


def standby_killed(folder: Path, runs: int) -> Measured:
    """Nobody notices but the operator."""
    misses, alarmed = [], []
    with site(folder, hosts=True) as place, place.load() as load:
        load.more(20)
        for _ in range(runs):
            active, _ = place.active()
            name = place.other(active)
            load.stall = 0.0
            at = place.kill(name)
            heard = eventually(lambda: any("no standby" in each for each in place.status()["master"]["alarms"]), 20)
            alarmed.append(time.monotonic() - at)
            misses += [] if heard else ["no alarm"]
            load.more(50)
            if place.active()[0] != active:
                misses.append("another master is active")
            place.masters.start_master(name)
            place.in_sync()
            if any("no standby" in each for each in place.status()["master"]["alarms"]):
                misses.append("the alarm stays")
        load.stop()
        figure = f"alarm after {max(alarmed):.1f} s, longest stall {load.stall:.2f} s"
        return judged("standby killed", place, runs, figure, "an alarm, 0 failed", misses, told=())


def both_down(folder: Path, runs: int) -> Measured:
    """Both masters, for half a minute. Who waits, waits to its deadline; who may wait longer is served afterwards."""
    misses: list[str] = []
    backs: list[float] = []
    waits: list[float] = []
    dials: list[int] = []
    with site(folder, hosts=True) as place:
        patient = place.connection.options(timeout=DOWN_S + SETTLED_S + 30)
        for _ in range(runs):
            with Load(place.ledger, patient, "proof.book", lanes=6, seconds=0.02) as load:
                load.more(20)
                for name in "ab":
                    place.kill(name)
                down, dialled = time.monotonic(), _dials(place)
                asked = time.monotonic()
                keys = [load.one(0.0, timeout=TIGHT_S) for _ in range(5)]
                waits += [load.told(key, TIGHT_S + 5) - asked for key in keys]
                time.sleep(max(0.0, down + DOWN_S - time.monotonic()))
                dials += [after - before for before, after in zip(dialled, _dials(place), strict=True)]
                started = time.monotonic()
                for name in "ab":
                    place.masters.start_master(name)
                load.more(1, SETTLED_S)
                backs.append(time.monotonic() - started)
                load.more(50)
                place.in_sync()
        if not all(TIGHT_S - 0.05 <= wait <= TIGHT_S + 0.5 for wait in waits):
            misses.append(f"calls with {TIGHT_S:g} s to wait ended after {min(waits):.2f} to {max(waits):.2f} s")
        figure = (
            f"{TIGHT_S:g} s to wait: {min(waits):.2f} to {max(waits):.2f}; {min(dials)} to {max(dials)} dials a node; "
        )
        figure += f"served {max(backs):.1f} s after their start"
        told = (*MAYBE, "Timeout", "Unavailable", "NotExecuted")
        return judged(f"both masters down for {DOWN_S:g} s", place, runs, figure, "resumes by itself", misses, told)


def _dials(place: Site) -> list[int]:
    """How many TCP connections each node has tried, agent and processes, so far."""
    lines = [place.hosts[name].run("grep", "^Tcp:", "/proc/net/snmp").splitlines() for name in place.masters.nodes]
    return [int(dict(zip(names.split(), values.split(), strict=True))["ActiveOpens"]) for names, values in lines]


def two_nodes(folder: Path, runs: int) -> Measured:
    """One of two nodes dies, and comes back; then it and the standby die, in either order."""
    misses, stalls = [], []
    with site(folder, nodes=("node-1", "node-2"), hosts=True) as place, place.load() as load:
        for run in range(runs):
            load.more(20)
            active, epoch = place.active()
            standby = place.other(active)
            for dying in (("node-1",), ("node-1", standby) if run % 2 else (standby, "node-1")):
                load.stall = 0.0
                for name in dying:
                    if name == standby:
                        place.kill(standby)
                    else:
                        place.masters.nodes[name].kill()
                    load.more(20)
                until = time.monotonic() + 4.0  # longer than promises, leases and the DEAD of a node
                while time.monotonic() < until:
                    load.more(10)
                stalls.append(load.stall)
                if place.active() != (active, epoch):
                    misses.append(f"the active master changed when {' and '.join(dying)} died")
                place.start_node("node-1")
                if standby in dying:
                    place.masters.start_master(standby)
                place.in_sync()
        load.stop()
        worst = max(stalls)
        figure = f"longest stall {worst:.2f} s"
        misses += [f"nothing was answered for {worst:.2f} s"] if worst > 1.0 else []
        return judged("one of two nodes dies; with the standby", place, runs, figure, "goes on", misses)


def detached(folder: Path, runs: int) -> Measured:
    """One of two nodes is detached for its update: it votes all the same."""
    gaps = []
    with site(folder, nodes=("node-1", "node-2"), hosts=True) as place, place.load() as load:
        for _ in range(runs):
            load.more(20)
            place.admin.drain("node-1", reason="update")
            load.more(20)
            name, epoch = place.active()
            at = place.kill(name)
            gaps.append(load.first_above(epoch) - at)
            place.masters.start_master(name)
            place.admin.rejoin("node-1")
            place.in_sync()
        load.stop()
        misses = over(gaps, MAX_LIMIT_S)
        return judged("one of two nodes detached, active killed", place, runs, took(gaps), "max 3.0 s", misses)


# ---- streams -------------------------------------------------------------------------------------------------------

ROUTES = ("/=site", "/old=old")
STREAMING = {
    "asgi": (1, "--service", "site", "--concurrency", "64"),
    "wsgi": (8, "--service", "old"),
    "proof": (1, "--concurrency", "8"),
}  # node, which has the name of its application → its processes, and how it is started


@contextmanager
def streaming(folder: Path, hosts: bool = False) -> Iterator[tuple[Site, Gateway]]:
    """A gateway at each master, and one of the client's own, which is there as long as the client."""
    with (
        site(folder, nodes=tuple(STREAMING), hosts=hosts, start=_start_streaming, http=ROUTES) as place,
        starting(folder) as start,
    ):
        routes = [word for route in ROUTES for word in ("--route", route)]
        own = start("gateway", "--bind", "127.0.0.1:*", "-m", ",".join(place.masters.both), *routes)
        place.admin.wait("ready", "site", "old", timeout=SETTLED_S)
        yield place, own.listening().ready()


def _start_streaming(place: Site, name: str) -> None:
    processes, *words = STREAMING[name]
    place.start_node(name, *words, app=f"{STREAMS_APP}:{name}", processes=processes)


def switch_amid_streams(place: Site, opened: Streams) -> None:
    opened.more(10)
    place.admin.switchover(reason="measured")
    opened.more(10)
    place.in_sync()


def kill_amid_streams(place: Site, opened: Streams) -> None:
    opened.more(10)
    name, _ = place.active()
    place.kill(name)
    opened.more(10)
    place.masters.start_master(name)
    place.in_sync()


def held(place: Site) -> int:
    """So many are in flight though all have ended `HELD_S` ago."""
    return 0 if eventually(lambda: not place.in_flight(), HELD_S) else place.in_flight()


def streams(folder: Path, runs: int) -> Measured:
    """To and fro, under streams at all gateways; then the active one is killed, under streams at the client's own, as a
    master's gateway dies with it.
    """
    with streaming(folder, hosts=True) as (place, own), Gets(own.port, "/whole", connections=2) as gets:
        doors = [f"127.0.0.1:{own.port}", *(place.masters.door(name) for name in "ab")]
        with Streams(place.ledger, place.masters.both, doors) as planned:
            for _ in range(runs):
                switch_amid_streams(place, planned)
        still = held(place)
        with Streams(place.ledger, place.masters.both, doors[:1] * 2) as killed:
            for _ in range(STREAM_KILLS):
                kill_amid_streams(place, killed)
        still += held(place)
        figure = f"{planned.begun + killed.begun} begun, {place.ledger.check().failed} broken; longest stall "
        figure += f"{planned.stall:.2f} s, killed {killed.stall:.2f} s; {still} in flight {HELD_S:g} s later"
        misses = [f"{still} in flight {HELD_S:g} s after the end"] if still else []
        for each, limit in ((planned, STALL_LIMIT_S), (killed, MAX_LIMIT_S)):
            misses += [f"{each.stalled} stood still for {each.stall:.2f} s"] if each.stall > limit else []
        misses += [f"plain GETs: {dict(gets.outcomes)}"] if set(gets.outcomes) != {200} else []
        limit = f"0 broken, 0 in flight; stall {STALL_LIMIT_S} s, {MAX_LIMIT_S} s"
        return judged("switched, killed under streams", place, runs, figure, limit, misses, told=())


# ---- in the middle of something ------------------------------------------------------------------------------------


def kill_amid_a_drain(place: Site, load: TimedLoad, seconds: float) -> tuple[float, list[str]]:
    """A node drains, and waits for a long request, when the active master is killed. Nobody says it again."""
    load.more(20)
    key, node = _long(place, load, seconds)
    done: list[object] = []
    draining = threading.Thread(target=_drain, args=(place, node, done), daemon=True)
    draining.start()
    until(lambda: place.node(node)["intent"] != "active")
    name, epoch = place.active()
    at = place.kill(name)
    gap = load.first_above(epoch) - at
    load.told(key)
    draining.join(SETTLED_S)
    misses = [] if done == ["done"] else [f"the drain ended with {done}"]
    state = place.node(node)
    if state["intent"] == "active" or state["processes"]:
        misses.append(f"{node} is not detached: {state['intent']}")
    if key not in place.ledger.told("answered"):
        misses.append(f"the request that ran at the time of the drain was not answered ({key})")
    place.masters.start_master(name)
    place.admin.rejoin(node)
    place.in_sync()
    return gap, misses


def mid_drain(folder: Path, runs: int) -> Measured:
    with site(folder, nodes=("node-1", "node-2"), hosts=True) as place, place.load() as load:
        found = [kill_amid_a_drain(place, load, 3.0) for _ in range(runs)]
        load.stop()
        gaps = [gap for gap, _ in found]
        misses = [miss for _, each in found for miss in each] + over(gaps, MAX_LIMIT_S)
        return judged("active killed amid a drain", place, runs, took(gaps), "goes on, max 3.0 s", misses)


def _long(place: Site, load: Load, seconds: float) -> tuple[str, str]:
    """A request that runs for so long: its key, and the node where."""
    key = load.one(seconds)
    until(lambda: key in {each.key for each in place.executions()})
    pid = next(each.pid for each in place.executions() if each.key == key)
    nodes = place.status()["nodes"]
    return key, next(n["name"] for n in nodes if pid in {process["pid"] for process in n["processes"]})


def _drain(place: Site, node: str, done: list[object]) -> None:
    try:
        with rota.Admin(place.masters.both) as admin:
            admin.drain(node, reason="update", timeout=SETTLED_S)
            done.append("done")
    except Exception as error:
        done.append(error)


def rolling(folder: Path, runs: int) -> Measured:
    """A deploy script drains, changes and takes back three nodes one by one; the active master is killed meanwhile."""
    with site(folder, hosts=True, start=_start_release) as place, place.load() as load:
        found = [
            kill_amid_a_deploy(place, load, run + 2, place.nodes[run % 3], back=run % 2 == 1) for run in range(runs)
        ]
        load.stop()
        gaps = [gap for gap, _ in found]
        misses = [miss for _, each in found for miss in each] + over(gaps, MAX_LIMIT_S)
        return judged("active killed amid a rolling update", place, runs, took(gaps), "goes on, max 3.0 s", misses)


def kill_amid_a_deploy(place: Site, load: TimedLoad, version: int, amid: str, back: bool) -> tuple[float, list[str]]:
    """`amid`: while this node drains; `back`: while it comes back."""
    load.more(20)
    script = _deploy(place, version)
    if back:
        until(lambda: _live(place, amid).resolve() == _release(place, version))
    else:
        until(lambda: place.node(amid).get("intent") != "active")
    name, epoch = place.active()
    at = place.kill(name)
    gap = load.first_above(epoch) - at
    said, _ = script.communicate(timeout=120)
    misses = [f"the deploy script ended with {script.returncode}: {said[-400:]}"] if script.returncode else []
    versions = {process["version"] for each in place.status()["nodes"] for process in each["processes"]}
    if versions != {str(version)}:
        misses.append(f"versions {', '.join(sorted(versions))} are served after the update to {version}")
    place.masters.start_master(name)
    place.in_sync()
    return gap, misses


def _deploy(place: Site, version: int) -> subprocess.Popen[str]:
    env = {**os.environ, "ROTA_MASTER": ",".join(place.masters.both), "TIMEOUT": "60"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    command = [str(EXAMPLES / "deploy.sh"), str(place.masters.folder), str(_release(place, version)), *place.nodes]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _start_release(place: Site, name: str) -> None:
    live = _live(place, name)
    live.parent.mkdir()
    live.symlink_to(_release(place, 1))
    place.start_node(name, "--app-dir", str(live), app="app:proof")


def _live(place: Site, name: str) -> Path:
    return place.masters.folder / name / "live"


def _release(place: Site, version: int) -> Path:
    made = place.masters.folder.resolve() / f"release-{version}"
    if not made.exists():
        made.mkdir()
        (made / "app.py").write_text(APP.read_text())
        (made / "VERSION").write_text(f"{version}\n")
    return made


# ---- partitions ----------------------------------------------------------------------------------------------------


def partitions(folder: Path, runs: int) -> Measured:
    """Between any two parts, one way or both, also while a master stands still; healed later."""
    chance = random.Random(1)
    gaps = []
    with site(folder, hosts=True) as place, place.load() as load:
        for _ in range(runs):
            cuts, stands = _cut(place, chance)
            time.sleep(chance.uniform(0.5, 3.5))
            for host in place.hosts.values():
                host.unmute()
            if stands:
                place.go_on(stands)
            healed = time.monotonic()
            try:
                load.more(20)
                gaps.append(time.monotonic() - healed)
                place.in_sync()
            except (AssertionError, rota.Error) as error:
                raise AssertionError(
                    f"run {len(gaps) + 1}, after {cuts}, {stands or 'none'} stopped: {error}"
                ) from error
        load.stop()
        epochs = {each.epoch for each in place.executions()}
        figure = f"{len(epochs)} epochs, {place.late()} begun late; 20 answers {took(gaps)} after they healed"
        return judged("partitions", place, runs, figure, "0 of two masters, 0 lower")


def _cut(place: Site, chance: random.Random) -> tuple[str, str]:
    """What was cut, and the master that was stopped."""
    everybody, active = list(place.hosts), place.active()[0]
    pairs = [chance.sample(everybody, 2) for _ in range(chance.choice((1, 1, 2, 3)))]
    others = [name for name in everybody if name != active]
    if chance.random() < 0.5:  # where it matters
        pairs.append([active, chance.choice(others)])
    elif chance.random() < 0.4:
        pairs = [[active, name] for name in others]
    stands = chance.choice("ab") if chance.random() < 0.2 else ""
    said = []
    for one, other in pairs:
        both = chance.random() < 0.5
        place.hosts[one].mute(place.hosts[other])
        if both:
            place.hosts[other].mute(place.hosts[one])
        said.append(f"{one} {'|' if both else '>'} {other}")
    if stands:
        place.stop(stands)
    return ", ".join(said), stands


class Scenario(NamedTuple):
    play: Callable[[Path, int], Measured]
    runs: int


SCENARIOS = {
    "killed": Scenario(killed, 50),
    "black_hole": Scenario(black_hole, 10),
    "switched": Scenario(switched, 20),
    "paused": Scenario(paused, 2),
    "standby_killed": Scenario(standby_killed, 2),
    "both_down": Scenario(both_down, 1),
    "two_nodes": Scenario(two_nodes, 2),
    "detached": Scenario(detached, 3),
    "streams": Scenario(streams, 10),
    "mid_drain": Scenario(mid_drain, 3),
    "rolling": Scenario(rolling, 3),
    "partitions": Scenario(partitions, 50),
}
