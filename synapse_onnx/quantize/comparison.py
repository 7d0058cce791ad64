"""A network before and after quantisation: flips and rates of its neurons, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.compiler.arguments import Arguments
from synapse_onnx.compiler.axes import find_axes
from synapse_onnx.compiler.copies import copied_value
from synapse_onnx.compiler.freezer import copied
from synapse_onnx.errors import InputError
from synapse_onnx.model.layout import LAYOUTS, axes_of
from synapse_onnx.quantize._spikes import are_spikes, recorded, spiking
from synapse_onnx.quantize.network import batches_of, run, run_on, summary_of
from synapse_onnx.quantize.summary import table

__all__ = ["Comparison", "SpikeRow", "compare"]


@dataclass(frozen=True)
class SpikeRow:
    """Spikes of one neuron layer, or of the output, in both networks.

    Attributes:
        path: path of the layer; "output" for the network's own output.
        flips: values that differ.
        values: number of values.
        before: mean value in the network with float weights.
        after: mean value in the quantised one.
    """

    path: str
    flips: int
    values: int
    before: float
    after: float

    @property
    def share(self) -> float:
        """Flips as a part of all values."""
        return self.flips / self.values if self.values else 0.0

    @property
    def change(self) -> float:
        """Change of the rate, relative to the rate before; 0 of a layer that was always silent."""
        if self.before == self.after:
            return 0.0
        return (self.after - self.before) / self.before if self.before else float("inf")


@dataclass(frozen=True)
class Comparison:
    """What quantisation changes; ``str`` prints it as a table.

    Attributes:
        layers: a row of every neuron layer, in the order of the network.
        output: the row of the output; None where it is no spikes.
        distance: largest change of an output, relative to the largest value.
        same_class: part of the samples whose class stays; None where no class was asked for.
        accuracy: of the network with float weights, and of the quantised one; None without labels.
        budget: what was given.
        alone: path of each quantised layer -> the measure of the budget where this layer alone is
            left in floats; empty without a budget.
        keep: layers to leave in floats so that the budget holds: an argument of ``apply``.
        reached: the measure with these in floats; None without a budget.
    """

    layers: tuple[SpikeRow, ...]
    output: SpikeRow | None
    distance: float
    same_class: float | None = None
    accuracy: tuple[float, float] | None = None
    budget: float | None = None
    alone: tuple[tuple[str, float], ...] = ()
    keep: tuple[str, ...] = ()
    reached: float | None = None

    def __str__(self) -> str:
        rows = [("neurons", "flips", "of values", "share", "rate", "quantised", "change", "")]
        for row in (*self.layers, *([self.output] if self.output else [])):
            change = f"{row.change:+.1%}" if row.change != float("inf") else "from 0"
            rows.append(
                (row.path, str(row.flips), str(row.values), f"{row.share:.2%}",
                 f"{row.before:.4g}", f"{row.after:.4g}", change, "")
            )  # fmt: skip
        lines = table(rows)
        if self.output is None:
            lines.append(f"the output changes by up to {self.distance:.2g} of its largest value")
        if self.same_class is not None:
            lines.append(f"the class stays in {self.same_class:.2%} of the samples")
        if self.accuracy is not None:
            before, after = self.accuracy
            lines.append(f"accuracy: float {before:.2%}, quantised {after:.2%}")
        if self.budget is not None:
            what = "classes that change" if self.output is None else "flips of the output"
            lines += [f"with {path} in floats: {share:.2%} {what}" for path, share in self.alone]
            layers = ", ".join(self.keep) or "no layer"
            lines.append(
                f"to stay within {self.budget:.2%} {what}, leave in floats: {layers} "
                f"({self.reached:.2%})"
            )
        return "\n".join(lines)


def compare(
    float_network: nn.Module,
    quantised: nn.Module,
    inputs: Any,
    labels: Any = None,
    *,
    budget: float | None = None,
    axes: str | None = None,
) -> Comparison:
    """Run a network before and after quantisation on the same inputs, and compare them.

    Neurons are the modules whose output is spikes, whatever their framework. Both networks run in
    torch, on copies, from fresh states.

    Args:
        float_network: the network that was given to ``apply``.
        quantised: what ``apply`` returned, or another network with the same neurons.
        inputs: a batch, or an iterable of batches; a batch is a tensor, or a tuple of all
            arguments.
        labels: the class of every sample, of all batches one after the other. The class that a
            network gives is that with the most spikes, or the largest sum over time.
        budget: how many of the output's spikes may flip, as a part of all its values, 0 to 1; of an
            output that is no spikes, how many classes may change. The result says which layers
            to leave in floats: those that help most by themselves are taken first, until it holds.
            ``quantised`` must be what ``apply`` returned.
        axes: axes of the outputs, "NCT", "TNC" or "NTC", by which classes are found; by default
            those that ``export`` would find.

    Raises:
        InputError: an argument is not as described, or the networks do not run on the inputs.
    """
    before, after = copied(float_network), copied(quantised)
    batches = batches_of(inputs, "compare", "inputs")
    if budget is not None and not 0 <= budget <= 1:
        raise InputError(f"compare: budget must be a part of 1, 0 to 1, got {budget!r}")
    if axes is not None and axes not in LAYOUTS:
        raise InputError(f"compare: axes must be one of {', '.join(LAYOUTS)}, got {axes!r}")
    for network in (before, after):
        run_on(network, batches, network, "compare", "inputs")
    layers, output, distance, reference = _spikes_of(before, after, batches)
    same = accuracy = None
    if labels is not None or (budget is not None and output is None):
        axes = axes or find_axes(copied(float_network), Arguments.of(before, batches[0], "compare"))
        one = torch.cat([_classes(y, axes) for y in reference])
        other = torch.cat([_classes(run(after, batch)[0], axes) for batch in batches])
        same = float((one == other).double().mean())
        if labels is not None:
            right = _labels(labels, len(one))
            accuracy = (
                float((one == right).double().mean()),
                float((other == right).double().mean()),
            )
    result = Comparison(layers, output, distance, same, accuracy)
    if budget is None:
        return result

    def measure(network: nn.Module) -> float:
        """Return the part of spikes, or of classes, that differ from the float network's."""
        different = total = 0
        for batch, expected in zip(batches, reference, strict=True):
            pair = [expected, run(network, batch)[0]]
            if output is None:
                pair = [_classes(y, axes or LAYOUTS[0]) for y in pair]
            different += int((pair[0] != pair[1]).sum())
            total += pair[0].numel()
        return different / total

    alone, keep, reached = _leave(before, quantised, measure, budget)
    return replace(result, budget=budget, alone=alone, keep=keep, reached=reached)


