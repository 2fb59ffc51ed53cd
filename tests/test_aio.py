"""The asyncio client against a fake master."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from weakref import ref

import pytest
from fake_frontend import FakeFrontend, Request, echo, proxied

import rota
from rota.client.session import Session
from rota.client.streams import StreamCall
from rota.common.body import encode_error
from rota.common.streams import Outflow

PATIENCE_S = 20.0


def never(_: FakeFrontend, request: Request) -> None:
    return None


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


Scene = Callable[[FakeFrontend, rota.AsyncClient], Awaitable[None]]


def play(scene: Scene) -> FakeFrontend:
    """The scene in a loop of its own, with a master and a client."""

    async def main() -> None:
        async with rota.AsyncClient(fake.address) as client:
            await asyncio.wait_for(scene(fake, client), PATIENCE_S)

    with FakeFrontend() as fake:
        asyncio.run(main(), debug=False)
    return fake


def test_calls_return_their_results() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        assert await client.call("a.b", symbol="X") == {"symbol": "X"}
        assert await client.service("a").b(1) == [1]
        assert await client.options(timeout=2, session="s").call("a.b", 2) == [2]

    assert [request.target for request in play(scene).seen] == ["a.b"] * 3


def test_many_tasks_call_at_once_and_each_gets_its_own_answer() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        results = await asyncio.gather(*(client.call("a.b", number) for number in range(2000)))
        assert results == [[number] for number in range(2000)]

    play(scene)


def test_an_error_is_raised_as_what_it_is() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = lambda fake, request: (2, encode_error(rota.BindError("missing 'symbol'")))
        with pytest.raises(TypeError, match="symbol"):
            await client.call("a.b")
        with pytest.raises(TypeError, match="arguments"):
            await client.call("a.b", object())

    play(scene)


def test_cancelling_the_task_that_awaits_cancels_the_call() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        task = asyncio.ensure_future(client.call("a.b"))
        await until(lambda: fake.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: fake.counts["cancel"] == 1)

    play(scene)


def test_a_cancel_is_said_at_once_while_nothing_else_is() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        call = client.submit("a.b")
        await until(lambda: fake.seen)
        driver = client._home.known
        assert driver is not None
        await until(lambda: not driver._soon)
        before = time.monotonic()
        call.cancel()
        await until(lambda: fake.counts["cancel"] == 1)
        assert time.monotonic() - before < 0.5

    play(scene)


def test_wait_for_gives_up_in_time_and_the_connection_serves_on() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.call("a.b"), 0.1)
        fake.answer = echo
        assert await client.call("a.b", 1) == [1]

    play(scene)


def test_a_call_ends_at_its_time_out() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        before = time.monotonic()
        with pytest.raises(rota.Timeout):
            await client.options(timeout=0.2).call("a.b")
        assert 0.2 <= time.monotonic() - before < 10

    play(scene)


def test_after_a_step_that_fails_calls_end_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    send = Session.send

    def fails_once(*_: object) -> None:
        monkeypatch.setattr(Session, "send", send)
        raise KeyError("what nobody has thought of")

    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        fake.answer = never
        late = client.options(timeout=0.2).submit("a.b")
        await until(lambda: fake.seen)
        monkeypatch.setattr(Session, "send", fails_once)
        with pytest.raises(rota.Timeout):
            await late

    play(scene)
    assert ["nobody has thought of" in repr(context["exception"]) for context in told] == [True]


def test_map_gives_results_in_order() -> None:
    async def items() -> AsyncIterator[dict[str, int]]:
        for number in range(20):
            yield {"n": number}

    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        assert [result async for result in client.map("a.b", items(), window=3)] == [{"n": n} for n in range(20)]
        assert [result async for result in client.map("a.b", range(5))] == [[n] for n in range(5)]

    play(scene)


def test_map_has_no_more_under_way_than_its_window() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        items = iter(range(100))
        results = client.map("a.b", items, window=7)
        first = asyncio.ensure_future(anext(results))
        await until(lambda: len(fake.seen) == 7)
        assert next(items) == 8  # the eighth was taken and waits, the ninth is ours
        fake.later(lambda: fake.reply(fake.seen[0], 0, "one"))
        assert await first == "one"
        await results.aclose()
        await until(lambda: fake.counts["cancel"] == 6)

    play(scene)


def test_too_large_arguments_are_refused_here_and_nothing_is_sent() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.max_message = 1000
        for _ in range(2):  # before and after the master's limit is known
            with pytest.raises(rota.PayloadTooLarge):
                await client.call("a.b", data=b"x" * 2000)
        assert await client.call("a.b", 1) == [1]

    assert play(scene).counts["request"] == 1


def test_map_raises_the_first_error_and_cancels_the_rest() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = lambda fake, request: (8, encode_error(rota.NotExecuted("x"))) if request.args == [0] else None
        with pytest.raises(rota.NotExecuted):
            async for _ in client.map("a.b", range(3)):
                pass
        await until(lambda: fake.counts["cancel"] == 2)
        with pytest.raises(ValueError, match="window is 0: at least 1 expected"):
            await anext(client.map("a.b", range(3), window=0))
        fake.answer = echo
        assert [result async for result in client.map("a.b", [(1, 2), 3], window=1)] == [[1, 2], [3]]

    play(scene)


def test_a_cut_connection_is_resumed_and_every_call_is_executed_once() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        with proxied(fake) as proxy:
            calls = []
            for round in range(6):
                calls += [client.submit("a.b", round, number) for number in range(50)]
                await until(lambda: fake.counts["executed"] > 0)
                proxy.cut()
                await asyncio.sleep(0)
            assert await asyncio.gather(*calls) == [[r, n] for r in range(6) for n in range(50)]

    fake = play(scene)
    assert fake.counts["executed"] == 300
    assert fake.counts["replay"] == 0


def test_calls_wait_for_a_master_that_comes_later() -> None:
    with FakeFrontend() as gone:
        pass

    async def main() -> None:
        async with rota.AsyncClient(gone.address) as client:
            call = client.submit("a.b", 1)
            await asyncio.sleep(0.1)
            assert not call.done()
            with FakeFrontend(ports=(gone.ports[0], gone.ports[1])):
                assert await asyncio.wait_for(call, PATIENCE_S) == [1]

    asyncio.run(main())


def test_closing_ends_what_is_waited_for() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        call = client.submit("a.b")
        await until(lambda: fake.seen)
        await client.close()
        with pytest.raises(rota.Cancelled):
            await call
        with pytest.raises(RuntimeError, match="closed"):
            client.submit("a.b")
        await until(lambda: fake.counts["bye"] == 2)

    play(scene)


class Own(StreamCall):
    """A call of the caller's own, and the error that it ended with."""

    error: rota.Error | None = None

    def __init__(self, client: rota.AsyncClient) -> None:
        self.client = client
        self.out = Outflow()

    def finish(self, value: object, error: rota.Error | None) -> None:
        """As a gateway's does, it has something to say to its client still."""
        self.error = error
        self.client.pour(self)
        self.client.taken(self, 1)
        self.client.withdraw(self)


