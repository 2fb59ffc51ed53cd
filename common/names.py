"""Names of nodes, services, handlers and versions, and how to guess which one was meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .limits import NAME_MAX

NEAREST_MAX = 3
_VERSION_MAX = 64  # characters; it stands in tables, labels and file names
OF_HTTP = ("http", "http-safe", "websocket")  # handlers of gateways; they trust what a call says of its HTTP client
NAME_FORM = f"1 to {NAME_MAX} ASCII letters, digits, '_', '-' or '.', not starting with '-' or '.'"
VERSION_FORM = f"1 to {_VERSION_MAX} printable characters without blanks"
_OTHERS = re.compile(r"[^A-Za-z0-9_.-]")
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{NAME_MAX - 1}}}")


def valid_name(name: str) -> bool:
    """True for what may stand in a file name, a mail header and a metric label alike."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, what: str) -> str:
    """The name itself, or ValueError with a sentence that says what is allowed."""
    if not valid_name(name):
        raise ValueError(f"{what} {name!r}: use {NAME_FORM}")
    return name


def valid_version(version: str) -> bool:
    return 0 < len(version) <= _VERSION_MAX and version.isprintable() and " " not in version


def check_version(version: str) -> str:
    """The version itself, or ValueError with a sentence that says what is allowed."""
    if not valid_version(version):
        raise ValueError(f"version {version[:80]!r}: use {VERSION_FORM}")
    return version


def as_name(text: str) -> str:
    """The valid name that looks most like it: of what may have any, such as a host."""
    return _OTHERS.sub("-", text).lstrip("-.")[:NAME_MAX] or "_"


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that look most like `name`, best first; the first ones when none does."""
    from difflib import get_close_matches  # 3 ms to import, and only an error needs it

    choices = sorted(known)
    return get_close_matches(name, choices, n=NEAREST_MAX, cutoff=0.5) or choices[:NEAREST_MAX]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that nobody knows."""
    near = nearest(name, known)
    if not near:
        return f"there is no {what} '{name}': none is known yet"
    return f"there is no {what} '{name}'; did you mean {' or '.join(near)}?"


def alike(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The one known name that looks most like `name`; empty when none does."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, sorted(known), n=1, cutoff=cutoff)), "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean bind?"`, or nothing when no known name looks like it."""
    meant = alike(name, known)
    return f"; did you mean {meant}?" if meant else ""
