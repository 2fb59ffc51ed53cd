"""The one door: whatever comes through it, the master serves on."""

from __future__ import annotations

import pytest
from core_rig import SESSION, Rig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rota.common import messages, wire
from rota.common.settings import StandbySettings
from rota.master.core import records
from rota.master.core.master import LONG_TICK_S, SHORT_TICK_S
from rota.master.core.outbox import StepDown
from rota.master.core.records import Peer, Restored

DOORS = ("frontend", "backend", "control")
kinds = st.sampled_from([*range(0, 9), 16, 17, 18, 19, 32, 33, 48, 49, 64, 255])
u64 = st.integers(0, (1 << 64) - 1) | st.integers(0, 5)


def rig_with_work() -> Rig:
    rig = Rig()
    rig.pool_of(2)
    rig.request(1)
    rig.request(2)
    rig.verb("status")
    return rig


def routes(rig: Rig) -> dict[str, tuple[bytes, int]]:
    slot = next(iter(rig.fleet.processes.slots.values()))
    node = slot.node
    return {
        "frontend": (b"c", rig.dispatch.sessions[SESSION].token),
        "backend": (slot.route, slot.token),
        "control": (node.route, node.token),
    }


def serves(rig: Rig) -> None:
    """Another client is served as if nothing had been."""
    rig.after(0.2)
    rig.client(b"t" * 16, b"other")
    for slot in list(rig.fleet.processes.slots.values()):
        for number in list(slot.inflight):
            rig.reply(slot, number)
    assert any(slot.open for slot in rig.fleet.processes.slots.values())
    before = len(rig.deliveries)
    rig.request(1, route=b"other")
    assert len(rig.deliveries) == before + 1


def test_it_ticks_more_often_while_somebody_is_waited_for() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1, credit=2)
    rig.request(1)
    rig.after(0.1)

    def pace() -> float:
        rig.core.tick(rig.now)
        return rig.core.next_deadline() - rig.now

    assert pace() == pytest.approx(LONG_TICK_S)
    rig.request(2)
    assert rig.core.next_deadline() - rig.now == pytest.approx(SHORT_TICK_S), "it may have to be taken back"
    rig.reply(slot, 1)
    rig.reply(slot, 2)
    rig.after(0.1)
    assert pace() == pytest.approx(LONG_TICK_S)
    slot.pool.stall(slot, 1, rig.now)
    assert pace() == pytest.approx(SHORT_TICK_S), "it may answer"
    rig.request(3)
    rig.verb("drain", nodes=["n1"], force=True)
    assert pace() == pytest.approx(SHORT_TICK_S)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(DOORS), st.binary(max_size=200), st.booleans())
def test_any_bytes_are_counted_and_dropped(door: str, data: bytes, known: bool) -> None:
    rig = rig_with_work()
    route = routes(rig)[door][0] if known else b"stranger"
    getattr(rig.core, door)(route, data, rig.now)
    assert rig.dispatch.counters["bad frames"] == 1
    serves(rig)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(("frontend", "backend")), kinds, u64, u64, u64, u64, st.integers(0, 65535), st.integers(0, 255),
    st.binary(max_size=80), st.booleans(),
)  # fmt: skip
def test_any_true_frame_with_any_numbers_breaks_nothing(
    door: str, kind: int, number: int, upto: int, below: int, epoch: int, code: int, flags: int, tail: bytes, mine: bool
) -> None:
    rig = rig_with_work()
    route, token = routes(rig)[door]
    frame = wire.head(
        kind, token if mine else 1 << 60, epoch & 0xFFFFFFFF, 1000, number, upto, below, code, flags, tail
    )
    getattr(rig.core, door)(route, frame + b"body", rig.now)
    rig.flush()
    rig.after(0.1)
    rig.client(b"t" * 16, b"other")
    rig.request(1, route=b"other")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(DOORS), st.sampled_from([wire.HELLO, wire.CONTROL]), st.binary(max_size=200))
def test_any_map_is_counted_and_dropped(door: str, kind: int, body: bytes) -> None:
    rig = rig_with_work()
    route, token = routes(rig)[door]
    getattr(rig.core, door)(route, wire.head(kind, token if kind == wire.CONTROL else 0) + body, rig.now)
    serves(rig)


@pytest.mark.parametrize("door", DOORS)
def test_a_foreign_token_is_asked_who_it_is_and_reaches_no_core(door: str) -> None:
    rig = rig_with_work()
    route, token = routes(rig)[door]
    kind = {"frontend": wire.REQUEST, "backend": wire.REPLY, "control": wire.CONTROL}[door]
    getattr(rig.core, door)(route, wire.head(kind, token + 1, number=9), rig.now)
    ((to, frame),) = getattr(rig.out, door)[-1:]
    assert (to, wire.parse_head(frame).kind) == (route, wire.WHO)
    assert rig.dispatch.counters["unknown routes"] == 1


