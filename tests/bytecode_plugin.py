"""Bytecode is written and kept also where PYTHONDONTWRITEBYTECODE is set, as it is in many containers.

A run of the tests starts some hundred interpreters, and each would compile all of rota anew, at a third of its start-up;
and each worker of xdist would rewrite the assertions of every test, 10 s of one core.
"""

from __future__ import annotations

import compileall
import re
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_NOT_THE_PACKAGE = re.compile(r"/(\.[^/]+|tests|bench|docs|examples|build|dist|[^/]+\.egg-info)/")

sys.dont_write_bytecode = False  # of this process, for the tests; its children find what is written here


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that starts xdist's workers, or the only one
        compileall.compile_dir(_ROOT, quiet=2, rx=_NOT_THE_PACKAGE)
