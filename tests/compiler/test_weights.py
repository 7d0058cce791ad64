"""Weights in the file: their names, their integers and steps, and how narrow they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from graphs import own_nodes
from networks import built, spikes

import synapse_onnx as so


def test_weights_are_named_after_modules_and_equal_ones_stay_apart() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in ("conv", "pool", "dense"):
        assert {f"{layer}.weight", f"{layer}.weight_scale"} <= set(tensors)
    for layer in ("conv_neuron", "pool_neuron", "dense_neuron"):
        assert f"{layer}.current_decay" in tensors
    assert tensors["conv.weight"].data_type == onnx.TensorProto.INT8


def test_integers_times_scale_are_the_hooked_weights() -> None:
    module = built()
    model = so.export(module, spikes(2, 2, 8, 8, 5))
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in ("conv", "dense"):
        layer = getattr(module, name)
        product = tensors[f"{name}.weight"].astype(np.float32) * tensors[f"{name}.weight_scale"]
        np.testing.assert_array_equal(product, layer.effective_weight.detach().numpy())


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        (3, onnx.TensorProto.INT4),
        (4, onnx.TensorProto.INT4),
        (5, onnx.TensorProto.INT8),
        (8, onnx.TensorProto.INT8),
        (9, onnx.TensorProto.INT16),
        (16, onnx.TensorProto.INT16),
    ],
)
@pytest.mark.parametrize("is_complex", [False, True])
def test_weights_are_stored_as_narrow_as_they_are(bits: int, kind: int, is_complex: bool) -> None:
    torch.manual_seed(1)
    make = so.synapse.complex.Dense if is_complex else so.synapse.Dense
    # a scale at which weights of one to two reach both ends of the range
    hook = so.quantize.Quantizer(scale=float(1 << bits), bits=bits)
    layer = make(16, 9, weight_scale=6, pre_hook_fx=hook)  # int4 pays from 128 weights on
    model = so.export(layer, spikes(2, 16, 5))
    stored = {t.name: t.data_type for t in model.graph.initializer}
    weights = {stored[name] for name in stored if "weight" in name and "scale" not in name}
    assert weights == {kind}
    x = spikes(3, 16, 9)
    expected, found = layer(x), so.Session(model).run(x.numpy())
    pairs = zip(expected, found, strict=True) if is_complex else [(expected, found)]
    for y, z in pairs:
        np.testing.assert_array_equal(y.detach().numpy(), z)


def test_channel_steps_that_are_no_powers_of_two_are_exact_behind_the_sum() -> None:
    def hook(weight: torch.Tensor) -> torch.Tensor:
        step = weight.abs().amax(dim=(1, 2, 3, 4), keepdim=True) / 127
        return torch.round(weight / step) * step

    torch.manual_seed(0)
    layer = so.synapse.Conv(3, 4, 3, pre_hook_fx=hook)
    model = so.export(layer, spikes(2, 3, 6, 6, 5))
    assert own_nodes(model) == ["QuantizedConv"]
    x = spikes(3, 3, 6, 6, 9)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), so.freeze(layer)(x).numpy())
    report = so.verify(layer, model, x)
    assert report.ok
    assert not report.layers[0].exact
