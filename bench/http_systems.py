"""The HTTP servers that are compared, each with two processes of `http_app.py`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from . import proc
from .launch import ROOT, NotMeasured, free_ports, module
from .report import LARGE, AnyCell
from .systems import START, WORKERS, System, wait_for_port

HERE = ROOT / "bench"
SBIN = ("/usr/local/sbin", "/usr/sbin")  # not on the path of everybody
FAILED_MAX = 0.001  # of the requests: what fails is fast, so with more than a few the figures would say nothing


class Case(NamedTuple):
    title: str
    path: str
    body: int
    systems: tuple[str, ...]


CASES = {
    "wsgi": Case("trivial WSGI", "/", 0, ("rota", "haproxy-gunicorn", "uwsgi-router", "uwsgi-keepalive")),
    "asgi": Case("trivial ASGI", "/", 0, ("rota-asgi", "haproxy-uvicorn")),
    "echo": Case("POST of 64 KiB", "/", LARGE, ("rota", "haproxy-gunicorn", "uwsgi-router", "uwsgi-keepalive")),
    "cpu": Case("2 ms of CPU", "/cpu", 0, ("rota", "haproxy-gunicorn", "gunicorn")),
}


def debian(*commands: str) -> dict[str, str]:
    """Where these commands are. NotMeasured, with what to do, if one is missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *SBIN])
    found = {command: shutil.which(command, path=path) for command in commands}
    if missing := [command for command, place in found.items() if place is None]:
        names = " ".join(missing)
        raise NotMeasured(f"{' and '.join(missing)} must be installed first: sudo apt-get install -y {names}")
    return {command: str(place) for command, place in found.items()}


def script(name: str) -> str:
    """A command that a package of the extra `bench` brings."""
    place = Path(sys.executable).with_name(name)
    if not place.exists():
        raise NotMeasured(f"needs {name} (extra `bench`)")
    return str(place)


class HttpSystem(System):
    """A server that `wrk` asks. `closes`: after each answer, without a word, which wrk then calls a read error."""

    kind = "wrk"
    closes: ClassVar[bool] = False

    def start(self) -> None:
        self._port = self.serve_http()
        self._wait_until_it_answers()

    def serve_http(self) -> int:
        """Start everything; the port that it answers on."""
        raise NotImplementedError

    def takes(self, cell: AnyCell) -> bool:
        return self.name in CASES[cell.case].systems

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        """One run of wrk, and what of CPU each part took for a request."""
        self.family.check()
        case = CASES[order["case"]]
        command = [debian("wrk")["wrk"], "-t1", f"-c{order['connections']}", f"-d{max(1, round(order['seconds']))}s"]
        command += ["--timeout", "10s", "-s", str(HERE / "wrk.lua")]
        command += [f"http://127.0.0.1:{self._port}{case.path}", "--", str(case.body)]
        groups = self.groups()
        before = {name: proc.usage(pids) for name, pids in groups.items()}
        own = _children_s()
        found = _last_line(subprocess.run(command, capture_output=True, text=True))
        spent = {name: proc.usage(pids) - before[name] for name, pids in groups.items()}
        count = found["requests"]
        failed = found["status"] + found["timeout"] + (0 if self.closes else found["broken"])
        if failed > FAILED_MAX * count:
            raise NotMeasured(f"of {count} requests {failed} failed: {found}; log: {self.family.last_words()}")
        used = {name: each.all_threads / 1e3 / count for name, each in spent.items()}
        used["client"] = (_children_s() - own) * 1e6 / count
        return {**found, "per_second": count / found["seconds"], "cpu_us": used, "own_us": {}}

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            self.family.check()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise NotMeasured(f"no answer in {START:.0f} s; log: {self.family.last_words()}")


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        if found["requests"]:
            return found
    except (IndexError, ValueError):
        pass
    raise NotMeasured(f"wrk measured nothing: {run.stdout[-200:]}{run.stderr[-200:]}")


class Rota(HttpSystem):
    name = "rota"
    application: ClassVar[str] = "http_app:wsgi"
    settings = ""  # what rota.toml says

    def serve_http(self) -> int:
        first = free_ports(4)
        file = self.family.folder / "rota.toml"
        file.write_text(self.settings)
        command = module("rota", "run", self.application, "--app-dir", HERE, "-p", WORKERS)
        command += ["--bind", f"tcp://127.0.0.1:{first}", "--http", f"127.0.0.1:{first + 3}", "-c", str(file)]
        self._run = self.family.start(command)
        return first + 3

    def groups(self) -> dict[str, list[int]]:
        below = {_role(pid): [pid, *proc.descendants(pid)] for pid in proc.children(self._run.pid)}
        agent, *processes = below["slave"]
        return {"front": below["gateway"], "master": below["master"], "agent": [agent], "process": processes}


