"""The shells of a gateway over a transport that the test is: moments that a real one hardly ever shows."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any
from unittest.mock import Mock

import pytest
from http2_rig import GET, START, Heard, request
from msgpack import packb
from websocket_rig import CLOSE, TEXT, close, frame, handshake, read

from rota.common import descriptors
from rota.common.errors import NoService, RemoteError
from rota.common.settings import HttpSettings, ServiceHttpSettings
from rota.common.streams import Chunk, Credit
from rota.gateway import asking, listening
from rota.gateway import server as serving
from rota.gateway import spool as spools
from rota.gateway import websocket as sockets
from rota.gateway.access import Entry
from rota.gateway.core.handshake import Handshake, asked
from rota.gateway.core.head import Head
from rota.gateway.core.routes import routes
from rota.gateway.core.websocket import Terms, WebSocket
from rota.gateway.http2 import Http2Protocol, Http2Stream
from rota.gateway.pages import ServicePages
from rota.gateway.protocol import HttpProtocol
from rota.gateway.request import Request
from rota.gateway.tls import Tls

LAST = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def gateway_of(site: ServiceHttpSettings | None = None, **settings: Any) -> serving.Gateway:
    named = {} if site is None else {"site": site}
    start = serving.Start(HttpSettings(**settings), routes(named), named)
    return serving.Gateway(start, ServicePages({}), None, first=False)


def wire_of(host: str = "192.0.2.1") -> Mock:
    """Its socket is closed."""
    sock = socket.socket()
    sock.close()
    wire = Mock(get_extra_info=lambda name: sock if name == "socket" else (host, 5))
    wire.get_write_buffer_size.return_value = 0
    wire.is_closing.return_value = False
    return wire


def written(wire: Mock) -> bytes:
    return b"".join(call.args[0] for call in wire.write.call_args_list)


def connected(wire: Mock, gateway: serving.Gateway | None = None) -> HttpProtocol:
    protocol = HttpProtocol(gateway or gateway_of())
    protocol.connection_made(wire)
    return protocol


def test_a_socket_that_is_closed_already_is_one_that_is_lost_and_no_error() -> None:
    async def scenario() -> None:
        cut, lost = wire_of(), wire_of()
        connected(cut).cut()
        cut.abort.assert_called_once()
        protocol = connected(lost)
        protocol.eof_received()
        protocol.tick(monotonic())
        lost.abort.assert_called_once()

    asyncio.run(scenario())


def test_an_end_that_cannot_be_said_any_more_is_no_error() -> None:
    async def scenario() -> None:
        wire = wire_of()
        wire.write_eof.side_effect = OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        connected(wire).data_received(LAST)
        assert written(wire).startswith(b"HTTP/1.1 404 ")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [HttpProtocol, Http2Protocol])
def test_nobody_waits_for_the_end_of_a_connection_that_is_over(kind: type[HttpProtocol | Http2Protocol]) -> None:
    async def scenario() -> None:
        wire, protocol = wire_of(), kind(gateway_of())
        protocol.secured(wire)
        protocol._close(60.0)
        assert protocol._closing is not None and not protocol._closing.cancelled()
        protocol.connection_lost(None)
        assert protocol._closing.cancelled()

    asyncio.run(scenario())


def test_who_has_his_last_answer_has_a_moment_to_read_it_and_no_more() -> None:
    async def scenario() -> None:
        wire = wire_of()
        connected(wire)._close(0.01)
        assert wire.write_eof.called and not wire.close.called
        async with asyncio.timeout(5.0):
            while not wire.close.called:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_who_sends_no_more_is_not_waited_for() -> None:
    async def scenario() -> None:
        wire = wire_of()
        connected(wire).eof_received()
        assert wire.close.called and not wire.write_eof.called

    asyncio.run(scenario())


def test_a_last_word_of_tls_that_nobody_takes_is_not_waited_for() -> None:
    wire = wire_of()
    wire.close.side_effect = lambda: setattr(wire.get_write_buffer_size, "return_value", 24)
    connected(wire).leave()
    wire.close.assert_called_once()
    wire.abort.assert_called_once()


def test_a_websocket_behind_an_answer_that_is_not_read_yet_says_nothing_so_far() -> None:
    protocol = connected(wire_of())
    protocol.pause_writing()
    core = WebSocket(Terms(message=1000, ping=20.0, pong=20.0, write=10.0, write_rate=8192), monotonic())
    protocol.upgrade(core, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", monotonic())
    assert not core.takes
    protocol.resume_writing()
    assert core.takes


# ---- how many there are ---------------------------------------------------------------------------------------------


def test_connections_are_limited_in_all_and_for_each_address_and_those_that_are_over_do_not_count() -> None:
    gateway = gateway_of(connections=3, connections_per_address=2, trusted_proxies=["192.0.2.9"])

    def refused(host: str) -> tuple[HttpProtocol, bool]:
        wire = wire_of(host)
        protocol = connected(wire, gateway)
        if wire.abort.called:
            protocol.connection_lost(None)
        return protocol, wire.abort.called

    first, *others = [refused("192.0.2.1") for _ in range(3)]
    assert [first[1], *(each[1] for each in others)] == [False, False, True], "of one address"
    assert [refused("192.0.2.2")[1] for _ in range(2)] == [False, True], "in all"
    first[0].connection_lost(None)
    assert not refused("192.0.2.1")[1]
    for protocol in list(gateway._connections):
        protocol.connection_lost(None)
    assert [refused("192.0.2.9")[1] for _ in range(3)] == [False] * 3, "a trusted proxy speaks for many"
    for protocol in list(gateway._connections):
        protocol.connection_lost(None)
    assert not gateway._connections and not gateway._of_address


def test_a_handshake_does_not_count_beside_the_connection_that_it_was() -> None:
    gateway = gateway_of(connections=1)
    tls, wire = Tls(gateway, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)), wire_of()
    tls.connection_made(wire)
    gateway.secured(tls, None).secured(tls)
    assert not wire.abort.called and len(gateway._connections) == 1


def test_who_is_refused_takes_nobody_the_place_that_he_has() -> None:
    """Until the loop says that his connection is lost he is neither served nor gone."""
    gateway = gateway_of(connections=1)
    tls, wire, refused = Tls(gateway, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)), wire_of(), wire_of()
    tls.connection_made(wire)
    late = connected(refused, gateway)
    gateway.secured(tls, None).secured(tls)
    assert refused.abort.called and not wire.abort.called
    late.connection_lost(None)
    assert len(gateway._connections) == 1


def test_a_handshake_that_outlasts_a_drain_is_cut() -> None:
    tls, wire = Tls(gateway_of(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)), wire_of()
    tls.connection_made(wire)
    serving._end_by_now(tls)
    wire.abort.assert_called_once()


def test_a_drain_that_begins_twice_forgets_nobody_who_had_connected_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the master is gone before `lead` has passed."""

    async def scenario() -> None:
        gateway, joins = gateway_of(), asyncio.Event()
        gateway._server = server = Mock()
        monkeypatch.setattr(gateway, "_join", lambda sock: joins.wait())
        waiting = [[Mock()], []]
        monkeypatch.setattr(listening, "shut", lambda listener: waiting.pop(0))
        for _ in range(2):
            gateway._shut_down(Mock())
        assert not gateway._ended.is_set()
        server.close.assert_called_once()
        joins.set()
        async with asyncio.timeout(5.0):
            await gateway._ended.wait()

    asyncio.run(scenario())


