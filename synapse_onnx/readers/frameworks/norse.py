"""Norse: cells and layers of ``norse.torch``, and ``SequentialState`` of them.

Source: norse 1.1, ``torch/functional/lif.py`` and its neighbours. A neuron spikes above its
threshold, starts from ``v_leak``, and is reset within the step. The input adds to the current,
which drives the voltage before it decays. Cells see single steps and layers (T, N, ...), which
gives the same network here. ``method`` and ``alpha`` of the parameters choose a surrogate gradient:
ours has the height and area of "super", and its own for other methods.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from synapse_onnx.errors import InputError
from synapse_onnx.readers.frameworks import _terms as terms
from synapse_onnx.readers.frameworks._convert import Conversion, Framework
from synapse_onnx.readers.frameworks._over_time import (
    LayersOverTime,
    Seen,
    in_sequence,
    is_sequential,
    is_torchs,
    of_torch,
    once,
    users_code,
)

__all__ = ["FRAMEWORK"]

_PACKAGE = "norse"
_PREFIX = f"{_PACKAGE}."
#: neurons that see single steps, and those that see whole sequences
_CELLS = ("LIFCell", "LIFBoxCell", "LIFRecurrentCell", "LICell", "LIBoxCell", "LILinearCell",
          "IAFCell")  # fmt: skip
_SEQUENCES = ("LIF", "LIFRecurrent", "LI", "IAF")
_KNOWN = {"p", "dt", "input_size", "hidden_size", "input_weights", "recurrent_weights", "autapses",
          "record_states", "activation", "activation_sparse", "state_fallback"}  # fmt: skip
#: fields of a cell's parameters that are read, or that change gradients alone
_FIELDS = {"tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset", "method", "alpha",
           "reset_method"}  # fmt: skip


def _convert(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Return ours for a neuron, or a network for a sequence of them."""
    ours = conversion.framework_of(old) is not None
    if terms.nearest(old, _PREFIX) == "Lift":
        return _lifted(conversion, path, old)
    if terms.nearest(old, _PREFIX) == "SequentialState":
        _check_container(old)
    elif not is_sequential(old) or ours:
        if not ours:
            raise InputError(f"convert: {path or 'the module'} {users_code(old)}")
        return _neuron(old)
    # layers of torch beside layers for sequences see what these do
    names = {terms.nearest(part, _PREFIX) for part in _parts(old)}
    if names & set(_CELLS) and names & {*_SEQUENCES, "Lift"}:
        raise InputError(
            f"it holds {min(names & set(_CELLS))}, which takes single steps, beside "
            f"{min(names & {*_SEQUENCES, 'Lift'})}, which takes sequences"
        )
    seen = "TN" if names & {*_SEQUENCES, "Lift"} else "step"

    def own(place: str, layer: Any) -> tuple[nn.Module, Seen]:
        if terms.nearest(layer, _PREFIX) == "SequentialState":
            _check_container(layer)
            return in_sequence(conversion, place, layer, seen, own), ""
        return once(conversion, place, layer), ""

    return in_sequence(conversion, path, old, seen, own)


def _check_container(container: Any) -> None:
    """Check the options of a SequentialState."""
    terms.class_name(container, _PREFIX, ("SequentialState",))
    terms.check_option(container, "return_hidden", False, why="and ours returns the last output")


def _parts(container: nn.Module) -> list[nn.Module]:
    """Return the parts of a container, and those of the containers in it."""
    found: list[nn.Module] = []
    for part in container.children():
        nested = is_sequential(part) or terms.nearest(part, _PREFIX) == "SequentialState"
        found += _parts(part) if nested else [part]
    return found


