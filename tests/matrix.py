"""Test the package with the oldest and the newest versions of what it stands on.

    python tests/matrix.py --write

Each environment is made afresh by uv (the extra matrix) and takes the wheel that is built from this
checkout: "oldest" has the lower bounds of pyproject.toml, "pinned" has constraints.txt, "newest"
has what the package index has. The tests marked matrix run in it; a table says what came of them.
What uv is told by its own variables holds here too, as UV_TORCH_BACKEND=cpu or UV_CONSTRAINT.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "versions.md"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

#: what uv is told for each kind of environment, and the Pythons that it is made for
VERSIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    # an old release has no wheels for a Python that came after it
    "oldest": (["--resolution", "lowest-direct"], PYTHONS[:1]),
    "pinned": (["--constraint", str(ROOT / "constraints.txt")], PYTHONS),
    "newest": (["--resolution", "highest"], PYTHONS),
}

SHOWN = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "click")

#: what an environment says of itself
ASK = f"""
import importlib.metadata, json, platform, sys
import synapse_onnx
from synapse_onnx.runtime import native
from synapse_onnx.model.options import OPSETS
print(json.dumps({{
    "python": platform.python_version(),
    "where": synapse_onnx.__file__,
    "prefix": sys.prefix,
    "machine": platform.system() + " " + platform.machine(),
    "opsets": [OPSETS[0], OPSETS[-1]],
    "native": native.problem() is None,
    **{{name: importlib.metadata.version(name) for name in {SHOWN!r}}},
}}))
"""


@dataclass
class Row:
    """What came of one environment."""

    versions: str
    python: str
    facts: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: why tests were skipped, with how many
    skips: Counter[str] = field(default_factory=Counter)
    #: why there are no tests at all, and whether that is a fault
    left_out: str = ""
    broken: bool = False

    @property
    def ok(self) -> bool:
        """Whether all that ran passed, and something did unless the environment is left out."""
        if self.left_out:
            return not self.broken
        return self.counts["passed"] > 0 and not self.counts["failed"]


def uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Call uv, away from any virtual environment that this process is in."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def marked() -> list[str]:
    """Find the files with tests for this: others need the checkout beside them."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(path) for path in files if "mark.matrix" in path.read_text("utf-8")]


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def tried(versions: str, python: str, wheel: Path, folder: Path, workers: str) -> Row:
    """Make an environment and run the tests in it."""
    row = Row(versions, python)
    found = uv("python", "find", "--system", "--no-python-downloads", python)
    if found.returncode:
        row.left_out = f"Python {python} is not installed"
        return row
    target = folder / f"{versions}-{python}"
    arguments, _ = VERSIONS[versions]
    made = uv("venv", "--quiet", "--clear", "--python", found.stdout.strip(), str(target))
    if made.returncode == 0:
        bin = target / ("Scripts" if os.name == "nt" else "bin")
        # the project's own requirements: those of a wheel are not direct, and would be the newest
        into = ("pip", "install", "--quiet", "--python", str(target))
        made = uv(*into, *arguments, "--requirements", "pyproject.toml", "--extra", "test")
    if made.returncode == 0:
        made = uv(*into, "--no-deps", str(wheel))
    if made.returncode:
        row.left_out, row.broken = f"not installed: {made.stderr.strip()}", True
        return row
    environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    program = str(next(bin.glob("python*")))
    asked = subprocess.run(
        [program, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if asked.returncode:
        row.left_out, row.broken = f"cannot be imported: {last_line(asked.stderr)}", True
        return row
    row.facts = json.loads(asked.stdout)
    assert row.facts["where"].startswith(row.facts["prefix"]), "another package was imported"
    results = folder / f"{versions}-{python}.xml"
    subprocess.run(
        [
            program, "-P", "-m", "pytest", "-m", "matrix", "-n", workers, "-q", "--no-header",
            "-p", "no:cacheprovider", "-o", "addopts=", f"--junitxml={results}", *marked(),
        ],
        cwd=ROOT, env=environment, stdout=sys.stderr, check=False,
    )  # fmt: skip
    count(row, results)
    return row


def count(row: Row, results: Path) -> None:
    """Read what pytest wrote."""
    if not results.exists():
        row.left_out, row.broken = "pytest ended without a result", True
        return
    for case in ET.parse(results).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            row.counts["skipped"] += 1
            row.skips[re.sub(r"/\S*/", "", skipped.get("message", ""))] += 1
        else:
            bad = case.find("failure") is not None or case.find("error") is not None
            row.counts["failed" if bad else "passed"] += 1


def table(rows: list[Row]) -> str:
    """Show the environments as a table of Markdown, and why what was left out was."""
    head = ["versions", "Python", *SHOWN, "opsets", "kernels", "passed", "failed", "skipped"]
    lines = [head, ["---"] * len(head)]
    notes: list[str] = []
    for row in rows:
        if row.left_out:
            lines.append([row.versions, row.python, *["-"] * (len(head) - 2)])
            notes.append(f"- {row.versions}, Python {row.python}: {row.left_out}")
            continue
        facts = row.facts
        cells = [row.versions, facts["python"], *(facts[name] for name in SHOWN)]
        cells += ["{}-{}".format(*facts["opsets"]), "native" if facts["native"] else "none"]
        cells += [str(row.counts[key]) for key in ("passed", "failed", "skipped")]
        lines.append(cells)
        notes += [
            f"- {row.versions}, Python {row.python}: {times} skipped: {reason}"
            for reason, times in row.skips.items()
        ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    text[1] = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([*text, "", *notes] if notes else text) + "\n"


def write(rows: list[Row]) -> None:
    """Put the table into the page of the documentation."""
    machine = next((row.facts["machine"] for row in rows if row.facts), "no machine")
    text = PAGE.read_text("utf-8")
    marks = "<!-- python tests/matrix.py --write -->", "<!-- end -->"
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    body = f"\n\nOn {machine}:\n\n{table(rows)}\n"
    PAGE.write_text(f"{before}{marks[0]}{body}{marks[1]}{after}", "utf-8")


@click.command(help=__doc__)
@click.option(
    "--versions", multiple=True, type=click.Choice(list(VERSIONS)), help="All by default."
)
@click.option("--python", "pythons", multiple=True, help="3.12, say; all by default.")
@click.option("-n", "workers", default="auto", show_default=True, help="Processes of pytest.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the environments here.")
@click.option("--write", "writes", is_flag=True, help="Write the table into the documentation.")
def main(
    versions: tuple[str, ...],
    pythons: tuple[str, ...],
    workers: str,
    keep: Path | None,
    writes: bool,
) -> None:
    """Go through the environments and print the table."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        folder = (keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        built = uv("build", "--quiet", "--wheel", "--out-dir", str(folder / "wheel"), str(ROOT))
        if built.returncode:
            raise click.ClickException(f"no wheel: {built.stderr.strip()}")
        (wheel,) = (folder / "wheel").glob("*.whl")
        rows: list[Row] = []
        for kind, (_, fits) in VERSIONS.items():
            for python in fits:
                if (versions and kind not in versions) or (pythons and python not in pythons):
                    continue
                rows.append(tried(kind, python, wheel, folder, workers))
                click.echo(table(rows[-1:]), err=True)
    if not rows:
        raise click.UsageError("no environment has these versions and this Python")
    click.echo(table(rows))
    if writes:
        write(rows)
    raise SystemExit(0 if all(row.ok for row in rows) else 1)


if __name__ == "__main__":
    main()
