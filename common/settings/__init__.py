"""Every setting of rota, declared once: type, default, what it is, why it is so. A file a section.

Durations are seconds (float), sizes bytes (int), in Python. `common/config.py` fills these
sections from flags, environment and file; `docs/CONFIG.md` is generated from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from ..declare import NAMED
from .fault import FaultSettings
from .health import DUMMY, HEARTBEAT, PORT, REQUEST, HealthSettings
from .http import COMMON, FORWARDED, JSON, OFF, X_FORWARDED, HttpSettings, ServiceHttpSettings
from .master import MasterSettings
from .notify import NotifySettings
from .service import LEAST_LOADED, ROUND_ROBIN, ServiceSettings
from .slave import SlaveSettings
from .standby import AGENTS, ANY, BACKUP, MAJORITY, PRIMARY, StandbySettings

__all__ = [
    "AGENTS",
    "ANY",
    "BACKUP",
    "COMMON",
    "DUMMY",
    "FORWARDED",
    "HEARTBEAT",
    "JSON",
    "LEAST_LOADED",
    "MAJORITY",
    "OFF",
    "OF_A_SERVICE",
    "PORT",
    "PRIMARY",
    "REQUEST",
    "ROUND_ROBIN",
    "SECTIONS",
    "X_FORWARDED",
    "FaultSettings",
    "HealthSettings",
    "HttpSettings",
    "MasterSettings",
    "NotifySettings",
    "ServiceHttpSettings",
    "ServiceSettings",
    "Settings",
    "SlaveSettings",
    "StandbySettings",
    "class_of",
    "heading",
]

Settings = (
    MasterSettings
    | SlaveSettings
    | HttpSettings
    | StandbySettings
    | NotifySettings
    | ServiceSettings
    | HealthSettings
    | FaultSettings
    | ServiceHttpSettings
)

SECTIONS: Mapping[str, type[Settings]] = {section.section: section for section in get_args(Settings)}
OF_A_SERVICE = tuple(name.partition(".")[2] for name in SECTIONS if name.startswith("service."))  # sections within it


def heading(name: str, whose: str = "NAME") -> str:
    """The section as it stands in a file: `[service.NAME.fault]`."""
    first, *rest = name.split(".")
    return f"[{'.'.join([first, *([whose] if first in NAMED else []), *rest])}]"


def class_of(section: Sequence[str]) -> type[Settings]:
    """The class of a section, given its path in a file, such as ("service", "orders", "fault")."""
    return SECTIONS[".".join((section[0], *section[2:]))]
