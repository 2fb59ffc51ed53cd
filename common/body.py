"""The body of a message: arguments, results and errors as msgpack, and nothing that runs code.

Travels as it is: None, bool, int of 64 bits, float (NaN and infinities too), str, bytes, list, dict, datetime, date,
Decimal, UUID, set, frozenset and tuple (a tuple arrives as a tuple, a list as a list). Goes out and arrives as
something plainer: dataclass -> dict of its fields; bytearray, memoryview -> bytes; a subclass of the above (named
tuple, IntEnum, defaultdict) -> its base; a zone of a datetime -> its offset from UTC. Anything else is a TypeError that
names the path of the value. The extension types 1 to 7 carry what msgpack lacks; -1 is msgpack's own timestamp, which
other languages send. A tuple or set is packed by itself and costs about 1.5 µs more than a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from msgpack import ExtType, Packer, unpackb

from .errors import Error, ProtocolError, RemoteError, fault
from .wire import Body

_DATETIME, _DATE, _DECIMAL, _UUID, _TUPLE, _SET, _FROZENSET = 1, 2, 3, 4, 5, 6, 7

PARTS_FROM = 16 * 1024  # bytes of one value; smaller ones are not worth a list of parts
# Each level of tuples and sets is packed by itself, so its bytes are copied once a level: without a limit 1 MiB that
# is nested 1,000 deep would cost 1 GiB of copying. Lists and maps: msgpack's own limit, 1,024, of which a call has two.
PACKED_DEPTH_MAX = 16
NESTING_MAX = 1022
_TEXT = frozenset({str})
DECIMAL_TEXT_MAX = 1024  # digits; beyond it a few bytes of input could keep a process busy for long


class Parts:
    """A body with large bytes in it, which are copied once: when it goes behind its head (`head + body`)."""

    __slots__ = ("_parts", "_size")

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __radd__(self, head: bytes) -> bytes:
        return b"".join((head, *self._parts))


Packed = bytes | Parts


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """`[args, kwargs]`. Raises TypeError such as "arguments.basket[3].price: cannot send a 'socket'"."""
    try:
        for value in (*args, *kwargs.values()):
            if type(value) is bytes and len(value) > PARTS_FROM:
                return _call_in_parts(args, kwargs)
        return pack([list(args), kwargs])
    except Exception as error:
        problem = _first_problem("arguments", kwargs, 1) or _first_problem("arguments", list(args), 1)
        raise TypeError(problem or f"arguments: {error}") from None


def decode_call(data: Body) -> tuple[list[Any], dict[str, Any]]:
    """Raises ProtocolError, and nothing else, whatever the bytes are."""
    value = decode_result(data)
    if type(value) is list and len(value) == 2:
        args, kwargs = value
        if type(args) is list and type(kwargs) is dict and _TEXT.issuperset(map(type, kwargs)):
            return args, kwargs
    raise ProtocolError("the body is not a call: [arguments, named arguments] expected")


def bytes_head(size: int) -> bytes:
    """The msgpack header of a `bytes` value of this size. Whoever joins it with the value himself copies that once."""
    if size < 1 << 8:
        return b"\xc4%c" % size
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def encode_result(value: Any) -> Packed:
    """Raises TypeError such as "result.items[2]: cannot send a 'generator'"."""
    if type(value) is bytes and len(value) > PARTS_FROM:
        return Parts(bytes_head(len(value)), value)
    try:
        return pack(value)
    except Exception as error:
        raise TypeError(_first_problem("result", value) or f"result: {error}") from None


def encode_error(error: Error) -> bytes:
    """The body of an answer that is not ok; the code goes into the header. Never fails."""
    fields: dict[str, Any] = dict(error.details)
    if not isinstance(error, RemoteError):  # whose cause is its type and message, already there
        fields["cause"] = error.cause
        fields["retry_after_ms"] = round(1000 * (error.retry_after or 0))
    try:
        return pack(fields)
    except Exception:  # file names with odd bytes get into messages; an error must get through
        return pack({_clean(name): _plain(field) for name, field in fields.items()})


def decode_error(code: int, data: Body) -> Error:
    """What to raise for an answer with this code. ProtocolError if the body is not an error's."""
    try:
        fields = decode_result(data) if data else {}
        cause, retry_after_ms = fields.pop("cause", ""), fields.pop("retry_after_ms", 0)
        if type(told := fields.pop("told", None)) is str:  # the service has words of its own for this fault
            cause, fields["cause"] = told, cause
        named = all(type(name) is str for name in fields)
        if named and type(cause) is str and type(retry_after_ms) is int:
            return fault(code, cause, retry_after_ms, fields)
    except (ProtocolError, AttributeError, TypeError, RecursionError):  # the last: of text for what is nested deeply
        pass
    return ProtocolError(f"the answer is an error of code {code} with a body that is not")


