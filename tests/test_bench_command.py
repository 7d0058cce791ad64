"""synapse-onnx bench: its rows, its arithmetic, and what it refuses. No figure is held."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from synapse_onnx import native
from synapse_onnx.cli import main
from synapse_onnx.cli.bench import summary

MODELS = Path(__file__).parents[1] / "models"
DIGITS, DRIFT = str(MODELS / "digits_q8.onnx"), str(MODELS / "drift_stream.onnx")
QUICK = ("--seconds", "0", "--steps", "3")


def _bench(*args: str) -> Result:
    return CliRunner().invoke(main, ["bench", *args])


def _rows(*args: str) -> list[dict[str, object]]:
    outcome = _bench(*args, *QUICK, "--json")
    assert outcome.exit_code == 0, outcome.output
    document = json.loads(outcome.stdout)
    assert document["processors"] >= 1
    rows: list[dict[str, object]] = document["rows"]
    return rows


def test_the_summary_of_known_times() -> None:
    times = [0.001 * n for n in range(1, 102)]  # 1 to 101 ms
    setting = {"provider": "P", "native": False, "threads": None, "batch": 4, "steps": 10}
    row = summary(times, **setting)
    found = (row.p50, row.p90, row.p99, row.best, row.samples_per_s, row.steps_per_s)
    assert found == pytest.approx((51, 91, 100, 1, 4 / 0.051, 40 / 0.051))
    assert row.calls == 101


def test_every_combination_is_a_row() -> None:
    rows = _rows(DIGITS, "--threads", "1", "--threads", "2", "--batch", "1", "--batch", "3")
    assert [(row["threads"], row["batch"]) for row in rows] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert all(row["steps"] == 3 for row in rows)
    assert all(int(str(row["calls"])) >= 5 for row in rows)
    assert all(0 < row["best"] <= row["p50"] <= row["p90"] <= row["p99"] for row in rows)  # type: ignore[operator]


def test_a_stream_is_timed_step_by_step() -> None:
    (row,) = _rows(DRIFT, "--stream")
    assert row["steps"] == 1
    assert int(str(row["calls"])) >= 5
    assert int(str(row["calls"])) % 3 == 0, "three steps a turn"


def test_an_input_of_ones_own(tmp_path: Path) -> None:
    import onnx

    shape = [d.dim_value for d in onnx.load(DIGITS).graph.input[0].type.tensor_type.shape.dim]
    np.save(tmp_path / "x.npy", np.zeros((2, *shape[1:-1], 7), np.float32))
    (row,) = _rows(DIGITS, "--input", str(tmp_path / "x.npy"))
    assert (row["batch"], row["steps"]) == (2, 7)


def test_the_table_names_what_was_timed() -> None:
    outcome = _bench(DIGITS, *QUICK, "--native", "no", "--threads", "1")
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["model", DIGITS]
    assert lines[-1].split()[:5] == ["CPU", "portable", "1", "1", "3"]
    assert all(len(line.rstrip()) <= 80 for line in lines[1:])


def test_native_and_portable_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNAPSE_ONNX_LIBRARY", raising=False)
    if native.problem() is not None:
        pytest.skip(str(native.problem()))
    assert [row["native"] for row in _rows(DIGITS, "--native", "both")] == [True, False]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([DIGITS, "--stream"], "the model was not exported for streaming"),
        ([DIGITS, "--input", "x.npy", "--batch", "2"], "--batch is for generated spikes"),
        (["missing.onnx"], "missing.onnx cannot be read: No such file"),
        ([DIGITS, "--seconds", "nan"], "'nan' is not a finite number"),
        ([DIGITS, "--provider", "nonsense"], "execution provider nonsense is not available"),
    ],
)
def test_what_cannot_be_timed_is_refused(args: list[str], sentence: str) -> None:
    outcome = _bench(*args)
    assert outcome.exit_code == 2
    assert outcome.stdout == ""
    assert sentence in outcome.stderr
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
