"""Which service a request goes to."""

import pytest

from rota.common.settings import ServiceHttpSettings
from rota.gateway.core.routes import HOSTS_MAX, Routes, routes


def table(**services: tuple[str, ...]) -> Routes:
    return routes({name: ServiceHttpSettings(routes=own) for name, own in services.items()})


def found(known: Routes, host: bytes, target: bytes) -> tuple[str, str] | None:
    route = known.find(host, target)
    return (route.service, route.root) if route else None


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/", ("site", "")),
        (b"/shop", ("shop", "/shop")),
        (b"/shop/", ("shop", "/shop")),
        (b"/shop/cart?x=1", ("shop", "/shop")),
        (b"/shop?x=/admin", ("shop", "/shop")),
        (b"/shopping", ("site", "")),
        (b"/shop/admin/x", ("admin", "/shop/admin")),
        (b"/SHOP", ("site", "")),
        (b"/%73hop", ("site", "")),
        (b"*", ("site", "")),
    ],
)
def test_the_longest_prefix_that_ends_at_a_segment_wins(target: bytes, expected: tuple[str, str]) -> None:
    known = table(site=("/",), shop=("/shop/",), admin=("/shop/admin",))
    assert found(known, b"example.com", target) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"api.example.com", "api"),
        (b"API.Example.COM:8080", "api"),
        (b"api.example.com.", "api"),
        (b"api.example.com:", "api"),
        (b"www.example.com", "site"),
        (b"", "site"),
        (b"[::1]", "six"),
        (b"[::1]:8080", "six"),
        (b"\xff", "site"),
    ],
)
def test_an_exact_host_wins_over_any_whatever_its_spelling_and_port(host: bytes, expected: str) -> None:
    known = table(site=("/", "/v1/long/prefix"), api=("api.example.com/",), six=("[::1]/",))
    for target in (b"/", b"/v1/long/prefix"):
        route = known.find(host, target)
        assert route is not None and route.service == expected


def test_what_no_route_takes_has_none() -> None:
    known = table(api=("api.example.com/v1",))
    assert known.find(b"api.example.com", b"/v2") is None
    assert known.find(b"other.example.com", b"/v1") is None
    assert not table() and known.services == ["api"]


def test_a_route_that_two_services_claim_is_refused() -> None:
    with pytest.raises(ValueError, match="claimed by a and by b"):
        table(a=("/shop",), b=("/shop/",))
    assert table(a=("/shop", "/shop/"))


def test_safe_methods_and_those_of_the_setting_go_to_the_handler_that_may_run_again() -> None:
    known = routes({"site": ServiceHttpSettings(retry_methods=("PUT",))}, [("/", "site")])
    route = known.find(b"", b"/")
    assert route is not None
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        assert route.target(method) == "site.http-safe"
    for method in ("POST", "DELETE", "PATCH", "TRACE", "get"):
        assert route.target(method) == "site.http"


def test_hosts_that_clients_make_up_are_not_remembered_without_end() -> None:
    known = table(site=("/",))
    for number in range(2 * HOSTS_MAX + 5):
        assert known.find(b"host-%d" % number, b"/x") is not None
    assert len(known._seen) <= HOSTS_MAX
