"""One delivery in, exactly one outcome out, whatever the handler does."""

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hosting_rig import PATIENCE_S, Driven, starts

import rota
from rota.common.body import decode_error, decode_result, encode_call
from rota.common.errors import NOT_STARTED, OK
from rota.worker.async_hosting import AsyncHost
from rota.worker.hosting import MESSAGE_MAX, Outcome, SyncHost
from rota.worker.tracebacks import TRACEBACK_MAX


class Delivery(NamedTuple):
    number: int
    handler: str
    body: bytes
    request_id: str = "7f-3"
    deadline: float | None = None
    attempt: int = 2
    idempotency_key: str | None = "basket-17"
    session: str | None = "user-42"
    headers: Mapping[str, str] = {"traceparent": "00-ab-cd-01"}


@dataclass
class Half:
    total: int = field(init=False)  # and nobody sets it


def delivery(handler: str, number: int = 1, **kwargs: Any) -> Delivery:
    return Delivery(number, handler, encode_call((), kwargs))


def hosted(function: Callable[..., Any], **options: Any) -> SyncHost:
    orders = rota.Worker("orders")
    orders.handler(name="quote")(function)
    return SyncHost(orders, **options)


def error_of(outcome: Outcome) -> rota.Error:
    assert outcome.code != OK
    return decode_error(outcome.code, outcome.body)


def remote_error_of(outcome: Outcome) -> rota.RemoteError:
    error = error_of(outcome)
    assert isinstance(error, rota.RemoteError)
    return error


# ---- in the calling thread ----


def test_a_result_is_the_outcome() -> None:
    def quote(symbol: str) -> Any:
        return {"symbol": symbol, "thread": threading.current_thread().name}

    outcome = hosted(quote).run(delivery("quote", symbol="X"))
    assert outcome.code == OK
    assert decode_result(outcome.body) == {"symbol": "X", "thread": threading.current_thread().name}


def test_the_time_in_the_handler_is_told() -> None:
    outcome = hosted(lambda: time.sleep(0.01)).run(delivery("quote"))
    assert 10_000 <= outcome.elapsed_us < 10_000_000


def test_the_context_tells_of_the_request() -> None:
    seen: list[rota.Context] = []

    def quote(ctx: rota.Context) -> None:
        seen.append(ctx)

    hosted(quote, version="7").run(delivery("quote")._replace(deadline=time.monotonic() + 5))
    ctx = seen[0]
    assert (ctx.service, ctx.handler, ctx.version, ctx.request_id) == ("orders", "quote", "7", "7f-3")
    assert (ctx.attempt, ctx.idempotency_key, ctx.session) == (2, "basket-17", "user-42")
    assert ctx.headers["traceparent"] == "00-ab-cd-01" and 4 < ctx.remaining() <= 5


def test_a_call_that_does_not_fit_is_not_run() -> None:
    ran: list[str] = []

    def quote(symbol: str) -> None:
        ran.append(symbol)

    error = error_of(hosted(quote).run(delivery("quote", symbol=1)))
    assert isinstance(error, TypeError) and isinstance(error, rota.BindError)
    assert str(error) == "orders.quote: argument 'symbol' must be str, not int"
    assert not ran


def test_an_unknown_handler_is_answered_with_the_nearest() -> None:
    error = error_of(hosted(lambda: 1).run(delivery("qoute")))
    assert isinstance(error, rota.NoService)
    assert str(error) == "there is no handler 'orders.qoute'; did you mean orders.quote?"


def test_hostile_arguments_harm_nobody() -> None:
    here = hosted(lambda: 1)
    assert isinstance(error_of(here.run(Delivery(1, "quote", b"\x91" * 5000))), rota.ProtocolError)
    assert here.run(delivery("quote")).code == OK


class NoStock(Exception):
    pass


def sell(symbol: str) -> None:
    raise NoStock(f"{symbol} is sold out")


def test_an_exception_is_told_with_type_message_and_the_frames_of_the_user() -> None:
    error = remote_error_of(hosted(sell).run(delivery("quote", symbol="X")))
    assert (error.type, error.message) == (f"{__name__}.NoStock", "X is sold out")
    assert error.traceback_text.startswith("Traceback (most recent call last):")
    assert error.traceback_text.count("in sell") == 1 and "left out" not in error.traceback_text
    assert "worker/hosting.py" not in error.traceback_text


