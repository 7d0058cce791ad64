"""How much a network computes, which tells what grows with time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from synapse_onnx.compiler import copies
from synapse_onnx.compiler.frameworks import in_plain_torch

__all__ = ["called", "count_called", "count_operators"]


def count_operators(network: nn.Module, args: Sequence[Any]) -> int | None:
    """Return how many results the operators of a call have; None if it fails."""
    try:
        return count_called(network, args)
    except Exception:  # of any class: it is the user's code
        return None


def count_called(network: nn.Module, args: Sequence[Any]) -> int:
    """Return how many results the operators of a call have.

    Raises:
        Exception: of any class, as the user's code raises it.
    """
    counter = _Counter()
    with torch.no_grad(), in_plain_torch(), _without_onednn(), counter:
        called(network, args)
    return counter.count


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Run without oneDNN, which runs all steps of an LSTM as one operator."""
    backend: Any = torch.backends.mkldnn  # its flags() warns of other settings
    enabled = backend.enabled
    backend.enabled = False
    try:
        yield
    finally:
        backend.enabled = enabled


def called(network: nn.Module, args: Sequence[Any]) -> Any:
    """Return what a copy of a network returns for copies of arguments."""
    return copies.copied(network)(*copies.copied_value(tuple(args)))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # x.unbind() is one operator for any number of steps, and one result for each
        self.count += len(result) if func is torch.ops.aten.unbind.int else 1
        return result
