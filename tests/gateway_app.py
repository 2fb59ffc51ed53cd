"""A service that a gateway can call, without a web framework: docs/HTTP.md, by hand."""

import os
import time
from typing import Any

import rota

site = rota.Worker("site")
PLAIN = [[b"Content-Type", b"text/plain"]]


def serve(method: str, target: bytes, headers: list[Any], body: bytes, about: dict[str, Any]) -> list[Any]:
    path, _, query = target.partition(b"?")
    if path == b"/slow":
        time.sleep(float(query))
    elif path == b"/fail":
        raise KeyError("a secret")
    elif path == b"/die":
        os._exit(3)
    elif path == b"/odd":
        return [200, [[b"X-Odd", b"a\r\nSet-Cookie: evil"]], b""]
    elif path == b"/status":
        return [int(query), [], b"as I say"]
    elif path == b"/no-answer":
        return [1, 2]
    elif path == b"/about":
        return [200, PLAIN, repr({"headers": dict(headers), **about}).encode()]
    elif path == b"/pid":
        return [200, PLAIN, str(os.getpid()).encode()]
    elif path == b"/now":
        return [200, PLAIN, str(time.monotonic_ns()).encode()]
    elif path == b"/echo":
        return [201, [[b"Content-Type", b"application/octet-stream"]], body]
    return [200, PLAIN, b"%s %s" % (method.encode(), target)]


site.handler(name="http")(serve)
site.handler(name="http-safe", idempotent=True)(serve)
