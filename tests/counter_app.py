"""A WSGI application with a memory: what it has counted for a user is lost with its process."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

counts: Counter[str] = Counter()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    user = environ["QUERY_STRING"]
    counts[user] += 1
    start_response("200 OK", [("Content-Type", "text/plain"), ("Set-Cookie", "seen=1; Path=/")])
    return [b"%d %d" % (os.getpid(), counts[user])]
