"""so.quantize.apply: the grids of weights, the files of the result, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from quantized_networks import LAYERS, network, spikes, stored, weights_of
from torch import Tensor, nn
from torch.nn.utils import parametrize

import synapse_onnx as so
from synapse_onnx.errors import InputError
from synapse_onnx.model.tiles import without_tiles

NAMES = sorted(LAYERS)


def steps_of(weight: Tensor, bits: int, axis: int | None) -> Tensor:
    """Return weights in units of their scale, the largest weight over 127 or 7."""
    most = (1 << (bits - 1)) - 1
    others = [i for i in range(weight.dim()) if i != axis]
    largest = weight.abs().amax(others, keepdim=True) if axis is not None else weight.abs().max()
    return weight / (largest / most)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_weights_lie_on_grids_and_the_network_given_is_not_touched(
    name: str, bits: int, per_channel: bool
) -> None:
    given, x = network(name)
    before = copy.deepcopy(given.state_dict())
    result = so.quantize.apply(given, bits, per_channel)
    assert type(result) is type(given)
    assert not result.training
    state = given.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    for path, weight in weights_of(result, name).items():
        steps = steps_of(weight, bits, 0 if per_channel else None)
        assert torch.allclose(steps, steps.round(), atol=1e-4), path
        assert int(steps.abs().max().round()) == (1 << (bits - 1)) - 1
        assert len(torch.unique(steps.round())) > 4
    assert result(x).shape == given(x).shape


@pytest.mark.parametrize("name", ["blocks", "plain"])
def test_each_weight_is_the_nearest_of_its_grid(name: str) -> None:
    """In networks without norms, which change the weights that are rounded."""
    given, _ = network(name)
    for per_channel in (True, False):
        result = so.quantize.apply(given, 8, per_channel)
        for path, before in weights_of(given, name).items():
            after = weights_of(result, name)[path]
            axis = 0 if per_channel else None
            unit = before / steps_of(before, 8, axis)
            unit = unit.nan_to_num(0).abs()
            assert bool(((after - before).abs() <= unit * 0.5001).all())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_a_second_call_changes_nothing(name: str, bits: int) -> None:
    given, x = network(name)
    for calibration in (None, x):
        once = so.quantize.apply(given, bits, calibration=calibration)
        twice = so.quantize.apply(once, bits, calibration=calibration)
        other = so.quantize.apply(once, bits, False)  # a grid of its own is not asked again
        for again in (twice, other):
            first, second = once.state_dict(), again.state_dict()
            assert first.keys() == second.keys()
            assert all(torch.equal(first[key], second[key]) for key in first)
            assert {row.note for row in so.quantize.summary_of(again).layers} == {"its own grid"}
            assert not any(row.rounded for row in so.quantize.summary_of(again).layers)


@pytest.mark.parametrize(
    ("bits", "per_channel", "streaming"), [(8, True, False), (4, True, True), (4, False, False)]
)
@pytest.mark.parametrize("name", NAMES)
def test_the_file_holds_integers_and_gives_what_torch_gives(
    name: str, bits: int, per_channel: bool, streaming: bool
) -> None:
    given, x = network(name)
    result = so.quantize.apply(given, bits, per_channel, x)
    model = so.export(result, x, streaming=streaming)
    report = so.verify(result, model, x)
    assert report.ok, str(report)
    assert report.verdict.startswith("equal")
    plain = so.export(given, x, streaming=streaming)
    sizes = {path: weight.numel() for path, weight in weights_of(result, name).items()}
    kept = [kind for kind, size in stored(model).values() if kind in ("INT8", "INT4")]
    assert len(kept) >= len(sizes)
    floats = [size for kind, size in stored(model).values() if kind == "FLOAT"]
    assert max(floats, default=0) <= 4 * 16  # scales and biases alone
    saved = model.ByteSize() - plain.ByteSize()
    assert saved < 0 or name != "snntorch"
    for path, size in sizes.items():
        found = [value for key, value in stored(model).items() if key.startswith(f"{path}.")] or [
            value for value in stored(model).values() if value[0] in ("INT8", "INT4")
        ]
        int4 = bits == 4 and size >= 128
        assert any(bytes_ == (-(-size // 2) if int4 else size) for _, bytes_ in found), path


@pytest.mark.parametrize("name", ["snntorch", "spikingjelly"])
def test_layers_of_other_frameworks_are_synapses_of_ours(name: str) -> None:
    given, x = network(name)
    model = so.export(so.quantize.apply(given, 8, True, x), x)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizedBiasedConv") == kinds.count("QuantizedBiasedDense") == 1
    assert not {"Conv", "MatMul", "Gemm", "BatchNormalization"} & set(kinds)
    (dense,) = (node for node in model.graph.node if node.op_type == "QuantizedBiasedDense")
    spiking = {attribute.name: attribute.i for attribute in dense.attribute}["spikes"]
    assert spiking == 1  # a max pool passes spikes on


def test_biases_stay_floats() -> None:
    given, x = network("plain")
    result = so.quantize.apply(given, 4)
    assert torch.equal(result.fc.bias, given.fc.bias)
    model = so.export(result, x)
    bias = next(t for t in model.graph.initializer if t.name == "fc.synapse.bias")
    assert bias.data_type == 1


def test_layers_that_are_kept_stay_in_floats() -> None:
    given, x = network("snntorch")
    result = so.quantize.apply(given, 8, True, x, keep=["conv"])
    assert torch.equal(result.conv.weight, given.conv.weight)
    assert isinstance(result.norm, nn.BatchNorm2d)
    assert not torch.equal(result.fc.weight, given.fc.weight)
    summary = so.quantize.summary_of(result)
    assert [row.bits for row in summary.layers] == [None, 8]
    assert "conv is kept in floats" in summary.norms["norm"]
    model = so.export(result, x)
    nodes = without_tiles(model).graph.node
    assert [n.op_type for n in nodes if "Conv" in n.op_type] == ["Conv"]
    assert so.verify(result, model, x).ok
    alone = so.quantize.apply(given, 8, keep="fc")
    assert torch.equal(alone.fc.weight, given.fc.weight)


# -- calibration -----------------------------------------------------------------------------------


def _error(before: Any, after: Any, x: Tensor) -> float:
    return float((after(x) - before(x)).detach().double().square().sum())


@pytest.mark.parametrize("per_channel", [True, False])
def test_calibrated_scales_have_the_least_error_of_the_current(per_channel: bool) -> None:
    """One weight that no input reaches is large: its scale must not count."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(12, 6))
    with torch.no_grad():
        layer[0].weight[:, 0] = 0.8
    x = spikes(200, 12, rate=0.5)
    x[:, 0] = 0
    plain = so.quantize.apply(layer, 4, per_channel)
    calibrated = so.quantize.apply(layer, 4, per_channel, x)
    assert _error(layer, calibrated, x) < 0.7 * _error(layer, plain, x)


