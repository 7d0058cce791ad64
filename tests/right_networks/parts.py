"""Stages of a network: our layers of several families, (N, C, T) -> (N, C', T)."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.quantize import Quantizer

KINDS = so.neuron.kinds()
HOOKS = {"q8": Quantizer(64, 8), "int4": Quantizer(8, 4), "float": None}


FORMS = ("block", "delayed", "unit", "recurrent", "kwta", "image", "delta", "linear", "normed")


class Unit(nn.Module):
    """A synapse and a neuron that a user put together."""

    def __init__(self, synapse: nn.Module, neuron: nn.Module) -> None:
        super().__init__()
        self.synapse, self.neuron = synapse, neuron

    def forward(self, x: Tensor) -> Any:
        return self.neuron(self.synapse(x))


class Around(nn.Module):
    """A stage between two views: (N, C, T) as an image, and back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.unsqueeze(2).unsqueeze(2)).flatten(1, 3)


def example(rng: Random) -> tuple[str, dict[str, Any]]:
    """Draw a kind of neuron, with the arguments of its constructor."""
    kind = rng.choice(list(KINDS))
    arguments = dict(KINDS[kind].Neuron.example)
    if kind not in ("lif", "sigma_delta") and rng.random() < 0.25:
        arguments["regime"] = rng.choice(["float", "loihi"])
    return kind, arguments


def stage(rng: Random, count: int, out: int) -> nn.Module:
    """Draw a stage that takes ``count`` channels and returns ``out``."""
    kind, arguments = example(rng)
    blocks = getattr(so.block, kind)
    form = rng.choice([*FORMS, "block", "unit"])
    gain = rng.choice([2, 3])
    if form == "recurrent" and hasattr(blocks, "Recurrent"):
        return blocks.Recurrent(arguments, count, out, weight_scale=gain)
    if form == "kwta" and hasattr(blocks, "KWTA"):
        return blocks.KWTA(arguments, count, out, num_winners=2, weight_scale=gain)
    if form == "delayed":
        return blocks.Dense(arguments, count, out, weight_scale=gain, delay=True)
    if form == "normed" and kind != "lif" and arguments.get("regime") != "loihi":
        arguments["norm"] = so.neuron.norm.MeanOnlyBatchNorm
        return blocks.Dense(arguments, count, out, weight_scale=gain, weight_norm=True)
    if form == "unit":
        neuron = KINDS[kind].Neuron(**arguments)
        synapses = so.synapse.complex if neuron.complex else so.synapse
        hook = HOOKS[rng.choice(list(HOOKS))]
        return Unit(synapses.Dense(count, out, weight_scale=gain, pre_hook_fx=hook), neuron)
    if form == "image":
        return Around(blocks.Conv(arguments, count, out, 1, weight_scale=gain))
    if form == "delta":
        dense = so.synapse.Dense(count, out, weight_scale=gain, pre_hook_fx=HOOKS["q8"])
        return nn.Sequential(so.axon.Delta(threshold=0.25), so.dendrite.Sigma(), dense)
    if form == "linear":
        dense = so.synapse.Dense(count, out, weight_scale=gain)
        return Unit(dense, rng.choice([nn.ReLU(), so.axon.StepDelay()]))
    return blocks.Dense(arguments, count, out, weight_scale=gain)


def spikes(rng: Random, *shape: int) -> Tensor:
    """Draw an input: spikes, small counts, or quarters with a sign."""
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    form = rng.choice(["spikes", "spikes", "counts", "quarters"])
    if form == "spikes":
        return (torch.rand(shape, generator=generator) < 0.4).float()
    if form == "counts":
        return torch.randint(0, 4, shape, generator=generator).float()
    return torch.randint(-4, 9, shape, generator=generator) / 4
