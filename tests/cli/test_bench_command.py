"""synapse-onnx bench: its rows, its arithmetic, and what it refuses. No figure is held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.cli.bench import _print_rows, summary
from synapse_onnx.runtime import native

MODELS = Path(__file__).parents[2] / "models"
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
    assert [line.split() for line in lines[3:5]] == [["provider", "CPU"], ["time", "steps", "3"]]
    assert lines[-1].split()[:3] == ["portable", "1", "1"]
    head = ["kernels", "threads", "batch", "p50", "ms", "p90", "p99", "min", "samples/s", "steps/s"]
    assert lines[-3].split() == head
    assert all(len(line.rstrip()) <= 80 for line in lines[1:])


def test_native_and_portable_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNAPSE_ONNX_LIBRARY", raising=False)
    if native.problem() is not None:
        pytest.skip(str(native.problem()))
    assert [row["native"] for row in _rows(DIGITS, "--native", "both")] == [True, False]


def test_the_rows_hold_both_throughputs(capsys: pytest.CaptureFixture[str]) -> None:
    setting = {"native": False, "threads": None, "batch": 4, "steps": 10}
    _print_rows(
        [
            summary([0.002] * 5, provider="CPUExecutionProvider", **setting),
            summary([0.8] * 5, provider="CUDAExecutionProvider", **setting),
        ]
    )
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert rows == [
        ["CPU", "portable", "4", "2.000", "2.000", "2.000", "2.000", "2,000", "20,000"],
        ["CUDA", "portable", "4", "800.0", "800.0", "800.0", "800.0", "5", "50"],
    ]


def test_threads_reach_onnx_runtime() -> None:
    for threads, expected in ((None, 0), (1, 1), (2, 2)):  # 0 is ONNX Runtime's own choice
        options = so.Session(DIGITS, threads=threads).session.get_session_options()
        assert options.intra_op_num_threads == expected


def test_bench_imports_no_torch() -> None:
    code = (
        "import sys\nfrom synapse_onnx.cli import main\n"
        f"try:\n    main(['bench', {DIGITS!r}, *{QUICK!r}])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'onnxruntime' in sys.modules\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([DIGITS, "--stream"], "the model was not exported for streaming"),
        ([DIGITS, "--input", "x.npy", "--batch", "2"], "--batch is for generated spikes"),
        (["missing.onnx"], "missing.onnx cannot be read: no such file"),
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
