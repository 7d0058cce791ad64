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
from synapse_onnx.quantize.network import apply, summary_of
from synapse_onnx.quantize.summary import LayerRow, Summary

__all__ = [
    "Grid",
    "LayerRow",
    "Quantizer",
    "Rounded",
    "Summary",
    "apply",
    "find_grid",
    "is_power_of_two",
    "q8",
    "round_to_grid",
    "stored_bits",
    "summary_of",
]
