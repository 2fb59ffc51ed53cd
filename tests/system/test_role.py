"""`rota role`, which balancers and keepalived ask, at both masters of a real pair."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from rota.cli.main import main
from rota.common import exits

from .pair import pair


def role(*words: str) -> Result:
    return CliRunner().invoke(main, ["role", "--timeout", "10s", *words])


def test_each_master_says_what_it_is_by_its_exit_code(tmp_path: Path) -> None:
    with pair(tmp_path) as made:
        active, standby = (role("-m", made.addresses[name]) for name in "ab")
        both = role("-m", ",".join(made.both))
        as_json = role("-m", made.addresses["b"], "--json")
    assert (active.exit_code, active.stdout) == (exits.DONE, "active\n")
    assert (standby.exit_code, standby.stdout) == (exits.DEGRADED, "standby\n")
    assert both.exit_code == exits.USAGE and "which master? One address with -m" in both.stderr
    assert as_json.exit_code == exits.DEGRADED and json.loads(as_json.stdout) == {
        "schema": 1,
        "state": "standby",
        "may_dispatch": False,
        "alarms": [],
    }


def test_where_no_master_is_the_exit_code_is_69() -> None:
    result = CliRunner().invoke(main, ["role", "-m", "tcp://127.0.0.1:1", "--timeout", "200ms"])
    assert result.exit_code == exits.UNREACHABLE and result.stdout == ""
