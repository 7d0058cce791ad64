"""Options of an export, and a model that is made again from the options in its metadata."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import Convolutional, spikes

import synapse_onnx as so
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.exporter import compile_frozen
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.options import INPUT_TYPES, OPSETS, Options


@pytest.mark.parametrize(
    "wrong",
    [{"layout": "CNT"}, {"axes": "TCN"}, {"input_type": "int8"}, {"opset": 20}, {"opset": 25}],
)
def test_an_unknown_value_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(so.InputError, match=f"export: {name} must be .*, got "):
        Options(**wrong)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(streaming=True, dynamic=False, layout="TNC", opset=OPSETS[-1]),
        Options(input_type=INPUT_TYPES[1], opset=22, layout="TNC"),
    ],
)
def test_a_model_is_made_again_from_its_metadata(options: Options) -> None:
    torch.manual_seed(0)
    module, x = Convolutional(), spikes(2, 2, 8, 8, 6)
    found = ("open_time", "steps")  # of the network
    model = so.export(module, x, **{k: v for k, v in vars(options).items() if k not in found})
    recorded = Metadata.read(model).options
    assert recorded == options
    again = compile_frozen(so.freeze(module), Arguments.of(module, x, "export"), recorded)
    assert again == model


def test_a_file_that_does_not_say_was_dynamic() -> None:
    model = so.export(Convolutional(), spikes(2, 2, 8, 8, 6), dynamic=False)
    assert not Metadata.read(model).dynamic
    (entry,) = [prop for prop in model.metadata_props if prop.key == "synapse_onnx.dynamic"]
    model.metadata_props.remove(entry)
    assert Metadata.read(model).dynamic
