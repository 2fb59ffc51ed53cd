"""An exception as a page for the developer, or as text for who does not ask for HTML. Only dev mode shows it."""

from __future__ import annotations

import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from html import escape
from itertools import groupby
from reprlib import Repr
from types import TracebackType
from typing import NamedTuple

from ..common.units import plural
from .tracebacks import FRAMES_MAX, name_of, text_of, traceback_text, user_frames

AROUND = 4  # lines of source before and after the one that runs
LOCALS_MAX = 40  # of one frame
CHAIN_MAX = 8  # causes of causes

HTML, TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"

_repr = Repr()
_repr.maxstring = _repr.maxother = 160


class Asked(NamedTuple):
    """What the page says of the request."""

    id: str
    line: str  # GET /path?query
    headers: list[tuple[str, str]]

    def wants_html(self) -> bool:
        return any(name.lower() == "accept" and "text/html" in value.lower() for name, value in self.headers)


class Page(NamedTuple):
    kind: str
    body: bytes


def of_exception(error: BaseException, asked: Asked) -> Page:
    """In the form that the request likes best. Never fails: what cannot be shown is left out."""
    text = told(error, asked)
    if not asked.wants_html():
        return _page(TEXT, text)
    name, message = name_of(error), text_of(error)
    content = "".join(
        [
            _head(name, message, asked),
            "<main>",
            *(_link_of_chain(link) for link in _chain(error)),
            _request(asked),
            f"<section><details><summary>The same as text</summary><pre>{escape(text)}</pre></details></section>",
            "</main>",
        ]
    )
    return _page(HTML, _document(f"{name}: {message}" if message else name, content))


def of_broken_code(text: str, asked: Asked) -> Page:
    """`text`: why what is on disk does not load. The page looks again by itself until it does."""
    cause = text.strip().rpartition("\n")[2]
    name, _, message = cause.partition(": ")
    content = "".join(
        [
            _head(name, message, asked),
            "<main><section><p>The code on disk does not load. The processes that were started before still serve "
            "everything but pages. This page is loaded again when the code is mended.</p>",
            f"<pre class=open>{escape(text.strip())}</pre></section></main>",
            _AGAIN,
        ]
    )
    return _page(HTML, _document(cause, content))


def told(error: BaseException, asked: Asked) -> str:
    """The same for a terminal."""
    return f"request {asked.id}: {asked.line}\n{traceback_text(error)}"


def _page(kind: str, text: str) -> Page:
    return Page(kind, text.encode("utf-8", "backslashreplace"))


# ---- what is shown of an exception ----


class _Link(NamedTuple):
    """One exception of a chain. `because`: how it came of the one after it."""

    error: BaseException
    because: str


def _chain(error: BaseException) -> Iterator[_Link]:
    """The last exception first, then what it came of."""
    seen: set[int] = set()
    link: _Link | None = _Link(error, "")
    while link is not None and id(link.error) not in seen and len(seen) < CHAIN_MAX:
        yield link
        seen.add(id(link.error))
        cause, context = link.error.__cause__, link.error.__context__
        if cause is not None:
            link = _Link(cause, "It was raised because of this:")
        elif context is not None and not link.error.__suppress_context__:
            link = _Link(context, "It was raised while this was being handled:")
        else:
            link = None


def _link_of_chain(link: _Link) -> str:
    error = link.error
    lines = _guarded(lambda: "".join(traceback.format_exception_only(error)), name_of(error))
    heading = f"<h2>{escape(link.because)}</h2>" if link.because else ""
    exception = f"<pre class=open>{escape(lines.strip())}</pre>" if link.because or "\n" in lines.strip() else ""
    return f"<section>{heading}{exception}{''.join(_calls(error.__traceback__))}</section>"


class _Call(NamedTuple):
    file: str
    line: int
    function: str
    values: Mapping[str, object]

    @property
    def own(self) -> bool:
        """Of the application: neither a library nor generated."""
        return not self.file.startswith(_LIBRARIES) and not self.file.startswith("<")


def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(f"{folder}/" for folder in sorted(folders)) + (__file__.rpartition("/worker/")[0] + "/worker/",)


_LIBRARIES = _libraries()


def _calls(frames: TracebackType | None) -> Iterator[str]:
    """The calls of the application open, those of libraries folded together."""
    walked = list(traceback.walk_tb(user_frames(frames)))[-FRAMES_MAX:]
    calls = [_Call(frame.f_code.co_filename, line, frame.f_code.co_qualname, frame.f_locals) for frame, line in walked]
    for own, group in groupby(calls, lambda call: call.own):
        same = list(group)
        if own:
            yield from (_call(call, innermost=call is calls[-1]) for call in same)
            continue
        count = plural(len(same), "call")
        names = ", ".join(dict.fromkeys(_package(call.file) for call in same))
        folded = "" if same[-1] is not calls[-1] or any(call.own for call in calls) else " open"
        inside = "".join(map(_call, same))
        yield f"<details class=library{folded}><summary>{count} in {escape(names)}</summary>{inside}</details>"


def _package(file: str) -> str:
    below = next((file.removeprefix(folder) for folder in _LIBRARIES if file.startswith(folder)), file)
    return below.removeprefix("site-packages/").partition("/")[0].removesuffix(".py")


