"""What cannot be exported: the error says in which module, and why."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from networks import built, spikes
from torch import nn

import synapse_onnx as so
from synapse_onnx.compiler._trace_errors import with_module
from synapse_onnx.compiler.exporter import check_model


@pytest.mark.parametrize(("running", "said"), [([], ""), ([""], ""), (["", "a", "a.b"], "a.b: ")])
def test_an_error_says_where_it_was(running: list[str], said: str) -> None:
    error = with_module(so.ShapeError("wrong"), running)
    assert isinstance(error, so.ShapeError)
    assert str(error) == f"{said}wrong"


def test_shapes_that_contradict_each_other_do_not_pass() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> '
        "g (float[2, 3] x) => (float[3, 2] y) { y = Relu(x) }"
    )
    onnx.checker.check_model(model)
    with pytest.raises(so.ExportError, match=r"does not pass onnx\.checker: "):
        check_model(model)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (2, 2, 8, 8),
            r"conv: Conv: expected an input of shape \(N, C, H, W, T\), got \(2, 2, 8, 8\)",
        ),
        ((2, 3, 8, 8, 5), r"conv: Conv: expected 2 input channels .* got 3"),
        ((2, 2, 4, 4, 5), r"dense: Dense: expected 64 input channels .* got 16"),
    ],
)
def test_inputs_that_do_not_fit_name_the_layer(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(so.ShapeError, match=message):
        so.export(built(), spikes(*shape))


def test_a_kernel_larger_than_its_input_is_refused() -> None:
    layer = so.synapse.Conv(1, 1, 5)
    with pytest.raises(so.ShapeError, match=r"reaches over 5 pixels of height .* has 3"):
        so.export(layer, spikes(1, 1, 3, 9, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    module = built()
    with torch.no_grad():
        module.conv.weight[0, 0, 0, 0, 0] = value
    with pytest.raises(so.InputError, match="conv: Conv: the weight has NaN or infinite values"):
        so.export(module, spikes(2, 2, 8, 8, 5))


def test_a_hook_of_another_shape_is_refused() -> None:
    module = built(hook=lambda weight: weight[:1])
    with pytest.raises(
        so.QuantizationError, match=r"conv: pre_hook_fx returned shape \(1, 2, 3, 3, 1\)"
    ):
        so.export(module, spikes(2, 2, 8, 8, 5))


def test_double_precision_is_refused() -> None:
    with pytest.raises(so.InputError, match=r"the weight is torch\.float64.*call \.float\(\)"):
        so.export(so.synapse.Dense(3, 2).double(), torch.zeros(1, 3, 4, dtype=torch.float64))


class Head(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.synapse = so.synapse.Dense(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.synapse(x))


class Network(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.head = Head(function)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            torch.special.bessel_j0,
            r"operator \S*bessel_j0\S* in module 'head' \(Head\) has no ONNX form",
        ),
        (
            lambda x: torch.linalg.eigvals(x @ x.transpose(1, 2)).real,
            r"operator \S*linalg_eig\S* in module 'head' \(Head\) has no ONNX form",
        ),
        (
            lambda x: x if x.sum() > 0 else -x,
            r"branch or size in module 'head' depends on the values",
        ),
        (lambda x: x + torch.ones(2, 4, 5), r"uses the batch size N as a constant \(2\)"),
        (
            lambda x: x.reshape(x.shape[0], 20),
            r"uses the number of time steps T as a constant \(5\)",
        ),
    ],
    ids=["operator", "decomposed operator", "branch", "batch", "time"],
)
def test_what_cannot_be_exported_is_named(
    function, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(so.ExportError, match=message) as caught:
        so.export(Network(function), spikes(2, 6, 5))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"opset": 18}, "opset must be 21 to"),
        ({"layout": "CTN"}, "layout must be NCT or TNC"),
    ],
)
def test_arguments_out_of_range(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(so.InputError, match=message):
        so.export(so.synapse.Dense(3, 2), spikes(1, 3, 4), **kwargs)


def test_arguments_that_are_no_tensors() -> None:
    with pytest.raises(so.InputError, match="argument 0 is a ndarray"):
        so.export(so.synapse.Dense(3, 2), [np.zeros((1, 3, 4))])
    with pytest.raises(so.InputError, match="argument 0 is empty"):
        so.export(so.synapse.Dense(3, 2), torch.zeros(0, 3, 4))
