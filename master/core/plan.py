"""How many processes of which service each node is to run: a pure function of what is wanted and what there is."""

from __future__ import annotations

from typing import NamedTuple


class Room(NamedTuple):
    """A node that may be given processes."""

    name: str
    capacity: int
    offers: tuple[str, ...]
    running: dict[str, int]  # service → processes that it has now: where they are they stay, if that is as good


Allocation = dict[str, dict[str, int]]  # node → service → processes


def allocate(targets: dict[str, int | None], rooms: list[Room]) -> Allocation:
    """Spreads each service's target over the nodes; None = all that is left, divided among those that want it."""
    plan: Allocation = {room.name: {} for room in rooms}
    free = {room.name: room.capacity for room in rooms}
    for service, target in sorted(targets.items()):
        if target is not None:
            _spread(service, target, rooms, plan, free)
    for room in rooms:
        greedy = sorted(service for service in room.offers if targets.get(service, 0) is None)
        for place, service in enumerate(greedy):
            left = len(greedy) - place
            share = -(-free[room.name] // left)  # the first ones get what does not divide
            if share:
                plan[room.name][service] = share
                free[room.name] -= share
    return plan


def _spread(service: str, target: int, rooms: list[Room], plan: Allocation, free: dict[str, int]) -> None:
    """Gives one process at a time to the node that is the least full, so that no node's loss takes more
    than its part.
    """
    offering = [room for room in rooms if service in room.offers]
    for _ in range(target):
        open_rooms = [room for room in offering if free[room.name] > 0]
        if not open_rooms:
            return

        def fullness(room: Room) -> tuple[float, bool, str]:
            has = plan[room.name].get(service, 0)
            return has / room.capacity, has >= room.running.get(service, 0), room.name

        best = min(open_rooms, key=fullness).name
        plan[best][service] = plan[best].get(service, 0) + 1
        free[best] -= 1
