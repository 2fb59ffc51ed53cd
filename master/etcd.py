"""The lease as a key of etcd, through its JSON gateway (v3): no package is needed.

The stamp is the key's revision. etcd's own leases are not used: they are two seconds long at least, and a change of
etcd's leader prolongs them.
"""

from __future__ import annotations

import json
import socket
from base64 import b64decode, b64encode
from http.client import HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from time import monotonic
from typing import Any

from ..common.fields import checked
from .core.engine_lease import Question, Row
from .store import EngineError, late

PORT = 2379
ANSWER_MAX = 1 << 16  # ours have some hundred bytes
SHOWN = 100  # characters of an answer that is none of etcd's


class Etcd:
    """`etcd://HOST:PORT[,HOST:PORT]…[/PREFIX]`: after an error, the next of the hosts is asked."""

    def __init__(self, address: str) -> None:
        hosts, _, prefix = address.removeprefix("etcd://").partition("/")
        self._hosts = [_host_port(each) for each in hosts.split(",")]
        self._key = _text(f"{prefix.strip('/') or 'rota'}/leader")
        self._socket: socket.socket | None = None

    def read(self, patience_s: float) -> Row:
        return _row(self._post("range", {"key": self._key}, patience_s))

    def change(self, question: Question) -> tuple[bool, Row]:
        value = json.dumps({"holder": question.holder, "epoch": question.epoch})
        same = {"key": self._key, "target": "MOD", "result": "EQUAL", "mod_revision": str(question.stamp)}
        transaction = {
            "compare": [same],
            "success": [{"request_put": {"key": self._key, "value": _text(value)}}],
            "failure": [{"request_range": {"key": self._key}}],
        }
        found = self._post("txn", transaction, question.patience_s)
        if found.get("succeeded"):
            return True, Row(int(found["header"]["revision"]), question.holder, question.epoch)
        return False, _row(found["responses"][0]["response_range"])

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _post(self, what: str, body: dict[str, Any], patience_s: float) -> dict[str, Any]:
        host, port = self._hosts[0]
        try:
            return self._exchange(f"/v3/kv/{what}", json.dumps(body), monotonic() + patience_s)
        except (OSError, HTTPException, ValueError, EngineError) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if isinstance(error, TimeoutError) and not error.errno:  # ours, not the kernel's
                text = late("connection" if self._socket is None else "answer", patience_s)
            self.close()
            self._hosts.append(self._hosts.pop(0))
            if isinstance(error, HTTPException):
                said = text if isinstance(error, OSError) else f"{text.strip()!r:.{SHOWN}} is no HTTP"
                text = f"{said} (does it want TLS? rota speaks to etcd without)"
            raise EngineError(f"etcd at {host}:{port}: {text}") from None

    def _exchange(self, path: str, body: str, by: float) -> dict[str, Any]:
        host, port = self._hosts[0]
        if self._socket is None:
            self._socket = socket.create_connection((host, port), by - monotonic())
        sock = self._socket
        sock.settimeout(max(by - monotonic(), 0.001))
        head = f"POST {path} HTTP/1.1\r\nHost: {f'[{host}]' if ':' in host else host}:{port}\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        with HTTPResponse(_InTime(sock, by), method="POST") as response:  # type: ignore[arg-type]
            response.begin()
            data = response.read(ANSWER_MAX + 1)
            if response.will_close or not response.isclosed():
                self.close()
            return _answer(response, data)


class _InTime(RawIOBase):
    """What comes over a socket until a time; a socket's own time limit is for each piece of it."""

    def __init__(self, sock: socket.socket, by: float) -> None:
        self._sock = sock
        self._by = by

    def makefile(self, _: str) -> BufferedReader:
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        left = self._by - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._sock.recv_into(into)


def _answer(response: HTTPResponse, data: bytes) -> dict[str, Any]:
    """Each of etcd's own has a header: whoever else answers with JSON is not taken for an etcd without our key."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    said = answer if isinstance(answer, dict) else {}
    if response.status == 200 and isinstance(said.get("header"), dict):
        return said
    status = f"{response.status} {response.reason}".strip()
    if response.status != 200 and isinstance(message := said.get("message"), str):
        raise EngineError(f"{status}: {message}")
    text = " ".join(data[:SHOWN].decode(errors="replace").split())
    raise EngineError(f"answers {status}, but not as etcd does: {text!r}")


def _row(found: dict[str, Any]) -> Row:
    if not found.get("kvs"):
        return Row(0, "", 0)
    entry = found["kvs"][0]
    try:
        value = json.loads(b64decode(entry["value"]))
        row: Row = checked(Row, {**value, "stamp": int(entry["mod_revision"])})
        return row
    except (KeyError, TypeError, ValueError):
        key = b64decode(entry["key"]).decode(errors="replace")
        raise EngineError(f"the key {key} of etcd is not ours: choose another prefix, or delete it") from None


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", str(PORT))
    return host.strip("[]"), int(port)