def _call(call: _Call, innermost: bool = False) -> str:
    where = f"<code>{escape(call.file)}:{call.line}</code> in <code>{escape(call.function)}</code>"
    values = _values(call.values, innermost) if call.own else ""
    return f"<article><h3>{where}</h3>{_source(call)}{values}</article>"


def _source(call: _Call) -> str:
    every = linecache.getlines(call.file)
    first = max(1, call.line - AROUND)
    rows = []
    for number, text in enumerate(every[first - 1 : call.line + AROUND], first):
        here = " class=here" if number == call.line else ""
        rows.append(f"<span{here}><b>{number}</b>{escape(text.rstrip()) or ' '}</span>")
    return f"<pre class=source>{''.join(rows)}</pre>" if rows else ""


def _values(values: Mapping[str, object], is_open: bool) -> str:
    shown = [(name, value) for name, value in values.items() if not name.startswith("__")][:LOCALS_MAX]
    if not shown:
        return ""
    rows = _rows((name, _shown(value)) for name, value in shown)
    return f"<details{' open' if is_open else ''}><summary>local variables</summary><table>{rows}</table></details>"


def _shown(value: object) -> str:
    return _guarded(lambda: _repr.repr(value), "(cannot be shown)")


def _request(asked: Asked) -> str:
    rows = _rows([("request", asked.line), ("id", asked.id), *asked.headers])
    return f"<section><details open><summary>Request</summary><table>{rows}</table></details></section>"


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in pairs)


def _guarded(show: Callable[[], str], otherwise: str) -> str:
    """repr and str are the application's code, and it is broken already."""
    try:
        return show()
    except Exception:
        return otherwise


# ---- the document ----


def _head(name: str, message: str, asked: Asked) -> str:
    return (
        f"<header><p>{escape(asked.line)} <small>request {escape(asked.id)}</small></p>"
        f"<h1>{escape(name)}</h1><p class=message>{escape(message)}</p></header>"
    )


def _document(title: str, content: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)[:120]}</title><style>{_STYLE}</style></head>\n<body>{content}"
        "<footer>Shown because this is <code>rota run --reload</code>. Without it nobody sees more than "
        "&ldquo;Internal Server Error&rdquo;.</footer></body></html>\n"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --paper: #fff; --fold: #f6f8fa;
  --mark: #ffebe9; --edge: #cf222e; --band: #82071e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --paper: #0d1117;
  --fold: #161b22; --mark: #4a1518; --edge: #f85149; --band: #67060c; } }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
header { background: var(--band); color: #fff; padding: 1.4rem max(1.5rem, calc(50vw - 34rem)); }
header p { margin: 0; overflow-wrap: anywhere; } header small { opacity: .75; margin-left: 1em; white-space: nowrap; }
h1 { font: 600 1.5rem/1.3 ui-monospace, monospace; margin: .5rem 0 .1rem; overflow-wrap: anywhere; }
.message { font-size: 1.15rem; white-space: pre-wrap; }
main, footer { max-width: 71rem; margin: 0 auto; padding: .5rem 1.5rem; }
section { margin: 1.2rem 0; }
h2 { font-size: 1rem; margin: 2rem 0 .4rem; }
h3 { font-size: .85rem; font-weight: 400; color: var(--soft); margin: 0; padding: .5rem .8rem;
  overflow-wrap: anywhere; }
article { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; overflow: hidden; }
code, pre, table { font-family: ui-monospace, monospace; font-size: .85rem; }
h3 code:first-child { color: var(--ink); }
pre { margin: 0; overflow-x: auto; line-height: 1.55; }
pre.open, section > details > pre { border: 1px solid var(--line); border-radius: 6px; padding: .8rem; }
pre.open { border-left: 3px solid var(--edge); }
.source { border-top: 1px solid var(--line); padding: .3rem 0; }
.source span { display: block; min-width: max-content; padding-right: 1rem; color: var(--soft); }
.source b { display: inline-block; width: 3.5rem; padding-right: 1rem; text-align: right; font-weight: 400;
  user-select: none; opacity: .6; }
.source .here { background: var(--mark); box-shadow: inset 3px 0 var(--edge); color: var(--ink); }
summary { cursor: pointer; color: var(--soft); }
section > details:not(.library) > summary { font-weight: 600; color: var(--ink); margin-bottom: .5rem; }
.library { background: var(--fold); border-radius: 6px; padding: .35rem .8rem; margin: .6rem 0; font-size: .85rem; }
.library article { background: var(--paper); }
article details { border-top: 1px solid var(--line); padding: .35rem .8rem; font-size: .85rem; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; vertical-align: top; font-weight: 400; color: var(--soft); padding: .2rem 1.5rem .2rem 0;
  white-space: nowrap; width: 1%; }
td { padding: .2rem 0; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; padding-bottom: 2rem; }
"""

# The page of broken code says so in a header; whatever comes without it is worth being loaded.
BROKEN = "x-rota-broken"
_AGAIN = (
    "<script>setInterval(async () => { try { "
    "const answer = await fetch(location.href, {headers: {accept: 'text/html'}});"
    f" if (!answer.headers.has('{BROKEN}')) location.reload(); }} catch {{}} }}, 1000)</script>"
)
