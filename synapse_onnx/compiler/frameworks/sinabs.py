"""sinabs: layers keep their states in buffers, and are reset before each sequence."""

from __future__ import annotations

from typing import Any

import torch

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]


def _reset(module: Any) -> None:
    """Take the states of a layer away, which makes zeros of them for the next batch size."""
    if hasattr(module, "reset_states") and hasattr(module, "is_state_initialised"):
        for name, state in module._buffers.items():
            module._buffers[name] = torch.zeros(0, dtype=state.dtype)


FRAMEWORK = Framework("sinabs", reset=_reset)
