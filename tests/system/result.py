"""What a scenario found: one row of the tables of `prove.py` and `failover.py`, and what pytest asserts."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any, NamedTuple

from .ledger import Findings


class Result(NamedTuple):
    """`figure` and `limit` say what the scenario measured beside the counts; `misses` are sentences, none if proven."""

    scenario: str
    findings: Findings
    figure: str
    limit: str
    misses: list[str]

    @property
    def verdict(self) -> str:
        return "MISSED" if self.misses else "ok"

    def as_data(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "submitted": self.findings.submitted,
            "answered": self.findings.answered,
            "faults": dict(self.findings.faults),
            "lost": len(self.findings.lost),
            "executed_twice": len(self.findings.twice),
            "wrong": self.findings.wrong,
            "figure": self.figure,
            "limit": self.limit,
            "verdict": self.verdict,
            "misses": self.misses,
        }


def nothing(scenario: str, why: str) -> Result:
    return Result(scenario, Findings(0, 0, Counter(), [], [], []), "", "", [why])


def as_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps({"schema": 1, "ok": not any(row["misses"] for row in rows), "scenarios": rows}, indent=1)


def told(results: list[Result]) -> int:
    """The exit code; what was missed stands on stderr."""
    for result in results:
        for miss in result.misses:
            tell(f"{result.scenario}: {miss}")
    return 1 if any(result.misses for result in results) else 0


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def judge(
    scenario: str,
    findings: Findings,
    *,
    faults: dict[str, int] | None = None,
    any_number_of: tuple[str, ...] = (),
    figure: str = "",
    limit: str = "",
    misses: list[str] | None = None,
) -> Result:
    """Nothing lost, nothing twice, nothing wrong, and exactly these faults (`any_number_of`: these do not count)."""
    counted = Counter({name: count for name, count in findings.faults.items() if name not in any_number_of})
    found = list(misses or [])
    if findings.lost:
        found.append(f"lost: {_some(findings.lost)}")
    if findings.twice:
        found.append(f"executed twice: {_some(findings.twice)}")
    if findings.wrong:
        found.append(f"wrong: {_some(findings.wrong)}")
    if counted != Counter(faults or {}):
        found.append(f"faults: {dict(counted)}, expected {faults or 'none'}")
    if not findings.answered:
        found.append("nothing was answered")
    return Result(scenario, findings, figure, limit, found)


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
