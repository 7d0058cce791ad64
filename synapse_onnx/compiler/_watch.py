"""What a network's own code does while it is traced that no graph shows.

- A branch on a size that the tracer settles without a word: :mod:`_branches`.
- A tensor of a frozen layer that is read by code of the user's: its values are not those of the
  network that was frozen.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from synapse_onnx._layer import Deployable, put_forward
from synapse_onnx.compiler._branches import Branches
from synapse_onnx.compiler._frames import caller, is_users, place_of
from synapse_onnx.compiler._lists import held, is_same_module, listed_as_before
from synapse_onnx.errors import ExportError

__all__ = ["Watch", "read_error", "rewritten_tensors", "within_forward"]

#: what is asked of a tensor without reading its values
_FACTS = {
    "shape", "ndim", "device", "layout", "requires_grad", "grad", "grad_fn", "is_leaf", "names",
    "is_cuda", "is_cpu", "is_sparse", "is_meta", "itemsize", "nbytes", "size", "dim", "numel",
    "nelement", "stride", "ndimension", "is_contiguous", "get_device", "__len__", "__hash__",
}  # fmt: skip

#: what gives a copy of a tensor, whose use counts
_COPIES = {"clone", "detach"}


class Watch:
    """Records the first read and the first branch of a trace that make its graph a wrong one."""

    def __init__(self, frozen: nn.Module) -> None:
        self._frozen = frozen
        self._branches = Branches()
        self._read: ExportError | None = None
        # kept, so that no other tensor has their id
        self._copies: list[tuple[str, Tensor]] = []
        self._blank: list[tuple[str, Tensor]] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch a trace, from the outermost forward on."""
        listed = listed_as_before(self._on_blank)
        with self._branches.running(), listed, within_forward(self._frozen, _Reads(self)):
            yield

    def raise_read(self) -> None:
        """Raise the error of a tensor that was read, if there was one."""
        if self._read is not None:
            raise self._read

    def raise_found(self) -> None:
        """Raise the first error that was recorded."""
        self.raise_read()
        if self.branch is not None:
            raise self.branch

    @property
    def branch(self) -> ExportError | None:
        """Return the error of the first branch on a size, if there was one."""
        return self._branches.error

    def on_call(self, function: Any, values: tuple[Any, ...]) -> None:
        """Record a call of user's code on a tensor that freezing has rewritten, or a condition."""
        name = getattr(function, "__name__", "")
        for value in values:  # y * (N > T) makes a number of it
            if isinstance(value, torch.SymBool) and not name.startswith("sym_"):
                self._branches.on_asked(value, caller())
        if self._read is not None or not any(isinstance(value, Tensor) for value in values):
            return
        frame = caller()
        own = frame is not None and is_users(frame)
        if name == "__get__":
            name = getattr(getattr(function, "__self__", None), "__name__", name)
        if name in _FACTS or name in _COPIES:
            return
        tensors = {id(value) for value in values}
        place = f" at {place_of(frame)}" if frame is not None and own else ""
        for path, tensor in (*rewritten_tensors(self._frozen), *self._copies) if own else ():
            # a float is one as before
            if id(tensor) in tensors and not (name == "dtype" and tensor.is_floating_point()):
                self._read = read_error(path, tensor, place)
                return
        # also within a layer, where functional_call has put a copy of it
        for path, tensor in self._blank if name != "dtype" else ():
            if id(tensor) in tensors:
                self._read = read_error(path, None, place)
                return

    def _on_blank(self, layer: nn.Module, name: str, tensor: Tensor) -> None:
        modules = self._frozen.named_modules()
        paths = (path for path, module in modules if is_same_module(module, layer))
        path = next(paths, type(layer).__name__)
        self._blank.append((f"{path}.{name}" if path else name, tensor))

    def on_result(self, function: Any, values: tuple[Any, ...], result: Any) -> Any:
        """Follow a copy of such a tensor: functional_call may put it into the layer again.

        Returns:
            The result; of a clone of a blank tensor, a clone of the one that the layer holds.
        """
        name = getattr(function, "__name__", "")
        if name not in _COPIES or not isinstance(result, Tensor):
            return result
        for path, tensor in self._blank:
            if any(tensor is value for value in values):
                own = held(self._frozen, path) if name == "clone" else None
                if own is None or own.shape != result.shape:
                    self._blank.append((path, result))
                    return result
                self._copies.append((path, own.clone()))
                return self._copies[-1][1]
        for path, tensor in (*rewritten_tensors(self._frozen), *self._copies):
            if any(tensor is value for value in values):
                self._copies.append((path, result))
                return result
        return result


def rewritten_tensors(frozen: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (path, tensor) of every tensor that freezing gave other values."""
    for path, layer in frozen.named_modules():
        if isinstance(layer, Deployable):
            for name in layer.rewritten:
                owner, _, key = name.rpartition(".")
                tensor = getattr(layer.get_submodule(owner), key, None)
                if isinstance(tensor, Tensor):
                    yield f"{path}.{name}" if path else name, tensor


def read_error(path: str, tensor: Tensor | None, place: str) -> ExportError:
    """Say that code outside a layer reads a tensor that has other values when frozen.

    ``tensor`` is the one of the frozen layer; None for one that a list has in its place.
    """
    layer, _, name = path.rpartition(".")
    weight = f"{layer}.effective_weight" if layer else "effective_weight"
    kind = "" if tensor is None else f" ({str(tensor.dtype).removeprefix('torch.')})"
    other = f"{weight}, the weight in use" if name.startswith("weight") else "a copy in a buffer"
    return ExportError(
        f"forward() reads {path}{place}, which the frozen layer holds with other values{kind}; "
        f"use {other}"
    )


class _Reads(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        values = (*args, *(kwargs or {}).values())
        self._watch.on_call(func, values)
        result = func(*args, **(kwargs or {}))
        return self._watch.on_result(func, values, result)


@contextlib.contextmanager
def within_forward(module: nn.Module, mode: TorchFunctionMode) -> Iterator[None]:
    """Enter a mode whenever the module runs; the tracer's own calls around it do not count.

    Not by hooks: torch runs none after an error while it traces, and modes must be left in order.
    """
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return plain(*args, **kwargs)

    forward.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    with put_forward(module, forward):
        yield
