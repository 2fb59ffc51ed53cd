"""A clock that jumps, and a network that behaves as ZeroMQ over TCP does, in one thread.

A connection is first in, first out in both directions; connections overtake each other. A reset loses what is under
way to the dealer and a part (from the newest on) of what is under way to the router; both ends notice later, each in
its own time. A new connection has a new route. Sending to a route that is known to be gone fails, to one that is gone
and not known to be is silence. A blocked direction holds what is sent until it is open again, and breaks the connection
after `MAX_RETRANSMIT_MS`, as TCP does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

from rota.common.sockets import CONNECT_TIMEOUT_MS, MAX_RETRANSMIT_MS

BEGINNING = 1000.0
TRANSCRIPT_LINES = 4000
RETRANSMIT_S = MAX_RETRANSMIT_MS / 1000
CONNECT_S = CONNECT_TIMEOUT_MS / 1000
LEARN_S = 0.03  # until an end notices that its connection was reset
STEADY_S = 0.0005  # every delay, in a cluster without chance
SPINS_MAX = 50  # turns for one and the same deadline


class Violation(AssertionError):
    """A promise was broken; the sentence names it."""


class Clock:
    """Events in the order of their time. Everything random comes from `rng`: one seed, one history."""

    def __init__(self, seed: int) -> None:
        self.now = BEGINNING
        self.rng = Random(seed)
        self.lines: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=TRANSCRIPT_LINES)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, event: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (max(when, self.now), self._count, event))

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self.at(self.now + delay, event)

    def tell(self, text: str, *values: Any) -> None:
        """A line of the transcript; formatted only if somebody reads it. A value that can be called is called then."""
        self.lines.append((self.now, text, values))

    def told(self, shown: Callable[[str, tuple[Any, ...]], bool] = lambda text, values: True) -> list[str]:
        """The lines so far, with their time since the beginning."""
        lines = [line for line in self.lines if shown(line[1], line[2])]
        return [f"{at - BEGINNING:9.4f}  {_line(text, values)}".rstrip() for at, text, values in lines]

    def transcript(self) -> str:
        return "\n".join(self.told())

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Jumps from event to event."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, event = heappop(events)
            event()
            if stop is not None and stop():
                return
        self.now = max(self.now, until)


def _line(text: str, values: tuple[Any, ...]) -> str:
    return text % tuple(value() if callable(value) else value for value in values) if values else text


class Timer:
    """One deadline that may be moved; `act` is called when it has come. At most a few events wait for it at a time."""

    def __init__(self, clock: Clock, act: Callable[[], None]) -> None:
        self.act = act
        self._clock = clock
        self._at = inf
        self._event_at = inf  # of the earliest event that waits

    def set(self, when: float) -> None:
        """At this moment, and at no other."""
        self._at = max(when, self._clock.now)
        if self._at < self._event_at:
            self._event_at = self._at
            self._clock.at(self._at, self._came)

    def by(self, when: float) -> None:
        """Not later than this."""
        if when < self._at:
            self.set(when)

    def stop(self) -> None:
        self._at = inf

    def _came(self) -> None:
        now = self._clock.now
        if now < self._event_at:
            return  # a later event is in charge
        self._event_at = inf
        if now >= self._at:
            self._at = inf
            self.act()
        elif self._at < inf:
            self.set(self._at)


class Watchdog:
    """Whoever answers the same deadline in the past over and over would spin."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._due = -inf
        self._turns = 0

    def turn(self, due: float, now: float) -> None:
        if due > now:
            self._turns = 0
            return
        self._turns = self._turns + 1 if due == self._due else 1
        self._due = due
        if self._turns > SPINS_MAX:
            raise Violation(f"{self.name} spins: its deadline stays {now - due:.3f} s in the past")


class Path:
    """What lies between one machine and the master. `up` leads to the master."""

    def __init__(self) -> None:
        self.up_open_at = self.down_open_at = 0.0
        self.slow_until = 0.0
        self.slow_s = 0.0

    def heals_at(self) -> float:
        return max(self.up_open_at, self.down_open_at, self.slow_until)

    def heal(self) -> None:
        """For what is said from now on."""
        self.up_open_at = self.down_open_at = self.slow_until = 0.0


