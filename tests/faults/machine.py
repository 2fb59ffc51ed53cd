"""Faults of the machine: a full disk, a clock that jumps, no descriptors left."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from system.pool import Pool

import rota

from .play import APP, Callers, NotPlayed, Outcome, agent, at_start, cpu, events, fault, fd_count, gone, master, whole

DISK_BYTES = 4 << 20
DAY_S = 86400.0
ROOM = 6  # descriptors beyond those that are open
CROWD = 40


@fault("disk full for the journal")
def full_journal(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Dispatch goes on; what must be durable is refused and the alarm is shown; with room again, a restart mends it."""
    misses: list[str] = []
    with ExitStack() as stack:
        try:
            disk: Path | None = stack.enter_context(small_disk(folder / "disk"))
        except NotPlayed:
            disk = None
        state = (disk or folder) / "state"
        with Pool(folder, app=APP, nodes=2, processes=2, state=state) as pool, pool.admin() as admin:
            with Callers(pool) as callers:
                for _ in range(min(rounds, 3)):
                    make_room = exhaust(disk, state, master(pool))
                    refused = refusal(admin)
                    if "journal" not in refused:
                        misses.append(f"on a full disk a change was told: {refused or 'accepted'}")
                    if not pool.status()["master"]["alarms"]:
                        misses.append("no alarm")
                    callers.more(50)
                    make_room()
                    pool.restart_master()
                    with suppress(rota.Error):
                        admin.rejoin("node-1")
                    admin.drain("node-1", timeout=10)
                    admin.rejoin("node-1", timeout=10)
                    callers.more()
    how = "a file size limit (EFBIG)" if disk is None else "ENOSPC on a tmpfs"
    return callers.outcomes(title, misses=misses, figure=f"{how}; told: {refused}")


def exhaust(disk: Path | None, state: Path, pid: int) -> Callable[[], None]:
    """No more room for the journal; answers what makes room again for the next master."""
    if disk is not None:
        return fill(disk).unlink
    size = (state / "journal").stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
    return lambda: None


def refusal(admin: rota.Admin) -> str:
    """What the operator is told in the end: the last block of the journal has room for some more records."""
    for number in range(500):
        try:
            admin.scale("proof", 1000 + number)
        except rota.Error as error:
            return str(error)
    return ""


@fault("disk full for logs and output")
def full_log(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """What cannot be written down is not written down; everybody is served on."""
    misses: list[str] = []
    with small_disk(folder / "disk") as disk, temporary_files_in(disk):
        with Pool(folder, app=APP, nodes=2, processes=2, env={"TMPDIR": str(disk)}) as pool:
            with Callers(pool) as callers:
                children = {"master": master(pool), "the agent": agent(pool, "node-1")}
                for _ in range(min(rounds, 3)):
                    filler = fill(disk)
                    for log in disk.rglob("*.log"):
                        fill_up(log)
                    os.kill(master(pool), signal.SIGHUP)  # it writes that it has read its configuration again
                    os.kill(pool.processes("node-1")[0], signal.SIGKILL)  # its agent writes how it ended
                    callers.more(50)
                    misses += [f"{name} ended" for name, pid in children.items() if gone([pid], 0) is not None]
                    filler.unlink()
                    whole(pool)
                    callers.more()
                spoken = [load.one(0.0, "speak") for load in callers.both]
                for load, key in zip(callers.both, spoken, strict=True):
                    load.told(key)
    return callers.outcomes(title, figure="ENOSPC on a tmpfs, for stderr of all and for their TMPDIR", misses=misses)


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of its own that is quickly full."""
    libc = ctypes.CDLL(None, use_errno=True)
    place.mkdir()
    if libc.mount(b"rota-faults", bytes(place), b"tmpfs", 0, f"size={DISK_BYTES}".encode()):
        raise NotPlayed(f"a small file system cannot be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        if libc.umount2(bytes(place), 2):  # MNT_DETACH: whoever still has a file open keeps it
            raise OSError(ctypes.get_errno(), f"{place} cannot be unmounted")


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
    return filler


def fill_up(file: Path) -> None:
    """A full disk has no blocks left; the last block of a file may still have room."""
    with file.open("ab", buffering=0) as appended, suppress(OSError):
        while True:
            appended.write(b"\n")


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@fault("wall clock: a day ahead, a day back, ten years")
def clock_jump(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Nothing is decided by it but reload_at. Moved in each Python process of ours (`site/`), not on the machine."""
    file = folder / "clock"
    file.write_text("0")
    with Pool(folder, app=APP, nodes=2, processes=2, env=at_start(CLOCK_FILE=str(file))) as pool:
        before = set(pool.processes())
        with Callers(pool) as callers:
            for shift in (DAY_S, -DAY_S, 3650 * DAY_S, -3650 * DAY_S, 0.0) * min(rounds, 2):
                file.write_text(str(shift))
                callers.steady(1.0)
                newest = newest_event(pool)
                assert abs(newest - time.time() - shift) < 60, "the clock of the master was not moved"
        misses = [] if before == set(pool.processes()) else ["processes were replaced"]
        misses += [f"{event['subject']} was called DEAD" for event in events(pool, "DEAD")]
    return callers.outcomes(title, told=(), figure="time.time() of every process; not the kernel's", misses=misses)


def newest_event(pool: Pool) -> float:
    """The time of day of what the master has just told: that a service's size was changed."""
    with pool.admin() as admin:
        for size in (1000, 1001):  # there is no room for more, so nothing changes
            admin.scale("proof", size)
        return float(list(admin.events())[-1]["at"])


@fault("no descriptors left for the master")
def no_descriptors(folder: Path, rounds: int, title: str) -> list[Outcome]:
    """Those who are connected are served on; whoever came meanwhile is let in when there is room again."""
    misses: list[str] = []
    with Pool(folder, app=APP, nodes=2, processes=2) as pool:
        pid = master(pool)
        with Callers(pool) as callers:
            callers.more()
            for _ in range(min(rounds, 3)):
                before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (fd_count(pid) + ROOM, 20000))
                crowd = [knock(pool) for _ in range(CROWD)]
                late = pool.client(timeout=SETTLED_S)
                waiting = late.submit("proof.quote", key := f"late-{len(callers.idempotent.keys)}-{time.monotonic()}")
                pool.ledger.submitted(key)
                callers.steady(2.0)
                if gone([pid], 0) is not None:
                    misses.append("the master ended")
                    break
                spent = cpu(pid)
                resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
                for each in crowd:
                    each.close()
                pool.ledger.answered(key, waiting.result(SETTLED_S))
                callers.more()
    figure = f"{CROWD} connections for {ROOM} descriptors; the master at {spent:.0%} of a core meanwhile"
    return callers.outcomes(title, told=(), figure=figure, misses=misses)


SETTLED_S = 20.0


def knock(pool: Pool) -> socket.socket:
    host, _, port = pool.address.removeprefix("tcp://").rpartition(":")
    sock = socket.socket()
    sock.setblocking(False)
    with suppress(BlockingIOError):
        sock.connect((host, int(port)))
    return sock
