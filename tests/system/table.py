"""Text in columns, as the commands of the proofs print it."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """`numbers`: the columns that stand to the right."""
    lines = [columns, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]

    def laid_out(line: Sequence[str]) -> str:
        cells = zip(columns, line, widths, strict=True)
        return "  ".join(text.rjust(width) if name in numbers else text.ljust(width) for name, text, width in cells)

    return "\n".join(laid_out(line).rstrip() for line in lines)
