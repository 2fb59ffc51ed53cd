"""What the fault lab serves: handlers that come to harm on demand, once, so that a second run of the same call is well.

They write down what they run as those of `tests/system/app.py` do.
"""

import ctypes
import itertools
import os
import re
import resource
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import rota

sys.path.append(str(Path(__file__).resolve().parent.parent))

from system.app import note

proof = rota.Worker("proof")

LONG_S = 600.0
LIMIT_S = 0.5
MIB = 1 << 20


def wait(key: str) -> None:
    time.sleep(LONG_S)


def exit_at_once(key: str) -> None:
    os._exit(3)


def segfault(key: str) -> None:
    ctypes.string_at(0)


def close_descriptors(key: str) -> None:
    """libzmq ends the process when it is given the answer, which stands in the page by then."""
    os.closerange(3, 4096)


def eat(key: str) -> None:
    """All the memory: of the group that the lab has made, or else up to a limit of its own."""
    if "MEMORY_GROUP" not in os.environ:
        resource.setrlimit(resource.RLIMIT_AS, (1024 * MIB, resource.RLIM_INFINITY))
    hoard = []
    while True:
        hoard.append(b"x" * (16 * MIB + len(hoard)))


def shield(key: str) -> None:
    """Deaf to TERM, with a child and a grandchild that are too. Their pids are written down."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(2):
        if os.fork():
            break
        note("child", f"of-{key}")
    while True:  # sleep() ends early when a signal is handled
        time.sleep(LONG_S)


def speak(key: str) -> None:
    print("x" * 4096, flush=True)


def regex(key: str) -> None:
    """Never lets go of the interpreter lock."""
    re.match(r"(a+)+$", "a" * 64 + "b")


def loop_in_c(key: str) -> None:
    sum(itertools.repeat(1))


def deadlock(key: str) -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire()


HARMS: dict[str, Callable[[str], None]] = {
    each.__name__: each
    for each in (
        wait,
        exit_at_once,
        segfault,
        close_descriptors,
        eat,
        shield,
        speak,
        regex,
        loop_in_c,
        deadlock,
    )
}


def run(ctx: rota.Context, key: str, seconds: float, harm: str) -> list[object]:
    note("began", key)
    if harm and ctx.attempt == 1:
        HARMS[harm](key)
    if seconds:
        time.sleep(seconds)
    if harm != close_descriptors.__name__:  # our file would get the number of one of libzmq's
        note("ended", key)
    return [key, os.getpid(), ctx.version]


@proof.handler
def book(ctx: rota.Context, key: str, seconds: float = 0.0, harm: str = "") -> list[object]:
    return run(ctx, key, seconds, harm)


@proof.handler(idempotent=True)
def quote(ctx: rota.Context, key: str, seconds: float = 0.0, harm: str = "") -> list[object]:
    return run(ctx, key, seconds, harm)


@proof.handler(timeout=LIMIT_S)
def limited(ctx: rota.Context, key: str, harm: str) -> list[object]:
    return run(ctx, key, 0.0, harm)


@proof.handler(idempotent=True)
def sealed(key: str, data: bytes, seal: int) -> list[object]:
    """Bodies are the application's: whoever does not trust the wire seals them."""
    if seal != zlib.crc32(data, zlib.crc32(key.encode())):
        raise ValueError("the seal is broken")
    note("began", key)
    return [key, data, seal]
