"""Weights that torch computes from others become plain weights, in the layers of this package.

torch computes a weight at every call where it is pruned, has a weight or spectral norm, or is
parametrised. A frozen layer holds the weights in use; so these are computed once. In other modules
they are part of the traced graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from synapse_onnx.errors import InputError

__all__ = ["fold_computed"]


def fold_computed(layer: nn.Module) -> None:
    """Turn the computed tensors of a copied layer, and of those within, into parameters.

    Raises:
        InputError: a tensor cannot be computed.
    """
    for module in layer.modules():
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, prune.BasePruningMethod):
                name: str = hook._tensor_name
                _untie(module, f"{name}_orig")
                _remove(prune.remove, module, name, "pruning", "prune.remove")
            elif isinstance(hook, WeightNorm):
                _remove(remove_weight_norm, module, hook.name, "weight norm", "remove_weight_norm")
            elif isinstance(hook, SpectralNorm):
                _untie(module, f"{hook.name}_orig")
                _remove(
                    remove_spectral_norm, module, hook.name, "spectral norm",
                    "remove_spectral_norm",
                )  # fmt: skip
        if parametrize.is_parametrized(module):
            _unparametrise(module)


def _unparametrise(module: nn.Module) -> None:
    """Make the results of parametrisations parameters, and the module one of its own class.

    ``remove_parametrizations`` also takes the property off the class that torch made for the
    module, which the module that was copied still has.
    """
    parts: Any = module.parametrizations
    values: dict[str, Tensor] = {}
    for name in parts:
        try:
            values[name] = getattr(module, name).detach().clone()
        except Exception as error:  # code of the user's
            raise _refusal(
                module, name, "parametrisation", "parametrize.remove_parametrizations", error
            ) from error
    buffers = {name for name in values if "original" in parts[name]._buffers}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        if name in buffers:
            module.register_buffer(name, value)
        else:
            setattr(module, name, nn.Parameter(value, requires_grad=False))


def _untie(module: nn.Module, name: str) -> None:
    """Give a parameter its own memory: torch writes the result where the original was."""
    old = module._parameters.get(name)
    if old is not None:
        module._parameters[name] = nn.Parameter(old.detach().clone(), requires_grad=False)


def _remove(
    remove: Callable[[Any, str], Any], module: nn.Module, name: str, what: str, remedy: str
) -> None:
    try:
        remove(module, name)
    except Exception as error:  # code of the user's
        raise _refusal(module, name, what, remedy, error) from error


def _refusal(module: nn.Module, name: str, what: str, remedy: str, error: Exception) -> InputError:
    reason = str(error).split("\n")[0]
    return InputError(
        f"the {what} of {type(module).__name__}.{name} cannot be computed "
        f"({type(error).__name__}: {reason}); call torch.nn.utils.{remedy} on the network first"
    )
