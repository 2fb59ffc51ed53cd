"""A WSGI application behind the handler `http`: PEP 3333, and what is refused of its answers."""

import io
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from hosting_rig import Answer, answer_of, arguments, failure_of, request

from rota.testing import LocalCluster
from rota.worker import wsgi
from rota.worker.hosting import SyncHost

EXAMPLE = Path(__file__).parent.parent / "examples" / "http" / "wsgi_hello.py"
PLAIN = [("Content-Type", "text/plain")]


def hosted(application: Any) -> SyncHost:
    return SyncHost(wsgi.worker(application, "site"))


def ask(application: Any, *given: Any, **named: Any) -> Answer:
    return answer_of(hosted(application).run(request(*given, **named)))


def refusal(application: Any, *given: Any, **named: Any) -> str:
    """The sentence for an answer that breaks the rules."""
    error = failure_of(hosted(application).run(request(*given, **named)))
    assert error.type.endswith("BadAnswer"), error
    return error.message


def environ_for(*given: Any, **named: Any) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(environ)
        start_response("204 No Content", [])
        return []

    ask(application, *given, **named)
    return seen[0]


def saying(result: Any, status: Any = "200 OK", headers: Any = PLAIN) -> Callable[..., Any]:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response(status, headers)
        return result

    return application


