"""Blocks: synapse, neuron and delay as one layer, with the arguments of lava-dl's blocks.

A block is an ordinary torch module around layers of this package; each of these is exported and
compared by itself. :func:`blocks` makes the blocks of one kind of neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx import synapse
from synapse_onnx._layer import Deployable
from synapse_onnx.axon import Delay, StepDelay
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops.average import average
from synapse_onnx.ops.normalize import normalize
from synapse_onnx.ops.time_decimation import time_decimation
from synapse_onnx.synapse.layer import Dense as RealDense

__all__ = ["Bias", "Block", "blocks"]

#: longest axonal delay of a block, in steps: what Loihi holds
MAX_DELAY = 62

#: "not given": the synapse is quantised to 8 bits then, and None is no hook
_DEFAULT: Any = object()

Output = Tensor | tuple[Tensor, Tensor | None]


class Block(nn.Module):
    """Abstract block.

    Subclasses are made by :func:`blocks`, which sets the neuron's module and the synapses that go
    with it: complex ones for resonators.
    """

    neurons: ClassVar[ModuleType]
    synapses: ClassVar[Any]
    #: whether a layer sends its spikes one step later unless told otherwise
    shifts: ClassVar[bool] = True

    def __init__(self, count_log: bool = False) -> None:
        super().__init__()
        self.count_log = count_log

    def _neuron(self, params: Mapping[str, Any], **changes: Any) -> Any:
        if not isinstance(params, Mapping):
            raise InputError(
                f"neuron_params must be a mapping of the neuron's arguments, got "
                f"{type(params).__name__}"
            )
        return self.neurons.Neuron(**{**params, **changes})

    def _logged(self, x: Tensor, *, spikes: bool = True) -> Output:
        """Add the mean spike rate where ``count_log`` is on; None for a layer without spikes."""
        if not self.count_log:
            return x
        return x, (x > 0).to(torch.float32).mean() if spikes else None


class _Neural(Block):
    """A block with a neuron, and what may stand behind it: step delay and axonal delay."""

    neuron: Any
    synapse: Any
    mask: Tensor | None
    step: StepDelay | None
    delay: Delay | None

    def _hook(self, synapse: Any, pre_hook_fx: Any, mask: Tensor | None = None) -> None:
        """Set the hook of a synapse, and cut off what a mask leaves out."""
        hook = self.neuron.quantize_8bit if pre_hook_fx is _DEFAULT else pre_hook_fx
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


class _Synaptic(_Neural):
    """A block of synapse, neuron, step delay and axonal delay, in this order."""

    #: name of the synapse in ``synapse_onnx.synapse``
    layer: ClassVar[str]
    #: whether the neuron's norm is left out, for there are no weights to fold it into
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
        self.neuron = neuron  # behind the synapse, for layers are listed in this order
        self._hook(self.synapse, pre_hook_fx, mask)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._sent(self.neuron(self.synapse(x)))


class _Masked:
    """A hook that cuts synapses off before it quantises the others."""

    def __init__(self, block: _Neural, hook: Any) -> None:
        self.block, self.hook = block, hook

    def __call__(self, weight: Tensor) -> Tensor:
        mask = self.block.mask
        masked = weight if mask is None else weight * mask
        result: Tensor = masked if self.hook is None else self.hook(masked)
        return result


class Dense(_Synaptic):
    """Dense synapse and neuron.

    Args:
        neuron_params: arguments of the neuron.
        in_neurons, out_neurons, weight_scale, weight_norm: see
            :class:`synapse_onnx.synapse.Dense`.
        pre_hook_fx: hook on the weights; 8 bits on the neuron's scale unless given.
        delay: learn an axonal delay a neuron, up to 62 steps.
        delay_shift: send spikes one step later, as on Loihi.
        mask: (outputs, inputs), 0 where there is no synapse.
        count_log: also return the mean spike rate.
    """

    layer = "Dense"

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        delay: bool = False,
        delay_shift: bool | None = None,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "in_neurons": in_neurons, "out_neurons": out_neurons,
            "weight_scale": weight_scale, "weight_norm": weight_norm,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift, mask)


class Conv(_Synaptic):
    """Convolution and neuron.

    Args:
        neuron_params: arguments of the neuron.
        in_features, out_features, kernel_size, stride, padding, dilation, groups, weight_scale,
            weight_norm: see :class:`synapse_onnx.synapse.Conv`.
        pre_hook_fx, delay, delay_shift, count_log: see the Dense block.
    """

    layer = "Conv"

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_features: int,
        out_features: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "in_features": in_features, "out_features": out_features, "kernel_size": kernel_size,
            "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
            "weight_scale": weight_scale, "weight_norm": weight_norm,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift)


class ConvT(Conv):
    """Transposed convolution and neuron; the arguments are those of the Conv block."""

    layer = "ConvTranspose"


class Pool(_Synaptic):
    """Sum pooling and neuron; a norm among the neuron's arguments is left out.

    Args:
        neuron_params: arguments of the neuron.
        kernel_size, stride, padding, dilation, weight_scale, weight_norm, merge_channels: see
            :class:`synapse_onnx.synapse.Pool`.
        pre_hook_fx, delay, delay_shift, count_log: see the Dense block.
    """

    layer = "Pool"
    plain = True

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
        merge_channels: bool = False,
    ) -> None:
        super().__init__(count_log)
        arguments = {
            "kernel_size": kernel_size, "stride": stride, "padding": padding,
            "dilation": dilation, "weight_scale": weight_scale, "weight_norm": weight_norm,
            "merge_channels": merge_channels,
        }  # fmt: skip
        self._build(neuron_params, arguments, pre_hook_fx, delay, delay_shift)


class Unpool(Pool):
    """Unpooling and neuron; the arguments are those of the Pool block."""

    layer = "Unpool"


class Input(_Neural):
    """Input of a network: an optional transformation and an optional neuron.

    x is quantised to 8 bits on the neuron's scale, multiplied by ``weight`` and shifted by
    ``bias`` (both learned and quantised likewise), and is the neuron's current then. Without a
    neuron x goes on as it is.

    Args:
        neuron_params: arguments of the neuron, or None.
        weight: factor on the input, or None.
        bias: added to the input, or None.
        delay_shift: send spikes one step later, as on Loihi.
        count_log: also return the mean spike rate.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any] | None = None,
        weight: Any = None,
        bias: Any = None,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.neuron = None if neuron_params is None else self._neuron(neuron_params)
        if self.neuron is not None and hasattr(self.neuron, "as_encoder"):
            self.neuron.as_encoder()
        for name, value in (("weight", weight), ("bias", bias)):
            parameter = None
            if value is not None:
                parameter = nn.Parameter(torch.as_tensor([value], dtype=torch.float32))
            self.register_parameter(name, parameter)
        self.pre_hook_fx = _unhooked if self.neuron is None else self.neuron.quantize_8bit
        self._delays(False, delay_shift)
        self.input_shape: torch.Size | None = None

    def forward(self, x: Any) -> Output:
        """Return the spikes of an input; a pair (real, imag) where the neuron is a resonator."""
        if self.neuron is not None:
            pair = isinstance(x, tuple | list)
            currents = [self._transformed(part) for part in (x if pair else (x,))]
            x = self.neuron(tuple(currents) if pair else currents[0])
        self.input_shape = x.shape[1:-1]
        return self._sent(x)

    def _transformed(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        bias: Any = self.bias
        z = self.pre_hook_fx(x)
        if weight is not None:
            z = z * self.pre_hook_fx(weight)
        return z if bias is None else z + self.pre_hook_fx(bias)

    @property
    def shape(self) -> torch.Size | None:
        """Shape of the input, (C[, H, W]); None before the first one."""
        return self.input_shape


def _unhooked(x: Tensor) -> Tensor:
    return x


class Flatten(Block):
    """Images (N, C, H, W, T) as neurons (N, C * H * W, T)."""

    def __init__(self, count_log: bool = False) -> None:
        super().__init__(count_log)
        self.shape: list[int] | None = None

    def forward(self, x: Tensor) -> Output:
        """Return the input with one axis of neurons."""
        if x.dim() != 5:
            raise ShapeError(f"Flatten: expected (N, C, H, W, T), got shape {tuple(x.shape)}")
        self.shape = [x.shape[1] * x.shape[2] * x.shape[3], 1, 1]
        return self._logged(x.flatten(1, 3), spikes=False)


class _Mean(Deployable):
    """A mean of neurons or time steps."""

    def freeze(self) -> None:
        """There is nothing to store."""

    def describe(self) -> dict[str, Any]:
        """Return the kind; sums over a grid are exact while they are short enough."""
        return {"kind": type(self).__name__.lstrip("_"), "sums": True}


class _Average(_Mean):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, x: Tensor) -> Tensor:
        neurons = x.shape[1:-1].numel()
        if x.dim() not in (3, 5) or neurons % self.num_outputs:
            raise ShapeError(
                f"Average: an input of shape {tuple(x.shape)} has {neurons} neurons, which do not "
                f"make {self.num_outputs} equal groups"
            )
        y: Tensor = average(x, self.num_outputs)
        return y