def _plain(value: Any) -> Any:
    return value if type(value) in (int, float, bool, type(None)) else _clean(value)


def _clean(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


# ---- out ----


def pack(value: Any) -> bytes:
    """One value as it travels. For one that cannot be sent it raises whatever msgpack does; `encode_result` raises
    TypeError with the path of the value.
    """
    # A Packer is neither thread-safe nor re-entrant, and a new one with its own buffer costs 0.4 to 40 µs (a large
    # buffer is mapped and faulted in): whoever packs takes one from the spare ones, and gives it back if all went well.
    try:
        packer = _SPARE.pop()
    except IndexError:
        # strict_types brings tuples, and subclasses of everything, to the hook.
        packer = Packer(default=_REPLACERS[0], strict_types=True, buf_size=4096)
    met = _hashable
    packed: bytes = packer.pack(value)
    _SPARE.append(packer)
    if _hashable is not met:
        decode_result(packed)  # only whoever reads a map learns what is a key of it
    return packed


_SPARE: list[Any] = []  # Packers that nobody uses; as many as threads ever packed at once
_hashable = object()  # another one after each dataclass that could be a key, of whatever thread: no map can be one


def _call_in_parts(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parts:
    packer = Packer()
    parts = [packer.pack_array_header(2), packer.pack_array_header(len(args))]
    for value in args:
        parts += _value_in_parts(value)
    parts.append(packer.pack_map_header(len(kwargs)))
    for name, value in kwargs.items():
        parts += pack(name), *_value_in_parts(value)
    return Parts(*parts)


def _value_in_parts(value: Any) -> tuple[bytes, ...]:
    large = type(value) is bytes and len(value) > PARTS_FROM
    return (bytes_head(len(value)), value) if large else (pack(value),)


def _pack_nested(value: Any, depth: int) -> bytes:
    """A tuple or set, while the Packer of what holds it is in use."""
    packed: bytes = Packer(default=_REPLACERS[depth], strict_types=True, buf_size=1024).pack(value)
    return packed


def _replace(value: Any, depth: int) -> Any:
    """What to pack in the place of a value that msgpack does not know."""
    for kind, replacement in _REPLACEMENTS:
        if isinstance(value, kind):
            return replacement(value, depth)
    if is_dataclass_instance(value):
        if type(value).__hash__ is not None:
            global _hashable
            _hashable = object()
        return dict(_fields(value))
    raise TypeError(f"cannot send a {type(value).__name__!r}")


def is_dataclass_instance(value: Any) -> bool:
    """As dataclasses.is_dataclass, without loading dataclasses, which takes longer than all of rota."""
    return hasattr(type(value), "__dataclass_fields__")


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    from dataclasses import fields

    return ((field.name, getattr(value, field.name)) for field in fields(value))


def _packed(code: int) -> Callable[[Any, int], ExtType]:
    def replacement(value: Any, depth: int) -> ExtType:
        if depth == PACKED_DEPTH_MAX:
            raise ValueError(f"tuples and sets are nested deeper than {PACKED_DEPTH_MAX}")
        return ExtType(code, _pack_nested(list(value), depth + 1))

    return replacement


def _decimal(value: Decimal, depth: int) -> ExtType:
    text = str(value)
    if len(text) > DECIMAL_TEXT_MAX:
        raise ValueError(f"a Decimal of more than {DECIMAL_TEXT_MAX} digits")
    return ExtType(_DECIMAL, text.encode())


# In this order, since a datetime is a date. The bases of `str.__str__` and the like are called by name because an enum
# overrides them.
_REPLACEMENTS: tuple[tuple[type, Callable[[Any, int], Any]], ...] = (
    (tuple, _packed(_TUPLE)),
    (set, _packed(_SET)),
    (frozenset, _packed(_FROZENSET)),
    (datetime, lambda value, depth: ExtType(_DATETIME, datetime.isoformat(value).encode())),
    (date, lambda value, depth: ExtType(_DATE, date.isoformat(value).encode())),
    (Decimal, _decimal),
    (UUID, lambda value, depth: ExtType(_UUID, value.bytes)),
    (dict, lambda value, depth: dict(value)),
    (list, lambda value, depth: list(value)),
    (str, lambda value, depth: str.__str__(value)),
    (int, lambda value, depth: int.__int__(value)),
    (float, lambda value, depth: float.__float__(value)),
    (bytes, lambda value, depth: bytes(value)),
    (bytearray, lambda value, depth: bytes(value)),
)


_REPLACERS = [partial(_replace, depth=depth) for depth in range(PACKED_DEPTH_MAX + 1)]


# ---- in ----


def decode_result(data: Body, depth: int = 0) -> Any:
    """Raises ProtocolError, and nothing else, whatever the bytes are. `depth`: of tuples and sets around it."""
    # The limits on lengths are len(data), unpackb's default: no declared length buys more memory than was sent (the
    # worst megabyte found takes 0.1 s). Keys may be of any hashable type.
    try:
        return unpackb(data, ext_hook=_RESTORERS[depth], strict_map_key=False, timestamp=3)
    except Exception as error:  # eight unrelated types have been seen
        raise ProtocolError(f"the body cannot be decoded: {error}") from None


def _restore(code: int, data: bytes, depth: int) -> Any:
    kind = _KINDS.get(code)
    if kind is not None:
        if depth == PACKED_DEPTH_MAX:
            raise ValueError("tuples and sets are nested too deeply")
        items = decode_result(data, depth + 1)
        if type(items) is not list:
            raise ValueError(f"extension type {code} without a list")
        return kind(items)
    if code == _UUID:
        return UUID(bytes=data)
    if code not in _READERS or len(data) > DECIMAL_TEXT_MAX:
        raise ValueError(f"extension type {code} of {len(data)} bytes")
    return _READERS[code](data.decode("ascii"))


_KINDS: dict[int, Callable[[list[Any]], Any]] = {_TUPLE: tuple, _SET: set, _FROZENSET: frozenset}
_READERS: dict[int, Callable[[str], Any]] = {
    _DATETIME: datetime.fromisoformat,
    _DATE: date.fromisoformat,
    _DECIMAL: Decimal,
}


_RESTORERS = [partial(_restore, depth=depth) for depth in range(PACKED_DEPTH_MAX + 1)]


# ---- what could not be sent, and where ----


def _first_problem(root: str, value: Any, ours: int = 0) -> str | None:
    """The path of the first value that cannot be sent, and why: only after packing has failed. `ours`: how many of the
    containers around it are not its own.
    """
    stack = [(root, iter([(root, value)]))]
    while stack:
        path, values = stack[-1]
        try:
            entry = next(values, None)
            if entry is None:
                stack.pop()
                continue
            path, value = entry
            children, bad_key = _children(path, value), _bad_key(value)
        except Exception as error:  # of the value's own code, or a field that was never set
            return f"{_shortened(path)}: cannot be read: {type(error).__name__}: {error}"
        if children is not None:
            if bad_key:
                return f"{_shortened(path)}{bad_key}"
            if len(stack) > NESTING_MAX + ours:
                return f"{_shortened(path)}: nested deeper than {NESTING_MAX:,}, or contains itself"
            stack.append((path, children))
        elif problem := _problem(value):
            return f"{_shortened(path)}: {problem}"
    return None


def _children(path: str, value: Any) -> Iterator[tuple[str, Any]] | None:
    if is_dataclass_instance(value):
        return ((f"{path}.{name}", field) for name, field in _fields(value))
    if isinstance(value, dict):
        return _entries(path, value)
    if isinstance(value, list | tuple):
        return ((f"{path}[{index}]", item) for index, item in enumerate(value))
    if isinstance(value, set | frozenset):
        return ((f"{path}{{…}}", item) for item in value)
    return None


def _entries(path: str, value: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        yield f"{path} (a key)", key
        named = isinstance(key, str) and key.isidentifier()
        yield (f"{path}.{key}" if named else f"{path}[{_shortened(repr(key))}]"), item


def _bad_key(value: Any) -> str:
    if isinstance(value, dict) and any(map(_becomes_map, value)):
        return " (a key): a dataclass travels as a map, and a map cannot be a key"
    if isinstance(value, set | frozenset) and any(map(_becomes_map, value)):
        return "{…}: a dataclass travels as a map, and a map cannot be in a set"
    return ""


def _becomes_map(key: Any) -> bool:
    return is_dataclass_instance(key) or (isinstance(key, tuple) and any(map(_becomes_map, key)))


def _problem(value: Any) -> str | None:
    try:
        pack(value)
    except UnicodeEncodeError:
        return "cannot send text with a lone surrogate, it is not valid Unicode"
    except OverflowError:
        return "cannot send an integer of more than 64 bits"
    except Exception as error:
        waits = hasattr(type(value), "__await__")
        return f"{error}: it was not awaited; what wraps an async function must await it" if waits else str(error)
    return None


def _shortened(path: str) -> str:
    return path if len(path) <= 200 else f"{path[:120]}…{path[-60:]}"
