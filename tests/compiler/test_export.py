"""export: the graph that is written, what it promises, and how it refuses."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from networks import Complex, Convolutional, Mixed, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.compiler._trace_errors import with_module
from synapse_onnx.compiler.exporter import check_model
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.options import OPSETS


def built(kind: type[nn.Module] = Convolutional, **kwargs: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(**kwargs).eval()


def own_nodes(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.domain == "ai.synapse"]


def test_every_layer_is_one_node_with_its_body_in_the_file() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    assert own_nodes(model) == [
        "QuantizedConv", "Cuba", "QuantizedPool", "Cuba", "QuantizedDense", "Cuba",
    ]  # fmt: skip
    assert {function.name for function in model.functions} == set(own_nodes(model))
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 21,
        "ai.synapse": 1,
    }
    named = {node.name for node in model.graph.node}
    assert {"conv", "conv_neuron", "pool", "pool_neuron", "dense", "dense_neuron"} <= named


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


def test_node_count_does_not_grow_with_time_and_batch_and_time_stay_open() -> None:
    short = so.export(built(), spikes(1, 2, 8, 8, 1))
    long = so.export(built(), spikes(3, 2, 8, 8, 300))
    assert len(short.graph.node) == len(long.graph.node)
    dims = short.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 2, 8, 8, "T"]
    out = short.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in out] == ["N", 5, "T"]


def test_an_example_may_be_a_view_of_another() -> None:
    whole = spikes(2, 2, 8, 8, 10)
    assert so.export(built(), whole[..., 2:7]) == so.export(built(), whole[..., 2:7].contiguous())


def test_no_transposes_between_layers() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5))
    transposes = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert len(transposes) == 2, "one at either border"


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", [Convolutional, Complex])
@pytest.mark.gpu
def test_one_file_serves_every_batch_and_length(kind: type, batch: int, steps: int) -> None:
    module = built(kind)
    session = so.Session(so.export(module, spikes(2, 2, 8, 8, 5)))
    x = spikes(batch, 2, 8, 8, steps, seed=steps)
    with torch.no_grad():
        expected = module(x)
    found = session.run(x.numpy())
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    assert len(expected) == len(found)
    for y, z in zip(expected, found, strict=True):
        np.testing.assert_array_equal(y.numpy(), z)
        assert z.dtype == np.float32


def test_static_export_keeps_its_sizes() -> None:
    model = so.export(built(), spikes(2, 2, 8, 8, 5), dynamic=False)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [2, 2, 8, 8, 5]
    with pytest.raises(so.ShapeError, match=r"expected shape \(2, 2, 8, 8, 5\)"):
        so.Session(model).run(np.zeros((1, 2, 8, 8, 5), np.float32))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.gpu
@pytest.mark.matrix
def test_every_opset_gives_the_same_spikes(opset: int) -> None:
    module, x = built(), spikes(2, 2, 8, 8, 12)
    model = so.export(module, x, opset=opset)
    assert model.opset_import[0].version == opset
    with torch.no_grad():
        np.testing.assert_array_equal(so.Session(model).run(x.numpy()), module(x).numpy())


def test_the_module_is_not_touched() -> None:
    module = built().train()
    before = copy.deepcopy(module.state_dict())
    so.export(module, spikes(2, 2, 8, 8, 5))
    assert module.training
    assert all(child.training for child in module.modules())
    assert list(before) == list(module.state_dict())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.conv.pre_hook_fx is so.quantize.q8
    assert module.dense.weight_norm_enabled
    assert all(p.requires_grad for n, p in module.named_parameters() if "dense.weight" in n)


_PROGRAM = """
import hashlib, sys
sys.path.insert(0, {tests!r})
import torch
from networks import Convolutional
import synapse_onnx as so
torch.manual_seed(0)
model = so.export(Convolutional().eval(), torch.zeros(2, 2, 8, 8, 5))
print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())
"""


def test_the_same_network_gives_the_same_bytes_in_every_process() -> None:
    program = _PROGRAM.format(tests=str(Path(__file__).parents[1]))
    sums = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True, capture_output=True, text=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(sums) == 1


def test_no_trace_of_the_exporting_machine_is_in_the_file() -> None:
    data = so.export(built(), spikes(2, 2, 8, 8, 5)).SerializeToString()
    for trace in (b".py", os.getcwd().encode(), b"pkg.torch"):
        assert trace not in data


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


@pytest.mark.gpu
def test_a_network_mixed_with_torch_code_is_equal() -> None:
    module = built(Mixed)
    model = so.export(module, spikes(2, 6, 5))
    report = so.verify(module, model, spikes(4, 6, 40))
    assert report.ok, str(report)
    assert [row.exact for row in report.layers] == [True] * 4
    # the readout is a float product, the grid of spikes is exact
    assert [row.exact for row in report.outputs] == [False, True]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = so.synapse.Dense(3, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
        self.b = so.synapse.Dense(5, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
        self.neuron = so.neuron.cuba.Neuron(0.5, 0.5, 0.1)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"spikes": self.neuron(self.a(left) + self.b(right))}


def test_several_inputs_keep_their_names() -> None:
    torch.manual_seed(0)
    module = TwoInputs().eval()
    args = (spikes(2, 3, 9), spikes(2, 5, 9, seed=1))
    model = so.export(module, args)
    assert [value.name for value in model.graph.input] == ["left", "right"]
    assert so.verify(module, model, args).ok


class Star(nn.Module):
    """As many inputs as it is given."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] - inputs[1]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_forward_of_any_number_of_inputs(streaming: bool) -> None:
    model = so.export(Star(), (spikes(2, 3, 5), spikes(2, 3, 5)), streaming=streaming)
    x, y = spikes(4, 3, 9), spikes(4, 3, 9, seed=1)
    found = so.Session(model).run(x.numpy(), y.numpy())
    np.testing.assert_array_equal(found, (x - y).numpy())