@pytest.mark.parametrize("door", DOORS)
def test_a_peer_that_speaks_another_version_is_refused_with_both_ranges(door: str) -> None:
    rig = Rig()
    hello = {
        "frontend": messages.ClientHello([7, 9], SESSION),
        "backend": messages.ProcessHello([7, 9], "n1.b1.1", b"t", "orders", "1", "d", {}, 1, 1, 0, 0, 0, []),
        "control": messages.OperatorHello([7, 9], "ann"),
    }[door]
    getattr(rig.core, door)(b"r", messages.framed(wire.HELLO, 0, hello), rig.now)
    ((_, frame),) = getattr(rig.out, door)
    head = wire.parse_head(frame)
    refusal = messages.decode(frame[head.head_len :])
    assert head.kind == wire.REFUSED and isinstance(refusal, messages.Refusal)
    assert refusal.code == "incompatible" and "1 to 1" in refusal.message and "7 to 9" in refusal.message
    assert refusal.versions == [1, 1]


def test_a_bundle_is_what_is_in_it() -> None:
    rig = Rig()
    rig.pool_of(2)
    token = rig.client()
    frames = [
        wire.head(wire.REQUEST, token, 1, 1000, number, code=12, tail=b"orders.quote") + b"body" for number in (1, 2)
    ]
    ((count, bundle),) = wire.bundles(frames)
    rig.core.frontend(b"c", bundle, rig.now)
    rig.flush()
    assert count == len(rig.deliveries) == 2
    for slot, number, _ in list(rig.deliveries):
        rig.reply(slot, number)
    frames = [
        wire.head(wire.REQUEST, token, 1, 1000, number, upto, code=12, tail=b"orders.quote")
        for number, upto in ((3, 1), (4, 2))
    ]
    rig.core.frontend(b"c", wire.bundles(frames)[0][1], rig.now)
    assert not rig.dispatch.sessions[SESSION].kept, "all that was acknowledged"


def test_a_bundle_in_a_bundle_is_no_way_to_go_deep() -> None:
    rig = Rig()
    token = rig.client()
    inner = wire.bundles([wire.head(wire.ACK, token)] * 2)[0][1]
    rig.core.frontend(b"c", wire.bundles([inner, inner])[0][1], rig.now)
    assert rig.dispatch.counters["unknown routes"] == 2


def test_an_agent_that_was_given_up_is_asked_for_all_that_it_has() -> None:
    rig = Rig()
    node = rig.agent()
    rig.after(4.0, beat=False)
    rig.said.clear()
    rig.tell(node, messages.Beat(1))
    assert rig.said[b"n1"] == [wire.WHO]


def test_a_beat_is_answered_with_the_same_beat() -> None:
    rig = Rig()
    rig.tell(rig.agent(), messages.Beat(42))
    assert rig.heard("n1", messages.Beat) == [messages.Beat(42)]


def test_an_idle_master_leaves_control_alone_after_routine_and_after_nothing_else() -> None:
    rig = Rig()
    nodes = [rig.agent(f"n{number}") for number in range(40)]
    rig.after(0.1)
    assert rig.core.rest_s(40) == 0.0, "these were HELLOs"
    for node in nodes[:3]:
        rig.tell(node, messages.Beat(1))
    rig.tell(nodes[0], messages.Usage({"n1.b1.1": 1 << 20}))
    assert rig.core.rest_s(4) == 0.1
    rig.tell(nodes[0], messages.Beat(2))
    assert rig.core.rest_s(2) == 0.0, "something else came with it"
    assert rig.core.rest_s(0) == 0.0
    few = Rig()
    node = few.agent()
    few.after(0.1)
    few.tell(node, messages.Beat(1))
    assert few.core.rest_s(1) == 0.0025


def test_a_master_that_is_to_notice_silence_soon_leaves_control_alone_for_less() -> None:
    rig = Rig(suspect_after=0.4)
    nodes = [rig.agent(f"n{number}") for number in range(40)]
    rig.after(0.1)
    assert rig.core.rest_s(40) == 0.0
    rig.tell(nodes[0], messages.Beat(1))
    assert rig.core.rest_s(1) == 0.05


def test_a_master_never_leaves_control_alone_while_somebody_waits_for_what_agents_do() -> None:
    rig = Rig()
    slots = rig.pool_of(2)
    rig.after(0.1)
    rig.tell(slots[0].node, messages.Beat(1))
    assert rig.core.rest_s(1) > 0.0
    rig.verb("wait", condition="detached", names=["n1"])
    rig.tell(slots[0].node, messages.Beat(2))
    assert rig.core.rest_s(1) == 0.0


