"""The proof: torch against ONNX Runtime, output by output and layer by layer.

Two standards, chosen for each value by what the graph allows:

- **exact**: every operator before it is exact (integers, fixed point, one rounding an element)
  and every quantised sum stays below 2**24, shown from the weights and from the inputs of this
  run. Any difference is a failure.
- **close**: sums of floats, in no fixed order. Currents may differ by ``rtol`` times the largest
  sum of magnitudes, ``max(sum |w| |x|)``, which is what rounding is relative to; what no synapse
  has summed, by ``rtol * max|reference|``.
  A difference of one rounding can flip a spike, and from there on the two trajectories are not
  comparable; so every layer is also run in torch on the input that it had in ONNX Runtime. There
  a fixed-point neuron must give the same spikes, and a synapse must be close, at all times; a
  float neuron may differ from where its membrane is within ``rtol`` of the threshold. A neuron
  that feeds back sums of floats is fed the spikes that it had in ONNX Runtime, too, for what feeds
  back may let a rounding grow without end.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import synapse_onnx.neuron  # noqa: F401 - its ops are in the registry then
from synapse_onnx import page
from synapse_onnx._version import __version__
from synapse_onnx.arguments import Arguments
from synapse_onnx.errors import InputError, ModelError
from synapse_onnx.exactness import FLOAT32_EXACT, exact_values, has_exact_sums
from synapse_onnx.freezer import deployables, freeze
from synapse_onnx.graph import needed_for, with_outputs
from synapse_onnx.layout import axes_of, has_time, time_first, time_last
from synapse_onnx.limits import read_file
from synapse_onnx.metadata import Metadata, layer_of
from synapse_onnx.module import Deployable, named_states
from synapse_onnx.ops import DOMAIN, get_op
from synapse_onnx.runtime import Session, load_model

__all__ = ["Divergence", "Membrane", "Report", "Row", "verify"]

#: default tolerance of float values, relative to the largest reference value
RTOL = 1e-5

#: steps before and behind the first divergence of which a report shows the membrane
_AROUND = 40

Array = NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """The first place at which torch and ONNX Runtime differ by more than is allowed.

    Attributes:
        layer: path of the layer, or name of the output.
        sample: index in the batch.
        neuron: index of the neuron, (channel,) or (channel, row, column).
        t: time step; None where the value has no time axis.
        margin: how far the membrane was above the threshold in torch, in units of the
            threshold; None for currents.
        expected: torch's value.
        found: ONNX Runtime's value.
    """

    layer: str
    sample: int
    neuron: tuple[int, ...]
    t: int | None
    margin: float | None
    expected: float
    found: float

    @property
    def place(self) -> str:
        """Sample, neuron and time, in words."""
        when = "" if self.t is None else f", t={self.t}"
        return f"sample {self.sample}, neuron {self.neuron}{when}"

    def __str__(self) -> str:
        near = "" if self.margin is None else f", membrane {self.margin:+.3g} from the threshold"
        values = f"torch {self.expected:g}, ONNX Runtime {self.found:g}"
        return f"{self.layer}: {self.place}: {values}{near}"


@dataclass(frozen=True)
class Membrane:
    """The membrane of one neuron around its first divergence, in units of its threshold.

    Both curves are torch's: where they coincide and the spikes differ, the neuron is at fault, and
    where they part, what came before it is.

    Attributes:
        start: time step of the first value.
        on_torch: distance above the threshold, on the currents that it has in torch.
        on_runtime: the same on the currents that it had in ONNX Runtime.
    """

    start: int
    on_torch: tuple[float, ...]
    on_runtime: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """Comparison of one layer or output.

    Attributes:
        name: path of the layer, or name of the output.
        kind: "output", or class of the layer.
        exact: whether equality was demanded.
        ok: whether the demand was met.
        max_abs_diff: largest difference; inf where one side is NaN and the other is not.
        tolerance: largest difference allowed.
        spike_flips: values that differ, of a layer or output that spikes; None for currents.
        values: number of values compared.
        spikes: values that are not zero, in torch and in ONNX Runtime; None for currents.
        first: the first place that differs by more than is allowed, or None.
    """

    name: str
    kind: str
    exact: bool
    ok: bool
    max_abs_diff: float
    tolerance: float
    spike_flips: int | None
    values: int
    spikes: tuple[int, int] | None = None
    first: Divergence | None = None

    @property
    def demand(self) -> str:
        """What was demanded, in a word: equality, or the largest difference allowed."""
        return "equal" if self.exact else f"{self.tolerance:.1e}"


@dataclass(frozen=True, repr=False)
class Report:
    """Result of :func:`verify`: a table as text, a page in a notebook and by :meth:`to_html`.

    Attributes:
        ok: whether every comparison met its demand.
        max_abs_diff: largest difference of any output.
        spike_flips: spikes that differ, in all spiking layers; in the outputs where the network
            has no layer of ours.
        first_divergence: the first place that differs, or None.
        outputs: one row an output.
        layers: one row a layer, in the order in which they ran.
        problems: sentences on what is wrong beside values: names, shapes, types.
        shapes: input shapes that were run.
        notes: sentences on how the comparison was made.
        membrane: the membrane around the first divergence, where that is a spike.
        rasters: spikes of every spiking layer and output, a bounded part of one sample.
        facts: the model, its SHA-256, versions, execution providers and native kernels.
        left_out: outputs that were not compared, as the caller chose others.
        layers_left_out: layers that were not compared, for they feed those outputs alone.
    """

    ok: bool
    max_abs_diff: float
    spike_flips: int
    first_divergence: Divergence | None
    outputs: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    notes: tuple[str, ...] = ()
    membrane: Membrane | None = None
    rasters: tuple[page.Raster, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    layers_left_out: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Return "equal", or "equal in part" where outputs were left out, or "NOT equal"."""
        if not self.ok:
            return "NOT equal"
        return "equal in part" if self.left_out else "equal"

    @property
    def not_compared(self) -> str:
        """The outputs and layers that were left out, in words; "" where there are none."""
        parts = (("outputs", self.left_out), ("layers", self.layers_left_out))
        return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)

    @property
    def ran(self) -> str:
        """The input shapes that were run, in words."""
        return "; ".join(" and ".join(map(str, shapes)) for shapes in self.shapes)

    def to_json(self) -> str:
        """Return everything but the rasters as JSON; infinite differences are the text "inf"."""
        document = asdict(replace(self, rasters=()))  # not copied, only to be left out
        del document["rasters"]
        return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """Return one self-contained page: verdict, first divergence, tables, rasters, versions."""
        return page.render(self)

    def _repr_html_(self) -> str:
        return page.render(self, whole=False)

    def __repr__(self) -> str:
        parts = [
            self.verdict,
            f"{len(self.layers)} layers",
            f"max_abs_diff={self.max_abs_diff:g}",
            f"spike_flips={self.spike_flips}",
        ]
        if self.left_out:
            parts.append(f"not compared: {self.not_compared}")
        if self.first_divergence is not None:
            parts.append(f"first divergence at {self.first_divergence}")
        return f"Report({', '.join(parts)})"

    def __str__(self) -> str:
        rows = [*self.layers, *self.outputs]
        width = max([len(row.name) for row in rows] + [5])
        kind = max([len(row.kind) for row in rows] + [4])
        margins = [row.first.margin if row.first else None for row in rows]
        shown = any(margin is not None for margin in margins)  # of the first flip
        lines = [
            f"  {'layer':<{width}}  {'kind':<{kind}}  demand     max|diff|   flips      values"
            + "      margin" * shown
        ]
        for row, margin in zip(rows, margins, strict=True):
            flips = "" if row.spike_flips is None else str(row.spike_flips)
            lines.append(
                f"{'✓' if row.ok else '✗'} {row.name:<{width}}  {row.kind:<{kind}}  "
                f"{row.demand:<9} {row.max_abs_diff:>10.3g}  {flips:>6}  {row.values:>10}"
                + ("" if margin is None else f"  {margin:>+10.3g}")
            )
        lines += [f"✗ {problem}" for problem in self.problems]
        if self.first_divergence is not None:
            lines.append(f"first divergence: {self.first_divergence}")
        lines += [f"note: {note}" for note in self.notes]
        if self.left_out:
            lines.append(f"not compared: {self.not_compared}")
        lines.append(f"{self.verdict} on inputs of shape {self.ran}")
        return "\n".join(lines)


