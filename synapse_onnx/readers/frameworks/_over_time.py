"""A network of layers over whole sequences, of layers that their framework runs step by step.

Ours take a sequence (N, C[, H, W], T) at once. What has no state, such as torch's Linear, Conv2d,
BatchNorm2d and pools, goes on seeing what it saw in its framework.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError, SynapseError

__all__ = ["LIVE", "LayersOverTime", "SameMask", "Seen", "in_sequence", "is_sequential",
           "is_torchs", "of_torch", "once", "users_code"]  # fmt: skip

#: what errors suggest
LIVE = "so.export(net, x) takes the live network as it is"

#: what a layer sees of a sequence: "" the sequence (N, C[, H, W], T); "step" all steps of all
#: samples as one batch, (T N, ...); "TN" (T, N, ...); "NT" (N, T, ...)
Seen = str

#: layers that treat every number alone, so that they may see the sequence itself
_ELEMENTWISE = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid,
                nn.Tanh, nn.Hardtanh, nn.Softplus, nn.Dropout)  # fmt: skip


class LayersOverTime(nn.Sequential):
    """Layers in sequence, over (N, C[, H, W], T).

    Args:
        layers: name -> a layer, and what it sees of a sequence.
    """

    def __init__(self, layers: Mapping[str, tuple[nn.Module, Seen]]) -> None:
        super().__init__()
        for name, (layer, _) in layers.items():
            self.add_module(name, layer)
        self.seen = {name: seen for name, (_, seen) in layers.items()}

    def forward(self, x: Tensor) -> Any:
        """Return what the last layer returns, (N, C[, H, W], T)."""
        for seen, group in itertools.groupby(self._modules, self.seen.__getitem__):
            names = list(group)
            if not isinstance(x, Tensor):
                raise ShapeError(
                    f"layer {names[0]} got spikes and voltages, which the layer before it "
                    f"returns; set its output to False, or let it be the last"
                )
            x = _run([getattr(self, name) for name in names], x, seen)
        return x

    def __getitem__(self, index: Any) -> Any:
        """Return a layer, or a network of several."""
        if not isinstance(index, slice):
            return super().__getitem__(index)
        names = list(self._modules)[index]
        return type(self)({name: (getattr(self, name), self.seen[name]) for name in names})


def _run(layers: Sequence[nn.Module], x: Tensor, seen: Seen) -> Any:
    """Run layers on what they see of a sequence; return (N, ..., T)."""
    if not seen:
        for layer in layers:
            x = layer(x)
        return x
    axis = 1 if seen == "NT" else 0
    # torch's exporter asks for strides of what is not contiguous, which would fix an axis
    y: Any = x.movedim(-1, axis).clone(memory_format=torch.contiguous_format)
    sizes = y.shape[:2]
    if seen == "step":
        y = y.view(sizes[0] * sizes[1], *y.shape[2:])
    for layer in layers:
        y = layer(y)
    if seen == "step":
        y = y.view(*sizes, *y.shape[1:])
    return y.movedim(axis, -1)


class Flatten(nn.Module):
    """The neurons of every step in one axis."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C H W, T) of (N, C, H, W, T)."""
        return x.flatten(1, -2)


class SameMask(nn.Module):
    """Dropout with one mask for all time steps, as SpikingJelly has it.

    Args:
        dropout: draws the mask of one step, (N, C[, H, W]).
    """

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C[, H, W], T)."""
        if not self.training:
            return x
        mask: Tensor = self.dropout(torch.ones_like(x[..., 0]))
        return x * mask.unsqueeze(-1)


def is_sequential(module: nn.Module) -> bool:
    """Whether a module's children run one after the other, by torch's own forward."""
    return type(module).forward is nn.Sequential.forward and "forward" not in vars(module)


def is_torchs(module: nn.Module) -> bool:
    """Whether a module is a layer of torch without states: it does the same at every step."""
    if isinstance(module, nn.RNNBase | nn.RNNCellBase) or "forward" in vars(module):
        return False
    return type(module).__module__.startswith("torch.nn.")


def in_sequence(
    conversion: Any,
    path: str,
    container: nn.Module,
    seen: Seen,
    own: Callable[[str, Any], tuple[nn.Module, Seen]],
) -> LayersOverTime:
    """Convert the children of a container that runs them one after the other.

    Args:
        conversion: the conversion of the whole module.
        path: path of the container.
        container: the container.
        seen: what a layer of torch sees of a sequence in it.
        own: (path, layer) -> ours for a layer of the framework, and what it sees.
    """

    def part(name: str, child: nn.Module) -> tuple[nn.Module, Seen]:
        place = f"{path}.{name}" if path else name
        if is_sequential(child) and conversion.framework_of(child) is None:
            return in_sequence(conversion, place, child, seen, own), ""
        foreign = [p for p in nn.Module.modules(child) if conversion.framework_of(p) is not None]
        if is_torchs(child) and not foreign:
            return of_torch(conversion.copied(child), seen)
        if conversion.framework_of(child) is not None:
            try:
                return own(place, child)
            except SynapseError as error:
                if str(error).startswith("convert: "):
                    raise
                raise InputError(f"convert: {place} cannot be converted: {error}") from error
        raise InputError(f"convert: {place} {users_code(child)}")

    new = LayersOverTime(
        {name: part(name, child) for name, child in container._modules.items() if child}
    )
    new.training = container.training
    return new


def of_torch(layer: nn.Module, seen: Seen) -> tuple[nn.Module, Seen]:
    """Return a layer of torch, or one that does the same, and what it sees."""
    if isinstance(layer, _ELEMENTWISE):
        return layer, ""
    if isinstance(layer, nn.Linear):  # which does the same to the last axis of anything
        return layer, "step"
    flattens = isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1)
    if flattens and seen == "step":
        return Flatten().train(layer.training), ""
    return layer, seen


def once(conversion: Any, path: str, layer: nn.Module) -> nn.Module:
    """Return ours for a layer with states, which may stand in one place alone."""
    if id(layer) in conversion.converted:
        raise InputError(f"convert: {path} stands in two places, which share its states; {LIVE}")
    return conversion.layer(path, layer)  # type: ignore[no-any-return]


def users_code(module: nn.Module) -> str:
    """Say that a module's forward is the user's, for an error that begins with its path."""
    kind = type(module)
    return (
        f"is a {kind.__module__}.{kind.__qualname__}, whose forward is code for single steps or "
        f"another layout, which ours cannot run; {LIVE}, and so.convert takes its layers, and an "
        f"nn.Sequential of them"
    )
