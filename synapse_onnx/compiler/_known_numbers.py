"""Numbers of what follows from parameters alone, for Python code of a network that is traced.

A trace has no numbers, and so refuses ``if self.leak >= 1``. What follows from parameters, buffers
and literals is the same in every call. So a mode computes it on numbers as well, and gives these to
Python where it asks: by ``bool``, ``item``, ``tolist`` and the like.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from synapse_onnx.compiler._watch import within_forward
from synapse_onnx.compiler.function_mode import FunctionMode

__all__ = ["KnownNumbers"]

#: methods that give the numbers of a tensor to Python
_READS = {
    Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__contains__,
    Tensor.item, Tensor.tolist, Tensor.is_nonzero, torch.is_nonzero, torch.equal, Tensor.equal,
    torch.allclose, Tensor.allclose,
}  # fmt: skip


class KnownNumbers(FunctionMode):
    """Knows the numbers of tensors that depend on no input, while it is active.

    Args:
        network: the network, before it is traced.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network
        self._numbers = {path: tensor.detach().clone() for path, tensor in _named(network)}
        self._known: Any = WeakIdKeyDictionary()

    @contextmanager
    def within_forward(self) -> Iterator[None]:
        """Be active whenever the network runs; its tensors are then those of the tracer."""
        with within_forward(self._network, self):
            yield

    def __enter__(self) -> Any:
        """Begin a run of the network."""
        with _disable_current_modes():
            numbers = {path: tensor.clone() for path, tensor in self._numbers.items()}
        for path, tensor in _named(self._network):
            self._known[tensor] = numbers[path]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function of torch."""
        leaves = _leaves((args, kwargs))
        tensors = [x for x in leaves if isinstance(x, Tensor)]
        is_known = all(x in self._known for x in tensors) and not any(map(_is_open, leaves))
        if is_known and tensors and function in _READS:
            return self._on_numbers(function, args, kwargs)
        result = function(*args, **kwargs)
        numbers = self._on_numbers(function, args, kwargs) if is_known else NotImplemented
        if numbers is NotImplemented:
            self._forget(function, args, kwargs)
            return result
        for value, number in zip(_leaves(result), _leaves(numbers), strict=False):
            alike = isinstance(value, Tensor) and isinstance(number, Tensor)
            if alike and (value.shape, value.dtype) == (number.shape, number.dtype):
                self._known[value] = number
        return result

    def _on_numbers(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call a function on the numbers of its arguments; NotImplemented of a random one."""
        numbers, named = torch.utils._pytree.tree_map_only(
            Tensor, self._known.__getitem__, (args, dict(kwargs))
        )
        with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
            before = torch.get_rng_state()
            result = function(*numbers, **named)
            if torch.equal(torch.get_rng_state(), before):
                return result
            torch.set_rng_state(before)
            return NotImplemented

    def _forget(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Forget a tensor that a function of others may have changed, and what shares memory."""
        name = str(getattr(function, "__name__", function)).partition(".")[0]
        in_place = name == "__setitem__" or name.startswith("__i") or name.endswith(("_", "_out"))
        changed = [*(args[:1] if in_place else ()), *_leaves(kwargs.get("out"))]
        memory = {_memory(self._known[x]) for x in changed if x in self._known}
        for x, numbers in list(self._known.items()) if memory else ():
            if _memory(numbers) in memory:
                del self._known[x]


def _is_open(value: Any) -> bool:
    """Whether a value is an open size, or has one: a number of it would fix it."""
    if isinstance(value, slice):
        return any(map(_is_open, (value.start, value.stop, value.step)))
    return isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)


def _memory(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _named(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from nn.Module.named_parameters(network, remove_duplicate=False)
    yield from nn.Module.named_buffers(network, remove_duplicate=False)


def _leaves(value: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(value)
