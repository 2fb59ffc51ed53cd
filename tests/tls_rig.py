"""Certificates of a test's own, and gateways that show them."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from gateway_rig import PATIENCE_S, Gateway, Start, front, read_all, starting, until

from rota.testing import LocalCluster

LOOPS = ["uvloop", "asyncio"]
WITHOUT_UVLOOP = "raise ImportError"


class Authority:
    """One that our clients trust."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(self, file: str = "site") -> tuple[str, str]:
        """The files of a certificate and its key."""
        issued = self._ca.issue_cert("127.0.0.1")
        certificate, key = (self._folder / f"{file}.{end}" for end in ("crt", "key"))
        certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return str(certificate), str(key)

    def context(self, *protocols: str) -> ssl.SSLContext:
        """A client's. `protocols`: of ALPN."""
        context = ssl.create_default_context(cafile=self.file)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Its end is one only if the gateway says so."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    return context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def secured(start: Start, cluster: LocalCluster, files: tuple[str, str], authority: Authority, *words: str) -> Gateway:
    """A gateway that shows this certificate, when it is ready."""
    gateway = front(start, cluster, "--tls-cert", files[0], "--tls-key", files[1], *words)
    wait_ready(gateway, authority)
    return gateway


def secured_on_loop(
    request: pytest.FixtureRequest,
    cluster: LocalCluster,
    authority: Authority,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """The same as a fixture, with an access log. Its parameter is the event loop, of LOOPS."""
    folder = tmp_path_factory.mktemp("gateway")
    with pytest.MonkeyPatch.context() as patch, starting(folder) as starter:
        if request.param == "asyncio":
            (folder / "uvloop.py").write_text(WITHOUT_UVLOOP)
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield secured(starter, cluster, authority.issue(), authority, "--access-log", "common")


def wait_ready(gateway: Gateway, authority: Authority) -> None:
    until(lambda: b" 200 " in get(gateway, authority, "/-/ready"), "not ready")


def get(gateway: Gateway, authority: Authority, target: str, *fields: str) -> bytes:
    lines = [f"GET {target} HTTP/1.1", "Host: a", "Connection: close", *fields, "", ""]
    with connect(gateway.port, authority.context()) as sock:
        sock.sendall("\r\n".join(lines).encode())
        return read_all(sock)
