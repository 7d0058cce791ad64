"""The documentation: every block runs and prints what it says, and Sphinx builds it all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pages
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

#: pages with blocks that run; what is generated has none
RUN = [
    path
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
    if path.parent.name != "generated"
    and {"python", "bash"} & {block.language for block in pages.blocks(path.read_text())}
]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run(
    page: Path, folder: Path, python: Sequence[str] = (sys.executable,), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a page in a folder that has what a clone has."""
    for name in ("exporters", "models", "native", "tests"):
        (folder / name).symlink_to(ROOT / name)
    return subprocess.run(
        [*python, str(ROOT / "tests" / "pages.py"), str(page)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        # two threads that wait for each other on a busy processor take twenty times as long as one
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def test_there_are_pages() -> None:
    names = {_name(path) for path in RUN}
    assert {"README.md", "docs/first-minute.md", "docs/how-to/events.md"} <= names


#: pages whose programs start as a reader's do, and one whose workers end when Python does; those of
#: the others start where torch is imported already
COLD = ("README.md", "docs/first-minute.md", "docs/tutorials/cluster.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=_name)
def test_blocks_run_and_print_what_they_say(
    page: Path, tmp_path: Path, warm_folder: tuple[list[str], str]
) -> None:
    for need in pages.needs(page.read_text()):
        if reason := pages.missing(need):
            pytest.skip(f"{_name(page)}: {reason}")
    if _name(page) in COLD:
        done = run(page, tmp_path)
    else:
        python, commands = warm_folder
        done = run(page, tmp_path, python, PAGES_BIN=commands)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("```python\nprint(1)\n```\n\n```output\n2\n```\n", ":2 should print\n2\nand prints\n1\n"),
        ("```python\n1 / 0\n```\n", ':2", line 1, in <module>\n    1 / 0\n'),
        ("```bash\nfalse\ntrue\n```\n", ":2 ends with 1\n"),
        ("```bash\ntrue\n```\n\n```output\nx\n```\n", ":2 should print\nx\nand prints\n\n"),
    ],
    ids=["output", "python", "shell", "silence"],
)
def test_a_page_that_is_wrong_is_found(tmp_path: Path, block: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(block)
    done = run(page, tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_block_that_requires_what_is_missing_is_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- requires: no_such_module -->\n```python\n1 / 0\n```\n\n```output\nx\n```\n\n"
        "<!-- requires: torch, numpy -->\n```python\nprint(1)\n```\n\n```output\n2\n```\n"
    )
    done = run(page, tmp_path)
    assert done.returncode == 1
    assert "page.md:3 is left out: no_such_module is not installed" in done.stderr
    assert ":12 should print\n2\nand prints\n1\n" in done.stderr


def test_output_with_gaps() -> None:
    assert pages.fits("a …\nb\n", "a 1 2\nb  \n")
    assert pages.fits("…\nb\n", "a\na\nb\n")
    assert pages.fits("…\n", "")
    assert not pages.fits("a …\nb\n", "a 1\nc\n")
    assert not pages.fits("a\n", "a\nb\n")


@pytest.mark.slow
def test_sphinx_builds_it_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documentation is built with the extra docs")
    # a copy: what is generated goes beside the sources
    for name in ("docs", "native", "tests"):
        (tmp_path / name).mkdir()
    shutil.copytree(
        DOCS, tmp_path / "docs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("generated")
    )
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "native/README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    html = tmp_path / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(html)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from synapse_onnx.ops import all_ops

    table = (html / "reference" / "generated" / "ops.html").read_text()
    op_pages = "".join(p.read_text() for p in (html / "reference" / "generated").glob("op_*.html"))
    for name, op in all_ops().items():
        assert f">{name}</span>" in table, f"{name} is not in the table of ops"
        assert f'id="{re.sub("_", "-", name.lower())}"' in op_pages, f"{name} has no section"
        assert op.name in op_pages
    assert "synapse_onnx.Session.run" in (html / "reference" / "generated" / "api.html").read_text()
    assert "--decode" in (html / "reference" / "generated" / "cli.html").read_text()
    assert not re.search(
        r'href="[^"]*\.md[#"]', "".join(p.read_text() for p in html.rglob("*.html"))
    )