def test_calls_of_ones_own_end_with_their_client_and_none_begins_behind_it() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        calls = [Own(client), Own(client)]
        for each in calls:
            client.start(each, "a.b")
        await until(lambda: len(fake.seen) == 2)
        await client.close()
        assert all(isinstance(each.error, rota.Cancelled) for each in calls)
        late = Own(client)
        client.start(late, "a.b")
        assert isinstance(late.error, rota.Unavailable)
        await until(lambda: fake.counts["bye"] == 2)

    play(scene)


def test_who_closes_just_when_the_connection_is_cut_says_goodbye_over_another() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        with proxied(fake) as proxy:
            call = client.submit("a.b")
            await until(lambda: fake.seen)
            proxy.cut()
            await client.close()
        with pytest.raises(rota.Cancelled):
            await call
        await until(lambda: fake.counts["bye"] >= 3)  # two are of who asked the way
        assert len(fake.seen) == 1

    play(scene)


def test_what_is_cancelled_while_the_connection_is_cut_is_cancelled_over_the_next() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        fake.answer = never
        with proxied(fake) as proxy:
            call = client.submit("a.b")
            await until(lambda: fake.seen)
            proxy.cut()
            assert call.cancel() and not call.cancel()
            await until(lambda: fake.counts["cancel"] == 1)
            await client.close()

    play(scene)


