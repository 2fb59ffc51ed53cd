"""Session affinity: what of a request says whose it is, and the cookie that says it when nothing did."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from .head import Fields

COOKIE_BYTES = 16  # random ones: not to be guessed, and never the same twice
_COOKIE = re.compile(rb"[0-9a-f]{%d}" % (2 * COOKIE_BYTES))  # ours; what else has its name was not made here
_HEADER = re.compile(rb"[!-~]{1,255}")


class Affinity(NamedTuple):
    """`header`: where the session is, in lower case, or else `cookie`: its name."""

    header: bytes
    cookie: bytes

    @classmethod
    def of(cls, setting: str | None, cookie: str) -> Self | None:
        """As it stands in the settings."""
        if setting is None:
            return None
        return cls(setting.partition(":")[2].lower().encode(), cookie.encode())

    def session(self, fields: Fields, root: str, scheme: str, new: Callable[[int], str]) -> tuple[str, bytes]:
        """The session of a request, "" for none; and the value of Set-Cookie that goes with its answer, if it is new.

        `new` makes so many random bytes, in hexadecimal digits.
        """
        if self.header:
            found = [value for name, value in fields if name == self.header]
            return found[0].decode() if len(found) == 1 and _HEADER.fullmatch(found[0]) else "", b""
        if known := self._known(fields):
            return known, b""
        session = new(COOKIE_BYTES)
        secure = "; Secure" if scheme == "https" else ""
        about = f"{session}; Path={root or '/'}; HttpOnly; SameSite=Lax{secure}"
        return session, b"%s=%s" % (self.cookie, about.encode())

    def _known(self, fields: Fields) -> str:
        """The first of ours: browsers send that of the longest path first."""
        for _, value in (field for field in fields if field[0] == b"cookie"):
            for pair in value.split(b";"):
                name, _, text = pair.strip().partition(b"=")
                if name == self.cookie and _COOKIE.fullmatch(text):
                    return text.decode()
        return ""


def add_cookie(headers: list[Any], cookie: bytes) -> None:
    """To the answer of an application, unless it sets one of that name itself."""
    name = cookie.partition(b"=")[0]
    own = (value for field, value in headers if field.lower() == b"set-cookie")
    if all(value.partition(b"=")[0].strip() != name for value in own):
        headers.append((b"set-cookie", cookie))
