"""A clock that jumps, and a network that behaves as ZeroMQ over TCP does, in one thread.

A connection is first in, first out in both directions. A reset loses what is under way to the dealer and a part (from
the newest on) of what is under way to the router; both ends notice later, each in its own time. A new connection has
a new route. Sending to a route that is known to be gone fails, to one that is gone and not known to be is silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

TRANSCRIPT_LINES = 4000


class Violation(AssertionError):
    """A promise was broken; the sentence names it."""


class Clock:
    """Events in the order of their time. Everything random comes from `rng`: one seed, one history."""

    def __init__(self, seed: int) -> None:
        self.now = 1000.0
        self.rng = Random(seed)
        self.lines: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=TRANSCRIPT_LINES)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay: float, event: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (self.now + max(0.0, delay), self._count, event))

    def tell(self, text: str, *values: Any) -> None:
        """A line of the transcript; formatted only if somebody reads it."""
        self.lines.append((self.now, text, values))

    def transcript(self) -> str:
        return "\n".join(f"{at - 1000:9.4f}  {text % values if values else text}" for at, text, values in self.lines)

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Jumps from event to event."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
            if stop():
                return
        self.now = max(self.now, until)


class Timer:
    """One deadline that may be moved; `act` is called when it has come."""

    def __init__(self, clock: Clock, act: Callable[[], None]) -> None:
        self._clock = clock
        self._act = act
        self._generation = 0

    def set(self, when: float) -> None:
        self._generation += 1
        generation = self._generation
        self._clock.after(when - self._clock.now, lambda: self._act() if generation == self._generation else None)

    def stop(self) -> None:
        self._generation += 1


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
        connection = self.all.get(route)
        unread = any(route == each for each, _ in self.inbox)
        return route not in self.routes and not unread and not (connection and connection.rising)

    def kill(self) -> None:
        """Its process died: all connections are cut, nothing that comes is read."""
        self.bound = False
        self.wake = lambda: None
        for connection in list(self.all.values()):
            connection.reset()


class Connection:
    """From one dealer to one router, for one life."""

    def __init__(self, clock: Clock, router: Router, on_frame: Callable[[bytes], None], number: int) -> None:
        self.clock = clock
        self.route = number.to_bytes(5, "big")
        self.router = router
        self.connected = False  # the dealer knows that it is
        self.lost = False  # the dealer knows that it is not any more
        self.cut = False  # truly
        self.rising: deque[bytes] = deque()  # under way to the router
        self._falling: deque[bytes] = deque()
        self._on_frame = on_frame
        self._last_up = self._last_down = 0.0
        clock.after(self._delay(), self._open)

    def _delay(self) -> float:
        chance = self.clock.rng.random()
        return 0.0002 + 0.002 * chance if chance < 0.95 else 0.05 * chance

    def _open(self) -> None:
        if self.cut:
            return
        if not self.router.bound:
            self.lost = True
            return
        self.router.routes[self.route] = self.router.all[self.route] = self
        self.connected = True

    def send(self, frame: bytes) -> bool:
        """By the dealer. False: it is known that nobody hears."""
        if not self.connected or self.lost:
            return False
        if not self.cut:
            self.rising.append(frame)
            self._last_up = max(self._last_up, self.clock.now + self._delay())
            self.clock.after(self._last_up - self.clock.now, self._arrived)
        return True

    def to_dealer(self, frame: bytes) -> None:
        if not self.cut:
            self._falling.append(frame)
            self._last_down = max(self._last_down, self.clock.now + self._delay())
            self.clock.after(self._last_down - self.clock.now, self._fell)

    def _arrived(self) -> None:
        if self.rising and self.router.bound:
            self.router.inbox.append((self.route, self.rising.popleft()))
            self.router.wake()

    def _fell(self) -> None:
        if self._falling and not self.cut:
            self._on_frame(self._falling.popleft())

    def reset(self) -> None:
        """Somewhere between the two. Both sides learn of it in their own time."""
        if self.cut:
            return
        self.cut = True
        self._falling.clear()
        for _ in range(self.clock.rng.randint(0, len(self.rising))):
            self.rising.pop()
        self.clock.after(self.clock.rng.random() * 0.03, self._dealer_learns)
        self.clock.after(self.clock.rng.random() * 0.03, self._router_learns)

    def close(self, gently: bool = True) -> None:
        """By the dealer, or by the death of its process (then what had not left is lost)."""
        self.lost = True
        if self.cut:
            return
        self.cut = True
        self._falling.clear()
        if not gently:
            for _ in range(self.clock.rng.randint(0, len(self.rising))):
                self.rising.pop()
        self.clock.after(max(0.0, self._last_up - self.clock.now) + self._delay(), self._router_learns)

    def _dealer_learns(self) -> None:
        self.lost = True

    def _router_learns(self) -> None:
        self.router.routes.pop(self.route, None)
