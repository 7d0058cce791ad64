"""A synapse and its neuron: the constructor and the forward pass of such blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from synapse_onnx.block._block import NeuronBlock, Output

__all__ = ["SynapticBlock"]


class SynapticBlock(NeuronBlock):
    """A block of synapse, neuron, step delay and axonal delay, in this order."""

    #: name of the synapse in ``synapse_onnx.synapse``
    layer: ClassVar[str]
    #: whether the neuron's norm is left out, because there are no weights to fold it into
    plain: ClassVar[bool] = False

    def _build(
        self,
        neuron_params: Mapping[str, Any],
        arguments: Mapping[str, Any],
        pre_hook_fx: Any,
        delay: bool = False,
        delay_shift: bool | None = None,
        mask: Tensor | None = None,
    ) -> None:
        changes = {"norm": None} if self.plain and "norm" in neuron_params else {}
        neuron = self._neuron(neuron_params, **changes)
        self.synapse = getattr(self.synapses, self.layer)(**arguments)
        self.neuron = neuron  # after the synapse: layers are listed in this order
        self._hook(self.synapse, pre_hook_fx, mask)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._sent(self.neuron(self.synapse(x)))
