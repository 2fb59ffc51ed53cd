"""What `import rota` costs an application that already has zmq and msgpack: `python -m bench.import_time`.

Fresh interpreters, the two imports in turn, so that a slow moment of the machine hits both alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 11
LIMIT_MS = 80.0
BASE = "import zmq, msgpack"
OURS = f"{BASE}; import rota; rota.Worker, rota.Client"
UNWANTED = ("click", "rota.master", "rota.gateway", "rota.cli")
TIMED = "import time; start = time.perf_counter(); {}; print((time.perf_counter() - start) * 1e3)"
LOADED = "import sys; {}; print(*sys.modules)"


def interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().split("\n")[-1])
    return done.stdout


def unwanted(loaded: list[str]) -> list[str]:
    return [name for name in loaded if any(name == one or name.startswith(one + ".") for one in UNWANTED)]


def main() -> int:
    found = unwanted(interpreter(LOADED.format(OURS)).split())
    times: dict[str, list[float]] = {BASE: [], OURS: []}
    for _ in range(RUNS):
        for code, taken in times.items():
            taken.append(float(interpreter(TIMED.format(code))))
    base, ours = (statistics.median(taken) for taken in times.values())
    print(f"{BASE}: {base:.0f} ms; with rota {ours:.0f} ms", end="; ")
    print(f"rota adds {ours - base:.1f} ms (at most {LIMIT_MS:.0f}, median of {RUNS})")
    if found:
        print(f"must not be loaded: {', '.join(found)}")
    return 1 if found or ours - base > LIMIT_MS else 0


if __name__ == "__main__":
    sys.exit(main())