class Average(Block):
    """Mean over equal groups of neurons.

    Args:
        num_outputs: number of groups.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(self, num_outputs: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if not (isinstance(num_outputs, int) and num_outputs > 0):
            raise InputError(f"num_outputs must be a positive integer, got {num_outputs!r}")
        self.num_outputs = num_outputs
        self.mean = _Average(num_outputs)

    def forward(self, x: Tensor) -> Output:
        """Return the means (N, num_outputs, T)."""
        return self._logged(self.mean(x), spikes=False)

    @property
    def shape(self) -> torch.Size:
        """Shape of the outputs."""
        return torch.Size([self.num_outputs, 1, 1])


class _TimeDecimation(_Mean):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in (3, 5):
            raise ShapeError(
                f"TimeDecimation: expected (N, C, T) or (N, C, H, W, T), got {tuple(x.shape)}"
            )
        y: Tensor = time_decimation(x, self.factor)
        return y

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "factor": self.factor}


class TimeDecimation(Block):
    """Mean over bins of time; the last bin is filled up with zeros.

    A streamed network takes whole bins: ``Session.stream`` collects them and fills up the last.

    Args:
        factor: steps of a bin, a power of two.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(self, factor: int, count_log: bool = False) -> None:
        super().__init__(count_log)
        if int(factor) != factor or factor < 1 or int(factor) & (int(factor) - 1):
            raise InputError(f"factor must be a power of two, got {factor!r}")
        self.factor = int(factor)
        self.mean = _TimeDecimation(self.factor)

    def forward(self, x: Tensor) -> Output:
        """Return (N, C[, H, W], ceil(T / factor))."""
        return self._logged(self.mean(x), spikes=False)


