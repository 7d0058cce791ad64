"""Which inputs, spiking layers and outputs the samples exercise, over all runs of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from synapse_onnx.model.layout import has_time
from synapse_onnx.report.coverage import Coverage
from synapse_onnx.verification.trace import Call

__all__ = ["Exercise"]


class Exercise:
    """Collects which values were ever different from zero, in torch."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def see_inputs(self, names: Iterable[str], tensors: Sequence[Tensor]) -> None:
        """Take note of the inputs of a run."""
        for name, tensor in zip(names, tensors, strict=False):
            self._see(name, "input", [tensor], spiking=False)

    def see_layers(self, calls: Iterable[Call], kinds: Mapping[str, str]) -> None:
        """Take note of the spikes of a run; ``kinds`` are those of its layers, by path."""
        for call in calls:
            if call.layer.spiking and call.path in kinds:
                self._see(call.path, kinds[call.path], call.outputs, spiking=True)

    def see_output(self, name: str, tensor: Tensor) -> None:
        """Take note of an output of a run."""
        self._see(name, "output", [tensor], spiking=False)

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
