"""Layers that torch does not know to be part of a network.

A layer in a plain list of a module is no submodule: ``freeze`` does not find it, ``eval()`` does
not reach it, its weights are in no checkpoint, and ``verify`` has no row of it.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from synapse_onnx._layer import Deployable
from synapse_onnx.errors import ExportError

__all__ = ["Unregistered"]

#: containers in containers that are searched
_DEPTH = 8


@dataclass(frozen=True)
class _Place:
    """Where a module is kept: ``layers[2]``, in a plain list, and what to do."""

    name: str
    kind: str
    remedy: str


class Unregistered:
    """The modules that a network runs and that are no submodules of it.

    Attributes:
        error: why the network was stopped; None if it was not.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.error: ExportError | None = None
        self._known = set(map(id, nn.Module.modules(network)))

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Stop the network before it calls such a module that has weights, or is a layer of ours.

        A module without tensors, such as ``nn.ReLU()`` made in ``forward``, may run.
        """
        thread = threading.get_ident()  # the hook sees the modules of every thread

        def before(module: nn.Module, _: Any) -> None:
            if threading.get_ident() == thread and self._is_foreign(module):
                self.error = self._refusal(module)
                raise self.error

        with register_module_forward_pre_hook(before):
            yield

    def check_reads(self, run: Callable[[], Any]) -> None:
        """Refuse a network that uses such a module's tensors without calling it.

        ``layer.forward(x)`` and ``linear(x, layer.weight)`` pass no hook. Few networks keep modules
        so, hence only those are run once more, by ``run``, and watched operator by operator.

        Raises:
            ExportError: it does.
        """
        kept = [
            module
            for module, place in _places(self.network)
            if place.kind != _GLOBAL and self._is_foreign(module)
        ]
        if not kept:
            return
        reads = _Reads(
            [t for module in kept for t in (*nn.Module.parameters(module), *module.buffers())]
        )
        # an operator that cannot be watched leaves what was seen before it
        with contextlib.suppress(Exception), reads:
            run()
        for module in kept:
            if any(id(t) in reads.seen for t in (*nn.Module.parameters(module), *module.buffers())):
                raise self._refusal(module)

    def _is_foreign(self, module: nn.Module) -> bool:
        if id(module) in self._known:
            return False
        # looked up anew, because forward() may register modules, and replace tensors
        self._known = set(map(id, nn.Module.modules(self.network)))
        if id(module) in self._known:
            return False
        if any(isinstance(part, Deployable) for part in nn.Module.modules(module)):
            return True
        known = {id(t) for t in (*nn.Module.parameters(self.network), *self.network.buffers())}
        # functional_call() puts tensors that are no parameters in the place of a module's own
        own = [p for p in nn.Module.parameters(module) if isinstance(p, nn.Parameter)]
        return any(id(t) not in known for t in (*own, *module.buffers()))

    def _refusal(self, module: nn.Module) -> ExportError:
        kind = type(module).__name__
        found = (place for held, place in _places(self.network) if held is module)
        place = next(found, None)
        if place is None:
            what = f"forward() calls a {kind} that is no submodule"
            remedy = "make it an attribute of the module in __init__"
        else:
            what = f"{place.name} is a {kind} in {place.kind}"
            remedy = place.remedy
        return ExportError(
            f"{what}, where torch does not find it: it would not be frozen, and be no layer of the "
            f"model; {remedy}"
        )


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The ids of those tensors, of some, that operators read."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors = {id(tensor): tensor for tensor in tensors}  # kept alive: no id comes twice
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.seen |= self.tensors.keys() & {id(leaf) for leaf in tree_leaves((args, kwargs))}
        return func(*args, **kwargs)


_AS_ATTRIBUTE = "make it an attribute of the module"
_GLOBAL = "a global variable"


def _places(network: nn.Module) -> Iterator[tuple[nn.Module, _Place]]:
    """Yield what attributes and methods of a network hold, and is no submodule of it."""
    seen = set(map(id, nn.Module.modules(network)))
    for path, module in network.named_modules():
        before = f"{path}." if path else ""
        for key, value in vars(module).items():
            if key != "_modules":
                yield from _search(
                    _Place(f"{before}{key}", "a plain attribute", _AS_ATTRIBUTE),
                    value,
                    seen,
                    _DEPTH,
                )
    for path, module in network.named_modules():
        before = f"{path}." if path else ""
        for kind in type(module).__mro__[: type(module).__mro__.index(nn.Module)]:
            if kind.__module__.split(".")[0] not in ("torch", "synapse_onnx"):
                for key, value in vars(kind).items():
                    place = _Place(f"{before}{key}", "a class attribute", _AS_ATTRIBUTE)
                    yield from _search(place, value, seen, _DEPTH)
                    if isinstance(value, types.FunctionType):
                        yield from _globals(value, seen)


def _globals(function: types.FunctionType, seen: set[int]) -> Iterator[tuple[nn.Module, _Place]]:
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, nn.Module | list | tuple | dict):
            yield from _search(_Place(name, _GLOBAL, _AS_ATTRIBUTE), value, seen, _DEPTH)


def _search(
    place: _Place, value: Any, seen: set[int], depth: int
) -> Iterator[tuple[nn.Module, _Place]]:
    if id(value) in seen or depth < 0:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield value, place
    for inner, part in _parts(place, value):
        yield from _search(inner, part, seen, depth - 1)


def _parts(place: _Place, value: Any) -> Iterator[tuple[_Place, Any]]:
    """Yield what a container, function or object holds, and where."""
    name = place.name
    if isinstance(value, nn.Module):
        for key, part in (*vars(value).items(), *value.named_children()):
            if key != "_modules":
                yield _Place(f"{name}.{key}", f"a {type(value).__name__}", place.remedy), part
    elif isinstance(value, dict):
        for key, part in value.items():
            yield _Place(f"{name}[{key!r}]", "a plain dict", "use nn.ModuleDict"), part
    elif isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        for i, part in enumerate(value):
            yield _Place(f"{name}[{i}]", f"a plain {kind}", "use nn.ModuleList"), part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield _Place(f"one of {name}", "a plain set", "use nn.ModuleList"), part
    elif isinstance(value, types.FunctionType):
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a variable that has no value yet
                where = _Place(f"{variable} of {name}()", "a closure", _AS_ATTRIBUTE)
                yield where, cell.cell_contents
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        for part in defaults:
            yield _Place(f"a default of {name}()", "a function", _AS_ATTRIBUTE), part
    elif isinstance(value, types.MethodType):
        yield _Place(f"{name}.__self__", "a bound method", _AS_ATTRIBUTE), value.__self__
    elif isinstance(value, functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield _Place(name, "a functools.partial", _AS_ATTRIBUTE), part
    elif isinstance(value, staticmethod | classmethod | property):
        yield place, value.fget if isinstance(value, property) else value.__func__
    elif hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType | Tensor):
        for key, part in vars(value).items():
            yield _Place(f"{name}.{key}", f"a {type(value).__name__}", _AS_ATTRIBUTE), part
