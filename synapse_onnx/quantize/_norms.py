"""Batch norms folded into the linear layer before them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.function_mode import FunctionMode
from synapse_onnx.quantize._layers import channel_axis, examples
from synapse_onnx.synapse import GenericLayer

__all__ = ["Followers", "fold", "neighbours", "norms", "of_any_rank"]

#: a folded layer may differ by so much of its largest value, in float32
_TOLERANCE = 1e-4


def norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return path -> module of every batch norm, each once."""
    modules = nn.Module.named_modules(network)
    return {path: module for path, module in modules if isinstance(module, _BatchNorm)}


def neighbours(network: nn.Module) -> dict[str, str]:
    """Return path of a norm -> path of the module before it, in a chain of ``nn.Sequential``.

    Only in a network that is a chain itself, and in chains within it, does nobody but the chain
    call its parts: other code may read ``self.features[0](x)``.
    """
    places: dict[nn.Module, list[str]] = defaultdict(list)
    for path, module in nn.Module.named_modules(network, remove_duplicate=False):
        places[module].append(path)
    found = {}
    for path, chain in _chains(network, ""):
        for (name, layer), (other, norm) in itertools.pairwise(chain.named_children()):
            alone = len(places[layer]) == len(places[norm]) == 1
            if isinstance(norm, _BatchNorm) and alone:
                found[_joined(path, other)] = _joined(path, name)
    return found


def of_any_rank(network: nn.Module) -> set[str]:
    """Return the paths of Linear layers in chains whose inputs may have other axes than (N, C).

    A norm after a Linear has its channels on axis 1. Of (N, L, C) these are the L rows, and nothing
    shows it where L = C. After ``nn.Flatten()`` there are two axes; those below keep them.
    """
    found, two_axes = set(), False
    for path, module in _leaves(network, ""):
        if isinstance(module, nn.Linear) and not two_axes:
            found.add(path)
        if isinstance(module, nn.Flatten) and type(module).forward is nn.Flatten.forward:
            two_axes = (module.start_dim, module.end_dim) == (1, -1)
        elif not any(type(module).forward is kind.forward for kind in _KEEP_AXES):
            two_axes = False  # a parametrised Linear is one, a subclass with code of its own none
    return found


