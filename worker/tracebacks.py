"""An exception of the application as text. Never fails, whatever the application has made of its own."""

from __future__ import annotations

import traceback
from types import TracebackType

TRACEBACK_MAX = 16 * 1024  # characters; its ends are what one reads
FRAMES_MAX = 50  # of one traceback: a RecursionError has a thousand


def name_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # user code
        return "(its text cannot be shown)"


def traceback_text(error: BaseException) -> str:
    """The traceback without rota's own frames at its top, with at most TRACEBACK_MAX characters."""
    user = user_frames(error.__traceback__)
    try:
        lines = traceback.format_exception(type(error), error, user, limit=-FRAMES_MAX)
    except Exception as failure:  # user code again: __str__, __repr__, __notes__, __cause__
        return f"(the traceback cannot be shown: {type(failure).__name__})"
    text = "".join(lines)
    if len(text) <= TRACEBACK_MAX:
        return text
    half = TRACEBACK_MAX // 2
    return f"{text[:half]}\n  … {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


_ROTA = __name__.partition(".")[0] + "."
_MACHINERY = (_ROTA, "importlib.", "concurrent.futures.", "asyncio.")


def user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip what lies between rota and the user's code; all of it if nothing else is there."""
    user = frames
    while user is not None and _is_machinery(user):
        user = user.tb_next
    return user or frames


def _is_machinery(frame: TracebackType) -> bool:
    module = str(frame.tb_frame.f_globals.get("__name__", ""))
    return f"{module}.".startswith(_MACHINERY) or module == "runpy"
