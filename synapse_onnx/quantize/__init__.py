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
from synapse_onnx.quantize.comparison import Comparison, SpikeRow, compare
from synapse_onnx.quantize.network import apply, summary_of
from synapse_onnx.quantize.summary import LayerRow, Summary

__all__ = [
    "Comparison",
    "Grid",
    "LayerRow",
    "Quantizer",
    "Rounded",
    "SpikeRow",
    "Summary",
    "apply",
    "compare",
    "find_grid",
    "is_power_of_two",
    "q8",
    "round_to_grid",
    "stored_bits",
    "summary_of",
]
