"""What a gateway itself answers, and what it lets through."""

import json
import time

import pytest

from rota.common import errors
from rota.gateway.core import answers, forms
from rota.gateway.core.head import Fields, Head
from rota.gateway.core.requests import Peer, Proxies, key_of, keyed, request_id, trace_of

FAULTS = {
    errors.Overloaded("full", retry_after=2.2): (503, b"3"),
    errors.Unavailable("no master"): (503, b"1"),
    errors.NoService("site.http"): (503, b"1"),
    errors.NoService("site.http", details={"unknown": "service"}): (503, b"1"),
    errors.NoService("site.http", details={"unknown": "handler"}): (502, None),
    errors.Timeout("late"): (504, None),
    errors.Timeout("late in the queue", details={"started": False}): (503, b"1"),
    errors.Incompatible("versions 2 to 2, the peer 1 to 1"): (503, b"1"),
    errors.MaybeExecuted("lost"): (502, None),
    errors.NotExecuted("lost"): (502, None),
    errors.Quarantined("poison"): (500, None),
    errors.RemoteError("KeyError", "x", "Traceback of a secret"): (500, None),
    errors.PayloadTooLarge("arguments"): (413, None),
    errors.PayloadTooLarge("result", details={"what": "result"}): (502, None),
    errors.Conflict("key"): (422, None),
    errors.BindError("no http handler"): (502, None),
    errors.ProtocolError("odd"): (502, None),
    errors.Cancelled("gone"): (502, None),
    errors.Error("else"): (502, None),
    ValueError("else"): (502, None),
}


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: f"{type(error).__name__}-{error}")
@pytest.mark.parametrize("form", [forms.TEXT, forms.HTML, forms.PROBLEM])
def test_each_fault_has_its_status_and_says_when_to_come_again(error: Exception, form: str) -> None:
    status, retry_after = FAULTS[error]
    answer = answers.of_error(error, "id-7", form)
    fields = dict(answer.headers)
    assert (answer.status, fields.get(b"retry-after")) == (status, retry_after)
    assert fields[b"x-request-id"] == b"id-7" and b"id-7" in answer.body
    assert b"secret" not in answer.body and b"KeyError" not in answer.body


def test_a_request_that_is_too_large_is_told_the_limit_and_the_setting() -> None:
    answer = answers.of_error(errors.PayloadTooLarge("big", details={"size": 3000, "limit": 2048}), "id", forms.TEXT)
    assert b"has 3000 bytes with its headers, 2048 are allowed (master.max_message)" in answer.body


def test_every_error_of_rota_becomes_an_error_of_http() -> None:
    for kind in errors._BY_CODE.values():
        assert 400 <= answers.of_error(kind(), "id", forms.TEXT).status <= 599


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"", forms.TEXT),
        (b"*/*", forms.TEXT),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", forms.HTML),
        (b"application/json", forms.PROBLEM),
        (b"application/json;q=0.5, text/html;q=0.4", forms.PROBLEM),
        (b"Text/HTML;level=1;q=0.4, */*;q=0.1", forms.HTML),
        (b"application/problem+json, text/plain;q=0.9", forms.PROBLEM),
        (b"image/png", forms.TEXT),
        (b"text/html;q=0", forms.TEXT),
        (b"text/html;q=nan, application/json;q=0.1", forms.PROBLEM),
        (b"\xff\xfe,,;;q=,text/html;q=1", forms.HTML),
        (b"," * 30_000 + b"text/html", forms.TEXT),
    ],
)
def test_the_body_has_the_form_that_the_client_likes_best(accept: bytes, form: str) -> None:
    assert forms.form_of(accept) == form


def test_a_problem_is_json_and_a_page_is_escaped() -> None:
    error = errors.Timeout("We are <busy>", details={"cause": "rota's own", "code": "E-17"})  # the service's own words
    problem = json.loads(answers.of_error(error, "id", forms.PROBLEM).body)
    assert problem == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "We are <busy>",
        "request_id": "id",
        "code": "E-17",
    }
    page = answers.of_error(error, "<id>", forms.HTML).body
    assert b"We are &lt;busy&gt;" in page and b"&lt;id&gt;" in page and b"E-17" in page


@pytest.mark.parametrize("form", forms.MIME)
def test_a_code_of_the_application_stands_in_every_form_and_none_where_there_is_none(form: str) -> None:
    with_code, without = (forms.body(form, forms.Fault(503, "busy", code), "id") for code in ("E-17", ""))
    shown = {"html": b"503 &middot; E-17 ", "problem": b'"code": "E-17"', "text": b"Unavailable (E-17)\n"}
    assert shown.get(form, b"<code>E-17</code>") in with_code
    assert not any(part in without for part in (b"&middot;  ", b'"code"', b"<code>", b"()"))


# ---- what comes through ---------------------------------------------------------------------------------------------

