"""What a child writes, read by a test: nobody waits for a line for ever."""

from __future__ import annotations

import subprocess
import threading
from typing import IO, Any

PATIENCE_S = 30.0


def next_line(process: subprocess.Popen[Any], stream: IO[Any] | None = None, seconds: float = PATIENCE_S) -> Any:
    """Of its stdout, or of this one of its pipes. Where none comes in time the child is killed, and the test fails."""
    late = threading.Timer(seconds, process.kill)
    late.start()
    try:
        line = (stream or process.stdout).readline()  # type: ignore[union-attr]
    finally:
        late.cancel()
    assert line, f"no line of {process.args} within {seconds:g} s, or it ended before"
    return line
