"""Calls in JSON: what is a call, what of it is refused, and how results and errors are told."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rota.common import errors
from rota.common.body import encode_call
from rota.common.settings import ServiceHttpSettings
from rota.gateway.core import calls
from rota.gateway.core.head import Head
from rota.gateway.core.routes import route_to

SERVICES = {"orders": route_to("orders", "", ServiceHttpSettings(calls=True))}
JSON = (b"content-type", b"application/json")


def ask(body: bytes, target: bytes = b"/-/call/orders/quote", method: str = "POST", *more: Any) -> calls.Asked:
    fields = [JSON, *more]
    return calls.asked(Head(method, target, "1.1", fields, b"x", len(body), False, True, False), body, SERVICES)


def refused(*args: Any) -> int:
    with pytest.raises(calls.Refused) as caught:
        ask(*args)
    answer = calls.of_refusal(caught.value, "id-7")
    problem = json.loads(answer.body)
    assert problem["status"] == answer.status and problem["request_id"] == "id-7" and problem["detail"]
    assert dict(answer.headers)[b"content-type"].startswith(b"application/problem+json")
    assert dict(answer.headers).get(b"allow") == (b"POST" if answer.status == 405 else None)
    return answer.status


def result(value: object) -> Any:
    answer = calls.answer(value, "id")
    assert answer.status == 200
    return json.loads(answer.body)


# ---- what is a call -------------------------------------------------------------------------------------------------


def test_an_object_is_named_arguments_and_an_array_those_in_order() -> None:
    asked = ask(b'{"symbol": "\xc3\xa9", "n": [1, 2.5, null, true]}')
    assert (asked.target, asked.args, asked.kwargs) == ("orders.quote", [], {"symbol": "é", "n": [1, 2.5, None, True]})
    asked = ask(b'["X", {"$bytes": "AP8="}]')
    assert (asked.args, asked.kwargs) == (["X", b"\x00\xff"], {})


@pytest.mark.parametrize(
    "target",
    [
        b"/-/call/", b"/-/call/orders", b"/-/call/orders/", b"/-/call/orders/quote/", b"/-/call/other/quote",
        b"/-/call/orders/http", b"/-/call/orders/http-safe", b"/-/call/orders%2Fx/quote", b"/-/call//quote",
        b"/-/call/\xff/quote", b"/-/call/orders/" + b"x" * 65, b"/-/call/orders/eu.quote", b"/-/call/orders/eu.http",
    ],
)  # fmt: skip
def test_what_is_not_there_or_not_on_is_404(target: bytes) -> None:
    assert refused(b"{}", target) == 404


def test_only_json_that_is_posted_is_a_call() -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        assert refused(b"{}", b"/-/call/orders/quote", method) == 405
    assert refused(b"{}", b"/-/call/orders/quote?n=1") == 400
    for kind in (b"text/plain", b"application/x-www-form-urlencoded", b"application/jsonp", b""):
        head = Head("POST", b"/-/call/orders/quote", "1.1", [(b"content-type", kind)], b"x", 2, False, True, False)
        with pytest.raises(calls.Refused) as caught:
            calls.asked(head, b"{}", SERVICES)
        assert caught.value.fault.status == 415
    assert refused(b"{}", b"/-/call/orders/quote", "POST", JSON) == 415, "two of them"
    assert calls.asked(
        Head("POST", b"/-/call/orders/q", "1.1", [(b"content-type", b"Application/JSON; charset=utf-8")], b"x", 2,
             False, True, False), b"{}", SERVICES,
    )  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'"x"', b"1", b"null", b"\xff", b'{"a": "\xff"}', b'\xef\xbb\xbf{}', '{"a": 1}'.encode("utf-16"),
        b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}', b'{"a": -1e999}',
        b'{"a": 1, "a": 2}', b'[{"x": {"b": 1, "b": 1}}]', b"[" + b"9" * 5000 + b"]", b"[" * 100_000, b"[1] [2]",
        b'{"$bytes": "AA=="}', b'[{"$bytes": "AA==", "x": 1}]', b'[{"$bytes": 1}]', b'[{"$bytes": "A"}]',
        b'[{"$bytes": "\xc3\xa9"}]', b'[{"$bytes": "AA =="}]',
    ],
)  # fmt: skip
def test_what_is_not_exactly_json_is_400(body: bytes) -> None:
    assert refused(body) == 400


@pytest.mark.parametrize("body", [b"[18446744073709551616]", b'["\\ud800"]', b"[1, -9223372036854775809]"])
def test_what_has_no_place_on_the_wire_is_known_before_it_is_sent(body: bytes) -> None:
    asked = ask(body)
    with pytest.raises(TypeError):
        encode_call(tuple(asked.args), asked.kwargs)


def test_key_and_deadline_are_headers_and_malformed_ones_are_refused() -> None:
    path, trace = b"/-/call/orders/quote", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked = ask(b"{}", path, "POST", (b"idempotency-key", b"k"), (b"x-rota-timeout", b"0.5"), (b"traceparent", trace))
    assert (asked.key, asked.timeout, asked.headers) == ("k", 0.5, {"traceparent": trace.decode()})
    assert (ask(b"{}").key, ask(b"{}").timeout, ask(b"{}").headers) == ("", None, {})
    for bad in (b"", b"a b", b"x" * 256):
        assert refused(b"{}", path, "POST", (b"idempotency-key", bad)) == 400
    for bad in (b"", b"0", b"0.0001", b"-1", b"1e3", b"nan", b"inf", b"1s", b"9999999999"):
        assert refused(b"{}", path, "POST", (b"x-rota-timeout", bad)) == 400
    assert refused(b"{}", path, "POST", (b"x-rota-timeout", b"1"), (b"x-rota-timeout", b"2")) == 400


# ---- results --------------------------------------------------------------------------------------------------------


def test_a_result_is_json_as_it_is() -> None:
    value = {"a": [1, -(2**63), 2**64 - 1, 0.1, None, True, "é\u2028"], "b": {}, "": b"\x00\xff"}
    assert result(value) == {**value, "": {"$bytes": "AP8="}}
    assert result((1, (2,))) == [1, [2]]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"items": [1, math.nan]}, "NaN or infinity"),
        (math.inf, "NaN or infinity"),
        ({1: 2}, "result has the key 1"),
        ({"a": {b"k": 1}}, "result.a has the key b'k'"),
        ({"$bytes": "AA=="}, "result has the key '$bytes'"),
        ([datetime.date(2026, 1, 1)], "result[0] is a date"),
        (decimal.Decimal(1), "result is a Decimal"),
        ({1, 2}, "result is a set"),
    ],
)
def test_a_result_that_json_has_no_word_for_is_refused_never_bent(value: object, where: str) -> None:
    with pytest.raises(calls.Unrepresentable) as caught:
        calls.answer(value, "id")
    answer = calls.of_error(caught.value, "id")
    problem = json.loads(answer.body)
    assert answer.status == 502 and problem["error"] == "Unrepresentable" and where in problem["detail"]


@pytest.mark.parametrize("nest", [lambda value: [value], lambda value: {"a": value}])
def test_a_result_that_is_nested_too_deeply_is_refused(nest: Callable[[Any], Any]) -> None:
    value: Any = []
    for _ in range(300):
        value = nest(value)
    assert json.loads(calls.answer(value, "id").body) == value
    for _ in range(700):
        value = nest(value)
    with pytest.raises(calls.Unrepresentable, match="nested too deeply"):
        calls.answer(value, "id")


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    PLAIN | st.text().filter(lambda text: text.isprintable()) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc$é\"", max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)  # fmt: skip


@given(VALUES)
def test_what_a_handler_gives_it_gets_back_as_an_argument(value: object) -> None:
    body = b'{"value": ' + calls.answer(value, "id").body + b"}"
    got = ask(body).kwargs["value"]
    assert got == value and type(got) is type(value)


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.MaybeExecuted("lost"), 502, "MaybeExecuted"),
        (errors.NotExecuted("lost"), 502, "NotExecuted"),
        (errors.Overloaded("full", retry_after=2.5), 503, "Overloaded"),
        (errors.NoService("closed", retry_after=90, details={"maintenance": True}), 503, "NoService"),
        (errors.NoService("no such handler", details={"unknown": "handler"}), 404, "NoService"),
        (errors.NoService("none", retry_after=1, details={"unknown": "service"}), 503, "NoService"),
        (errors.Timeout("late"), 504, "Timeout"),
        (errors.Conflict("key"), 422, "Conflict"),
        (errors.PayloadTooLarge("big"), 413, "PayloadTooLarge"),
        (errors.BindError("quote() wants symbol"), 422, "BindError"),
        (errors.RemoteError("ValueError", "no such symbol", "Traceback /secret"), 500, "RemoteError"),
    ],
)
def test_an_error_has_its_class_and_status_and_no_traceback(error: errors.Error, status: int, name: str) -> None:
    answer = calls.of_error(error, "id-7")
    problem = json.loads(answer.body)
    assert (answer.status, problem["status"], problem["error"]) == (status, status, name)
    assert problem["request_id"] == "id-7" and b"secret" not in answer.body
    assert problem.get("retry_after") == (math.ceil(error.retry_after) if error.retry_after else None)
    told = {"type": "ValueError", "message": "no such symbol"} if name == "RemoteError" else None
    assert problem.get("exception") == told
    assert name != "BindError" or problem["detail"] == "quote() wants symbol"
