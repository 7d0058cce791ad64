"""The metrics of NeuroBench, from a deployed file and an input.

The definitions are those of the package neurobench 2.1.0, read in its source; every field names the
file. NeuroBench measures a live torch network by hooks on its modules. Here they are counted in the
graph that is deployed, of one batch. Where a file cannot know what the package counts, the live
network may be given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray

from synapse_onnx.errors import InputError, ModelError, SynapseError
from synapse_onnx.model.file import load_model
from synapse_onnx.model.graph import dims_of
from synapse_onnx.model.layout import axes_of
from synapse_onnx.model.metadata import Metadata
from synapse_onnx.model.tiles import without_tiles
from synapse_onnx.report._connections import Connection, Product, products_of
from synapse_onnx.report._membranes import Cell, cells_of
from synapse_onnx.report._tapped import Taps

__all__ = ["Activation", "Metrics", "neurobench"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Activation:
    """Output of one layer of neurons, or of a ReLU or Sigmoid.

    Attributes:
        layer: path of the layer, or name of the node.
        op: its op; "network" of spikes that the file does not compute.
        values: number of values that NeuroBench counts.
        nonzero: how many are not zero.
        updates: changes of its voltages; None of a layer that has none or whose voltage the file
            does not show.
    """

    layer: str
    op: str
    values: int
    nonzero: int
    updates: int | None


@dataclass(frozen=True)
class Metrics:
    """NeuroBench's metrics of one batch; None where the file does not tell.

    Attributes:
        samples: size of the batch, by which sums are divided (``data[0].size(0)``).
        file_footprint: bytes of all numbers in the file: weights, biases, parameters, constants.
            NeuroBench has no such figure.
        footprint: bytes of the parameters and buffers of the live network, as it is now
            (``metrics/static/footprint.py``); None without one. A file has other numbers: no
            surrogate gradients, reset mechanisms or membranes, but neurons with all parameters.
        connection_sparsity: fraction of weights that are zero, rounded to four decimals
            (``connection_sparsity.py``). Biases are no connections. Weights that are used twice
            count once. A file without stored weights has none: None.
        activation_sparsity: fraction of zeros in the outputs of all neurons, ReLU and Sigmoid,
            over all steps and samples (``metrics/workload/activation_sparsity.py``).
        dense: synaptic operations a sample, if no value and no weight were zero
            (``synaptic_operations.py``). Biases and norms are no operations, nor are zeros that
            pad an image, unless a layer of its own pads it.
        effective_macs: operations a sample on a non-zero value and a non-zero weight, in calls
            with values other than -1, 0 and 1. A call is one time step of the whole batch: one
            other value makes all operations of the step MACs. The first layer is no exception.
        effective_acs: the same in calls of -1, 0 and 1 alone: additions.
        membrane_updates: changes of voltages a sample (``membrane_updates.py``): all voltages of
            the first step, and those of a later step that differ from the step before. The
            voltage is snnTorch's ``mem``: before the reset of its own step, since snnTorch resets
            in the next one; after it where the threshold is taken off within the step.
        connections: one entry a product with stored weights.
        activations: one entry a layer of neurons, a ReLU or a Sigmoid.
        notes: sentences on what is not counted, or is counted otherwise.
    """

    samples: int
    file_footprint: int
    footprint: int | None
    connection_sparsity: float | None
    activation_sparsity: float | None
    dense: float | None
    effective_macs: float | None
    effective_acs: float | None
    membrane_updates: float | None
    connections: tuple[Connection, ...]
    activations: tuple[Activation, ...]
    notes: tuple[str, ...]

    @property
    def results(self) -> dict[str, Any]:
        """The metrics as NeuroBench's ``Benchmark.run`` returns them, of this one batch.

        It multiplies the activation sparsity by the size of the batch, and divides it by that of
        the data, which may move its last digit.
        """
        sparsity = self.activation_sparsity
        return {
            "Footprint": self.footprint,
            "ConnectionSparsity": self.connection_sparsity,
            "ActivationSparsity": None
            if sparsity is None or not self.samples
            else sparsity * self.samples / self.samples,
            "SynapticOperations": {
                "Effective_MACs": self.effective_macs,
                "Effective_ACs": self.effective_acs,
                "Dense": self.dense,
            },
            "MembraneUpdates": self.membrane_updates,
        }


def neurobench(
    model: onnx.ModelProto | str | os.PathLike[str],
    inputs: ArrayLike | Sequence[ArrayLike],
    network: Any = None,
    native: bool | None = None,
    providers: Sequence[str] | None = None,
) -> Metrics:
    """Return NeuroBench's metrics of a deployed model, on one batch.

    A file does not tell ``F.linear`` from nn.Linear, so it is counted, and by NeuroBench it is not.
    Counts are whole numbers. NeuroBench adds up operations in float32, so its figures are rounded
    where a layer has more than 2^24 operations in a call.

    Args:
        model: a model of :func:`export`, or its file; one for streaming starts from fresh states.
        inputs: the batch, as for :meth:`Session.run`; several inputs as a tuple or list.
        network: the live network, for what the file cannot know: the footprint; spikes of neurons
            of which the network reads the voltage alone; ``F.relu`` or ``torch.sigmoid`` without
            such a module, which NeuroBench does not count; and layers of snnTorch with
            ``init_hidden=True`` and ``output=False``, of which NeuroBench counts the activations
            of the first sample of the batch alone (``hooks/neuron.py`` takes ``output[0]`` of a
            tensor). No code of it is called.
        native: as for :class:`Session`.
        providers: as for :class:`Session`.

    Raises:
        ModelError: the model was not written by synapse-onnx, or ONNX Runtime refuses it.
        InputError: wrong number of inputs, or values that the type cannot hold.
        ShapeError: wrong rank or size.
    """
    proto = without_tiles(load_model(model) if isinstance(model, str | os.PathLike) else model)
    given = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
    sizes = _sizes(proto, Metadata.read(proto).layout, [np.asarray(value) for value in given])
    try:
        products, refused = products_of(proto)
        cells, doubtful = cells_of(proto)
        taps = Taps(proto, sizes)
        places = [place for product in products for place in (*product.inputs, product.weight)]
        places += [place for cell in cells for place in cell.places]
        taps.run(places, given, native, providers)
        return _Counter(proto, sizes, taps, network).metrics(products, refused, cells, doubtful)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, SynapseError):
            raise
        raise ModelError("a layer of the model is not one that synapse-onnx writes") from error


def _sizes(model: onnx.ModelProto, layout: str, arrays: Sequence[Array]) -> tuple[int, int]:
    """Return the time steps and the batch of the inputs."""
    found: dict[str, int] = {}
    for value, array in zip(model.graph.input, arrays, strict=False):
        dims = dims_of(value)
        if len(dims) != array.ndim:
            continue  # the run refuses it
        if array.ndim >= 3:
            batch, time = axes_of(layout, array.ndim)
            steps = 1 if time is None else array.shape[time]
            found = {"T": steps, "N": array.shape[batch]} | found
        found |= {str(dim): size for dim, size in zip(dims, array.shape, strict=True)
                  if dim in ("T", "N")}  # fmt: skip
    if not arrays:
        raise InputError("neurobench: give the inputs of the model")
    return found.get("T", 1), found.get("N", 1)


class _Counter:
    """Counts one run."""

    def __init__(
        self, model: onnx.ModelProto, sizes: tuple[int, int], taps: Taps, network: Any
    ) -> None:
        self._model, self._taps = model, taps
        _, self._samples = sizes
        self._modules: dict[str, Any] = {} if network is None else dict(network.named_modules())
        self._network = network
        self._notes: list[str] = []

    def metrics(
        self,
        products: Sequence[Product],
        refused: Sequence[tuple[str, str]],
        cells: Sequence[Cell],
        doubtful: Sequence[str],
    ) -> Metrics:
        connections = tuple(product.counted(self._taps) for product in products)
        activations = tuple(row for cell in cells for row in self._activation(cell))
        note = self._notes.append
        for row in connections:
            if row.once:
                note(
                    f"{row.layer}: computed once for all time steps, and counted once; a network "
                    f"that calls it at every step has its operations at every step"
                )
        for path, module in self._modules.items():
            fed_back = getattr(module, "recurrent", None)
            if fed_back is not None and getattr(module, "reset_mechanism", "") == "zero":
                note(
                    f"{path}: snnTorch computes its feedback twice a step (reset to zero), and "
                    f"NeuroBench counts both; the file computes it once"
                )
        if refused:
            names = ", ".join(f"{name} ({op})" for name, op in refused)
            note(f"synaptic operations are not known: weights of {names} cannot be counted")
        if doubtful:
            note(f"activations are not known: {', '.join(doubtful)} may hold neurons")
        silent = [
            row.layer
            for row, cell in zip(activations, self._rows(cells), strict=True)
            if row.updates is None and cell.op not in ("Relu", "Sigmoid")
        ]
        if silent:
            note(f"membrane updates are not known: the file shows no voltage of {_all(silent)}")
        used = {product.weight: row for product, row in zip(products, connections, strict=True)}
        weights = sum(row.weights for row in used.values())
        zeros = sum(row.zeros for row in used.values())
        known = not refused
        values = sum(row.values for row in activations)
        nonzero = sum(row.nonzero for row in activations)
        # an empty sum is 0.0, as in NeuroBench
        sparsity = (values - nonzero) / values if values else 0.0
        updates = sum(row.updates or 0 for row in activations)
        return Metrics(
            samples=self._samples,
            file_footprint=_bytes_of(self._model),
            footprint=self._footprint(),
            connection_sparsity=round(zeros / weights, 4) if known and weights else None,
            activation_sparsity=None if doubtful else sparsity,
            dense=self._mean(row.dense for row in connections) if known else None,
            effective_macs=self._mean(row.macs for row in connections) if known else None,
            effective_acs=self._mean(row.acs for row in connections) if known else None,
            membrane_updates=None if doubtful or silent else updates / max(self._samples, 1),
            connections=connections,
            activations=activations,
            notes=tuple(self._notes),
        )

    def _mean(self, counts: Any) -> float:
        return float(sum(counts) / max(self._samples, 1))

    def _footprint(self) -> int | None:
        if self._network is None:
            return None
        stored = [*self._network.parameters(), *self._network.buffers()]
        return sum(int(tensor.numel() * tensor.element_size()) for tensor in stored)

    def _rows(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if cell.spikes is not None or self._is_membrane(cell)]

    def _is_membrane(self, cell: Cell) -> bool:
        """Whether the state of a loop without spikes is a voltage: the live network may say no."""
        module = self._modules.get(cell.name)
        return module is None or hasattr(module, "mem")

    def _is_function(self, cell: Cell) -> bool:
        """Whether a ReLU or Sigmoid is no module: ``F.relu`` of a live network without nn.ReLU."""
        kinds = {kind.__name__.lower() for m in self._modules.values() for kind in type(m).__mro__}
        activation = cell.op in ("Relu", "Sigmoid") and bool(self._modules)
        return activation and cell.op.lower() not in kinds

    def _activation(self, cell: Cell) -> list[Activation]:
        module = self._modules.get(cell.name)
        updates = None
        voltages: Array | None = None
        if cell.has_membrane:
            delayed = getattr(module, "reset_delay", None)
            at_once = None if delayed is None else not delayed
            voltages = cell.voltages(self._taps, self._model, at_once)
        if voltages is not None:
            updates = voltages[:1].size + int(np.count_nonzero(voltages[1:] != voltages[:-1]))
        if self._is_function(cell):
            self._notes.append(
                f"{cell.name}: a function, since the network has no module {cell.op}; NeuroBench "
                f"counts modules alone"
            )
            return [Activation(cell.name, cell.op, 0, 0, updates)]
        if cell.spikes is not None:
            spikes = cell.fired(self._taps)
            op = cell.op
        elif not self._is_membrane(cell):
            return []
        elif voltages is not None and module is not None and hasattr(module, "threshold"):
            # snnTorch fires, too, where the network reads the voltage alone
            spikes = voltages - np.asarray(module.threshold.detach(), np.float32) > 0
            op = "network"
        else:
            self._notes.append(
                f"{cell.name}: a loop of one state without spikes, taken for a membrane; spikes "
                f"that the file does not compute are not counted"
            )
            return [Activation(cell.name, cell.op, 0, 0, updates)]
        if getattr(module, "init_hidden", False) and not getattr(module, "output", False):
            spikes = spikes[:, :1]
            if self._samples > 1:
                self._notes.append(
                    f"{cell.name}: NeuroBench counts the first sample's activations alone, since "
                    f"the layer returns one tensor (init_hidden=True)"
                )
        nonzero = int(np.count_nonzero(spikes))
        return [Activation(cell.name, op, spikes.size, nonzero, updates)]


def _all(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _bytes_of(model: onnx.ModelProto) -> int:
    """Return the bytes of all numbers that a model stores."""
    return sum(
        len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in model.graph.initializer
    )
