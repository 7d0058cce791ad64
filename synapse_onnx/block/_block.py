"""What blocks share: their neuron and synapses, the default hook, delays, spike rates."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.errors import InputError, ShapeError

__all__ = ["DEFAULT_HOOK", "Block", "NeuronBlock", "Output"]

#: longest axonal delay of a block, in time steps: Loihi's limit
MAX_DELAY = 62

#: spikes (N, C[, H, W], T); with ``count_log`` also their mean rate
Output = Tensor | tuple[Tensor, Tensor | None]


class _DefaultHook:
    """The default of ``pre_hook_fx``; signatures show it by the name of the neuron's method."""

    def __repr__(self) -> str:
        return "neuron.quantize_8bit"


#: "not given": the weights are quantised to 8 bits on the neuron's scale. None is no hook
DEFAULT_HOOK: Any = _DefaultHook()


class Block(nn.Module):
    """Abstract block.

    ``synapse_onnx.block.base.blocks`` derives the blocks of one kind of neuron: it sets the
    neuron's module, and the synapses that go with it (complex ones for resonators).

    Args:
        count_log: also return the mean spike rate, a scalar tensor; None of a block without spikes.
    """

    neurons: ClassVar[ModuleType]
    synapses: ClassVar[Any]
    #: default of ``delay_shift``: whether a layer sends its spikes one time step later
    shifts: ClassVar[bool] = True

    def __init__(self, count_log: bool = False) -> None:
        super().__init__()
        self.count_log = count_log

    def _neuron(self, params: Mapping[str, Any]) -> Any:
        if not isinstance(params, Mapping):
            raise InputError(
                f"neuron_params must be a mapping of the neuron's arguments, got "
                f"{type(params).__name__}"
            )
        return self.neurons.Neuron(**params)

    def _logged(self, x: Tensor, *, spikes: bool = True) -> Output:
        """Add the mean spike rate where ``count_log`` is on; None for a layer without spikes."""
        if not self.count_log:
            return x
        return x, (x > 0).to(torch.float32).mean() if spikes else None


class NeuronBlock(Block):
    """A block with a neuron, followed by delays: of one time step, and axonal."""

    neuron: Any
    synapse: Any
    mask: Tensor | None
    step: StepDelay | None
    delay: Delay | None

    def _hook(self, synapse: Any, pre_hook_fx: Any, mask: Tensor | None = None) -> None:
        """Set the hook of a synapse, and cut off what a mask leaves out."""
        hook = self.neuron.quantize_8bit if pre_hook_fx is DEFAULT_HOOK else pre_hook_fx
        synapse.pre_hook_fx = hook
        self.register_buffer("mask", None)
        if mask is None:
            return
        shape = tuple((synapse.real if synapse.complex else synapse).weight.shape)
        if not isinstance(mask, Tensor) or tuple(mask.shape[:2]) != shape[:2]:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ShapeError(
                f"mask must be a tensor of shape {shape[:2]} (outputs, inputs), got {got}"
            )
        self.mask = mask.reshape(*shape[:2], 1, 1, 1).to(torch.float32)
        synapse.pre_hook_fx = _Masked(self, hook)

    def _delays(self, delay: bool, delay_shift: bool | None) -> None:
        """Make the delays; a delayed neuron that keeps its states has delays that keep theirs."""
        self.delay_shift = self.shifts if delay_shift is None else delay_shift
        persistent = self.neuron is not None and self.neuron.persistent_state
        self.step = StepDelay(persistent) if self.delay_shift else None
        self.delay = Delay(MAX_DELAY, persistent_state=persistent) if delay else None

    def _sent(self, spikes: Tensor) -> Output:
        x = spikes if self.step is None else self.step(spikes)
        return self._logged(x if self.delay is None else self.delay(x))

    @property
    def shape(self) -> torch.Size | None:
        """Shape of the neurons, (C[, H, W]); None before the first input."""
        shape: torch.Size | None = self.neuron.shape
        return shape


class _Masked:
    """A hook that cuts synapses off before it quantises the others."""

    def __init__(self, block: NeuronBlock, hook: Any) -> None:
        self.block, self.hook = block, hook

    def __call__(self, weight: Tensor) -> Tensor:
        mask = self.block.mask
        masked = weight if mask is None else weight * mask
        result: Tensor = masked if self.hook is None else self.hook(masked)
        return result