@dataclass
class _Call:
    """One call of one layer in torch."""

    path: str
    number: int
    layer: Deployable
    #: one tensor, or two where the input is complex
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def again(self, *inputs: Tensor) -> Any:
        """The layer's argument: a pair where it is complex."""
        return inputs if len(self.inputs) == 2 else inputs[0]


def verify(
    module: nn.Module,
    model_or_path: onnx.ModelProto | str | os.PathLike[str],
    inputs: Tensor | Sequence[Any],
    *,
    rtol: float = RTOL,
    atol: float = 0.0,
    outputs: Sequence[str] | None = None,
    providers: Sequence[str] | None = None,
    native: bool | None = None,
) -> Report:
    """Compare a torch network with its exported model in ONNX Runtime.

    The network runs in evaluation mode on a copy, unfrozen. Beside the inputs as given, their
    first sample alone, their first step alone and their first 7 steps are run, from one session.

    Args:
        module: the network that was exported.
        model_or_path: the exported model.
        inputs: one tensor (N, C[, H, W], T), or one for every argument of ``forward``; a pair
            (real, imag) for a complex one.
        rtol: tolerance where equality cannot be demanded, relative to the largest value in torch;
            for a sum, to the largest sum of magnitudes, ``max(sum |w| |x|)``.
        atol: absolute tolerance, added to it.
        outputs: names of the model's outputs to compare; all by default. Of others nothing is
            demanded, nor of layers and parameters that serve them alone; the report names them.
        providers: execution providers of ONNX Runtime; the CPU by default.
        native: whether native kernels run the model, as in :class:`Session`.

    Raises:
        InputError: the inputs are no tensors, or hold NaN or infinite values, or a tolerance is
            negative or not finite, or ``outputs`` names no output of the model.
        ModelError: the model cannot be run.
        ShapeError: the inputs do not fit the network.
    """
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise InputError(f"verify: {name} must be a finite number >= 0, got {tolerance}")
    arguments = Arguments.of(module, inputs, "verify")
    tensors = arguments.tensors
    for i, value in enumerate(tensors):
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"verify: input {i} has NaN or infinite values")
    model = (
        model_or_path if isinstance(model_or_path, onnx.ModelProto) else load_model(model_or_path)
    )
    comparison = _Comparison(
        module,
        model,
        arguments,
        rtol=rtol,
        atol=atol,
        outputs=outputs,
        providers=providers,
        native=native,
    )
    variants = _variants(tensors, model, comparison.session)
    for variant in variants:
        comparison.compare(variant)
    return comparison.report(variants, _facts(model_or_path, comparison.session))


def _has_fixed_time(model: onnx.ModelProto, session: Session) -> bool:
    """Whether a graph takes sequences of one length alone."""
    for value in (value for value in model.graph.input if value.name in session.inputs):
        dims = value.type.tensor_type.shape.dim
        _, time = axes_of(session.layout, len(dims))
        if time is not None and dims[time].HasField("dim_value"):
            return True
    return False


