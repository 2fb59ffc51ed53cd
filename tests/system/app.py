"""The application that the proofs serve. Whatever its handlers do, they append to the file that PROOF_FILE names."""

import os
import time

import rota

proof = rota.Worker("proof")


def note(word: str, key: str) -> None:
    """One write a line: appended whole, also by a process that is killed right after it."""
    line = f"{word} {key} {os.getpid()} {time.time()}\n"
    with open(os.environ["PROOF_FILE"], "ab", buffering=0) as file:
        file.write(line.encode())


def run(key: str, seconds: float, version: str) -> list[object]:
    note("began", key)
    if seconds:
        time.sleep(seconds)
    note("ended", key)
    return [key, os.getpid(), version]


@proof.handler
def book(ctx: rota.Context, key: str, seconds: float = 0.0) -> list[object]:
    return run(key, seconds, ctx.version)


@proof.handler(idempotent=True)
def quote(ctx: rota.Context, key: str, seconds: float = 0.0) -> list[object]:
    return run(key, seconds, ctx.version)


@proof.handler(timeout=0.3)
def hang(key: str) -> None:
    note("began", key)
    while True:
        time.sleep(1)


@proof.handler
def big(size: int) -> bytes:
    return bytes(size)


@proof.handler
def measure(data: bytes) -> int:
    return len(data)


@proof.handler
def pid() -> int:
    return os.getpid()
