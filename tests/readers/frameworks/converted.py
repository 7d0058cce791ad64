"""Layers of a framework beside what ``convert`` makes of them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import synapse_onnx as so

#: of the largest voltage: a sum of many steps rounds in another order, 6e-8 at each
TOLERANCE = 2e-6
#: frameworks warn of their own affairs
IGNORED = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in (
    "DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning",
    "SyntaxWarning", "RuntimeWarning",
)]  # fmt: skip


def framework(*names: str) -> list[Any]:
    """Import modules of a framework; skip the tests of a file where it is missing."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            try:
                found.append(importlib.import_module(name))
            except ImportError as error:
                pytest.skip(f"{name} cannot be imported: {error}", allow_module_level=True)
    return found


def drive(*shape: int, mean: float = 0.3, spread: float = 0.8, seed: int = 0) -> Tensor:
    """Currents that make neurons spike now and then."""
    generator = torch.Generator().manual_seed(seed)
    return mean + spread * torch.randn(shape, generator=generator)


def by_steps(layer: Any, x: Tensor) -> Tensor:
    """Run a module that takes one step, and returns one or that and more, over (N, ..., T)."""
    outputs = [layer(x[..., t]) for t in range(x.shape[-1])]
    return torch.stack([y[0] if isinstance(y, tuple) else y for y in outputs], -1)


def with_state(layer: Any, x: Tensor) -> Tensor:
    """Run a module that takes one step and a state, and returns both."""
    state, outputs = None, []
    for t in range(x.shape[-1]):
        y, state = layer(x[..., t], state)
        outputs.append(y)
    return torch.stack(outputs, -1)


def time_at(axis: int, layer: Any, x: Tensor) -> Tensor:
    """Run a module that takes sequences with time at an axis."""
    y = layer(x.movedim(-1, axis))
    y = y[0] if isinstance(y, tuple) else torch.stack(y) if isinstance(y, list) else y
    return y.movedim(axis, -1)


def same(
    layer: nn.Module, x: Tensor, run: Callable[[Any, Tensor], Tensor], *, spikes: bool = True
) -> Any:
    """Compare a module with its conversion, in evaluation mode; return the conversion.

    Spikes are the same numbers, voltages those within :data:`TOLERANCE`.
    """
    new: Any = so.convert(layer.eval())
    assert not new.training
    with torch.no_grad():
        expected, found = run(layer, x), new(x)
    if isinstance(found, tuple):
        found = found[0]
    assert found.shape == expected.shape
    if spikes:
        assert float((expected != 0).float().mean()) > 0.01
        assert len(expected.unique()) > 1
        assert int((found != expected).sum()) == 0
    else:
        assert float((found - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    return new


def whole_way(new: Any, x: Tensor) -> None:
    """Export a converted module, whole and as a stream, and go on training it."""
    model = so.export(new, x)
    assert so.verify(new, model, x).ok
    stream = so.export(new, x, streaming=True)
    assert so.verify(new, stream, x).ok
    with torch.no_grad():
        np.testing.assert_allclose(so.Session(model).run(x.numpy()), new(x).numpy(), atol=1e-4)
    new.train()
    parameters = [p for p in new.parameters() if p.requires_grad]
    assert parameters
    new(x).sum().backward()
    grads = [p.grad for p in parameters if p.grad is not None]
    assert grads
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert any(bool(grad.any()) for grad in grads)