def test_whose_master_is_gone_begins_to_end_once() -> None:
    """The descriptor that tells it can be read from then on."""

    async def scenario() -> None:
        gateway, (tie, held) = gateway_of(), os.pipe()
        gateway._shut_down = shut_down = Mock()  # type: ignore[method-assign]
        asyncio.get_running_loop().add_reader(tie, gateway._untied, tie, Mock())
        os.close(held)
        async with asyncio.timeout(5.0):
            while not shut_down.called:
                await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        shut_down.assert_called_once()
        os.close(tie)

    asyncio.run(scenario())


# ---- answers that are wrong, and disks that fail --------------------------------------------------------------------


def test_a_request_is_told_that_its_answer_is_longer_or_shorter_than_it_said() -> None:
    async def scenario(size: int) -> str:
        gateway, request, wire = gateway_of(), Mock(), wire_of()
        gateway.take = lambda *_: None
        protocol = connected(wire, gateway)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        protocol.request = request
        protocol.begin(200, [(b"content-length", b"5")], monotonic())
        protocol.piece(bytes(size), monotonic())
        if size < 5:
            assert not protocol.end(monotonic())
        assert protocol.request is None
        told: str = request.wrong.call_args[0][0].sentence
        return told

    assert asyncio.run(scenario(6)) == "the answer is longer than its Content-Length"
    assert asyncio.run(scenario(4)) == "the answer is shorter than its Content-Length"


