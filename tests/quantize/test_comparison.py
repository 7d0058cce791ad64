"""so.quantize.compare: flips, rates and accuracy before and after, and which layers to leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from quantized_networks import network, spikes
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.errors import InputError

NEURONS = {
    "snntorch": ["lif1", "lif2"],
    "spikingjelly": ["2", "6"],
    "plain": [],
    "blocks": ["0.neuron", "1.neuron", "3.neuron"],
}


@pytest.mark.parametrize("name", NEURONS)
def test_flips_and_rates_are_counted_of_the_neurons_of_any_framework(name: str) -> None:
    given, x = network(name)
    quantised = so.quantize.apply(given, 4)
    found = so.quantize.compare(given, quantised, x)
    assert [row.path for row in found.layers] == NEURONS[name]
    with torch.no_grad():
        reset(given)
        before = given(x)
        after = quantised(x)
    if name == "plain":
        assert found.output is None
        expected = float((after - before).abs().max() / before.abs().max())
        assert found.distance == pytest.approx(expected)
        assert "the output changes by up to" in str(found)
        return
    assert found.output is not None
    assert found.output.flips == int((before != after).sum())
    assert found.output.values == before.numel()
    assert found.output.before == pytest.approx(float(before.mean()))
    assert found.output.after == pytest.approx(float(after.mean()))
    if name != "blocks":  # which have a delay behind their neuron
        assert found.layers[-1].flips == found.output.flips
    assert any(row.flips for row in found.layers)
    same = so.quantize.compare(given, given, x)
    assert not any(row.flips for row in (*same.layers, same.output) if row)
    assert same.distance == 0


def reset(network: nn.Module) -> None:
    from synapse_onnx.compiler.frameworks import reset_states

    reset_states(network)


def test_both_networks_start_afresh_and_are_not_touched() -> None:
    given, x = network("spikingjelly")
    quantised = so.quantize.apply(given, 8)
    first = so.quantize.compare(given, quantised, x)
    assert (
        so.quantize.compare(given, quantised, [x, x]).layers[0].flips == 2 * first.layers[0].flips
    )
    assert all(not isinstance(module, nn.Identity) for module in given)


class Integrator(nn.Module):
    """A module of the user's own that returns no spikes."""

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        return 0.9 * v + x


class Recurrent(nn.Module):
    """A neuron that holds a layer with weights, within a block, and a readout."""

    def __init__(self) -> None:
        import snntorch

        super().__init__()
        self.fc = nn.Linear(20, 8)
        self.lif = snntorch.RLeaky(beta=0.9, linear_features=8, threshold=0.3)
        self.out, self.readout = nn.Linear(8, 3), Integrator()

    def forward(self, x: Tensor) -> Tensor:
        spk, mem = self.lif.init_rleaky()
        v, out = torch.zeros(x.shape[1], 3), []
        for x_t in x:
            spk, mem = self.lif(self.fc(x_t), spk, mem)
            v = self.readout(self.out(spk), v)
            out.append(v)
        return torch.stack(out)


def test_modules_that_return_no_spikes_are_no_neurons() -> None:
    torch.manual_seed(0)
    given, x = Recurrent().eval(), spikes(6, 3, 20)
    found = so.quantize.compare(given, so.quantize.apply(given, 4), x)
    assert [row.path for row in found.layers] == ["lif"]
    assert found.layers[0].values == 6 * 3 * 8
    assert found.layers[0].flips > 0
    assert found.output is None


class Scores(nn.Module):
    """(T, N, 3) -> (T, N, 3); the class is the channel with the largest sum over time."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        v, out = torch.zeros(x.shape[1], 3), []
        for x_t in x:
            v = v + self.fc(x_t)
            out.append(v)
        return torch.stack(out)


EYE = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
TURNED = [[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("axes", [None, "TNC"])
def test_accuracy_of_both(axes: str | None) -> None:
    labels = torch.tensor([0, 1, 2, 2, 0])
    x = torch.nn.functional.one_hot(labels, 3).float().expand(4, 5, 3).clone()
    found = so.quantize.compare(Scores(EYE), Scores(TURNED), x, labels, axes=axes)
    assert found.accuracy == (1.0, 0.4)
    assert found.same_class == 0.4
    assert "accuracy: float 100.00%, quantised 40.00%" in str(found)
    batches = [x[:, :2], x[:, 2:]]
    assert so.quantize.compare(Scores(EYE), Scores(TURNED), batches, labels).accuracy == (1.0, 0.4)


def test_a_budget_says_which_layers_to_leave_in_floats() -> None:
    given, x = network("snntorch")
    quantised = so.quantize.apply(given, 4, calibration=x)
    found = so.quantize.compare(given, quantised, x, budget=0)
    assert found.output is not None
    assert found.output.flips > 0
    assert {path for path, _ in found.alone} == {"conv", "fc"}
    assert found.reached == 0
    again = so.quantize.apply(given, 4, calibration=x, keep=found.keep)
    kept = so.quantize.compare(given, again, x)
    assert kept.output is not None
    assert kept.output.flips == 0
    for path, share in found.alone:
        alone = so.quantize.apply(given, 4, calibration=x, keep=[path])
        row = so.quantize.compare(given, alone, x).output
        assert row is not None
        assert row.share == pytest.approx(share)
    plenty = so.quantize.compare(given, quantised, x, budget=1)
    assert plenty.keep == ()
    assert plenty.reached == found.output.share
    assert "leave in floats: no layer" in str(plenty)


def test_a_budget_of_classes_where_the_output_is_no_spikes() -> None:
    given, x = network("plain")
    quantised = so.quantize.apply(given, 4)
    found = so.quantize.compare(given, quantised, x, budget=0.0)
    assert found.same_class is not None
    assert found.reached == 0
    assert "classes that change" in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 1.5}, "budget must be a part of 1"),
        ({"axes": "CNT"}, "axes must be one of"),
        ({"labels": [0, 1]}, "2 labels for 3 samples"),
        ({"labels": [0.5, 1, 2]}, "labels must be whole numbers"),
        ({"labels": ["a", "b", "c"]}, "labels must be whole numbers"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    given, x = network("snntorch")
    with pytest.raises(InputError, match=message):
        so.quantize.compare(given, so.quantize.apply(given), x, **options)


def test_networks_that_do_not_fit_are_refused() -> None:
    given, x = network("snntorch")
    other, _ = network("plain")
    with pytest.raises(InputError, match="does not run on batch 0 of inputs"):
        so.quantize.compare(given, other, x)
    with pytest.raises(InputError, match="does not run on batch 0 of inputs"):
        so.quantize.compare(given, given, spikes(4, 4))
    with pytest.raises(InputError, match=r"none that so\.quantize\.apply returned"):
        so.quantize.compare(given, given, x, budget=0.5)
    images = nn.Sequential(nn.Conv2d(2, 3, 3))
    with pytest.raises(InputError, match="has no classes"):
        so.quantize.compare(images, images, spikes(3, 2, 8, 8), [0, 1, 2])
