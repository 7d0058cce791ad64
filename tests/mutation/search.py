"""A sample of faults in some files, each tried on its tests; and the score."""

from __future__ import annotations

import itertools
import random
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .faults import Mutant, plant
from .processes import Job, run_all
from .selection import ROOT, tests_of
from .trials import Baseline, Trial, baseline, trial, trials, warm

EXCUSES = Path(__file__).with_name("excuses.toml")
#: mutants of a file that are tried by one process
BATCH = 20


def excuses() -> list[dict[str, str]]:
    """Mutants that change nothing, each with its reason."""
    return tomllib.loads(EXCUSES.read_text()).get("excuse", []) if EXCUSES.exists() else []


def excused(mutant: Mutant, text: str, known: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The entry that a mutant falls under: of a function, a line, and what becomes of it."""
    line = text.splitlines()[mutant.line - 1].strip()
    change = f"{mutant.old} → {mutant.new}"
    for entry in known:
        if entry["file"] != mutant.path:
            continue
        if not re.fullmatch(entry.get("function", ".*"), mutant.function):
            continue
        if entry.get("line", line) != line:
            continue
        if entry.get("change", change) == change:
            return entry
    return None


@dataclass
class Result:
    """What became of a mutant."""

    mutant: Mutant
    by: str | None
    excuse: str | None = None


def mutate(
    files: Sequence[str], sample: int | None, seed: int, workers: int, spread: int
) -> list[Result]:
    """Plant a sample of faults in every file, and try them."""
    if not files:
        raise click.UsageError("no file of the package with tests is among these")
    warm()
    texts = {path: (ROOT / path).read_text() for path in files}
    drawn = {}
    for path, text in texts.items():
        every = plant(path, text)
        random.Random(f"{seed} {path}").shuffle(every)
        some = (mutant for mutant in every if mutant.is_python(text))
        drawn[path] = list(itertools.islice(some, sample))
    bases = {path: Baseline(path, tests_of(ROOT / path)) for path in files if drawn[path]}

    def first(part: Sequence[str]) -> Job:
        some = [bases[path] for path in part]
        return Job(
            lambda folder: baseline(part, some[0].files, spread, folder),
            3600, lambda found: _fill(some, found),
        )  # fmt: skip

    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, base in bases.items():
        alike[base.files].append(path)
    parts = [those[i::workers] for those in alike.values() for i in range(workers)]
    run_all([first(part) for part in parts if part], workers)
    known, results = excuses(), list[Result]()
    singles, batches = list[Job](), list[Job]()

    def end(mutant: Mutant, by: Any, reason: str | None = None) -> None:
        results.append(Result(mutant, by.get("ended") if isinstance(by, dict) else by, reason))
        if results[-1].by is None and reason is None:
            print(f"survived: {mutant.path}\n{mutant.diff(texts[mutant.path])}", flush=True)

    def single(base: Baseline, each: Trial) -> Job:
        return Job(
            lambda folder: trial(each.mutant, base.files, each.tests, folder),
            each.seconds, lambda found: end(each.mutant, found),
        )  # fmt: skip

    def batch(base: Baseline, each: list[Trial]) -> Job:
        def done(found: Any) -> None:
            if isinstance(found, dict):
                raise click.ClickException(f"{base.path}: {found['ended']}\n{found.get('log')}")
            for one, by in zip(each, found, strict=True):
                if isinstance(by, dict) and "imported" in by:
                    singles.append(single(base, one))
                else:
                    end(one.mutant, by)

        seconds = 60 + sum(one.seconds for one in each)
        return Job(lambda folder: trials(each, base.files, folder), seconds, done)

    for path, base in bases.items():
        quick = []
        for mutant in drawn[path]:
            entry = excused(mutant, texts[path], known)
            tests, imported = base.of(mutant, texts[path])
            if entry is not None or not tests:
                end(mutant, None, None if entry is None else entry["reason"])
                continue
            each = Trial(mutant, tests, 20 + 4 * sum(base.seconds[test] for test in tests))
            if imported:
                singles.append(single(base, each))
            else:
                quick.append(each)
        batches += [batch(base, quick[i : i + BATCH]) for i in range(0, len(quick), BATCH)]
    run_all(batches, workers)
    run_all(singles, workers)
    return sorted(results, key=lambda r: (r.mutant.path, r.mutant.start, r.mutant.new))


def _fill(bases: Sequence[Baseline], found: dict[str, Any]) -> None:
    if found.get("code") != 0:
        print(found.get("log", ""), file=sys.stderr)
        paths = ", ".join(base.path for base in bases)
        raise click.ClickException(f"the tests of {paths} do not pass on the package as it is")
    for base in bases:
        of = found["found"][base.path]
        base.seconds = of["seconds"]
        base.lines = {int(line): contexts for line, contexts in of["lines"].items()}
        took = sum(base.seconds.values())
        print(f"{base.path}: {len(base.seconds)} tests, {took:.0f} s", flush=True)


def report(results: Sequence[Result]) -> float:
    """Print a row for every file, and return the whole score."""
    files = sorted({result.mutant.path for result in results})
    rows = [(path, [r for r in results if r.mutant.path == path]) for path in files]
    rows.append(("all", list(results)))
    print(f"\n{'file':44}{'mutants':>8}{'caught':>8}{'survived':>9}{'excused':>8}{'score':>7}")
    score = 1.0
    for path, group in rows:
        excuse = sum(r.by is None and r.excuse is not None for r in group)
        caught = sum(r.by is not None for r in group)
        survived = len(group) - excuse - caught
        score = caught / (caught + survived) if caught + survived else 1.0
        print(f"{path:44}{len(group):8}{caught:8}{survived:9}{excuse:8}{score:7.1%}")
    return score