def _variants(
    tensors: Sequence[Tensor], model: onnx.ModelProto, session: Session
) -> list[tuple[Tensor, ...]]:
    """Return the inputs as given, and cut to other batch sizes and lengths where those are open."""
    variants = [tuple(tensors)]
    sequences = [has_time(value.dim()) for value in tensors]
    open_batch, open_time = True, any(sequences) and not _has_fixed_time(model, session)
    for value in (value for value in model.graph.input if value.name in session.inputs):
        dims = value.type.tensor_type.shape.dim
        batch, _ = axes_of(session.layout, len(dims))
        open_batch &= bool(dims) and not dims[batch].HasField("dim_value")
    if open_batch and tensors[0].shape[0] > 1:
        variants.append(tuple(value[:1] for value in tensors))
    if open_time:
        steps = min(v.shape[-1] for v, timed in zip(tensors, sequences, strict=True) if timed)
        variants += [
            tuple(
                value[..., :length] if timed else value
                for value, timed in zip(tensors, sequences, strict=True)
            )
            for length in (1, 7)
            if length < steps
        ]
    return variants


@dataclass
class _Alone:
    """What one layer makes in torch of the input that it had in ONNX Runtime."""

    given: tuple[Tensor, ...]
    #: the input, and with it the feedback of the spikes that it gave there
    driven: tuple[Tensor, ...]
    #: None where the input has another size in torch
    outputs: tuple[Tensor, ...] | None = None
    #: last states by name, each with whether its last axis is time
    states: dict[str, tuple[Array, bool]] = field(default_factory=dict)
    #: the largest sum of magnitudes of what is fed back; 0 where that is nothing, or exact
    size: float = 0.0
    #: what roundings of such sums can change of a neuron in fixed point: where they could decide on
    #: a spike, how far heights of graded spikes may be off, and how many units last states
    unsure: tuple[Array, Array, dict[str, Array]] | None = None


