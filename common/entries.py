"""What every source of settings yields: an Entry for a value that was read, or a Mistake.

An entry's value has been checked and is of its setting's type. Nothing here, and no source,
raises for what a user wrote: all mistakes are to be listed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from .declare import Setting
from .kinds import BadItems, toml_key

Section = tuple[str, ...]  # ("master",), ("service", "orders")
Lines = Mapping[tuple[str, ...], int]
NO_LINES: Lines = MappingProxyType({})


@dataclass(frozen=True)
class Place:
    """Where a value stands. `name` is the file, the variable or the flag."""

    source: Literal["file", "env", "flag", "default"]
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.name}:{self.line}"
        return self.name or self.source


@dataclass(frozen=True)
class Mistake:
    place: Place
    key: str  # dotted, as in the file; empty when no key is to blame
    message: str  # the rest of a sentence about the key, or about the place

    def __str__(self) -> str:
        return f"{self.place}: {self.key} {self.message}" if self.key else f"{self.place}: {self.message}"

    @property
    def file(self) -> str | None:
        return self.place.name if self.place.source == "file" else None

    @property
    def line(self) -> int | None:
        return self.place.line


@dataclass(frozen=True)
class Entry:
    section: Section
    setting: Setting
    value: Any
    place: Place

    @property
    def key(self) -> str:
        return dotted(*self.section, self.setting.key)


Found = Iterator[Entry | Mistake]


def dotted(*path: str) -> str:
    """The path as TOML writes it: `service."a b".credit`."""
    return ".".join(map(toml_key, path))


def read(
    section: Section,
    setting: Setting,
    convert: Callable[[Any], Any],
    value: object,
    place: Place,
    lines: Lines = NO_LINES,
) -> Found:
    """One entry, or what is wrong with it; entries of a table may have lines of their own."""
    path = (*section, setting.key)
    try:
        yield Entry(section, setting, convert(value), place)
    except BadItems as error:
        for item, problem in error.problems.items():
            line = lines.get((*path, item), place.line)
            yield Mistake(replace(place, line=line), dotted(*path, item), problem)
    except ValueError as error:
        yield Mistake(place, dotted(*path), str(error))
