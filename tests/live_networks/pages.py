"""The pages of the documentation: one for every framework, with a row a network."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .columns import COLUMNS, INTEGERS
from .measure import Measured

__all__ = ["file_name", "summary", "write_page"]


def summary(rows: Sequence[Measured]) -> str:
    """Say how many networks are right, refused, wrong, and how many of those that can be right."""
    verdicts = Counter(each.verdict for each in rows)
    possible = [each for each in rows if each.verdict != "refused" or each.gap]
    share = 100 * verdicts["right"] / max(len(possible), 1)
    surprises = sum(not each.as_declared for each in rows)
    silent = sum(bool(each.silent) for each in rows)
    return (
        f"{len(rows)} networks: {verdicts['right']} right, {verdicts['refused']} refused, "
        f"{verdicts['WRONG']} wrong, {verdicts['exception']} exceptions; {share:.1f} % right of "
        f"the {len(possible)} that a file can be right for; {surprises} not as declared, {silent} "
        f"with silent layers"
    )


def file_name(framework: str) -> str:
    """Return the name of a framework's page, and of its package."""
    return framework.lower().replace(" ", "-")


def write_page(folder: Path, framework: str, rows: Sequence[Measured]) -> None:
    """Write the page of a framework."""
    package = file_name(framework)
    try:
        release = f"{framework} {version(package)}"
    except PackageNotFoundError:
        release = framework
    bits = " --bits" if any(each.integers is not None for each in rows) else ""
    lines = [
        f"# {framework[0].upper()}{framework[1:]}" if " " in framework else f"# {framework}",
        "",
        f"Written by `python -m tests.live_networks --framework {framework!r}{bits} --pages "
        f"FOLDER`: "
        f"{release}, torch {version('torch')}, ONNX Runtime {version('onnxruntime')}, "
        f"{platform.machine()}. [The columns](index.md) are explained once for all frameworks.",
        "",
        summary(rows) + ".",
        "",
        *_table(list(COLUMNS), [[c(each) for c in COLUMNS.values()] for each in rows]),
        "",
    ]
    small = [(each.name, each.integers) for each in rows if each.integers is not None]
    if small:
        cells = [[name, *(c(each) for c in INTEGERS.values())] for name, each in small]
        lines += ["## Weights of 8 bits", "", *_table(["network", *INTEGERS], cells), ""]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{package}.md").write_text("\n".join(lines))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
