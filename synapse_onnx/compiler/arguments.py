"""Arguments of a network: tensors, and pairs (real, imag) for complex ones.

A graph has only tensors: a complex argument ``x`` is two inputs, ``x_real`` and ``x_imag``.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from synapse_onnx._layer import argument_names, replaced_forward
from synapse_onnx.errors import InputError

__all__ = ["Arguments", "kind_refused"]


@runtime_checkable
class _NamedTuple(Protocol):
    """What every class of ``typing.NamedTuple`` has."""

    _fields: tuple[str, ...]


@dataclass(frozen=True)
class Arguments:
    """Example arguments of a network.

    Attributes:
        tensors: every tensor; the parts of a pair follow each other.
        pairs: for each argument, whether it is a pair.
        named: the NamedTuple of each argument that is one.
    """

    tensors: tuple[Tensor, ...]
    pairs: tuple[bool, ...]
    named: Mapping[int, Callable[..., Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module, args: Any, call: str) -> Arguments:
        """Read example arguments: a tensor, or a sequence of tensors and pairs of tensors.

        Two tensors for a ``forward`` with one argument are a pair. ``call`` is the name of the
        calling function, for errors.

        Raises:
            InputError: an argument is no tensor and no pair, is empty, or is of a kind of tensor
                that no model takes.
        """
        if not isinstance(args, Iterable) or isinstance(args, (str, Mapping)):
            raise InputError(
                f"{call}: args must be a tensor or a sequence of tensors and pairs (real, imag), "
                f"in the order of forward()'s arguments, got a {type(args).__name__}"
            )
        values: list[Any] = [args] if isinstance(args, Tensor | _NamedTuple) else list(args)
        if len(values) == 2 and all(isinstance(a, Tensor) for a in values) and _takes_one(module):
            values = [tuple(values)]
        tensors: list[Tensor] = []
        pairs: list[bool] = []
        named: dict[int, Callable[..., Any]] = {}
        for i, value in enumerate(values):
            pair = isinstance(value, tuple | list)
            parts = list(value) if pair else [value]
            if len(parts) != 1 + pair or not all(isinstance(part, Tensor) for part in parts):
                kind = f"{type(value).__name__} of {len(parts)}" if pair else type(value).__name__
                raise InputError(
                    f"{call}: args must be a tensor or a sequence of tensors and pairs (real, "
                    f"imag); argument {i} is a {kind}; {_remedy(value)}"
                )
            if isinstance(value, _NamedTuple):
                named[i] = type(value)
            for part in parts:
                unlike = kind_refused(part, "give")
                if unlike:
                    raise InputError(f"{call}: argument {i} is {unlike}")
                if part.numel() == 0:
                    raise InputError(f"{call}: argument {i} is empty, of shape {tuple(part.shape)}")
            tensors += [part.detach().cpu() for part in parts]
            pairs.append(pair)
        return cls(tuple(tensors), tuple(pairs), named)

    def check(self, module: nn.Module, call: str) -> None:
        """Check that ``forward`` can be given these arguments in order, as a model's inputs.

        Raises:
            InputError: it takes more or fewer, or one by keyword alone, or a pair without a name;
                ``call`` is the name of the calling function.
        """
        needed = [
            p.name
            for p in inspect.signature(module.forward).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        ]
        if needed:
            raise InputError(
                f"{call}: forward() takes {', '.join(needed)} by keyword alone, and the inputs of "
                f"a model are in order; write the argument before the * of forward(), or give it a "
                f"default"
            )
        if any(self.pairs) and not argument_names(module):
            raise InputError(
                f"{call}: a pair (real, imag) needs an argument with a name, and forward() takes "
                f"*args; give the module inside, or name the argument"
            )
        try:
            inspect.signature(module.forward).bind(*self.grouped(self.tensors))
        except TypeError as error:
            raise InputError(
                f"{call}: forward() of {type(module).__name__} does not take {len(self.pairs)} "
                f"positional arguments ({error}); give one example for each of its arguments"
            ) from error

    def grouped(self, tensors: Sequence[Any]) -> list[Any]:
        """Return the arguments of ``forward``: tensors, and pairs of them."""
        rest = iter(tensors)
        values = [(next(rest), next(rest)) if pair else next(rest) for pair in self.pairs]
        for i, kind in self.named.items():
            values[i] = kind(*values[i])
        return values

    def names(self, module: nn.Module) -> list[str]:
        """Return the names of the inputs, those of ``forward``'s arguments; none for ``*args``."""
        names: list[str] = []
        for name, pair in zip(argument_names(module), self.pairs, strict=False):
            names += [f"{name}_real", f"{name}_imag"] if pair else [name]
        return names

    @contextlib.contextmanager
    def flat(self, module: nn.Module) -> Iterator[None]:
        """Give a network a ``forward`` that takes each part of a pair as an argument."""
        names = self.names(module)
        if not any(self.pairs) or not names:
            yield
            return

        def make(plain: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *tensors: plain(*self.grouped(tensors))

        with replaced_forward(module, make, names):
            yield


def _takes_one(module: nn.Module) -> bool:
    """Whether ``forward`` takes one argument and no more."""
    parameters = inspect.signature(module.forward).parameters.values()
    return len(parameters) == 1 and all(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters
    )


def kind_refused(value: Tensor, verb: str) -> str:
    """Say what is wrong with a tensor without dense values, and what to do; "" of another."""
    if value.is_nested:
        return f"a nested tensor; {verb} a tensor padded to one length"
    if value.is_meta:
        return f"on the meta device and has no values; {verb} a tensor with some"
    if value.layout is not torch.strided:
        return f"sparse ({value.layout}); {verb} its to_dense()"
    if value.is_quantized:
        return f"quantised ({value.dtype}); {verb} its dequantize()"
    return ""


def _remedy(value: Any) -> str:
    """Return what to do with an argument that is no tensor."""
    if isinstance(value, bool | int | float):
        return f"give torch.tensor({value!r}), or settle it in a module around the network"
    if value is None:
        return "leave it out, or settle it in a module around the network"
    if type(value).__module__ == "numpy":
        return "give a tensor, by torch.from_numpy()"
    return "give each of its tensors as an argument of its own, in a module around the network"
