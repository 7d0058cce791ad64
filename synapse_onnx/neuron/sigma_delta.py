"""Sigma-delta neuron: an activation function whose changes alone are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from synapse_onnx._view import view
from synapse_onnx.axon import Delta
from synapse_onnx.dendrite import Sigma
from synapse_onnx.errors import InputError, ShapeError
from synapse_onnx.neuron import base

__all__ = ["Neuron", "neuron_params"]


#: activations that every runtime computes alike, to the last bit
_EXACT_ACTIVATIONS = (None, torch.relu, nn.functional.relu)


def neuron_params(device_params: dict[str, Any], scale: int = 1 << 6) -> dict[str, float]:
    """Translate Loihi's parameters (vThMant) to constructor arguments."""
    return {"threshold": device_params["vThMant"] / scale}


class Neuron(base.Common):
    """Sigma-delta neuron: sigma decoder, activation, delta encoder.

    a[t] = activation(norm(sum of x up to t) + bias); it sends a's change since it last sent, once
    that reaches the threshold, floored to 1 / (64 scale). Source: lava-dl,
    ``slayer/neuron/sigma_delta.py``.

    Args:
        threshold: least change of the activation that is sent, >= 0.
        activation: elementwise function of a tensor (``torch.nn.functional.relu``, for example);
            None leaves the sum as it is.
        tau_grad: width of the threshold's surrogate gradient.
        scale_grad: height of the threshold's surrogate gradient.
        scale: integer that represents a weight of 1.0; messages are multiples of 1 / (64 scale).
        cum_error: compare the sum of all changes since the last message with the threshold.
        norm: constructor of a norm, or None. It is applied to the sum, before bias and activation.
        dropout: module applied to the messages (N, C[, H, W], T), or None.
        shared_param: one threshold for all neurons; False: one a channel, (C,).
        persistent_state: keep the states from one call to the next, until :meth:`reset`.
        requires_grad: learn threshold and bias.
        regime: "slayer", or "loihi" (:mod:`synapse_onnx.ops.arithmetic.loihi`), where a threshold
            of zero sends every change.

    Example:
        >>> import torch
        >>> neuron = Neuron(threshold=0.5, activation=torch.relu)
        >>> neuron(torch.tensor([[[1.0, 0.0, -0.25, -1.0]]]))  # the sums: 1, 1, 0.75, -0.25
        tensor([[[ 1.,  0.,  0., -1.]]])
    """

    device_type = "SDNN"
    #: its messages are always graded
    grades = False
    example: ClassVar[Mapping[str, Any]] = {"threshold": 0.05, "activation": torch.relu}

    def __init__(
        self,
        threshold: float,
        activation: Callable[[Tensor], Tensor] | None,
        tau_grad: float = 1,
        scale_grad: float = 1,
        scale: int = 1 << 6,
        cum_error: bool = False,
        norm: Callable[[], nn.Module] | None = None,
        dropout: nn.Module | None = None,
        shared_param: bool = True,
        persistent_state: bool = False,
        requires_grad: bool = False,
        regime: str = "slayer",
    ) -> None:
        if regime == "float":
            raise InputError("sigma_delta neuron: regime must be slayer or loihi, got 'float'")
        super().__init__(
            threshold, tau_grad, scale_grad, scale, norm, dropout, shared_param, False,
            requires_grad, graded_spike=True, regime=regime,
        )  # fmt: skip
        if activation is not None and not callable(activation):
            raise InputError(
                f"activation must be a function of a tensor, or None, got {activation!r}"
            )
        self.activation = activation
        self.sigma = Sigma()
        self.delta = Delta(
            self._threshold, self.s_scale, tau_grad, scale_grad, cum_error, shared_param,
            requires_grad=requires_grad, regime=regime,
        )  # fmt: skip
        #: in a tuple, for it is a child already: the only part in use, where not both are
        self.part: tuple[nn.Module] | None = None
        self.bias_is_set = False
        self.bias: Any = nn.Parameter(torch.zeros(1), requires_grad=requires_grad)
        self.persistent_state = persistent_state

    @property
    def persistent_state(self) -> bool:
        """Whether decoder and encoder keep their states from one call to the next."""
        return self.sigma.persistent_state

    @persistent_state.setter
    def persistent_state(self, on: bool) -> None:
        if "sigma" in self.__dict__.get("_modules", {}):
            self.sigma.persistent_state = self.delta.persistent_state = on

    @property
    def threshold(self) -> Any:
        """Change that is sent: the encoder's parameter, (1,) or (C,)."""
        return self.delta.threshold

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.delta.device

    def _device_params(self) -> dict[str, Any]:
        return {"activation": getattr(self.activation, "__name__", "none")}

    def set_bias(self, bias: Tensor) -> None:
        """Set the bias before the activation: one number a neuron, (C[, H, W])."""
        if self.shape is not None:
            bias = bias.reshape(self.shape)
        self.bias.data = bias.to(self.bias.device)
        self.bias_is_set = True

    def reset(self) -> None:
        """Forget the states of decoder and encoder."""
        self.sigma.reset()
        self.delta.reset()

    def as_encoder(self) -> None:
        """Only encode: for an input, where there is nothing to sum up yet."""
        self.part = (self.delta,)

    def as_decoder(self) -> None:
        """Only decode: for an output, of which the sums are wanted."""
        self.part, self.spiking = (self.sigma,), False

    def _activate(self, input: Any) -> Tensor:
        x = self._real(input)
        self._check_shape(x)
        y = self.sigma(x)
        norm: Any = self.norm
        if norm is not None:
            y = norm(y)
        if self.bias_is_set:
            bias = self.bias
            if bias.dim() > 1 and bias.shape != self.shape:
                raise ShapeError(
                    f"sigma_delta neuron: the bias has shape {tuple(bias.shape)} and the current "
                    f"{tuple(x.shape)}"
                )
            if bias.dim() == 1:  # one a channel, or one for all
                bias = view(bias, -1, *(1,) * (x.dim() - 3))
            y = y + bias.unsqueeze(0).unsqueeze(-1)
        return y if self.activation is None else self.activation(y)

    def forward(self, input: base.Current) -> Tensor:
        """Return what is sent (N, C[, H, W], T) for currents of the same shape, float32.

        Raises:
            ShapeError: the input's rank, shape or batch does not match.
        """
        if self.part is None:
            return self._dropped(self.delta(self._activate(input)))
        x = self._real(input)
        self._check_shape(x)
        result: Tensor = self.part[0](x)
        return self._dropped(result) if self.spiking else result

    def encoder_input(self, input: base.Current) -> Tensor:
        """Return what the delta encoder is given for a current (N, C[, H, W], T)."""
        return self._real(input) if self.part else self._activate(input)

    @property
    def encodes_exactly(self) -> bool:
        """Whether every runtime gives its encoder the same input to the last bit.

        Sum and norm are computed in one order everywhere, and so is relu. For other activations
        ONNX Runtime has its own implementation: tanh differs from torch's in the last bits.
        """
        return bool(self.part) or self.activation in _EXACT_ACTIVATIONS

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the shape of the bias from the checkpoint; a bias of zero is no bias."""
        value = state_dict.get(prefix + "bias")
        if isinstance(value, Tensor):
            self.bias.data = self.bias.data.new_zeros(value.shape)
            self.bias_is_set = self.bias_is_set or bool((value != 0).any())
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _part_names(self) -> tuple[str, ...]:
        return *super()._part_names(), "sigma", "delta"

    def freeze(self) -> None:
        """Turn this neuron into its deployment form, in place (see ``synapse_onnx.freeze``)."""
        bias = self.bias.detach().clone()
        del self.bias
        self.register_buffer("bias", bias)
        self.sigma.freeze()
        self.delta.freeze()
        super().freeze()

    def describe(self) -> dict[str, Any]:
        """Return kind, regime, threshold, scale and activation of this frozen neuron."""
        return super().describe() | {"threshold": self.threshold.tolist(), **self._device_params()}

    def extra_repr(self) -> str:
        """Threshold and activation, for the module's repr."""
        return f"threshold={self._threshold:g}, {self._device_params()['activation']}"
