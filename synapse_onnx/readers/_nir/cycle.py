"""A cycle of several nodes: a loop over time in torch code, with late edges.

NIR's edges take no time, and a discrete network needs a time step somewhere in every cycle. The
executors of NIRTorch, by which snnTorch, Norse, sinabs and Rockpool run a graph, take it on the
edge that leads back: they run the nodes from the input on, and an edge from a node that runs later
has the value of the step before (``nirtorch/graph_executor.py``, ``GraphExecutor._apply_module``;
``nirtorch/nir_interpreter.py``, ``_find_input_nodes``). So does a :class:`Cycle`. Which edge leads
back must not depend on the order of the nodes: see :func:`late_edges`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx._layer import LoopsOverTime
from synapse_onnx.readers._fields import Shape
from synapse_onnx.readers._nir.steps import NeuronStep

__all__ = ["Cycle", "late_edges", "members_of"]

Edge = tuple[str, str]


def members_of(name: str, edges: Collection[Edge]) -> set[str]:
    """Return the nodes that a node reaches and that reach it, itself among them."""

    def reached(pairs: Collection[Edge]) -> set[str]:
        found, left = {name}, [name]
        while left:
            last = left.pop()
            new = {target for source, target in pairs if source == last} - found
            found |= new
            left += new
        return found

    return reached(edges) & reached([(target, source) for source, target in edges])


def late_edges(members: Collection[str], edges: Sequence[Edge]) -> set[Edge]:
    """Return the edges of a cycle that lead back to a node which all ways to their source pass.

    Args:
        members: the nodes of the cycle.
        edges: all edges of the graph.
    """
    inside = [edge for edge in edges if set(edge) <= set(members)]
    entries = {target for source, target in edges if target in members and source not in members}
    #: node -> the nodes that every way to it from outside passes
    passed = {name: {name} if name in entries else set(members) for name in members}
    changed = True
    while changed:
        changed = False
        for name in passed.keys() - entries:
            sources = [passed[source] for source, target in inside if target == name]
            now = {name}.union(set.intersection(*sources)) if sources else {name}
            changed |= now != passed[name]
            passed[name] = now
    return {(source, target) for source, target in inside if target in passed[source]}


class Cycle(LoopsOverTime):
    """Nodes that feed each other, time step by time step.

    Args:
        steps: label -> one time step of a node, in the order in which they run.
        sources: label -> what it sums: numbers of arguments of ``forward``, and labels.
        late: pairs (source, target) of labels whose value is that of the step before.
        shapes: label -> shape of the output of a step, (C[, H, W]).
        results: labels of what ``forward`` returns.

    Attributes:
        has_biases: whether a late edge starts from another value than zero: all neurons are silent
            before the first step, and what lies between them and the edge gives its bias.
    """

    def __init__(
        self,
        steps: Mapping[str, Sequence[nn.Module]],
        sources: Mapping[str, Sequence[int | str]],
        late: Collection[Edge],
        shapes: Mapping[str, Shape],
        results: Sequence[str],
    ) -> None:
        super().__init__()
        self.nodes, self.starts = nn.Module(), nn.Module()
        for label, parts in steps.items():
            self.nodes.add_module(label, nn.ModuleList(parts))
        self.labels, self.sources = tuple(steps), {k: tuple(v) for k, v in sources.items()}
        self.late, self.shapes, self.results = set(late), dict(shapes), tuple(results)
        self.delayed = tuple(sorted({source for source, _ in self.late}))
        self.has_biases = self._add_starts()

    def _parts(self, label: str) -> Iterable[nn.Module]:
        parts: nn.ModuleList = getattr(self.nodes, label)
        return parts

    def _add_starts(self) -> bool:
        """Register what late edges give in the first step, where that is not zero."""
        silent = {label: torch.zeros(1, *self.shapes[label]) for label in self.labels}
        with torch.no_grad():
            for label in self.labels:
                x = _sum([silent[name] for name in self.sources[label] if isinstance(name, str)])
                for part in self._parts(label):
                    x = torch.zeros_like(x) if isinstance(part, NeuronStep) else part(x)
                silent[label] = x
        for label in self.delayed:
            start = silent[label]
            if bool(start.any()):
                self.starts.register_buffer(label, start)
        return next(self.starts.buffers(), None) is not None

    def forward(self, *inputs: Tensor) -> Any:
        """Return the results (N, C[, H, W], T) of inputs of that form, one or a tuple."""
        count = inputs[0].shape[0]
        late: dict[str, Tensor] = {}
        for label in self.delayed:
            late[label] = inputs[0].new_zeros(count, *self.shapes[label])
            if label in self.starts._buffers:
                late[label] = late[label] + getattr(self.starts, label)
        states = {
            label: tuple(
                inputs[0].new_zeros(count, *self.shapes[label]) for _ in part.names
            )
            for label in self.labels
            for part in self._parts(label)
            if isinstance(part, NeuronStep)
        }  # fmt: skip
        outputs: list[list[Tensor]] = [[] for _ in self.results]
        for now in zip(*(x.unbind(-1) for x in inputs), strict=True):
            values: dict[str, Tensor] = {}
            for label in self.labels:
                x = _sum(
                    [
                        now[name]
                        if isinstance(name, int)
                        else late[name]
                        if (name, label) in self.late
                        else values[name]
                        for name in self.sources[label]
                    ]
                )
                for part in self._parts(label):
                    if isinstance(part, NeuronStep):
                        x, states[label] = part(x, states[label])
                    else:
                        x = part(x)
                values[label] = x
            late = {label: values[label] for label in self.delayed}
            for steps, label in zip(outputs, self.results, strict=True):
                steps.append(values[label])
        results = tuple(torch.stack(steps, -1) for steps in outputs)
        return results[0] if len(results) == 1 else results


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return sum(terms[1:], start=terms[0])