def _spikes_of(
    before: nn.Module, after: nn.Module, batches: Sequence[tuple[Any, ...]]
) -> tuple[tuple[SpikeRow, ...], SpikeRow | None, float, list[Tensor]]:
    """Return the rows of neurons and of the output, its distance, and the outputs in floats.

    Raises:
        InputError: the networks have other neurons, or outputs of other shapes.
    """
    paths = spiking(before, batches[0])
    known = dict(nn.Module.named_modules(after))
    for path in paths:
        if path not in known:
            raise InputError(f"compare: the quantised network has no {path}, as the other has")
    counts = {path: _Count(path) for path in paths}
    total, reference, spikes = _Count("the output"), [], True
    far = most = 0.0
    for batch in batches:
        values, outputs = recorded(before, batch, paths)
        others, changed = recorded(after, batch, paths)
        for path, count in counts.items():
            count.add(values[path], others[path])
        if not outputs or not changed:
            raise InputError("compare: the network returns no tensor")
        y, z = outputs[0], changed[0]
        total.add([y], [z])
        spikes &= are_spikes([y, z])
        far = max(far, float((z.double() - y.double()).abs().max()))
        most = max(most, float(y.double().abs().max()))
        reference.append(y)
    rows = tuple(count.row(path) for path, count in counts.items())
    return rows, total.row("output") if spikes else None, far / (most or 1.0), reference


class _Count:
    """Counts of the values of one layer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.flips = self.values = 0
        self.before = self.after = 0.0

    def add(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        if [x.shape for x in before] != [x.shape for x in after]:
            raise InputError(
                f"compare: {self.name} has another number of calls, or other shapes, in the "
                f"quantised network; it is not made from the other one"
            )
        for one, other in zip(before, after, strict=True):
            self.flips += int((one != other).sum())
            self.values += one.numel()
            self.before += float(one.double().sum())
            self.after += float(other.double().sum())

    def row(self, path: str) -> SpikeRow:
        values = max(1, self.values)
        return SpikeRow(path, self.flips, self.values, self.before / values, self.after / values)


def _classes(y: Tensor, axes: str) -> Tensor:
    """Return the class of each sample: the channel with the largest sum.

    Raises:
        InputError: the output has no axis of classes.
    """
    if y.dim() not in (2, 3, 5):
        raise InputError(
            f"compare: an output of shape {tuple(y.shape)} has no classes; it must be (N, C), or "
            f"(N, C, T) in some order"
        )
    samples, time = axes_of(axes, y.dim())
    if time is not None:
        y = y.double().sum(time, keepdim=True).movedim(time, -1).squeeze(-1)
        samples -= samples > time
    scores = y.double().movedim(samples, 0)  # (N, C) or (N, C, H, W)
    return scores.flatten(2).sum(-1).argmax(1) if scores.dim() > 2 else scores.argmax(1)


def _labels(labels: Any, samples: int) -> Tensor:
    """Return labels as a tensor of so many classes.

    Raises:
        InputError: they are no whole numbers, or of another number.
    """
    try:
        values = torch.as_tensor(labels).flatten().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"compare: labels must be whole numbers ({error})") from error
    if values.is_floating_point() or values.is_complex():
        raise InputError(f"compare: labels must be whole numbers, got {values.dtype}")
    if len(values) != samples:
        raise InputError(f"compare: {len(values)} labels for {samples} samples")
    return values


def _leave(
    before: nn.Module, quantised: nn.Module, measure: Any, budget: float
) -> tuple[tuple[tuple[str, float], ...], tuple[str, ...], float]:
    """Return the measure with each layer alone in floats, the layers to leave, and what they give.

    Raises:
        InputError: ``apply`` did not return the network.
    """
    rows = {row.path: row for row in summary_of(quantised).layers if row.rounded}
    reached = measure(copied(quantised))

    def with_floats(paths: Sequence[str]) -> nn.Module:
        network = copied(quantised)
        for path in paths:
            for part in filter(None, (path, rows[path].norm)):
                parent, _, name = part.rpartition(".")
                whole = copied_value(before.get_submodule(part))
                network.get_submodule(parent)._modules[name] = whole
        return network

    alone = sorted(
        ((path, measure(with_floats([path]))) for path in rows), key=lambda pair: pair[1]
    )
    keep: list[str] = []
    for path, _ in alone:
        if reached <= budget:
            break
        keep.append(path)
        reached = measure(with_floats(keep))
    return tuple(alone), tuple(keep), reached
