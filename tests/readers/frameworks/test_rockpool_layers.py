"""Live modules of Rockpool, and what ``convert`` makes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from converted import IGNORED, drive, framework, same, time_at, whole_way
from torch import Tensor, nn

import synapse_onnx as so

rt, lif_neuron, lif, combinators = framework(
    "rockpool.nn.modules.torch", "rockpool.nn.modules.torch.lif_neuron_torch",
    "rockpool.nn.modules.torch.lif_torch", "rockpool.nn.combinators",
)  # fmt: skip
pytestmark = IGNORED

EACH = torch.linspace(0.005, 0.03, 5)


def run(module: Any, x: Tensor) -> Tensor:
    module.reset_state()
    return time_at(1, module, x)


LAYERS: dict[str, Callable[[], Any]] = {
    "LIFTorch": lambda: rt.LIFTorch(5),
    "LIFTorch, one spike": lambda: rt.LIFTorch(5, max_spikes_per_dt=1, threshold=0.5),
    "LIFTorch, two spikes": lambda: rt.LIFTorch(
        5, max_spikes_per_dt=2, bias=torch.linspace(-0.1, 0.1, 5), tau_mem=EACH
    ),
    "LIFTorch, decays": lambda: rt.LIFTorch(5, leak_mode="decays", alpha=0.9, beta=0.8),
    "LIFTorch, bitshifts": lambda: rt.LIFTorch(
        5, leak_mode="bitshifts", dash_mem=torch.full((5,), 3.0), dash_syn=torch.full((5, 1), 2.0)
    ),
    "LIFTorch, recurrent": lambda: rt.LIFTorch(
        5, has_rec=True, w_rec=torch.linspace(-0.3, 0.2, 25).reshape(5, 5)
    ),
    "LIFTorch, periodic": lambda: rt.LIFTorch(5, spike_generation_fn=lif.PeriodicExponential),
    "LIFBitshiftTorch": lambda: rt.LIFBitshiftTorch(5, tau_mem=0.02, tau_syn=0.02),
    "LIFNeuronTorch": lambda: lif_neuron.LIFNeuronTorch(5, tau_mem=0.01, bias=0.05),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_spikes_as_in_rockpool(name: str) -> None:
    same(LAYERS[name](), 0.6 * drive(3, 5, 60, mean=0.1), run)


def test_a_synapse_returns_its_current() -> None:
    same(rt.ExpSynTorch(5, tau=EACH), drive(3, 5, 60), run, spikes=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: rt.RateTorch(5), "RateTorch, which ours is not; so.export"),
        (lambda: rt.aLIFTorch((5, 5)), "aLIFTorch, which ours is not"),
        (lambda: rt.LIFTorch(5, noise_std=0.1), "its noise_std is 0.1, which ours has not"),
        (lambda: rt.LIFTorch((10, 5)), r"its shape is \(10, 5\), several synapses a neuron"),
        (
            lambda: rt.LIFTorch(5, max_spikes_per_dt=2.5),
            "its max_spikes_per_dt is 2.5, and ours is a whole number of at least 1; so.export",
        ),
        (
            lambda: rt.LIFTorch(5, max_spikes_per_dt=torch.ones(5)),
            r"its max_spikes_per_dt is \(5,\), its shape: ours has one number",
        ),
        (
            lambda: rt.LIFTorch(5, max_spikes_per_dt=1, threshold=-0.5),
            "its threshold is -0.5, of which no voltage holds a number",
        ),
        (
            lambda: rt.LIFTorch(5, spike_generation_fn=torch.autograd.Function),
            "its spike_generation_fn is .*, which is not one of Rockpool",
        ),
    ],
)
def test_what_ours_has_not_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(so.InputError, match=f"^convert: the module cannot .*{sentence}"):
        so.convert(make())


def linear(inputs: int, outputs: int, **options: Any) -> Any:
    new = rt.LinearTorch((inputs, outputs), **options)
    nn.init.uniform_(new.weight, -0.3, 0.4)
    return new


@pytest.mark.usefixtures("compiled_once")
def test_a_network_goes_the_whole_way() -> None:
    torch.manual_seed(0)
    net = combinators.Sequential(
        linear(5, 8), rt.LIFTorch(8), combinators.Residual(linear(8, 8), rt.LIFTorch(8)),
        nn.Linear(8, 3), rt.LIFTorch(3, has_rec=True), linear(3, 2, has_bias=True), rt.LIFTorch(2),
    )  # fmt: skip
    net[3].weight.data.uniform_(-0.1, 0.2)
    net[5].weight.data.uniform_(0, 0.2)
    net[4].w_rec.data.fill_(-0.1)
    x = 0.3 * drive(3, 5, 40)
    new = same(net, x, run)
    whole_way(new, x)


def test_an_input_of_one_channel_is_not_spread() -> None:
    new = so.convert(rt.LIFTorch(5))
    with pytest.raises(so.ShapeError, match=r"built up with shape \(5,\)"):
        new(torch.ones(1, 1, 3))
