"""Many random cases: counts, and a failure shrunk and written to a file."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis

from . import compare
from .build import Case
from .compare import Verdict
from .draw import cases

CASES = Path(__file__).parents[1] / "cases"


class MismatchError(AssertionError):
    """A case on which the two sides differ."""


@dataclass
class Tally:
    """Sums over many cases."""

    networks: int = 0
    comparisons: int = 0
    exact: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    #: sentence of a refusal -> the first case that had it
    examples: dict[str, Case] = field(default_factory=dict)
    variants: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Case, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.networks} networks, {self.exact} of them exact, {self.comparisons} comparisons,"
            f" {len(self.failures)} mismatches, {sum(self.refused.values())} refused",
            "  " + ", ".join(f"{name} {n}" for name, n in sorted(self.variants.items())),
        ]
        for sentence, number in self.refused.most_common():
            lines += [
                f"  refused {number}: {sentence}",
                f"    {json.dumps(self.examples[sentence])}",
            ]
        return "\n".join(lines)


def hunt(
    seed: int, count: int, tally: Tally, *, until: float = math.inf, shrink: bool = True
) -> None:
    """Judge so many random networks; the first that fails is shrunk and put into the tally."""
    found: list[tuple[Case, str]] = []
    phases = [hypothesis.Phase.generate, *[hypothesis.Phase.shrink] * shrink]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count, database=None, deadline=None, phases=phases, print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @hypothesis.given(cases())
    def run(case: Case) -> None:
        if not found and time.monotonic() > until:
            return
        try:
            verdict = compare.judge(case)
        except Exception as error:
            verdict = Verdict([f"{type(error).__name__}: {error}"])
        if not found:
            tally.networks += not verdict.refused
            tally.exact += verdict.exact
            tally.comparisons += verdict.comparisons
            tally.variants.update(verdict.ran)
            if verdict.refused:
                tally.refused[verdict.refused] += 1
                tally.examples.setdefault(verdict.refused, case)
        if verdict.problems:
            found.append((case, "\n".join(verdict.problems)))
            raise MismatchError(verdict.problems[0])

    with contextlib.suppress(MismatchError, hypothesis.errors.Flaky):
        run()
    if found:
        tally.failures.append(found[-1])


def write(case: Case, why: str, folder: Path = CASES) -> Path:
    """Write a case to a file of its own, named after its layers."""
    names = [layer.get("block") or layer.get("name") or layer["is"] for layer in case["layers"]]
    stem = "_".join(str(name).lower() for name in names) or "empty"
    path = folder / f"{stem}.json"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{stem}_{number}.json"
    folder.mkdir(exist_ok=True)
    path.write_text(json.dumps({"found": why.splitlines()[:1], **case}, indent=1) + "\n")
    return path


def read(path: Path) -> Case:
    """Read a case."""
    case: Case = json.loads(path.read_text())
    return case
