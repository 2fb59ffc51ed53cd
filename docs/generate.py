"""Write the pages of this folder that follow from the code.

    python docs/generate.py [--check] [NAME...]      all of them unless named

--check writes nothing and exits 1 when a page differs from what would be written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from lifecycle_page import lifecycle_page

from rota.common.declare import Setting, declared
from rota.common.settings import SECTIONS, heading

HERE = Path(__file__).parent

_HEAD = """\
# Configuration

<!-- Generated from common/settings by docs/generate.py; change it there. -->

Each setting comes from the first of these that has it:

1. a **flag** (`--bind`),
2. an **environment variable** (`ROTA_MASTER_BIND`),
3. the **file** (`-c rota.toml`, or `ROTA_CONFIG`),
4. its **default**.

No file is read unless it is named.

* **Variables.** The variable of a setting is `ROTA_<SECTION>_<KEY>`; an empty one counts as not set (a
  flag with an empty value is a mistake). Services have none: their names may not be fit for a variable. In a variable,
  a list is `a,b` and a table `a=1,b=2`.
* **`ROTA_MASTER`**, without a key, is not a setting of a node: it is where clients and operator commands find the
  master. A slave node takes `ROTA_SLAVE_MASTER`, so that an application that is a client of another cluster cannot move
  its own node there.
* **Units.** Durations are `"250ms"`, `"30s"`, `"5m"`, `"1h30m"`, `"7d"`, or a number of seconds. Sizes are `"64KiB"`,
  `"1MiB"` (powers of 1024), `"1GB"` (powers of 1000), or a number of bytes.
* **HUP** of a master reads file and environment again. A setting marked *restart* keeps its value until a restart, and
  the log says so. HUP of a node replaces its processes one at a time; HUP of a gateway reads pages and certificate
  again. Their settings wait for a restart.
* **Commands.** `rota config init` writes an example. `rota config check FILE` lists all mistakes with `file:line` and
  exits 78. Pages, certificates and passwords that cannot be read are mistakes, too, and so is an engine whose package
  is missing: run it where the master and the gateways run. `rota config show FILE` prints what is in force and where it
  comes from.
"""


def config_page() -> str:
    return _HEAD + "".join(_section(name) for name in SECTIONS) + _rules()


def _section(name: str) -> str:
    rows = "".join(_row(setting) for setting in declared(SECTIONS[name]).values())
    return (
        f"\n## {heading(name)}\n\n{SECTIONS[name].__doc__}\n\n"
        "| setting | default | values | flag | HUP | what it is, and why the default |\n"
        "|---|---|---|---|---|---|\n" + rows
    )


def _row(setting: Setting) -> str:
    flags = " ".join(f"`{flag}`" for flag in setting.flags)
    cells = (
        f"`{setting.key}`",
        _default(setting),
        setting.kind.describe(),
        flags,
        "yes" if setting.reload else "restart",
        f"{_sentence(setting.what)} *{_sentence(setting.why)}*",
    )
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def _default(setting: Setting) -> str:
    text = setting.show_default()
    in_words = text == "none" or " " in text.strip('"')
    return text if in_words else f"`{text}`"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _rules() -> str:
    lines = [f"* `{each.section}.{rule.key}` {rule.why}\n" for each in SECTIONS.values() for rule in each.rules]
    return "\n## What is checked together\n\n" + "".join(lines)


PAGES: dict[str, tuple[Path, Callable[[], str]]] = {
    "config": (HERE / "CONFIG.md", config_page),
    "lifecycle": (HERE / "LIFECYCLE.md", lifecycle_page),
}


def main(arguments: list[str]) -> int:
    names = [name for name in arguments if name != "--check"] or list(PAGES)
    unknown = [name for name in names if name not in PAGES]
    if unknown:
        print(f"no page {', '.join(unknown)}; there are {', '.join(PAGES)}", file=sys.stderr)
        return 2
    step = _differs if "--check" in arguments else _write
    return max(step(*PAGES[name]) for name in names)


def _write(path: Path, make: Callable[[], str]) -> int:
    path.write_text(make(), encoding="utf-8")
    return 0


def _differs(path: Path, make: Callable[[], str]) -> int:
    if path.exists() and path.read_text(encoding="utf-8") == make():
        return 0
    print(f"{path.name} differs from the code: run python docs/generate.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