class Affine(_Neural):
    """Dense synapse whose current is the output: a readout without spikes.

    Args:
        neuron_params: arguments of the neuron; its threshold is never reached.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, mask: see the Dense block.
        dynamics: filter the current by the neuron: its voltage is the output, or its imaginary
            part. Else the current itself, or its imaginary part.
        count_log: also return None, in the place of a spike rate.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        dynamics: bool = True,
        mask: Tensor | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.dynamics = dynamics
        neuron = self._neuron(neuron_params)
        neuron.as_readout()
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        if not dynamics:
            neuron.settle()  # it never runs, so that it would never draw its parameters
        self._hook(self.synapse, pre_hook_fx, mask)

    def forward(self, x: Tensor) -> Output:
        """Return the filtered current (N, out_neurons, T)."""
        z = self.synapse(x)
        if self.dynamics:
            z = self.neuron(z)
        elif self.synapse.complex:
            z = z[1]
        return self._logged(z, spikes=False)

    @property
    def shape(self) -> torch.Size:
        """Shape of the outputs."""
        return torch.Size([self.synapse.out_channels])


class _Looped(_Neural):
    """A block whose neurons see their own spikes one step later."""

    #: whether a call starts from the last spikes of the one before, where states persist
    keeps_spikes = True

    def _looped(self, current: Any) -> Output:
        """Run the neurons on the current that comes from outside."""
        if self.neuron.persistent_state and not self.keeps_spikes:
            self.neuron.spikes_state = self.neuron.spikes_state.new_zeros(1)
        return self._sent(self.neuron(current))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Leave out lava-dl's buffer ``spike_state``: it holds the zeros that it starts from."""
        kept = {k: v for k, v in state_dict.items() if k != f"{prefix}spike_state"}
        state_dict.pop(f"{prefix}spike_state", None)
        super()._load_from_state_dict(kept, prefix, *rest)