@pytest.mark.parametrize(
    "more", ["/ HTTP/1.1\r\nIdempotency-Key: k", "/-/call/site/add HTTP/1.1\r\nContent-Type: application/json"]
)
def test_a_disk_that_lost_what_goes_with_its_call_is_503_and_nothing_is_kept(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError("the disk is gone")

    service = ServiceHttpSettings(routes=["/"], keys=True, calls=True)
    gateway, wire, told = gateway_of(service, spool_memory=1, max_call=1_000_000), wire_of(), []
    gateway.tell = told.append
    protocol = connected(wire, gateway)
    monkeypatch.setattr(spools.os, "pread", fails)
    protocol.data_received(f"POST {more}\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".encode() + bytes(300000))
    assert written(wire).startswith(b"HTTP/1.1 503 ") and gateway.store.held == 0
    assert len(told) == 1 and told[0].endswith("OSError: the disk is gone")


# ---- requests and their lines ---------------------------------------------------------------------------------------


def logging_of(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[serving.Gateway, list[Entry]]:
    gateway, lines = gateway_of(ServiceHttpSettings(calls=True), access_log="common", **settings), []
    monkeypatch.setattr(gateway._access, "add", lines.append)
    return gateway, lines


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize(
    ("asks", "status"),
    [("GET /nothing", 404), ("POST /-/call/site/add", 415), ("POST /", 413)],
    ids=["a request", "a call", "what never was a request"],
)
def test_whose_line_it_is_only_a_trusted_proxy_may_say(
    asks: str, status: int, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        more = "Content-Length: 11\r\n" * (status == 413)
        said = f"{asks} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n{more}\r\n"
        connected(wire_of(), gateway).data_received(said.encode())

    gateway, lines = logging_of(monkeypatch, max_body=10, trusted_proxies=["192.0.2.1"] * trusted)
    asyncio.run(scenario())
    assert [(line.client, line.status) for line in lines] == [("198.51.100.7" if trusted else "192.0.2.1", status)]


def test_a_request_that_is_answered_is_not_abandoned_with_its_connection() -> None:
    def shortly(protocol: HttpProtocol) -> None:
        assert protocol.answer_with(b"HTTP/1.1 204 No Content\r\n\r\n", monotonic())

    def in_pieces(protocol: HttpProtocol) -> None:
        protocol.begin(200, [(b"content-length", b"0")], monotonic())
        assert protocol.end(monotonic())

    for answer in (shortly, in_pieces):
        gateway, request = gateway_of(), Mock()
        gateway.take = lambda *_: None
        protocol = connected(wire_of(), gateway)
        protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        protocol.request = request
        answer(protocol)
        protocol.connection_lost(None)
        assert not request.abandon.called


def test_an_operator_is_told_the_cause_of_a_fault_which_callers_are_not() -> None:
    gateway, told = gateway_of(), []
    gateway.tell = told.append
    request = Mock(id="7", head=Mock(method="GET", target=b"/x"))
    gateway.fault(request, 503, NoService("come again", details={"cause": "no node offers it"}))
    assert told == ["503 GET /x request 7: NoService: no node offers it"]


def asked_with(data: bytes, **service: Any) -> tuple[dict[str, Any], HttpProtocol]:
    """With which options it was called; and the connection."""
    site = ServiceHttpSettings(routes=["/"], **service)
    gateway, client = gateway_of(site, timeout=30.0), Mock()
    gateway.client = client
    client.keyed = client.options.return_value.keyed = False
    start = serving.Start(gateway.settings, routes({"site": site}), {"site": site})
    gateway.take = asking.Asking(gateway, start, gateway._proxies).take
    protocol = connected(wire_of(), gateway)
    protocol.data_received(data)
    assert client.start.called or client.options.return_value.start.called
    return dict(client.options.call_args.kwargs) if client.options.called else {}, protocol


def test_a_key_is_one_where_the_service_has_keys_and_never_of_a_websocket() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\n\r\n"
    assert asked_with(post, keys=True)[0]["idempotency_key"] == "k"
    assert asked_with(post)[0] == {}
    assert asked_with(handshake("/", "Idempotency-Key: k"), keys=True)[0] == {}


@pytest.mark.parametrize(("seconds", "timeout"), [(None, 30.0), (2.5, 2.5), (99, 30.0)])
def test_a_call_waits_as_long_as_it_says_but_no_longer_than_the_gateway_allows(
    seconds: float | None, timeout: float
) -> None:
    more = "" if seconds is None else f"X-Rota-Timeout: {seconds}\r\n"
    fields = f"Host: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n{more}"
    call = f"POST /-/call/site/add HTTP/1.1\r\n{fields}\r\n[]"
    options, protocol = asked_with(call.encode(), calls=True)
    assert options["timeout"] == timeout and isinstance(protocol.request, Request)
    assert protocol.request.route is not None and protocol.request.route.service == "site"


def test_over_http_2_a_request_hears_how_it_was_answered_and_what_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, lines = logging_of(monkeypatch)
    requests: list[Mock] = []

    def take(stream: Http2Stream, *_: object) -> None:
        stream.request = Mock(connection=stream)
        requests.append(stream.request)

    async def scenario() -> None:
        wire, protocol = wire_of(), Http2Protocol(gateway)
        protocol.secured(wire)
        wire.write.reset_mock()
        protocol.data_received(START + request(1))
        assert [line.status for line in lines] == [404]
        heard = Heard()
        heard.read(written(wire))
        assert heard.statuses[1] == "404"
        protocol.data_received(request(3, [*GET, ("X-Upper", "a")]))
        assert [line.status for line in lines] == [404, 400]
        monkeypatch.setattr(gateway, "take", take)
        protocol.data_received(request(5) + request(7))
        now = monotonic()
        requests[0].connection.answer(200, [], b"whole", now)
        requests[0].answered.assert_called_once_with(200, 5)
        requests[1].connection.begin(200, [(b"content-length", b"5")], now)
        requests[1].connection.piece(b"longer", now)
        assert requests[1].wrong.call_args[0][0].sentence == "the answer is longer than its Content-Length"
        protocol.data_received(request(9) + request(11))
        for each in requests[2:]:
            each.connection.begin(200, [(b"content-length", b"0")], now)
        assert requests[2].connection.end(now)
        requests[3].connection.abort(now)
        protocol.connection_lost(None)
        assert not any(each.abandon.called for each in requests), "they were over"

    asyncio.run(scenario())


# ---- WebSockets -----------------------------------------------------------------------------------------------------


def test_without_wsproto_a_websocket_is_501_and_its_operator_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rota.gateway.websocket", None)
    gateway, wire, told = gateway_of(ServiceHttpSettings(routes=["/"])), wire_of(), []
    gateway.tell = told.append
    connected(wire, gateway).data_received(handshake("/x"))
    assert written(wire).startswith(b"HTTP/1.1 501 ")
    assert told == ["a WebSocket was refused, since wsproto is not there: pip install 'rota[http]'"]


def said(status: int) -> bytes:
    head = packb([status, [], None])
    return len(head).to_bytes(4, "little") + head


class Opened:
    """A WebSocket that its process has accepted, or answered with another status."""

    def __init__(self, status: int = 101, accepted: bool = True) -> None:
        self.gateway, self.wire = gateway_of(), wire_of()
        self.gateway.take = self._take
        self.gateway.client = self.client = Mock()
        self.told: list[str] = []
        self.gateway.tell = self.told.append
        self.protocol = connected(self.wire, self.gateway)
        self.protocol.data_received(handshake("/x"))
        if accepted:
            self.socket.came(said(status), True)
        self.wire.write.reset_mock()

    def _take(self, connection: Any, head: Head, body: object, now: float) -> None:
        shaken = asked(head)
        assert isinstance(shaken, Handshake)
        connection.request = self.socket = sockets.Socket(self.gateway, connection, head, now, None, shaken)

    @property
    def core(self) -> WebSocket:
        assert self.socket.core is not None
        return self.socket.core


def came(it: Opened) -> None:
    it.socket.came(packb("text"), True)


def finish(it: Opened) -> None:
    it.socket.finish(None, None)


def room(it: Opened) -> None:
    it.core.hold(True, monotonic())
    it.socket.room()


def waited(it: Opened) -> None:
    it.core.blocked(monotonic())
    it.socket.came(packb("text"), True)
    it.core.written(monotonic())
    it.socket.written()


@pytest.mark.parametrize("event", [came, finish, room, waited])
def test_what_nobody_has_thought_of_costs_its_own_websocket_only(
    event: Callable[[Opened], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is found among the answers of others. What is planted: none is known that does."""

    def fails(*_: object) -> None:
        raise RuntimeError("nobody has thought of it")

    it = Opened()
    monkeypatch.setattr(HttpProtocol, "do", fails)
    event(it)
    it.wire.abort.assert_called_once()
    it.client.withdraw.assert_called_once_with(it.socket)
    assert "nobody has thought of it" in capfd.readouterr().err


def test_what_is_no_message_and_waited_for_its_client_closes_with_1011_at_the_end_of_its_call() -> None:
    it = Opened()
    it.core.blocked(monotonic())
    it.socket.came(b"\x01", True)
    it.core.written(monotonic())
    it.socket.finish(None, None)
    [last] = read(written(it.wire))
    assert (last.opcode, last.data[:2]) == (CLOSE, (1011).to_bytes(2, "big"))
    assert len(it.told) == 1 and "BadItem" in it.told[0]
    it.client.withdraw.assert_called_once_with(it.socket)


def test_what_its_process_closes_is_over_for_both() -> None:
    async def scenario() -> None:
        it = Opened()
        it.socket.came(packb([1000, "bye"]), True)
        [last] = read(written(it.wire))
        assert (last.opcode, last.data) == (CLOSE, (1000).to_bytes(2, "big") + b"bye")
        assert it.socket.out.next() == Chunk(0, b"", False)
        it.client.pour.assert_called_once_with(it.socket)
        it.protocol.data_received(close(1000))
        it.socket.finish(None, RemoteError("ValueError", "behind its end"))
        assert it.socket.out.next() is None and it.told == []

    asyncio.run(scenario())


def test_its_client_is_read_again_when_its_process_takes_more_and_not_before() -> None:
    it = Opened()
    it.protocol.data_received(frame(TEXT, b"hello"))
    assert it.core.held
    it.socket.room()
    assert it.core.held
    it.socket.out.credited(Credit(1000, 0, False))
    it.socket.room()
    assert not it.core.held


def test_only_a_service_without_websockets_is_the_mistake_of_its_client() -> None:
    it = Opened(accepted=False)
    for unknown, status in (("handler", 400), ("service", 503)):
        assert it.socket.failed(NoService("it is not there", details={"unknown": unknown})).status == status


def test_a_process_that_does_not_take_the_last_word_of_its_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(taken: bool, over: bool) -> bool:
        it = Opened()
        it.protocol.connection_lost(None)
        farewell = it.socket._farewell
        assert farewell is not None and not it.client.withdraw.called
        if taken:
            it.socket.out.credited(Credit(1000, it.socket.out.written + 1, False))
        if over:
            it.socket.finish(None, None)
            assert farewell.cancelled()
        await asyncio.sleep(0.02)
        given_up: bool = it.client.withdraw.called
        return given_up

    monkeypatch.setattr(sockets, "FAREWELL_S", 0.0)
    given_up = [asyncio.run(scenario(*each)) for each in ((False, False), (True, False), (False, True))]
    assert given_up == [True, False, False]


def test_an_acceptance_may_come_in_any_pieces() -> None:
    it = Opened(accepted=False)
    for byte in said(101) + packb("text"):
        it.socket.came(bytes([byte]), True)
    head, _, rest = written(it.wire).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and [each.data for each in read(rest)] == [b"text"]


def test_what_comes_for_a_client_that_is_gone_is_taken_so_that_its_process_hears_of_that() -> None:
    async def scenario() -> None:
        it = Opened()
        it.core.blocked(monotonic())
        texts = packb("text") * 10
        it.socket.came(texts, True)
        it.protocol.connection_lost(None)
        it.socket.came(texts, True)
        taken = [call.args[1] for call in it.client.taken.call_args_list]
        assert sum(taken) == len(said(101)) + 2 * len(texts) and it.socket._items.next() is None

    asyncio.run(scenario())


def test_a_refusal_that_comes_in_pieces_ends_with_its_gateway() -> None:
    async def scenario() -> None:
        it = Opened(403)
        it.protocol.pause_writing()
        it.socket.came(b"half", True)
        assert b"half" not in written(it.wire)
        it.protocol.resume_writing()
        assert b"half" in written(it.wire)
        serving._end_by_now(it.protocol)
        it.client.withdraw.assert_called_once_with(it.socket)
        assert it.protocol.request is None and "the gateway ends" in it.told[0]

    asyncio.run(scenario())


# ---- its start ------------------------------------------------------------------------------------------------------


def test_too_few_descriptors_are_told_with_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "allow", lambda wanted: 1000)
    said = "http.connections is 8000, but only 1000 descriptors are allowed here: raise `ulimit -Hn`"
    assert listening.room_for(8000) == said and listening.room_for(1000 - listening._OWN_DESCRIPTORS) == ""
