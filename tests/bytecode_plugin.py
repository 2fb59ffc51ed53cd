"""Bytecode is written once and kept, also where PYTHONDONTWRITEBYTECODE is set, as it is in many containers.

A run of the tests starts some hundred interpreters: each would compile all of rota, at a third of its start-up, and
each worker of xdist would rewrite the assertions of every test, 10 s of a core.
"""

from __future__ import annotations

import compileall
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_NOT_THE_PACKAGE = re.compile(r"/(\.[^/]+|tests|bench|docs|examples|build|dist|[^/]+\.egg-info)/")
_REWRITTEN = f"{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"  # as pytest names it

sys.dont_write_bytecode = False  # of this process, for the tests; its children find what is written here


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return  # the process that started this one has done it
    compileall.compile_dir(_ROOT, quiet=2, rx=_NOT_THE_PACKAGE)
    if config.getoption("numprocesses", None):
        _rewrite_assertions()


def _rewrite_assertions() -> None:
    """On all cores, each file once, by collecting what is not as it was: the workers start together, with the same
    files, and none would find what another is about to write.
    """
    files = [str(file) for file in sorted(_ROOT.glob("tests/**/test_*.py")) if not _is_rewritten(file)]
    parts = [part for core in range(os.cpu_count() or 1) if (part := files[core :: os.cpu_count() or 1])]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider", "-n", "0"]
    collecting = [
        subprocess.Popen([*command, *part], cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for part in parts
    ]
    for each in collecting:
        each.wait(600)  # a core takes 10 s; one that many share, minutes


def _is_rewritten(file: Path) -> bool:
    kept = file.parent / "__pycache__" / f"{file.stem}.{_REWRITTEN}"
    return kept.exists() and kept.stat().st_mtime >= file.stat().st_mtime
