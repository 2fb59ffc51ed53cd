"""rota gateway: an HTTP front door; and with what `rota run` and `rota master` start one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

from ..common import entries, exits
from ..common.collector import loading
from ..common.kinds import ROUTE, Name
from ..common.settings import HttpSettings, ServiceHttpSettings
from .options import BadConfig, arguments_of, as_written, config_option, load_or_exit, options
from .verb import Failed, Mistake, verb

if TYPE_CHECKING:
    from ..common.config import Config
    from ..gateway.server import Start

Pairs = tuple[tuple[str, str], ...]
_TLS = ("tls_certificate", "tls_key")  # settings that a gateway beside something else has flags for


def _read_routes(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> Pairs:
    return tuple(_read_route(text, ctx, param) for text in given)


def _read_route(text: str, ctx: click.Context, param: click.Parameter) -> tuple[str, str]:
    """`api.example.com/v1=site`."""
    prefix, equals, service = text.rpartition("=")
    if not equals:
        raise click.BadParameter(f"{text!r}: [HOST]/PREFIX=SERVICE expected, such as /=shop", ctx, param)
    for part, kind, value in (("[HOST]/PREFIX", ROUTE, prefix), ("SERVICE", Name(), service)):
        try:
            kind.read(value)
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {part} {error}", ctx, param) from None
    return prefix, service


route_option = click.option(
    "--route",
    "more_routes",
    metavar="[HOST]/PREFIX=SERVICE",
    multiple=True,
    callback=_read_routes,
    help="Requests for this host and path go to this service, besides the routes of [service.NAME.http].",
)


def http_option(command: Any) -> Any:
    """`--http` and the flags of TLS, among the `flags` of a command that starts a gateway beside something else."""

    @wraps(command)
    def gather(*args: Any, flags: dict[str, object], http: str | None, **kwargs: Any) -> Any:
        return command(*args, flags=flags if http is None else {**flags, "http.bind": http}, **kwargs)

    what = "Run a gateway, too, that takes HTTP requests here. Default: off."
    bind = click.option("--http", metavar="HOST:PORT", callback=as_written(HttpSettings, "bind"), help=what)
    return bind(options(HttpSettings, only=_TLS)(gather))


def check_address(config: Config, flags: Collection[str]) -> None:
    """A Mistake: there are flags of HTTPS, and no gateway that they could be for."""
    if config.http.bind is None and any(f"http.{key}" in flags for key in _TLS):
        raise Mistake("--tls-cert and --tls-key are for HTTP requests: say --http HOST:PORT, too")


@verb(
    "gateway",
    examples=(
        "rota gateway -m tcp://master:7700 --route /=site",
        "rota gateway --bind 0.0.0.0:80 --route /=site --route api.example.com/v1=api",
        "rota gateway -c /etc/rota.toml         routes = [...] in [service.NAME.http]",
    ),
    exits=(exits.FAILED, exits.BAD_CONFIG),
)
@config_option
@options(HttpSettings)
@route_option
def gateway(config_file: str | None, flags: dict[str, object], more_routes: Pairs) -> None:
    """Run an HTTP front door.

    It takes HTTP requests (with --tls-cert, HTTPS) and gives each to a process of the service that its host and path
    stand for. GET /-/ready answers 200 while there are such processes. TERM lets what is being served finish; a second
    one ends at once.
    """
    with loading():
        from ..common.inuse import PortInUse
        from ..gateway.certificate import BadCertificate
        from ..gateway.core.pages import BadPage
        from ..gateway.server import main

    start = start_of(load_or_exit(config_file, flags), more_routes)
    if not start.served():
        raise Mistake('which service is it for? Say --route /=NAME, or routes = ["/"] in [service.NAME.http] of a file')
    try:
        sys.exit(main(start))
    except (BadPage, BadCertificate) as error:
        raise Failed(str(error), exits.BAD_CONFIG) from None
    except PortInUse as error:
        raise Failed(str(error)) from None


def start_of(config: Config, more_routes: Pairs) -> Start:
    """What a gateway with this configuration is started with. Failed: two services claim one route."""
    from ..gateway.core.routes import Claimed, routes
    from ..gateway.server import Start

    services = http_services(config)
    try:
        return Start(config.http, routes(services, more_routes), services)
    except Claimed as error:
        raise Failed(str(error), exits.BAD_CONFIG) from None


def http_services(config: Config) -> dict[str, ServiceHttpSettings]:
    return {name: service.http for name, service in config.services.items()}


def arguments(config_file: str | None, http: HttpSettings, masters: str, routes: Pairs) -> list[str]:
    """The command line of a gateway beside the first of these masters."""
    file = ["-c", config_file] if config_file else []
    said = {f"http.{key}": getattr(http, key) for key in ("bind", *_TLS)}
    own = arguments_of({name: value for name, value in said.items() if value is not None})
    more = [word for prefix, service in routes for word in ("--route", f"{prefix}={service}")]
    return ["gateway", *file, *own, "--master", masters, *more]


def has_routes(config: Config) -> bool:
    return any(service.http.routes for service in config.services.values())


def check(config: Config) -> None:
    """BadConfig where a gateway with this configuration would not start."""
    if wrong := mistakes(config):
        raise BadConfig("\n".join(map(str, wrong)))


def mistakes(config: Config) -> list[entries.Mistake]:
    """Routes, pages and certificates with which a gateway would not start, and where the configuration names them."""
    from ..gateway.certificate import BadCertificate
    from ..gateway.core.pages import BadPage
    from ..gateway.core.routes import Claimed, routes
    from ..gateway.pages import ServicePages
    from ..gateway.server import certificate_of

    readers: dict[str, Callable[[], object]] = {
        entries.dotted("service", name, "http", "pages"): partial(ServicePages, {name: service.http.pages})
        for name, service in config.services.items()
        if service.http.pages
    }
    readers["http.tls_certificate"] = partial(certificate_of, config.http)
    wrong = []
    try:
        routes(http_services(config))
    except Claimed as error:
        key = entries.dotted("service", error.service, "http", "routes")
        wrong.append(entries.Mistake(config.places[key], key, f"cannot be used: {error}"))
    for key, read in readers.items():
        try:
            read()
        except (BadPage, BadCertificate) as error:
            place = config.places.get(key, config.places.get("http.tls_key", entries.Place("default")))
            wrong.append(entries.Mistake(place, key, f"cannot be used: {error}"))
    return wrong
