"""Bodies: what goes out comes back, what cannot go is named, and hostile bytes harm nobody."""

import math
import socket
import time
from collections import OrderedDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rota
from rota.common.body import (
    PARTS_FROM,
    Parts,
    bytes_head,
    decode_call,
    decode_error,
    decode_result,
    encode_call,
    encode_error,
    encode_result,
    pack,
)

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(timezones=st.none() | OFFSETS),
    st.decimals(allow_nan=False),
    st.uuids(),
)
VALUES = st.recursive(
    HASHABLE | st.frozensets(HASHABLE, max_size=4) | st.tuples(HASHABLE, HASHABLE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(HASHABLE, inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(HASHABLE, max_size=5),
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down (1 == True == 1.0 elsewhere)."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return all(map(same, one, other))
    return True


@given(VALUES)
def test_what_is_sent_arrives_as_it_was(value: Any) -> None:
    assert same(decode_result(encode_result(value)), value)


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=3))
def test_a_call_arrives_as_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert same(list(decode_call(encode_call(tuple(args), kwargs))), [args, kwargs])


def test_infinities_and_nan_are_floats_like_others() -> None:
    assert decode_result(encode_result([math.inf, -math.inf])) == [math.inf, -math.inf]
    assert math.isnan(decode_result(encode_result(math.nan)))
    assert decode_result(encode_result(Decimal("NaN"))).is_nan()


class Colour(StrEnum):
    RED = "red"


class Mixed(str, Enum):  # noqa: UP042 (users have them)
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclass
class Line:
    symbol: str
    quantity: int
    tags: set[str] = field(default_factory=set)
    kind: ClassVar[str] = "not a field"


@dataclass(frozen=True)
class Key:
    x: int


@dataclass
class Half:
    total: int = field(init=False)  # and nobody sets it


class Moody(list[object]):
    def __iter__(self) -> Any:
        raise RuntimeError("not now")


@dataclass(slots=True, frozen=True)
class Basket:
    lines: tuple[Line, ...]


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Line("X", 1, {"a"}), {"symbol": "X", "quantity": 1, "tags": {"a"}}),
        (Basket((Line("X", 1),)), {"lines": ({"symbol": "X", "quantity": 1, "tags": set()},)}),
        (namedtuple("Point", "x y")(1, 2), (1, 2)),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Colour.RED, "red"),
        (Mixed.RED, "red"),
        (Level.HIGH, 3),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (datetime(2026, 3, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), datetime(2026, 3, 1, 11, tzinfo=UTC)),
        (msgpack.Timestamp(0), datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_some_values_arrive_as_something_plainer(value: Any, arrives: Any) -> None:
    found = decode_result(encode_result(value))
    assert found == arrives and type(found) is type(arrives)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"basket": [1, 2, 3, {"price": socket.socket}]}, "arguments.basket[3].price: cannot send a 'type'"),
        ({"line": Line("X", object())}, "arguments.line.quantity: cannot send a 'object'"),  # type: ignore[arg-type]
        ({"n": 2**64}, "arguments.n: cannot send an integer of more than 64 bits"),
        ({"n": [-(2**63) - 1]}, "arguments.n[0]: cannot send an integer of more than 64 bits"),
        ({"name": "\udcff"}, "arguments.name: cannot send text with a lone surrogate"),
        ({"d": {"a b": {1j}}}, "arguments.d['a b']{…}: cannot send a 'complex'"),
        ({"d": {object: 1}}, "arguments.d (a key): cannot send a 'type'"),
        ({"d": Decimal("1" * 2000)}, "arguments.d: a Decimal of more than 1024 digits"),
        ({"d": timedelta(1)}, "arguments.d: cannot send a 'timedelta'"),
        ({"f": (i for i in ())}, "arguments.f: cannot send a 'generator'"),
        ({"h": [Half()]}, "arguments.h[0]: cannot be read: AttributeError: 'Half' object has no attribute 'total'"),
        ({"k": {Key(1): 2}}, "arguments.k (a key): a dataclass travels as a map, and a map cannot be a key"),
        ({"k": [{(1, Key(1)): 2}]}, "arguments.k[0] (a key): a dataclass travels as a map"),
        (
            {"k": {Key(1)}, "b": b"x" * 20_000},
            "arguments.k{…}: a dataclass travels as a map, and a map cannot be in a set",
        ),
        ({"k": {frozenset([Key(1)]): 2}}, "arguments.k (a key){…}: a dataclass travels as a map"),
        ({"m": Moody([object()])}, "arguments.m: cannot be read: RuntimeError: not now"),
    ],
)
def test_a_bad_argument_is_a_type_error_that_names_its_path(value: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode_call((), value)
    assert str(caught.value).startswith(problem)


def test_a_bad_positional_argument_is_named_by_its_index() -> None:
    with pytest.raises(TypeError, match=r"^arguments\[1\]\.x: cannot send a 'object'"):
        encode_call((1, {"x": object()}), {})


def test_a_bad_result_is_named_too() -> None:
    with pytest.raises(TypeError, match=r"^result\[2\]: cannot send a 'object'"):
        encode_result([1, 2, object()])


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested deeper than 1,022, or contains itself") as caught:
        encode_result({"loop": loop})
    assert len(str(caught.value)) < 300


def nested(kind: type, levels: int, value: Any = 1) -> Any:
    for _ in range(levels):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [tuple, frozenset])
