"""What the metadata of a file say of its layers, in numbers and in notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from graphs import own_nodes
from networks import built, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.metadata import Metadata


class Numbers(nn.Module):
    """A layer of every kind of arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        q8: dict[str, Any] = {"pre_hook_fx": so.quantize.q8}
        cuba = {"threshold": 1.0, "current_decay": 0.25, "voltage_decay": 0.05}
        alif = cuba | {"threshold_step": 0.5, "threshold_decay": 0.1, "refractory_decay": 0.1}
        self.plain = so.synapse.Dense(8, 130)
        self.looked_at = so.synapse.Dense(130, 130, **q8)
        self.few = so.synapse.Dense(130, 31, **q8)
        self.some = so.synapse.Dense(31, 127, **q8)
        self.cuba = so.neuron.cuba.Neuron(**cuba)
        self.spikes = so.synapse.Dense(127, 32, **q8)
        self.alif = so.neuron.alif.Neuron(**alif)
        self.fine = so.synapse.Dense(
            32, 130, pre_hook_fx=so.quantize.Quantizer(scale=8192, bits=16)
        )
        self.conv = so.synapse.Conv(1, 2, 1, **q8)
        self.fed = so.block.cuba.Recurrent(cuba, 260, 4, pre_hook_fx=so.quantize.q8)
        self.real = so.neuron.lif.Neuron(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        y = self.some(self.few(self.looked_at(self.plain(x))))
        y = self.fine(self.alif(self.spikes(self.cuba(y))))
        y = self.conv(y[:, None, :, None]).reshape(x.shape[0], 260, x.shape[-1])
        return self.real(self.fed(y))


def test_the_file_says_in_which_numbers_a_layer_is_computed() -> None:
    found = Metadata.read(so.export(Numbers(), spikes(2, 8, 5))).layers
    assert {layer["path"]: layer["arithmetic"] for layer in found if "arithmetic" in layer} == {
        "plain": "floats",
        "looked_at": "bytes if inputs are 0 to 255, else floats",
        "few": "floats; faster under 32 outputs",
        "some": "floats; faster under 128 outputs where inputs may not be spikes",
        "cuba": "32 bits if states fit, else 64",
        "spikes": "bytes",
        "alif": "32 bits if states fit, else 64",
        "fine": "floats; the weights are no bytes",
        "conv": "floats; there is no fast integer operator",
        "fed.input_synapse": "floats; faster under 32 outputs",
        "fed.neuron": "64 bits; nothing bounds the spikes that are fed back",
        "real": "floats; keeps no current",
    }


def test_a_hook_without_a_grid_leaves_float_weights_and_a_note() -> None:
    torch.manual_seed(0)
    layer = so.synapse.Dense(8, 5, pre_hook_fx=torch.tanh)
    model = so.export(layer, spikes(2, 8, 5))
    assert own_nodes(model) == ["Dense"]
    (note,) = Metadata.read(model).notes
    assert "float weights" in note
    report = so.verify(layer, model, spikes(3, 8, 20))
    assert report.ok
    assert note in report.notes


@pytest.mark.parametrize("path", ["", "0"], ids=["bare", "within"])
@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (None, "float weights; its hook leaves"),
        (lambda w: torch.round(w * 10) / 10, "steps are no powers of two"),
        (lambda w: torch.round(w * 2**14) / 2**14, "sums pass 2**24"),
        (so.quantize.q8, None),
    ],
    ids=["floats", "steps", "wide", "none"],
)
def test_notes_name_the_layer(path: str, hook: Any, says: str | None) -> None:
    torch.manual_seed(0)
    layer = so.synapse.Dense(2000, 3, pre_hook_fx=hook)
    layer.weight.data.uniform_(-1.9, 1.9)
    module = nn.Sequential(layer) if path else layer
    notes = Metadata.read(so.export(module, spikes(2, 2000, 5))).notes
    assert len(notes) == (says is not None)
    if says is not None:
        assert notes[0].startswith(f"{path or 'the synapse'}: {says}")


def test_metadata_say_what_is_in_the_file() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    facts = Metadata.read(model)
    assert facts.version == so.__version__
    assert facts.torch_version == torch.__version__
    assert (facts.opset, facts.regime, facts.streaming) == (21, "slayer", False)
    assert facts.exact == ("output",)
    conv = facts.layers[0]
    assert (conv["path"], conv["kind"], conv["bits"], conv["scales"]) == (
        "conv", "Conv", 8, [[1 / 32]],
    )  # fmt: skip
    integers = next(t for t in model.graph.initializer if t.name == "conv.weight")
    sums = np.abs(onnx.numpy_helper.to_array(integers).astype(int)).sum(axis=(1, 2, 3, 4))
    assert conv["input_bound"] == (2**24 - 1) // sums.max()
    assert Metadata.read(so.export(built(hook=None), spikes(2, 2, 8, 8, 5))).regime == "mixed"
    floats = built(hook=None, regime="float")
    assert Metadata.read(so.export(floats, spikes(2, 2, 8, 8, 5))).regime == "float"
