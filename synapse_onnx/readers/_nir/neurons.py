"""NIR's neurons: one function a primitive, from a node to :class:`synapse_onnx.neuron.lif.Neuron`.

Each returns u[t] = alpha u[t-1] + gain x[t]; v[t] = (1 - decay) v[t-1] + u[t] + drive, with the
terms that the framework's convention makes of NIR's differential equation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from synapse_onnx import neuron, synapse
from synapse_onnx.block.base import Bias
from synapse_onnx.readers._fields import Array
from synapse_onnx.readers._layers import with_weight
from synapse_onnx.readers._nir.modules import FeedbackNeuron, Offset, chain
from synapse_onnx.readers._nir.node import Layer, Node

__all__ = ["current_based", "integrator", "leaky"]

_ZERO = np.asarray(0.0)


def integrator(node: Node) -> Layer:
    """I, IF: dv/dt = r x."""
    step = node.convention.dt if node.convention.integrate == "dt" else 1.0
    gain = node.array("r") * step
    return _layer(node, alpha=_ZERO, gain=gain, decay=_ZERO, drive=_ZERO, spikes=node.kind == "IF")


def leaky(node: Node) -> Layer:
    """LI, LIF: tau dv/dt = (v_leak - v) + r x."""
    spikes = node.kind == "LIF"
    tau, decay = node.positive("tau"), _decay(node, "tau")
    return _layer(
        node,
        alpha=_ZERO,
        gain=node.convention.voltage_gain(tau, decay, spikes=spikes) * node.array("r"),
        decay=decay,
        drive=decay * node.array("v_leak"),
        spikes=spikes,
    )


def current_based(node: Node) -> Layer:
    """CubaLI, CubaLIF: tau_syn du/dt = -u + w_in x; tau_mem dv/dt = (v_leak - v) + r u."""
    spikes = node.kind == "CubaLIF"
    tau, decay = node.positive("tau_mem"), _decay(node, "tau_mem")
    current_decay = _decay(node, "tau_syn")
    gain = node.convention.voltage_gain(tau, decay, spikes=spikes) * node.array("r")
    return _layer(
        node,
        alpha=1 - current_decay,
        gain=gain * node.array("w_in") * node.convention.current_gain(current_decay),
        decay=decay,
        drive=decay * node.array("v_leak"),
        spikes=spikes,
    )


def _decay(node: Node, key: str) -> Array:
    """The fraction by which a state with the time constant ``key`` decays in a time step."""
    decay = node.convention.decay(node.positive(key))
    if decay.max() > 1 + 1e-6:
        raise node.invalid(
            key,
            f"a step of {node.convention.dt:g} s is longer than this time constant; give another "
            f"dt, or framework='norse' for a graph that Norse wrote",
        )
    return np.minimum(decay, 1)


def _layer(
    node: Node, *, alpha: Array, gain: Array, decay: Array, drive: Array, spikes: bool
) -> Layer:
    """Return a neuron from the terms of its difference equation."""
    convention = node.convention
    level = node.array("v_threshold") if spikes else _ZERO
    reset_value = node.array("v_reset") if spikes and node.has("v_reset") else _ZERO
    # our voltages start at zero, so they are taken relative to the initial voltage
    rests = {
        "zero": _ZERO,
        "v_reset": reset_value,
        "v_leak": node.array("v_leak") if node.has("v_leak") else _ZERO,
    }
    rest = rests[convention.rest]
    terms = {"alpha": alpha, "gain": gain, "beta": 1 - decay, "drive": drive - decay * rest}
    if spikes:
        terms |= {"threshold": level - rest, "reset_value": reset_value - rest}
    reset = convention.reset
    if reset == "zero" and (np.any(alpha != 0) or node.feedback):
        reset = convention.zero_behind
    values: dict[str, Any] = {name: node.neuron_values(value) for name, value in terms.items()}
    layer = neuron.lif.Neuron(**values, reset=reset, strict=convention.strict)
    if not spikes:
        layer.as_readout()
        offset = Offset(node.neuron_values(rest)) if rest.any() else None
        return chain(layer, offset), node.shape
    return (_with_feedback(node, layer) if node.feedback else layer), node.shape


def _with_feedback(node: Node, layer: Any) -> FeedbackNeuron:
    """Connect a neuron to itself by the sum of its feedback paths."""
    weights = [weight for weight, _ in node.feedback]
    if any(weight.shape != weights[0].shape for weight in weights):
        raise node.mismatch("its feedback", "several have several shapes")
    total = torch.stack(weights).sum(0)
    count = len(total)
    if node.shape is not None and node.shape != (count,):
        raise node.mismatch("its feedback", f"it has {count} neurons, and the node {node.shape}")
    recurrent = with_weight(synapse.Dense(count, count), total)
    biases = [bias for _, bias in node.feedback if bias is not None]
    bias = Bias(torch.stack(biases).sum(0)) if biases else None
    return FeedbackNeuron(layer, recurrent, bias)
