"""Exports one network, and compares its file with the network itself."""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

import synapse_onnx as so
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.tiles import is_in_tiles

from .distance import Distance, copied, outputs_of, tensors_of, undecided
from .integers import Integers, integers
from .network import Network
from .streams import streamed
from .times import times

__all__ = ["SIZES", "Measured", "measure"]

#: (T, N) at which a file is compared with its network
SIZES = ((4, 3), (9, 2), (17, 5), (1, 1))

#: the size of the example that is exported
EXAMPLE = (7, 3)


@dataclass
class Measured:
    """What became of one network.

    Attributes:
        verdict: "right", "refused", "WRONG" or "exception".
        sentence: why it was refused, what is wrong, or the exception.
        as_declared: whether this is what its entry says.
        gap: whether a file could be right, though the network is refused.
        lines: lines that the user writes.
        seconds: duration of the export.
        nodes: nodes of the graph, and nodes within its loops.
        steps: the size of time in the file, a name where it is open; None without time.
        batch: the same of the batch.
        neurons: the nodes of layers in the file, and its loops: "2 LifSubtractFloat, 1 Scan".
        distance: how far outputs differ, over all sizes.
        rounded: samples in which a rounding decides, that are compared up to there.
        sizes: the sizes that were compared.
        streamed: whether chunks give the whole: "right", or why not.
        times: ms of the network's own forward, "eager", and of its file.
        verified: what so.verify says.
        integers: the same network with weights of 8 bits; None where that was not measured.
        silent: paths of modules that returned nothing but zeros, at all sizes together.
    """

    framework: str
    name: str
    verdict: str = "exception"
    sentence: str = ""
    as_declared: bool = False
    gap: bool = False
    lines: int = 0
    seconds: float | None = None
    nodes: tuple[int, int] | None = None
    steps: int | str | None = None
    batch: int | str | None = None
    neurons: str = ""
    distance: Distance = field(default_factory=Distance)
    rounded: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)
    streamed: str = ""
    times: dict[str, float] = field(default_factory=dict)
    verified: str = ""
    integers: Integers | None = None
    silent: list[str] = field(default_factory=list)


def measure(
    framework: str,
    network: Network,
    *,
    verify: bool = True,
    whole: bool = False,
    bits: bool = False,
) -> Measured:
    """Export a network and compare; whatever happens is in the result.

    Args:
        framework: its name.
        network: the entry.
        verify: whether to run so.verify, too.
        whole: whether to compare its stream, too, and to time it.
        bits: whether to do the same with weights of 8 bits.
    """
    result = Measured(framework, network.name, lines=len(network.lines))
    try:
        with _quiet(), torch.no_grad():
            _measure(network, result, verify, whole, bits)
    except so.SynapseError as error:
        result.verdict, result.sentence = "refused", str(error)
    except Exception as error:  # one network must not stop the others
        text = " ".join(str(error).split())
        result.verdict, result.sentence = "exception", f"{type(error).__name__}: {text}"
    result.gap = network.gap or not network.refused
    if network.refused:
        result.as_declared = result.verdict == "refused" and network.refused in result.sentence
    else:
        result.as_declared = result.verdict == "right"
    return result


def _measure(network: Network, result: Measured, verify: bool, whole: bool, bits: bool) -> None:
    net = network.fresh()
    if not network.refused:
        result.silent = _silent(network, net)
    steps, batch = network.steps or EXAMPLE[0], EXAMPLE[1]
    inputs = network.inputs(steps, batch)
    said = {"axes": network.axes} if network.says_axes else {}
    start = time.perf_counter()
    before = _tensors_of(net)
    model = so.export(net, inputs, **said)
    result.seconds = time.perf_counter() - start
    changed = _changed(before, _tensors_of(net))
    top, within = _nodes(model.graph)
    result.nodes = (top, within + sum(sum(_nodes(f)) for f in model.functions))
    result.neurons = _neurons(model.graph)
    result.batch, result.steps = _open_sizes(model, network)
    problem = changed or _compare(network, net, model, result)
    fixed = result.steps if isinstance(result.steps, int) else None
    if not problem and bits:

        def compare(quantised: nn.Module, small: onnx.ModelProto, distance: Distance) -> str:
            return _compare(network, quantised, small, Measured("", "", distance=distance))

        result.integers = integers(network, net, model, fixed, compare)
        if result.integers.problem:
            problem = f"8 bits: {result.integers.problem}"
    if not problem and whole:
        result.streamed = streamed(network, net, fixed)
        problem = result.streamed if result.streamed.startswith("WRONG") else ""
        result.times = times(network, net, model, fixed)
    result.verdict, result.sentence = ("WRONG", problem) if problem else ("right", "")
    if verify:
        result.verified = _verified(copied(network, net), model, inputs)
        if result.verdict == "right" and result.verified not in ("equal", ""):
            result.verdict, result.sentence = "WRONG", f"verify: {result.verified}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what frameworks print, warn and log out of the table."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


