"""The deployment form of a network, which is exported. It is still a torch module that runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Deployable
from synapse_onnx.compiler import copies
from synapse_onnx.compiler._lists import remember_lists
from synapse_onnx.compiler.fold import fold_computed
from synapse_onnx.errors import SynapseError
from synapse_onnx.neuron.stepped import Step

__all__ = [
    "copied", "deployables", "eagerly", "freeze", "other_paths", "step_neurons", "uncompiled",
    "without_autocast",
]  # fmt: skip

M = TypeVar("M", bound=nn.Module)


def deployables(module: nn.Module) -> Iterator[tuple[str, Deployable]]:
    """Yield (path, layer) of the outermost layers of this package, in registration order.

    A layer that is registered more than once has its first path.
    """
    seen: set[Deployable] = set()
    for path, layer in _outermost(module, ""):
        if layer not in seen:
            seen.add(layer)
            yield path, layer


def step_neurons(module: nn.Module) -> Iterator[tuple[str, Step]]:
    """Yield (path, neuron) of the neurons that ``so.neuron.step`` made."""
    for path, part in nn.Module.named_modules(module):
        if isinstance(part, Step):
            yield path, part


def other_paths(module: nn.Module) -> dict[str, str]:
    """Return the further paths of layers that are registered more than once -> the first one."""
    first: dict[Deployable, str] = {}
    others: dict[str, str] = {}
    for path, layer in _outermost(module, ""):
        if first.setdefault(layer, path) != path:
            others[path] = first[layer]
    return others


def _outermost(module: nn.Module, path: str) -> Iterator[tuple[str, Deployable]]:
    if isinstance(module, Deployable):
        if module.is_layer:
            yield path, module
        return
    for name, child in module._modules.items():
        if child is not None:
            yield from _outermost(child, f"{path}.{name}" if path else name)


def uncompiled(module: M) -> M:
    """Return the network that ``torch.compile`` was given; another one as it is."""
    while _is_compiled(module):
        module = module.get_submodule("_orig_mod")  # type: ignore[assignment]
    return module


def copied(module: M) -> M:
    """Return a copy in evaluation mode, whose parts run as they stand if they were compiled.

    Paths and hooks stay as they are. The tracer would not find the path of what a compiled part
    calls.
    """
    copy_of_it = copies.copied(uncompiled(module)).eval()
    for part in list(nn.Module.modules(copy_of_it)):
        if _is_compiled(part):
            vars(part).pop("forward", None)
            object.__setattr__(part, "__class__", _Uncompiled)  # part's own goes to what it holds
    for path, neuron in step_neurons(copy_of_it):
        neuron.path = path
    return copy_of_it


class _Uncompiled(nn.Module):
    """What ``torch.compile`` put around a module, without effect."""

    _orig_mod: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._orig_mod(*args, **kwargs)


def _is_compiled(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch._dynamo")  # which is slow to import


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Run code that ``torch.compile`` was given as it stands, for a while."""
    if "torch._dynamo" not in sys.modules:  # then nothing was compiled, and it is slow to import
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the types of the tensors, also where the caller is in ``torch.autocast``."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


@without_autocast()
def freeze(module: M) -> M:
    """Return the deployment form of a network; the network itself is not touched.

    Weight norm, pruning and parametrisations of our layers are folded, hooks are evaluated, and a
    weight on an integer grid becomes integers and a step. Decays are rounded, dropout is removed,
    persistent states are reset, and the module is in evaluation mode. Its outputs are those of
    ``module.eval()``: bit for bit if the steps are powers of two and the sums stay within float32.
    (Larger sums are exact in the frozen form, and rounded in the other.)

    Args:
        module: any torch module; the layers of this package in it are frozen.

    Raises:
        InputError: a weight is NaN or infinite, or a part within a neuron has a forward hook (the
            layer is named), or something in the module cannot be copied, or has no values yet.
        QuantizationError: a hook returns no weight of the layer's shape (the layer is named).
    """
    module = uncompiled(module)
    frozen = copied(module)
    for parameter in nn.Module.parameters(frozen):  # not its own method, which Rockpool replaces
        parameter.requires_grad_(False)
    numbers: dict[int, int] = {}
    # of a copy: spectral norm changes a network in training whenever its weight is read
    unfrozen = copies.copied_value(frozen)
    for (path, layer), (_, before) in zip(deployables(frozen), deployables(unfrozen), strict=True):
        try:
            fold_computed(layer)
            layer.freeze()
            layer.rewritten = _rewritten(layer, before)
            remember_lists(layer, before, numbers)
        except SynapseError as error:
            raise type(error)(f"{path or 'the module'}: {error}") from error
    for path, neuron in step_neurons(frozen):
        try:
            if isinstance(neuron.fn, nn.Module):
                fold_computed(neuron.fn)
            neuron.freeze()
        except SynapseError as error:
            raise type(error)(f"{path or 'the module'}: {error}") from error
    return frozen


@torch.no_grad()
def _rewritten(frozen: Deployable, before: Deployable) -> frozenset[str]:
    """Return the paths of a frozen layer's tensors that had other values before, or none."""
    paths = []
    for path, module in frozen.named_modules():
        other = before.get_submodule(path)
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and not _is_same(tensor, getattr(other, name, None)):
                paths.append(f"{path}.{name}" if path else name)
    return frozenset(paths)


def _is_same(tensor: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and tensor.dtype == other.dtype
        and tensor.shape == other.shape
        and torch.equal(tensor, other)
    )