def test_a_master_with_an_open_request_never_leaves_control_alone() -> None:
    rig = Rig()
    (slot,) = rig.pool_of(1)
    rig.request(1)
    rig.tell(slot.node, messages.Beat(1))
    assert rig.core.rest_s(1) == 0.0


def test_an_idle_master_ticks_ten_times_a_second_and_a_busy_one_oftener() -> None:
    rig = Rig()
    rig.pool_of(2)
    rig.core.tick(rig.now)
    assert rig.core.next_deadline() == pytest.approx(rig.now + 0.1)
    rig.request(1)
    rig.verb("drain", nodes=["n1"], force=True)
    assert rig.core.next_deadline() == pytest.approx(rig.now + 0.02)


def test_a_session_that_an_unheard_hello_made_is_told_apart_from_one_that_goes_on() -> None:
    rig = Rig()
    hello = messages.framed(wire.HELLO, 0, messages.ClientHello([1, 1], SESSION))
    told = []
    for route in (b"first", b"second"):
        rig.core.frontend(route, hello, rig.now)
        frame = rig.out.frontend.pop()[1]
        told.append(messages.decode(frame[wire.HEADER_SIZE :]))
    assert [welcome.resumed for welcome in told] == [False, True]
    assert told[0].born == told[1].born != 0


@pytest.mark.parametrize("door, place", [("frontend", "one lower"), ("backend", "two lower")])
def test_who_dials_the_wrong_port_is_told_where_control_is(door: str, place: str) -> None:
    rig = Rig()
    hello = messages.framed(wire.HELLO, 0, messages.OperatorHello([1, 1], ""))
    getattr(rig.core, door)(b"operator", hello, rig.now)
    ((route, frame),) = getattr(rig.out, door)
    refusal = messages.decode(frame[wire.HEADER_SIZE :])
    assert route == b"operator" and isinstance(refusal, messages.Refusal)
    assert (refusal.code, refusal.message) == (
        "port",
        f"this is not the control port of the master, which by default is {place}",
    )


def followed() -> Rig:
    """Node n1 votes, and the standby has said HELLO."""
    known = Restored()
    known.peer, known.electorate = Peer("b", "tcp://b:7700", "backup"), frozenset(["n1"])
    rig = Rig(restored=known)
    hello = messages.PeerHello([1, 1], "b", "tcp://b:7700", "backup", 1, 1000, "majority")
    rig.core.control(b"b", messages.framed(wire.HELLO, 0, hello), rig.now)
    return rig


def test_a_quorum_that_lapses_and_comes_back_between_two_ticks_lets_requests_go_on() -> None:
    rig = followed()
    rig.after(0.1)

    def promise() -> None:
        pulse = [said for said in rig.said[b"b"] if isinstance(said, messages.Pulse)][-1]
        word = messages.encode(messages.Promise(pulse.number, 1000, pulse.sequence))
        rig.core.control(b"b", wire.head(wire.CONTROL, rig.core.pair.standby.token) + word, rig.now)

    promise()
    rig.after(0.1)
    assert not rig.fleet.held
    while rig.core.dispatches_until - rig.now > 0.03:
        rig.after(0.02)
    rig.now = rig.core.dispatches_until
    rig.core.lapse(rig.now)
    assert rig.fleet.held
    promise()
    rig.after(0.02)
    assert not rig.fleet.held


def test_whether_it_hands_over_at_its_end_is_as_the_last_reload_says() -> None:
    rig = followed()
    rig.core.reconfigure(rig.sections._replace(standby=StandbySettings(handover=False)))
    rig.core.stop(rig.now)
    rig.core.end()
    rig.flush()
    assert [said.handover for said in rig.said[b"b"] if isinstance(said, messages.Closing)] == [False]


def test_one_that_was_outvoted_says_its_last_word_once_and_hands_nothing_over() -> None:
    """The one that follows it would stand, though another one was elected."""
    rig = followed()
    rig.agent("n1")
    voter = messages.VoterHello([1, 1], "n1", "b1", 5)
    rig.core.control(b"voter", messages.framed(wire.HELLO, 0, voter), rig.now)
    assert not rig.core.ready_to_end(rig.now)
    rig.core.end()  # INT, at this moment
    rig.flush()
    assert [said.handover for said in rig.said[b"b"] if isinstance(said, messages.Closing)] == [False]
    assert [each for each in rig.out.role if isinstance(each, StepDown)] == [StepDown(5)]


def test_what_it_began_with_holds_nothing_of_its_processes_and_requests() -> None:
    """The journal keeps it as long as the process lives, and what waits at a master that steps down may be 256 MiB."""
    known = Restored()
    known.read(records.present("n1", True))
    rig = Rig(epoch=2, restored=known)
    assert rig.process(rig.agent()).node.slots and not known.nodes["n1"].slots