def _role(pid: int) -> str:
    """Which of its parts a child of `rota run` is, by its command line."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next((word for word in words if word in ("master", "slave", "gateway")), "other")


class RotaAsgi(Rota):
    name = "rota-asgi"
    application = "http_app:asgi"


class Gunicorn(HttpSystem):
    """With nothing before it: one address, two processes."""

    name = "gunicorn"

    def serve_http(self) -> int:
        port = free_ports(1)
        self._server = self.family.start(gunicorn(port, WORKERS))
        return port

    def groups(self) -> dict[str, list[int]]:
        return {"process": proc.descendants(self._server.pid)}


def gunicorn(port: int, processes: int) -> list[str]:
    script("gunicorn")
    command = module("gunicorn", "--chdir", HERE, "http_app:wsgi", "--bind", f"127.0.0.1:{port}")
    return [*command, "--workers", str(processes), "--worker-class", "sync", "--log-level", "warning"]


def uvicorn(port: int) -> list[str]:
    script("uvicorn")
    command = module("uvicorn", "--app-dir", HERE, "http_app:asgi", "--host", "127.0.0.1", "--port", port)
    return [*command, "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]


class BehindHaproxy(HttpSystem):
    """Two servers of one process each, behind HAProxy as its manual sets it up for HTTP."""

    def serve_http(self) -> int:
        haproxy = debian("haproxy")["haproxy"]
        first = free_ports(WORKERS + 1)
        ports = range(first + 1, first + 1 + WORKERS)
        self._servers = [self.family.start(self.server(port)) for port in ports]
        for port in ports:
            wait_for_port(port, self.family)
        settings = self.family.folder / "haproxy.cfg"
        servers = "".join(f"    server s{port} 127.0.0.1:{port}\n" for port in ports)
        settings.write_text(HAPROXY.format(port=first, servers=servers))
        self._haproxy = self.family.start([haproxy, "-db", "-f", str(settings)])
        return first

    def server(self, port: int) -> list[str]:
        raise NotImplementedError

    def groups(self) -> dict[str, list[int]]:
        processes = [pid for server in self._servers for pid in (server.pid, *proc.descendants(server.pid))]
        return {"front": [self._haproxy.pid, *proc.descendants(self._haproxy.pid)], "process": processes}


HAPROXY = """\
global
    maxconn 4096
defaults
    mode http
    option http-keep-alive
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch
frontend front
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance leastconn
{servers}"""


class HaproxyGunicorn(BehindHaproxy):
    name = "haproxy-gunicorn"

    def server(self, port: int) -> list[str]:
        return gunicorn(port, 1)


class HaproxyUvicorn(BehindHaproxy):
    name = "haproxy-uvicorn"

    def server(self, port: int) -> list[str]:
        return uvicorn(port)


class UwsgiRouter(HttpSystem):
    """uWSGI's HTTP router, at which two instances subscribe, as its manual starts it: it closes after each answer."""

    name = "uwsgi-router"
    closes = True
    options: ClassVar[list[str]] = []

    def serve_http(self) -> int:
        uwsgi = script("uwsgi")
        port = free_ports(2 + WORKERS)
        subscriptions, *sockets = (f"127.0.0.1:{port + offset}" for offset in range(1, 2 + WORKERS))
        usual = ["--master", "--need-app", "--disable-logging", "--listen", "1024", "--die-on-term"]
        router = [uwsgi, "--master", "--die-on-term", "--disable-logging", "--listen", "1024"]
        router += ["--http", f"127.0.0.1:{port}", "--http-subscription-server", subscriptions, *self.options]
        self._router = self.family.start(router)
        wait_for_port(port, self.family)
        instance = [uwsgi, *usual, "--chdir", str(HERE), "--module", "http_app:wsgi", "--processes", "1"]
        instance += ["--subscribe-to", f"{subscriptions}:127.0.0.1:{port}"]
        self._instances = [self.family.start([*instance, "--socket", socket]) for socket in sockets]
        return port

    def groups(self) -> dict[str, list[int]]:
        processes = [pid for one in self._instances for pid in (one.pid, *proc.descendants(one.pid))]
        return {"front": [self._router.pid, *proc.descendants(self._router.pid)], "process": processes}


class UwsgiKeepalive(UwsgiRouter):
    """Not what a floor is held against, but what it can do."""

    name = "uwsgi-keepalive"
    closes = False
    options: ClassVar[list[str]] = ["--http-keepalive=60"]


SYSTEMS: dict[str, type[HttpSystem]] = {
    kind.name: kind for kind in (Rota, RotaAsgi, HaproxyGunicorn, HaproxyUvicorn, UwsgiRouter, UwsgiKeepalive, Gunicorn)
}
