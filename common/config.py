"""The configuration in force: flag over ROTA_* variable over file over default.

`load` lays the entries of all sources over each other, builds the sections, and checks
together what only together is wrong. All mistakes are raised at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .declare import Rule, Setting, declared
from .entries import Entry, Found, Mistake, Place, Section, dotted
from .overrides import SINGLE, of_env, of_flags
from .settings import (
    OF_A_SERVICE,
    SECTIONS,
    HttpSettings,
    MasterSettings,
    NotifySettings,
    ServiceSettings,
    SlaveSettings,
    StandbySettings,
)
from .toml_file import of_file

_ORDER = ("file", "env", "flag", "default")
_DEFAULT = Place("default")


class ConfigErrors(Exception):
    """All that is wrong with a configuration; the file's mistakes first, by line."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda m: (_ORDER.index(m.place.source), m.place.line or 0))
        super().__init__("\n".join(map(str, self.mistakes)))


class Services(dict[str, ServiceSettings]):
    """The services that have a section; `services[name]` of any other is the defaults."""

    def __missing__(self, name: str) -> ServiceSettings:
        return ServiceSettings()


@dataclass(frozen=True)
class Config:
    """The sections that exist once, by their names, and those of which there may be several."""

    master: MasterSettings
    slave: SlaveSettings
    http: HttpSettings
    standby: StandbySettings
    services: Services
    notify: Mapping[str, NotifySettings]
    places: Mapping[str, Place]  # dotted key -> where its value stands, unless it is a default

    def effective(self) -> Iterator[Entry]:
        """Every setting in force, with its value and where that stands."""
        for section, values in self._sections():
            for setting in declared(type(values)).values():
                place = self.places.get(dotted(*section, setting.key), _DEFAULT)
                yield Entry(section, setting, getattr(values, setting.key), place)

    def _sections(self) -> Iterator[tuple[Section, Any]]:
        for name in SINGLE:
            yield (name,), getattr(self, name)
        for name, receiver in self.notify.items():
            yield ("notify", name), receiver
        for name, service in self.services.items():
            yield ("service", name), service
            for within in OF_A_SERVICE:
                yield ("service", name, within), getattr(service, within)


def load(
    path: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Config:
    """Read and check everything; raises ConfigErrors with all mistakes.

    `env` is os.environ unless given. `flags` maps "section.key" to a value of the setting's
    type, e.g. {"master.bind": "tcp://127.0.0.1:*", "slave.processes": 2}.
    """
    entries, mistakes = _in_force(_found(path, os.environ if env is None else env, flags or {}))
    config = _build(entries)
    mistakes += _broken_rules(config, {mistake.key for mistake in mistakes})
    if mistakes:
        raise ConfigErrors(mistakes)
    return config


def reloaded(running: Config, fresh: Config) -> tuple[Config, list[str]]:
    """What is in force after a HUP, and the changed settings that wait for a restart."""
    kept = {name: _waiting(getattr(running, name), getattr(fresh, name)) for name in SINGLE}
    sections = {name: replace(getattr(fresh, name), **values) for name, values in kept.items()}
    return replace(fresh, **sections), [f"{name}.{key}" for name, values in kept.items() for key in values]


def _found(path: str | os.PathLike[str] | None, env: Mapping[str, str], flags: Mapping[str, object]) -> Found:
    """Entries and mistakes of all sources, in rising precedence."""
    if path is not None:
        yield from of_file(os.fspath(path))
    yield from of_env(env)
    yield from of_flags(flags)


def _in_force(found: Found) -> tuple[dict[str, Entry], list[Mistake]]:
    """The last entry of each key. What is overridden must be right all the same."""
    entries: dict[str, Entry] = {}
    mistakes: list[Mistake] = []
    for item in found:
        if isinstance(item, Mistake):
            mistakes.append(item)
        else:
            entries[item.key] = item
    return entries, mistakes


def _build(entries: Mapping[str, Entry]) -> Config:
    values: dict[Section, dict[str, Any]] = {}
    for entry in entries.values():
        values.setdefault(entry.section, {})[entry.setting.key] = entry.value
    single: dict[str, Any] = {name: SECTIONS[name](**values.get((name,), {})) for name in SINGLE}
    return Config(
        **single,
        services=_services({key: own for key, own in values.items() if key[0] == "service"}),
        notify={key[1]: NotifySettings(**own) for key, own in values.items() if key[0] == "notify"},
        places={key: entry.place for key, entry in entries.items()},
    )


def _services(values: Mapping[Section, Mapping[str, Any]]) -> Services:
    """Made of the values of ("service", name) and of the sections within it."""
    built = Services()
    for name in dict.fromkeys(section[1] for section in values):
        own = dict(values.get(("service", name), {}))
        for each in OF_A_SERVICE:
            own[each] = SECTIONS[f"service.{each}"](**values.get(("service", name, each), {}))
        built[name] = ServiceSettings(**own)
    return built


def _broken_rules(config: Config, unread: set[str]) -> list[Mistake]:
    """A rule is left out when one of its two settings could not be read: one mistake, said once."""
    mistakes = []
    for section, values in config._sections():
        for rule in values.rules:
            keys = {dotted(*section, rule.key), dotted(*section, rule.other)}
            if not keys & unread and rule.broken(values):
                mistakes.append(_mistake(config, section, values, rule))
    return mistakes


def _mistake(config: Config, section: Section, values: Any, rule: Rule) -> Mistake:
    """Both values and both places, under the key that somebody set."""
    settings = declared(type(values))
    keys = dotted(*section, rule.key), dotted(*section, rule.other)
    places = [config.places.get(key, _DEFAULT) for key in keys]
    shown = [
        _value_and_place(settings[key], getattr(values, key), place)
        for key, place in zip((rule.key, rule.other), places, strict=True)
    ]
    at = places[1] if places[0] == _DEFAULT else places[0]
    return Mistake(at, keys[0], f"{rule.why} ({'; '.join(shown)})")


def _value_and_place(setting: Setting, value: Any, place: Place) -> str:
    where = "by default" if place == _DEFAULT else f"at {place}"
    return f"{setting.key} is {setting.kind.show(value) or 'not given'} {where}"


def _waiting(running: Any, fresh: Any) -> dict[str, Any]:
    """What stays as it is until a restart: key -> value."""
    return {
        setting.key: getattr(running, setting.key)
        for setting in declared(type(running)).values()
        if not setting.reload and getattr(running, setting.key) != getattr(fresh, setting.key)
    }
