"""Whether a request asks for a WebSocket, and what it is told."""

from __future__ import annotations

import pytest
from http_rig import LIMITS
from websocket_rig import ACCEPT, KEY, handshake

from rota.gateway.core import head as heads
from rota.gateway.core.handshake import Handshake, Improper, asked
from rota.gateway.core.head import Head
from rota.gateway.core.response import response
from rota.gateway.core.websocket import accepted

DATE = b"Sun, 22 Nov 2026 08:49:37 GMT"


def head(data: bytes) -> Head:
    return heads.read(data, LIMITS)


def changed(old: str, new: str) -> Head:
    data = handshake()
    assert old.encode() in data
    return head(data.replace(old.encode(), new.encode()))


def test_one_of_the_specification_is_taken() -> None:
    found = asked(head(handshake("/echo", "Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Protocol: Third")))
    assert found == Handshake(KEY.encode(), ["chat", "superchat", "Third"], b"")


@pytest.mark.parametrize(
    "old, new",
    [
        ("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
    ],
)
def test_names_in_lists_and_in_any_case_count(old: str, new: str) -> None:
    assert isinstance(asked(changed(old, new)), Handshake)


@pytest.mark.parametrize(
    "old, new",
    [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Upgrade: websocket\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("Connection: Upgrade\r\n", ""),
        ("HTTP/1.1", "HTTP/1.0"),
    ],
)
def test_an_upgrade_that_nobody_wants_is_an_ordinary_request(old: str, new: str) -> None:
    assert asked(changed(old, new)) is None


@pytest.mark.parametrize(
    "old, new, status",
    [
        ("GET", "POST", 400),
        ("Host: a", "Host: a\r\nContent-Length: 5", 400),
        ("Host: a", "Host: a\r\nTransfer-Encoding: chunked", 400),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13, 8", 426),
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        (f"Sec-WebSocket-Key: {KEY}\r\n", "", 400),
        (KEY, "", 400),
        (KEY, "AAAA", 400),
        (KEY, KEY[:-2], 400),
        (KEY, KEY[:-3] + "*==", 400),
        (KEY, "*" + KEY, 400),
        (KEY, f"{KEY}\r\nSec-WebSocket-Key: {KEY}", 400),
        ("Host: a", "Host: a\r\nSec-WebSocket-Protocol: chat, chat", 400),
        ("Host: a", "Host: a\r\nSec-WebSocket-Protocol: chat,,x", 400),
        ("Host: a", "Host: a\r\nSec-WebSocket-Protocol: a b", 400),
    ],
)
def test_one_that_is_improper_is_refused(old: str, new: str, status: int) -> None:
    found = asked(changed(old, new))
    assert isinstance(found, Improper) and found.status == status


def test_who_speaks_another_version_is_told_ours() -> None:
    found = asked(changed("Version: 13", "Version: 8"))
    assert isinstance(found, Improper)
    lines = response("GET", 426, found.fields, b"", date=DATE, connection=b"close").split(b"\r\n")
    assert {b"sec-websocket-version: 13", b"upgrade: websocket", b"Connection: close, upgrade"} <= set(lines)


def test_an_acceptance_has_the_application_s_headers_and_none_that_are_ours() -> None:
    given = [(b"X-A", b"b"), (b"Sec-WebSocket-Accept", b"x"), (b"Connection", b"close"), (b"Content-Length", b"5")]
    given.append((b"Upgrade", b"h2c"))
    data = accepted(KEY.encode(), given, "chat", "", DATE)
    assert data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n") and data.endswith(b"\r\n\r\n")
    assert sorted(data.split(b"\r\n")[1:-2]) == [
        b"Connection: upgrade",
        b"Date: " + DATE,
        b"Sec-WebSocket-Accept: " + ACCEPT.encode(),
        b"Sec-WebSocket-Protocol: chat",
        b"Upgrade: websocket",
        b"X-A: b",
    ]


@pytest.mark.parametrize("field", [(b"X-A", b"b\r\nX-B: c"), (b"X A", b"b"), (b"X-A", "b")])
def test_an_acceptance_cannot_be_broken_out_of(field: tuple[bytes, bytes]) -> None:
    with pytest.raises((TypeError, ValueError)):
        accepted(KEY.encode(), [field], None, "", DATE)
