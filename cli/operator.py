"""What every verb that asks a master has in common: where the master is, JSON or text, how errors end it."""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EPIPE
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from ..common import exits
from ..common.addresses import MASTER_VARIABLE, control_addresses
from ..common.limits import CONTROL_PORT
from .main import JSON_WANTED
from .verb import Failed, Mistake

if TYPE_CHECKING:
    from types import FrameType

    from ..client.admin import Admin
    from .render import Paint

LOOK_S = 5.0  # who only looks wants to know soon that there is nobody
TAKEN_S = 30.0  # for a verb to be taken, if it has so long: a restart of the master meanwhile is no failure
FIRST_TRY_S = 2.0
TELL_AFTER_S = 3.0  # of silence
_AGAIN_S = 0.2
_NEVER = 1 << 62  # no event has a higher number: the shortest answer there is

Reply = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Whole(click.IntRange):
    name = "whole number"  # click calls an x that is no number "not a valid integer range"


class Number(click.FloatRange):
    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if isnan(number):  # it is neither below nor above the range
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return number


class OneOf(click.Choice[str]):
    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        return ""  # click's has a line for each of them; the metavar has said it


def _addresses(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    if not all(given):  # of a script whose variable is not set
        raise click.BadParameter("it is empty: tcp://HOST:PORT expected", ctx, param)
    try:
        return control_addresses(given)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param, None if given else MASTER_VARIABLE) from None


def _json_flag(ctx: click.Context, param: click.Parameter, given: bool) -> bool:
    ctx.meta[JSON_WANTED] = given
    return given


def _seconds(least: str, most: str, ctx: click.Context, param: click.Parameter, given: str | None) -> float | None:
    from ..common.units import parse_duration

    if given is None:
        return None
    try:
        seconds = parse_duration(given)
    except ValueError as error:
        raise click.BadParameter(f"{error}, not {given!r}", ctx, param) from None
    if not parse_duration(least) <= seconds <= parse_duration(most):
        raise click.BadParameter(f"must be from {least} to {most}, not {given!r}", ctx, param)
    return seconds


master_option = click.option(
    "-m",
    "--master",
    "masters",
    metavar="ADDRESS",
    multiple=True,
    callback=_addresses,
    help="Control address of the master; several with commas."
    f" Default: {MASTER_VARIABLE}, else tcp://127.0.0.1:{CONTROL_PORT}.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, callback=_json_flag, help="Print the reply as JSON on stdout."
)
reason_option = click.option("--reason", metavar="TEXT", default="", help="Why; shown in status and events.")


def seconds_option(
    *names: str, default: str | None = None, least: str = "0s", most: str = "365d", help: str
) -> Callable[[F], F]:
    """An option that takes a duration: "30s", "1m", or a number of seconds."""
    shown = f"{help} Default: {default}." if default else help
    read = functools.partial(_seconds, least, most)
    return click.option(*names, metavar="DURATION", default=default, callback=read, help=shown)


