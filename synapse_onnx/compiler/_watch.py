"""What a network's own code does while it is traced that no graph shows.

- A branch on a size: the tracer takes sizes to be 2 or more, so ``if x.shape[0] > 1`` is settled
  without a word, and the graph holds one branch alone.
- A tensor of a frozen layer that is read by code of the user's: its values are not those of the
  network that was frozen.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from synapse_onnx._layer import Deployable, put_forward
from synapse_onnx.compiler._dynamic import AXES
from synapse_onnx.compiler._lists import listed_as_before
from synapse_onnx.errors import ExportError

__all__ = [
    "Watch", "caller", "is_users", "named_symbols", "package", "place_of", "within_forward",
]  # fmt: skip

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
        self._sources: dict[str, str] = {}
        self._read: ExportError | None = None
        self._branch: ExportError | None = None
        self._copies: list[tuple[str, Tensor]] = []  # kept, so that no other tensor has their id

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch a trace, from the outermost forward on."""
        listed = listed_as_before(is_users, self._on_blank)
        with _branches(self._on_branch), listed, within_forward(self._frozen, _Reads(self)):
            yield

    def raise_read(self) -> None:
        """Raise the error of a tensor that was read, if there was one."""
        if self._read is not None:
            raise self._read

    def raise_found(self) -> None:
        """Raise the first error that was recorded."""
        self.raise_read()
        if self._branch is not None:
            raise self._branch

    # -- branches ------------------------------------------------------------------------------

    def _on_branch(self, condition: torch.SymBool, frame: FrameType) -> None:
        if self._branch is not None or not is_users(frame):
            return
        expression = condition.node.expr
        symbols = sorted(getattr(expression, "free_symbols", ()), key=str)
        if not symbols:
            return
        sizes = itertools.product((1, 2, 3, 1000), repeat=len(symbols))
        answers = {str(expression.subs(dict(zip(symbols, size, strict=True)))) for size in sizes}
        settled = condition.node.shape_env._maybe_evaluate_static(expression) is not None
        if settled and answers == {"True", "False"}:
            names = named_symbols(condition.node.shape_env)
            axes = [names[symbol] for symbol in symbols if symbol in names]
            what = " and ".join(dict.fromkeys(AXES[axis] for axis, _ in axes)) or "a size"
            self._branch = ExportError(
                f"forward() branches on the {what} at {place_of(frame)}, and a model holds one "
                f"branch alone; leave the branch out, for example by torch.where or a mask, or "
                f"export with dynamic=False"
            )

    # -- reads ---------------------------------------------------------------------------------

    def on_call(self, function: Any, values: tuple[Any, ...]) -> None:
        """Record a call of user's code on a tensor that freezing has rewritten."""
        if self._read is not None or not any(isinstance(value, Tensor) for value in values):
            return
        frame = caller()
        if frame is None or not is_users(frame):
            return
        name = getattr(function, "__name__", "")
        if name == "__get__":
            name = getattr(getattr(function, "__self__", None), "__name__", name)
        if name in _FACTS or name in _COPIES:
            return
        tensors = {id(value) for value in values}
        for path, tensor in (*rewritten_tensors(self._frozen), *self._copies):
            if id(tensor) in tensors:
                self._read = read_error(path, tensor, f" at {place_of(frame)}")
                return

    def _on_blank(self, layer: nn.Module, name: str, tensor: Tensor) -> None:
        modules = self._frozen.named_modules()
        path = next((path for path, module in modules if module is layer), type(layer).__name__)
        self._copies.append((f"{path}.{name}" if path else name, tensor))

    def on_result(self, function: Any, values: tuple[Any, ...], result: Any) -> None:
        """Follow a copy of such a tensor: functional_call may put it into the layer again."""
        if getattr(function, "__name__", "") in _COPIES and isinstance(result, Tensor):
            for path, tensor in (*rewritten_tensors(self._frozen), *self._copies):
                if any(tensor is value for value in values):
                    self._copies.append((path, result))
                    return


def rewritten_tensors(frozen: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield (path, tensor) of every tensor that freezing gave other values."""
    for path, layer in frozen.named_modules():
        if isinstance(layer, Deployable):
            for name in layer.rewritten:
                owner, _, key = name.rpartition(".")
                tensor = getattr(layer.get_submodule(owner), key, None)
                if isinstance(tensor, Tensor):
                    yield f"{path}.{name}" if path else name, tensor


def read_error(path: str, tensor: Tensor, place: str) -> ExportError:
    """Say that code outside a layer reads a tensor that has other values when frozen."""
    layer, _, name = path.rpartition(".")
    weight = f"{layer}.effective_weight" if layer else "effective_weight"
    kind = str(tensor.dtype).removeprefix("torch.")
    other = f"{weight}, the weight in use" if name.startswith("weight") else "a copy in a buffer"
    return ExportError(
        f"forward() reads {path}{place}, which the frozen layer holds with other values ({kind}); "
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
        self._watch.on_result(func, values, result)
        return result


# -- where ---------------------------------------------------------------------------------------


def caller() -> FrameType | None:
    """Return the innermost frame outside torch and the caller's file."""
    frame: FrameType | None = sys._getframe(1)
    watching = sys._getframe(1).f_globals, globals()
    while frame is not None and (
        package(frame) == "torch"
        or frame.f_code.co_filename.startswith("<")  # code that torch generates
        or any(frame.f_globals is each for each in watching)
    ):
        frame = frame.f_back
    return frame


def place_of(frame: FrameType) -> str:
    """Return file and line of a frame, for a sentence."""
    return f"line {frame.f_lineno} of {os.path.basename(frame.f_code.co_filename)}"


def package(frame: FrameType) -> str:
    """Return the package that a frame's code belongs to."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_users(frame: FrameType) -> bool:
    """Whether a frame's code is the user's."""
    return package(frame) not in ("torch", "synapse_onnx", "sympy")


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


def named_symbols(shape_env: Any) -> dict[Any, tuple[str, str]]:
    """Return symbol -> (name of the axis, the size that it is, like "x.shape[2]")."""
    names: dict[Any, tuple[str, str]] = {}
    for symbol, sources in shape_env.var_to_sources.items():
        source = sources[0].name
        source = source if isinstance(source, str) else source()
        text = source.replace(".size()[", ".shape[")
        start = text.find("['")
        argument, _, rest = text[start + 2 :].partition("']")
        axis = text.rpartition("[")[2].rstrip("]")
        names[symbol] = ("N" if axis == "0" else "T", f"{argument}{rest}")
    return names


# -- branches --------------------------------------------------------------------------------------

_lock = threading.Lock()
_listeners: dict[int, list[Callable[[torch.SymBool, FrameType], None]]] = {}
_plain: Any = torch.SymBool.__bool__


def _listened(self: torch.SymBool) -> bool:
    for listener in _listeners.get(threading.get_ident(), ()):
        listener(self, sys._getframe(1))
    answer: bool = _plain(self)
    return answer


@contextlib.contextmanager
def _branches(listener: Callable[[torch.SymBool, FrameType], None]) -> Iterator[None]:
    """Call a listener for every condition on a size that this thread's code branches on."""
    thread = threading.get_ident()
    with _lock:
        _listeners.setdefault(thread, []).append(listener)
        torch.SymBool.__bool__ = _listened  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _lock:
            _listeners[thread].remove(listener)
            if not _listeners[thread]:
                del _listeners[thread]
            if not _listeners:
                torch.SymBool.__bool__ = _plain  # type: ignore[method-assign]
