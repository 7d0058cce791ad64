"""snnTorch: neurons keep their states in buffers, which are empty until the first input.

``snntorch.utils.reset`` resets every neuron of the process, and no copies.
"""

from __future__ import annotations

from typing import Any

import torch

from synapse_onnx.compiler.frameworks._framework import Framework

__all__ = ["FRAMEWORK"]

#: buffers of a neuron that are states; others are parameters that it does not learn
_STATES = ("mem", "spk", "syn", "syn_exc", "syn_inh")


def _start(module: Any) -> None:
    """Empty the states, which a neuron makes anew in the shape of its next input."""
    if hasattr(module, "reset_mem"):
        for name in _STATES:
            if name in module._buffers:
                module._buffers[name] = torch.zeros(0)


FRAMEWORK = Framework("snntorch", start=_start)
