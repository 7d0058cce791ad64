"""What every neuron has: a table of parameters and states, scales, threshold, persistence.

A neuron class declares its :attr:`Neuron.decays` and :attr:`Neuron.states` once; registering,
clamping, rounding, resetting, freezing and loading follow from that table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx import fixed
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.module import Deployable
from synapse_onnx.quantize import Quantizer, round_to_step

__all__ = ["REGIMES", "Neuron"]

#: numeric regimes of a neuron: lava-dl's fixed point on the CPU, or plain float32
REGIMES = ("slayer", "float")

#: a decay is one number, or (least, most) from which every channel draws its own
Decay = float | tuple[float, float]


class Neuron(Deployable):
    """Base of all neurons; the constructor arguments are those of lava-dl.

    Args:
        threshold: membrane voltage at which the neuron spikes, >= 0.
        decays: value of each decay in the table: the fraction lost every step, 0 to 1; a pair
            (least, most) where every channel has its own.
        tau_grad: width of the surrogate gradient around the threshold.
        scale_grad: height of the surrogate gradient.
        p_scale: integer that stands for a decay of one.
        w_scale: integer that stands for a weight of one.
        s_scale: integer that stands for a state of one.
        norm: constructor of a normalisation of the current, or None.
        dropout: a module applied to the spikes, or None.
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        shared_param: one value of each parameter for all neurons, else one a channel.
        requires_grad: learn the decays.
        regime: "slayer" (fixed point as lava-dl on the CPU, the default) or "float".

    Raises:
        InputError: an argument is out of its range.
    """

    spiking = True
    #: parameters of the neuron, each a decay in [0, 1]
    decays: ClassVar[tuple[str, ...]] = ()
    #: states of the neuron; a buffer ``<name>_state`` holds each
    states: ClassVar[tuple[str, ...]] = ()
    #: whether currents come as (real, imag) pairs
    complex: bool = False

    #: integer that the voltage must reach, in units of 1 / s_scale
    integer_threshold: int

    def __init__(
        self,
        threshold: float,
        decays: Mapping[str, Decay],
        *,
        tau_grad: float = 1,
        scale_grad: float = 1,
        p_scale: int = fixed.DECAY_ONE,
        w_scale: int = 1 << 6,
        s_scale: int = 1 << 12,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        persistent_state: bool = False,
        shared_param: bool = True,
        requires_grad: bool = False,
        regime: str = "slayer",
    ) -> None:
        super().__init__()
        if regime not in REGIMES:
            raise InputError(f"regime must be one of {', '.join(REGIMES)}, got {regime!r}")
        if not (math.isfinite(threshold) and threshold >= 0):
            raise InputError(f"threshold must be a finite number >= 0, got {threshold}")
        self.regime = regime
        self.p_scale, self.w_scale, self.s_scale = p_scale, int(w_scale), int(s_scale)
        if not 0 < self.w_scale <= self.s_scale:
            raise InputError(
                f"scale must be a positive integer no larger than the state's, got {w_scale} "
                f"(weights) and {s_scale} (states)"
            )
        # lava-dl keeps the threshold on the grid of the weights
        self._threshold = int(threshold * self.w_scale) / self.w_scale
        if regime == "float":
            self._threshold = float(threshold)
        # slayer spikes at v >= threshold, Loihi at v > threshold: a hundredth of a state step
        # moves the one to the other
        self.threshold_eps = 0.01 / self.s_scale if regime == "slayer" else 0.0
        self.tau_rho = tau_grad * self._threshold
        self.scale_rho = scale_grad
        self.shared_param = shared_param
        self.persistent_state = persistent_state
        self.requires_grad = requires_grad
        self.shape: torch.Size | None = None
        self.num_neurons: int | None = None
        self.norm = norm() if norm is not None else None
        if self.norm is not None and hasattr(self.norm, "pre_hook_fx"):
            setattr(self.norm, "pre_hook_fx", self.quantize_8bit)  # noqa: B010 (mypy: no such attribute)
        self.drop = dropout
        self._ranges: dict[str, tuple[float, float]] = {}
        for name in self.decays:
            self._register_decay(name, decays[name])
        for name in self.states:
            dtype = torch.int64 if regime == "slayer" else torch.float32
            self.register_buffer(f"{name}_state", torch.zeros(1, dtype=dtype), persistent=False)
        self.integer_threshold = fixed.integer_threshold(
            self._threshold + self.threshold_eps, self.s_scale
        )

    def _register_decay(self, name: str, value: Decay) -> None:
        if isinstance(value, (int, float)):
            least, most = (value, value) if self.shared_param else (value * 0.99, value * 1.01)
        elif self.shared_param or len(value) != 2:
            raise InputError(
                f"{name} must be a number"
                + ("" if self.shared_param else " or a pair (least, most)")
                + f" when shared_param is {self.shared_param}, got {value!r}"
            )
        else:
            least, most = value
        # a jitter of 1 % may pass one; clamp() brings it back
        if not 0 <= least <= most <= (1 if isinstance(value, tuple) or self.shared_param else 1.01):
            raise InputError(f"{name} must lie in [0, 1], got {value!r}")
        if not self.shared_param:
            self._ranges[name] = (least, most)
        start = torch.tensor([self.decay_scale * least], dtype=torch.float32)
        setattr(self, name, nn.Parameter(start, requires_grad=self.requires_grad))
        self.clamp(name)

    # -- parameters --------------------------------------------------------------------------

    @property
    def decay_scale(self) -> int:
        """Unit of the stored decays: 4096 in fixed point, 1 in float."""
        return self.p_scale if self.regime == "slayer" else 1

    @property
    def threshold(self) -> float:
        """Membrane voltage at which the neuron spikes."""
        return self._threshold

    @property
    def v_th_mant(self) -> int:
        """The threshold as Loihi takes it: an integer in units of a weight step."""
        return int(self.threshold * self.w_scale)

    @property
    def weight_exponent(self) -> int:
        """Exponent of the weights on Loihi."""
        return int(math.log2(self.s_scale // self.w_scale) - 6)

    @property
    def scale(self) -> int:
        """Scale between the weights here and the hardware's."""
        return self.w_scale

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        tensor: Tensor = getattr(self, self.decays[0])
        return tensor.device

    def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Quantise weights to 8 bits on this neuron's scale; meant as a ``pre_hook_fx``."""
        return Quantizer(self.w_scale, 8)(weight, descale)

    def clamp(self, *names: str) -> None:
        """Bring the decays (all, or those named) back into their range."""
        with torch.no_grad():
            for name in names or self.decays:
                getattr(self, name).clamp_(0, self.decay_scale)

    def decay(self, name: str) -> Tensor:
        """Return a decay as the ops take it: rounded to 4096ths in fixed point."""
        value: Tensor = getattr(self, name)
        if self.training and self.requires_grad:
            self.clamp(name)
        frozen = not isinstance(value, nn.Parameter)
        return value if frozen or self.regime == "float" else round_to_step(value)

    def _integer(self, name: str) -> Any:
        """A decay as Loihi takes it: an int, or an array of them."""
        value = torch.round(getattr(self, name).detach()).to("cpu", torch.int64).numpy()
        return int(value[0]) if len(value) == 1 else value

    # -- states ------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the states: the next call starts from zero, with any batch size."""
        for name in self.states:
            buffer: Tensor = getattr(self, f"{name}_state")
            setattr(self, f"{name}_state", torch.zeros(1, dtype=buffer.dtype, device=buffer.device))

    def _start(self, x: Tensor) -> tuple[Tensor, ...]:
        """Check an input and return the states that it starts from, each (N, C[, H, W])."""
        if x.dim() not in (3, 5):
            raise ShapeError(
                f"{type(self).__module__.rsplit('.', 1)[-1]} neuron: expected a current of shape "
                f"(N, C, T) or (N, C, H, W, T), got {tuple(x.shape)}"
            )
        shape = x.shape[1:-1]
        if self.shape is None:
            self._set_shape(shape)
        elif self.shape != shape:
            raise ShapeError(
                f"the neuron was built up with shape {tuple(self.shape)} (C[, H, W]) and got a "
                f"current of shape {tuple(x.shape)}; make another neuron for another shape"
            )
        states = []
        for name in self.states:
            state: Tensor = getattr(self, f"{name}_state")
            if not self.persistent_state or state.dim() == 1:
                state = torch.zeros(x.shape[:-1], dtype=state.dtype, device=x.device)
            elif state.shape[0] != x.shape[0]:
                raise ShapeError(
                    f"the neuron keeps states for a batch of {state.shape[0]} and got a batch of "
                    f"{x.shape[0]}; call reset() before the batch size changes"
                )
            states.append(state)
        return tuple(states)

    def _set_shape(self, shape: torch.Size) -> None:
        """Take the shape of the first input; draw the decays of every channel."""
        self.shape, self.num_neurons = shape, math.prod(shape)
        for name, (least, most) in self._ranges.items():
            old: nn.Parameter = getattr(self, name)
            drawn = least + (most - least) * torch.rand(shape[0], device=old.device)
            old.data = self.decay_scale * drawn
        self._ranges.clear()
        for name in self.decays:
            channels = getattr(self, name).numel()
            if channels not in (1, shape[0]):
                raise ShapeError(f"{name} holds {channels} channels and the current has {shape[0]}")

    def _keep(self, *states: Tensor) -> None:
        """Remember the last states, where they persist."""
        if self.persistent_state:
            for name, state in zip(self.states, states, strict=True):
                setattr(self, f"{name}_state", state.detach())

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shapes of the decays from the checkpoint: no forward pass is needed first."""
        for name in self.decays:
            value = state_dict.get(prefix + name)
            old = getattr(self, name)
            if isinstance(value, Tensor) and not self.shared_param and value.dim() == 1:
                old.data = old.data.new_zeros(value.shape)
                self._ranges.pop(name, None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # -- deployment --------------------------------------------------------------------------

    def freeze(self) -> None:
        """Turn this neuron into its deployment form, in place (see ``synapse_onnx.freeze``)."""
        if self._ranges:
            raise InputError(
                "a neuron with shared_param=False draws its decays with the first input: run the "
                "network once, or load a checkpoint, before it is frozen"
            )
        for name in self.decays:
            value = self.decay(name).detach().clone()
            delattr(self, name)
            self.register_buffer(name, value)
        self.drop = None
        self.persistent_state = False
        self.reset()

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold and decays of this frozen neuron."""
        return {
            "kind": type(self).__module__.rsplit(".", 1)[-1],
            "regime": self.regime,
            "threshold": self.threshold,
            "scale": self.s_scale if self.regime == "slayer" else 1,
            "decays": {name: getattr(self, name).tolist() for name in self.decays},
        }

    def membrane(self, input: Tensor) -> Tensor:
        """Return the voltage over time, before the reset of each step, from zero states."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Threshold, decays and regime, for the module's repr."""
        parts = [f"threshold={self.threshold:g}"]
        for name in self.decays:
            value = getattr(self, name).detach() / self.decay_scale
            text = f"{value.item():g}" if value.numel() == 1 else f"{value.numel()} channels"
            parts.append(f"{name}={text}")
        return ", ".join([*parts, f"regime={self.regime}"])
