from __future__ import annotations

import os
import signal
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

from lines import next_line
from waiting import until

from rota.common import wire
from rota.master.core.readers import LOOK_EVERY_S, STUCK_S, Readers
from rota.master.core.sessions import Session
from rota.testing import LocalCluster

KIB = 1024
PLENTY = 1 << 30


def session(name: str, answers: int, limit: int = PLENTY, size: int = KIB) -> Session:
    made = Session(name.encode().ljust(16), 0.0)
    made.route = name.encode()
    for number in range(1, answers + 1):
        answer(made, number, limit, size)
    return made


def answer(made: Session, number: int, limit: int = PLENTY, size: int = KIB) -> None:
    made.sequence += 1
    made.keep(number, wire.head(wire.ANSWER, 7, number=number, upto=made.sequence) + b"x" * size, limit)


def cut_at(readers: Readers, sessions: list[Session], *times: float, total: int = PLENTY) -> list[str]:
    return [str(found.route, "ascii") for now in times for found, _ in readers.to_cut(sessions, total, now)]


def test_a_client_over_its_limit_that_reads_nothing_is_cut_after_a_second() -> None:
    slow, other = session("slow", 20, limit=10 * KIB), session("other", 5, limit=10 * KIB)
    readers = Readers()
    assert cut_at(readers, [slow, other], 1.0, 1.0 + STUCK_S - 0.1) == []
    assert cut_at(readers, [slow, other], 1.0 + STUCK_S + LOOK_EVERY_S) == ["slow"]


def test_a_client_that_reads_slowly_is_left_alone() -> None:
    slow = session("slow", 40, limit=10 * KIB)
    readers = Readers()
    for step in range(20):
        slow.acknowledge(slow.acked + 1)
        assert cut_at(readers, [slow], 1.0 + step * STUCK_S / 2) == []


def test_a_client_without_a_connection_has_nothing_to_cut() -> None:
    away = session("away", 40, limit=10 * KIB)
    away.route = b""
    assert cut_at(Readers(), [away], 1.0, 3.0, 5.0) == []


def test_beyond_the_total_the_client_that_is_owed_most_pays_first() -> None:
    most, less, least = session("most", 30), session("less", 20), session("least", 10)
    found = cut_at(Readers(), [least, less, most], 1.0, total=40 * KIB)
    assert found == ["most"]
    assert (most.kept_bytes, most.sequence, len(most.kept)) == (0, 30, 30)
    assert least.kept_bytes and less.kept_bytes


def test_what_was_dropped_is_owed_until_it_is_acknowledged() -> None:
    made = session("slow", 20, limit=10 * KIB)
    frame = wire.HEADER_SIZE + KIB
    assert (made.owed(), made.dropped) == (20 * frame, 11)
    made.acknowledge(5)
    assert (made.owed(), made.dropped) == (15 * frame, 6)
    made.acknowledge(20)
    assert (made.owed(), made.dropped, made.kept_bytes) == (0, 0, 0)


CLIENT = """
import sys
from collections import Counter
import rota

client = rota.Client(sys.argv[1])
futures = [client.submit("blob.blob", 65536) for _ in range(200)]
print(Counter(type(future.exception(30)).__name__ for future in futures).most_common(), flush=True)
"""

SERVICE = """
import rota

service = rota.Worker("blob")

@service.handler
def blob(size: int) -> bytes:
    return b"x" * size
"""


def test_a_stopped_client_is_cut_and_still_gets_a_final_answer_for_every_call(tmp_path: Path) -> None:
    app = tmp_path / "blob_app.py"
    app.write_text(SERVICE)
    settings = {"master.answers_bytes": "1MiB", "master.max_message": "256KiB", "service.blob.queue_limit": 10_000}
    with LocalCluster(f"{app}:service", processes=1, settings=settings) as cluster, cluster.admin() as admin:
        admin.pause("blob")
        command = [sys.executable, "-c", CLIENT, cluster.address]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            until(lambda: admin.status()["services"][0]["queued"] == 200)
            os.kill(client.pid, signal.SIGSTOP)
            admin.resume("blob")
            followed = admin.events(follow=True)
            assert any(event["kind"] == "cut" for event in followed)
            with cluster.client() as other:
                assert other.call("blob.blob", 10) == b"x" * 10
            os.kill(client.pid, signal.SIGCONT)
            outcomes = dict(literal_eval(next_line(client)))
        finally:
            client.kill()
            client.wait()
    assert sum(outcomes.values()) == 200
    assert set(outcomes) <= {"NoneType", "MaybeExecuted"}
    assert outcomes["NoneType"] >= 1
