"""The client against a fake master: real sockets, connections that are cut, masters that come and go."""

from __future__ import annotations

import concurrent.futures
import errno
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast
from weakref import ref

import msgpack
import pytest
import zmq
from fake_frontend import FakeFrontend, Request, echo, proxied
from free_ports import free_port
from waiting import until

import rota
from rota.client import calls as table
from rota.client.io_thread import IoThread, _watching
from rota.client.reply import Reply
from rota.client.session import Session
from rota.client.wake import Waker
from rota.common import messages, sockets, wire
from rota.common.body import encode_error
from rota.common.link import Link


def never(_: FakeFrontend, request: Request) -> None:
    return None


@pytest.fixture
def client(fake: FakeFrontend) -> Iterator[rota.Client]:
    with rota.Client(fake.address) as made:
        yield made


def test_a_call_returns_the_result(client: rota.Client) -> None:
    assert client.call("orders.quote", symbol="X") == {"symbol": "X"}
    assert client.call("orders.quote", 1, 2) == [1, 2]


def test_nothing_is_connected_before_the_first_call(fake: FakeFrontend, client: rota.Client) -> None:
    assert not fake.counts
    client.call("a.b")
    assert fake.counts["ClientHello"] == 1


def test_rota_master_names_the_masters(fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROTA_MASTER", f"tcp://127.0.0.1:{free_port()}, {fake.address}")
    with rota.Client() as client:
        assert client.call("a.b", 1) == [1]


def test_what_is_no_address_is_a_value_error() -> None:
    wrong: Any
    no_text: tuple[Any, ...] = (["tcp://a:1"], None)
    for wrong in ("127.0.0.1:7700", "tcp://", "tcp://host:0", "tcp://a b:1", "tcp://*:1", "tcp://me@a:1", *no_text):
        with pytest.raises(ValueError, match="no master's address"):
            rota.Client(wrong)


def test_what_is_no_target_is_a_value_error(client: rota.Client) -> None:
    wrong: Any
    for wrong in ("", "orders", "a." + "b" * 300, 5, None):
        with pytest.raises(ValueError, match="no target"):
            client.submit(wrong)


def test_submit_gives_a_future_that_the_standard_library_understands(client: rota.Client) -> None:
    futures = [client.submit("a.b", number) for number in range(50)]
    done, _ = concurrent.futures.wait(futures, timeout=10)
    assert {future.result()[0] for future in done} == set(range(50))
    seen = [future.result() for future in concurrent.futures.as_completed([client.submit("a.b", 1)], timeout=10)]
    assert seen == [[1]]


def test_wait_for_the_first_returns_with_the_first(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = lambda fake, request: echo(fake, request) if request.args == [1] else None
    silent, answered = client.submit("a.b", 0), client.submit("a.b", 1)
    done, waiting = concurrent.futures.wait([silent, answered], 10, concurrent.futures.FIRST_COMPLETED)
    assert (done, waiting) == ({answered}, {silent})


def test_a_done_callback_runs_once_before_or_after_the_answer(client: rota.Client) -> None:
    future = client.submit("a.b", 1)
    called: list[object] = []
    future.add_done_callback(called.append)
    future.result()
    until(lambda: called)
    future.add_done_callback(called.append)
    assert called == [future, future]


Add = Callable[[Callable[[object], object]], None]


@pytest.fixture
def when_done(fake: FakeFrontend, client: rota.Client) -> Add:
    """Adds a callback to a call that is not answered before: it runs in the client's thread."""

    def add(callback: Callable[[object], object]) -> None:
        added = threading.Event()
        fake.answer = lambda fake, request: echo(fake, request) if added.wait(10) else None
        client.submit("a.b", 1).add_done_callback(callback)
        added.set()

    return add


def test_a_callback_that_raises_harms_nobody(
    client: rota.Client, when_done: Add, caplog: pytest.LogCaptureFixture
) -> None:
    when_done(lambda future: 1 / 0)
    when_done(lambda future: sys.exit("told to end"))
    assert client.call("a.b", 2) == [2]
    assert client.call("a.b", 3) == [3]
    assert "ZeroDivisionError" in caplog.text and "SystemExit: told to end" in caplog.text


def test_what_a_callback_raises_to_end_the_thread_that_adds_it_ends_that(client: rota.Client) -> None:
    future = client.submit("a.b", 1)
    future.result()
    with pytest.raises(SystemExit):
        future.add_done_callback(lambda future: sys.exit("told to end"))


def test_a_callback_that_waits_for_a_call_is_told_that_it_must_not(client: rota.Client, when_done: Add) -> None:
    """It waited for its own thread, for ever, and so did all others and the end of the program."""
    raised: Queue[BaseException] = Queue()

    def call(_: object) -> None:
        try:
            client.call("a.b", 2)
        except BaseException as error:
            raised.put(error)

    when_done(call)
    error = raised.get(timeout=10)
    assert isinstance(error, RuntimeError) and "may submit a call, not wait for one" in str(error)
    assert client.call("a.b", 3) == [3]


def test_callbacks_may_submit(client: rota.Client) -> None:
    left, ended = [500], threading.Event()

    def again(_: object) -> None:
        left[0] -= 1
        if left[0] > 0:
            client.submit("a.b", left[0]).add_done_callback(again)
        else:
            ended.set()

    for _ in range(8):
        client.submit("a.b", 0).add_done_callback(again)
    assert ended.wait(10)


def test_a_callback_may_close_the_client(fake: FakeFrontend) -> None:
    client = rota.Client(fake.address)
    client.submit("a.b").add_done_callback(lambda _: client.close())
    until(lambda: fake.counts["bye"] == 2)  # the control link and the session
    with pytest.raises(RuntimeError, match="closed"):
        client.call("a.b")


def test_who_was_woken_sleeps_until_the_next_call() -> None:
    thread, waker = IoThread(("tcp://127.0.0.1:1",)), Waker()
    poll, *_ = _watching(None, waker)
    waker.wake()
    assert thread._sleep(poll, 0.0, waker) == [waker.fd]
    assert thread._sleep(poll, 0.0, waker) == []


def test_eight_threads_call_at_once_and_each_gets_its_own_answers(client: rota.Client) -> None:
    wrong: list[object] = []

    def calls(name: int) -> None:
        for count in range(100):
            result = client.call("a.b", name, count)
            if result != [name, count]:
                wrong.append(result)

    threads = [threading.Thread(target=calls, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_map_gives_results_in_the_order_of_its_items(client: rota.Client) -> None:
    assert list(client.map("a.b", [{"n": 1}, (2, 3), 4], window=2)) == [{"n": 1}, [2, 3], [4]]


def test_map_needs_a_window(client: rota.Client) -> None:
    with pytest.raises(ValueError, match="window is 0: at least 1 expected"):
        client.map("a.b", [1], window=0)
    assert list(client.map("a.b", [1, 2], window=1)) == [[1], [2]]


def test_map_has_no_more_under_way_than_its_window(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = never
    items = iter(range(100))
    results = client.map("a.b", items, window=7)
    first: list[object] = []
    thread = threading.Thread(target=lambda: first.append(next(results)))
    thread.start()
    until(lambda: len(fake.seen) == 7)
    assert next(items) == 8  # the eighth was taken and waits, the ninth is ours
    fake.later(lambda: fake.reply(fake.seen[0], 0, "one"))
    thread.join(10)
    assert first == ["one"]
    results.close()
    until(lambda: fake.counts["cancel"] == 6)


def test_map_raises_the_first_error_and_cancels_the_rest(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = lambda fake, request: (8, encode_error(rota.NotExecuted("x"))) if request.args == [0] else None
    with pytest.raises(rota.NotExecuted):
        list(client.map("a.b", range(3)))
    until(lambda: fake.counts["cancel"] == 2)


@pytest.mark.parametrize(
    ("code", "sent", "kind"),
    [
        (1, rota.RemoteError("KeyError", "'x'", "Traceback…"), rota.RemoteError),
        (2, rota.BindError("missing argument 'symbol'"), TypeError),
        (3, rota.PayloadTooLarge("result too large"), rota.PayloadTooLarge),
        (5, rota.Timeout("queued too long"), TimeoutError),
        (6, rota.Overloaded("queue is full", retry_after=0.5), rota.Overloaded),
        (7, rota.NoService("no service 'a'"), ConnectionError),
        (8, rota.NotExecuted("process lost"), rota.NotExecuted),
        (9, rota.MaybeExecuted("process lost"), rota.MaybeExecuted),
        (10, rota.Denied("no"), rota.Denied),
    ],
)
def test_an_error_is_raised_as_what_it_is(
    fake: FakeFrontend, client: rota.Client, code: int, sent: rota.Error, kind: type[Exception]
) -> None:
    fake.answer = lambda fake, request: (code, encode_error(sent))
    with pytest.raises(kind) as caught:
        client.call("a.b")
    assert str(caught.value) == str(sent)


def test_an_error_is_forgotten_with_its_last_name(fake: FakeFrontend, client: rota.Client) -> None:
    """And all that its traceback holds: it does not wait for the garbage collector, which many servers turn off."""
    fake.answer = lambda fake, request: (8, encode_error(rota.NotExecuted("x")))
    errors: list[ref[rota.Error]] = []
    gc.disable()
    try:
        try:
            client.call("a.b", 1)
        except rota.NotExecuted as error:
            errors.append(ref(error))
        until(lambda: errors and errors[0]() is None)
    finally:
        gc.enable()


def test_overloaded_is_told_to_the_caller_and_not_retried(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = lambda fake, request: (6, encode_error(rota.Overloaded("full", retry_after=0.25)))
    with pytest.raises(rota.Overloaded) as caught:
        client.call("a.b")
    assert caught.value.retry_after == 0.25
    assert fake.counts["request"] == 1


def test_what_cannot_be_sent_is_a_type_error_that_names_the_path(client: rota.Client) -> None:
    with pytest.raises(TypeError, match=r"basket\[1\]"):
        client.call("a.b", basket=[1, object()])


def test_too_large_arguments_are_refused_here_and_nothing_is_sent(fake: FakeFrontend) -> None:
    fake.max_message = 1000
    with rota.Client(fake.address) as client:
        for _ in range(2):  # before and after the master's limit is known
            with pytest.raises(rota.PayloadTooLarge) as caught:
                client.call("a.b", data=b"x" * 2000)
        assert caught.value.details["limit"] == 1000
        assert client.call("a.b", 1) == [1]
    assert fake.counts["request"] == 1


@pytest.mark.parametrize("size", [2 << 20, 3 << 20])
def test_the_first_call_of_a_client_may_be_as_large_as_its_master_allows(size: int, fake: FakeFrontend) -> None:
    fake.max_message = size + 100
    fake.answer = lambda _, request: (0, len(request.args[0]))  # type: ignore[arg-type]
    with rota.Client(fake.address) as client:
        assert client.call("a.b", bytes(size)) == size


def test_options_travel_in_the_head(fake: FakeFrontend, client: rota.Client) -> None:
    view = client.options(timeout=2, idempotency_key="k1", session="user", headers={"x": "y"})
    assert view.service("orders").quote(1) == [1]
    (request,) = fake.seen
    assert request.target == "orders.quote"
    assert request.flags == wire.META | wire.KEYED | wire.PINNED
    assert 1500 < request.time_ms <= 2000
    assert msgpack.unpackb(request.meta) == {"k": "k1", "s": "user", "h": {"x": "y"}}


def test_views_add_to_one_another_and_leave_the_client_as_it_was(fake: FakeFrontend, client: rota.Client) -> None:
    client.options(timeout=2).options(session="s").call("a.b")
    client.call("a.b")
    assert [(request.time_ms <= 2000, bool(request.meta)) for request in fake.seen] == [(True, True), (False, False)]


def test_a_view_keeps_working_when_its_client_is_forgotten(fake: FakeFrontend) -> None:
    view = rota.Client(fake.address).options(timeout=5)
    assert view.call("a.b", 1) == [1]
    assert view.call("a.b", 2) == [2]
    view.close()


def test_wrong_options_are_refused(client: rota.Client) -> None:
    for timeout in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match="timeout"):
            client.options(timeout=timeout)
    with pytest.raises(ValueError, match="bytes"):
        client.options(headers={"x": "y" * 5000})
    with pytest.raises(TypeError, match="text expected"):
        client.options(session=1)  # type: ignore[arg-type]
    kind: Any
    for kind in (True, "5", timedelta(seconds=5), Decimal(5)):  # the last one was taken, and failed at each call
        with pytest.raises(TypeError, match="a number of seconds expected"):
            client.options(timeout=kind)


def test_a_view_keeps_its_headers_when_who_gave_them_changes_theirs(fake: FakeFrontend, client: rota.Client) -> None:
    headers = {"x": "y"}
    view = client.options(headers=headers)
    headers["x"] = "z"
    view.options(timeout=5).call("a.b")
    assert msgpack.unpackb(fake.seen[0].meta) == {"h": {"x": "y"}}


def test_cancelling_a_future_tells_the_master(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = never
    future = client.submit("a.b")
    until(lambda: fake.seen)
    assert future.cancel() and future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    until(lambda: fake.counts["cancel"] == 1)
    assert concurrent.futures.wait([future], timeout=5).done == {future}


@pytest.mark.parametrize("cancelled", [False, True])
def test_every_thread_that_waits_for_a_future_is_woken_by_its_end(
    fake: FakeFrontend, client: rota.Client, cancelled: bool
) -> None:
    """Those that have stopped waiting before are no obstacle."""
    fake.answer = never
    future = client.submit("a.b")
    until(lambda: fake.seen)
    seen: list[object] = []

    def wait() -> None:
        try:
            seen.append(future.result())
        except concurrent.futures.CancelledError:
            seen.append("cancelled")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    for waiting in (future.result, future.exception):
        for timeout in (-1.0, 0.0, 0.01):
            with pytest.raises(TimeoutError):
                waiting(timeout)
    if cancelled:
        future.cancel()
    else:
        fake.later(lambda: fake.reply(fake.seen[0], 0, 7))
    for thread in threads:
        thread.join(10)
    assert seen == ["cancelled" if cancelled else 7] * 3


def test_an_answered_future_cannot_be_cancelled(client: rota.Client) -> None:
    future = client.submit("a.b", 1)
    assert future.result() == [1]
    assert not future.cancel()
    assert future.result() == [1]


def test_ctrl_c_cancels_the_call_and_is_raised(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = never

    def press() -> None:
        until(lambda: fake.seen)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        client.call("a.b")
    until(lambda: fake.counts["cancel"] == 1)


def test_ctrl_c_cancels_all_that_map_has_under_way(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = never

    def press() -> None:
        until(lambda: len(fake.seen) == 3)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        list(client.map("a.b", range(3)))
    until(lambda: fake.counts["cancel"] == 3)


def test_a_call_that_the_master_never_answers_ends_at_its_time_out(fake: FakeFrontend, client: rota.Client) -> None:
    fake.answer = never
    before = time.monotonic()
    with pytest.raises(rota.Timeout, match="may have run"):
        client.options(timeout=0.2).call("a.b")
    assert 0.2 <= time.monotonic() - before < 10


def test_without_a_master_a_call_waits_until_its_time_out_and_names_who_was_tried() -> None:
    first, second = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    with rota.Client(first, second) as client:
        before = time.monotonic()
        with pytest.raises(rota.Unavailable) as caught:
            client.options(timeout=0.5).call("a.b")
        assert 0.5 <= time.monotonic() - before < 10
    assert first in str(caught.value) and second in str(caught.value)


def test_the_first_master_that_answers_is_used(fake: FakeFrontend) -> None:
    with rota.Client(f"tcp://127.0.0.1:{free_port()}", fake.address) as client:
        assert client.call("a.b", 1) == [1]


def test_a_cut_connection_is_resumed_and_every_call_gets_exactly_one_answer(fake: FakeFrontend) -> None:
    finished: list[object] = []
    with proxied(fake) as proxy, rota.Client(fake.address) as client:
        futures = []
        for round in range(10):
            for number in range(50):
                future = client.submit("a.b", round, number)
                future.add_done_callback(finished.append)
                futures.append(future)
            until(lambda: fake.counts["executed"] > 0)
            proxy.cut()
        assert [future.result(20) for future in futures] == [[r, n] for r in range(10) for n in range(50)]
    assert len(finished) == 500
    assert fake.counts["executed"] == 500
    assert fake.counts["replay"] == 0


def test_what_was_in_flight_when_the_connection_was_cut_is_resent_with_its_number_and_epoch(
    fake: FakeFrontend,
) -> None:
    fake.answer = never
    with proxied(fake) as proxy, rota.Client(fake.address) as client:
        future = client.submit("a.b", 1)
        until(lambda: fake.counts["request"] == 1)
        fake.epoch = 2
        proxy.cut()
        until(lambda: fake.counts["resent"] == 1)
        first, again = fake.seen
        assert (again.number, again.epoch, again.body) == (first.number, 1, first.body)
        fake.later(lambda: fake.reply(first, 0, "late"))
        assert future.result(10) == "late"
    assert fake.counts["executed"] == 1


def test_an_answer_that_was_sent_twice_counts_once(fake: FakeFrontend, client: rota.Client) -> None:
    def twice(fake: FakeFrontend, request: Request) -> tuple[int, object]:
        session = fake.sessions[request.session]
        fake.later(lambda: fake._say_again(session, request.number))
        return echo(fake, request)

    fake.answer = twice
    assert [client.call("a.b", number) for number in range(20)] == [[number] for number in range(20)]


def test_answers_are_acknowledged_within_a_second_or_so(fake: FakeFrontend, client: rota.Client) -> None:
    client.call("a.b")
    until(lambda: fake.acks == [(1, 2)])


def test_a_master_that_forgot_the_session_is_greeted_again(fake: FakeFrontend, client: rota.Client) -> None:
    assert client.call("a.b", 1) == [1]
    fake.later(fake.forget_sessions)
    until(lambda: not fake.sessions)
    assert client.call("a.b", 2) == [2]
    assert fake.counts["who"] >= 1
    assert fake.counts["ClientHello"] == 2


def test_calls_outlast_a_master_that_is_gone_for_two_seconds() -> None:
    with FakeFrontend() as gone:
        client = rota.Client(gone.address)
        assert client.call("a.b", 0) == [0]
    futures = [client.submit("a.b", number) for number in range(20)]
    away = time.monotonic() + 2.0
    assert concurrent.futures.wait(futures, timeout=2).done == set()
    assert time.monotonic() >= away - 0.1
    with FakeFrontend(ports=gone.ports) as back:
        back.epoch = 2
        assert [future.result(10) for future in futures] == [[number] for number in range(20)]
        client.close()


def test_a_master_of_another_version_is_an_error_that_names_both(fake: FakeFrontend) -> None:
    fake.refusal = messages.Refusal("incompatible", "this master speaks versions 7 to 9", 60_000, [7, 9])
    with rota.Client(fake.address) as client:
        for _ in range(2):  # the second one comes when the master is not asked again for a minute
            with pytest.raises(rota.Incompatible, match="7 to 9.* 1 to 1"):
                client.options(timeout=5).call("a.b")


def test_one_refusal_for_good_is_doubted_as_a_damaged_hello_looks_like_another_versions(
    fake: FakeFrontend, client: rota.Client
) -> None:
    fake.refusal, fake.refusals = messages.Refusal("incompatible", "this master speaks 7 to 9", 60_000, [7, 9]), 1
    assert client.options(timeout=5).call("a.b", 1) == [1]


def test_a_busy_master_is_asked_again(fake: FakeFrontend, client: rota.Client) -> None:
    fake.refusal = messages.Refusal("busy", "starting", 20, [1, 1])
    future = client.submit("a.b", 1)
    until(lambda: fake.counts["OperatorHello"] >= 3)
    fake.refusal = None
    assert future.result(10) == [1]


def test_damaged_and_foreign_frames_are_dropped(fake: FakeFrontend, client: rota.Client) -> None:
    def noise(fake: FakeFrontend, request: Request) -> tuple[int, object]:
        session = fake.sessions[request.session]
        good = wire.head(wire.ANSWER, session.token, number=request.number, upto=1)
        for frame in (
            b"",
            b"x" * 60,
            good[:20] + b"?" + good[21:],
            wire.head(wire.ANSWER, session.token ^ 1, number=request.number, upto=1) + b"\xc0",
            wire.head(wire.CHUNK, session.token),
            wire.head(wire.PROBE, session.token),
        ):
            fake.send(fake.frontend, session.route, frame)
        return echo(fake, request)

    fake.answer = noise
    assert client.call("a.b", 1) == [1]
    assert client.call("a.b", 2) == [2]


def test_what_stands_behind_the_end_of_a_session_in_one_frame_goes_with_it(
    fake: FakeFrontend, client: rota.Client
) -> None:
    def forgets(fake: FakeFrontend, request: Request) -> None:
        session = fake.sessions[request.session]
        frames = [wire.head(wire.WHO, 0), wire.head(wire.CREDIT, session.token, number=7) + bytes(16)]
        fake.answer = echo
        fake.send(fake.frontend, session.route, wire.bundles(frames)[0][1])
        fake.forget_sessions()

    fake.answer = forgets
    assert client.call("a.b", 1) == [1]
    assert fake.counts["who"] == 0 and fake.counts["ClientHello"] == 2


def test_a_result_that_cannot_be_decoded_is_a_protocol_error(fake: FakeFrontend, client: rota.Client) -> None:
    def garbage(fake: FakeFrontend, request: Request) -> None:
        session = fake.sessions[request.session]
        head = wire.head(wire.ANSWER, session.token, number=request.number, upto=1)
        fake.send(fake.frontend, session.route, head + b"\xc1")

    fake.answer = garbage
    with pytest.raises(rota.ProtocolError):
        client.call("a.b")


def test_closing_says_goodbye_and_ends_what_is_waited_for(fake: FakeFrontend) -> None:
    fake.answer = never
    client = rota.Client(fake.address)
    future = client.submit("a.b")
    until(lambda: fake.seen)
    client.close()
    client.close()
    with pytest.raises(rota.Cancelled):
        future.result(5)
    until(lambda: fake.counts["bye"] == 2)
    with pytest.raises(RuntimeError, match="closed"):
        client.submit("a.b")


def test_who_closes_just_when_the_connection_is_cut_says_goodbye_over_another(fake: FakeFrontend) -> None:
    fake.answer = never
    with proxied(fake) as proxy:
        client = rota.Client(fake.address)
        future = client.submit("a.b")
        until(lambda: fake.seen)
        proxy.cut()
        client.close()
    with pytest.raises(rota.Cancelled):
        future.result(0)
    until(lambda: fake.counts["bye"] >= 3)  # two are of who asked the way
    assert len(fake.seen) == 1


@pytest.mark.parametrize("moment", ["_start", "_new_session"])
def test_who_calls_first_while_the_client_is_closed_is_told(
    moment: str, fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread before the start, or by a signal handler in the midst of it."""
    client = rota.Client(fake.address)
    thread = client._home.cell[0]
    carry_on = getattr(thread, moment)

    def close_first(*args: Any) -> Any:
        client.close()
        return carry_on(*args)

    monkeypatch.setattr(thread, moment, close_first)
    with pytest.raises(rota.Cancelled, match="closed"):
        client.submit("a.b").result(10)


def test_what_is_called_when_the_thread_of_the_client_has_looked_last_is_cancelled(
    fake: FakeFrontend, client: rota.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thread that found the client open, just before another one closed it."""
    assert client.call("a.b", 1) == [1]
    thread, leave = client._home.cell[0], Session.leave
    late = Reply((b"a.b", 3, 0), b"", time.monotonic() + 60, thread, None)

    def leave_late(*args: Any) -> None:
        thread._inbox.append(late)
        leave(*args)

    monkeypatch.setattr(Session, "leave", leave_late)
    client.close()
    with pytest.raises(rota.Cancelled, match="closed"):
        late.result(10)


def test_threads_that_call_while_the_client_is_closed_by_another_are_all_told(fake: FakeFrontend) -> None:
    """One of them ends the calls of all, and the others find none left: they raised IndexError."""
    client = rota.Client(fake.address)
    thread = client._home.cell[0]
    others: list[Reply] = []

    class Inbox(deque[Reply]):
        def append(self, reply: Reply) -> None:
            client.close()
            super().append(reply)

        def popleft(self) -> Reply:
            if not others:
                others.append(super().popleft())
            return super().popleft()

    thread._inbox = Inbox()
    mine = client.submit("a.b")
    assert others == [mine]
    others[0].finish(None, thread._failure)
    with pytest.raises(rota.Cancelled, match="closed"):
        mine.result(10)


def test_a_client_whose_thread_fails_says_so_to_all_who_wait_and_is_closed(
    fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answer = never
    shown: Queue[str] = Queue()
    monkeypatch.setattr(threading, "excepthook", lambda said: shown.put(f"{said.exc_value!r} in {said.thread.name}"))
    client = rota.Client(fake.address)
    waiting = client.submit("a.b")
    until(lambda: fake.seen)

    def fail(*_: object) -> None:
        raise MemoryError("none is left")

    monkeypatch.setattr(Session, "send", fail)
    late = client.submit("a.b")
    for future in (waiting, late):
        with pytest.raises(rota.Error, match=r"the I/O thread of this client failed: MemoryError\('none is left'\)"):
            future.result(10)
    with pytest.raises(RuntimeError, match="closed"):
        client.call("a.b")
    assert shown.get(timeout=10) == "MemoryError('none is left') in rota-client"


def test_a_call_that_is_cancelled_before_it_is_taken_makes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits in a client is bounded, also when a caller gives up at the very moment of its call."""
    monkeypatch.setattr(table, "WAITING_BYTES", 100)
    thread = IoThread(("tcp://127.0.0.1:1",))
    reply = Reply((b"a.b", 3, 0), b"x" * 60, time.monotonic() + 60, thread, None)

    class Inbox(deque[Reply]):
        def __bool__(self) -> bool:
            found = len(self) > 0
            if not found and not reply.done():
                self.append(reply)
                reply.cancel()
            return found

    calls, thread._inbox = table.Calls(), Inbox()
    for _ in range(2):
        thread._take_inbox(cast(Session, SimpleNamespace(calls=calls)))
    first, second = (Reply((b"a.b", 3, 0), b"x" * 60, time.monotonic() + 60, thread, None) for _ in range(2))
    assert calls.submit(first) is None and isinstance(calls.submit(second), rota.Overloaded)


def test_a_forgotten_client_says_goodbye(fake: FakeFrontend) -> None:
    client = rota.Client(fake.address)
    client.call("a.b")
    del client
    until(lambda: fake.counts["bye"] == 2)


def test_a_forgotten_client_finishes_what_was_submitted(fake: FakeFrontend) -> None:
    fake.answer = never
    future = rota.Client(fake.address).submit("a.b", 1)
    until(lambda: fake.seen)
    fake.later(lambda: fake.reply(fake.seen[0], 0, "done"))
    assert future.result(10) == "done"
    until(lambda: fake.counts["bye"] == 2)


def test_a_forgotten_client_does_not_wait_for_what_was_cancelled() -> None:
    future = rota.Client(f"tcp://127.0.0.1:{free_port()}").options(timeout=3600).submit("a.b")
    thread = future._thread
    future.cancel()
    until(lambda: thread._ended)


def test_a_client_that_is_closed_while_a_cancel_is_under_way_is_forgotten(fake: FakeFrontend) -> None:
    fake.answer = never
    threads = []
    for _ in range(20):  # mostly its thread ends before it has looked
        client = rota.Client(fake.address)
        client.submit("a.b").cancel()
        client.close()
        threads.append(ref(client._home.cell[0]))
    del client
    gc.collect()
    assert [thread() for thread in threads] == [None] * 20, "and its descriptors stay with it"


def test_a_forked_child_gets_a_session_of_its_own(fake: FakeFrontend) -> None:
    program = (
        "import os, sys, rota\n"
        "client = rota.Client(sys.argv[1])\n"
        "assert client.call('a.b', 1) == [1]\n"
        "pid = os.fork()\n"
        "assert client.call('a.b', 2) == [2]\n"
        "if pid: assert os.waitpid(pid, 0)[1] == 0\n"
        "client.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, fake.address], check=True, timeout=30)
    assert len(fake.sessions) == 2
    assert fake.counts["executed"] == 3


@pytest.mark.parametrize("kind", [rota.Client, rota.AsyncClient, rota.Admin])
def test_who_hands_a_client_to_a_spawned_child_is_told_to_make_one_there(kind: Any) -> None:
    """It was "cannot pickle '_thread.RLock' object"; one that was not used yet came to its child, as another one."""
    client = kind("tcp://127.0.0.1:1")
    for handed in (client, client.verb) if kind is rota.Admin else (client, client.options(timeout=5), client.call):
        with pytest.raises(TypeError, match="a client cannot be pickled: make one in the child"):
            pickle.dumps(handed)


def test_a_closed_client_is_closed_in_a_forked_child_too(fake: FakeFrontend) -> None:
    program = (
        "import os, sys, rota\n"
        "client = rota.Client(sys.argv[1])\n"
        "client.close()\n"
        "pid = os.fork()\n"
        "if pid: sys.exit(os.waitpid(pid, 0)[1])\n"
        "try: client.call('a.b')\n"
        "except RuntimeError: os._exit(0)\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program, fake.address], check=True, timeout=30)


def test_a_process_that_ends_without_closing_says_goodbye(fake: FakeFrontend) -> None:
    program = "import sys, rota\nclient = rota.Client(sys.argv[1])\nclient.call('a.b')\n"
    subprocess.run([sys.executable, "-c", program, fake.address], check=True, timeout=30)
    until(lambda: fake.counts["bye"] == 2)


def test_naming_the_client_loads_neither_logging_nor_asyncio() -> None:
    program = (
        "import sys, zmq, msgpack; before = set(sys.modules)\n"
        "import rota; rota.Client\n"
        "print(' '.join(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert not {"logging", "asyncio", "click", "subprocess", "http", "dataclasses", "concurrent.futures"} & set(loaded)
    assert not any(name.startswith(("rota.master", "rota.gateway", "rota.worker", "rota.cli.")) for name in loaded)


def test_a_connection_over_which_no_deadline_is_told_is_given_up_for_a_new_one(fake: FakeFrontend) -> None:
    fake.answer = lambda _, request: None
    with rota.Client(fake.address) as client:
        until = time.monotonic() + 10
        while fake.counts["ClientHello"] < 2 and time.monotonic() < until:
            with pytest.raises(rota.Timeout):
                client.options(timeout=0.3).call("a.b")
        fake.answer = echo
        assert client.options(timeout=5).call("a.b", 1) == [1]
        assert fake.counts["ClientHello"] == 2


@pytest.fixture
def no_descriptor(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While its list is not empty no link can be made; each try takes one from it."""
    left: list[str] = []
    make = Link.__init__

    def link(self: Link, *given: Any) -> None:
        if left:
            left.pop()
            raise zmq.ZMQError(errno.EMFILE)
        make(self, *given)

    monkeypatch.setattr(Link, "__init__", link)
    return left


def test_a_process_without_a_free_descriptor_tries_on(fake: FakeFrontend, no_descriptor: list[str]) -> None:
    with proxied(fake) as proxy, rota.Client(fake.address) as client:
        client.call("a.b")
        no_descriptor += ["one"] * 3
        proxy.cut()
        assert client.options(timeout=10).call("a.b", 1) == [1]
        assert not no_descriptor


def test_an_operator_without_a_free_descriptor_tries_on_and_is_told_at_the_end(
    fake: FakeFrontend, no_descriptor: list[str]
) -> None:
    fake.verb = lambda verb: messages.Result(verb.id, True, 0, {"services": []})
    with rota.Admin(fake.address) as admin:
        no_descriptor += ["one"] * 3
        assert admin.status() == {"services": []} and not no_descriptor
    with rota.Admin(fake.address) as admin:
        no_descriptor += ["one"] * 1000
        with pytest.raises(rota.Unavailable, match="no master answers .*Too many open files"):
            admin.status(timeout=0.2)
        no_descriptor.clear()
        fake.deaf = True
        with pytest.raises(rota.Unavailable, match="no master answers .*: no answer"):
            admin.status(timeout=0.2)


def test_a_client_that_could_not_begin_may_begin_later(fake: FakeFrontend, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with rota.Client(fake.address) as client:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="new thread"):
            patch.setattr(threading.Thread, "start", start)
            client.call("a.b")
        assert client.options(timeout=10).call("a.b", 1) == [1]


def test_a_link_that_comes_about_by_half_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def monitor(_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    context = sockets.context()
    monkeypatch.setattr(sockets, "monitor", monitor)
    with pytest.raises(zmq.ZMQError):
        Link(context, "tcp://127.0.0.1:1", sockets.CONTROL)
    ended = threading.Thread(target=context.term, daemon=True)
    ended.start()
    ended.join(5)
    assert not ended.is_alive()
