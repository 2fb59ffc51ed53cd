"""What waits for a process gets it, whenever that comes."""

from pathlib import Path

from system.pool import Pool


def test_a_process_that_becomes_ready_while_requests_are_queued_loses_none(tmp_path: Path) -> None:
    """Its first delivery and its WELCOME leave the master in one turn: the WELCOME must be first."""
    with Pool(tmp_path, nodes=1) as pool, pool.client() as client:
        for turn in range(3):
            pool.stop_node("node-1")
            waiting = [client.options(timeout=20).submit("proof.book", key=f"{turn}-{n}") for n in range(20)]
            pool.start_node("node-1")
            assert [future.result(20)[0] for future in waiting] == [f"{turn}-{n}" for n in range(20)]
