"""Streams of all kinds while another master becomes active. `make failover FAILOVER=streams` plays more of it."""

from __future__ import annotations

from pathlib import Path

from .streams import Streams
from .takeovers import held, streaming, switch_amid_streams

STALL_S = 5.0  # of a machine that does other things, too


def test_streams_go_on_over_a_switchover(tmp_path: Path) -> None:
    with streaming(tmp_path) as (place, own):
        with Streams(place.ledger, place.masters.both, [f"127.0.0.1:{own.port}", place.masters.door("a")]) as opened:
            switch_amid_streams(place, opened)
        assert held(place) == 0
        findings = place.ledger.check()
        assert findings.answered == opened.begun, findings
        assert findings.lost == [] and findings.twice == [] and findings.wrong == []
        assert opened.stall < STALL_S, opened.stalled