class Router:
    """A bound ROUTER. Its owner reads `inbox` when `wake` was called."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self.clock = clock
        self.wake = wake
        self.inbox: deque[tuple[bytes, bytes]] = deque()
        self.routes: dict[bytes, Connection] = {}
        self.all: dict[bytes, Connection] = {}
        self.bound = True

    def send(self, route: bytes, frame: bytes) -> bool:
        """False: this route is known to be gone (EHOSTUNREACH)."""
        connection = self.routes.get(route)
        if connection is None:
            return False
        connection.to_dealer(frame)
        return True

    def drained(self, route: bytes) -> bool:
        """The route is gone and everything that came over it was read."""
        if route in self.routes or any(route == each for each, _ in self.inbox):
            return False
        connection = self.all.get(route)
        return not (connection and connection.rising)

    def kill(self) -> None:
        """Its process died: all connections are cut, nothing that comes is read."""
        self.bound = False
        self.wake = _nobody
        for connection in list(self.all.values()):
            connection.reset()

    def close(self) -> None:
        """Its process ends in order: what it has sent still arrives, nothing that comes is read."""
        self.bound = False
        self.wake = _nobody
        for connection in list(self.all.values()):
            connection.hang_up()


def _nobody() -> None:
    return None


class Connection:
    """From one dealer to one router, for one life. `on_change`: it is open, or known to be lost."""

    def __init__(
        self,
        clock: Clock,
        router: Router,
        path: Path,
        number: int,
        steady: bool,
        on_frame: Callable[[bytes], None],
        on_change: Callable[[], None],
    ) -> None:
        self.clock = clock
        self.route = number.to_bytes(5, "big")
        self.router = router
        self.path = path
        self.connected = False  # the dealer knows that it is
        self.lost = False  # the dealer knows that it is not any more
        self.cut = False  # truly
        self.rising: deque[bytes] = deque()  # under way to the router
        self.falling: deque[bytes] = deque()  # to the dealer
        self._steady = steady
        self._on_frame = on_frame
        self._on_change = on_change
        self._last_up = self._last_down = 0.0
        wait = max(path.up_open_at, path.down_open_at) - clock.now  # a handshake needs both ways
        if wait > CONNECT_S:
            clock.after(CONNECT_S, self._dealer_learns)
        else:
            clock.after(max(0.0, wait) + self._delay(), self._open)

    def _delay(self) -> float:
        if self._steady:
            return STEADY_S
        chance = self.clock.rng.random()
        delay = 0.0002 + 0.002 * chance if chance < 0.95 else 0.05 * chance
        return delay + self.path.slow_s * chance if self.clock.now < self.path.slow_until else delay

    def _open(self) -> None:
        if self.cut:
            return
        if not self.router.bound:
            self._dealer_learns()
            return
        self.router.routes[self.route] = self.router.all[self.route] = self
        self.connected = True
        self._on_change()

    def send(self, frame: bytes) -> bool:
        """By the dealer. False: it is known that nobody hears."""
        if not self.connected or self.lost:
            return False
        if not self.cut:
            now = self.clock.now
            self.rising.append(frame)
            self._last_up = max(self._last_up, max(now, self.path.up_open_at) + self._delay())
            self.clock.at(self._last_up, self._arrived)
            if self.path.up_open_at - now > RETRANSMIT_S:
                self.clock.after(RETRANSMIT_S, self._given_up)
        return True

    def to_dealer(self, frame: bytes) -> None:
        if not self.cut:
            now = self.clock.now
            self.falling.append(frame)
            self._last_down = max(self._last_down, max(now, self.path.down_open_at) + self._delay())
            self.clock.at(self._last_down, self._fell)
            if self.path.down_open_at - now > RETRANSMIT_S:
                self.clock.after(RETRANSMIT_S, self._given_up)

    def _arrived(self) -> None:
        if self.rising and self.router.bound:
            self.router.inbox.append((self.route, self.rising.popleft()))
            self.router.wake()

    def _fell(self) -> None:
        if self.falling and not self.cut:
            self._on_frame(self.falling.popleft())

    def _given_up(self) -> None:
        """TCP has tried for long enough, if the way is still blocked."""
        if max(self.path.up_open_at, self.path.down_open_at) > self.clock.now:
            self.rising.clear()
            self.reset()

    def reset(self) -> None:
        """Somewhere between the two. Both sides learn of it in their own time."""
        if self.cut:
            return
        self.cut = True
        self.falling.clear()
        self._lose_some()
        self.clock.after(self._until_noticed(), self._dealer_learns)
        self.clock.after(self._until_noticed(), self._router_learns)

    def hang_up(self) -> None:
        """By the router: the dealer learns of it after the last frame."""
        last = max(self.clock.now, self._last_down, self.path.down_open_at)
        self.clock.at(last + self._delay(), self._hung_up)

    def _hung_up(self) -> None:
        if not self.cut:
            self.cut = True
            self._dealer_learns()
            self._router_learns()

    def _until_noticed(self) -> float:
        return STEADY_S if self._steady else self.clock.rng.random() * LEARN_S

    def _lose_some(self) -> None:
        if not self._steady:
            for _ in range(self.clock.rng.randint(0, len(self.rising))):
                self.rising.pop()

    def close(self, gently: bool = True) -> None:
        """By the dealer, or by the death of its process (then what had not left is lost)."""
        self.lost = True
        if self.cut:
            return
        self.cut = True
        self.falling.clear()
        if not gently:
            self._lose_some()
        goodbye = max(self.clock.now, self._last_up, self.path.up_open_at) + self._delay()
        self.clock.at(goodbye, self._router_learns)

    def _dealer_learns(self) -> None:
        if not self.lost:
            self.lost = True
            self._on_change()

    def _router_learns(self) -> None:
        self.router.routes.pop(self.route, None)
