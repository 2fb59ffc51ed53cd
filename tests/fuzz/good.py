"""A client that means well: calls all the time until its input ends, then tells how it fared as one line of JSON."""

from __future__ import annotations

import json
import select
import sys
import time

import rota


def main() -> None:
    calls = failures = 0
    stall = 0.0
    errors: dict[str, int] = {}
    with rota.Client(sys.argv[1]) as own:
        client = own.options(timeout=10)
        client.call("proof.pid")
        print("ready", flush=True)
        last = time.monotonic()
        while not select.select([sys.stdin], [], [], 0)[0]:
            calls += 1
            try:
                client.call("proof.pid")
            except rota.Error as error:
                failures += 1
                told = f"{type(error).__name__}: {error}"[:200]
                errors[told] = errors.get(told, 0) + 1
            now = time.monotonic()
            stall = max(stall, now - last)
            last = now
            time.sleep(0.002)
    print(json.dumps({"calls": calls, "failures": failures, "stall_ms": stall * 1000, "errors": errors}))


main()
