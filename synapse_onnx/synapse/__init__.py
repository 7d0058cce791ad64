"""Synapses: spikes (N, C[, H, W], T) in, dendrite currents out; the API of lava-dl's slayer."""

from synapse_onnx.synapse import complex, layer
from synapse_onnx.synapse.layer import Conv, ConvTranspose, Dense, GenericLayer, Pool, Unpool

__all__ = [
    "Conv",
    "ConvTranspose",
    "Dense",
    "GenericLayer",
    "Pool",
    "Unpool",
    "complex",
    "layer",
]
