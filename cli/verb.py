"""How a verb is declared: a command whose help ends with examples and the exit codes that it can have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

from ..common import exits

_MEANING = {
    exits.DONE: "done, or already so",
    exits.FAILED: "tried and failed",
    exits.USAGE: "wrong command line",
    exits.DEGRADED: "degraded",
    exits.NOT_FOUND: "no such name; the nearest ones are shown",
    exits.REFUSED: "refused by a safety rule",
    exits.UNREACHABLE: "no master answers",
    exits.LOAD_FAILED: "the application failed to load",
    exits.UNDER_WAY: "timed out; what was asked for may go on",
    exits.DENIED: "denied",
    exits.BAD_CONFIG: "bad configuration",
    exits.INTERRUPTED: "interrupted while waiting; what was asked for goes on",
}


class Verb(click.Command):
    examples: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for word in args:
            if any("\ud800" <= sign <= "\udfff" for sign in word):  # a byte that could not be decoded
                encoding = sys.getfilesystemencoding()
                raise click.UsageError(f"{word!a} is no text in {encoding}, which the command line is read as", ctx)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            # To set a safety rule aside is nobody's slip of the finger: `--node` must not hear "did you mean --force?".
            error.possibilities = [name for name in error.possibilities or () if name != "--force"]  # type: ignore[misc]
            raise
        for param in self.params:
            given = ctx.params.get(param.name or "") if isinstance(param, click.Argument) else None
            if given == "" or (isinstance(given, tuple) and "" in given):  # of a script whose variable is not set
                raise click.BadParameter("it is empty", ctx, param)
        return rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  {example}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(number), _MEANING[number]) for number in self.exits])


def verb(name: str, *, examples: Iterable[str], exits: Iterable[int] = ()) -> Callable[[Callable[..., Any]], Verb]:
    """As click.command. `exits`: codes beyond done and usage, which every verb has."""

    def decorate(function: Callable[..., Any]) -> Verb:
        command = click.command(name, cls=Verb)(function)
        command.examples = tuple(examples)
        command.exits = tuple(sorted({0, 2, *exits}))
        return command

    return decorate


class VerbGroup(click.Group):
    """Verbs; one that is not there is told with the one that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from ..common.names import did_you_mean

            meant = args[0] if ctx.parent is None else f"{self.name} {args[0]}"
            hint = did_you_mean(args[0], known) or f"; `{ctx.command_path} --help` lists them"
            raise click.UsageError(f"there is no command '{meant}'{hint}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Mistake(click.UsageError):
    """A wrong command line, of which click itself could not know."""


class Failed(click.ClickException):
    """One sentence on stderr and this exit code."""

    def __init__(self, sentence: str, code: int = exits.FAILED) -> None:
        super().__init__(sentence)
        self.exit_code = code  # type: ignore[misc]  # click says ClassVar, and sets it per class