class Body:
    """An iterable that notes what becomes of it."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = blocks
        self.log: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        for block in self.blocks:
            if isinstance(block, Exception):
                raise block
            yield block
        self.log.append("ended")

    def close(self) -> None:
        self.log.append("closed")


# ---- the request ----


def test_the_environment_says_everything_of_the_request() -> None:
    headers = [
        [b"host", b"shop.example:8443"],
        [b"content-type", b"text/plain"],
        [b"content-length", b"5"],
        [b"x-two-words", b"caf\xe9"],
    ]
    environ = environ_for("POST", b"/a/b?x=%20y&z", headers, b"12345")
    assert type(environ) is dict
    texts = {key: value for key, value in environ.items() if "." not in key}
    assert texts == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "x=%20y&z",
        "REQUEST_URI": "/a/b?x=%20y&z",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTPS": "on",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "40123",
        "HTTP_HOST": "shop.example:8443",
        "HTTP_X_TWO_WORDS": "caf\xe9",
    }
    assert environ["wsgi.version"] == (1, 0) and environ["wsgi.url_scheme"] == "https"
    assert environ["wsgi.errors"] is sys.stderr and environ["wsgi.input"].read() == b"12345"
    flags = [environ[f"wsgi.{each}"] for each in ("multithread", "multiprocess", "run_once")]
    assert flags == [False, True, False]
    assert environ["rota.request_id"] == "4f-7"


def test_without_tls_nothing_says_that_there_is() -> None:
    environ = environ_for(scheme="http")
    assert environ["wsgi.url_scheme"] == "http" and "HTTPS" not in environ


def test_the_path_is_decoded_and_below_its_root() -> None:
    environ = environ_for("GET", b"/sh%6Fp/caf%C3%A9%2Fx", root="/shop")
    assert environ["SCRIPT_NAME"] == "/shop"
    assert environ["PATH_INFO"] == "/caf\xc3\xa9/x"  # bytes as latin-1
    assert environ["REQUEST_URI"] == "/sh%6Fp/caf%C3%A9%2Fx"
    assert environ_for("GET", b"/shop", root="/shop")["PATH_INFO"] == ""
    there = environ_for("GET", b"/caf%C3%A9/x", root="/caf\xe9")
    assert (there["SCRIPT_NAME"], there["PATH_INFO"]) == ("/caf\xc3\xa9", "/x")
    assert environ_for("OPTIONS", b"*")["PATH_INFO"] == ""


@pytest.mark.parametrize("target", [b"/sho", b"/shopping", b"/", b"shop", b"", b"http://shop/"])
def test_a_target_that_is_not_below_the_root_reaches_no_application(target: bytes) -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        raise AssertionError("called")

    error = failure_of(hosted(application).run(request("GET", target, root="/shop")))
    assert error.type == "ValueError" and "the target" in error.message


@pytest.mark.parametrize("about", [{"client": ["only a host"]}, {"server": 7}, {"server": ["only a host"]}])
def test_a_request_without_its_circumstances_is_told_what_is_missing(about: dict[str, Any]) -> None:
    error = failure_of(hosted(saying([])).run(request(**about)))
    assert error.type == "ValueError" and "`about` must have scheme, version, client" in error.message


def test_a_body_that_comes_as_a_stream_needs_a_caller_that_streams() -> None:
    error = failure_of(hosted(saying([])).run(request(body=5)))
    assert error.type == "ValueError" and "needs a caller that streams" in error.message


def test_what_a_call_with_a_key_has_beside_its_arguments_is_put_back() -> None:
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append([environ.get(key) for key in ("rota.request_id", "HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT")])
        start_response("204 No Content", [])
        return []

    host = hosted(application)
    beside = {"x-request-id": "4f-7", "traceparent": "00-ab-cd-01"}
    for headers in (beside, {}):
        assert answer_of(host.run(request(id="")._replace(headers=headers))).status == 204
    assert seen == [["4f-7", "4f-7", "00-ab-cd-01"], ["7f-3", None, None]]


def test_repeated_headers_are_joined() -> None:
    pairs = [[b"accept", b"a"], [b"cookie", b"x=1"], [b"accept", b"b"], [b"cookie", b"y=2"]]
    environ = environ_for("GET", b"/", pairs)
    assert (environ["HTTP_ACCEPT"], environ["HTTP_COOKIE"]) == ("a,b", "x=1; y=2")


def test_headers_that_would_pass_for_others_are_not_seen() -> None:
    for _ in range(2):  # the second time they are known
        environ = environ_for("GET", b"/", [[b"x_real_ip", b"1"], [b"proxy", b"evil"], [b"x-real-ip", b"2"]])
        assert environ["HTTP_X_REAL_IP"] == "2" and "HTTP_PROXY" not in environ and "" not in environ
        assert "" not in environ_for("GET", b"/", [[b"proxy", b"evil"]])


def test_blanks_around_the_value_of_a_header_are_no_part_of_it() -> None:
    cookie = ("Set-Cookie", " id=1; Path=/ ")  # as Django writes it; HTTP/2 peers refuse such a field
    assert ask(saying([b""], headers=[cookie])).headers == [[b"Set-Cookie", b"id=1; Path=/"]]


def test_headers_of_clients_fill_no_memory() -> None:
    for start in range(0, 2 * wsgi._key.cache_info().maxsize, 100):
        environ_for("GET", b"/", [[b"x-%d" % number, b""] for number in range(start, start + 100)])
    assert wsgi._key.cache_info().currsize <= 512
    environ = environ_for("GET", b"/", [[b"y" * 5000, b"1"]])
    assert environ["HTTP_" + "Y" * 5000] == "1"


def test_the_length_of_the_body_is_what_there_is() -> None:
    assert "CONTENT_LENGTH" not in environ_for("GET", b"/")
    assert environ_for("POST", b"/", [], b"abc")["CONTENT_LENGTH"] == "3"  # it came in chunks
    for times in (1, 2):
        assert environ_for("POST", b"/", [[b"content-length", b"0"]] * times)["CONTENT_LENGTH"] == "0"


# ---- the answer ----


@pytest.mark.parametrize(
    "result",
    [[b"hello ", b"", b"there"], (b"hello there",), iter([b"hello", b" there"]), Body(b"hello ", b"there")],
    ids=["list", "tuple", "iterator", "object"],
)
def test_any_iterable_of_bytes_is_a_body(result: Any) -> None:
    answer = ask(saying(result, "201 Created"))
    assert answer == (201, [[b"Content-Type", b"text/plain"]], b"hello there")


def test_a_generator_may_start_its_answer_late() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("X-Late", "yes")])
        yield b"a"
        yield b"b"

    assert ask(application) == (200, [[b"X-Late", b"yes"]], b"ab")


def test_a_body_may_be_empty() -> None:
    assert ask(saying([], "204 No Content", [])) == (204, [], b"")
    assert ask(saying(iter(())))[2] == b""


def test_what_is_written_comes_before_what_is_returned() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"1")
        write(b"2")
        return [b"3"]

    assert ask(application)[2] == b"123"


def test_a_file_may_be_the_body() -> None:
    file = io.BytesIO(b"x" * 100_000)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file, 8192)

    assert ask(application)[2] == b"x" * 100_000
    assert file.closed


def test_close_is_called_whatever_happens() -> None:
    for blocks, log in [((b"a",), ["ended", "closed"]), ((b"a", OSError("gone")), ["closed"]), ((3,), ["closed"])]:
        body = Body(*blocks)
        hosted(saying(body)).run(request())
        assert body.log == log
    silent = Body()
    assert "without having called start_response" in refusal(lambda environ, start_response: silent)
    assert silent.log == ["ended", "closed"]


def test_an_application_may_change_its_mind_until_the_body_begins() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("X-First", "1")])
        try:
            raise LookupError("no such page")
        except LookupError:
            start_response("404 Not Found", PLAIN, sys.exc_info())
        return [b"sorry"]

    assert ask(application) == (404, [[b"Content-Type", b"text/plain"]], b"sorry")


def test_once_the_body_has_begun_the_error_is_raised_again() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        try:
            raise LookupError("no such page")
        except LookupError:
            start_response("404 Not Found", PLAIN, sys.exc_info())
        yield b"sorry"

    error = failure_of(hosted(application).run(request()))
    assert (error.type, error.message) == ("LookupError", "no such page")


def test_a_second_start_without_an_error_is_refused() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return []

    assert "called twice; the second time needs exc_info" in refusal(application)


@pytest.mark.parametrize(
    "application, sentence",
    [
        (saying(None), "must return an iterable of bytes, not None"),
        (saying(3), "must return an iterable of bytes, not int"),
        (saying("text"), "not str: say [body]"),
        (saying(b"bytes"), "not bytes: say [body]"),
        (saying(["text"]), "must be made of bytes, not of str"),
        (lambda environ, start_response: [b"x"], "before start_response was called"),
        (
            lambda environ, start_response: environ["wsgi.file_wrapper"](io.BytesIO(b"x")),
            "before start_response was called",
        ),
        (saying([], 200), "must be a text such as '200 OK', not 200"),
        (saying([], "OK"), "must be a text such as '200 OK'"),
        (saying([], "100 Continue"), "must be a text such as '200 OK'"),
        (saying([], "200 OK\r\nX: y"), "must be a text such as '200 OK'"),
        (saying([], headers=(("A", "b"),)), "must be a list of (name, value), not tuple"),
        (saying([], headers=[("A", 1)]), "must be pairs of texts in latin-1"),
        (saying([], headers=[(b"A", b"1")]), "must be pairs of texts in latin-1"),
        (saying([], headers=["A"]), "must be pairs of texts in latin-1"),
        (saying([], headers=[("A", "\u20ac")]), "must be pairs of texts in latin-1"),
        (saying([], headers=[("A b", "1")]), "is not the name of a header"),
        (saying([], headers=[("", "1")]), "is not the name of a header"),
        (saying([], headers=[("A\r\nB", "1")]), "is not the name of a header"),
        (saying([], headers=[("A", "1\r\nSet-Cookie: x")]), "has a control character in its value"),
        (saying([], headers=[("A", "1\n")]), "has a control character in its value"),
        (saying([], headers=[("A", "\0")]), "has a control character in its value"),
        (saying([b"12345"], headers=[("content-length", "4")]), "its Content-Length is '4', its body has 5 bytes"),
        (saying([b"12345"], headers=[("Content-Length", "6")]), "its Content-Length is '6', its body has 5 bytes"),
        (saying([b"12345"], headers=[("Content-Length", "five")]), "its Content-Length is 'five'"),
    ],
)
def test_an_answer_that_breaks_the_rules_is_refused_with_a_sentence(application: Any, sentence: str) -> None:
    assert sentence in refusal(application)


@pytest.mark.parametrize("method, status", [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_an_answer_without_a_body_may_tell_the_length_of_another(method: str, status: str) -> None:
    assert ask(saying([], status, [("Content-Length", "5")]), method)[1] == [[b"Content-Length", b"5"]]


def test_an_exception_shows_the_frames_of_the_application_alone() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        return [{}["price"]]

    error = failure_of(hosted(application).run(request()))
    assert error.type == "KeyError" and "in application" in error.traceback_text
    assert "worker/wsgi.py" not in error.traceback_text


def test_the_next_request_does_not_see_the_one_before() -> None:
    host = hosted(saying([b"ok"]))
    assert failure_of(host.run(request("GET", b"nowhere")))
    assert answer_of(host.run(request()))[2] == b"ok"


# ---- the example ----


def example() -> Any:
    spec = spec_from_file_location("wsgi_hello", EXAMPLE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.application


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "given, status, body",
    [
        (("GET", b"/"), 200, b"hello from WSGI\n"),
        (("POST", b"/", [[b"content-type", b"text/plain"]], b"\x00\xff"), 200, b"\x00\xff"),
        (("GET", b"/nowhere?a=b"), 404, b"there is nothing here\n"),
    ],
)
def test_the_standard_validator_has_no_complaint(given: Any, status: int, body: bytes) -> None:
    answer = ask(validator(example()), *given)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.filterwarnings("error")
def test_the_validator_has_no_complaint_about_a_root_and_about_write() -> None:
    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        write = start_response("200 OK", PLAIN)
        write(environ["PATH_INFO"].encode())
        return iter([b"", b"."])

    assert ask(validator(application), "GET", b"/shop/x", root="/shop").body == b"/x."
    assert ask(validator(application), "GET", b"/shop", root="/shop").body == b"."


def test_a_client_reaches_the_example_through_a_real_pool() -> None:
    settings = {"slave.service": "site"}
    with LocalCluster(f"{EXAMPLE}:application", settings=settings) as cluster, cluster.client() as client:
        assert Answer(*client.call("site.http-safe", *arguments())) == (
            200,
            [[b"Content-Type", b"text/plain; charset=utf-8"], [b"Content-Length", b"16"]],
            b"hello from WSGI\n",
        )
        assert client.call("site.http", *arguments("POST", b"/", [], b"a" * 100_000))[2] == b"a" * 100_000
        handlers = cluster.status()["services"][0]["handlers"]
        assert set(handlers) == {"http", "http-safe", "websocket"}
