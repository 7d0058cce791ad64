"""Which values of an exported graph are equal to the last bit in every runtime.

A value is exact if every operator before it is: see :class:`synapse_onnx.model.operators.Operator`
for those of ONNX; ops of ours say it of themselves (``OpDef.exact``), or leave it to their layer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx

from synapse_onnx.model.metadata import layer_of
from synapse_onnx.model.operators import operator_of
from synapse_onnx.ops import DOMAIN, get_op

__all__ = ["exact_values", "has_exact_sums"]


def has_exact_sums(facts: Mapping[str, Any]) -> bool:
    """Whether the sums of a layer are exact while its input is small enough.

    Args:
        facts: the layer's ``describe()``. A synapse sums products with its weights, a neuron with
            feedback those of its feedback, a mean its inputs. A bias that torch adds within the sum
            rounds in another order than one that is added after it.
    """
    synapse = facts.get("feedback", facts)
    if "quantized" in synapse:
        whole = bool(synapse.get("power_of_two")) and not synapse["wide"]
        return whole and not synapse.get("biased")
    return bool(facts.get("sums"))


def exact_values(
    model: onnx.ModelProto, layers: Mapping[str, bool], given: Collection[str] = ()
) -> set[str]:
    """Return the names of exact values.

    Args:
        model: a graph whose nodes of our domain carry their layer's path in their metadata.
        layers: path of each layer that sums -> whether its products and sums are exact.
        given: names of values that are taken to be exact, whatever computes them.
    """
    exact = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    exact |= {"", *given}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            declared = get_op(node.op_type).exact
            keeps = layers.get(layer_of(node) or "", False) if declared is None else declared
        else:
            keeps = operator_of(node).exact
        if keeps and all(name in exact for name in node.input):
            exact.update(node.output)
    return exact
