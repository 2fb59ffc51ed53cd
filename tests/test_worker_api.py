"""Worker, binding and Context: what application authors write, and what they are told when it is wrong."""

import functools
import logging
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, Optional, TypeVar, Union

import pytest

import rota
from rota.common.limits import HANDLERS_MAX
from rota.worker import app
from rota.worker.binding import ARRIVING, Binding, accepted

if TYPE_CHECKING:
    import rota as master_of_types

UserId = NewType("UserId", int)
T = TypeVar("T")


class Basket:
    pass


# ---- Worker ----


def test_a_decorated_function_stays_what_it_was() -> None:
    orders = rota.Worker("orders")

    def quote(symbol: str) -> str:
        return symbol

    assert orders.handler(quote) is quote
    assert orders.handler(idempotent=True, timeout=5, name="ask")(quote) is quote
    assert list(orders.handlers) == ["quote", "ask"]
    assert (orders.handlers["ask"].idempotent, orders.handlers["ask"].timeout) == (True, 5)


def test_sync_async_methods_partials_and_callable_objects_are_handlers() -> None:
    class Desk:
        def quote(self, symbol: str) -> None: ...
        async def book(self, symbol: str) -> None: ...
        async def __call__(self, symbol: str) -> None: ...

    orders = rota.Worker("orders")
    orders.handler(Desk().quote)
    orders.handler(Desk().book)
    orders.handler(name="call")(Desk())
    orders.handler(name="partial")(functools.partial(Desk().book, "X"))
    assert {name: handler.is_async for name, handler in orders.handlers.items()} == {
        "quote": False,
        "book": True,
        "call": True,
        "partial": True,
    }


class Lettered:
    """Its annotations are texts, as under `from __future__ import annotations`."""

    def quote(self, user: "UserId", quantity: int = 1) -> None: ...
    def __call__(self, user: "UserId") -> None: ...


def lettered(user: "UserId") -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        lettered,
        Lettered().quote,
        Lettered(),
        functools.partial(Lettered().quote, quantity=2),
        functools.cache(lettered),
    ],
)
def test_annotations_are_read_where_they_were_written_whatever_kind_of_handler_it_is(function: Any) -> None:
    binding = Binding("orders.ask", function)
    assert binding.arguments([], {"user": 7}, None) == ([], {"user": 7})
    with pytest.raises(rota.BindError, match="'user' must be .*UserId, not str"):
        binding.arguments([], {"user": "ann"}, None)


def positional_only(symbol: str, /) -> None: ...
def surplus(*symbols: str) -> None: ...
def unbound(self: Any, symbol: str) -> None: ...
def generator(symbol: str) -> Any:
    yield symbol


async def asynchronous_generator(symbol: str) -> Any:
    yield symbol


def two_contexts(ctx: rota.Context, other: rota.Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (positional_only, "parameter 'symbol: str' has no name that a caller could use"),
        (surplus, "parameter '\\*symbols: str' has no name"),
        (unbound, "orders.unbound: a handler is a function or the method of an object"),
        (generator, "does not yield"),
        (asynchronous_generator, "does not yield"),
        (two_contexts, "two parameters for the context"),
        (lambda symbol: symbol, "needs `name=`"),
        (functools.partial(surplus), "needs `name=`"),
        ("quote", "must be a function, not 'quote'"),
        (dict.update, "signature cannot be read|no name"),
    ],
)
def test_what_cannot_be_served_is_refused_at_decoration(function: Any, sentence: str) -> None:
    orders = rota.Worker("orders")
    with pytest.raises(TypeError, match=sentence):
        orders.handler(function)
    assert not orders.handlers


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"idempotent": "yes"}, "idempotent must be True, False or 'key', not 'yes'"),
        ({"timeout": "5s"}, "timeout must be a number of seconds, not '5s'"),
        ({"timeout": True}, "timeout must be a number"),
        ({"timeout": 0}, "timeout must be from 0.001"),
        ({"timeout": float("nan")}, "timeout must be from 0.001"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "a.b"}, "no dot"),
        ({"name": ""}, "letters, digits"),
    ],
)
def test_what_is_declared_wrongly_is_refused_at_decoration(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        rota.Worker("orders").handler(**options)(quote)


def test_a_name_is_given_once() -> None:
    orders = rota.Worker("orders")
    orders.handler(name="quote")(lambda: 1)
    with pytest.raises(ValueError, match="there is a handler 'quote' already"):
        orders.handler(name="quote")(lambda: 2)


def test_there_are_no_more_handlers_than_a_hello_can_tell_of() -> None:
    """A process that had more ended at each HELLO."""
    orders = rota.Worker("orders")
    for number in range(HANDLERS_MAX):
        orders.handler(name=f"h{number}")(lambda: 1)
    with pytest.raises(ValueError, match="orders: a service has at most 5000 handlers"):
        orders.handler(name="quote")(lambda: 1)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "é"])