def test_tuples_and_sets_nest_sixteen_deep(kind: type) -> None:
    assert decode_result(encode_result(nested(kind, 16))) == nested(kind, 16)
    with pytest.raises(TypeError, match="nested deeper than 16"):
        encode_result(nested(kind, 17))


def test_whatever_can_be_sent_nested_can_be_read() -> None:
    deepest = nested(list, 1022)
    (by_position,), named = decode_call(encode_call((deepest,), {"x": deepest}))
    assert depth(by_position) == depth(named["x"]) == 1022
    with pytest.raises(TypeError, match=r"\[0\]: nested deeper than 1,022"):
        encode_call(([deepest],), {})
    with pytest.raises(TypeError, match=r"\[0\]: cannot send a 'object'"):
        encode_result(nested(list, 1022, object()))


def depth(value: Any) -> int:
    """Not by `==`, which Python refuses for so many."""
    levels = 0
    while type(value) is list:
        levels, (value,) = levels + 1, value
    return levels


def test_a_dataclass_that_could_be_a_key_may_be_a_value() -> None:
    assert decode_result(encode_result([Key(1), {"k": (Key(2),)}])) == [{"x": 1}, {"k": ({"x": 2},)}]


async def quoted() -> int:
    return 1


def test_what_was_not_awaited_is_told_as_that() -> None:
    coroutine = quoted()
    with pytest.raises(TypeError, match="^result: cannot send a 'coroutine': it was not awaited; what wraps an async"):
        encode_result(coroutine)
    coroutine.close()


HOSTILE = {
    "nothing": b"",
    "two values": b"\x01\x02",
    "never used": b"\xc1",
    "truncated": encode_result({"a": [1, 2, 3]})[:-1],
    "unknown extension": msgpack.packb(msgpack.ExtType(99, b"x")),
    "negative extension": b"\xd4\xfe\x00",
    "timestamp out of range": b"\xc7\x0c\xff" + b"\x00" * 4 + b"\x7f" + b"\xff" * 7,
    "datetime of rubbish": msgpack.packb(msgpack.ExtType(1, b"tomorrow")),
    "date that is not ascii": msgpack.packb(msgpack.ExtType(2, b"\xff" * 10)),
    "decimal of rubbish": msgpack.packb(msgpack.ExtType(3, b"1e")),
    "decimal of a megabyte": msgpack.packb(msgpack.ExtType(3, b"1" * 1_000_000)),
    "short uuid": msgpack.packb(msgpack.ExtType(4, b"1234")),
    "tuple of a map": msgpack.packb(msgpack.ExtType(5, b"\x80")),
    "set of lists": msgpack.packb(msgpack.ExtType(6, b"\x91\x90")),
    "key that cannot be hashed": b"\x81\x90\x01",
    "text that is not utf-8": b"\xa1\xff",
    "nested without end": b"\x91" * 100_000,
    "maps nested without end": b"\x81\x01" * 50_000,
    "declared, not sent": b"\xdd\xff\xff\xff\xff",
    "bin declared, not sent": b"\xc6\xff\xff\xff\xff",
    "pickle": b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
}


def tuple_bomb(levels: int) -> bytes:
    data = b"\x90"
    for _ in range(levels):
        data = msgpack.packb(msgpack.ExtType(5, b"\x91" + data))
    return data


HOSTILE["tuples nested without end"] = tuple_bomb(1000)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("decode", [decode_call, decode_result])
def test_hostile_bytes_are_a_protocol_error(decode: Any, data: bytes) -> None:
    with pytest.raises(rota.ProtocolError):
        decode(data)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_protocol_error(data: bytes) -> None:
    for decode in (decode_call, decode_result):
        try:
            decode(data)
        except rota.ProtocolError:
            pass


@settings(max_examples=150)
@given(VALUES, st.data())
def test_damaged_bytes_are_a_value_or_a_protocol_error(value: Any, data: st.DataObject) -> None:
    sent = bytearray(encode_result(value))
    place = data.draw(st.integers(0, len(sent) - 1))
    sent[place] = data.draw(st.integers(0, 255))
    try:
        decode_result(bytes(sent))
    except rota.ProtocolError:
        pass


