"""A steady load on the loan service as a web application: so many GETs a second over connections that are kept.

    python examples/load_web.py --url http://127.0.0.1:8080 --rate 400 --seconds 10

Its lines and its report are those of load.py. A status other than 200 and a connection that breaks are failures:
nothing is tried again here.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode, urlsplit

from load import MONTHS, TIMEOUT_S, Load, Request, arguments, play

CONNECTIONS = 16  # 400 a second that take 20 ms each keep 8 busy


class BadStatus(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.outcome = f"status {status}"


class Site:
    """What is asked: each thread of its pool has a connection of its own."""

    def __init__(self, url: str) -> None:
        self._where = urlsplit(url)
        self._own = threading.local()
        self._pool = ThreadPoolExecutor(CONNECTIONS)

    def ask(self, request: Request) -> Future[Any]:
        return self._pool.submit(self._get, request)

    def _get(self, request: Request) -> dict[str, object]:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._where.hostname or "", self._where.port, timeout=TIMEOUT_S)
            self._own.connection = connection
        try:
            connection.request("GET", "/quote?" + urlencode({"amount": request.amount, "months": MONTHS}))
            answer = connection.getresponse()
            body = answer.read()
        except BaseException:
            connection.close()  # the next request opens it again
            raise
        if answer.status != 200:
            raise BadStatus(answer.status)
        found: dict[str, object] = json.loads(body)
        return found


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the gateway (%(default)s)")
    options = parser.parse_args()
    return play(Load(Site(options.url).ask, options.rate), options)


if __name__ == "__main__":
    sys.exit(main())
