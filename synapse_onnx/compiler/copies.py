"""A copy of a network without its autograd graph, or the sentence why it cannot be copied."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from synapse_onnx.compiler.function_mode import FunctionMode
from synapse_onnx.errors import InputError

__all__ = ["copied", "copied_value"]

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


def copied(module: M) -> M:
    """Return a deep copy of a network; tensors that autograd computed become plain ones.

    A forward pass may leave such tensors behind, as states or as outputs that a module keeps, and
    ``copy.deepcopy`` refuses them.

    Raises:
        InputError: the module is none, or something in it cannot be copied or frozen.
    """
    if not isinstance(module, nn.Module):
        kind = type(module).__name__
        if isinstance(module, type):
            kind = f"the class {module.__name__}; make an instance of it"
        raise InputError(f"the module must be a torch.nn.Module, got {kind}")
    for path, child in module.named_modules():
        _check(path, child)
    try:
        return copied_value(module)
    except MemoryError:
        raise
    except Exception as error:  # every class has its own way to refuse
        raise InputError(_sentence(module, error)) from error


def copied_value(value: T) -> T:
    """Return a deep copy of anything, likewise without graphs.

    Raises:
        Exception: of any class, as the objects in it refuse to be copied.
    """
    with _WithoutGraph():
        try:
            return copy.deepcopy(value)
        except MemoryError:
            raise
        except Exception:
            if isinstance(value, nn.Module):
                with contextlib.suppress(Exception):
                    return _copied_plainly(value)
            raise


def _copied_plainly(module: M) -> M:
    """Copy a network whose modules have a ``__deepcopy__`` that fails, attribute by attribute.

    That of sinabs' recurrent layers calls their constructor with other arguments than it takes.
    """
    own = [part for part in nn.Module.modules(module) if hasattr(type(part), "__deepcopy__")]
    memo: dict[int, Any] = {id(part): type(part).__new__(type(part)) for part in own}
    for part in own:
        memo[id(part)].__dict__.update(copy.deepcopy(vars(part), memo))
    return copy.deepcopy(module, memo)


class _WithoutGraph(FunctionMode):
    """Copies a tensor with a graph as one without."""

    def call(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if function is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = result = tensor.detach().clone()
            return result
        return function(*args, **kwargs)


def _check(path: str, module: nn.Module) -> None:
    """Refuse a module whose code or parameters are of a kind that cannot be exported."""
    place = f"module '{path}'" if path else "the module"
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"{place} is scripted or traced by torch.jit and cannot be exported; use the module "
            f"that it was made from"
        )
    tensors = (*module._parameters.items(), *module._buffers.items())
    for name, tensor in tensors:
        if tensor is None:
            continue
        path_of = f"{path}.{name}" if path else name
        if is_lazy(tensor):
            raise InputError(
                f"{path_of} of {type(module).__name__} has no shape before the first input; run "
                f"the network once on an example"
            )
        if tensor.is_meta:
            raise InputError(
                f"{path_of} is on the meta device and has no values; load the network's weights "
                f"to the CPU or a GPU"
            )
        if tensor.layout is not torch.strided and isinstance(tensor, nn.Parameter):
            raise InputError(
                f"{path_of} is sparse ({tensor.layout}), and models hold dense weights; replace "
                f"it by its to_dense()"
            )


def _sentence(module: nn.Module, error: Exception) -> str:
    """Name the attribute that cannot be copied."""
    place, error = next(_faults(module), ("the module", error))
    lines = str(error).split("\n")
    return (
        f"{place} cannot be copied, and export works on a copy ({type(error).__name__}: "
        f"{lines[0].strip()}); remove it before the export, or leave it out in __getstate__"
    )


def _faults(module: nn.Module) -> Iterator[tuple[str, Exception]]:
    """Yield (place, error) of every attribute that cannot be copied."""
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if name == "_modules":
                continue
            try:
                copied_value(value)
            except Exception as error:
                owner = f"module '{path}'" if path else "the module"
                yield f"attribute '{name}' of {owner}, a {type(value).__name__},", error