def test_a_service_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        rota.Worker(name)


def test_hooks_take_no_arguments_and_there_is_one_probe() -> None:
    orders = rota.Worker("orders")
    orders.on_start(lambda: None)
    orders.on_stop(lambda timeout=1: None)
    orders.on_stop({}.clear)  # as the `close` of many a connection, which has no signature to be read
    with pytest.raises(TypeError, match="called without arguments"):
        orders.on_start(lambda app: None)
    with pytest.raises(TypeError, match="takes a function"):
        orders.on_stop(None)  # type: ignore[type-var]
    orders.health(lambda: True)
    with pytest.raises(ValueError, match="a health probe already"):
        orders.health(lambda: True)


def test_one_async_hook_makes_the_application_async() -> None:
    async def connect() -> None: ...

    orders = rota.Worker("orders")
    orders.handler(name="quote")(lambda: 1)
    assert not orders.is_async
    orders.on_start(connect)
    assert orders.is_async


# ---- interface ----


def quotes(version: str | None = None, timeout: float | None = None, **options: Any) -> rota.Worker:
    orders = rota.Worker("orders", version=version)

    @orders.handler(timeout=timeout, **options)
    def quote(ctx: rota.Context, symbol: str, quantity: int = 1, *, exact: "bool" = False) -> dict[str, int]:
        return {}

    return orders


def test_an_interface_is_plain_data() -> None:
    from msgpack import packb, unpackb

    interface = quotes("7", 2.5, idempotent="key").interface()
    assert unpackb(packb(interface)) == interface
    assert interface["handlers"] == {
        "quote": {
            "idempotent": "key",
            "timeout_ms": 2500,
            "params": ["symbol: str", "quantity: int = ...", "*", "exact: bool = ..."],
        }
    }
    assert (interface["service"], interface["version"]) == ("orders", "7")


def test_the_digest_is_that_of_what_callers_can_notice() -> None:
    digest = quotes().interface()["digest"]
    assert quotes("8", timeout=9).interface()["digest"] == digest
    assert quotes(idempotent=True).interface()["digest"] != digest
    assert quotes(name="ask").interface()["digest"] != digest

    def one(symbol: str) -> int: ...  # type: ignore[empty-body]
    def other(symbol: int) -> int: ...  # type: ignore[empty-body]

    def digest_of(*handlers: tuple[str, Any]) -> str:
        orders = rota.Worker("orders")
        for name, function in handlers:
            orders.handler(name=name)(function)
        found: str = orders.interface()["digest"]
        return found

    assert digest_of(("a", one), ("b", other)) == digest_of(("b", other), ("a", one))
    assert digest_of(("a", one), ("b", other)) != digest_of(("a", other), ("b", one))


# ---- binding ----


def quote(symbol: str, quantity: int = 1, *, limit: float | None = None) -> None: ...


QUOTE = Binding("orders.quote", quote)


