"""A WebSocket without a socket: frames in, messages and frames out."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import pytest
from http_rig import cut, one_by_one
from hypothesis import example, given
from hypothesis import strategies as st
from websocket_rig import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, read
from websockets.extensions.permessage_deflate import PerMessageDeflate

from rota.gateway.core.effects import Came, Close, Effect, Ended, Reset, Write
from rota.gateway.core.websocket import State, Terms, WebSocket, agreed

SMALL = Terms(message=1000, ping=20.0, pong=20.0, write=10.0, write_rate=8192)


class Outcome(NamedTuple):
    """`said`: [opcode, payload] of the frames that went to the client."""

    items: list[Any]
    ended: tuple[int, str] | None
    said: list[tuple[int, bytes]]
    closed: bool


def outcome(effects: list[Effect]) -> Outcome:
    items = [item for each in effects if isinstance(each, Came) for item in each.items]
    ended = [each for each in effects if isinstance(each, Ended)]
    frames = read(b"".join(each.data for each in effects if isinstance(each, Write)))
    last = [at for at, each in enumerate(effects) if isinstance(each, Close | Reset)]
    assert len(ended) <= 1 and last in ([], [len(effects) - 1]), "it ends once, and nothing comes after"
    said = [(int(each.opcode), bytes(each.data)) for each in frames]
    return Outcome(items, (ended[0].code, ended[0].reason) if ended else None, said, bool(last))


def feed(pieces: list[bytes], terms: Terms = SMALL) -> Outcome:
    socket = WebSocket(terms, 0.0)
    return outcome([effect for piece in pieces for effect in socket.received(piece, 0.0)])


def code_of(payload: bytes) -> int:
    return int(struct.unpack("!H", payload[:2])[0])


# ---- messages -------------------------------------------------------------------------------------------------------


def test_texts_and_bytes_come_whole_and_in_order() -> None:
    data = frame(TEXT, "é".encode()) + frame(BINARY, b"\x00\xff") + frame(TEXT) + frame(BINARY)
    assert feed([data]).items == ["é", b"\x00\xff", "", b""]


def test_a_message_in_fragments_is_one_and_control_frames_may_stand_between() -> None:
    parts = "né".encode()
    data = (
        frame(TEXT, parts[:2], fin=False)
        + frame(PING, b"there?")
        + frame(CONT, b"", fin=False)
        + frame(PONG)
        + frame(CONT, parts[2:])
    )
    assert feed([data])[:3] == (["né"], None, [(PONG, b"there?")])
    assert feed(one_by_one(data))[:3] == (["né"], None, [(PONG, b"there?")])


messages = st.lists(
    st.tuples(st.one_of(st.text(max_size=200), st.binary(max_size=300)), st.lists(st.integers(0, 300), max_size=3)),
    max_size=6,
)


@given(messages, st.lists(st.integers(0, 3000), max_size=8), st.binary(min_size=4, max_size=4))
def test_how_messages_are_cut_makes_no_difference(
    sent: list[tuple[str | bytes, list[int]]], places: list[int], mask: bytes
) -> None:
    data = b""
    for item, fragments in sent:
        raw = item.encode() if isinstance(item, str) else item
        parts = cut(raw, fragments) or [b""]
        for at, part in enumerate(parts):
            opcode = CONT if at else TEXT if isinstance(item, str) else BINARY
            data += frame(opcode, part, fin=at == len(parts) - 1, mask=mask)
            data += frame(PING, b"x", mask=mask) if at else b""
    assert feed(cut(data, places)).items == [item for item, _ in sent]


@given(st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=70_000)), max_size=4))
def test_what_is_said_is_read_by_another_implementation(items: list[str | bytes]) -> None:
    socket = WebSocket(SMALL, 0.0)
    said = outcome([effect for item in items for effect in socket.say(item)]).said
    assert said == [(TEXT, each.encode()) if isinstance(each, str) else (BINARY, each) for each in items]
    assert socket.size >= sum(len(payload) for _, payload in said)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
@example(b"\x01\x86" + bytes(9) + b"\x80", [7])  # no UTF-8, in another place of each piece
def test_any_bytes_at_all_end_in_messages_or_one_close(data: bytes, places: list[int]) -> None:
    whole, pieces = feed([data]), feed(cut(data, places))
    assert whole.items == pieces.items and whole.ended == pieces.ended and whole.closed == pieces.closed
    assert whole.closed is (whole.ended is not None)


# ---- what breaks a rule ---------------------------------------------------------------------------------------------

HOSTILE = {
    "unmasked": (frame(TEXT, b"a", mask=None), 1002),
    "first reserved bit": (frame(TEXT, b"a", rsv=4), 1002),
    "second reserved bit": (frame(TEXT, b"a", rsv=2), 1002),
    "third reserved bit": (frame(PING, b"a", rsv=1), 1002),
    "reserved opcode": (frame(3, b"a"), 1002),
    "reserved opcode of control": (frame(11), 1002),
    "control frame beyond 125 bytes": (frame(PING, bytes(126)), 1002),
    "close beyond 125 bytes": (frame(CLOSE, bytes(126)), 1002),
    "control frame in fragments": (frame(PING, b"a", fin=False), 1002),
    "continuation of nothing": (frame(CONT, b"a"), 1002),
    "a message within a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "length in more bytes than needed": (frame(TEXT, b"a", wide=2), 1002),
    "length in eight bytes where two do": (frame(TEXT, bytes(200), wide=8), 1002),
    "length of 2**63": (frame(BINARY, b"a", length=1 << 63), 1002),
    "bad UTF-8": (frame(TEXT, b"\xff"), 1007),
    "half a character": (frame(TEXT, b"\xc3"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a fragment": (frame(TEXT, b"good", fin=False) + frame(CONT, b"\xff", fin=False), 1007),
    "bad UTF-8 in the reason": (close(1000, b"\xff"), 1007),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close with 999": (close(999), 1002),
    "close with 1005": (close(1005), 1002),
    "close with 1006": (close(1006), 1002),
    "close with 1016": (close(1016), 1002),
    "close with 5000": (close(5000), 1002),
    "too large": (frame(BINARY, bytes(1001)), 1009),
    "too large in fragments": (frame(BINARY, bytes(600), fin=False) + frame(CONT, bytes(401), fin=False), 1009),
    "too large by its characters": (frame(TEXT, "é".encode() * 501), 1009),
}


@pytest.mark.parametrize("data, code", HOSTILE.values(), ids=HOSTILE)
def test_a_broken_rule_ends_it_with_its_code_and_nothing_comes_of_it(data: bytes, code: int) -> None:
    for pieces in ([data], one_by_one(data), [data + frame(TEXT, b"behind")]):
        items, ended, said, closed = feed(pieces)
        assert items == [] and closed
        assert ended is not None and ended[0] == code
        assert [(opcode, code_of(payload)) for opcode, payload in said] == [(CLOSE, code)]


def test_what_came_before_a_broken_rule_has_come() -> None:
    items, ended, *_ = feed([frame(TEXT, b"well") + frame(TEXT, b"\xff")])
    assert items == ["well"] and ended is not None and ended[0] == 1007


def test_a_message_of_just_the_limit_is_taken() -> None:
    assert feed([frame(BINARY, bytes(1000)) + frame(TEXT, "é".encode() * 500)]).items == [bytes(1000), "é" * 500]


def test_a_length_of_exabytes_holds_no_memory_and_ends_at_the_limit() -> None:
    socket = WebSocket(SMALL, 0.0)
    assert socket.received(frame(BINARY, bytes(1000), length=(1 << 63) - 1), 0.0) == []
    assert outcome(socket.received(b"x", 0.0)).ended == (1009, "a message has 1000 bytes at most")


def test_of_a_flood_of_pings_the_last_are_answered() -> None:
    said = feed([b"".join(frame(PING, b"%d" % number) for number in range(100))]).said
    assert said == [(PONG, b"%d" % number) for number in range(84, 100)]


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code, reason", [(1000, ""), (1001, "away"), (3000, "é"), (4999, "mine")])
def test_a_client_that_closes_is_told_the_same_code(code: int, reason: str) -> None:
    items, ended, said, closed = feed([close(code, reason.encode()) + frame(TEXT, b"behind")])
    assert (items, ended, closed) == ([], (code, reason), True)
    assert said == [(CLOSE, struct.pack("!H", code))]


def test_a_close_without_a_code_is_1005() -> None:
    assert feed([frame(CLOSE)]) == ([], (1005, ""), [(CLOSE, b"")], True)


@pytest.mark.parametrize("held", [False, True])
def test_who_closes_waits_for_the_client_and_passes_nothing_on(held: bool) -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.hold(held, 0.0)
    said = outcome(socket.close(4001, "as asked", 0.0)).said
    assert said == [(CLOSE, struct.pack("!H", 4001) + b"as asked")]
    assert socket.received(frame(TEXT, b"late") + frame(PING), 0.0) == [] and socket.say("later") == []
    assert outcome(socket.received(close(4001), 0.0)) == ([], None, [], True)
    assert socket.state is State.CLOSED and socket.next_deadline() is None


def test_a_client_that_does_not_answer_a_close_is_left_after_a_while() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.close(1000, "", 1.0)
    assert socket.next_deadline() == 6.0 and socket.tick(5.9) == []
    assert outcome(socket.tick(6.0)) == ([], None, [], True)


def test_its_time_to_answer_a_close_begins_when_it_has_read_what_was_said_before() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.say(bytes(81920))
    socket.blocked(0.0)
    socket.close(1000, "", 0.0)
    assert socket.tick(8.0) == [] and socket.written(9.0) == []
    assert socket.next_deadline() == 14.0


@pytest.mark.parametrize("code, sent", [(1005, b""), (1006, b"\x03\xf3"), (1015, b"\x03\xf3"), (0, b"\x03\xf3")])
def test_a_code_that_has_no_place_in_a_frame_is_not_sent(code: int, sent: bytes) -> None:
    assert outcome(WebSocket(SMALL, 0.0).close(code, "", 0.0)).said == [(CLOSE, sent)]


def test_a_reason_is_cut_to_what_a_frame_holds_between_two_characters() -> None:
    ((_, payload),) = outcome(WebSocket(SMALL, 0.0).close(1000, "é" * 100, 0.0)).said
    assert payload[2:].decode() == "é" * 61


def test_a_connection_that_ends_without_a_word_is_1006() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.received(frame(TEXT, b"half", fin=False), 0.0)
    assert outcome(socket.eof(0.0)) == ([], (1006, ""), [], True)
    assert socket.received(frame(TEXT, b"more"), 0.0) == [] and socket.close(1000, "", 0.0) == []


# ---- who is there ---------------------------------------------------------------------------------------------------


def test_a_connection_that_is_lost_leaves_nothing_of_a_message() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.received(frame(BINARY, bytes(900), fin=False), 0.0)
    socket.lost()
    assert not socket._message and socket.next_deadline() is None
    assert socket.say("x") == socket.close(1000, "", 1.0) == socket.hold(False, 1.0) == []


def test_a_silent_client_is_pinged_and_one_that_answers_lives() -> None:
    socket = WebSocket(SMALL, 0.0)
    assert socket.next_deadline() == 20.0 and socket.tick(19.9) == []
    assert outcome(socket.tick(20.0)).said == [(PING, b"")]
    assert socket.next_deadline() == 40.0
    assert socket.received(frame(PONG), 30.0) == []
    assert socket.next_deadline() == 50.0


def test_a_client_that_is_dead_is_cut() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.tick(20.0)
    assert socket.tick(40.0) == [Ended(1006, ""), Reset()]


def test_a_client_that_is_not_read_is_not_taken_for_dead() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.tick(20.0)
    socket.hold(True, 30.0)
    assert not socket.reads and socket.next_deadline() is None and socket.tick(1000.0) == []
    socket.hold(False, 1000.0)
    assert socket.reads and socket.next_deadline() == 1020.0


def test_one_that_does_not_read_is_cut_at_its_rate_and_its_pings_are_not_hoarded() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.say(bytes(40960))
    socket.say(bytes(40960))
    socket.blocked(0.0)
    assert not socket.takes
    assert socket.received(b"".join(frame(PING, b"%d" % number) for number in range(1000)), 1.0) == []
    assert socket.next_deadline() == pytest.approx(20.0, abs=0.1)  # 10 s, and 10 for 80 KiB
    assert socket.tick(21.0) == [Ended(1006, ""), Reset()]


def test_one_that_reads_again_gets_its_pongs_and_its_grace() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.say(b"a")
    socket.blocked(0.0)
    socket.received(frame(PING, b"there?"), 1.0)
    assert outcome(socket.written(2.0)).said == [(PONG, b"there?")]
    assert socket.next_deadline() == 22.0


def test_what_was_read_before_gives_no_more_time_for_what_comes_behind() -> None:
    socket = WebSocket(SMALL, 0.0)
    socket.say(bytes(819_200))
    socket.blocked(0.0)
    socket.written(1.0)
    socket.say(b"a")
    socket.blocked(2.0)
    assert socket.next_deadline() == pytest.approx(12.0, abs=0.1)


def test_one_that_was_asked_and_reads_a_long_answer_before_it_says_so_is_not_taken_for_dead() -> None:
    socket = WebSocket(SMALL, 0.0)
    assert outcome(socket.tick(20.0)).said == [(PING, b"")]
    socket.say(bytes(819_200))
    socket.blocked(21.0)
    socket.written(45.0)
    assert socket.next_deadline() == 65.0


# ---- permessage-deflate ---------------------------------------------------------------------------------------------


def deflated(offer: bytes = b"permessage-deflate", most: int = 100_000) -> WebSocket:
    extensions, said = agreed(offer, most)
    assert said.startswith("permessage-deflate")
    return WebSocket(SMALL._replace(message=most), 0.0, extensions)


def compressed(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compressed_messages_go_both_ways() -> None:
    socket = deflated()
    text = "again and " * 1000
    packed = compressed(text.encode())
    data = frame(TEXT, packed[:9], fin=False, rsv=4) + frame(PING) + frame(CONT, packed[9:]) + frame(BINARY, b"plain")
    pieces = [effect for piece in one_by_one(data) for effect in socket.received(piece, 0.0)]
    assert outcome(pieces).items == [text, b"plain"]
    (effect,) = socket.say(text)
    assert isinstance(effect, Write) and len(effect.data) < 200
    (said,) = read(effect.data, [PerMessageDeflate(True, True, 15, 15)])
    assert said.data == text.encode()


def test_a_message_that_grows_a_thousandfold_ends_at_the_limit() -> None:
    socket = deflated(most=1000)
    bomb = compressed(bytes(50_000_000))
    items, ended, *_ = outcome(socket.received(frame(BINARY, bomb, rsv=4), 0.0))
    assert items == [] and ended is not None and ended[0] == 1009


def test_few_bytes_that_are_many_messages_come_bit_by_bit() -> None:
    socket = deflated()
    one = frame(BINARY, compressed(bytes(100_000)), rsv=4)
    rounds = [outcome(socket.received(one * 50 + close(4000), 0.0)).items]
    ended = None
    while ended is None:
        socket.hold(True, 0.0)
        assert socket.received(b"", 0.0) == []
        items, ended, _, _ = outcome(socket.hold(False, 0.0))
        rounds.append(items)
    assert ended == (4000, "")
    assert max(map(len, rounds)) == 3 and sum(map(len, rounds)) == 50


def test_a_control_frame_that_says_it_is_compressed_breaks_a_rule() -> None:
    ended = outcome(deflated().received(frame(PING, b"", rsv=4), 0.0)).ended
    assert ended is not None and ended[0] == 1002


def test_what_is_not_deflated_is_bad_payload() -> None:
    ended = outcome(deflated().received(frame(BINARY, b"\xff" * 20, rsv=4), 0.0)).ended
    assert ended is not None and ended[0] == 1007


def test_what_stands_behind_the_last_block_of_a_message_is_bad_payload_and_is_not_kept() -> None:
    """RFC 7692 7.2.3.4: one byte of padding may."""
    hello = bytes.fromhex("f348cdc9c90700")
    assert outcome(deflated().received(frame(TEXT, hello, rsv=4), 0.0)).items == ["Hello"]
    socket = deflated()
    assert socket.received(frame(TEXT, hello, rsv=4, fin=False), 0.0) == []
    ended = outcome(socket.received(frame(CONT, bytes(60_000), fin=False), 0.0)).ended
    assert ended is not None and ended[0] == 1007


@pytest.mark.parametrize(
    "offers",
    [
        b"",
        b"x-other",
        b"permessage-deflate; client_max_window_bits=x",
        b"permessage-deflate; server_max_window_bits=99",
    ],
)
def test_an_offer_that_cannot_be_taken_is_passed_over(offers: bytes) -> None:
    assert agreed(offers, 1000) == ([], "")


def test_the_first_offer_that_can_be_taken_is() -> None:
    _, said = agreed(
        b"x; y, permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits", 9
    )
    assert said == (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover; client_max_window_bits=15"
    )
