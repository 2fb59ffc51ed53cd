"""rota role: is this master the active one, and may it dispatch? For balancers and for keepalived."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..common import exits
from ..common.log import printable
from .operator import json_option, looking, master_option, seconds_option, show, tell
from .verb import Mistake, verb


@verb(
    "role",
    examples=(
        "rota role                              active: exit 0; standby: exit 3",
        "rota role -m tcp://10.0.0.5:7700 --timeout 500ms",
    ),
    exits=(exits.DEGRADED, exits.UNREACHABLE),
)
@seconds_option("--timeout", default="1s", help="How long to wait for its answer.")
@master_option
@json_option
def role(masters: Sequence[str], timeout: float, as_json: bool) -> None:
    """Say what the master at one address is now.

    Exit 0 if it is the active one, 3 if it is anything else, 69 if it does not answer. The active one without a quorum
    is exit 3, too: it may not dispatch, and another master may be about to take over. The reason is on stderr.
    """
    if len(masters) > 1:
        raise Mistake(f"which master? One address with -m, not {' and '.join(masters)}")
    with looking(masters) as master:
        found = master.status(timeout=timeout)["master"]
    state, alarms = found["state"], found["alarms"]
    dispatches = state == "active" and (found.get("quorum") or {}).get("may_dispatch", True)
    show({"state": state, "may_dispatch": dispatches, "alarms": alarms}, as_json, lambda: [state])
    if dispatches:
        return
    for alarm in () if as_json else alarms:
        tell(f"alarm: {printable(alarm)}")
    sys.exit(exits.DEGRADED)
