from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common import fields, messages
from rota.common.fields import BadMessage
from rota.common.limits import (
    CONCURRENCY_MAX,
    DONE_MAX,
    EPOCH_MAX,
    HANDLERS_MAX,
    MAP_DEPTH,
    MAP_MAX,
    NAME_MAX,
    NUMBER_MAX,
    REFUSED_MAX_S,
    STARTED_MAX,
    TAGS_BYTES_MAX,
)
from rota.common.messages import (
    AgentHello,
    Beat,
    Exited,
    Handler,
    Held,
    ProcessHello,
    Row,
    Started,
    Verb,
    Welcome,
)
from rota.worker.core.processes import EXITS_BYTES

KINDS: list[Any] = list(get_args(messages.Message))
EXITED = Exited("n1.b1.1", "orders", -9, "was killed", 7, [Row(7, 1, b"s" * 16, 9, 1)], "tail")
HELLO = AgentHello([1, 1], "n1", "b1", 3, 4, ["orders"], {"zone": "a"}, [], [EXITED], "active", 2)
PROCESS = ProcessHello([1, 1], "n1.b1.1", b"t", "orders", "1", "d", {"quote": Handler("yes", 5)}, 1, 2, 3, 4, 5, [])


def raw(name: str, **fields: Any) -> bytes:
    packed: bytes = msgpack.packb([name, fields])
    return packed


@pytest.mark.parametrize("message", [HELLO, PROCESS, EXITED, Beat(1), Verb(1, "drain", {"nodes": ["a"], "all": None})])
def test_what_was_written_is_read_as_the_same_tuples(message: Any) -> None:
    found = messages.decode(messages.encode(message))
    assert found == message and type(found) is type(message)


def test_odd_bytes_of_a_file_name_get_through_as_well_as_they_can_be() -> None:
    """A message that cannot be written ends its sender."""
    found = messages.decode(messages.encode(EXITED._replace(cause="could not be started: no file caf\udce9")))
    assert isinstance(found, Exited) and found.cause == "could not be started: no file caf\\udce9"


def test_nested_tuples_come_back_as_tuples() -> None:
    found = messages.decode(messages.encode(HELLO))
    assert isinstance(found, AgentHello) and found.exits[0].rows[0].request == 9


def test_an_unknown_field_is_ignored_for_a_newer_peer_may_add_some() -> None:
    assert messages.decode(raw("Beat", beat=1, colour="red")) == Beat(1)


