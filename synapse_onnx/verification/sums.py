"""How the sums of synapses round: where they are exact, and what their rounding is relative to.

Sums of floats have no fixed order. Torch and ONNX Runtime add the same terms in different orders,
so their results differ by roundings of up to 2**-24 of the sum of the terms' magnitudes, which may
be much larger than the sum itself: 1e6 - 1e6 + 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from synapse_onnx.compiler.exactness import has_exact_sums
from synapse_onnx.model.operators import FLOAT32_EXACT
from synapse_onnx.synapse import GenericLayer
from synapse_onnx.synapse.complex import ComplexLayer
from synapse_onnx.verification.findings import Findings
from synapse_onnx.verification.subject import Subject
from synapse_onnx.verification.trace import Call

__all__ = ["exact_layers", "magnitudes", "sums_of"]

#: of a finer grid, products with a weight may lose their last bits, for float32 ends at 2**-149
_FINEST = 2.0**-100


def sums_of(layer: Any) -> tuple[GenericLayer, ...]:
    """Return the real synapses whose sums a layer returns, one an output; none of another layer."""
    if isinstance(layer, ComplexLayer):
        return layer.real, layer.imag
    return (layer,) if isinstance(layer, GenericLayer) else ()


def magnitudes(synapse: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Return ``sum |w| |x| + |bias|`` of a synapse: one tensor an output, of its shape."""
    results = []
    for part in sums_of(synapse):
        prepared, restore = part.prepare(x.abs())
        weight = part.effective_weight.abs()
        linear_map = part.forms(prepared)[0].torch_op
        total = linear_map(prepared, weight, *part.geometry(prepared))
        if part.bias is not None:
            total = total + part.bias.abs().reshape(-1, *[1] * (total.dim() - 2))
        results.append(restore(total))
    return tuple(results)


def exact_layers(subject: Subject, findings: Findings, calls: Iterable[Call]) -> dict[str, bool]:
    """Return which layers that sum are exact on the inputs of this run, by path."""
    exact: dict[str, bool] = {}
    for call in calls:
        description = subject.descriptions[call.path]
        sums = not description.keys().isdisjoint({"quantized", "feedback", "sums"})
        if not sums or subject.spares_layer(call.path):
            continue
        fits = _has_exact_input(call, description)
        if fits is False:
            findings.note(
                f"{call.path}: its input is too fine or too large for exact float32 sums (bound: "
                f"{_summed(call, description)[1]} units of the input's grid), so it is compared "
                f"with a tolerance"
            )
        exact[call.path] = exact.get(call.path, True) and bool(fits)
    return exact


def _has_exact_input(call: Call, facts: Mapping[str, Any]) -> bool | None:
    """Whether the float32 sums of a layer are exact on the input of this call.

    The weights are whole multiples of one power of two. So the sums are exact if the input lies on
    a binary grid, too, and no sum needs more than the 24 bits of a float32. None where the layer's
    sums, as the frozen layer describes them, are not exact on any input.
    """
    if not has_exact_sums(facts):
        return None
    x, bound = _summed(call, facts)
    return grid_units(x) <= bound


def _summed(call: Call, facts: Mapping[str, Any]) -> tuple[Tensor, int]:
    """Return what a layer sums over, and the largest value, in its grid's units, of exact sums."""
    if "feedback" in facts:  # the neuron's own spikes
        return call.outputs[0], int(facts["feedback"].get("input_bound", 0))
    if "quantized" in facts:
        return call.inputs[0], int(facts.get("input_bound", 0))
    # a mean: each output is the sum of so many inputs
    terms = math.ceil(call.inputs[0].numel() / call.outputs[0].numel())
    return call.inputs[0], (FLOAT32_EXACT - 1) // terms


def grid_units(x: Tensor) -> float:
    """Return max|x| in units of the coarsest binary grid that holds every value of x.

    [0.5, 0.75] lies on a grid of 1/4 and has 3 units, [0.1] has 13421773; [8388608, 2**-23] needs
    more than 24 bits: inf. So has 2**-120: its product with a weight may lie below all float32.
    """
    largest = float(x.abs().max())
    if largest == 0:
        return 0.0
    unit = 1.0
    # spikes end this at once; a grid finer than 2**-24 of the largest value never fits anyway
    while not bool((torch.remainder(x / unit, 1) == 0).all()):
        unit /= 2
        if largest / unit > FLOAT32_EXACT or unit < _FINEST:
            return float("inf")
    return largest / unit
