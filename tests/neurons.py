"""Every kind of neuron, made as its example says, and currents for it."""

from __future__ import annotations

from typing import Any

import torch

import synapse_onnx as so

KINDS = so.neuron.kinds()
EQUATIONS = [kind for kind, module in KINDS.items() if hasattr(module.Neuron, "equation")]
RESONATORS = [kind for kind in KINDS if KINDS[kind].Neuron.complex]
ADAPTIVE = [kind for kind in EQUATIONS if "refractory" in KINDS[kind].Neuron.states]


def example(kind: str, **changes: Any) -> dict[str, Any]:
    return {**KINDS[kind].Neuron.example, **changes}


def made(kind: str, **changes: Any) -> Any:
    return KINDS[kind].Neuron(**example(kind, **changes))


def drawn(kind: str, *shape: int, size: float = 1.0) -> Any:
    """A current, or a pair of them."""
    draw = torch.Generator().manual_seed(0)
    count = 1 + KINDS[kind].Neuron.complex
    parts = [size * (torch.rand(shape, generator=draw) - 0.25) for _ in range(count)]
    return tuple(parts) if count == 2 else parts[0]
