"""Neurons stated once: one step of an equation becomes torch ops and ONNX functions.

An :class:`Equation` declares its parameters, states and constants in tables and states one step
of the neuron in plain operators. :func:`register_equation` derives from it, for every numeric
regime (slayer's fixed point, floats, Loihi's 24 bits),

=====================  ====================================================================
``X``                  currents -> spikes and last states: the neuron as one node
``XDynamics``          currents -> traces of its variables and last states, for readouts
``RecurrentX``         currents and weights -> spikes, fed back within the loop over time
=====================  ====================================================================

each with torch op, fake kernel, surrogate gradient, symbolic function, ONNX body and samples. The
step runs on tensors (:mod:`synapse_onnx.ops.arithmetic`) and on ONNX values:

======================  ===================================================================
:mod:`._declaration`    what an equation declares
:mod:`._interface`      names of an op's inputs, outputs and attributes
:mod:`._running`        the step on tensors
:mod:`._arithmetic`     the step on ONNX values
:mod:`._loop`           the loop over time: what leaves it, and the Scan
:mod:`._bounds`         bounds of a whole sequence, for the choice between 32 and 64 bits
:mod:`._omits`          what a node's body may leave out
:mod:`._body`           the body: loops, and the choices between them
:mod:`._op`             torch op and registration
======================  ===================================================================
"""

from synapse_onnx.ops.equation._declaration import REGIMES, Equation, Parameter, State
from synapse_onnx.ops.equation._op import NeuronOp, register_equation

__all__ = ["REGIMES", "Equation", "NeuronOp", "Parameter", "State", "register_equation"]
