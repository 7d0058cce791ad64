"""synapse-onnx inspect: text and JSON of a model."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from calls_of_commands import bad, good

import synapse_onnx as so
from synapse_onnx.cli._output import size_text


@pytest.mark.matrix
def test_inspect(here: Path) -> None:
    text = good("inspect", "net.onnx")
    lines = [line.split() for line in text.splitlines()]
    model = onnx.load("net.onnx")
    assert ["size", *size_text(os.path.getsize("net.onnx")).split()] in lines
    torch_version = torch.__version__
    assert f"written by      synapse-onnx {so.__version__}, torch {torch_version}\n" in text
    assert ["opset", "21", "(IR", "version", str(model.ir_version) + ")"] in lines
    assert ["nodes", str(len(model.graph.node)), f"({len(model.functions)}", "functions)"] in lines
    assert ["regime", "slayer"] in lines
    assert ["input", "spikes", "float", "(N,", "4,", "T)"] in lines
    assert ["output", "output", "float", "(N,", "3,", "T)", "yes"] in lines
    assert ["dense", "Dense", "3x4x1x1x1", "8", "1/32"] in lines
    assert ["neuron", "cuba", "slayer", "1"] in lines
    said = [" ".join(line) for line in lines]
    assert "dense floats; faster under 32 outputs" in said
    assert "neuron 32 bits if states fit, else 64" in said
    assert max(map(len, text.splitlines())) <= 80


def test_inspect_json(here: Path) -> None:
    found = json.loads(good("inspect", "pair.onnx", "--json"))
    model = onnx.load("pair.onnx")
    assert found["bytes"] == os.path.getsize("pair.onnx")
    assert (found["opset"], found["regime"], found["version"]) == (21, "float", so.__version__)
    assert (found["nodes"], found["functions"]) == (len(model.graph.node), len(model.functions))
    assert found["inputs"] == [
        {"name": "x", "type": "float", "shape": ["N", 4, "T"]},
        {"name": "y", "type": "float", "shape": ["N", 2, 5, 6, "T"]},
    ]
    assert [value["name"] for value in found["outputs"]] == ["output_0", "output_1", "output_2"]
    assert found["exact"] == ["output_0", "output_1"]
    assert [layer["kind"] for layer in found["layers"]] == ["Dense", "Conv"]
    assert found["layers"][0]["weight_shape"] == [3, 4, 1, 1, 1]
    assert found["notes"][0].startswith("conv: float weights")


def test_inspect_a_model_of_somebody_elses(here: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 19]>'
        "twice (float[N, 2] x) => (float[N, 2] y) { y = Add(x, x) }"
    )
    onnx.save(model, "twice.onnx")
    text = good("inspect", "twice.onnx")
    assert "opset       19 (IR version 9)" in text
    assert "note: the model was not written by synapse-onnx" in text
    found = json.loads(good("inspect", "twice.onnx", "--json"))
    assert (found["opset"], found["nodes"], found["regime"]) == (19, 1, None)
    assert found["layers"] == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("nope.onnx", "nope.onnx cannot be read: no such file"),
        (".", ". cannot be read: it is a folder"),
        ("x.npy", "x.npy is no ONNX model"),
        ("empty.onnx", "empty.onnx is no ONNX model, or an empty one"),
    ],
)
def test_what_inspect_refuses(here: Path, model: str, expected: str) -> None:
    Path("empty.onnx").touch()
    assert bad("inspect", model) == expected


def test_a_streaming_model_is_shown_with_its_states(stream: Path) -> None:
    text = good("inspect", "s.onnx")
    assert "streaming       yes, in multiples of 4 time steps" in text
    assert "first.neuron.spikes   float32  (N, 6)         0" in text
    ends = text[text.index("name") : text.index("layer ")]
    assert "neuron" not in ends  # states are no inputs of the caller's
    document = json.loads(good("inspect", "s.onnx", "--json"))
    assert (document["streaming"], document["chunk"]) == (True, 4)
    assert [state["input"] for state in document["states"]][:3] == [
        "first.neuron.current", "first.neuron.voltage", "first.neuron.spikes",
    ]  # fmt: skip
    assert [value["name"] for value in document["inputs"]] == ["spikes"]
    assert [value["name"] for value in document["outputs"]] == ["output"]


def test_inspect_shows_delays_and_how_large_states_are() -> None:
    models = Path(__file__).parents[2] / "models"
    lines = good("inspect", str(models / "lava_net_alif_mlp.onnx")).splitlines()
    (line,) = [line for line in lines if line.startswith("layers.dense_0.delay ")]
    assert line.split()[-1] == "0..4"
    path = str(models / "drift_stream.onnx")
    states = json.loads(good("inspect", path, "--json"))["states"]
    kept = [s for s in states if s["input"].startswith("first.neuron.")]
    size = sum(np.prod(s["shape"][1:]) * np.dtype(s["dtype"]).itemsize for s in kept)
    assert size > 0
    (line,) = [line for line in good("inspect", path).splitlines() if "first.neuron  " in line]
    assert line.split()[-2:] == [f"{size:,}", "B"]


def test_inspect_with_the_metrics_of_neurobench(here: Path) -> None:
    x = (np.random.default_rng(0).random((2, 4, 9)) < 0.4).astype(np.float32)
    np.save("measured.npy", x)
    metrics = so.neurobench("net.onnx", x)
    text = good("inspect", "net.onnx", "-i", "measured.npy", "--neurobench")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert f"dense operations a sample {metrics.dense:,}" in lines
    assert f"effective ACs a sample {metrics.effective_acs:,}" in lines
    assert f"activation sparsity {metrics.activation_sparsity:,}" in lines
    assert f"footprint of the file, bytes {metrics.file_footprint:,}" in lines
    assert "membrane updates a sample not known" in lines
    assert "the file shows no voltage" in " ".join(lines)
    found = json.loads(good("inspect", "net.onnx", "-i", "measured.npy", "--neurobench", "--json"))
    assert found["neurobench"]["effective_acs"] == metrics.effective_acs > 0
    assert found["neurobench"]["connections"][0]["dense"] == metrics.connections[0].dense
    assert set(metrics.notes) <= set(found["notes"])
    assert "neurobench" not in json.loads(
        good("inspect", "net.onnx", "-i", "measured.npy", "--json")
    )


def test_the_metrics_need_a_sample(here: Path) -> None:
    assert "--neurobench is for a run; give a sample by --input" in bad(
        "inspect", "net.onnx", "--neurobench"
    )
