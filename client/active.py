"""An operator's connection to whichever master is active: found, kept while it lasts, then found anew.

Unlike `session` it blocks while it looks for one: its owner has nothing else to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import random
from time import monotonic, sleep

import zmq

from ..common import exits, sockets
from ..common.errors import Denied, Error, Incompatible
from ..common.link import NO_CONNECTION, reconnect_delay
from ..common.messages import Welcome
from .beside import Beside, anew
from .control import Control, Lost
from .masters import other_address
from .search import ACTIVE, GREETED_S, UNGREETED_S, Search

POLL_S = 0.01  # of a switchover, whose milliseconds are told


class _Moved(Lost):
    """Nothing comes over this connection, and another master is active: that one is dialled next."""


class ActiveMaster:
    """Masters are looked for in the order of `search`; while nothing comes over a connection, also `beside` it."""

    def __init__(self, masters: Sequence[str], user: str) -> None:
        self.several = len(masters) > 1
        self.is_active = False  # is the master that we are connected to? Else it stands by
        self._user = user
        self._ctx: zmq.Context[zmq.Socket[bytes]] | None = None
        self._control: Control | None = None
        self._search = Search(masters, random, reconnect_delay)
        self._beside = Beside(masters) if self.several else None

    @property
    def seen_standby(self) -> bool:
        """Did one stand by since one was active?"""
        return self._search.seen_standby

    def control(self, until: float, standby_after: float) -> Control:
        """The connection to the active master, made if need be; after so many seconds without one, to a standby.

        Raises Unavailable at `until`; Denied, Incompatible when every master says so.
        """
        if self._control is not None and self.is_active and not self._control.lost():
            return self._control
        self.part()
        attempt = _Attempt(monotonic() + standby_after, follows=standby_after > 0)
        try:
            while self._control is None:
                self._try(attempt, until)
        finally:
            attempt.close()
        return self._control

    def risen(self, first: str, before: int, until: float) -> tuple[str, Welcome]:
        """Address and welcome of the master that is active with a higher epoch than `before`; `first` is the likeliest.
        Raises Timeout at `until`.
        """
        masters = list(dict.fromkeys(address for address in (first, *self._search.masters) if address))
        while monotonic() < until:
            for address in masters:
                try:
                    control, welcome = self._dial(address, min(until, monotonic() + UNGREETED_S))
                except (Lost, Denied, Incompatible):
                    continue
                control.close()
                if welcome.state == ACTIVE and welcome.epoch > before:
                    self._search.epoch = welcome.epoch
                    return address, welcome
            sleep(POLL_S)
        text = f"no master is active with a higher epoch than {before} yet; `rota status` shows what it waits for"
        raise exits.error(exits.UNDER_WAY, text)

    def part(self, bye: bool = False) -> None:
        control, self._control = self._control, None
        if self._beside is not None:
            self._beside.close()
        if control is not None:
            control.close(bye)

    def close(self) -> None:
        self.part(bye=True)
        if self._ctx is not None:
            self._ctx.term()
            self._ctx = None

    # ---- looking for it -----------------------------------------------------------------------------------------

    def _try(self, attempt: _Attempt, until: float) -> None:
        """Ask one master: set the connection, or wait until the next one is to be asked."""
        search = self._search
        address = search.address
        try:
            standby = self._ask(attempt, address, until)
        except _Moved:
            return
        if self._control is not None:
            return
        if len(attempt.final) == len(search.masters):
            raise attempt.final[address]
        due = search.next(monotonic(), standby)
        if search.over() and attempt.standby is not None and monotonic() >= attempt.standby_at:
            self._control, self.is_active = attempt.standby, False
            attempt.standby = None
        elif due >= until:
            tried = "; ".join(f"{master}: {why}" for master, why in attempt.reasons.items())
            what = "no master is active" if search.seen_standby else "no master answers"
            unreachable = exits.error(exits.UNREACHABLE, f"{what} ({tried})")
            unreachable.details["masters"] = attempt.reasons
            raise unreachable
        else:
            sleep(max(0.0, due - monotonic()))

    def _ask(self, attempt: _Attempt, address: str, until: float) -> bool:
        """Dial this master: the connection, if it is the one, else why it is not. True: it stands by."""
        search = self._search
        try:
            control, welcome = self._dial(address, min(until, monotonic() + GREETED_S))
        except _Moved:
            raise
        except Lost as lost:
            attempt.reasons[address] = str(lost) or NO_CONNECTION
            return False
        except (Denied, Incompatible) as error:
            if attempt.reasons.get(address) == str(error):  # twice: a HELLO damaged on its way looks alike
                attempt.final[address] = error
            attempt.reasons[address] = str(error)
            return False
        why = search.unfit(welcome, monotonic())
        if not why:
            search.found(welcome.epoch)
            self._control, self.is_active = control, True
            return False
        attempt.reasons[address] = why
        if attempt.follows and search.learn(other_address(welcome)):
            self._beside = anew(self._beside, search.masters)
        attempt.keep(control)
        return True

    def _dial(self, address: str, until: float) -> tuple[Control, Welcome]:
        if self._ctx is None:
            self._ctx = sockets.context()
        control = Control(self._ctx, address, self._look_beside)
        try:
            return control, control.greet(self._user, until)
        except BaseException:
            control.close()
            raise

    def _look_beside(self, control: Control, now: float) -> float:
        """To be called while nothing comes over this connection. Returns when to call it again; raises _Moved."""
        if self._beside is None:
            return inf
        assert self._ctx is not None
        search = self._search
        found = self._beside.step(self._ctx, control.address, control.heard_at, *search.doubt(control.greeted), now)
        if found is None:
            return self._beside.due
        self._beside.close()
        search.go(found)
        raise _Moved(f"silent, and {found} is active")


class _Attempt:
    """One search for the active master. `standby`: one that was met, still connected."""

    def __init__(self, standby_at: float, follows: bool) -> None:
        """`follows`: an active master is wanted, so the one that a standby follows is asked, too."""
        self.standby_at = standby_at
        self.follows = follows
        self.reasons: dict[str, str] = {}
        self.final: dict[str, Error] = {}
        self.standby: Control | None = None

    def keep(self, standby: Control) -> None:
        self.close()
        self.standby = standby

    def close(self) -> None:
        standby, self.standby = self.standby, None
        if standby is not None:
            standby.close()
