"""rota config check | show | init."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..common import config
from ..common.entries import Entry, Mistake, dotted
from ..common.example import example
from ..common.exits import BAD_CONFIG, FAILED
from .gateway import mistakes
from .operator import json_option
from .options import BadConfig, FilePath, config_option, load_or_exit
from .verb import Failed, VerbGroup, verb
from .verb import Mistake as WrongLine

SCHEMA = 1


def _also_as_argument(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
    """FILE is what -c says."""
    if given is not None:
        if ctx.get_parameter_source("config_file") is ParameterSource.COMMANDLINE:
            raise WrongLine(f"{given} and -c {ctx.params['config_file']}: say one file")
        ctx.params["config_file"] = given
    return given


_file_argument = click.argument("file", required=False, expose_value=False, type=FilePath(), callback=_also_as_argument)


@click.group("config", cls=VerbGroup)
def config_group() -> None:
    """Check, show or start a configuration."""


@verb("check", examples=("rota config check /etc/rota.toml",), exits=(BAD_CONFIG,))
@_file_argument
@config_option
@json_option
def check(config_file: str | None, as_json: bool) -> None:
    """Say what is wrong with a configuration.

    The configuration is FILE and the environment. What it names must be there, too: pages, certificates, passwords,
    and psycopg for a lease in PostgreSQL.
    """
    try:
        loaded = config.load(config_file)
        if wrong := [*mistakes(loaded), *_of_master(loaded)]:
            raise config.ConfigErrors(wrong)
    except config.ConfigErrors as errors:
        if not as_json:
            raise BadConfig(str(errors)) from None
        _print_json(ok=False, file=config_file, mistakes=[_mistake(m) for m in errors.mistakes])
        raise SystemExit(BAD_CONFIG) from None
    if as_json:
        _print_json(ok=True, file=config_file, mistakes=[])
    else:
        click.echo(f"{config_file or 'the environment'}: no mistakes")


@verb(
    "show",
    examples=("rota config show /etc/rota.toml", "rota config show --json | jq '.settings[].key'"),
    exits=(BAD_CONFIG,),
)
@_file_argument
@config_option
@json_option
def show(config_file: str | None, as_json: bool) -> None:
    """Print every setting in force, and where its value comes from."""
    entries = list(load_or_exit(config_file).effective())
    if as_json:
        _print_json(file=config_file, settings=[_entry(entry) for entry in entries])
    else:
        click.echo(_toml(entries))


@verb(
    "init",
    examples=("rota config init                       to stdout", "rota config init /etc/rota.toml"),
    exits=(FAILED,),
)
@click.argument("path", required=False, type=FilePath(Path))
@click.option("--force", is_flag=True, help="Overwrite the file if there is one.")
def init(path: Path | None, force: bool) -> None:
    """Write a rota.toml with every setting, to PATH or to stdout."""
    if path is None:
        if force:
            raise WrongLine("--force overwrites a file: say PATH, too")
        click.echo(example(), nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(example())
    except FileExistsError:
        raise Failed(f"{path} exists; --force overwrites it") from None
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from None
    click.echo(f"wrote {path}", err=True)


for _command in (check, show, init):
    config_group.add_command(_command)


def _of_master(loaded: config.Config) -> Iterator[Mistake]:
    """An engine with which a master would not start, and passwords that it could not read when it needs them."""
    from ..common.settings import AGENTS
    from ..master.engine import store
    from ..master.send import secret
    from ..master.store import EngineError

    if loaded.standby.lease != AGENTS:
        try:
            store(loaded.standby.lease).close()  # it has not asked it anything: that may be away for a while
        except EngineError as error:
            yield Mistake(loaded.places["standby.lease"], "standby.lease", f"cannot be used: {error}")
    for name, receiver in loaded.notify.items():
        if receiver.password_file is not None:
            key = dotted("notify", name, "password_file")
            try:
                secret(receiver.password_file)
            except (OSError, ValueError) as error:
                yield Mistake(loaded.places[key], key, f"cannot be used: {error}")


def _toml(entries: list[Entry]) -> str:
    """TOML that could be loaded again, with the origin of each value as its comment."""
    parts = []
    for section, own in groupby(entries, key=lambda entry: entry.section):
        lines = [(_assignment(entry), str(entry.place)) for entry in own]
        width = min(60, max(len(line) for line, _ in lines))
        body = [f"{line:{width}}  # {place}" for line, place in lines]
        parts.append("\n".join([f"[{dotted(*section)}]", *body]))
    return "\n\n".join(parts)


def _assignment(entry: Entry) -> str:
    value = entry.setting.kind.show(entry.value)
    return f"{entry.setting.key} = {value}" if value else f"# {entry.setting.key} = none"


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "value": entry.value,
        "source": entry.place.source,
        "place": str(entry.place),
        "reload": entry.setting.reload,
    }


def _mistake(mistake: Mistake) -> dict[str, Any]:
    return {
        "file": mistake.file,
        "line": mistake.line,
        "place": str(mistake.place),
        "key": mistake.key,
        "message": mistake.message,
    }


def _print_json(**reply: Any) -> None:
    click.echo(json.dumps({"schema": SCHEMA, **reply}, default=_plain))


def _plain(value: datetime.time) -> str:
    return f"{value:%H:%M}"