def test_arguments_come_by_name_or_by_position() -> None:
    calls: list[Any] = [([], {"symbol": "X"}), (["X"], {"limit": 2}), (["X", 3], {})]
    assert [QUOTE.arguments(*call, None) for call in calls] == calls


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        ([], {}, "orders.quote: missing argument 'symbol'"),
        ([], {"symbol": 1}, "orders.quote: argument 'symbol' must be str, not int"),
        ([], {"symbol": None}, "orders.quote: argument 'symbol' must be str, not None"),
        (["X", 1.5], {}, "orders.quote: argument 'quantity' must be int, not float"),
        (["X"], {"limit": "2"}, "orders.quote: argument 'limit' must be float | None, not str"),
        (["X"], {"quantitty": 2}, "orders.quote: unexpected argument 'quantitty'; did you mean quantity?"),
        (
            ["X"],
            {"zzz": 2},
            "orders.quote: unexpected argument 'zzz'; it takes symbol, quantity, limit",
        ),
        (["X"], {"symbol": "Y"}, "orders.quote: argument 'symbol' given by position and by name"),
        (["X", 1, 2.0], {}, "orders.quote: takes 2 arguments by position, 3 given"),
    ],
)
def test_a_bad_argument_is_a_type_error_naming_handler_and_argument(
    args: list[Any], kwargs: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(TypeError) as caught:
        QUOTE.arguments(args, kwargs, None)
    assert str(caught.value) == sentence
    assert isinstance(caught.value, rota.BindError)


def test_arguments_by_position_are_checked_with_each_call_whatever_fitted_before() -> None:
    binding = Binding("orders.quote", quote)
    for _ in range(2):
        assert binding.arguments(["X", 3], {}, None) == (["X", 3], {})
        assert binding.arguments([], {"symbol": "X"}, None) == ([], {"symbol": "X"})
        for args, kwargs in (
            (["X", "3"], {}),
            (["X", 3], {"limit": "2"}),
            (["X", 3, 2.0], {}),
            (["X"], {"symbol": "Y"}),
        ):
            with pytest.raises(rota.BindError):
                binding.arguments(args, kwargs, None)  # type: ignore[arg-type]
    two = Binding("a.b", lambda x, y: None)
    assert two.arguments([1], {"y": 2}, None) == ([1], {"y": 2})
    with pytest.raises(rota.BindError, match="missing argument 'y'"):
        two.arguments([1], {}, None)


def test_of_many_shapes_of_calls_a_handler_remembers_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rota.worker.binding.FITTING_MAX", 2)
    one = Binding("a.b", lambda x: None)
    for value in (1, "", None, 1.0, []):
        one.arguments([value], {}, None)
    assert len(one._fitting) == 2, "callers choose them"


def test_all_missing_arguments_are_named_at_once() -> None:
    binding = Binding("a.b", lambda x, y, z: None)
    with pytest.raises(rota.BindError, match="missing arguments 'x', 'z'$"):
        binding.arguments([], {"y": 1}, None)


def test_a_handler_without_parameters_says_so() -> None:
    with pytest.raises(rota.BindError, match="unexpected argument 'x'; it takes no arguments"):
        Binding("a.b", lambda: None).arguments([], {"x": 1}, None)


def test_a_handler_may_take_any_further_arguments() -> None:
    def book(symbol: str, **fields: int) -> None: ...

    binding = Binding("orders.book", book)
    assert binding.arguments([], {"symbol": "X", "a": 1}, None) == ([], {"symbol": "X", "a": 1})
    for kwargs, sentence in (
        ({"symbol": "X", "a": "1"}, "argument 'a' must be int, not str"),
        ({"symbol": 1, "a": 1}, "argument 'symbol' must be str, not int"),
        ({"a": 1}, "missing argument 'symbol'"),
    ):
        with pytest.raises(rota.BindError, match=sentence):
            binding.arguments([], kwargs, None)
    assert binding.describe() == ["symbol: str", "**fields: int"]


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [1, True], [1.0, "1", None]),
        (float, [1.5, 1], ["1", Decimal(1)]),
        (bool, [True], [1]),
        (str, [""], [b""]),
        (bytes, [b""], [""]),
        (list[int], [[], ["x"]], [(), {}]),
        (dict[str, Any], [{}], [[]]),
        (tuple[int, ...], [()], [[]]),
        (date, [date.min, datetime.min], ["2026-01-01"]),
        (Optional[int], [None, 1], ["1"]),  # noqa: UP045 (users write it)
        (Union[int, str], [1, ""], [None]),  # noqa: UP007
        (int | None, [None, 1], ["1"]),
        (None, [None], [0]),
        (Literal["buy", "sell"], ["buy"], [1]),
        (Annotated[int, "positive"], [1], ["1"]),
        (UserId, [1], ["1"]),
        (Sequence[str], [[], (), ""], [{}, 1]),
        (Mapping[str, int], [{}], [[]]),
        (Any, [None, 1, []], []),
        (object, [None, 1, []], []),
        (T, [None, 1], []),
        (Basket, [{}, 1], []),
        (Basket | None, [{}, None], []),
        ("unresolvable", [1], []),
    ],
)
def test_values_are_checked_against_the_outer_annotation(annotation: Any, good: list[Any], bad: list[Any]) -> None:
    types = accepted(annotation)
    assert types <= ARRIVING
    assert all(type(value) in types for value in good)
    assert not any(type(value) in types for value in bad)