def test_inputs_that_are_returned_and_names_that_clash() -> None:
    class Through(nn.Module):
        def forward(self, output: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            total = output + x
            return x, total, total

    args = (spikes(2, 3, 5), spikes(2, 3, 5, seed=1))
    model = so.export(Through(), args)
    assert [value.name for value in model.graph.input] == ["output", "x"]
    assert [value.name for value in model.graph.output] == ["output__0", "output__1", "output__2"]
    assert so.verify(Through(), model, args).ok


def test_parameters_may_be_called_anything() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Parameter(torch.tensor([2.0]))
            self._w = nn.Parameter(torch.tensor([3.0]))
            self.constant_0 = nn.Parameter(torch.tensor([5.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.output + self._w) * self.constant_0 + 7.5

    model = so.export(Odd(), spikes(2, 3, 5))
    assert {"output", "_w", "constant_0"} <= {t.name for t in model.graph.initializer}
    assert so.verify(Odd(), model, spikes(2, 3, 5)).ok


def test_the_same_layer_called_twice_is_compared_call_by_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.synapse = so.synapse.Dense(4, 4, weight_scale=4, pre_hook_fx=so.quantize.q8)
            self.neuron = so.neuron.cuba.Neuron(0.5, 0.5, 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.neuron(self.synapse(self.neuron(self.synapse(x))))

    torch.manual_seed(0)
    module = Twice().eval()
    report = so.verify(module, so.export(module, spikes(2, 4, 9)), spikes(3, 4, 30))
    assert report.ok, str(report)
    assert [row.name for row in report.layers] == [
        "synapse (call 1)", "neuron (call 1)", "synapse (call 2)", "neuron (call 2)",
    ]  # fmt: skip


def test_composed_neurons_export_too() -> None:
    """A scale that is no power of two runs as two integrators and a spike function."""
    torch.manual_seed(0)
    module = nn.Sequential(
        so.synapse.Dense(6, 8, weight_scale=4, pre_hook_fx=so.quantize.q8),
        so.neuron.cuba.Neuron(0.5, 0.25, 0.05, scale=100),
    ).eval()
    model = so.export(module, spikes(2, 6, 9))
    assert own_nodes(model) == ["QuantizedDense", "LeakyIntegrator", "LeakyIntegrator", "Spike"]
    report = so.verify(module, model, spikes(4, 6, 60))
    assert report.ok, str(report)
    assert report.layers[-1].exact
    assert report.layers[-1].values > 0


# -- files -------------------------------------------------------------------------------------


def test_the_file_holds_what_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = so.export(built(), spikes(2, 2, 8, 8, 5), path)
    assert path.read_bytes() == model.SerializeToString(deterministic=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]
    onnx.checker.check_model(str(path), full_check=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(so.InputError, match=r"net\.onnx cannot be written: No space left"):
        so.export(built(), spikes(2, 2, 8, 8, 5), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(so.InputError, match=r"nowhere/net\.onnx cannot be written: No such file"):
        so.export(built(), spikes(2, 2, 8, 8, 5), tmp_path / "nowhere" / "net.onnx")


# -- errors ------------------------------------------------------------------------------------


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


class _Optional(nn.Module):
    """Buffers of the outermost module, one of which is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", None)
        self.register_buffer("gain", torch.tensor([0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = x * self.gain
        return scaled if self.offset is None else scaled + self.offset


def test_a_buffer_that_is_none() -> None:
    network, x = _Optional(), torch.rand(2, 3, 7)
    model = so.export(network, x)
    np.testing.assert_array_equal(so.Session(model).run(x.numpy()), network(x).numpy())
    assert "offset" in network._buffers  # a copy is traced
