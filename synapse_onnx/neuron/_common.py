"""The base of all neurons: scales, threshold, regime, norm, dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypedDict

from torch import Tensor, nn

from synapse_onnx._layer import Stateful, whole_scale
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.grid import Quantizer
from synapse_onnx.ops import REGIMES
from synapse_onnx.ops.arithmetic import fixed

__all__ = ["Arguments", "Common", "Current", "input_text"]

#: a current (N, C[, H, W], T), or a pair of them: (real, imag)
Current = Tensor | tuple[Tensor, Tensor]


class Arguments(TypedDict, total=False):
    """The arguments that every neuron has besides its own, for ``**common``; see Common."""

    tau_grad: float
    scale_grad: float
    scale: int
    norm: Callable[[], nn.Module] | None
    dropout: nn.Module | None
    shared_param: bool
    persistent_state: bool
    requires_grad: bool
    graded_spike: bool
    regime: str


class Common(Stateful):
    """Threshold, scales, norm and dropout: the base of neurons with or without an equation.

    Args:
        threshold: membrane voltage at which the neuron spikes, >= 0.
        tau_grad: width of the surrogate gradient around the threshold, relative to the width of
            lava-dl's neuron: :attr:`tau_rho_mult` times the threshold.
        scale_grad: height of the surrogate gradient, relative to :attr:`scale_rho_mult`.
        scale: integer that represents a weight of 1.0; 64 * scale represents a state of 1.0.
        norm: constructor of a normalisation of the current, called without arguments, such as
            ``synapse_onnx.neuron.norm.MeanOnlyBatchNorm``; None for none.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: one value of each parameter for all neurons, else one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the voltage, in units of the threshold, instead of 1.
        regime: "slayer" (fixed point as lava-dl on the CPU, the default), "loihi" (24-bit states,
            :mod:`synapse_onnx.ops.arithmetic.loihi`) or "float".

    Raises:
        InputError: an argument is out of its range.
    """

    spiking = True
    noun, takes = "neuron", "a current"
    advice = "; make another neuron for another shape"
    #: whether currents come as (real, imag) pairs
    complex: ClassVar[bool] = False
    #: whether a spike may carry the membrane instead of 1
    grades: ClassVar[bool] = True
    #: lava-dl's factors, with which tau_grad = scale_grad = 1 is a good start
    tau_rho_mult: ClassVar[float] = 100
    scale_rho_mult: ClassVar[float] = 0.1
    #: arguments of a neuron that spikes now and then, for tests and documentation
    example: ClassVar[Mapping[str, Any]]
    #: type of the neuron in ``device_params``
    device_type: ClassVar[str] = ""
    #: integer that represents a decay of 1.0: all is lost in one time step
    p_scale: ClassVar[int] = fixed.DECAY_ONE

    def __init__(
        self,
        threshold: float,
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        graded_spike: bool = False,
        regime: str = "slayer",
    ) -> None:
        super().__init__()
        if regime not in REGIMES:
            raise InputError(f"regime must be one of {', '.join(REGIMES)}, got {regime!r}")
        self.regime = regime
        self.w_scale = whole_scale(scale)
        self.s_scale = self.w_scale * (1 << 6)
        self._check_scale()
        # lava-dl keeps the threshold on the grid of the weights
        self._threshold = self._on_grid("threshold", threshold)
        # CUBA alone adds a hundredth of a state's unit
        self.threshold_eps = 0.0
        self.tau_rho = tau_grad * self._threshold
        self.scale_rho = scale_grad
        self.shared_param = shared_param
        self.persistent_state = persistent_state
        self.requires_grad = requires_grad
        self.graded_spike = graded_spike
        self.num_neurons: int | None = None
        for name in self._norm_names():
            layer: Any = None if norm is None else norm()
            if hasattr(layer, "pre_hook_fx"):
                layer.pre_hook_fx = self.quantize_8bit
            setattr(self, name, layer)
        self.drop = dropout

    def _norm_names(self) -> tuple[str, ...]:
        return ("real_norm", "imag_norm") if self.complex else ("norm",)

    def _norms(self) -> list[Any]:
        """The norm of every current, None where there is none."""
        return [getattr(self, name) for name in self._norm_names()]

    def _check_scale(self) -> None:
        if self.regime != "float" and self.s_scale & (self.s_scale - 1):
            raise InputError(
                f"scale must be a power of two, so that states pass through float32 unchanged, got "
                f"{self.w_scale}"
            )

    def _on_grid(self, name: str, level: float) -> float:
        if not (math.isfinite(level) and level >= 0):
            raise InputError(f"{name} must be a finite number >= 0, got {level}")
        if self.regime == "float":
            return float(level)
        if level * self.s_scale >= fixed.STATE_LIMIT:
            raise InputError(
                f"{name} must be below {fixed.STATE_LIMIT / self.s_scale:g}, which no state of 64 "
                f"bits reaches at a scale of {self.w_scale}, got {level}"
            )
        return int(level * self.w_scale) / self.w_scale

    @property
    def kind(self) -> str:
        """Name of the neuron: that of its file."""
        return type(self).__module__.rsplit(".", 1)[-1]

    @property
    def threshold(self) -> float:
        """Membrane voltage at which the neuron spikes."""
        return self._threshold

    @property
    def v_th_mant(self) -> int:
        """The threshold as Loihi takes it: an integer in units of 1 / scale."""
        return int(self._threshold * self.w_scale)

    @property
    def weight_exponent(self) -> int:
        """Exponent of the weights on Loihi."""
        return int(math.log2(self.s_scale // self.w_scale) - 6)

    @property
    def scale(self) -> int:
        """Scale between the weights here and the hardware's."""
        return self.w_scale

    @property
    def device_params(self) -> dict[str, Any]:
        """Parameters for Loihi.

        Raises:
            InputError: the neuron is in the float regime.
        """
        if self.regime == "float":
            raise InputError("device_params: a neuron in the float regime has no Loihi parameters")
        return {"type": self.device_type, **self._device_params(), "vThMant": self.v_th_mant}

    def _device_params(self) -> dict[str, Any]:
        """Parameters for Loihi besides type and threshold."""
        return {}

    def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Quantise weights to 8 bits, multiples of 2 / scale; meant as a ``pre_hook_fx``."""
        return Quantizer(self.w_scale, 8)(weight, descale)

    @property
    def _title(self) -> str:
        return f"{self.kind} neuron"

    def _check_shape(self, x: Tensor) -> bool:
        first = super()._check_shape(x)
        if first:
            self.num_neurons = x.shape[1:-1].numel()
        return first

    def _real(self, input: Any) -> Tensor:
        if isinstance(input, Tensor):
            return input
        raise ShapeError(
            f"{self.kind} neuron: expected a real current, one tensor, and got "
            f"{input_text(input)}; a complex synapse needs a resonator (rf, rf_iz, adrf, adrf_iz)"
        )

    def _dropped(self, spikes: Tensor) -> Tensor:
        result: Tensor = spikes if self.drop is None else self.drop(spikes)
        return result

    def _part_names(self) -> tuple[str, ...]:
        """Names of the modules that this neuron calls."""
        return *self._norm_names(), "drop"

    def _refuse_hooks(self) -> None:
        """Refuse forward hooks within this neuron: it is exported and compared as one layer."""
        for name in self._part_names():
            part: Any = getattr(self, name)
            for path, module in part.named_modules(prefix=name) if part is not None else ():
                if module._forward_hooks or module._forward_pre_hooks:
                    raise InputError(
                        f"{path}, a part of the {self.kind} neuron, has a forward hook, which no "
                        f"model holds within a layer; put it on the neuron, or remove it before "
                        f"the export"
                    )

    def freeze(self) -> None:
        """Turn this neuron into its deployment form, in place (see ``synapse_onnx.freeze``).

        Raises:
            InputError: a norm, dropout or other part of it has a forward hook.
        """
        self._refuse_hooks()
        for norm in self._norms():
            if hasattr(norm, "freeze"):
                norm.freeze()
        self.drop = None
        super().freeze()

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold and scale of this frozen neuron."""
        return {
            "kind": self.kind,
            "regime": self.regime,
            "threshold": None if math.isinf(self._threshold) else self.threshold,
            "scale": 1 if self.regime == "float" else self.s_scale,
        }


def input_text(value: Any) -> str:
    """Describe an input of the wrong kind, for an error."""
    if isinstance(value, Tensor):
        return f"one real tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
