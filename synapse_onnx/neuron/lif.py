"""LIF: leaky integrate-and-fire in floats, as snnTorch, Norse, SpikingJelly and NIR have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.neuron import base
from synapse_onnx.neuron._counted import counted_equations
from synapse_onnx.ops import Equation, Parameter, State, register_equation
from synapse_onnx.ops.spike import spike

__all__ = ["RESETS", "Neuron"]

#: resets: how the voltage changes where the neuron spiked
RESETS = ("zero", "subtract", "delayed", "delayed_zero")

#: a threshold that no voltage reaches, and that JSON can hold
_NEVER = float(torch.finfo(torch.float32).max)

#: one value for all, (C,) or (C, H, W)
Values = float | Tensor


class Lif(Equation):
    """Source: NIR's CubaLIF in discrete time; the delayed reset is that of snnTorch's Leaky."""

    parameters = tuple(
        Parameter(name, doc, kept=False, level=True, typical=typical)
        for name, doc, typical in (
            ("alpha", "fraction of the current kept every step", 0.5),
            ("beta", "fraction of the voltage kept every step", 0.75),
            ("gain", "factor on the input", 0.75),
            ("drive", "added to the voltage every step", 0.0625),
            ("v_threshold", "voltage at which the neuron spikes", 0.75),
            ("v_reset", "voltage after a spike, or what a spike takes off", 0.25),
        )
    )
    states = (State("current", "synaptic current u"), State("voltage", "membrane voltage v"))
    constants = ()
    samples: ClassVar[Mapping[str, float]] = {}
    traces = ("current", "voltage", "above")
    fires = ("above",)
    follows: ClassVar[Mapping[str, tuple[str, str]]] = {"above": ("voltage", "v_threshold")}
    memory: ClassVar[Mapping[str, str]] = {"current": "alpha", "voltage": "beta"}
    often_zero = ("drive", "v_reset")
    often_one: ClassVar[tuple[str, ...]] = ("gain",)
    regimes = ("float",)

    def __init__(self, reset: str) -> None:
        self.reset = reset
        if not reset.endswith("zero"):  # the threshold is taken off
            self.often_one = ("gain", "v_reset")  # type: ignore[misc]
        after = {
            "zero": "v[t] = v_reset where it spiked",
            "subtract": "v[t] -= v_reset where it spiked",
            "delayed": "v_reset is taken off v[t+1] where it spiked",
            "delayed_zero": "v[t+1] = v_reset where it spiked, whatever comes in",
        }
        suffix = "" if reset == "zero" else reset.title().replace("_", "")
        self.name = f"Lif{suffix}"  # type: ignore[misc]
        self.doc = (  # type: ignore[misc]
            f"Leaky integrate-and-fire neuron: u[t] = alpha u[t-1] + gain x[t]; v[t] = beta v[t-1] "
            f"+ u[t] + drive; s[t] = 1 where v[t] >= v_threshold, else 0; {after[reset]}."
        )

    def step(self, a: Any, x: Any, p: Any, s: Any, c: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step: integrate twice; reset where the threshold is reached."""
        u = a.scaled(s.current, p.alpha) + a.scaled(x.x, p.gain)
        v = a.scaled(s.voltage, p.beta) + u + p.drive
        late = self.reset.startswith("delayed")
        value = p.v_reset if self.reset.endswith("zero") else v - p.v_reset
        if late:  # the spike of the step before follows from its voltage
            v = a.reset(s.voltage >= p.v_threshold, value, v)
        above = v - p.v_threshold  # rounding never changes the sign of a difference
        after = v if late else a.reset(above >= 0, value, v)
        return {"current": u, "voltage": after}, {"current": u, "voltage": v, "above": above}

    def fire(self, a: Any, v: Any, c: Any) -> Any:
        """Spike where the voltage reaches the threshold."""
        return a.spike(v.above >= 0, v.above, 0)


_EQUATIONS = {reset: register_equation(Lif(reset)) for reset in RESETS}

#: (reset, whether the voltage is clipped) -> the equation of several spikes in a time step
_COUNTED = counted_equations(Lif.parameters, Lif.states)


