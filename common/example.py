"""The `rota.toml` that `rota config init` writes: every setting, commented out, at its default."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .declare import Setting, declared
from .settings import SECTIONS, heading

_WIDTH = 98

_HEAD = """\
# Configuration of rota. Every line that is commented out shows its default.
# A flag wins over a ROTA_* variable, that over this file. Check it with: rota config check -c FILE
# Durations: "250ms", "30s", "5m", "1h". Sizes: "64KiB", "1MiB", "1GB".
"""

_HEADINGS = {"notify": "# [notify.ops]"}  # without a line below it, it is a mistake

# Settings without a default that TOML can say: what one might look like.
_SAMPLES = {
    "master.frontend": '"tcp://0.0.0.0:7701"',
    "master.backend": '"tcp://0.0.0.0:7702"',
    "master.advertise": '"master.example.com"',
    "master.name": '"master-1"',
    "master.state": '"/var/lib/rota/master"',
    "slave.app": '"shop.orders:orders"',
    "slave.name": '"web-1"',
    "slave.processes": "4",
    "slave.service": '"orders"',
    "slave.version": '"1.4.2"',
    "slave.python": '"/srv/orders/current/venv/bin/python"',
    "slave.state": '"/var/lib/rota/slave"',
    "slave.tags": '{ zone = "a" }',
    "http.bind": '"0.0.0.0:8080"',
    "http.trusted_proxies": '["10.0.0.0/8"]',
    "standby.backup_of": '["tcp://primary.example.com:7700"]',
    "standby.address": '"tcp://backup.example.com:7700"',
    "standby.on_takeover": '["run ip address add 10.0.0.9/24 dev eth0", "stop reports"]',
    "standby.on_return": '["run ip address del 10.0.0.9/24 dev eth0", "start reports"]',
    "notify.to": '["ops@example.com"]',
    "notify.user": '"rota"',
    "notify.password_file": '"/etc/rota/password"',
    "service.http.routes": '["/", "api.example.com/v1"]',
    "service.http.retry_methods": '["PUT", "DELETE"]',
    "service.weights": "{ web-1 = 2 }",
    "service.health.port": '"127.0.0.1:5432"',
    "service.health.handler": '"quote"',
    "service.health.args": '{ symbol = "X" }',
    "service.health.expect": '"well"',
}


def example() -> str:
    return _HEAD + "".join(_section(name) for name in SECTIONS)


def _section(name: str) -> str:
    settings = "".join("\n" + _setting(item) for item in declared(SECTIONS[name]).values())
    head = _HEADINGS.get(name) or heading(name, "orders")
    return f"\n# {SECTIONS[name].__doc__}\n{head}\n{settings}"


def _setting(setting: Setting) -> str:
    lines = textwrap.wrap(f"{setting.what} ({setting.why})", _WIDTH - 2, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in [*lines, *_values(setting)])


def _values(setting: Setting) -> Iterator[str]:
    sample = _SAMPLES.get(setting.name)
    if sample is None:
        yield f"{setting.key} = {setting.show_default()}"
    else:
        yield f"{setting.key} = {sample}  # default: {setting.show_default()}"
