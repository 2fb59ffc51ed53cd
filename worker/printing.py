"""What a process prints goes to the file that its agent passes on. A disk that is full fails no request for that."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Output(io.FileIO):
    """Leaves out what cannot be written, and says how much that was when there is room again."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self.name = stream.name
        self._lost = 0

    def write(self, data: ReadableBuffer) -> int:
        try:
            if self._lost:
                os.write(self.fileno(), b"(%d bytes could not be written here)\n" % self._lost)
                self._lost = 0
            return super().write(data)
        except OSError:
            size = memoryview(data).nbytes
            self._lost += size
            return size


def lenient(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, a line at a time, on which print() does not fail."""
    output = Output(stream)
    return io.TextIOWrapper(
        output if stream.write_through else io.BufferedWriter(output),
        stream.encoding,
        stream.errors,
        line_buffering=True,
        write_through=stream.write_through,
    )