class Neuron(base.Neuron):
    """Leaky integrate-and-fire neuron in floats.

    u[t] = alpha u[t-1] + gain x[t]; v[t] = beta v[t-1] + u[t] + drive; it spikes where v[t] >
    threshold (or >=, where it is not strict). alpha = 0 leaves no current, beta = 1 no leak.
    Every parameter is one number, or a tensor: one a channel (C,) or one a neuron (C, H, W).

    Args:
        threshold: voltage above which the neuron spikes.
        beta: fraction of the voltage kept per time step.
        alpha: fraction of the current kept per time step.
        gain: factor on the input.
        drive: added to the voltage at every time step.
        reset: "zero" sets the voltage to ``reset_value`` where it spiked; "subtract" takes the
            threshold off; "delayed" takes it off in the next step, after the leak, and
            "delayed_zero" sets the voltage of the next step, so that its input is lost (both of
            snnTorch).
        reset_value: voltage after a spike, with "zero" and "delayed_zero".
        strict: spike above the threshold, and not at it.
        max_spikes: most spikes in a time step, a whole number or ``math.inf``. With more than one
            the output is a count: floor(voltage / threshold), and "subtract" takes the threshold
            off once for each. It goes with "zero" and "subtract", thresholds above 0 and
            ``strict=False`` (sinabs, Rockpool).
        lowest: lowest voltage after a time step, where there is one (sinabs' ``min_v_mem``);
            likewise.
        tau_grad: width of the surrogate gradient, relative to the mean threshold.
        scale_grad: height of the surrogate gradient.
        scale: integer that represents a weight of 1.0 in :meth:`quantize_8bit`.
        norm: constructor of a norm of the input, or None.
        dropout: module applied to the spikes (N, C[, H, W], T), or None.
        shared_param: not used: the shape of a parameter says whether neurons share it.
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn the parameters.
        graded_spike: False: spikes are 0 and 1.
        regime: "float".

    Raises:
        InputError: a parameter is no finite number, or the reset is none of these.

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=1.0, beta=0.5)
        >>> neuron(torch.full((1, 1, 6), 0.75))  # 0.75, 1.125, and once more from 0
        tensor([[[0., 1., 0., 1., 0., 1.]]])
    """

    equation = _EQUATIONS["zero"]
    example: ClassVar[Mapping[str, Any]] = {"threshold": 0.5, "beta": 0.75, "alpha": 0.25}
    # the surrogate gradient takes the distance from the threshold
    tau_rho_mult, scale_rho_mult = 1, 1
    grades = False

    def __init__(
        self,
        threshold: Values = 1.0,
        beta: Values = 0.9,
        alpha: Values = 0.0,
        gain: Values = 1.0,
        drive: Values = 0.0,
        reset: str = "zero",
        reset_value: Values = 0.0,
        strict: bool = True,
        max_spikes: float = 1,
        lowest: Values | None = None,
        *,
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        graded_spike: bool = False,
        regime: str = "float",
    ) -> None:
        if reset not in RESETS:
            raise InputError(f"reset must be one of {', '.join(RESETS)}, got {reset!r}")
        if regime != "float":
            raise InputError(f"lif neuron: regime must be float, got {regime!r}")
        if graded_spike:
            raise InputError("lif neuron: its spikes are 0 and 1; leave graded_spike away")
        self.reset_kind, self.strict = reset, strict
        level = _tensor("threshold", threshold)
        counted = max_spikes != 1 or lowest is not None
        if counted:
            _check_counted(reset, strict, level, max_spikes)
        self.max_spikes = min(float(max_spikes), _NEVER)
        if counted:
            self.equation = _COUNTED[reset, lowest is not None]  # type: ignore[misc]
            self.decays = tuple(p.name for p in self.equation.parameters)  # type: ignore[misc]
        else:
            self.equation = _EQUATIONS[reset]  # type: ignore[misc]
        values = {
            "alpha": alpha,
            "beta": beta,
            "gain": gain,
            "drive": drive,
            # float32 has a next number: one comparison serves both
            "v_threshold": torch.nextafter(level, torch.tensor(math.inf)) if strict else level,
            "v_reset": reset_value if reset.endswith("zero") else level,
            "lowest": lowest,
        }
        super().__init__(
            float(level.abs().mean()), values,
            tau_grad, scale_grad, scale, norm, dropout, shared_param,
            persistent_state, requires_grad, graded_spike, regime,
        )  # fmt: skip

    def _register_parameters(self, values: Mapping[str, Any]) -> None:
        for parameter in self.equation.parameters:
            value = _tensor(parameter.name, values[parameter.name])
            learned = self.requires_grad and not (parameter.name == "v_reset" and self._subtracts)
            setattr(self, parameter.name, nn.Parameter(value, requires_grad=learned))

    @property
    def _subtracts(self) -> bool:
        """Whether a spike takes the threshold off."""
        return not self.reset_kind.endswith("zero")

    def parameter_value(self, name: str) -> Tensor:
        """Return a parameter as the ops take it; v_reset follows the threshold where subtracted."""
        value = super().parameter_value(name)
        if name != "v_reset" or not self._subtracts or self.readout:
            return value
        if name in self._buffers:  # frozen
            return value
        level = super().parameter_value("v_threshold")
        if not self.strict:
            return level
        # exactly the number below, with the threshold's gradient
        last = level.detach()
        return level - (last - torch.nextafter(last, torch.tensor(-math.inf)))

    def clamp(self) -> None:
        """Leave the parameters as they are: there is no range to keep them in."""

    def constants(self) -> dict[str, float]:
        """Return the most spikes in a time step, of a neuron that counts them."""
        return {"most": self.max_spikes} if self.equation.counts else {}

    def _build(self, shape: torch.Size) -> None:
        for name in self.decays:
            value: Tensor = getattr(self, name)
            if value.numel() != 1 and value.shape not in (shape, shape[:1]):
                raise ShapeError(
                    f"lif neuron: {name} has shape {tuple(value.shape)} and the neurons "
                    f"{tuple(shape)}, (C[, H, W])"
                )

    def as_readout(self) -> None:
        """Never spike and never reset: the voltage is the output then."""
        super().as_readout()
        self.v_threshold.data = torch.full((1,), _NEVER)

    def spike(self, above: Tensor) -> Tensor:
        """Return the spikes of the last variable that :meth:`dynamics` returned.

        Raises:
            InputError: the neuron counts its spikes, which that variable does not say.
        """
        if self.equation.counts:
            raise InputError(
                "lif neuron: with max_spikes or lowest its counts do not follow from one variable; "
                "call the neuron itself"
            )
        return self._dropped(spike(above, 0.0, *self._surrogate, False))

    def margin(self, input: base.Current) -> Tensor:
        """Return how far the voltage is above the threshold, over time, before resets."""
        return self.dynamics(input)[2]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Take the parameters' shapes from the checkpoint."""
        for name in self.decays:
            value = state_dict.get(prefix + name)
            if isinstance(value, Tensor):
                old: nn.Parameter = getattr(self, name)
                old.data = old.data.new_zeros(value.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, reset, and the range of every parameter of this frozen neuron."""
        facts = super().describe()
        del facts["decays"]  # one a neuron may be as many as weights
        ranges = {}
        for name in self.decays:
            value: Tensor = getattr(self, name)
            ranges[name] = [float(value.min()), float(value.max())]
        if facts["threshold"] is not None:
            facts["threshold"] = sorted(set(ranges["v_threshold"]))
        if self.equation.counts:
            facts["max_spikes"] = None if self.max_spikes == _NEVER else self.max_spikes
        return facts | {"reset": self.reset_kind, "ranges": ranges}


def _check_counted(reset: str, strict: bool, level: Tensor, max_spikes: float) -> None:
    """Check the options of a neuron that counts its spikes, or that has a lowest voltage."""
    if not (max_spikes >= 1 and max_spikes in (math.inf, math.floor(min(max_spikes, _NEVER)))):
        raise InputError(
            f"lif neuron: max_spikes must be a whole number of at least 1, or infinite, got "
            f"{max_spikes}"
        )
    if reset not in ("zero", "subtract"):
        raise InputError(
            f"lif neuron: max_spikes and lowest go with reset 'zero' or 'subtract', got {reset!r}"
        )
    if strict:
        raise InputError(
            "lif neuron: max_spikes and lowest go with strict=False: a voltage of two thresholds "
            "is two spikes"
        )
    if not bool((level > 0).all()):
        raise InputError(
            f"lif neuron: max_spikes and lowest go with thresholds above 0, got "
            f"{float(level.min()):g}"
        )


def _tensor(name: str, value: Any) -> Tensor:
    """A parameter as float32: (1,), (C,) or (C, H, W)."""
    tensor = torch.as_tensor(value, dtype=torch.float32)
    tensor = tensor.detach().clone() if tensor.dim() in (1, 3) else tensor.detach().reshape(1)
    if not bool(tensor.isfinite().all()):
        raise InputError(f"lif neuron: {name} must be finite, got {value}")
    return tensor
