"""What reads a master's frames: client, agent and process, each played in this process with damaged frames.

Whatever a function raises beyond what its caller catches would have ended its process: it is raised here too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from zlib import crc32

from fake_master import delivery

from rota.client import session as client
from rota.client.calls import Call
from rota.common import messages, wire
from rota.common.fields import BadMessage
from rota.common.streams import Chunk, Credit
from rota.common.wire import BadFrame
from rota.worker.backend import Backend, Rejected
from rota.worker.core.deliveries import Deliveries
from rota.worker.core.effects import SetFloor, Spawn
from rota.worker.core.processes import Timing
from rota.worker.core.streams import Streams
from rota.worker.core.supervision import Supervision
from rota.worker.core.votes import Votes
from rota.worker.page import FLOOR, Page

from .damage import damaged

TOKEN = 77
ROUND = 200  # frames, then everything begins anew
STEP_S = 0.01


def _welcome(**more: Any) -> bytes:
    welcome = messages.Welcome(1, 1, "m", True, 7701, 7702, "", 1 << 20)._replace(**more)
    return messages.framed(wire.WELCOME, TOKEN, welcome)


def _refusal(code: str) -> bytes:
    return messages.framed(wire.REFUSED, 0, messages.Refusal(code, "no", 10, [1, 1]))


def _others(chance: random.Random) -> list[bytes]:
    """What any peer may be told."""
    kinds = (wire.WHO, wire.PROBE, wire.BYE, wire.CHUNK, wire.CREDIT)
    return [_welcome(), _refusal("busy"), _refusal("unknown"), *(wire.head(kind, TOKEN) for kind in kinds)]


class _Link:
    """Gives what it was given, takes everything."""

    connected = True

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def receive(self) -> bytes | None:
        return self.frames.pop() if self.frames else None

    def send(self, frame: bytes) -> bool:
        return True

    def lost(self) -> bool:
        return False

    def close(self, linger_ms: int = 0) -> None:
        pass


class _Call(Call):
    address = (b"a.b", 3, 0)
    body = b""

    def finish(self, value: object, error: Exception | None) -> None:
        pass


def flood_client(count: int, chance: random.Random) -> int:
    """How many frames it called damaged."""
    session: Any = client.Session(["tcp://127.0.0.1:1"])
    session._connect = lambda *_: None
    now = 0.0
    for number in range(count):
        if number % ROUND == 0:
            session.link, session.phase = _Link(), client.GREETING
            session._opened(messages.Welcome(1, 1, "m", True, 1, 2, "", 1 << 20), TOKEN, now)
            genuine = _answers(session.calls, chance, now)
        now += STEP_S
        frame = damaged(genuine, chance)[0]
        if session.phase is client.OPEN:
            _answer(session, frame, now)
        elif session.link is not None:
            session.link.frames.append(frame)
            session._greetings(now)
        else:
            session.link, session.phase = _Link(), chance.choice((client.ASKING, client.GREETING))
        session._finish(session.calls.expire(now))
    damages = int(session.damaged)
    session.link = None
    session.drop()
    return damages


def _answer(session: Any, frame: bytes, now: float) -> None:
    try:
        fields = wire.parse(frame)
        inside = wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]
        for each in inside:
            session._take_each((each,), now)
    except BadFrame:
        session.damaged += 1


def _answers(calls: Any, chance: random.Random, now: float) -> list[bytes]:
    """To some calls, sent just now."""
    genuine = _others(chance)
    for _ in range(8):
        call = _Call()
        call.deadline = now + 1
        calls.submit(call)
    for frame in calls.frames(now, 10_000):
        number = wire.parse_head(frame).number
        code = chance.choice((0, 0, 1, 2, 6, 9, 200))
        body = chance.choice((b"\xc0", b"\x82\xa5cause\xa1x\xaeretry_after_ms\x05", b""))
        genuine.append(wire.head(wire.ANSWER, TOKEN, 1, 5, number, number, 0, code) + body)
    return genuine


def flood_agent(count: int, chance: random.Random) -> int:
    page = Page.create(rows=4)
    said: list[messages.Message] = [
        messages.Beat(1),
        messages.Plan({"orders": 2}, {"orders": 1000}),
        messages.Plan({}),
        messages.Retire("web-1.3f2a9c.1", 1000),
        messages.Recall("web-1.3f2a9c.1", 5),
        messages.Intent("detached", 2, "ann", "why"),
        messages.Noted("web-1.3f2a9c.1"),
        messages.Leave(),
        messages.Verb(1, "status", {}),
    ]
    genuine = [messages.framed(wire.CONTROL, TOKEN, each) for each in said] + _others(chance)
    damages, now = 0, 100.0
    for number in range(count):
        if number % ROUND == 0:
            options: dict[str, Any] = {
                "masters": ["m"],
                "capacity": 4,
                "offers": ["orders"],
                "tags": {},
                "votes": Votes(0.0),
                "timing": Timing(60.0, 10.0),
            }
            core = Supervision("web-1", "3f2a9c", reconnect_delay=lambda failures: 0.1, **options)
            core.tick(now)
            core.connected(now)
            core.welcomed(messages.Welcome(1, 1, "m"), now)
        now += STEP_S
        try:
            frame = damaged(genuine, chance)[0]
            fields = wire.parse(frame)
            effects = _said(core, fields[3], messages.decode(frame[fields[11] :]), now)
        except (BadFrame, BadMessage):
            damages += 1
            continue
        for effect in [*effects, *core.tick(now)]:
            if isinstance(effect, Spawn):
                core.processes.spawned(effect.incarnation, b"t" * 16, number + 10, now)
            elif isinstance(effect, SetFloor):
                page.words[FLOOR] = effect.floor
    page.close()
    return damages


def _said(core: Supervision, kind: int, message: messages.Message, now: float) -> list[Any]:
    if kind == wire.CONTROL and core.connection.greeted:
        return list(core.received(message, now))
    if kind == wire.WELCOME and isinstance(message, messages.Welcome):
        return list(core.welcomed(message, now))
    if kind == wire.REFUSED and isinstance(message, messages.Refusal):
        return list(core.refused(message, now))
    return []


def flood_process(count: int, chance: random.Random) -> int:
    page = Page.create(rows=4)
    damages = 0
    backend: Any = None
    for number in range(count):
        if number % ROUND == 0:
            ledger = Deliveries(page, {"b": 5_000_000_000}, 30_000_000_000)
            if backend is not None:
                damages += backend.damaged
                backend.close()
            streams = Streams(ledger)
            backend = Backend(["tcp://127.0.0.1:1"], page, ledger, streams, lambda: None, False)  # type: ignore[arg-type, return-value]
            backend.link = _Link()
            ledger.welcomed(TOKEN, 1, 0)
            genuine = [delivery(TOKEN, 1, n, "a.b", 0, b"body") for n in range(1, 9)] + _others(chance)
            genuine += [_streaming(n) for n in range(1, 3)] + _pieces(chance)
        frame = damaged(genuine, chance)[0]
        try:
            _deliver(backend, ledger, streams, frame, chance)
        except BadFrame:
            damages += 1
        except Rejected:
            pass  # the process ends, as it is told to
    backend.close()
    page.close()
    return damages


def _streaming(number: int) -> bytes:
    frame = delivery(TOKEN, 1, number, "a.b", 0, b"body")
    checked = frame[4:7] + bytes([frame[7] | wire.MORE]) + frame[8 : wire.parse(frame)[11]]
    return crc32(checked).to_bytes(4, "little") + checked + b"body"


def _pieces(chance: random.Random) -> list[bytes]:
    """For two streams, right and wrong."""
    made = [wire.head(wire.CANCEL, TOKEN, number=2)]
    for number in (1, 2):
        made += [Chunk(at, bytes(chance.choice([0, 10])), True).frame(TOKEN, number) for at in (0, 10, 99)]
        made += [Credit(50, received, received > 3).frame(TOKEN, number) for received in (0, 3, 5)]
    return made


def _deliver(backend: Any, ledger: Deliveries, streams: Streams, frame: bytes, chance: random.Random) -> None:
    """As `process.py` does with what it receives."""
    fields = wire.parse(frame)
    for each in wire.split(frame, fields) if fields[3] == wire.BUNDLE else [frame]:
        fields = wire.parse(each)
        if fields[3] != wire.DELIVER or fields[5] != ledger.token:
            backend.handle(each)
            continue
        taken = ledger.take(fields, each, 1_000_000_000)
        if taken is not None:
            _ = taken.headers, taken.idempotency_key, taken.session, taken.request_id, taken.deadline
            ledger.start(taken, 1_000_000_000)
            if taken.streams and taken.may_run:  # it goes on for a while
                stream = streams.of(taken)
                stream.read()
                stream.write(b"answer", 2_000_000_000)
                backend.send_all(streams.frames(stream))
                continue
            ledger.reply(taken, 0, b"", 5) if taken.may_run else ledger.not_started(taken)


RECEIVERS: dict[str, Callable[[int, random.Random], int]] = {
    "client": flood_client,
    "agent": flood_agent,
    "process": flood_process,
}