def test_the_context_goes_where_it_is_wanted() -> None:
    def annotated(symbol: str, request: rota.Context) -> None: ...
    def quoted(symbol: str, request: "rota.Context | None" = None) -> None: ...
    def for_type_checkers(symbol: str, request: "master_of_types.Context") -> None: ...
    def named(ctx, symbol): ...  # type: ignore[no-untyped-def]
    def not_first(symbol, ctx): ...  # type: ignore[no-untyped-def]
    def another(ctx: str) -> None: ...

    found = [Binding("a.b", f).context for f in (annotated, quoted, for_type_checkers, named, not_first, another)]
    assert found == ["request", "request", "request", "ctx", None, None]


def test_a_handler_gets_its_context_wherever_that_stands() -> None:
    def first(ctx: rota.Context, symbol: str) -> Any:
        return ctx, symbol

    def by_position_only(ctx: rota.Context, /, symbol: str) -> Any:
        return ctx, symbol

    def last(symbol: str, ctx: rota.Context) -> Any:
        return ctx, symbol

    def by_name_only(*, ctx: rota.Context, symbol: str) -> Any:
        return ctx, symbol

    context = object()
    for handler in (first, by_position_only, last, by_name_only):
        binding = Binding("a.b", handler)
        args, kwargs = binding.arguments([], {"symbol": "X"}, context)
        assert handler(*args, **kwargs) == (context, "X"), handler


def test_no_context_is_many() -> None:
    with pytest.raises(TypeError, match="parameters by name"):
        Binding("a.b", lambda *ctx: None)
    assert Binding("a.b", lambda **ctx: None).context is None


def test_a_caller_cannot_send_the_context() -> None:
    def book(ctx: rota.Context, symbol: str, **rest: Any) -> None: ...

    with pytest.raises(rota.BindError, match="unexpected argument 'ctx'"):
        Binding("orders.book", book).arguments([], {"symbol": "X", "ctx": {"request_id": "forged"}}, None)
    assert Binding("orders.book", book).arguments(["X"], {}, "ours") == (["ours", "X"], {})


def test_a_wrapped_handler_has_the_signature_of_what_it_wraps() -> None:
    @functools.wraps(quote)
    def logged(*args: Any, **kwargs: Any) -> None:
        return quote(*args, **kwargs)

    assert Binding("orders.quote", logged).describe() == QUOTE.describe()


# ---- Context ----


def test_a_context_can_be_made_by_hand_for_the_tests_of_users() -> None:
    ctx = rota.Context()
    assert ctx.remaining() == float("inf")
    assert (ctx.attempt, ctx.headers, ctx.session, ctx.idempotency_key) == (1, {}, None, None)


def test_what_remains_of_the_deadline_is_never_negative() -> None:
    assert 9 < rota.Context(deadline=time.monotonic() + 10).remaining() <= 10
    assert rota.Context(deadline=time.monotonic() - 10).remaining() == 0.0


def test_records_of_a_handler_carry_the_request(caplog: pytest.LogCaptureFixture) -> None:
    ctx = rota.Context(service="orders", handler="quote", request_id="7f-3", attempt=2)
    with caplog.at_level(logging.INFO):
        ctx.log.info("sold %d", 3)
    record = caplog.records[0]
    assert (record.name, record.getMessage()) == ("rota.orders", "sold 3")
    assert vars(record)["request_id"] == "7f-3" and vars(record)["attempt"] == 2


# ---- the face ----


def test_the_face_loads_what_is_named_and_nothing_heavy() -> None:
    code = """
import sys, zmq, msgpack
before = set(sys.modules)
import rota
rota.Worker, rota.Context, rota.Error
heavy = {"asyncio", "click", "subprocess", "http", "logging", "inspect", "dataclasses", "hashlib", "difflib"}
heavy |= {"rota.master", "rota.gateway", "rota.cli", "rota.client"}
print(sorted((set(sys.modules) - before) & heavy))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_name_of_the_face_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        rota.Clint  # noqa: B018
    assert {"Worker", "Client", "AsyncClient", "Admin", "testing", "Timeout"} <= set(dir(rota))


def test_run_while_the_file_is_being_loaded_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "being_loaded", True)
    with pytest.raises(RuntimeError, match='under `if __name__ == "__main__":`'):
        rota.Worker("orders").run()
