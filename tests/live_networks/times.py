"""How long a network takes, and its file: in one run, one after the other, on one thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import onnx
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import synapse_onnx as so
from benchmarks._measure import turns
from synapse_onnx.runtime import native as kernels

from .distance import copied
from .network import Network

__all__ = ["SIZE", "beside", "times"]

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
    arrays = _arrays(inputs)
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


def beside(
    network: Network, floats: onnx.ModelProto, integers: onnx.ModelProto, fixed: int | None = None
) -> dict[str, tuple[float, float]]:
    """Return the medians of a file of floats and of one of integers, in ms of the processor.

    "portable", and "native" where the library of kernels is there. All take turns.
    """
    arrays = _arrays(network.inputs(fixed or SIZE[0], SIZE[1]))
    runs: dict[str, Callable[[], Any]] = {}
    for kind, native in (("portable", False), ("native", None)):
        for name, model in (("floats", floats), ("integers", integers)):
            session = so.Session(model, native=native, threads=1)
            if native is False or kernels.problem() is None:
                runs[f"{kind} {name}"] = lambda session=session: session.run(*arrays)
    found = turns(runs, 2 * SECONDS, least=3, clock=time.thread_time)
    return {
        kind: (1000 * found[f"{kind} floats"], 1000 * found[f"{kind} integers"])
        for kind in ("portable", "native")
        if f"{kind} floats" in found
    }


def _arrays(inputs: Any) -> list[Any]:
    return [x.numpy() for x in tree_leaves(inputs) if isinstance(x, Tensor)]
