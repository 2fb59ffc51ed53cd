"""The kinds of value a setting can have: how each is read, checked, shown and described.

`read` takes what a TOML file (or a Python caller) gives, `read_text` what a flag or an
environment variable gives. Both raise ValueError with the rest of a sentence whose subject is
the setting: "must be ...". Reading what was read before changes nothing.
"""

from __future__ import annotations

import datetime
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .addresses import HOST as _HOST
from .addresses import meant
from .limits import PORT_MAX
from .names import NAME_FORM, VERSION_FORM, did_you_mean, valid_name, valid_version
from .units import format_duration, format_size, parse_duration, parse_size


class Kind(ABC):
    metavar: ClassVar[str] = "TEXT"
    repeats: ClassVar[bool] = False  # a flag of this kind may be given several times

    @abstractmethod
    def read(self, value: object) -> Any: ...

    def read_text(self, text: str) -> Any:
        return self.read(text)

    def show(self, value: Any) -> str:
        """The value as TOML; empty when TOML cannot say it (it has no null)."""
        return json.dumps(value, ensure_ascii=False)

    def describe(self) -> str:
        return self.metavar.lower()


class BadItems(ValueError):
    """Several entries of one table are wrong: entry -> what is wrong with it."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in problems.items()))
        self.problems = problems


@dataclass(frozen=True)
class Text(Kind):
    limit: int = 1024  # longer is a mistake of the hand, and would bloat every message with it

    def read(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a text in quotes, not {quoted(value)}")
        if not value or len(value) > self.limit or not value.isprintable():
            raise ValueError(f"must be 1 to {self.limit} printable characters, not {quoted(value)}")
        return value


class Directory(Text):
    metavar = "DIR"

    def describe(self) -> str:
        return "directory"


class File(Text):
    metavar = "FILE"


@dataclass(frozen=True)
class Pattern(Kind):
    """A text of a certain form; what the form is stands in one place and the error repeats it."""

    pattern: str
    form: str
    example: str

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value, re.ASCII):
            raise ValueError(f"must be {self.form} such as {self.example}, not {quoted(value)}")
        return value

    def describe(self) -> str:
        return self.form.rstrip(",")  # it goes on with "such as" in an error


class Name(Kind):
    """Of a node, a service, a tag: no blanks, commas or =, so that lists and k=v stay plain."""

    metavar = "NAME"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not valid_name(value):
            raise ValueError(f"must be {NAME_FORM}; not {quoted(value)}")
        return value


class Version(Text):
    """Of an application."""

    def read(self, value: object) -> str:
        if isinstance(value, str) and not valid_version(value):
            raise ValueError(f"must be {VERSION_FORM}, not {quoted(value)}")
        return super().read(value)


class HostPort(Pattern):
    """A text that ends with a port. The system takes a larger one modulo 65536, and listens there without a word."""

    metavar = "HOST:PORT"

    def read(self, value: object) -> str:
        text = super().read(value)
        port = text.rpartition(":")[2]
        if port != "*" and int(port) > PORT_MAX:
            raise ValueError(_no_port(port))
        return text


def _no_port(port: str) -> str:
    return f"must have a port from 1 to {PORT_MAX}, not {port}"


_PORT = "[0-9]{1,9}"
HOST = Pattern(_HOST, "a host name or IP address", "10.0.0.5 or [fd00::5]")
HOST_PORT = HostPort(rf"(?:{_HOST}):{_PORT}", "HOST:PORT", "127.0.0.1:5432")
LISTEN = HostPort(rf"(?:\*|{_HOST}):(?:\*|{_PORT})", "HOST:PORT to listen on (either may be *)", "0.0.0.0:8080")
ROUTE = Pattern(
    r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?/[A-Za-z0-9._~!$&'()*+;=:@%/-]{0,255}",
    "a path prefix, with a host before it where it is for one host only,",
    "/shop or api.example.com/v1",
)
AFFINITY = Pattern(
    r"cookie|header:[A-Za-z0-9!#$%&'*+.^`|~-]{1,64}", "cookie, or header: and its name,", "header:X-Session"
)
COOKIE = Pattern(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", "the name of a cookie", "rota_session")
METHOD = Pattern(r"[A-Z][A-Z-]{0,31}", "an HTTP method in capitals", "PUT")
APP = Pattern(r"[^:]+(:[^:\s]+)?", "module:attribute or file.py:attribute", "shop.orders:orders")


@dataclass(frozen=True)
class Address(Kind):
    """`tcp://HOST:PORT`. One to bind may have `*` as host, and `*` as port for any free one."""

    bind: bool = False
    metavar = "ADDRESS"

    def read(self, value: object) -> str:
        parts = split_address(value) if isinstance(value, str) else None
        if parts is None:
            fix = meant(value, lambda guess: split_address(guess) is not None) if isinstance(value, str) else ""
            raise ValueError(f"must be {self.describe()}, not {quoted(value)}{fix}")
        host, port = parts
        if not self.bind and (host == "*" or port == "*"):
            raise ValueError(f"must name one host and port to connect to, not {quoted(value)}")
        if port != "*" and not 1 <= int(port) <= PORT_MAX:
            raise ValueError(_no_port(port))
        return str(value)

    def describe(self) -> str:
        return "an address, tcp://HOST:PORT"


_ADDRESS = re.compile(rf"tcp://(\*|{_HOST}):(\*|{_PORT})")


def split_address(address: str) -> tuple[str, str] | None:
    """Host and port of `tcp://HOST:PORT`, as written; None for anything else."""
    match = _ADDRESS.fullmatch(address)
    return (match[1], match[2]) if match else None


def next_port(address: str, step: int) -> str:
    """The same host, `step` ports further; any free port stays any free port."""
    host, port = split_address(address) or ("*", "*")
    return f"tcp://{host}:{port if port == '*' else int(port) + step}"


class Network(Kind):
    """An IP address, or a network of them as ADDRESS/BITS."""

    metavar = "NETWORK"

    def read(self, value: object) -> str:
        from ipaddress import ip_network  # 4 ms, and only a gateway behind a proxy needs it

        try:
            return str(ip_network(str(value)) if isinstance(value, str) else ip_network(b""))
        except ValueError:
            raise ValueError(f"must be an IP address or a network such as 10.0.0.0/8, not {quoted(value)}") from None

    def describe(self) -> str:
        return "IP address or network"


@dataclass(frozen=True)
class Integer(Kind):
    low: int
    high: int
    metavar = "N"

    def read(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be a whole number, not {quoted(value)}")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low} to {self.high}, not {quoted(value)}")
        return value

    def read_text(self, text: str) -> int:
        if not re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text):
            raise ValueError(f"must be a whole number, not {quoted(text)}")
        return self.read(int(text))

    def describe(self) -> str:
        return f"whole number, {self.low} to {self.high}"


@dataclass(frozen=True)
class _Measure(Kind):
    """A number with a unit, from `low` to `high`."""

    low: str
    high: str
    parse: ClassVar[staticmethod[[object], float]]
    format: ClassVar[staticmethod[[Any], str]]

    def read(self, value: object) -> Any:
        try:
            number = self.parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, not {quoted(value)}") from None
        if not self.parse(self.low) <= number <= self.parse(self.high):
            raise ValueError(f"must be from {self.low} to {self.high}, not {quoted(value)}")
        return number

    def show(self, value: Any) -> str:
        return f'"{self.format(value)}"'

    def describe(self) -> str:
        return f"{self.metavar.lower()}, {self.low} to {self.high}"


class Duration(_Measure):
    """Seconds as a float."""

    metavar = "DURATION"
    parse, format = staticmethod(parse_duration), staticmethod(format_duration)


class Size(_Measure):
    """Bytes as an int."""

    metavar = "SIZE"
    parse, format = staticmethod(parse_size), staticmethod(format_size)


class Boolean(Kind):
    metavar = "BOOLEAN"
    _words: ClassVar[dict[str, bool]] = {
        **dict.fromkeys(("true", "yes", "on", "1"), True),
        **dict.fromkeys(("false", "no", "off", "0"), False),
    }

    def read(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {quoted(value)}")
        return value

    def read_text(self, text: str) -> bool:
        if text.strip().lower() not in self._words:
            raise ValueError(f"must be one of {', '.join(self._words)}, not {quoted(text)}")
        return self._words[text.strip().lower()]

    def describe(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Choice(Kind):
    words: tuple[str, ...]

    def read(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.words:
            hint = did_you_mean(value, self.words) if isinstance(value, str) else ""
            raise ValueError(f"must be one of {', '.join(self.words)}, not {quoted(value)}{hint}")
        return value

    def describe(self) -> str:
        return " or ".join(self.words)


class TimeOfDay(Kind):
    """A local time of day, to the minute."""

    metavar = "HH:MM"

    def read(self, value: object) -> datetime.time:
        if isinstance(value, datetime.time) and value.replace(second=0, microsecond=0) == value:
            return value
        match = re.fullmatch(r"([0-9]{2}):([0-9]{2})", value) if isinstance(value, str) else None
        if not match or int(match[1]) > 23 or int(match[2]) > 59:
            raise ValueError(f'must be a time of day such as "03:30", not {quoted(value)}')
        return datetime.time(int(match[1]), int(match[2]))

    def show(self, value: datetime.time) -> str:
        return f'"{value:%H:%M}"'

    def describe(self) -> str:
        return "time of day, HH:MM, local to the machine"


@dataclass(frozen=True)
class Optional(Kind):
    """None, or another kind. `word` says None in a file, which has no null of its own."""

    kind: Kind
    word: str | None = None

    def read(self, value: object) -> Any:
        if value is None or (self.word and value == self.word):
            return None
        return self._or_word(self.kind.read, value)

    def read_text(self, text: str) -> Any:
        return None if text == self.word else self._or_word(self.kind.read_text, text)

    def _or_word(self, read: Any, value: object) -> Any:
        try:
            return read(value)
        except ValueError as error:
            raise ValueError(f'{error} (or "{self.word}")' if self.word else str(error)) from None

    def show(self, value: Any) -> str:
        if value is None:
            return f'"{self.word}"' if self.word else ""
        return self.kind.show(value)

    def describe(self) -> str:
        return self.kind.describe() + (f', or "{self.word}"' if self.word else "")


class Anything(Kind):
    """Texts, numbers, true and false, and lists and tables of them: what a call can carry and TOML can say."""

    metavar = "VALUE"

    def read(self, value: object) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.read(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.read(item) for item in value]
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"must be a text, a number, true, false, or a list or table of these, not {quoted(value)}")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"must be a number of at most 64 bits, not {quoted(value)}")
        return value

    def show(self, value: Any) -> str:
        if isinstance(value, Mapping):
            pairs = ", ".join(f"{toml_key(key)} = {self.show(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.show, value)) + "]"
        return super().show(value)

    def describe(self) -> str:
        return "any value"


class Lease(Kind):
    """Who decides which master is active: `agents`, or the address of an engine."""

    metavar = "LEASE"
    _ONE: ClassVar[str] = rf"(?:{_HOST})(?::{_PORT})?"
    _ETCD: ClassVar[re.Pattern[str]] = re.compile(rf"etcd://{_ONE}(,{_ONE})*(/[A-Za-z0-9._/-]{{1,200}})?", re.ASCII)

    def read(self, value: object) -> str:
        if isinstance(value, str):
            postgres = value.startswith("postgresql://") and value.isprintable() and len(value) < 1000
            if value == "agents" or postgres:
                return value
            if self._ETCD.fullmatch(value):
                for port in re.findall(rf":({_PORT})(?=[,/]|$)", value):
                    if int(port) > PORT_MAX:
                        raise ValueError(_no_port(port))
                return value
        raise ValueError(f"must be {self.describe()}, not {quoted(value)}")

    def describe(self) -> str:
        return "agents, etcd://HOST:PORT[,HOST:PORT]…[/PREFIX] or postgresql://…"


@dataclass(frozen=True)
class Several(Kind):
    """A tuple of values of one kind; in text, and in a file too, separated by commas."""

    kind: Kind
    limit: int
    metavar = "LIST"
    repeats = True

    def read(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [item.strip() for item in value.split(",")]
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list, not {quoted(value)}")
        if not 1 <= len(value) <= self.limit:
            raise ValueError(f"must have 1 to {self.limit} items, not {len(value)}")
        return tuple(self.kind.read(item) for item in value)

    def show(self, value: tuple[Any, ...]) -> str:
        return "[" + ", ".join(map(self.kind.show, value)) + "]"

    def describe(self) -> str:
        return f"list of 1 to {self.limit}: {self.kind.describe()}"


@dataclass(frozen=True)
class Table(Kind):
    """name -> value; in text `a=1,b=2`."""

    kind: Kind
    metavar = "K=V"
    repeats = True
    limit: ClassVar[int] = 1024  # entries; above any cluster this is made for

    def read(self, value: object) -> dict[str, Any]:
        return self._entries(value, self.kind.read)

    def read_text(self, text: str) -> dict[str, Any]:
        pairs = [item.partition("=") for item in text.split(",")]
        for key, equals, _ in pairs:
            if not equals:
                raise ValueError(f"must be k=v, not {quoted(key)}")
        entries = {key.strip(): rest for key, _, rest in pairs}
        if len(entries) < len(pairs):
            raise ValueError(f"must have each name once, not {quoted(text)}")
        return self._entries(entries, self.kind.read_text)

    def _entries(self, value: object, read: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a table such as {{ a = ... }}, not {quoted(value)}")
        if len(value) > self.limit:
            raise ValueError(f"must have at most {self.limit} entries, not {len(value)}")
        entries, problems = {}, {}
        for key, item in value.items():
            try:
                entries[Name().read(key)] = read(item)
            except ValueError as error:
                problems[str(key)] = str(error)
        if problems:
            raise BadItems(problems)
        return entries

    def show(self, value: Mapping[str, Any]) -> str:
        pairs = (f"{toml_key(key)} = {self.kind.show(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"

    def describe(self) -> str:
        return f"table of name = {self.kind.describe()}"


class Wording(Kind):
    """How callers are told something: a text, or `{ text = "...", code = "..." }` with either of them."""

    _parts: ClassVar[dict[str, Text]] = {"text": Text(), "code": Text(limit=64)}

    def read(self, value: object) -> dict[str, str]:
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, Mapping) or not value or not set(value) <= set(self._parts):
            raise ValueError(f'must be a text or {{ text = "...", code = "..." }}, not {quoted(value)}')
        return {key: self._part(key, item) for key, item in value.items()}

    def _part(self, key: str, item: object) -> str:
        try:
            return self._parts[key].read(item)
        except ValueError as error:
            raise ValueError(f"has a {key} that {error}") from None

    def show(self, value: Mapping[str, str]) -> str:
        if set(value) == {"text"}:
            return super().show(value["text"])
        return "{ " + ", ".join(f"{key} = {super(Wording, self).show(item)}" for key, item in value.items()) + " }"

    def describe(self) -> str:
        return "text, or { text, code }"


def toml_key(key: str) -> str:
    """The key as TOML wants it: bare where that is allowed."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def quoted(value: object) -> str:
    """A value for an error message: short, and harmless to a terminal."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits
        return "a very long number"
    return text if len(text) <= 60 else text[:57] + "..."