class _Same:
    """How long every sample's trajectory has been the same in torch and in ONNX Runtime.

    Steps are the network's; a value of fewer steps holds bins of them (time decimation), of which
    each is the same as long as all of its steps are.
    """

    def __init__(self, samples: int, steps: int) -> None:
        self.steps = steps
        #: per sample, the steps that are the same
        self.until = np.full(samples, steps)

    def within(self, values: Array) -> Array:
        """Where values (N, ...[, T]) must still be the same; without time, all of a sample."""
        until = self.until.reshape(-1, *(1,) * (values.ndim - 1))
        bins = values.shape[-1] if has_time(values.ndim) else 1
        # the longest bins of which there are so many, and the last may be cut short
        width = -(-self.steps // (bins - 1)) - 1 if bins > 1 else self.steps
        ends = np.minimum(np.arange(1, bins + 1) * max(width, 1), self.steps)
        return np.broadcast_to(ends <= until, values.shape)

    def part(self, flipped: Array) -> None:
        """End the trajectories where values (N, ..., T) differ."""
        width = -(-self.steps // flipped.shape[-1])  # the shortest that bins can be
        for sample, *_, t in np.argwhere(flipped):
            self.until[sample] = min(self.until[sample], t * width)


class _Comparison:
    """Everything that one call of verify collects."""

    def __init__(
        self,
        module: nn.Module,
        model: onnx.ModelProto,
        arguments: Arguments,
        *,
        rtol: float,
        atol: float,
        outputs: Sequence[str] | None,
        providers: Sequence[str] | None,
        native: bool | None,
    ) -> None:
        self.module = copy.deepcopy(module).eval().cpu()
        self.arguments = arguments
        self.paths = dict(deployables(self.module))
        frozen = freeze(module).cpu()
        self.facts = {path: layer.describe() for path, layer in deployables(frozen)}
        self.model = model
        self.rtol, self.atol = rtol, atol
        self.nodes = _layer_nodes(model, self.paths)
        self.session = Session(model, providers, native)
        self.chosen = _chosen(self.session.outputs, outputs)
        self.left_out = [name for name in self.session.outputs if name not in self.chosen]
        self.needed = _needed(model, self.chosen)
        self.spared = _needed(model, self.left_out) - self.needed
        self.inner = Session(_with_layer_outputs(model, self.nodes), providers, native)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.rows: dict[str, Row] = {}  # of outputs
        self.layer_rows: dict[str, Row] = {}
        self.divergence: Divergence | None = None
        self.membrane: Membrane | None = None
        self.rasters: dict[str, page.Raster] = {}
        #: of sums of floats in this run, by where torch keeps them: the largest sum of magnitudes
        self.sums: dict[int, float] = {}
        self._names()
        self._parameters(frozen)

    def _parameters(self, frozen: nn.Module) -> None:
        """Compare every parameter that bears the same name on both sides.

        A wrong decay need not show in the spikes of a few samples.
        """
        wanted = frozen.state_dict()
        for tensor in self.model.graph.initializer:
            value = wanted.get(tensor.name)
            if value is None or tensor.name in self.spared:
                continue
            stored, expected = onnx.numpy_helper.to_array(tensor), value.numpy()
            if stored.shape != expected.shape:
                self.problems.append(
                    f"{tensor.name}: of shape {expected.shape} in the module and {stored.shape} "
                    f"in the model"
                )
            elif not np.array_equal(stored, expected):
                count = int((stored != expected).sum())
                self.problems.append(
                    f"{tensor.name}: {count} of {expected.size} values differ between the frozen "
                    f"module and the model"
                )

    def _names(self) -> None:
        """Compare the names of inputs and layers, and take over the notes of the export."""
        with contextlib.suppress(ModelError):  # a model of somebody else's has no metadata
            self.notes += Metadata.read(self.model).notes
        parameters = self.arguments.names(self.module)
        names = self.session.inputs
        if parameters and list(names) != parameters[: len(names)]:
            self.problems.append(
                f"the model's inputs are named {', '.join(names)} and forward() takes "
                f"{', '.join(parameters)}"
            )
        # a module of the user's may call an op by itself
        known = {path for path, _ in self.module.named_modules()}
        foreign = [
            path
            for path in self.nodes
            if path not in known and not self._is_spared(self.nodes[path])
        ]
        if foreign:
            self.problems.append(
                f"the model has layers that the module lacks: {', '.join(foreign)}"
            )

    def _is_spared(self, nodes: Sequence[onnx.NodeProto]) -> bool:
        """Whether nodes serve outputs that are not compared, and no other."""
        given = {name for node in nodes for name in node.output}
        return not given.isdisjoint(self.spared) and given.isdisjoint(self.needed)

    # -- torch -------------------------------------------------------------------------------

    def _torch(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[_Call]]:
        calls: list[_Call] = []
        counts: dict[str, int] = {}

        def record(path: str, layer: Deployable) -> Any:
            def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                counts[path] = counts.get(path, 0) + 1
                outputs = output if isinstance(output, tuple) else (output,)
                given = args[0] if args else next(iter(kwargs.values()))
                inputs = tuple(given) if isinstance(given, tuple | list) else (given,)
                calls.append(_Call(path, counts[path], layer, inputs, outputs))

            return hook

        for layer in self.paths.values():
            layer.reset()
        handles = [
            layer.register_forward_hook(record(path, layer), with_kwargs=True)
            for path, layer in self.paths.items()
        ]
        try:
            with torch.no_grad():
                result = self.module(*self.arguments.grouped(tensors))
        finally:
            for handle in handles:
                handle.remove()
        flat, _ = torch.utils._pytree.tree_flatten(result)
        return [value for value in flat if isinstance(value, Tensor)], calls

    def _sound(self, calls: Sequence[_Call]) -> dict[str, bool]:
        """Say which synapses are exact for the inputs of this run: grid, step and bound."""
        sound: dict[str, bool] = {}
        for call in calls:
            facts = self.facts[call.path]
            if self._is_spared(self.nodes.get(call.path, [])):
                continue
            if not {"quantized", "feedback", "sums"} & set(facts):
                continue
            exact = has_exact_sums(facts)
            summed, bound = _summed(call, facts)
            fine = exact and _units(summed) <= bound
            if exact and not fine:
                self._note(
                    f"{call.path}: its input is too fine or too large for exact float32 sums "
                    f"(bound: {bound} units of the input's grid), so it is compared with a "
                    f"tolerance"
                )
            sound[call.path] = sound.get(call.path, True) and fine
        return sound

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    # -- one shape of the inputs -------------------------------------------------------------

    def compare(self, tensors: Sequence[Tensor]) -> None:
        """Compare every layer in the order in which it ran, then the outputs."""
        expected, calls = self._torch(tensors)
        self.sums.clear()
        exact = exact_values(self.model, self._sound(calls))
        same: _Same | None = None
        inner = self._run(self.inner, tensors) if calls else None
        if inner is not None:
            values = {
                # bytes are what a layer of torch's takes as floats
                name: array.astype(np.float32) if array.dtype == np.uint8 else array
                for name, array in zip(self.inner.outputs, inner, strict=True)
            }
            sequences = [v for call in calls for v in call.inputs if has_time(v.dim())]
            steps = max((v.shape[-1] for v in sequences), default=1)
            same = _Same(calls[0].outputs[0].shape[0], steps)
            totals = Counter(call.path for call in calls)
            for call in calls:
                self._layer(call, totals[call.path], values, exact, same)
        found = self._run(self.session, tensors)
        if found is not None:
            found = [time_last(y, self.session.layout) for y in found]
            self._outputs(expected, found, exact, same)
            if self.session.streaming:
                self._streamed(tensors, found, exact)

    def _run(self, session: Session, tensors: Sequence[Tensor]) -> list[Array] | None:
        if len(session.inputs) != len(tensors):
            self.problems.append(
                f"the model has {len(session.inputs)} inputs and the module was given "
                f"{len(tensors)}"
            )
            return None
        arrays = [time_first(value.detach().cpu().numpy(), session.layout) for value in tensors]
        try:
            result = session.run(*arrays)
        except ValueError as error:  # shapes that the model refuses, or that ORT fails on
            self.problems.append(str(error))
            return None
        return list(result) if isinstance(result, tuple) else [result]

    def _outputs(
        self,
        expected: Sequence[Tensor],
        found: Sequence[Array],
        exact: set[str],
        same: _Same | None,
    ) -> None:
        if len(expected) != len(found):
            self.problems.append(
                f"the module has {len(expected)} outputs and the model {len(found)}"
            )
            return
        for name, tensor, array in zip(self.session.outputs, expected, found, strict=True):
            if name not in self.chosen:
                continue
            reference = tensor.numpy()
            if reference.dtype != array.dtype:
                self.problems.append(
                    f"{name}: torch returns {reference.dtype}, the model {array.dtype}"
                )
            if reference.shape != array.shape:
                self.problems.append(
                    f"{name}: torch returns shape {reference.shape}, the model {array.shape}"
                )
                continue
            if np.isnan(reference).any() or np.isnan(array).any():
                self.problems.append(
                    f"{name}: NaN in {int(np.isnan(reference).sum())} values of torch and "
                    f"{int(np.isnan(array).sum())} of the model"
                )
            spiking = self._spikes(name, reference)
            row, where = self._compare(
                name, "output", reference, array, name in exact, spiking, same
            )
            if where is not None and not row.ok:
                row = replace(row, first=self._diverged(name, reference, array, where, None))
            _merge(self.rows, row)

    def _streamed(self, tensors: Sequence[Tensor], whole: Sequence[Array], exact: set[str]) -> None:
        """Run the sequence once more in chunks, and compare with the whole."""
        arrays = [value.detach().cpu().numpy() for value in tensors]
        stream = self.session.stream(arrays[0].shape[0])
        steps = min(a.shape[-1] for a in arrays if has_time(a.ndim))
        # chunks of 1, 2, 3, ... steps: many places at which a state that is lost would show
        lengths = itertools.accumulate(range(1, steps + 1))
        cuts = [0, *itertools.takewhile(lambda cut: cut < steps, lengths), steps]
        if _has_fixed_time(self.model, self.session):  # whose chunks have one length
            cuts = [0, steps]
        parts = []
        for begin, end in itertools.pairwise(cuts):
            chunk = [a[..., begin:end] if has_time(a.ndim) else a for a in arrays]
            parts.append(stream.run(*(time_first(a, self.session.layout) for a in chunk)))
        parts.append(stream.flush())
        several = len(self.session.outputs) > 1
        for i, (name, reference) in enumerate(zip(self.session.outputs, whole, strict=True)):
            if name not in self.chosen:
                continue
            if name not in exact:
                self._note(f"{name}: float sums round otherwise in chunks, which are not compared")
                continue
            mine = [time_last(p[i] if several else p, self.session.layout) for p in parts]
            joined = np.concatenate(mine, axis=-1)
            label = f"{name} (in chunks)"
            if joined.shape != reference.shape:
                self.problems.append(
                    f"{label}: shape {joined.shape}, and {reference.shape} in one piece"
                )
                continue
            spiking = self._spikes(label, reference)
            row, where = self._compare(label, "stream", reference, joined, True, spiking, None)
            if where is not None:
                row = replace(row, first=self._diverged(label, reference, joined, where, None))
            _merge(self.rows, row)

    def _spikes(self, name: str, values: Array) -> bool:
        """Whether an output holds spikes: in every run, for one that is cut short may be silent."""
        known = self.rows.get(name)
        return _is_spiking(values) and (known is None or known.spike_flips is not None)

    # -- layers ------------------------------------------------------------------------------

    def _layer(
        self, call: _Call, calls: int, values: dict[str, Array], exact: set[str], same: _Same
    ) -> None:
        group = self.nodes.get(call.path, [])
        if not group and not any(self.facts[call.path].get("delays", (1,))):
            return  # delays of no steps leave nothing to compute
        if self._is_spared(group):
            return
        if not group or len(group) % calls:
            self.problems.append(
                f"{call.path}: torch calls this layer {calls} times and the model has "
                f"{len(group)} nodes of it"
            )
            return
        length = len(group) // calls
        facts = self.facts[call.path]
        kind = f"complex {facts['kind']}" if facts.get("complex") else str(facts["kind"])
        nodes = group[(call.number - 1) * length : call.number * length]
        if self._is_spared(nodes):
            return
        names = _sequences(nodes[-1])
        alone = self._alone(call, nodes, values, exact.issuperset(names))
        summing: Any = call.layer
        if hasattr(summing, "magnitudes") and not exact.issuperset(names):
            with torch.no_grad():
                magnitudes = summing.magnitudes(*call.inputs)
            for tensor, sums in zip(call.outputs, magnitudes, strict=True):
                self.sums[tensor.data_ptr()] = _largest(sums.numpy())
        if getattr(call.layer, "readout", False):
            # of a filter's variables one is the output
            equation: Any = call.layer.equation
            names = [names[equation.traces.index(equation.readout)]] if len(names) > 1 else names
        for i, tensor in enumerate(call.outputs):
            # a neuron may be several nodes in a row (two integrators and a spike function), of
            # which the last counts; a wide synapse is two nodes whose outputs are added
            value = values[names[i]]
            if facts.get("wide"):
                value = sum((values[_sequences(node)[i]] for node in nodes[:-1]), start=value)
            reference = tensor.numpy()
            label = (call.path or kind) + (f" (call {call.number})" if calls > 1 else "")
            if len(call.outputs) == 2:
                label += (".real", ".imag")[i]
            array = _like(value, reference)
            if array is None:
                self.problems.append(
                    f"{label}: torch returns shape {reference.shape}, the model "
                    f"{value.shape} (time first)"
                )
                continue
            equal = names[i] in exact
            spiking = call.layer.spiking
            parted = np.zeros((), dtype=bool)
            row, where = self._compare(label, kind, reference, array, equal, spiking, same)
            if not equal and alone.outputs is not None:
                row, where, parted = self._judge_alone(
                    row, where, call, alone, alone.outputs[i].numpy(), reference, array, same
                )
            if where is not None:
                first = self._diverged(label, reference, array, where, call, alone.driven)
                row = replace(row, first=first)
            wrong = None
            if alone.outputs is not None:
                wrong = self._wrong_state(label, call, alone, nodes, values, parted)
            if wrong is not None:
                row = replace(row, ok=False, first=row.first or wrong)
            _merge(self.layer_rows, row)

    def _wrong_state(
        self,
        label: str,
        call: _Call,
        alone: _Alone,
        nodes: Sequence[onnx.NodeProto],
        values: dict[str, Array],
        parted: Array,
    ) -> Divergence | None:
        """Compare the last states of a layer; they show what no output of this run has shown.

        A state of floats may be what is left of a difference of values that came by, whose
        rounding it keeps: the largest value that went in or out is a scale as well. A state in
        fixed point is equal but for sums that are not exact, by which it may have moved. Neurons
        that have ``parted`` at a threshold have other states.
        """
        assert alone.outputs is not None
        passed = max(alone.size, *(_largest(v.numpy()) for v in (*alone.given, *alone.outputs)))
        scale = getattr(call.layer, "s_scale", 1)
        moved = {} if alone.unsure is None else alone.unsure[2]
        first = None
        left = dict(alone.states)
        for name, output in ((n, o) for node in nodes for n, o in _last_states(node)):
            # an integrator's node has one state, whatever the neuron calls it: take them in order
            state = output.removeprefix("last_")
            state = state if state in left else next(iter(left))
            expected, timed = left.pop(state)
            found = np.moveaxis(values[name], 0, -1) if timed else values[name]
            if expected.dtype.kind == "f":
                wrong = _difference(expected, found) > self.rtol * max(passed, _largest(expected))
            elif alone.size:
                sums = self.rtol * max(alone.size * scale, _largest(expected))
                wrong = _difference(expected, found) > np.maximum(sums, moved.get(state, 0))
            else:
                wrong = expected != found  # also beyond 2**53
            wrong &= ~(parted[..., np.newaxis] if timed else parted)
            if not wrong.any():
                continue
            # a state has no time axis: the first sample and neuron that are wrong
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            title = output.replace("_", " ")
            diverged = self._diverged(f"{label} ({title})", expected, found, place, None)
            first = first or diverged
        return first

    def _alone(
        self,
        call: _Call,
        nodes: Sequence[onnx.NodeProto],
        values: dict[str, Array],
        exact: bool,
    ) -> _Alone:
        """Run one layer in torch on the input that it had in ONNX Runtime.

        Where it feeds back and its sums are not exact, it is also led by the spikes that it had
        there: roundings would grow from step to step, and one spike is a current of all neurons.
        """
        # a pair enters one node, or two that norm its parts
        entries = [name for node in nodes for name in _currents(node)][: len(call.inputs)]
        arrays = [
            _like(values[name], x.numpy()) for name, x in zip(entries, call.inputs, strict=True)
        ]
        found = [array for array in arrays if array is not None]
        if len(found) < len(arrays):
            return _Alone(call.inputs, call.inputs)
        tensors = tuple(torch.from_numpy(array.copy()) for array in found)
        kept = [(layer, state) for _, layer, state in named_states(call.layer)]
        before = [(layer, layer.persistent_state) for layer, _ in kept]
        call.layer.reset()
        for layer, _ in kept:
            layer.persistent_state = True
        neuron: Any = call.layer
        driven, size, spikes = tensors, 0.0, None
        if "feedback" in self.facts[call.path] and not exact:
            spikes = _like(values[_sequences(nodes[-1])[0]], call.outputs[0].numpy())
        with torch.no_grad():
            if spikes is None:
                result = neuron(call.again(*tensors))
            else:
                driven, size = neuron.driven(call.again(*tensors), torch.from_numpy(spikes.copy()))
                result = neuron.unfed(call.again(*driven))
        states: dict[str, tuple[Array, bool]] = {}
        if spikes is not None:
            states["spikes"] = (spikes[..., -1], False)
        for layer, state in kept:
            value: Tensor = getattr(layer, f"{state}_state")
            if value.dim() > 1:
                states[state] = (value.numpy(), layer.state_depth(state) is not None)
        for layer, persistent in before:
            layer.persistent_state = persistent
        call.layer.reset()
        outputs = result if isinstance(result, tuple) else (result,)
        unsure = None
        if size and self.facts[call.path].get("regime", "float") != "float":
            unsure = _unsure(neuron, call.again(*driven), driven[0].shape[1], size)
        return _Alone(tensors, driven, outputs, states, size, unsure)

    def _judge_alone(
        self,
        row: Row,
        where: tuple[int, ...] | None,
        call: _Call,
        alone: _Alone,
        local: Array,
        reference: Array,
        array: Array,
        same: _Same,
    ) -> tuple[Row, tuple[int, ...] | None, Array]:
        """Judge a layer that is not exact: on its own input, at all times, and on its input.

        Downstream of float sums two trajectories may part at a spike, so that comparing them
        says nothing. A layer is right if its input is torch's within the tolerance until then,
        and if its output is what torch makes of the very same input, for ever, or until a neuron
        is at its threshold, where one rounding decides. The neurons that part there are returned.
        """
        drifted = False
        for tensor, found in zip(call.inputs, alone.given, strict=True):
            wanted = tensor.numpy()
            far = _difference(wanted, found.numpy()) > self._tolerance(wanted)
            drifted |= bool((far & same.within(wanted)).any())
        # equal currents give equal spikes; those that are fed back are summed otherwise
        fed_back = "feedback" in self.facts[call.path]
        allowed = row.tolerance if fed_back or not call.layer.spiking else 0.0
        off = _difference(local, array)
        wrong = off > max(allowed, self.rtol * alone.size)
        if alone.unsure is not None:
            # a graded spike carries a state that may have moved
            both = (local != 0) & (array != 0)
            wrong &= ~both | (off > alone.unsure[1])
        parted = np.zeros((), dtype=bool)
        if call.layer.spiking and wrong.any():
            if alone.unsure is None:
                near = _at_threshold(call, alone.driven, self.rtol, alone.size)
            else:
                near = alone.unsure[0]
            apart = wrong & near
            apart = np.logical_or.accumulate(apart, axis=-1)
            wrong &= ~apart
            parted = apart[..., -1]
        # a state in fixed point moves by a whole step where a rounding of its current decides
        fixed = self.facts[call.path].get("regime", "float") != "float"
        flipped = _difference(reference, array) > (0.0 if fixed else allowed)
        if (call.layer.spiking or fixed) and flipped.any() and not (drifted or wrong.any()):
            what = "spike" if call.layer.spiking else "state"
            same.part(flipped)
            self._note(
                f"{call.path}: {int(flipped.sum())} {what}s differ from torch's because float "
                f"currents were summed in another order; on the currents that it was given every "
                f"neuron is right, and outputs are compared up to the first such {what}"
            )
        place = _first(wrong) if wrong.any() else where
        if drifted and not wrong.any():
            place = _first(flipped & same.within(reference)) or where
        return replace(row, ok=not drifted and not bool(wrong.any())), place, parted

    def _diverged(
        self,
        label: str,
        reference: Array,
        array: Array,
        where: tuple[int, ...],
        call: _Call | None,
        given: Sequence[Tensor] = (),
    ) -> Divergence:
        """Describe the place at which a value diverges; the first of all is the report's."""
        margin = None
        timed = has_time(reference.ndim)
        if call is not None and call.layer.spiking:
            neuron: Any = call.layer
            on_torch = call.inputs
            if "feedback" in self.facts[call.path]:
                with torch.no_grad():
                    on_torch, _ = neuron.driven(call.again(*call.inputs), call.outputs[0])
            margins = _margins(call, on_torch)
            margin = float(margins[where])
            if self.divergence is None and timed:
                start = max(where[-1] - _AROUND, 0)
                line: Any = (*where[:-1], slice(start, where[-1] + _AROUND + 1))
                curves = (margins[line], _margins(call, given)[line])
                self.membrane = Membrane(start, *(tuple(map(float, curve)) for curve in curves))
        found = Divergence(
            layer=label,
            sample=int(where[0]) if where else 0,
            neuron=tuple(int(i) for i in (where[1:-1] if timed else where[1:])),
            t=int(where[-1]) if timed else None,
            margin=margin,
            expected=float(reference[where]),
            found=float(array[where]),
        )
        if self.divergence is None:
            self.divergence = found
        return found

    def _tolerance(self, reference: Array) -> float:
        """Return how far values may be from a reference that is not exact."""
        largest = max(_largest(reference), self.sums.get(reference.ctypes.data, 0.0))
        return self.atol + self.rtol * largest

    def _compare(
        self,
        name: str,
        kind: str,
        reference: Array,
        array: Array,
        exact: bool,
        spiking: bool,
        same: _Same | None,
    ) -> tuple[Row, tuple[int, ...] | None]:
        """Compare two arrays; returns the row and the place of the first difference that counts.

        Of values that are not exact those differ only which the trajectories do not explain.
        """
        difference = _difference(reference, array)
        largest = float(difference.max(initial=0))
        tolerance = 0.0 if exact else self._tolerance(reference)
        wrong = difference > tolerance
        if same is not None and not exact:
            wrong &= same.within(reference)
        flips = int((reference != array).sum()) if spiking else None
        spikes = None
        if spiking:
            spikes = (int(np.count_nonzero(reference)), int(np.count_nonzero(array)))
        first = _first(wrong)
        row = Row(
            name, kind, exact, first is None, largest, tolerance, flips, reference.size, spikes
        )
        # of the first run that shows it: the inputs as given, unless only others differ
        known = self.rasters.get(name)
        wanted = known is None or (first and not known.differs)
        if spiking and has_time(reference.ndim) and wanted:
            self.rasters[name] = page.Raster.of(name, reference, array, first)
        return row, first

    def report(self, variants: Sequence[Sequence[Tensor]], facts: dict[str, str]) -> Report:
        """Put the report together."""
        outputs = tuple(self.rows.values())
        layers = tuple(self.layer_rows.values())
        flips = [row.spike_flips for row in layers if row.spike_flips is not None]
        if not flips:
            flips = [row.spike_flips for row in outputs if row.spike_flips is not None]
        return Report(
            ok=not self.problems and bool(outputs) and all(row.ok for row in (*outputs, *layers)),
            max_abs_diff=max((row.max_abs_diff for row in outputs), default=float("inf")),
            spike_flips=sum(flips),
            first_divergence=self.divergence,
            outputs=outputs,
            layers=layers,
            problems=tuple(dict.fromkeys(self.problems)),
            shapes=tuple(tuple(tuple(v.shape) for v in variant) for variant in variants),
            notes=tuple(self.notes),
            membrane=self.membrane,
            rasters=tuple(self.rasters.values()),
            facts=facts,
            left_out=tuple(self.left_out),
            layers_left_out=tuple(
                path for path in self.paths if self._is_spared(self.nodes.get(path, []))
            ),
        )


def _chosen(names: Sequence[str], outputs: Sequence[str] | None) -> set[str]:
    """Return the outputs to compare."""
    if outputs is None:
        return set(names)
    if isinstance(outputs, str):
        raise InputError(f"verify: outputs must be a list of names, got the text {outputs!r}")
    unknown = [name for name in outputs if name not in names]
    if unknown or not outputs:
        what = f"no output {unknown[0]!r}" if unknown else "no output is named"
        raise InputError(f"verify: {what}; the model's outputs are {', '.join(names)}")
    return set(outputs)


def _needed(model: onnx.ModelProto, outputs: Collection[str]) -> set[str]:
    """Return the names of the values that some outputs need, at this call of a stream or later."""
    states: dict[str, str] = {}
    with contextlib.suppress(ModelError):  # a model of somebody else's has no metadata
        states = {str(s["input"]): str(s["output"]) for s in Metadata.read(model).states}
    return needed_for(model.graph, outputs, states)


def _merge(rows: dict[str, Row], row: Row) -> None:
    """Add a row; where one of this name is there, from inputs of another shape, join the two."""
    a = rows.get(row.name)
    if a is not None:
        flips = [r.spike_flips for r in (a, row) if r.spike_flips is not None]
        spikes = [r.spikes for r in (a, row) if r.spikes is not None]
        row = Row(
            row.name, row.kind, a.exact and row.exact, a.ok and row.ok,
            max(a.max_abs_diff, row.max_abs_diff), max(a.tolerance, row.tolerance),
            sum(flips) if flips else None, a.values + row.values,
            (sum(s[0] for s in spikes), sum(s[1] for s in spikes)) if spikes else None,
            a.first or row.first,
        )  # fmt: skip
    rows[row.name] = row


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _facts(
    model_or_path: onnx.ModelProto | str | os.PathLike[str], session: Session
) -> dict[str, str]:
    """What is compared with what, and by which programs."""
    import onnxruntime

    if isinstance(model_or_path, onnx.ModelProto):
        name, data = "in memory", model_or_path.SerializeToString()
    else:
        name, data = os.path.basename(model_or_path), read_file(model_or_path)
    kernels = ", ".join(session.kernels)
    return {
        "model": name,
        "SHA-256": hashlib.sha256(data).hexdigest(),
        "synapse-onnx": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "ONNX Runtime": onnxruntime.__version__,
        "execution providers": ", ".join(session.session.get_providers()),
        "native kernels": f"{kernels} ({session.instructions})" if kernels else "none",
    }


def _units(x: Tensor) -> float:
    """Return max|x| in units of the coarsest binary grid that holds every value of x."""
    largest = float(x.abs().max())
    if largest == 0:
        return 0.0
    unit = 1.0
    # spikes end this at once; a grid finer than 2**-24 of the largest value never fits anyway
    while not bool((torch.remainder(x / unit, 1) == 0).all()):
        unit /= 2
        if largest / unit > 1 << 24:
            return float("inf")
    return largest / unit


def _is_spiking(values: Array) -> bool:
    return values.dtype.kind == "f" and bool(np.isin(values, (0.0, 1.0)).all())


def _unsure(
    neuron: Any, currents: Any, channels: int, size: float
) -> tuple[Array, Array, dict[str, Array]]:
    """Return what roundings can change of a neuron in fixed point that feeds back, see _Alone."""
    # n terms and their product with the step: n roundings, each a part of their magnitudes
    rounding = (channels + 2) * size / FLOAT32_EXACT
    with torch.no_grad():
        near, height, last = neuron.unsure(currents, rounding)
    neuron.reset()
    return near.numpy(), height.numpy(), {name: off.numpy() for name, off in last.items()}


def _margins(call: _Call, currents: Sequence[Tensor]) -> Array:
    """How far the membrane is above what it must reach, in torch, on these currents."""
    neuron: Any = call.layer
    neuron.reset()
    with torch.no_grad():
        margin: Array = neuron.margin(call.again(*currents)).cpu().numpy()
    neuron.reset()
    return margin


def _at_threshold(call: _Call, currents: Sequence[Tensor], rtol: float, size: float) -> Array:
    """Where a membrane is so near the threshold that one rounding decides on the spike.

    Nowhere in a layer that is no neuron: it compares what it is given. ``size`` is that of the
    sums, where currents were summed in another order.
    """
    neuron: Any = call.layer
    if not hasattr(neuron, "undecided"):
        return np.zeros(currents[0].shape, dtype=bool)
    with torch.no_grad():
        near: Array = neuron.undecided(call.again(*currents), rtol).numpy()
    neuron.reset()
    return near | (np.abs(_margins(call, currents)) <= rtol * size) if size else near


def _summed(call: _Call, facts: dict[str, Any]) -> tuple[Tensor, int]:
    """What a layer sums over, and the largest value of it whose sums are exact, in its units."""
    if "feedback" in facts:
        return call.outputs[0], int(facts["feedback"].get("input_bound", 0))
    if "quantized" in facts:
        return call.inputs[0], int(facts.get("input_bound", 0))
    terms = math.ceil(call.inputs[0].numel() / call.outputs[0].numel())
    return call.inputs[0], (FLOAT32_EXACT - 1) // terms


def _currents(node: onnx.NodeProto) -> list[str]:
    """Names of the values that enter a node as sequences."""
    return [
        name
        for name, kind in zip(node.input, get_op(node.op_type).inputs, strict=False)
        if kind.startswith("x")
    ]


def _like(array: Array, reference: Array) -> Array | None:
    """Bring a time-major array of the graph to torch's layout; None where the sizes differ.

    The node is flat where the layer has axes of size one, or merges channels and rows.
    """
    moved = np.moveaxis(array, 0, -1)
    if moved.size != reference.size or moved.shape[-1] != reference.shape[-1]:
        return None
    return moved.reshape(reference.shape)


def _difference(reference: Array, array: Array) -> Array:
    """Return absolute differences; NaN on both sides is none, on one side an infinite one."""
    same = (reference == array) | (np.isnan(reference) & np.isnan(array))
    with np.errstate(invalid="ignore"):
        found = np.where(same, 0.0, np.abs(reference.astype(np.float64) - array))
    return np.where(np.isnan(found), np.inf, found)


def _largest(array: Array) -> float:
    """Return the largest magnitude among finite values; 0 where there are none."""
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def _first(mask: Array) -> tuple[int, ...] | None:
    """Return the index of the first true value, earliest in time (the last axis) first."""
    if not mask.any():
        return None
    if mask.ndim == 0:
        return ()
    places = np.argwhere(mask)
    order = np.lexsort([*places[:, ::-1].T[1:], places[:, -1]])
    return tuple(int(i) for i in places[order[0]])


def _layer_nodes(
    model: onnx.ModelProto, layers: Collection[str]
) -> dict[str, list[onnx.NodeProto]]:
    """Map the path of each layer to its nodes, in the order of the graph.

    A node of a part of a layer (a neuron's norm, say) is the layer's.
    """
    nodes: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            path = layer_of(node) or ""
            holders = [layer for layer in layers if f"{path}.".startswith(f"{layer}.") or not layer]
            nodes.setdefault(max(holders, key=len, default=path), []).append(node)
    return nodes


def _watched(nodes: dict[str, list[onnx.NodeProto]]) -> Iterator[str]:
    """Names of the values that the comparison needs: what every layer got and what it gave."""
    for node in (node for group in nodes.values() for node in group):
        yield from _currents(node)
        yield from (name for name in node.output if name)


def _sequences(node: onnx.NodeProto) -> list[str]:
    """Names of a node's outputs that are sequences over time, not last states."""
    return [
        name
        for name, output in zip(node.output, get_op(node.op_type).outputs, strict=False)
        if name and not output.startswith("last_")
    ]


def _last_states(node: onnx.NodeProto) -> list[tuple[str, str]]:
    """Values of a node's outputs that are last states, each with the name of the output."""
    return [
        (name, output)
        for name, output in zip(node.output, get_op(node.op_type).outputs, strict=False)
        if name and output.startswith("last_")
    ]


def _with_layer_outputs(
    model: onnx.ModelProto, nodes: dict[str, list[onnx.NodeProto]]
) -> onnx.ModelProto:
    """Return a copy of the model that also returns the sequences and last states of every layer."""
    copied = with_outputs(model, {name: name for name in _watched(nodes)})
    with contextlib.suppress(ModelError):  # a session leaves the states of a stream out
        known = Metadata.read(model)
        shown = tuple({**state, "output": ""} for state in known.states)
        replace(known, states=shown).write(copied)
    return copied