def test_weights_of_silent_inputs_are_not_clipped_for_nothing() -> None:
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(40, 6)), spikes(50, 40, rate=0.5)
    x[:, 1:] = 0  # one input alone is seen
    calibrated = so.quantize.apply(layer, 8, True, x)
    assert so.quantize.summary_of(calibrated).layers[0].error < 0.02


def test_a_calibration_may_come_in_batches() -> None:
    given, x = network("snntorch")
    whole = so.quantize.apply(given, 4, True, x)
    parts = so.quantize.apply(given, 4, True, iter([x[:, :1], x[:, 1:]]))
    state = parts.state_dict()
    assert all(torch.equal(state[key], value) for key, value in whole.state_dict().items())


def test_a_layer_that_calibration_does_not_reach_is_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    summary = so.quantize.summary_of(so.quantize.apply(Unused(), 8, True, spikes(3, 4)))
    assert [row.note for row in summary.layers] == ["", "calibration does not reach it"]


# -- grids of their own ----------------------------------------------------------------------------


def fake(weight: Tensor, bits: int = 8) -> Tensor:
    """Round to a grid of one scale an output, with a gradient that passes straight through."""
    most = (1 << (bits - 1)) - 1
    scale = weight.detach().abs().amax(tuple(range(1, weight.dim())), keepdim=True) / most
    return weight + (torch.round(weight / scale) * scale - weight).detach()


class Fake(nn.Module):
    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, weight: Tensor) -> Tensor:
        most = (1 << (self.bits - 1)) - 1
        scale = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True) / most
        return torch.round(weight / scale) * scale


class FakeLinear(nn.Linear):
    """Fake quantisation by hand, in ``forward``."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, fake(self.weight), self.bias)


class Trained(nn.Module):
    """Weights that are quantised by a parametrisation, by a class, and in the outer forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(20, 16)
        parametrize.register_parametrization(self.first, "weight", Fake())
        self.second = FakeLinear(16, 16)
        self.third = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 16), []
        for x_t in x:
            v = 0.9 * v + self.first(x_t)
            s = (v > 0.3).float()
            v = v - 0.3 * s
            out.append(F.linear(self.second(s), Fake(4)(self.third.weight)))
        return torch.stack(out)


def test_fake_quantisation_keeps_its_own_grid() -> None:
    torch.manual_seed(0)
    given, x = Trained().eval(), spikes(6, 3, 20)
    result = so.quantize.apply(given, 8)
    notes = {row.path: (row.bits, row.note) for row in so.quantize.summary_of(result).layers}
    assert notes["first"] == notes["second"] == (8, "its own grid")
    assert parametrize.is_parametrized(result.first)
    assert torch.equal(result.second.weight, given.second.weight)
    kept = so.quantize.apply(given, 8, keep=["third"])
    assert torch.equal(kept(x), given(x))


