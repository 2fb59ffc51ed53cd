from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rota.master.core.plan import Allocation, Room, allocate

SERVICES = ("a", "b", "c")
rooms = st.lists(
    st.builds(
        Room,
        st.just(""),
        st.integers(1, 6),
        st.lists(st.sampled_from(SERVICES), unique=True).map(tuple),
        st.dictionaries(st.sampled_from(SERVICES), st.integers(0, 6)),
    ),
    max_size=6,
).map(lambda found: [room._replace(name=f"n{place}") for place, room in enumerate(found)])
targets = st.dictionaries(st.sampled_from(SERVICES), st.one_of(st.none(), st.integers(0, 20)))


def total(plan: Allocation, service: str) -> int:
    return sum(each.get(service, 0) for each in plan.values())


def offered(service: str, rooms: list[Room]) -> int:
    return sum(room.capacity for room in rooms if service in room.offers)


def room(name: str, capacity: int, *offers: str, **running: int) -> Room:
    return Room(name, capacity, offers, running)


@given(targets, rooms)
def test_no_node_gets_more_than_it_has_room_for_or_what_it_does_not_offer(
    wanted: dict[str, int | None], found: list[Room]
) -> None:
    plan = allocate(wanted, found)
    for each in found:
        assert sum(plan[each.name].values()) <= each.capacity
        assert set(plan[each.name]) <= set(each.offers)
        assert all(count > 0 for count in plan[each.name].values())


@given(targets, rooms)
def test_no_service_gets_more_than_it_wants(wanted: dict[str, int | None], found: list[Room]) -> None:
    plan = allocate(wanted, found)
    for service, count in wanted.items():
        assert count is None or total(plan, service) <= count
        assert total(plan, service) <= offered(service, found)


@given(st.integers(0, 30), rooms)
def test_a_single_service_gets_all_that_it_wants_if_there_is_room(count: int, found: list[Room]) -> None:
    assert total(allocate({"a": count}, found), "a") == min(count, offered("a", found))


@given(targets, rooms)
def test_what_follows_its_own_plan_is_left_alone(wanted: dict[str, int | None], found: list[Room]) -> None:
    plan = allocate(wanted, found)
    assert allocate(wanted, [each._replace(running=plan[each.name]) for each in found]) == plan


def test_a_service_is_spread_so_that_no_loss_takes_more_than_its_part() -> None:
    plan = allocate({"a": 6}, [room("n1", 4, "a"), room("n2", 4, "a"), room("n3", 4, "a")])
    assert plan == {"n1": {"a": 2}, "n2": {"a": 2}, "n3": {"a": 2}}


def test_a_larger_node_gets_more() -> None:
    assert allocate({"a": 6}, [room("n1", 8, "a"), room("n2", 4, "a")]) == {"n1": {"a": 4}, "n2": {"a": 2}}


def test_among_equals_processes_stay_where_they_are() -> None:
    assert allocate({"a": 1}, [room("n1", 2, "a"), room("n2", 2, "a", a=1)]) == {"n1": {}, "n2": {"a": 1}}


def test_what_nobody_sized_runs_all_that_is_offered() -> None:
    assert allocate({"a": None}, [room("n1", 3, "a"), room("n2", 2, "a")]) == {"n1": {"a": 3}, "n2": {"a": 2}}


def test_services_without_a_size_share_what_is_left() -> None:
    assert allocate({"a": None, "b": None, "c": 1}, [room("n1", 4, "a", "b", "c")]) == {"n1": {"c": 1, "a": 2, "b": 1}}
    three = allocate({"a": None, "b": None, "c": None}, [room("n1", 7, "a", "b", "c"), room("n2", 2, "a", "b", "c")])
    assert three == {"n1": {"a": 3, "b": 2, "c": 2}, "n2": {"a": 1, "b": 1}}
