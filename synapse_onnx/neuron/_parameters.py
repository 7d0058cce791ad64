"""Parameters of a neuron: declared by its equation, registered, drawn, clamped and frozen here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.grid import round_to_grid
from synapse_onnx.neuron._common import Common
from synapse_onnx.ops import Equation

__all__ = ["Decay", "Parametric"]

#: a parameter is one number, or (least, most) from which every channel draws its own
Decay = float | tuple[float, float]


class Parametric(Common):
    """A neuron whose parameters are those of its equation's table.

    A parameter is stored as lava-dl's checkpoints have it: float32, (1,) or one a channel (C,), a
    decay of one being 4096 in fixed point and 1 in float.
    """

    #: the equation, with the tables of parameters and states
    equation: ClassVar[Equation]
    #: names of the parameters, from that table
    decays: ClassVar[tuple[str, ...]] = ()
    #: names of the states, from that table
    states: ClassVar[tuple[str, ...]] = ()

    #: added at every step in the loihi regime, in the unit of the threshold; None without a bias
    bias: Tensor | None
    #: (least, most) of every parameter that the first input draws, in units of one
    _ranges: dict[str, tuple[float, float]]

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
        signature = _with_common(inspect.signature(cls.__init__))
        if signature is not None:
            cls.__signature__ = signature  # type: ignore[attr-defined]

    # -- parameters --------------------------------------------------------------------------

    def _register_parameters(self, values: Mapping[str, Decay]) -> None:
        """Register every parameter of the table, with its value or the least of its range."""
        for parameter in self.equation.parameters:
            if parameter.name in values:  # a resonator's rotation follows from other values
                span = self._range(parameter.name, values[parameter.name], parameter.jitter)
                if not self.shared_param:
                    self._ranges[parameter.name] = span
                self._set_parameter(parameter.name, torch.tensor([span[0]]))

    def _set_parameter(self, name: str, value: Tensor) -> None:
        """Register a parameter from its value in units of one."""
        start = self.decay_scale * value.to(torch.float32)
        setattr(self, name, nn.Parameter(start, requires_grad=self.requires_grad))

    def _range(self, name: str, value: Decay, jitter: float = 0.0) -> tuple[float, float]:
        """Check a parameter; return the range that channels draw theirs from.

        A jitter may pass one; :meth:`clamp` brings it back.
        """
        if isinstance(value, (int, float)):
            least = most = float(value)
            spread = 0.0 if self.shared_param else jitter
        elif self.shared_param or len(value) != 2:
            raise InputError(
                f"{name} must be a number"
                + ("" if self.shared_param else " or a pair (least, most)")
                + f" when shared_param is {self.shared_param}, got {value!r}"
            )
        else:
            (least, most), spread = value, 0.0
        self._check_range(name, least, most, value)
        return least * (1 - spread), most * (1 + spread)

    def _check_range(self, name: str, least: float, most: float, given: Decay) -> None:
        if not 0 <= least <= most <= 1:
            raise InputError(f"{name} must lie in [0, 1], got {given!r}")

    @property
    def decay_scale(self) -> int:
        """Unit of the stored decays: 4096 in fixed point, 1 in float."""
        return 1 if self.regime == "float" else self.p_scale

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        tensor: Tensor = getattr(self, self.decays[0])
        return tensor.device

    def _device_params(self) -> dict[str, Any]:
        return {"gradedSpike": self.graded_spike}

    def clamp(self) -> None:
        """Bring the parameters back into their range."""
        with torch.no_grad():
            for name in self.decays:
                getattr(self, name).clamp_(0, self.decay_scale)

    def parameter_value(self, name: str) -> Tensor:
        """Return a parameter as the ops take it: rounded to 4096ths in fixed point."""
        value: Tensor = getattr(self, name)
        frozen = name in self._buffers  # functional_call puts in tensors that are no parameters
        return value if frozen or self.regime == "float" else round_to_grid(value)

    def _values(self) -> list[Tensor]:
        """Parameters as the ops take them, in the table's order."""
        if self.training and self.requires_grad:
            self.clamp()
        values = [self.parameter_value(name) for name in self.decays]
        return values if self.bias is None else [*values, self.bias]

    def set_bias(self, bias: Tensor) -> None:
        """Set the bias of the loihi regime, added at every step.

        It takes the place of a norm: cuba adds it to the voltage, alif to the current.

        Args:
            bias: (1,), one a channel (C,) or one a neuron (C, H, W); in the unit of the threshold,
                a multiple of a state's unit, 1 / (64 scale).

        Raises:
            InputError: the neuron has no bias, or this one is on no grid of its scale.
        """
        if self.bias is None:
            raise InputError(f"{self.kind} neuron: no bias in the {self.regime} regime")
        units = bias.detach().to(torch.float32) * self.s_scale
        if not bool((units == units.round()).all()):
            raise InputError(
                f"{self.kind} neuron: a bias must be a multiple of 1 / {self.s_scale}, its unit"
            )
        self.bias = (units / self.s_scale).to(self.bias.device)

    def _integer(self, name: str) -> Any:
        """A parameter as Loihi takes it: an int, or an array of them."""
        value = torch.round(getattr(self, name).detach()).to("cpu", torch.int64).numpy()
        return int(value[0]) if len(value) == 1 else value

    # -- first input -------------------------------------------------------------------------

    def _build(self, shape: torch.Size) -> None:
        """Draw the parameters of every channel; check those that a checkpoint gave."""
        if self._ranges:
            for name, value in self._draw(shape[0]).items():
                old: nn.Parameter = getattr(self, name)
                old.data = self.decay_scale * value.to(old.device)
            self._ranges.clear()
        for name in self.decays:
            channels = getattr(self, name).numel()
            if channels not in (1, shape[0]):
                raise ShapeError(f"{name} holds {channels} channels and the current has {shape[0]}")
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

    def settle(self) -> None:
        """Keep the parameters as they are: no input draws them any more."""
        self._ranges.clear()

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
        facts = super().describe()
        if self.bias is not None and bool(self.bias.any()):
            facts["bias"] = self.bias.tolist()
        facts["decays"] = {name: getattr(self, name).tolist() for name in self.decays}
        return facts

    def extra_repr(self) -> str:
        """Threshold, parameters and regime, for the module's repr."""
        parts = [f"threshold={self.threshold:g}"]
        for name in self.decays:
            value = getattr(self, name).detach() / self.decay_scale
            text = f"{value.item():g}" if value.numel() == 1 else f"{value.numel()} channels"
            parts.append(f"{name}={text}")
        return ", ".join([*parts, f"regime={self.regime}"])


def _with_common(signature: inspect.Signature) -> inspect.Signature | None:
    """Return a constructor's signature with the common arguments in the place of ``**common``.

    ``(self, threshold, **common)`` becomes ``(threshold, *, tau_grad=1, scale_grad=1, ...)``, which
    help() shows. None where the constructor names all of its arguments.
    """
    own = list(signature.parameters.values())[1:]
    named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(named) == len(own):
        return None
    common = list(inspect.signature(Common.__init__).parameters.values())[2:]
    names = {p.name for p in named}
    common = [p.replace(kind=p.KEYWORD_ONLY) for p in common if p.name not in names]
    return inspect.Signature([*named, *common])


def _integer_property(name: str) -> property:
    def read(self: Parametric) -> Any:
        return self._integer(name)

    read.__doc__ = f"``{name}`` as Loihi takes it: an integer in 4096ths, or an array of them."
    return property(read)