class Recurrent(_Looped):
    """Dense synapse and neurons that a second Dense synapse connects to themselves.

    current[t] = input_synapse(x[t]) + recurrent_synapse(s[t-1]). The last spikes are a state of
    the neuron, kept from call to call with ``persistent_state``.

    Args:
        neuron_params: arguments of the neuron; a norm is not possible.
        in_neurons, out_neurons, weight_scale, weight_norm, delay, delay_shift, count_log: see the
            Dense block.
        pre_hook_fx: hook on both weights; 8 bits on the neuron's scale unless given.
        requires_grad: learn the weights.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        requires_grad: bool = True,
        delay: bool = False,
        delay_shift: bool | None = None,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        self.num_neurons = out_neurons
        neuron = self._neuron(neuron_params)
        make = self.synapses.Dense
        self.input_synapse = make(in_neurons, out_neurons, weight_scale, weight_norm)
        self.recurrent_synapse = make(out_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        for each in (self.input_synapse, self.recurrent_synapse):
            self._hook(each, pre_hook_fx)
            each.requires_grad_(requires_grad)
        self.neuron.feed_back(self.recurrent_synapse)
        self._delays(delay, delay_shift)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        return self._looped(self.input_synapse(x))


class _Lateral(RealDense):
    """Synapse of neurons among themselves whose weight follows from a parameter of its block."""

    def __init__(self, count: int, given: Callable[[], Tensor]) -> None:
        super().__init__(count, count)
        del self.weight
        self._given: Callable[[], Tensor] | None = given

    def __getattr__(self, name: str) -> Any:
        own = name in self.__dict__["_parameters"] or name in self.__dict__["_buffers"]
        given = self.__dict__.get("_given")
        return given() if name == "weight" and not own and given else super().__getattr__(name)

    def settle(self) -> None:
        """Store the weight that follows from the parameter."""
        if self._given is not None:
            # register_parameter refuses a name that already gives a value
            weight = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
            self._parameters["weight"] = weight
            self._given = None

    def freeze(self) -> None:
        self.settle()
        super().freeze()


class _LateralPair(synapse.complex.Dense):
    """The same for complex currents: what comes back is real, and the imaginary part is zero."""

    def __init__(self, real: _Lateral, imag: _Lateral) -> None:
        Deployable.__init__(self)
        self.real, self.imag = real, imag

    def freeze(self) -> None:
        for part in (self.real, self.imag):
            part.settle()
        super().freeze()


class Bias(Deployable):
    """A constant added to a current.

    Args:
        bias: one for all (1,), or one a channel (C,).
    """

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", -bias, persistent=False)
        self.register_buffer("std", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a current (N, C[, H, W], T) with the bias added."""
        y: Tensor = normalize(x, self.mean, self.std)
        return y

    def freeze(self) -> None:
        """There is nothing to store."""

    def describe(self) -> dict[str, Any]:
        """Return kind and bias."""
        mean: Any = self.mean
        return {"kind": "Bias", "bias": (-mean).tolist()}


