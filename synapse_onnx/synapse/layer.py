"""Real synapses: Dense, Conv, Pool, ConvTranspose, Unpool.

Every weight has five axes, the last for time and of size 1, as in lava-dl's checkpoints. All
synapses share one life cycle: weight norm on or off, a hook on the weights (``pre_hook_fx``), and
a frozen form in which the weights are integers with a scale.
"""

from synapse_onnx.synapse._conv import Conv
from synapse_onnx.synapse._conv_transpose import ConvTranspose
from synapse_onnx.synapse._dense import Dense
from synapse_onnx.synapse._generic import GenericLayer
from synapse_onnx.synapse._geometry import IntOrPair
from synapse_onnx.synapse._pool import Pool
from synapse_onnx.synapse._unpool import Unpool
from synapse_onnx.synapse._weights import Hook

__all__ = [
    "Conv",
    "ConvTranspose",
    "Dense",
    "GenericLayer",
    "Hook",
    "IntOrPair",
    "Pool",
    "Unpool",
]
