"""How long a network takes, and its file: in one run, one after the other, on one thread."""

from __future__ import annotations

import contextlib

import onnx
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import synapse_onnx as so
from benchmarks._measure import turns

from .distance import copied
from .network import Network

__all__ = ["SIZE", "times"]

#: (T, N) of the sequence that is timed
SIZE = (50, 4)

#: seconds that the contestants of one network take together
SECONDS = 0.5


def times(
    network: Network, net: nn.Module, model: onnx.ModelProto, fixed: int | None = None
) -> dict[str, float]:
    """Return the medians in ms: "portable", "native" where kernels are installed, and "eager".

    ``fixed`` is the number of steps of the file, if that is not open.
    """
    inputs = network.inputs(fixed or SIZE[0], SIZE[1])
    tensors = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    arrays = [x.numpy() for x in tensors]
    portable = so.Session(model, native=False, threads=1)
    native = so.Session(model, threads=1)
    own = copied(network, net)
    runs = {"portable": lambda: portable.run(*arrays)}
    if native.kernels:
        runs["native"] = lambda: native.run(*arrays)
    with contextlib.suppress(Exception):  # it counts its steps, and takes one sequence alone
        own(*inputs), own(*inputs)
        runs["eager"] = lambda: own(*inputs)
    return {name: 1000 * seconds for name, seconds in turns(runs, SECONDS, least=3).items()}