class KWTA(_Looped):
    """k winners take all: a neuron excites itself and inhibits the others.

    current[t] = synapse(x[t]) + W s[t-1] + b with W = self_excitation on the diagonal and -1
    elsewhere, and b = threshold (n - 2 k) / n / scale, both quantised to 8 bits.
    Both are added to the real current of a resonator, for which lava-dl's own block fails.
    Source: lava-dl, ``slayer/block/base.py``.

    Args:
        neuron_params: arguments of the neuron; a norm is not possible.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx, delay_shift, count_log:
            see the Dense block.
        num_winners: number k of neurons that may spike together.
        self_excitation: weight of a neuron's own last spike, 0 to 1.
        requires_grad: learn the self-excitation.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: Any,
        out_neurons: int,
        num_winners: int,
        self_excitation: float = 0.5,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        delay_shift: bool | None = None,
        requires_grad: bool = True,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        if not (isinstance(num_winners, int) and 0 < num_winners <= out_neurons):
            raise InputError(f"num_winners must be 1 to {out_neurons}, got {num_winners!r}")
        if not 0 <= self_excitation <= 1:
            raise InputError(f"self_excitation must lie in [0, 1], got {self_excitation}")
        self.num_neurons, self.num_winners = out_neurons, num_winners
        neuron = self._neuron(neuron_params)
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        self._hook(self.synapse, pre_hook_fx)
        self.self_excitation = nn.Parameter(
            torch.tensor([float(self_excitation)]), requires_grad=requires_grad
        )
        lateral = _Lateral(out_neurons, self.lateral_weight)
        self.lateral: _Lateral | _LateralPair = lateral
        if self.neuron.complex:
            self.lateral = _LateralPair(lateral, _Lateral(out_neurons, self.no_weight))
        self.lateral.pre_hook_fx = self.neuron.quantize_8bit
        self.neuron.feed_back(self.lateral)
        self.set_bias()
        self._delays(False, delay_shift)

    def set_bias(self) -> None:
        """Compute the bias from the neuron's threshold, in lava-dl's order of operations."""
        level = self.neuron.threshold * (self.num_neurons - 2 * self.num_winners)
        level = torch.tensor([level / self.num_neurons / self.neuron.w_scale])
        self.bias = Bias(self.neuron.quantize_8bit(level))

    def lateral_weight(self) -> Tensor:
        """Return the weights between the neurons, before the hook, five axes."""
        excitation = 1 + self.self_excitation
        eye = torch.eye(self.num_neurons, device=excitation.device)
        return (excitation * eye - 1).reshape(self.num_neurons, self.num_neurons, 1, 1, 1)

    def no_weight(self) -> Tensor:
        """Return the imaginary weights between resonators: none."""
        return self.self_excitation.new_zeros(self.num_neurons, self.num_neurons, 1, 1, 1)

    def forward(self, x: Tensor) -> Output:
        """Return the spikes of an input; with ``count_log`` also the mean spike rate."""
        with torch.no_grad():
            self.self_excitation.clamp_(0, 1)
        z = self.synapse(x)
        # spikes and bias are real, and so is what they add to a complex current
        return self._looped((self.bias(z[0]), z[1]) if self.neuron.complex else self.bias(z))


class Decoded(_Neural):
    """Dense synapse and sigma decoder: the output of a sigma-delta network.

    Args:
        neuron_params: arguments of the neuron.
        in_neurons, out_neurons, weight_scale, weight_norm, pre_hook_fx: see the Dense block.
        count_log: also return the mean rate of positive outputs.
    """

    def __init__(
        self,
        neuron_params: Mapping[str, Any],
        in_neurons: Any,
        out_neurons: int,
        weight_scale: float = 1,
        weight_norm: bool = False,
        pre_hook_fx: Callable[..., Tensor] | None = _DEFAULT,
        count_log: bool = False,
    ) -> None:
        super().__init__(count_log)
        neuron = self._neuron(neuron_params)
        neuron.as_decoder()
        self.synapse = self.synapses.Dense(in_neurons, out_neurons, weight_scale, weight_norm)
        self.neuron = neuron
        self._hook(self.synapse, pre_hook_fx)

    def forward(self, x: Tensor) -> Output:
        """Return the summed current (N, out_neurons, T)."""
        return self._logged(self.neuron(self.synapse(x)))


def blocks(name: str, neurons: ModuleType) -> dict[str, type[Block]]:
    """Make the blocks of one kind of neuron, by name."""
    kind: Any = neurons.Neuron
    made: list[type[Block]] = [
        Input, Flatten, Average, TimeDecimation, Dense, Conv, ConvT, Pool, Unpool,
    ]  # fmt: skip
    # a sigma-delta neuron has no equation of steps: nothing to feed spikes back into
    made += [Affine, Recurrent, KWTA] if hasattr(kind, "equation") else [Decoded]
    attributes = {
        "neurons": neurons,
        "synapses": synapse.complex if kind.complex else synapse,
        # what a sigma-delta layer sends is a change, and is not delayed unless asked for
        "shifts": hasattr(kind, "equation"),
    }
    found = {}
    for base in made:
        label = "Output" if base is Decoded else base.__name__
        module = f"{__package__}.{name}"
        body = {**attributes, "__module__": module, "__qualname__": label, "__doc__": base.__doc__}
        found[label] = type(label, (base,), body)
    return found
