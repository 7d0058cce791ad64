"""Networks of other frameworks: ordinary torch modules with a framework's neurons between them."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._networks import CURRENT_DECAY, THRESHOLD, VOLTAGE_DECAY, Network
from benchmarks.contestants import Contestant, Run, UnsupportedError
from benchmarks.contestants.ours import stack


def imported(name: str) -> Any:
    """Import a framework's module.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a framework has to say to its developers
            return importlib.import_module(name)
    except ImportError as error:
        raise UnsupportedError(f"{name} cannot be imported: {error}") from error


def by_layer(network: Network, neuron: Callable[[], nn.Module]) -> list[nn.Module]:
    """Return the modules of one time step: linear, convolution, pool, each with its neuron.

    Raises:
        UnsupportedError: the network has layers that frameworks build in ways of their own.
    """
    modules: list[nn.Module] = []
    for layer in network.layers:
        if layer.kind == "flatten":
            modules.append(nn.Flatten())
            continue
        if layer.kind == "pool":
            made = nn.AvgPool2d(2, divisor_override=2)
        elif layer.kind == "dense":
            made = nn.Linear(*reversed(layer.weight.shape), bias=False)
        elif layer.kind == "conv":
            outputs, inputs, *size = layer.weight.shape
            made = nn.Conv2d(inputs, outputs, size, layer.stride, layer.padding, bias=False)
        else:
            raise UnsupportedError(f"a {layer.kind} layer is not compared with this framework")
        if layer.weight is not None:
            made.weight.data.copy_(layer.weight)
        modules += [made, neuron()]
    return modules


def lava_dl(network: Network, spikes: Tensor) -> Run:
    """lava-dl's slayer in torch: the same fixed point as ours; the input is (N, C[, H, W], T)."""
    source = os.environ.get("LAVA_DL")
    if not source:
        raise UnsupportedError("LAVA_DL does not name lava-dl's source folder")
    if network.numbers != "q8":
        raise UnsupportedError("its neurons have no float regime")
    if source not in sys.path:
        sys.path.insert(0, source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = stack(network, imported("lava.lib.dl.slayer").block)
    run = torch.no_grad()(lambda: net(spikes))
    run()  # the first call makes its states
    return run


def norse(network: Network, spikes: Tensor) -> Run:
    """Norse: LIF cells, one step at a time; the input is brought to (T, N, C[, H, W])."""
    norse, one = imported("norse.torch"), torch.tensor(1.0)
    parameters = norse.LIFParameters(
        tau_syn_inv=1000 * CURRENT_DECAY * one, tau_mem_inv=1000 * VOLTAGE_DECAY * one,
        v_th=THRESHOLD * one,
    )  # fmt: skip
    neuron = partial(norse.LIFCell, parameters)
    net = norse.SequentialState(*by_layer(network, neuron)).eval()
    steps = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        state, outputs = None, []
        for x in steps:
            y, state = net(x, state)
            outputs.append(y)
        return torch.stack(outputs, -1)

    return run


def snntorch(network: Network, spikes: Tensor) -> Run:
    """snnTorch: Synaptic neurons, one step at a time; the input is brought to (T, N, C[, H, W])."""
    neuron = partial(
        imported("snntorch").Synaptic, alpha=1 - CURRENT_DECAY, beta=1 - VOLTAGE_DECAY,
        threshold=THRESHOLD, reset_mechanism="zero", init_hidden=True,
    )  # fmt: skip
    net = nn.Sequential(*by_layer(network, neuron)).eval()
    steps = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        for module in net:
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        return torch.stack([net(x) for x in steps], -1)

    return run


def spikingjelly(network: Network, spikes: Tensor) -> Run:
    """SpikingJelly: LIF in its multi-step mode; the input is brought to (T, N, C[, H, W])."""
    layers, neurons, functional = (
        imported(f"spikingjelly.activation_based.{name}")
        for name in ("layer", "neuron", "functional")
    )
    neuron = partial(
        neurons.LIFNode, tau=1 / VOLTAGE_DECAY, decay_input=False, v_threshold=THRESHOLD,
        step_mode="m",
    )  # fmt: skip
    modules = [
        module if hasattr(module, "step_mode") else layers.SeqToANNContainer(module)
        for module in by_layer(network, neuron)
    ]
    net = nn.Sequential(*modules).eval()
    first = spikes.movedim(-1, 0).contiguous()

    @torch.no_grad()
    def run() -> Tensor:
        functional.reset_net(net)
        return net(first).movedim(0, -1)

    return run


CONTESTANTS = (
    Contestant("lava-dl", "slayer in torch: fixed point, both states", lava_dl),
    Contestant("Norse", "LIFCell: both states, step by step", norse),
    Contestant("snnTorch", "Synaptic: both states, step by step", snntorch),
    Contestant("SpikingJelly", "LIF: one state, all steps a layer", spikingjelly),
)
