"""Prints the oldest version of each requirement that pyproject.toml allows, for `pip install` (`make test-oldest`)."""

import re
import tomllib
from pathlib import Path

EXTRAS = ("http", "postgres", "reload")  # what users install; tools of developers are always the newest


def oldest(requirement: str) -> str:
    found = re.fullmatch(r"([\w.\[\]-]+)>=([\d.]+)", requirement)
    assert found, f"{requirement}: NAME>=VERSION expected"
    return f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    print(*map(oldest, [*project["dependencies"], *extras]))
