"""The master's shell carries out what its core wants: what real sockets show too rarely."""

from __future__ import annotations

import errno
from math import inf
from types import SimpleNamespace
from typing import Any

from core_rig import SESSION, Rig

from rota.common import wire
from rota.common.errors import OK
from rota.common.messages import Exited, Row
from rota.master.effects import PROBE_EVERY_S, Effects
from rota.master.ports import BATCH
from rota.worker.page import DONE


class Port:
    """`gone`: it knows no route any more; what came is still to be read."""

    def __init__(self) -> None:
        self.gone = False
        self.came: list[tuple[bytes, bytes]] = []
        self.sent: list[tuple[bytes, bytes]] = []

    def send(self, route: bytes, frame: bytes) -> int:
        self.sent.append((route, frame))
        return errno.EHOSTUNREACH if self.gone else 0

    def receive(self, receive_one: Any, now: float) -> int:
        batch, self.came = self.came[:BATCH], self.came[BATCH:]
        for route, frame in batch:
            receive_one(route, frame, now)
        return len(batch)


def test_an_exit_is_settled_when_its_route_is_gone_and_what_had_come_over_it_is_read() -> None:
    rig, port = Rig(), Port()
    ports: Any = SimpleNamespace(control=port, frontend=port, backend=port)
    effects = Effects(rig.core, ports, None, lambda out: None)  # type: ignore[arg-type]  # nothing is recorded
    first, _ = rig.pool_of(2)
    rig.request(1)
    row = Row(1, DONE, SESSION, 1, 1)
    rig.tell(first.node, Exited(first.incarnation, "orders", -9, "was killed", 1, [row], ""))
    rig.flush()
    assert effects.next_deadline() == inf
    effects.carry_out(rig.out)
    port.sent.clear()
    now = rig.now
    for _ in range(2):
        assert effects.next_deadline() <= now
        effects.tick(now)
        assert first.incarnation in rig.fleet.processes.slots, "it may still have something to say"
        assert port.sent.pop() == (first.route, wire.head(wire.PROBE, first.token))
        effects.tick(now)
        assert not port.sent, "not before it is due"
        now += PROBE_EVERY_S
    port.gone = True
    reply = wire.head(wire.REPLY, first.token, epoch=1, number=1, upto=first.acked + 1, code=OK) + b"just made it"
    port.came = [(b"others", b"more than one batch")] * BATCH + [(first.route, reply)]
    effects.tick(now)
    assert first.incarnation in rig.fleet.processes.slots, "its last words may be behind those of others"
    now += PROBE_EVERY_S
    effects.tick(now)
    rig.flush()
    assert first.incarnation not in rig.fleet.processes.slots and rig.codes() == {1: OK}
    assert effects.next_deadline() == inf
