"""One compilation for an export and for the proof that ``verify`` makes of it.

``verify`` finds the loop over time of a network and compiles it again, to compare two files: most
of the time of a test that exports a network and verifies it. A test with the fixture
``compiled_once`` does once what is the same. A network, an argument or an option that differs is
compiled, and so is what has no content to compare, such as an iterator. What would go unseen is a
compilation that gives other bytes the second time, or that changes what it is given: tests/compiler
and tests/verification look for both, in tests without the fixture.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from types import FunctionType
from typing import Any

import onnx
import torch

from synapse_onnx.compiler import axes, exporter
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.loops.rolled import Looped, Rolled
from synapse_onnx.model.options import Options

__all__ = ["finding", "remembering"]


def remembering() -> Callable[[torch.nn.Module, Arguments, Options], onnx.ModelProto]:
    """Return ``compile_frozen`` with a memory of what it compiled."""
    compile_frozen, made, kept = exporter.compile_frozen, dict[bytes, bytes](), list[Any]()

    def compiled(
        frozen: torch.nn.Module, arguments: Arguments, options: Options
    ) -> onnx.ModelProto:
        key = _content((frozen, arguments, options), kept)
        if key in made:
            return onnx.ModelProto.FromString(made[key])
        model = compile_frozen(frozen, arguments, options)
        if key is not None:
            made[key] = model.SerializeToString()
        return model

    return compiled


def finding() -> Callable[..., Rolled | None]:
    """Return ``find_loop`` with a memory of what it found; what it refuses, it looks for again."""
    find_loop, found, kept = exporter.find_loop, dict[bytes, Rolled | None](), list[Any]()

    def find(
        network: torch.nn.Module, inputs: Sequence[torch.Tensor], *, streaming: bool = False
    ) -> Rolled | None:
        key = _content((network, list(inputs), streaming), kept)
        if key is None:
            return find_loop(network, inputs, streaming=streaming)
        if key not in found:
            found[key] = find_loop(network, inputs, streaming=streaming)
        return copy.deepcopy(found[key])

    return find


def _content(value: Any, kept: list[Any]) -> bytes | None:
    """Return all that an object holds, as bytes; None if it holds what cannot be pickled.

    ``kept`` keeps what the bytes mean by where it is in memory.
    """
    out = io.BytesIO()
    try:
        _Pickler(out, kept).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError):  # as torch says it
        return None
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """A pickler that writes equal contents alike, wherever they are in memory."""

    def __init__(self, out: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(out)
        self._kept = kept

    def persistent_id(self, value: Any) -> Any:
        if type(value) is str:
            return sys.intern(value)  # written again wherever it is another object
        if isinstance(value, Looped):  # copies share it
            return self._itself(value)
        if isinstance(value, type | FunctionType) and not _has_a_name(value):
            return self._of_axes(value) or self._itself(value)
        if not isinstance(value, set | frozenset):
            return None  # which is written as usual
        if not all(map(_is_plain, value)):
            raise pickle.PicklingError("a set whose elements have no order")
        return type(value).__name__, sorted(map(repr, value))

    def _itself(self, value: Any) -> tuple[str, int]:
        self._kept.append(value)
        return "itself", id(value)

    def _of_axes(self, value: Any) -> Any:
        """What a class or a function of ``set_axes`` holds, which makes one for every network."""
        if isinstance(value, FunctionType):
            if value.__module__ != axes.__name__:
                return None
            closure = [cell.cell_contents for cell in value.__closure__ or ()]
            return value.__qualname__, closure
        own = {name: vars(value).get(name) for name in ("forward", "__call__")}
        if not any(getattr(each, "__module__", "") == axes.__name__ for each in own.values()):
            return None
        return value.__name__, value.__bases__, own

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        raw = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()).numpy().tobytes()
        view = (value.dtype, value.shape, value.stride(), value.storage_offset())
        return type(value), (raw, *view, value.requires_grad, vars(value))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _has_a_name(value: Any) -> bool:
    """Whether a class or a function is found by its name, as those within a function are not."""
    try:
        found = reduce(getattr, value.__qualname__.split("."), sys.modules[value.__module__])
    except (AttributeError, KeyError):
        return False
    return found is value