#: modules that return as many axes as they get
_KEEP_AXES = (
    nn.Linear, nn.BatchNorm1d, nn.LayerNorm, nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU,
    nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh,
)  # fmt: skip


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are no chain themselves, in the order in which a chain calls them."""
    if type(module).forward is not nn.Sequential.forward:
        yield path, module
        return
    for name, part in module.named_children():
        yield from _leaves(part, _joined(path, name))


def _chains(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module).forward is nn.Sequential.forward:
        yield path, module
        for name, part in module.named_children():
            yield from _chains(part, _joined(path, name))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class Followers(FunctionMode):
    """Watches a network run, and says which layer each norm follows.

    A norm can be folded into a layer if it reads the very tensor that the layer returned, in every
    call of both, and nothing else reads that tensor, or a parameter or buffer of the two.
    """

    def __init__(self, layers: Mapping[str, nn.Module], norms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layers, self.norms = layers, norms
        #: id of what a layer returned -> its path
        self._from: dict[int, str] = {}
        self._kept: list[Tensor] = []
        #: norm -> layers whose outputs it read, "" for other tensors
        self._reads: dict[str, set[str]] = defaultdict(set)
        #: layer -> norms that read its outputs, "" for other code
        self._read_by: dict[str, set[str]] = defaultdict(set)
        #: layer or norm -> what else reads its parameters and buffers, "" for other code
        self._used_by: dict[str, set[str]] = defaultdict(set)
        #: id of a parameter or buffer -> the layers and norms that have it
        self._owners: dict[int, list[str]] = defaultdict(list)
        for path, module in (*layers.items(), *norms.items()):
            for tensor in (*nn.Module.parameters(module), *module.buffers()):
                self._owners[id(tensor)].append(path)
        self._running: list[str] = []

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Take note of who reads what a layer returned; a norm within reads its own input."""
        result = function(*args, **kwargs)
        if not _is_attribute(function, result):
            if not self._running:
                self._see([args, kwargs], "")
            reader = self._running[-1] if self._running else ""
            for value in tree_leaves([args, kwargs]):
                for owner in self._owners.get(id(value), ()):
                    self._used_by[owner] |= {reader} - {owner}
        return result

    def run(self, network: nn.Module, args: Sequence[Any]) -> None:
        """Run a network once."""
        hooks = []
        for path, module in (*self.layers.items(), *self.norms.items()):
            hooks.append(module.register_forward_pre_hook(self._before(path)))
            hooks.append(module.register_forward_hook(self._after(path)))
        try:
            with self:
                outputs = network(*args)
        finally:
            for hook in hooks:
                hook.remove()
        self._see(outputs, "")

    def found(self) -> dict[str, str]:
        """Return path of a norm -> path of the layer that it can be folded into."""
        pairs = {}
        for norm, read in self._reads.items():
            if len(read) == 1:
                (layer,) = read
                alone = not self._used_by[layer] and not self._used_by[norm]
                if layer in self.layers and self._read_by[layer] == {norm} and alone:
                    pairs[norm] = layer
        return pairs

    def reason(self, norm: str) -> str:
        """Say why a norm is not folded."""
        read = self._reads.get(norm)
        if not read:
            return "it did not run"
        before = sorted(path for path in read if path)
        if len(read) > 1:
            return f"it is used by several layers: {', '.join(before) or 'none of them linear'}"
        if not before:
            return "no Linear or Conv layer is just before it"
        others = self._read_by[before[0]] - {norm}
        if others:
            return f"the output of {before[0]} is read by {_named(others)}, too"
        path = before[0] if self._used_by[before[0]] else norm
        return f"parameters of {path} are read by {_named(self._used_by[path])}, too"

    def _before(self, path: str) -> Any:
        def hook(_: nn.Module, args: Any) -> None:
            if path in self.norms:
                x = next((x for x in tree_leaves(args) if isinstance(x, Tensor)), None)
                self._reads[path].add(self._from.get(id(x), ""))
            self._see(args, path if path in self.norms else "")
            self._running.append(path)

        return hook

    def _after(self, path: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            self._running.pop()
            if path in self.layers and isinstance(y, Tensor):
                self._from[id(y)] = path
                self._kept.append(y)  # so that no other tensor gets its id

        return hook

    def _see(self, values: Any, reader: str) -> None:
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and id(value) in self._from:
                self._read_by[self._from[id(value)]].add(reader)


def _named(readers: Iterable[str]) -> str:
    return ", ".join(path or "other code" for path in sorted(readers))


def _is_attribute(function: Any, result: Any) -> bool:
    """Whether a function reads an attribute such as the shape, and no values, as ``y.T`` does."""
    name = getattr(function, "__name__", "")
    names = ("__get__", "size", "dim", "numel", "__len__", "is_floating_point")
    return name in names and not isinstance(result, Tensor)


@torch.no_grad()
def fold(
    network: nn.Module, layer_path: str, norm_path: str, inputs: Sequence[Tensor]
) -> float | str:
    """Fold a norm into a layer, in place; an Identity takes the place of the norm.

    With g = gamma / sqrt(variance + eps): weight' = g * weight, bias' = (bias - mean) * g + beta.

    Args:
        network: the network.
        layer_path: path of a layer with a plain weight.
        norm_path: path of the norm after it.
        inputs: inputs of the layer, of every shape; without one, random numbers.

    Returns:
        The largest change of its current, relative to the largest value; or why it was not folded.
    """
    layer: Any = network.get_submodule(layer_path)
    norm: Any = network.get_submodule(norm_path)
    if isinstance(layer, GenericLayer):
        return "synapses of this package have no bias"
    if norm.running_mean is None or norm.running_var is None:
        return "it has no running statistics"
    pairs = _pairs(layer, norm, inputs)
    if not pairs:
        return f"{layer_path} does not run by itself"
    old = copied_value(layer)
    gain = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        gain = gain * norm.weight.double()
    bias = torch.zeros_like(gain) if layer.bias is None else layer.bias.double()
    shift = 0.0 if norm.bias is None else norm.bias.double()
    axis = channel_axis(layer)
    if axis is None:
        return "groups of a transposed convolution share their channels"
    weight = layer.weight
    if weight.shape[axis] != norm.num_features:  # as after Linear of (N, L, C), with L features
        return f"its features are not the channels of {layer_path}"
    shape = [-1 if i == axis else 1 for i in range(weight.dim())]
    weight.copy_((weight.double() * gain.reshape(shape)).to(weight.dtype))
    folded = ((bias - norm.running_mean.double()) * gain + shift).to(weight.dtype)
    if layer.bias is None:
        layer.bias = nn.Parameter(folded, requires_grad=weight.requires_grad)
    else:
        layer.bias.copy_(folded)
    far = max(_distance(copied_value(layer)(x), y) for x, y in pairs)
    if not far <= _TOLERANCE:
        weight.copy_(old.weight)
        if old.bias is None:
            layer.bias = None
        else:
            layer.bias.copy_(old.bias)
        return f"folding it would change the current of {layer_path} by {far:.1g} of its largest"
    parent, _, name = norm_path.rpartition(".")
    network.get_submodule(parent)._modules[name] = nn.Identity()
    return far


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / (largest or 1.0)


def _pairs(
    layer: nn.Module, norm: nn.Module, inputs: Sequence[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Return inputs that a layer and the norm after it take, and what they make of each."""
    pairs = []
    for x in inputs or examples(layer):
        try:
            pairs.append((x, copied_value(norm)(copied_value(layer)(x))))
        except Exception:  # of any class: inputs of another shape are wanted
            continue
        if not inputs:
            break
    return pairs
