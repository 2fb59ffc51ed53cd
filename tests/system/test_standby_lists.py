"""A real pair whose lists run and whose receivers are told, through a death, a return and a handover."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

from notify_rig import webhook
from waiting import until

from rota import Admin

from .pair import Pair

APP = "import rota\norders = rota.Worker('orders')\n@orders.handler\ndef one():\n    return 1\n"


def test_lists_run_and_receivers_are_told_wherever_the_active_master_is(tmp_path: Path) -> None:
    app, log = tmp_path / "shop.py", tmp_path / "log"
    app.write_text(APP)
    log.touch()

    def configured(name: str) -> str:
        file = tmp_path / f"{name}.toml"
        up, down = (f'run sh -c "echo {name} {word} >> {log}"' for word in ("up", "down"))
        lists = f"[standby]\non_takeover = ['{up}']\non_return = ['{down}']\n"
        file.write_text(f'{lists}[notify.chat]\nto = "{hook.url}"\n')
        return str(file)

    def ran(*lines: str) -> bool:
        """These, since it was last asked, in any order: two masters write."""
        nonlocal seen
        new = log.read_text().splitlines()[seen:]
        if sorted(new) != sorted(lines):
            return False
        seen += len(lines)
        return True

    def told(master: str, *kinds: str) -> bool:
        return [each["kind"] for each in hook.posts if each["master"] == master][-len(kinds) :] == list(kinds)

    seen = 0
    with webhook() as hook, closing(Pair(tmp_path)) as made:
        made.start_master("a", "-c", configured("a"))
        made.start_master("b", "-c", configured("b"), "--backup-of", made.addresses["a"])
        made.start_node("n1", f"{app}:orders")
        with Admin(made.both) as admin:
            admin.wait("ready", "orders", timeout=30)
        until(made.follows)
        until(lambda: ran("a up", "b down"))
        made.masters["a"].signal(signal.SIGKILL)
        until(lambda: ran("b up"))
        until(lambda: told("b", "dead", "takeover"))
        made.start_master("a", "-c", configured("a"))
        until(lambda: ran("a down"))
        until(made.follows)
        made.masters["b"].signal(signal.SIGTERM)
        until(lambda: ran("a up", "b down"))
        until(lambda: told("a", "close", "takeover"))
    ids = [each["id"] for each in hook.posts]
    assert len(set(ids)) == len(ids)
