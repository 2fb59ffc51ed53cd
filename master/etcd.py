"""The lease as a key of etcd, through its JSON gateway (v3): no package is needed.

The stamp is the key's revision. etcd's own leases are not used: they are two seconds long at least, and a change of
etcd's leader prolongs them.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from http.client import HTTPConnection, HTTPException
from typing import Any

from .core.engine_lease import Question, Row
from .engine import EngineError

PORT = 2379


class Etcd:
    """`etcd://HOST:PORT[,HOST:PORT]…[/PREFIX]`: after an error, the next of the hosts is asked."""

    def __init__(self, address: str) -> None:
        hosts, _, prefix = address.removeprefix("etcd://").partition("/")
        self._hosts = [_host_port(each) for each in hosts.split(",")]
        self._key = _text(f"{prefix.strip('/') or 'rota'}/leader")
        self._connection: HTTPConnection | None = None

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
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, what: str, body: dict[str, Any], patience_s: float) -> dict[str, Any]:
        host, port = self._hosts[0]
        if self._connection is None:
            self._connection = HTTPConnection(host, port, timeout=patience_s)
        try:
            self._connection.request("POST", f"/v3/kv/{what}", json.dumps(body))
            response = self._connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                raise EngineError(f"etcd at {host}:{port}: {answer.get('message') or response.status}")
        except (OSError, HTTPException, ValueError, EngineError) as error:
            self.close()
            self._hosts.append(self._hosts.pop(0))
            if isinstance(error, EngineError):
                raise
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise EngineError(f"etcd at {host}:{port}: {text}") from None
        found: dict[str, Any] = answer
        return found


def _row(found: dict[str, Any]) -> Row:
    if not found.get("kvs"):
        return Row(0, "", 0)
    entry = found["kvs"][0]
    try:
        value = json.loads(b64decode(entry["value"]))
        return Row(int(entry["mod_revision"]), str(value["holder"]), int(value["epoch"]))
    except (KeyError, TypeError, ValueError):
        key = b64decode(entry["key"]).decode(errors="replace")
        raise EngineError(f"the key {key} of etcd is not ours: choose another prefix") from None


def _text(text: str) -> str:
    return b64encode(text.encode()).decode()


def _host_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", str(PORT))
    return host.strip("[]"), int(port)
