"""Where the keys of a TOML text stand: path -> line number.

tomli gives values without places, and an error without `file:line` sends people searching. This
walks a text that tomli has accepted, so it only has to find keys and skip values, and it never
judges: what it does not know how to place is simply missing from the answer.
"""

from __future__ import annotations

import re
from bisect import bisect_right

import tomli

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")  # what may stand between values and lines
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of each table and key. A table that is never named has its first key's line."""
    return _Walk(text).run()


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[Path, int] = {}

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self.skip(_BLANK)
        while self.at < len(self.text):
            if self.peek() == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip(_BLANK)
        return self.lines

    def header(self) -> Path:
        line = self.line()
        while self.peek() == "[":
            self.at += 1
        table = self.note((), line)
        while self.peek() == "]":
            self.at += 1
        return table

    def pair(self, table: Path) -> None:
        path = self.note(table, self.line())
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        if self.peek() == "[":
            self.items(path, "]")
        elif self.peek() == "{":
            self.items(path, "}")
        elif not self.skip(_STRING):
            self.skip(_SCALAR)

    def items(self, path: Path, end: str) -> None:
        self.at += 1
        self.skip(_BLANK)
        while self.peek() not in (end, ""):
            if self.peek() == ",":
                self.at += 1
            elif end == "}":
                self.pair(path)
            else:
                self.value(path)
            self.skip(_BLANK)
        self.at += 1

    def note(self, table: Path, line: int) -> Path:
        """Read a dotted key and remember its line, and that of tables that it makes in passing."""
        path = table + self.dotted_key()
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)
        return path

    def dotted_key(self) -> Path:
        self.skip(_SPACE)
        keys = [self.key()]
        self.skip(_SPACE)
        while self.peek() == ".":
            self.at += 1
            self.skip(_SPACE)
            keys.append(self.key())
            self.skip(_SPACE)
        return tuple(keys)

    def key(self) -> str:
        token = self.skip(_BARE_KEY)
        if token:
            return token
        token = self.skip(_STRING)
        if not token:
            raise ValueError(f"no key at line {self.line()}")
        unquoted: str = tomli.loads(f"key = {token}")["key"]
        return unquoted

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if not match:
            return ""
        self.at = match.end()
        return match[0]

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def line(self) -> int:
        return bisect_right(self.newlines, self.at - 1) + 1
