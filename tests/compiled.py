"""One compilation for an export and for the proof that ``verify`` makes of it.

``verify`` compiles the network again, to compare two files: half the time of a test that exports a
network and verifies it. A test with the fixture ``compiled_once`` compiles what is the same once.
A network, an argument or an option that differs is compiled, and so is what cannot be pickled, such
as a class within a test. What would go unseen is a compilation that gives other bytes the second
time, or that changes what it is given: tests/compiler and tests/verification look for both, in
tests without the fixture.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import onnx
import torch

from synapse_onnx.compiler import exporter
from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.model.options import Options

__all__ = ["remembering"]


def remembering() -> Callable[[torch.nn.Module, Arguments, Options], onnx.ModelProto]:
    """Return ``compile_frozen`` with a memory of what it compiled."""
    compile_frozen, made = exporter.compile_frozen, dict[bytes, bytes]()

    def compiled(
        frozen: torch.nn.Module, arguments: Arguments, options: Options
    ) -> onnx.ModelProto:
        key = _content((frozen, arguments, options))
        if key in made:
            return onnx.ModelProto.FromString(made[key])
        model = compile_frozen(frozen, arguments, options)
        if key is not None:
            made[key] = model.SerializeToString()
        return model

    return compiled


def _content(value: Any) -> bytes | None:
    """Return all that an object holds, as bytes; None if it holds what cannot be pickled."""
    out = io.BytesIO()
    try:
        _Pickler(out).dump(value)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError):  # as torch says it
        return None
    return out.getvalue()


class _Pickler(pickle.Pickler):
    """A pickler that writes equal contents alike, wherever they are in memory."""

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, set | frozenset):
            return None  # which is written as usual
        if not all(isinstance(item, str | int) for item in value):
            raise pickle.PicklingError("a set whose elements have no order")
        return type(value).__name__, sorted(map(repr, value))

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        raw = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()).numpy().tobytes()
        view = (value.dtype, value.shape, value.stride(), value.storage_offset())
        return type(value), (raw, *view, value.requires_grad, vars(value))
