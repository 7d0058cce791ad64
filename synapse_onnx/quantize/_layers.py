"""The linear layers of a network, and the weights that they use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.fold import fold_computed
from synapse_onnx.compiler.function_mode import FunctionMode
from synapse_onnx.errors import InputError
from synapse_onnx.grid import Grid, Rounded, find_grid
from synapse_onnx.synapse import GenericLayer, Pool, Unpool

__all__ = [
    "channel_axis", "examples", "grid_of", "is_plain", "linear_layers", "make_plain", "set_weight",
    "weight_in_use",
]  # fmt: skip


def linear_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return path -> layer of every Linear, convolution and synapse, each once.

    Pools have one weight, which nobody trains.
    """
    return {
        path: module
        for path, module in nn.Module.named_modules(network)
        if isinstance(module, nn.Linear | _ConvNd) and not isinstance(module, Pool | Unpool)
    }


def channel_axis(layer: Any) -> int | None:
    """Return the axis of the output channels in a layer's weight; None if groups share it."""
    if isinstance(layer, GenericLayer):
        return layer.channel_axis
    if isinstance(layer, _ConvTransposeNd):
        return 1 if layer.groups == 1 else None
    return 0


def examples(layer: Any) -> Iterator[Tensor]:
    """Yield inputs that a layer may take: one step (N, ...), and several, (T, N, ...)."""
    if isinstance(layer, nn.Linear):
        shape = [layer.in_features]
    else:
        sizes = zip(layer.kernel_size, layer.dilation, strict=True)
        reach = [dilation * (kernel - 1) + 3 for kernel, dilation in sizes]
        reach = [*reach[:2], 4] if isinstance(layer, GenericLayer) else reach
        shape = [layer.in_channels, *reach]
    device = next((p.device for p in layer.parameters()), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for before in ([2], [2, 2]):
        yield torch.randn([*before, *shape], generator=generator).to(device)


class _Weights(FunctionMode):
    """Takes note of the weights of linear functions."""

    #: torch.conv1d and the others are what nn.functional has
    functions = frozenset(
        {F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d,
         F.conv_transpose3d}
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if function in self.functions:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            weight = getattr(weight, "value", weight)  # of brevitas' QuantTensor
            if not any(weight is other for other in self.seen):
                self.seen.append(weight)
        return function(*args, **kwargs)


@torch.no_grad()
def weight_in_use(layer: Any) -> Tensor:
    """Return the weight that a layer's ``forward`` multiplies by, as a tensor of its own.

    It is seen on a copy that runs by itself: fake quantisation computes it at every call.
    """
    if isinstance(layer, GenericLayer):
        return layer.effective_weight.detach().clone()
    for x in examples(layer):
        watch, copy = _Weights(), copied_value(layer)
        try:
            with watch:
                copy(x)
        except Exception:  # of any class: it takes inputs of another shape
            continue
        if len(watch.seen) == 1 and watch.seen[0].shape == layer.weight.shape:
            return watch.seen[0].detach().clone()
    weight: Tensor = layer.weight.detach().clone()
    return weight


def is_plain(layer: Any, used: Tensor) -> bool:
    """Whether the weight that is used is a parameter of the layer, as it is."""
    weight = layer._parameters.get("weight")
    return weight is not None and torch.equal(weight, used)


def make_plain(layer: Any) -> None:
    """Turn a weight that pruning, a norm or a parametrisation computes into a parameter.

    Raises:
        InputError: it cannot be computed.
    """
    fold_computed(layer)
    if isinstance(layer, GenericLayer):
        if layer.weight_scale is not None:
            raise InputError("the weights are frozen integers; give the network before freeze()")
        used = layer.effective_weight.detach().clone()
        layer.disable_weight_norm()
        layer.pre_hook_fx = None
        layer.weight = nn.Parameter(used, requires_grad=layer.weight.requires_grad)


@torch.no_grad()
def set_weight(layer: Any, rounded: Rounded) -> None:
    """Round a plain weight in place; a synapse of this package also keeps the hook for training."""
    layer.weight.copy_(rounded(layer.weight))
    if isinstance(layer, GenericLayer):
        layer.pre_hook_fx = rounded


def grid_of(path: str, layer: Any, weight: Tensor, bits: int) -> Grid | None:
    """Return the grid of so many bits that a weight lies on, if any.

    Raises:
        InputError: it has NaN or infinite values.
    """
    if not bool(torch.isfinite(weight).all()):
        raise InputError(f"{path or 'the layer'}: the weight has NaN or infinite values")
    return find_grid(weight, channel_axis(layer), bits)
