"""Quantisation of weights: hooks for training, and whole networks after training."""

from __future__ import annotations

from synapse_onnx.grid import (
    Grid,
    Quantizer,
    Rounded,
    find_grid,
    is_power_of_two,
    q8,
    round_to_grid,
    stored_bits,
)

__all__ = [
    "Grid",
    "Quantizer",
    "Rounded",
    "find_grid",
    "is_power_of_two",
    "q8",
    "round_to_grid",
    "stored_bits",
]