def waits(default: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command --wait, --no-wait and --timeout. It receives `ends`: when all its time is over; None: it is not to
    wait.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def gather(*args: Any, wait: bool, timeout: float, **more: Any) -> Any:
            if not wait and given("timeout"):
                raise Mistake("--timeout says how long to wait, --no-wait not to wait: use one of them")
            return command(*args, ends=time.monotonic() + timeout if wait else None, **more)

        what = "Return when it is done (the default), or at once."
        both = click.option("--wait/--no-wait", default=True, help=what)
        return both(seconds_option("--timeout", default=default, help=help)(gather))

    return decorate


def left(ends: float | None) -> float:
    """Seconds in which a verb is to be taken, by a master that may have to be looked for."""
    return TAKEN_S if ends is None else min(TAKEN_S, ends - time.monotonic())


def given(parameter: str) -> bool:
    """Does it stand in the command line? (What says nothing there is a mistake, rather than ignored.)"""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def admin(masters: Sequence[str]) -> Admin:
    """To be used in a `with`."""
    from ..client.admin import Admin

    return Admin(masters)


@contextmanager
def looking(masters: Sequence[str]) -> Iterator[Admin]:
    """The same for verbs that change nothing, with LOOK_S as their timeout: who is silent for that long is not there.
    Nothing is under way, as exit 75 would say.
    """
    from ..common.errors import Timeout

    try:
        with admin(masters) as master:
            yield master
    except Timeout as error:
        raise Failed(str(error), exits.UNREACHABLE) from None


def patient_admin(masters: Sequence[str], patience_s: float = TAKEN_S) -> Admin:
    """The same for verbs that change something, or wait: they outlast a restart of the master, and say so meanwhile.

    patience_s: for how long the verb will try. One that does not try for longer than this says itself, and as soon,
    that nobody is there; of any other at least half is left to the verb.
    """
    from ..common.errors import Timeout, Unavailable

    master = admin(masters)
    if patience_s <= FIRST_TRY_S:
        return master
    try:
        master.verb("events", {"since": _NEVER}, min(FIRST_TRY_S, patience_s / 2))
    except (Timeout, Unavailable) as error:
        from .nowhere import cannot_resolve
        from .render import duration

        tell(f"{error}{cannot_resolve(error)}; trying for {duration(patience_s)}")
    return master


def waited(master: Admin, reply: Reply, begun: str, as_json: bool, condition: str, *names: str, ends: float) -> Reply:
    """Say what has begun, and wait until it is so: the reply, with `waited_s`."""
    if begun and not as_json:
        tell(begun)
    try:
        return {**reply, "waited_s": wait(master, condition, *names, ends=ends)["waited_s"]}
    except KeyboardInterrupt:
        sentence = "interrupted; what was asked for goes on: `rota status` shows how far it is"
        raise Failed(sentence, exits.INTERRUPTED) from None


def wait(master: Admin, condition: str, *names: str, ends: float) -> Reply:
    """Wait until it is so. What it hangs on is told after a while: a name may be wrong, or nobody be there."""
    from ..common.errors import Timeout, Unavailable
    from .render import duration

    began = time.monotonic()
    timeout = ends - began
    try:
        return master.wait(condition, *names, timeout=min(timeout, TELL_AFTER_S))
    except (Timeout, Unavailable) as error:
        if timeout <= TELL_AFTER_S:
            raise
        tell(f"{error}; waiting for {duration(timeout - TELL_AFTER_S)} more")
    try:
        reply = master.wait(condition, *names, timeout=ends - time.monotonic())
    except Timeout as error:
        error.details["waited_s"] = time.monotonic() - began
        raise
    return {**reply, "waited_s": time.monotonic() - began}


def show(reply: Reply, as_json: bool, lines: Callable[[], Sequence[str]]) -> None:
    """The reply as it came, or as lines for people."""
    if as_json:
        print_json(reply)
    else:
        click.echo("\n".join(lines()))


def print_json(reply: Reply) -> None:
    click.echo(json.dumps({"schema": 1, **reply}, default=str))


@contextmanager
def while_read() -> Iterator[None]:
    """BrokenPipeError as soon as whoever read stdout has gone (`| head`): what goes on without end would learn of it
    only by the next thing that it writes.
    """
    main = threading.main_thread().ident
    assert main is not None
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGPIPE, _unread)
    watch = threading.Thread(target=_watch_reader, args=(reader, main), daemon=True)
    watch.start()
    try:
        yield
    finally:
        os.close(writer)
        watch.join()
        os.close(reader)
        signal.signal(signal.SIGPIPE, before)


def _watch_reader(until: int, main: int) -> None:
    """A pipe of which all readers are closed has an error, a socket or a terminal a hang-up; a file never has one."""
    poll = select.poll()
    poll.register(1, 0)
    poll.register(until, 0)
    while until not in dict(poll.poll()):
        signal.pthread_kill(main, signal.SIGPIPE)
        select.select([until], [], [], _AGAIN_S)  # a signal that comes just before a sleep begins does not end it


def _unread(number: int, frame: FrameType | None) -> None:
    raise BrokenPipeError(EPIPE, os.strerror(EPIPE))


def tell(sentence: str) -> None:
    """A message, not data: on stderr."""
    click.echo(sentence, err=True)


def paint() -> Paint:
    """Colours on a terminal that has them, unless NO_COLOR is set."""
    from .render import Paint

    return Paint(on_a_screen() and not os.environ.get("NO_COLOR"))


def on_a_screen() -> bool:
    """A terminal that understands more than lines of text."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Of the terminal. Where there is none a line is as long as it is: what reads it looks for whole sentences."""
    return max(40, shutil.get_terminal_size((sys.maxsize, 24)).columns)


def pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """`k=v` texts as a dict; a Mistake for what is none, and for a name that stands there twice."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Mistake(f"{what}: name=value expected, not {text!r}")
        if name in found:
            raise Mistake(f"{what} {name} is given twice")
        found[name] = value
    return found
