"""`rota run --reload`: when a source file changes, the processes are replaced, if the code loads.

A probe loads it first, in an interpreter of its own: what does not load never comes near the processes that serve.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..common.errors import Error
from ..common.log import note
from ..worker.interface import DEV
from ..worker.loading import names_a_file, split_spec
from ..worker.spawn import Loaded, Probe, as_typed
from .verb import Failed

if TYPE_CHECKING:
    from ..client.admin import Admin
    from ..common.settings import SlaveSettings

SUFFIXES = (".py", ".html", ".jinja", ".jinja2", ".j2", ".toml")  # what programs write while they run is not among them
QUIET_MS = 100  # an editor, or git, writes several files one after the other
OUTPUT_MAX = 64 * 1024  # bytes of what a failed load says
LOOK_S = 0.1
STOP_S = 1.0
ANSWER_S = 1.0  # of the master: while it is asked nothing else is done, also not what a signal says
# For settings that nobody made. Processes that were replaced are waited for, but not as long as in production: an open
# stream would hold up the next replacement.
SETTINGS = {"master.drain_deadline": "5s", "slave.stop_grace": "1s", "http.access_log": "common"}


class Changes:
    """Source files below these folders that changed, as a thread of its own sees them."""

    def __init__(self, folders: list[str]) -> None:
        """Failed when the package that watches is not installed."""
        try:
            import watchfiles
        except ImportError:
            raise Failed("--reload needs the package watchfiles: pip install 'rota[reload]'") from None
        every = watchfiles.DefaultFilter()
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        changes = watchfiles.watch(
            *folders,
            watch_filter=lambda change, path: path.endswith(SUFFIXES) and every(change, path),
            stop_event=self._stop,
            debounce=QUIET_MS * 10,
            step=QUIET_MS,
            raise_interrupt=False,
        )
        self._thread = threading.Thread(target=self._watch, args=(changes,), daemon=True)
        self._thread.start()

    def _watch(self, changes: Any) -> None:
        try:
            for found in changes:
                with self._lock:
                    self._names.update(path for _, path in found)
        except (OSError, RuntimeError) as error:  # the system watches so many folders and no more
            note(f"rota run: changes are not noticed any more: {error}")

    def take(self) -> list[str]:
        """Their names, once."""
        with self._lock:
            names, self._names = self._names, set()
        return sorted(os.path.basename(name) for name in names)

    def stop(self) -> None:
        """And wait for the thread, which looks every QUIET_MS: it crashes an interpreter that ends under it."""
        self._stop.set()
        self._thread.join(STOP_S)


class Reloading:
    """What becomes of changes. `tick` is called often."""

    def __init__(self, settings: SlaveSettings, folder: Path) -> None:
        self._settings = settings
        self._changes = Changes(folders(settings))
        self._broken = folder / "broken"  # while it is there, its text is shown to browsers
        self._probe: Probe | None = None
        self._wanted = False  # code that loads, which not all processes have
        self._begun_at: float | None = None  # of the replacement that is under way
        self._look_at = 0.0
        self._failing = ""

    def environment(self, own: Mapping[str, str], made: Collection[str]) -> dict[str, str]:
        """For all that is started. `made`: names of settings that the user made. Flask raises to the server in debug
        mode only: else there is no page.
        """
        ours = {f"ROTA_{name}".replace(".", "_").upper(): value for name, value in SETTINGS.items() if name not in made}
        return {"FLASK_DEBUG": "1", **own, **ours, DEV: str(self._broken)}

    def first(self) -> str | None:
        """The name of the service once the code loads; None until then, and when it is to be called again."""
        if self._probe is None and (self._changes.take() or not self._broken.exists()):
            self._probe = Probe(self._settings)
        loaded = self._probed()
        if loaded is None or not loaded.ok:
            return None
        return loaded.text

    def tick(self, master: Admin, service: str) -> None:
        """Never raises because of the master: what it did not hear it is told again."""
        if names := self._changes.take():
            note(f"rota run: {', '.join(names[:3])}{' …' if len(names) > 3 else ''} changed")
            if self._probe is not None:  # it may have read what was there before
                self._probe.kill()
            self._probe = Probe(self._settings)
        if (loaded := self._probed()) and loaded.ok:
            self._wanted = True
        if monotonic() < self._look_at:
            return
        self._look_at = monotonic() + LOOK_S
        try:
            self._replace(master, service)
        except Error as error:
            note(f"rota run: {error}")

    def pids(self) -> list[int]:
        """Of what it has started."""
        return [self._probe.pid] if self._probe is not None else []

    def stop(self) -> None:
        self._changes.stop()
        if self._probe is not None:
            self._probe.kill()

    def _probed(self) -> Loaded | None:
        loaded = self._probe.outcome(most=OUTPUT_MAX) if self._probe is not None else None
        if loaded is not None:
            self._probe = None
            if loaded.ok:
                self._broken.unlink(missing_ok=True)
            else:
                note(f"{loaded.text}\nrota run: the code does not load; it is tried again when a file changes")
                self._show_broken(loaded.text)
        return loaded

    def _show_broken(self, text: str) -> None:
        """Whole or not at all: processes read it while it is written."""
        fresh = self._broken.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._broken)

    def _replace(self, master: Admin, service: str) -> None:
        """As any reload; the next one when this one is over, as it would not take the processes that still start."""
        if self._begun_at is None and not self._wanted:
            return
        status = master.status(timeout=ANSWER_S)
        failing = "\n".join(each["text"] for node in status["nodes"] for each in node["failing"])
        left = sum(each["reloading"] for each in status["services"] if each["name"] == service)
        if self._wanted and (self._begun_at is None or failing):
            self._wanted, self._failing, self._begun_at = False, "", monotonic()
            if failing:
                master.recheck(all=True)  # now, not when its turn comes
            master.reload(service, wait=False)
        elif failing and failing != self._failing:  # it loads, and does not start; it is on the terminal already
            self._failing = failing
            self._show_broken(failing)
            note("rota run: the changed code does not start; what was there before goes on serving")
        elif self._begun_at is not None and not left and not failing:
            note(f"rota run: the changed code serves, {monotonic() - self._begun_at:.1f} s after it was loaded")
            self._begun_at = None
            self._broken.unlink(missing_ok=True)


def folders(settings: SlaveSettings) -> list[str]:
    """Where the sources of the application are."""
    assert settings.app is not None
    target = split_spec(settings.app)[0]
    beside = [os.path.dirname(as_typed(target))] if names_a_file(target) else []
    return list(dict.fromkeys([as_typed(settings.app_dir), *beside]))
