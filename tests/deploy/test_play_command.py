"""synapse-onnx play: the files of a page, and calls at fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from play_calls import DIGITS, MODELS, SITE, TONES, call, refused

from synapse_onnx.deploy.play import _show


def test_a_page_is_written_whole(stand_in: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    result = call(TONES, "-o", folder)
    assert result.exit_code == 0, result.output
    assert f"wrote    {folder}" in result.output
    own = {path.name for path in SITE.iterdir()}
    assert {"index.html", "play.js", "onnxruntime-web.LICENSE.txt"} <= own
    names = own | {
        "model.json", "model.onnx", "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir()} == names
    document = json.loads((folder / "model.json").read_text())
    assert document["title"] == "Tones and chirps"
    assert document["labels"][-1] == "falling"
    shown = {layer["path"]: layer["values"] for layer in document["layers"]}
    assert shown == {
        "ear.neuron": "ear.neuron:s/shown", "mix.neuron": "mix.neuron:s/shown",
        "readout.neuron": None,
    }  # fmt: skip
    model = onnx.load(folder / "model.onnx")
    assert {"ear.neuron:s/shown", "mix.neuron:s/shown"} <= {v.name for v in model.graph.output}
    assert "synapse_onnx.show" not in {prop.key for prop in model.metadata_props}
    # a page that is there is replaced, and nothing is left beside it
    assert call(DIGITS, "-o", folder).exit_code == 0
    assert json.loads((folder / "model.json").read_text())["name"] == "digits_stream"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "page"]


def test_samples_and_labels_of_the_call_come_first(stand_in: Path, tmp_path: Path) -> None:
    sounds = np.round(np.random.default_rng(0).normal(size=(2, 1, 5)) * 8).astype("f4") / 8
    np.save(tmp_path / "mine.npy", sounds)
    folder = tmp_path / "page"
    call(TONES, "-i", tmp_path / "mine.npy", "--labels", "a, b", "-o", folder)
    document = json.loads((folder / "model.json").read_text())
    assert document["labels"] == ["a", "b"]
    first, second, third = document["samples"][:3]
    assert [first["name"], second["name"], third["name"]] == ["mine, 0", "mine, 1", "period 6"]
    (packed,) = second["values"]
    np.testing.assert_array_equal(_show.unpack(packed), sounds[1])
    np.save(tmp_path / "wrong.npy", np.zeros((1, 3, 5), "f4"))
    said = refused(call(TONES, "-i", tmp_path / "wrong.npy", "-o", tmp_path / "other"))
    assert "sample wrong: input sound takes (1, T), got (3, 5)" in said
    np.save(tmp_path / "scalar.npy", np.float32(1))
    assert "equally many" in refused(call(TONES, "-i", tmp_path / "scalar.npy", "-o", folder))
    np.save(tmp_path / "long.npy", np.zeros((1, 1, 5_000_000), "i1"))
    said = refused(call(TONES, "-i", tmp_path / "long.npy", "-o", tmp_path / "other"))
    assert "4,194,304 at most" in said
    assert not (tmp_path / "other").exists()


def test_calls_at_fault(stand_in: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    assert "name the model" in refused(call("-o", page))
    assert "one of -o DIR" in refused(call(TONES))
    assert "one of -o DIR" in refused(call(TONES, "-o", page, "--serve"))
    assert "--port is for --serve" in refused(call(TONES, "-o", page, "--port", "8000"))
    assert "not exported for streaming" in refused(call(MODELS / "tones_q8.onnx", "-o", page))
    said = refused(call(TONES, "-o", page, "--max-size", "0.05"))
    assert "0.1 MB" in said
    assert "--max-size allows more" in said
    foreign = onnx.load(TONES)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert "not written by this tool" in refused(call(tmp_path / "foreign.onnx", "-o", page))
    assert "no such file" in refused(call(tmp_path / "none.onnx", "-o", page))
    assert not page.exists()
    page.mkdir()
    (page / "thesis.txt").write_text("years")
    assert "holds something else" in refused(call(TONES, "-o", page))
    assert [path.name for path in page.iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "foreign.onnx", "page"]


def test_a_fault_while_it_is_written_leaves_the_old_page(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "page"
    assert call(TONES, "-o", folder).exit_code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert "No space left" in refused(call(DIGITS, "-o", folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "No space left" in refused(call(DIGITS, "-o", tmp_path / "new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "page"]
