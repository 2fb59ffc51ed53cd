"""Real engines from Debian's packages, each on a free port, with its data in a directory of its own.

python tests/servers/engines.py    says what is missing, with the line that installs it
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from free_ports import free_port, free_ports

PATIENCE_S = 30.0


class Etcd:
    name = "etcd"
    package = "etcd-server"

    def __init__(self, folder: Path) -> None:
        self.port, self._peers = free_ports(2)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> bool:
        return shutil.which("etcd") is None

    def address(self, host: str = "127.0.0.1") -> str:
        return f"etcd://{host}:{self.port}/test"

    def start(self) -> None:
        mine, peers = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self._peers}"
        words = ["etcd", "--name", "one", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync"]
        words += ["--listen-client-urls", mine, "--advertise-client-urls", mine, "--initial-cluster", f"one={peers}"]
        words += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        with (self._folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        wait_until(lambda: self._is_healthy(mine), f"nobody listens at {mine}, or it has not elected itself")

    @staticmethod
    def _is_healthy(url: str) -> bool:
        with urlopen(f"{url}/health", timeout=1.0) as answer:
            return json.load(answer)["health"] == "true"

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class Postgres:
    name = "postgresql"
    package = "postgresql"

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._data = folder / "postgres"
        if os.getuid() == 0:  # as which the server refuses to run; and folders of tests are for their owner only
            self._data = Path(tempfile.mkdtemp(prefix="rota-postgres-"))
            shutil.chown(self._data, "postgres")
            weakref.finalize(self, shutil.rmtree, self._data)
        self._running = False

    @staticmethod
    def missing() -> bool:
        return not _programs()

    def address(self, host: str = "127.0.0.1") -> str:
        return f"postgresql://rota@{host}:{self.port}/postgres"

    def start(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._run("initdb", "-D", str(self._data), "-U", "rota", "-A", "trust", "-N", "--no-locale")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        log = str(self._data / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-o", options, "-w", "-t", "30", "start")
        self._running = True

    def stop(self) -> None:
        if self._running:
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        self._running = False

    def _run(self, program: str, *words: str) -> None:
        command: list[str] = [str(_programs()[-1] / program), *words]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()


Engine = Etcd | Postgres
ENGINES: Sequence[type[Etcd] | type[Postgres]] = (Etcd, Postgres)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    by = monotonic() + PATIENCE_S
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        assert monotonic() < by, what
        sleep(0.02)


def _programs() -> list[Path]:
    """Debian keeps each version's programs in a folder of its own."""
    return sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def main() -> int:
    missing = [engine.package for engine in ENGINES if engine.missing()]
    if missing:
        print(f"real servers are missing: apt-get install -y --no-install-recommends {' '.join(missing)}")
    return bool(missing)


if __name__ == "__main__":
    sys.exit(main())
