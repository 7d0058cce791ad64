"""Neurons of a graph: their spikes and voltages over time, in nodes of ours and in loops.

A node of ours with spikes returns no voltages over time. It takes its states and returns the last
ones, so it is run here alone, step by step. A voltage before the reset of its own step is what the
node gives with a threshold that nothing reaches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from synapse_onnx.model.graph import DOMAIN, ends_of
from synapse_onnx.model.metadata import layer_of
from synapse_onnx.report._connections import fixed_values
from synapse_onnx.report._tapped import Place, Taps, body_of, states_of
from synapse_onnx.runtime.session import Session

__all__ = ["Cell", "cells_of"]

Array = NDArray[Any]

#: a neuron that is a node, of one spike a step: group 1 is its reset
_LIF = re.compile(r"(?:Recurrent)?Lif(|Subtract|Delayed|DelayedZero)(?:Dynamics)?Float")
_COMPARED = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
_NEVER = np.finfo(np.float32).max
#: operators that turn, copy or cast what they read
_SAME = ("Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Cell:
    """A layer of neurons or another activation that is found in a graph.

    Attributes:
        name: path of the layer, or name of the node.
        op: its op.
        spikes: where its output is; None of a loop without spikes.
        above: whether a spike is a value of at least 0 there: the distance from the threshold.
        voltage: where the voltage is that is compared with the threshold; None of a node that is
            run alone, and of an activation without one.
        after: where the voltage is after the reset of its own step; None if the loop does not
            compute it.
        node: the node that is run alone.
    """

    name: str
    op: str
    spikes: Place | None = None
    above: bool = False
    voltage: Place | None = None
    after: Place | None = None
    node: onnx.NodeProto | None = None

    @property
    def places(self) -> list[Place]:
        """What is read of a run."""
        names = [] if self.node is None else [name for name in self.node.input if name]
        known = [p for p in (self.spikes, self.voltage, self.after) if p is not None]
        return [*known, *map(Place, names)]

    @property
    def has_membrane(self) -> bool:
        """Whether its voltage is known."""
        return self.voltage is not None or self.node is not None

    def fired(self, taps: Taps) -> Array:
        """Return its output over time."""
        assert self.spikes is not None
        values = taps.steps(self.spikes).values
        return values >= 0 if self.above else values

    def voltages(self, taps: Taps, model: onnx.ModelProto, at_once: bool | None) -> Array | None:
        """Return its voltages over time; None if they are not known.

        Args:
            taps: the run.
            model: the model.
            at_once: whether they are those after the reset of their own step; by default as the
                file keeps them from step to step, and before a reset to zero of a node.
        """
        if self.node is not None:
            reset = _reset_of(self.node)
            delayed = reset.startswith("Delayed")
            if delayed and at_once:
                return None
            after = reset == "Subtract" if at_once is None else at_once
            return _alone(model, self.node, taps, before=not (after or delayed))
        kept = self.voltage if at_once is False or self.after is None else self.after
        if kept is None or (at_once and self.after is None):
            return None
        return taps.steps(kept).values


def _reset_of(node: onnx.NodeProto) -> str:
    found = _LIF.fullmatch(node.op_type)
    return found[1] if found else ""


def _alone(model: onnx.ModelProto, node: onnx.NodeProto, taps: Taps, *, before: bool) -> Array:
    """Run a neuron step by step, and return its voltages.

    ``before``: those before the reset of their own step.
    """
    functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
    inputs, outputs = ends_of(node, functions)
    names = {own: f"in_{i}" for i, own in enumerate(inputs)}
    results = {own: f"out_{i}" for i, own in enumerate(outputs)}
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    del copied.input[:], copied.output[:]
    copied.input.extend(names.values())
    copied.output.extend(results.values())
    feeds = {own: taps.value(Place(outer)) for own, outer in inputs.items()}
    float_type = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [copied],
        "alone",
        [
            onnx.helper.make_tensor_value_info(
                names[own], float_type, [1, *value.shape[1:]] if own == "x" else value.shape
            )
            for own, value in feeds.items()
        ],
        [onnx.helper.make_tensor_value_info(name, float_type, None) for name in results.values()],
    )
    alone = onnx.helper.make_model(
        graph,
        functions=list(model.functions),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
    )
    session = Session(alone, native=False).session

    def step(given: Mapping[str, Array]) -> dict[str, Array]:
        made = session.run(
            list(results.values()), {names[own]: value for own, value in given.items()}
        )
        return dict(zip(results, made, strict=True))

    never = {"v_threshold": np.full_like(feeds["v_threshold"], _NEVER)}
    voltages = []
    for x in feeds.pop("x"):
        given = {**feeds, "x": x[None]}
        made = step(given)
        voltages.append(step(given | never)["last_voltage"] if before else made["last_voltage"])
        # a neuron with feedback keeps its last spikes, too
        last = made | {"last_spikes": made["s"][-1]} if "spikes" in feeds else made
        states = ("current", "voltage", "spikes")
        feeds |= {own: last[f"last_{own}"] for own in states if own in feeds}
    return np.stack(voltages)


# -- finding them ---------------------------------------------------------------------------------


def cells_of(model: onnx.ModelProto) -> tuple[list[Cell], list[str]]:
    """Return the activations of a model, and the names of nodes that may hold others."""
    functions = {f.name: f for f in model.functions if f.domain == DOMAIN}
    cells: list[Cell] = []
    doubtful: list[str] = []
    graph = _Values(model.graph)
    for node in model.graph.node:
        body = body_of(node)
        if body is not None:
            found, doubt = _in_loop(node, body)
            cells += found
            doubtful += doubt
        elif node.domain == DOMAIN:
            cells += _of_ours(node, *ends_of(node, functions))
        elif node.op_type in ("Relu", "Sigmoid"):
            cells.append(Cell(node.name, node.op_type, Place(node.output[0])))
    for node in model.graph.node:  # of a loop that gives its voltages, spikes may follow behind it
        if node.op_type in _COMPARED and not node.domain and graph.varies(node):
            made = graph.compared(node)
            source = graph.maker(made)
            if source is not None and source.domain == DOMAIN:
                continue  # the voltage of a node of ours, whose spikes are counted there
            at = [
                i
                for i, cell in enumerate(cells)
                if source is not None
                and cell.spikes is None
                and cell.voltage is not None
                and cell.voltage.loop == source.output[0]
            ]
            if len(at) == 1:
                cells[at[0]] = replace(cells[at[0]], spikes=Place(node.output[0]))
            else:
                doubtful.append(node.name)
    return _without_currents(cells, doubtful)


def _without_currents(cells: list[Cell], doubtful: list[str]) -> tuple[list[Cell], list[str]]:
    """Leave out loops without spikes in modules that have a loop with spikes: their currents."""
    fired = {cell.name for cell in cells if cell.spikes is not None}
    silent = [cell.name for cell in cells if cell.spikes is None and cell.name not in fired]
    kept = [c for c in cells if c.spikes is not None or silent.count(c.name) == 1]
    return kept, [*doubtful, *(name for name in dict.fromkeys(silent) if silent.count(name) > 1)]


def _of_ours(
    node: onnx.NodeProto, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> Iterator[Cell]:
    name = (layer_of(node) or node.name).removesuffix(".neuron")
    alone = node if _LIF.fullmatch(node.op_type) and "voltage" in inputs else None
    if "s" in outputs:
        yield Cell(name, node.op_type, Place(outputs["s"]), node=alone)
    elif "above_trace" in outputs:
        yield Cell(name, node.op_type, Place(outputs["above_trace"]), above=True, node=alone)


def _in_loop(node: onnx.NodeProto, body: onnx.GraphProto) -> tuple[list[Cell], list[str]]:
    """Return the neurons and other activations of a loop.

    Spikes are what the loop returns for every step and is a comparison, times a number: what is
    compared is the voltage. Without any comparison a loop of one state is a leaky integrator.
    """
    loop, name = node.output[0], re.sub(r"/Scan(#\d+)?$", "", node.name)
    states, values = states_of(node), _Values(body)
    cells = [
        Cell(inner.name, inner.op_type, Place(inner.output[0], loop))
        for inner in body.node
        if inner.op_type in ("Relu", "Sigmoid")
    ]
    carried = [value.name for value in body.input[:states]]
    kept = [value.name for value in body.output[:states]]
    voltages: dict[str, None] = {}
    for output in body.output[states:]:
        comparison = values.comparison_behind(output.name)
        if comparison is not None:
            voltage = values.compared(comparison)
            if voltage not in voltages:
                voltages[voltage] = None
                spikes = Place(comparison.output[0], loop)
                after = values.after_reset(voltage, comparison, kept, carried)
                where = None if after is None else Place(after, loop)
                cells.append(Cell(name, "Scan", spikes, False, Place(voltage, loop), where))
    compared = [values.compared(inner) for inner in body.node if inner.op_type in _COMPARED]
    others = [value for value in compared if value not in voltages and value not in carried]
    nested = [inner for inner in body.node if inner.op_type in ("If", "Loop", "Scan")]
    nested += [inner for inner in body.node if inner.domain == DOMAIN]
    if others or nested:
        return cells, [node.name]
    if not voltages:  # it gives its voltages, if any; a state that resets itself is the voltage
        at = [i for i, value in enumerate(carried) if value in compared or states == 1]
        if len(at) != 1:
            return cells, [node.name] if states else []
        state = Place(kept[at[0]], loop)
        cells.append(Cell(name, "Scan", None, False, state, None if compared else state))
    return cells, []


class _Values:
    """Who makes which value of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._given = {value.name for value in graph.input}
        self._fixed = fixed_values(graph)
        for node in graph.node:  # what follows from sizes alone
            if node.op_type in ("Shape", "Size") or all(n in self._fixed for n in node.input):
                self._fixed.update(node.output)

    def is_number(self, name: str) -> bool:
        """Whether a value is the same at every step: fixed, or captured from outside of a loop."""
        return name in self._fixed or (name not in self._makers and name not in self._given)

    def varies(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads something that does not follow from numbers and sizes alone."""
        return not all(self.is_number(name) for name in node.input)

    def comparison_behind(self, name: str) -> onnx.NodeProto | None:
        """Return the comparison that a value is, cast and times a number."""
        node = self._makers.get(name)
        while node is not None and node.op_type not in _COMPARED:
            if node.op_type in _SAME:
                name = node.input[0]
            elif node.op_type == "Mul":
                inner = [name for name in node.input if not self.is_number(name)]
                if len(inner) != 1:
                    return None
                (name,) = inner
            else:
                return None
            node = self._makers.get(name)
        return node

    def compared(self, node: onnx.NodeProto) -> str:
        """Return the value that a comparison compares with a number: x of x - 1 > 0."""
        name = next((name for name in node.input if not self.is_number(name)), node.input[0])
        while True:
            maker = self._makers.get(name)
            if maker is None or maker.op_type not in ("Sub", "Identity", "Cast"):
                return str(name)
            if maker.op_type == "Sub" and not self.is_number(maker.input[1]):
                return str(name)
            name = maker.input[0]

    def after_reset(
        self, voltage: str, comparison: onnx.NodeProto, kept: list[str], carried: list[str]
    ) -> str | None:
        """Return the voltage after the reset of its own step, of those that a loop keeps.

        A voltage that is kept as it is compared is reset in the next step, or never.
        """
        if voltage in kept:
            resets = any(
                node.op_type in _COMPARED and self.compared(node) in carried
                for node in self._makers.values()
            )
            return None if resets else voltage
        after = [name for name in kept if self.comparison_behind(name) is not comparison
                 and self._follows(name, comparison)]  # fmt: skip
        return after[0] if len(after) == 1 else None

    def _follows(self, name: str, node: onnx.NodeProto) -> bool:
        """Whether a value follows from what a node makes, within a step."""
        waiting, seen = [name], set[str]()
        while waiting:
            maker = self._makers.get(waiting.pop())
            if maker is node:
                return True
            if maker is not None:
                waiting += [value for value in maker.input if value not in seen]
                seen.update(maker.input)
        return False

    def maker(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a value, behind turns and copies."""
        node = self._makers.get(name)
        while node is not None and node.op_type in _SAME and not node.domain:
            node = self._makers.get(node.input[0])
        return node