def test_a_client_is_closed_at_the_end_of_its_block() -> None:
    async def scene(fake: FakeFrontend, _: rota.AsyncClient) -> None:
        async with rota.AsyncClient(fake.address) as client:
            assert await client.call("a.b", 1) == [1]
        await until(lambda: fake.counts["bye"] == 2)
        with pytest.raises(RuntimeError, match="closed"):
            client.submit("a.b")

    play(scene)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_client_that_was_closed_leaves_nothing_in_its_loop(cancelled: bool) -> None:
    async def scene(fake: FakeFrontend, _: rota.AsyncClient) -> None:
        fake.answer = never
        client = rota.AsyncClient(fake.address)
        call = client.submit("a.b")
        await until(lambda: fake.seen)
        driver = ref(client._home.known)
        fake.deaf = cancelled
        closing = asyncio.ensure_future(client.close())
        with pytest.raises(rota.Cancelled):
            await call
        del call
        if cancelled:
            closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled() is cancelled
        del closing
        await until(lambda: gc.collect() >= 0 and driver() is None)

    play(scene)


def test_a_forgotten_client_does_not_wait_for_what_was_cancelled() -> None:
    async def scene(fake: FakeFrontend, _: rota.AsyncClient) -> None:
        fake.answer = never
        call = rota.AsyncClient(fake.address).submit("a.b")
        await until(lambda: fake.seen)
        assert call.cancel()
        await until(lambda: fake.counts["bye"] == 2)
        assert call.cancelled()

    play(scene)


def test_a_forgotten_client_says_goodbye_when_its_last_call_is_over() -> None:
    async def scene(fake: FakeFrontend, _: rota.AsyncClient) -> None:
        call = rota.AsyncClient(fake.address).submit("a.b", 1)
        assert await call == [1]
        await until(lambda: fake.counts["bye"] == 2)

    play(scene)


def test_a_forgotten_client_whose_loop_ended_before_its_calls_leaves_nothing() -> None:
    async def forgetful(fake: FakeFrontend) -> ref[object]:
        client = rota.AsyncClient(fake.address)
        client.submit("a.b")
        await until(lambda: fake.seen)
        return ref(client._home.known)

    with FakeFrontend() as fake:
        fake.answer = never
        driver = asyncio.run(forgetful(fake))
        gc.collect()
        assert driver() is None, "nor two threads and nine descriptors"


def test_a_client_belongs_to_the_loop_of_its_first_call() -> None:
    with FakeFrontend() as fake:
        client = rota.AsyncClient(fake.address)
        assert asyncio.run(_one(client)) == [1]
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(_one(client))
        asyncio.run(client.close())  # whose loop is closed: nobody waits any more
        with pytest.raises(RuntimeError, match="closed"):
            asyncio.run(_one(client))


def test_a_client_cannot_be_closed_in_a_loop_that_is_not_its_own() -> None:
    async def scene(fake: FakeFrontend, client: rota.AsyncClient) -> None:
        assert await client.call("a.b", 1) == [1]
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.close()))
        assert await client.call("a.b", 2) == [2]

    play(scene)


async def _one(client: rota.AsyncClient) -> object:
    return await client.call("a.b", 1)
