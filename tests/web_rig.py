"""`rota run APP --http` as a child process, and a browser with cookies."""

from __future__ import annotations

import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from waiting import until

from rota.cli.children import Child

PATIENCE_S = 30.0
PACE_S = 0.01  # between two requests of a load, which is not to slow down what it watches
_ADDRESS = re.compile(r"is ready: .*, (tcp://\S+)$", re.MULTILINE)
_URL = re.compile(r"rota gateway: (http://127\.0\.0\.1:\d+) ")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    text: str


class Browser:
    """Follows redirects, keeps cookies."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(CookieJar())
        )

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask(path, None, headers)

    def post(
        self, path: str, data: bytes | None = None, form: Mapping[str, str] | None = None, **headers: str
    ) -> Answer:
        return self._ask(path, urlencode(form or {}).encode() if data is None else data, headers)

    def _ask(self, path: str, data: bytes | None, headers: Mapping[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            answer = self._opener.open(urllib.request.Request(self._url + path, data, named), timeout=PATIENCE_S)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Answer(answer.status or 0, answer.headers, answer.read().decode())


class Site:
    """What `rota run` serves."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.url = self.master = ""
        self._from = 0

    def ready(self) -> Site:
        until(lambda: self._ready() or self.child.status() is not None, self.child.output)
        assert self.child.status() is None, self.child.output()
        return self

    def _ready(self) -> bool:
        output = self.child.output()
        address, url = _ADDRESS.search(output), _URL.search(output)
        if not address or not url:
            return False
        self.master, self.url = address[1], url[1]
        return self.browser().get("/-/ready").status == 200

    def browser(self) -> Browser:
        return Browser(self.url)

    def says(self, text: str) -> None:
        """Waits until it is on the terminal, behind what was awaited before."""

        def found() -> bool:
            at = self.child.output().find(text, self._from)
            if at >= 0:
                self._from = at + len(text)
            return at >= 0

        until(found, lambda: f"no {text!r} in: {self.child.output()[self._from :]}")

    def end(self) -> None:
        """As Ctrl-C does; it must end well."""
        self.child.signal(signal.SIGINT)
        assert self.child.wait(PATIENCE_S), self.child.output()
        assert self.child.status() == 0, self.child.output()


@contextmanager
def running(log: Path, words: list[str], cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Site]:
    """The site of `rota run` with these words, on free ports."""
    ports = ["--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*"]
    child = Child(["run", *words, *ports], log, cwd=str(cwd), env=env)
    try:
        yield Site(child)
    finally:
        child.end(2.0)
