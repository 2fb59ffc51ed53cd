"""Rules of the standby (docs/STANDBY.md), each broken on purpose: the simulation of pairs must find every one.

The docstring is the rule; the function breaks it in the real cores.
"""

from __future__ import annotations

MUTANTS: dict = {}
