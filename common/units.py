"""Durations, sizes and counts as people write them: "250ms", "1h30m", "64KiB", "1 process"."""

from __future__ import annotations

import math
import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")

_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_UNIT_BY_LOWER = {unit.lower(): unit for unit in _BYTES}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")

DURATION_HINT = 'a duration such as "250ms", "30s" or "1h30m", or a number of seconds'
SIZE_HINT = 'a size such as "64KiB", "1MiB" or "1GB", or a number of bytes'


def parse_duration(value: object) -> float:
    """Seconds, of a text such as "1h30m" or of a number; ValueError says what is wrong."""
    if isinstance(value, str):
        return _duration_of_text(value.strip())
    return _plain_number(value, DURATION_HINT)


def parse_size(value: object) -> int:
    """Bytes, of a text such as "1.5GiB" or of a number; ValueError says what is wrong."""
    size = _size_of_text(value.strip()) if isinstance(value, str) else _plain_size(value)
    if size != int(size):
        raise ValueError(f"must be a whole number of bytes, not {value}")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest text that parse_duration reads back as the same whole milliseconds."""
    millis = round(seconds * 1000)
    for unit, scale in (("d", 86400_000), ("h", 3600_000), ("m", 60_000), ("s", 1000)):
        if millis and millis % scale == 0:
            return f"{millis // scale}{unit}"
    return f"{millis}ms" if millis else "0s"


def format_size(size: int) -> str:
    """The shortest text that parse_size reads back as the same number of bytes."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def plural(count: int, noun: str) -> str:
    """As in `1 process`, `1,200 processes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def in_a_row(count: int) -> str:
    return "once" if count == 1 else f"{plural(count, 'time')} in a row"


def _duration_of_text(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return _finite(float(text))
    if not _DURATION.fullmatch(text):
        raise ValueError(f"must be {DURATION_HINT}")
    return _finite(sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def _size_of_text(text: str) -> float:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"must be {SIZE_HINT}")
    number, unit = match.groups()
    known = _UNIT_BY_LOWER.get(unit.lower() or "b")
    if known is None:
        raise ValueError(f"must be {SIZE_HINT}; there is no unit {unit}: {', '.join(_BYTES)}")
    size = _finite(float(number) * _BYTES[known])
    return int(number) * _BYTES[known] if number.isdigit() else size  # an int of any size is exact


def _plain_number(value: object, hint: str) -> float:
    # bool is an int to Python, but `true` is never meant as one second
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be {hint}")
    return _finite(value)


def _plain_size(value: object) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _plain_number(value, SIZE_HINT)


def _finite(number: float) -> float:
    try:
        seconds = float(number)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError("must be a finite number")
    return seconds
