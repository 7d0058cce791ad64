"""Which inputs, spiking layers and outputs the samples exercise, over all runs of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from synapse_onnx.model.branches import Branch, branches_of, is_told, names_of_taken
from synapse_onnx.model.layout import has_time
from synapse_onnx.report.coverage import BranchCoverage, Coverage, StateRange
from synapse_onnx.verification.trace import Call

__all__ = ["Exercise"]


class Exercise:
    """Collects which values were ever different from zero, in torch."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}
        #: (layer, state) -> its largest magnitude, and its bound
        self._largest: dict[tuple[str, str], tuple[float, float]] = {}
        #: branches that were taken -> whether by an input of the user's
        self._taken: dict[Branch, bool] = {}

    def see_inputs(self, names: Iterable[str], tensors: Sequence[Tensor]) -> None:
        """Take note of the inputs of a run."""
        for name, tensor in zip(names, tensors, strict=False):
            self._see(name, "input", [tensor], spiking=False)

    def see_layers(self, calls: Iterable[Call], kinds: Mapping[str, str]) -> None:
        """Take note of the spikes of a run; ``kinds`` are those of its layers, by path."""
        for call in calls:
            if call.layer.spiking and call.path in kinds:
                self._see(call.path, kinds[call.path], call.outputs, spiking=True)

    def see_loop(self, name: str, spikes: Tensor) -> None:
        """Take note of the spikes of a loop of the user's."""
        self._see(name, "loop", [spikes], spiking=True)

    def see_output(self, name: str, tensor: Tensor) -> None:
        """Take note of an output of a run."""
        self._see(name, "output", [tensor], spiking=False)

    def see_states(self, layer: str, variables: Mapping[str, Tensor], bound: float) -> None:
        """Take note of the variables of a neuron's equation over time, and of their bound."""
        for name, values in variables.items():
            known = self._largest.get((layer, name), (0.0, bound))[0]
            self._largest[layer, name] = max(known, float(values.abs().max())), bound

    def states(self) -> tuple[StateRange, ...]:
        """Return how large states became."""
        return tuple(StateRange(*names, *sizes) for names, sizes in self._largest.items())

    def see_branches(
        self, model: onnx.ModelProto, results: Mapping[str, NDArray[Any]], *, probed: bool
    ) -> None:
        """Take note of the branches that function bodies took, where the results tell of them.

        Args:
            model: the model.
            results: what a copy returned that tells of branches, by name.
            probed: whether the inputs were generated, or those of the user.
        """
        told = {name: int(value) for name, value in results.items() if is_told(name)}
        for branches in names_of_taken(model, told).values():
            for branch in branches:
                self._taken[branch] = self._taken.get(branch, False) or not probed

    def branches(self, model: onnx.ModelProto) -> tuple[BranchCoverage, ...]:
        """Return which branches of the model's function bodies were taken, and by which inputs."""
        return tuple(
            BranchCoverage(
                branch.op, branch.name, branch in self._taken, self._taken.get(branch, False)
            )
            for function in model.functions
            for branch in branches_of(function)
            if not branch.name.endswith("as_before")  # which does nothing
        )

    def coverage(self) -> tuple[Coverage, ...]:
        """Return what was reached of each of them, in the order in which they were met."""
        return tuple(
            Coverage(name, kind, len(seen.ever), int(seen.ever.sum()), seen.always)
            for (name, kind), seen in self._seen.items()
        )

    def _see(self, name: str, kind: str, tensors: Sequence[Tensor], *, spiking: bool) -> None:
        active = torch.stack([tensor != 0 for tensor in tensors]).any(0)
        ever = _neurons(active)
        known = self._seen.get((name, kind))
        if known is None or len(known.ever) != len(ever):  # of another size in each run
            known = self._seen[name, kind] = _Seen(torch.zeros_like(ever), always=spiking)
        known.ever |= ever
        known.always &= bool(active.all())


class _Seen:
    def __init__(self, ever: Tensor, *, always: bool) -> None:
        self.ever, self.always = ever, always


def _neurons(active: Tensor) -> Tensor:
    """Return for every neuron of (N, C[, H, W][, T]) whether it was active, bool, one axis."""
    if has_time(active.dim()):
        active = active.any(-1)
    if active.dim() > 1:
        active = active.any(0)
    return active.reshape(-1)