def _lifted(conversion: Conversion, path: str, old: Any) -> nn.Module:
    """Lift: a module of single steps, for sequences."""
    terms.class_name(old, _PREFIX, ("Lift",))
    module = old.lifted_module
    held = {terms.nearest(part, _PREFIX) for part in module.modules()} & {*_SEQUENCES, "Lift"}
    if held:
        raise InputError(f"it takes single steps out, and holds {min(held)}, which takes sequences")
    place = f"{path}.lifted_module" if path else "lifted_module"
    if is_torchs(module) and not is_sequential(module):
        new = LayersOverTime({"lifted_module": of_torch(conversion.copied(module), "step")})
        new.training = old.training
        return new
    return conversion.layer(place, module)  # type: ignore[no-any-return]


def _neuron(layer: Any) -> nn.Module:
    """Neuron of Norse."""
    name = terms.class_name(layer, _PREFIX, (*_CELLS, *_SEQUENCES))
    terms.check_options(layer, _KNOWN, _PREFIX)
    terms.check_option(layer, "record_states", False, why="and ours returns no states")
    p, dt = layer.p, layer.dt
    unknown = sorted(set(getattr(p, "_fields", _FIELDS)) - _FIELDS)
    if unknown:
        value = getattr(p, unknown[0])
        raise terms.refused(f"p.{unknown[0]}", value, "which convert does not know")
    kind = name.removesuffix("Cell").removesuffix("Linear").removesuffix("Recurrent")
    values, learned = _terms_of(kind, p, dt)
    spikes = kind not in ("LI", "LIBox")
    rest = p.v_reset if kind == "IAF" else p.v_leak
    reset = _reset(p, rest) if spikes else {}
    new = terms.make_neuron(threshold=p.v_th if spikes else None, rest=rest, **values, **reset)
    if spikes:
        _set_surrogate(new, p)
        terms.learn(new, {**learned, "v_threshold": p.v_th})
    elif not isinstance(new, nn.Sequential):
        terms.learn(new, learned)
    if name.startswith("LIFRecurrent"):
        new = _with_feedback(layer, new)
    weights = getattr(layer, "input_weights", None)
    if weights is None:
        return new  # type: ignore[no-any-return]
    return nn.Sequential(terms.dense(weights), new)


def _reset(p: Any, rest: Any) -> dict[str, Any]:
    """Reset of ours."""
    method = getattr(getattr(p, "reset_method", None), "__name__", "reset_value")
    if method == "reset_value":
        return {"reset": "zero", "reset_value": p.v_reset}
    if method != "reset_subtract":
        raise terms.refused("p.reset_method", method)
    if bool((terms.exact(rest) != 0).any()):  # ours is counted from the rest, and its threshold too
        raise terms.refused(
            "p.reset_method", method, "which ours has only where voltages start from 0"
        )
    return {"reset": "subtract"}


def _terms_of(kind: str, p: Any, dt: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Terms of the difference equation; and the parameters of the layer, by ours."""
    if kind == "IAF":
        return {"beta": 1.0}, {}
    rate = dt * terms.exact(p.tau_mem_inv)
    values = {"beta": 1 - rate, "gain": rate, "drive": rate * terms.exact(p.v_leak)}
    learned = {"beta": p.tau_mem_inv, "gain": p.tau_mem_inv}
    if not kind.endswith("Box"):
        values["alpha"], learned["alpha"] = 1 - dt * terms.exact(p.tau_syn_inv), p.tau_syn_inv
    return values, learned


def _set_surrogate(new: Any, p: Any) -> None:
    """SuperSpike: 1 / (1 + alpha |x|)**2."""
    if p.method != "super":
        return
    alpha = float(p.alpha)

    def fire(x: Tensor) -> Tensor:
        return x / (1 + alpha * x.abs())

    terms.set_surrogate(new, fire)


def _with_feedback(layer: Any, new: Any) -> nn.Module:
    """Neuron with recurrent weights; without autapses their diagonal stays 0."""
    weight = layer.recurrent_weights
    kept = None if layer.autapses else 1 - torch.eye(len(weight))
    return terms.feedback(new, weight, kept=kept)


FRAMEWORK = Framework(
    name="Norse", package=_PACKAGE, layers="norse.torch.*", convert=_convert, in_steps=True
)