FIELDS = Fields(
    [
        (b"host", b"x"),
        (b"connection", b"X-Hop, close"),
        (b"x-hop", b"1"),
        (b"proxy", b"http://evil"),
        (b"x_forwarded_for", b"1.1.1.1"),
        (b"x-forwarded-for", b"9.9.9.9, 1.2.3.4, 10.0.0.7"),
        (b"x-forwarded-proto", b"http, https"),
        (b"forwarded", b"for=9.9.9.9"),
        (b"cookie", b"a"),
        (b"cookie", b"b"),
    ]
)


def test_only_a_trusted_proxy_says_who_the_client_is_and_only_in_the_spelling_that_it_writes() -> None:
    rest = [[b"host", b"x"], [b"cookie", b"a"], [b"cookie", b"b"]]
    assert Proxies().passed_on(FIELDS, False) == Proxies((), True).passed_on(FIELDS, False) == rest
    names = [name for name, _ in Proxies().passed_on(FIELDS, True)]
    assert names == [b"host", b"x-forwarded-for", b"x-forwarded-proto", b"cookie", b"cookie"]
    names = [name for name, _ in Proxies((), True).passed_on(FIELDS, True)]
    assert names == [b"host", b"forwarded", b"cookie", b"cookie"]


def head(*fields: tuple[bytes, bytes]) -> Head:
    return Head("GET", b"/", "1.1", Fields(fields), b"own.example", None, False, True, False)


@pytest.mark.parametrize(
    ("said", "client"),
    [
        (b"9.9.9.9, 1.2.3.4, 10.0.0.7", ["1.2.3.4", 0]),  # what stands left of it anybody may have written
        (b"1.2.3.4", ["1.2.3.4", 0]),
        (b"1.2.3.4:555", ["1.2.3.4", 0]),
        (b"[2001:db8::1]:555", ["2001:db8::1", 0]),
        (b"2001:db8::1", ["2001:db8::1", 0]),
        (b'fe80::1%x" 200 - ' + b"x" * 5000, ["fe80::1", 0]),  # longer than a line of the access log
        (b"[fe80::1%eth0]:555", ["fe80::1", 0]),
        (b"10.0.0.8, 10.0.0.7", ["10.0.0.8", 0]),
        (b"1.2.3.4, unknown", ["10.0.0.1", 5]),
        (b"<script>", ["10.0.0.1", 5]),
        (b"", ["10.0.0.1", 5]),
    ],
)
def test_the_client_is_the_nearest_address_that_is_not_a_proxy_of_ours(said: bytes, client: list[object]) -> None:
    proxies = Proxies(["10.0.0.0/8"])
    peer = Peer(["10.0.0.1", 5], ["10.0.0.2", 80], proxies.trust("10.0.0.1"), "http", b"")
    assert peer.trusted and not proxies.trust("11.0.0.1") and not Proxies().trust("10.0.0.1")
    assert proxies.trust("::ffff:10.0.0.9") and not proxies.trust("") and not proxies.trust("fe80::1%eth0")
    fields = [(b"x-forwarded-for", said), (b"x-forwarded-proto", b"http, https"), (b"forwarded", b"for=6.6.6.6")]
    assert proxies.origin(peer, head(*fields)) == (client, "https", b"own.example")
    fields.append((b"x-forwarded-host", b"a.example, b.example:8080"))
    assert proxies.origin(peer, head(*fields)).host == b"b.example:8080"


@pytest.mark.parametrize(
    ("said", "origin"),
    [
        (b"for=1.2.3.4;proto=https;host=shop.example", (["1.2.3.4", 0], "https", b"shop.example")),
        (b'For="[2001:db8::1]:4711";Proto=HTTPS', (["2001:db8::1", 0], "https", b"own.example")),
        (b'for=9.9.9.9;host=evil, for=1.2.3.4;host="a:80", for=10.0.0.7;host=b', (["1.2.3.4", 0], "http", b"a:80")),
        (b"for=1.2.3.4;host=a,for=unknown;host=b;proto=https", (["10.0.0.1", 5], "https", b"b")),
        (b"for=_hidden", (["10.0.0.1", 5], "http", b"own.example")),
        (b'for="\\1.2.3.4"', (["1.2.3.4", 0], "http", b"own.example")),
        (b", for=1.2.3.4 ; proto=https ,", (["1.2.3.4", 0], "https", b"own.example")),
        (b"for=1.2.3.4;proto=https,,", (["1.2.3.4", 0], "https", b"own.example")),
        (b"proto=https", (["10.0.0.1", 5], "https", b"own.example")),
        (b'for=1.2.3.4;host="a/b";proto=ftp', (["1.2.3.4", 0], "http", b"own.example")),
        # malformed anywhere: nothing of it counts
        (b"for=1.2.3.4;for=5.6.7.8", (["10.0.0.1", 5], "http", b"own.example")),
        (b'for="1.2.3.4', (["10.0.0.1", 5], "http", b"own.example")),
        (b"for=[::1]", (["10.0.0.1", 5], "http", b"own.example")),
        (b"for=1.2.3.4, nonsense", (["10.0.0.1", 5], "http", b"own.example")),
        (b"for=1.2.3.4 proto=https", (["10.0.0.1", 5], "http", b"own.example")),
        (b"", (["10.0.0.1", 5], "http", b"own.example")),
    ],
)
def test_forwarded_is_read_where_proxies_write_that(said: bytes, origin: tuple[object, ...]) -> None:
    peer = Peer(["10.0.0.1", 5], ["10.0.0.2", 80], True, "http", b"")
    fields = [(b"x-forwarded-for", b"6.6.6.6"), (b"forwarded", said), (b"x-forwarded-host", b"evil")]
    assert Proxies(["10.0.0.0/8"], True).origin(peer, head(*fields)) == origin


