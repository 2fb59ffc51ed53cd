"""What the README says can be typed: its code runs, its commands and targets exist, its output is what is printed."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rota
from rota.testing import LocalCluster

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
CONSOLE = "".join(text for language, text in BLOCKS if language == "console")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    shop = tmp_path_factory.mktemp("readme") / "shop.py"
    shop.write_text(PYTHON[0])
    with LocalCluster(str(shop), nodes=1) as cluster:
        yield cluster


def run_rota(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rota", *arguments], capture_output=True, text=True, timeout=60)


def test_the_calls_of_the_tour_print_what_the_tour_shows(cluster: LocalCluster) -> None:
    shown = re.findall(r"^\$ rota (call .*)\n(.*)\n", CONSOLE, re.MULTILINE)
    assert len(shown) == 3
    for command, output in shown:
        done = run_rota(*command.split(), "--master", cluster.address)
        assert (done.stdout + done.stderr).strip() == output


def test_the_client_code_of_the_tour_runs(cluster: LocalCluster) -> None:
    code = PYTHON[1].replace("tcp://master:7700", cluster.address)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["prices"] == [{"symbol": s, "price": 12.5} for s in "XYZ"]


def test_the_program_of_the_tour_serves_its_own_objects(cluster: LocalCluster) -> None:
    (code,) = (code for code in PYTHON if "background(" in code)
    cards = rota.Worker("cards")
    cards.handler(lambda: len(drawn), name="count")
    drawn = ["ace"]
    check = '    found = client.call("cards.count")\n'
    names: dict[str, object] = {"orders": cards, "client": cluster.client()}
    exec(code.replace("tcp://master:7700", cluster.address) + check, names)
    assert names["found"] == 1


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_the_readme_names_what_exists(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rota":
            assert hasattr(rota, node.attr)


def test_every_command_of_the_readme_exists() -> None:
    words = set(re.findall(r"(?:\$ |`)rota ([a-z]+)", README))
    assert {"run", "master", "slave", "status", "call", "drain", "rejoin"} <= words
    listed = run_rota("--help").stdout
    assert [word for word in words if not re.search(rf"^  {word} ", listed, re.MULTILINE)] == []


def test_every_make_target_that_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`make ([a-z]+)`", README)) | set(re.findall(r"^make ([a-z]+)", contributing, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets
