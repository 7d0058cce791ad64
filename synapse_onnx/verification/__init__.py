"""The proof: a network in torch against its model in ONNX Runtime.

``verifier`` holds the public function. The way of a comparison:

- ``subject``: both sides, opened, and which outputs and layers count;
- ``reference``: what is compared, where that is not the network of the export;
- ``structure``: names and parameters of the file against the module's, before any run;
- ``construction``: the whole file against what the network compiles to, in its ``normal_form`` if a
  tool has written it anew;
- ``trace``: torch with the input and output of each layer (``recording``), without the calls that
  nothing uses (``liveness``), and ONNX Runtime;
- ``exercise``: which inputs, layers and outputs were active at all, which branches ran;
- ``layers``: each layer by its trajectory and, by ``replay``, on its own input;
- ``outputs``: the whole network, in one piece;
- ``chunks``: a stream; ``followed``, ``continued``, ``doubts``: torch beside it, from its states;
- ``probes``: each layer alone, in a model that is ``cut`` before every layer, on ``stimuli``;
- ``findings``: what the report is made of.

Two standards, chosen for each value by what the graph allows:

- **exact**: every operator before it is exact (integers, fixed point, one rounding an element)
  and every quantised sum stays below 2**24, shown from the weights and from the inputs of this
  run (``sums``). Any difference is a failure.
- **close**: sums of floats, in no fixed order. Currents may differ by ``rtol`` times the largest
  sum of magnitudes, ``max(sum |w| |x|)``, which is what rounding is relative to; values that no
  synapse has summed, by ``rtol * max|reference|``.
  A difference of one rounding can flip a spike, and from there on the two trajectories are not
  comparable (``arrays``). So every layer is also run in torch on the input that it had in ONNX
  Runtime (``replay``). There a fixed-point neuron must give the same spikes, and a synapse must be
  close, at all times; a float neuron may differ from where its membrane is within ``rtol`` of the
  threshold (``membranes``). A neuron that feeds back sums of floats is given the spikes that it
  had in ONNX Runtime, too: feedback may let a rounding grow without end.

How near a membrane is to its threshold, and what a rounding error can change, only the neuron
itself can answer: one with an equation as ``neuron.base.Neuron`` does, one without as
``EncodingNeuron`` says. Any other layer is compared all the same, without margins.
"""
