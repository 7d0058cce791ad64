"""The spikes of a network's neurons, of any framework, while it runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from synapse_onnx._layer import Deployable
from synapse_onnx.quantize._layers import linear_layers
from synapse_onnx.quantize.network import run

__all__ = ["are_spikes", "recorded", "spiking"]


def are_spikes(values: Sequence[Tensor]) -> bool:
    """Whether tensors hold 0 and 1 alone, or counts of spikes."""
    return bool(values) and all(
        bool(((x == x.round()) & (x >= 0)).all()) if x.is_floating_point() else False
        for x in values
    )


def spiking(network: nn.Module, batch: Sequence[Any]) -> list[str]:
    """Return the paths of a network's neurons, by what they return on a batch.

    A neuron is a module whose first output is spikes. Of modules within modules the outermost
    counts that holds no layer with weights; a pool or a flatten of torch only passes spikes on.
    """
    modules = dict(nn.Module.named_modules(network))
    paths = [path for path, module in modules.items() if path and _may_spike(module)]
    values, _ = recorded(network, batch, paths)
    paths = [path for path in paths if are_spikes(values.get(path, []))]
    weighted = linear_layers(network)

    def above(outer: str, inner: str) -> bool:
        return inner.startswith(f"{outer}.")

    paths = [
        path
        for path in paths
        if not any(above(path, layer) for layer in weighted)
        or not any(above(path, other) for other in paths)
    ]
    return [path for path in paths if not any(above(other, path) for other in paths)]


def _may_spike(module: nn.Module) -> bool:
    if isinstance(module, Deployable):
        return module.spiking
    if any(isinstance(inner, Deployable) for inner in nn.Module.modules(module)):
        return False  # a block, whose neuron is asked
    known = (kind.__module__ for kind in type(module).__mro__ if kind is not nn.Module)
    return not any(name.startswith(("torch.nn.", "synapse_onnx.")) for name in known)


def recorded(
    network: nn.Module, batch: Sequence[Any], paths: Collection[str]
) -> tuple[dict[str, list[Tensor]], list[Tensor]]:
    """Run a network; return the first output of every call of these modules, and all outputs."""
    values: dict[str, list[Tensor]] = defaultdict(list)

    def keep(path: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            first = next((x for x in tree_leaves(y) if isinstance(x, Tensor)), None)
            if first is not None:
                values[path].append(first.detach().clone())

        return hook

    hooks = [network.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
    try:
        with torch.no_grad():
            outputs = run(network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return values, outputs
