"""Who has an address that cannot be had."""

from __future__ import annotations

import os
import socket

import pytest

from rota.common import inuse


def test_whoever_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert inuse.holder(listener.getsockname()[1]).endswith(f"(pid {os.getpid()})")


def test_it_is_named_on_a_machine_without_ipv6_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inuse, "_TABLES", ("/proc/net/tcp", "/proc/net/no-such-table"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert inuse.holder(listener.getsockname()[1]).endswith(f"(pid {os.getpid()})")
