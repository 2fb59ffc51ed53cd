"""Every option that is set is read back; the quick calls do what the public ones do."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from lan import lan
from waiting import until

from rota.common import sockets
from rota.common.limits import BODY_MAX, HEAD_MAX
from rota.common.link import Link
from rota.common.settings import MasterSettings
from rota.common.wire import BUNDLE_BYTES_MAX
from rota.master.ports import Ports

ROLES = (sockets.CONTROL, sockets.FRONTEND, sockets.BACKEND, sockets.PEER)
PATIENCE_MS = 10_000


@pytest.fixture
def ctx() -> Iterator[Any]:
    made = sockets.context()
    yield made
    made.destroy(linger=0)


@pytest.mark.parametrize("cycle", [False, True])
def test_who_is_forgotten_with_open_sockets_keeps_nobody_waiting(cycle: bool) -> None:
    class Owner:
        def __init__(self) -> None:
            self.ctx = sockets.context()
            self.link = Link(self.ctx, "tcp://127.0.0.1:1", sockets.CONTROL)
            self.itself = self if cycle else None

    owner = Owner()
    handle = weakref.ref(owner.ctx)
    del owner
    ended = threading.Thread(target=gc.collect, daemon=True)  # what hangs there would hang us
    ended.start()
    ended.join(PATIENCE_MS / 1000)
    assert not ended.is_alive() and handle() is None, "the collector waits for a socket that was not closed"


def common(sock: Any, role: str) -> None:
    assert sock.get(zmq.LINGER) == 0
    assert sock.get(zmq.MAXMSGSIZE) == BODY_MAX + HEAD_MAX
    assert sock.get(zmq.HANDSHAKE_IVL) == sockets.HANDSHAKE_MS
    assert sock.get(zmq.TCP_MAXRT) == sockets.MAX_RETRANSMIT_MS
    heartbeat = (sock.get(zmq.HEARTBEAT_IVL), sock.get(zmq.HEARTBEAT_TIMEOUT))
    assert heartbeat == ((1000, 5000) if role in (sockets.CONTROL, sockets.PEER) else (0, -1))
    assert sock.get(zmq.SNDTIMEO) == 0


@pytest.mark.parametrize("role", ROLES)
def test_every_option_of_a_router_is_as_it_was_set(ctx: Any, role: str) -> None:
    sock = sockets.router(ctx, role)
    common(sock, role)
    assert sock.get(zmq.SNDHWM) == sock.get(zmq.RCVHWM) == sockets.ROUTER_HWM
    assert sock.get(zmq.BACKLOG) == sockets.BACKLOG


@pytest.mark.parametrize("role", ROLES)
def test_every_option_of_a_dealer_is_as_it_was_set(ctx: Any, role: str) -> None:
    sock = sockets.dealer(ctx, role)
    common(sock, role)
    assert sock.get(zmq.SNDHWM) == sock.get(zmq.RCVHWM) == sockets.DEALER_HWM
    assert sock.get(zmq.RECONNECT_IVL) == sockets.NEVER_MS
    assert sock.get(zmq.IMMEDIATE) == (role not in (sockets.FRONTEND, sockets.PEER))
    assert sock.get(zmq.CONNECT_TIMEOUT) == sockets.CONNECT_TIMEOUT_MS
    assert (sock.get(zmq.TCP_KEEPALIVE), sock.get(zmq.TCP_KEEPALIVE_CNT)) == (1, sockets.KEEPALIVES)
    assert sock.get(zmq.TCP_KEEPALIVE_IDLE) == sockets.KEEPALIVE_IDLE_S
    assert sock.get(zmq.TCP_KEEPALIVE_INTVL) == sockets.KEEPALIVE_INTERVAL_S


@pytest.mark.parametrize(
    ("address", "ipv6"), [("tcp://[::1]:1", 1), ("tcp://localhost:1", 0), ("tcp://127.0.0.1:1", 0)]
)
def test_ipv6_is_spoken_to_addresses_in_brackets(ctx: Any, address: str, ipv6: int) -> None:
    assert Link(ctx, address, sockets.CONTROL).dealer.get(zmq.IPV6) == ipv6


def test_a_master_on_all_addresses_of_both_kinds_is_reached_by_either() -> None:
    everywhere = dict.fromkeys(("bind", "frontend", "backend"), "tcp://[::]:*")
    with lan(1) as (host,), host.inside():  # its loopback has both, whatever this machine's has
        ports = Ports(MasterSettings(**everywhere))
        with sockets.context() as ctx:
            for local in ("[::1]", "127.0.0.1"):
                link = Link(ctx, f"tcp://{local}:{ports.numbers[sockets.CONTROL]}", sockets.CONTROL)
                until(lambda link=link: not link.lost() and link.connected)
                link.close()
        ports.close()


def test_a_master_holds_no_message_that_it_has_read(ctx: Any) -> None:
    ports = Ports(MasterSettings(bind="tcp://127.0.0.1:*", frontend="tcp://127.0.0.1:*", backend="tcp://127.0.0.1:*"))
    link = Link(ctx, f"tcp://127.0.0.1:{ports.numbers[sockets.FRONTEND]}", sockets.FRONTEND)
    until(lambda: link.send(bytes(1_000_000)))
    sizes: list[int] = []
    until(lambda: ports.frontend.receive(unexpected, 0.0, lambda _, frame, now: sizes.append(len(frame))) or sizes)
    ports.frontend.receive(unexpected, 0.0)
    assert sizes == [1_000_000] and ports.frontend._last is None
    link.close()
    ports.close()


def unexpected(route: bytes, frame: bytes, now: float) -> None:
    raise AssertionError


def test_a_context_has_room_for_many_and_is_not_the_global_one(ctx: Any) -> None:
    assert ctx.get(zmq.MAX_SOCKETS) == sockets.MAX_SOCKETS
    assert ctx.get(zmq.IO_THREADS) == 1
    assert ctx is not zmq.Context.instance()


def test_the_largest_bundle_passes_whatever_the_largest_message_is(ctx: Any) -> None:
    for make in (sockets.router, sockets.dealer):
        assert make(ctx, sockets.BACKEND, 1024).get(zmq.MAXMSGSIZE) >= BUNDLE_BYTES_MAX + HEAD_MAX


@pytest.fixture
def pair(ctx: Any) -> tuple[Any, Any, bytes]:
    """A router, a dealer that is connected to it, and its route."""
    router, dealer = sockets.router(ctx, sockets.BACKEND), sockets.dealer(ctx, sockets.BACKEND)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dealer.connect(f"tcp://127.0.0.1:{port}")
    dealer.sndtimeo = PATIENCE_MS
    dealer.send(b"hello")
    dealer.sndtimeo = 0
    route, frame = router.recv_multipart()
    assert frame == b"hello"
    return router, dealer, route


def test_an_unknown_route_is_an_error_and_not_silence(ctx: Any) -> None:
    router = sockets.router(ctx, sockets.BACKEND)
    router.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(zmq.ZMQError) as caught:
        router.send_multipart([b"nobody", b"x"])
    assert caught.value.errno == zmq.EHOSTUNREACH


def test_a_full_route_is_an_error_and_not_a_wait(pair: tuple[Any, Any, bytes]) -> None:
    router, _, route = pair
    began = time.monotonic()
    with pytest.raises(zmq.Again):
        for _ in range(100_000):
            router.send_multipart([route, b"x" * 4000])
    assert time.monotonic() - began < 30


def test_what_came_before_a_connection_ended_can_still_be_read_by_a_client(ctx: Any) -> None:
    router = sockets.router(ctx, sockets.FRONTEND)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    link = Link(ctx, f"tcp://127.0.0.1:{port}", sockets.FRONTEND)
    until(lambda: not link.lost() and link.connected)
    assert link.send(b"here") and router.poll(5000)
    route, _ = router.recv_multipart()
    for number in range(100):
        router.send_multipart([route, str(number).encode()])
    router.close(1000)
    assert link.monitor.poll(5000) and link.lost()
    assert [link.receive() for _ in range(101)] == [*(str(number).encode() for number in range(100)), None]
    link.close()


def test_a_dealer_without_a_peer_queues_nothing(ctx: Any) -> None:
    dealer = sockets.dealer(ctx, sockets.BACKEND)
    dealer.connect("tcp://127.0.0.1:9")
    with pytest.raises(zmq.Again):
        dealer.send(b"x")


def test_the_quick_send_and_receive_agree_with_the_public_ones(pair: tuple[Any, Any, bytes]) -> None:
    router, dealer, route = pair
    for payload in (b"", b"x", b"y" * 100_000):
        sockets.fast_send(dealer, payload, zmq.NOBLOCK)
        assert router.recv_multipart() == [route, payload]
        dealer.send(payload)
        assert sockets.fast_recv(router) == route
        assert router.get(zmq.RCVMORE)
        received = sockets.fast_recv(router, zmq.NOBLOCK)
        assert received == payload and type(received) is bytes
        sockets.fast_send(router, route, zmq.NOBLOCK | zmq.SNDMORE)
        sockets.fast_send(router, payload, zmq.NOBLOCK)
        assert dealer.poll(PATIENCE_MS) and dealer.recv() == payload


def test_the_quick_calls_raise_what_the_public_ones_raise(pair: tuple[Any, Any, bytes]) -> None:
    router, dealer, _ = pair
    with pytest.raises(zmq.Again):
        sockets.fast_recv(dealer, zmq.NOBLOCK)
    with pytest.raises(zmq.ZMQError) as caught:
        sockets.fast_send(router, b"nobody", zmq.NOBLOCK | zmq.SNDMORE)
    assert caught.value.errno == zmq.EHOSTUNREACH
    dealer.rcvtimeo = 10
    with pytest.raises(zmq.Again):
        sockets.fast_recv(dealer)


@pytest.mark.parametrize("batch", [True, False])
def test_only_the_threads_of_a_batch_context_let_others_go_first(batch: bool) -> None:
    before = set(os.listdir("/proc/self/task"))
    made = sockets.context(batch)
    made.socket(zmq.DEALER).close(0)
    threads = [int(each) for each in set(os.listdir("/proc/self/task")) - before]
    expected = {os.SCHED_BATCH if batch else os.SCHED_OTHER}
    until(lambda: {os.sched_getscheduler(each) for each in threads} == expected)  # each sets its own
    made.term()


def test_the_quick_look_agrees_with_the_public_one(pair: tuple[Any, Any, bytes]) -> None:
    router, dealer, _ = pair
    readable = sockets.readable(router)
    assert not readable()
    dealer.send(b"x")
    assert router.poll(PATIENCE_MS)
    assert readable()
    router.recv_multipart()
    assert not readable()
    router.close(0)
    assert not readable(), "a closed socket has no message, and is not asked"


@pytest.mark.parametrize("quick", [True, False])
def test_routes_come_one_by_one_until_there_is_none(
    pair: tuple[Any, Any, bytes], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    router, dealer, route = pair
    if not quick:
        monkeypatch.setattr(sockets.ctypes, "PyDLL", lambda name: object())
    next_route = sockets.next_route(router)
    assert next_route() is None
    for body in (b"x", b"y"):
        dealer.send(body)
    for body in (b"x", b"y"):
        assert router.poll(PATIENCE_MS)
        assert (next_route(), router.recv()) == (route, body)
    assert next_route() is None


def test_the_longest_route_is_taken_whole(ctx: Any) -> None:
    router, dealer = sockets.router(ctx, sockets.BACKEND), sockets.dealer(ctx, sockets.BACKEND)
    dealer.routing_id = b"r" * (sockets.ROUTE_MAX - 1)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dealer.connect(f"tcp://127.0.0.1:{port}")
    assert dealer.poll(PATIENCE_MS, zmq.POLLOUT)
    dealer.send(b"x")
    assert router.poll(PATIENCE_MS)
    assert sockets.next_route(router)() == dealer.routing_id
    router.close(0)
    dealer.close(0)


def test_a_monitor_tells_when_a_connection_came_and_went(ctx: Any) -> None:
    router, dealer = sockets.router(ctx, sockets.BACKEND), sockets.dealer(ctx, sockets.BACKEND)
    monitor = sockets.monitor(dealer)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    dealer.connect(f"tcp://127.0.0.1:{port}")
    for event in (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
        assert monitor.poll(PATIENCE_MS)
        assert int.from_bytes(monitor.recv_multipart()[0][:2], "little") == event
    router.close(0)
    assert monitor.poll(PATIENCE_MS)
    assert int.from_bytes(monitor.recv_multipart()[0][:2], "little") == zmq.EVENT_DISCONNECTED
    dealer.disable_monitor()
    monitor.close(0)


def test_who_only_listens_hears_that_the_other_end_gave_the_connection_up() -> None:
    """Nothing got through for so long that the router's machine gave up, without a word: there was no way for one."""
    with lan(2) as (here, there), contextlib.ExitStack() as stack:
        with here.inside():
            mine = stack.enter_context(sockets.context())
            router = sockets.router(mine, sockets.BACKEND)
            port = router.bind_to_random_port(f"tcp://{here.address}")
        with there.inside():
            theirs = stack.enter_context(sockets.context())
            link = Link(theirs, f"tcp://{here.address}:{port}", sockets.BACKEND)
            until(lambda: not link.lost() and link.connected)
        link.send(b"hello")
        assert router.poll(PATIENCE_MS)
        route, _ = router.recv_multipart()
        router.send_multipart([route, b"welcome"])
        assert link.dealer.poll(PATIENCE_MS) and link.receive()  # and with it comes word that hello has arrived
        here.mute(there)
        router.send_multipart([route, b"never comes"])
        until(lambda: is_unknown(router, route), "given up after MAX_RETRANSMIT_MS", PATIENCE_MS / 1000)
        here.unmute()
        assert link.monitor.poll(PATIENCE_MS) and link.lost()
        link.close()
        router.close()


def is_unknown(router: Any, route: bytes) -> bool:
    try:
        router.send_multipart([route, b"are you there?"])
    except zmq.ZMQError:
        return True
    return False
