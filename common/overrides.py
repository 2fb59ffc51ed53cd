"""What lies over the file: ROTA_<SECTION>_<KEY> variables, and flags over those.

ROTA_MASTER, without a key, is no setting: it is the address that clients and operator commands
use. A slave node does not read it, so that an application that is a client of another cluster
cannot move its own node there.
"""

from __future__ import annotations

from collections.abc import Mapping

from .declare import NAMED, declared
from .entries import Found, Mistake, Place, read
from .names import alike, did_you_mean
from .settings import SECTIONS

SINGLE = [name for name in SECTIONS if name.partition(".")[0] not in NAMED]  # the sections that exist once
_SETTINGS = [setting for name in SINGLE for setting in declared(SECTIONS[name]).values()]
_BY_NAME = {setting.name: setting for setting in _SETTINGS}
_BY_ENV = {setting.env: setting for setting in _SETTINGS if setting.env}


def of_env(env: Mapping[str, str]) -> Found:
    """An empty variable counts as not set."""
    for name, text in env.items():
        setting = _BY_ENV.get(name)
        if setting is None:
            yield from _misspelt(name)
        elif text:
            place = Place("env", name)
            yield from read((setting.section,), setting, setting.kind.read_text, text, place)


def of_flags(flags: Mapping[str, object]) -> Found:
    """Of "section.key" -> value, as the command line or a Python caller has them."""
    for name, value in flags.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            hint = did_you_mean(name, _BY_NAME)
            yield Mistake(Place("flag", name), "", f"is not a setting{hint}")
        else:
            place = Place("flag", setting.flags[-1] if setting.flags else name)
            yield from read((setting.section,), setting, setting.kind.read, value, place)


def _misspelt(name: str) -> Found:
    """A variable that is nearly one of ours. Others are left alone: Kubernetes makes up
    ROTA_MASTER_PORT and ROTA_MASTER_SERVICE_HOST for a service that is called rota-master.
    """
    for section in SINGLE:
        prefix = f"ROTA_{section}_".upper()
        keys = [key.upper() for key in declared(SECTIONS[section])]
        meant = name.startswith(prefix) and alike(name.removeprefix(prefix), keys, cutoff=0.75)
        if meant:
            yield Mistake(Place("env", name), "", f"is not a setting; did you mean {prefix}{meant}?")
