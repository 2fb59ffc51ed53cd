"""A `rota.toml`, told apart into entries and mistakes, each with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli

from .declare import NAMED, declared
from .entries import Found, Lines, Mistake, Place, Section, dotted, read
from .kinds import Name
from .names import did_you_mean
from .settings import OF_A_SERVICE, SECTIONS, class_of, heading
from .toml_lines import key_lines

FILE_MAX = 1 << 20  # a configuration is a few KiB; what is larger is some other file

_KNOWN = [heading(name) for name in SECTIONS]


def of_file(path: str) -> Found:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MAX + 1)
    except OSError as error:
        yield Mistake(Place("file", path), "", f"cannot be read: {error.strerror or error}")
        return
    if len(data) > FILE_MAX:
        yield Mistake(Place("file", path), "", f"is larger than {FILE_MAX} bytes")
        return
    yield from _of_bytes(path, data)


def _of_bytes(path: str, data: bytes) -> Found:
    try:
        # as tomli.load does; a lone carriage return is left for the parser to refuse
        text = data.decode("utf-8").replace("\r\n", "\n")
        document = tomli.loads(text)
        lines = key_lines(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Mistake(Place("file", path, line), "", "is not UTF-8")
    except tomli.TOMLDecodeError as error:
        place = Place("file", path, error.lineno)
        yield Mistake(place, "", f"is not TOML: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; 1,000 brackets
        yield Mistake(Place("file", path), "", f"is not TOML that can be read: {error}")
    else:
        yield from _Document(path, lines).entries(document)


@dataclass(frozen=True)
class _Document:
    path: str
    lines: Lines

    def entries(self, document: Mapping[str, Any]) -> Found:
        for name, value in document.items():
            if name in NAMED:
                yield from self._named(name, value)
            elif name in SECTIONS:
                yield from self._section((name,), value)
            else:
                yield self._mistake((name,), _unknown_section(name, value))

    def _named(self, kind: str, sections: object) -> Found:
        if not isinstance(sections, dict):
            yield self._mistake((kind,), f"must be a section, [{kind}.NAME]")
            return
        for name, value in sections.items():
            problem = _bad_name(kind, name, value)
            if problem:
                yield self._mistake((kind, name), problem)
            else:
                yield from self._section((kind, name), value)
                key, what = class_of((kind, name)).needs
                if key and isinstance(value, dict) and key not in value:
                    yield self._mistake((kind, name), what)

    def _section(self, section: Section, values: object) -> Found:
        if not isinstance(values, dict):
            yield self._mistake(section, f"must be a section, [{dotted(*section)}]")
            return
        for key, value in values.items():
            if key in _within(section):
                yield from self._section((*section, key), value)
            else:
                yield from self._entry(section, key, value)

    def _entry(self, section: Section, key: str, value: object) -> Found:
        path = (*section, key)
        setting = declared(class_of(section)).get(key)
        if setting is None:
            yield self._mistake(path, _unknown_key(section, key))
        else:
            yield from read(section, setting, setting.kind.read, value, self._place(path), self.lines)

    def _mistake(self, path: Section, message: str) -> Mistake:
        return Mistake(self._place(path), dotted(*path), message)

    def _place(self, path: Section) -> Place:
        return Place("file", self.path, self.lines.get(path))


def _bad_name(kind: str, name: str, value: object) -> str:
    """What is wrong with this entry of [service] or [notify], if anything."""
    one, such_as = ("service", "orders") if kind == "service" else ("receiver", "ops")
    if name in declared(SECTIONS[kind]) and not isinstance(value, dict):
        return f"is a setting of one {one}: put it into a section such as [{kind}.{such_as}]"
    try:
        Name().read(name)
    except ValueError as error:
        return f"names a {one}, which {error}"
    return ""


def _unknown_section(name: str, value: object) -> str:
    known = f"; the sections are {', '.join(heading(each) for each in SECTIONS if '.' not in each)}"
    if isinstance(value, dict):
        return "is not a section" + did_you_mean(name, SECTIONS) + known
    homes = _sections_with(name)
    if homes:
        return f"stands in no section; it is a setting of {' and '.join(homes)}"
    return "stands in no section, and is no setting" + known


def _unknown_key(section: Section, key: str) -> str:
    homes = _sections_with(key)
    if homes:
        return f"is not a setting of [{dotted(*section)}] but of {' and '.join(homes)}"
    return "is not a setting" + did_you_mean(key, [*declared(class_of(section)), *_within(section)])


def _within(section: Section) -> Sequence[str]:
    """The sections that may stand in this one."""
    return OF_A_SERVICE if section[0] == "service" and len(section) == 2 else ()


def _sections_with(key: str) -> list[str]:
    return [heading for heading, cls in zip(_KNOWN, SECTIONS.values(), strict=True) if key in declared(cls)]
