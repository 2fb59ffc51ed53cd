"""Command line options made of the declarations, and what every command does with them.

@main.command()
@config_option
@options(MasterSettings)
def master(config_file: str | None, flags: dict[str, object]) -> None:
    config = load_or_exit(config_file, flags)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from ..common import config
from ..common.declare import Setting, declared
from ..common.exits import BAD_CONFIG
from ..common.kinds import Boolean, Choice, Kind, Optional
from ..common.settings import SECTIONS

_F = TypeVar("_F", bound=Callable[..., Any])


class FilePath(click.Path):
    """The name of a file. An empty one is of a script whose variable is not set."""

    def __init__(self, path_type: type[Any] | None = None) -> None:
        super().__init__(dir_okay=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not value:
            self.fail("it is empty: a file expected", param, ctx)
        return super().convert(value, param, ctx)


config_option = click.option(
    "-c",
    "--config",
    "config_file",
    metavar="FILE",
    envvar="ROTA_CONFIG",
    type=FilePath(),
    help="Read settings from this file (rota.toml).",
)


def options(section: type[Any], only: Collection[str] = ()) -> Callable[[_F], Callable[..., Any]]:
    """Give a command the flags of a section, of all its keys or of some.

    The command receives `flags`: "section.key" -> value, of what was given. It may be used once
    a section; the flags of all are put together.
    """
    chosen = [setting for key, setting in declared(section).items() if setting.flags and (not only or key in only)]

    def decorate(command: _F) -> Callable[..., Any]:
        @functools.wraps(command)
        def gather(*args: Any, flags: dict[str, object] | None = None, **kwargs: Any) -> Any:
            given = {setting.name: kwargs.pop(_parameter(setting)) for setting in chosen}
            mine = {name: value for name, value in given.items() if value is not None}
            return command(*args, flags={**(flags or {}), **mine}, **kwargs)

        for setting in reversed(chosen):
            _declare(setting)(gather)
        return gather

    return decorate


def as_written(section: type[Any], key: str) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """The callback of an option of its own that is checked as this setting is, and given on as it is written: "off" is
    to win over a file.
    """
    kind = declared(section)[key].kind

    def read(ctx: click.Context, param: click.Parameter, given: str | None) -> str | None:
        _read(kind, ctx, param, given)
        return given

    return read


def arguments_of(flags: Mapping[str, object]) -> list[str]:
    """The flags of a section as words of a command line, for a command that starts another one."""
    words: list[str] = []
    for setting in (setting for section in SECTIONS.values() for setting in declared(section).values()):
        if setting.name in flags and setting.flags:
            words += _words(setting, flags[setting.name])
    return words


def _words(setting: Setting, value: Any) -> list[str]:
    flag = setting.flags[-1]
    if not flag.startswith("-"):
        return [value]
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, Mapping):
        return [word for key, item in value.items() for word in (flag, f"{key}={item}")]
    return [flag, ",".join(value) if isinstance(value, tuple) else str(value)]


def load_or_exit(config_file: str | None, flags: dict[str, object] | None = None) -> config.Config:
    """The configuration, or all its mistakes on stderr and exit 78."""
    try:
        return config.load(config_file, flags=flags)
    except config.ConfigErrors as errors:
        raise BadConfig(str(errors)) from None


class BadConfig(click.ClickException):
    """All mistakes of a configuration, a line each."""

    exit_code = BAD_CONFIG

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


def _declare(setting: Setting) -> Callable[[Any], Any]:
    name, kind = _parameter(setting), setting.kind
    read = functools.partial(_read, kind)
    if not setting.flags[0].startswith("-"):
        return click.argument(name, metavar=f"[{setting.flags[0]}]", required=False, callback=read)
    help_text = f"{setting.what[0].upper()}{setting.what[1:]}.{_default(setting)}"
    if isinstance(kind, Boolean):
        flag = setting.flags[0]
        both = f"{flag}/{flag.replace('--', '--no-', 1)}"
        return click.option(both, name, default=None, help=help_text)
    return click.option(
        *setting.flags,
        name,
        metavar=_metavar(kind.kind if isinstance(kind, Optional) else kind),
        multiple=kind.repeats,
        callback=read,
        help=help_text,
    )


def _default(setting: Setting) -> str:
    """As it would be typed; nothing where there is none."""
    if setting.default is None or setting.default is False or setting.default == {}:
        return ""
    if isinstance(setting.default, tuple):
        return f" Default: {','.join(setting.default)}."
    shown = setting.show_default()
    bare = shown.strip('"')
    return f" Default: {bare if bare[-1].isalnum() else shown}."  # "." stays as it is


def _metavar(kind: Kind) -> str:
    return f"[{'|'.join(kind.words)}]" if isinstance(kind, Choice) else kind.metavar


def _read(kind: Kind, ctx: click.Context, param: click.Parameter, given: Any) -> Any:
    """A flag's value, checked as its setting is; a mistake here is one of usage (exit 2), and so is an empty value: a
    script whose variable is not set must not begin a master without its state, or a second one alone.

    -m a -m b and -m a,b are the same.
    """
    if given is None or given == ():
        return None
    try:
        return kind.read_text(",".join(given) if isinstance(given, tuple) else given)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _parameter(setting: Setting) -> str:
    return setting.name.replace(".", "__")
