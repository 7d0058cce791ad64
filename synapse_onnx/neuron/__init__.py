"""Spiking neurons: currents (N, C[, H, W], T) in, spikes of the same shape out."""

from synapse_onnx.neuron import base, cuba

__all__ = ["base", "cuba"]