def test_fake_quantisation_is_stored_as_integers_as_it_stands() -> None:
    torch.manual_seed(0)
    given, x = Trained().eval(), spikes(6, 3, 20)
    model = so.export(given, x)
    kinds = stored(model)
    assert kinds["first.synapse.weight"] == ("INT8", 320)
    assert kinds["second.synapse.weight"] == ("INT8", 256)
    assert kinds["third.synapse.weight"][0] in ("INT4", "INT8")
    assert not [name for name, (kind, _) in kinds.items() if kind == "FLOAT"]
    assert so.verify(given, model, x).ok


def test_fewer_bits_than_fake_quantisation_has() -> None:
    torch.manual_seed(0)
    given = Trained().eval()
    result = so.quantize.apply(given, 4)
    rows = {row.path: row for row in so.quantize.summary_of(result).layers}
    assert rows["first"].bits == 4  # its parametrisation is folded
    assert not parametrize.is_parametrized(result.first)
    assert rows["second"].bits is None
    assert "forward computes" in rows["second"].note


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "pruned", "parametrised"])
def test_weights_that_torch_computes_are_folded(norm: str) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 6)
    if norm == "weight_norm":
        nn.utils.weight_norm(layer)
    elif norm == "pruned":
        nn.utils.prune.l1_unstructured(layer, "weight", 0.5)
    else:
        nn.utils.parametrizations.weight_norm(layer)
    given = nn.Sequential(layer).eval()
    x = spikes(9, 12)
    expected = given(x)
    result = so.quantize.apply(given, 8)
    assert "weight" in result[0]._parameters
    assert torch.allclose(result(x), expected, atol=0.02)
    assert torch.equal(given(x), expected)
    if norm == "pruned":
        assert int((result[0].weight == 0).sum()) >= 36


def test_a_synapse_goes_on_training_on_its_grid() -> None:
    given, x = network("blocks")
    result = so.quantize.apply(given, 4)
    hook = result[0].synapse.pre_hook_fx
    assert isinstance(hook, so.quantize.Rounded)
    result.train()
    result(x).sum().backward()
    assert result[0].synapse.weight.grad is not None
    with torch.no_grad():
        result[0].synapse.weight += 0.01
    again = so.quantize.find_grid(result[0].synapse.effective_weight, 0)
    assert again is not None
    assert again.bits == 4


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))

    result = so.quantize.apply(Tied(), 4)
    assert result.one.weight is result.two.weight
    assert [row.note for row in so.quantize.summary_of(result).layers] == ["", "the weight of one"]


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0, 2, 5, 16, 8.5, "8", True, None])
def test_other_widths_are_refused(bits: Any) -> None:
    with pytest.raises(InputError, match="bits must be 8 or 4"):
        so.quantize.apply(nn.Linear(2, 2), bits)


def test_what_is_no_network_with_weights_is_refused() -> None:
    with pytest.raises(InputError, match="no Linear or Conv layer"):
        so.quantize.apply(nn.Sequential(nn.ReLU(), so.synapse.Pool(2)))
    with pytest.raises(InputError, match=r"must be a torch\.nn\.Module"):
        so.quantize.apply("network")  # type: ignore[type-var]
    with pytest.raises(InputError, match=r"none that so\.quantize\.apply returned"):
        so.quantize.summary_of(nn.Linear(2, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    given, _ = network("snntorch")
    with torch.no_grad():
        given.fc.weight[3, 2] = value
    with pytest.raises(InputError, match="fc: the weight has NaN or infinite values"):
        so.quantize.apply(given)


@pytest.mark.parametrize("keep", [["nothing"], "lif1", ["conv", "norm"]])
def test_keep_names_layers_alone(keep: Any) -> None:
    given, _ = network("snntorch")
    with pytest.raises(InputError, match="which is none of conv, fc"):
        so.quantize.apply(given, keep=keep)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (torch.zeros(6, 3, 2, 5, 5), "does not run on batch 0 of calibration, of shape"),
        ([spikes(6, 3, 2, 8, 8), torch.zeros(4, 4)], "does not run on batch 1"),
        ([], "calibration has no batch"),
        (3, "must be a tensor or an iterable"),
        (["x"], "batch 0 of calibration holds a str"),
        (torch.zeros(0, 3, 2, 8, 8), "is empty"),
        (torch.full((6, 3, 2, 8, 8), float("nan")), "has NaN or infinite values"),
    ],
)
def test_calibrations_that_do_not_fit_are_refused(calibration: Any, message: str) -> None:
    given, _ = network("snntorch")
    with pytest.raises(InputError, match=message) as caught:
        so.quantize.apply(given, calibration=calibration)
    assert "\n" not in str(caught.value)


def test_frozen_integers_are_refused_where_fewer_bits_are_wanted() -> None:
    frozen = so.freeze(nn.Sequential(so.synapse.Dense(9, 4, pre_hook_fx=so.quantize.q8)))
    assert so.quantize.summary_of(so.quantize.apply(frozen, 8)).layers[0].note == "its own grid"
    with pytest.raises(InputError, match="give the network before freeze"):
        so.quantize.apply(frozen, 4)
