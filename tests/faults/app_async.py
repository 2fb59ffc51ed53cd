"""Async handlers with a limit: one that can be cancelled, and one that will not hear of it."""

import asyncio
import os
import sys
from pathlib import Path

import rota

sys.path.append(str(Path(__file__).resolve().parent.parent))

from system.app import note

proof = rota.Worker("proof")


@proof.handler(timeout=0.5)
async def book(ctx: rota.Context, key: str, seconds: float = 0.0, stubborn: bool = False) -> list[object]:
    note("began", key)
    while True:
        try:
            await asyncio.sleep(seconds)
            break
        except asyncio.CancelledError:
            note("cancelled", f"of-{key}")
            if not stubborn:
                raise
    note("ended", key)
    return [key, os.getpid(), ctx.version]
