"""What ``matrix.py`` reads, counts and shows; and that its table is of today's bounds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import matrix
import onnxruntime
import pytest
from packaging.version import Version

import synapse_onnx as so
from synapse_onnx.runtime import providers as execution

ROOT = Path(__file__).parents[2]

RESULTS = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><failure message="no"/></testcase>
<testcase name="d"><error message="no"/></testcase>
<testcase name="e"><skipped message="/a/b/test_x.py:3: there is no such thing"/></testcase>
</testsuite></testsuites>"""


def row(versions: str = "newest", **more: object) -> matrix.Row:
    facts: dict[str, object] = dict.fromkeys(matrix.SHOWN, "1.0")
    facts |= {"python": "3.12.1", "opsets": [21, 24], "native": False, "machine": "Linux x86_64"}
    return matrix.Row(versions, "3.12", facts=facts, **more)  # type: ignore[arg-type]


def test_results_are_counted(tmp_path: Path) -> None:
    (tmp_path / "results.xml").write_text(RESULTS)
    counted = row()
    matrix.count(counted, tmp_path / "results.xml")
    assert counted.counts == {"passed": 2, "failed": 2, "skipped": 1}
    assert counted.skips == {"test_x.py:3: there is no such thing": 1}
    assert not counted.ok
    crashed = row()
    matrix.count(crashed, tmp_path / "none.xml")
    assert (crashed.left_out, crashed.ok) == ("pytest ended without a result", False)


def test_what_is_called_good() -> None:
    Counter = matrix.Counter
    assert row(counts=Counter(passed=3, skipped=1)).ok
    assert not row(counts=Counter(passed=3, failed=1)).ok
    assert not row(counts=Counter(skipped=9)).ok, "nothing ran"
    assert matrix.Row("newest", "3.14", left_out="Python 3.14 is not installed").ok
    assert not matrix.Row("newest", "3.14", left_out="not installed: no", broken=True).ok


def test_the_table_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row(counts=matrix.Counter(passed=7, skipped=2), skips=matrix.Counter({"no kernels": 2})),
        matrix.Row("newest", "3.14", left_out="Python 3.14 is not installed"),
    ]
    lines = matrix.table(rows).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == [
        "newest",
        "3.12.1",
        *["1.0"] * len(matrix.SHOWN),
        "21-24",
        "none",
        "7",
        "0",
        "2",
    ]
    assert lines[5:] == [
        "- newest, Python 3.12: 2 skipped: no kernels",
        "- newest, Python 3.14: Python 3.14 is not installed",
    ]
    page = tmp_path / "versions.md"
    page.write_text("before\n<!-- python tests/matrix.py --write -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(matrix, "PAGE", page)
    matrix.write(rows)
    text = page.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert matrix.table(rows) in text


def test_the_bounds_that_were_tested_are_those_of_today() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    stated = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    bounds = dict(requirement.split(">=") for requirement in stated)
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in matrix.PAGE.read_text("utf-8").splitlines()
        if line.startswith("|")
    )
    (oldest,) = (dict(zip(head, cells, strict=True)) for cells in rows if cells[0] == "oldest")
    for name in matrix.SHOWN:
        assert Version(oldest[name].partition("+")[0]) == Version(bounds[name]), name
    assert int(oldest["passed"]) > 100
    assert oldest["failed"] == "0"


@pytest.mark.parametrize(("version", "taken"), [("1.29.1", False), ("1.30.0", True), ("2.0", True)])
def test_an_onnx_runtime_that_is_too_old_is_refused(
    version: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    model = ROOT / "models" / "digits_q8.onnx"
    if taken:
        so.Session(model)
        return
    with pytest.raises(
        so.SynapseError, match=r"^ONNX Runtime 1\.29\.1 is too old, .* 1\.30 or newer$"
    ):
        so.Session(model)


def test_every_place_names_the_same_oldest_onnx_runtime() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [
        requirement
        for extra in extras["optional-dependencies"].values()
        for requirement in extra
        if requirement.startswith("onnxruntime")
    ]
    oldest = ".".join(map(str, execution._OLDEST))
    assert named == [
        f"onnxruntime>={oldest}",
        f"onnxruntime-gpu>={oldest}",
        f"onnxruntime>={oldest}",
    ]
