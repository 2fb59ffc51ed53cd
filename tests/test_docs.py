"""The pages hold: generated ones equal the code, links lead somewhere, decisions are numbered, words are explained."""

import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import get_args

import pytest

from rota.common import lifecycle, messages

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def generate(docs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def broken_links(page: Path) -> list[str]:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    return [x for x in targets if "://" not in x and not leads_somewhere(page, *x.partition("#")[::2])]


def leads_somewhere(page: Path, file: str, anchor: str) -> bool:
    target = page.parent / file if file else page
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(page: Path) -> list[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_every_generated_page_is_what_the_code_says() -> None:
    done = generate(DOCS, "--check")
    assert done.returncode == 0, done.stderr


def test_a_page_that_differs_from_the_code_is_found_and_written_again(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS, docs)
    page = docs / "LIFECYCLE.md"
    right = page.read_text(encoding="utf-8")
    page.write_text(right.replace("draining --> detached", "draining --> active"), encoding="utf-8")
    found = generate(docs, "--check")
    assert found.returncode == 1
    assert "LIFECYCLE.md" in found.stderr and "CONFIG.md" not in found.stderr
    assert generate(docs, "lifecycle").returncode == 0
    assert page.read_text(encoding="utf-8") == right


@pytest.mark.parametrize("table", [lifecycle.INTENT, lifecycle.LIVENESS, lifecycle.HEALTH])
def test_every_transition_of_the_tables_is_in_the_pictures(table: dict[str, dict[str, str]]) -> None:
    page = (DOCS / "LIFECYCLE.md").read_text(encoding="utf-8")
    for before, row in table.items():
        for event, after in row.items():
            assert before == after or re.search(rf"{before} --> {after}: .*\b{event}\b", page), (before, event)


@pytest.mark.parametrize("part", ["master", "worker", "client", "gateway", "common"])
def test_every_module_has_its_place_in_the_architecture(part: str) -> None:
    page = (DOCS / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [path.stem for path in (ROOT / part).rglob("*.py") if path.parent.name != "settings"]
    assert [name for name in modules if name != "__init__" and not re.search(rf"[`/]{name}(\.py)?`", page)] == []


def test_every_message_of_the_control_socket_is_explained_with_its_fields() -> None:
    pages = [(DOCS / name).read_text(encoding="utf-8") for name in ("PROTOCOL.md", "STANDBY.md")]
    rows = [line for page in pages for line in page.splitlines() if line.startswith("| `")]
    for kind in get_args(messages.Message):
        explained = "".join(row for row in rows if re.match(rf"\| `{kind.__name__}\b", row))
        assert [field for field in kind._fields if explained and not re.search(rf"\b{field}\b", explained)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_to_a_file_and_its_heading(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# So, here\n[a](page.md) [b](nowhere.md#x) [c](https://example.org) [d](#so-here) [e](page.md#so)")
    assert broken_links(page) == ["nowhere.md#x", "page.md#so"]


def test_decisions_are_numbered_without_a_gap_and_say_their_number() -> None:
    for number, page in zip(count(1), DECISIONS, strict=False):
        assert page.name.startswith(f"{number:03}-")
        assert page.read_text(encoding="utf-8").startswith(f"# {number:03} ")


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_half_a_page(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 40


def test_the_glossary_explains_every_state() -> None:
    glossary = (DOCS / "GLOSSARY.md").read_text(encoding="utf-8")
    for axis in (lifecycle.Intent, lifecycle.Liveness, lifecycle.Health):
        for state in axis:
            assert re.search(rf"\*\*[^|]*\b{state}\b[^|]*\*\*", glossary), state
