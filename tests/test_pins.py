"""Requests of one session go to one process, and where they go when it is gone."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgpack
import pytest
from core_rig import HANDLERS, Rig

from rota.common import errors, messages, wire
from rota.common.errors import OK
from rota.common.messages import Recalled
from rota.master.core.pool import Request, Slot
from rota.master.core.records import Restored


def ask(rig: Rig, number: int, session: str, target: str = "orders.quote", **more: Any) -> None:
    said = {"s": session, **({"k": more["key"]} if "key" in more else {})}
    rig.request(number, target, meta=msgpack.packb(said), flags=wire.PINNED, **more)


def last(rig: Rig) -> Slot:
    return rig.deliveries[-1][0]


def answer_all(rig: Rig) -> None:
    for slot, number, _ in list(rig.deliveries):
        if number in slot.inflight:
            rig.reply(slot, number)


def home(rig: Rig, session: str, number: int) -> Slot:
    """Where a request of this session goes; it is answered."""
    ask(rig, number, session)
    slot, delivery, _ = rig.deliveries[-1]
    rig.reply(slot, delivery)
    return slot


def a_session_of(rig: Rig, slot: Slot) -> str:
    """One that is placed at this slot."""
    for number in range(1, 1000):
        if home(rig, f"user {number}", number) is slot:
            return f"user {number}"
    raise AssertionError(slot.incarnation)


def pool(rig: Rig, *nodes: tuple[str, str, int]) -> dict[str, list[Slot]]:
    """Of (node, version, processes); their slots by node."""
    found = {}
    for place, (name, version, count) in enumerate(nodes):
        node = rig.agent(name, f"b{place}", capacity=count)
        digest = f"d{version}"
        found[name] = [rig.process(node, each + 1, version=version, digest=digest) for each in range(count)]
    return found


# ---- places ---------------------------------------------------------------------------------------------------------


def test_requests_of_one_session_go_to_one_process() -> None:
    rig = Rig()
    rig.pool_of(4)
    homes = [home(rig, f"user {number % 7}", number) for number in range(1, 60)]
    assert all(homes[place] is homes[place + 7] for place in range(52)) and len(set(homes)) > 1
    assert rig.dispatch.counters["sessions placed"] == 7 and not rig.dispatch.counters["sessions moved"]


def test_sessions_are_spread_over_cells_nodes_and_processes_by_their_size() -> None:
    rig = Rig()
    slots = pool(rig, ("n1", "1", 4), ("n2", "1", 2), ("n3", "2", 2))
    found = Counter(home(rig, f"user {number}", number) for number in range(1, 1601))
    assert all(120 < found[slot] < 290 for each in slots.values() for slot in each), found.values()


def test_a_session_of_one_service_has_nothing_to_do_with_that_of_another() -> None:
    rig = Rig()
    node = rig.agent(offers=["orders", "site"], capacity=9)
    rig.process(node, 1)
    rig.process(node, 2, service="site", handlers=HANDLERS)
    ask(rig, 1, "user")
    assert last(rig).pool.name == "orders"
    ask(rig, 2, "user", "site.quote")
    assert last(rig).pool.name == "site"
    assert {each["name"]: each["sessions"] for each in rig.core.status(rig.now)["services"]} == {"orders": 1, "site": 1}


def test_a_restarted_master_finds_the_same_places() -> None:
    def placed(epoch: int) -> dict[str, str]:
        rig = Rig(epoch=epoch)
        pool(rig, ("n1", "1", 3), ("n2", "2", 2))
        return {f"user {n}": home(rig, f"user {n}", n).incarnation for n in range(1, 60)}

    assert placed(1) == placed(2)


def test_a_restarted_master_waits_with_new_sessions_until_its_nodes_have_told() -> None:
    before = Rig()
    before.pool_of(2)
    restored = Restored()
    for record in before.records:
        restored.read(record)
    wanted = home(before, "user", 1).incarnation
    rig = Rig(restored=restored, epoch=2)
    known = [messages.Started(f"n1.b1.{number}", "orders", b"t", number) for number in (1, 2)]
    rig.agent(capacity=2, processes=known)
    (other,) = (each.incarnation for each in known if each.incarnation != wanted)
    rig.process_hello(other)
    ask(rig, 1, "user")
    rig.after(0.1)
    assert not rig.deliveries
    rig.process_hello(wanted)
    rig.after(0.1)
    assert last(rig).incarnation == wanted


def test_it_does_not_wait_longer_than_a_dead_node_may_take() -> None:
    restored = Restored()
    before = Rig()
    pool(before, ("n1", "1", 1), ("n2", "1", 1))
    for record in before.records:
        restored.read(record)
    rig = Rig(restored=restored, epoch=2)
    rig.process(rig.agent("n1", "b0", capacity=1))
    ask(rig, 1, "user")
    rig.after(3.9)
    assert not rig.deliveries
    rig.after(0.3)
    assert rig.deliveries


def test_without_a_journal_nothing_is_known_of_earlier_places_and_nobody_waits_for_them() -> None:
    rig = Rig(state=None)
    rig.pool_of(1)
    ask(rig, 1, "user")
    assert rig.deliveries


def test_the_session_heard_of_last_is_kept_longest_and_a_forgotten_one_finds_its_place_again() -> None:
    rig = Rig(pins_limit=2)
    rig.pool_of(4)
    first = home(rig, "a", 1)
    home(rig, "b", 2)
    home(rig, "a", 3)
    home(rig, "c", 4)  # forgets b
    assert rig.core.status(rig.now)["master"]["pins"] == {"sessions": 2, "limit": 2}
    assert rig.dispatch.pins.sessions["orders"] == 2
    assert home(rig, "a", 5) is first and rig.dispatch.counters["sessions placed"] == 3
    home(rig, "b", 6)
    assert rig.dispatch.counters["sessions placed"] == 4 and home(rig, "c", 7) is home(rig, "c", 8)


# ---- waiting --------------------------------------------------------------------------------------------------------


def test_a_request_waits_for_its_process_though_others_are_idle_and_nobody_else_does() -> None:
    rig = Rig()
    slots = rig.pool_of(3)
    session = a_session_of(rig, slots[1])
    rig.deliveries.clear()
    ask(rig, 1001, session)
    ask(rig, 1002, session)
    assert [slot for slot, _, _ in rig.deliveries] == [slots[1]]
    rig.request(1003)
    rig.request(1004)
    assert {slot for slot, _, _ in rig.deliveries} == set(slots)
    (service,) = rig.core.status(rig.now)["services"]
    assert (service["queued"], service["pinned"]) == (1, 1)
    rig.reply(slots[1], slots[1].last_number)
    assert last(rig) is slots[1] and not rig.dispatch.pools["orders"].queued


def test_whoever_has_waited_longer_is_next() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    for number, pinned in ((2, True), (3, False), (4, True), (5, False)):
        rig.after(0.05)
        ask(rig, number, "user") if pinned else rig.request(number)
    for number in range(1, 6):
        rig.reply(slot, number)
    assert [answer.number for answer in rig.answers] == [1, 2, 3, 4, 5]


def test_a_line_takes_no_more_than_its_share_of_the_queue() -> None:
    rig = Rig(service={"queue_limit": 4})
    slots = rig.pool_of(2)
    session = a_session_of(rig, slots[0])
    rig.answers.clear()
    for number in range(1001, 1005):
        ask(rig, number, session)
    assert rig.codes() == {1004: errors.Overloaded.code}
    for number in (1005, 1006, 1007):
        rig.request(number)
    assert rig.codes() == {1004: errors.Overloaded.code}
    rig.request(1008)
    assert rig.codes()[1008] == errors.Overloaded.code


def test_one_may_wait_in_each_line_however_small_the_queue() -> None:
    rig = Rig(service={"queue_limit": 1})
    slots = rig.pool_of(2)
    session = a_session_of(rig, slots[0])
    rig.answers.clear()
    for number in (1001, 1002, 1003):
        ask(rig, number, session)
    assert rig.codes() == {1003: errors.Overloaded.code}


def test_queue_timeout_deadline_and_cancel_hold_in_a_line() -> None:
    rig = Rig(service={"queue_timeout": 1.0})
    (slot,) = rig.pool_of(1)
    ask(rig, 1, "user")
    ask(rig, 2, "user")
    ask(rig, 3, "user", timeout_ms=500)
    ask(rig, 4, "user")
    rig.say(wire.CANCEL, 4)
    rig.after(0.6)
    assert rig.codes() == {4: errors.Cancelled.code, 3: errors.Timeout.code}
    rig.after(0.6)
    assert rig.codes()[2] == errors.Overloaded.code
    pool = rig.dispatch.pools["orders"]
    assert not pool.queued and not pool.pinned and not pool.lines and not rig.dispatch.queued_bytes
    rig.reply(slot, 1)
    assert len(rig.deliveries) == 1


def test_what_comes_before_any_process_is_placed_when_there_are_some() -> None:
    rig = Rig()
    node = rig.agent(capacity=2)
    ask(rig, 1, "user")
    ask(rig, 2, "user")
    ask(rig, 3, "user", "orders.quoet")
    rig.process(node, 1)
    assert rig.codes() == {3: errors.NoService.code}
    rig.process(node, 2)
    assert len(rig.deliveries) == 1
    rig.reply(last(rig), 1)
    assert len({slot for slot, _, _ in rig.deliveries}) == 1 and len(rig.deliveries) == 2


def test_what_waits_in_a_line_goes_back_when_the_master_stops() -> None:
    rig = Rig()
    rig.pool_of(1)
    ask(rig, 1, "user")
    ask(rig, 2, "user")
    rig.core.stop(rig.now)
    rig.core.end()
    rig.flush()
    assert rig.codes()[2] == errors.NOT_STARTED


def test_a_paused_service_serves_its_lines_afterwards() -> None:
    rig = Rig()
    slots = rig.pool_of(2)
    wanted = home(rig, "user", 1)
    rig.verb("pause", service="orders")
    ask(rig, 2, "user")
    assert len(rig.deliveries) == 1
    rig.verb("resume", service="orders")
    assert last(rig) is wanted and wanted in slots


# ---- moving ---------------------------------------------------------------------------------------------------------

NODES = (("n1", "1", 2), ("n2", "1", 1), ("n3", "2", 1))


def test_a_session_moves_to_another_process_of_its_node() -> None:
    rig = Rig()
    slots = pool(rig, *NODES)
    session = a_session_of(rig, slots["n1"][0])
    rig.exited(slots["n1"][0])
    assert home(rig, session, 1001) is slots["n1"][1]
    assert rig.dispatch.counters["sessions moved"] == 1


def test_a_session_moves_to_another_node_of_its_cell_when_its_node_drains() -> None:
    rig = Rig()
    slots = pool(rig, *NODES)
    session = a_session_of(rig, slots["n1"][0])
    assert (drained := rig.verb("drain", nodes=["n1"])) is not None and drained.ok
    assert home(rig, session, 1001) is slots["n2"][0]
    assert (rejoined := rig.verb("rejoin", nodes=["n1"])) is not None and rejoined.ok
    assert home(rig, session, 1002) is slots["n2"][0], "it does not move back"


def test_a_session_moves_to_another_cell_when_its_own_is_gone() -> None:
    rig = Rig()
    slots = pool(rig, *NODES)
    session = a_session_of(rig, slots["n1"][0])
    assert (drained := rig.verb("drain", nodes=["n1", "n2"])) is not None and drained.ok
    assert home(rig, session, 1001) is slots["n3"][0]


def test_a_version_comes_before_a_node() -> None:
    """In a rolling update its node has the new version, and another one still has its own."""
    rig = Rig()
    slots = pool(rig, ("n1", "1", 1), ("n2", "1", 1))
    session = a_session_of(rig, slots["n1"][0])
    rig.exited(slots["n1"][0])
    rig.process(rig.fleet.nodes["n1"], 7, version="2", digest="d2")
    assert home(rig, session, 1001) is slots["n2"][0]


@pytest.mark.parametrize("how", ["drain", "suspect", "exit", "leave"])
def test_what_waits_in_a_line_moves_with_its_session(how: str) -> None:
    rig = Rig()
    slots = pool(rig, ("n1", "1", 1), ("n2", "1", 1))
    one, two = slots["n1"][0], slots["n2"][0]
    session = a_session_of(rig, one)
    rig.answers.clear()
    for number in (1001, 1002, 1003):
        ask(rig, number, session)
    if how == "drain":
        rig.verb("drain", nodes=["n1"])
    elif how == "suspect":
        rig.now += 1.0
        two.node.heard_at = rig.now
        rig.core.tick(rig.now)
        rig.flush()
    elif how == "exit":
        rig.exited(one, started_upto=one.last_number, rows=[(one.last_number, 1)])
    else:
        rig.core.backend(one.route, wire.head(wire.BYE, one.token), rig.now)
        rig.core.tick(rig.now)
        rig.flush()
    for _ in range(3):
        answer_all(rig)
    lost = {1001: errors.MaybeExecuted.code} if how == "exit" else {1001: OK}
    assert rig.codes() == {**lost, 1002: OK, 1003: OK}
    assert [slot for slot, _, _ in rig.deliveries[-2:]] == [two, two]


def test_what_did_not_start_and_what_may_run_again_follow_the_session() -> None:
    rig = Rig()
    slots = pool(rig, ("n1", "1", 1), ("n2", "1", 1))
    one, two = slots["n1"][0], slots["n2"][0]
    rig.default = rig.default.__class__(credit=2, ramp=0.0)
    rig.fleet.reconfigure()
    session = a_session_of(rig, one)
    rig.answers.clear()
    before = one.last_number
    ask(rig, 1001, session, "orders.again")
    ask(rig, 1002, session)
    assert len(one.inflight) == 2
    rig.exited(one, started_upto=before + 1, rows=[(before + 1, 1)], kind="stopped")
    assert len(two.inflight) == 2
    answer_all(rig)
    assert rig.codes() == {1001: OK, 1002: OK}
    assert home(rig, session, 1003) is two


@pytest.mark.parametrize("body", [b"body", bytes(100_000)])
def test_what_a_busy_process_gives_back_waits_for_it(body: bytes) -> None:
    rig = Rig()
    slots = rig.pool_of(2, credit=4)
    session = a_session_of(rig, slots[0])
    before = slots[0].last_number
    for number in (1001, 1002, 1003):
        ask(rig, number, session, body=body)
    rig.after(0.1)
    rig.core.dispatch.losses.recalled(slots[0], Recalled("", before + 4, before + 1), rig.now)
    rig.flush()
    assert len(slots[0].inflight) == 1 and not slots[1].inflight
    rig.reply(slots[0], before + 1)
    rig.after(0.1)
    answer_all(rig)
    answer_all(rig)
    assert {slot for slot, _, _ in rig.deliveries[-3:]} == {slots[0]}
    assert all(rig.codes()[number] == OK for number in (1001, 1002, 1003))


def test_what_comes_back_to_a_line_is_before_what_came_later() -> None:
    rig = Rig()
    slots = rig.pool_of(2, credit=2)
    session = a_session_of(rig, slots[0])
    rig.answers.clear()
    before = slots[0].last_number
    for number in (1001, 1002, 1003, 1004):
        rig.after(0.002)
        ask(rig, number, session)
    rig.core.dispatch.losses.recalled(slots[0], Recalled("", before + 3, before + 1), rig.now)
    rig.flush()
    for _ in range(4):
        answer_all(rig)
    assert [answer.number for answer in rig.answers] == [1001, 1002, 1003, 1004]


def test_a_process_that_starts_nothing_keeps_no_session() -> None:
    rig = Rig()
    slots = rig.pool_of(2)
    session = a_session_of(rig, slots[0])
    before = slots[0].last_number
    ask(rig, 1001, session)
    rig.after(0.6)
    # It did not begin what it has.
    rig.core.dispatch.losses.recalled(slots[0], Recalled("", before + 2, before), rig.now)
    rig.flush()
    assert last(rig) is slots[1]
    rig.reply(slots[1], slots[1].last_number)
    assert home(rig, session, 1002) is slots[1]


# ---- other things a request may be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [{}, {"s": ""}, {"s": 5}, {"a": "user"}])
def test_a_flag_without_a_session_is_a_bad_frame_and_told(said: dict[str, object]) -> None:
    rig = Rig()
    rig.pool_of(1)
    rig.request(1, meta=msgpack.packb(said), flags=wire.PINNED)
    assert rig.codes() == {1: errors.ProtocolError.code} and rig.dispatch.counters["bad frames"] == 1
    assert not rig.deliveries


def test_a_session_without_the_flag_is_nobodys_business_here() -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.request(1, meta=msgpack.packb({"s": "user"}))
    rig.request(2, meta=msgpack.packb({"s": "user"}))
    assert len({slot for slot, _, _ in rig.deliveries}) == 2 and not rig.dispatch.pins.sessions


def test_a_call_with_a_key_runs_where_its_session_is() -> None:
    rig = Rig()
    slots = rig.pool_of(3)
    session = a_session_of(rig, slots[2])
    ask(rig, 1001, session, "orders.keyed", key="basket")
    assert last(rig) is slots[2]
    ask(rig, 1002, session, "orders.keyed", key="basket")
    rig.reply(slots[2], slots[2].last_number)
    assert rig.codes()[1001] == rig.codes()[1002] == OK


def test_a_resent_request_goes_to_its_sessions_process() -> None:
    rig = Rig()
    slots = rig.pool_of(3)
    session = a_session_of(rig, slots[1])
    rig.request(1001, meta=msgpack.packb({"s": session}), flags=wire.PINNED | wire.RESENT)
    assert last(rig) is slots[1]


def test_the_process_finds_the_session_in_the_head_of_its_delivery() -> None:
    rig = Rig()
    rig.pool_of(1)
    ask(rig, 1, "user-42")
    frame = rig.deliveries[-1][2]
    head = wire.parse_head(frame)
    meta = frame[wire.WITH_ORIGIN + head.code : head.head_len]
    assert msgpack.unpackb(meta) == {"s": "user-42"} and head.flags == wire.META | wire.ORIGIN | wire.PINNED


# ---- all of it at random --------------------------------------------------------------------------------------------


def look(rig: Rig) -> None:
    """What holds after every step."""
    pool = rig.dispatch.pools["orders"]
    waiting = [request for request in pool.queue if not request.answered]
    lined = {request: slot for slot, line in pool.lines.items() for request in line}
    assert pool.queued == len(waiting) + len(lined) and lined == pool.pinned
    assert rig.dispatch.queued_bytes == sum(len(request.frame) for request in [*waiting, *lined])
    places: Counter[Request] = Counter([*waiting, *lined])
    for slot in pool.slots.values():
        assert len(slot.inflight) <= max(slot.limit, 4)
        places.update(slot.inflight.values())
        if slot.open and len(slot.inflight) < slot.limit:
            assert not pool.lines.get(slot) and not waiting, "somebody waits for what has room"
    for session in rig.dispatch.sessions.values():
        assert all(places[request] == 1 for request in session.open.values())


@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_lost_and_nobody_starves_whatever_comes_and_goes(seed: int) -> None:
    chance = Random(seed)
    rig = Rig(service={"credit": chance.choice([1, 2, 4]), "queue_limit": 10_000})
    nodes = [rig.agent(f"n{each}", f"b{each}", capacity=2) for each in range(3)]
    started = 0
    given: list[tuple[Slot, int]] = []
    inner = rig.dispatch._deliver

    def deliver(slot: Slot, request: Request, now: float) -> None:
        assert slot.open and len(slot.inflight) < slot.limit, "more than its credit"
        inner(slot, request, now)
        given.append((slot, slot.last_number))

    rig.dispatch._deliver = deliver  # type: ignore[method-assign]
    number = 0
    for _ in range(500):
        step = chance.random()
        if step < 0.5:
            number += 1
            target = chance.choice(["orders.quote", "orders.again"])
            if chance.random() < 0.6:
                ask(rig, number, f"user {chance.randrange(6)}", target, timeout_ms=600_000)
            else:
                rig.request(number, target, timeout_ms=600_000)
        elif step < 0.8:
            running = [(slot, n) for slot, n in given if n in slot.inflight and slot.connected]
            if running:
                rig.reply(*chance.choice(running))
        elif step < 0.86:
            node = chance.choice(nodes)
            if len(node.slots) < 2:
                started += 1
                rig.process(node, started)
        elif step < 0.9:
            slots = list(rig.fleet.processes.slots.values())
            if slots:
                slot = chance.choice(slots)
                begun = slot.last_number - chance.randrange(2)
                rig.exited(slot, started_upto=begun, rows=[(n, 1) for n in slot.inflight if n <= begun], kind="stopped")
        elif step < 0.94:
            verb = chance.choice(["pause", "resume"])
            rig.verb(verb, service="orders")
        elif step < 0.97:
            rig.verb(chance.choice(["drain", "rejoin"]), nodes=[chance.choice(nodes).name], force=True)
        else:
            rig.after(0.06)
        look(rig)
    rig.verb("resume", service="orders")
    rig.verb("rejoin", all=True)
    for node in nodes:
        started += 1
        rig.process(node, started)
    for _ in range(2 * number + 10):
        rig.after(0.02)
        running = [(slot, n) for slot, n in given if n in slot.inflight and slot.connected]
        if not running:
            break
        for each in running:
            rig.reply(*each)
    look(rig)
    assert sorted(answer.number for answer in rig.answers) == list(range(1, number + 1)), "each has one answer"
    assert set(rig.codes().values()) <= {OK, errors.MaybeExecuted.code}
