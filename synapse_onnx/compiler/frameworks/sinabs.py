"""sinabs: layers keep their states in buffers, and are reset before each sequence.

Layers take (N, T, C), those that are squeezed (N * T, C). With one time step a call they take
single steps, and the states are those of their network.
"""

from __future__ import annotations

from typing import Any

import torch

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]


def _takes_one_step(module: Any) -> bool:
    return bool(getattr(module, "num_timesteps", None) == 1)


def _reset(module: Any) -> None:
    if not _takes_one_step(module):
        _start(module)


def _start(module: Any) -> None:
    """Empty the states, which a layer makes anew for the batch of its next input."""
    if hasattr(module, "reset_states"):
        for name, value in module._buffers.items():
            module._buffers[name] = None if value is None else torch.zeros(0)


def _takes_sequences(module: Any) -> bool:
    """A layer that is squeezed for so many samples takes one step of them, too."""
    whole = getattr(module, "batch_size", -1) == -1 and not _takes_one_step(module)
    return whole and hasattr(module, "reset_states")


FRAMEWORK = Framework("sinabs", reset=_reset, start=_start, takes_sequences=_takes_sequences)
