"""The fields of what travels, or is stored, as a map: NamedTuples, read and checked by their annotations.

A field has one type. What is not known is passed over, what is missing has its default, and whatever is wrong is a
BadMessage that names the field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from .addresses import HOST
from .limits import EPOCH_MAX, NUMBER_MAX

# Fields that are, in whatever message, not negative and below this: they come to stand in heads and pages. One more
# than they say must fit, too: a peer that claims the highest epoch would leave none to stand for.
_BELOW = {
    **dict.fromkeys(("epoch", "seen"), EPOCH_MAX),
    **dict.fromkeys(("number", "upto"), NUMBER_MAX),
    "request": 1 << 64,  # as its client has numbered it
    "max_message": 1 << 48,  # a socket is told of some bytes more
    **dict.fromkeys(("frontend_port", "backend_port"), 1 << 16),
}
_HOST = re.compile(rf"(?:{HOST})?")
_SCALARS = (int, str, bytes, bool, float)


class BadMessage(ValueError):
    """The map breaks the protocol; the sentence names the field."""


def checked(kind: Any, value: object) -> Any:
    """A map as a `kind` (a NamedTuple). Raises BadMessage, whose sentence begins behind the name of the kind."""
    return _reader(kind)(value)


@cache
def is_flat(kind: Any) -> bool:
    """All its fields are scalars: it needs no search for nested tuples, and cannot be too deep."""
    return all(hint in _SCALARS for hint in get_type_hints(kind).values())


def is_deep(value: object, left: int) -> bool:
    """Are more than `left` maps and lists within each other?"""
    if isinstance(value, dict):
        return left == 0 or any(is_deep(item, left - 1) for item in value.values())
    if isinstance(value, list):
        return left == 0 or any(is_deep(item, left - 1) for item in value)
    return False


def plain(value: Any) -> Any:
    """The other way: named tuples at any depth as maps."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


# Checks and converts a value. What it raises begins with ": "; each caller puts the place of the value before that.
_Reader = Callable[[Any], Any]


@cache
def _reader(annotation: Any) -> _Reader:
    """The reader of values with this annotation."""
    origin = get_origin(annotation)
    if annotation is Any:
        return lambda value: value
    if origin in (Union, UnionType):
        raise TypeError("messages have no unions: one field, one type")
    if origin is list:
        return _list_reader(_reader(get_args(annotation)[0]))
    if origin is dict:
        return _dict_reader(*map(_reader, get_args(annotation)))
    if hasattr(annotation, "_fields"):
        return _tuple_reader(annotation)
    return _integer if annotation is int else _scalar_reader(annotation)


def _scalar_reader(kind: type) -> _Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise BadMessage(f": {kind.__name__} expected, not {type(value).__name__}")
        return value

    return read


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise BadMessage(f": int expected, not {type(value).__name__}")
    if not -(1 << 31) <= value < 1 << 63:  # a signal's number may be negative, nothing else is
        raise BadMessage(f": {value} is out of range")
    return value


def _below(limit: int) -> _Reader:
    number = _scalar_reader(int)

    def read(value: Any) -> Any:
        if not 0 <= number(value) < limit:
            raise BadMessage(f": {value} is out of range")
        return value

    return read


def _host(value: Any) -> Any:
    """The part of an address, or "": it comes to stand in one."""
    if type(value) is not str or not _HOST.fullmatch(value):
        raise BadMessage(f": a host expected, not {str(value)[:80]!r}")
    return value


def _list_reader(item: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise BadMessage(f": list expected, not {type(value).__name__}")
        found: list[Any] = []
        try:
            for each in value:
                found.append(item(each))
        except BadMessage as error:
            raise BadMessage(f"[{len(found)}]{error}") from None
        return found

    return read


def _dict_reader(key: _Reader, item: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise BadMessage(f": map expected, not {type(value).__name__}")
        found = {}
        for name, each in value.items():
            key(name)
            try:
                found[name] = item(each)
            except BadMessage as error:
                raise BadMessage(f".{name}{error}") from None
        return found

    return read


def _tuple_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    readers = [(name, _BY_NAME.get(name) or _reader(hints[name])) for name in kind._fields]
    defaults: Mapping[str, Any] = kind._field_defaults

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise BadMessage(f": map expected, not {type(value).__name__}")
        found = {}
        for name, reader in readers:
            if name in value:
                try:
                    found[name] = reader(value[name])
                except BadMessage as error:
                    raise BadMessage(f".{name}{error}") from None
            elif name not in defaults:
                raise BadMessage(f".{name}: missing")
        return kind(**found)

    return read


# Of fields that have the same meaning in whatever message.
_BY_NAME = {"host": _host} | {name: _below(limit) for name, limit in _BELOW.items()}
