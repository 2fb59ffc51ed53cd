"""Whoever answers at etcd's address, if it is not etcd: a proxy with a page of its own, TLS, a stream without end."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from rota.common.limits import EPOCH_MAX
from rota.common.units import format_duration
from rota.master.core.engine_lease import EngineLease, Question, Row
from rota.master.engine import ERROR_MAX, Engine
from rota.master.etcd import ANSWER_MAX, Etcd
from rota.master.store import EngineError

PATIENCE_S = 0.2
CHANGE = Question(1, "a 1", 5, 2, False, 1.0, PATIENCE_S)


class Server:
    """Says to whoever asks what `say` sends; `sent`: how much of that was taken."""

    def __init__(self) -> None:
        self.sent = 0
        self.connections = 0
        self.keeps = True  # the connection, once it has said all
        self.say: Callable[[], Iterator[bytes]] = lambda: iter(())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def answers(self, *data: bytes) -> None:
        self.say = lambda: iter(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._threads:
            each.join(10)
            assert not each.is_alive()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                while sock.recv(65536):
                    for data in self.say():
                        sock.sendall(data)
                        self.sent += len(data)
                    if not self.keeps:
                        return
            except OSError:
                pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def etcd(server: Server) -> Iterator[Etcd]:
    made = Etcd(f"etcd://{server.host}/shop")
    yield made
    made.close()


def http(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def key(value: object) -> bytes:
    encoded = b64encode(json.dumps(value).encode()).decode()
    entry = {"key": b64encode(b"shop/leader").decode(), "mod_revision": "7", "value": encoded}
    return http(json.dumps({"header": {"revision": "9"}, "kvs": [entry]}).encode())


def said(etcd: Etcd) -> str:
    with pytest.raises(EngineError) as caught:
        etcd.read(PATIENCE_S)
    return str(caught.value)


def test_what_a_key_says_is_read_over_one_connection(server: Server, etcd: Etcd) -> None:
    server.answers(key({"holder": "a 1", "epoch": 3}))
    assert [etcd.read(PATIENCE_S) for _ in range(3)] == [Row(7, "a 1", 3)] * 3
    assert server.connections == 1


SPOKEN = [
    (http(b"<html>\n<b>Welcome</b>"), "answers 200 OK, but not as etcd does: '<html> <b>Welcome</b>'"),
    (http(b"<h1>No server</h1>", "503 Busy"), "answers 503 Busy, but not as etcd does: '<h1>No server</h1>'"),
    (http(b'{"message": "etcdserver: no leader"}', "503 Busy"), "503 Busy: etcdserver: no leader"),
    (b"HTTP/1.0 400 Bad\r\n\r\nto an HTTPS server.", "answers 400 Bad, but not as etcd does: 'to an HTTPS server.'"),
    (b"\x15\x03\x01\n", r"'\x15\x03\x01' is no HTTP (does it want TLS? rota speaks to etcd without)"),
    (b"", "Remote end closed connection without response (does it want TLS? rota speaks to etcd without)"),
    (http(b'{"header": {}}')[:-3], "answers 200 OK, but not as etcd does: '{\"header\":'"),
    (http(b"[" * 50_000), f"answers 200 OK, but not as etcd does: '{'[' * 100}'"),
]


@pytest.mark.parametrize("answer, sentence", SPOKEN, ids=lambda each: str(each)[-30:])
def test_whoever_does_not_speak_as_etcd_does_is_quoted(
    server: Server, etcd: Etcd, answer: bytes, sentence: str
) -> None:
    server.answers(answer)
    server.keeps = False
    assert said(etcd) == f"etcd at {server.host}: {sentence}"
    server.answers(key({"holder": "a 1", "epoch": 3}))
    assert etcd.read(PATIENCE_S).epoch == 3, "over a new connection"


@pytest.mark.parametrize("body", [b"{}", b'{"status": "ok"}', b"[]", b"null", b'{"succeeded": true}'])
def test_json_of_somebody_else_is_not_an_etcd_that_was_emptied(server: Server, etcd: Etcd, body: bytes) -> None:
    server.answers(http(body))
    assert "but not as etcd does" in said(etcd)
    with pytest.raises(EngineError, match="but not as etcd does"):
        etcd.change(CHANGE)


def trickle(head: bytes, more: bytes) -> Callable[[], Iterator[bytes]]:
    def say() -> Iterator[bytes]:
        yield head
        ends = monotonic() + 5.0
        while monotonic() < ends:
            yield more
            threading.Event().wait(PATIENCE_S / 10)

    return say


@pytest.mark.parametrize(
    "head, more",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "head", "continue"],
)
def test_an_answer_that_trickles_is_given_up_in_time(server: Server, etcd: Etcd, head: bytes, more: bytes) -> None:
    """A socket's own time limit begins anew with each piece."""
    server.say = trickle(head, more)
    began = monotonic()
    assert f": no answer within {format_duration(PATIENCE_S)}, a third of standby.takeover_after" in said(etcd)
    assert monotonic() - began < 10.0


@pytest.mark.parametrize("head", [b"", b"Content-Length: 10000000000\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_without_end_is_not_kept(server: Server, etcd: Etcd, head: bytes) -> None:
    def say() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n" + head + b"\r\n"
        piece = b"x" * 65536
        while True:
            yield b"10000\r\n" + piece + b"\r\n" if b"chunked" in head else piece

    server.say = say
    assert "but not as etcd does" in said(etcd)
    assert server.sent < 1000 * ANSWER_MAX, "what the kernel takes, and no more"


@pytest.mark.parametrize(
    "value",
    ["hello", [1], {"holder": "a"}, {"holder": 7, "epoch": 1}, {"holder": "a", "epoch": float("inf")}]
    + [{"holder": "a", "epoch": epoch} for epoch in (EPOCH_MAX, 1 << 70, -1, 1.5, "7")],
    ids=str,
)
def test_a_key_that_somebody_else_wrote_is_no_lease(server: Server, etcd: Etcd, value: object) -> None:
    """Also one with an epoch after which there would be hardly any: whoever stood above it could not be obeyed."""
    server.answers(key(value))
    assert said(etcd) == "the key shop/leader of etcd is not ours: choose another prefix, or delete it"


def test_what_it_says_is_wrong_steers_nobodys_terminal_and_has_an_end(server: Server, etcd: Etcd) -> None:
    server.answers(http(b'{"message": "\\u001b[31m%s"}' % (b"x" * 10_000), "500 X"))
    lease = EngineLease("etcd", "a 1", 1.0, 0.0)
    engine = Engine(lease, etcd)
    lease.tick(0.0)
    engine.ask()
    by = monotonic() + 5
    while not (found := engine.answers()):
        assert monotonic() < by
    error = found[0].error
    assert error.startswith(f"etcd at {server.host}: 500 X: \ufffd[31mxxx") and len(error) == ERROR_MAX
    engine.close()
