"""HTTPS: real sockets, certificates of the test's own."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from gateway_rig import APP, Gateway, Start, children_of, front, listens, read_all, read_until, until
from tls_rig import LOOPS, Authority, connect, get, secured, secured_on_loop, wait_ready

from rota.gateway.certificate import BadCertificate, Certificate
from rota.testing import LocalCluster

STREAMS = str(Path(__file__).parent / "streams_asgi.py")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(APP) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


gateway = pytest.fixture(scope="module", params=LOOPS)(secured_on_loop)


def write_config(folder: Path, *lines: str) -> str:
    path = folder / "rota.toml"
    path.write_text("\n".join(lines))
    return str(path)


def request(target: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


def write_file(path: str, data: bytes) -> None:
    """At once, as tools that renew certificates do."""
    Path(f"{path}.new").write_bytes(data)
    os.replace(f"{path}.new", path)


# ---- requests -------------------------------------------------------------------------------------------------------


def test_a_request_is_served_and_the_service_knows_that_it_came_by_https(
    gateway: Gateway, authority: Authority
) -> None:
    answer = get(gateway, authority, "/about")
    about = ast.literal_eval(answer.partition(b"\r\n\r\n")[2].decode())
    assert about["scheme"] == "https" and about["client"][0] == "127.0.0.1"


def test_large_bodies_go_through_byte_by_byte(gateway: Gateway, authority: Authority) -> None:
    data = os.urandom(250_000)
    head = f"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with connect(gateway.port, authority.context()) as sock:
        sock.sendall(head + data)
        assert read_until(sock, data[-100:]).partition(b"\r\n\r\n")[2] == data
        sock.sendall(request("/next", "Connection: close"))
        assert read_all(sock).endswith(b"GET /next")


def test_without_a_choice_of_protocol_http_1_is_spoken(gateway: Gateway, authority: Authority) -> None:
    with connect(gateway.port, authority.context()) as sock:
        assert sock.selected_alpn_protocol() is None
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
    with connect(gateway.port, authority.context("http/1.1")) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_connection_ends_with_a_word_and_after_its_last_answer(
    gateway: Gateway, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.context()
    context.minimum_version = context.maximum_version = version
    with connect(gateway.port, context) as sock:
        assert sock.version() == version.name.replace("_", ".")
        sock.sendall(
            b"GET / HTTP/1.1\r\nBad head\r\n\r\n" + b"x" * 300_000
        )  # what is not read must not cost the answer
        assert b"HTTP/1.1 400" in read_all(sock)  # it raises where a connection ends without a word


def test_who_has_nothing_more_to_send_is_still_answered(gateway: Gateway, authority: Authority) -> None:
    context = authority.context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with gateway.connect() as sock:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        client.write(request("/slow?0.1"))
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()  # says that it is over, and waits for the other side to say so
        sock.sendall(outgoing.read())
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            incoming.write(data)
        answer = client.read(65536)
        assert b"200 OK" in answer and answer.endswith(b"GET /slow?0.1")


def test_an_idle_connection_is_closed_with_a_word(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "[http]", "idle_timeout = '300ms'")
    gateway = secured(start, cluster, authority.issue(file="idle"), authority, "-c", config)
    with connect(gateway.port, authority.context()) as sock:
        assert read_all(sock) == b""


def test_requests_that_are_sent_far_ahead_wait_for_the_answer_before_them(
    gateway: Gateway, authority: Authority
) -> None:
    """More than a gateway keeps of them: what it does not read waits with their client."""
    ahead = 20_000
    with connect(gateway.port, authority.context()) as sock:
        sock.sendall(request("/slow?0.5") + request("/-/ready") * ahead + request("/last", "Connection: close"))
        answers = read_all(sock)
    assert answers.count(b"HTTP/1.1 200 OK") == ahead + 2 and answers.endswith(b"GET /last")


# ---- what is not TLS ------------------------------------------------------------------------------------------------


def test_plain_http_is_told_where_it_is(gateway: Gateway) -> None:
    answer = gateway.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"https://" in answer
    [its_id] = re.findall(rb"X-Request-Id: (\S+)\r\n", answer)
    line = re.compile(rf'"- - HTTP/-" 400 .* {its_id.decode()}$', re.MULTILINE)
    until(lambda: line.search(gateway.child.output()), "no line in the access log")


@pytest.mark.parametrize(
    "data", [b"\x00\x01\x02", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\xff\xff" + b"x" * 70000]
)
def test_what_is_neither_ends_and_others_are_served(gateway: Gateway, authority: Authority, data: bytes) -> None:
    with gateway.connect() as sock:
        sock.settimeout(5.0)  # before its handshake is too slow
        sock.sendall(data)
        try:
            while sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert b" 200 " in get(gateway, authority, "/x")


@pytest.mark.filterwarnings("ignore:.*TLSv1:DeprecationWarning")
def test_versions_before_1_2_are_refused(gateway: Gateway, authority: Authority) -> None:
    context = authority.context()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="(?i)alert protocol version"):
        connect(gateway.port, context)


# ---- handshakes -----------------------------------------------------------------------------------------------------


def test_a_slow_handshake_is_cut_and_counts_as_a_connection(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "[http]", "head_timeout = '2s'", "connections = 3")
    gateway = secured(start, cluster, authority.issue(file="slow"), authority, "-c", config)
    slow = [gateway.connect() for _ in range(3)]
    slow[0].sendall(b"\x16\x03")
    began = time.monotonic()
    with gateway.connect() as one_too_many, pytest.raises(OSError):
        one_too_many.settimeout(10.0)
        authority.context().wrap_socket(one_too_many, server_hostname="127.0.0.1")
    assert not select.select(slow, [], [], 0)[0], "it did not wait for the others"
    for sock in slow:
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
        sock.close()
    assert 1.0 < time.monotonic() - began < 15.0
    assert b" 200 " in get(gateway, authority, "/x")


# ---- certificates ---------------------------------------------------------------------------------------------------


def test_each_thing_that_is_wrong_with_the_files_is_said(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue(file="own")
    _, other_key = authority.issue(file="other")
    garbage = tmp_path / "garbage"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----\nx")
    locked = tmp_path / "locked.key"
    opened = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked.write_bytes(opened.private_bytes(*form, serialization.BestAvailableEncryption(b"secret")))
    for files, said in [
        ((str(tmp_path / "none"), key), "the TLS certificate .*none cannot be read: No such file"),
        ((certificate, str(tmp_path / "none")), "the TLS key .*none cannot be read: No such file"),
        ((str(tmp_path), key), "the TLS certificate .* cannot be read: Is a directory"),
        ((certificate, None), "there is no key in PEM form in it; --tls-key .* says in which file it is"),
        ((key, key), "there is no certificate in PEM form in it"),
        ((certificate, other_key), "the TLS key .*other.key is not that of the certificate"),
        ((str(garbage), str(garbage)), "cannot be used: "),
        ((certificate, str(locked)), "the TLS key .*locked.key is encrypted"),
    ]:
        with pytest.raises(BadCertificate, match=said):
            Certificate(*files, ["http/1.1"])
    both = tmp_path / "both.pem"
    both.write_bytes(Path(key).read_bytes() + Path(certificate).read_bytes())
    assert Certificate(str(both), None, ["http/1.1"]).context


def test_a_key_that_goes_while_it_is_read_again_leaves_the_certificate_as_it_was(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue(file="going")
    shown = Certificate(certificate, key, ["http/1.1"])
    monkeypatch.setattr("rota.gateway.certificate._check", lambda path, begin, what: Path(key).unlink(missing_ok=True))
    assert not shown.read_again()


@pytest.mark.parametrize("command", ["gateway", "master", "run"])
def test_a_bad_certificate_is_a_start_error(authority: Authority, command: str) -> None:
    _, key = authority.issue(file=command)
    words = {
        "gateway": ["gateway", "--bind", "127.0.0.1:*", "--route", "/=site"],
        "master": ["master", "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*", "--route", "/=site"],
        "run": ["run", APP, "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*"],
    }[command]
    ended = subprocess.run(
        [sys.executable, "-m", "rota", *words, "--tls-cert", "/nowhere.pem", "--tls-key", key],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 78
    assert "the TLS certificate /nowhere.pem cannot be read: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_rota_run_speaks_https(start: Start, authority: Authority) -> None:
    files = authority.issue(file="run-https")
    words = ["run", APP, "-p", "1", "--bind", "tcp://127.0.0.1:*", "--http", "127.0.0.1:*"]
    gateway = start(*words, "--tls-cert", files[0], "--tls-key", files[1]).listening()
    wait_ready(gateway, authority)
    assert get(gateway, authority, "/x").endswith(b"GET /x")


def serial(gateway: Gateway, authority: Authority) -> str:
    with connect(gateway.port, authority.context()) as sock:
        certificate = sock.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def test_hup_shows_the_new_certificate_and_keeps_connections(
    start: Start, cluster: LocalCluster, authority: Authority
) -> None:
    certificate, key = authority.issue(file="renewed")
    gateway = secured(start, cluster, (certificate, key), authority, "--workers", "2")
    before = serial(gateway, authority)
    with connect(gateway.port, authority.context()) as old:
        old.sendall(request("/1"))
        assert b"GET /1" in old.recv(65536)
        new_certificate, new_key = authority.issue(file="newer")
        write_file(certificate, Path(new_certificate).read_bytes())
        gateway.child.signal(signal.SIGHUP)  # its key is the old one still
        until(lambda: "is not that of the certificate" in gateway.child.output(), "nothing was said")
        assert serial(gateway, authority) == before
        write_file(key, Path(new_key).read_bytes())
        gateway.child.signal(signal.SIGHUP)
        until(lambda: serial(gateway, authority) != before, "the old certificate is still shown")
        old.sendall(request("/2"))
        assert b"GET /2" in old.recv(65536)
    until(lambda: len({serial(gateway, authority) for _ in range(16)} - {before}) == 1, "one still shows the old one")
    victim, _ = children_of(gateway.child.pid)
    os.kill(victim, signal.SIGKILL)  # what takes its place has the new one, too
    until(lambda: "another one takes its place" in gateway.child.output(), "it is not missed")
    until(lambda: len(children_of(gateway.child.pid)) == 2, "nothing takes its place")
    assert {serial(gateway, authority) for _ in range(8)} == {serial(gateway, authority)} != {before}


# ---- the end --------------------------------------------------------------------------------------------------------


def test_a_drain_answers_what_is_served_and_ends_each_connection_with_a_word(
    start: Start, cluster: LocalCluster, authority: Authority
) -> None:
    gateway = secured(start, cluster, authority.issue(file="drain"), authority)
    idle = connect(gateway.port, authority.context())
    idle.sendall(request("/1"))
    assert b"GET /1" in idle.recv(65536)
    busy = connect(gateway.port, authority.context())
    busy.sendall(request("/slow?0.5"))
    time.sleep(0.1)  # it is on its way
    gateway.child.signal(signal.SIGTERM)
    with idle:
        assert read_all(idle) == b""
    with busy:
        answer = read_all(busy)
    assert answer.endswith(b"GET /slow?0.5") and b"Connection: close" in answer
    until(lambda: gateway.child.status() is not None, "it does not end")
    assert gateway.child.status() == 0 and not listens(gateway.port)


def test_large_bodies_go_through_and_an_answer_that_breaks_off_has_no_end(start: Start, authority: Authority) -> None:
    """HTTP/1.0 knows no other end than that of the connection: close_notify must not be among its last bytes."""
    with LocalCluster(STREAMS + ":application", settings={"slave.service": "site"}) as cluster:
        gateway = secured(start, cluster, authority.issue(file="breaks"), authority)
        with connect(gateway.port, authority.context()) as sock:
            sock.sendall(b"GET /half HTTP/1.0\r\n\r\n")
            with pytest.raises(OSError):
                read_all(sock)
        with connect(gateway.port, authority.context()) as sock:
            sock.sendall(b"GET /many?128 HTTP/1.0\r\n\r\n")
            assert read_all(sock).partition(b"\r\n\r\n")[2] == bytes(range(256)) * 256 * 128
        data = os.urandom(8 * 1024 * 1024)
        with connect(gateway.port, authority.context()) as sock:
            sock.sendall(f"POST /digest HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
            assert read_all(sock).endswith(hashlib.sha256(data).hexdigest().encode())


def test_who_takes_nothing_of_an_answer_is_cut(start: Start, authority: Authority, tmp_path: Path) -> None:
    config = write_config(
        tmp_path, "[http]", "write_timeout = '500ms'", "write_rate = '64MiB'", "access_log = 'common'"
    )
    with LocalCluster(STREAMS + ":application", settings={"slave.service": "site"}) as cluster:
        gateway = secured(start, cluster, authority.issue(file="mute"), authority, "-c", config)
        with connect(gateway.port, authority.context()) as mute:
            mute.sendall(request("/many?640"))
            until(lambda: "/many?640 " in gateway.child.output(), "it is waited for")
            with pytest.raises(OSError):
                read_all(mute)
        [line] = [line for line in gateway.child.output().splitlines() if "/many?640 " in line]
        assert line.endswith(" broken"), "as if it had been taken"


def test_cookies_of_affinity_are_secure(
    start: Start, cluster: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "[service.site.http]", "routes = ['/']", "affinity = 'cookie'")
    files = authority.issue(file="cookies")
    words = ["--tls-cert", files[0], "--tls-key", files[1], "-c", config]
    gateway = front(start, cluster, *words, routes=())
    wait_ready(gateway, authority)
    assert re.search(rb"set-cookie: .*; Secure\r\n", get(gateway, authority, "/x"))