def test_a_builtin_exception_has_its_plain_name() -> None:
    error = remote_error_of(hosted(lambda: 1 // 0).run(delivery("quote")))
    assert error.type == "ZeroDivisionError"


def test_an_error_of_rota_inside_a_handler_is_the_handlers_own() -> None:
    def quote() -> None:
        raise rota.Timeout("of another service that it called")

    assert remote_error_of(hosted(quote).run(delivery("quote"))).type == "rota.Timeout"


def test_a_type_error_inside_a_handler_is_not_a_bad_call() -> None:
    assert remote_error_of(hosted(lambda: len(1)).run(delivery("quote"))).type == "TypeError"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("end", "status"),
    [(lambda: sys.exit(3), "3"), (lambda: sys.exit(), "0"), (KeyboardInterrupt, ""), (GeneratorExit, "")],
)
def test_a_handler_that_would_end_the_process_only_fails(end: Callable[[], Any], status: str) -> None:
    def quote() -> None:
        raise end()

    error = remote_error_of(hosted(quote).run(delivery("quote")))
    assert error.type in ("SystemExit", "KeyboardInterrupt", "GeneratorExit")
    if error.type == "SystemExit":
        assert error.message == f"the handler tried to end the process with status {status}"


def test_a_huge_exception_is_cut_to_size() -> None:
    def deep(level: int) -> None:
        deep(level + 1)

    def quote() -> None:
        try:
            deep(0)
        except RecursionError:
            raise ValueError("x" * 1_000_000) from None

    error = remote_error_of(hosted(quote).run(delivery("quote")))
    assert len(error.message) == MESSAGE_MAX
    assert len(error.traceback_text) < TRACEBACK_MAX + 100 and "characters left out" in error.traceback_text


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_exception_that_cannot_be_shown_is_told_all_the_same() -> None:
    def quote() -> None:
        raise Unprintable

    error = remote_error_of(hosted(quote).run(delivery("quote")))
    assert error.type.endswith(".Unprintable") and error.message == "(its text cannot be shown)"
    orders = rota.Worker("orders")
    orders.health(quote)
    orders.on_start(quote)
    assert SyncHost(orders).check_health() == "the health probe raised Unprintable: (its text cannot be shown)"
    with pytest.raises(rota.LoadError, match=r"quote failed: Unprintable: \(its text cannot be shown\)"):
        SyncHost(orders).start_up()


class Unreadable(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no")


def test_an_exception_whose_traceback_cannot_be_shown_is_told_without() -> None:
    def quote() -> None:
        raise Unreadable("sold out")

    error = remote_error_of(hosted(quote).run(delivery("quote")))
    assert error.message == "sold out" and error.traceback_text == "(the traceback cannot be shown: RuntimeError)"


def test_an_exception_with_odd_text_is_told_all_the_same() -> None:
    def quote() -> None:
        raise OSError("caf\udce9")

    assert "caf\\udce9" in remote_error_of(hosted(quote).run(delivery("quote"))).message


def test_a_result_that_cannot_be_sent_names_handler_and_path() -> None:
    error = remote_error_of(hosted(lambda: {"items": [1, object()]}).run(delivery("quote")))
    assert (error.type, error.message) == ("TypeError", "orders.quote: result.items[1]: cannot send a 'object'")


def test_a_result_whose_own_code_raises_while_it_is_read_is_a_failure_of_its_handler() -> None:
    """The process ended of it, and an async one never answered."""
    error = remote_error_of(hosted(lambda: {"items": [Half()]}).run(delivery("quote")))
    assert error.message == (
        "orders.quote: result.items[0]: cannot be read: AttributeError: 'Half' object has no attribute 'total'"
    )


def test_a_result_that_is_too_large_is_refused_with_both_sizes() -> None:
    here = hosted(lambda size: b"x" * size)
    here.body_max = 1000
    assert here.run(delivery("quote", size=997)).code == OK  # and three bytes that say how many
    error = error_of(here.run(delivery("quote", size=2000)))
    assert isinstance(error, rota.PayloadTooLarge)
    assert error.details == {"size": 2003, "limit": 1000, "what": "result"} and "orders.quote" in str(error)


def test_hooks_run_in_order_and_a_failing_one_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    orders = rota.Worker("orders")
    order: list[str] = []
    orders.on_start(lambda: order.append("connect"))
    orders.on_start(lambda: order.append("warm"))
    orders.on_stop(lambda: order.append("disconnect"))
    orders.on_stop(lambda: 1 // 0)
    orders.on_stop(lambda: sys.exit("told to end"))
    orders.on_stop(lambda: order.append("flush"))
    here = SyncHost(orders)
    here.start_up()
    here.shut_down()
    assert order == ["connect", "warm", "flush", "disconnect"]
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told and "SystemExit: told to end" in told


def test_a_failing_start_hook_is_a_load_error_with_its_traceback() -> None:
    orders = rota.Worker("orders")

    @orders.on_start
    def connect() -> None:
        raise OSError("no database")

    with pytest.raises(rota.LoadError, match="on_start function connect failed: OSError: no database") as caught:
        SyncHost(orders).start_up()
    assert "in connect" in caught.value.traceback_text and "worker/hosting.py" not in caught.value.traceback_text


def test_a_start_hook_that_knows_why_nothing_can_start_says_it_in_its_own_words() -> None:
    orders = rota.Worker("orders")

    @orders.on_start
    def connect() -> None:
        raise rota.LoadError("the schema is older than this code")

    with pytest.raises(rota.LoadError, match="^the schema is older than this code$"):
        SyncHost(orders).start_up()


@pytest.mark.parametrize(
    ("answer", "reason"), [(None, ""), (True, ""), (False, "the health probe returned False"), (0, "returned 0")]
)
def test_a_health_probe_says_no_with_false(answer: Any, reason: str) -> None:
    orders = rota.Worker("orders")
    assert SyncHost(orders).check_health() == ""
    orders.health(lambda: answer)
    found = SyncHost(orders).check_health()
    assert found.endswith(reason) and bool(found) == bool(reason)


def test_a_health_probe_says_no_with_an_exception() -> None:
    orders = rota.Worker("orders")
    orders.health(lambda: 1 // 0)
    assert SyncHost(orders).check_health().startswith("the health probe raised ZeroDivisionError")
    others = rota.Worker("others")
    others.health(lambda: sys.exit("ill"))
    assert SyncHost(others).check_health() == "the health probe raised SystemExit: ill"


def test_a_delivery_without_a_handler_asks_for_the_health_probe() -> None:
    orders = rota.Worker("orders")
    assert decode_result(SyncHost(orders).run(delivery("")).body) == ""
    orders.health(lambda: False)
    outcome = SyncHost(orders).run(delivery(""))
    assert outcome.code == OK and decode_result(outcome.body) == "the health probe returned False"


# ---- on an event loop ----


class Loop:
    """An AsyncHost in a thread, driven from this one."""

    def __init__(self, worker: rota.Worker, concurrency: int = 4) -> None:
        self.outcomes: queue.Queue[tuple[int, Outcome]] = queue.Queue()
        self.host = Driven(
            SyncHost(worker), starts, lambda *ended: self.outcomes.put(ended), concurrency=concurrency, threads=1
        )
        self.failure: list[BaseException] = []
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,))
        self.thread.start()
        assert ready.wait(PATIENCE_S)

    def _run(self, ready: threading.Event) -> None:
        try:
            self.host.run(ready.set)
        except rota.LoadError as error:
            self.failure.append(error)
            ready.set()

    def next(self) -> tuple[int, Outcome]:
        return self.outcomes.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.host.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


class Desk:
    """An application with handlers of both kinds, and what became of them."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.worker = rota.Worker("orders")
        for function in (self.echo, self.wait, self.stubborn, self.fail, self.quit, self.sync, self.blocked):
            self.worker.handler(function)

    async def echo(self, ctx: rota.Context, value: int) -> list[Any]:
        return [value, ctx.request_id]

    async def wait(self) -> None:
        self.log.append("waiting")
        try:
            await asyncio.sleep(3600)
        finally:
            self.log.append("woken")

    async def stubborn(self) -> str:
        self.log.append("waiting")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "finished early"
        return "never"

    async def fail(self) -> None:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task

    async def quit(self) -> None:
        sys.exit(3)

    def sync(self, value: int) -> int:
        self.threads.add(threading.current_thread().name)
        return value

    def blocked(self) -> str:
        self.log.append("blocked")
        assert self.gate.wait(PATIENCE_S)
        return "done"

    def until(self, entry: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while entry not in self.log:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def loop(desk: Desk) -> Iterator[Loop]:
    loop = Loop(desk.worker)
    yield loop
    desk.gate.set()
    loop.close()


def test_an_async_result_is_the_outcome(loop: Loop) -> None:
    loop.host.take(delivery("echo", 7, value=3))
    number, outcome = loop.next()
    assert (number, outcome.code, decode_result(outcome.body)) == (7, OK, [3, "7f-3"])


def test_async_handlers_run_side_by_side_and_no_more_than_agreed(loop: Loop) -> None:
    for number in range(1, 5):
        loop.host.take(delivery("wait", number))
    assert loop.host.room == 0
    with pytest.raises(RuntimeError, match="4 deliveries are running"):
        loop.host.take(delivery("echo", 5, value=1))
    loop.host.cancel(3)
    number, outcome = loop.next()
    assert number == 3 and isinstance(error_of(outcome), rota.Cancelled)
    loop.host.take(delivery("echo", 5, value=1))
    assert loop.next()[0] == 5


def test_a_delivery_that_is_cancelled_at_once_has_an_outcome(desk: Desk) -> None:
    outcomes: list[Outcome] = []

    def done(number: int, outcome: Outcome) -> None:
        outcomes.append(outcome)
        host.stop()

    def start_and_cancel() -> None:
        host.take(delivery("wait"))
        host.cancel(1)

    host = AsyncHost(SyncHost(desk.worker), starts, done, concurrency=1, threads=1)
    host.run(start_and_cancel)
    assert isinstance(error_of(outcomes[0]), rota.Cancelled) and not desk.log


def test_a_handler_starts_when_the_loop_comes_to_it_and_not_if_it_was_taken_back_until_then() -> None:
    worker, asked, ran = rota.Worker("orders"), list[int](), list[int]()
    outcomes: dict[int, int] = {}

    @worker.handler
    async def first() -> None:
        assert asked == [1], "the others have not started"
        ran.append(1)

    @worker.handler
    async def other() -> None:
        ran.append(2)

    @worker.handler
    def beside() -> None:
        ran.append(3)

    def may_start(delivery: Any) -> bool:
        asked.append(delivery.number)
        return delivery.number == 1

    def done(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome.code
        if len(outcomes) == 5:
            host.stop()

    def take_all() -> None:
        for number, name in enumerate(("first", "beside", "other", "unknown", ""), 1):
            host.take(delivery(name, number))
        assert not asked and host.room == 0

    host = AsyncHost(SyncHost(worker), may_start, done, concurrency=5, threads=1)
    host.run(take_all)
    assert asked == [1, 2, 3, 4, 5], "in the order in which they were taken, a thread beside the loop or not"
    assert ran == [1] and outcomes == {1: OK} | dict.fromkeys((2, 3, 4, 5), NOT_STARTED)


def test_a_sync_handler_for_which_the_system_has_no_thread_fails(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(loop.host._threads, "submit", submit)
        loop.host.take(delivery("sync", 1, value=1))
        assert "new thread" in str(remote_error_of(loop.next()[1]))
    loop.host.take(delivery("sync", 2, value=2))
    assert loop.next()[1].code == OK


def test_a_handler_waits_for_its_turn_whatever_tasks_its_application_makes() -> None:
    """Such as those of asyncio.eager_task_factory, which begin where they are made."""
    worker, outcomes = rota.Worker("orders"), list[int]()

    def at_once(loop: asyncio.AbstractEventLoop, coroutine: Any, **_: Any) -> asyncio.Future[Any]:
        future = loop.create_future()
        try:
            coroutine.send(None)
        except StopIteration as ended:
            future.set_result(ended.value)
        return future

    @worker.on_start
    async def hurry() -> None:
        asyncio.get_running_loop().set_task_factory(at_once)

    @worker.handler
    async def echo(value: int) -> int:
        return value

    def done(number: int, outcome: Outcome) -> None:
        outcomes.append(outcome.code)
        host.stop()

    host = AsyncHost(SyncHost(worker), starts, done, concurrency=1, threads=1)
    host.run(lambda: host.take(delivery("echo", value=1)))
    assert outcomes == [OK]


def test_what_others_compute_before_an_async_handler_is_not_its_time() -> None:
    worker, outcomes = rota.Worker("orders"), dict[int, Outcome]()

    @worker.handler
    async def compute(seconds: float) -> None:
        time.sleep(seconds)

    def done(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        if number == 2:
            host.stop()

    def start_both() -> None:
        host.take(delivery("compute", 1, seconds=0.2))
        host.take(delivery("compute", 2, seconds=0))

    host = AsyncHost(SyncHost(worker), starts, done, concurrency=2, threads=1)
    host.run(start_both)
    assert outcomes[1].elapsed_us >= 200_000 > 2 * outcomes[2].elapsed_us


def test_a_cancelled_handler_may_clean_up_or_answer_early(loop: Loop, desk: Desk) -> None:
    for name in ("wait", "stubborn"):
        desk.log.clear()
        loop.host.take(delivery(name))
        desk.until("waiting")
        loop.host.cancel(1)
        _, outcome = loop.next()
        if name == "wait":
            assert desk.log == ["waiting", "woken"] and isinstance(error_of(outcome), rota.Cancelled)
        else:
            assert decode_result(outcome.body) == "finished early"


def test_a_cancellation_of_the_handlers_own_is_a_failure(loop: Loop) -> None:
    loop.host.take(delivery("fail"))
    assert remote_error_of(loop.next()[1]).type == "asyncio.exceptions.CancelledError"


def test_an_async_handler_that_would_end_the_process_only_fails(loop: Loop) -> None:
    loop.host.take(delivery("quit"))
    assert remote_error_of(loop.next()[1]).type == "SystemExit"
    loop.host.take(delivery("echo", value=1))
    assert loop.next()[1].code == OK


def test_bad_calls_are_answered_on_the_loop_too(loop: Loop) -> None:
    loop.host.take(delivery("echo", value="1"))
    assert isinstance(error_of(loop.next()[1]), rota.BindError)
    loop.host.take(delivery("ehco"))
    assert isinstance(error_of(loop.next()[1]), rota.NoService)


def test_sync_handlers_of_an_async_application_share_one_thread_of_their_own(loop: Loop, desk: Desk) -> None:
    for number in range(1, 4):
        loop.host.take(delivery("sync", number, value=number))
    assert [loop.next()[0] for _ in range(3)] == [1, 2, 3]
    assert len(desk.threads) == 1 and desk.threads != {loop.thread.name}


def test_a_sync_handler_does_not_hold_up_the_loop(loop: Loop, desk: Desk) -> None:
    loop.host.take(delivery("blocked", 1))
    loop.host.take(delivery("sync", 2, value=2))
    loop.host.take(delivery("echo", 3, value=3))
    assert loop.next()[0] == 3
    desk.until("blocked")
    loop.host.cancel(1)  # has begun: goes on
    loop.host.cancel(2)  # has not
    number, outcome = loop.next()
    assert number == 2 and isinstance(error_of(outcome), rota.Cancelled)
    desk.gate.set()
    number, outcome = loop.next()
    assert (number, decode_result(outcome.body)) == (1, "done") and not desk.threads


def test_an_async_result_that_is_too_large_is_refused(loop: Loop) -> None:
    loop.host.sync.body_max = 2
    loop.host.take(delivery("echo", value=3))
    assert isinstance(error_of(loop.next()[1]), rota.PayloadTooLarge)


def test_a_number_that_is_not_running_cannot_be_cancelled(loop: Loop) -> None:
    loop.host.cancel(99)
    loop.host.take(delivery("echo", value=1))
    assert loop.next()[1].code == OK and loop.outcomes.empty()


def test_a_delivery_may_be_started_where_another_one_is_done(desk: Desk) -> None:
    outcomes: list[int] = []

    def done(number: int, outcome: Outcome) -> None:
        outcomes.append(number)
        host.take(delivery("echo", number + 1, value=1)) if number < 5 else host.stop()

    host = AsyncHost(SyncHost(desk.worker), starts, done, concurrency=1, threads=1)
    host.run(lambda: host.take(delivery("echo", 1, value=1)))
    assert outcomes == [1, 2, 3, 4, 5]


def test_a_stop_cancels_what_runs_and_answers_it(desk: Desk) -> None:
    loop = Loop(desk.worker)
    loop.host.take(delivery("wait", 1))
    loop.host.take(delivery("blocked", 2))
    desk.until("blocked")
    loop.host.stop()
    assert isinstance(error_of(loop.next()[1]), rota.Cancelled)
    desk.gate.set()
    assert loop.next()[0] == 2
    loop.close()  # once more is no error


def test_hooks_of_both_kinds_run_in_order_each_where_its_handlers_run(capsys: pytest.CaptureFixture[str]) -> None:
    orders = rota.Worker("orders")
    ran: list[tuple[str, str]] = []

    @orders.on_start
    async def connect() -> None:
        ran.append(("connect", threading.current_thread().name))

    @orders.on_start
    def warm() -> None:
        ran.append(("warm", threading.current_thread().name))

    @orders.on_stop
    def cool() -> None:
        ran.append(("cool", threading.current_thread().name))

    @orders.on_stop
    async def disconnect() -> None:
        ran.append(("disconnect", threading.current_thread().name))
        raise OSError("already gone")

    loop = Loop(orders)
    loop.close()
    assert [name for name, _ in ran] == ["connect", "warm", "disconnect", "cool"]
    threads = dict(ran)
    assert threads["connect"] == threads["disconnect"] == loop.thread.name
    assert threads["warm"] == threads["cool"] != loop.thread.name
    assert "OSError: already gone" in capsys.readouterr().err
    assert threads["warm"] not in [thread.name for thread in threading.enumerate()], "and it is gone"


def test_handlers_find_what_a_start_hook_has_set_for_its_context() -> None:
    mark: ContextVar[str] = ContextVar("mark", default="nothing")
    orders = rota.Worker("orders")

    @orders.on_start
    async def connect() -> None:
        mark.set("connected")

    @orders.handler
    async def ask() -> str:
        return mark.get()

    loop = Loop(orders)
    loop.host.take(delivery("ask"))
    _, outcome = loop.next()
    loop.close()
    assert decode_result(outcome.body) == "connected"


async def wait_for_what_was_cancelled() -> None:
    """As people do who end a task of their own."""
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    await task


def test_a_stop_hook_that_waits_for_a_cancelled_task_keeps_none_of_the_others() -> None:
    orders, ran = rota.Worker("orders"), []
    orders.on_stop(lambda: ran.append("first defined, last run"))
    orders.on_stop(wait_for_what_was_cancelled)
    Loop(orders).close()
    assert ran


@pytest.mark.parametrize("error", [OSError, asyncio.CancelledError])
def test_a_failing_async_start_hook_is_a_load_error(error: type[BaseException]) -> None:
    orders = rota.Worker("orders")

    @orders.on_start
    async def connect() -> None:
        raise error("no database")

    loop = Loop(orders)
    loop.thread.join(PATIENCE_S)
    assert len(loop.failure) == 1 and f"connect failed: {error.__name__}: no database" in str(loop.failure[0])
    loop.close()


def test_a_start_hook_that_would_end_the_process_is_a_load_error() -> None:
    orders = rota.Worker("orders")

    @orders.on_start
    def connect() -> None:
        sys.exit("no database")

    with pytest.raises(rota.LoadError, match="connect failed: SystemExit: no database"):
        SyncHost(orders).start_up()

    @orders.on_start
    async def warm() -> None: ...

    loop = Loop(orders)
    loop.thread.join(PATIENCE_S)
    assert len(loop.failure) == 1 and "connect failed: SystemExit: no database" in str(loop.failure[0])
    loop.close()


@pytest.mark.parametrize("answer", [None, False, OSError("gone"), SystemExit("gone"), asyncio.CancelledError("gone")])
def test_an_async_health_probe_reports(answer: Any) -> None:
    orders = rota.Worker("orders")

    @orders.health
    async def probe() -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    loop = Loop(orders)
    loop.host.take(delivery("", 7))
    number, outcome = loop.next()
    assert number == 7 and bool(decode_result(outcome.body)) == (answer is not None)
    loop.close()


def test_a_health_check_that_is_cancelled_says_nothing_of_the_process() -> None:
    """As where it stops: that would be a node that is ill."""
    orders = rota.Worker("orders")
    waiting = threading.Event()

    @orders.health
    async def probe() -> None:
        waiting.set()
        await asyncio.sleep(3600)

    loop = Loop(orders)
    loop.host.take(delivery("", 7))
    assert waiting.wait(PATIENCE_S)
    loop.host.cancel(7)
    _, outcome = loop.next()
    loop.close()
    assert isinstance(error_of(outcome), rota.Cancelled)
