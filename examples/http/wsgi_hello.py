"""A WSGI application without a framework: `rota run wsgi_hello.py:application` in this folder serves it.

GET / says hello, POST / sends back what it gets.
"""

from collections.abc import Callable, Iterable
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] != "/":
        return _answer(start_response, "404 Not Found", b"there is nothing here\n")
    if environ["REQUEST_METHOD"] == "POST":
        length = int(environ.get("CONTENT_LENGTH") or 0)
        return _answer(start_response, "200 OK", environ["wsgi.input"].read(length))
    return _answer(start_response, "200 OK", b"hello from WSGI\n")


def _answer(start_response: Callable[..., Any], status: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
