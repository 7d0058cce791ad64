"""What ``runtimes.py`` compares and shows; and that its table is of today's models and true."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest
import runtimes
from click.testing import CliRunner

PAGE = runtimes.PAGE.read_text("utf-8")
ROWS = {row.name: row for row in runtimes.rows()}
STATED = runtimes.page_rows(PAGE)
NAMES = list(runtimes.RUNTIMES)

#: rows that are run again; all of them take `--check` minutes
AGAIN = (
    "`drift_stream.onnx`", "`lava_net_rf_mlp.onnx`", "`cuba`, slayer, stream", "`lif`, float",
    "`sigma_delta`, slayer", "`Conv`, 8 bits", "`complex.Dense`, 8 bits", "`Recurrent` of `cuba`",
)  # fmt: skip
IN_OPENVINO = ("`drift_stream.onnx`", "`Dense`, 8 bits", "`sigma_delta`, slayer")


def test_every_network_has_a_row() -> None:
    assert list(STATED) == list(ROWS)
    models = {path.name for path in (runtimes.ROOT / "models").glob("*.onnx")}
    assert models == {name.strip("`") for name in STATED if name.endswith(".onnx`")}
    assert all(len(cells) == len(NAMES) and all(cells) for cells in STATED.values())


def test_the_page_names_versions() -> None:
    body = PAGE.partition(runtimes.MARKS[0])[2]
    for name in runtimes.SHOWN:
        assert re.search(rf"\b{name} \d+\.\d+\.\d+", body), f"{name} has no version"


@pytest.mark.slow
@pytest.mark.parametrize("name", AGAIN)
def test_the_reference_evaluator_gives_what_the_page_says(name: str) -> None:
    assert runtimes.measured(ROWS[name], NAMES[:1]) == STATED[name][:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_OPENVINO)
def test_openvino_gives_what_the_page_says(name: str) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: the extra runtimes")
    stated = f"openvino {importlib.metadata.version('openvino').partition('-')[0]}"
    if stated not in PAGE:
        pytest.skip(f"the page is not of {stated}")
    assert runtimes.measured(ROWS[name], NAMES) == STATED[name]


def test_differences_are_counted() -> None:
    y = np.array([1, np.nan, 0, -2], np.float32)
    assert runtimes.compared({"y": y}, {"y": y.copy()}) == "equal"
    other = np.array([1, 0, 0.5, -2], np.float32)
    found = runtimes.compared({"y": y, "z": y}, {"y": y[:4], "z": other})
    assert found.startswith("2 of 8 differ, by up to ")
    assert runtimes.compared({"y": y}, {"y": y[:1]}) == "y is float32[1], not float32[4]"
    assert "float64" in runtimes.compared({"y": y}, {"y": y.astype(float)})


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "Summary:\n-- No conversion rule found for operations: ai.synapse.Cuba\nmore",
            "no operator ai.synapse.Cuba",
        ),
        (
            "log:\n-- Scan-21 with a message:\nWhile\n\n-- Conv-21 with a message:\nno rank",
            "not converted: Scan, Conv",
        ),
        (
            "Exception from a.cpp:1:\nNode a of type If\nException from b.cpp:2:\n"
            "[CPU] Add node with name 'v' Exception from c.cpp:3:\nunsupported src_prc: dynamic",
            "Add: unsupported src_prc: dynamic",
        ),
        ("Node a of type TensorIterator\nobject is | not\n", "TensorIterator: object is / not"),
        ("", "RuntimeError: no reason"),
    ],
)
def test_the_operator_that_fails_is_named(message: str, expected: str) -> None:
    assert runtimes.reason(RuntimeError(message)) == expected


def test_a_page_that_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: the extra runtimes")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{runtimes.MARKS[0]}\nold\n{runtimes.MARKS[1]}\nafter\n")
    monkeypatch.setattr(runtimes, "PAGE", page)
    row = runtimes.Row("`a`", lambda: None)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(runtimes, "rows", lambda: [row])
    monkeypatch.setattr(runtimes, "measured", lambda row, names: ["equal"] * len(names))
    call = CliRunner().invoke
    assert call(runtimes.main, ["--write"]).exit_code == 0
    text = page.read_text()
    assert text.startswith("before\n<!--")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert call(runtimes.main, ["--check"]).exit_code == 0
    monkeypatch.setattr(runtimes, "measured", lambda row, names: ["equal", "equal", "1 of 2"])
    found = call(runtimes.main, ["--check"])
    assert found.exit_code == 1
    assert "`a`: the page says ['equal', 'equal', 'equal'], this run" in found.output
    assert call(runtimes.main, ["--only", "b"]).exit_code == 2