def test_a_megabyte_of_declared_arrays_costs_little() -> None:
    size = 1024 * 1024
    bomb = (b"\xdd" + (size - 1).to_bytes(4, "big")) * 1000
    begun = time.process_time()
    with pytest.raises(rota.ProtocolError):
        decode_result(bomb + bytes(size - len(bomb)))
    assert time.process_time() - begun < 2  # 0.1 s was measured


@pytest.mark.parametrize(
    "value", [1, [], [[], {}, 1], [{}, []], ["ab", {}], [[], []], [[], {1: 2}], [[], {b"a": 1}], {"a": 1}]
)
def test_a_body_that_is_no_call_is_a_protocol_error(value: Any) -> None:
    with pytest.raises(rota.ProtocolError, match="not a call"):
        decode_call(encode_result(value))


@pytest.mark.parametrize(
    "error",
    [
        rota.RemoteError("shop.NoStock", "sold out", "Traceback…"),
        rota.BindError("orders.quote: missing argument 'symbol'"),
        rota.PayloadTooLarge("too large", details={"size": 3, "limit": 2}),
        rota.Overloaded("full", retry_after=0.25, details={"queue": 1000}),
        rota.Cancelled(),
    ],
)
def test_an_error_arrives_as_it_was(error: rota.Error) -> None:
    found = decode_error(error.code, encode_error(error))
    assert type(found) is type(error) and vars(found) == vars(error)


def test_an_error_with_odd_text_gets_through() -> None:
    error = rota.RemoteError("OSError", "no file caf\udce9", "")
    found = decode_error(error.code, encode_error(error))
    assert isinstance(found, rota.RemoteError) and found.message == "no file caf\\udce9"


@pytest.mark.parametrize(
    "data",
    [
        b"\x90",
        b"\x01",
        b"\xc1",
        encode_result({"cause": 1}),
        encode_result({1: 2}),
        encode_result({"retry_after_ms": "5"}),
    ],
)
def test_a_body_that_is_no_error_is_a_protocol_error(data: bytes) -> None:
    assert type(decode_error(rota.Timeout.code, data)) is rota.ProtocolError


def test_an_error_whose_text_is_nested_too_deeply_to_be_shown_is_an_error() -> None:
    """From Python 3.12 on it can be shown."""
    data = b"\x81" + encode_result("type") + b"\x91" * 1000 + b"\xc0"
    assert isinstance(decode_error(rota.RemoteError.code, data), rota.ProtocolError | rota.RemoteError)


def test_an_error_without_a_body_is_an_error() -> None:
    assert type(decode_error(rota.Timeout.code, b"")) is rota.Timeout


def test_ids_are_not_texts() -> None:
    assert decode_result(encode_result(UUID(int=1))) == UUID(int=1)
    assert len(encode_result(UUID(int=1))) == 18
    assert type(decode_result(encode_result(date(2026, 1, 1)))) is date


LARGE = bytes(PARTS_FROM + 1)


@pytest.mark.parametrize("size", [0, 255, 256, (1 << 16) - 1, 1 << 16])
def test_bytes_of_any_size_have_the_head_that_msgpack_gives_them(size: int) -> None:
    assert bytes_head(size) + bytes(size) == pack(bytes(size))


@pytest.mark.parametrize("size", [PARTS_FROM + 1, 1 << 16, (1 << 16) + 1])
def test_large_bytes_are_packed_as_all_others_and_copied_only_behind_their_head(size: int) -> None:
    value = b"x" * size
    result = encode_result(value)
    call = encode_call((1, value), {f"n{number}": number for number in range(20)} | {"data": value})
    assert isinstance(result, Parts) and isinstance(call, Parts)
    assert b"" + result == pack(value) and len(result) == len(pack(value))
    assert b"head" + call == b"head" + pack([[1, value], {**{f"n{n}": n for n in range(20)}, "data": value}])
    assert decode_call(b"" + call)[1]["data"] == value


def test_what_cannot_be_sent_beside_large_bytes_is_named() -> None:
    with pytest.raises(TypeError, match=r"arguments\.sock: cannot send a 'socket'"), socket.socket() as sock:
        encode_call((), {"data": LARGE, "sock": sock})


def test_large_bytes_inside_a_value_and_those_just_not_large_are_packed_whole() -> None:
    assert encode_result([LARGE]) == pack([LARGE])
    assert encode_result(LARGE[1:]) == pack(LARGE[1:])
    assert encode_call((), {"data": {"raw": LARGE}}) == pack([[], {"data": {"raw": LARGE}}])