def test_a_field_with_a_default_may_be_missing_for_an_older_peer_has_none() -> None:
    found = messages.decode(raw("Welcome", version=1, epoch=2, master="m"))
    assert found == Welcome(1, 2, "m")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadMessage, match="Started.pid"):
        messages.decode(raw("Started", incarnation="a", service="s", ticket=b"t"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"beat": "1"}, "Beat.beat: int expected, not str"),
        ({"beat": True}, "int expected, not bool"),
        ({"beat": 1 << 63}, "out of range"),
        ({"beat": None}, "int expected"),
        ({"beat": 1.0}, "int expected"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_was_expected(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadMessage, match=words):
        messages.decode(raw("Beat", **fields))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("Recall", {"incarnation": "n.b.1", "upto": -1}),
        ("Recall", {"incarnation": "n.b.1", "upto": (1 << 63) - 1}),
        ("Welcome", {"version": 1, "epoch": 1, "master": "m", "backend_port": -1}),
        ("Welcome", {"version": 1, "epoch": 1, "master": "m", "frontend_port": 65_536}),
        ("Pulse", {"number": -1, "epoch": 1, "sequence": 1}),
        ("Welcome", {"version": 1, "epoch": 1, "master": "m", "max_message": (1 << 63) - 1}),
        ("Welcome", {"version": 1, "epoch": 1, "master": "m", "max_message": -1}),
    ],
)
def test_what_no_head_and_no_page_could_hold_is_refused(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(BadMessage, match="out of range"):
        messages.decode(raw(kind, **fields))


@pytest.mark.parametrize("host", ["a b", "h:7700", "a;b", "http://h", "::1", "h/", "*", "h\n", 1, None])
def test_a_host_that_no_address_could_have_is_refused(host: object) -> None:
    with pytest.raises(BadMessage, match="Welcome.host: a host expected, not"):
        messages.decode(raw("Welcome", version=1, epoch=1, master="m", host=host))


@pytest.mark.parametrize("host", ["", "10.0.0.5", "master-1.example.com", "[fd00::5]", "[fe80::1%2]"])
def test_a_host_may_be_a_name_or_an_address(host: str) -> None:
    welcome = messages.decode(raw("Welcome", version=1, epoch=1, master="m", host=host))
    assert isinstance(welcome, messages.Welcome) and welcome.host == host


def test_deliveries_that_a_process_holds_have_no_negative_numbers() -> None:
    held = {"epoch": 1, "number": 1, "session": b"s", "request": 1, "done": False}
    for field in ("number", "request"):
        with pytest.raises(BadMessage, match="-1 is out of range"):
            fields.checked(messages.Held, {**held, field: -1})


def test_a_request_that_a_process_holds_has_whatever_number_its_client_gave_it() -> None:
    held = {"epoch": 1, "number": 1, "session": b"s", "request": (1 << 64) - 1, "done": False}
    assert fields.checked(messages.Held, held).request == (1 << 64) - 1


@pytest.mark.parametrize("told_ms, wait_s", [(-(1 << 31), 0.0), (250, 0.25), ((1 << 63) - 1, REFUSED_MAX_S)])
def test_who_refuses_is_asked_again_in_a_minute_whatever_it_says(told_ms: int, wait_s: float) -> None:
    assert messages.Refusal("busy", "why", told_ms, [1, 1]).wait_s == wait_s


def test_a_mistake_deep_inside_is_named_by_its_path() -> None:
    started = {"incarnation": "a", "service": "s", "ticket": b"t", "pid": "x"}
    fields = {**HELLO._asdict(), "processes": [started], "exits": []}
    with pytest.raises(BadMessage, match=r"AgentHello.processes\[0\].pid"):
        messages.decode(raw("AgentHello", **fields))


@pytest.mark.parametrize(
    "checks, words",
    [
        ({1: {}}, "Plan.checks: str expected, not int"),
        ({"orders": 5}, "Plan.checks.orders: map expected, not int"),
        ({"orders": ["address"]}, "Plan.checks.orders: map expected, not list"),
        ({"orders": {"address": 5}}, "Plan.checks.orders.address: str expected, not int"),
    ],
)
def test_a_mistake_in_a_map_is_named_too(checks: dict[Any, Any], words: str) -> None:
    with pytest.raises(BadMessage, match=words):
        messages.decode(raw("Plan", processes={}, checks=checks))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x90", raw("Nonsense"), msgpack.packb(["Beat"]), msgpack.packb({"a": 1}), msgpack.packb([{}, {}])],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        messages.decode(data)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_bad_message(data: bytes) -> None:
    try:
        messages.decode(data)
    except BadMessage:
        pass


@given(st.sampled_from(KINDS), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_no_map_raises_anything_but_bad_message(kind: Any, fields: dict[str, Any]) -> None:
    given_fields = {name: value for name, value in zip(kind._fields, fields.values(), strict=False)}
    try:
        messages.decode(msgpack.packb([kind.__name__, {**fields, **given_fields}]))
    except (BadMessage, OverflowError):
        pass


@pytest.mark.parametrize("nest", [lambda value: {"a": value}, lambda value: [value]])
def test_too_deep_a_map_is_refused(nest: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(MAP_DEPTH - 2):  # besides the fields and the arguments, which are maps
        value = nest(value)
    assert messages.decode(raw("Verb", id=1, verb="drain", args={"a": value})) == Verb(1, "drain", {"a": value})
    with pytest.raises(BadMessage, match="deep"):
        messages.decode(raw("Verb", id=1, verb="drain", args={"a": nest(value)}))


def test_garbage_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(BadMessage):
        messages.decode(b"\x91" * 100_000)


def test_an_extension_type_is_refused() -> None:
    with pytest.raises(BadMessage):
        messages.decode(raw("Verb", id=1, verb="x", args={"a": msgpack.ExtType(5, b"x")}))


def test_what_is_too_large_is_refused_by_its_sender_and_by_its_receiver() -> None:
    with pytest.raises(ValueError, match="more than"):
        messages.encode(Verb(1, "drain", {"reason": "x" * MAP_MAX}))
    with pytest.raises(BadMessage, match="too large"):
        messages.decode(b"\0" * (MAP_MAX + 1))


def test_the_hello_of_a_thousand_processes_is_far_below_the_limit() -> None:
    many = [Started(f"node-1.abcdef.{number}", "orders", b"t" * 16, number) for number in range(1000)]
    assert len(messages.encode(HELLO._replace(processes=many))) < MAP_MAX / 4


def test_the_longest_hello_of_a_process_is_below_the_limit() -> None:
    handlers = {f"{number:0{NAME_MAX}}": Handler("key", 86_400_000) for number in range(HANDLERS_MAX)}
    held = [Held(EPOCH_MAX - 1, NUMBER_MAX - 1, b"s" * 16, (1 << 64) - 1, False)] * (2 * CONCURRENCY_MAX)
    longest = PROCESS._replace(handlers=handlers, held=held, done=b"o" * (24 * DONE_MAX))
    assert len(messages.encode(longest)) < MAP_MAX * 3 / 4


def test_the_longest_hello_of_an_agent_is_below_the_limit() -> None:
    node = "n" * NAME_MAX
    started = [Started(f"{node}.abcdef.{1 << 40}", "o" * NAME_MAX, b"t" * 16, 1 << 22)] * STARTED_MAX
    longest = HELLO._replace(node=node, processes=started, exits=[], tags={"zone": "t" * TAGS_BYTES_MAX})
    assert len(messages.encode(longest)) + EXITS_BYTES < MAP_MAX
