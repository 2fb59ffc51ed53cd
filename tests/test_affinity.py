"""Whose a request is, by cookie or header, and the cookie that says so."""

from __future__ import annotations

import pytest

from rota.common.settings import ServiceHttpSettings
from rota.gateway.core.affinity import Affinity, add_cookie
from rota.gateway.core.routes import routes

OURS = "0123456789abcdef" * 2


def made(size: int) -> str:
    assert size == 16
    return OURS


def affinity(setting: str, cookie: str = "rota_session") -> Affinity:
    known = routes({"site": ServiceHttpSettings(routes=("/",), affinity=setting, affinity_cookie=cookie)})
    route = known.find(b"", b"/")
    assert route is not None and route.affinity is not None
    return route.affinity


def test_a_service_without_affinity_has_none() -> None:
    route = routes({"site": ServiceHttpSettings(routes=("/",))}).find(b"", b"/")
    assert route is not None and route.affinity is None


@pytest.mark.parametrize(
    ("root", "scheme", "expected"),
    [
        ("", "http", f"rota_session={OURS}; Path=/; HttpOnly; SameSite=Lax"),
        ("/shop", "http", f"rota_session={OURS}; Path=/shop; HttpOnly; SameSite=Lax"),
        ("", "https", f"rota_session={OURS}; Path=/; HttpOnly; SameSite=Lax; Secure"),
    ],
)
def test_a_client_without_a_cookie_gets_one_for_its_route(root: str, scheme: str, expected: str) -> None:
    assert affinity("cookie").session([], root, scheme, made) == (OURS, expected.encode())


@pytest.mark.parametrize(
    "cookies",
    [
        [b"rota_session=" + OURS.encode()],
        [b"a=b; rota_session=" + OURS.encode() + b"; c=d"],
        [b"a=b", b"c=d;rota_session=" + OURS.encode()],
        [b"rota_session=" + OURS.encode() + b"; rota_session=" + b"f" * 32],  # of the longer path first
        [b"rota_session=of the application; rota_session=" + OURS.encode()],
    ],
)
def test_a_client_with_the_cookie_keeps_its_session(cookies: list[bytes]) -> None:
    fields = [(b"host", b"x"), *((b"cookie", each) for each in cookies)]
    assert affinity("cookie").session(fields, "", "http", lambda size: "new") == (OURS, b"")


@pytest.mark.parametrize(
    "value", [b"", b"x", OURS.upper().encode(), OURS.encode() + b"0", b'"' + OURS.encode() + b'"', b"f" * 4000]
)
def test_what_was_not_made_here_is_no_session(value: bytes) -> None:
    session, cookie = affinity("cookie").session([(b"cookie", b"rota_session=" + value)], "", "http", made)
    assert session == OURS and cookie


def test_the_name_of_the_cookie_is_a_setting() -> None:
    ours = affinity("cookie", "place")
    assert ours.session([(b"cookie", b"rota_session=" + b"f" * 32)], "", "http", made)[1].startswith(b"place=")


def test_a_header_says_it_whatever_its_case_in_the_settings() -> None:
    by_header = affinity("header:X-Session")
    assert by_header.session([(b"x-session", b"user-42")], "", "http", made) == ("user-42", b"")


@pytest.mark.parametrize("values", [[], [b""], [b"a", b"b"], [b"two words"], [b"x" * 256], [b"caf\xe9"]])
def test_a_request_without_a_proper_header_has_no_session(values: list[bytes]) -> None:
    fields = [(b"x-session", value) for value in values]
    assert affinity("header:X-Session").session(fields, "", "http", made) == ("", b"")


def test_the_cookie_stands_beside_those_of_the_application() -> None:
    headers: list[object] = [[b"Set-Cookie", b"sessionid=1; Path=/"]]
    add_cookie(headers, b"rota_session=1; Path=/")
    assert headers == [[b"Set-Cookie", b"sessionid=1; Path=/"], (b"set-cookie", b"rota_session=1; Path=/")]


def test_a_cookie_of_the_application_with_that_name_wins() -> None:
    headers: list[object] = [[b"Set-Cookie", b"rota_session = mine"]]
    add_cookie(headers, b"rota_session=1; Path=/")
    assert headers == [[b"Set-Cookie", b"rota_session = mine"]]
    headers = [[b"X-Note", b"rota_session = mine"]]  # which is no cookie
    add_cookie(headers, b"rota_session=1; Path=/")
    assert len(headers) == 2