# -- the caller's module ---------------------------------------------------------------------------


def _tensors_of(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every tensor that a module or its parts hold, by path."""
    return {
        f"{path}.{name}": value.detach().clone()
        for path, module in net.named_modules()
        for name, value in {**module._parameters, **module._buffers, **vars(module)}.items()
        if isinstance(value, Tensor)
    }


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> str:
    """Return which tensor of the caller's module an export has changed, or ""."""
    for name in before.keys() | after.keys():
        one, other = before.get(name), after.get(name)
        if one is None or other is None or type(one) is not type(other):
            return f"the export has left {name} a {type(other).__name__} in the caller's module"
        if one.shape != other.shape or not torch.equal(one, other):
            return f"the export has changed {name} in the caller's module"
    return ""


# -- the file --------------------------------------------------------------------------------------


def _nodes(graph: Any) -> tuple[int, int]:
    """Return the number of nodes of a graph, and of the graphs within them."""
    within = 0
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                within += sum(_nodes(attribute.g))
    return len(graph.node), within


def _neurons(graph: onnx.GraphProto) -> str:
    """Return the nodes of layers and the loops of a graph, with their numbers."""
    own = (n for n in graph.node if n.domain or n.op_type in ("Scan", "Loop"))
    kinds = Counter(n.op_type for n in own if not is_in_tiles(n))
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items())


def _open_sizes(model: onnx.ModelProto, network: Network) -> tuple[Any, Any]:
    """Return the sizes of batch and time of the first input that has them."""
    batch = steps = None
    for value in model.graph.input:
        dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        batch_axis, time_axis = axes_of(network.axes, len(dims))
        batch = batch or dims[batch_axis]
        if time_axis is not None:
            steps = steps or dims[time_axis]
    return batch, steps


# -- numbers ---------------------------------------------------------------------------------------


def _compare(network: Network, net: nn.Module, model: onnx.ModelProto, result: Measured) -> str:
    """Compare all sizes; return what is wrong, or ""."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_inputs()]
    problem = ""
    for steps, batch in _sizes(network):
        inputs = network.inputs(steps, batch)
        try:
            expected = outputs_of(copied(network, net), inputs, network.axes)
        except Exception:  # the network itself takes no sequence that short
            continue
        try:
            feeds = dict(zip(names, (x.numpy() for x in tensors_of(inputs)), strict=True))
            found = session.run(None, feeds)
        except Exception as error:
            problem = problem or f"T = {steps}, N = {batch}: {' '.join(str(error).split())}"
            continue
        result.sizes.append((steps, batch))
        before = replace(result.distance)
        if len(expected) != len(found):
            problem = problem or f"{len(found)} outputs instead of {len(expected)}"
            continue
        added = 0.0 if network.taken_off is None else float(expected[network.taken_off].max())
        said = result.distance.add_all(expected, found, added)
        if not said and result.distance.is_wrong and not problem:
            result.distance = before
            masks, samples = undecided(network, net, inputs, expected, found)
            result.rounded += samples
            found = [np.where(m, a, b) for m, a, b in zip(masks, expected, found, strict=True)]
            result.distance.add_all(expected, found, added)
        if said:
            problem = problem or f"T = {steps}, N = {batch}, {said}"
    if result.distance.is_wrong:
        problem = problem or str(result.distance)
    return problem or ("" if result.sizes else "nothing was compared")


def _sizes(network: Network) -> Sequence[tuple[int, int]]:
    if network.steps is None:
        return SIZES
    return [(network.steps, batch) for _, batch in SIZES]


def _verified(net: nn.Module, model: onnx.ModelProto, inputs: Sequence[Any]) -> str:
    """Return what so.verify says: "equal", or what is wrong."""
    try:
        report = so.verify(net, model, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if report.ok:
        return "equal"
    return " ".join([report.outcome, *report.problems])


# -- whether everything spikes ---------------------------------------------------------------------


def _silent(network: Network, net: nn.Module) -> list[str]:
    """Return the paths of modules that give zeros alone, which a comparison would not test."""
    watched = copied(network, net)
    active: dict[str, bool] = {}

    def watch(path: str) -> Any:
        def hook(module: Any, _: Any, outputs: Any) -> None:
            tensors = tensors_of(outputs)
            if tensors:
                active[path] = active.get(path, False) or bool((tensors[0] != 0).any())

        return hook

    for path, module in watched.named_modules():
        if path:
            module.register_forward_hook(watch(path))
    steps, batch = max(_sizes(network))
    watched(*network.inputs(steps, batch))
    return [path for path, any_ in active.items() if not any_]
