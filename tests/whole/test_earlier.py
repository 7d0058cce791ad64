"""Files that were written before: they load, and give what those of today give.

A folder below ``earlier`` holds models of a day, named as those in ``models``. When the format of a
file changes, those of the day before are added.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import synapse_onnx as so
from synapse_onnx.cli import main
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.runtime import native

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "earlier").glob("*/*.onnx"))


def _input(session: so.Session) -> np.ndarray:
    (info,) = (value for value in session.session.get_inputs() if value.name in session.inputs)
    shape = [size if isinstance(size, int) else 3 for size in info.shape[:-1]]
    return (np.random.default_rng(0).random((*shape, 40)) < 0.3).astype(np.float32)


def test_there_are_some() -> None:
    assert len(FILES) >= 6


@pytest.mark.matrix
@pytest.mark.parametrize(
    "kernels",
    [pytest.param(False, id="portable", marks=pytest.mark.gpu), pytest.param(True, id="native")],
)
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_they_give_what_todays_give(
    path: Path, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels:
        monkeypatch.delenv("SYNAPSE_ONNX_LIBRARY", raising=False)
        if reason := native.problem():
            pytest.skip(f"there are no native kernels: {reason}")
    now = so.Session(ROOT / "models" / path.name, native=kernels)
    then = so.Session(path, native=kernels)
    assert (then.inputs, then.outputs, then.streaming) == (now.inputs, now.outputs, now.streaming)
    x = _input(now)
    expected = now.run(x)
    assert np.any(expected)
    tolerance = 1e-5 * np.abs(expected).max() if "float" in path.name else 0
    np.testing.assert_allclose(then.run(x), expected, rtol=0, atol=tolerance)
    if now.streaming:
        streams = [session.stream(batch=len(x)) for session in (then, now)]
        parts = [
            np.concatenate([stream.run(x[..., :7]), stream.run(x[..., 7:]), stream.flush()], -1)
            for stream in streams
        ]
        np.testing.assert_array_equal(*parts)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_they_can_be_inspected(path: Path) -> None:
    def layers(file: Path) -> list[tuple[str, str]]:
        outcome = CliRunner().invoke(main, ["inspect", str(file), "--json"])
        assert outcome.exit_code == 0, outcome.output
        return [(layer["path"], layer["kind"]) for layer in json.loads(outcome.output)["layers"]]

    assert layers(path) == layers(ROOT / "models" / path.name) != []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_scales_are_read_by_their_earlier_name(path: Path) -> None:
    """Files of November 2026 call the quantisation scales of a layer "steps"."""
    then = Metadata.read(onnx.load(path, load_external_data=False)).layers
    now = Metadata.read(onnx.load(ROOT / "models" / path.name, load_external_data=False)).layers
    assert [layer.get("scales") for layer in then] == [layer.get("scales") for layer in now]
    assert all(("scales" in layer) == layer.get("quantized", False) for layer in then)
    assert not any("steps" in layer for layer in then)
    scales = [scale for layer in then for part in layer.get("scales", []) for scale in part]
    assert bool(scales) == ("float" not in path.name), scales