def test_a_long_forwarded_is_read_in_time_that_is_linear() -> None:
    peer = Peer(["10.0.0.1", 5], ["10.0.0.2", 80], True, "http", b"")
    for said in (b'for="' + b"\\a" * 16_000, b"a=b;" * 8_000 + b"!", b"," * 32_000, b" " * 32_000 + b"x"):
        began = time.thread_time()
        Proxies((), True).origin(peer, head((b"forwarded", said)))
        assert time.thread_time() - began < 0.5


def test_a_request_keeps_an_id_that_is_fit_for_a_log_and_gets_one_otherwise() -> None:
    assert request_id([(b"x", b"y"), (b"x-request-id", b"abc-1")], lambda: "new") == "abc-1"
    for bad in (b"", b"a b", b'a"b', b"x" * 129, b"\xff"):
        assert request_id([(b"x-request-id", bad)], lambda: "new") == "new"


def test_what_goes_into_a_log_or_a_key_is_of_so_many_bytes_of_these() -> None:
    def kept(value: bytes) -> bool:
        return request_id([(b"x-request-id", value)], lambda: "") == value.decode("latin-1")

    letters = set(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert {byte for byte in range(256) if kept(bytes([byte]))} == letters | set(b"._~+/=:@-")
    assert kept(b"x" * 128) and not kept(b"x" * 129)
    keys = {byte for byte in range(256) if key_of([(b"idempotency-key", bytes([byte]))])}
    assert keys == set(range(0x21, 0x7F))
    assert key_of([(b"idempotency-key", b"x" * 255)]) and not key_of([(b"idempotency-key", b"x" * 256)])


def test_a_trace_is_of_hexadecimal_digits_in_lower_case_at_every_place() -> None:
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for place, old in enumerate(trace):
        found = {
            byte
            for byte in range(256)
            if trace_of([(b"traceparent", trace[:place] + bytes([byte]) + trace[place + 1 :])])
        }
        assert found == (set(b"-") if old == ord("-") else set(b"0123456789abcdef"))
    for longer in (b"0" + trace, trace + b"0", trace.replace(b"-b7", b"0-b7"), trace.replace(b"-01", b"0-01")):
        assert trace_of([(b"traceparent", longer)]) == {}
    for zeros in (trace.replace(b"b7ad6b7169203331", b"0" * 16), trace.replace(b"00-", b"ff-")):
        assert trace_of([(b"traceparent", zeros)]) == {}


def test_only_one_well_formed_key_and_trace_count() -> None:
    assert key_of([(b"idempotency-key", b'"k-1"')]) == '"k-1"'
    assert key_of([(b"idempotency-key", b"k 1")]) == key_of([(b"idempotency-key", b"k")] * 2) == key_of([]) == ""
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_of([(b"traceparent", trace)]) == {"traceparent": trace.decode()}
    for bad in (
        trace.upper(),
        trace[:-1],
        trace.replace(b"0af7651916cd43dd8448eb211c80319c", b"0" * 32),
        b"ff" + trace[2:],
    ):
        assert trace_of([(b"traceparent", bad)]) == {}


def test_two_tries_with_one_key_are_the_same_call() -> None:
    def call(port: int, id: str) -> tuple[list[list[bytes]], dict[str, object]]:
        fields = [[b"host", b"x"], [b"idempotency-key", b"k"], [b"x-request-id", id.encode()], [b"traceparent", b"t"]]
        about: dict[str, object] = {"client": ["1.2.3.4", port], "id": id, "root": ""}
        return keyed(fields, about), about

    assert call(1, "a") == call(2, "b")
    fields, about = call(1, "a")
    assert fields == [[b"host", b"x"], [b"idempotency-key", b"k"]]
    assert about == {"client": ["1.2.3.4", 0], "id": "", "root": ""}
