"""What every neuron has: scales, threshold, regime, norm, dropout, persistence.

A neuron class names its :class:`~synapse_onnx.ops.Equation`, which declares parameters and states
in a table; registering, clamping, rounding, resetting, exporting, freezing and loading follow.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx._layer import Stateful
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.ops import REGIMES, Equation
from synapse_onnx.ops.arithmetic import fixed
from synapse_onnx.quantize import Quantizer, round_to_step

__all__ = ["Common", "Current", "Decay", "Neuron"]

#: a parameter is one number, or (least, most) from which every channel draws its own
Decay = float | tuple[float, float]

#: a current (N, C[, H, W], T), or a pair of them: (real, imag)
Current = Tensor | tuple[Tensor, Tensor]


class Common(Stateful):
    """What neurons have with or without an equation of steps: threshold, scales, norm, dropout.

    Args:
        threshold: membrane voltage at which the neuron spikes, >= 0.
        tau_grad: width of the surrogate gradient around the threshold.
        scale_grad: height of the surrogate gradient.
        scale: integer that stands for a weight of one; a state of one is 64 times that.
        norm: constructor of a normalisation of the current, or None.
        dropout: a module applied to the spikes, or None.
        shared_param: one value of each parameter for all neurons, else one a channel.
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: a spike carries the voltage instead of 1.
        regime: "slayer" (fixed point as lava-dl on the CPU, the default), "loihi" (24-bit states,
            :mod:`synapse_onnx.ops.arithmetic.loihi`) or "float".

    Raises:
        InputError: an argument is out of its range.
    """

    spiking = True
    noun = "neuron"
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
    #: integer that stands for a decay of one
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
        self.w_scale, self.s_scale = int(scale), int(scale) * (1 << 6)
        if not self.w_scale > 0:
            raise InputError(f"scale must be a positive integer, got {scale}")
        self._check_scale()
        # lava-dl keeps the threshold on the grid of the weights
        self._threshold = self._on_grid("threshold", threshold)
        # the hundredth of a state step that CUBA adds, and no other neuron
        self.threshold_eps = 0.0
        self.tau_rho = tau_grad * self._threshold
        self.scale_rho = scale_grad
        self.shared_param = shared_param
        self.persistent_state = persistent_state
        self.requires_grad = requires_grad
        self.graded_spike = graded_spike
        self.shape: torch.Size | None = None
        self.num_neurons: int | None = None
        for name in self._norm_names():
            made = norm() if norm is not None else None
            if hasattr(made, "pre_hook_fx"):
                setattr(made, "pre_hook_fx", self.quantize_8bit)  # noqa: B010 (mypy: no such attribute)
            setattr(self, name, made)
        self.drop = dropout

    def _norm_names(self) -> tuple[str, ...]:
        return ("real_norm", "imag_norm") if self.complex else ("norm",)

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
    def device_params(self) -> dict[str, Any]:
        """Parameters for Loihi.

        Raises:
            InputError: the neuron is in the float regime.
        """
        if self.regime == "float":
            raise InputError("device_params: a neuron in the float regime has no Loihi parameters")
        return {"type": self.device_type, **self._device_params(), "vThMant": self.v_th_mant}

    def _device_params(self) -> dict[str, Any]:
        """Parameters for Loihi that this neuron adds to type and threshold."""
        return {}

    def quantize_8bit(self, weight: Tensor, descale: bool = False) -> Tensor:
        """Quantise weights to 8 bits on this neuron's scale; meant as a ``pre_hook_fx``."""
        return Quantizer(self.w_scale, 8)(weight, descale)

    def _check_rank(self, x: Tensor) -> None:
        if x.dim() not in (3, 5):
            raise ShapeError(
                f"{self.kind} neuron: expected a current of shape (N, C, T) or (N, C, H, W, T), "
                f"got {tuple(x.shape)}"
            )

    def _check_shape(self, x: Tensor) -> bool:
        """Check a current; return whether it is the first one."""
        self._check_rank(x)
        shape = x.shape[1:-1]
        if self.shape is None:
            self.shape, self.num_neurons = shape, math.prod(shape)
            return True
        if self.shape != shape:
            raise ShapeError(
                f"the neuron was built up with shape {tuple(self.shape)} (C[, H, W]) and got a "
                f"current of shape {tuple(x.shape)}; make another neuron for another shape"
            )
        return False

    def _real(self, input: Any) -> Tensor:
        if isinstance(input, Tensor):
            return input
        raise ShapeError(
            f"{self.kind} neuron: expected a real current, one tensor, and got {_what(input)}; a "
            f"complex synapse needs a resonator (rf, rf_iz, adrf, adrf_iz)"
        )

    def _dropped(self, spikes: Tensor) -> Tensor:
        result: Tensor = self.drop(spikes) if self.drop is not None else spikes
        return result

    def freeze(self) -> None:
        """Turn this neuron into its deployment form, in place (see ``synapse_onnx.freeze``)."""
        for name in self._norm_names():
            norm = getattr(self, name)
            if hasattr(norm, "freeze"):
                norm.freeze()
        self.drop = None
        self.persistent_state = False
        self.reset()

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold and scale of this frozen neuron."""
        return {
            "kind": self.kind,
            "regime": self.regime,
            "threshold": self.threshold,
            "scale": 1 if self.regime == "float" else self.s_scale,
        }


class Neuron(Common):
    """A neuron with an equation; the constructor arguments are those of lava-dl.

    Args:
        threshold: membrane voltage at which the neuron spikes, >= 0.
        values: value of each parameter in the equation's table, by name: a fraction, 0 to 1; a
            pair (least, most) where every channel has its own.
        common: the further arguments of :class:`Common`, in its order.
        levels: further constants of the equation, which become attributes; on the grid of the
            weights in fixed point.
        more: the further arguments of :class:`Common`, by name.

    Raises:
        InputError: an argument is out of its range.
    """

    #: the equation, with the tables of parameters and states
    equation: ClassVar[Equation]
    #: names of the parameters and of the states, from those tables
    decays: ClassVar[tuple[str, ...]] = ()
    #: whether the output is a variable instead of spikes (see :meth:`as_readout`)
    readout: bool = False
    states: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        equation = cls.__dict__.get("equation")
        if equation is None:
            return
        cls.decays = tuple(parameter.name for parameter in equation.parameters)
        cls.states = tuple(state.name for state in equation.states)
        cls.complex = len(equation.currents) == 2
        for name in cls.decays:
            setattr(cls, f"cx_{name}", _integer_property(name))
        # help() and editors show the common arguments in the place of *common and **more
        own = list(inspect.signature(cls.__init__).parameters.values())[1:]
        shared = [*inspect.signature(Common.__init__).parameters.values()][2:]
        positional = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
        keyword = [p for p in own if p.kind is p.KEYWORD_ONLY]
        cls.__signature__ = inspect.Signature([*positional, *shared, *keyword])  # type: ignore[attr-defined]

    def __init__(
        self,
        threshold: float,
        values: Mapping[str, Any],
        *common: Any,
        levels: Mapping[str, float] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(threshold, *common, **more)
        for name, level in (levels or {}).items():
            setattr(self, name, self._on_grid(name, level))
        self._ranges: dict[str, tuple[float, float]] = {}
        self._fed: tuple[nn.Module] | None = None
        self._register_parameters(values)
        self.clamp()
        constants = self.constants()
        dtype = torch.float32 if self.regime == "float" else torch.int64
        self.bias: Tensor | None
        biased = any(p.name == "bias" for p in self.equation.table(self.regime))
        self.register_buffer("bias", torch.zeros(1) if biased else None)
        if self.regime == "loihi" and any(getattr(self, n) is not None for n in self._norm_names()):
            raise InputError(
                f"{self.kind} neuron: Loihi has no norm; fold it into a bias (set_bias) and weights"
            )
        for state in self.equation.states:
            self.register_state(state.name, dtype, constants[state.start] if state.start else 0)

    # -- parameters --------------------------------------------------------------------------

    def _register_parameters(self, values: Mapping[str, Decay]) -> None:
        """Register every parameter of the table, with its value or the least of its range."""
        for parameter in self.equation.parameters:
            least, most = self._range(parameter.name, values[parameter.name], parameter.jitter)
            if not self.shared_param:
                self._ranges[parameter.name] = (least, most)
            self._set_parameter(parameter.name, torch.tensor([least]))

    def _set_parameter(self, name: str, value: Tensor) -> None:
        """Register a parameter from its value in units of one."""
        start = self.decay_scale * value.to(torch.float32)
        setattr(self, name, nn.Parameter(start, requires_grad=self.requires_grad))

    def _range(self, name: str, value: Decay, jitter: float = 0.0) -> tuple[float, float]:
        """Check a decay; return the range that channels draw theirs from."""
        if isinstance(value, (int, float)):
            spread = 0.0 if self.shared_param else jitter
            least, most = value * (1 - spread), value * (1 + spread)
        elif self.shared_param or len(value) != 2:
            raise InputError(
                f"{name} must be a number"
                + ("" if self.shared_param else " or a pair (least, most)")
                + f" when shared_param is {self.shared_param}, got {value!r}"
            )
        else:
            least, most = value
        # a jitter may pass one; clamp() brings it back
        limit = 1 + jitter if isinstance(value, (int, float)) and not self.shared_param else 1
        if not 0 <= least <= most <= limit:
            raise InputError(f"{name} must lie in [0, 1], got {value!r}")
        return least, most

    def constants(self) -> dict[str, float]:
        """Return the equation's constants: integers in units of 1 / s_scale, or floats."""
        if self.regime == "float":
            return {"threshold": self.threshold}
        return {"threshold": self.integer_threshold}

    @property
    def integer_threshold(self) -> int:
        """Integer that the voltage must reach, in units of 1 / s_scale."""
        if math.isinf(self._threshold):
            return fixed.NO_THRESHOLD
        if self.regime == "loihi":  # > is >= of the next integer
            return int(self._threshold * self.s_scale) + (self.threshold_eps > 0)
        return fixed.integer_threshold(self._threshold + self.threshold_eps, self.s_scale)

    @property
    def decay_scale(self) -> int:
        """Unit of the stored decays: 4096 in fixed point, 1 in float."""
        return 1 if self.regime == "float" else self.p_scale

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        tensor: Tensor = getattr(self, self.decays[0])
        return tensor.device

    @property
    def device_params(self) -> dict[str, Any]:
        """Parameters for Loihi.

        Raises:
            InputError: the neuron is in the float regime.
        """
        return {**super().device_params, "gradedSpike": self.graded_spike}

    def clamp(self) -> None:
        """Bring the parameters back into their range."""
        with torch.no_grad():
            for name in self.decays:
                getattr(self, name).clamp_(0, self.decay_scale)

    def parameter_value(self, name: str) -> Tensor:
        """Return a parameter as the ops take it: rounded to 4096ths in fixed point."""
        value: Tensor = getattr(self, name)
        frozen = not isinstance(value, nn.Parameter)
        return value if frozen or self.regime == "float" else round_to_step(value)

    def _values(self) -> list[Tensor]:
        """Parameters as the ops take them, in the table's order."""
        if self.training and self.requires_grad:
            self.clamp()
        values = [self.parameter_value(name) for name in self.decays]
        return values if self.bias is None else [*values, self.bias]

    def set_bias(self, bias: Tensor) -> None:
        """Set the bias of the loihi regime, added at every step.

        It stands where a norm would: in the voltage of cuba, in the current of alif.

        Args:
            bias: (1,), one a channel (C,) or one a neuron (C, H, W); in the unit of the threshold,
                a multiple of a state's unit, 1 / (64 scale).

        Raises:
            InputError: the neuron has no bias, or this one is on no grid of its scale.
        """
        if self.bias is None:
            raise InputError(f"{self.kind} neuron: no bias in the {self.regime} regime")
        steps = bias.detach().to(torch.float32) * self.s_scale
        if not bool((steps == steps.round()).all()):
            raise InputError(
                f"{self.kind} neuron: a bias must be a multiple of 1 / {self.s_scale}, its unit"
            )
        self.bias = (steps / self.s_scale).to(self.bias.device)

    def _integer(self, name: str) -> Any:
        """A parameter as Loihi takes it: an int, or an array of them."""
        value = torch.round(getattr(self, name).detach()).to("cpu", torch.int64).numpy()
        return int(value[0]) if len(value) == 1 else value

    @property
    def _surrogate(self) -> tuple[float, float]:
        # a threshold of zero would leave no width at all
        tau = self.tau_rho * self.tau_rho_mult or self.tau_rho_mult / self.w_scale
        return tau, self.scale_rho * self.scale_rho_mult

    # -- input -------------------------------------------------------------------------------

    def _currents(self, input: Current) -> tuple[Tensor, ...]:
        """Check an input; the first one settles the neuron's shape and draws its parameters."""
        if not self.complex:
            currents: tuple[Tensor, ...] = (self._real(input),)
        elif isinstance(input, tuple | list) and len(input) == 2:
            currents = tuple(input)
            if currents[0].shape != currents[1].shape:
                raise ShapeError(
                    f"{self.kind} neuron: the real current has shape {tuple(currents[0].shape)} "
                    f"and the imaginary one {tuple(currents[1].shape)}; they must be equal"
                )
        else:
            raise ShapeError(
                f"{self.kind} neuron: expected a complex current, a pair (real, imag), and got "
                f"{_what(input)}; put a complex synapse before it"
            )
        if self._check_shape(currents[0]):
            self._build(currents[0].shape[1:-1])
        return currents

    def _build(self, shape: torch.Size) -> None:
        """Draw the parameters of every channel; check those that a checkpoint gave."""
        if self._ranges:
            for name, value in self._draw(shape[0]).items():
                old: nn.Parameter = getattr(self, name)
                old.data = self.decay_scale * value.to(old.device)
            self._ranges.clear()
        for name in self.decays:
            found = getattr(self, name).numel()
            if found not in (1, shape[0]):
                raise ShapeError(f"{name} holds {found} channels and the current has {shape[0]}")
        bias = self.bias
        if bias is not None and bias.numel() != 1 and bias.shape not in (shape, shape[:1]):
            raise ShapeError(
                f"the bias has shape {tuple(bias.shape)} and the neurons {tuple(shape)}, (C[, H, "
                f"W])"
            )

    def _uniform(self, name: str, channels: int) -> Tensor:
        """Draw a value a channel from its range."""
        least, most = self._ranges[name]
        return least + (most - least) * torch.rand(channels)

    def _draw(self, channels: int) -> dict[str, Tensor]:
        """Draw the parameters of every channel, in units of one."""
        return {name: self._uniform(name, channels) for name in self._ranges}

    def _normed(self, currents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        norms: list[Any] = [getattr(self, name) for name in self._norm_names()]
        return tuple(x if n is None else n(x) for x, n in zip(currents, norms, strict=True))

    # -- running -----------------------------------------------------------------------------

    def dynamics(self, input: Current) -> tuple[Tensor, ...]:
        """Return the variables of the equation over time (``equation.traces``), as floats.

        Args:
            input: currents (N, C[, H, W], T); a pair (real, imag) for a resonator.

        Returns:
            One tensor of the input's shape a variable, before the reset of each step.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        currents = self._normed(self._currents(input))
        states = self.load_states(currents[0], *self.states)
        outputs = self._op("dynamics", (*currents, *self._values(), *states, *self._levels()))
        count = len(self.equation.traces)
        self.save_states(**dict(zip(self.states, outputs[count:], strict=True)))
        return outputs[:count]

    def forward(self, input: Current) -> Tensor:
        """Return spikes (N, C[, H, W], T) of currents of the same shape, float32.

        Args:
            input: currents; a pair (real, imag) for a resonator.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        if self.readout:
            return self.dynamics(input)[self.equation.traces.index(self.equation.readout)]
        currents = self._normed(self._currents(input))
        names = self.states if self._fed is None else ("spikes", *self.states)
        states = self.load_states(currents[0], *names)
        tail = (*self._levels(), *self._surrogate, self.graded_spike)
        if self._fed is None:
            outputs = self._op("spikes", (*currents, *self._values(), *states, *tail))
        else:
            if currents[0].dim() != 3:
                raise ShapeError(
                    f"{self.kind} neuron: with feedback it takes currents (N, C, T), got "
                    f"{tuple(currents[0].shape)}"
                )
            spikes, *own = states
            args = (*currents, *self._feedback(), spikes, *self._values(), *own, *tail)
            outputs = self._op("recurrent", args)
        s, *last = outputs
        self.save_states(**dict(zip(names, last, strict=True)))
        return self._dropped(s)

    def feed_back(self, synapse: nn.Module) -> None:
        """Send the spikes of each step through a synapse and add them to the next step's current.

        The neuron keeps its last spikes as a state then, named "spikes".

        Args:
            synapse: a Dense synapse from these neurons to themselves, complex for a resonator.

        Raises:
            InputError: the neuron has a norm, which would stand within the loop over time.
        """
        if any(getattr(self, name) is not None for name in self._norm_names()):
            raise InputError(f"{self.kind} neuron: feedback goes with no norm; leave norm=None")
        # in a tuple: the synapse is a module of the block's, not of the neuron's
        self._fed = (synapse,)
        self.register_state("spikes", torch.float32)

    @property
    def feedback(self) -> nn.Module | None:
        """The synapse through which the neuron sees its own spikes, or None."""
        return None if self._fed is None else self._fed[0]

    def forward_without_feedback(self, input: Current) -> Tensor:
        """Return what :meth:`forward` would return if no spikes were fed back."""
        fed, self._fed = self._fed, None
        try:
            return self.forward(input)
        finally:
            self._fed = fed

    def error_bounds(
        self, input: Current, rounding: float
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Bound what rounding errors of the currents change in fixed point, up to a flipped spike.

        Args:
            input: currents; a pair (real, imag) for a resonator.
            rounding: largest error of a current, in the unit of the threshold.

        Returns:
            Where an error could flip a spike, bool, of the shape of a current; the largest error of
            a graded spike, in the unit of the threshold, of the same shape; and the largest error
            of each last state, in units of 1 / (64 scale), by the name of the state.

        Raises:
            InputError: the neuron is in the float regime, or has a norm within its step.
        """
        if self.regime == "float" or self._form != self.regime:
            raise InputError(f"{self.kind} neuron: states in fixed point and no norm are needed")
        currents = self._normed(self._currents(input))
        states = self.load_states(currents[0], *self.states)
        tail = (*self._levels(), *self._surrogate, self.graded_spike)
        op = self.equation.op("spikes", self._form)
        args = (*currents, *self._values(), *states, *tail)
        where, height, last = op.error_bound(*args, rounding=rounding * self.s_scale)
        return where, height / self.s_scale, last

    def _feedback(self) -> tuple[Tensor, ...]:
        """Weights and steps of the feedback, one of each a current."""
        assert self._fed is not None
        synapse: Any = self._fed[0]
        parts = (synapse.real, synapse.imag) if self.complex else (synapse,)
        pairs = [part.weight_and_step() for part in parts]
        return *(weight for weight, _ in pairs), *(step for _, step in pairs)

    def as_readout(self) -> None:
        """Never spike and never reset: a variable of the equation is the output then."""
        self._threshold = math.inf
        self.spiking, self.readout = False, True

    def settle(self) -> None:
        """Keep the parameters as they are: no input draws them any more."""
        self._ranges.clear()

    def _levels(self) -> tuple[float, ...]:
        constants = self.constants()
        levels = tuple(constants[name] for name in self.equation.constants)
        return levels if self.regime == "float" else (self.s_scale, *levels)

    @property
    def _form(self) -> str:
        """The regime whose ops are run; see :meth:`Equation.op`."""
        return self.regime

    def _op(self, kind: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Run one of the equation's ops; in training the form that autograd follows by itself."""
        op = self.equation.op(kind, self._form)
        # one pass then serves both the output and its gradient
        if self.training and torch.is_grad_enabled():
            return op.compute(*args, gradient=True)
        return op(*args)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the parameters' shapes from the checkpoint: no forward pass is needed first."""
        for name in self.decays:
            value = state_dict.get(prefix + name)
            old = getattr(self, name)
            if isinstance(value, Tensor) and not self.shared_param and value.dim() == 1:
                old.data = old.data.new_zeros(value.shape)
                self._ranges.clear()
        bias = state_dict.get(f"{prefix}bias")
        if self.bias is not None and isinstance(bias, Tensor):
            self.bias = self.bias.new_zeros(bias.shape)
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
            value = self.parameter_value(name).detach().clone()
            delattr(self, name)
            self.register_buffer(name, value)
        super().freeze()

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold and parameters of this frozen neuron."""
        found = super().describe()
        if self.bias is not None and bool(self.bias.any()):
            found["bias"] = self.bias.tolist()
        found["decays"] = {name: getattr(self, name).tolist() for name in self.decays}
        if math.isinf(self._threshold):
            found["threshold"] = None
        if self._fed is not None:
            synapse: Any = self._fed[0]
            found["feedback"] = synapse.describe()
        return found

    def extra_repr(self) -> str:
        """Threshold, parameters and regime, for the module's repr."""
        parts = [f"threshold={self.threshold:g}"]
        for name in self.decays:
            value = getattr(self, name).detach() / self.decay_scale
            text = f"{value.item():g}" if value.numel() == 1 else f"{value.numel()} channels"
            parts.append(f"{name}={text}")
        return ", ".join([*parts, f"regime={self.regime}"])


def _integer_property(name: str) -> property:
    def read(self: Neuron) -> Any:
        return self._integer(name)

    read.__doc__ = f"``{name}`` as Loihi takes it: an integer in 4096ths, or an array of them."
    return property(read)


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one real tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
