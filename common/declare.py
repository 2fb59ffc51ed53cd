"""How a setting is declared: once, as a field of its section's dataclass, a `Section`.

File key, flag, environment variable, check, example file and reference page all follow from
that one line. A section is such a dataclass with a ClassVar `section`, its name in the file; a
field that is `nested` is a section within it, "service.fault" for [service.NAME.fault].
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .kinds import Kind
from .names import did_you_mean

_METADATA = "setting"
NAMED = ("service", "notify")  # sections of which a file may have several, each with a name


@dataclass(frozen=True)
class Computed:
    """A default that is known only on the machine, with the words that describe it."""

    make: Callable[[], Any]
    words: str


@dataclass(frozen=True)
class Setting:
    section: str
    key: str
    kind: Kind
    default: Any  # the value, or a Computed
    what: str  # what it is: the help text of a flag
    why: str  # why this default, or what breaks with another
    flags: tuple[str, ...]  # "-m", "--master"; a name without a dash is a positional argument
    reload: bool  # a HUP changes it; otherwise it waits for a restart

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def env(self) -> str | None:
        """ROTA_<SECTION>_<KEY>. None for a service: its name may not be fit for a variable."""
        return None if self.section.partition(".")[0] in NAMED else f"ROTA_{self.section}_{self.key}".upper()

    def show_default(self) -> str:
        """The default as TOML, or in words where the machine decides or there is none."""
        if isinstance(self.default, Computed):
            return self.default.words
        return self.kind.show(self.default) or "none"


@dataclass(frozen=True)
class Rule:
    """A condition between two settings of a section; `broken` is given the whole section."""

    key: str
    other: str
    broken: Callable[[Any], bool]
    why: str  # the rest of a sentence: "must ..., because ..."


class Section:
    """Base of all sections: frozen, made of keyword arguments, compared and shown field by field.

    `@dataclass` would generate these methods as source text for each section and compile it at each start of any
    process, which would be the largest part of importing the sections.
    """

    __slots__ = ()

    needs: ClassVar[tuple[str, str]] = ("", "")  # a key without which a section is a mistake, and what it must say
    rules: ClassVar[tuple[Rule, ...]] = ()
    reloads: ClassVar[bool] = True  # whether a HUP changes its settings, where one does not say otherwise

    def __init__(self, **given: Any) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.name in given:
                value = given.pop(field.name)
            elif field.default_factory is not dataclasses.MISSING:
                value = field.default_factory()
            else:
                value = field.default
            object.__setattr__(self, field.name, value)
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise dataclasses.FrozenInstanceError(f"{type(self).__name__}.{name} stays as it is")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        )

    __hash__ = None  # type: ignore[assignment]  # some have tables

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{each.name}={getattr(self, each.name)!r}' for each in fields)})"


def setting(
    default: Any,
    kind: Kind,
    what: str,
    why: str,
    *,
    flags: tuple[str, ...] = (),
    reload: bool | None = None,
) -> Any:
    """A field of a section. `Any`, as dataclasses.field is: the annotation has the type. `reload` None: as its section
    has it.
    """
    about = {_METADATA: (kind, default, what, why, flags, reload)}
    if isinstance(default, Computed):
        return dataclasses.field(default_factory=default.make, metadata=about)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def nested(section: type[Any]) -> Any:
    """A field that is a section of its own."""
    return dataclasses.field(default_factory=section)


def declared(section: type[Any]) -> dict[str, Setting]:
    """key -> Setting, in the order of declaration; without those of sections within it."""
    fields = (field for field in dataclasses.fields(section) if _METADATA in field.metadata)
    return {field.name: _of_field(section, field) for field in fields}


def given(section: type[Any], allowed: Collection[str], options: Mapping[str, object]) -> dict[str, Any]:
    """What a program says of these settings, checked as a file is; None, and what is not there, has its default.
    TypeError for another name, ValueError for a value that cannot be.
    """
    settings, found = declared(section), {}
    for name, value in options.items():
        if name not in allowed:
            hint = did_you_mean(name, allowed) or f"; there are {', '.join(allowed)}"
            raise TypeError(f"there is no option {name!r}{hint}")
        if value is not None:
            try:
                found[name] = settings[name].kind.read(os.fspath(value) if isinstance(value, os.PathLike) else value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
    return found


def _of_field(section: type[Any], field: dataclasses.Field[Any]) -> Setting:
    kind, default, what, why, flags, reload = field.metadata[_METADATA]
    reload = section.reloads if reload is None else reload
    return Setting(section.section, field.name, kind, default, what, why, flags, reload)
